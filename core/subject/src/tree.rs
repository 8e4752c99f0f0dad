//! [`SubjectTree`]: values by literal subject, in byte order, walked by filter.
//!
//! A radix tree over bytes. What subjects share is stored once; a subject's own last bytes lie in its parent's vector,
//! next to the value, so that an entry usually costs no allocation of its own. Nothing recurses: a hostile set of
//! subjects, each the start of the next, makes a deep tree but no deep stack.

mod cursor;
mod label;
mod node;
mod walk;

use std::fmt;
use std::ops::ControlFlow;

use crate::token;
use node::{Branch, Node};
use walk::Walk;
pub use walk::{Iter, Matches};

/// A map from literal subjects to values, made for millions of subjects that share beginnings.
///
/// Keys are meant to be valid subjects; other bytes are kept all the same.
pub struct SubjectTree<V> {
    /// Its label is empty. Unlike other branches it may have less than two ways on.
    root: Branch<V>,
    len: usize,
}

impl<V> SubjectTree<V> {
    /// An empty tree.
    pub fn new() -> SubjectTree<V> {
        SubjectTree { root: Branch::new(&[]), len: 0 }
    }

    /// How many subjects there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no subjects.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all subjects.
    pub fn clear(&mut self) {
        *self = SubjectTree::new();
    }

    /// The value of a subject.
    pub fn get(&self, subject: &[u8]) -> Option<&V> {
        let mut branch = &self.root;
        let mut rest = subject;
        loop {
            let Some((&key, after)) = rest.split_first() else { return branch.end.as_ref() };
            let kid = branch.kid(key)?;
            rest = after.strip_prefix(kid.label())?;
            match kid {
                Node::Branch(next) => branch = next,
                Node::Leaf(leaf) => return rest.is_empty().then_some(&leaf.value),
            }
        }
    }

    /// The value of a subject, to change it.
    pub fn get_mut(&mut self, subject: &[u8]) -> Option<&mut V> {
        let mut branch = &mut self.root;
        let mut rest = subject;
        loop {
            let Some((&key, after)) = rest.split_first() else { return branch.end.as_mut() };
            let kid = branch.kid_mut(key)?;
            rest = after.strip_prefix(kid.label())?;
            match kid {
                Node::Branch(next) => branch = next,
                Node::Leaf(leaf) => return rest.is_empty().then_some(&mut leaf.value),
            }
        }
    }

    /// Whether the subject is here.
    pub fn contains(&self, subject: &[u8]) -> bool {
        self.get(subject).is_some()
    }

    /// Sets the value of a subject and returns the one it had.
    pub fn insert(&mut self, subject: &[u8], value: V) -> Option<V> {
        let mut value = Some(value);
        let slot =
            self.get_or_insert_with(subject, || value.take().expect("called once, before it is looked at"));
        value.map(|value| std::mem::replace(slot, value))
    }

    /// The value of a subject, made now if there is none.
    pub fn get_or_insert_with(&mut self, subject: &[u8], new: impl FnOnce() -> V) -> &mut V {
        let mut branch = &mut self.root;
        let mut rest = subject;
        loop {
            let Some((&key, after)) = rest.split_first() else {
                return branch.end.get_or_insert_with(|| {
                    self.len += 1;
                    new()
                });
            };
            let at = match branch.find(key) {
                Ok(at) => at,
                Err(at) => {
                    self.len += 1;
                    return branch.insert_leaf(at, key, after, new());
                }
            };
            let kid = &mut branch.kids[at];
            rest = &after[kid.fit(after)..];
            match kid {
                Node::Branch(next) => branch = next,
                Node::Leaf(leaf) => return &mut leaf.value,
            }
        }
    }

