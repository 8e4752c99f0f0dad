//! Tests of the rules about subjects.

use proptest::prelude::*;

use super::*;
use crate::testing;
use crate::{Filter, Subject};

#[test]
fn subjects_and_filters_are_told_apart() {
    // (bytes, a subject, a filter); the answers for filters are those of nats-server to SUB, but for whitespace, which
    // cannot be written there.
    let cases: &[(&[u8], bool, bool)] = &[
        (b"", false, false),
        (b".", false, false),
        (b"foo", true, true),
        (b"foo.bar", true, true),
        (b"foo..bar", false, false),
        (b".foo", false, false),
        (b"foo.", false, false),
        (b"foo.>.bar", false, false),
        (b">.>", false, false),
        (b"foo.*.bar", false, true),
        (b"*", false, true),
        (b">", false, true),
        (b"*.>", false, true),
        (b">.*", false, false),
        (b"foo*", true, true),
        (b"foo.>x", true, true),
        (b"foo.x>.y", true, true),
        (b">>", true, true),
        (b"**", true, true),
        (b"f oo", false, false),
        (b"f\too", false, false),
        (b"foo\r", false, false),
        (b"foo\n", false, false),
        (b"f\x0co", false, false),
        (b"f\x00o", true, true),
        (b"f\x0bo", true, true),
        (b"f\x7fo", true, true),
        (b"\xff\xfe.a", true, true),
        ("ü.x".as_bytes(), true, true),
    ];
    for &(bytes, subject, filter) in cases {
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(is_valid_subject(bytes), subject, "{shown}");
        assert_eq!(Subject::parse(bytes).is_ok(), subject, "{shown}");
        assert_eq!(is_valid_filter(bytes), filter, "{shown}");
        assert_eq!(Filter::parse(bytes).is_ok(), filter, "{shown}");
    }
}

#[test]
fn refusals_say_where() {
    let cases: &[(&str, SubjectError)] = &[
        ("", SubjectError::Empty),
        (".a", SubjectError::EmptyToken { at: 0 }),
        ("a..b", SubjectError::EmptyToken { at: 2 }),
        ("a.", SubjectError::EmptyToken { at: 2 }),
        ("a b", SubjectError::Whitespace { at: 1 }),
        ("a.*", SubjectError::Wildcard),
        ("a.>", SubjectError::Wildcard),
    ];
    for (subject, want) in cases {
        assert_eq!(Subject::parse(subject), Err(*want), "{subject}");
    }
    assert_eq!(Filter::parse("a.>.b"), Err(SubjectError::TailNotLast { at: 2 }));
}

#[test]
fn filters_match() {
    let cases: &[(&str, &str, bool)] = &[
        ("foo", "foo", true),
        ("foo", "fo", false),
        ("fo", "foo", false),
        ("foo", "foo.bar", false),
        ("foo.bar", "foo", false),
        ("*", "foo", true),
        ("*", "foo.bar", false),
        ("*", "", false),
        ("foo.*", "foo.", false),
        ("foo.*", "foo", false),
        ("foo.*", "foo.bar", true),
        ("foo.*.baz", "foo.bar.baz", true),
        ("foo.*.baz", "foo.bar.bax", false),
        ("*.bar", "foo.bar", true),
        (">", "foo", true),
        (">", "foo.bar.baz", true),
        ("foo.>", "foo", false),
        ("foo.>", "foo.bar", true),
        ("foo.>", "foo.bar.baz", true),
        ("foo.*.>", "foo.bar", false),
        ("foo.*.>", "foo.bar.baz", true),
        ("foo*", "foox", false),
        ("foo*", "foo*", true),
        ("f.a>b", "f.a>b", true),
        ("f.a>b", "f.axb", false),
        // A published wildcard is text.
        ("foo.*", "foo.*", true),
        ("foo.x", "foo.*", false),
        ("foo.>", "foo.*", true),
        ("foo.*", "foo.>", true),
    ];
    for &(filter, subject, want) in cases {
        assert_eq!(matches(filter.as_bytes(), subject.as_bytes()), want, "{filter} {subject}");
    }
}

