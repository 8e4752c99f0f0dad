//! What the disk tells a shard.

use hw_kit::GroupId;
use hw_store::messages::BlockId;
use hw_store::{CheckpointDone, LoadedBlock};

/// Why a block could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LoadError {
    /// Too many reads wait: ask again.
    Busy,
    /// The disk failed to read it; it may succeed another time.
    Failed(String),
    /// The bytes on disk are not what was written.
    Damaged(String),
}

/// The disk finished something, or failed.
#[derive(Debug)]
pub enum DiskCompletion {
    /// Every append up to this ticket is durable.
    Synced {
        /// The last ticket.
        ticket: u64,
    },
    /// The write-ahead log failed: nothing is durable any more from here on.
    Failed {
        /// What the disk said.
        reason: String,
    },
    /// A checkpoint is complete, or could not be written (the log keeps everything).
    Checkpointed {
        /// What was written, or why it was not.
        result: Result<CheckpointDone, String>,
    },
    /// A block of a segment.
    Loaded {
        /// Whose.
        group: GroupId,
        /// Which.
        block: BlockId,
        /// What is in it, or why nothing is.
        loaded: Result<LoadedBlock, LoadError>,
    },
    /// Only the reserve is left, or there is space again.
    Space {
        /// Whether publishes must be refused.
        full: bool,
    },
}
