//! Fast batches: their messages are stored as they come, and one subject tells their publisher how far that is.
//!
//! The messages of one batch that arrive while others of it are on their way to the disk wait, and go together as the
//! next [`Run`]: that way the log decides where a batch ends that must not have gaps.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_kit::{NodeId, Seq, Time};

use super::{BatchLimits, FAST_PER_STREAM, FAST_TOTAL, ID_BYTES};
use crate::command::{RunOf, encode_batch_message};
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

/// A server that handed a message on, and what it calls it: it does so once more to the next leader, unless it hears before that
/// the message is decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HandedOn {
    /// That server.
    pub by: NodeId,
    /// Its number.
    pub number: u64,
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
    /// Who handed it on.
    pub from: Option<HandedOn>,
}

/// Something to tell the publisher, or whoever handed a message of it on.
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
    /// This message is decided.
    Settled(HandedOn),
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
    /// Of which batch, and how far it is with them.
    pub of: RunOf,
    /// Whether nothing may follow one that is refused.
    pub stop: bool,
    /// The messages, as a command holds them.
    pub messages: Vec<u8>,
}

/// A message that this server, which does not lead any more, has not proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// Its reply subject, which says what it is.
    pub reply: Bytes,
    /// It, as a command holds it.
    pub message: Vec<u8>,
}

/// The fast batches of one stream that are open: on its leader, and, as far as its log tells, on others.
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
    /// It was before, and there is no other.
    is_duplicate: bool,
    touched: Time,
    waiting: VecDeque<Waiting>,
    flying: VecDeque<Place>,
    /// Where the last word goes when everything is decided.
    ending: Option<Ending>,
    /// Its publisher has not been heard since this server leads, if it does.
    is_followed: bool,
}

