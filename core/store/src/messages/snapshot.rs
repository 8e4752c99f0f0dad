//! What a checkpoint holds of a stream's messages: the numbers, which sequences exist, and the segments that hold them.
//! What else is to be known of the messages is in the segments' indexes. docs/format.md, "Stream state".

use std::collections::{BTreeMap, BTreeSet};

use hw_kit::{Seq, Time};

use super::live::{self, Live};
use super::segments::{Segment, Written};
use super::{IndexSource, Keep, Message, Messages};
use crate::index::Held;

const VERSION: u8 = 3;

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
        self.snapshot_content(out);
        let segments = self.segments_after_rewrite();
        out.extend_from_slice(&(segments.len() as u32).to_le_bytes());
        for segment in segments {
            let Listed { first, segment: Segment { id, last, live, total, live_bytes, total_bytes, .. } } =
                segment;
            for number in [id, first, last, live, total, live_bytes, total_bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let unerased = &self.segments.unerased.segments;
        out.extend_from_slice(&(unerased.len() as u32).to_le_bytes());
        unerased.iter().for_each(|segment| out.extend_from_slice(&segment.to_le_bytes()));
    }

    /// The part of it that is the same on every server that has the same messages, wherever they are there.
    pub fn snapshot_content(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(match self.keep {
            Keep::File => 0,
            Keep::Memory => 1,
        });
        // What is lost should still be there: with its file back in place, it will be.
        let lost = &self.segments.lost;
        let first = lost.first().map_or(self.first, |(lost, _)| self.first.min(Seq(*lost)));
        for number in [first.0, self.last.0, self.last_ts.0 as u64, self.num_subjects] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        live::write(&self.cold.live, &self.head.slots, lost, out);
    }

    /// The segments that a checkpoint refers to, by sequence: the one that it rewrites stands for those that it was
    /// made of.
    fn segments_after_rewrite(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = Vec::new();
        for (&first, segment) in &self.segments.by_first {
            let copy = Segment { place: None, held: Held::default(), ..*segment };
            let Some(rewriting) =
                self.segments.rewriting.as_ref().filter(|rewriting| rewriting.old.contains(&segment.id))
            else {
                listed.push(Listed { first, segment: copy });
                continue;
            };
            match listed.last_mut().filter(|one| one.segment.id == rewriting.new) {
                Some(Listed { segment: one, .. }) => {
                    (one.live, one.live_bytes) = (one.live + copy.live, one.live_bytes + copy.live_bytes);
                    one.last = copy.last;
                }
                None => {
                    let (id, total, total_bytes) = (rewriting.new, rewriting.total, rewriting.total_bytes);
                    listed.push(Listed { first, segment: Segment { id, total, total_bytes, ..copy } });
                }
            }
        }
        listed
    }

    /// The numbers of the segments that a checkpoint refers to.
    pub fn segment_numbers(&self) -> Vec<u64> {
        self.segments_after_rewrite().iter().map(|listed| listed.segment.id).collect()
    }
}

/// A segment as a checkpoint lists it.
#[derive(Debug)]
struct Listed {
    first: u64,
    segment: Segment,
}

/// Reads a snapshot: open it, hand in the segments (or messages) in order, finish.
#[derive(Debug)]
pub struct Restore {
    messages: Messages,
    live: Live,
    numbers: Vec<u64>,
    first: Seq,
    last: Seq,
    last_ts: Time,
    num_subjects: u64,
    added: Option<Seq>,
    /// Segments that hold something else than they should: what is left of them has to be read.
    changed: Vec<u64>,
    /// Messages were removed of which nothing was known, not even their subjects.
    miscounted: bool,
}

