//! How applied commands and removed messages change a consumer: deterministic, the same on every replica.

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::Messages;

use super::{Consumer, Delivery, Position, with_matcher};
use crate::command::{Settlement, Verdict};
use crate::config::{AckPolicy, DeliverPolicy, Retention};
use crate::outcome::{Advisory, ConsumerError, Effect};

/// What a change to a consumer means for others.
#[derive(Debug, Default)]
pub struct Applied {
    /// Messages that this consumer does not need any more: acknowledged, terminated, or delivered without acks.
    pub done: Vec<Seq>,
    /// For the leader to perform.
    pub effects: Vec<Effect>,
}

const DELETED: Bytes = Bytes::from_static(b"Unacknowledged message was deleted");

impl Consumer {
    /// Messages were handed out: new ones in ascending order, and repetitions.
    ///
    /// New ones that do not follow what is delivered (an earlier proposal was lost, or a reset or new filters came
    /// before this one) are ignored with all after them: nothing is ever skipped.
    pub fn apply_delivered(&mut self, ts: Time, seqs: &[Seq], messages: &Messages, applied: &mut Applied) {
        self.count_new(messages);
        let mut follows = false;
        for &seq in seqs {
            if seq > self.delivered.stream_seq {
                // One proposal was chosen as a whole: where nothing shifted, the first vouches for the others.
                follows = (follows && !self.shifted) || self.is_next(seq, messages);
                if !follows {
                    break;
                }
                self.deliver_new(ts, seq, messages, applied);
            } else if self.pending.redeliver(seq, ts) {
                self.delivered.consumer_seq += 1;
                self.delivered.last_active = ts;
            }
            // Anything else was settled or removed after it was chosen.
        }
        if !self.wants_acks() {
            self.ack_floor = Position { last_active: self.ack_floor.last_active, ..self.delivered };
        }
    }

    /// Whether this is the next undelivered message, or was before it was removed.
    fn is_next(&mut self, seq: Seq, messages: &Messages) -> bool {
        let from = self.delivered.stream_seq.next();
        let lasts = self.lasts.as_deref();
        let next = with_matcher(&mut self.matcher, messages, |m| super::next_of(lasts, from, messages, m));
        next == Some(seq) || (next.is_none_or(|next| next > seq) && !messages.contains(seq))
    }

    fn deliver_new(&mut self, ts: Time, seq: Seq, messages: &Messages, applied: &mut Applied) {
        self.delivered.stream_seq = seq;
        if self.logged.is_none() {
            self.drop_lasts(seq);
        }
        if !messages.contains(seq) {
            // Removed after it was chosen; its removal was counted then.
            self.settle_floor(None);
            return;
        }
        self.counted = self.counted.saturating_sub(1);
        self.delivered.consumer_seq += 1;
        self.delivered.last_active = ts;
        match self.wants_acks() {
            true => {
                let consumer_seq = self.delivered.consumer_seq;
                self.pending.insert(seq, Delivery { consumer_seq, ts, count: 1 });
            }
            false => applied.done.push(seq),
        }
    }

    /// What is left of the past is behind a sequence.
    pub(super) fn drop_lasts(&mut self, seq: Seq) {
        let Some(lasts) = &mut self.lasts else { return };
        while lasts.seqs.front().is_some_and(|first| *first <= seq) {
            lasts.seqs.pop_front();
        }
        if lasts.seqs.is_empty() && seq.next() >= lasts.resume {
            self.lasts = None;
        }
    }

    /// Deliveries were acknowledged, terminated or given up.
    pub fn apply_settled(&mut self, ts: Time, acks: &[Settlement], applied: &mut Applied) {
        for ack in acks {
            match (&ack.verdict, self.config.ack_policy) {
                (_, AckPolicy::None) => {}
                (Verdict::Ack, AckPolicy::All | AckPolicy::FlowControl) => {
                    self.settle_up_to(ts, ack, applied)
                }
                _ => self.settle_one(ts, ack, applied),
            }
        }
    }