    /// Takes a subject out.
    pub fn remove(&mut self, subject: &[u8]) -> Option<V> {
        let mut parent = None;
        let mut branch = &mut self.root;
        let mut rest = subject;
        let mut depth = 0usize;
        let value = loop {
            let Some((&key, after)) = rest.split_first() else {
                break branch.end.take()?;
            };
            let at = branch.find(key).ok()?;
            rest = after.strip_prefix(branch.kids[at].label())?;
            if matches!(branch.kids[at], Node::Leaf(_)) {
                if !rest.is_empty() {
                    return None;
                }
                break branch.remove_leaf(at);
            }
            parent = Some(depth);
            depth += 1;
            branch = match &mut branch.kids[at] {
                Node::Branch(next) => next,
                Node::Leaf(_) => unreachable!("leaves were dealt with above"),
            };
        };
        self.len -= 1;
        if let Some(parent) = parent
            && branch.is_needless()
        {
            self.merge_below(subject, parent);
        }
        Some(value)
    }

    /// Calls `f` for every subject that the filter matches, in byte order, until it breaks.
    pub fn for_each_match<B>(
        &self,
        filter: &[u8],
        mut f: impl FnMut(&[u8], &V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if token::is_literal(filter) {
            return self.get(filter).map_or(ControlFlow::Continue(()), |value| f(filter, value));
        }
        let mut walk = Walk::new(&self.root, filter);
        while let Some((subject, value)) = walk.advance(filter) {
            f(subject, value)?;
        }
        ControlFlow::Continue(())
    }

    /// The same, to change the values.
    pub fn for_each_match_mut<B>(
        &mut self,
        filter: &[u8],
        mut f: impl FnMut(&[u8], &mut V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if token::is_literal(filter) {
            return self.get_mut(filter).map_or(ControlFlow::Continue(()), |value| f(filter, value));
        }
        walk::visit_mut(&mut self.root, filter, f)
    }

    /// Every subject that the filter matches with its value, in byte order. Copies each subject:
    /// [`SubjectTree::for_each_match`] does not.
    pub fn matching<'a>(&'a self, filter: &'a [u8]) -> Matches<'a, V> {
        Matches::new(&self.root, filter)
    }

    /// How many subjects the filter matches.
    pub fn count_matches(&self, filter: &[u8]) -> usize {
        if filter == b">" {
            return self.len;
        }
        let mut count = 0;
        let _: ControlFlow<()> = self.for_each_match(filter, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// All subjects with their values, in byte order. Copies each subject.
    pub fn iter(&self) -> Iter<'_, V> {
        Matches::new(&self.root, b">")
    }

    /// Replaces a branch that has only one way on, and that lies below the branch at `depth`, by where it leads.
    fn merge_below(&mut self, subject: &[u8], depth: usize) {
        let mut branch = &mut self.root;
        let mut rest = subject;
        for level in 0.. {
            let Some((&key, after)) = rest.split_first() else { return };
            let Ok(at) = branch.find(key) else { return };
            let kid = &mut branch.kids[at];
            if level == depth {
                return kid.merge();
            }
            rest = &after[kid.label().len()..];
            let Node::Branch(next) = kid else { return };
            branch = next;
        }
    }
}

impl<V> Default for SubjectTree<V> {
    fn default() -> SubjectTree<V> {
        SubjectTree::new()
    }
}

impl<V: Clone> Clone for SubjectTree<V> {
    fn clone(&self) -> SubjectTree<V> {
        let mut copy = SubjectTree::new();
        let mut walk = Walk::new(&self.root, b">");
        while let Some((subject, value)) = walk.advance(b">") {
            copy.insert(subject, value.clone());
        }
        copy
    }
}

impl<V: fmt::Debug> fmt::Debug for SubjectTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter().map(|(subject, value)| (String::from_utf8_lossy(&subject).into_owned(), value)),
            )
            .finish()
    }
}

impl<V> Drop for SubjectTree<V> {
    fn drop(&mut self) {
        // Level by level: the compiler's own way would recurse as deep as the tree is.
        let mut nodes = std::mem::take(&mut self.root.kids);
        while let Some(node) = nodes.pop() {
            if let Node::Branch(mut branch) = node {
                nodes.append(&mut branch.kids);
            }
        }
    }
}

#[cfg(test)]
mod tests;
