//! Fast batches: their messages are stored as they come, and one subject tells their publisher how far that is.
//!
//! The messages of one batch that arrive while others of it are on their way to the disk wait, and go together as the
//! next [`Run`]: that way the log decides where a batch ends that must not have gaps.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_kit::{Seq, Time};

use super::{BatchLimits, FAST_PER_STREAM, FAST_TOTAL, ID_BYTES};
use crate::command::encode_batch_message;
use crate::outcome::{BatchAck, PublishError, Stored};

/// Messages between two flow acknowledgements if the publisher does not say, and at most.
const FLOW_DEFAULT: u64 = 10;
const FLOW_MAX: u64 = 500;

/// What a message does to its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FastOp {
    /// Begins it.
    Start,
    /// Is one of it.
    Append,
    /// Is its last.
    Commit,
    /// Ends it and is not stored.
    End,
    /// Asks how far it is.
    Ping,
}

/// Where a message stands, from its reply subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FastSlot<'a> {
    /// The client's name for the batch.
    pub id: &'a [u8],
    /// Messages between two flow acknowledgements; not above 0: what the server likes.
    pub flow: i64,
    /// Whether the batch goes on when messages are missing or refused.
    pub gaps: bool,
    /// The message's number in the batch, from 1 on.
    pub sequence: u64,
    /// What it does.
    pub op: FastOp,
}

/// A message of a fast batch.
#[derive(Clone, Copy, Debug)]
pub struct FastMessage<'a> {
    /// Its subject.
    pub subject: &'a [u8],
    /// Its header block.
    pub header: &'a [u8],
    /// Its body.
    pub payload: &'a [u8],
    /// Its reply subject.
    pub reply: &'a Bytes,
}

/// Something to tell the publisher.
#[derive(Clone, Debug, PartialEq)]
pub enum FastSay {
    /// So far everything is decided; the next word comes after so many messages.
    Flow {
        /// To whom.
        to: Bytes,
        /// The last message that counts.
        sequence: u64,
        /// Messages until the next one.
        every: u64,
    },
    /// Messages are missing.
    Gap {
        /// To whom.
        to: Bytes,
        /// What was expected.
        expected: u64,
        /// What came.
        sequence: u64,
    },
    /// A message was refused.
    Refused {
        /// To whom.
        to: Bytes,
        /// Which.
        sequence: u64,
        /// Why.
        error: PublishError,
    },
    /// The batch is over, or never began.
    Last {
        /// To whom.
        to: Bytes,
        /// As the answer to a publish.
        result: Result<Stored, PublishError>,
    },
}

/// Messages to propose together.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Their batch.
    pub id: Bytes,
    /// Whether nothing may follow one that is refused.
    pub stop: bool,
    /// The messages, as a command holds them.
    pub messages: Vec<u8>,
}

/// The fast batches of one stream that are open.
#[derive(Debug, Default)]
pub struct FastBatches {
    open: BTreeMap<Bytes, Batch>,
    /// Those that have something to propose.
    ready: Vec<Bytes>,
}

#[derive(Debug)]
struct Batch {
    gaps: bool,
    flow: u64,
    /// Messages between two flow acknowledgements now.
    every: u64,
    /// The last message that came, or is known to be missing.
    received: u64,
    /// The last message that is decided.
    decided: u64,
    /// The last message of a flow acknowledgement.
    told: u64,
    /// Where its last message was stored.
    stored: Seq,
    touched: Time,
    waiting: VecDeque<Waiting>,
    flying: VecDeque<Place>,
    /// Where the last word goes when everything is decided.
    ending: Option<Bytes>,
}

#[derive(Debug)]
struct Waiting {
    place: Place,
    message: Vec<u8>,
}

/// A message that is not decided.
#[derive(Clone, Debug)]
struct Place {
    sequence: u64,
    is_last: bool,
    reply: Bytes,
}

impl FastBatches {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether there is something to propose.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Ends all of them without a word.
    pub fn clear(&mut self) {
        *self = FastBatches::default();
    }

    /// Ends one without a word.
    pub fn remove(&mut self, id: &[u8]) {
        self.open.remove(id);
    }

