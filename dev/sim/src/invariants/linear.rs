//! What clients saw of a key is what they would have seen if all operations had happened one after the other, each at some
//! moment between its request and its answer.

use std::collections::BTreeSet;

use crate::history::{History, KeyAct, KeyOp, KeyResult, Violation};

/// Steps of one search: far more than any history of the workload takes.
const STEPS_MAX: usize = 3_000_000;

/// What a key has: nothing, or a value and its revision, as far as that is known.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum State {
    Nothing,
    Value { value: u64, revision: Option<u64> },
}

/// All keys.
pub fn check(history: &History) -> Result<(), Violation> {
    for (key, ops) in &history.keys {
        if let Err(text) = check_key(ops) {
            return Err(Violation { invariant: "linear", text: format!("key {key}: {text}") });
        }
    }
    Ok(())
}

/// One key. The error tells how far an order could be found.
pub fn check_key(ops: &[KeyOp]) -> Result<(), String> {
    // Reads without an answer and what was refused say nothing.
    let says_nothing =
        |op: &KeyOp| op.result == Some(KeyResult::Refused) || op.act == KeyAct::Get && op.result.is_none();
    let ops: Vec<&KeyOp> = ops.iter().filter(|op| !says_nothing(op)).collect();
    if ops.len() > 128 {
        return Err(format!("{} operations are too many to judge", ops.len()));
    }
    let mut open: Vec<(u128, State)> = vec![(0, State::Nothing)];
    let mut seen = BTreeSet::new();
    let (mut steps, mut furthest) = (0, 0u128);
    while let Some((done, state)) = open.pop() {
        if ops.iter().enumerate().all(|(at, op)| op.result.is_none() || done & (1 << at) != 0) {
            return Ok(());
        }
        if !seen.insert((done, state)) {
            continue;
        }
        steps += 1;
        if steps > STEPS_MAX {
            return Err("no order was found in time".to_owned());
        }
        if done.count_ones() > furthest.count_ones() {
            furthest = done;
        }
        // What was answered first must have happened before what was asked later.
        let waiting = ops.iter().enumerate().filter(|(at, _)| done & (1 << at) == 0);
        let first_end = waiting.clone().filter_map(|(_, op)| op.done).min();
        for (at, op) in waiting.filter(|(_, op)| first_end.is_none_or(|end| op.sent <= end)) {
            open.extend(after(state, op).map(|state| (done | 1 << at, state)));
        }
    }
    let left: Vec<String> = ops
        .iter()
        .enumerate()
        .filter(|(at, op)| furthest & (1 << at) == 0 && op.result.is_some())
        .map(|(_, op)| {
            format!(
                "c{} {:?} {:?} at {}..{}",
                op.client,
                op.act,
                op.result,
                op.sent.0,
                op.done.map_or(0, |done| done.0)
            )
        })
        .take(4)
        .collect();
    Err(format!(
        "no order explains what clients saw; {} of {} fit, not {left:?}",
        furthest.count_ones(),
        ops.len()
    ))
}

