//! Blocks of the dictionary: subjects in the order of their bytes, and where the messages of each are.
//!
//! A subject is told by what it shares with the one before. Every eighth is told by what it shares with the block's first
//! subject instead, which the directory has, and its place is known: so few are read to find one.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use super::view::{IsWanted, OnSubject, View};
use super::{DICTIONARY_BLOCK, Layout, Postings};
use crate::bytes_io::{Varints, put_varint};

/// So many subjects follow each other before one stands alone.
const RUN: usize = 8;
/// Where a run begins.
const START_BYTES: usize = 2;

/// A block whose bytes are at hand.
pub(super) struct Names<'a> {
    bytes: &'a [u8],
    ranks: Range<u32>,
    /// What the first one of each run is told by.
    base: &'a [u8],
    run: usize,
}

impl<'a> Names<'a> {
    /// Its subjects have these numbers, and this is the first.
    pub fn new(layout: Layout, bytes: &'a [u8], ranks: Range<u32>, first: &'a [u8]) -> Names<'a> {
        match layout {
            Layout::Rows => Names { bytes, ranks, base: b"", run: usize::MAX },
            Layout::Columns => Names { bytes, ranks, base: first, run: RUN },
        }
    }

    /// Runs behind the first.
    fn more_runs(&self) -> usize {
        self.ranks.len().saturating_sub(1) / self.run
    }

    /// What there is from where a run begins.
    fn run_at(&self, run: usize) -> Option<Varints<'a>> {
        let start = match run.checked_sub(1) {
            None => self.more_runs() * START_BYTES,
            Some(at) => {
                let start = self.bytes.get(at * START_BYTES..(at + 1) * START_BYTES)?;
                usize::from(u16::from_le_bytes(start.try_into().ok()?))
            }
        };
        Some(Varints::new(self.bytes.get(start..)?))
    }

    /// The number and the sequences of a subject. The outer None: the bytes make no sense.
    pub fn find(&self, name: &[u8], view: &View<'_>) -> Option<Option<(u32, Postings)>> {
        let common = same(self.base, name);
        let (mut low, mut high) = (0, self.more_runs() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.order_of_first(&mut self.run_at(middle)?, (name, common))? {
                Ordering::Greater => high = middle,
                Ordering::Less | Ordering::Equal => low = middle,
            }
        }
        self.find_in_run(low, (name, common), view)
    }

    /// Compares a run's first subject with a name that shares so much with the base; also how much these two share, and
    /// how long the subject is.
    fn compare_first(
        &self,
        reader: &mut Varints<'_>,
        (name, common): (&[u8], usize),
    ) -> Option<(Ordering, usize, usize)> {
        let shared = usize::try_from(reader.next()?).ok().filter(|&shared| shared <= self.base.len())?;
        let rest = reader.take_prefixed()?;
        let len = shared + rest.len();
        if common < shared {
            return Some((self.base[common..].cmp(&name[common..]), common, len));
        }
        let wanted = &name[shared..];
        let more = same(rest, wanted);
        Some((rest[more..].cmp(&wanted[more..]), shared + more, len))
    }

    /// The same without what they share.
    fn order_of_first(&self, reader: &mut Varints<'_>, (name, common): (&[u8], usize)) -> Option<Ordering> {
        let shared = usize::try_from(reader.next()?).ok().filter(|&shared| shared <= self.base.len())?;
        let rest = reader.take_prefixed()?;
        Some(match common < shared {
            true => self.base[common..].cmp(&name[common..]),
            false => rest.cmp(&name[shared..]),
        })
    }

    /// Looks for a name in a run; the others are not put together.
    fn find_in_run(
        &self,
        run: usize,
        (name, base_common): (&[u8], usize),
        view: &View<'_>,
    ) -> Option<Option<(u32, Postings)>> {
        let mut reader = self.run_at(run)?;
        let start = run.checked_mul(self.run)?;
        let ranks = self.ranks.clone().skip(start).take(self.run);
        // How much `name` has in common with the one before, which is below it, and how long that one is.
        let (mut common, mut before) = (0, 0);
        for (at, rank) in ranks.enumerate() {
            let order = if at == 0 {
                let (order, same, len) = self.compare_first(&mut reader, (name, base_common))?;
                (common, before) = (same, len);
                order
            } else {
                let shared = usize::try_from(reader.next()?).ok().filter(|&shared| shared <= before)?;
                let rest = reader.take_prefixed()?;
                before = shared + rest.len();
                match shared.cmp(&common) {
                    // It differs from the one before only behind the place where that one is below.
                    Ordering::Greater => Ordering::Less,
                    Ordering::Less => Ordering::Greater,
                    Ordering::Equal => {
                        let wanted = &name[common..];
                        let more = same(rest, wanted);
                        common += more;
                        rest[more..].cmp(&wanted[more..])
                    }
                }
            };
            match order {
                Ordering::Less => Postings::skip(&mut reader)?,
                Ordering::Equal => return Some(Some((rank, Postings::decode(&mut reader, view)?))),
                Ordering::Greater => return Some(None),
            }
        }
        Some(None)
    }

    /// The name of a subject.
    pub fn name(&self, rank: u32) -> Option<Bytes> {
        let wanted = usize::try_from(rank.checked_sub(self.ranks.start)?).ok()?;
        let run = wanted / self.run;
        let (mut reader, mut name) = (self.run_at(run)?, Vec::with_capacity(64));
        for at in run.checked_mul(self.run)?..wanted {
            self.next(at, &mut reader, &mut name)?;
            Postings::skip(&mut reader)?;
        }
        self.next(wanted, &mut reader, &mut name)?;
        Some(name.into())
    }

    /// Calls `f` with those that are wanted until it breaks.
    pub fn each(
        &self,
        view: &View<'_>,
        (is_wanted, f): (&IsWanted<'_>, &mut OnSubject<'_>),
    ) -> Option<ControlFlow<()>> {
        let (mut reader, mut name) = (self.run_at(0)?, Vec::with_capacity(64));
        for (at, rank) in self.ranks.clone().enumerate() {
            self.next(at, &mut reader, &mut name)?;
            if !is_wanted(&name) {
                Postings::skip(&mut reader)?;
                continue;
            }
            let postings = Postings::decode(&mut reader, view)?;
            if f(rank, &name, postings).is_break() {
                return Some(ControlFlow::Break(()));
            }
        }
        reader.is_empty().then_some(ControlFlow::Continue(()))
    }

    /// Makes of a name the next one, which is the one at this position of the block.
    fn next(&self, at: usize, reader: &mut Varints<'_>, name: &mut Vec<u8>) -> Option<()> {
        let shared = usize::try_from(reader.next()?).ok()?;
        if at.is_multiple_of(self.run) {
            name.clear();
            name.extend_from_slice(self.base.get(..shared)?);
        } else if shared > name.len() {
            return None;
        }
        name.truncate(shared);
        name.extend_from_slice(reader.take_prefixed()?);
        Some(())
    }
}

