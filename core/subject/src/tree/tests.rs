//! Tests of the subject tree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing;

fn found(tree: &SubjectTree<u32>, filter: &str) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    let _: ControlFlow<()> = tree.for_each_match(filter.as_bytes(), |subject, &value| {
        all.push((String::from_utf8_lossy(subject).into_owned(), value));
        ControlFlow::Continue(())
    });
    all
}

#[test]
fn subjects_come_in_byte_order() {
    let mut tree = SubjectTree::new();
    for (value, subject) in ["b", "a.b", "a", "a.b.c", "a-b", "aa", "a.a"].into_iter().enumerate() {
        assert_eq!(tree.insert(subject.as_bytes(), value as u32), None);
    }
    let all: Vec<_> = tree.iter().map(|(subject, _)| String::from_utf8(subject).unwrap()).collect();
    assert_eq!(all, ["a", "a-b", "a.a", "a.b", "a.b.c", "aa", "b"]);
    let names = |filter| found(&tree, filter).into_iter().map(|(subject, _)| subject).collect::<Vec<_>>();
    assert_eq!(names(">"), all);
    assert_eq!(names("*"), ["a", "a-b", "aa", "b"]);
    assert_eq!(names("a.*"), ["a.a", "a.b"]);
    assert_eq!(names("a.>"), ["a.a", "a.b", "a.b.c"]);
    assert_eq!(names("*.b"), ["a.b"]);
    assert_eq!(names("a.b"), ["a.b"]);
    assert_eq!(names("a.b.c.d"), Vec::<String>::new());
    assert_eq!(tree.count_matches(b">"), 7);
    assert_eq!(tree.count_matches(b"*.*"), 2);
}

