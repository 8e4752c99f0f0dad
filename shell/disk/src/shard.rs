//! One shard's disk as its node sees it: queues in, completions out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use hw_kit::{GroupId, ShardId};
use hw_store::messages::BlockId;
use hw_store::{
    AppendError, CheckReport, CheckpointDone, CheckpointJob, CheckpointRefused, DiskError, Frame,
    LoadedBlock, ReadError, RecoverError, Recovered, RecoveryReport, StorageOptions, SyncPolicy, Vault,
    check_store, recover,
};

use crate::background::run_background;
use crate::folder::Folder;
use crate::lock::StoreDir;
use crate::queue::{Job, Queue, QueueFull};
use crate::reads::{ReadJob, Reads};
use crate::sync_times::SyncTimes;
use crate::writer::{Batch, Timers, Writer};

/// Bytes of frames that wait for the writer.
const QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Blocks that wait for the reader.
const READS_MAX: usize = 4096;
/// Jobs that wait for the background thread: one checkpoint, one spare, and what tidies up after each.
const BACKGROUND_MAX: usize = 16;
/// An append with more bytes is left to the writer's thread: what comes meanwhile then makes the next one.
const AT_ONCE_BYTES: u64 = 1024;
/// And one on a disk whose syncs take longer: the shard must not stand still.
const AT_ONCE_SYNC: Duration = Duration::from_micros(150);
/// Segments whose tables the reader remembers.
const TABLES_MAX: usize = 256;

/// How a shard's disk works.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The store's part.
    pub storage: StorageOptions,
    /// Bytes of frames that may wait for the writer.
    pub queue_bytes_max: u64,
    /// How long the log is idle before it is marked as durable to its end.
    pub mark_after: Duration,
    /// How long a sync may take of late for [`ShardDisk::append_at_once`].
    pub at_once_sync: Duration,
}

impl DiskOptions {
    /// The usual limits.
    pub fn new(storage: StorageOptions) -> DiskOptions {
        DiskOptions {
            storage,
            queue_bytes_max: QUEUE_BYTES_MAX,
            mark_after: Duration::from_secs(1),
            at_once_sync: AT_ONCE_SYNC,
        }
    }
}

/// What the disk has to say. Comes from any of the shard's disk threads: do little there, never block.
#[derive(Debug)]
pub enum Completion {
    /// All appends up to and including this ticket are as durable as the sync policy says.
    Synced {
        /// The highest ticket.
        ticket: u64,
    },
    /// An append was not written.
    Refused {
        /// Which.
        ticket: u64,
        /// Why.
        error: AppendError,
    },
    /// The checkpoint that was asked for has ended.
    Checkpoint(Result<CheckpointDone, CheckpointFailed>),
    /// A block was read, or not.
    Block {
        /// Whose.
        group: GroupId,
        /// Which.
        block: BlockId,
        /// What is in it.
        result: Result<LoadedBlock, ReadError>,
    },
    /// The disk became full, or has space again: see [`ShardDisk::is_full`].
    Space {
        /// Whether it is full.
        full: bool,
    },
    /// The store has stopped: nothing is accepted any more, and what was not completed will not be.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why a checkpoint was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointFailed {
    /// It was not begun.
    #[error(transparent)]
    Refused(#[from] CheckpointRefused),
    /// The disk failed. If it was full, everything is as before.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Gets everything that the disk has to say.
pub type OnCompletion = dyn Fn(Completion) + Send + Sync;

/// Why a shard's disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store is damaged or unreadable.
    #[error("{path}: {error}")]
    Recover {
        /// The shard's folder.
        path: PathBuf,
        /// What is wrong.
        error: RecoverError,
    },
    /// A thread could not be started.
    #[error("cannot start a disk thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Too many reads wait, or the disk is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many reads wait for the disk")]
pub struct Busy;

/// Numbers that the writer keeps up to date.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Bytes of log that a checkpoint could set free.
    pub wal_bytes: AtomicU64,
    /// Bytes that the log takes without a further file.
    pub space_left: AtomicU64,
    /// Whether only the reserve is left.
    pub is_full: AtomicBool,
    /// Whether the next checkpoint should be a full one.
    pub wants_full: AtomicBool,
    /// Windows written: with `SyncPolicy::Always` as many syncs.
    pub windows: AtomicU64,
    /// Whether the store has stopped.
    pub has_failed: AtomicBool,
    /// Syncs of the log.
    pub syncs: SyncTimes,
    /// Checkpoints that were written.
    pub checkpoints: AtomicU64,
    /// Checkpoints that were begun and not written.
    pub checkpoints_failed: AtomicU64,
}

/// The disk of one shard. Dropping it closes it.
pub struct ShardDisk {
    queue: Arc<Queue>,
    /// For appends at once, with the longest sync for them; None: there are none.
    at_once: Option<(Arc<Mutex<Writer>>, Duration)>,
    reader: Option<SyncSender<ReadJob>>,
    reads: Reads,
    gauges: Arc<Gauges>,
    threads: Vec<JoinHandle<()>>,
    /// The lock must outlive the threads.
    store: Arc<StoreDir>,
}

impl ShardDisk {
    /// Recovers the shard's folder, handing what is found to `each`, and starts the threads.
    pub fn open(
        store: &Arc<StoreDir>,
        options: DiskOptions,
        each: &mut dyn FnMut(Recovered),
        done: Arc<OnCompletion>,
    ) -> Result<(ShardDisk, RecoveryReport), OpenError> {
        let shard = options.storage.shard;
        let path = store.shard_path(shard);
        let mut folder = Folder::new(path.clone());
        let (sync, vault) = (options.storage.sync, options.storage.vault.clone());
        let (storage, report) = recover(options.storage, &mut |op| folder.run(op), each)
            .map_err(|error| OpenError::Recover { path: path.clone(), error })?;
        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        let gauges = Arc::new(Gauges::default());
        // Before the channels: where a thread cannot be started, this is dropped after their senders.
        let (reads, threads, store) =
            (Reads::new(path.clone(), TABLES_MAX, vault), Vec::new(), store.clone());
        let (at_once, reader) = (None, None);
        let mut disk = ShardDisk { queue, at_once, reader, reads: reads.clone(), gauges, threads, store };
        let (background, background_jobs) = sync_channel(BACKGROUND_MAX);
        let (reader, reader_jobs) = sync_channel(READS_MAX);
        let (queue, beside) = (disk.queue.clone(), Folder::new(path.clone()));
        disk.start(shard, "background", move || run_background(beside, &background_jobs, &queue))?;
        let on_read = done.clone();
        disk.start(shard, "reader", move || reads.run(&reader_jobs, &on_read))?;
        let writer = Writer {
            storage,
            // A new one: what recovery opened may be removed by others, and an open handle keeps its space.
            folder: Folder::new(path),
            queue: disk.queue.clone(),
            background,
            reader,
            done,
            gauges: disk.gauges.clone(),
            sync,
            mark_after: options.mark_after,
            timers: Timers::default(),
            held: Batch::default(),
            superseded: Default::default(),
            gathered: None,
        };
        disk.reader = Some(writer.reader.clone());
        let writer = Arc::new(Mutex::new(writer));
        if sync == SyncPolicy::Always {
            disk.at_once = Some((writer.clone(), options.at_once_sync));
        }
        disk.start(shard, "writer", move || Writer::run(&writer))?;
        Ok((disk, report))
    }

