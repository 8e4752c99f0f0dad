//! Everything that happens because time has passed.

use hw_kit::{Span, Time};

use super::requests::Ending;
use super::{Lead, Moment, PumpOut, status};
use crate::command::Command;
use crate::outcome::Effect;

impl Lead {
    /// Does what is due, and pumps.
    pub fn handle_timeout(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        self.sync(m, out);
        while let Some(seq) = self.due.pop(m.now, m.consumer) {
            self.repeat(m, seq, out);
        }
        self.expire_pins(m, out);
        self.tick_requests(m, out);
        self.beat_push(m, out);
        self.check_activity(m, out);
        self.pump(m, out);
    }

    /// Expiry and heartbeats of waiting requests.
    fn tick_requests(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        if self.requests.next_deadline() > m.now {
            return;
        }
        let mut beat = None;
        for place in self.requests.places() {
            let Some(waiting) = self.requests.get_mut(place) else { continue };
            if waiting.expires.is_set() && waiting.expires <= m.now {
                if (m.interest)(&waiting.reply, b"") {
                    self.active_at = m.now;
                }
                self.end(place, Ending::Timeout, out);
            } else if !waiting.heartbeat.is_zero() && waiting.beat_at <= m.now {
                if !(m.interest)(&waiting.reply, b"") {
                    self.end(place, Ending::Silent, out);
                    continue;
                }
                waiting.beat_at = m.now + waiting.heartbeat;
                let header = beat
                    .get_or_insert_with(|| status::heartbeat(m.consumer.delivered(), &bytes::Bytes::new()));
                out.effects.push(status::send(&waiting.reply, header.clone()));
            }
        }
    }

    /// Proposes to delete the consumer when it was unused for its threshold.
    fn check_activity(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        if self.inactive_at(m) > m.now {
            return;
        }
        self.refresh_interest(m);
        self.end_unheard(m, out);
        if !self.requests.is_empty() {
            self.active_at = m.now;
        }
        if self.inactive_at(m) <= m.now {
            // Should the proposal be lost, the next one follows after another threshold.
            self.active_at = m.now;
            let name = m.consumer.name().clone();
            out.effects.push(Effect::Propose(Command::DeleteConsumer { ts: m.now, name }));
        }
    }

    /// When the consumer counts as unused. Deliveries that may still be acknowledged keep it.
    fn inactive_at(&self, m: &Moment<'_>) -> Time {
        let threshold = m.consumer.config().inactive_threshold;
        if threshold <= Span::ZERO {
            return Time::NEVER;
        }
        let mut since = self.active_at;
        if !m.consumer.pending().is_empty() && !m.consumer.acks_by_flow() {
            let delivered = m.consumer.delivered().last_active + m.consumer.ack_wait(1);
            since = since.max(delivered);
        }
        since + threshold
    }

    pub(super) fn refresh_deadline(&mut self, m: &Moment<'_>) {
        let resume = m.consumer.paused_until().filter(|until| *until > m.now).unwrap_or(Time::NEVER);
        let pins = self.groups.as_ref().map_or(Time::NEVER, |groups| groups.next_deadline());
        self.deadline = [
            self.due.next(),
            self.requests.next_deadline(),
            self.next_beat(),
            self.wake,
            self.inactive_at(m),
            resume,
            pins,
        ]
        .into_iter()
        .min()
        .unwrap_or(Time::NEVER);
    }
}
