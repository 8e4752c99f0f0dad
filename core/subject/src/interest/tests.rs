//! Tests of the interest.

use proptest::prelude::*;

use super::*;
use crate::limits::{CACHED_SUBJECT_LEN, CACHED_SUBJECTS, CACHED_SUBSCRIBERS};
use crate::testing;

fn interest(subscriptions: &[(&str, Option<&str>, u32)]) -> Interest<u32> {
    let mut interest = Interest::new();
    for (filter, queue, id) in subscriptions {
        interest.insert(filter.as_bytes(), queue.map(str::as_bytes), *id);
    }
    interest
}

fn plain(interest: &mut Interest<u32>, subject: &str) -> Vec<u32> {
    let mut ids = interest.lookup(subject.as_bytes()).plain.clone();
    ids.sort_unstable();
    ids
}

#[test]
fn subscribers_are_found() {
    let mut all = interest(&[
        (">", None, 1),
        ("foo.*", None, 2),
        ("foo.*.bar", None, 3),
        ("foo.>", None, 4),
        ("foo.bar", None, 5),
        ("*.bar", None, 6),
        ("foo*", None, 7),
    ]);
    // As observed at nats-server, empty tokens included.
    let cases: &[(&str, &[u32])] = &[
        ("foo", &[1]),
        ("foo.bar", &[1, 2, 4, 5, 6]),
        ("foo.*", &[1, 2, 4]),
        ("foo.>", &[1, 2, 4]),
        ("foo.*.bar", &[1, 3, 4]),
        ("foo.>.bar", &[1, 3, 4]),
        ("foo*", &[1, 7]),
        ("foox", &[1]),
        ("*", &[1]),
        (">", &[1]),
        ("foo..bar", &[]),
        ("foo.", &[]),
        (".foo", &[]),
        ("", &[]),
    ];
    for (subject, want) in cases {
        assert_eq!(plain(&mut all, subject), *want, "{subject}");
        assert_eq!(plain(&mut all, subject), *want, "{subject} from the cache");
        assert_eq!(all.has_interest(subject.as_bytes()), !want.is_empty(), "{subject}");
    }
}

#[test]
fn a_group_is_one_across_filters() {
    // nats-server delivers one message to one of 1, 2 and 3, and one to 4.
    let all = interest(&[
        ("q.*", Some("g"), 1),
        ("q.a", Some("g"), 2),
        ("q.>", Some("g"), 3),
        ("q.>", Some("h"), 4),
    ]);
    let mut out = Matched::new();
    all.matches(b"q.a", &mut out);
    let names: Vec<&[u8]> = out.queues.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, [b"g", b"h"]);
    let mut members = out.queue(b"g").to_vec();
    members.sort_unstable();
    assert_eq!(members, [1, 2, 3]);
    assert_eq!(out.queue(b"h"), [4]);
    assert_eq!(out.queue(b"i"), []);
    assert_eq!((out.len(), out.plain.len()), (4, 0));
}

#[test]
fn removing_takes_one_and_leaves_no_nodes() {
    let mut all =
        interest(&[("a.*.c", None, 1), ("a.*.c", None, 1), ("a.*.>", Some("q"), 2), ("a.b", None, 3)]);
    assert!(!all.remove(b"a.*.c", None, &2));
    assert!(!all.remove(b"a.*.c", Some(b"q"), &1));
    assert!(!all.remove(b"a.*.x", None, &1));
    assert!(!all.remove(b"a.*", None, &1));
    assert!(!all.remove(b"a.>", None, &1));
    assert!(!all.remove(b"x", None, &1));
    assert!(!all.remove(b"a.b", Some(b""), &3));
    assert_eq!(all.len(), 4);
    for (filter, queue, id) in
        [("a.*.c", None, 1), ("a.*.c", None, 1), ("a.*.>", Some(&b"q"[..]), 2), ("a.b", None, 3)]
    {
        assert!(all.remove(filter.as_bytes(), queue, &id));
    }
    assert!(all.is_empty() && !all.has_interest(b"a.b.c"));
    assert_eq!((all.wildcards.node_count(), all.literals.len()), (1, 0));
    all.insert(b"x.*", None, 1);
    assert_eq!(all.wildcards.node_count(), 3);
}

#[test]
fn a_result_lasts_until_a_subscription_concerns_it() {
    let mut all = interest(&[("a.b", None, 1), ("a.*", None, 2), ("c", None, 3)]);
    let first = all.lookup(b"a.b");
    let before = all.lookup(b"a.b");
    assert!(!Arc::ptr_eq(&first, &before), "one that may never come again is not kept");
    assert!(Arc::ptr_eq(&before, &all.lookup(b"a.b")), "once it has come again, nothing is computed");
    all.insert(b"c", None, 4);
    assert!(Arc::ptr_eq(&before, &all.lookup(b"a.b")), "another literal subject does not matter");
    all.insert(b"a.b", None, 5);
    assert_eq!(plain(&mut all, "a.b"), [1, 2, 5]);
    all.insert(b">", None, 6);
    assert_eq!(plain(&mut all, "a.b"), [1, 2, 5, 6]);
    assert_eq!(plain(&mut all, "nobody"), [6]);
    all.remove(b">", None, &6);
    assert_eq!(plain(&mut all, "nobody"), []);
    all.remove(b"a.b", None, &1);
    assert_eq!(plain(&mut all, "a.b"), [2, 5]);
    assert_eq!(before.plain.len(), 2, "who holds a result keeps it");
}