#[derive(Debug)]
struct Ending {
    reply: Bytes,
    from: Option<HandedOn>,
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
    from: Option<HandedOn>,
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
        let begun = self.begin(now, slot, message, (open, says));
        let open = self.open.get_key_value(slot.id).filter(|(_, batch)| batch.ending.is_none());
        let id = begun.and_then(|()| open.map(|(id, _)| id.clone()).ok_or(PublishError::FastUnknown));
        let id = match id {
            Ok(id) => id,
            Err(error) => {
                says.push(FastSay::Last { to: message.reply.clone(), result: Err(error) });
                return says.extend(message.from.map(FastSay::Settled));
            }
        };
        let Some(batch) = self.open.get_mut(&id) else { return };
        (batch.touched, batch.is_followed) = (now, false);
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
        let is_first = slot.sequence == 1 && slot.op != FastOp::Ping;
        // Another leader may have ended one of the same name without a word to the log.
        if is_first && self.open.get(slot.id).is_some_and(|batch| batch.is_followed) {
            self.open.remove(slot.id);
        }
        if self.open.contains_key(slot.id) {
            return Ok(());
        }
        if slot.sequence != 1 || slot.op == FastOp::Ping {
            return Err(PublishError::FastUnknown);
        }
        if !self.has_room() || open >= FAST_TOTAL {
            return Err(PublishError::TooManyFastBatches);
        }
        let flow = u64::try_from(slot.flow).ok().filter(|flow| *flow > 0).unwrap_or(FLOW_DEFAULT);
        let flow = flow.min(FLOW_MAX);
        // With others about, it begins carefully.
        let every = if self.open.is_empty() { flow } else { 1 };
        if slot.op == FastOp::Start {
            says.push(FastSay::Flow { to: message.reply.clone(), sequence: 0, every });
        }
        let batch = Batch::new(now, (slot.gaps, flow, every));
        self.open.insert(Bytes::copy_from_slice(slot.id), batch);
        Ok(())
    }

    /// Whether there is room for another one, if need be for want of the one whose publisher was silent for longest while another
    /// server led: most such are over without a word in the log.
    fn has_room(&mut self) -> bool {
        if self.open.len() >= FAST_PER_STREAM {
            let followed = self.open.iter().filter(|(_, batch)| batch.is_followed);
            if let Some(id) = followed.min_by_key(|(_, batch)| batch.touched).map(|(id, _)| id.clone()) {
                self.open.remove(&id);
            }
        }
        self.open.len() < FAST_PER_STREAM
    }

    /// Another leader's run was applied: this server can go on from there. If the batch is over with one of its messages: that
    /// message's number, and the last word.
    pub fn follow(
        &mut self,
        now: Time,
        (stop, of): (bool, &RunOf),
        results: &[Result<Stored, PublishError>],
    ) -> Option<(u64, Result<Stored, PublishError>)> {
        let refused = results.last().and_then(|result| result.as_ref().err()).filter(|_| stop || of.ends);
        let flow = of.flow.clamp(1, FLOW_MAX);
        if !self.open.contains_key(&of.id) && !self.has_room() {
            return None;
        }
        let batch = self.open.entry(of.id.clone()).or_insert_with(|| Batch::new(now, (!stop, flow, 1)));
        let stored = results.iter().rev().flatten().find(|stored| !stored.duplicate);
        batch.stored = stored.map_or(batch.stored, |stored| stored.seq);
        batch.touched = now;
        if let Some(Ok(last)) = results.last().filter(|_| of.ends && batch.stored == Seq(0)) {
            // The whole batch is one message that was stored before.
            (batch.stored, batch.is_duplicate) = (last.seq, last.duplicate);
        }
        batch.go_on_from(of.last);
        let Some(error) = refused else {
            return of.ends.then(|| self.end(&of.id, None)).flatten().map(|result| (of.last, result));
        };
        // Without gaps they are counted.
        let decided = if stop { of.first + results.len() as u64 - 1 } else { of.last }.saturating_sub(1);
        batch.go_on_from(decided);
        let error = (stop && decided == 0 && !of.ends).then(|| error.clone());
        self.end(&of.id, error).map(|result| (decided + 1, result))
    }

    /// A batch is over, perhaps because its first message was refused. Gives what its publisher is told.
    fn end(&mut self, id: &Bytes, error: Option<PublishError>) -> Option<Result<Stored, PublishError>> {
        let batch = self.open.remove(id)?;
        Some(error.map_or_else(|| Ok(batch.summary(id)), Err))
    }

    /// This server leads, and everything that was decided before is applied.
    pub fn start_leading(&mut self) {
        for batch in self.open.values_mut() {
            batch.go_on_from(batch.decided);
        }
    }

    /// It does not lead any more. Gives what was not proposed and nobody else hands to the next leader, in its order. Of what was
    /// proposed, the publisher is told when it is decided.
    pub fn stop_leading(&mut self) -> Vec<Returned> {
        self.ready.clear();
        let mut returned = Vec::new();
        for batch in self.open.values_mut() {
            batch.is_followed = true;
            if batch.comes_again() {
                batch.go_on_from(batch.decided);
            }
            let Some(Waiting { place, message }) = batch.waiting.back() else { continue };
            // The word that ended it is none of these if it is not stored.
            let ending = batch.ending.take().filter(|ending| ending.reply != place.reply);
            let ending = ending.map(|ending| Returned { reply: ending.reply, message: message.clone() });
            let waiting = batch.waiting.drain(..);
            returned.extend(waiting.map(|one| Returned { reply: one.place.reply, message: one.message }));
            returned.extend(ending);
        }
        returned
    }

    /// What is to be proposed, up to `command_bytes` a run.
    pub fn take_runs(&mut self, command_bytes: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        for id in std::mem::take(&mut self.ready) {
            let Some(batch) = self.open.get_mut(&id).filter(|batch| batch.can_fly()) else { continue };
            let mut messages = Vec::new();
            let mut of = RunOf { id, flow: batch.flow, first: 0, last: 0, ends: false };
            while messages.len() < command_bytes
                && let Some(waiting) = batch.waiting.pop_front()
            {
                messages.extend_from_slice(&waiting.message);
                (of.last, of.ends) = (waiting.place.sequence, waiting.place.is_last);
                of.first = if of.first == 0 { of.last } else { of.first };
                batch.flying.push_back(waiting.place);
            }
            runs.push(Run { of, stop: !batch.gaps, messages });
        }
        runs
    }

    /// A run of this leader was applied.
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
            let at_once = batch.decide(&place, result, share, says);
            says.extend(place.from.map(FastSay::Settled));
            if let Some(error) = at_once {
                batch.settle_rest(says);
                let result = self.end(id, error);
                return says.extend(result.map(|result| FastSay::Last { to: place.reply, result }));
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
        let Some(ending) = self.open.get_mut(id).and_then(|batch| batch.ending.take()) else { return };
        let result = self.end(id, None);
        says.extend(result.map(|result| FastSay::Last { to: ending.reply, result }));
        says.extend(ending.from.map(FastSay::Settled));
    }
}

impl Batch {
    fn new(now: Time, (gaps, flow, every): (bool, u64, u64)) -> Batch {
        Batch {
            gaps,
            flow,
            every,
            received: 0,
            decided: 0,
            told: 0,
            stored: Seq(0),
            is_duplicate: false,
            touched: now,
            waiting: VecDeque::new(),
            flying: VecDeque::new(),
            ending: None,
            is_followed: true,
        }
    }

