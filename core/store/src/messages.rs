//! The index of one stream's messages: what there is, where its bytes are, and what matches which filter.
//!
//! What was written last is in memory: the `head` has a slot for each message (time, subject, size, and the bytes) and a
//! place in its subject's list. Once it is in a segment it leaves memory, oldest first, as far as the budget demands;
//! from then on the segment's index answers for it, read by the page, and memory holds a bit for each sequence. Blocks
//! of messages are loaded when somebody asks. Messages of memory streams always stay.

mod blocks;
mod cold;
mod head;
mod live;
mod matcher;
mod repair;
mod rewrite;
mod segment_input;
mod segments;
mod seqs;
mod slots;
mod snapshot;
mod subjects;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use hw_kit::{Seq, Time};

use crate::Record;
pub use cold::IndexSource;
use cold::{Cold, Elsewhere};
use head::Head;
pub use matcher::Matcher;
pub use rewrite::Rewrite;
pub use segment_input::SegmentInput;
use segments::Segments;
pub use segments::{LiveSegment, Written};
use slots::Slot;
pub use snapshot::{Restore, RestoreError};
use subjects::Left;

/// A part of a segment that is read and checked as one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockId {
    /// The segment's number.
    pub segment: u64,
    /// The block's position in it, from 0.
    pub block: u32,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its sequence.
    pub seq: Seq,
    /// When it was stored.
    pub ts: Time,
    /// Its subject, header and payload.
    pub record: Record,
}

impl Message {
    /// A copy that keeps nothing else in memory.
    pub fn detached(&self) -> Message {
        Message { record: self.record.detached(), ..*self }
    }
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Fetch {
    /// Here it is.
    Message(Message),
    /// There is no such message.
    Absent,
    /// It has to be loaded first: see [`Messages::handle_block`].
    OnDisk(BlockId),
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// In memory until they are in a segment. Records are kept as they come: slices of the log's frames.
    File,
    /// In memory only, each in a buffer of its own.
    Memory,
}

impl Keep {
    /// What a message counts in `bytes`, as `nats-server` counts it.
    pub fn size_of(self, record: &Record) -> u64 {
        self.size(record.payload().len(), record.subject().len(), record.header().len())
    }

    /// The same from the lengths of its parts.
    pub fn size(self, payload: usize, subject: usize, header: usize) -> u64 {
        let content = (payload + subject + header) as u64;
        match self {
            Keep::File if header > 0 => content + 34,
            Keep::File => content + 30,
            Keep::Memory => content + 16,
        }
    }
}

/// What is left of a message that was removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Removed {
    /// Its subject.
    pub name: Bytes,
    /// What it counted in `bytes`.
    pub bytes: u64,
    /// When it was stored.
    pub ts: Time,
    /// Whether it was the last one of its subject.
    pub last_of_subject: bool,
}

/// The numbers of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// How many messages.
    pub messages: u64,
    /// What they count.
    pub bytes: u64,
    /// The first message's sequence; one after the last for an empty stream.
    pub first_seq: Seq,
    /// When the first message was stored; not set for an empty stream.
    pub first_ts: Time,
    /// The sequence given last.
    pub last_seq: Seq,
    /// When the last sequence was given.
    pub last_ts: Time,
    /// How many subjects have messages.
    pub num_subjects: u64,
    /// How many sequences between first and last have no message.
    pub num_deleted: u64,
}

/// As of when something was found in a stream: another one once a message has come or gone, whatever became of both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    last: Seq,
    first: Seq,
    /// While none comes, there can only be fewer.
    messages: u64,
}

/// Messages that leave memory with each that comes, while there are too many.
const SHED_PER_APPEND: usize = 4;

/// All messages of a stream.
#[derive(Debug)]
pub struct Messages {
    keep: Keep,
    head: Head,
    cold: Cold,
    segments: Segments,
    bytes: u64,
    num_subjects: u64,
    first: Seq,
    last: Seq,
    last_ts: Time,
}