#[test]
fn filters_compare() {
    // (a, b, overlap, a within b, b within a)
    let cases: &[(&str, &str, bool, bool, bool)] = &[
        ("a", "a", true, true, true),
        ("a", "b", false, false, false),
        ("a", "a.b", false, false, false),
        ("a", "*", true, true, false),
        ("a.*", "*.b", true, false, false),
        ("a.*", "b.*", false, false, false),
        ("*", "*.*", false, false, false),
        (">", "*", true, false, true),
        (">", ">", true, true, true),
        ("*.>", ">", true, true, false),
        ("*.>", "*.*", true, false, true),
        ("*.>", "*", false, false, false),
        ("a.>", "a", false, false, false),
        ("a.>", "*.b.c", true, false, false),
        ("a.>", "a.b.>", true, false, true),
        ("a.*.c", "a.>", true, true, false),
        ("a.*.c", "a.b.*", true, false, false),
    ];
    for &(a, b, overlap, within, contains) in cases {
        let (left, right) = (Filter::parse(a).unwrap(), Filter::parse(b).unwrap());
        assert_eq!(left.overlaps(&right), overlap, "{a} {b}");
        assert_eq!(right.overlaps(&left), overlap, "{b} {a}");
        assert_eq!(left.is_subset_of(&right), within, "{a} within {b}");
        assert_eq!(right.is_subset_of(&left), contains, "{b} within {a}");
    }
}

#[test]
fn tokens_are_counted_and_given() {
    for (subject, want) in
        [("a", vec!["a"]), ("a.b.c", vec!["a", "b", "c"]), ("a..", vec!["a", "", ""]), ("", vec![""])]
    {
        let got: Vec<&[u8]> = tokens(subject.as_bytes()).collect();
        assert_eq!(got, want.iter().map(|token| token.as_bytes()).collect::<Vec<_>>());
        assert_eq!(token_count(subject.as_bytes()), want.len());
    }
    let mut some = tokens(b"a.b.c");
    some.next();
    assert_eq!(some.rest(), Some(&b"b.c"[..]));
}

/// Matching as the definition has it, by all ways to take tokens.
fn matches_by_definition(filter: &[&[u8]], subject: &[&[u8]]) -> bool {
    match (filter.split_first(), subject.split_first()) {
        (None, None) => true,
        (Some((&b">", [])), Some(_)) => true,
        (Some((&b"*", filter)), Some((_, subject))) => matches_by_definition(filter, subject),
        (Some((want, filter)), Some((token, subject))) => {
            want == token && matches_by_definition(filter, subject)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_is_as_defined(filter in testing::filter(), subject in testing::subject()) {
        let (by_token, subject_tokens): (Vec<_>, Vec<_>) = (tokens(&filter).collect(), tokens(&subject).collect());
        prop_assert_eq!(matches(&filter, &subject), matches_by_definition(&by_token, &subject_tokens));
        prop_assert!(is_valid_filter(&filter) && is_valid_subject(&subject));
    }

    #[test]
    fn what_matches_both_proves_the_overlap(a in testing::filter(), b in testing::filter(), subject in testing::subject()) {
        if matches(&a, &subject) && matches(&b, &subject) {
            prop_assert!(overlaps(&a, &b));
        }
        if is_subset(&a, &b) {
            prop_assert!(overlaps(&a, &b));
            prop_assert!(!matches(&a, &subject) || matches(&b, &subject));
        }
    }

    #[test]
    fn an_overlap_has_a_witness(a in testing::filter(), b in testing::filter()) {
        // Where one filter is free the other decides; where both are, any name does.
        let witness = |a: &[u8], b: &[u8]| {
            let (a, b): (Vec<&[u8]>, Vec<&[u8]>) = (tokens(a).collect(), tokens(b).collect());
            let pick = |at: usize| match (a.get(at), b.get(at)) {
                (Some(&token), _) | (_, Some(&token)) if !is_wildcard(token) => token,
                (_, Some(&token)) if !is_wildcard(token) => token,
                _ => b"w",
            };
            (0..a.len().max(b.len())).map(pick).collect::<Vec<_>>().join(&b'.')
        };
        let subject = witness(&a, &b);
        prop_assert_eq!(overlaps(&a, &b), matches(&a, &subject) && matches(&b, &subject));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12), other in testing::filter()) {
        if let Ok(subject) = Subject::parse(&bytes) {
            prop_assert!(Filter::from(subject.clone()).matches(&subject));
            prop_assert_eq!(subject.as_bytes(), &bytes);
        }
        let _ = (matches(&bytes, &other), matches(&other, &bytes), overlaps(&bytes, &other), is_subset(&bytes, &other));
    }
}
