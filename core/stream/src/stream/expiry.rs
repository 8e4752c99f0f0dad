//! Which messages leave at which time for a reason of their own (`Nats-TTL`), and which are not followed by a marker.

use std::collections::{BTreeMap, BTreeSet};

use hw_kit::{Seq, Time};

/// What is special about one message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Special {
    /// When it leaves; `NEVER` also protects from `max_age`; not set when only `max_age` counts.
    pub expires: Time,
    /// It says that something is gone: nothing more is said when it goes, too.
    pub is_marker: bool,
}

#[derive(Debug, Default)]
pub(super) struct Expiry {
    special: BTreeMap<Seq, Special>,
    order: BTreeSet<(Time, Seq)>,
}

impl Expiry {
    pub fn insert(&mut self, seq: Seq, special: Special) {
        if special.expires.is_set() && special.expires != Time::NEVER {
            self.order.insert((special.expires, seq));
        }
        self.special.insert(seq, special);
    }

    pub fn get(&self, seq: Seq) -> Option<Special> {
        self.special.get(&seq).copied()
    }

    pub fn remove(&mut self, seq: Seq) {
        if self.special.is_empty() {
            return;
        }
        if let Some(special) = self.special.remove(&seq) {
            self.order.remove(&(special.expires, seq));
        }
    }

    /// Forgets messages that are gone.
    pub fn retain(&mut self, exists: impl Fn(Seq) -> bool) {
        self.special.retain(|seq, _| exists(*seq));
        self.order.retain(|(_, seq)| exists(*seq));
    }

    pub fn clear(&mut self) {
        *self = Expiry::default();
    }

    /// What leaves first.
    pub fn first(&self) -> Option<(Time, Seq)> {
        self.order.first().copied()
    }

    /// Every special message, by sequence.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Seq, Special)> {
        self.special.iter().map(|(seq, special)| (*seq, *special))
    }
}