impl Messages {
    /// No messages; the first gets `first_seq`, or 1 if that is 0.
    pub fn new(first_seq: Seq, keep: Keep) -> Messages {
        Messages {
            keep,
            head: Head::default(),
            cold: Cold::default(),
            segments: Segments::default(),
            bytes: 0,
            num_subjects: 0,
            first: first_seq,
            last: first_seq.prev(),
            last_ts: Time(0),
        }
    }

    /// Adds a message after all others.
    pub fn append(&mut self, seq: Seq, ts: Time, record: Record) {
        assert!(seq > self.last, "sequences ascend: {seq} after {}", self.last);
        let size = self.keep.size_of(&record);
        let subject = self.note_subject(record.subject(), seq.0);
        let record = match self.keep {
            Keep::File => record,
            Keep::Memory => record.detached(),
        };
        let slot = Slot { ts: ts.0, subject, size: u32::try_from(size).unwrap_or(u32::MAX) };
        self.bytes += u64::from(slot.size);
        self.head.slots.push(seq.0, slot, Some(record));
        if self.len() == 1 {
            self.first = seq;
        }
        (self.last, self.last_ts) = (seq, ts);
        self.shed(SHED_PER_APPEND);
    }

    /// What was kept in memory only is to be on disk from now on, and counts what it counts there.
    pub fn keep_on_disk(&mut self) {
        if self.keep == Keep::File {
            return;
        }
        let mut all = Messages::new(self.first, Keep::File);
        all.cold.source = self.cold.source.take();
        for seq in self.seqs() {
            if let Fetch::Message(message) = self.fetch(seq) {
                all.append(seq, message.ts, message.record);
            }
        }
        all.advance_to(self.last, self.last_ts);
        *self = all;
    }

    fn note_subject(&mut self, name: &[u8], seq: u64) -> u32 {
        let (id, is_newcomer) = self.head.subjects.note(name, seq);
        if is_newcomer {
            let cold = match self.cold_of_newcomer(name) {
                Elsewhere::Nothing => Some(0),
                Elsewhere::Messages(count) => count,
            };
            self.num_subjects += u64::from(cold == Some(0));
            if let Some(count) = cold {
                self.head.subjects.set_cold(id, count);
            }
        }
        id
    }

    /// Uses up sequences without messages: `last` becomes the last sequence given.
    pub fn advance_to(&mut self, last: Seq, ts: Time) {
        if last < self.last {
            return;
        }
        (self.last, self.last_ts) = (last, ts);
        if self.is_empty() {
            self.first = last.next();
        }
    }

    /// Takes a message out. Nothing is known of one whose segment is lost, but that it must not come back.
    pub fn remove(&mut self, seq: Seq) -> Option<Removed> {
        if !self.segments.lost.is_empty() {
            self.segments.forget_lost_row((seq.0, seq.0));
        }
        let removed = match seq.0 > self.cold.to {
            true => self.remove_from_head(seq.0)?,
            false => self.remove_from_cold(seq.0)?,
        };
        self.bytes -= removed.bytes;
        self.num_subjects -= u64::from(removed.last_of_subject);
        if seq == self.first || self.is_empty() {
            self.first = self.next(seq).unwrap_or(self.last.next());
        }
        Some(removed)
    }

    fn remove_from_head(&mut self, seq: u64) -> Option<Removed> {
        let (slot, _) = self.head.slots.remove(seq)?;
        let name = Bytes::copy_from_slice(self.head.subjects.name(slot.subject));
        let last_of_subject = match self.head.subjects.remove(slot.subject, seq, false) {
            Left::InMemory | Left::Elsewhere => false,
            Left::Nothing => true,
            Left::Unknown => self.cold_last(&name).is_none(),
        };
        let bytes = u64::from(slot.size);
        self.segments.handle_removed(seq, bytes, true);
        Some(Removed { name, bytes, ts: Time(slot.ts), last_of_subject })
    }

