//! The duplicate window: message ids that were seen lately, and the sequences that they got.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{Map, Seq, Span, Time};

/// Ids that are remembered at most: what does not fit is refused, because forgetting one would store a message twice.
const MAX_IDS: usize = 1 << 23;

#[derive(Debug, Default)]
pub(super) struct Dedupe {
    seqs: Map<Bytes, Seq>,
    /// In order of time; an id that was entered again after its time has a later entry, too.
    order: VecDeque<(Time, Bytes)>,
}

impl Dedupe {
    /// The sequence of a message with this id within the window.
    pub fn find(&self, id: &[u8]) -> Option<Seq> {
        self.seqs.get(id).copied()
    }

    /// Forgets what has left the window at `now`.
    pub fn expire(&mut self, now: Time, window: Span) {
        while let Some((ts, id)) = self.order.front()
            && now.since(*ts) >= window
        {
            self.seqs.remove(id);
            self.order.pop_front();
        }
    }

    pub fn is_full(&self) -> bool {
        self.order.len() >= MAX_IDS
    }

    /// Remembers an id that [`Dedupe::find`] does not know.
    pub fn insert(&mut self, ts: Time, id: &[u8], seq: Seq) {
        // A buffer of its own: the id must not keep the log's frame in memory.
        let id = Bytes::copy_from_slice(id);
        self.seqs.insert(id.clone(), seq);
        self.order.push_back((ts, id));
    }

    pub fn clear(&mut self) {
        *self = Dedupe::default();
    }

    /// Every remembered id, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Time, &Bytes, Seq)> {
        self.order.iter().map(|(ts, id)| (*ts, id, self.seqs.get(id).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_after_the_window() {
        let mut dedupe = Dedupe::default();
        dedupe.insert(Time(10), b"a", Seq(1));
        dedupe.insert(Time(20), b"b", Seq(2));
        dedupe.expire(Time(19), Span(10));
        assert_eq!(dedupe.find(b"a"), Some(Seq(1)));
        dedupe.expire(Time(20), Span(10));
        assert_eq!((dedupe.find(b"a"), dedupe.find(b"b")), (None, Some(Seq(2))));
        dedupe.insert(Time(25), b"a", Seq(3));
        dedupe.expire(Time(30), Span(10));
        assert_eq!((dedupe.find(b"a"), dedupe.find(b"b")), (Some(Seq(3)), None));
    }
}