    fn settle_up_to(&mut self, ts: Time, ack: &Settlement, applied: &mut Applied) {
        let up_to = ack.seq.min(self.delivered.stream_seq);
        while let Some((seq, delivery)) = self.pending.first().filter(|(seq, _)| *seq <= up_to) {
            self.pending.remove(seq);
            applied.done.push(seq);
            // Answers to flow control are not sampled: nobody waited for this message in particular.
            if seq == ack.seq && self.config.ack_policy == AckPolicy::All {
                self.sample(ts, (seq, ack.consumer_seq), delivery, applied);
            }
        }
        while let Some(seq) = self.exhausted.first().copied().filter(|seq| *seq <= up_to) {
            self.exhausted.remove(&seq);
            applied.done.push(seq);
        }
        self.settle_floor(Some(ts));
    }

    fn settle_one(&mut self, ts: Time, ack: &Settlement, applied: &mut Applied) {
        let Some(delivery) = self.pending.remove(ack.seq) else {
            // Too late to count, but the message itself may go now.
            if ack.verdict != Verdict::Exhausted && self.exhausted.remove(&ack.seq) {
                applied.done.push(ack.seq);
            }
            return;
        };
        let (consumer, stream_seq, deliveries) = (self.name.clone(), ack.seq, u64::from(delivery.count));
        match &ack.verdict {
            Verdict::Ack => {
                applied.done.push(ack.seq);
                self.sample(ts, (ack.seq, ack.consumer_seq), delivery, applied);
            }
            Verdict::Term(reason) => {
                applied.done.push(ack.seq);
                let (consumer_seq, reason) = (ack.consumer_seq, reason.clone());
                applied.effects.push(Effect::Advise(Advisory::MessageTerminated {
                    consumer,
                    stream_seq,
                    consumer_seq,
                    deliveries,
                    reason,
                }));
            }
            Verdict::Exhausted => {
                if self.retention != Retention::Limits {
                    self.exhausted.insert(ack.seq);
                }
                applied.effects.push(Effect::Advise(Advisory::MaxDeliveries {
                    consumer,
                    stream_seq,
                    deliveries,
                }));
            }
        }
        self.settle_floor(Some(ts));
    }

    /// Everything below the lowest waiting message is settled. Its consumer sequence decides whether that is progress.
    fn settle_floor(&mut self, ts: Option<Time>) {
        let reached = match self.pending.first() {
            Some((seq, delivery)) => (delivery.consumer_seq - 1, seq.prev()),
            None => (self.delivered.consumer_seq, self.delivered.stream_seq),
        };
        if reached.0 > self.ack_floor.consumer_seq || self.pending.is_empty() {
            self.ack_floor.consumer_seq = reached.0.max(self.ack_floor.consumer_seq);
            self.ack_floor.stream_seq = reached.1.max(self.ack_floor.stream_seq);
        }
        if let Some(ts) = ts {
            self.ack_floor.last_active = ts;
        }
    }

    /// The share that `sample_freq` asks for is chosen by the sequence, so that replicas need no dice.
    fn sample(&self, ts: Time, at: (Seq, u64), delivery: Delivery, applied: &mut Applied) {
        let percent = super::check::sample_percent(&self.config.sample_freq).unwrap_or(0);
        let (stream_seq, consumer_seq) = at;
        if stream_seq.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 >= (1 << 32) * percent.min(100) / 100 {
            return;
        }
        applied.effects.push(Effect::Advise(Advisory::AckSample {
            consumer: self.name.clone(),
            stream_seq,
            consumer_seq,
            ack_time: ts.since(delivery.ts),
            deliveries: u64::from(delivery.count),
        }));
    }

    /// Pauses until an instant, or resumes with `Time(0)`.
    pub fn apply_pause(&mut self, ts: Time, until: Time, applied: &mut Applied) -> Time {
        self.config.pause_until = until.is_set().then_some(until);
        self.revision += 1;
        let consumer = self.name.clone();
        let until = if until > ts { until } else { Time(0) };
        applied.effects.push(Effect::Advise(Advisory::ConsumerPaused { consumer, until }));
        until
    }