    fn remove_from_cold(&mut self, seq: u64) -> Option<Removed> {
        let (&first, segment) = self.segments.find(seq).filter(|_| self.cold.live.contains(seq))?;
        let slot = self.cold.slot(segment, seq)?;
        let name = match self.cold.remembered_name(&self.segments, first, seq) {
            Some(name) => name,
            None => self.cold.name(segment, slot.rank)?,
        };
        self.cold.live.remove(seq);
        let last_of_subject = match self.head.subjects.find(&name) {
            Some(id) => {
                self.head.subjects.handle_cold_removed(id);
                false
            }
            None => self.cold_last(&name).is_none(),
        };
        let bytes = u64::from(slot.size);
        debug_assert!(first <= seq, "the segment holds it");
        self.segments.handle_removed(seq, bytes, false);
        Some(Removed { name, bytes, ts: Time(slot.ts), last_of_subject })
    }

    /// As if nothing had ever been stored: the first message gets `first`. Only where nothing was.
    pub fn begin_anew(&mut self, first: Seq) {
        let source = self.cold.source.take();
        *self = Messages::new(first, self.keep);
        self.cold.source = source;
    }

    /// Takes all messages out at once; gives their number.
    pub fn clear(&mut self) -> u64 {
        let count = self.len();
        self.head.clear();
        self.cold.live = live::Live::default();
        self.segments.handle_cleared();
        (self.bytes, self.num_subjects) = (0, 0);
        if count > 0 {
            self.first = self.last.next();
        }
        count
    }

    /// A message's content, if it is in memory.
    pub fn fetch(&self, seq: Seq) -> Fetch {
        if let Some((slot, Some(record))) = self.head.slots.get(seq.0) {
            return Fetch::Message(Message { seq, ts: Time(slot.ts), record: record.clone() });
        }
        match self.cold.live.contains(seq.0).then(|| self.block_of(seq)).flatten() {
            Some(block) => self.segments.fetch(block, seq.0),
            None => Fetch::Absent,
        }
    }

    /// Whether there is such a message.
    pub fn contains(&self, seq: Seq) -> bool {
        self.head.slots.contains(seq.0) || self.cold.live.contains(seq.0)
    }

    /// When a message was stored.
    pub fn time_of(&self, seq: Seq) -> Option<Time> {
        match self.head.slots.get(seq.0) {
            Some((slot, _)) => Some(Time(slot.ts)),
            None => self.cold_slot(seq.0).map(|slot| Time(slot.ts)),
        }
    }

    /// A message's subject.
    pub fn subject_of(&self, seq: Seq) -> Option<Bytes> {
        if let Some((slot, _)) = self.head.slots.get(seq.0) {
            return Some(Bytes::copy_from_slice(self.head.subjects.name(slot.subject)));
        }
        let slot = self.cold_slot(seq.0)?;
        self.cold.name(self.segments.find(seq.0)?.1, slot.rank)
    }

    /// What a message counts in `bytes`.
    pub fn size_of(&self, seq: Seq) -> Option<u64> {
        match self.head.slots.get(seq.0) {
            Some((slot, _)) => Some(u64::from(slot.size)),
            None => self.cold_slot(seq.0).map(|slot| u64::from(slot.size)),
        }
    }

    /// Where messages are kept.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// The numbers of the stream.
    pub fn state(&self) -> State {
        let messages = self.len();
        let span = self.last.0.saturating_add(1).saturating_sub(self.first.0);
        State {
            messages,
            bytes: self.bytes,
            first_seq: self.first,
            first_ts: self.time_of(self.first).unwrap_or_default(),
            last_seq: self.last,
            last_ts: self.last_ts,
            num_subjects: self.num_subjects,
            num_deleted: if messages == 0 { 0 } else { span - messages },
        }
    }

    /// As of when answers are given now.
    pub fn version(&self) -> Version {
        Version { last: self.last, first: self.first, messages: self.len() }
    }

