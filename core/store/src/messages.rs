//! The index of one stream's messages: what there is, where its bytes are, and what matches which filter.
//!
//! Every message has a slot (time, subject, size: 16 bytes) and a place in its subject's list. The bytes of a message
//! are in memory until a checkpoint has written them to a segment; afterwards a bounded amount stays, the rest is
//! loaded by block when somebody asks. Messages of memory streams always stay.

mod blocks;
mod live;
mod matcher;
mod rewrite;
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
pub use matcher::Matcher;
pub use rewrite::Rewrite;
use segments::Segments;
pub use segments::{LiveSegment, Written};
use slots::{Slot, Slots};
pub use snapshot::{IndexEntry, Restore, RestoreError};
pub use subjects::SubjectId;
use subjects::{Filter, Subjects};

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
    /// Its subject's number, which may be used for another subject from now on.
    pub subject: SubjectId,
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

/// All messages of a stream.
#[derive(Debug)]
pub struct Messages {
    keep: Keep,
    slots: Slots,
    subjects: Subjects,
    segments: Segments,
    bytes: u64,
    first: Seq,
    last: Seq,
    last_ts: Time,
}

impl Messages {
    /// No messages; the first gets `first_seq`, or 1 if that is 0.
    pub fn new(first_seq: Seq, keep: Keep) -> Messages {
        Messages {
            keep,
            slots: Slots::default(),
            subjects: Subjects::default(),
            segments: Segments::default(),
            bytes: 0,
            first: first_seq,
            last: first_seq.prev(),
            last_ts: Time(0),
        }
    }

    /// Adds a message after all others.
    pub fn append(&mut self, seq: Seq, ts: Time, record: Record) {
        assert!(seq > self.last, "sequences ascend: {seq} after {}", self.last);
        let size = self.keep.size_of(&record);
        let subject = self.subjects.push(record.subject(), seq.0);
        let record = match self.keep {
            Keep::File => record,
            Keep::Memory => record.detached(),
        };
        let slot = Slot { ts: ts.0, subject, size: u32::try_from(size).unwrap_or(u32::MAX) };
        self.bytes += u64::from(slot.size);
        self.slots.push(seq.0, slot, Some(record));
        if self.slots.len() == 1 {
            self.first = seq;
        }
        (self.last, self.last_ts) = (seq, ts);
    }

    /// Uses up sequences without messages: `last` becomes the last sequence given.
    pub fn advance_to(&mut self, last: Seq, ts: Time) {
        if last < self.last {
            return;
        }
        (self.last, self.last_ts) = (last, ts);
        if self.slots.len() == 0 {
            self.first = last.next();
        }
    }

    /// Takes a message out.
    pub fn remove(&mut self, seq: Seq) -> Option<Removed> {
        let (slot, resident) = self.slots.remove(seq.0)?;
        self.bytes -= u64::from(slot.size);
        let name = self.subjects.name(slot.subject).clone();
        self.subjects.remove(slot.subject, seq.0);
        self.segments.handle_removed(seq.0, u64::from(slot.size), resident);
        if seq == self.first || self.slots.len() == 0 {
            self.first = self.slots.next(seq.0).map_or(self.last.next(), Seq);
        }
        Some(Removed {
            subject: SubjectId(slot.subject),
            name,
            bytes: u64::from(slot.size),
            ts: Time(slot.ts),
            last_of_subject: self.subjects.seqs(slot.subject).is_none(),
        })
    }

    /// Takes all messages out at once; gives their number.
    pub fn clear(&mut self) -> u64 {
        let count = self.slots.len();
        self.slots = Slots::default();
        self.subjects.clear();
        self.segments.handle_cleared();
        self.bytes = 0;
        if count > 0 {
            self.first = self.last.next();
        }
        count
    }

    /// A message's content, if it is in memory.
    pub fn fetch(&self, seq: Seq) -> Fetch {
        let Some((slot, record)) = self.slots.get(seq.0) else { return Fetch::Absent };
        if let Some(record) = record {
            return Fetch::Message(Message { seq, ts: Time(slot.ts), record: record.clone() });
        }
        self.segments.fetch(seq.0)
    }

