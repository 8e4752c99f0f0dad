//! Whole groups under a seed: loss, crashes, partitions, changes of the members, states that travel; and what must hold.
//!
//! Each node plays the caller's part (a disk that is written in order and loses what was not synced, a state machine, campaigns);
//! [`truth::Truth`] sees everything and tells what must never be. The last part of each run heals everything and demands progress.

mod heal;
mod node;
mod runs;
mod truth;
mod world;

/// A bug that is planted to see that it is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Planted {
    /// Messages leave before what they depend on is durable.
    AfterSentEarly,
    /// A change of the members is not applied by one node in three.
    ChangeSkipped,
    /// The log forgets what is not applied.
    CompactedTooFar,
    /// Entries count as durable when written, not when synced.
    EntriesNotSynced,
    /// Term and vote are never written.
    HardNotWritten,
    /// An installed state leaves the old log where it was.
    InstallKeepsLog,
    /// What a new leader sends leaves before its own vote is durable.
    LeaderNotDurable,
    /// A node alone leads before its log is durable.
    AloneNotSettled,
    /// Overwritten entries stay on disk when fewer follow.
    OverwrittenKept,
    /// An entry that was overwritten and came back counts as durable.
    SurelyNotDurable,
    /// The vote is not read back after a restart.
    VoteForgotten,
}

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) voters: u64,
    pub(crate) steps: usize,
    /// Links lose nothing until they break, and say so; otherwise any message is lost, doubled or late.
    pub(crate) is_ordered: bool,
    /// Disks are lost and come back under the old id: then nothing holds but that nobody panics.
    pub(crate) has_wipes: bool,
    pub(crate) planted: Option<Planted>,
}

impl Options {
    pub(crate) fn plants(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }
}

/// What happened in a run: to see that it was worth the time, and that it can be repeated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stats {
    pub(crate) elections: u64,
    pub(crate) committed: u64,
    pub(crate) crashes: u64,
    pub(crate) installs: u64,
    pub(crate) resets: u64,
    pub(crate) changes: u64,
    pub(crate) transfers: u64,
    pub(crate) refused: u64,
    pub(crate) messages: u64,
    /// Of everything that was sent and applied.
    pub(crate) trace: u64,
}
