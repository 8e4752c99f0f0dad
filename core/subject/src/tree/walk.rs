//! Walks through the subject tree in byte order, without recursion and without entering what a filter rules out.

use std::ops::{ControlFlow, Range};

use super::cursor::{Cursor, Wanted};
use super::node::{Branch, Node};

/// A walk over all subjects that a filter matches. The filter is handed in at each step and must stay the same.
#[derive(Debug)]
pub(super) struct Walk<'a, V> {
    frames: Vec<Frame<'a, V>>,
    /// The bytes on the way to the top frame, and then to the entry given last.
    subject: Vec<u8>,
    /// The subject without bytes, which only the root can have.
    first: Option<&'a V>,
}

/// A branch that is being walked through.
#[derive(Debug)]
struct Frame<'a, V> {
    branch: &'a Branch<V>,
    /// The kids still to be seen.
    kids: Range<usize>,
    place: Place,
}

/// Where a branch's bytes end.
#[derive(Clone, Copy, Debug)]
struct Place {
    subject_len: usize,
    cursor: Cursor,
}

impl Place {
    const ROOT: Place = Place { subject_len: 0, cursor: Cursor::START };

    /// Goes on to a kid: `subject` becomes the kid's bytes. `None` if the filter rules the kid out.
    fn enter<V>(self, key: u8, kid: &Node<V>, filter: &[u8], subject: &mut Vec<u8>) -> Option<Place> {
        let cursor = self.cursor.advance(filter, &[key])?.advance(filter, kid.label())?;
        subject.truncate(self.subject_len);
        subject.push(key);
        subject.extend_from_slice(kid.label());
        Some(Place { subject_len: subject.len(), cursor })
    }

    /// Which kids of a branch the filter allows, as far as their keys show.
    fn kids<V>(self, branch: &Branch<V>, filter: &[u8]) -> Range<usize> {
        match self.cursor.wanted(filter) {
            Wanted::Any => 0..branch.kids.len(),
            Wanted::Nothing => 0..0,
            Wanted::Only(key) => branch.find(key).map_or(0..0, |at| at..at + 1),
        }
    }
}

impl<'a, V> Walk<'a, V> {
    pub(super) fn new(root: &'a Branch<V>, filter: &[u8]) -> Walk<'a, V> {
        let frame = Frame { branch: root, kids: Place::ROOT.kids(root, filter), place: Place::ROOT };
        let first = root.end.as_ref().filter(|_| Place::ROOT.cursor.accepts(filter));
        Walk { frames: vec![frame], subject: Vec::new(), first }
    }

    /// The next subject and its value.
    pub(super) fn advance(&mut self, filter: &[u8]) -> Option<(&[u8], &'a V)> {
        if let Some(value) = self.first.take() {
            return Some((&[], value));
        }
        while let Some(frame) = self.frames.last_mut() {
            let Some(at) = frame.kids.next() else {
                self.frames.pop();
                continue;
            };
            let branch = frame.branch;
            let kid = &branch.kids[at];
            let Some(place) = frame.place.enter(branch.keys()[at], kid, filter, &mut self.subject) else {
                continue;
            };
            let value = match kid {
                Node::Leaf(leaf) => Some(&leaf.value),
                Node::Branch(next) => {
                    self.frames.push(Frame { branch: next, kids: place.kids(next, filter), place });
                    next.end.as_ref()
                }
            };
            if let Some(value) = value
                && place.cursor.accepts(filter)
            {
                return Some((&self.subject, value));
            }
        }
        None
    }
}

/// A branch that is being walked through with its values open to change.
struct FrameMut<'a, V> {
    kids: std::iter::Zip<std::slice::Iter<'a, u8>, std::slice::IterMut<'a, Node<V>>>,
    place: Place,
}

/// Calls `f` for every subject that the filter matches, in byte order, until it breaks.
pub(super) fn visit_mut<V, B>(
    root: &mut Branch<V>,
    filter: &[u8],
    mut f: impl FnMut(&[u8], &mut V) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut subject = Vec::new();
    let mut frames = Vec::new();
    if let Some(value) = open(root, Place::ROOT, filter, &mut frames) {
        f(&subject, value)?;
    }
    while let Some(frame) = frames.last_mut() {
        let Some((&key, kid)) = frame.kids.next() else {
            frames.pop();
            continue;
        };
        let Some(place) = frame.place.enter(key, kid, filter, &mut subject) else { continue };
        match kid {
            Node::Leaf(leaf) if place.cursor.accepts(filter) => f(&subject, &mut leaf.value)?,
            Node::Leaf(_) => {}
            Node::Branch(branch) => {
                if let Some(value) = open(branch, place, filter, &mut frames) {
                    f(&subject, value)?;
                }
            }
        }
    }
    ControlFlow::Continue(())
}

/// Adds a frame for a branch; returns the branch's own value if the filter matches it.
fn open<'a, V>(
    branch: &'a mut Branch<V>,
    place: Place,
    filter: &[u8],
    frames: &mut Vec<FrameMut<'a, V>>,
) -> Option<&'a mut V> {
    let range = place.kids(branch, filter);
    let (keys, kids, end) = branch.parts_mut();
    let kids = keys[range.clone()].iter().zip(kids[range].iter_mut());
    frames.push(FrameMut { kids, place });
    end.filter(|_| place.cursor.accepts(filter))
}

/// Iterator over the subjects that a filter matches: see [`SubjectTree::matching`](crate::SubjectTree::matching).
#[derive(Debug)]
pub struct Matches<'a, V> {
    walk: Walk<'a, V>,
    filter: &'a [u8],
}

impl<'a, V> Matches<'a, V> {
    pub(super) fn new(root: &'a Branch<V>, filter: &'a [u8]) -> Matches<'a, V> {
        Matches { walk: Walk::new(root, filter), filter }
    }
}

impl<'a, V> Iterator for Matches<'a, V> {
    type Item = (Vec<u8>, &'a V);

    fn next(&mut self) -> Option<(Vec<u8>, &'a V)> {
        self.walk.advance(self.filter).map(|(subject, value)| (subject.to_vec(), value))
    }
}

/// Iterator over all subjects: see [`SubjectTree::iter`](crate::SubjectTree::iter).
pub type Iter<'a, V> = Matches<'a, V>;
