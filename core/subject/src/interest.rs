//! [`Interest`]: who subscribed to what, answered per published subject.
//!
//! Literal filters live in a [`SubjectTree`], filters with wildcards in a trie of tokens; results are cached per subject.
//! A subscription to a literal subject forgets that subject's cached result alone, one with a wildcard forgets all.

mod cache;
mod subscribers;
mod trie;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::{SubjectTree, token};
use cache::Cache;
pub use subscribers::Matched;
use subscribers::Subscribers;
use trie::Trie;

/// The subscriptions of one account: `T` names a subscriber, for example a connection and its `sid`.
///
/// The same (filter, queue, `T`) may be inserted several times and then counts several times.
/// Filters are valid filters, published subjects may be anything: one with an empty token interests nobody.
#[derive(Debug)]
pub struct Interest<T> {
    literals: SubjectTree<Subscribers<T>>,
    wildcards: Trie<Subscribers<T>>,
    /// Subscriptions, not filters.
    len: usize,
    cache: Cache<T>,
}

impl<T> Interest<T> {
    /// No subscriptions.
    pub fn new() -> Interest<T> {
        Interest { literals: SubjectTree::new(), wildcards: Trie::new(), len: 0, cache: Cache::new() }
    }

    /// Adds a subscription, to the queue group if one is given.
    pub fn insert(&mut self, filter: &[u8], queue: Option<&[u8]>, subscriber: T) {
        let subscribers = if token::is_literal(filter) {
            self.cache.forget(filter);
            self.literals.get_or_insert_with(filter, Subscribers::new)
        } else {
            self.cache.forget_all();
            self.wildcards.entry(filter, Subscribers::new)
        };
        subscribers.insert(queue, subscriber);
        self.len += 1;
    }

    /// Takes one such subscription away; false if there is none.
    pub fn remove(&mut self, filter: &[u8], queue: Option<&[u8]>, subscriber: &T) -> bool
    where
        T: PartialEq,
    {
        let literal = token::is_literal(filter);
        let found = if literal { self.literals.get_mut(filter) } else { self.wildcards.find_mut(filter) };
        let Some(subscribers) = found else { return false };
        if !subscribers.remove(queue, subscriber) {
            return false;
        }
        let last = subscribers.is_empty();
        self.len -= 1;
        match (literal, last) {
            (true, true) => drop(self.literals.remove(filter)),
            (false, true) => drop(self.wildcards.remove(filter)),
            _ => {}
        }
        if literal {
            self.cache.forget(filter)
        } else {
            self.cache.forget_all()
        }
        true
    }

    /// Replaces `out` by the subscribers of a subject. Does not use the cache: see [`Interest::lookup`].
    pub fn matches(&self, subject: &[u8], out: &mut Matched<T>)
    where
        T: Clone,
    {
        out.clear();
        self.visit(subject, |subscribers| {
            subscribers.add_to(out);
            true
        });
    }

    /// The subscribers of a subject. A repeated question costs one hash lookup and no allocation.
    pub fn lookup(&mut self, subject: &[u8]) -> Arc<Matched<T>>
    where
        T: Clone,
    {
        if let Some(known) = self.cache.find(subject) {
            return known;
        }
        let mut matched = self.cache.take_spare();
        if let Some(out) = Arc::get_mut(&mut matched) {
            self.matches(subject, out);
        }
        self.cache.keep(subject, matched)
    }

    /// Whether anybody subscribed to a subject.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        let mut found = false;
        self.visit(subject, |_| {
            found = true;
            false
        });
        found
    }

    /// Whether anybody subscribed to this very filter, if it has no wildcards.
    pub fn has_literal(&self, subject: &[u8]) -> bool {
        self.literals.get(subject).is_some()
    }

    /// Whether the filter of some subscription overlaps this filter.
    pub fn matches_filter(&self, filter: &[u8]) -> bool {
        if self.wildcards.overlaps(filter) {
            return true;
        }
        self.literals.for_each_match(filter, |_, _| ControlFlow::Break(())).is_break()
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many subjects' results are kept.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `f(filter, queue, subscriber)` for every subscription, in an order that history alone decides.
    pub fn for_each(&self, mut f: impl FnMut(&[u8], Option<&[u8]>, &T)) {
        let _: ControlFlow<()> = self.literals.for_each_match(b">", |filter, subscribers| {
            subscribers.for_each(|queue, subscriber| f(filter, queue, subscriber));
            ControlFlow::Continue(())
        });
        self.wildcards.for_each(|filter, all| all.for_each(|queue, subscriber| f(filter, queue, subscriber)));
    }

    /// Shows the subscribers of every filter that matches, until `f` returns false.
    fn visit<'a>(&'a self, subject: &[u8], mut f: impl FnMut(&'a Subscribers<T>) -> bool) {
        if let Some(subscribers) = self.literals.get(subject)
            && !f(subscribers)
        {
            return;
        }
        if !self.wildcards.is_empty() && !token::has_empty_token(subject) {
            self.wildcards.visit(subject, f);
        }
    }
}

impl<T> Default for Interest<T> {
    fn default() -> Interest<T> {
        Interest::new()
    }
}

#[cfg(test)]
mod tests;
