//! Everything that can be refused, by name.

use hw_kit::{LogIndex, NodeId};
use thiserror::Error;

use crate::members::MembersError;

/// Why a replica cannot start from what was found: the log or what belongs to it is damaged.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum StartError {
    /// A replica has an id.
    #[error("the node's id is 0")]
    NoNode,
    /// Limits of 0 let nothing pass.
    #[error("a limit is 0")]
    NoLimit,
    /// The members contradict each other.
    #[error("members: {0}")]
    Members(#[from] MembersError),
    /// Without members, nothing can be there.
    #[error("there are no members, but a log or an applied state")]
    NoMembers,
    /// Index 0 has term 0, and no other has.
    #[error("the log begins after index {0} of term {1}")]
    Base(LogIndex, u64),
    /// The state ends before the log begins.
    #[error("applied {applied} is before the log, which begins after {base}")]
    AppliedBeforeLog {
        /// What was applied.
        applied: LogIndex,
        /// Where the log begins.
        base: LogIndex,
    },
    /// The state has seen entries that the log lacks.
    #[error("applied {applied} is after the end of the log, {last}")]
    AppliedAfterLog {
        /// What was applied.
        applied: LogIndex,
        /// The log's last entry.
        last: LogIndex,
    },
    /// Entries are lost that were durable once.
    #[error("commit {commit} is after the end of the log, {last}")]
    CommitAfterLog {
        /// What was committed.
        commit: LogIndex,
        /// The log's last entry.
        last: LogIndex,
    },
    /// A gap, or an entry twice.
    #[error("entry {found} where {expected} belongs")]
    Gap {
        /// What belongs there.
        expected: LogIndex,
        /// What is there.
        found: LogIndex,
    },
    /// Terms never fall along a log.
    #[error("entry {index} has term {term} after {before}")]
    Term {
        /// Which entry.
        index: LogIndex,
        /// Its term.
        term: u64,
        /// The term before it.
        before: u64,
    },
    /// Terms begin with 1, and end before the counter does.
    #[error("term {term}, vote {vote}")]
    Vote {
        /// The term.
        term: u64,
        /// The vote in it.
        vote: NodeId,
    },
    /// The library said no to what was checked.
    #[error("raft: {0}")]
    Library(String),
}

/// Only the leader proposes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not the leader: {leader} is")]
pub struct NotLeader {
    /// Who is, as far as is known; 0 for nobody. The replica itself while it hands its leadership over.
    pub leader: NodeId,
}

/// Why a change of the members was not proposed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ChangeError {
    /// Ask the leader.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// A change is on its way, or the leader is too new to know. Ask again when more is applied.
    #[error("another change may be on its way")]
    Pending,
    /// It changes nothing.
    #[error("the members are so already")]
    Nothing,
    /// It names nobody, or one node twice.
    #[error("node {0} is named twice or is nobody")]
    Names(NodeId),
    /// It cannot be: nobody would be left to vote.
    #[error("{0}")]
    Impossible(String),
}

/// Why a state was not installed. Nothing changed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InstallError {
    /// A leader has the newest state.
    #[error("this replica leads")]
    Leads,
    /// The replica has applied as much.
    #[error("applied {applied} already")]
    Old {
        /// What the replica has applied.
        applied: LogIndex,
    },
    /// The members contradict each other.
    #[error("members: {0}")]
    Members(#[from] MembersError),
    /// A replica that is no member keeps no state of the group.
    #[error("this node is not among the members")]
    Stranger,
    /// It is of another history than what is committed here: never overwritten.
    #[error("index {index} is committed with term {ours}, the state has term {theirs}")]
    Conflict {
        /// Where they differ.
        index: LogIndex,
        /// The term here.
        ours: u64,
        /// The term there.
        theirs: u64,
    },
    /// Index or term is 0 or out of range.
    #[error("index {0} of term {1} cannot be")]
    Base(LogIndex, u64),
}

/// A call that breaks this crate's contract: a bug of the caller. Nothing changed; the group is best taken out of service.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Misuse {
    /// There was no such [`crate::Ready`].
    #[error("ready {number} was never given, the newest is {newest}")]
    Persisted {
        /// What was reported.
        number: u64,
        /// What was given.
        newest: u64,
    },
    /// Entries were not given to be applied, or are applied twice.
    #[error("applied {index} is not between {before} and {given}")]
    Applied {
        /// What was reported.
        index: LogIndex,
        /// What was reported before.
        before: LogIndex,
        /// What was given.
        given: LogIndex,
    },
    /// A change of the members must go through [`crate::Replica::apply_change`], in its place.
    #[error("the change at {expected} was not applied, but {found}")]
    Change {
        /// The next change.
        expected: LogIndex,
        /// What came.
        found: LogIndex,
    },
    /// A change that cannot be read: of a newer version, or damaged.
    #[error("the change at {index} cannot be read: {why}")]
    Unreadable {
        /// Which entry.
        index: LogIndex,
        /// Why.
        why: crate::DecodeError,
    },
    /// Only what is applied and durable may be forgotten.
    #[error("cannot forget {to}: applied and durable is {limit}")]
    Compact {
        /// What was to be forgotten.
        to: LogIndex,
        /// How far it may go.
        limit: LogIndex,
    },
}

/// Why a peer's message was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Refused {
    /// From nobody, or from this node itself.
    #[error("node {0} cannot be the sender")]
    Sender(NodeId),
    /// Term 0, or one so large that it cannot be counted on.
    #[error("term {0} is out of range")]
    TermRange(u64),
    /// An index that no log reaches.
    #[error("index {0} is out of range")]
    IndexRange(LogIndex),
    /// Entries with gaps or falling terms, or with terms from the future.
    #[error("entry {index} of term {term} is out of order")]
    Order {
        /// Which entry.
        index: LogIndex,
        /// Its term.
        term: u64,
    },
    /// An answer of somebody who is no member.
    #[error("{0} is not a member")]
    Stranger(NodeId),
    /// Two leaders in one term: a vote was forgotten somewhere.
    #[error("{from} says that it leads term {term}, which {leader} leads")]
    TwoLeaders {
        /// The term.
        term: u64,
        /// Whom this replica follows, or itself.
        leader: NodeId,
        /// Who says so, too.
        from: NodeId,
    },
    /// The leader thinks that this replica has entries which it does not have: its log was lost.
    #[error("the leader commits {commit}, the log ends at {last}")]
    CommitAfterLog {
        /// What the leader commits.
        commit: LogIndex,
        /// The log's end.
        last: LogIndex,
    },
    /// The leader's log contradicts what is committed here.
    #[error("index {index} is committed with term {ours}, the leader has term {theirs}")]
    Conflict {
        /// Where they differ.
        index: LogIndex,
        /// The term here.
        ours: u64,
        /// The term there.
        theirs: u64,
    },
    /// A follower acknowledges what the leader does not have.
    #[error("{from} acknowledges {index}, the log ends at {last}")]
    AckAfterLog {
        /// The follower.
        from: NodeId,
        /// What it acknowledges.
        index: LogIndex,
        /// The log's end.
        last: LogIndex,
    },
    /// A follower lacks what it acknowledged: its log was lost, and its id should have changed.
    #[error("{from} acknowledged {matched}, and its log ends at {last} now")]
    LostLog {
        /// The follower.
        from: NodeId,
        /// What it acknowledged.
        matched: LogIndex,
        /// How far its log goes now.
        last: LogIndex,
    },
    /// A vote that was not asked for yet, or leadership offered by somebody who does not have it.
    #[error("nothing of this kind was asked of {0}")]
    Unasked(NodeId),
}
