//! The subjects of the messages in memory: numbers for names, the sequences of each, and which match a filter.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;
use hw_subject::SubjectTree;

use super::seqs::Seqs;

/// How many of the latest newcomers a matcher can catch up with; one that is further behind starts again.
const NEWCOMERS: usize = 4096;

#[derive(Debug)]
struct Subject {
    name: Box<[u8]>,
    /// None while the number is free.
    seqs: Option<Seqs>,
    /// How many more messages it has that are not in memory; [`UNKNOWN`] until somebody has counted them.
    cold: Cell<u32>,
}

/// No number of messages, or more than a subject has.
const UNKNOWN: u32 = u32::MAX;

impl Subject {
    fn cold(&self) -> Option<u64> {
        Some(self.cold.get()).filter(|&count| count != UNKNOWN).map(u64::from)
    }

    fn set_cold(&self, count: Option<u64>) {
        self.cold.set(count.and_then(|count| u32::try_from(count).ok()).unwrap_or(UNKNOWN));
    }
}

/// All subjects that have messages in memory.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    names: SubjectTree<u32>,
    by_id: Vec<Subject>,
    free: Vec<u32>,
    /// How many subjects were ever added: matchers compare it with what they have seen.
    epoch: u64,
    newcomers: VecDeque<u32>,
    /// The number that was found last: one command asks for its subject again and again.
    latest: Cell<u32>,
}

impl Subjects {
    pub fn len(&self) -> u64 {
        self.names.len() as u64
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The subjects added after an epoch, or None when that is too long ago.
    pub fn since(&self, epoch: u64) -> Option<impl Iterator<Item = u32> + '_> {
        let missing = usize::try_from(self.epoch - epoch).ok()?;
        let start = self.newcomers.len().checked_sub(missing)?;
        Some(self.newcomers.range(start..).copied())
    }

    pub fn name(&self, id: u32) -> &[u8] {
        &self.by_id[id as usize].name
    }

    fn is_named(&self, id: u32, name: &[u8]) -> bool {
        self.by_id.get(id as usize).is_some_and(|one| one.seqs.is_some() && *one.name == *name)
    }

    pub fn find(&self, name: &[u8]) -> Option<u32> {
        let latest = self.latest.get();
        if self.is_named(latest, name) {
            return Some(latest);
        }
        let found = self.names.get(name).copied();
        self.latest.set(found.unwrap_or(latest));
        found
    }

    /// None for a number that is free.
    pub fn seqs(&self, id: u32) -> Option<&Seqs> {
        self.by_id.get(id as usize)?.seqs.as_ref()
    }

    /// How many more messages a subject has that are not in memory, if that is known.
    pub fn cold(&self, id: u32) -> Option<u64> {
        self.by_id[id as usize].cold()
    }

    /// They were counted.
    pub fn set_cold(&self, id: u32, count: u64) {
        self.by_id[id as usize].set_cold(Some(count));
    }

    /// A message that is not in memory was removed.
    pub fn handle_cold_removed(&mut self, id: u32) {
        let subject = &self.by_id[id as usize];
        subject.set_cold(subject.cold().map(|cold| cold.saturating_sub(1)));
    }

    /// How many messages are not in memory is to be counted anew, of all subjects.
    pub fn forget_cold(&mut self) {
        self.by_id.iter().for_each(|subject| subject.set_cold(None));
    }

    /// Notes a message; gives the number of its subject, and whether that had none in memory: then how many it has
    /// elsewhere is not known yet.
    pub fn note(&mut self, name: &[u8], seq: u64) -> (u32, bool) {
        let latest = self.latest.get();
        if self.is_named(latest, name) {
            self.push(latest, seq);
            return (latest, false);
        }
        let next = self.free.last().copied().unwrap_or_else(|| {
            u32::try_from(self.by_id.len()).expect("fewer than 2^32 subjects fit into memory")
        });
        let id = *self.names.get_or_insert_with(name, || next);
        self.latest.set(id);
        let is_newcomer = id == next;
        match is_newcomer {
            true => self.welcome(id, name, seq),
            false => self.push(id, seq),
        }
        (id, is_newcomer)
    }

    fn push(&mut self, id: u32, seq: u64) {
        self.by_id[id as usize].seqs.as_mut().expect("a named subject has messages").push(seq);
    }

    fn welcome(&mut self, id: u32, name: &[u8], seq: u64) {
        let subject = Subject { name: name.into(), seqs: Some(Seqs::One(seq)), cold: Cell::new(UNKNOWN) };
        match self.free.pop() {
            Some(_) => self.by_id[id as usize] = subject,
            None => self.by_id.push(subject),
        }
        self.epoch += 1;
        if self.newcomers.len() == NEWCOMERS {
            self.newcomers.pop_front();
        }
        self.newcomers.push_back(id);
    }

    /// Forgets a message, and its subject with the last one in memory. `is_shed`: it is elsewhere from now on.
    pub fn remove(&mut self, id: u32, seq: u64, is_shed: bool) -> Left {
        let subject = &mut self.by_id[id as usize];
        if is_shed {
            subject.set_cold(subject.cold().map(|cold| cold + 1));
        }
        let cold = subject.cold();
        if !subject.seqs.as_mut().is_some_and(|seqs| seqs.remove(seq)) {
            return Left::InMemory;
        }
        subject.seqs = None;
        let name = std::mem::take(&mut subject.name);
        self.names.remove(&name);
        self.free.push(id);
        match cold {
            Some(0) => Left::Nothing,
            Some(_) => Left::Elsewhere,
            None => Left::Unknown,
        }
    }

    /// Forgets everything; matchers notice, because the epoch goes on.
    pub fn clear(&mut self) {
        // The gap in the epoch is larger than any matcher can catch up with, so that none trusts an old number.
        *self = Subjects { epoch: self.epoch + NEWCOMERS as u64 + 1, ..Subjects::default() };
    }

    /// Calls `f` with every subject that matches the filter, ordered by name, until it returns false; false if it did.
    pub fn for_each(&self, filter: &Filter, mut f: impl FnMut(u32, &[u8], &Seqs) -> bool) -> bool {
        let visit = |_: &[u8], &id: &u32| {
            let subject = &self.by_id[id as usize];
            let seqs = subject.seqs.as_ref().expect("a named subject has messages");
            if f(id, &subject.name, seqs) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.names.for_each_match(&filter.0, visit).is_continue()
    }
}

/// What a subject has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    InMemory,
    Elsewhere,
    Nothing,
    /// None in memory, and elsewhere nobody has counted.
    Unknown,
}

/// A subject filter; what is no valid filter matches nothing but itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filter(Bytes);

impl Filter {
    pub fn new(text: &str) -> Filter {
        Filter(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The same from bytes.
    pub fn of(text: &[u8]) -> Filter {
        Filter(Bytes::copy_from_slice(text))
    }

    /// Whether every subject matches.
    pub fn is_all(&self) -> bool {
        self.0.as_ref() == b">"
    }

    pub fn is_literal(&self) -> bool {
        hw_subject::is_literal(&self.0)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        hw_subject::matches(&self.0, subject)
    }
}
