//! How a subject of one account reads in another.

use std::borrow::Cow;

use hw_subject::{Filter, Transform, is_literal, tokens};

use crate::sharing::RewriteError;

/// From a subject here to the subject there.
#[derive(Clone, Debug)]
pub(crate) enum Rewrite {
    /// It stays.
    Same,
    /// Always this one.
    Fixed(Box<[u8]>),
    /// Wildcards are taken over.
    Map(Box<Transform>),
}

impl Rewrite {
    /// Messages on `from` in the exporting account, heard as `to`: wildcards by their number, or in their order.
    pub(crate) fn forwards(from: &str, to: &str) -> Result<Rewrite, RewriteError> {
        if is_literal(from.as_bytes()) {
            return Ok(Rewrite::fixed(from, to));
        }
        if from == to {
            return Ok(Rewrite::Same);
        }
        let to = numbered(to);
        check_all_used(from, &to)?;
        Ok(Rewrite::Map(Box::new(Transform::new(from, &to)?)))
    }

    /// Requests on `from` in the importing account, asked as `to`: `from` says by number which wildcard of `to` it has
    /// where, or has them in their order.
    pub(crate) fn backwards(from: &str, to: &str) -> Result<Rewrite, RewriteError> {
        if is_literal(to.as_bytes()) {
            return Ok(Rewrite::fixed(from, to));
        }
        if from == to {
            return Ok(Rewrite::Same);
        }
        let numbered = numbered(from);
        check_all_used(to, &numbered)?;
        // Refuses what could not be turned around either.
        Transform::new(to, &numbered)?;
        let places: Vec<usize> = numbered.split('.').filter_map(number).collect();
        let mut next = 0;
        let turned: Vec<String> = to
            .split('.')
            .map(|token| match token {
                "*" => {
                    next += 1;
                    let place = places.iter().position(|&place| place == next).unwrap_or_default();
                    format!("${}", place + 1)
                }
                other => other.to_owned(),
            })
            .collect();
        Ok(Rewrite::Map(Box::new(Transform::new(unnumbered(from), turned.join("."))?)))
    }

    fn fixed(from: &str, to: &str) -> Rewrite {
        if from == to { Rewrite::Same } else { Rewrite::Fixed(to.as_bytes().into()) }
    }

    /// The subject there; `None` if this one is not meant.
    pub(crate) fn apply<'a>(&'a self, subject: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            Rewrite::Same => Some(Cow::Borrowed(subject)),
            Rewrite::Fixed(to) => Some(Cow::Borrowed(to)),
            Rewrite::Map(transform) => transform.apply(subject, 0).map(Cow::Owned),
        }
    }
}

/// With every `*` replaced by its number.
pub(crate) fn numbered(filter: &str) -> String {
    let mut next = 0;
    let tokens = filter.split('.').map(|token| match token {
        "*" => {
            next += 1;
            Cow::Owned(format!("${next}"))
        }
        other => Cow::Borrowed(other),
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// With every number replaced by a `*`.
pub(crate) fn unnumbered(filter: &str) -> String {
    let tokens = filter.split('.').map(|token| if number(token).is_some() { "*" } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

/// What messages on the filter can be called there, as a filter.
pub(crate) fn filter(text: &str) -> Option<Filter> {
    Filter::parse(unnumbered(text)).ok()
}

fn number(token: &str) -> Option<usize> {
    token.strip_prefix('$')?.parse().ok()
}

fn check_all_used(from: &str, to: &str) -> Result<(), RewriteError> {
    let stars = tokens(from.as_bytes()).filter(|&token| token == b"*").count();
    let used: Vec<usize> = to.split('.').filter_map(number).collect();
    match (1..=stars).all(|star| used.contains(&star)) {
        true => Ok(()),
        false => Err(RewriteError::Unused { to: to.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_rewritten_both_ways() {
        type Make = fn(&str, &str) -> Result<Rewrite, RewriteError>;
        let cases: [(Make, &str, &str, &str, Option<&str>); 10] = [
            (Rewrite::forwards, "a", "a", "a", Some("a")),
            (Rewrite::forwards, "a", "b", "a", Some("b")),
            (Rewrite::forwards, "a.*", "a.*", "a.x", Some("a.x")),
            (Rewrite::forwards, "a.*.*", "b.$2.$1", "a.x.y", Some("b.y.x")),
            (Rewrite::forwards, "a.>", "p.a.>", "a.x.y", Some("p.a.x.y")),
            (Rewrite::forwards, "a.*", "b.*", "c.x", None),
            (Rewrite::backwards, "b.$2.$1", "a.*.*", "b.x.y", Some("a.y.x")),
            (Rewrite::backwards, "b.*.*", "a.*.*", "b.x.y", Some("a.x.y")),
            (Rewrite::backwards, "b.$3.$1.$2", "a.*.*.*", "b.x.y.z", Some("a.y.z.x")),
            (Rewrite::backwards, "b.>", "a", "b.x", Some("a")),
        ];
        for (make, from, to, subject, want) in cases {
            let rewrite = make(from, to).unwrap_or_else(|error| panic!("{from} {to}: {error}"));
            let got = rewrite.apply(subject.as_bytes()).map(|got| String::from_utf8_lossy(&got).into_owned());
            assert_eq!(got.as_deref(), want, "{from} to {to}: {subject}");
        }
    }

    #[test]
    fn a_wildcard_must_not_be_lost() {
        let unused = |to: &str| RewriteError::Unused { to: to.into() };
        assert_eq!(Rewrite::forwards("a.*", "b").err(), Some(unused("b")));
        assert_eq!(Rewrite::backwards("b.$1", "a.*.*").err(), Some(unused("b.$1")));
        assert!(matches!(Rewrite::forwards("a.*", "b.>.$1"), Err(RewriteError::Transform(_))));
    }
}
