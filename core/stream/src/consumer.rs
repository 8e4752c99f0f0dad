//! A consumer's replicated state: what it delivered, what waits for an acknowledgement, what it still needs.
//!
//! It lives inside its stream's state machine and changes only by applied commands and by messages leaving the
//! stream. Everything that a leader may forget (waiting pulls, timers, deliveries in flight) is in [`crate::Lead`].

mod ahead;
mod apply;
mod check;
mod codec;
mod pending;
mod progress;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use hw_kit::{Seq, Span, Time};
use hw_store::Messages;
use hw_store::messages::Matcher;

pub use apply::Applied;
pub(crate) use check::go_duration;
pub use check::{Request, ServerLimits, check, check_group, required_api_level};
pub use pending::{Delivery, Pending};
pub use progress::Progress;
pub use rules::check_siblings;

use crate::config::{AckPolicy, ConsumerConfig, DeliverPolicy, Retention};

/// A place in the consumer's and in the stream's numbering.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Position {
    /// The consumer's own sequence: one for every delivery, also repeated ones.
    pub consumer_seq: u64,
    /// The stream's sequence.
    pub stream_seq: Seq,
    /// When it moved last; not set before it did.
    pub last_active: Time,
}

/// The replicated half of a consumer.
#[derive(Debug)]
pub struct Consumer {
    name: Bytes,
    config: ConsumerConfig,
    created: Time,
    retention: Retention,
    delivered: Position,
    ack_floor: Position,
    /// What the log says was delivered, where deliveries count on this server that are not in it.
    logged: Option<Box<Position>>,
    pending: Pending,
    /// Out of deliveries but still in the stream: a late acknowledgement removes them there. Empty under `limits`.
    exhausted: BTreeSet<Seq>,
    /// What deliver policy last_per_subject still has to deliver of the past.
    lasts: Option<Box<Lasts>>,
    /// None when everything matches: most consumers need none.
    matcher: Option<Box<Matcher>>,
    /// Matching undelivered messages up to `counted_to`.
    counted: u64,
    counted_to: Seq,
    /// Counts configuration changes and resets: a [`crate::Lead`] that sees another number starts over.
    revision: u64,
    /// Whether what comes next ever changed under deliveries in flight (new filters, a reset).
    shifted: bool,
}

/// The last message of each subject at the consumer's creation, and where the consumer goes on afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lasts {
    seqs: VecDeque<Seq>,
    resume: Seq,
}

impl Lasts {
    /// How many there are from a sequence on.
    fn left(&self, from: Seq) -> u64 {
        (self.seqs.len() - self.seqs.partition_point(|seq| *seq < from)) as u64
    }
}

impl Consumer {
    /// A new consumer with a checked configuration, at its starting position.
    pub fn new(name: Bytes, config: ConsumerConfig, retention: Retention, at: (Time, &Messages)) -> Consumer {
        let (ts, messages) = at;
        let matcher = matcher_of(&config, messages);
        let mut consumer = Consumer {
            name,
            config,
            created: ts,
            retention,
            delivered: Position::default(),
            ack_floor: Position::default(),
            logged: None,
            pending: Pending::default(),
            exhausted: BTreeSet::new(),
            lasts: None,
            matcher,
            counted: 0,
            counted_to: Seq(0),
            revision: 0,
            shifted: false,
        };
        let before = consumer.start(messages);
        consumer.delivered.stream_seq = before;
        consumer.ack_floor.stream_seq = before;
        consumer.recount(messages);
        consumer
    }

    /// The last sequence that is not delivered, by the deliver policy.
    fn start(&mut self, messages: &Messages) -> Seq {
        let (first, last) = (messages.first_seq(), messages.last_seq());
        match self.config.deliver_policy {
            DeliverPolicy::All => first.prev(),
            DeliverPolicy::New => last,
            DeliverPolicy::Last => {
                let filters = self.config.filters();
                let found = match filters.is_empty() {
                    true => messages.prev(last),
                    false => filters.iter().filter_map(|filter| messages.last_matching(filter, last)).max(),
                };
                found.map_or(if filters.is_empty() { last } else { first.prev() }, Seq::prev)
            }
            DeliverPolicy::ByStartSequence => Seq(self.config.opt_start_seq).max(first).prev(),
            DeliverPolicy::ByStartTime => {
                messages.seq_at(self.config.opt_start_time.unwrap_or_default()).max(first).prev()
            }
            DeliverPolicy::LastPerSubject => {
                let mut matcher = self.matcher(messages);
                let seqs: VecDeque<Seq> = messages.last_per_subject(&mut matcher, Seq(0), last).into();
                let before = seqs.front().copied().unwrap_or(last).prev();
                self.lasts = Some(Box::new(Lasts { seqs, resume: last.next() }));
                before
            }
        }
    }

