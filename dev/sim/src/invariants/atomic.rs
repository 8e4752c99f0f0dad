//! The messages of a batch are stored together, one behind the other, or none of them is.

use std::collections::BTreeMap;

use crate::history::Violation;

use super::{Case, attempt_of, retention};

/// At rest.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let found: BTreeMap<usize, u64> = case
        .dump
        .messages
        .iter()
        .filter_map(|(seq, stored)| attempt_of(&stored.payload).map(|index| (index, *seq)))
        .collect();
    for (&index, &seq) in &found {
        let Some(batch) = case.attempts.get(&index).and_then(|attempt| attempt.batch.clone()) else {
            continue;
        };
        for other in batch {
            // Its place is as far away as it is in the batch.
            let place = (seq + other as u64).checked_sub(index as u64).filter(|place| *place > 0);
            let Some(place) = place else {
                let text = format!("publish {index} is stored at {seq}, its batch begins before the stream");
                return Err(case.violation("atomic", text));
            };
            let is_there = found.get(&other) == Some(&place);
            if !is_there && (found.contains_key(&other) || !retention::may_be_gone(case, place, other)) {
                let at = found.get(&other);
                let text = format!("publish {index} is at {seq}, {other} of its batch is at {at:?}");
                return Err(case.violation("atomic", text));
            }
        }
    }
    Ok(())
}
