//! Batches on their way into a stream (ADR-50): what only the leader knows. Nothing of it survives a restart, and nothing
//! of an atomic batch is in the log before it is complete.

mod atomic;
mod fast;

use hw_kit::Span;

pub use atomic::{Abandoned, AtomicBatches, AtomicMessage, AtomicStep, BatchRoom, CompleteBatch, batch_id};
pub use fast::{FastBatches, FastMessage, FastOp, FastSay, FastSlot, HandedOn, Returned, Run};

/// What a server allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    /// The messages of an atomic batch.
    pub messages: u64,
    /// Atomic batches that are open at the same time in one stream.
    pub per_stream: usize,
    /// And on the server.
    pub total: usize,
    /// How long a batch may be silent.
    pub timeout: Span,
    /// A command holds messages of a batch up to so many bytes, and the one that goes beyond.
    pub command_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            messages: 1000,
            per_stream: 50,
            total: 1000,
            timeout: Span::from_secs(10),
            command_bytes: 256 << 10,
        }
    }
}

/// The longest name of a batch.
pub const ID_BYTES: usize = 64;

/// Fast batches that are open at the same time in one stream, and on a server.
pub const FAST_PER_STREAM: usize = 1000;
/// See [`FAST_PER_STREAM`].
pub const FAST_TOTAL: usize = 50_000;
