//! What comes out of a stream: the answer to each command, and effects that only the leader performs.

use bytes::Bytes;
use hw_kit::{Seq, Span, Time};
use hw_store::Record;

/// The answer to one applied command. The caller knows who asked; the machine does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A publish was stored, or was a duplicate of a stored one.
    Published(Result<Stored, PublishError>),
    /// What became of the messages of a run, up to the one after which nothing was stored.
    Ran(Vec<Result<Stored, PublishError>>),
    /// This many messages were purged.
    Purged(Result<u64, StreamError>),
    /// The message is gone.
    MessageDeleted(Result<(), StreamError>),
    /// The consumer exists now; `created` tells whether it did not before.
    ConsumerPut(Result<ConsumerPut, ConsumerError>),
    /// The consumer is gone.
    ConsumerDeleted(Result<(), ConsumerError>),
    /// The consumer is paused until then; `Time(0)` means it runs.
    ConsumerPaused(Result<Time, ConsumerError>),
    /// The consumer starts again after this sequence.
    ConsumerReset(Result<Seq, ConsumerError>),
    /// What became of messages from another stream.
    Fed(Feeding),
    /// Nobody waits for this one.
    Done,
}

/// What became of messages from a mirror's origin or a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Feeding {
    /// All were taken.
    Taken,
    /// They do not follow what is here: the leader must look again where to go on.
    Stale,
    /// One had no place here. Those before it were taken.
    Refused(PublishError),
}

/// Where a publish ended up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The message's sequence; the original's for a duplicate.
    pub seq: Seq,
    /// Whether the message id was seen within the duplicate window.
    pub duplicate: bool,
    /// A counter's new total.
    pub val: Option<String>,
    /// The batch that it ends.
    pub batch: Option<Box<BatchAck>>,
}

/// What the acknowledgement says of a batch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BatchAck {
    /// The client's name for it.
    pub id: Bytes,
    /// How many messages it had; in a fast batch, how far it came.
    pub count: u64,
}

/// What a consumer create or update did.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerPut {
    /// The name, also when it was drawn.
    pub name: Bytes,
    /// False for an update or an identical create.
    pub created: bool,
}

/// Why a publish was refused. The numbers and texts are in `jsapi`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // Each variant says what was wrong; the data is what the text needs.
pub enum PublishError {
    #[error("stream is sealed")]
    Sealed,
    #[error("message larger than max_msg_size")]
    TooLarge,
    #[error("header larger than 65,535 bytes")]
    HeaderTooLarge,
    #[error("expected stream does not match")]
    WrongStream,
    #[error("wrong last sequence: {0}")]
    WrongLastSequence(Seq),
    #[error("wrong last sequence")]
    WrongLastSequenceConstant,
    #[error("expected last subject sequence subject without the sequence header")]
    ExpectedSubjectAlone,
    #[error("wrong last message id: {0}")]
    WrongLastMsgId(String),
    #[error("rollup: {0}")]
    Rollup(String),
    #[error("maximum messages exceeded")]
    MaxMessages,
    #[error("maximum bytes exceeded")]
    MaxBytes,
    #[error("maximum messages per subject exceeded")]
    MaxPerSubject,
    #[error("invalid per-message TTL")]
    InvalidTtl,
    #[error("per-message TTL is disabled")]
    TtlDisabled,
    #[error("message counters are disabled")]
    CounterDisabled,
    #[error("message counter increment is missing")]
    CounterMissing,
    #[error("message counter has payload")]
    CounterPayload,
    #[error("message counter increment is invalid")]
    CounterInvalid,
    #[error("message counter is broken")]
    CounterBroken,
    #[error("message schedules are disabled")]
    SchedulesDisabled,
    #[error("atomic publish is disabled")]
    AtomicDisabled,
    #[error("atomic publish sequence is missing")]
    BatchSequenceMissing,
    #[error("atomic publish batch is incomplete")]
    BatchIncomplete,
    #[error("atomic publish does not support the header {0}")]
    BatchUnsupported(&'static str),
    #[error("atomic publish batch id is invalid")]
    BatchId,
    #[error("atomic publish batch has more than {0} messages")]
    BatchTooLarge(u64),
    #[error("atomic publish batch commit is invalid")]
    BatchCommit,
    #[error("atomic publish batch contains a duplicate message id")]
    BatchDuplicate,
    #[error("too many atomic publish batches in flight")]
    TooManyBatches,
    #[error("batch publish is disabled")]
    BatchDisabled,
    #[error("batch publish pattern is invalid")]
    FastPattern,
    #[error("batch publish id is invalid")]
    FastId,
    #[error("batch publish id is unknown")]
    FastUnknown,
    #[error("too many fast batches in flight")]
    TooManyFastBatches,
    #[error("message schedule's pattern is invalid")]
    SchedulePattern,
    #[error("message schedule's time zone is invalid")]
    ScheduleTimeZone,
    #[error("message schedule's target is invalid")]
    ScheduleTarget,
    #[error("message schedule's TTL is invalid")]
    ScheduleTtl,
    #[error("message schedule's rollup is invalid")]
    ScheduleRollup,
    #[error("message schedule's source is invalid")]
    ScheduleSource,
    #[error("message scheduler is invalid")]
    Scheduler,
    #[error("stream source header not allowed")]
    SourceHeader,
    #[error("JetStream minimum api level required")]
    ApiLevel,
    #[error("resource limits exceeded for account")]
    AccountLimit,
    #[error("insufficient resources")]
    ServerLimit,
    #[error("no space left on the disk")]
    DiskFull,
    #[error("the store has stopped: {0}")]
    StoreStopped(String),
    #[error("too many publishes wait to be decided")]
    Overrun,
}

/// Why a purge or delete was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StreamError {
    #[error("stream is sealed")]
    Sealed,
    #[error("message delete not permitted")]
    DeleteDenied,
    #[error("stream purge not permitted")]
    PurgeDenied,
    #[error("sequence {0} not found")]
    SequenceNotFound(Seq),
    #[error("sequence is not in the stream's range")]
    OutOfRange(Seq),
    #[error("bad request")]
    BadRequest,
}

