//! Asking the index of one segment.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::Seq;

use super::group::Group;
use super::names::Names;
use super::{Directory, GROUP, Held, Pages, Place, Postings, bloom};
use crate::damage::Damage;
use crate::segment::SegmentId;

/// Gets subjects with their numbers, until it breaks.
pub(crate) type OnSubject<'a> = dyn FnMut(u32, &[u8], Postings) -> ControlFlow<()> + 'a;

/// Says which names are wanted.
pub(crate) type IsWanted<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// What an index says of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Slot {
    pub seq: u64,
    pub ts: i64,
    /// The number of its subject in the segment: subjects are numbered in the order of their names.
    pub rank: u32,
    /// What it counts in `bytes`.
    pub size: u32,
    /// The block that holds it.
    pub block: u32,
}

/// The index of one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub pages: &'a Pages,
    pub id: SegmentId,
    pub place: &'a Place,
    /// Where its directory may be at hand.
    pub held: &'a Held,
}

impl View<'_> {
    pub fn read(&self, at: u32, len: usize) -> Result<Bytes, Damage> {
        self.pages.read(self.id, self.place, at, len)
    }

    pub fn malformed(&self) -> Damage {
        Damage::malformed(self.id.file(), self.place.offset, "index")
    }

    fn directory(&self) -> Result<Arc<Directory>, Damage> {
        if let Some(directory) = self.held.get() {
            return Ok(directory);
        }
        let directory = self.pages.directory(self.id, self.place)?;
        self.held.set(&directory);
        Ok(directory)
    }

    /// The group that would hold a sequence; None before the first.
    pub fn group_of(&self, seq: u64) -> Result<Option<usize>, Damage> {
        Ok(self.directory()?.group_of(seq))
    }

    /// How many groups there are.
    pub fn groups(&self) -> Result<usize, Damage> {
        Ok(self.directory()?.groups.len())
    }

    /// The records of a group, until `f` returns false.
    pub fn each_in_group(&self, group: usize, mut f: impl FnMut(Slot) -> bool) -> Result<(), Damage> {
        self.group(&*self.directory()?, group, |group| group.each(&mut f))
    }

    /// What `f` makes of a group; None from it says that the bytes make no sense.
    fn group<T>(
        &self,
        directory: &Directory,
        group: usize,
        f: impl FnOnce(Group<'_>) -> Option<T>,
    ) -> Result<T, Damage> {
        let (start, end) = directory.group_range(group, self.place);
        let len = end.checked_sub(start).ok_or_else(|| self.malformed())?;
        let bytes = self.read(start, len as usize)?;
        let before = group as u64 * GROUP as u64;
        let count = self.place.records.checked_sub(before).ok_or_else(|| self.malformed())?;
        let count = count.min(GROUP as u64) as usize;
        let first = directory.groups[group].0;
        f(Group { place: self.place, bytes: &bytes, first, count }).ok_or_else(|| self.malformed())
    }

    /// The group that would hold a sequence, and what the index says of it if `wanted` says yes to the group.
    pub fn slot(
        &self,
        seq: u64,
        wanted: impl FnOnce(usize) -> bool,
    ) -> Result<Option<(usize, Option<Slot>)>, Damage> {
        let directory = self.directory()?;
        let Some(group) = directory.group_of(seq) else { return Ok(None) };
        let found = match wanted(group) {
            true => self.group(&directory, group, |group| group.find(seq))?,
            false => None,
        };
        Ok(Some((group, found)))
    }

    /// Whether a subject of this hash may be in the segment, as far as its directory is at hand: most segments that are
    /// asked have it not.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        self.held.get().is_none_or(|directory| directory.may_contain(hash))
    }

    /// The number and the sequences of a subject, if the segment has it. Its hash comes from [`View::hash`].
    pub fn find(&self, name: &[u8], hash: u64) -> Result<Option<(u32, Postings)>, Damage> {
        let directory = self.directory()?;
        if !directory.may_contain(hash) {
            return Ok(None);
        }
        let Some(block) = directory.block_of(name) else { return Ok(None) };
        self.block(&directory, block, |names| names.find(name, self))
    }

    /// What [`View::find`] wants to know of a name.
    pub fn hash(name: &[u8]) -> u64 {
        bloom::hash(name)
    }

    /// The name of a subject.
    pub fn name(&self, rank: u32) -> Result<Bytes, Damage> {
        let directory = self.directory()?;
        let block = directory.blocks.partition_point(|start| start.rank <= rank);
        let block = block.checked_sub(1).ok_or_else(|| self.malformed())?;
        self.block(&directory, block, |names| names.name(rank))
    }

    /// Calls `f` with every subject that matches, in the order of the names, until it breaks.
    pub fn each_match(&self, filter: &[u8], f: &mut OnSubject<'_>) -> Result<ControlFlow<()>, Damage> {
        match filter {
            b">" => self.each_beginning(b"", &|_| true, f),
            _ => self.each_beginning(literal_prefix(filter), &|name| hw_subject::matches(filter, name), f),
        }
    }

    /// Calls `f` with every subject that begins so and is wanted, in the order of the names, until it breaks.
    pub fn each_beginning(
        &self,
        prefix: &[u8],
        is_wanted: &IsWanted<'_>,
        f: &mut OnSubject<'_>,
    ) -> Result<ControlFlow<()>, Damage> {
        let directory = self.directory()?;
        let first = directory.block_of(prefix).unwrap_or(0);
        let is_wanted = |name: &[u8]| name.starts_with(prefix) && is_wanted(name);
        for block in first..directory.blocks.len() {
            let name = directory.name(&directory.blocks[block]);
            if name > prefix && !name.starts_with(prefix) {
                break;
            }
            if self.block(&directory, block, |names| names.each(self, (&is_wanted, &mut *f)))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What `f` makes of a block of the dictionary; None from it says that the bytes make no sense.
    fn block<T>(
        &self,
        directory: &Directory,
        block: usize,
        f: impl FnOnce(Names<'_>) -> Option<T>,
    ) -> Result<T, Damage> {
        let (start, end) = directory.block_range(block, self.place);
        let len = end.checked_sub(start).ok_or_else(|| self.malformed())?;
        let bytes = self.read(start, len as usize)?;
        let first = directory.name(&directory.blocks[block]);
        let names = Names::new(self.place.layout, &bytes, directory.ranks(block, self.place), first);
        f(names).ok_or_else(|| self.malformed())
    }

    /// Everything there is, checked against each other: for a check of the store.
    pub fn check(&self, mut each: impl FnMut(Slot, &[u8])) -> Result<(), Damage> {
        let mut listed = 0;
        let mut names = Vec::new();
        let mut last = Vec::new();
        let mut is_sorted = true;
        let _ = self.each_match(b">", &mut |_, name, postings| {
            is_sorted &= names.is_empty() || last.as_slice() < name;
            last = name.to_vec();
            names.push(Bytes::copy_from_slice(name));
            listed += postings.count();
            ControlFlow::Continue(())
        })?;
        let (mut records, mut bytes, mut before) = (0, 0, None);
        for group in 0..self.groups()? {
            self.each_in_group(group, |slot| {
                is_sorted &= before.is_none_or(|before| before < slot.seq);
                before = Some(slot.seq);
                (records, bytes) = (records + 1, bytes + u64::from(slot.size));
                names.get(slot.rank as usize).inspect(|name| each(slot, name));
                true
            })?;
        }
        let Place { records: wanted, subjects, first: _, last: end, .. } = *self.place;
        let is_whole = records == wanted && listed == wanted && names.len() == subjects as usize;
        let sound =
            is_sorted && is_whole && bytes == self.place.bytes && before.map(Seq).unwrap_or(end) == end;
        if sound { Ok(()) } else { Err(self.malformed()) }
    }
}

/// What every subject that matches begins with.
pub(crate) fn literal_prefix(filter: &[u8]) -> &[u8] {
    let mut at = 0;
    for token in filter.split(|&byte| byte == b'.') {
        if token == b"*" || token == b">" {
            return &filter[..at];
        }
        at += token.len() + 1;
    }
    filter
}
