//! When unacknowledged deliveries are to be repeated.
//!
//! Deadlines mostly come in order, so they queue up; those that do not (backoff, delayed naks, extensions) go to a
//! heap. An entry that no longer holds is dropped when it comes up: the truth is the consumer's pending map.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use hw_kit::{Seq, Time};

use crate::consumer::Consumer;

#[derive(Debug, Default)]
pub(super) struct Due {
    queue: VecDeque<(Time, Seq)>,
    heap: BinaryHeap<Reverse<(Time, Seq)>>,
    /// Deliveries whose deadline was moved: by a client that is still working on it, or wants it later.
    moved: BTreeMap<Seq, Time>,
}

impl Due {
    /// Everything that waits, read from the replicated state.
    pub fn rebuild(consumer: &Consumer) -> Due {
        let mut all: Vec<(Time, Seq)> =
            consumer.pending().iter().map(|(seq, d)| (consumer.repeats_at(d), seq)).collect();
        all.sort_unstable();
        Due { queue: all.into(), ..Due::default() }
    }

    /// The same after the consumer changed; deadlines that clients moved stay.
    pub fn rebuild_with(&mut self, consumer: &Consumer) {
        let mut moved = std::mem::take(&mut self.moved);
        moved.retain(|seq, _| consumer.pending().get(*seq).is_some());
        *self = Due::rebuild(consumer);
        for (seq, at) in moved {
            self.shift(at, seq);
        }
    }

    /// A delivery went out.
    pub fn push(&mut self, at: Time, seq: Seq) {
        self.moved.remove(&seq);
        self.insert(at, seq);
    }

    /// A delivery gets another deadline.
    pub fn shift(&mut self, at: Time, seq: Seq) {
        self.moved.insert(seq, at);
        self.insert(at, seq);
    }

    fn insert(&mut self, at: Time, seq: Seq) {
        match self.queue.back().is_none_or(|(last, _)| *last <= at) {
            true => self.queue.push_back((at, seq)),
            false => self.heap.push(Reverse((at, seq))),
        }
    }

    /// Deliveries were settled: forgets what prevails of them.
    pub fn trim(&mut self, consumer: &Consumer) {
        while let Some(&(at, seq)) = self.queue.front() {
            if self.holds(consumer, at, seq) {
                break;
            }
            self.queue.pop_front();
        }
        while let Some(&Reverse((at, seq))) = self.heap.peek() {
            if self.holds(consumer, at, seq) {
                break;
            }
            self.heap.pop();
        }
        let live = consumer.pending().len();
        if self.queue.len() > 2 * live + 64 {
            let mut queue = std::mem::take(&mut self.queue);
            queue.retain(|&(at, seq)| self.holds(consumer, at, seq));
            self.queue = queue;
        }
        if self.heap.len() > 2 * live + 64 {
            let mut heap = std::mem::take(&mut self.heap);
            heap.retain(|&Reverse((at, seq))| self.holds(consumer, at, seq));
            self.heap = heap;
        }
        if live == 0 && self.queue.capacity() > 64 {
            *self = Due::default();
        }
        if self.moved.len() > 2 * live + 64 {
            self.moved.retain(|seq, _| consumer.pending().get(*seq).is_some());
        }
    }

    fn holds(&self, consumer: &Consumer, at: Time, seq: Seq) -> bool {
        let Some(delivery) = consumer.pending().get(seq) else { return false };
        let deadline = self.moved.get(&seq).copied().unwrap_or(consumer.repeats_at(delivery));
        at == deadline
    }

    /// The next delivery whose deadline has passed.
    pub fn pop(&mut self, now: Time, consumer: &Consumer) -> Option<Seq> {
        loop {
            let queued = self.queue.front().copied();
            let heaped = self.heap.peek().map(|Reverse(entry)| *entry);
            let (at, seq) = match (queued, heaped) {
                (Some(a), Some(b)) => a.min(b),
                (a, b) => a.or(b)?,
            };
            if at > now {
                return None;
            }
            match queued == Some((at, seq)) {
                true => drop(self.queue.pop_front()),
                false => drop(self.heap.pop()),
            }
            if self.holds(consumer, at, seq) {
                self.moved.remove(&seq);
                return Some(seq);
            }
        }
    }

    /// The first deadline; it may turn out to hold no longer.
    pub fn next(&self) -> Time {
        let queued = self.queue.front().map_or(Time::NEVER, |(at, _)| *at);
        let heaped = self.heap.peek().map_or(Time::NEVER, |Reverse((at, _))| *at);
        queued.min(heaped)
    }
}
