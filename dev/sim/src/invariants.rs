//! What must always be true. Each file holds one; all of them judge by what clients saw and nothing else.

pub mod acked;
pub mod agree;
pub mod atomic;
pub mod delivery;
pub mod erased;
pub mod fast;
pub mod linear;
pub mod replay;
pub mod retention;
pub mod schedules;
pub mod state;

use std::collections::BTreeMap;

use hw_kit::{Span, Time};

use crate::audit::{Dump, Stored, StreamDump};
use crate::history::{Attempt, Existence, History, StreamLog, Violation};

/// The publish that a stored or delivered payload belongs to.
fn attempt_of(payload: &[u8]) -> Option<usize> {
    let text = payload.split(|&byte| byte == b' ').next()?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Compares a message with the publish that it must have come from; gives that publish's number.
fn check_content(history: &History, subject: &str, payload: &[u8]) -> Result<usize, String> {
    let index = attempt_of(payload).filter(|index| *index < history.attempts.len());
    let Some(index) = index else {
        return Err(format!("nobody published {:?} to {subject}", String::from_utf8_lossy(payload)));
    };
    let attempt = &history.attempts[index];
    if attempt.subject != subject && !attempt.produces(subject) {
        return Err(format!("publish {index} went to {} and is stored as {subject}", attempt.subject));
    }
    if attempt.payload != payload {
        return Err(format!("publish {index} has other bytes than were published"));
    }
    Ok(index)
}

/// One stream as the clients know it and as the server shows it.
pub struct Case<'a> {
    /// Its name.
    pub name: &'a str,
    /// What clients know of it.
    pub log: &'a StreamLog,
    /// What the server shows.
    pub dump: &'a StreamDump,
    /// The publishes to it.
    pub attempts: BTreeMap<usize, &'a Attempt>,
    /// When the server showed it.
    pub now: Time,
    /// How far servers' clocks may be from each other.
    pub slack: Span,
}

impl Case<'_> {
    /// What is stored at a sequence.
    fn stored(&self, seq: u64) -> Option<&Stored> {
        self.dump.messages.get(&seq)
    }

    fn violation(&self, invariant: &'static str, text: impl std::fmt::Display) -> Violation {
        Violation { invariant, text: format!("stream {}: {text}", self.name) }
    }
}

/// A store that has stopped: what was acknowledged can be read; nothing else need have happened.
pub fn check_stopped(history: &History, dump: &Dump, now: Time) -> Result<(), Violation> {
    for (name, log) in history.streams.iter().filter(|(_, log)| log.existence == Existence::Yes) {
        let Some(found) = dump.streams.get(name) else {
            let text = format!("stream {name} is gone, and nobody deleted it");
            return Err(Violation { invariant: "acked", text });
        };
        let attempts = history.attempts_of(name, log.generation).collect();
        acked::check(history, &Case { name, log, dump: found, attempts, now, slack: history.slack })?;
    }
    Ok(())
}

/// Checks everything that can be checked at rest.
pub fn check(history: &History, dump: &Dump, now: Time) -> Result<(), Violation> {
    for (name, log) in history.streams.iter().filter(|(name, _)| !history.unreachable.contains(*name)) {
        let Some(found) = dump.streams.get(name) else {
            if log.existence == Existence::Yes {
                let text = format!("stream {name} is gone, and nobody deleted it");
                return Err(Violation { invariant: "acked", text });
            }
            continue;
        };
        if log.existence == Existence::No {
            let text = format!("stream {name} is there although it was deleted or refused");
            return Err(Violation { invariant: "retention", text });
        }
        let attempts = history.attempts_of(name, log.generation).collect();
        let case = Case { name, log, dump: found, attempts, now, slack: history.slack };
        for (consumer, log) in &case.log.consumers {
            let is_there = found.consumers.contains_key(consumer);
            if (log.existence == Existence::Yes && !is_there) || (log.existence == Existence::No && is_there)
            {
                let text = format!("consumer {consumer}: there {is_there}, expected {:?}", log.existence);
                return Err(case.violation("acked", text));
            }
        }
        acked::check(history, &case)?;
        atomic::check(&case)?;
        fast::check(history, &case)?;
        schedules::check(history, &case)?;
        retention::check(&case)?;
        state::check(&case)?;
    }
    let is_known = |name: &String| {
        let is_excused = name.starts_with("KV_") || history.unreachable.contains(name);
        history.streams.contains_key(name) || is_excused
    };
    let unknown = dump.streams.keys().find(|name| !is_known(name));
    match unknown {
        Some(name) => Err(Violation { invariant: "acked", text: format!("nobody made stream {name}") }),
        None => Ok(()),
    }
}
