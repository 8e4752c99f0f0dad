//! A consumer that comes from a backup: how far it was goes in, and out of it into a new one.

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::Messages;

use super::{Consumer, Delivery, Position};
use crate::config::{ConsumerConfig, DeliverPolicy, Retention};

/// How far a consumer is. Places are (its own sequence, the stream's).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What was delivered last.
    pub delivered: (u64, Seq),
    /// Everything up to here is settled.
    pub ack_floor: (u64, Seq),
    /// What waits for an acknowledgement, ascending.
    pub pending: Vec<(Seq, Delivery)>,
}

impl Progress {
    /// Keeps what can be true of a stream whose last sequence is `last`: a backup is not taken at one instant.
    pub fn within(mut self, last: Seq) -> Progress {
        self.delivered.1 = self.delivered.1.min(last);
        self.ack_floor.1 = self.ack_floor.1.min(self.delivered.1);
        self.ack_floor.0 = self.ack_floor.0.min(self.delivered.0);
        let (floor, delivered) = (self.ack_floor.1, self.delivered);
        self.pending.retain(|(seq, delivery)| {
            *seq > floor
                && *seq <= delivered.1
                && (1..=delivered.0).contains(&delivery.consumer_seq)
                && delivery.count > 0
        });
        self
    }
}

impl Consumer {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        let place = |position: Position| (position.consumer_seq, position.stream_seq);
        Progress {
            delivered: place(self.delivered),
            ack_floor: place(self.ack_floor),
            pending: self.pending.iter().map(|(seq, delivery)| (seq, *delivery)).collect(),
        }
    }

    /// A consumer that is as far as `progress` says, whatever its deliver policy; its messages may still come.
    pub(crate) fn restored(
        (name, config): (Bytes, ConsumerConfig),
        progress: Progress,
        retention: Retention,
        (ts, messages): (Time, &Messages),
    ) -> Consumer {
        let place = |(consumer_seq, stream_seq)| Position { consumer_seq, stream_seq, last_active: Time(0) };
        let mut consumer = Consumer::new(name, config, retention, (ts, messages));
        consumer.lasts = None;
        consumer.delivered = place(progress.delivered);
        consumer.ack_floor = place(progress.ack_floor);
        consumer.wait_for(progress.pending);
        consumer
    }

    /// More deliveries that wait.
    pub(crate) fn wait_for(&mut self, deliveries: Vec<(Seq, Delivery)>) {
        for (seq, delivery) in deliveries {
            self.pending.insert(seq, delivery);
        }
    }

    /// All messages are here: those that are not there any more are nothing to wait for.
    pub(crate) fn end_restore(&mut self, messages: &Messages) {
        if self.config.deliver_policy == DeliverPolicy::LastPerSubject && self.delivered.consumer_seq == 0 {
            let before = self.start(messages);
            (self.delivered.stream_seq, self.ack_floor.stream_seq) = (before, before);
        }
        self.messages_purged(messages);
    }
}
