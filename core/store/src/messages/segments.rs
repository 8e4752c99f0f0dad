//! The segments that hold written messages, how much of each is still needed, and the blocks that were loaded.

use std::collections::BTreeMap;

use super::blocks::{BUDGET, Blocks};
use super::rewrite::{Rewriting, Unerased};
use super::{BlockId, Fetch, Messages, SegmentInput};
use crate::index::{Held, Place};

/// What a segment holds, as the disk layer reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// The segment's number.
    pub segment: u64,
    /// How much it holds, and where its index is.
    pub place: Place,
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
    /// Where its index is; None until it is on disk.
    pub place: Option<Place>,
    pub live: u64,
    pub total: u64,
    /// What its messages count, those that still exist and all.
    pub live_bytes: u64,
    pub total_bytes: u64,
    /// It could not be read: its messages are there for nobody, and its file must stay.
    pub lost: bool,
    pub held: Held,
}

impl Segment {
    /// One that is being written or read: its place and numbers follow.
    pub fn new(id: u64, last: u64) -> Segment {
        Segment {
            id,
            last,
            place: None,
            live: 0,
            total: 0,
            live_bytes: 0,
            total_bytes: 0,
            lost: false,
            held: Held::default(),
        }
    }

    /// Whether its file is complete and can be read.
    pub fn is_on_disk(&self) -> bool {
        self.place.is_some()
    }

    /// Whether everything that was written to it still exists.
    pub fn is_intact(&self) -> bool {
        self.live == self.total
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
    /// Size of the written messages that are still in memory.
    pub resident: u64,
    pub budget: u64,
    /// How many times the segments that hold what is not in memory have changed.
    pub layout: u64,
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
            resident: 0,
            budget: BUDGET,
            layout: 0,
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
        let Some((&first, segment)) = self.by_first.range_mut(..=seq).next_back() else { return };
        if seq > segment.last {
            return;
        }
        segment.live -= 1;
        segment.live_bytes -= size;
        self.removed_bytes += size;
        if segment.live == 0 {
            self.bury(first);
        }
    }

    /// Reports a segment as dead when it is on disk and holds nothing that exists.
    pub fn bury(&mut self, first: u64) {
        let dead = |segment: &Segment| segment.live == 0 && segment.is_on_disk();
        if self.by_first.get(&first).is_some_and(dead) {
            let segment = self.by_first.remove(&first).expect("just seen");
            self.buried_bytes += segment.total_bytes;
            self.layout += 1;
            self.dead.push(segment.id);
            self.unload(segment.id);
        }
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
        self.layout += 1;
    }

    /// A message of a block, if that was loaded.
    pub fn fetch(&self, id: BlockId, seq: u64) -> Fetch {
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
        self.shed(usize::MAX);
    }

    /// How many messages are not in a segment yet, and their size.
    pub fn unwritten(&self) -> u64 {
        self.head.slots.count_from(self.segments.taken_to + 1)
    }

    /// All messages that are in no segment yet, to be written to this one. They stay readable; after
    /// [`Messages::handle_written`] they may leave memory. None when there is nothing to write.
    pub fn take_unwritten(&mut self, segment: u64) -> Option<SegmentInput> {
        let slots = &self.head.slots;
        let from = self.segments.taken_to + 1;
        self.segments.taken_to = self.last.0;
        let (first, last) = (slots.next(from)?, slots.prev(self.last.0)?);
        let (total, total_bytes) = (slots.count_from(from), slots.bytes_from(from));
        let empty = Segment::new(segment, last);
        let entry = Segment { live: total, total, live_bytes: total_bytes, total_bytes, ..empty };
        self.segments.by_first.insert(first, entry);
        Some(SegmentInput::share(slots, from))
    }

    /// A segment is on disk. Segments become durable in the order in which they were taken.
    pub fn handle_written(&mut self, written: Written) {
        if self.segments.rewriting.as_ref().is_some_and(|rewriting| rewriting.new == written.segment) {
            return self.handle_rewritten(&written);
        }
        let entry = self.segments.by_first.iter_mut().find(|(_, segment)| segment.id == written.segment);
        let Some((&first, segment)) = entry else { return };
        segment.place = Some(written.place);
        self.segments.resident += segment.live_bytes;
        self.segments.written_to = self.segments.written_to.max(segment.last);
        self.segments.layout += 1;
        self.segments.bury(first);
        self.shed(super::cold::SHED_AT_ONCE);
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
}
