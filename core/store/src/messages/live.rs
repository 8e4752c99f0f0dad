//! Which sequences exist, in blocks of 4,096: a block without gaps costs a few bytes, one with gaps a bitmap. As bytes they
//! are stretches of whole blocks, and bitmaps or lists for blocks that have gaps: a step per block, not per message.

use std::collections::BTreeMap;

use super::slots::{SPAN, Slots, WORDS};
use super::snapshot::{Reader, RestoreError};

const RUN: u8 = 0;
const BITMAP: u8 = 1;
const LIST: u8 = 2;
/// A block with fewer messages is written as a list.
const LISTED: usize = 256;

/// Which sequences of a block exist.
#[derive(Clone, Debug)]
struct Block {
    count: u32,
    /// None where all do.
    words: Option<Box<[u64; WORDS]>>,
}

/// A set of sequences.
#[derive(Debug, Default)]
pub(super) struct Live {
    blocks: BTreeMap<u64, Block>,
    count: u64,
}

fn split(seq: u64) -> (u64, usize) {
    (seq / SPAN, (seq % SPAN) as usize)
}

impl Block {
    fn word(&self, at: usize) -> u64 {
        self.words.as_ref().map_or(u64::MAX, |words| words[at])
    }

    fn contains(&self, offset: usize) -> bool {
        self.word(offset / 64) & (1 << (offset % 64)) != 0
    }

    fn next(&self, offset: usize) -> Option<usize> {
        let mut at = offset / 64;
        let mut bits = self.word(at) & (u64::MAX << (offset % 64));
        loop {
            if bits != 0 {
                return Some(at * 64 + bits.trailing_zeros() as usize);
            }
            at += 1;
            if at == WORDS {
                return None;
            }
            bits = self.word(at);
        }
    }

    fn prev(&self, offset: usize) -> Option<usize> {
        let mut at = offset / 64;
        let mut bits = self.word(at) & (u64::MAX >> (63 - offset % 64));
        loop {
            if bits != 0 {
                return Some(at * 64 + 63 - bits.leading_zeros() as usize);
            }
            at = at.checked_sub(1)?;
            bits = self.word(at);
        }
    }

    /// How many exist before the offset.
    fn rank(&self, offset: usize) -> u64 {
        let whole: u32 = (0..offset / 64).map(|at| self.word(at).count_ones()).sum();
        let part = self.word(offset / 64) & ((1 << (offset % 64)) - 1);
        u64::from(whole + part.count_ones())
    }
}

impl Live {
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn insert(&mut self, seq: u64) {
        let (key, offset) = split(seq);
        let empty = || Block { count: 0, words: Some(Box::new([0; WORDS])) };
        let block = self.blocks.entry(key).or_insert_with(empty);
        let Some(words) = &mut block.words else { return };
        let bit = 1 << (offset % 64);
        if words[offset / 64] & bit == 0 {
            words[offset / 64] |= bit;
            block.count += 1;
            self.count += 1;
            if u64::from(block.count) == SPAN {
                block.words = None;
            }
        }
    }

    /// Whether it was there.
    pub fn remove(&mut self, seq: u64) -> bool {
        let (key, offset) = split(seq);
        let Some(block) = self.blocks.get_mut(&key).filter(|block| block.contains(offset)) else {
            return false;
        };
        let words = block.words.get_or_insert_with(|| Box::new([u64::MAX; WORDS]));
        words[offset / 64] &= !(1 << (offset % 64));
        block.count -= 1;
        self.count -= 1;
        if block.count == 0 {
            self.blocks.remove(&key);
        }
        true
    }

    pub fn contains(&self, seq: u64) -> bool {
        let (key, offset) = split(seq);
        self.blocks.get(&key).is_some_and(|block| block.contains(offset))
    }

    /// The first one at or after a sequence.
    pub fn next(&self, from: u64) -> Option<u64> {
        let (first, offset) = split(from);
        self.blocks.range(first..).find_map(|(&key, block)| {
            block.next(if key == first { offset } else { 0 }).map(|found| key * SPAN + found as u64)
        })
    }

    /// The last one at or before a sequence.
    pub fn prev(&self, from: u64) -> Option<u64> {
        let (last, offset) = split(from);
        self.blocks.range(..=last).rev().find_map(|(&key, block)| {
            let start = if key == last { offset } else { SPAN as usize - 1 };
            block.prev(start).map(|found| key * SPAN + found as u64)
        })
    }