#[test]
fn the_cache_is_bounded() {
    let mut all = interest(&[("a.*", None, 1)]);
    for i in 0..3 * CACHED_SUBJECTS {
        all.lookup(format!("a.once.{i}").as_bytes());
    }
    assert!(all.cache.held().0 < CACHED_SUBJECTS / 100, "{} came once", all.cache.held().0);
    all.lookup(b"a.hot");
    for i in 0..3 * CACHED_SUBJECTS {
        let subject = format!("a.{i}");
        all.lookup(subject.as_bytes());
        all.lookup(subject.as_bytes());
        // One that is asked for all the time outlives the turns.
        let hot = all.lookup(b"a.hot");
        assert!(Arc::ptr_eq(&hot, &all.lookup(b"a.hot")));
    }
    let (subjects, _) = all.cache.held();
    assert!(subjects > CACHED_SUBJECTS && subjects <= 2 * CACHED_SUBJECTS, "{subjects}");

    let long = vec![b'a'; CACHED_SUBJECT_LEN + 1];
    assert!(!Arc::ptr_eq(
        &all.lookup(&[b"a.", &long[..]].concat()),
        &all.lookup(&[b"a.", &long[..]].concat())
    ));
    assert!(!Arc::ptr_eq(
        &all.lookup(&[b"a.", &long[..]].concat()),
        &all.lookup(&[b"a.", &long[..]].concat())
    ));
    assert_eq!(all.cache.held().0, subjects);

    let fan_out = CACHED_SUBSCRIBERS / 8;
    for id in 0..fan_out {
        all.insert(b"b.*", None, id as u32);
    }
    for i in 0..100 {
        all.lookup(format!("b.{i}").as_bytes());
        all.lookup(format!("b.{i}").as_bytes());
    }
    let (_, subscribers) = all.cache.held();
    assert!(subscribers <= 2 * (CACHED_SUBSCRIBERS + fan_out), "{subscribers}");
}

#[test]
fn deep_filters_do_no_harm() {
    let deep = vec!["*"; 50_000].join(".");
    let subject = vec!["a"; 50_000].join(".");
    let mut all = interest(&[(&deep, None, 1), (&subject, None, 2)]);
    assert_eq!(plain(&mut all, &subject), [1, 2]);
    assert!(all.matches_filter(deep.as_bytes()));
    assert!(all.remove(deep.as_bytes(), None, &1));
}

#[test]
fn overlap_with_a_filter() {
    let all = interest(&[("a.b", None, 1), ("c.*.d", None, 2), ("e.>", Some("q"), 3)]);
    for (filter, want) in [
        ("a.b", true),
        ("a.*", true),
        ("*.*", true),
        ("a.c", false),
        ("a", false),
        ("c.x.d", true),
        ("c.>", true),
        ("*.*.d", true),
        ("c.*", false),
        ("c.x.e", false),
        ("e", false),
        ("e.*", true),
        ("e.f.g.>", true),
        ("x.>", false),
        (">", true),
    ] {
        assert_eq!(all.matches_filter(filter.as_bytes()), want, "{filter}");
    }
    assert!(!Interest::<u32>::new().matches_filter(b">"));
}

/// What one step of the model test does.
#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, Option<u8>, u8),
    Remove(usize),
    Lookup(Vec<u8>),
    Overlap(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (testing::filter(), proptest::option::of(0..2u8), 0..4u8)
            .prop_map(|(f, q, id)| Step::Insert(f, q, id)),
        any::<usize>().prop_map(Step::Remove),
        testing::subject().prop_map(Step::Lookup),
        testing::filter().prop_map(Step::Overlap),
    ]
}

fn sorted(matched: &Matched<u8>) -> Vec<(Option<u8>, u8)> {
    let mut all: Vec<_> = matched.plain.iter().map(|&id| (None, id)).collect();
    for (queue, members) in &matched.queues {
        all.extend(members.iter().map(|&id| (Some(queue[0]), id)));
    }
    all.sort_unstable();
    all
}

proptest! {
    #[test]
    fn a_list_of_subscriptions_is_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let mut interest = Interest::new();
        let mut model: Vec<(Vec<u8>, Option<u8>, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Insert(filter, queue, id) => {
                    interest.insert(&filter, queue.as_ref().map(std::slice::from_ref), id);
                    model.push((filter, queue, id));
                }
                Step::Remove(at) if !model.is_empty() => {
                    let (filter, queue, id) = model.swap_remove(at % model.len());
                    prop_assert!(interest.remove(&filter, queue.as_ref().map(std::slice::from_ref), &id));
                }
                Step::Remove(_) => prop_assert!(!interest.remove(b"a", None, &0)),
                Step::Lookup(subject) => {
                    let mut want: Vec<_> = model
                        .iter()
                        .filter(|(filter, ..)| token::matches(filter, &subject))
                        .map(|&(_, queue, id)| (queue, id))
                        .collect();
                    want.sort_unstable();
                    prop_assert_eq!(sorted(&interest.lookup(&subject)), &want[..]);
                    prop_assert_eq!(interest.has_interest(&subject), !want.is_empty());
                }
                Step::Overlap(filter) => {
                    let want = model.iter().any(|(other, ..)| token::overlaps(other, &filter));
                    prop_assert_eq!(interest.matches_filter(&filter), want);
                }
            }
            prop_assert_eq!(interest.len(), model.len());
        }
        let mut seen = Vec::new();
        interest.for_each(|filter, queue, &id| seen.push((filter.to_vec(), queue.map(|q| q[0]), id)));
        seen.sort_unstable();
        model.sort_unstable();
        prop_assert_eq!(seen, model);
    }
}
