//! The durable half of a running server: the store's machine on a virtual disk, driven as the disk threads drive it.
//!
//! Three lanes run operations side by side, each its own in order: the log's writer, which takes everything that waits
//! into one write and one sync; the checkpoint; the next log file. A fourth reads segments.

use std::collections::VecDeque;

use hw_kit::{GroupId, Rng, Span, Time};
use hw_node::{DiskCompletion, DiskRequest, LoadError};
use hw_store::messages::BlockId;
use hw_store::{
    AppendError, Appended, CheckpointJob, CheckpointWork, DiskError, DiskOp, Erase, Frame, ReadError,
    SegmentReader, SpareJob, Storage, WalPosition,
};
use hw_testkit::disk::{MemDisk, SyncBegun};

use crate::planted::Planted;
use crate::trace::Trace;

/// When a full disk is tried again.
const FULL_RETRY: Span = Span::from_millis(30);

/// Who works on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Writes and syncs the log.
    Writer,
    /// Writes checkpoints and tidies up.
    Checkpoint,
    /// Makes the next log file.
    Spare,
    /// Reads segments.
    Reader,
}

/// What a volume works with.
pub struct Io<'a> {
    /// The disk.
    pub disk: &'a mut MemDisk,
    /// For delays.
    pub rng: &'a mut Rng,
    /// What happened.
    pub trace: &'a mut Trace,
    /// What time it is.
    pub now: Time,
    /// What ends when: to be planned by the caller.
    pub planned: Vec<(Lane, Span)>,
}

#[derive(Default)]
struct Track {
    ops: VecDeque<DiskOp>,
    running: Option<Running>,
}

enum Running {
    Sync(SyncBegun),
    Other(Result<(), DiskError>),
}

enum Waiting {
    Append { ticket: u64, frames: Vec<Frame> },
    Checkpoint(CheckpointJob),
}

/// The store of a running server.
pub struct Volume {
    storage: Storage,
    reader: SegmentReader,
    waiting: VecDeque<Waiting>,
    writer: Track,
    checkpoint: Track,
    spare: Track,
    /// The last ticket that will be complete, and where the log ends then.
    writing: Option<(Option<u64>, WalPosition)>,
    marking: Option<WalPosition>,
    /// Whether something was written since the last mark.
    unmarked: bool,
    making: Option<CheckpointWork>,
    /// A checkpoint has failed while the log was written: the writer, which is one thread, hears of it after that.
    failed: Option<DiskError>,
    /// What the last checkpoint superseded, and whether the shard has taken notice of its end.
    superseded: VecDeque<DiskOp>,
    may_tidy: bool,
    sparing: Option<SpareJob>,
    /// After a failure for want of space the next attempt waits.
    spare_after: Time,
    loads: VecDeque<(GroupId, BlockId, bool)>,
    loading: bool,
    was_full: bool,
    /// An append was refused: nothing that was proposed after it can be written.
    refused: bool,
    checkpoints: u64,
    /// Segments that were made of others.
    rewritten: u64,
    planted: Planted,
    done: Vec<DiskCompletion>,
}

impl Volume {
    /// A store that was just recovered.
    pub fn new(storage: Storage, planted: Planted) -> Volume {
        Volume {
            storage,
            reader: SegmentReader::new(4, hw_store::Vault::default()),
            waiting: VecDeque::new(),
            writer: Track::default(),
            checkpoint: Track::default(),
            spare: Track::default(),
            writing: None,
            marking: None,
            unmarked: false,
            making: None,
            failed: None,
            superseded: VecDeque::new(),
            may_tidy: false,
            sparing: None,
            spare_after: Time(0),
            loads: VecDeque::new(),
            loading: false,
            was_full: false,
            refused: false,
            checkpoints: 0,
            rewritten: 0,
            planted,
            done: Vec::new(),
        }
    }

    /// A request of the shard.
    pub fn submit(&mut self, request: DiskRequest) {
        match request {
            DiskRequest::Append { ticket, frames } => {
                self.waiting.push_back(Waiting::Append { ticket, frames })
            }
            DiskRequest::Checkpoint(job) => self.waiting.push_back(Waiting::Checkpoint(job)),
            DiskRequest::Load { group, block, check } => self.loads.push_back((group, block, check)),
            DiskRequest::Tidy => self.may_tidy = true,
        }
    }

    /// What has ended since the last call.
    pub fn take_done(&mut self) -> Vec<DiskCompletion> {
        std::mem::take(&mut self.done)
    }

    /// Checkpoints that were completed.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// Segments that were made of others.
    pub fn rewritten(&self) -> u64 {
        self.rewritten
    }

    /// Whether only the reserve is left.
    pub fn is_full(&self) -> bool {
        self.storage.is_full()
    }

    /// Whether the store has stopped.
    pub fn has_failed(&self) -> bool {
        self.storage.failure().is_some() || self.refused
    }

