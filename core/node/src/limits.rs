//! The limits of this crate, side by side.

use hw_kit::Span;

/// Interest below this prefix belongs to JetStream.
pub(crate) const API_PREFIX: &str = "$JS.API.";

/// A stream that does not say how many consumers it may have may have so many, as with `nats-server`.
pub const DEFAULT_MAX_CONSUMERS: i64 = 1000;

/// Reading from clients pauses while this many bytes wait for the disk.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A frame that holds this many bytes is closed; it is longer only by its last command.
pub const FRAME_BYTES: usize = 1024 * 1024;

/// Frames up to this many bytes together go to the disk under one ticket.
pub(crate) const APPEND_BYTES: usize = 4 * 1024 * 1024;

/// One command brings so many acknowledgements of a consumer that came together.
pub(crate) const ACKS_AT_ONCE: usize = 4096;

/// A feed from another stream copies so many messages with one command,
pub(crate) const FEED_BATCH: usize = 256;

/// or so many bytes and the message that goes beyond,
pub(crate) const FEED_BATCH_BYTES: usize = 256 * 1024;

/// and has so many commands on their way.
pub(crate) const FEED_BATCHES: usize = 4;

/// A backup on its way out reads or sends about so much in one round, then others go first.
pub(crate) const SNAPSHOT_ROUND_BYTES: usize = 2 * 1024 * 1024;

/// A backup on its way in is read up to so much in one round,
pub(crate) const RESTORE_ROUND_BYTES: usize = 1024 * 1024;

/// and not at all while more than this waits for the disk.
pub(crate) const RESTORE_AHEAD_BYTES: usize = 16 * 1024 * 1024;

/// A client that does not wait for answers may be so far ahead: the longest piece of an archive and what follows it.
pub(crate) const RESTORE_WAITING_BYTES: usize = 32 * 1024 * 1024;

/// The longest configuration of a consumer in a backup.
pub(crate) const RESTORE_CONFIG_BYTES: usize = 512 * 1024;

/// One command brings so many deliveries of a consumer that wait for an acknowledgement.
pub(crate) const RESTORE_PENDING: usize = 16 * 1024;

/// Others go first for so long.
pub(crate) const TRANSFER_ROUND: Span = Span::from_millis(1);

const _: () =
    assert!(RESTORE_AHEAD_BYTES + FRAME_BYTES < UNSYNCED_BYTES_MAX, "a restore never stops publishers");
const _: () = assert!(RESTORE_PENDING * 28 + RESTORE_CONFIG_BYTES <= FRAME_BYTES, "a consumer fits a frame");
/// Messages of batches that are not complete are kept in memory up to so many bytes.
pub(crate) const STAGED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// So many damaged places are listed; further ones are counted.
pub(crate) const FINDINGS_MAX: usize = 1000;

/// Deleted messages that are to be overwritten on disk usually wait so long for others.
pub const ERASE_AFTER: Span = Span::from_secs(10);

/// So many bytes of removed messages that are in segments are a reason to look which of these are worth rewriting,
pub(crate) const TIDY_BYTES: u64 = 1024 * 1024;

/// so long after.
pub(crate) const TIDY_AFTER: Span = Span::from_secs(2);

/// Between a checkpoint and the next one that only cleans.
pub(crate) const REWRITE_PAUSE: Span = Span::from_secs(1);

/// A checkpoint that did not fit on the disk is tried again after at most this long.
pub(crate) const FULL_RETRY_MAX: Span = Span::from_secs(16);

const _: () = assert!(FEED_BATCH_BYTES * FEED_BATCHES <= FRAME_BYTES, "one feed fills one frame");
const _: () = assert!(APPEND_BYTES * 4 <= UNSYNCED_BYTES_MAX, "several appends fit the wait for one sync");
const _: () = assert!(FRAME_BYTES <= APPEND_BYTES, "one frame is not more than one append");

/// How far consumers have come whose deliveries are not in a replicated log one by one, the log is told this long after
/// the first of them.
pub(crate) const PROGRESS_EVERY: Span = Span::from_secs(1);

/// Segments are read in the background for damage, for the first time so long after the start,
pub(crate) const SCRUB_AFTER_START: Span = Span::from_secs(10);

/// and again so long after the last time began;
pub(crate) const SCRUB_EVERY: Span = Span::from_secs(24 * 3600);

/// so many pages of an index at once.
pub(crate) const SCRUB_PAGES: u32 = 16;

/// Replicas are compared at most this often, after something has changed,
pub(crate) const COMPARE_EVERY: Span = Span::from_secs(10);

/// and a state of more than so many bytes (messages are not part of it) in a second as often as makes so much.
pub(crate) const COMPARE_BYTES_A_SECOND: i64 = 1 << 20;

/// A leader sends a follower up to so many bytes in one message,
pub(crate) const APPEND_MAX_BYTES: u64 = 1024 * 1024;

/// and so many messages before the follower has answered the first.
pub(crate) const INFLIGHT_APPENDS: usize = 64;

/// Entries that are in a checkpoint stay in memory for followers that are behind, up to so many bytes for each group.
pub(crate) const LOG_TAIL_BYTES: u64 = 8 * 1024 * 1024;

/// and all groups together so many.
pub(crate) const LOG_TAILS_BYTES: u64 = 256 * 1024 * 1024;

/// A replica with damaged messages asks for so many rows of them at once.
pub(crate) const WANT_ROWS: usize = 4096;

/// What may be proposed to one replicated stream and not decided yet, in bytes,
pub(crate) const BUFFERED_BYTES: u64 = 128 * 1024 * 1024;

/// in messages,
pub(crate) const BUFFERED_COUNT: u64 = 100_000;

/// and in bytes to all streams together.
pub(crate) const BUFFERED_BYTES_ALL: u64 = 512 * 1024 * 1024;

/// Messages for a stream that is led elsewhere leave in frames of about so many bytes.
pub(crate) const FORWARD_BYTES: usize = 1024 * 1024;

/// Messages for streams without a leader wait, up to so many bytes in all.
pub(crate) const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A follower that fetches a group's state gets so many bytes of messages in one piece.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;