/// The state after an operation; None: it cannot have happened in this state.
fn after(state: State, op: &KeyOp) -> Option<State> {
    let revision = match state {
        State::Nothing => Some(0),
        State::Value { revision, .. } => revision,
    };
    let written = |value: u64, new: Option<u64>| {
        let grows = new.is_none_or(|new| revision.is_none_or(|old| new > old));
        grows.then_some(State::Value { value, revision: new })
    };
    match (&op.act, op.result) {
        (KeyAct::Put(value), Some(KeyResult::Written(new))) => written(*value, Some(new)),
        (KeyAct::Put(value), None) => written(*value, None),
        (KeyAct::Swap(expected, value), result @ (Some(KeyResult::Written(_)) | None)) => {
            let new = if let Some(KeyResult::Written(new)) = result { Some(new) } else { None };
            revision.is_none_or(|revision| revision == *expected).then(|| written(*value, new))?
        }
        (KeyAct::Swap(expected, _), Some(KeyResult::Conflict)) => {
            (revision != Some(*expected)).then_some(state)
        }
        (KeyAct::Get, Some(KeyResult::Nothing)) => (state == State::Nothing).then_some(state),
        (KeyAct::Get, Some(KeyResult::Found(found, seen))) => match state {
            State::Value { value, .. }
                if value == seen && revision.is_none_or(|revision| revision == found) =>
            {
                Some(State::Value { value, revision: Some(found) })
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hw_kit::Time;

    use super::*;

    /// From when to when (0: no answer), what, and what came of it.
    fn op(sent: i64, done: i64, act: KeyAct, result: Option<KeyResult>) -> KeyOp {
        KeyOp { client: 0, act, sent: Time(sent), done: (done > 0).then_some(Time(done)), result }
    }

    fn put(sent: i64, done: i64, value: u64, revision: u64) -> KeyOp {
        op(sent, done, KeyAct::Put(value), Some(KeyResult::Written(revision)))
    }

    fn get(sent: i64, done: i64, revision: u64, value: u64) -> KeyOp {
        op(sent, done, KeyAct::Get, Some(KeyResult::Found(revision, value)))
    }

    #[test]
    fn orders_that_exist_are_found() {
        let nothing = op(1, 2, KeyAct::Get, Some(KeyResult::Nothing));
        let swap = op(5, 9, KeyAct::Swap(1, 20), Some(KeyResult::Written(4)));
        let conflict = op(6, 12, KeyAct::Swap(1, 30), Some(KeyResult::Conflict));
        check_key(&[nothing, put(3, 4, 10, 1), swap, conflict, get(10, 11, 4, 20)]).unwrap();
        // Both orders of what happens at the same time are fine.
        check_key(&[put(1, 9, 1, 1), put(1, 9, 2, 2), get(2, 8, 1, 1), get(10, 11, 2, 2)]).unwrap();
    }

    #[test]
    fn what_was_not_answered_has_happened_or_not() {
        let lost = |value| op(3, 0, KeyAct::Put(value), None);
        check_key(&[put(1, 2, 1, 1), lost(2), get(5, 6, 1, 1)]).unwrap();
        check_key(&[put(1, 2, 1, 1), lost(2), get(5, 6, 2, 2)]).unwrap();
        // Later than its client waited.
        check_key(&[put(1, 2, 1, 1), lost(2), get(5, 6, 1, 1), get(7, 8, 2, 2)]).unwrap();
        check_key(&[put(1, 2, 1, 1), lost(2), get(5, 6, 2, 2), get(7, 8, 1, 1)]).unwrap_err();
        let swap = op(3, 0, KeyAct::Swap(9, 5), None);
        check_key(&[put(1, 2, 1, 1), swap, get(5, 6, 2, 5)]).unwrap_err();
    }

    #[test]
    fn stale_reads_are_refused() {
        check_key(&[put(1, 2, 1, 1), put(3, 4, 2, 2), get(5, 6, 1, 1)]).unwrap_err();
        check_key(&[put(1, 2, 1, 1), op(3, 4, KeyAct::Get, Some(KeyResult::Nothing))]).unwrap_err();
        // One has seen the new value while it was being written, another one the old one after that.
        check_key(&[put(1, 2, 1, 1), put(3, 20, 2, 2), get(5, 6, 2, 2), get(7, 8, 1, 1)]).unwrap_err();
    }

    #[test]
    fn lost_updates_are_refused() {
        check_key(&[put(1, 2, 1, 1), put(3, 4, 2, 1), get(5, 6, 1, 2)]).unwrap_err();
        let swaps = [10, 20].map(|value| op(3, 9, KeyAct::Swap(1, value), Some(KeyResult::Written(value))));
        check_key(&[put(1, 2, 1, 1), swaps[0].clone(), swaps[1].clone()]).unwrap_err();
        let conflict = op(3, 4, KeyAct::Swap(1, 9), Some(KeyResult::Conflict));
        check_key(&[put(1, 2, 1, 1), conflict]).unwrap_err();
        check_key(&[put(1, 2, 1, 1), get(3, 4, 7, 7)]).unwrap_err();
    }
}