    /// Starts what can start.
    pub fn pump(&mut self, io: &mut Io<'_>) {
        if self.sparing.is_none()
            && self.spare.is_idle()
            && io.now >= self.spare_after
            && let Some(mut job) = self.storage.spare_job()
        {
            self.spare.ops = job.take_ops().into();
            self.sparing = Some(job);
            self.advance(Lane::Spare, io);
        }
        // Before the next checkpoint, which may forget what explains the files that go.
        if std::mem::take(&mut self.may_tidy) {
            self.checkpoint.ops.append(&mut self.superseded);
            if self.checkpoint.running.is_none() && !self.checkpoint.ops.is_empty() {
                self.advance(Lane::Checkpoint, io);
            }
        }
        if self.writing.is_none() && self.writer.is_idle() {
            self.write_next(io);
        }
        if !self.loading && !self.loads.is_empty() {
            self.loading = true;
            io.planned.push((Lane::Reader, delay(io.rng, 100)));
        }
        let is_full = self.storage.is_full();
        if is_full != self.was_full {
            self.was_full = is_full;
            self.done.push(DiskCompletion::Space { full: is_full });
        }
    }

    /// What was planned for a lane has ended.
    pub fn handle_end(&mut self, lane: Lane, io: &mut Io<'_>) {
        if lane == Lane::Reader {
            self.read(io);
        } else if let Some(running) = self.track(lane).running.take() {
            let result = match running {
                Running::Sync(begun) => io.disk.finish_sync(begun).map(|_| ()),
                Running::Other(result) => result,
            };
            match result {
                Ok(()) => self.advance(lane, io),
                Err(error) => {
                    self.track(lane).ops.clear();
                    self.lane_ended(lane, Err(error), io);
                }
            }
        }
        self.pump(io);
    }

    fn track(&mut self, lane: Lane) -> &mut Track {
        match lane {
            Lane::Checkpoint => &mut self.checkpoint,
            Lane::Spare => &mut self.spare,
            Lane::Writer | Lane::Reader => &mut self.writer,
        }
    }

    /// Starts a lane's next operation, or ends the lane's work.
    fn advance(&mut self, lane: Lane, io: &mut Io<'_>) {
        let Some(op) = self.track(lane).ops.pop_front() else {
            return self.lane_ended(lane, Ok(()), io);
        };
        if self.planted == Planted::AckBeforeSync && lane == Lane::Writer && matches!(op, DiskOp::Sync(_)) {
            self.acknowledge();
        }
        io.trace.disk(io.now, &op);
        let (running, micros) = match io.disk.begin_sync(&op) {
            Some(Ok(begun)) => (Running::Sync(begun), 400),
            Some(Err(error)) => (Running::Other(Err(error)), 10),
            None => (Running::Other(io.disk.run(op).map(|_| ())), 60),
        };
        self.track(lane).running = Some(running);
        io.planned.push((lane, delay(io.rng, micros)));
    }

    fn lane_ended(&mut self, lane: Lane, result: Result<(), DiskError>, io: &mut Io<'_>) {
        match lane {
            Lane::Writer => self.writer_ended(result, io),
            Lane::Checkpoint => self.checkpoint_ended(result, io),
            Lane::Spare => {
                let Some(job) = self.sparing.take() else { return };
                if matches!(result, Err(DiskError::Full { .. })) {
                    self.spare_after = io.now + FULL_RETRY;
                    io.planned.push((Lane::Spare, FULL_RETRY));
                }
                self.spare.ops = self.storage.handle_spare(job, result).into();
                if !self.spare.ops.is_empty() {
                    self.advance(Lane::Spare, io);
                }
            }
            Lane::Reader => {}
        }
    }

    fn writer_ended(&mut self, result: Result<(), DiskError>, io: &mut Io<'_>) {
        match result {
            Ok(()) => {
                let written = self.writing.map(|(_, position)| position);
                if let Some(position) = written.or(self.marking.take()) {
                    self.storage.handle_synced(position);
                }
                self.acknowledge();
                self.writing = None;
                self.unmarked |= written.is_some();
            }
            Err(error) => {
                self.storage.handle_failed(&error);
                for op in self.storage.void(&error) {
                    io.trace.disk(io.now, &op);
                    // Where this fails, too, the next start may find what is not durable.
                    let _ = io.disk.run(op);
                }
                self.writing = None;
                self.done.push(DiskCompletion::Failed { reason: error.to_string() });
            }
        }
        if let Some(error) = self.failed.take() {
            self.checkpoint_ended(Err(error), io);
        }
    }

    fn acknowledge(&mut self) {
        if let Some((Some(ticket), _)) = self.writing {
            self.done.push(DiskCompletion::Synced { ticket });
        }
    }