#[test]
fn a_walk_stops_when_told() {
    let mut tree = SubjectTree::new();
    for i in 0..10u32 {
        tree.insert(format!("a.{i}").as_bytes(), i);
    }
    let stopped = tree.for_each_match(b"a.*", |subject, &value| {
        if value == 3 { ControlFlow::Break(subject.to_vec()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped, ControlFlow::Break(b"a.3".to_vec()));
    let stopped = tree.for_each_match_mut(b"a.*", |_, value| {
        *value += 100;
        if *value == 103 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_break());
    assert_eq!(found(&tree, "*.3"), [("a.3".to_owned(), 103)]);
    assert_eq!(found(&tree, "*.4"), [("a.4".to_owned(), 4)]);
}

#[test]
fn each_subject_the_start_of_the_next() {
    let deep = vec![b'a'; 4_000];
    let mut tree = SubjectTree::new();
    for len in 1..=deep.len() {
        tree.insert(&deep[..len], len);
    }
    assert_eq!(tree.get(&deep), Some(&deep.len()));
    assert_eq!(tree.count_matches(b"*"), deep.len());
    for len in (1..=deep.len()).step_by(2) {
        assert_eq!(tree.remove(&deep[..len]), Some(len));
    }
    assert_eq!(tree.len(), deep.len() / 2);
    check_shape(&tree);
    assert_eq!(tree.clone().len(), tree.len());
}

#[test]
fn an_entry_is_small() {
    // The label and a value of 16 bytes, with nothing for telling leaves from branches.
    assert_eq!(size_of::<Node<[u64; 2]>>(), 32);
}

/// Every branch but the root parts subjects, keys are sorted, and as many values are there as are counted.
fn check_shape<V>(tree: &SubjectTree<V>) {
    let mut values = usize::from(tree.root.end.is_some());
    let mut branches = vec![&tree.root];
    while let Some(branch) = branches.pop() {
        assert!(branch.keys().is_sorted_by(|a, b| a < b));
        assert_eq!(branch.keys().len(), branch.kids.len());
        for kid in &branch.kids {
            match kid {
                Node::Leaf(_) => values += 1,
                Node::Branch(next) => {
                    assert!(!next.is_needless());
                    values += usize::from(next.end.is_some());
                    branches.push(next);
                }
            }
        }
    }
    assert_eq!(values, tree.len());
}

/// What one step of the model test does.
#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, u32),
    Remove(Vec<u8>),
    RemoveKnown(usize),
    Add(Vec<u8>),
    Match(Vec<u8>),
    Raise(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (testing::subject(), any::<u32>()).prop_map(|(subject, value)| Step::Insert(subject, value)),
        1 => testing::subject().prop_map(Step::Remove),
        3 => any::<usize>().prop_map(Step::RemoveKnown),
        1 => testing::subject().prop_map(Step::Add),
        2 => testing::filter().prop_map(Step::Match),
        1 => testing::filter().prop_map(Step::Raise),
    ]
}

fn run(steps: Vec<Step>) {
    let mut tree = SubjectTree::new();
    let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Insert(subject, value) => {
                assert_eq!(tree.insert(&subject, value), model.insert(subject, value));
            }
            Step::Remove(subject) => assert_eq!(tree.remove(&subject), model.remove(&subject)),
            Step::RemoveKnown(at) => {
                let Some(subject) = model.keys().nth(at % model.len().max(1)).cloned() else { continue };
                assert_eq!(tree.remove(&subject), model.remove(&subject));
            }
            Step::Add(subject) => {
                *tree.get_or_insert_with(&subject, || 7) ^= 1;
                *model.entry(subject.clone()).or_insert(7) ^= 1;
                assert_eq!(tree.get_mut(&subject), model.get_mut(&subject));
            }
            Step::Match(filter) => {
                let want: Vec<_> =
                    model.iter().filter(|(subject, _)| token::matches(&filter, subject)).collect();
                let got: Vec<_> = tree.matching(&filter).collect();
                assert!(got.iter().map(|(subject, value)| (subject, *value)).eq(want.iter().copied()));
                assert_eq!(tree.count_matches(&filter), want.len());
                let mut seen = 0;
                let _: ControlFlow<()> = tree.for_each_match(&filter, |subject, value| {
                    assert_eq!((subject, value), (&want[seen].0[..], want[seen].1));
                    seen += 1;
                    ControlFlow::Continue(())
                });
                assert_eq!(seen, want.len());
            }
            Step::Raise(filter) => {
                let mut raised = Vec::new();
                let _: ControlFlow<()> = tree.for_each_match_mut(&filter, |subject, value| {
                    *value = value.wrapping_add(1);
                    raised.push(subject.to_vec());
                    ControlFlow::Continue(())
                });
                assert!(raised.is_sorted());
                for (subject, value) in &mut model {
                    if token::matches(&filter, subject) {
                        *value = value.wrapping_add(1);
                    }
                }
            }
        }
        assert_eq!(tree.len(), model.len());
    }
    check_shape(&tree);
    assert!(
        tree.iter().map(|(subject, &value)| (subject, value)).eq(model.iter().map(|(s, &v)| (s.clone(), v)))
    );
    for (subject, value) in &model {
        assert_eq!(tree.get(subject), Some(value));
    }
    for subject in model.keys() {
        assert!(tree.remove(subject).is_some());
        check_shape(&tree);
    }
    assert!(tree.is_empty() && tree.iter().next().is_none());
}

proptest! {
    #[test]
    fn a_btree_map_is_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        run(steps);
    }

    #[test]
    fn any_bytes_are_kept(keys in proptest::collection::btree_set(proptest::collection::vec(0..3u8, 0..6), 0..40)) {
        let mut tree = SubjectTree::new();
        for key in &keys {
            tree.insert(key, ());
        }
        check_shape(&tree);
        prop_assert!(keys.iter().all(|key| tree.contains(key)));
        prop_assert!(keys.iter().all(|key| tree.remove(key).is_some()));
        prop_assert!(tree.is_empty());
    }
}
