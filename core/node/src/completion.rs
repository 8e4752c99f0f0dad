//! What the disk tells a shard.

use hw_kit::GroupId;
use hw_store::CheckpointDone;
use hw_store::messages::{BlockId, Message};

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
        /// Its messages, or what is wrong with it.
        messages: Result<Vec<Message>, String>,
    },
    /// Only the reserve is left, or there is space again.
    Space {
        /// Whether publishes must be refused.
        full: bool,
    },
}
