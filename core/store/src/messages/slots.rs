//! One slot for each message, in blocks of 4,096 sequences: when, which subject, how large, and the bytes while they
//! are in memory. A block that has lost most of its messages is packed; one that has lost all is dropped. Who writes blocks
//! shares them: one that changes meanwhile is copied before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Record;

/// Sequences per block.
pub(super) const SPAN: u64 = 4096;
pub(super) const WORDS: usize = (SPAN / 64) as usize;
/// A block is packed when fewer than one in this many of its slots is live.
const PACK_BELOW: usize = 4;

/// What is known of a message without its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    pub ts: i64,
    pub subject: u32,
    pub size: u32,
}

/// 4,096 sequences. Dense: the slot of offset n is `slots[n - base]`. Packed: only live slots are held, in order.
#[derive(Clone, Debug)]
pub(super) struct Block {
    live_bits: [u64; WORDS],
    /// The first offset that was used.
    base: usize,
    slots: Vec<Slot>,
    /// Parallel to `slots`, or empty when none is in memory.
    records: Vec<Option<Record>>,
    resident: usize,
    packed: bool,
    live: usize,
    /// The sizes of all that is live.
    bytes: u64,
}

impl Block {
    fn new() -> Block {
        Block {
            live_bits: [0; WORDS],
            base: 0,
            slots: Vec::new(),
            records: Vec::new(),
            resident: 0,
            packed: false,
            live: 0,
            bytes: 0,
        }
    }

    fn is_live(&self, offset: usize) -> bool {
        self.live_bits[offset / 64] & (1 << (offset % 64)) != 0
    }

    /// How many live slots lie before the offset.
    fn rank(&self, offset: usize) -> usize {
        let whole: u32 = self.live_bits[..offset / 64].iter().map(|word| word.count_ones()).sum();
        let part = self.live_bits[offset / 64] & ((1 << (offset % 64)) - 1);
        whole as usize + part.count_ones() as usize
    }

    fn position(&self, offset: usize) -> usize {
        if self.packed { self.rank(offset) } else { offset - self.base }
    }

    fn push(&mut self, offset: usize, slot: Slot, record: Option<Record>) {
        if self.slots.is_empty() {
            self.base = offset;
        }
        if !self.packed && offset != self.base + self.slots.len() {
            self.pack();
        }
        if record.is_some() && self.records.is_empty() {
            self.records.resize(self.slots.len(), None);
        }
        self.slots.push(slot);
        if record.is_some() || !self.records.is_empty() {
            self.resident += usize::from(record.is_some());
            self.records.push(record);
        }
        self.live_bits[offset / 64] |= 1 << (offset % 64);
        self.live += 1;
        self.bytes += u64::from(slot.size);
    }

    fn remove(&mut self, offset: usize) -> Option<(Slot, bool)> {
        if !self.is_live(offset) {
            return None;
        }
        let at = self.position(offset);
        let slot = self.slots[at];
        let resident = self.drop_record(at);
        self.live_bits[offset / 64] &= !(1 << (offset % 64));
        self.live -= 1;
        self.bytes -= u64::from(slot.size);
        if self.packed {
            self.slots.remove(at);
            if !self.records.is_empty() {
                self.records.remove(at);
            }
        } else if self.slots.len() >= 256 && self.live * PACK_BELOW < self.slots.len() {
            self.pack();
        }
        Some((slot, resident))
    }

    fn drop_record(&mut self, at: usize) -> bool {
        let dropped = self.records.get_mut(at).and_then(Option::take).is_some();
        self.resident -= usize::from(dropped);
        if dropped && self.resident == 0 {
            self.records = Vec::new();
        }
        dropped
    }

    /// Keeps only the live slots.
    fn pack(&mut self) {
        let offsets: Vec<usize> = (0..self.slots.len()).filter(|&at| self.is_live(self.base + at)).collect();
        self.slots = offsets.iter().map(|&offset| self.slots[offset]).collect();
        if !self.records.is_empty() {
            self.records = offsets.iter().map(|&offset| self.records[offset].take()).collect();
        }
        self.packed = true;
    }

