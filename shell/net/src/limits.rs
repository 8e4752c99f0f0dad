//! The limits of this crate, side by side.

/// What one read may bring: large enough that a busy publisher costs few system calls.
pub const READ_BYTES: usize = 64 * 1024;

/// An output buffer above this size is not kept for the next use.
pub const SPARE_BYTES_MAX: usize = 256 * 1024;

/// How many spare output buffers a shard keeps.
pub const SPARES_MAX: usize = 64;

/// How many blocks a round reads from memory at most: further ones take the way of those that must be waited for, so
/// that a long read leaves other clients their turn.
pub const READS_AT_ONCE_MAX: usize = 64;

/// A shard whose mailbox holds more bytes of other shards' messages is full: clients are not read until it has room.
pub const MAILBOX_BYTES: usize = 4 * 1024 * 1024;

/// What waits for the other servers: above this clients are not read, as long as those servers take it.
pub const LINK_PRESSURE_BYTES: usize = 8 * 1024 * 1024;

/// Frames for other servers with no more bytes than that are written by the shard itself.
pub const LINK_AT_ONCE_BYTES: usize = 16 * 1024;

/// Other servers are read further than clients are, so that their signs of life are not overlooked: up to here.
pub const LINK_MAILBOX_BYTES: usize = 8 * MAILBOX_BYTES;

const _: () = assert!(SPARE_BYTES_MAX >= READ_BYTES, "a reply to one full read fits a kept buffer");
