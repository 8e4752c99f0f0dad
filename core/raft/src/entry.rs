//! What a log consists of, and what a replica starts with.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId};

use crate::members::Members;

/// One entry of a group's log: one frame, one batch of commands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place; the first entry of a group has 1.
    pub index: LogIndex,
    /// The term of the leader that made it. Terms never fall along a log.
    pub term: u64,
    /// How to read the body.
    pub kind: EntryKind,
    /// Opaque here.
    pub body: Bytes,
}

/// What an entry's body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// What was proposed. Empty: a new leader's first entry, which applies as nothing.
    Batch,
    /// A change of the members, for [`crate::Replica::apply_change`]. Empty: the end of a joint membership.
    Change,
}

/// What a replica may never forget.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hard {
    /// The newest term it has heard of.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: NodeId,
    /// Committed and durable here. May lag: what is applied counts as committed when a replica starts.
    pub commit: LogIndex,
}

/// What was durable when the replica's server started.
///
/// The caller puts it together from a state (with its index, term and members) and a log, which may have been written at
/// different times: a log that has the state's index with another term, or ends before it, is void; `base` is the state's end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Start {
    /// The newest [`Hard`] that was written.
    pub hard: Hard,
    /// The members at `applied`. Empty for a replica that joins a group that exists: it votes when asked, takes no entries, and
    /// asks the leader for the state until [`crate::Replica::install`].
    pub members: Members,
    /// Index and term that the log begins after; (0, 0) for a log from its first entry.
    pub base: (LogIndex, u64),
    /// What the state machine has applied.
    pub applied: LogIndex,
    /// The log after `base`, without gaps.
    pub entries: Vec<Entry>,
}

/// What one replica is and its limits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Who this is in all its groups.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// A message to a follower carries entries up to this many bytes, and always at least one entry.
    pub max_append_bytes: u64,
    /// So many messages with entries may be on their way to one follower.
    pub max_inflight: usize,
    /// A [`crate::Ready`] gives committed entries up to this many bytes, and always at least one.
    pub max_apply_bytes: u64,
    /// A leader tells its followers at once what is committed. Otherwise they learn it with the next entries, or when
    /// [`crate::Replica::tell_commit`] is called: half as many messages where entries come one by one.
    pub is_prompt: bool,
}

impl Settings {
    /// The usual limits: 1 MiB a message, 64 messages on their way, 4 MiB to apply at once; prompt.
    pub fn new(node: NodeId, group: GroupId) -> Settings {
        Settings {
            node,
            group,
            max_append_bytes: 1 << 20,
            max_inflight: 64,
            max_apply_bytes: 4 << 20,
            is_prompt: true,
        }
    }
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It may propose. What it knows is complete when an entry of its own term is applied.
    Leader {
        /// Since this term.
        term: u64,
    },
    /// It asks for votes, or asks whether it would get them.
    Candidate,
    /// It follows.
    Follower {
        /// Whom; 0 for nobody.
        leader: NodeId,
    },
}
