//! A stream: its messages, its consumers and its configuration, changed by one command after the other.
//!
//! [`Stream::apply`] is total and deterministic: whatever the command, every replica gives the same answer and is in the
//! same state afterwards. Time is the leader's, never running backwards.

mod admit;
mod batch;
pub mod check;
mod configure;
mod consumers;
mod counter;
mod dedupe;
mod expiry;
mod feed;
pub(crate) mod headers;
mod number;
mod publish;
mod read;
mod remove;
mod restore;
mod schedule;
mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod ttl;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Time};
use hw_store::messages::Keep;
use hw_store::{Messages, Record};
use hw_subject::Transform;

pub use check::{ConfigError, StreamLimits, check, check_restored, check_update};
pub use feed::Position;
pub use read::{BatchEnd, BatchRead, BatchRefused, BatchStep};
pub use schedule::Firing;
pub use snapshot::{RestoreError, StreamRestore};

use crate::command::Command;
use crate::config::{Storage, StreamConfig};
use crate::consumer::Consumer;
use crate::outcome::{Answer, Effect};
use admit::Way;
use counter::Sources;
use dedupe::Dedupe;
use expiry::Expiry;
use number::Number;
use schedule::Schedules;

/// A stream's replicated state.
#[derive(Debug)]
pub struct Stream {
    /// Shared with whoever keeps the list of streams.
    config: Arc<StreamConfig>,
    created: Time,
    revision: u64,
    applied: LogIndex,
    /// The latest clock reading of any command.
    clock: Time,
    messages: Messages,
    consumers: BTreeMap<Bytes, Consumer>,
    dedupe: Dedupe,
    /// The id of the message that was stored last; empty when it had none.
    last_msg_id: Bytes,
    expiry: Expiry,
    /// Every message below is protected from `max_age`.
    age_checked: Seq,
    /// The total after each message of a counter stream.
    totals: BTreeMap<Seq, Number>,
    mappings: Mappings,
    /// What other streams have contributed to the counters, after each message of a counter that has any.
    sources: BTreeMap<Seq, Arc<Sources>>,
    /// When the messages that hold a schedule are due next.
    schedules: Schedules,
    /// The beginning of a batch whose end comes with the next command.
    parts: Vec<Record>,
    /// How far each source was taken, by [`crate::feed::Route::key`]. Those that were removed may come back.
    positions: BTreeMap<Bytes, Position>,
    fingerprint: u64,
}

/// The subject mappings that the configuration holds, ready for use.
#[derive(Debug, Default)]
struct Mappings {
    transform: Option<Box<Transform>>,
    republish: Option<Box<Transform>>,
}

impl Mappings {
    /// Mappings that [`check()`] did not refuse are valid; any other is left out.
    fn of(config: &StreamConfig) -> Mappings {
        let transform = config.subject_transform.as_ref().filter(|t| !t.dest.is_empty());
        let republish = config.republish.as_ref().filter(|r| !r.dest.is_empty());
        Mappings {
            transform: transform.and_then(|t| Transform::new(&t.src, &t.dest).ok()).map(Box::new),
            republish: republish.and_then(|r| Transform::new(&r.src, &r.dest).ok()).map(Box::new),
        }
    }
}

impl Stream {
    /// An empty stream with a checked configuration.
    pub fn new(config: impl Into<Arc<StreamConfig>>, created: Time) -> Stream {
        let config = config.into();
        let keep = match config.storage {
            Storage::Memory if config.num_replicas <= 1 => Keep::Memory,
            // What has replicas is on disk, whatever its users asked for: the log has to be.
            Storage::File | Storage::Memory => Keep::File,
        };
        Stream {
            mappings: Mappings::of(&config),
            messages: Messages::new(Seq(config.first_seq), keep),
            config,
            created,
            revision: 0,
            applied: LogIndex(0),
            clock: created,
            consumers: BTreeMap::new(),
            dedupe: Dedupe::default(),
            last_msg_id: Bytes::new(),
            expiry: Expiry::default(),
            age_checked: Seq(0),
            totals: BTreeMap::new(),
            sources: BTreeMap::new(),
            schedules: Schedules::default(),
            parts: Vec::new(),
            positions: BTreeMap::new(),
            fingerprint: 0,
        }
    }