    /// How many lie at or after a sequence.
    pub fn count_from(&self, from: u64) -> u64 {
        let (first, offset) = split(from);
        let inside = self.blocks.get(&first).map_or(0, |block| block.rank(offset));
        let sum = |blocks: &mut dyn Iterator<Item = (&u64, &Block)>| {
            blocks.map(|(_, block)| u64::from(block.count)).sum::<u64>()
        };
        let (Some((&low, _)), Some((&high, _))) =
            (self.blocks.first_key_value(), self.blocks.last_key_value())
        else {
            return 0;
        };
        // From whichever end is nearer.
        match first.saturating_sub(low) < high.saturating_sub(first) {
            true => self.count - sum(&mut self.blocks.range(..first)) - inside,
            false => sum(&mut self.blocks.range(first..)) - inside,
        }
    }

    /// How many lie between two sequences, both included.
    pub fn count_within(&self, first: u64, last: u64) -> u64 {
        let ((low, _), (high, end)) = (split(first), split(last));
        let up_to = self.blocks.range(low..=high).map(|(&key, block)| match key == high {
            true => block.rank(end) + u64::from(block.contains(end)),
            false => u64::from(block.count),
        });
        let before = self.blocks.get(&low).map_or(0, |block| block.rank(split(first).1));
        up_to.sum::<u64>() - before
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut at = self.next(0);
        std::iter::from_fn(move || {
            let found = at?;
            at = found.checked_add(1).and_then(|next| self.next(next));
            Some(found)
        })
    }

    /// The stretches of what exists between two sequences, both included.
    pub fn stretches(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut at = self.next(first);
        while let Some(seq) = at.filter(|&seq| seq <= last) {
            match found.last_mut() {
                Some((_, end)) if *end + 1 == seq => *end = seq,
                _ => found.push((seq, seq)),
            }
            at = self.next(seq + 1);
        }
        found
    }

    /// Reads what [`write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Result<Live, RestoreError> {
        let mut live = Live::default();
        let mut next = 0;
        for _ in 0..reader.u64()? {
            let kind = reader.take(1)?[0];
            let key = reader.u64()?;
            // Ascending, and no sequence beyond 64 bits.
            if key < next || key > u64::MAX / SPAN {
                return Err(RestoreError::Damaged);
            }
            next = key + 1;
            let mut words = Box::new([0; WORDS]);
            match kind {
                RUN => {
                    next = live.read_run(key, reader.u64()?)?;
                    continue;
                }
                BITMAP => {
                    for word in words.iter_mut() {
                        *word = reader.u64()?;
                    }
                }
                LIST => {
                    for _ in 0..reader.u16()? {
                        let offset = usize::from(reader.u16()?);
                        *words.get_mut(offset / 64).ok_or(RestoreError::Damaged)? |= 1 << (offset % 64);
                    }
                }
                _ => return Err(RestoreError::Damaged),
            }
            live.put(key, words);
        }
        Ok(live)
    }

    fn read_run(&mut self, start: u64, length: u64) -> Result<u64, RestoreError> {
        /// A damaged number must not cost more memory than a real one could.
        const BLOCKS_MAX: u64 = 1 << 28;
        let end = start.checked_add(length).filter(|&end| end <= u64::MAX / SPAN && length <= BLOCKS_MAX);
        let end = end.ok_or(RestoreError::Damaged)?;
        self.blocks.extend((start..end).map(|key| (key, Block { count: SPAN as u32, words: None })));
        self.count += length * SPAN;
        Ok(end)
    }

    fn put(&mut self, key: u64, words: Box<[u64; WORDS]>) {
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        let words = (u64::from(count) < SPAN).then_some(words);
        if count > 0 {
            self.count += u64::from(count);
            self.blocks.insert(key, Block { count, words });
        }
    }
}

