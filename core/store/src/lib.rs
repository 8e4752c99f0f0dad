//! The store: what is kept, where, and how it survives.
//!
//! `messages` is the index of one stream's messages, `wal`, `segment`, `checkpoint` and `recover` are the bytes on disk.
//! Nothing here does I/O: bytes come in, operations go out. The store knows no JetStream rule and no permission.
//!
//! # The durable half
//! A shard owns one folder with one write-ahead log; it hosts many groups. Bytes: `docs/format.md`. In order of life:
//!
//! 1. [`recover`]`(options, disk, each)`: `disk` runs one [`DiskOp`] and answers; `each` gets, in this order, every
//!    [`Recovered::Group`] (state of the last checkpoint) followed by its [`Recovered::Segment`]s (where their indexes
//!    are, no messages), then every [`Recovered::Replay`] in log order (entries that are not yet in the group's state: `skip` the
//!    first so many). [`Recovered::Damaged`] may come at any point. The result is a [`Storage`].
//! 2. [`FrameBuilder`] → [`Frame`]: consecutive commands of one group. A replicated group overwrites an uncommitted
//!    suffix by appending a frame whose `first` is not after its last index; a gap is refused. [`FrameKind::Note`] is a
//!    group's small state outside of its log (term, vote, commit); the last one counts, and a checkpoint that contains the
//!    group replaces it.
//! 3. [`Storage::append`]`(&[Frame], &mut Vec<DiskOp>) -> Result<Appended, AppendError>`: one window, one write, one
//!    sync. When the ops have run: [`Storage::handle_synced`]`(position)`, or [`Storage::handle_failed`] once and for all.
//!    Takes fewer frames (`taken`) or says `NotReady` when the next log file is still being made: see 5.
//! 4. [`Storage::begin_checkpoint`]`(CheckpointJob) -> CheckpointWork` (plain data that may go to another thread): run
//!    what [`CheckpointWork::next_ops`] gives until None, then [`Storage::handle_checkpoint`]`(work, result)` gives the ops
//!    that tidy up. One at a time. The job holds the groups that changed since they were last in one; `full` ones all.
//! 5. [`Storage::spare_job`] / [`Storage::handle_spare`]: the next log file, made ready beside the writer.
//!    [`Storage::is_full`] says that only the reserve is left: publishes must be refused, deletes still fit.
//! 6. [`SegmentReader::load`] → one [`LoadedBlock`], whose messages are checked as they are taken. [`check_store`] verifies all.

mod block;
mod bytes_io;
mod check;
mod checkpoint;
mod checkpoint_work;
mod convert;
mod damage;
mod frame;
pub mod index;
mod keys;
pub mod layout;
pub mod limits;
pub mod messages;
pub mod op;
mod packed;
pub mod record;
mod recover;
mod salvage;
mod sealed;
pub mod segment;
mod segment_reader;
mod storage;
mod vault;
mod wal;
mod wal_scan;
mod wal_window;
mod witness;

pub use block::LoadedBlock;
pub use check::{CheckReport, check_store};
pub use checkpoint_work::{
    CheckpointDone, CheckpointJob, CheckpointRefused, CheckpointWork, Erase, GroupCheckpoint, NewSegment,
};
pub use convert::{Converted, convert, is_anything_sealed};
pub use damage::{Damage, Flaw};
pub use frame::{Entries, Frame, FrameBuilder, FrameKind, FrameMeta};
pub use keys::{KEYS_BYTES, Keys, KeysError, WRAP_SALT_BYTES};
pub use layout::{Dir, FileId, Kept};
pub use messages::Messages;
pub use op::{Disk, DiskAnswer, DiskError, DiskOp, DiskResult, run_all};
pub use record::Record;
pub use recover::{RecoverError, Recovered, RecoveredGroup, RecoveryReport, Replay, recover};
pub use salvage::{Salvaged, inspect, read_what_is_left, salvage};
pub use segment::{SegmentId, SegmentInfo};
pub use segment_reader::{ReadError, SegmentReader};
pub use storage::{Appended, SpareJob, Storage, StorageOptions, SyncPolicy};
pub use vault::{Cipher, KEY_BYTES, SEAL_BYTES, SESSION_SALT_BYTES, StoreKey, Vault};
pub use wal::AppendError;
pub use wal_window::WalPosition;