    /// Starts over at a sequence, or after the ack floor with `Seq(0)`; gives the sequence that comes first.
    pub fn apply_reset(&mut self, seq: Seq, messages: &Messages) -> Result<Seq, ConsumerError> {
        self.fall_back();
        self.check_reset(seq, messages)?;
        let before = if seq.0 == 0 { self.ack_floor.stream_seq } else { seq.prev() };
        let position = Position { consumer_seq: 0, stream_seq: before, last_active: Time(0) };
        (self.delivered, self.ack_floor) = (position, position);
        self.pending.clear();
        self.exhausted.clear();
        if self.config.deliver_policy == DeliverPolicy::LastPerSubject {
            // The lasts that are acknowledged are not repeated; the others are what a new consumer would get now.
            let (from, last) = (before.next(), messages.last_seq());
            let mut matcher = self.matcher(messages);
            let seqs = messages.last_per_subject(&mut matcher, from, last).into();
            self.lasts = Some(Box::new(super::Lasts { seqs, resume: last.next() }));
        }
        self.revision += 1;
        self.shifted = true;
        self.recount(messages);
        Ok(before.next())
    }

    fn check_reset(&self, seq: Seq, messages: &Messages) -> Result<(), ConsumerError> {
        if seq.0 == 0 {
            return Ok(());
        }
        let refused =
            |why: &str| Err(ConsumerError::Rule { err_code: 10204, text: format!("invalid reset: {why}") });
        match self.config.deliver_policy {
            DeliverPolicy::All => Ok(()),
            DeliverPolicy::ByStartSequence if seq.0 < self.config.opt_start_seq => refused("below start seq"),
            DeliverPolicy::ByStartSequence => Ok(()),
            DeliverPolicy::ByStartTime => {
                match seq < messages.seq_at(self.config.opt_start_time.unwrap_or_default()) {
                    true => refused("below start time"),
                    false => Ok(()),
                }
            }
            _ => refused("not allowed"),
        }
    }

    /// A message left the stream for another reason than this consumer's acknowledgement.
    pub fn message_removed(&mut self, seq: Seq, subject: &[u8], applied: &mut Applied) {
        let was_left = self.lasts.as_mut().filter(|lasts| seq < lasts.resume).map(|lasts| {
            let at = lasts.seqs.binary_search(&seq).ok();
            at.and_then(|at| lasts.seqs.remove(at)).is_some()
        });
        if seq > self.delivered.stream_seq {
            let counted = match was_left {
                Some(was_left) => was_left,
                None => {
                    let matcher = self.matcher.as_ref();
                    seq <= self.counted_to && matcher.is_none_or(|matcher| matcher.matches(subject))
                }
            };
            self.counted = self.counted.saturating_sub(u64::from(counted));
            return;
        }
        self.exhausted.remove(&seq);
        self.drop_pending(seq, applied);
        self.settle_floor(None);
    }

    fn drop_pending(&mut self, seq: Seq, applied: &mut Applied) {
        let Some(delivery) = self.pending.remove(seq) else { return };
        applied.effects.push(Effect::Advise(Advisory::MessageTerminated {
            consumer: self.name.clone(),
            stream_seq: seq,
            consumer_seq: delivery.consumer_seq,
            deliveries: u64::from(delivery.count),
            reason: DELETED,
        }));
    }

    /// Many messages left the stream at once (a purge): call it after they are gone.
    pub fn messages_purged(&mut self, messages: &Messages) {
        let gone: Vec<Seq> =
            self.pending.iter().map(|(seq, _)| seq).filter(|seq| !messages.contains(*seq)).collect();
        for seq in gone {
            self.pending.remove(seq);
        }
        self.exhausted.retain(|seq| messages.contains(*seq));
        if let Some(lasts) = &mut self.lasts {
            lasts.seqs.retain(|seq| messages.contains(*seq));
        }
        // Nothing is left below the first message: neither to deliver nor to acknowledge.
        self.delivered.stream_seq = self.delivered.stream_seq.max(messages.first_seq().prev());
        if let Some(logged) = &mut self.logged {
            logged.stream_seq = logged.stream_seq.max(messages.first_seq().prev());
        }
        self.settle_floor(None);
        self.recount(messages);
    }
}
