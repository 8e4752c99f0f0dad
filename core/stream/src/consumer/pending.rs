//! Deliveries that wait for an acknowledgement, by stream sequence.
//!
//! First deliveries come in ascending order and most acknowledgements hit near the front, so this is a queue with
//! holes: finding is a binary search, the front is always a live entry, and holes are squeezed out when they prevail.

use std::collections::VecDeque;

use hw_kit::{Seq, Time};

/// One unacknowledged message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The consumer sequence of its first delivery.
    pub consumer_seq: u64,
    /// When it was delivered last.
    pub ts: Time,
    /// How often it was delivered; 0 is a hole.
    pub count: u32,
}

/// All unacknowledged messages of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    entries: VecDeque<(Seq, Delivery)>,
    live: usize,
    redelivered: usize,
}

impl Pending {
    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many of them were delivered more than once.
    pub fn redelivered(&self) -> usize {
        self.redelivered
    }

    /// The lowest one.
    pub fn first(&self) -> Option<(Seq, Delivery)> {
        self.entries.front().copied()
    }

    /// The highest one.
    pub fn last(&self) -> Option<Seq> {
        self.entries.iter().rev().find(|(_, delivery)| delivery.count > 0).map(|(seq, _)| *seq)
    }

    /// One of them.
    pub fn get(&self, seq: Seq) -> Option<&Delivery> {
        let at = self.find(seq).ok()?;
        Some(&self.entries[at].1).filter(|delivery| delivery.count > 0)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, &Delivery)> + '_ {
        self.entries.iter().filter(|(_, delivery)| delivery.count > 0).map(|(seq, delivery)| (*seq, delivery))
    }

    /// Adds a message that is delivered for the first time, or replaces it.
    pub fn insert(&mut self, seq: Seq, delivery: Delivery) {
        debug_assert!(delivery.count > 0, "a delivery was delivered");
        self.redelivered += usize::from(delivery.count > 1);
        self.live += 1;
        if self.entries.back().is_none_or(|(last, _)| *last < seq) {
            self.entries.push_back((seq, delivery));
            return;
        }
        match self.find(seq) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.entries[at].1, delivery);
                self.live -= usize::from(old.count > 0);
                self.redelivered -= usize::from(old.count > 1);
            }
            Err(at) => self.entries.insert(at, (seq, delivery)),
        }
    }

    /// Counts another delivery of a message; false if it does not wait.
    pub fn redeliver(&mut self, seq: Seq, ts: Time) -> bool {
        let Ok(at) = self.find(seq) else { return false };
        let delivery = &mut self.entries[at].1;
        if delivery.count == 0 {
            return false;
        }
        delivery.ts = ts;
        delivery.count = delivery.count.saturating_add(1);
        self.redelivered += usize::from(delivery.count == 2);
        true
    }

    /// Takes a message out.
    pub fn remove(&mut self, seq: Seq) -> Option<Delivery> {
        let at = self.find(seq).ok()?;
        let delivery = self.entries[at].1;
        if delivery.count == 0 {
            return None;
        }
        self.entries[at].1.count = 0;
        self.live -= 1;
        self.redelivered -= usize::from(delivery.count > 1);
        while self.entries.front().is_some_and(|(_, delivery)| delivery.count == 0) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + 64 {
            self.entries.retain(|(_, delivery)| delivery.count > 0);
        }
        if self.live == 0 && self.entries.capacity() > 1024 {
            self.entries = VecDeque::new();
        }
        Some(delivery)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    fn find(&self, seq: Seq) -> Result<usize, usize> {
        // In-order acknowledgements hit the front.
        if self.entries.front().is_some_and(|(first, _)| *first == seq) {
            return Ok(0);
        }
        self.entries.binary_search_by_key(&seq, |(seq, _)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hw_kit::Rng;

    use super::*;

    #[test]
    fn it_is_a_map() {
        let (mut rng, mut pending, mut model) = (Rng::new(3), Pending::default(), BTreeMap::new());
        let mut next = 1;
        for step in 0..20_000u64 {
            let seq = Seq(next - rng.below(next.min(300)));
            match rng.below(5) {
                0 | 1 => {
                    let delivery = Delivery { consumer_seq: step, ts: Time(step as i64), count: 1 };
                    pending.insert(Seq(next), delivery);
                    model.insert(Seq(next), delivery);
                    next += 1 + rng.below(3);
                }
                2 => {
                    let found = model.get_mut(&seq).map(|d: &mut Delivery| (d.count += 1, d.ts = Time(-1)));
                    assert_eq!(pending.redeliver(seq, Time(-1)), found.is_some());
                }
                3 => assert_eq!(pending.remove(seq), model.remove(&seq)),
                _ => {
                    let first = model.first_key_value().map(|(seq, _)| *seq);
                    if let Some(first) = first {
                        assert_eq!(pending.remove(first), model.remove(&first));
                    }
                }
            }
            assert_eq!(pending.get(seq), model.get(&seq));
            assert_eq!(pending.len(), model.len());
            assert_eq!(pending.first(), model.first_key_value().map(|(seq, d)| (*seq, *d)));
            assert_eq!(pending.redelivered(), model.values().filter(|d| d.count > 1).count());
        }
        assert!(pending.iter().map(|(seq, d)| (seq, *d)).eq(model));
    }
}