    fn write_next(&mut self, io: &mut Io<'_>) {
        while let Some(Waiting::Checkpoint(_)) = self.waiting.front() {
            let Some(Waiting::Checkpoint(job)) = self.waiting.pop_front() else { return };
            self.begin_checkpoint(job, io);
        }
        let mut frames = Vec::new();
        for waiting in &self.waiting {
            let Waiting::Append { frames: more, .. } = waiting else { break };
            frames.extend(more.iter().cloned());
        }
        if frames.is_empty() || self.refused {
            return self.mark(io);
        }
        let mut ops = Vec::new();
        match self.storage.append(&frames, &mut ops) {
            Ok(Appended { position, taken }) => {
                self.writing = Some((self.take_frames(taken), position));
                self.writer.ops = ops.into();
                self.advance(Lane::Writer, io);
            }
            // When the next log file is ready, or when there is space, this is tried again.
            Err(AppendError::NotReady | AppendError::Full) => {}
            Err(error) => {
                self.refused = true;
                self.waiting.clear();
                self.done.push(DiskCompletion::Failed { reason: error.to_string() });
            }
        }
    }

    /// The first so many frames are being written; gives the last ticket of which that is all.
    fn take_frames(&mut self, mut taken: usize) -> Option<u64> {
        let mut complete = None;
        while let Some(Waiting::Append { ticket, frames }) = self.waiting.front_mut() {
            if frames.len() > taken {
                frames.drain(..taken);
                break;
            }
            taken -= frames.len();
            complete = Some(*ticket);
            self.waiting.pop_front();
        }
        complete
    }

    /// Now and then an idle writer says how far the log is durable.
    fn mark(&mut self, io: &mut Io<'_>) {
        let mut ops = Vec::new();
        if self.unmarked && io.rng.chance(1, 8) && self.storage.mark(&mut ops).is_ok() {
            self.unmarked = false;
            self.marking = Some(self.storage.end());
            self.writer.ops = ops.into();
            self.advance(Lane::Writer, io);
        }
    }

    fn begin_checkpoint(&mut self, mut job: CheckpointJob, io: &mut Io<'_>) {
        if self.planted == Planted::KeptBytes {
            job.erase = Erase::default();
        }
        match self.storage.begin_checkpoint(job) {
            Ok(work) => {
                self.making = Some(work);
                if self.checkpoint.is_idle() {
                    self.advance(Lane::Checkpoint, io);
                }
            }
            Err(refused) => {
                self.done.push(DiskCompletion::Checkpointed { result: Err(refused.to_string()) });
            }
        }
    }

    fn checkpoint_ended(&mut self, result: Result<(), DiskError>, io: &mut Io<'_>) {
        if self.writer.running.is_some()
            && let Err(error) = result
        {
            self.failed = Some(error);
            return;
        }
        let Some(mut work) = self.making.take() else { return };
        let more = if result.is_ok() { work.next_ops() } else { None };
        if let Some(ops) = more {
            self.checkpoint.ops = ops.into();
            self.making = Some(work);
            return self.advance(Lane::Checkpoint, io);
        }
        let done = work.done().clone();
        self.superseded.extend(self.storage.handle_checkpoint(work, &result));
        self.checkpoints += u64::from(result.is_ok());
        if result.is_ok() {
            // One of a group's segments is new; a second one comes of older ones.
            let twice = done.written.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
            self.rewritten += twice as u64;
            done.removed.iter().for_each(|&segment| self.reader.handle_dropped(segment));
        }
        let result = result.map(|()| done).map_err(|error| error.to_string());
        self.done.push(DiskCompletion::Checkpointed { result });
    }

    fn read(&mut self, io: &mut Io<'_>) {
        self.loading = false;
        let Some((group, block, check)) = self.loads.pop_front() else { return };
        if self.planted == Planted::LostReads && io.rng.chance(1, 4) {
            return;
        }
        let Io { disk, trace, now, .. } = io;
        let mut run = |op: DiskOp| {
            trace.disk(*now, &op);
            disk.run(op)
        };
        let loaded = self.reader.load(group, block, &mut run).and_then(|loaded| match check {
            true => Ok(loaded.checked()?),
            false => Ok(loaded),
        });
        let loaded = loaded.map_err(|error| match error {
            ReadError::Failed { .. } => LoadError::Failed(error.to_string()),
            ReadError::Damaged(_) | ReadError::NoBlock { .. } => LoadError::Damaged(error.to_string()),
        });
        self.done.push(DiskCompletion::Loaded { group, block, loaded });
    }
}

impl Track {
    fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.running.is_none()
    }
}

/// Around so many microseconds; now and then far more.
fn delay(rng: &mut Rng, micros: u64) -> Span {
    let slow = if rng.chance(1, 50) { 20 } else { 1 };
    Span((1000 * slow * (micros / 2 + rng.below(micros))) as i64)
}
