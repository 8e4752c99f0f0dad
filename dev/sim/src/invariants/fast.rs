//! Of a fast batch without gaps there is a beginning, as long as its acknowledgement says.

use crate::history::{History, Retention, Violation};

use super::{Case, attempt_of};

/// At rest.
pub fn check(history: &History, case: &Case<'_>) -> Result<(), Violation> {
    let shape = &case.log.shape;
    let unlimited = shape.max_msgs.is_none() && shape.max_per_subject.is_none() && shape.max_age.is_none();
    if !unlimited || shape.retention != Retention::Limits || !case.log.removals.is_empty() {
        return Ok(());
    }
    let stored = case.dump.messages.values().filter_map(|stored| attempt_of(&stored.payload));
    let stored: std::collections::BTreeSet<usize> = stored.collect();
    for batch in history.fast.iter().filter(|batch| case.attempts.contains_key(&batch.messages.start)) {
        let there = batch.messages.clone().filter(|index| stored.contains(index)).count();
        let (first, messages) = (batch.messages.start, batch.messages.len());
        if let Some(gap) = (first..first + there).find(|index| !stored.contains(index)) {
            let text = format!("{there} of {messages} messages from {first} on are stored, but not {gap}");
            return Err(case.violation("fast", text));
        }
        if let Some(count) = batch.acked.filter(|count| *count != there as u64) {
            let text = format!(
                "{count} of {messages} messages from {first} on were acknowledged, {there} are there"
            );
            return Err(case.violation("fast", text));
        }
    }
    Ok(())
}
