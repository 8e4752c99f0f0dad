//! The limits of this crate, side by side.

/// Interest below this prefix belongs to JetStream.
pub(crate) const API_PREFIX: &str = "$JS.API.";

/// A stream that does not say how many consumers it may have may have so many, as with `nats-server`.
pub(crate) const DEFAULT_MAX_CONSUMERS: i64 = 1000;

/// Reading from clients pauses while this many bytes wait for the disk.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A frame that holds this many bytes is closed; it is longer only by its last command.
pub(crate) const FRAME_BYTES: usize = 1024 * 1024;

/// Frames up to this many bytes together go to the disk under one ticket.
pub(crate) const APPEND_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(APPEND_BYTES * 4 <= UNSYNCED_BYTES_MAX, "several appends fit the wait for one sync");
const _: () = assert!(FRAME_BYTES <= APPEND_BYTES, "one frame is not more than one append");
