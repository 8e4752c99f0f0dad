//! The directory of an index: where its groups of records and the blocks of its dictionary begin, and the filter that
//! says which subjects are not in it.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{Place, bloom};
use crate::bytes_io::{Varints, put_varint};

/// What is decoded of an index to find anything in it.
#[derive(Debug)]
pub(crate) struct Directory {
    /// First sequence of each group, and where it begins.
    pub groups: Vec<(u64, u32)>,
    pub blocks: Vec<BlockStart>,
    raw: Bytes,
    /// Where the filter begins in `raw`; it ends with it.
    filter: usize,
    /// How many bytes the first subjects of all blocks have in common.
    common: usize,
    /// Whether it was asked for since the cache has looked.
    used: AtomicBool,
}

/// Where a segment remembers its directory for as long as the cache keeps it: finding it there takes longer than what it is
/// found for.
#[derive(Debug, Default)]
pub(crate) struct Held(RefCell<Weak<Directory>>);

impl Held {
    pub(super) fn get(&self) -> Option<Arc<Directory>> {
        let directory = self.0.borrow().upgrade()?;
        directory.used.store(true, Memory::Relaxed);
        Some(directory)
    }

    pub(super) fn set(&self, directory: &Arc<Directory>) {
        *self.0.borrow_mut() = Arc::downgrade(directory);
    }
}

/// Where a block of the dictionary begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockStart {
    /// The number of its first subject.
    pub rank: u32,
    pub offset: u32,
    name: u32,
    name_len: u16,
    /// The bytes of its first subject behind what all have in common: most comparisons need no more.
    key: u64,
}

/// What the directory of a new index is made of.
#[derive(Debug, Default)]
pub(super) struct DirectoryWriter {
    pub groups: Vec<(u64, u32)>,
    /// Number of the first subject, where the block begins, and the subject.
    pub blocks: Vec<(u32, u32, Bytes)>,
    pub hashes: Vec<u64>,
}

/// Eight bytes of a name behind what all have in common, as a number that orders as they do; a name that ends before is
/// below or equal.
fn key(name: &[u8], common: usize) -> u64 {
    let rest = name.get(common..).unwrap_or_default();
    let mut bytes = [0; 8];
    let len = rest.len().min(8);
    bytes[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(bytes)
}

impl DirectoryWriter {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.groups.len() as u64);
        let (mut seq, mut offset) = (0, 0);
        for &(first, at) in &self.groups {
            put_varint(out, first - seq);
            put_varint(out, u64::from(at - offset));
            (seq, offset) = (first, at);
        }
        put_varint(out, self.blocks.len() as u64);
        let (mut rank, mut offset) = (0, 0);
        for (first, at, name) in &self.blocks {
            put_varint(out, u64::from(first - rank));
            put_varint(out, u64::from(at - offset));
            put_varint(out, name.len() as u64);
            out.extend_from_slice(name);
            (rank, offset) = (*first, *at);
        }
        out.extend_from_slice(&bloom::build(&self.hashes));
    }
}

impl Directory {
    /// None where the bytes make no sense.
    pub fn decode(raw: Bytes, place: &Place) -> Option<Directory> {
        let mut reader = Varints::new(&raw);
        let mut groups = Vec::new();
        let (mut seq, mut offset) = (0u64, 0u32);
        for _ in 0..reader.next()? {
            seq = seq.checked_add(reader.next()?)?;
            offset = offset.checked_add(u32::try_from(reader.next()?).ok()?)?;
            groups.push((seq, offset));
        }
        let mut blocks = Vec::new();
        let (mut rank, mut offset) = (0u32, 0u32);
        for _ in 0..reader.next()? {
            rank = rank.checked_add(u32::try_from(reader.next()?).ok()?)?;
            offset = offset.checked_add(u32::try_from(reader.next()?).ok()?)?;
            let name_len = u16::try_from(reader.next()?).ok()?;
            let name = u32::try_from(reader.at()).ok()?;
            reader.skip(usize::from(name_len))?;
            blocks.push(BlockStart { rank, offset, name, name_len, key: 0 });
        }
        let filter = reader.at();
        let rest = raw.len() - filter;
        let is_sound = rest > 0
            && rest.is_multiple_of(64)
            && groups.last().is_none_or(|&(first, at)| at < place.dictionary && first <= place.last.0)
            && blocks.last().is_none_or(|last| last.offset < place.postings && last.rank < place.subjects)
            && (groups.is_empty(), blocks.is_empty()) == (place.records == 0, place.subjects == 0);
        let mut directory = is_sound.then_some(Directory {
            groups,
            blocks,
            raw,
            filter,
            common: 0,
            used: AtomicBool::new(false),
        })?;
        directory.put_keys();
        Some(directory)
    }

    fn put_keys(&mut self) {
        // They ascend, so that the first and the last one tell what all have in common.
        if let [first, .., last] = &self.blocks[..] {
            let (first, last) = (self.name(first), self.name(last));
            self.common = first.iter().zip(last).take_while(|(one, other)| one == other).count();
        }
        let common = self.common;
        let keys: Vec<u64> = self.blocks.iter().map(|block| key(self.name(block), common)).collect();
        self.blocks.iter_mut().zip(keys).for_each(|(block, key)| block.key = key);
    }

    /// The block that would hold a subject; None before the first.
    pub fn block_of(&self, name: &[u8]) -> Option<usize> {
        let first = self.name(self.blocks.first()?);
        let is_comparable = self.blocks.len() > 1 && name.get(..self.common) == first.get(..self.common);
        let wanted = if is_comparable { key(name, self.common) } else { 0 };
        let is_before = |start: &BlockStart| match start.key.cmp(&wanted) {
            Ordering::Less if is_comparable => true,
            Ordering::Greater if is_comparable => false,
            _ => self.name(start) <= name,
        };
        self.blocks.partition_point(is_before).checked_sub(1)
    }

    /// The group that would hold a sequence; None before the first.
    pub fn group_of(&self, seq: u64) -> Option<usize> {
        self.groups.partition_point(|&(first, _)| first <= seq).checked_sub(1)
    }

    /// Whether it was asked for since the last time.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Memory::Relaxed)
    }

    pub fn memory_bytes(&self) -> usize {
        self.raw.len() + self.groups.len() * 16 + self.blocks.len() * size_of::<BlockStart>()
    }

    /// The first subject of a block.
    pub fn name(&self, start: &BlockStart) -> &[u8] {
        &self.raw[start.name as usize..start.name as usize + usize::from(start.name_len)]
    }

    /// Whether the subject may be here.
    pub fn may_contain(&self, hash: u64) -> bool {
        bloom::may_contain(&self.raw[self.filter..], hash)
    }

    /// Where a group's bytes begin and end.
    pub fn group_range(&self, group: usize, place: &Place) -> (u32, u32) {
        let end = self.groups.get(group + 1).map_or(place.dictionary, |&(_, at)| at);
        (self.groups[group].1, end)
    }

    /// The numbers of a block's subjects.
    pub fn ranks(&self, block: usize, place: &Place) -> std::ops::Range<u32> {
        let end = self.blocks.get(block + 1).map_or(place.subjects, |next| next.rank);
        self.blocks[block].rank..end
    }

    /// Where a block of the dictionary begins and ends.
    pub fn block_range(&self, block: usize, place: &Place) -> (u32, u32) {
        let end = self.blocks.get(block + 1).map_or(place.postings, |next| next.offset);
        (self.blocks[block].offset, end)
    }
}