/// Appends the sequences that exist in either, and the stretches that are lost. Those in `slots` are above the others.
pub(super) fn write(live: &Live, slots: &Slots, lost: &[(u64, u64)], out: &mut Vec<u8>) {
    let mut writer = Writer { at: out.len(), out, entries: 0, run: None };
    writer.out.extend_from_slice(&[0; 8]);
    let whole = [u64::MAX; WORDS];
    let cold = live.blocks.iter().map(|(&key, block)| (key, block.words.as_deref().unwrap_or(&whole)));
    let head = slots.bitmaps().map(|(key, words, _)| (key, words));
    if lost.is_empty() {
        let mut edge: Option<(u64, [u64; WORDS])> = None;
        let shared = slots.bitmaps().next().map(|(key, ..)| key);
        for (key, words) in cold.chain(head) {
            // The last block of one may be the first of the other.
            match edge.take() {
                Some((at, before)) => {
                    let joined = at == key;
                    let mut both = before;
                    if joined {
                        both.iter_mut().zip(words).for_each(|(word, more)| *word |= more);
                    }
                    writer.put(at, &both);
                    if !joined {
                        writer.put(key, words);
                    }
                }
                None if Some(key) == shared && live.blocks.contains_key(&key) => edge = Some((key, *words)),
                None => writer.put(key, words),
            }
        }
        if let Some((key, words)) = edge {
            writer.put(key, &words);
        }
        return writer.finish();
    }
    let mut all: BTreeMap<u64, [u64; WORDS]> = BTreeMap::new();
    for (key, words) in cold.chain(head) {
        let block = all.entry(key).or_insert([0; WORDS]);
        block.iter_mut().zip(words).for_each(|(word, more)| *word |= more);
    }
    for seq in lost.iter().flat_map(|&(first, last)| first..=last) {
        let (key, offset) = split(seq);
        all.entry(key).or_insert([0; WORDS])[offset / 64] |= 1 << (offset % 64);
    }
    all.iter().for_each(|(&key, words)| writer.put(key, words));
    writer.finish();
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the number of entries goes.
    at: usize,
    entries: u64,
    run: Option<(u64, u64)>,
}

impl Writer<'_> {
    fn put(&mut self, key: u64, words: &[u64; WORDS]) {
        let count: usize = words.iter().map(|word| word.count_ones() as usize).sum();
        if count as u64 == SPAN {
            match &mut self.run {
                Some((start, length)) if *start + *length == key => *length += 1,
                _ => {
                    self.end_run();
                    self.run = Some((key, 1));
                }
            }
            return;
        }
        self.end_run();
        self.entries += 1;
        self.out.push(if count < LISTED { LIST } else { BITMAP });
        self.out.extend_from_slice(&key.to_le_bytes());
        if count >= LISTED {
            words.iter().for_each(|word| self.out.extend_from_slice(&word.to_le_bytes()));
            return;
        }
        self.out.extend_from_slice(&(count as u16).to_le_bytes());
        for (at, &bits) in words.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                let offset = at as u16 * 64 + bits.trailing_zeros() as u16;
                self.out.extend_from_slice(&offset.to_le_bytes());
                bits &= bits - 1;
            }
        }
    }

    fn end_run(&mut self) {
        let Some((start, length)) = self.run.take() else { return };
        self.entries += 1;
        self.out.push(RUN);
        self.out.extend_from_slice(&start.to_le_bytes());
        self.out.extend_from_slice(&length.to_le_bytes());
    }

    fn finish(mut self) {
        self.end_run();
        self.out[self.at..self.at + 8].copy_from_slice(&self.entries.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hw_kit::Rng;

    use super::*;

    #[test]
    fn agrees_with_a_set() {
        for (seed, spread) in [(1, 3000), (2, 20_000), (3, 1_000_000)] {
            let mut rng = Rng::new(seed);
            let (mut live, mut model) = (Live::default(), BTreeSet::new());
            (9000..18_000).for_each(|seq| live.insert(seq));
            model.extend(9000..18_000);
            for _ in 0..4000 {
                let seq = rng.below(spread);
                if rng.chance(1, 2) {
                    live.insert(seq);
                    model.insert(seq);
                } else {
                    assert_eq!(live.remove(seq), model.remove(&seq));
                }
                let at = rng.below(spread);
                assert_eq!(live.len(), model.len() as u64);
                assert_eq!(live.contains(at), model.contains(&at));
                assert_eq!(live.next(at), model.range(at..).next().copied());
                assert_eq!(live.prev(at), model.range(..=at).next_back().copied());
                assert_eq!(live.count_from(at), model.range(at..).count() as u64);
                let end = at + rng.below(9000);
                assert_eq!(live.count_within(at, end), model.range(at..=end).count() as u64);
            }
            assert!(live.iter().eq(model.iter().copied()));
            let mut out = Vec::new();
            write(&live, &Slots::default(), &[], &mut out);
            let read = Live::read(&mut Reader::new(&out)).expect("just written");
            assert!(read.iter().eq(model.iter().copied()) && read.len() == live.len());
        }
    }
}