    /// Queues frames for the log. Tickets ascend; completions come in their order.
    pub fn append(&self, frames: Vec<Frame>, ticket: u64) -> Result<(), QueueFull> {
        self.queue.append(frames, ticket)
    }

    /// Writes and syncs frames on this thread and gives what is completed, where that is sooner done than handed over: a
    /// small append, nothing under way, and a disk that has been quick of late. Otherwise gives the frames back, for
    /// [`ShardDisk::append`]. Two hand-overs between threads are about what a sync takes.
    pub fn append_at_once(&self, frames: Vec<Frame>, ticket: u64) -> Result<Vec<Completion>, Vec<Frame>> {
        let bytes: u64 = frames.iter().map(|frame| frame.body().len() as u64).sum();
        let recent = self.gauges.syncs.recent();
        let Some((writer, longest)) = &self.at_once else { return Err(frames) };
        if bytes > AT_ONCE_BYTES || recent.is_none_or(|recent| recent > *longest) || !self.queue.claim() {
            return Err(frames);
        }
        // Nobody holds it for long: whoever works with it has the queue.
        let (result, next) = match writer.lock() {
            Ok(mut writer) => match writer.has_space(bytes) {
                true => (Ok(writer.write_now(frames, ticket)), writer.next_time()),
                false => (Err(frames), None),
            },
            Err(_) => (Err(frames), None),
        };
        self.queue.release(next);
        result
    }

    /// Queues a checkpoint of the groups as they are after everything that was appended before. One at a time.
    pub fn checkpoint(&self, job: CheckpointJob) {
        self.queue.control(Job::Checkpoint(job));
    }

    /// Whoever reads has taken notice of the last [`Completion::Checkpoint`]: what it superseded may go. Until then
    /// it stays.
    pub fn tidy(&self) {
        self.queue.control(Job::Tidy);
    }

    /// Queues the read of a block; `check`: as one whose records are all what was written, or not at all.
    pub fn load_block(&self, group: GroupId, block: BlockId, check: bool) -> Result<(), Busy> {
        let reader = self.reader.as_ref().ok_or(Busy)?;
        reader.try_send(ReadJob::Block { group, block, check }).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }

    /// A block, if it can be had without waiting for the disk; otherwise ask for it with
    /// [`ShardDisk::load_block`].
    pub fn load_cached(&self, group: GroupId, block: BlockId) -> Option<Result<LoadedBlock, ReadError>> {
        self.reads.load_cached(group, block)
    }

    /// Whether only the reserve is left: publishes are to be refused, deletes still fit.
    pub fn is_full(&self) -> bool {
        self.gauges.is_full.load(Ordering::Relaxed)
    }

    /// Numbers that are kept up to date.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// The store that this is a part of.
    pub fn store(&self) -> &StoreDir {
        &self.store
    }

    /// Writes what waits, marks the log as complete and ends the threads.
    pub fn close(mut self) {
        self.end();
    }

    fn start(
        &mut self,
        shard: ShardId,
        role: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        // Linux shows the first 15 bytes.
        let name = format!("disk-{shard}-{role}");
        self.threads.push(Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    fn end(&mut self) {
        self.queue.control(Job::Close);
        // The writer drops its senders when it ends, which ends the others.
        (self.reader, self.at_once) = (None, None);
        for thread in self.threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a disk thread of {} panicked", self.store.path().display());
            }
        }
    }
}

impl Drop for ShardDisk {
    fn drop(&mut self) {
        self.end();
    }
}

/// Checks one shard of a store that no server uses.
pub fn check_shard(store: &StoreDir, shard: ShardId, vault: &Vault) -> Result<CheckReport, DiskError> {
    let mut folder = Folder::new(store.shard_path(shard));
    check_store(shard, vault, &mut |op| folder.run(op))
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