/// Why a consumer request was refused: one variant for each error code that the API has for it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConsumerError {
    #[error("consumer not found")]
    NotFound,
    #[error("consumer already exists")]
    Exists,
    #[error("consumer does not exist")]
    Missing,
    #[error("maximum consumers limit reached")]
    TooMany,
    /// A configuration rule, by its API error code: consumer rules are many and each has a code of its own.
    /// `text` fills the code's placeholder where it has one. The code table itself is in `jsapi`.
    #[error("{text} (err_code {err_code})")]
    Rule { err_code: u16, text: String },
}

/// What the leader does besides answering.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Hand a message to a client: routed by `to`, carrying `record`'s subject.
    Deliver {
        /// The pull's reply subject or the push consumer's deliver subject.
        to: Bytes,
        /// The queue group of `to` (a push consumer's deliver group); empty for none.
        group: Bytes,
        /// The acknowledgement subject (`$JS.ACK...`); empty for none.
        reply: Bytes,
        /// The message.
        record: Record,
    },
    /// A message without a stored body: status lines (404, 408, 409, 100), flow control, republished copies.
    Send {
        /// Where to; it is the message's subject too.
        to: Bytes,
        /// Reply subject; empty for none.
        reply: Bytes,
        /// Header block; empty for none.
        header: Bytes,
        /// Payload.
        payload: Bytes,
    },
    /// An event that others may watch.
    Advise(Advisory),
    /// A message is needed that is on disk: load this block, then pump again.
    Load(hw_store::messages::BlockId),
    /// A block that is likely to be needed next: load it, if there is room.
    LoadAhead(hw_store::messages::BlockId),
    /// A consumer is unused for its inactive threshold: propose its deletion.
    Propose(crate::Command),
}

/// Events under `$JS.EVENT.`; jsapi gives them their JSON.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Advisory {
    ConsumerCreated { consumer: Bytes },
    ConsumerDeleted { consumer: Bytes },
    ConsumerPaused { consumer: Bytes, until: Time },
    MaxDeliveries { consumer: Bytes, stream_seq: Seq, deliveries: u64 },
    MessageNaked { consumer: Bytes, stream_seq: Seq, consumer_seq: u64, deliveries: u64 },
    MessageTerminated { consumer: Bytes, stream_seq: Seq, consumer_seq: u64, deliveries: u64, reason: Bytes },
    GroupPinned { consumer: Bytes, group: String, id: Bytes },
    GroupUnpinned { consumer: Bytes, group: String, reason: &'static str },
    AckSample { consumer: Bytes, stream_seq: Seq, consumer_seq: u64, ack_time: Span, deliveries: u64 },
}

impl Advisory {
    /// The consumer that it is about.
    pub fn consumer(&self) -> &Bytes {
        match self {
            Advisory::ConsumerCreated { consumer }
            | Advisory::ConsumerDeleted { consumer }
            | Advisory::ConsumerPaused { consumer, .. }
            | Advisory::MaxDeliveries { consumer, .. }
            | Advisory::MessageNaked { consumer, .. }
            | Advisory::MessageTerminated { consumer, .. }
            | Advisory::AckSample { consumer, .. }
            | Advisory::GroupPinned { consumer, .. }
            | Advisory::GroupUnpinned { consumer, .. } => consumer,
        }
    }
}
