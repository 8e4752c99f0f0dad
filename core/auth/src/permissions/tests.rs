//! Permissions: tables of what nats-server 2.15.1 answered, and the one place where we are stricter.

use super::*;

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn subscribe(allow: &[&str], deny: &[&str]) -> Permissions {
    let subscribe = Allowance { allow: list(allow), deny: list(deny) };
    Permissions::new(&PermissionsSpec { subscribe, ..PermissionsSpec::default() }).unwrap()
}

type Asked = (&'static str, Option<&'static str>, bool);

#[test]
fn subscriptions() {
    let cases: &[(&[&str], &[&str], &[Asked])] = &[
        (
            &["foo.>"],
            &[],
            &[
                ("foo.*", None, true),
                (">", None, false),
                ("foo", None, false),
                ("*.bar", None, false),
                ("foo.bar", Some("q"), true),
                ("foo.>", None, true),
            ],
        ),
        // Stricter than nats-server, which lets the first through.
        (&["foo.*"], &[], &[("foo.>", None, false), ("foo.a.b", None, false), ("foo.*", None, true)]),
        (
            &[],
            &["foo.secret"],
            &[
                ("foo.*", None, true),
                ("foo.secret", None, false),
                ("*.secret", None, true),
                ("foo.secret", Some("q"), false),
                ("foo.*", Some("q"), true),
            ],
        ),
        (
            &[],
            &["foo.*"],
            &[
                ("foo.>", None, false),
                ("foo.bar", None, false),
                ("foo.*", None, false),
                ("*.bar", None, true),
                (">", None, true),
            ],
        ),
        (&[], &["foo.*.*"], &[("foo.>", None, true), ("foo.*.b", None, false), ("*.*.*", None, true)]),
        (&[">"], &[">"], &[("a", None, false), ("*", None, false), (">", None, false)]),
        (&["foo bar"], &[], &[("foo", None, false), ("foo", Some("bar"), true), ("foo", Some("baz"), false)]),
        (
            &["foo", "x v1.*"],
            &[],
            &[
                ("foo", None, true),
                ("foo", Some("bar"), true),
                ("x", Some("v1.a"), true),
                ("x", Some("v2.a"), false),
                ("x", None, false),
            ],
        ),
        (
            &["foo", "foo v1"],
            &[],
            &[("foo", Some("v2"), false), ("foo", None, true), ("foo", Some("v1"), true)],
        ),
        (
            &["*.b", "foo.* v1"],
            &[],
            &[
                ("foo.b", Some("v2"), false),
                ("foo.b", None, true),
                ("*.b", Some("v2"), true),
                ("foo.*", Some("v1"), true),
            ],
        ),
        (
            &[],
            &["foo bar"],
            &[
                ("foo", None, true),
                ("foo", Some("bar"), false),
                ("foo", Some("baz"), true),
                ("*", Some("bar"), true),
            ],
        ),
        (
            &["foo", "bar q"],
            &["> dev"],
            &[
                ("foo", Some("dev"), false),
                ("foo", Some("x"), true),
                ("bar", Some("q"), true),
                ("bar", Some("x"), false),
                ("foo", None, true),
            ],
        ),
    ];
    for (allow, deny, asked) in cases {
        let permissions = subscribe(allow, deny);
        for (filter, queue, answer) in *asked {
            let got = permissions.may_subscribe(filter.as_bytes(), queue.map(str::as_bytes));
            assert_eq!(got, *answer, "allow {allow:?} deny {deny:?}: {filter} {queue:?}");
        }
    }
}

#[test]
fn deliveries_are_filtered_where_a_wildcard_reaches_into_a_deny() {
    let permissions = subscribe(&[], &["foo.secret", "bar q"]);
    assert!(permissions.filters_deliveries(b"foo.*", None));
    assert!(permissions.filters_deliveries(b">", None));
    assert!(!permissions.filters_deliveries(b"x.*", None));
    assert!(!permissions.filters_deliveries(b"*", None), "the queue's deny is not for plain subscriptions");
    assert!(permissions.filters_deliveries(b"*", Some(b"q")));
    assert!(!permissions.may_deliver(b"foo.secret", None));
    assert!(permissions.may_deliver(b"foo.open", None));
    assert!(permissions.may_deliver(b"bar", None));
    assert!(!permissions.may_deliver(b"bar", Some(b"q")));
    assert!(permissions.may_deliver(b"bar", Some(b"r")));
}

#[test]
fn publishing() {
    let responses = Some(ResponsePermission::default());
    type Case<'a> = (&'a [&'a str], &'a [&'a str], Option<ResponsePermission>, &'a [(&'a str, bool)]);
    let cases: &[Case<'_>] = &[
        (&[], &[], None, &[("foo", true)]),
        (
            &[],
            &["foo.*"],
            None,
            &[("foo.bar", false), ("foo", true), ("foo.>", false), ("foo.*", false), ("*", true)],
        ),
        (
            &["foo.*"],
            &["foo.a"],
            None,
            &[("foo.bar", true), ("foo.a", false), ("foo.*", true), ("foo", false)],
        ),
        (&[], &[], responses, &[("foo", false)]),
        (&[], &["foo"], responses, &[("foo", false), ("bar", false)]),
        (&["svc"], &[], responses, &[("svc", true), ("bar", false)]),
    ];
    for (allow, deny, allow_responses, asked) in cases {
        let publish = Allowance { allow: list(allow), deny: list(deny) };
        let spec =
            PermissionsSpec { publish, allow_responses: *allow_responses, ..PermissionsSpec::default() };
        let permissions = Permissions::new(&spec).unwrap();
        for (subject, answer) in *asked {
            let got = permissions.may_publish(subject.as_bytes());
            assert_eq!(got, *answer, "allow {allow:?} deny {deny:?} {allow_responses:?}: {subject}");
        }
    }
}

#[test]
fn bad_subjects_are_named() {
    let publish = |subject: &str| {
        let publish = Allowance { allow: list(&[subject]), deny: vec![] };
        Permissions::new(&PermissionsSpec { publish, ..PermissionsSpec::default() }).map(|_| ())
    };
    let subscribe = |subject: &str| {
        let subscribe = Allowance { allow: list(&[subject]), deny: vec![] };
        Permissions::new(&PermissionsSpec { subscribe, ..PermissionsSpec::default() }).map(|_| ())
    };
    for bad in ["", "foo..bar", "a b", ">.a"] {
        assert_eq!(publish(bad), Err(SpecError::BadSubject { subject: bad.into() }));
    }
    assert_eq!(subscribe("a b c"), Err(SpecError::BadSubject { subject: "a b c".into() }));
    assert_eq!(subscribe("foo.* a..b"), Err(SpecError::BadQueue { queue: "a..b".into() }));
    assert_eq!(subscribe("a  b"), Ok(()));
}
