//! How messages leave: limits, age, purge, delete, and consumers that are done with them.

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::Record;
use hw_store::messages::Removed;

use super::check;
use super::expiry::Special;
use super::headers;
use super::publish::Storing;
use super::ttl::format_duration;
use super::{Stream, admit::Rollup};
use crate::config::{Discard, Retention};
use crate::consumer::Applied;
use crate::outcome::{Effect, StreamError};

/// One `Expire` removes at most so many, so that no command takes long; the leader proposes the next one at once.
const EXPIRED_AT_ONCE: usize = 10_000;

impl Stream {
    /// Takes a message out and tells the consumers that it matters to. None where there is none, or where what the store
    /// knows of it cannot be read: then it stays.
    pub(super) fn drop_message(&mut self, seq: Seq, fx: &mut Vec<Effect>) -> Option<Removed> {
        let removed = self.messages.remove(seq)?;
        self.forget(seq);
        let mut applied = Applied::default();
        for consumer in self.consumers.values_mut().filter(|consumer| consumer.is_concerned(seq)) {
            consumer.message_removed(seq, &removed.name, &mut applied);
        }
        fx.append(&mut applied.effects);
        Some(removed)
    }

    /// What is known of a message beside its index entry.
    fn forget(&mut self, seq: Seq) {
        self.expiry.remove(seq);
        if !self.schedules.is_empty() {
            self.schedules.remove(seq);
        }
        if !self.totals.is_empty() {
            self.totals.remove(&seq);
            self.sources.remove(&seq);
        }
    }

    pub(super) fn drop_subject_before(&mut self, subject: &[u8], end: Seq, fx: &mut Vec<Effect>) {
        while let Some(first) = self.messages.first_of(subject).filter(|first| *first < end) {
            if self.drop_message(first, fx).is_none() {
                return;
            }
        }
    }

    pub(super) fn drop_before(&mut self, end: Seq, fx: &mut Vec<Effect>) {
        self.messages.forget_lost_before(end);
        while let Some(first) = self.messages.next(Seq(0)).filter(|first| *first < end) {
            if self.drop_message(first, fx).is_none() {
                return;
            }
        }
    }

    pub(super) fn enforce_per_subject(&mut self, subject: &[u8], fx: &mut Vec<Effect>) {
        let Ok(limit @ 1..) = u64::try_from(self.config.max_msgs_per_subject) else { return };
        while self.messages.count_of(subject) > limit
            && let Some(first) = self.messages.first_of(subject)
            && self.drop_message(first, fx).is_some()
        {}
    }

    /// Discard policy `old`: the first messages go until the limits are met. With `new`, nothing that was accepted goes.
    pub(super) fn enforce_limits(&mut self, fx: &mut Vec<Effect>) {
        if self.config.discard == Discard::New {
            return;
        }
        let limit = |value: i64| if value > 0 { value as u64 } else { u64::MAX };
        let (max_msgs, max_bytes) = (limit(self.config.max_msgs), limit(self.config.max_bytes));
        while self.messages.len() > max_msgs || self.messages.bytes() > max_bytes {
            let Some(first) = self.messages.next(Seq(0)) else { return };
            if self.drop_message(first, fx).is_none() {
                return;
            }
        }
    }

    /// A consumer is done with these.
    pub(super) fn handle_done(&mut self, done: &[Seq], fx: &mut Vec<Effect>) {
        for &seq in done {
            let goes = match self.config.retention {
                Retention::Limits => false,
                Retention::Workqueue => true,
                Retention::Interest => !self.is_needed(seq),
            };
            if goes {
                self.drop_message(seq, fx);
            }
        }
    }

    /// Retention `interest`: takes out what no consumer needs, after one has gone or changed.
    pub(super) fn drop_unneeded(&mut self, fx: &mut Vec<Effect>) {
        if self.config.retention != Retention::Interest {
            return;
        }
        let unneeded: Vec<Seq> = self.messages.seqs().filter(|seq| !self.is_needed(*seq)).collect();
        for seq in unneeded {
            self.drop_message(seq, fx);
        }
    }

    pub(super) fn delete_message(
        &mut self,
        seq: Seq,
        erase: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), StreamError> {
        if self.config.sealed {
            return Err(StreamError::Sealed);
        }
        if self.config.deny_delete {
            return Err(StreamError::DeleteDenied);
        }
        if seq.0 == 0 || seq > self.messages.last_seq() {
            return Err(StreamError::OutOfRange(seq));
        }
        if erase {
            self.messages.mark_for_erasure(seq);
        }
        self.drop_message(seq, fx).map(drop).ok_or(StreamError::SequenceNotFound(seq))
    }

