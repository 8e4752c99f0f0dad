//! The results of recent lookups, in two halves so that forgetting the oldest costs nothing per lookup.

use std::sync::Arc;

use bytes::Bytes;
use hw_kit::Map;

use super::Matched;
use crate::limits::{CACHED_SUBJECT_LEN, CACHED_SUBJECTS, CACHED_SUBSCRIBERS};

/// Results by subject. A result counts only while its generation is the current one.
#[derive(Debug)]
pub(super) struct Cache<T> {
    generation: u64,
    young: Map<Bytes, Cached<T>>,
    old: Map<Bytes, Cached<T>>,
    /// Subscribers in `young`.
    subscribers: usize,
    /// The result for subjects without interest, shared by all of them.
    nobody: Arc<Matched<T>>,
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
            nobody: Arc::new(Matched::new()),
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

    pub(super) fn keep(&mut self, subject: &[u8], matched: Matched<T>) -> Arc<Matched<T>> {
        let matched = if matched.is_empty() { self.nobody.clone() } else { Arc::new(matched) };
        if subject.len() > CACHED_SUBJECT_LEN {
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
