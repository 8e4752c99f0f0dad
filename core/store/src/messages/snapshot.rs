//! What a checkpoint holds of a stream's messages: the numbers and which sequences exist. The messages themselves are
//! in segments, whose indexes fill in the rest. docs/format.md, "Stream state".

use bytes::Bytes;
use hw_kit::{Seq, Time};

use super::live::{self, Live};
use super::segments::Segment;
use super::slots::Slot;
use super::{BlockId, Keep, Message, Messages};

const VERSION: u8 = 2;
/// Says nothing of bytes that must not stay.
const VERSION_1: u8 = 1;

/// A message as a segment's index lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    /// Its sequence.
    pub seq: Seq,
    /// When it was stored.
    pub ts: Time,
    /// Its subject.
    pub subject: Bytes,
    /// Bytes of header.
    pub header_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
}

/// Why a snapshot cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes end too early or contradict themselves.
    #[error("the stream's state is damaged")]
    Damaged,
    /// Written by a version that is not known.
    #[error("the stream's state has the unknown version {0}")]
    Version(u8),
    /// Messages were handed in out of order.
    #[error("sequence {0} does not follow the one before")]
    Order(Seq),
}

impl Messages {
    /// Appends the state to `out`: numbers, live sequences and the segments that hold them.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(match self.keep {
            Keep::File => 0,
            Keep::Memory => 1,
        });
        // What is lost should still be there: with its file back in place, it will be.
        let first = self.segments.lost.first().map_or(self.first, |(lost, _)| self.first.min(Seq(*lost)));
        for number in [first.0, self.last.0, self.last_ts.0 as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        live::write(&self.slots, &self.segments.lost, out);
        let unerased = self.segments.unerased.segments.iter().copied().collect();
        for segments in [self.segments_after_rewrite(), unerased] {
            out.extend_from_slice(&(segments.len() as u32).to_le_bytes());
            for segment in segments {
                out.extend_from_slice(&segment.to_le_bytes());
            }
        }
    }
}

/// Reads a snapshot: open it, hand in the segments' indexes (or messages) in order, finish.
#[derive(Debug)]
pub struct Restore {
    messages: Messages,
    live: Live,
    segments: Vec<u64>,
    first: Seq,
    last: Seq,
    last_ts: Time,
    added: Option<Seq>,
}

impl Restore {
    /// Reads the state that [`Messages::snapshot`] wrote at the start of `bytes`; gives what follows it, too.
    pub fn open(bytes: &[u8]) -> Result<(Restore, &[u8]), RestoreError> {
        let mut reader = Reader(bytes);
        let version = match reader.take(1)? {
            &[version @ (VERSION_1 | VERSION)] => version,
            other => return Err(RestoreError::Version(other[0])),
        };
        let keep = match reader.take(1)? {
            [0] => Keep::File,
            [1] => Keep::Memory,
            _ => return Err(RestoreError::Damaged),
        };
        let (first, last) = (Seq(reader.u64()?), Seq(reader.u64()?));
        let last_ts = Time(reader.u64()? as i64);
        let live = Live::read(&mut reader)?;
        let segments = reader.list()?;
        let unerased = if version == VERSION_1 { Vec::new() } else { reader.list()? };
        if !live.is_within(first.0, last.0) || last.0 == u64::MAX {
            return Err(RestoreError::Damaged);
        }
        let mut messages = Messages::new(first, keep);
        messages.segments.unerased.segments = unerased.into_iter().collect();
        let restore = Restore { messages, live, segments, first, last, last_ts, added: None };
        Ok((restore, reader.0))
    }

    /// The segments that hold messages, in the order in which their indexes are to be handed in.
    pub fn segments(&self) -> &[u64] {
        &self.segments
    }

    /// Where messages are kept.
    pub fn keep(&self) -> Keep {
        self.messages.keep
    }

    /// Whether a sequence exists in the snapshot.
    pub fn is_live(&self, seq: Seq) -> bool {
        self.live.contains(seq.0)
    }