    /// Takes over a changed configuration, already checked against this one.
    pub fn update(&mut self, config: ConsumerConfig, messages: &Messages) {
        // What it changes must not depend on what only the leader knows.
        self.fall_back();
        let refiltered = self.config.filters() != config.filters();
        self.config = config;
        self.revision += 1;
        if !refiltered {
            return;
        }
        self.shifted = true;
        self.matcher = matcher_of(&self.config, messages);
        if let Some(lasts) = &mut self.lasts {
            let (from, up_to) = (self.delivered.stream_seq.next(), lasts.resume.prev());
            let mut matcher = messages.matcher(&self.config.filters());
            lasts.seqs = messages.last_per_subject(&mut matcher, from, up_to).into();
        }
        self.recount(messages);
    }

    /// The stream's retention changed.
    pub fn set_retention(&mut self, retention: Retention) {
        if self.retention != retention {
            // From now on it may be logged, and the stream keep messages for it.
            self.fall_back();
        }
        self.retention = retention;
        if retention == Retention::Limits {
            self.exhausted.clear();
        }
    }

    /// Its name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// Its configuration, complete.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// When it was created.
    pub fn created(&self) -> Time {
        self.created
    }

    /// What was delivered last.
    pub fn delivered(&self) -> Position {
        self.delivered
    }

    /// Everything up to here is settled.
    pub fn ack_floor(&self) -> Position {
        self.ack_floor
    }

    /// What waits for an acknowledgement.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Counts configuration changes and resets.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Until when it is paused; in the past or none if it runs.
    pub fn paused_until(&self) -> Option<Time> {
        self.config.pause_until
    }

    /// Whether deliveries have to be acknowledged.
    pub fn wants_acks(&self) -> bool {
        self.config.ack_policy != AckPolicy::None
    }

    /// Whether its progress goes through the log. Ordered consumers and their like start anew with their client, so
    /// theirs does not, unless the stream keeps messages on their behalf.
    pub fn is_logged(&self) -> bool {
        self.wants_acks()
            || self.retention != Retention::Limits
            || (self.config.is_durable() && !self.config.mem_storage)
    }

    /// Whether flow control answers acknowledge: then deliveries have no deadline, a client asks for a reset instead.
    pub fn acks_by_flow(&self) -> bool {
        self.config.ack_policy == AckPolicy::FlowControl
    }

    /// When a delivery that is not acknowledged comes again.
    pub fn repeats_at(&self, delivery: &Delivery) -> Time {
        match self.acks_by_flow() {
            true => Time::NEVER,
            false => delivery.ts + self.ack_wait(delivery.count),
        }
    }

    /// How long the acknowledgement of a `count`th delivery may take.
    pub fn ack_wait(&self, count: u32) -> Span {
        let backoff = &self.config.backoff;
        match backoff.len() {
            0 => self.config.ack_wait,
            steps => backoff[(count.max(1) as usize - 1).min(steps - 1)],
        }
    }

    /// Whether a message with so many deliveries is not delivered again.
    pub fn is_out_of_deliveries(&self, count: u32) -> bool {
        self.config.max_deliver > 0 && i64::from(count) >= self.config.max_deliver
    }

