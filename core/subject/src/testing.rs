//! Subjects and filters for property tests: few names, so that they meet often.

use proptest::prelude::*;

/// A valid literal subject.
pub(crate) fn subject() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(name(), 1..5).prop_map(|tokens| tokens.join(".").into_bytes())
}

/// A valid filter; about half have wildcards.
pub(crate) fn filter() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![3 => name(), 2 => Just("*".to_owned())];
    (
        proptest::collection::vec(token, 0..4),
        prop_oneof![2 => name(), 1 => Just("*".to_owned()), 1 => Just(">".to_owned())],
    )
        .prop_map(|(mut tokens, last)| {
            tokens.push(last);
            tokens.join(".").into_bytes()
        })
}

/// Names that are parts of each other, with wildcards' characters inside, and on both sides of a label's limit.
fn name() -> impl Strategy<Value = String> {
    let fixed = ["a", "b", "ab", "a*", ">b", "*>", "abcdefghijklmn", "abcdefghijklmno", "\u{1}", "-", "é"];
    prop_oneof![4 => proptest::sample::select(fixed.to_vec()).prop_map(str::to_owned), 1 => "[ab]{1,60}"]
}
