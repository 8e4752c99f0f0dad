//! What the clients know: everything they tried, and what they were told. The invariants judge the server by it.

use std::collections::{BTreeMap, BTreeSet};

use hw_kit::{Span, Time};

/// Something that must not be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What is wrong.
    pub text: String,
}

/// Whether something is on the server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existence {
    /// It is not.
    #[default]
    No,
    /// It is.
    Yes,
    /// A request about it was never answered.
    Unknown,
}

/// How a publish ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Not yet.
    Pending,
    /// Acknowledged.
    Acked {
        /// The sequence.
        seq: u64,
        /// When the client heard of it.
        at: Time,
        /// As one that was stored before.
        duplicate: bool,
    },
    /// Refused.
    Refused,
    /// The connection ended before an answer came.
    Lost,
}

/// One publish.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The stream's name.
    pub stream: String,
    /// The stream's generation: names are used again, subjects are not.
    pub generation: u64,
    /// The subject.
    pub subject: String,
    /// The body.
    pub payload: Vec<u8>,
    /// `Nats-Msg-Id`.
    pub id: Option<String>,
    /// `Nats-Expected-Last-Sequence`.
    pub expected: Option<u64>,
    /// `Nats-Expected-Last-Subject-Sequence`.
    pub expected_subject: Option<u64>,
    /// Which session of which client sent it.
    pub session: (usize, u64),
    /// When.
    pub sent: Time,
    /// The publishes that are stored together, if it is one of a batch.
    pub batch: Option<std::ops::Range<usize>>,
    /// Whether it is one of a fast batch.
    pub is_fast: bool,
    /// The schedule that it holds.
    pub schedule: Option<Schedule>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Publishes that are acknowledged together, up to the first that is not stored.
#[derive(Clone, Debug)]
pub struct FastBatch {
    /// Which.
    pub messages: std::ops::Range<usize>,
    /// The last one's reply subject.
    pub reply: String,
    /// Whether its last word was heard.
    pub over: bool,
    /// How many of them were acknowledged.
    pub acked: Option<u64>,
}

/// What is published again, once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// When.
    pub due: Time,
    /// Where to.
    pub target: String,
}

impl Attempt {
    /// Whether its schedule produces messages on a subject.
    pub fn produces(&self, subject: &str) -> bool {
        self.schedule.as_ref().is_some_and(|schedule| schedule.target == subject)
    }
}

/// Why messages leave a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retention {
    /// Limits only.
    Limits,
    /// Acknowledged by one.
    WorkQueue,
    /// Acknowledged by all that are interested.
    Interest,
}

/// What a stream is configured to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Why messages leave.
    pub retention: Retention,
    /// Not on disk.
    pub memory: bool,
    /// `max_msgs`.
    pub max_msgs: Option<u64>,
    /// `max_msgs_per_subject`.
    pub max_per_subject: Option<u64>,
    /// `max_age`.
    pub max_age: Option<Span>,
    /// `discard: new`.
    pub discard_new: bool,
    /// `num_replicas`.
    pub replicas: u64,
}

/// What a purge or delete was to remove.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removed {
    /// Everything that matches, up to and excluding a sequence, but for so many.
    Purge {
        /// A subject; None: all.
        filter: Option<String>,
        /// 0: no bound.
        before: u64,
        /// How many stay.
        keep: u64,
    },
    /// One message.
    Message {
        /// Its sequence.
        seq: u64,
        /// Its bytes are to be overwritten on disk.
        erase: bool,
    },
}

/// One purge or delete.
#[derive(Clone, Debug)]
pub struct Removal {
    /// What.
    pub what: Removed,
    /// When it was sent.
    pub sent: Time,
    /// When success was reported.
    pub done: Option<Time>,
    /// Whether it was refused.
    pub refused: bool,
}

/// One incarnation of a stream.
#[derive(Clone, Debug)]
pub struct StreamLog {
    /// The configuration.
    pub shape: Shape,
    /// Distinguishes streams of one name.
    pub generation: u64,
    /// Whether it is there.
    pub existence: Existence,
    /// Its deletion was tried.
    pub delete_tried: bool,
    /// The server was restarted since it was made.
    pub survived: bool,
    /// Purges and deletes.
    pub removals: Vec<Removal>,
    /// Consumers by name, also deleted ones.
    pub consumers: BTreeMap<String, ConsumerLog>,
    /// The highest sequence that a client was told.
    pub last_seq: u64,
    /// What a client has seen at a sequence never changes.
    pub seen: BTreeMap<u64, usize>,
}

/// How acknowledgements count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckPolicy {
    /// Each for itself.
    Explicit,
    /// Each for all before it.
    All,
    /// There are none: what was sent is done with.
    None,
}

/// One consumer.
#[derive(Clone, Debug)]
pub struct ConsumerLog {
    /// Whether it is there.
    pub existence: Existence,
    /// Its deletion was tried.
    pub delete_tried: bool,
    /// `filter_subject`.
    pub filter: Option<String>,
    /// How acknowledgements count.
    pub ack: AckPolicy,
    /// `max_deliver`.
    pub max_deliver: Option<u64>,
    /// When its creation was confirmed.
    pub made: Option<Time>,
    /// The client that pulls from it, or that it pushes to.
    pub owner: usize,
    /// Whether it pushes.
    pub pushes: bool,
    /// How often each sequence came.
    pub deliveries: BTreeMap<u64, u64>,
    /// Consumer sequences that came, in their order.
    pub last_delivery: u64,
    /// Sequences whose acknowledgement was sent.
    pub acked: BTreeSet<u64>,
    /// Sequences whose acknowledgement was confirmed.
    pub confirmed: BTreeSet<u64>,
    /// Sequences that were terminated.
    pub termed: BTreeSet<u64>,
    /// When its last pull ends.
    pub pull_until: Time,
}

