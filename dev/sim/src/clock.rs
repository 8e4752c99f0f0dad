//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hw_kit::{Span, Time};

/// When every simulation begins: a Monday in 2026.
pub const START: Time = Time(1_780_300_800_000_000_000);

/// Things that will happen, in order of time; at the same time in the order in which they were planned.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Time,
    planned: u64,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    events: std::collections::BTreeMap<u64, E>,
}

impl<E> Default for Agenda<E> {
    fn default() -> Agenda<E> {
        Agenda { now: START, planned: 0, heap: BinaryHeap::new(), events: std::collections::BTreeMap::new() }
    }
}

impl<E> Agenda<E> {
    /// What time it is.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Plans something; a time that has passed means now.
    pub fn at(&mut self, time: Time, event: E) {
        self.planned += 1;
        self.heap.push(Reverse((time.max(self.now), self.planned)));
        self.events.insert(self.planned, event);
    }

    /// Plans something for later.
    pub fn after(&mut self, span: Span, event: E) {
        self.at(self.now + span, event);
    }

    /// When the next thing happens.
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Goes to the next thing.
    pub fn next(&mut self) -> Option<E> {
        let Reverse((time, id)) = self.heap.pop()?;
        self.now = time;
        self.events.remove(&id)
    }

    /// Lets time pass up to an instant at which nothing was due before.
    pub fn advance(&mut self, to: Time) {
        assert!(self.next_time().is_none_or(|next| next >= to), "nothing is skipped");
        self.now = self.now.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_orders_and_then_the_plan() {
        let mut agenda = Agenda::default();
        agenda.after(Span(5), 'c');
        agenda.after(Span(1), 'a');
        agenda.after(Span(5), 'd');
        agenda.after(Span(1), 'b');
        agenda.at(Time(0), 'z');
        let order: Vec<char> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(order, ['z', 'a', 'b', 'c', 'd']);
        assert_eq!(agenda.now(), START + Span(5));
    }
}