    /// The slot of a live offset, and its bytes if they are in memory.
    pub fn get(&self, offset: usize) -> (&Slot, Option<&Record>) {
        let at = self.position(offset);
        (&self.slots[at], self.records.get(at).and_then(Option::as_ref))
    }

    /// The sizes of what is live at or after an offset.
    fn bytes_from(&self, offset: usize) -> u64 {
        let mut sum = 0;
        let mut at = offset;
        while let Some(found) = self.next_live(at) {
            sum += u64::from(self.get(found).0.size);
            at = found + 1;
        }
        sum
    }

    /// The first live offset at or after this one.
    pub fn next_live(&self, offset: usize) -> Option<usize> {
        let mut word = offset / 64;
        let mut bits = *self.live_bits.get(word)? & (u64::MAX << (offset % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            bits = *self.live_bits.get(word)?;
        }
    }

    fn prev_live(&self, offset: usize) -> Option<usize> {
        let mut word = offset / 64;
        let mut bits = self.live_bits[word] & (u64::MAX >> (63 - offset % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + 63 - bits.leading_zeros() as usize);
            }
            word = word.checked_sub(1)?;
            bits = self.live_bits[word];
        }
    }
}

/// All slots of a stream, by sequence.
#[derive(Debug, Default)]
pub(super) struct Slots {
    blocks: BTreeMap<u64, Arc<Block>>,
    live: u64,
}

/// The block of a sequence, and the sequence's offset in it.
pub(super) fn split(seq: u64) -> (u64, usize) {
    (seq / SPAN, (seq % SPAN) as usize)
}

impl Slots {
    pub fn len(&self) -> u64 {
        self.live
    }

    /// Adds a message after all others.
    pub fn push(&mut self, seq: u64, slot: Slot, record: Option<Record>) {
        let (block, offset) = split(seq);
        let block = self.blocks.entry(block).or_insert_with(|| Arc::new(Block::new()));
        Arc::make_mut(block).push(offset, slot, record);
        self.live += 1;
    }

    /// Takes a message out; tells whether its bytes were in memory.
    pub fn remove(&mut self, seq: u64) -> Option<(Slot, bool)> {
        let (key, offset) = split(seq);
        let block = self.blocks.get_mut(&key).filter(|block| block.is_live(offset))?;
        let block = Arc::make_mut(block);
        let removed = block.remove(offset)?;
        self.live -= 1;
        if block.live == 0 {
            self.blocks.remove(&key);
        }
        Some(removed)
    }

    pub fn contains(&self, seq: u64) -> bool {
        let (block, offset) = split(seq);
        self.blocks.get(&block).is_some_and(|block| block.is_live(offset))
    }

    pub fn get(&self, seq: u64) -> Option<(&Slot, Option<&Record>)> {
        let (block, offset) = split(seq);
        let block = self.blocks.get(&block)?;
        if !block.is_live(offset) {
            return None;
        }
        Some(block.get(offset))
    }

    /// The first message at or after a sequence.
    pub fn next(&self, from: u64) -> Option<u64> {
        let (first, offset) = split(from);
        let mut offset = offset;
        for (&key, block) in self.blocks.range(first..) {
            let start = if key == first { offset } else { 0 };
            offset = 0;
            if let Some(found) = block.next_live(start) {
                return Some(key * SPAN + found as u64);
            }
        }
        None
    }

    /// The last message at or before a sequence.
    pub fn prev(&self, from: u64) -> Option<u64> {
        let (last, offset) = split(from);
        for (&key, block) in self.blocks.range(..=last).rev() {
            let start = if key == last { offset } else { SPAN as usize - 1 };
            if let Some(found) = block.prev_live(start) {
                return Some(key * SPAN + found as u64);
            }
        }
        None
    }