    /// Takes one command. The answer is for whoever asked; effects are for the leader to perform, others drop them.
    pub fn apply(&mut self, index: LogIndex, command: Command, fx: &mut Vec<Effect>) -> Answer {
        self.clock = self.clock.max(command.ts());
        self.applied = index;
        let answer = self.decide(command, fx);
        self.stamp();
        answer
    }

    fn decide(&mut self, command: Command, fx: &mut Vec<Effect>) -> Answer {
        if !self.parts.is_empty()
            && !matches!(command, Command::BatchPart { .. } | Command::PublishBatch { .. })
        {
            self.parts.clear();
        }
        match command {
            Command::Publish { record, .. } => Answer::Published(self.publish(&record, Way::Alone, fx)),
            Command::PublishBatch { messages, .. } => Answer::Published(self.publish_batch(messages, fx)),
            Command::BatchPart { messages, .. } => {
                self.parts.extend(messages);
                Answer::Done
            }
            Command::PublishRun { stop, messages, .. } => Answer::Ran(self.publish_run(stop, &messages, fx)),
            Command::Fire { schedule, due, next, record, .. } => {
                self.fire((schedule, due, next), &record, fx);
                Answer::Done
            }
            Command::Purge { filter, seq, keep, .. } => Answer::Purged(self.purge(&filter, seq, keep)),
            Command::DeleteMessage { seq, erase, .. } => {
                Answer::MessageDeleted(self.delete_message(seq, erase, fx))
            }
            Command::Expire { .. } => {
                self.expire(fx);
                Answer::Done
            }
            Command::Configure { revision, config, .. } => {
                self.configure(revision, &config, fx);
                Answer::Done
            }
            Command::PutConsumer { name, action, pedantic, config, .. } => {
                Answer::ConsumerPut(self.put_consumer(name, (action, pedantic), &config, fx))
            }
            Command::DeleteConsumer { name, .. } => Answer::ConsumerDeleted(self.delete_consumer(&name, fx)),
            Command::Delivered { consumer, seqs, .. } => {
                self.handle_delivered(&consumer, &seqs, fx);
                Answer::Done
            }
            Command::Progress { ts, consumer, revision, consumer_seq, seq } => {
                self.handle_progress(&consumer, revision, (ts, consumer_seq, seq));
                Answer::Done
            }
            Command::Settled { consumer, acks, .. } => {
                self.handle_settled(&consumer, &acks, fx);
                Answer::Done
            }
            Command::PauseConsumer { name, until, .. } => {
                Answer::ConsumerPaused(self.pause_consumer(&name, until, fx))
            }
            Command::ResetConsumer { name, seq, .. } => {
                Answer::ConsumerReset(self.reset_consumer(&name, seq, fx))
            }
            Command::Mirrored { after, first, messages, .. } => {
                Answer::Fed(self.take_mirrored((after, first), messages, fx))
            }
            Command::Sourced { source, identity, after, messages, .. } => {
                Answer::Fed(self.take_sourced(source, Position { identity, seq: after }, messages, fx))
            }
            Command::Compare { .. } | Command::Serial { .. } => Answer::Done,
            Command::Restore { step, .. } => self.restore(step),
        }
    }

    /// Folds what every command may change into the fingerprint.
    fn stamp(&mut self) {
        // Not `state()`: what it says of times is read from indexes.
        let messages = &self.messages;
        let parts = [
            self.applied.0,
            self.clock.0 as u64,
            messages.len(),
            messages.bytes(),
            messages.first_seq().0,
            messages.last_seq().0,
            messages.num_subjects(),
            self.consumers.len() as u64,
        ];
        for part in parts {
            // FNV-1a by words: cheap, and any difference stays visible in everything that follows.
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// Its configuration, complete.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// The same, to share.
    pub fn shared_config(&self) -> Arc<StreamConfig> {
        self.config.clone()
    }

    /// Takes a configuration that says the same for its own.
    pub fn share_config(&mut self, config: &Arc<StreamConfig>) {
        if *self.config == **config {
            self.config = config.clone();
        }
    }

    /// When it was created.
    pub fn created(&self) -> Time {
        self.created
    }

    /// The revision of the configuration that was applied last; 0 for the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The command that was applied last.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Two replicas that applied the same commands have the same number.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Its messages.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Its messages, for checkpoints and loaded blocks; nothing else may change them.
    pub fn messages_mut(&mut self) -> &mut Messages {
        &mut self.messages
    }

    /// A consumer by name.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    /// All consumers, by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.consumers.values()
    }
}
