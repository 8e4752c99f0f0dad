//! The subscribers of one filter, and of all filters that match one subject.

use bytes::Bytes;

/// The subscribers of a subject.
///
/// A group has the members from all filters that match: one of them gets the message, whichever filter it used.
/// Groups are sorted by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Matched<T> {
    /// Each gets the message.
    pub plain: Vec<T>,
    /// One of each group gets the message: the group's name and its members, of which there is at least one.
    pub queues: Vec<(Bytes, Vec<T>)>,
}

/// The subscribers of one filter, in the same form.
#[derive(Clone, Debug)]
pub(super) struct Subscribers<T>(Matched<T>);

impl<T> Matched<T> {
    /// No subscribers.
    pub const fn new() -> Matched<T> {
        Matched { plain: Vec::new(), queues: Vec::new() }
    }

    /// Whether nobody subscribed.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    /// Removes everybody.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.queues.clear();
    }

    /// The members of a group; empty if there is no such group.
    pub fn queue(&self, name: &[u8]) -> &[T] {
        self.find(name).map_or(&[], |index| &self.queues[index].1)
    }

    /// Subscribers in total, members of groups included.
    pub fn len(&self) -> usize {
        self.plain.len() + self.queues.iter().map(|(_, members)| members.len()).sum::<usize>()
    }

    /// The index of a group, or where it belongs.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.queues.binary_search_by(|(queue, _)| queue[..].cmp(name))
    }
}

impl<T> Default for Matched<T> {
    fn default() -> Matched<T> {
        Matched::new()
    }
}

impl<T> Subscribers<T> {
    pub(super) fn new() -> Subscribers<T> {
        Subscribers(Matched::new())
    }

    pub(super) fn insert(&mut self, queue: Option<&[u8]>, subscriber: T) {
        let Some(queue) = queue else {
            if self.0.plain.is_empty() {
                // Most filters have one subscriber and no more.
                self.0.plain.reserve_exact(1);
            }
            return self.0.plain.push(subscriber);
        };
        match self.0.find(queue) {
            Ok(index) => self.0.queues[index].1.push(subscriber),
            Err(index) => self.0.queues.insert(index, (Bytes::copy_from_slice(queue), vec![subscriber])),
        }
    }

    pub(super) fn remove(&mut self, queue: Option<&[u8]>, subscriber: &T) -> bool
    where
        T: PartialEq,
    {
        let Some(queue) = queue else { return take_one(&mut self.0.plain, subscriber) };
        let Ok(index) = self.0.find(queue) else { return false };
        let members = &mut self.0.queues[index].1;
        if !take_one(members, subscriber) {
            return false;
        }
        if members.is_empty() {
            self.0.queues.remove(index);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds these subscribers to those of other filters.
    pub(super) fn add_to(&self, out: &mut Matched<T>)
    where
        T: Clone,
    {
        out.plain.extend_from_slice(&self.0.plain);
        if out.queues.is_empty() {
            return out.queues.extend_from_slice(&self.0.queues);
        }
        for (queue, members) in &self.0.queues {
            match out.find(queue) {
                Ok(index) => out.queues[index].1.extend_from_slice(members),
                Err(index) => out.queues.insert(index, (queue.clone(), members.clone())),
            }
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(Option<&[u8]>, &T)) {
        self.0.plain.iter().for_each(|subscriber| f(None, subscriber));
        for (queue, members) in &self.0.queues {
            members.iter().for_each(|subscriber| f(Some(&queue[..]), subscriber));
        }
    }
}

/// Takes one equal element out; the order of the others may change.
fn take_one<T: PartialEq>(from: &mut Vec<T>, wanted: &T) -> bool {
    // Those who came last tend to leave first, so the search starts at the end.
    let Some(index) = from.iter().rposition(|one| one == wanted) else { return false };
    from.swap_remove(index);
    true
}
