//! Which sequences exist, as bytes: whole stretches, and bitmaps or lists for blocks of 4,096 that have gaps. Writing
//! costs a step per block, not per message.

use std::collections::BTreeMap;

use super::slots::{SPAN, Slots, WORDS};
use super::snapshot::{Reader, RestoreError};

const RUN: u8 = 0;
const BITMAP: u8 = 1;
const LIST: u8 = 2;
/// A block with fewer messages is written as a list.
const LISTED: usize = 256;

/// A set of sequences, read from a snapshot.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Start and length, in blocks, of stretches without gaps.
    runs: BTreeMap<u64, u64>,
    blocks: BTreeMap<u64, Box<[u64; WORDS]>>,
    count: u64,
}

/// Appends the sequences that exist, and the stretches that are lost.
pub(super) fn write(slots: &Slots, lost: &[(u64, u64)], out: &mut Vec<u8>) {
    if lost.is_empty() {
        return write_blocks(slots.bitmaps(), out);
    }
    let existing = slots.bitmaps().map(|(block, bits, _)| (block, *bits));
    let mut all: BTreeMap<u64, [u64; WORDS]> = existing.collect();
    for seq in lost.iter().flat_map(|&(first, last)| first..=last) {
        let (block, offset) = (seq / SPAN, (seq % SPAN) as usize);
        all.entry(block).or_insert([0; WORDS])[offset / 64] |= 1 << (offset % 64);
    }
    let count = |bits: &[u64; WORDS]| bits.iter().map(|word| word.count_ones() as usize).sum();
    write_blocks(all.iter().map(|(&block, bits)| (block, bits, count(bits))), out);
}

fn write_blocks<'a>(blocks: impl Iterator<Item = (u64, &'a [u64; WORDS], usize)>, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 8]);
    let mut entries: u64 = 0;
    let mut run: Option<(u64, u64)> = None;
    for (block, bits, live) in blocks {
        if live as u64 == SPAN {
            run = match run {
                Some((start, length)) if start + length == block => Some((start, length + 1)),
                other => {
                    entries += write_run(other, out);
                    Some((block, 1))
                }
            };
            continue;
        }
        entries += 1 + write_run(run.take(), out);
        if live < LISTED {
            out.push(LIST);
            out.extend_from_slice(&block.to_le_bytes());
            out.extend_from_slice(&(live as u16).to_le_bytes());
            for (word, &bits) in bits.iter().enumerate() {
                let mut bits = bits;
                while bits != 0 {
                    let offset = word as u16 * 64 + bits.trailing_zeros() as u16;
                    out.extend_from_slice(&offset.to_le_bytes());
                    bits &= bits - 1;
                }
            }
        } else {
            out.push(BITMAP);
            out.extend_from_slice(&block.to_le_bytes());
            bits.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
    }
    entries += write_run(run, out);
    out[at..at + 8].copy_from_slice(&entries.to_le_bytes());
}

fn write_run(run: Option<(u64, u64)>, out: &mut Vec<u8>) -> u64 {
    let Some((start, length)) = run else { return 0 };
    out.push(RUN);
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    1
}

impl Live {
    /// Reads what [`write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Result<Live, RestoreError> {
        let mut live = Live::default();
        let mut next = 0;
        for _ in 0..reader.u64()? {
            let kind = reader.take(1)?[0];
            let block = reader.u64()?;
            // Ascending, and no sequence beyond 64 bits.
            if block < next || block > u64::MAX / SPAN {
                return Err(RestoreError::Damaged);
            }
            next = block + 1;
            match kind {
                RUN => {
                    let length = reader.u64()?;
                    next = block
                        .checked_add(length)
                        .filter(|&end| end <= u64::MAX / SPAN)
                        .ok_or(RestoreError::Damaged)?;
                    live.runs.insert(block, length);
                    live.count += length * SPAN;
                }
                BITMAP => {
                    let mut bits = Box::new([0; WORDS]);
                    for word in bits.iter_mut() {
                        *word = reader.u64()?;
                    }
                    live.insert(block, bits);
                }
                LIST => {
                    let mut bits = Box::new([0; WORDS]);
                    for _ in 0..reader.u16()? {
                        let offset = usize::from(reader.u16()?);
                        *bits.get_mut(offset / 64).ok_or(RestoreError::Damaged)? |= 1 << (offset % 64);
                    }
                    live.insert(block, bits);
                }
                _ => return Err(RestoreError::Damaged),
            }
        }
        Ok(live)
    }

    fn insert(&mut self, block: u64, bits: Box<[u64; WORDS]>) {
        self.count += bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        self.blocks.insert(block, bits);
    }

    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn contains(&self, seq: u64) -> bool {
        let (block, offset) = (seq / SPAN, (seq % SPAN) as usize);
        let in_run = |(&start, &length): (&u64, &u64)| block < start + length;
        if self.runs.range(..=block).next_back().is_some_and(in_run) {
            return true;
        }
        self.blocks.get(&block).is_some_and(|bits| bits[offset / 64] & (1 << (offset % 64)) != 0)
    }

    /// Whether all sequences lie between two others, both included.
    pub fn is_within(&self, first: u64, last: u64) -> bool {
        let low = self.runs.first_key_value().map(|(&start, _)| start * SPAN);
        let high = self.runs.last_key_value().map(|(&start, &length)| (start + length) * SPAN - 1);
        let edge = |&block: &u64| {
            (0..SPAN).map(move |offset| block * SPAN + offset).filter(|&seq| self.contains(seq))
        };
        let first_block = self.blocks.first_key_value().and_then(|(block, _)| edge(block).next());
        let last_block = self.blocks.last_key_value().and_then(|(block, _)| edge(block).next_back());
        [low, first_block].iter().flatten().all(|&seq| seq >= first)
            && [high, last_block].iter().flatten().all(|&seq| seq <= last)
    }

    /// The stretches that `slots` lacks: first and last sequence of each.
    pub fn missing(&self, slots: &Slots) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        for (&start, &length) in &self.runs {
            let (mut at, end) = (start * SPAN, (start + length) * SPAN);
            while at < end {
                let next = slots.next(at).unwrap_or(end).min(end);
                if next > at {
                    missing.push((at, next - 1));
                }
                at = next + 1;
            }
        }
        for &block in self.blocks.keys() {
            let gone = |seq: &u64| self.contains(*seq) && !slots.contains(*seq);
            missing.extend((block * SPAN..(block + 1) * SPAN).filter(gone).map(|seq| (seq, seq)));
        }
        missing.sort_unstable();
        missing
    }
}
