//! Sending: what was chosen goes out when its `Delivered` is applied, in order, to whom it was chosen for.

use std::collections::BTreeSet;

use bytes::Bytes;
use hw_kit::Seq;
use hw_store::Record;

use super::pull::say_ended;
use super::status::AckNumbers;
use super::{Batch, Lead, Moment, Pick, PumpOut};
use crate::consumer::Delivery;
use crate::outcome::Effect;

impl Lead {
    /// A `Delivered` of this consumer was applied just now, by whomever it was proposed.
    pub fn handle_delivered(&mut self, m: &Moment<'_>, seqs: &[Seq], out: &mut PumpOut) {
        self.sync(m, out);
        match self.inflight.pop_front_if(|batch| batch.seqs == seqs) {
            Some(batch) => self.handle_own(m, batch, out),
            // A former leader's: its clients are not ours, the messages come again when their time is up.
            None => {
                self.mark_inflight(m, seqs);
                self.await_acks(m, seqs);
            }
        }
        self.resume(m);
        self.refresh_deadline(m);
    }

    fn handle_own(&mut self, m: &Moment<'_>, batch: Batch, out: &mut PumpOut) {
        self.inflight_all = self.inflight_all.saturating_sub(batch.seqs.len() as u64);
        self.inflight_new = self.inflight_new.saturating_sub(batch.new);
        let delivered = m.consumer.delivered().stream_seq;
        let ignored = batch.seqs.iter().any(|seq| *seq > delivered && m.messages.contains(*seq));
        if m.consumer.wants_acks() {
            self.send_batch(m, batch, out);
            self.ask_at_limit(m, out);
            self.acks.rest();
        }
        // It did not follow what is delivered: what is behind it in flight shows when it is applied.
        self.stalled |= ignored;
    }

    /// Deliveries of a former leader that are chosen here, too: ours is the repetition, and no other is chosen before
    /// it is applied, however late that is.
    fn mark_inflight(&mut self, m: &Moment<'_>, seqs: &[Seq]) {
        if self.inflight.is_empty() {
            return;
        }
        let applied: BTreeSet<Seq> =
            seqs.iter().copied().filter(|seq| m.consumer.pending().get(*seq).is_some()).collect();
        for batch in &mut self.inflight {
            for seq in batch.seqs.iter().filter(|seq| applied.contains(seq)) {
                if self.queued.insert(*seq) {
                    batch.new = batch.new.saturating_sub(1);
                    self.inflight_new = self.inflight_new.saturating_sub(1);
                }
            }
        }
    }

    fn await_acks(&mut self, m: &Moment<'_>, seqs: &[Seq]) {
        for &seq in seqs {
            if let Some(delivery) = m.consumer.pending().get(seq)
                && !self.queued.contains(&seq)
            {
                self.due.push(m.consumer.repeats_at(delivery), seq);
            }
        }
    }

    fn send_batch(&mut self, m: &Moment<'_>, batch: Batch, out: &mut PumpOut) {
        let Batch { seqs, picks, .. } = batch;
        let deliveries: Vec<Option<Delivery>> =
            seqs.iter().map(|seq| m.consumer.pending().get(*seq).copied()).collect();
        let given = deliveries.iter().flatten().count() as u64;
        let new = deliveries.iter().flatten().filter(|delivery| delivery.count == 1).count() as u64;
        let mut consumer_seq = m.consumer.delivered().consumer_seq.saturating_sub(given);
        let mut pending = m.consumer.counted() + new;
        let mut picks = picks.into_iter().peekable();
        out.effects.reserve(seqs.len());
        for (seq, delivery) in seqs.into_iter().zip(deliveries) {
            let pick = picks.next_if(|pick| pick.message.seq == seq);
            self.queued.remove(&seq);
            let Some(delivery) = delivery else {
                if let Some(pick) = pick {
                    self.refund(&pick, out);
                }
                continue;
            };
            consumer_seq += 1;
            pending = pending.saturating_sub(u64::from(delivery.count == 1));
            self.due.push(m.consumer.repeats_at(&delivery), seq);
            if let Some(pick) = pick {
                let (count, ts) = (delivery.count, pick.message.ts);
                self.send(m, pick, AckNumbers { count, seq, consumer_seq, ts, pending }, out);
            }
        }
    }

    /// Sends one message to whom it was chosen for.
    pub(super) fn send(&mut self, m: &Moment<'_>, pick: Pick, numbers: AckNumbers, out: &mut PumpOut) {
        let reply = self.acks.write(numbers);
        let mut record = pick.message.record;
        if m.consumer.config().headers_only {
            record =
                with_header(&record, b"Nats-Msg-Size", record.payload().len().to_string().as_bytes(), b"");
        }
        let Some((place, _)) = pick.place else {
            return self.send_push(m, reply, record, out);
        };
        let Some(waiting) = self.requests.get_mut(place) else { return };
        waiting.beat_at = m.now + waiting.heartbeat;
        let terms = waiting.group.as_deref().filter(|terms| !terms.id.is_empty());
        let pinned = terms.map(|terms| terms.group);
        if let Some(terms) = terms {
            record = with_header(&record, b"Nats-Pin-Id", &terms.id, record.payload());
        }
        let to = waiting.reply.clone();
        out.effects.push(Effect::Deliver { to, group: Bytes::new(), reply, record });
        if let Some(group) = pinned {
            self.extend_pin(m, group);
        }
        if let Some(ended) = self.requests.settle(place) {
            say_ended(&ended, out);
        }
    }

    /// Takes back what was chosen and does not go out.
    pub(super) fn refund(&mut self, pick: &Pick, out: &mut PumpOut) {
        match pick.place {
            Some((place, bytes)) => {
                if let Some(ended) = self.requests.refund(place, bytes) {
                    say_ended(&ended, out);
                }
            }
            None => self.refund_push(pick),
        }
    }
}

/// The record with another header line and the given payload; as it is if it cannot grow.
fn with_header(record: &Record, name: &[u8], value: &[u8], payload: &[u8]) -> Record {
    let old = record.header().strip_suffix(b"\r\n").unwrap_or(b"NATS/1.0\r\n");
    let header = [old, name, b": ", value, b"\r\n\r\n"].concat();
    Record::join(record.subject(), &header, payload).unwrap_or_else(|| record.clone())
}