/// A block that is being written.
#[derive(Debug, Default)]
pub(super) struct NamesWriter {
    /// The subjects and what is said of them.
    entries: Vec<u8>,
    /// Where runs behind the first begin in `entries`.
    starts: Vec<usize>,
    count: usize,
    first: Bytes,
    last: Bytes,
}

impl NamesWriter {
    /// Whether the next subject begins a new block.
    pub fn is_full(&self) -> bool {
        self.count == 0 || self.entries.len() >= DICTIONARY_BLOCK
    }

    /// Adds a subject; where its messages are is to be appended to what it gives.
    pub fn push(&mut self, name: &Bytes) -> &mut Vec<u8> {
        if self.count == 0 {
            self.first = name.clone();
        }
        let mut before = &self.last;
        if self.count.is_multiple_of(RUN) {
            before = &self.first;
            if self.count > 0 {
                self.starts.push(self.entries.len());
            }
        }
        let shared = same(name, before);
        put_varint(&mut self.entries, shared as u64);
        put_varint(&mut self.entries, (name.len() - shared) as u64);
        self.entries.extend_from_slice(&name[shared..]);
        (self.count, self.last) = (self.count + 1, name.clone());
        &mut self.entries
    }

    /// Appends the block; the next one begins.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let front = self.starts.len() * START_BYTES;
        for start in &self.starts {
            let start = u16::try_from(front + start).expect("invariant: a block is closed at 512 bytes");
            out.extend_from_slice(&start.to_le_bytes());
        }
        out.append(&mut self.entries);
        *self = NamesWriter { entries: std::mem::take(&mut self.entries), ..NamesWriter::default() };
    }
}

/// How many bytes two names share at their fronts.
fn same(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
