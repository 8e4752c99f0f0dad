//! The results of recent lookups, in two halves so that forgetting the oldest costs nothing per lookup.
//!
//! A result is kept when its subject is asked for again: replies to requests, and requests that name a key, have subjects
//! that come once, and keeping them would cost more than looking them up, and drive out those that return.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::Map;

use super::Matched;
use crate::limits::{CACHED_SUBJECT_LEN, CACHED_SUBJECTS, CACHED_SUBSCRIBERS};

/// The place of a result with more subscribers than this is not kept for the next one.
const SPARE_SUBSCRIBERS: usize = 64;
/// Subjects that are remembered as having been looked up.
const SEEN: usize = 4096;

/// Results by subject. A result counts only while its generation is the current one.
#[derive(Debug)]
pub(super) struct Cache<T> {
    generation: u64,
    young: Map<Bytes, Cached<T>>,
    old: Map<Bytes, Cached<T>>,
    /// Subscribers in `young`.
    subscribers: usize,
    /// Parts of the hashes of subjects that were looked up, each in the place that it has by its hash; empty before the
    /// first.
    seen: Box<[u16]>,
    /// The result for subjects without interest, shared by all of them.
    nobody: Arc<Matched<T>>,
    /// The last result that was not kept: when whoever asked is done with it, its place serves the next one.
    spare: Option<Arc<Matched<T>>>,
}

#[derive(Debug)]
struct Cached<T> {
    generation: u64,
    matched: Arc<Matched<T>>,
}

impl<T> Cache<T> {
    pub(super) fn new() -> Cache<T> {
        Cache {
            generation: 0,
            young: Map::default(),
            old: Map::default(),
            subscribers: 0,
            seen: Box::default(),
            nobody: Arc::new(Matched::new()),
            spare: None,
        }
    }

    pub(super) fn find(&mut self, subject: &[u8]) -> Option<Arc<Matched<T>>> {
        if let Some(cached) = self.young.get(subject) {
            return (cached.generation == self.generation).then(|| cached.matched.clone());
        }
        // What is still asked for moves to the young half and survives the next turn.
        let (key, cached) = self.old.remove_entry(subject)?;
        if cached.generation != self.generation {
            return None;
        }
        let matched = cached.matched.clone();
        self.put(key, cached);
        Some(matched)
    }

    /// A place for a result, which nobody else holds.
    pub(super) fn take_spare(&mut self) -> Arc<Matched<T>> {
        let spare = self.spare.take().filter(|spare| Arc::strong_count(spare) == 1);
        spare.unwrap_or_else(|| Arc::new(Matched::new()))
    }

    pub(super) fn keep(&mut self, subject: &[u8], found: Arc<Matched<T>>) -> Arc<Matched<T>> {
        let matched = if found.is_empty() { self.nobody.clone() } else { found.clone() };
        let is_wanted = subject.len() <= CACHED_SUBJECT_LEN && self.was_seen(subject);
        if (!is_wanted || found.is_empty()) && found.len() <= SPARE_SUBSCRIBERS {
            self.spare = Some(found);
        }
        if !is_wanted {
            return matched;
        }
        let cached = Cached { generation: self.generation, matched: matched.clone() };
        match self.young.get_mut(subject) {
            Some(stale) => {
                self.subscribers += cached.matched.len();
                self.subscribers -= stale.matched.len();
                *stale = cached;
            }
            None => self.put(Bytes::copy_from_slice(subject), cached),
        }
        matched
    }

    /// Whether a subject was looked up before, not long ago; another one may be taken for it.
    fn was_seen(&mut self, subject: &[u8]) -> bool {
        let hash = self.young.hasher().hash_one(subject);
        let mark = (hash >> 48) as u16 | 1;
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN].into();
        }
        std::mem::replace(&mut self.seen[hash as usize % SEEN], mark) == mark
    }

    /// The result for one subject no longer holds.
    pub(super) fn forget(&mut self, subject: &[u8]) {
        if let Some(cached) = self.young.remove(subject) {
            self.subscribers -= cached.matched.len();
        }
        self.old.remove(subject);
    }

    /// No result holds any longer.
    pub(super) fn forget_all(&mut self) {
        self.generation += 1;
    }

    fn put(&mut self, subject: Bytes, cached: Cached<T>) {
        if self.young.len() >= CACHED_SUBJECTS || self.subscribers >= CACHED_SUBSCRIBERS {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.subscribers = 0;
        }
        self.subscribers += cached.matched.len();
        self.young.insert(subject, cached);
    }
}

impl<T> Cache<T> {
    /// Subjects held, both halves together.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
impl<T> Cache<T> {
    /// Subjects and subscribers held, both halves together.
    pub(super) fn held(&self) -> (usize, usize) {
        let all = || self.young.values().chain(self.old.values());
        (all().count(), all().map(|cached| cached.matched.len()).sum())
    }
}
