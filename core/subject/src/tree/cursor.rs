//! [`Cursor`]: how far a filter has matched a subject that is read byte by byte.

/// A place in a filter. A `*` takes exactly one token, so there is never more than one place to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cursor {
    /// The next byte is held against the filter's byte here.
    At(usize),
    /// Inside a token that a `*` took; the filter goes on here.
    Star(usize),
    /// A `>` took the rest.
    Tail,
}

/// What the next byte of a matching subject can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    Any,
    Only(u8),
    Nothing,
}

impl Cursor {
    pub(super) const START: Cursor = Cursor::At(0);

    /// The place after more bytes of the subject; `None` if the filter cannot match any more.
    pub(super) fn advance(self, filter: &[u8], bytes: &[u8]) -> Option<Cursor> {
        let mut cursor = self;
        for &byte in bytes {
            cursor = match cursor {
                Cursor::Tail => return Some(Cursor::Tail),
                Cursor::Star(_) if byte != b'.' => cursor,
                Cursor::Star(next) => (filter.get(next) == Some(&b'.')).then_some(Cursor::At(next + 1))?,
                Cursor::At(at) => match *filter.get(at)? {
                    b'*' if is_token(filter, at) => (byte != b'.').then_some(Cursor::Star(at + 1))?,
                    b'>' if is_last_token(filter, at) => Cursor::Tail,
                    want => (want == byte).then_some(Cursor::At(at + 1))?,
                },
            };
        }
        Some(cursor)
    }

    /// Whether a subject that ends here matches.
    pub(super) fn accepts(self, filter: &[u8]) -> bool {
        match self {
            Cursor::At(at) | Cursor::Star(at) => at == filter.len(),
            Cursor::Tail => true,
        }
    }

    pub(super) fn wanted(self, filter: &[u8]) -> Wanted {
        match self {
            Cursor::Star(_) | Cursor::Tail => Wanted::Any,
            Cursor::At(at) => match filter.get(at) {
                None => Wanted::Nothing,
                Some(b'*') if is_token(filter, at) => Wanted::Any,
                Some(b'>') if is_last_token(filter, at) => Wanted::Any,
                Some(&byte) => Wanted::Only(byte),
            },
        }
    }
}

fn starts_token(filter: &[u8], at: usize) -> bool {
    at == 0 || filter[at - 1] == b'.'
}

fn is_token(filter: &[u8], at: usize) -> bool {
    starts_token(filter, at) && filter.get(at + 1).is_none_or(|&next| next == b'.')
}

fn is_last_token(filter: &[u8], at: usize) -> bool {
    starts_token(filter, at) && at + 1 == filter.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matches;

    #[test]
    fn agrees_with_matching_by_tokens() {
        let filters: [&[u8]; 12] =
            [b"a", b"*", b">", b"a.*", b"a.>", b"*.b", b"*.*", b"*.>", b"a*", b"a.*.c", b"*x.>y", b"a.b.c"];
        let subjects: [&[u8]; 11] =
            [b"a", b"b", b"a.b", b"a.b.c", b"a*", b"ab", b"x.b", b"*x.>y", b"a.c.c", b"a.b.c.d", b"abc.b"];
        for filter in filters {
            for subject in subjects {
                let reached = Cursor::START.advance(filter, subject);
                let got = reached.is_some_and(|cursor| cursor.accepts(filter));
                assert_eq!(got, matches(filter, subject), "{filter:?} {subject:?}");
            }
        }
    }
}
