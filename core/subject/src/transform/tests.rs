//! Tests of transforms.

use proptest::prelude::*;

use super::*;
use crate::testing;
use observed::{MAPPED, REFUSED};

mod observed;

fn apply(transform: &Transform, subject: &str, draw: u64) -> Option<String> {
    transform.apply(subject.as_bytes(), draw).map(|mapped| String::from_utf8(mapped).unwrap())
}

#[test]
fn subjects_are_mapped_as_by_nats_server() {
    for (src, dest, pairs) in MAPPED {
        let transform = Transform::new(src, dest).unwrap_or_else(|e| panic!("{src} -> {dest}: {e}"));
        for (subject, want) in *pairs {
            let got = apply(&transform, subject, 1).unwrap_or_else(|| (*subject).to_owned());
            assert_eq!(got, *want, "{src} -> {dest}: {subject}");
        }
    }
}

#[test]
fn refusals_read_as_those_of_nats_server() {
    for (src, dest, want) in REFUSED {
        let refused = Transform::new(src, dest).expect_err(&format!("{src} -> {dest}"));
        assert_eq!(refused.to_string(), *want, "{src} -> {dest}");
    }
}

#[test]
fn only_what_matches_is_mapped() {
    let filter = Transform::new("a.*", "").unwrap();
    assert!(filter.is_filter_only());
    assert_eq!(apply(&filter, "a.b", 0).as_deref(), Some("a.b"));
    assert_eq!(apply(&filter, "b.a", 0), None);
    let all = Transform::new("", "x.>").unwrap();
    assert_eq!((all.src(), all.dest().as_ref()), (&Filter::ALL, &b"x.>"[..]));
    assert_eq!(apply(&all, "b.a", 0).as_deref(), Some("x.b.a"));
    assert!(Transform::new("", "").unwrap().is_filter_only());
}

#[test]
fn a_token_of_delimiters_leaves_an_empty_token() {
    // So does nats-server, and stores the subject.
    let transform = Transform::new("a.*", "o.{{split(1,-)}}.x").unwrap();
    assert_eq!(apply(&transform, "a.--", 0).as_deref(), Some("o..x"));
    let transform = Transform::new("a.*.>", "{{split(1,-)}}.>").unwrap();
    assert_eq!(apply(&transform, "a.-.b.c", 0).as_deref(), Some(".b.c"));
    // Here nats-server would leave an empty token as well: `.a.b`.
    assert_eq!(apply(&transform, "a.--a--b.c", 0).as_deref(), Some("a.b.c"));
}

#[test]
fn bytes_that_are_no_text_are_cut_like_others() {
    let by = |dest: &str, token: &[u8]| {
        Transform::new("*", dest).unwrap().apply(token, 0).map(|mapped| mapped.escape_ascii().to_string())
    };
    assert_eq!(by("{{left(1,2)}}", "hé".as_bytes()).as_deref(), Some("h\\xc3"));
    assert_eq!(by("{{split(1,)}}", b"a\xff\xfe\xc3\xa9").as_deref(), Some("a.\\xff.\\xfe.\\xc3\\xa9"));
}

#[test]
fn random_numbers_come_from_the_draw() {
    let transform = Transform::new(">", "{{random(4)}}.{{random(1000000)}}.>").unwrap();
    let draw = |draw| apply(&transform, "a", draw).unwrap();
    assert_eq!(draw(1), draw(1));
    let first: std::collections::BTreeSet<String> =
        (0..200).map(|n| draw(n).split('.').next().unwrap().to_owned()).collect();
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let second: std::collections::BTreeSet<String> =
        (0..200).map(|n| draw(n).split('.').nth(1).unwrap().to_owned()).collect();
    assert!(second.len() > 190);
}

#[test]
fn the_image_is_a_filter() {
    for (src, dest, want) in [
        ("a.*", "b.$1", "b.*"),
        ("a.*.>", "b.{{partition(3,1)}}.c.>", "b.*.c.>"),
        ("a.*", "b.{{split(1,-)}}.c", "b.>"),
        ("a.*", "b.{{left(1,1)}}.{{random(3)}}", "b.*.*"),
        ("a.*", "", "a.*"),
        ("", "", ">"),
        (">", ">", ">"),
        ("a", "b", "b"),
    ] {
        assert_eq!(Transform::new(src, dest).unwrap().image().as_str(), want, "{src} -> {dest}");
    }
}

/// A destination's token, valid for a source with two wildcards or nearly so.
fn piece() -> impl Strategy<Value = String> {
    let names = [
        "wildcard",
        "Split",
        "splitfromleft",
        "splitFromRight",
        "slicefromleft",
        "SliceFromRight",
        "left",
        "right",
        "partition",
        "random",
        "none",
    ];
    prop_oneof![
        Just("text".to_owned()),
        (0..4u8).prop_map(|n| format!("${n}")),
        (proptest::sample::select(names.to_vec()), "[0-3]?(, ?[0-3a-])?")
            .prop_map(|(f, args)| format!("{{{{{f}({args})}}}}")),
        "[{}(),$a1 *>]{0,8}",
    ]
}

proptest! {
    #[test]
    fn results_lie_in_the_image(
        pieces in proptest::collection::vec(piece(), 1..4),
        tail in any::<bool>(),
        subject in testing::subject(),
        draw in any::<u64>(),
    ) {
        let (src, dest) = (if tail { "*.*.>" } else { "*.*" }, pieces.join(".") + if tail { ".>" } else { "" });
        if let Ok(transform) = Transform::new(src, &dest) {
            let mapped = transform.apply(&subject, draw);
            prop_assert_eq!(mapped.is_some(), transform.src().matches(&subject));
            if let Some(mapped) = mapped.filter(|mapped| crate::is_valid_filter(mapped)) {
                prop_assert!(transform.image().matches(&mapped), "{} is not in {}", mapped.escape_ascii(), transform.image());
            }
        }
    }

    #[test]
    fn no_bytes_do_harm(src in "[a*>.$ ]{0,8}", dest in proptest::collection::vec(any::<u8>(), 0..20), braces in "[{}()a,1. $splitwdcar]{0,24}", subject in proptest::collection::vec(any::<u8>(), 0..20)) {
        for dest in [&dest[..], braces.as_bytes(), &[b"{{", braces.as_bytes(), b"}}"].concat()] {
            if let Ok(transform) = Transform::new(&src, dest) {
                transform.apply(&subject, 7);
                transform.image();
            }
        }
    }
}
