//! The durable half of one shard as a machine: frames and checkpoints go in, disk operations come out.
//!
//! Invariants: nothing that a durable checkpoint refers to is overwritten or removed; log files are reused only when a
//! durable checkpoint says that reading starts behind them; after a failure nothing is accepted any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Rng, Set, ShardId, Span};

use crate::checkpoint_work::{CheckpointJob, CheckpointRefused, CheckpointWork};
use crate::frame::Frame;
use crate::layout::{Dir, FileId};
use crate::limits::{
    FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, PARTIAL_CHECKPOINTS_MAX, RESERVE_BYTES, WAL_FILE_BYTES,
    WAL_FIRST_BYTES, WAL_HEADER_BYTES, WAL_KEPT, WAL_KEPT_MAX, WAL_SPARES,
};
use crate::op::{DiskError, DiskOp};
use crate::segment::SegmentId;
use crate::vault::Vault;
use crate::wal::{AppendError, Wal, WalLimits, WindowMark};
use crate::wal_window::{FileHeader, WalPosition, WindowKind};
use crate::witness::Witness;

/// When writes become durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SyncPolicy {
    /// Before they are acknowledged.
    #[default]
    Always,
    /// At most this long after they were acknowledged: a power cut may take that much.
    Interval(Span),
}

/// How a shard's store is to be kept.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Which shard.
    pub shard: ShardId,
    /// When writes become durable.
    pub sync: SyncPolicy,
    /// The longest body of a frame, in bytes: the longest batch or the longest message, whichever is longer.
    pub frame_bytes_max: u64,
    /// The length of the first log file.
    pub wal_first_bytes: u64,
    /// The length that log files grow to.
    pub wal_file_bytes: u64,
    /// Log files that are kept ready, the reserve included.
    pub spares: usize,
    /// Bytes kept for a checkpoint on a full disk.
    pub reserve_bytes: u64,
    /// A random number, another one each time the store is opened: tells old log windows from new ones.
    pub salt: u64,
    /// What is damaged is given up, as far as the rest can go on without it: for a repair, never for a server. A full
    /// checkpoint must follow at once.
    pub accept_loss: bool,
    /// What seals and opens what is in the files.
    pub vault: Vault,
}

impl StorageOptions {
    /// The usual sizes.
    pub fn new(shard: ShardId, salt: u64) -> StorageOptions {
        StorageOptions {
            shard,
            sync: SyncPolicy::Always,
            frame_bytes_max: FRAME_BYTES_DEFAULT,
            wal_first_bytes: WAL_FIRST_BYTES,
            wal_file_bytes: WAL_FILE_BYTES,
            spares: WAL_SPARES,
            reserve_bytes: RESERVE_BYTES,
            salt,
            accept_loss: false,
            vault: Vault::default(),
        }
    }

    /// Every file must be able to take the longest frame.
    pub(crate) fn normal(mut self) -> StorageOptions {
        self.frame_bytes_max = self.frame_bytes_max.min(FRAME_BYTES_MAX);
        let least = (self.frame_bytes_max + 2 * WAL_HEADER_BYTES).next_multiple_of(WAL_HEADER_BYTES);
        self.wal_first_bytes = self.wal_first_bytes.max(least);
        self.wal_file_bytes = self.wal_file_bytes.max(self.wal_first_bytes);
        self.spares = self.spares.max(WAL_SPARES);
        self
    }

    pub(crate) fn limits(&self) -> WalLimits {
        WalLimits {
            shard: self.shard,
            vault: self.vault.clone(),
            frame_bytes_max: self.frame_bytes_max,
            file_bytes: self.wal_file_bytes,
        }
    }
}

/// What the store remembers of a group between checkpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupMeta {
    pub applied: LogIndex,
    pub term: u64,
    pub captured: WindowMark,
    pub last_segment: u64,
    pub live: Vec<u64>,
    pub quarantine: Option<Quarantine>,
}

/// A group that is kept but not used.
#[derive(Clone, Debug)]
pub(crate) struct Quarantine {
    pub reason: String,
    pub state: Bytes,
}

/// Files that stay although nothing refers to them: they hold what is left of damaged groups.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub wal: Set<u64>,
    pub checkpoints: Set<u64>,
    pub segments: Set<SegmentId>,
}

/// The durable half of one shard.
#[derive(Debug)]
pub struct Storage {
    pub(crate) options: StorageOptions,
    pub(crate) wal: Wal,
    pub(crate) groups: BTreeMap<GroupId, GroupMeta>,
    /// The checkpoints that hold: a full one and the partial ones that build on it, with their lengths.
    pub(crate) chain: Vec<(u64, u64)>,
    pub(crate) next_checkpoint: u64,
    /// Groups that were dropped; their frames may still be in the log.
    pub(crate) dropped: BTreeMap<GroupId, WindowMark>,
    pub(crate) held: Held,
    pub(crate) checkpoint_runs: bool,
    pub(crate) has_reserve: bool,
    witness: Witness,
    pub(crate) spare_runs: bool,
    disk_full: bool,
    stopped: Option<String>,
    salts: Rng,
}

