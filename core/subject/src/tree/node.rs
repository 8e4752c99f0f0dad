//! The nodes of the subject tree and what keeps them in shape.

use super::label::Label;

/// A subject's end, or a place where subjects part.
#[derive(Debug)]
pub(super) enum Node<V> {
    Leaf(Leaf<V>),
    Branch(Box<Branch<V>>),
}

/// The last bytes of one subject, after the key byte under which its parent holds it.
#[derive(Debug)]
pub(super) struct Leaf<V> {
    label: Label,
    pub(super) value: V,
}

/// Bytes that several subjects share, and what follows. Has at least two of: a value of its own, kids.
#[derive(Debug)]
pub(super) struct Branch<V> {
    label: Label,
    /// The value of the subject that ends here.
    pub(super) end: Option<V>,
    /// The first byte of each kid, sorted. The kids' labels do not repeat it.
    keys: Label,
    pub(super) kids: Vec<Node<V>>,
}

impl<V> Node<V> {
    pub(super) fn label(&self) -> &[u8] {
        match self {
            Node::Leaf(leaf) => leaf.label.as_slice(),
            Node::Branch(branch) => branch.label.as_slice(),
        }
    }

    /// Splits this node where `subject` parts from it, and makes it a branch if the subject goes on behind it.
    /// Returns how much of the subject it now covers: all of its label.
    pub(super) fn fit(&mut self, subject: &[u8]) -> usize {
        let label = self.label();
        let shared = label.iter().zip(subject).take_while(|(a, b)| a == b).count();
        if shared < label.len() {
            let mut branch = Box::new(Branch::new(&label[..shared]));
            branch.keys.insert(0, label[shared]);
            let rest = Label::new(&label[shared + 1..]);
            self.set_label(rest);
            // Two: the one that was here and the one that the caller adds.
            branch.kids.reserve_exact(2);
            self.wrap(branch, |branch, node| branch.kids.push(node));
        } else if shared < subject.len() && matches!(self, Node::Leaf(_)) {
            let branch = Box::new(Branch::new(label));
            self.wrap(branch, |branch, node| {
                if let Node::Leaf(leaf) = node {
                    branch.end = Some(leaf.value);
                }
            });
        }
        shared
    }

    /// If this is a branch with only one way on, replaces it by where that leads.
    pub(super) fn merge(&mut self) {
        let Node::Branch(branch) = self else { return };
        if !branch.is_needless() {
            return;
        }
        match branch.kids.pop() {
            Some(mut kid) => {
                let key = branch.keys.as_slice()[0];
                kid.set_label(Label::join(branch.label.as_slice(), key, kid.label()));
                *self = kid;
            }
            None => {
                let Some(value) = branch.end.take() else { return };
                *self = Node::Leaf(Leaf { label: Label::new(branch.label.as_slice()), value });
            }
        }
    }

    fn set_label(&mut self, label: Label) {
        match self {
            Node::Leaf(leaf) => leaf.label = label,
            Node::Branch(branch) => branch.label = label,
        }
    }

    /// Puts `branch` in this node's place and this node into it.
    fn wrap(&mut self, branch: Box<Branch<V>>, put: impl FnOnce(&mut Branch<V>, Node<V>)) {
        let node = std::mem::replace(self, Node::Branch(branch));
        if let Node::Branch(branch) = self {
            put(branch, node);
        }
    }
}

impl<V> Branch<V> {
    pub(super) fn new(label: &[u8]) -> Branch<V> {
        Branch { label: Label::new(label), end: None, keys: Label::new(&[]), kids: Vec::new() }
    }

    pub(super) fn keys(&self) -> &[u8] {
        self.keys.as_slice()
    }

    /// The keys and the kids that belong to them.
    pub(super) fn parts_mut(&mut self) -> (&[u8], &mut [Node<V>], Option<&mut V>) {
        (self.keys.as_slice(), &mut self.kids, self.end.as_mut())
    }

    /// The index of the kid with this key, or where it belongs.
    pub(super) fn find(&self, key: u8) -> Result<usize, usize> {
        let keys = self.keys.as_slice();
        // A scan is the faster search for the ten digits and the like.
        let at = if keys.len() <= 16 {
            keys.iter().position(|&other| other >= key).unwrap_or(keys.len())
        } else {
            keys.partition_point(|&other| other < key)
        };
        if keys.get(at) == Some(&key) { Ok(at) } else { Err(at) }
    }

    pub(super) fn kid(&self, key: u8) -> Option<&Node<V>> {
        self.find(key).ok().map(|at| &self.kids[at])
    }

    pub(super) fn kid_mut(&mut self, key: u8) -> Option<&mut Node<V>> {
        self.find(key).ok().map(|at| &mut self.kids[at])
    }

    pub(super) fn insert_leaf(&mut self, at: usize, key: u8, label: &[u8], value: V) -> &mut V {
        if self.kids.len() == self.kids.capacity() {
            // A vector would double, and half of a large tree would be air.
            self.kids.reserve_exact(1 + self.kids.len() / 4);
        }
        self.keys.insert(at, key);
        self.kids.insert(at, Node::Leaf(Leaf { label: Label::new(label), value }));
        match &mut self.kids[at] {
            Node::Leaf(leaf) => &mut leaf.value,
            Node::Branch(_) => unreachable!("a leaf was just put there"),
        }
    }

    /// Takes a kid out that is known to be a leaf.
    pub(super) fn remove_leaf(&mut self, at: usize) -> V {
        self.keys.remove(at);
        let node = self.kids.remove(at);
        if self.kids.capacity() > 4 + 2 * self.kids.len() {
            self.kids.shrink_to_fit();
        }
        match node {
            Node::Leaf(leaf) => leaf.value,
            Node::Branch(_) => unreachable!("the caller saw a leaf"),
        }
    }

    /// Whether it has only one way on, so that it should be merged away.
    pub(super) fn is_needless(&self) -> bool {
        self.kids.len() + usize::from(self.end.is_some()) < 2
    }
}
