//! Where the bytes of written messages are: which segment and block, and the blocks that were loaded.

use std::collections::{BTreeMap, VecDeque};

use hw_kit::{Map, Seq};

use super::{BlockId, Fetch, Message, Messages};

/// Bytes of written messages that stay in memory, unless the node says otherwise.
const BUDGET: u64 = 1 << 20;

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
    budget: u64,
    loaded: Map<BlockId, Vec<Message>>,
    /// The loaded blocks, oldest first, with their sizes.
    order: VecDeque<(BlockId, u64)>,
    loaded_bytes: u64,
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
            loaded: Map::default(),
            order: VecDeque::new(),
            loaded_bytes: 0,
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
        self.bury(first);
    }

    /// Reports a segment as dead when it is on disk and holds nothing that exists.
    pub fn bury(&mut self, first: u64) {
        let dead = |segment: &Segment| segment.live == 0 && !segment.blocks.is_empty();
        if self.by_first.get(&first).is_some_and(dead) {
            let segment = self.by_first.remove(&first).expect("just seen");
            self.dead.push(segment.id);
            self.unload(segment.id);
        }
    }

    pub fn handle_cleared(&mut self) {
        let firsts: Vec<u64> = self.by_first.keys().copied().collect();
        for first in firsts {
            self.by_first.get_mut(&first).expect("listed").live = 0;
            self.bury(first);
        }
        self.resident = 0;
    }

    pub fn fetch(&self, seq: u64) -> Fetch {
        let Some((_, segment)) = self.find(seq) else { return Fetch::Absent };
        let Some(block) = segment.blocks.partition_point(|&first| first <= seq).checked_sub(1) else {
            return Fetch::Absent;
        };
        let id = BlockId { segment: segment.id, block: block as u32 };
        let Some(messages) = self.loaded.get(&id) else { return Fetch::OnDisk(id) };
        match messages.binary_search_by_key(&Seq(seq), |message| message.seq) {
            Ok(at) => Fetch::Message(messages[at].clone()),
            // The block was read without this message: it was reported as damaged.
            Err(_) => Fetch::Absent,
        }
    }

    fn load(&mut self, id: BlockId, messages: Vec<Message>) {
        let size = messages.iter().map(|message| message.record.joined().len() as u64 + 64).sum();
        if self.loaded.insert(id, messages).is_some() {
            return;
        }
        self.order.push_back((id, size));
        self.loaded_bytes += size;
        // The newest always stays: it is what somebody waits for.
        while self.loaded_bytes > self.budget && self.order.len() > 1 {
            let (oldest, size) = self.order.pop_front().expect("more than one");
            self.loaded.remove(&oldest);
            self.loaded_bytes -= size;
        }
    }

    fn unload(&mut self, segment: u64) {
        let (loaded, bytes) = (&mut self.loaded, &mut self.loaded_bytes);
        self.order.retain(|(id, size)| {
            if id.segment == segment {
                loaded.remove(id);
                *bytes -= size;
            }
            id.segment != segment
        });
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
        let mut messages = Vec::new();
        let mut at = self.segments.taken_to + 1;
        while let Some(seq) = self.slots.next(at) {
            let (slot, record) = self.slots.get(seq).expect("next gives live sequences");
            let record = record.expect("unwritten messages are in memory").clone();
            messages.push(Message { seq: Seq(seq), ts: hw_kit::Time(slot.ts), record });
            at = seq + 1;
        }
        self.segments.taken_to = self.last.0;
        if let [first, .., last] | [first @ last] = &messages[..] {
            let total = messages.len() as u64;
            let entry = Segment { id: segment, last: last.seq.0, blocks: Vec::new(), live: total, total };
            self.segments.by_first.insert(first.seq.0, entry);
        }
        messages
    }

    /// A segment is on disk. Segments become durable in the order in which they were taken.
    pub fn handle_written(&mut self, written: Written) {
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
            self.segments.by_first.iter().find(|(_, s)| s.id == segment && s.blocks.is_empty())
        else {
            return;
        };
        // Later ones, if any, are handed out again too, so that segments never overlap.
        self.segments.by_first.retain(|&at, s| at < first || !s.blocks.is_empty());
        self.segments.taken_to = first - 1;
    }

    /// A block was read: its messages can be fetched for a while.
    pub fn handle_block(&mut self, id: BlockId, messages: Vec<Message>) {
        self.segments.load(id, messages);
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

    /// Neighbouring segments were rewritten into one that holds what exists of them: the old ones become dead.
    pub fn handle_rewritten(&mut self, old: &[u64], new: Written, total: u64) {
        let replaced: Vec<u64> = self
            .segments
            .by_first
            .iter()
            .filter(|(_, s)| old.contains(&s.id))
            .map(|(&first, _)| first)
            .collect();
        let Some(&first) = replaced.first() else { return };
        let (mut live, mut last) = (0, 0);
        for at in replaced {
            let segment = self.segments.by_first.remove(&at).expect("just listed");
            (live, last) = (live + segment.live, segment.last.max(last));
            self.segments.dead.push(segment.id);
            self.segments.unload(segment.id);
        }
        let blocks = new.blocks.iter().map(|seq| seq.0).collect();
        self.segments.by_first.insert(first, Segment { id: new.segment, last, blocks, live, total });
        self.segments.bury(first);
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
