//! Where the bytes of written messages are: which segment and block, and the blocks that were loaded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use hw_kit::Seq;

use super::blocks::{BUDGET, Blocks};
use super::rewrite::{Rewriting, Unerased};
use super::{BlockId, Fetch, Message, Messages};

/// What a segment holds, as the disk layer reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The segment's number.
    pub segment: u64,
    /// The first sequence of each block.
    pub blocks: Vec<Seq>,
}

/// How much of a segment is still needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveSegment {
    /// The segment's number.
    pub segment: u64,
    /// Messages that still exist.
    pub live: u64,
    /// Messages that were written to it.
    pub total: u64,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub id: u64,
    pub last: u64,
    /// First sequences of its blocks; empty until it is on disk.
    pub blocks: Vec<u64>,
    pub live: u64,
    pub total: u64,
    /// What its messages count, those that still exist and all.
    pub live_bytes: u64,
    pub total_bytes: u64,
    /// It could not be read: its messages are there for nobody, and its file must stay.
    pub lost: bool,
}

impl Segment {
    /// One that is being written or read: `blocks` and numbers follow.
    pub fn new(id: u64, last: u64) -> Segment {
        Segment {
            id,
            last,
            blocks: Vec::new(),
            live: 0,
            total: 0,
            live_bytes: 0,
            total_bytes: 0,
            lost: false,
        }
    }

    /// Whether its file is complete and can be read.
    pub fn is_on_disk(&self) -> bool {
        !self.blocks.is_empty()
    }
}

/// All segments of a stream and what is cached of them.
#[derive(Debug)]
pub(super) struct Segments {
    /// By first sequence; they do not overlap.
    pub by_first: BTreeMap<u64, Segment>,
    /// Everything up to here was handed out to be written.
    pub taken_to: u64,
    /// Everything up to here is on disk.
    pub written_to: u64,
    dead: Vec<u64>,
    /// Records below this sequence are no longer held in their slots.
    resident_from: u64,
    /// Size of the written messages whose records are still in their slots.
    resident: u64,
    pub budget: u64,
    pub blocks: Blocks,
    /// What the running checkpoint rewrites.
    pub rewriting: Option<Rewriting>,
    pub unerased: Unerased,
    /// What messages count whose segments wait to be removed.
    pub buried_bytes: u64,
    /// The same of those that the running checkpoint removes.
    pub leaving_bytes: u64,
    /// See [`Messages::removed_bytes`].
    pub removed_bytes: u64,
    /// Stretches of messages that should be here and are not: their segments are lost.
    pub lost: Vec<(u64, u64)>,
}

impl Default for Segments {
    fn default() -> Segments {
        Segments {
            by_first: BTreeMap::new(),
            taken_to: 0,
            written_to: 0,
            dead: Vec::new(),
            resident_from: 0,
            resident: 0,
            budget: BUDGET,
            blocks: Blocks::default(),
            rewriting: None,
            unerased: Unerased::default(),
            buried_bytes: 0,
            leaving_bytes: 0,
            removed_bytes: 0,
            lost: Vec::new(),
        }
    }
}

impl Segments {
    pub fn find(&self, seq: u64) -> Option<(&u64, &Segment)> {
        self.by_first.range(..=seq).next_back().filter(|(_, segment)| seq <= segment.last)
    }

    pub fn handle_removed(&mut self, seq: u64, size: u64, resident: bool) {
        if seq > self.taken_to {
            return;
        }
        if resident && seq <= self.written_to {
            self.resident -= size;
        }
        let Some(&first) = self.find(seq).map(|(first, _)| first) else { return };
        let segment = self.by_first.get_mut(&first).expect("just found");
        segment.live -= 1;
        segment.live_bytes -= size;
        self.removed_bytes += size;
        self.bury(first);
    }

    /// Reports a segment as dead when it is on disk and holds nothing that exists.
    pub fn bury(&mut self, first: u64) {
        let dead = |segment: &Segment| segment.live == 0 && segment.is_on_disk();
        if self.by_first.get(&first).is_some_and(dead) {
            let segment = self.by_first.remove(&first).expect("just seen");
            self.buried_bytes += segment.total_bytes;
            self.dead.push(segment.id);
            self.unload(segment.id);
        }
    }

    /// Segments that should be here and were not handed in keep their places: a checkpoint goes on to refer to them, so
    /// that the loss is told at every start and a file that is put back is read again.
    pub fn keep_absent(&mut self, expected: &[u64]) {
        let here: BTreeMap<u64, u64> =
            self.by_first.values().map(|segment| (segment.id, segment.last)).collect();
        let mut at = 0;
        for &id in expected {
            match here.get(&id) {
                Some(&last) => at = last,
                None if self.lost.is_empty() => {}
                None => {
                    // Its messages lie between its neighbours': there is at least one number for it.
                    at += 1;
                    if let Entry::Vacant(place) = self.by_first.entry(at) {
                        place.insert(Segment { lost: true, ..Segment::new(id, at) });
                    }
                }
            }
        }
        let known: BTreeSet<u64> = self.by_first.values().map(|segment| segment.id).collect();
        self.unerased.segments.retain(|id| known.contains(id));
    }