    /// What comes next is what follows a message that is decided.
    fn go_on_from(&mut self, decided: u64) {
        (self.received, self.decided, self.told) = (decided, decided, decided);
        self.flying.clear();
        self.waiting.clear();
        self.ending = None;
    }

    /// Takes a message into a batch that is open.
    fn take(&mut self, slot: FastSlot<'_>, message: &FastMessage<'_>, says: &mut Vec<FastSay>) {
        let (to, from) = (message.reply.clone(), message.from);
        let is_ping = slot.op == FastOp::Ping;
        let told = FastSay::Flow { to: to.clone(), sequence: self.told, every: self.every };
        if is_ping && slot.sequence <= self.received {
            says.push(told);
            return says.extend(from.map(FastSay::Settled));
        }
        // A ping has the number of the message before it.
        let (expected, sequence) = (self.received + 1, slot.sequence + u64::from(is_ping));
        if sequence != expected {
            says.push(FastSay::Gap { to: to.clone(), expected, sequence });
            if sequence < expected || !self.gaps {
                self.ending = Some(Ending { reply: to, from });
                return;
            }
        }
        match slot.op {
            FastOp::Ping => {
                self.received = slot.sequence;
                says.push(told);
                says.extend(from.map(FastSay::Settled));
            }
            FastOp::End => {
                self.received = sequence - 1;
                self.ending = Some(Ending { reply: to, from });
            }
            FastOp::Start | FastOp::Append | FastOp::Commit => {
                self.received = sequence;
                let is_last = slot.op == FastOp::Commit;
                let mut encoded = Vec::new();
                let fits =
                    encode_batch_message(&mut encoded, message.subject, message.header, message.payload);
                assert!(fits, "the subject's length was checked when the message came");
                let place = Place { sequence, is_last, reply: to.clone(), from };
                self.waiting.push_back(Waiting { place, message: encoded });
                if is_last {
                    self.ending = Some(Ending { reply: to, from: None });
                }
            }
        }
    }

    /// Whether another server hands what is not decided to the next leader.
    fn comes_again(&self) -> bool {
        let waiting = self.waiting.iter().map(|waiting| waiting.place.from);
        let all = self.flying.iter().map(|place| place.from).chain(waiting);
        all.chain(self.ending.iter().map(|ending| ending.from)).any(|from| from.is_some())
    }

    fn can_fly(&self) -> bool {
        self.flying.is_empty() && !self.waiting.is_empty()
    }

    fn is_over(&self) -> bool {
        self.ending.is_some() && self.flying.is_empty() && self.waiting.is_empty()
    }

    /// One message is decided. Something when that ends the batch at once, and the error if that is all there is to say.
    fn decide(
        &mut self,
        place: &Place,
        result: Result<Stored, PublishError>,
        share: u64,
        says: &mut Vec<FastSay>,
    ) -> Option<Option<PublishError>> {
        let Place { sequence, is_last, reply: to, .. } = place;
        match result {
            Ok(stored) if *is_last && stored.duplicate && self.stored == Seq(0) => {
                // The whole batch is one message that was stored before.
                (self.stored, self.decided, self.is_duplicate) = (stored.seq, *sequence, true);
                return Some(None);
            }
            Ok(stored) => {
                if !stored.duplicate {
                    self.stored = stored.seq;
                }
                self.decided = *sequence;
            }
            Err(error) if *sequence == 1 && !is_last && !self.gaps => return Some(Some(error)),
            Err(error) => {
                says.push(FastSay::Refused { to: to.clone(), sequence: *sequence, error });
                if !self.gaps {
                    // What follows was not stored, nor will it be.
                    self.settle_rest(says);
                    self.ending = Some(Ending { reply: to.clone(), from: None });
                    self.received = self.decided;
                    return None;
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
        None
    }

    /// Nothing comes of what is not decided yet.
    fn settle_rest(&mut self, says: &mut Vec<FastSay>) {
        let ending = self.ending.take().and_then(|ending| ending.from);
        let waiting = self.waiting.drain(..).map(|waiting| waiting.place);
        let rest = self.flying.drain(..).chain(waiting).filter_map(|place| place.from);
        says.extend(rest.chain(ending).map(FastSay::Settled));
    }

    /// How far the batch came.
    fn summary(&self, id: &Bytes) -> Stored {
        let count = if self.gaps { self.received } else { self.decided };
        let batch = Some(Box::new(BatchAck { id: id.clone(), count }));
        Stored { seq: self.stored, duplicate: self.is_duplicate, batch, ..Stored::default() }
    }
}

#[cfg(test)]
mod tests;
