//! What a client deleted without `no_erase` is not on the disk any more.

use hw_testkit::disk::MemDisk;

use crate::history::{Attempt, Existence, History, Outcome, Removed, Violation};

/// Shorter ones could be a part of something else.
const PAYLOAD_MIN: usize = 24;

/// Looks for deleted messages in all files; counts those that were looked for.
pub fn check(history: &mut History, disk: &MemDisk) -> Result<(), Violation> {
    let erased: Vec<Attempt> =
        history.attempts.iter().filter(|attempt| is_erased(history, attempt)).cloned().collect();
    history.counts.insert("erased messages", erased.len() as u64);
    for attempt in erased {
        for (file, current, durable) in disk.contents() {
            if contains(current, &attempt.payload) || contains(durable, &attempt.payload) {
                let text =
                    format!("{:?} of {} was deleted and is still in {file}", attempt.outcome, attempt.stream);
                return Err(Violation { invariant: "erased", text });
            }
        }
    }
    Ok(())
}

fn is_erased(history: &History, attempt: &Attempt) -> bool {
    let Outcome::Acked { seq, duplicate: false, .. } = attempt.outcome else { return false };
    let stream = history.streams.get(&attempt.stream);
    let Some(stream) = stream.filter(|stream| stream.generation == attempt.generation) else { return false };
    attempt.payload.len() >= PAYLOAD_MIN
        && stream.existence == Existence::Yes
        && stream
            .removals
            .iter()
            .any(|removal| removal.done.is_some() && removal.what == Removed::Message { seq, erase: true })
}

/// Whether the payload is somewhere, and not as the end of one with a longer number.
fn contains(bytes: &[u8], payload: &[u8]) -> bool {
    let first = payload[0];
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == first) {
        let start = at + found;
        let before = start.checked_sub(1).map_or(b' ', |before| bytes[before]);
        if bytes[start..].starts_with(payload) && !before.is_ascii_digit() {
            return true;
        }
        at = start + 1;
    }
    false
}
