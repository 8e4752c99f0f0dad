//! Atomic batches: their messages are kept until the last one comes, then all of them are proposed at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_kit::Time;

use super::{BatchLimits, ID_BYTES};
use crate::command::encode_batch_message;
use crate::outcome::PublishError;
use crate::stream::headers;

/// A message that names a batch.
#[derive(Clone, Copy, Debug)]
pub struct AtomicMessage<'a> {
    /// Its subject.
    pub subject: &'a [u8],
    /// Its header block.
    pub header: &'a [u8],
    /// Its body.
    pub payload: &'a [u8],
    /// Whether the server is new enough for what the message says it needs.
    pub has_level: bool,
}

/// Why a batch ended without being stored or refused at its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Abandoned {
    /// It was silent for too long.
    Timeout,
    /// It has too many messages.
    Large,
    /// A message is missing.
    Incomplete,
    /// It needs a newer server.
    Unsupported,
}

/// Whether the server has room for another batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchRoom {
    /// The batches that are open on the server.
    pub open: usize,
    /// The bytes that may still be kept.
    pub bytes_left: usize,
}

/// What became of a message.
#[derive(Debug, PartialEq)]
pub enum AtomicStep {
    /// It is kept.
    Staged,
    /// The batch is complete: propose it.
    Complete(CompleteBatch),
    /// It is refused, and its batch may have ended with it.
    Refused(PublishError, Option<Abandoned>),
}

/// A batch with all its messages, as commands hold them.
#[derive(Debug, Default, PartialEq)]
pub struct CompleteBatch {
    /// The client's name for it.
    pub id: Bytes,
    /// How many messages it has.
    pub count: u64,
    /// Its messages; each part but the last becomes a command of its own in front.
    pub parts: Vec<Vec<u8>>,
}

impl CompleteBatch {
    /// The bytes of its messages.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// The batches of one stream that are open.
#[derive(Debug, Default)]
pub struct AtomicBatches {
    open: BTreeMap<Bytes, Staged>,
    bytes: usize,
}

/// One of them.
#[derive(Debug)]
struct Staged {
    count: u64,
    touched: Time,
    parts: Vec<Vec<u8>>,
    /// The message that came last: it may turn out to be the batch's end.
    last: Last,
}

#[derive(Debug, Default)]
struct Last {
    subject: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// How a message ends its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Commit {
    No,
    /// It is the batch's last message.
    WithThis,
    /// The one before was the last.
    WithoutThis,
}

const COMMIT: &str = "Nats-Batch-Commit";

/// The batch that a message names; empty names are none.
pub fn batch_id(header: &[u8]) -> Option<&[u8]> {
    field(header, b"Nats-Batch-Id").filter(|id| !id.is_empty())
}

fn field<'a>(header: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    headers::fields(header).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn sequence(header: &[u8]) -> Result<u64, PublishError> {
    let text = field(header, b"Nats-Batch-Sequence").and_then(|value| std::str::from_utf8(value).ok());
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or(PublishError::BatchSequenceMissing)
}

fn commit(header: &[u8]) -> Result<Commit, PublishError> {
    match field(header, COMMIT.as_bytes()) {
        None => Ok(Commit::No),
        Some(b"1") => Ok(Commit::WithThis),
        Some(b"eob") => Ok(Commit::WithoutThis),
        Some(_) => Err(PublishError::BatchCommit),
    }
}

impl AtomicBatches {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends all of them.
    pub fn clear(&mut self) {
        *self = AtomicBatches::default();
    }

    /// Ends one.
    pub fn remove(&mut self, id: &[u8]) -> bool {
        let Some(staged) = self.open.remove(id) else { return false };
        self.bytes -= staged.bytes();
        true
    }

    /// When the first one was silent for too long.
    pub fn next_deadline(&self, limits: &BatchLimits) -> Option<Time> {
        self.open.values().map(|staged| staged.touched + limits.timeout).min()
    }

    /// Ends those that were silent for too long, and says which.
    pub fn handle_timeout(&mut self, now: Time, limits: &BatchLimits) -> Vec<Bytes> {
        let silent = self.open.iter().filter(|(_, staged)| staged.touched + limits.timeout <= now);
        let silent: Vec<Bytes> = silent.map(|(id, _)| id.clone()).collect();
        for id in &silent {
            self.remove(id);
        }
        silent
    }