impl Restore {
    /// Reads the state that [`Messages::snapshot`] wrote at the start of `bytes`; gives what follows it, too.
    pub fn open(bytes: &[u8]) -> Result<(Restore, &[u8]), RestoreError> {
        let mut reader = Reader(bytes);
        match reader.take(1)? {
            &[VERSION] => {}
            other => return Err(RestoreError::Version(other[0])),
        }
        let keep = match reader.take(1)? {
            [0] => Keep::File,
            [1] => Keep::Memory,
            _ => return Err(RestoreError::Damaged),
        };
        let (first, last) = (Seq(reader.u64()?), Seq(reader.u64()?));
        let last_ts = Time(reader.u64()? as i64);
        let num_subjects = reader.u64()?;
        let live = Live::read(&mut reader)?;
        let segments = reader.segments()?;
        let unerased = reader.list()?;
        let is_within = live.next(0).is_none_or(|seq| seq >= first.0)
            && live.prev(u64::MAX).is_none_or(|seq| seq <= last.0);
        if !is_within || last.0 == u64::MAX {
            return Err(RestoreError::Damaged);
        }
        let numbers = segments.iter().map(|listed| listed.segment.id).collect();
        let mut messages = Messages::new(first, keep);
        messages.segments.unerased.segments = unerased.into_iter().collect();
        messages.segments.by_first =
            segments.into_iter().map(|listed| (listed.first, listed.segment)).collect();
        let (added, changed, miscounted) = (None, Vec::new(), false);
        let restore = Restore {
            messages,
            live,
            numbers,
            first,
            last,
            last_ts,
            num_subjects,
            added,
            changed,
            miscounted,
        };
        Ok((restore, reader.0))
    }

    /// The segments that hold messages, in the order in which they are to be handed in.
    pub fn segments(&self) -> &[u64] {
        &self.numbers
    }

    /// Where messages are kept.
    pub fn keep(&self) -> Keep {
        self.messages.keep
    }

    /// Whether a sequence exists in the snapshot.
    pub fn is_live(&self, seq: Seq) -> bool {
        self.live.contains(seq.0)
    }