    pub(super) fn purge(&mut self, filter: &Bytes, seq: Seq, keep: u64) -> Result<u64, StreamError> {
        if self.config.sealed {
            return Err(StreamError::Sealed);
        }
        if self.config.deny_purge {
            return Err(StreamError::PurgeDenied);
        }
        let sound = (seq.0 == 0 || keep == 0) && seq.0 <= check::FIRST_SEQ_MAX;
        let (true, Ok(filter)) = (sound, std::str::from_utf8(filter)) else {
            return Err(StreamError::BadRequest);
        };
        let before = self.messages.len();
        if filter.is_empty() && keep == 0 && (seq.0 == 0 || seq > self.messages.last_seq()) {
            self.messages.clear();
            self.expiry.clear();
            self.totals.clear();
            self.sources.clear();
            self.schedules.clear();
            self.messages.advance_to(seq.prev(), self.messages.last_ts());
        } else {
            let filters: &[&str] = if filter.is_empty() { &[] } else { &[filter] };
            let mut matcher = self.messages.matcher(filters);
            let last = self.messages.last_seq();
            let end = if seq.0 == 0 { last.next() } else { seq };
            let mut left = match keep {
                0 => u64::MAX,
                keep => self.messages.count_from(Seq(0), &mut matcher).saturating_sub(keep),
            };
            let mut at = Seq(0);
            while left > 0
                && let Some(found) = self.messages.next_match(at, &mut matcher).filter(|found| *found < end)
            {
                if self.messages.remove(found).is_some() {
                    self.forget(found);
                }
                (at, left) = (found.next(), left - 1);
            }
            if filter.is_empty() {
                self.messages.forget_lost_before(if keep == 0 { end } else { at });
            }
        }
        let purged = before - self.messages.len();
        if purged > 0 {
            self.purge_consumers();
        }
        Ok(purged)
    }

    fn purge_consumers(&mut self) {
        for consumer in self.consumers.values_mut() {
            consumer.messages_purged(&self.messages);
        }
    }

    /// When the next message leaves by age or TTL: the leader proposes `Expire` then.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.messages.has_fault() {
            return None;
        }
        let ttl = self.expiry.first().map(|(expires, _)| expires);
        let age = self
            .oldest_aging()
            .map(|seq| self.messages.time_of(seq).unwrap_or_default() + self.config.max_age);
        [ttl, age].into_iter().flatten().min()
    }

    /// The first message that `max_age` may take.
    fn oldest_aging(&self) -> Option<Seq> {
        if self.config.max_age.0 <= 0 {
            return None;
        }
        let mut at = self.age_checked;
        loop {
            let seq = self.messages.next(at)?;
            if self.expiry.get(seq).is_none_or(|special| special.expires != Time::NEVER) {
                return Some(seq);
            }
            at = seq.next();
        }
    }

    pub(super) fn expire(&mut self, fx: &mut Vec<Effect>) {
        let mut marked = Vec::new();
        for _ in 0..EXPIRED_AT_ONCE {
            let ttl = self.expiry.first().filter(|(expires, _)| *expires <= self.clock).map(|(_, seq)| seq);
            let Some(seq) = ttl.or_else(|| self.aged()) else { break };
            let is_marker = self.expiry.get(seq).is_some_and(|special| special.is_marker);
            let Some(removed) = self.drop_message(seq, fx) else { break };
            if removed.last_of_subject && !is_marker {
                marked.push(removed.name);
            }
        }
        if self.config.subject_delete_marker_ttl.0 > 0 && !self.config.sealed {
            for subject in marked {
                // An earlier marker of this round may have made room by removing nothing of this subject.
                if self.messages.count_of(&subject) == 0 {
                    self.store_marker(&subject, fx);
                }
            }
        }
    }

    fn aged(&mut self) -> Option<Seq> {
        let seq = self.oldest_aging()?;
        self.age_checked = seq;
        let ts = self.messages.time_of(seq)?;
        (ts + self.config.max_age <= self.clock).then_some(seq)
    }

    /// Says that the last message of a subject left by age.
    fn store_marker(&mut self, subject: &[u8], fx: &mut Vec<Effect>) {
        let ttl = self.config.subject_delete_marker_ttl;
        let mut header = Vec::new();
        headers::push(&mut header, "Nats-Marker-Reason", b"MaxAge");
        headers::push(&mut header, "Nats-TTL", format_duration(ttl).as_bytes());
        headers::push(&mut header, "Nats-Rollup", b"sub");
        let Some(record) = Record::join(subject, &header, b"") else { return };
        let special = Some(Special { expires: self.clock + ttl, is_marker: true });
        if self.config.retention == Retention::Interest && !self.is_wanted(subject) {
            return;
        }
        let at = (self.messages.last_seq().next(), self.clock);
        let storing = Storing { record, msg_id: None, rollup: Rollup::None, special, total: None, at };
        self.store(storing, fx);
    }
}
