//! A stream that comes from a backup: its consumers and messages are put where they were. Nobody sees the stream before
//! all of it is here, so effects are dropped.

use bytes::Bytes;
use hw_kit::{Seq, Time};

use super::admit::{Fields, Incoming, Rollup};
use super::dedupe::MsgId;
use super::number::Number;
use super::publish::Storing;
use super::{Position, Stream, check};
use crate::command::{ConsumerAction, Fed, RestoreStep};
use crate::config::ConsumerConfig;
use crate::consumer::{Consumer, Delivery, Progress, Request};
use crate::outcome::{Answer, ConsumerError, ConsumerPut, Feeding, PublishError};

impl Stream {
    pub(super) fn restore(&mut self, step: RestoreStep) -> Answer {
        match step {
            RestoreStep::Begin { first } => Answer::Fed(self.restore_from(first)),
            RestoreStep::Consumer { name, progress, config } => {
                Answer::ConsumerPut(self.restore_consumer(name, progress, &config))
            }
            RestoreStep::Pending { name, deliveries } => Answer::Fed(self.restore_pending(&name, deliveries)),
            RestoreStep::Messages(messages) => Answer::Fed(self.restore_messages(messages)),
            RestoreStep::End { last, last_ts } => Answer::Fed(self.end_restore(last, last_ts)),
        }
    }

    fn restore_from(&mut self, first: Seq) -> Feeding {
        if !self.messages.is_empty() || !self.consumers.is_empty() || first.0 > check::FIRST_SEQ_MAX {
            return Feeding::Stale;
        }
        self.messages.begin_anew(first);
        Feeding::Taken
    }

    fn restore_consumer(
        &mut self,
        name: Bytes,
        progress: Progress,
        config: &Bytes,
    ) -> Result<ConsumerPut, ConsumerError> {
        let config: ConsumerConfig = serde_json::from_slice(config).map_err(|error| ConsumerError::Rule {
            err_code: 10025,
            text: format!("invalid JSON: {error}"),
        })?;
        let request = Request { config: &config, action: ConsumerAction::Create, pedantic: false };
        if self.consumers.contains_key(&name) {
            return Err(ConsumerError::Exists);
        }
        let config = self.check_consumer(&name, request, super::consumers::NO_LIMITS)?;
        let at = (self.clock, &self.messages);
        let consumer = Consumer::restored((name.clone(), config), progress, self.config.retention, at);
        self.consumers.insert(name.clone(), consumer);
        Ok(ConsumerPut { name, created: true })
    }

    fn restore_pending(&mut self, name: &Bytes, deliveries: Vec<(Seq, Delivery)>) -> Feeding {
        let Some(consumer) = self.consumers.get_mut(name) else { return Feeding::Stale };
        consumer.wait_for(deliveries);
        Feeding::Taken
    }

    /// The stream's limits hold for what comes in as for what is published: what is above them leaves.
    fn restore_messages(&mut self, messages: Vec<Fed>) -> Feeding {
        for Fed { seq, ts, record } in messages {
            if seq <= self.messages.last_seq() {
                return Feeding::Stale;
            }
            let message =
                Incoming { subject: record.subject(), header: record.header(), payload: record.payload() };
            let fields = Fields::of(record.header());
            let ttl = match self.admit_restored(&message, &fields) {
                Ok(ttl) => ttl,
                Err(error) => return Feeding::Refused(error),
            };
            let special = self.special(ts, ttl, fields.is_marker());
            if special.is_some_and(|special| special.expires.is_set() && special.expires <= self.clock) {
                self.messages.advance_to(seq, ts);
                continue;
            }
            self.place_source(fields.source);
            let total = self.config.allow_msg_counter.then(|| total_of(record.payload())).flatten();
            let record = record.clone();
            let storing =
                Storing { record, msg_id: None, rollup: Rollup::None, special, total, at: (seq, ts) };
            self.store(storing, &mut Vec::new());
            self.remember_restored(fields.msg_id, (seq, ts));
        }
        Feeding::Taken
    }

    /// A stream with sources goes on after the last copy of each. Whose copy it is can no longer be told: the origin, too,
    /// may have come from a backup.
    fn place_source(&mut self, value: Option<&[u8]>) {
        let Some((key, seq)) = value.and_then(crate::feed::brought_by) else { return };
        if self.config.sources.iter().any(|config| crate::feed::source_key(config) == key) {
            self.positions.insert(key.into(), Position { identity: Bytes::new(), seq });
        }
    }

    /// Publishers that try again what they sent before the backup are still known, within the window.
    fn remember_restored(&mut self, msg_id: Option<MsgId<'_>>, (seq, ts): (Seq, Time)) {
        let Some(id) = msg_id else { return };
        self.last_msg_id = Bytes::copy_from_slice(id.text);
        let window = self.config.duplicate_window;
        if !window.is_zero()
            && self.clock.since(ts) < window
            && !self.dedupe.is_full()
            && self.dedupe.find(id.print, self.clock, window).is_none()
        {
            self.dedupe.insert(ts.min(self.clock), id.print, seq);
        }
    }

    fn end_restore(&mut self, last: Seq, last_ts: Time) -> Feeding {
        if last.0 > check::FIRST_SEQ_MAX {
            return Feeding::Refused(PublishError::WrongLastSequence(last));
        }
        if last > self.messages.last_seq() {
            self.messages.advance_to(last, last_ts);
        }
        let messages = &self.messages;
        self.consumers.values_mut().for_each(|consumer| consumer.end_restore(messages));
        Feeding::Taken
    }
}

/// A counter's total, as its messages hold it.
fn total_of(payload: &[u8]) -> Option<Number> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    Number::parse(value.get("val")?.as_str()?.as_bytes())
}

#[cfg(test)]
mod tests;
