//! A trie of tokens for filters with wildcards.
//!
//! Nodes live in one vector and name each other by index: no recursion anywhere, however many tokens a filter has.

use bytes::Bytes;
use hw_kit::Map;

use crate::token::{self, Tokens};

/// Values by filter. No node is kept that leads to no value.
#[derive(Debug)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// Nodes that may be used again.
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    /// By literal token.
    children: Map<Bytes, u32>,
    /// Where a `*` leads.
    star: Option<u32>,
    /// The filter that ends with a `>` at this place.
    tail: Option<Box<Entry<V>>>,
    /// The filter that ends here.
    here: Option<Box<Entry<V>>>,
}

#[derive(Debug)]
struct Entry<V> {
    filter: Bytes,
    value: V,
}

const ROOT: u32 = 0;

impl<V> Trie<V> {
    pub(super) fn new() -> Trie<V> {
        Trie { nodes: vec![Node::new()], free: Vec::new(), len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a filter, made now if there is none.
    pub(super) fn entry(&mut self, filter: &[u8], new: impl FnOnce() -> V) -> &mut V {
        let mut at = ROOT;
        let mut tokens = token::tokens(filter);
        let mut tail = false;
        while let Some(token) = tokens.next() {
            if is_tail(token, &tokens) {
                tail = true;
                break;
            }
            at = match self.child(at, token) {
                Some(child) => child,
                None => self.add_child(at, token),
            };
        }
        let node = &mut self.nodes[at as usize];
        let slot = if tail { &mut node.tail } else { &mut node.here };
        let entry = slot.get_or_insert_with(|| {
            self.len += 1;
            Box::new(Entry { filter: Bytes::copy_from_slice(filter), value: new() })
        });
        &mut entry.value
    }

    pub(super) fn find_mut(&mut self, filter: &[u8]) -> Option<&mut V> {
        let mut at = ROOT;
        let mut tokens = token::tokens(filter);
        while let Some(token) = tokens.next() {
            if is_tail(token, &tokens) {
                return self.nodes[at as usize].tail.as_mut().map(|entry| &mut entry.value);
            }
            at = self.child(at, token)?;
        }
        self.nodes[at as usize].here.as_mut().map(|entry| &mut entry.value)
    }

    /// Takes a filter's value out, with the nodes that led to it alone.
    pub(super) fn remove(&mut self, filter: &[u8]) -> Option<V> {
        let mut at = ROOT;
        let mut path = Vec::new();
        let mut tokens = token::tokens(filter);
        let mut tail = false;
        while let Some(token) = tokens.next() {
            if is_tail(token, &tokens) {
                tail = true;
                break;
            }
            path.push((at, token));
            at = self.child(at, token)?;
        }
        let node = &mut self.nodes[at as usize];
        let entry = if tail { node.tail.take() } else { node.here.take() }?;
        self.len -= 1;
        while let Some((parent, token)) = path.pop() {
            if !self.nodes[at as usize].is_empty() {
                break;
            }
            self.nodes[at as usize] = Node::new();
            self.free.push(at);
            let parent_node = &mut self.nodes[parent as usize];
            if token == b"*" {
                parent_node.star = None;
            } else {
                parent_node.children.remove(token);
            }
            at = parent;
        }
        Some(entry.value)
    }

    /// Shows the value of every filter that matches a valid subject, until `f` returns false.
    pub(super) fn visit<'a>(&'a self, subject: &[u8], mut f: impl FnMut(&'a V) -> bool) {
        // Grows only where both a token and a `*` lead on, so that most lookups allocate nothing.
        let mut branches: Vec<(u32, Tokens<'_>)> = Vec::new();
        let mut place = Some((ROOT, token::tokens(subject)));
        while let Some((at, mut tokens)) = place.take().or_else(|| branches.pop()) {
            let node = &self.nodes[at as usize];
            let Some(token) = tokens.next() else {
                if let Some(entry) = &node.here
                    && !f(&entry.value)
                {
                    return;
                }
                continue;
            };
            if let Some(entry) = &node.tail
                && !f(&entry.value)
            {
                return;
            }
            place = node.star.map(|star| (star, tokens.clone()));
            if let Some(&child) = node.children.get(token) {
                branches.extend(place.replace((child, tokens)));
            }
        }
    }

    /// Whether some filter here overlaps a valid filter.
    pub(super) fn overlaps(&self, filter: &[u8]) -> bool {
        let mut branches = vec![(ROOT, token::tokens(filter))];
        while let Some((at, mut tokens)) = branches.pop() {
            let node = &self.nodes[at as usize];
            let Some(token) = tokens.next() else {
                if node.here.is_some() {
                    return true;
                }
                continue;
            };
            // Every node but the root leads to a value, so any way on is an overlap with a `>`.
            if node.tail.is_some() || (is_tail(token, &tokens) && node.leads_on()) {
                return true;
            }
            branches.extend(node.star.map(|star| (star, tokens.clone())));
            if token == b"*" {
                branches.extend(node.children.values().map(|&child| (child, tokens.clone())));
            } else {
                branches.extend(node.children.get(token).map(|&child| (child, tokens)));
            }
        }
        false
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(&[u8], &V)) {
        for node in &self.nodes {
            for entry in [&node.tail, &node.here].into_iter().flatten() {
                f(&entry.filter, &entry.value);
            }
        }
    }

    fn child(&self, at: u32, token: &[u8]) -> Option<u32> {
        let node = &self.nodes[at as usize];
        if token == b"*" { node.star } else { node.children.get(token).copied() }
    }

    fn add_child(&mut self, at: u32, token: &[u8]) -> u32 {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::new());
            u32::try_from(self.nodes.len() - 1).expect("memory ends before node numbers do")
        });
        let node = &mut self.nodes[at as usize];
        if token == b"*" {
            node.star = Some(child);
        } else {
            node.children.insert(Bytes::copy_from_slice(token), child);
        }
        child
    }
}

impl<V> Node<V> {
    fn new() -> Node<V> {
        Node { children: Map::default(), star: None, tail: None, here: None }
    }

    fn is_empty(&self) -> bool {
        self.here.is_none() && self.tail.is_none() && !self.leads_on()
    }

    fn leads_on(&self) -> bool {
        self.star.is_some() || !self.children.is_empty()
    }
}

/// Whether the token, just taken from `tokens`, is the `>` at the end.
fn is_tail(token: &[u8], tokens: &Tokens<'_>) -> bool {
    token == b">" && tokens.rest().is_none()
}

#[cfg(test)]
impl<V> Trie<V> {
    /// Nodes in use, the root included.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}