/// What an append did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// What to tell `handle_synced`.
    pub position: WalPosition,
    /// How many frames were taken, in order. The others need the next log file: see [`Storage::spare_job`].
    pub taken: usize,
}

/// A spare log file that is being made.
#[derive(Debug)]
pub struct SpareJob {
    ops: Vec<DiskOp>,
    header: FileHeader,
}

impl SpareJob {
    /// What to run, in order.
    pub fn take_ops(&mut self) -> Vec<DiskOp> {
        std::mem::take(&mut self.ops)
    }

    /// The files that it takes away: whoever has one open must close it, for that keeps its space.
    pub fn removes(&self) -> impl Iterator<Item = FileId> + '_ {
        self.ops.iter().filter_map(DiskOp::removes)
    }
}

/// What recovery hands over.
pub(crate) struct StorageParts {
    pub options: StorageOptions,
    pub wal: Wal,
    pub groups: BTreeMap<GroupId, GroupMeta>,
    pub chain: Vec<(u64, u64)>,
    pub next_checkpoint: u64,
    pub dropped: BTreeMap<GroupId, WindowMark>,
    pub held: Held,
    pub has_reserve: bool,
    pub witness: Witness,
    pub salts: Rng,
}

impl Storage {
    pub(crate) fn new(parts: StorageParts) -> Storage {
        let StorageParts {
            options,
            wal,
            groups,
            chain,
            next_checkpoint,
            dropped,
            held,
            has_reserve,
            witness,
            salts,
        } = parts;
        Storage {
            options,
            wal,
            groups,
            chain,
            next_checkpoint,
            dropped,
            held,
            checkpoint_runs: false,
            has_reserve,
            witness,
            spare_runs: false,
            disk_full: false,
            stopped: None,
            salts,
        }
    }

    /// Adds frames to the log, all if the log files that are ready have space for them, otherwise the first so many.
    /// The operations are one write, mostly, and with `SyncPolicy::Always` one sync; the frames are durable once they
    /// have run and `handle_synced` was told. On a full disk all are taken or none.
    pub fn append(&mut self, frames: &[Frame], ops: &mut Vec<DiskOp>) -> Result<Appended, AppendError> {
        self.check_running()?;
        let is_last_space = self.disk_full && !self.spare_runs;
        let taken = self.wal.append(frames, is_last_space, ops).map_err(|error| match error {
            AppendError::NotReady if is_last_space => AppendError::Full,
            other => other,
        })?;
        if self.options.sync == SyncPolicy::Always {
            self.wal.sync(ops);
        }
        Ok(Appended { position: self.wal.end(), taken })
    }

    /// Syncs what `SyncPolicy::Interval` left open; gives the position that is durable afterwards.
    pub fn sync(&mut self, ops: &mut Vec<DiskOp>) -> WalPosition {
        if self.stopped.is_none() {
            self.wal.sync(ops);
        }
        self.wal.end()
    }

    /// Writes a window that says how far the log is durable. Damage before that place can then be told from a torn tail:
    /// worth doing when nothing else is written for a while, and before closing. Gives the position as `append` does.
    pub fn mark(&mut self, ops: &mut Vec<DiskOp>) -> Result<WalPosition, AppendError> {
        self.check_running()?;
        // Also where the file has no room for the window: the position is durable once the operations have run.
        self.wal.mark(WindowKind::Mark, ops);
        self.wal.sync(ops);
        // After the sync: what it says is so by then.
        self.witness.durable = self.wal.end();
        self.witness.count += 1;
        ops.extend(self.witness.ops(self.options.shard));
        Ok(self.wal.end())
    }

    /// All operations up to a position have run, syncs included.
    pub fn handle_synced(&mut self, position: WalPosition) {
        self.wal.handle_synced(position);
    }

    /// A write, a sync or a rename failed: nothing is accepted any more. What was not durable must not be acknowledged.
    pub fn handle_failed(&mut self, error: &DiskError) {
        if self.stopped.is_none() {
            self.stopped = Some(error.to_string());
        }
    }

    /// What to run after a write or a sync of the log has failed; what fails among these is only told. Makes void what was
    /// written and is not durable: the system may show it as if it were, call it clean and never write it, so that a
    /// server that is started without a new boot would build on what the disk does not have.
    pub fn void(&self, error: &DiskError) -> Vec<DiskOp> {
        let DiskError::Failed { place, .. } = error else { return Vec::new() };
        match FileId::parse(Dir::Root, place) {
            Some(FileId::Wal(number)) if number >= self.wal.durable().file => self.wal.void(),
            // What the log has is durable, and the witness may say so already. So has a file that the log has left behind, and that is
            // only overwritten.
            _ => Vec::new(),
        }
    }

