//! Rules about subjects as raw bytes: the hot path asks these without building a type.
//!
//! A wildcard is a token that is exactly `*` or exactly `>`; inside a longer token both are literal text.

use crate::SubjectError;

/// The tokens of a subject or filter, split at each `.`. An empty input has one empty token.
pub fn tokens(subject: &[u8]) -> Tokens<'_> {
    Tokens { rest: Some(subject) }
}

/// How many tokens a subject or filter has.
pub fn token_count(subject: &[u8]) -> usize {
    memchr::memchr_iter(b'.', subject).count() + 1
}

/// Whether no token is a wildcard. Says nothing about validity.
pub fn is_literal(subject: &[u8]) -> bool {
    // Most subjects hold neither character at all, which one fast scan shows.
    memchr::memchr2(b'*', b'>', subject).is_none() || !tokens(subject).any(is_wildcard)
}

/// Whether [`Subject::parse`](crate::Subject::parse) accepts it: valid and without wildcards.
pub fn is_valid_subject(subject: &[u8]) -> bool {
    check_tokens(subject).is_ok() && is_literal(subject)
}

/// Whether [`Filter::parse`](crate::Filter::parse) accepts it: valid, with or without wildcards.
pub fn is_valid_filter(filter: &[u8]) -> bool {
    check_filter(filter).is_ok()
}

/// Whether a valid filter matches a valid literal subject.
pub fn matches(filter: &[u8], subject: &[u8]) -> bool {
    let mut subject = tokens(subject);
    let mut filter = tokens(filter);
    loop {
        match (filter.next(), subject.next()) {
            (None, None) => return true,
            (Some(b">"), Some(_)) if filter.rest.is_none() => return true,
            (Some(b"*"), Some(token)) if !token.is_empty() => {}
            (Some(want), Some(token)) if want == token => {}
            _ => return false,
        }
    }
}

/// Whether some subject matches both filters.
pub fn overlaps(a: &[u8], b: &[u8]) -> bool {
    let (mut a, mut b) = (tokens(a), tokens(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => return false,
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

/// Whether every subject that matches `inner` matches `outer` too.
pub fn is_subset(inner: &[u8], outer: &[u8]) -> bool {
    let (mut inner, mut outer) = (tokens(inner), tokens(outer));
    loop {
        match (inner.next(), outer.next()) {
            (None, None) => return true,
            (Some(_), Some(b">")) => return true,
            (Some(b">"), _) => return false,
            (Some(_), Some(b"*")) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

/// What forbids these bytes as a filter, if anything does.
pub(crate) fn check_filter(filter: &[u8]) -> Result<(), SubjectError> {
    check_tokens(filter)?;
    match tail_before_end(filter) {
        Some(at) => Err(SubjectError::TailNotLast { at }),
        None => Ok(()),
    }
}

/// What forbids these bytes as a literal subject, if anything does.
pub(crate) fn check_subject(subject: &[u8]) -> Result<(), SubjectError> {
    check_tokens(subject)?;
    if is_literal(subject) { Ok(()) } else { Err(SubjectError::Wildcard) }
}

/// Whether a token is missing: two dots in a row, or one at the start or the end.
pub(crate) fn has_empty_token(subject: &[u8]) -> bool {
    let mut previous = b'.';
    for &byte in subject {
        if byte == b'.' && previous == b'.' {
            return true;
        }
        previous = byte;
    }
    previous == b'.'
}

/// Whether the token matches more than itself.
pub(crate) fn is_wildcard(token: &[u8]) -> bool {
    token == b"*" || token == b">"
}

/// The rules that literal subjects and filters share.
fn check_tokens(subject: &[u8]) -> Result<(), SubjectError> {
    if subject.is_empty() {
        return Err(SubjectError::Empty);
    }
    let mut previous = b'.';
    for (at, &byte) in subject.iter().enumerate() {
        match byte {
            b'.' if previous == b'.' => return Err(SubjectError::EmptyToken { at }),
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => return Err(SubjectError::Whitespace { at }),
            _ => previous = byte,
        }
    }
    if previous == b'.' { Err(SubjectError::EmptyToken { at: subject.len() }) } else { Ok(()) }
}

/// Where a `>` token stands that is not the last token.
fn tail_before_end(filter: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'>', filter)
        .find(|&at| (at == 0 || filter[at - 1] == b'.') && filter.get(at + 1) == Some(&b'.'))
}

/// Iterator over tokens, made by [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    /// `None` once the last token was given.
    rest: Option<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    /// What follows the tokens given so far, dots included; `None` after the last token.
    pub fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        // Tokens are short: a plain loop beats the set-up of a vectorised search.
        match rest.iter().position(|&byte| byte == b'.') {
            Some(dot) => {
                self.rest = Some(&rest[dot + 1..]);
                Some(&rest[..dot])
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

#[cfg(test)]
mod tests;
