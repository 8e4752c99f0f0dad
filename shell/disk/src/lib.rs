//! Files: the write-ahead log's writer thread, segment and checkpoint files.
//!
//! Nothing here decides what is written: every operation is one that `hw_store` made, run by [`Folder::run`]. Per shard
//! there are three threads: the *writer* owns the [`hw_store::Storage`] and turns everything that waits into one write and
//! one sync; the *background* thread runs checkpoints and makes the next log file; the *reader* loads blocks of segments.
//!
//! ```text
//! let store = StoreDir::open(path)?;                       // takes the lock: one server per store
//! let (disk, report) = ShardDisk::open(&store, options, &mut |recovered| …, Arc::new(|completion| …))?;
//! disk.append(frames, ticket)?;                            // → Completion::Synced { ticket }
//! disk.checkpoint(job)?;                                   // → Completion::Checkpoint(result)
//! disk.load_block(group, block, check)?;                   // → Completion::Block { block, .. }
//! disk.close();                                            // flushes and joins
//! ```

mod background;
mod folder;
mod index;
mod keys;
mod lock;
mod offline;
mod queue;
mod reads;
mod shard;
mod sync_times;
mod writer;

pub use folder::Folder;
pub use index::index_pages;
pub use keys::{KeyError, KeyOptions, Unlocked, look_in, unlock};
pub use lock::{LockError, StoreDir};
pub use offline::{RepairError, inspect_shard, repair_shard, salvage_segments};
pub use queue::QueueFull;
pub use shard::{Busy, Completion, DiskOptions, Gauges, OnCompletion, OpenError, ShardDisk, check_shard};
pub use sync_times::{SYNC_BOUNDS, SyncCounts, SyncTimes};
