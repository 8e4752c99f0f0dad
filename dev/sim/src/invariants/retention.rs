//! Messages leave a stream for a reason, and when there is one: a naive model says what is certain.

use hw_kit::Span;

use crate::history::{Attempt, ConsumerLog, Existence, Outcome, Retention, Violation};

use super::Case;

/// What is due is done within this.
const SLACK: Span = Span::from_millis(2000);

/// Whether there is any reason why a publish that was at a sequence is not there any more.
pub fn may_be_gone(case: &Case<'_>, seq: u64, index: usize) -> bool {
    let Some(attempt) = case.attempts.get(&index) else { return true };
    if attempt.schedule.as_ref().is_some_and(|schedule| case.now + case.slack >= schedule.due) {
        return true;
    }
    let shape = &case.log.shape;
    if case.log.removals.iter().any(|removal| removal.may_cover(attempt, seq)) {
        return true;
    }
    if shape.max_age.is_some_and(|age| (case.now + case.slack).since(attempt.sent) >= age) {
        return true;
    }
    let last = case.dump.last.max(case.log.last_seq);
    if shape.max_msgs.is_some_and(|max| !shape.discard_new && last - seq.min(last) >= max) {
        return true;
    }
    if shape.max_per_subject.is_some_and(|max| later_on_subject(case, attempt, seq) >= max) {
        return true;
    }
    match shape.retention {
        Retention::Limits => false,
        Retention::WorkQueue => case.log.consumers.values().any(|consumer| consumer.is_settled(seq)),
        Retention::Interest => {
            let mut certain = case.log.consumers.values().filter(|consumer| is_interested(consumer, attempt));
            !certain.any(|consumer| !consumer.is_settled(seq))
        }
    }
}

/// A consumer that was there since before the message, and still is.
fn is_interested(consumer: &ConsumerLog, attempt: &Attempt) -> bool {
    consumer.existence == Existence::Yes
        && consumer.made.is_some_and(|made| made < attempt.sent)
        && consumer.matches(&attempt.subject)
}

/// How many messages may have come later on the same subject.
fn later_on_subject(case: &Case<'_>, attempt: &Attempt, seq: u64) -> u64 {
    let later = case.attempts.values().filter(|other| {
        let may_be_later = match other.outcome {
            Outcome::Acked { seq: other, duplicate, .. } => other > seq && !duplicate,
            Outcome::Pending | Outcome::Lost => true,
            Outcome::Refused => false,
        };
        may_be_later && other.subject == attempt.subject
    });
    later.count() as u64
}

/// At rest: what must be gone is gone.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let shape = &case.log.shape;
    let wrong = |text: String| Err(case.violation("retention", text));
    let count = case.dump.messages.len() as u64;
    if let Some(max) = shape.max_msgs.filter(|max| count > *max) {
        return wrong(format!("{count} messages, {max} allowed"));
    }
    let mut subjects = std::collections::BTreeMap::new();
    for (&seq, stored) in &case.dump.messages {
        let of_subject: &mut u64 = subjects.entry(&stored.subject).or_default();
        *of_subject += 1;
        if let Some(max) = shape.max_per_subject.filter(|max| *of_subject > *max) {
            return wrong(format!("{of_subject} messages on {}, {max} allowed", stored.subject));
        }
        let Some((index, attempt)) = super::attempt_of(&stored.payload)
            .and_then(|index| case.attempts.get(&index).map(|attempt| (index, attempt)))
            .filter(|(_, attempt)| !attempt.produces(&stored.subject))
        else {
            continue;
        };
        if let Some(removal) = case.log.removals.iter().find(|removal| removal.must_cover(attempt, seq)) {
            return wrong(format!("publish {index} at {seq} is there after {removal:?}"));
        }
        let Outcome::Acked { at, .. } = attempt.outcome else { continue };
        if shape.max_age.is_some_and(|age| case.now.since(at + age + case.slack) > SLACK) {
            return wrong(format!("publish {index} at {seq} is older than max_age"));
        }
        let settled = case.log.consumers.iter().find(|(_, consumer)| consumer.confirmed.contains(&seq));
        if let Some((consumer, _)) = settled.filter(|_| shape.retention == Retention::WorkQueue) {
            return wrong(format!("publish {index} at {seq} is there although {consumer} confirmed it"));
        }
    }
    Ok(())
}
