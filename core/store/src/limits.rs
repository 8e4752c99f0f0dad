//! Sizes of the durable half, and how they relate. Those that are part of the format are pinned by tests.

/// Windows start at multiples of this, so that no write touches a sector that holds durable bytes.
pub const WINDOW_ALIGN: u64 = 512;
/// Where the first window of a log file starts; before it lie two copies of the file's header.
pub const WAL_HEADER_BYTES: u64 = 4096;
/// The fixed part of a window's head.
pub const WINDOW_HEAD_BYTES: usize = 64;
/// One frame's part of a window's head.
pub const FRAME_HEAD_BYTES: usize = 40;
/// Frame bodies are padded to multiples of this.
pub const BODY_ALIGN: usize = 8;
/// Frames in one window; more go into the next window of the same write.
pub const WINDOW_FRAMES_MAX: usize = 65_536;
/// Bytes of one frame's body if the options do not say otherwise.
pub const FRAME_BYTES_DEFAULT: u64 = 4 << 20;
/// Bytes of one frame's body at most: lengths are 32 bits and a window must not overflow them.
pub const FRAME_BYTES_MAX: u64 = 1 << 30;
/// Bytes of one window at most; more go into the next window.
pub const WINDOW_BYTES_MAX: u64 = 2 << 30;
/// Bodies shorter than this are copied together; longer ones are written from where they are.
pub const GATHER_BYTES: usize = 16 << 10;

/// The first log file of a new store; each further one is twice as long, up to `WAL_FILE_BYTES`.
pub const WAL_FIRST_BYTES: u64 = 8 << 20;
/// A log file at full size.
pub const WAL_FILE_BYTES: u64 = 16 << 20;
/// A new log file is filled in pieces of this size, each made durable before the next: a flush of the whole at once would
/// hold up the log's own.
pub const WAL_FILL_BYTES: u64 = 4 << 20;
/// Log files that are kept for reuse: what a usual distance between checkpoints takes, and the spares.
pub const WAL_KEPT: usize = 6;
/// The same where more were needed since the checkpoint before: as many, up to this.
pub const WAL_KEPT_MAX: usize = 16;
/// Where a log file takes fewer windows than this, a new one is allocated without being filled: that writes all twice,
/// and what flushes save is little for each of the bytes.
pub const WAL_WINDOWS_FILLED: u64 = 256;
/// Log files that are kept ready: one to go on with, one in reserve for a full disk.
pub const WAL_SPARES: usize = 2;
/// A pre-written file that is given up when a checkpoint must be written to a full disk.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// A block of a segment holds records up to this many bytes; a longer record has a block of its own.
pub const BLOCK_BYTES_MAX: usize = 8 << 10;
/// The same before a block is packed: short blocks pack badly.
pub const PACKED_BLOCK_BYTES_MAX: usize = 64 << 10;
/// A segment is handed to the disk in pieces of about this size.
pub const SEGMENT_WRITE_BYTES: usize = 1 << 20;
/// Recovery reads log files in pieces of this size, or one window if that is longer.
pub const SCAN_BYTES: usize = 4 << 20;
/// Pages of indexes that stay in memory while a store is read without a server.
pub const INDEX_CACHE_BYTES: usize = 32 << 20;
/// So much of later log files is searched for the claim that a damaged place was durable.
pub const CLAIM_SEARCH_BYTES: u64 = 64 << 10;

/// After so many partial checkpoints a full one is asked for, whatever their size.
pub const PARTIAL_CHECKPOINTS_MAX: usize = 16;

const _: () =
    assert!(WAL_HEADER_BYTES.is_multiple_of(WINDOW_ALIGN), "the first window is aligned like all others");
const _: () =
    assert!(WINDOW_HEAD_BYTES.is_multiple_of(BODY_ALIGN) && FRAME_HEAD_BYTES.is_multiple_of(BODY_ALIGN));
const _: () =
    assert!(FRAME_BYTES_DEFAULT + 2 * WAL_HEADER_BYTES <= WAL_FIRST_BYTES, "a frame fits into any file");
const _: () = assert!(FRAME_BYTES_MAX < WINDOW_BYTES_MAX && WINDOW_BYTES_MAX < u32::MAX as u64);
const _: () = assert!(WAL_SPARES >= 2, "one spare is the reserve, so one more is needed to go on");
