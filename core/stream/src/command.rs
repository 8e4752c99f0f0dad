//! What can happen to a stream: one entry of its group's log, and its bytes (docs/format.md, "Commands").
//!
//! A command carries every outside fact, the leader's clock reading first of all, so that applying it needs nothing
//! else. Decoding shares the batch's buffer: a stored message is a slice of the log frame that brought it.

mod codec;
mod restore;
mod rows;

use bytes::Bytes;
use hw_kit::{NodeId, Seq, Time};
use hw_store::Record;

pub use codec::{
    DecodeError, decode_batch_message, encode_batch, encode_batch_message, encode_batch_part, encode_publish,
    encode_run,
};
pub use restore::RestoreStep;

/// How far a fast batch is with a run of its messages: another leader goes on from there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunOf {
    /// The client's name for the batch, at most 64 bytes.
    pub id: Bytes,
    /// Messages between two flow acknowledgements, at most.
    pub flow: u64,
    /// The numbers of the run's first message in the batch,
    pub first: u64,
    /// and of its last.
    pub last: u64,
    /// Whether that ends the batch.
    pub ends: bool,
}

/// A change to a stream. `ts` is the proposing leader's clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A message published on one of the stream's subjects.
    Publish {
        /// The leader's clock.
        ts: Time,
        /// Subject, header block and payload in one buffer.
        record: Record,
    },
    /// Messages that are stored together or not at all: those of the [`Command::BatchPart`]s right before, then these.
    PublishBatch {
        /// The leader's clock.
        ts: Time,
        /// In their order.
        messages: Vec<Record>,
    },
    /// The beginning of a batch that is too long for one command. It is stored by the [`Command::PublishBatch`] that
    /// follows; any other command in between drops it.
    BatchPart {
        /// The leader's clock.
        ts: Time,
        /// In their order.
        messages: Vec<Record>,
    },
    /// Messages of a fast batch, each decided for itself.
    PublishRun {
        /// The leader's clock.
        ts: Time,
        /// Whether nothing is stored after one that is refused.
        stop: bool,
        /// Where others have the stream: of which batch they are. It does not matter to what is stored.
        of: Option<RunOf>,
        /// In their order.
        messages: Vec<Record>,
    },
    /// A schedule's time has come: the message that it produces.
    Fire {
        /// The leader's clock.
        ts: Time,
        /// The message that holds the schedule.
        schedule: Seq,
        /// For when it was due.
        due: Time,
        /// When it is due again; not set: it ends.
        next: Time,
        /// What is published.
        record: Record,
    },
    /// Remove messages (`STREAM.PURGE`).
    Purge {
        /// The leader's clock.
        ts: Time,
        /// Only subjects that match; empty means all.
        filter: Bytes,
        /// Up to but excluding this sequence; 0 means no bound.
        seq: Seq,
        /// How many to keep; 0 means none.
        keep: u64,
    },
    /// Remove one message (`STREAM.MSG.DELETE`).
    DeleteMessage {
        /// The leader's clock.
        ts: Time,
        /// Which.
        seq: Seq,
        /// Whether its bytes are to be overwritten.
        erase: bool,
    },
    /// Remove what max_age and message TTLs have outlived at `ts`.
    Expire {
        /// The leader's clock.
        ts: Time,
    },
    /// A new stream configuration, already checked by the meta group; a JSON document.
    Configure {
        /// The leader's clock.
        ts: Time,
        /// The configuration's revision in the meta group.
        revision: u64,
        /// `StreamConfig` as JSON.
        config: Bytes,
    },
    /// Create or update a consumer.
    PutConsumer {
        /// The leader's clock.
        ts: Time,
        /// The name, given by the client or drawn by the leader.
        name: Bytes,
        /// What the request allows.
        action: ConsumerAction,
        /// Whether adjustments are refused instead of made.
        pedantic: bool,
        /// `ConsumerConfig` as JSON.
        config: Bytes,
    },
    /// Remove a consumer.
    DeleteConsumer {
        /// The leader's clock.
        ts: Time,
        /// Which.
        name: Bytes,
    },
    /// Messages were handed to a client of a consumer.
    Delivered {
        /// The leader's clock: the ack wait starts here.
        ts: Time,
        /// Which consumer.
        consumer: Bytes,
        /// Stream sequences in delivery order; redeliveries are among them.
        seqs: Vec<Seq>,
    },
    /// How far a consumer has come whose deliveries are not in the log one by one.
    Progress {
        /// The leader's clock.
        ts: Time,
        /// Which consumer.
        consumer: Bytes,
        /// The consumer's revision: what was said before it changed does not count.
        revision: u64,
        /// The consumer's own sequence of the last delivery,
        consumer_seq: u64,
        /// and the stream's.
        seq: Seq,
    },
    /// Deliveries of a consumer were settled.
    Settled {
        /// The leader's clock.
        ts: Time,
        /// Which consumer.
        consumer: Bytes,
        /// What was settled, in order of arrival.
        acks: Vec<Settlement>,
    },
    /// Pause a consumer until an instant, or resume it (`Time(0)`).
    PauseConsumer {
        /// The leader's clock.
        ts: Time,
        /// Which.
        name: Bytes,
        /// Until when.
        until: Time,
    },
    /// Start a consumer again at a sequence (`CONSUMER.RESET`); 0 means after its ack floor.
    ResetConsumer {
        /// The leader's clock.
        ts: Time,
        /// Which.
        name: Bytes,
        /// Where.
        seq: Seq,
    },
    /// What a mirror's origin has: its messages keep their sequences and times.
    Mirrored {
        /// The leader's clock.
        ts: Time,
        /// The last sequence that the mirror must have for these to follow.
        after: Seq,
        /// Where the origin begins for a mirror that never had a message; 0 otherwise.
        first: Seq,
        /// Ascending.
        messages: Vec<Fed>,
    },
    /// What a source has.
    Sourced {
        /// The leader's clock.
        ts: Time,
        /// Which of the stream's sources ([`crate::feed::Route::key`]).
        source: Bytes,
        /// Tells the origin from others that had or will have its name.
        identity: Bytes,
        /// The origin's sequence that was taken last, for these to follow; 0 for none.
        after: Seq,
        /// Ascending.
        messages: Vec<Fed>,
    },
    /// The publishes after this one in its frame were handed to the leader by another server, which knows by their serial
    /// numbers what became of them. Changes nothing.
    Serial {
        /// The leader's clock.
        ts: Time,
        /// That server; 0: what follows came from nobody else.
        by: NodeId,
        /// The first publish's number; each one has the next.
        number: u64,
    },
    /// Every replica says what its state is here. Changes nothing.
    Compare {
        /// The leader's clock.
        ts: Time,
    },
    /// A part of a backup.
    Restore {
        /// The leader's clock.
        ts: Time,
        /// Which part.
        step: RestoreStep,
    },
}

/// A message of another stream, ready to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Fed {
    /// Its sequence there.
    pub seq: Seq,
    /// When it was stored there.
    pub ts: Time,
    /// The copy: subject and header are as they will be here.
    pub record: Record,
}

/// What a create request allows (the `action` field).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConsumerAction {
    /// Create or update.
    #[default]
    Any,
    /// It must not exist, or be the same.
    Create,
    /// It must exist.
    Update,
}

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The stream sequence.
    pub seq: Seq,
    /// The consumer sequence that the acknowledged delivery had (ack all needs it).
    pub consumer_seq: u64,
    /// How.
    pub verdict: Verdict,
}

/// The end of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Acknowledged.
    Ack,
    /// Terminated by the client, with its reason.
    Term(Bytes),
    /// Out of deliveries: stays in the stream, is not delivered again.
    Exhausted,
}