    /// How many messages lie at or after a sequence.
    pub fn count_from(&self, from: u64) -> u64 {
        let (first, offset) = split(from);
        let (Some((&low, _)), Some((&high, _))) =
            (self.blocks.first_key_value(), self.blocks.last_key_value())
        else {
            return 0;
        };
        let inside = self.blocks.get(&first).map_or(0, |block| block.rank(offset) as u64);
        let sum = |live: u64, block: &Block| live + block.live as u64;
        // From whichever end is nearer.
        if first.saturating_sub(low) < high.saturating_sub(first) {
            let before = self.blocks.range(..first).fold(0, |live, (_, block)| sum(live, block));
            self.live - before - inside
        } else {
            self.blocks.range(first..).fold(0, |live, (_, block)| sum(live, block)) - inside
        }
    }

    /// The sizes of all messages at or after a sequence.
    pub fn bytes_from(&self, from: u64) -> u64 {
        let (first, offset) = split(from);
        let blocks = self.blocks.range(first..);
        let sizes =
            blocks.map(|(&key, block)| if key == first { block.bytes_from(offset) } else { block.bytes });
        sizes.sum()
    }

    /// The blocks that have messages at or after a sequence, as they are now, with their numbers.
    pub fn share_from(&self, from: u64) -> impl Iterator<Item = (u64, Arc<Block>)> {
        self.blocks.range(split(from).0..).map(|(&key, block)| (key, block.clone()))
    }

    /// Calls `f` for each message from a sequence on until it returns true; gives the sequence where it did. At most
    /// `limit` messages are looked at: `Err(next)` tells where to go on, or None at the end.
    pub fn scan(
        &self,
        from: u64,
        limit: usize,
        mut f: impl FnMut(&Slot) -> bool,
    ) -> Result<u64, Option<u64>> {
        let (first, offset) = split(from);
        let (mut start, mut left) = (offset, limit);
        for (&key, block) in self.blocks.range(first..) {
            let mut at = if key == first { start } else { 0 };
            start = 0;
            let mut packed_at = if block.packed { block.rank(at) } else { 0 };
            while let Some(found) = block.next_live(at) {
                if left == 0 {
                    return Err(Some(key * SPAN + found as u64));
                }
                left -= 1;
                let position = if block.packed { packed_at } else { found - block.base };
                if f(&block.slots[position]) {
                    return Ok(key * SPAN + found as u64);
                }
                packed_at += 1;
                at = found + 1;
            }
        }
        Err(None)
    }

    /// The first message whose time is not before `ts`: times never decrease with the sequence.
    pub fn at_time(&self, ts: i64) -> Option<u64> {
        let (mut low, mut high) = (*self.blocks.first_key_value()?.0, *self.blocks.last_key_value()?.0);
        // The first block whose last message is not before `ts`.
        while low < high {
            let middle = low + (high - low) / 2;
            let (&key, block) = self.blocks.range(..=middle).next_back().expect("low is a block");
            if block.last_ts() < ts {
                low = *self.blocks.range(middle + 1..).next().expect("high is a block").0;
            } else {
                high = key;
            }
        }
        self.scan(low * SPAN, usize::MAX, |slot| slot.ts >= ts).ok()
    }

    /// Every block: its number, which of its sequences are live, and how many.
    pub fn bitmaps(&self) -> impl Iterator<Item = (u64, &[u64; WORDS], usize)> {
        self.blocks.iter().map(|(&key, block)| (key, &block.live_bits, block.live))
    }

    /// Every live sequence, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.iter().flat_map(|(&key, block)| {
            let mut at = 0;
            std::iter::from_fn(move || {
                let found = block.next_live(at)?;
                at = found + 1;
                Some(key * SPAN + found as u64)
            })
        })
    }
}

impl Block {
    fn last_ts(&self) -> i64 {
        self.prev_live(SPAN as usize - 1).map_or(i64::MIN, |offset| self.slots[self.position(offset)].ts)
    }
}
