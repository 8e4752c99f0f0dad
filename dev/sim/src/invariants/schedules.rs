//! A message that holds a schedule produces one message at its time, not before, not twice, and goes with it.

use hw_kit::{Span, Time};

use crate::history::{History, Outcome, Retention, Violation};

use super::{Case, attempt_of};

/// What is due is done within this, also after a restart or on a disk that was full.
const SLACK: Span = Span::from_millis(2500);

/// At rest.
pub fn check(history: &History, case: &Case<'_>) -> Result<(), Violation> {
    // One that fired while the messages were read may be seen before and after it did.
    if !case.dump.steady {
        return Ok(());
    }
    let wrong = |text: String| Err(case.violation("schedules", text));
    for (&index, attempt) in &case.attempts {
        let Some(schedule) = &attempt.schedule else { continue };
        let stored = |subject: &str| {
            let same = case.dump.messages.iter().filter(move |(_, stored)| {
                stored.subject == subject && attempt_of(&stored.payload) == Some(index)
            });
            same.map(|(seq, stored)| (*seq, stored.time.clone())).collect::<Vec<_>>()
        };
        let (holders, products) = (stored(&attempt.subject), stored(&schedule.target));
        if products.len() > 1 || (!products.is_empty() && !holders.is_empty()) {
            return wrong(format!("publish {index} produced {products:?} and is at {holders:?}"));
        }
        if let Some((seq, time)) = products.first() {
            if attempt.outcome == Outcome::Refused {
                return wrong(format!("publish {index} was refused and has produced sequence {seq}"));
            }
            if Time::parse_rfc3339(time).is_none_or(|time| time < schedule.due) {
                return wrong(format!(
                    "publish {index}, due at {:?}, produced {seq} at {time}",
                    schedule.due
                ));
            }
        }
        if !matches!(attempt.outcome, Outcome::Acked { .. }) {
            continue;
        }
        if !holders.is_empty() && !history.starved && case.now.since(schedule.due + case.slack) > SLACK {
            return wrong(format!("publish {index} was due at {:?} and has produced nothing", schedule.due));
        }
        let shape = &case.log.shape;
        let unlimited =
            shape.max_msgs.is_none() && shape.max_per_subject.is_none() && shape.max_age.is_none();
        let everything_stays =
            unlimited && shape.retention == Retention::Limits && case.log.removals.is_empty();
        if everything_stays && holders.is_empty() && products.is_empty() {
            return wrong(format!("publish {index} is gone and has produced nothing"));
        }
    }
    Ok(())
}