    /// Whether there is such a message.
    pub fn contains(&self, seq: Seq) -> bool {
        self.slots.contains(seq.0)
    }

    /// When a message was stored.
    pub fn time_of(&self, seq: Seq) -> Option<Time> {
        self.slots.get(seq.0).map(|(slot, _)| Time(slot.ts))
    }

    /// A message's subject.
    pub fn subject_of(&self, seq: Seq) -> Option<&Bytes> {
        self.slots.get(seq.0).map(|(slot, _)| self.subjects.name(slot.subject))
    }

    /// What a message counts in `bytes`.
    pub fn size_of(&self, seq: Seq) -> Option<u64> {
        self.slots.get(seq.0).map(|(slot, _)| u64::from(slot.size))
    }

    /// The number of a subject that has messages.
    pub fn subject_id(&self, subject: &[u8]) -> Option<SubjectId> {
        self.subjects.find(subject).map(SubjectId)
    }

    /// Where messages are kept.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// The numbers of the stream.
    pub fn state(&self) -> State {
        let messages = self.slots.len();
        let span = self.last.0.saturating_add(1).saturating_sub(self.first.0);
        State {
            messages,
            bytes: self.bytes,
            first_seq: self.first,
            first_ts: self.time_of(self.first).unwrap_or_default(),
            last_seq: self.last,
            last_ts: self.last_ts,
            num_subjects: self.subjects.len(),
            num_deleted: if messages == 0 { 0 } else { span - messages },
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> u64 {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }

    /// What all messages count.
    pub fn bytes(&self) -> u64 {
        self.bytes
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
        self.slots.gaps(self.first.0, self.last.0).into_iter().map(Seq).collect()
    }

    /// The first message at or after a sequence, whatever its subject.
    pub fn next(&self, from: Seq) -> Option<Seq> {
        self.slots.next(from.0).map(Seq)
    }

    /// The last message at or before a sequence, whatever its subject.
    pub fn prev(&self, from: Seq) -> Option<Seq> {
        self.slots.prev(from.0).map(Seq)
    }

    /// All sequences that have a message, ascending.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> + '_ {
        self.slots.iter().map(Seq)
    }

    /// The first message that was not stored before `ts`; one after the last sequence if there is none.
    pub fn seq_at(&self, ts: Time) -> Seq {
        self.slots.at_time(ts.0).map_or(self.last.next(), Seq)
    }

    /// Calls `f` with every subject that matches and how many messages it has, ordered by name.
    pub fn for_each_subject(&self, filter: &str, mut f: impl FnMut(&Bytes, u64)) {
        self.subjects.for_each(&Filter::new(filter), |_, name, seqs| {
            f(name, seqs.count());
            true
        });
    }

    /// How many messages a subject has.
    pub fn count_of(&self, subject: &[u8]) -> u64 {
        self.seqs_of(subject).map_or(0, seqs::Seqs::count)
    }

    /// A subject's first message.
    pub fn first_of(&self, subject: &[u8]) -> Option<Seq> {
        self.seqs_of(subject).map(|seqs| Seq(seqs.first()))
    }

    /// A subject's last message.
    pub fn last_of(&self, subject: &[u8]) -> Option<Seq> {
        self.seqs_of(subject).map(|seqs| Seq(seqs.last()))
    }

    /// The last message, at or before `up_to`, whose subject matches.
    pub fn last_matching(&self, filter: &str, up_to: Seq) -> Option<Seq> {
        let filter = Filter::new(filter);
        if filter.is_all() {
            return self.prev(up_to);
        }
        // Often one of the latest messages matches.
        let mut at = up_to.0.min(self.last.0) + 1;
        for _ in 0..32 {
            at = self.slots.prev(at.checked_sub(1)?)?;
            if self.subject_of(Seq(at)).is_some_and(|name| filter.matches(name)) {
                return Some(Seq(at));
            }
        }
        let mut last: Option<u64> = None;
        self.subjects.for_each(&filter, |_, _, seqs| {
            last = last.max(seqs.prev(up_to.0));
            true
        });
        last.map(Seq)
    }

    fn seqs_of(&self, subject: &[u8]) -> Option<&seqs::Seqs> {
        self.subjects.seqs(self.subjects.find(subject)?)
    }
}