    /// The index of one block of a segment. Blocks come in order.
    pub fn add_block(&mut self, id: BlockId, entries: &[IndexEntry]) -> Result<(), RestoreError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let segments = &mut self.messages.segments.by_first;
        let continues =
            segments.last_entry().filter(|entry| entry.get().id == id.segment).map(|entry| *entry.key());
        let key = continues.unwrap_or(first.seq.0);
        let fresh = Segment::new(id.segment, first.seq.0);
        let segment = segments.entry(key).or_insert(fresh);
        if segment.blocks.len() > id.block as usize {
            return Err(RestoreError::Damaged);
        }
        // A block that could not be read has no messages: its place is kept so that the numbers stay right.
        segment.blocks.resize(id.block as usize + 1, first.seq.0);
        for entry in entries {
            if self.added.is_some_and(|added| entry.seq <= added) {
                return Err(RestoreError::Order(entry.seq));
            }
            self.added = Some(entry.seq);
            segment.last = entry.seq.0;
            let (payload, header) = (entry.payload_len as usize, entry.header_len as usize);
            let size = self.messages.keep.size(payload, entry.subject.len(), header);
            segment.total += 1;
            segment.total_bytes += size.min(u64::from(u32::MAX));
            if self.live.contains(entry.seq.0) {
                segment.live += 1;
                segment.live_bytes += size.min(u64::from(u32::MAX));
                let subject = self.messages.subjects.push(&entry.subject, entry.seq.0);
                let slot = Slot { ts: entry.ts.0, subject, size: u32::try_from(size).unwrap_or(u32::MAX) };
                self.messages.bytes += u64::from(slot.size);
                self.messages.slots.push(entry.seq.0, slot, None);
            }
        }
        Ok(())
    }

    /// A whole message: how memory streams come to another server.
    pub fn add_message(&mut self, message: Message) -> Result<(), RestoreError> {
        if self.added.is_some_and(|added| message.seq <= added) || message.seq > self.last {
            return Err(RestoreError::Order(message.seq));
        }
        self.added = Some(message.seq);
        if self.live.contains(message.seq.0) {
            self.messages.append(message.seq, message.ts, message.record);
        }
        Ok(())
    }

    /// The messages, and the stretches (first and last sequence) that the snapshot has but nobody handed in: they are
    /// lost here.
    pub fn finish(self) -> (Messages, Vec<(Seq, Seq)>) {
        let Restore { mut messages, live, segments, first, last, last_ts, .. } = self;
        let lost: Vec<(Seq, Seq)> = match live.len() == messages.slots.len() {
            true => Vec::new(),
            false => live
                .missing(&messages.slots)
                .into_iter()
                .map(|(first, last)| (Seq(first), Seq(last)))
                .collect(),
        };
        messages.last = last;
        messages.last_ts = last_ts;
        messages.first = match messages.slots.next(0) {
            Some(seq) => Seq(seq),
            None if lost.is_empty() => first,
            None => last.next(),
        };
        messages.segments.lost = lost.iter().map(|(first, last)| (first.0, last.0)).collect();
        messages.segments.keep_absent(&segments);
        let written = messages.segments.by_first.last_key_value().map_or(0, |(_, segment)| segment.last);
        messages.segments.written_to = written;
        messages.segments.taken_to = match messages.keep {
            Keep::File => last.0,
            Keep::Memory => written,
        };
        let firsts: Vec<u64> = messages.segments.by_first.keys().copied().collect();
        for first in firsts {
            messages.segments.bury(first);
        }
        (messages, lost)
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(RestoreError::Damaged)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn u64(&mut self) -> Result<u64, RestoreError> {
        let bytes: [u8; 8] = self.take(8)?.try_into().expect("eight bytes");
        Ok(u64::from_le_bytes(bytes))
    }

    pub fn u16(&mut self) -> Result<u16, RestoreError> {
        let bytes: [u8; 2] = self.take(2)?.try_into().expect("two bytes");
        Ok(u16::from_le_bytes(bytes))
    }

    fn list(&mut self) -> Result<Vec<u64>, RestoreError> {
        (0..self.u32()?).map(|_| self.u64()).collect()
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        let bytes: [u8; 4] = self.take(4)?.try_into().expect("four bytes");
        Ok(u32::from_le_bytes(bytes))
    }
}