    /// A segment whose file is there.
    pub fn add_segment(&mut self, written: Written) -> Result<(), RestoreError> {
        let segments = self.messages.segments.by_first.values_mut();
        let found = segments.into_iter().find(|segment| segment.id == written.segment);
        let segment = found.ok_or(RestoreError::Damaged)?;
        let place = written.place;
        segment.place = Some(place);
        if (place.records, place.bytes) != (segment.total, segment.total_bytes) {
            self.changed.push(segment.id);
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

    /// The messages of another server, made of what this one has: `own` has all of them already, and may have others that
    /// were removed since. Gives `own` back, and the first sequence that is missing, if one is.
    pub fn adopt(self, mut own: Messages) -> Result<Messages, Box<(Messages, Seq)>> {
        if let Some(missing) = self.live.iter().map(Seq).find(|seq| !own.contains(*seq)) {
            return Err(Box::new((own, missing)));
        }
        let gone: Vec<Seq> = own.seqs().filter(|seq| !self.live.contains(seq.0)).collect();
        for seq in gone {
            own.remove(seq);
        }
        own.advance_to(self.last, self.last_ts);
        (own.last, own.last_ts) = (self.last, self.last_ts);
        if own.is_empty() {
            own.first = self.first;
        }
        // The same messages have the same subjects; what was mended here was not counted.
        own.num_subjects = self.num_subjects;
        Ok(own)
    }

    /// The messages, and the stretches (first and last sequence) that the snapshot has but nobody handed in: they are
    /// lost here.
    pub fn finish(mut self, source: Option<IndexSource>) -> (Messages, Vec<(Seq, Seq)>) {
        self.messages.cold.source = source;
        let lost = match self.messages.keep {
            Keep::File => self.take_segments(),
            Keep::Memory => {
                let mut lost = Live::default();
                let slots = &self.messages.head.slots;
                self.live.iter().filter(|&seq| !slots.contains(seq)).for_each(|seq| lost.insert(seq));
                lost.stretches(0, u64::MAX - 1)
            }
        };
        let Restore { mut messages, first, last, last_ts, miscounted, .. } = self;
        messages.last = last;
        messages.last_ts = last_ts;
        messages.first = match messages.next(Seq(0)) {
            Some(seq) => seq,
            None if lost.is_empty() => first,
            None => last.next(),
        };
        let segments = &mut messages.segments;
        let known: BTreeSet<u64> = segments.by_first.values().map(|segment| segment.id).collect();
        segments.unerased.segments.retain(|id| known.contains(id));
        let written = segments.by_first.values().map(|segment| segment.last).max().unwrap_or(0);
        segments.written_to = written;
        segments.taken_to = match messages.keep {
            Keep::File => last.0,
            Keep::Memory => written,
        };
        let firsts: Vec<u64> = segments.by_first.keys().copied().collect();
        firsts.into_iter().for_each(|first| segments.bury(first));
        segments.lost.clone_from(&lost);
        if miscounted {
            messages.count_subjects_anew();
        }
        (messages, lost.into_iter().map(|(first, last)| (Seq(first), Seq(last))).collect())
    }

    /// Everything of a file stream is on disk now; gives the stretches that are lost.
    fn take_segments(&mut self) -> Vec<(u64, u64)> {
        let messages = &mut self.messages;
        messages.num_subjects = self.num_subjects;
        messages.cold.live = std::mem::take(&mut self.live);
        for seq in messages.head.slots.iter() {
            messages.cold.live.remove(seq);
        }
        messages.cold.to = messages.head.slots.next(0).map_or(self.last.0, |first| first - 1);
        messages.bytes += messages.segments.by_first.values().map(|segment| segment.live_bytes).sum::<u64>();
        let ranges: Vec<(u64, u64)> =
            messages.segments.by_first.iter().map(|(&first, segment)| (first, segment.last)).collect();
        let mut lost = Vec::new();
        let mut end = 0;
        for (first, last) in ranges {
            // What lies between segments is in none: nobody has it.
            lost.extend(messages.cold.live.stretches(end, first.saturating_sub(1)));
            end = last + 1;
            let segment = &messages.segments.by_first[&first];
            if segment.place.is_none() {
                lost.extend(messages.cold.live.stretches(first, last));
                let segment = messages.segments.by_first.get_mut(&first).expect("just seen");
                segment.lost = true;
                messages.bytes = messages.bytes.saturating_sub(segment.live_bytes);
                if segment.live == 0 {
                    messages.segments.by_first.remove(&first);
                }
            } else if self.changed.contains(&segment.id) {
                lost.extend(messages.recount(first, last));
            } else if segment.live != messages.cold.live.count_within(first, last) {
                // What was removed while the segment was lost was not taken off its numbers.
                lost.extend(messages.recount(first, last));
                self.miscounted = true;
            }
        }
        lost.extend(messages.cold.live.stretches(end, self.last.0));
        for seq in lost.iter().flat_map(|&(first, last)| first..=last) {
            messages.cold.live.remove(seq);
        }
        lost
    }
}

impl Messages {
    /// A segment holds less than it should: counts what is there; gives the stretches that are not.
    fn recount(&mut self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let segment = &self.segments.by_first[&first];
        let mut found: BTreeMap<u64, u32> = BTreeMap::new();
        let _ = self.cold.scan(segment, first, usize::MAX, |slot| {
            found.insert(slot.seq, slot.size);
            false
        });
        let mut missing = Live::default();
        let mut at = self.cold.live.next(first);
        while let Some(seq) = at.filter(|&seq| seq <= last) {
            if !found.contains_key(&seq) {
                missing.insert(seq);
            }
            at = self.cold.live.next(seq + 1);
        }
        let segment = self.segments.by_first.get_mut(&first).expect("just seen");
        let before = segment.live_bytes;
        segment.live = found.len() as u64;
        segment.live_bytes = found.values().map(|&size| u64::from(size)).sum();
        if let Some(place) = segment.place {
            (segment.total, segment.total_bytes) = (place.records, place.bytes);
        }
        self.bytes = self.bytes.saturating_sub(before.saturating_sub(segment.live_bytes));
        missing.stretches(first, last)
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[cfg(test)]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

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

    /// The segments in their order; they do not overlap.
    fn segments(&mut self) -> Result<Vec<Listed>, RestoreError> {
        let (mut segments, mut end): (Vec<Listed>, u64) = (Vec::new(), 0);
        for _ in 0..self.u32()? {
            let (id, first, last) = (self.u64()?, self.u64()?, self.u64()?);
            let (live, total, live_bytes, total_bytes) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
            let is_sound = first >= end
                && first <= last
                && last < u64::MAX
                && live <= total
                && live_bytes <= total_bytes;
            if !is_sound {
                return Err(RestoreError::Damaged);
            }
            end = last + 1;
            let segment = Segment { live, total, live_bytes, total_bytes, ..Segment::new(id, last) };
            segments.push(Listed { first, segment });
        }
        Ok(segments)
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        let bytes: [u8; 4] = self.take(4)?.try_into().expect("four bytes");
        Ok(u32::from_le_bytes(bytes))
    }
}