    /// When the first one was silent for too long.
    pub fn next_deadline(&self, limits: &BatchLimits) -> Option<Time> {
        self.open.values().map(|batch| batch.touched + limits.timeout).min()
    }

    /// Ends those that were silent for too long.
    pub fn handle_timeout(&mut self, now: Time, limits: &BatchLimits) {
        self.open.retain(|_, batch| batch.touched + limits.timeout > now);
    }

    /// Takes a message; `open` batches are open on the server.
    pub fn handle(
        &mut self,
        now: Time,
        slot: FastSlot<'_>,
        message: &FastMessage<'_>,
        open: usize,
        says: &mut Vec<FastSay>,
    ) {
        if let Err(error) = self.begin(now, slot, message, (open, says)) {
            return says.push(FastSay::Last { to: message.reply.clone(), result: Err(error) });
        }
        let Some((id, batch)) = self.open.get_key_value(slot.id) else { return };
        let (id, ends) = (id.clone(), batch.ending.is_some());
        let Some(batch) = self.open.get_mut(&id).filter(|_| !ends) else {
            let result = Err(PublishError::FastUnknown);
            return says.push(FastSay::Last { to: message.reply.clone(), result });
        };
        batch.touched = now;
        batch.take(slot, message, says);
        if batch.is_over() {
            self.finish(&id, says);
        } else if batch.can_fly() && !self.ready.contains(&id) {
            self.ready.push(id);
        }
    }

    /// Makes the batch if this is its first message.
    fn begin(
        &mut self,
        now: Time,
        slot: FastSlot<'_>,
        message: &FastMessage<'_>,
        (open, says): (usize, &mut Vec<FastSay>),
    ) -> Result<(), PublishError> {
        if slot.id.len() > ID_BYTES {
            return Err(PublishError::FastId);
        }
        if self.open.contains_key(slot.id) {
            return Ok(());
        }
        if slot.sequence != 1 || slot.op == FastOp::Ping {
            return Err(PublishError::FastUnknown);
        }
        if self.open.len() >= FAST_PER_STREAM || open >= FAST_TOTAL {
            return Err(PublishError::TooManyFastBatches);
        }
        let flow = u64::try_from(slot.flow).ok().filter(|flow| *flow > 0).unwrap_or(FLOW_DEFAULT);
        let flow = flow.min(FLOW_MAX);
        // With others about, it begins carefully.
        let every = if self.open.is_empty() { flow } else { 1 };
        if slot.op == FastOp::Start {
            says.push(FastSay::Flow { to: message.reply.clone(), sequence: 0, every });
        }
        let batch = Batch {
            gaps: slot.gaps,
            flow,
            every,
            received: 0,
            decided: 0,
            told: 0,
            stored: Seq(0),
            touched: now,
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            ending: None,
        };
        self.open.insert(Bytes::copy_from_slice(slot.id), batch);
        Ok(())
    }

    /// What is to be proposed, up to `command_bytes` a run.
    pub fn take_runs(&mut self, command_bytes: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        for id in std::mem::take(&mut self.ready) {
            let Some(batch) = self.open.get_mut(&id).filter(|batch| batch.can_fly()) else { continue };
            let mut messages = Vec::new();
            while messages.len() < command_bytes
                && let Some(waiting) = batch.waiting.pop_front()
            {
                messages.extend_from_slice(&waiting.message);
                batch.flying.push_back(waiting.place);
            }
            runs.push(Run { id, stop: !batch.gaps, messages });
        }
        runs
    }

    /// A run was applied.
    pub fn handle_applied(
        &mut self,
        id: &Bytes,
        results: Vec<Result<Stored, PublishError>>,
        says: &mut Vec<FastSay>,
    ) {
        let share = FLOW_MAX / (self.open.len() as u64).max(1);
        let Some(batch) = self.open.get_mut(id) else { return };
        for result in results {
            let Some(place) = batch.flying.pop_front() else { break };
            if batch.decide((id, &place), result, share, says) {
                self.open.remove(id);
                return;
            }
        }
        if batch.is_over() {
            self.finish(id, says);
        } else if batch.can_fly() && !self.ready.contains(id) {
            self.ready.push(id.clone());
        }
    }