    /// How many messages there are.
    pub fn len(&self) -> u64 {
        self.head.slots.len() + self.cold.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all messages count.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many subjects have messages.
    pub fn num_subjects(&self) -> u64 {
        self.num_subjects
    }

    /// The first message's sequence; one after the last for an empty stream.
    pub fn first_seq(&self) -> Seq {
        self.first
    }

    /// The sequence given last.
    pub fn last_seq(&self) -> Seq {
        self.last
    }

    /// When the last sequence was given.
    pub fn last_ts(&self) -> Time {
        self.last_ts
    }

    /// The sequences between first and last that have no message.
    pub fn deleted(&self) -> Vec<Seq> {
        if self.is_empty() {
            return Vec::new();
        }
        let (mut gaps, mut at) = (Vec::new(), self.first);
        while at <= self.last {
            let next = self.next(at).unwrap_or(self.last.next());
            gaps.extend((at.0..next.0).map(Seq));
            at = next.next();
        }
        gaps
    }

    /// The first message at or after a sequence, whatever its subject.
    pub fn next(&self, from: Seq) -> Option<Seq> {
        let cold = if from.0 <= self.cold.to { self.cold.live.next(from.0) } else { None };
        cold.or_else(|| self.head.slots.next(from.0)).map(Seq)
    }

    /// The last message at or before a sequence, whatever its subject.
    pub fn prev(&self, from: Seq) -> Option<Seq> {
        let head = if from.0 > self.cold.to { self.head.slots.prev(from.0) } else { None };
        head.or_else(|| self.cold.live.prev(from.0)).map(Seq)
    }

    /// All sequences that have a message, ascending.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> + '_ {
        self.cold.live.iter().chain(self.head.slots.iter()).map(Seq)
    }

    /// The first message that was not stored before `ts`; one after the last sequence if there is none.
    pub fn seq_at(&self, ts: Time) -> Seq {
        let cold = self.cold.live.prev(u64::MAX).filter(|&last| self.is_not_before(last, ts));
        let found = match cold {
            Some(last) => self.cold_at(last, ts),
            None => self.head.slots.at_time(ts.0),
        };
        found.map_or(self.last.next(), Seq)
    }

    /// The first message that is not in memory and was not stored before `ts`: times never decrease with the sequence.
    fn cold_at(&self, last: u64, ts: Time) -> Option<u64> {
        let (mut low, mut high) = (self.cold.live.next(0)?, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.is_not_before(self.cold.live.next(middle)?, ts) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.cold.live.next(low)
    }

    fn is_not_before(&self, seq: u64, ts: Time) -> bool {
        self.cold_slot(seq).is_some_and(|slot| slot.ts >= ts.0)
    }

    /// How many messages a subject has.
    pub fn count_of(&self, subject: &[u8]) -> u64 {
        match self.head.subjects.find(subject) {
            Some(id) => {
                let head = self.head.subjects.seqs(id).map_or(0, seqs::Seqs::count);
                let cold = self.head.subjects.cold(id).unwrap_or_else(|| {
                    let count = self.cold_count(subject);
                    self.head.subjects.set_cold(id, count);
                    count
                });
                head + cold
            }
            None => self.cold_count(subject),
        }
    }

    /// A subject's first message.
    pub fn first_of(&self, subject: &[u8]) -> Option<Seq> {
        let head = self.head.subjects.find(subject);
        let known = head.and_then(|id| self.head.subjects.cold(id));
        let cold = match known {
            Some(0) => None,
            // It is its last one, too, which is found in fewer steps.
            Some(1) => self.cold_last(subject),
            _ => self.cold_first(subject, known),
        };
        let first = || self.head.subjects.seqs(head?).map(seqs::Seqs::first);
        cold.or_else(first).map(Seq)
    }

    /// A subject's last message.
    pub fn last_of(&self, subject: &[u8]) -> Option<Seq> {
        match self.head.subjects.find(subject) {
            Some(id) => self.head.subjects.seqs(id).map(|seqs| Seq(seqs.last())),
            None => self.cold_last(subject).map(Seq),
        }
    }
}
