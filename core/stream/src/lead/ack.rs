//! What clients say about deliveries.

use bytes::Bytes;
use hw_kit::{Seq, Span};

use super::{Lead, Moment, PumpOut};
use crate::command::{Settlement, Verdict};
use crate::config::AckPolicy;
use crate::outcome::{Advisory, Effect};

/// A message on an acknowledgement subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// The stream sequence in the subject.
    pub seq: Seq,
    /// The consumer sequence in the subject.
    pub consumer_seq: u64,
    /// The delivery count in the subject.
    pub deliveries: u64,
    /// The payload.
    pub kind: AckKind,
}

/// The payload of an acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub enum AckKind {
    /// Done.
    Ack,
    /// Done, and send more: hand the rest of the payload to [`Lead::handle_pull`] as well.
    Next,
    /// Not done: deliver it again, now or after a delay.
    Nak(Span),
    /// Still working on it.
    Progress,
    /// Never deliver it again.
    Term(Bytes),
}

impl Lead {
    /// Takes an acknowledgement. What it gives is to be proposed, several together if they come together; a double
    /// ack is answered when that is applied, or at once when there is nothing to propose.
    pub fn handle_ack(&mut self, m: &Moment<'_>, ack: Ack, out: &mut PumpOut) -> Option<Settlement> {
        self.sync(m, out);
        self.active_at = m.now;
        if !m.consumer.wants_acks()
            || m.consumer.acks_by_flow()
            || ack.consumer_seq > m.consumer.delivered().consumer_seq
        {
            return None;
        }
        let settlement = |verdict| Some(Settlement { seq: ack.seq, consumer_seq: ack.consumer_seq, verdict });
        match ack.kind {
            AckKind::Ack | AckKind::Next => {
                let settles = match m.consumer.config().ack_policy {
                    AckPolicy::All => m.consumer.pending().first().is_some_and(|(first, _)| first <= ack.seq),
                    _ => m.consumer.pending().get(ack.seq).is_some(),
                };
                if settles || m.consumer.is_exhausted(ack.seq) { settlement(Verdict::Ack) } else { None }
            }
            AckKind::Term(reason) => {
                m.consumer.pending().get(ack.seq)?;
                settlement(Verdict::Term(reason))
            }
            AckKind::Progress => {
                let count = m.consumer.pending().get(ack.seq)?.count;
                if !self.queued.contains(&ack.seq) {
                    self.due.shift(m.now + m.consumer.ack_wait(count), ack.seq);
                }
                self.refresh_deadline(m);
                None
            }
            AckKind::Nak(delay) => {
                self.handle_nak(m, (ack.seq, ack.consumer_seq), delay, out);
                self.refresh_deadline(m);
                None
            }
        }
    }

    fn handle_nak(&mut self, m: &Moment<'_>, at: (Seq, u64), delay: Span, out: &mut PumpOut) {
        let (stream_seq, consumer_seq) = at;
        let Some(delivery) = m.consumer.pending().get(stream_seq) else { return };
        out.effects.push(Effect::Advise(Advisory::MessageNaked {
            consumer: m.consumer.name().clone(),
            stream_seq,
            consumer_seq,
            deliveries: u64::from(delivery.count),
        }));
        if self.queued.contains(&stream_seq) {
            return;
        }
        match delay > Span::ZERO {
            true => self.due.shift(m.now + delay, stream_seq),
            false => self.repeat(m, stream_seq, out),
        }
    }

    /// A delivery's time is up: it is queued again, or given up when it was the last one.
    pub(super) fn repeat(&mut self, m: &Moment<'_>, seq: Seq, out: &mut PumpOut) {
        let Some(delivery) = m.consumer.pending().get(seq) else { return };
        if !self.queued.insert(seq) {
            return;
        }
        if m.consumer.is_out_of_deliveries(delivery.count) {
            self.give_up(m, seq, out);
        } else {
            self.redeliver.push_back(seq);
        }
    }

    /// Proposes that a message is out of deliveries.
    pub(super) fn give_up(&mut self, m: &Moment<'_>, seq: Seq, out: &mut PumpOut) {
        let consumer_seq = m.consumer.pending().get(seq).map_or(0, |delivery| delivery.consumer_seq);
        let settlement = Settlement { seq, consumer_seq, verdict: Verdict::Exhausted };
        super::pump::propose_settled(m, settlement, out);
    }
}