    /// Everything is decided: the last word.
    fn finish(&mut self, id: &Bytes, says: &mut Vec<FastSay>) {
        if let Some(batch) = self.open.remove(id)
            && let Some(to) = batch.ending.clone()
        {
            says.push(FastSay::Last { to, result: Ok(batch.summary(id)) });
        }
    }
}

impl Batch {
    /// Takes a message into a batch that is open.
    fn take(&mut self, slot: FastSlot<'_>, message: &FastMessage<'_>, says: &mut Vec<FastSay>) {
        let to = message.reply.clone();
        let is_ping = slot.op == FastOp::Ping;
        if is_ping && slot.sequence <= self.received {
            return says.push(FastSay::Flow { to, sequence: self.told, every: self.every });
        }
        // A ping has the number of the message before it.
        let (expected, sequence) = (self.received + 1, slot.sequence + u64::from(is_ping));
        if sequence != expected {
            says.push(FastSay::Gap { to: to.clone(), expected, sequence });
            if sequence < expected || !self.gaps {
                self.ending = Some(to);
                return;
            }
        }
        match slot.op {
            FastOp::Ping => {
                self.received = slot.sequence;
                says.push(FastSay::Flow { to, sequence: self.told, every: self.every });
            }
            FastOp::End => {
                self.received = sequence - 1;
                self.ending = Some(to);
            }
            FastOp::Start | FastOp::Append | FastOp::Commit => {
                self.received = sequence;
                let is_last = slot.op == FastOp::Commit;
                let mut encoded = Vec::new();
                let fits =
                    encode_batch_message(&mut encoded, message.subject, message.header, message.payload);
                assert!(fits, "the subject's length was checked when the message came");
                let place = Place { sequence, is_last, reply: to.clone() };
                self.waiting.push_back(Waiting { place, message: encoded });
                if is_last {
                    self.ending = Some(to);
                }
            }
        }
    }

    fn can_fly(&self) -> bool {
        self.flying.is_empty() && !self.waiting.is_empty()
    }

    fn is_over(&self) -> bool {
        self.ending.is_some() && self.flying.is_empty() && self.waiting.is_empty()
    }

    /// One message is decided; true when that ends the batch, and everything is said.
    fn decide(
        &mut self,
        (id, place): (&Bytes, &Place),
        result: Result<Stored, PublishError>,
        share: u64,
        says: &mut Vec<FastSay>,
    ) -> bool {
        let Place { sequence, is_last, reply: to } = place;
        match result {
            Ok(stored) if *is_last && stored.duplicate && self.stored == Seq(0) => {
                // The whole batch is one message that was stored before.
                (self.stored, self.decided) = (stored.seq, *sequence);
                let stored = Stored { duplicate: true, ..self.summary(id) };
                says.push(FastSay::Last { to: to.clone(), result: Ok(stored) });
                return true;
            }
            Ok(stored) => {
                if !stored.duplicate {
                    self.stored = stored.seq;
                }
                self.decided = *sequence;
            }
            Err(error) if *sequence == 1 && !is_last && !self.gaps => {
                says.push(FastSay::Last { to: to.clone(), result: Err(error) });
                return true;
            }
            Err(error) => {
                says.push(FastSay::Refused { to: to.clone(), sequence: *sequence, error });
                if !self.gaps {
                    // What follows was not stored, nor will it be.
                    self.flying.clear();
                    self.waiting.clear();
                    self.ending = Some(to.clone());
                    self.received = self.decided;
                    return false;
                }
                if *is_last {
                    self.received = *sequence - 1;
                } else {
                    self.decided = *sequence;
                }
            }
        }
        if !is_last && *sequence >= self.told + self.every {
            let most = self.flow.min(share).max(1);
            self.every = if self.every > most { (self.every / 2).max(1) } else { (self.every * 2).min(most) };
            self.told = *sequence;
            says.push(FastSay::Flow { to: to.clone(), sequence: *sequence, every: self.every });
        }
        false
    }

    /// How far the batch came.
    fn summary(&self, id: &Bytes) -> Stored {
        let count = if self.gaps { self.received } else { self.decided };
        let batch = Some(Box::new(BatchAck { id: id.clone(), count }));
        Stored { seq: self.stored, batch, ..Stored::default() }
    }
}

#[cfg(test)]
mod tests;
