//! The limits of this crate, side by side.

use hw_kit::Span;

/// The longest body of one frame: longer ones travel in pieces, so that a beat never waits behind more than this.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;

/// A body of so many bytes is not copied out of what was read.
pub(crate) const SHARED_BYTES: usize = 64 * 1024;

/// What is handed to a socket at once, at most about this much.
pub(crate) const WRITE_BYTES: usize = 256 * 1024;

/// The longest body that is put together again from pieces.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What may wait for a peer: more breaks the link.
pub const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// The longest text in a hello.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

/// How many client addresses, or members, one frame names.
pub(crate) const LIST_MAX: usize = 1024;

/// Connections that have not shown who they are.
pub(crate) const STRANGERS_MAX: usize = 128;

/// Addresses that are dialled.
pub(crate) const TARGETS_MAX: usize = 1024;

/// How often each side says that it is alive.
pub const BEAT_EVERY: Span = Span::from_millis(100);

/// A peer that says nothing for this long is suspected.
pub const QUIET_AFTER: Span = Span::from_millis(400);

/// A connection to the cluster port on which nothing was said for this long is no server of ours: those speak first.
pub(crate) const FOREIGN_AFTER: Span = Span::from_secs(1);

/// How long whom we dialled may take to say hello.
pub(crate) const HELLO_WITHIN: Span = Span::from_secs(5);

/// The pause between two attempts to dial: shorter at first.
pub(crate) const REDIAL_EVERY: Span = Span::from_secs(1);

/// The longest pause with `connect_backoff`.
pub(crate) const REDIAL_AT_MOST: Span = Span::from_secs(30);

/// How often a server that others told of, or that was linked before, is dialled beyond `connect_retries`.
pub(crate) const LEARNED_ATTEMPTS: u32 = 5;

/// Of two servers that learn of each other, the one with the higher id leaves it to the other for this long.
pub(crate) const COURTESY: Span = Span::from_millis(300);

const _: () = assert!(PIECE_BYTES <= WRITE_BYTES, "a piece fits what is written at once");
