//! What was acknowledged is there, once, in order, with its bytes; nothing is there that nobody published.

use std::collections::BTreeMap;

use crate::history::{History, Outcome, Violation};

use super::{Case, check_content, retention};

/// An acknowledgement came.
pub fn on_ack(history: &mut History, index: usize) {
    let attempt = &history.attempts[index];
    let Outcome::Acked { seq, duplicate, .. } = attempt.outcome else { return };
    let (name, generation) = (attempt.stream.clone(), attempt.generation);
    let expected = attempt.expected.filter(|_| !duplicate);
    let Some(stream) = history.streams.get_mut(&name).filter(|stream| stream.generation == generation) else {
        return;
    };
    if let Some(expected) = expected
        && seq != expected + 1
    {
        let text = format!("{name}: publish {index} expected sequence {expected} before it and got {seq}");
        history.violate("acked", text);
        return;
    }
    stream.last_seq = stream.last_seq.max(seq);
    if duplicate {
        check_duplicate(history, index, seq);
    } else {
        note(history, &name, seq, index);
    }
}

/// A client saw a publish at a sequence: that never changes.
pub fn note(history: &mut History, name: &str, seq: u64, index: usize) {
    let Some(stream) = history.streams.get_mut(name) else { return };
    stream.last_seq = stream.last_seq.max(seq);
    let earlier = *stream.seen.entry(seq).or_insert(index);
    if earlier != index {
        let text = format!("{name}: sequence {seq} was publish {earlier} and is publish {index} now");
        history.violate("acked", text);
    }
}

/// What is called a duplicate was stored before, under the same id.
fn check_duplicate(history: &mut History, index: usize, seq: u64) {
    let attempt = &history.attempts[index];
    let same = |other: usize| history.attempts[other].id == attempt.id;
    let stream = history.streams.get(&attempt.stream);
    let first = stream.and_then(|stream| stream.seen.get(&seq).copied());
    // The first one's acknowledgement may be lost or still on its way.
    let known = first.is_none_or(same);
    if attempt.id.is_none() || !known {
        let text = format!("publish {index} is said to duplicate sequence {seq}, which is publish {first:?}");
        history.violate("acked", text);
    }
}

/// At rest.
pub fn check(history: &History, case: &Case<'_>) -> Result<(), Violation> {
    let violation = |text: String| Err(case.violation("acked", text));
    let mut found: BTreeMap<usize, u64> = BTreeMap::new();
    for (&seq, stored) in &case.dump.messages {
        let index = match check_content(history, &stored.subject, &stored.payload) {
            Ok(index) => index,
            Err(text) => return violation(format!("sequence {seq}: {text}")),
        };
        if history.attempts[index].produces(&stored.subject) {
            continue;
        }
        if let Some(earlier) = found.insert(index, seq) {
            return violation(format!("publish {index} is stored twice, at {earlier} and at {seq}"));
        }
        if let Some(seen) = case.log.seen.get(&seq).filter(|seen| **seen != index) {
            return violation(format!("sequence {seq} was publish {seen} and is publish {index} now"));
        }
        let outcome = history.attempts[index].outcome;
        let fits = match outcome {
            Outcome::Acked { seq: acked, duplicate, .. } => acked == seq && !duplicate,
            Outcome::Pending | Outcome::Lost => true,
            Outcome::Refused => false,
        };
        if !fits {
            return violation(format!("publish {index} is stored at {seq}, but ended as {outcome:?}"));
        }
    }
    for (&seq, &index) in &case.log.seen {
        if case.stored(seq).is_none() && !retention::may_be_gone(case, seq, index) {
            let attempt = &history.attempts[index];
            let state = &case.dump.info["state"];
            return violation(format!("publish {index} at {seq} ({:?}) is gone: {state}", attempt.outcome));
        }
    }
    check_order(case, &found)?;
    check_ids(case)
}

/// Sequences follow the clients' order: of one connection always, of several where one had its answer before another
/// began.
fn check_order(case: &Case<'_>, found: &BTreeMap<usize, u64>) -> Result<(), Violation> {
    let mut by_seq: BTreeMap<u64, usize> = found.iter().map(|(index, seq)| (*seq, *index)).collect();
    by_seq.extend(case.log.seen.iter().map(|(seq, index)| (*seq, *index)));
    let (mut latest, mut of_session) = (None, BTreeMap::new());
    for (&seq, &index) in &by_seq {
        // What a schedule has produced has a place of its own in time.
        let attempt = case.attempts.get(&index).filter(|attempt| attempt.schedule.is_none());
        let Some(attempt) = attempt else { continue };
        if let Outcome::Acked { at, .. } = attempt.outcome
            && let Some((sent, earlier)) = latest
            && at < sent
        {
            let text =
                format!("publish {index} was answered before {earlier} was sent, but {seq} is after it");
            return Err(case.violation("acked", text));
        }
        if latest.is_none_or(|(sent, _)| attempt.sent > sent) {
            latest = Some((attempt.sent, index));
        }
        // Numbers rise as a client sends.
        if let Some(earlier) = of_session.insert(attempt.session, index).filter(|earlier| *earlier > index) {
            let text = format!("publish {index} is stored at {seq}, after {earlier}, which was sent later");
            return Err(case.violation("acked", text));
        }
        let between = found_between(case, attempt.expected_subject.unwrap_or(seq) + 1, seq);
        let other = between
            .into_iter()
            .find(|other| case.attempts.get(other).is_some_and(|other| other.subject == attempt.subject));
        if let Some(other) = other.filter(|_| attempt.expected_subject.is_some()) {
            let text = format!("publish {index} at {seq} did not expect publish {other} on its subject");
            return Err(case.violation("acked", text));
        }
    }
    Ok(())
}

/// Publishes that are still stored from one sequence up to another.
fn found_between(case: &Case<'_>, from: u64, to: u64) -> Vec<usize> {
    if from >= to {
        return Vec::new();
    }
    case.dump.messages.range(from..to).filter_map(|(_, stored)| super::attempt_of(&stored.payload)).collect()
}

/// A message id is stored once.
fn check_ids(case: &Case<'_>) -> Result<(), Violation> {
    // The window of a stream with max_age is as short.
    if case.log.shape.max_age.is_some() {
        return Ok(());
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (&index, attempt) in &case.attempts {
        let is_stored = matches!(attempt.outcome, Outcome::Acked { duplicate: false, .. });
        let Some(id) = attempt.id.as_deref().filter(|_| is_stored) else { continue };
        if let Some(earlier) = seen.insert(id, index) {
            let text = format!("publishes {earlier} and {index} with the id {id} were both stored");
            return Err(case.violation("acked", text));
        }
    }
    Ok(())
}
