//! The log in memory, as the library reads it.
//!
//! All writes come from the replica: an entry is here as soon as a `Ready` gave it away to be written, so "in the log" does not
//! mean "durable".

use std::{cell::RefCell, collections::VecDeque};

use bytes::Bytes;
use hw_kit::{LogIndex, NodeId};
use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{Entry as RaftEntry, Snapshot},
};

use crate::{
    convert,
    entry::{Entry, EntryKind},
};

/// What an entry takes in memory besides its body.
const ENTRY_BYTES: usize = size_of::<Slot>();

#[derive(Clone, Debug)]
struct Slot {
    term: u64,
    kind: EntryKind,
    body: Bytes,
}

/// Entries after a base.
pub(crate) struct Log {
    /// Index and term before the first entry.
    base: (u64, u64),
    slots: VecDeque<Slot>,
    /// Bodies and slots.
    bytes: usize,
    /// What the library asks for when it starts.
    initial: RaftState,
    /// Peers for which the library asked a snapshot: the only thing that reading may change.
    wants: RefCell<Vec<NodeId>>,
}

impl Log {
    pub(crate) fn new(base: (LogIndex, u64), initial: RaftState) -> Log {
        let wants = RefCell::new(Vec::new());
        Log { base: (base.0.0, base.1), slots: VecDeque::new(), bytes: 0, initial, wants }
    }

    pub(crate) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.slots.len() as u64
    }

    pub(crate) fn base(&self) -> (LogIndex, u64) {
        (LogIndex(self.base.0), self.base.1)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term at `index`, if the log still or already knows it.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.slot(index).map(|slot| slot.term)
    }

    /// Appends an entry at its index; what was there and after it is gone. The caller sees to it that there is no gap.
    pub(crate) fn append(&mut self, entry: &Entry) {
        debug_assert!(entry.index.0 > self.base.0 && entry.index.0 <= self.last() + 1);
        let keep = (entry.index.0 - self.first()) as usize;
        while self.slots.len() > keep {
            self.bytes -= self.slots.pop_back().map_or(0, |slot| slot.body.len() + ENTRY_BYTES);
        }
        self.bytes += entry.body.len() + ENTRY_BYTES;
        self.slots.push_back(Slot { term: entry.term, kind: entry.kind, body: entry.body.clone() });
    }

    /// Forgets entries up to `index`, which must be in the log, and keeps its term.
    pub(crate) fn compact(&mut self, index: u64) {
        let Some(term) = self.term_at(index) else { return };
        for slot in self.slots.drain(..(index - self.base.0) as usize) {
            self.bytes -= slot.body.len() + ENTRY_BYTES;
        }
        self.base = (index, term);
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// Forgets everything: the log goes on after `base`.
    pub(crate) fn reset(&mut self, base: (LogIndex, u64)) {
        self.base = (base.0.0, base.1);
        self.slots = VecDeque::new();
        self.bytes = 0;
    }

    /// Entries of `low..high` up to so many bytes, and always at least one if there is one.
    pub(crate) fn read(&self, low: u64, high: u64, max_bytes: u64) -> impl Iterator<Item = Entry> + '_ {
        let from = (low.max(self.first()) - self.first()) as usize;
        let count = (high.min(self.last() + 1).saturating_sub(low.max(self.first()))) as usize;
        let mut bytes = 0u64;
        self.slots.iter().skip(from).take(count).enumerate().map_while(move |(at, slot)| {
            bytes += slot.body.len() as u64;
            let index = LogIndex(self.first() + (from + at) as u64);
            let entry = || Entry { index, term: slot.term, kind: slot.kind, body: slot.body.clone() };
            (at == 0 || bytes <= max_bytes).then(entry)
        })
    }

    /// The peers for which a snapshot was asked since the last time.
    pub(crate) fn take_wants(&mut self) -> Vec<NodeId> {
        std::mem::take(self.wants.get_mut())
    }

    /// A peer needs the state.
    pub(crate) fn want(&self, peer: NodeId) {
        let mut wants = self.wants.borrow_mut();
        if !wants.contains(&peer) {
            wants.push(peer);
        }
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first())?).ok()?)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<RaftEntry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        Ok(self.read(low, high, max_bytes).map(convert::entry_to_library).collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        let missing = if index < self.base.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_at(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Never: the state travels outside. Who asked is noted.
    fn snapshot(&self, _: u64, to: u64) -> Result<Snapshot> {
        self.want(NodeId(to));
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