    pub fn handle_cleared(&mut self) {
        let firsts: Vec<u64> = self.by_first.keys().copied().collect();
        for first in firsts {
            let segment = self.by_first.get_mut(&first).expect("listed");
            self.removed_bytes += segment.live_bytes;
            (segment.live, segment.live_bytes) = (0, 0);
            self.bury(first);
        }
        // What cannot be read is not wanted any more either.
        self.by_first.retain(|_, segment| !segment.lost);
        self.lost.clear();
        self.resident = 0;
    }

    pub fn fetch(&self, seq: u64) -> Fetch {
        let Some((_, segment)) = self.find(seq) else { return Fetch::Absent };
        let Some(block) = segment.blocks.partition_point(|&first| first <= seq).checked_sub(1) else {
            return Fetch::Absent;
        };
        let id = BlockId { segment: segment.id, block: block as u32 };
        self.blocks.fetch(id, seq)
    }

    pub fn unload(&mut self, segment: u64) {
        self.blocks.unload(segment);
    }
}

impl Messages {
    /// How many bytes of written messages stay in memory.
    pub fn set_cache_budget(&mut self, bytes: u64) {
        self.segments.budget = bytes;
        self.evict();
    }

    /// How many messages are not in a segment yet, and their size.
    pub fn unwritten(&self) -> u64 {
        self.slots.count_from(self.segments.taken_to + 1)
    }

    /// All messages that are in no segment yet, to be written to this one. They stay readable; after
    /// [`Messages::handle_written`] their bytes may leave memory. Empty when there is nothing to write.
    pub fn take_unwritten(&mut self, segment: u64) -> Vec<Message> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut at = self.segments.taken_to + 1;
        while let Some(seq) = self.slots.next(at) {
            let (slot, record) = self.slots.get(seq).expect("next gives live sequences");
            let record = record.expect("unwritten messages are in memory").clone();
            bytes += u64::from(slot.size);
            messages.push(Message { seq: Seq(seq), ts: hw_kit::Time(slot.ts), record });
            at = seq + 1;
        }
        self.segments.taken_to = self.last.0;
        if let [first, .., last] | [first @ last] = &messages[..] {
            let total = messages.len() as u64;
            let empty = Segment::new(segment, last.seq.0);
            let entry = Segment { live: total, total, live_bytes: bytes, total_bytes: bytes, ..empty };
            self.segments.by_first.insert(first.seq.0, entry);
        }
        messages
    }

    /// A segment is on disk. Segments become durable in the order in which they were taken.
    pub fn handle_written(&mut self, written: Written) {
        if self.segments.rewriting.as_ref().is_some_and(|rewriting| rewriting.new == written.segment) {
            return self.handle_rewritten(&written);
        }
        let entry = self.segments.by_first.iter_mut().find(|(_, segment)| segment.id == written.segment);
        let Some((&first, segment)) = entry else { return };
        segment.blocks = written.blocks.iter().map(|seq| seq.0).collect();
        let last = segment.last;
        let mut at = first.max(self.segments.written_to + 1);
        while let Some(seq) = self.slots.next(at).filter(|&seq| seq <= last) {
            self.segments.resident += self.slots.get(seq).map_or(0, |(slot, _)| u64::from(slot.size));
            at = seq + 1;
        }
        self.segments.written_to = self.segments.written_to.max(last);
        self.segments.bury(first);
        self.evict();
    }

    /// A segment could not be written: its messages are handed out again with the next one.
    pub fn handle_write_failed(&mut self, segment: u64) {
        let Some((&first, _)) =
            self.segments.by_first.iter().find(|(_, s)| s.id == segment && !s.is_on_disk())
        else {
            return;
        };
        // Later ones, if any, are handed out again too, so that segments never overlap.
        self.segments.by_first.retain(|&at, s| at < first || s.is_on_disk());
        self.segments.taken_to = first - 1;
    }

    /// Segments that hold nothing that exists; each is reported once.
    pub fn dead_segments(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.segments.dead)
    }

    /// All segments and how much of each is needed, by sequence.
    pub fn live_segments(&self) -> Vec<LiveSegment> {
        let live = |s: &Segment| LiveSegment { segment: s.id, live: s.live, total: s.total };
        self.segments.by_first.values().map(live).collect()
    }

    /// The numbers of the segments that a checkpoint refers to, by sequence: the one that it rewrites stands for those
    /// that it was made of.
    pub fn segments_after_rewrite(&self) -> Vec<u64> {
        let ids = self.segments.by_first.values().map(|segment| segment.id);
        let Some(rewriting) = &self.segments.rewriting else { return ids.collect() };
        let mut is_listed = false;
        ids.filter_map(|id| match rewriting.old.contains(&id) {
            true => (!std::mem::replace(&mut is_listed, true)).then_some(rewriting.new),
            false => Some(id),
        })
        .collect()
    }

    fn evict(&mut self) {
        let segments = &mut self.segments;
        while segments.resident > segments.budget
            && let Some(seq) =
                self.slots.next(segments.resident_from).filter(|&seq| seq <= segments.written_to)
        {
            segments.resident -= self.slots.evict(seq).map_or(0, u64::from);
            segments.resident_from = seq + 1;
        }
    }
}