/// Something that a client did to a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyOp {
    /// Which client.
    pub client: usize,
    /// What.
    pub act: KeyAct,
    /// When it was sent.
    pub sent: Time,
    /// When it was answered; None: never.
    pub done: Option<Time>,
    /// What the answer says; None as long as there is none.
    pub result: Option<KeyResult>,
}

/// What is done to a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyAct {
    /// It gets a value, whatever it has.
    Put(u64),
    /// It gets a value if this is its last revision; 0: if it has none.
    Swap(u64, u64),
    /// Its value is read.
    Get,
}

/// What comes of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyResult {
    /// Written, as this revision.
    Written(u64),
    /// Not written, as it has another revision.
    Conflict,
    /// Read: the revision and the value.
    Found(u64, u64),
    /// It has none.
    Nothing,
    /// Not written for another reason.
    Refused,
}

/// Everything the clients know.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All publishes; a message's payload starts with its number here.
    pub attempts: Vec<Attempt>,
    /// The fast batches.
    pub fast: Vec<FastBatch>,
    /// The streams there are or may be, by name.
    pub streams: BTreeMap<String, StreamLog>,
    /// What must not be, found on the way.
    pub violations: Vec<Violation>,
    /// The disk is full or has failed: what is due may have to wait.
    pub starved: bool,
    /// Messages may come late: something holds them up, or did a moment ago.
    pub loose: bool,
    /// Something holds messages up.
    pub stuck: bool,
    /// Messages may come late until then, whatever happens.
    pub loose_until: Time,
    /// How far servers' clocks may be from each other, and what is due may be late by.
    pub slack: Span,
    /// Streams of which nobody has anything any more, as a disk was lost that alone had them.
    pub unreachable: BTreeSet<String>,
    /// What clients did to keys of a bucket.
    pub keys: BTreeMap<String, Vec<KeyOp>>,
    /// What happened, counted.
    pub counts: BTreeMap<&'static str, u64>,
}

impl History {
    /// Notes a violation.
    pub fn violate(&mut self, invariant: &'static str, text: String) {
        self.violations.push(Violation { invariant, text });
    }

    /// Says how a publish ended, and with it all of its batch.
    pub fn end(&mut self, index: usize, outcome: Outcome) {
        let batch = self.attempts[index].batch.clone().unwrap_or(index..index + 1);
        for index in batch {
            self.attempts[index].outcome = outcome;
        }
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The publishes to one incarnation of a stream, with their numbers.
    pub fn attempts_of(&self, name: &str, generation: u64) -> impl Iterator<Item = (usize, &Attempt)> {
        let all = self.attempts.iter().enumerate();
        all.filter(move |(_, attempt)| attempt.generation == generation && attempt.stream == name)
    }
}

impl StreamLog {
    /// A stream that is asked for.
    pub fn new(shape: Shape, generation: u64) -> StreamLog {
        StreamLog {
            shape,
            generation,
            existence: Existence::No,
            delete_tried: false,
            survived: false,
            removals: Vec::new(),
            consumers: BTreeMap::new(),
            last_seq: 0,
            seen: BTreeMap::new(),
        }
    }
}

impl ConsumerLog {
    /// A consumer that is asked for.
    pub fn new(filter: Option<String>, ack: AckPolicy, owner: usize) -> ConsumerLog {
        ConsumerLog {
            existence: Existence::No,
            delete_tried: false,
            filter,
            ack,
            max_deliver: None,
            made: None,
            owner,
            pushes: false,
            deliveries: BTreeMap::new(),
            last_delivery: 0,
            acked: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            termed: BTreeSet::new(),
            pull_until: Time(0),
        }
    }

    /// Whether a subject is the consumer's.
    pub fn matches(&self, subject: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| filter == subject)
    }

    /// Whether the client has settled a sequence, as far as it knows.
    pub fn is_settled(&self, seq: u64) -> bool {
        let covered = self.ack == AckPolicy::All && self.acked.last().is_some_and(|last| *last >= seq);
        covered || self.acked.contains(&seq) || self.termed.contains(&seq)
    }

    /// Whether the server has confirmed that a sequence is settled.
    pub fn is_confirmed(&self, seq: u64) -> bool {
        let covered = self.ack == AckPolicy::All
            && self.confirmed.last().is_some_and(|last| *last >= seq)
            && self.deliveries.contains_key(&seq);
        covered || self.confirmed.contains(&seq)
    }
}

impl Removal {
    /// Whether it may have removed a message that was sent then, is at `seq` and has this subject.
    pub fn may_cover(&self, attempt: &Attempt, seq: u64) -> bool {
        let in_time = self.done.is_none_or(|done| done >= attempt.sent);
        let fits = match &self.what {
            Removed::Purge { filter, before, .. } => {
                filter.as_deref().is_none_or(|filter| filter == attempt.subject)
                    && (*before == 0 || seq < *before)
            }
            Removed::Message { seq: removed, .. } => *removed == seq,
        };
        in_time && fits && !self.refused
    }

    /// Whether it certainly removed it.
    pub fn must_cover(&self, attempt: &Attempt, seq: u64) -> bool {
        let Outcome::Acked { at, .. } = attempt.outcome else { return false };
        let keeps = matches!(self.what, Removed::Purge { keep, .. } if keep > 0);
        self.done.is_some() && at < self.sent && !keeps && self.may_cover(attempt, seq)
    }
}
