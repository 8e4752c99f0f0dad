//! The stream's side of its consumers: who exists, and what their progress means for the messages.

use bytes::Bytes;
use hw_kit::{Seq, Time};

use super::Stream;
use crate::command::{Command, ConsumerAction, Settlement};
use crate::config::ConsumerConfig;
use crate::consumer::{self, Applied, Consumer, Request, ServerLimits};
use crate::outcome::{Advisory, ConsumerError, ConsumerPut, Effect};

/// The server's limits count before a command is proposed; a command that was proposed is not held to them again, for
/// replicas may be configured differently.
pub(super) const NO_LIMITS: ServerLimits = ServerLimits {
    max_ack_pending: 0,
    max_request_batch: 0,
    max_consumers: 0,
    default_max_consumers: 0,
    in_flight: 0,
    clustered: true,
};

impl Stream {
    /// The complete configuration that a request leads to, or why it is refused. [`Stream::apply`] decides the same way,
    /// but without the server's limits.
    pub fn check_consumer(
        &self,
        name: &[u8],
        request: Request<'_>,
        limits: ServerLimits,
    ) -> Result<ConsumerConfig, ConsumerError> {
        let existing = self.consumers.get(name);
        let config = consumer::check(request, &self.config, limits, existing)?;
        let others = self.consumers.values().filter(|other| other.name() != name).map(Consumer::config);
        consumer::check_siblings(&config, &self.config, others)?;
        let counted = self.consumers.values().filter(|consumer| !consumer.config().direct).count();
        let full = |limit: i64| limit > 0 && counted as u64 + limits.in_flight >= limit as u64;
        let own = if self.config.max_consumers > 0 {
            self.config.max_consumers
        } else {
            limits.default_max_consumers
        };
        if existing.is_none() && !config.direct && (full(own) || full(limits.max_consumers)) {
            return Err(ConsumerError::TooMany);
        }
        Ok(config)
    }

    pub(super) fn put_consumer(
        &mut self,
        name: Bytes,
        (action, pedantic): (ConsumerAction, bool),
        config: &Bytes,
        fx: &mut Vec<Effect>,
    ) -> Result<ConsumerPut, ConsumerError> {
        let mut config: ConsumerConfig = serde_json::from_slice(config).map_err(|error| {
            ConsumerError::Rule { err_code: 10025, text: format!("invalid JSON: {error}") }
        })?;
        // A consumer whose name the server drew shows none in its configuration.
        if !(config.name.is_empty() && config.durable.is_empty()) {
            config.name = String::from_utf8_lossy(&name).into_owned();
        }
        let request = Request { config: &config, action, pedantic };
        let config = self.check_consumer(&name, request, NO_LIMITS)?;
        if let Some(existing) = self.consumers.get_mut(&name) {
            if config != *existing.config() {
                existing.update(config, &self.messages);
                self.drop_unneeded(fx);
            }
            return Ok(ConsumerPut { name, created: false });
        }
        let at = (self.clock, &self.messages);
        let consumer = Consumer::new(name.clone(), config, self.config.retention, at);
        self.consumers.insert(name.clone(), consumer);
        fx.push(Effect::Advise(Advisory::ConsumerCreated { consumer: name.clone() }));
        Ok(ConsumerPut { name, created: true })
    }

    pub(super) fn delete_consumer(
        &mut self,
        name: &Bytes,
        fx: &mut Vec<Effect>,
    ) -> Result<(), ConsumerError> {
        self.consumers.remove(name).ok_or(ConsumerError::NotFound)?;
        fx.push(Effect::Advise(Advisory::ConsumerDeleted { consumer: name.clone() }));
        self.drop_unneeded(fx);
        Ok(())
    }

    /// Deliveries of a consumer whose progress is not in the log one by one: they count at once, on this server alone. The
    /// state stays what the log says, until [`Command::Progress`] says how far it has come.
    ///
    /// [`Command::Progress`]: crate::Command::Progress
    pub fn apply_unlogged(&mut self, now: Time, name: &Bytes, seqs: &[Seq], fx: &mut Vec<Effect>) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        let mut applied = Applied::default();
        consumer.run_ahead();
        consumer.apply_delivered(now, seqs, &self.messages, &mut applied);
        fx.append(&mut applied.effects);
    }

    pub(super) fn handle_progress(&mut self, name: &Bytes, revision: u64, to: (Time, u64, Seq)) {
        if let Some(consumer) = self.consumers.get_mut(name) {
            consumer.apply_progress(revision, to);
        }
    }

    /// How far a consumer is ahead of what the log says of it, to be proposed; None if it is not.
    pub fn progress_of(&self, now: Time, name: &Bytes) -> Option<Command> {
        let consumer = self.consumers.get(name).filter(|consumer| consumer.is_ahead())?;
        let at = consumer.delivered();
        Some(Command::Progress {
            ts: now,
            consumer: name.clone(),
            revision: consumer.revision(),
            consumer_seq: at.consumer_seq,
            seq: at.stream_seq,
        })
    }

    /// This server does not lead any more: consumers are where the log says.
    pub fn forget_unlogged(&mut self) {
        self.consumers.values_mut().for_each(Consumer::fall_back);
    }

    pub(super) fn handle_delivered(&mut self, name: &Bytes, seqs: &[Seq], fx: &mut Vec<Effect>) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        let mut applied = Applied::default();
        consumer.apply_delivered(self.clock, seqs, &self.messages, &mut applied);
        self.take(applied, fx);
    }

    pub(super) fn handle_settled(&mut self, name: &Bytes, acks: &[Settlement], fx: &mut Vec<Effect>) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        let mut applied = Applied::default();
        consumer.apply_settled(self.clock, acks, &mut applied);
        self.take(applied, fx);
    }

    fn take(&mut self, mut applied: Applied, fx: &mut Vec<Effect>) {
        fx.append(&mut applied.effects);
        self.handle_done(&applied.done, fx);
    }

    pub(super) fn pause_consumer(
        &mut self,
        name: &Bytes,
        until: Time,
        fx: &mut Vec<Effect>,
    ) -> Result<Time, ConsumerError> {
        let consumer = self.consumers.get_mut(name).ok_or(ConsumerError::NotFound)?;
        let mut applied = Applied::default();
        let until = consumer.apply_pause(self.clock, until, &mut applied);
        self.take(applied, fx);
        Ok(until)
    }

    pub(super) fn reset_consumer(
        &mut self,
        name: &Bytes,
        seq: Seq,
        fx: &mut Vec<Effect>,
    ) -> Result<Seq, ConsumerError> {
        let consumer = self.consumers.get_mut(name).ok_or(ConsumerError::NotFound)?;
        let first = consumer.apply_reset(seq, &self.messages)?;
        self.drop_unneeded(fx);
        Ok(first)
    }
}