    /// Takes a message that names the batch `id`.
    pub fn handle(
        &mut self,
        now: Time,
        id: &[u8],
        message: &AtomicMessage<'_>,
        (limits, room): (&BatchLimits, BatchRoom),
    ) -> AtomicStep {
        if id.len() > ID_BYTES {
            return AtomicStep::Refused(PublishError::BatchId, None);
        }
        if !message.has_level {
            self.remove(id);
            return AtomicStep::Refused(PublishError::ApiLevel, Some(Abandoned::Unsupported));
        }
        let sequence = match sequence(message.header) {
            Ok(sequence) => sequence,
            Err(error) => return AtomicStep::Refused(error, None),
        };
        let commit = match commit(message.header) {
            Ok(commit) => commit,
            Err(error) => {
                self.remove(id);
                return AtomicStep::Refused(error, None);
            }
        };
        if sequence > limits.messages && commit != Commit::WithoutThis {
            let ended = self.remove(id).then_some(Abandoned::Large);
            return AtomicStep::Refused(PublishError::BatchTooLarge(limits.messages), ended);
        }
        self.take(now, (id, sequence, commit), message, (limits, room))
    }

    fn take(
        &mut self,
        now: Time,
        (id, sequence, commit): (&[u8], u64, Commit),
        message: &AtomicMessage<'_>,
        (limits, room): (&BatchLimits, BatchRoom),
    ) -> AtomicStep {
        if !self.open.contains_key(id) {
            if sequence != 1 {
                return AtomicStep::Refused(PublishError::BatchIncomplete, None);
            }
            if self.open.len() >= limits.per_stream || room.open >= limits.total {
                return AtomicStep::Refused(PublishError::TooManyBatches, None);
            }
            if commit == Commit::WithoutThis {
                return AtomicStep::Refused(PublishError::BatchIncomplete, Some(Abandoned::Incomplete));
            }
            let staged = Staged { count: 0, touched: now, parts: Vec::new(), last: Last::default() };
            self.open.insert(Bytes::copy_from_slice(id), staged);
        }
        let Some(staged) = self.open.get_mut(id) else { return AtomicStep::Staged };
        if sequence != staged.count + 1 {
            self.remove(id);
            return AtomicStep::Refused(PublishError::BatchIncomplete, Some(Abandoned::Incomplete));
        }
        staged.touched = now;
        if commit != Commit::WithoutThis {
            let before = staged.bytes();
            if message.bytes() > room.bytes_left {
                self.remove(id);
                return AtomicStep::Refused(PublishError::TooManyBatches, Some(Abandoned::Large));
            }
            staged.keep(message, limits.command_bytes);
            self.bytes = self.bytes + staged.bytes() - before;
        }
        if commit == Commit::No {
            return AtomicStep::Staged;
        }
        let Some((id, mut staged)) = self.open.remove_entry(id) else { return AtomicStep::Staged };
        self.bytes -= staged.bytes();
        if commit == Commit::WithoutThis {
            headers::push(&mut staged.last.header, COMMIT, b"1");
        }
        staged.close_last(limits.command_bytes);
        AtomicStep::Complete(CompleteBatch { id, count: staged.count, parts: staged.parts })
    }
}

impl AtomicMessage<'_> {
    fn bytes(&self) -> usize {
        self.subject.len() + self.header.len() + self.payload.len()
    }
}

impl Staged {
    fn bytes(&self) -> usize {
        let last = self.last.subject.len() + self.last.header.len() + self.last.payload.len();
        last + self.parts.iter().map(Vec::len).sum::<usize>()
    }

    /// Keeps a message behind the others.
    fn keep(&mut self, message: &AtomicMessage<'_>, command_bytes: usize) {
        if self.count > 0 {
            self.close_last(command_bytes);
        }
        self.count += 1;
        self.last = Last {
            subject: message.subject.to_vec(),
            header: message.header.to_vec(),
            payload: message.payload.to_vec(),
        };
    }

    /// The last message joins the others.
    fn close_last(&mut self, command_bytes: usize) {
        let last = std::mem::take(&mut self.last);
        if self.parts.last().is_none_or(|part| part.len() >= command_bytes) {
            self.parts.push(Vec::new());
        }
        if let Some(part) = self.parts.last_mut() {
            let fits = encode_batch_message(part, &last.subject, &last.header, &last.payload);
            assert!(fits, "the subject's length was checked when the message came");
        }
    }
}

#[cfg(test)]
mod tests;