    /// Whether messages of a subject are among those that it delivers.
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.matcher.as_ref().is_none_or(|matcher| matcher.matches(subject))
    }

    /// Whether a message must be kept on this consumer's behalf (retention `interest` and `workqueue`).
    pub fn needs(&self, seq: Seq, subject: &[u8]) -> bool {
        if seq > self.delivered.stream_seq {
            return self.matches(subject);
        }
        self.wants_acks() && (self.pending.get(seq).is_some() || self.exhausted.contains(&seq))
    }

    /// The first undelivered message at or after `from`; `matcher` is one for this consumer's filters.
    pub fn next_undelivered(&self, from: Seq, messages: &Messages, matcher: &mut Matcher) -> Option<Seq> {
        let from = from.max(self.delivered.stream_seq.next());
        next_of(self.lasts.as_deref(), from, messages, matcher)
    }

    /// The same, as far as it costs little to find: see [`Messages::next_match_near`].
    pub fn next_undelivered_near(
        &self,
        from: Seq,
        messages: &Messages,
        matcher: &mut Matcher,
    ) -> Option<Seq> {
        match &self.lasts {
            Some(_) => self.next_undelivered(from, messages, matcher),
            None => messages.next_match_near(from.max(self.delivered.stream_seq.next()), matcher),
        }
    }

    /// How many matching messages are not delivered yet; `matcher` is one for this consumer's filters.
    pub fn num_pending(&self, messages: &Messages, matcher: &mut Matcher) -> u64 {
        let from = self.counted_to.max(self.delivered.stream_seq).next();
        match self.counted_to < messages.last_seq() {
            true => self.counted + messages.count_from(from, matcher),
            false => self.counted,
        }
    }

    /// Whether a message ran out of deliveries and is kept for a late acknowledgement.
    pub fn is_exhausted(&self, seq: Seq) -> bool {
        self.exhausted.contains(&seq)
    }

    /// `num_pending` as of the last applied delivery.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }

    /// A matcher for this consumer's filters.
    pub fn matcher(&self, messages: &Messages) -> Matcher {
        messages.matcher(&self.config.filters())
    }

    /// Whether messages removed from the stream up to `seq` can matter to it: a cheap test before the exact ones.
    pub fn is_concerned(&self, seq: Seq) -> bool {
        seq > self.ack_floor.stream_seq && seq <= self.counted_to.max(self.delivered.stream_seq)
            || self.exhausted.contains(&seq)
            || self.lasts.as_ref().is_some_and(|lasts| seq < lasts.resume)
    }

    /// As if nothing had been counted yet: whoever asks counts. A start must not depend on what is stored.
    fn count_later(&mut self) {
        let seen = self.delivered.stream_seq;
        (self.counted, self.counted_to) = match &self.lasts {
            None => (0, seen),
            Some(lasts) => (lasts.left(seen.next()), seen.max(lasts.resume.prev())),
        };
    }

    fn recount(&mut self, messages: &Messages) {
        let from = self.delivered.stream_seq.next();
        self.counted_to = messages.last_seq();
        let (left, from) = match &self.lasts {
            None => (0, from),
            Some(lasts) => (lasts.left(from), from.max(lasts.resume)),
        };
        self.counted = left + with_matcher(&mut self.matcher, messages, |m| messages.count_from(from, m));
    }

    fn count_new(&mut self, messages: &Messages) {
        if self.counted_to < messages.last_seq() {
            let from = self.counted_to.max(self.delivered.stream_seq).next();
            self.counted += with_matcher(&mut self.matcher, messages, |m| messages.count_from(from, m));
            self.counted_to = messages.last_seq();
        }
    }
}

fn matcher_of(config: &ConsumerConfig, messages: &Messages) -> Option<Box<Matcher>> {
    let matcher = messages.matcher(&config.filters());
    (!matcher.is_all()).then(|| Box::new(matcher))
}

fn with_matcher<T>(
    matcher: &mut Option<Box<Matcher>>,
    messages: &Messages,
    f: impl FnOnce(&mut Matcher) -> T,
) -> T {
    match matcher {
        Some(matcher) => f(matcher),
        None => f(&mut messages.matcher(&[])),
    }
}

/// The first message at or after `from`: first of what is left of the past, then of what came later.
fn next_of(lasts: Option<&Lasts>, from: Seq, messages: &Messages, matcher: &mut Matcher) -> Option<Seq> {
    let Some(lasts) = lasts else { return messages.next_match(from, matcher) };
    let at = lasts.seqs.partition_point(|seq| *seq < from);
    let left = lasts.seqs.range(at..).copied().find(|seq| messages.contains(*seq));
    left.or_else(|| messages.next_match(from.max(lasts.resume), matcher))
}