    /// Why the store stopped.
    pub fn failure(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// The next log file to make beside the writer, if one is wanted. One at a time: `handle_spare` ends it.
    pub fn spare_job(&mut self) -> Option<SpareJob> {
        if self.stopped.is_some() || self.spare_runs || self.wal.spares() >= self.options.spares {
            return None;
        }
        self.spare_runs = true;
        let (header, ops) = self.wal.make_spare(self.salts.next_u64(), self.disk_full);
        Some(SpareJob { ops, header })
    }

    /// A spare is ready, or could not be made; what to run then.
    pub fn handle_spare(&mut self, job: SpareJob, result: Result<(), DiskError>) -> Vec<DiskOp> {
        assert!(self.spare_runs, "a spare is handled once");
        self.spare_runs = false;
        match result {
            Ok(()) => {
                self.wal.handle_spare(job.header);
                self.disk_full = false;
                Vec::new()
            }
            Err(DiskError::Full { .. }) => {
                self.disk_full = true;
                vec![DiskOp::Remove(FileId::Wal(job.header.number))]
            }
            Err(error) => {
                self.handle_failed(&error);
                // The system may show it whole though it is not: the next start must not take it for a spare.
                vec![DiskOp::Remove(FileId::Wal(job.header.number))]
            }
        }
    }

    /// Whether only the reserve is left: what needs more space must be refused, what frees space still fits.
    pub fn is_full(&self) -> bool {
        self.disk_full && self.wal.spares() < WAL_SPARES
    }

    /// Bytes that the log takes without a further file.
    pub fn space_left(&self) -> u64 {
        self.wal.space_left()
    }

    /// Bytes of log that a checkpoint could set free: a reason to begin one.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.bytes_in_use()
    }

    /// Where the log ends.
    pub fn end(&self) -> WalPosition {
        self.wal.end()
    }

    /// How far the log is durable.
    pub fn durable(&self) -> WalPosition {
        self.wal.durable()
    }

    /// Whether the next checkpoint should be a full one.
    pub fn wants_full(&self) -> bool {
        let base = self.chain.first().map_or(0, |(_, bytes)| *bytes);
        let partial: u64 = self.chain.iter().skip(1).map(|(_, bytes)| *bytes).sum();
        self.chain.is_empty() || partial > base || self.chain.len() > PARTIAL_CHECKPOINTS_MAX
    }

    /// Groups that are kept in quarantine and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (GroupId, &str)> {
        self.groups
            .iter()
            .filter_map(|(group, meta)| meta.quarantine.as_ref().map(|kept| (*group, &*kept.reason)))
    }

    /// Whether a checkpoint was begun and is not settled.
    pub fn makes_checkpoint(&self) -> bool {
        self.checkpoint_runs
    }

    /// Begins a checkpoint of groups as they are after everything that was appended so far.
    pub fn begin_checkpoint(&mut self, job: CheckpointJob) -> Result<CheckpointWork, CheckpointRefused> {
        if let Some(reason) = &self.stopped {
            return Err(CheckpointRefused::Stopped { reason: reason.clone() });
        }
        CheckpointWork::begin(self, job)
    }

    /// The checkpoint's operations have run, or one failed. What to run then, in order: a failure among these is no
    /// danger. A full disk leaves everything as it was; any other failure stops the store.
    pub fn handle_checkpoint(&mut self, work: CheckpointWork, result: &Result<(), DiskError>) -> Vec<DiskOp> {
        assert!(self.checkpoint_runs, "a checkpoint is handled once");
        self.checkpoint_runs = false;
        match result {
            Ok(()) => work.finish(self),
            Err(DiskError::Full { .. }) => {
                self.disk_full = true;
                let mut ops = work.undo();
                ops.extend(self.wal.surplus(0));
                ops
            }
            Err(error) => {
                self.handle_failed(error);
                // With an interval between syncs, a checkpoint is the one to sync the log.
                self.void(error)
            }
        }
    }

    /// Log files that are no longer needed: kept for spares, removed, or put aside.
    pub(crate) fn release_wal(&mut self, up_to: WalPosition, ops: &mut Vec<DiskOp>) {
        let session = self.wal.next_mark().session;
        let (held, used) = (&self.held.wal, self.wal.files());
        let kept = self.wal.release(up_to, |number| held.contains(&number));
        for number in kept {
            self.held.wal.remove(&number);
            let from = FileId::Wal(number);
            ops.extend(from.quarantined(session).map(|to| DiskOp::Rename { from, to }));
        }
        self.wal.erase_free(ops);
        // What the log took since the last checkpoint it will take again. On a full disk only those stay that are needed
        // to go on.
        let usual = (used - self.wal.files()).clamp(WAL_KEPT, WAL_KEPT_MAX);
        let keep = if self.disk_full { self.options.spares } else { self.options.spares.max(usual) };
        ops.extend(self.wal.surplus(keep));
    }

    /// What makes the reserve again after it was given up.
    pub(crate) fn refill_reserve(&mut self, ops: &mut Vec<DiskOp>) {
        if !std::mem::replace(&mut self.has_reserve, true) {
            ops.push(DiskOp::Create(FileId::Reserve));
            ops.push(DiskOp::Fill { file: FileId::Reserve, offset: 0, len: self.options.reserve_bytes });
            ops.push(DiskOp::SyncDir(Dir::Root));
        }
    }

    fn check_running(&self) -> Result<(), AppendError> {
        match &self.stopped {
            Some(reason) => Err(AppendError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}
