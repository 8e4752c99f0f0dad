//! The writer: everything that waits becomes one write and one sync, then all tickets complete. It has a thread of its own;
//! a single small append may be written by whoever wants it (see [`Writer::write_now`]).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hw_store::{
    AppendError, Appended, CheckpointJob, CheckpointWork, DiskError, DiskOp, Frame, SegmentId, SpareJob,
    Storage, SyncPolicy,
};

use crate::background::Work;
use crate::folder::Folder;
use crate::queue::{Job, Queue};
use crate::reads::ReadJob;
use crate::shard::{CheckpointFailed, Completion, Gauges, OnCompletion};

/// After a failure to make a log file for lack of space, this long until the next attempt.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Space that the log must have beyond a single append, so that it need not wait for its next file.
const SPACE_MIN: u64 = 64 << 10;

/// The writer of one shard.
pub(crate) struct Writer {
    pub storage: Storage,
    pub folder: Folder,
    pub queue: Arc<Queue>,
    pub background: SyncSender<Work>,
    pub reader: SyncSender<ReadJob>,
    pub done: Arc<OnCompletion>,
    pub gauges: Arc<Gauges>,
    pub sync: SyncPolicy,
    pub mark_after: Duration,
    pub timers: Timers,
    pub held: Batch,
    /// What checkpoints superseded, to be run once nobody reads it any more, and the segments that it removes.
    pub superseded: (Vec<DiskOp>, Vec<SegmentId>),
    /// Where completions are put while somebody waits for them.
    pub gathered: Option<Vec<Completion>>,
}

/// When what is due that nobody asks for.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// `SyncPolicy::Interval`: when what was written must be durable.
    sync: Option<Instant>,
    /// When an idle log gets a window that protects its end.
    mark: Option<Instant>,
    /// When a log file is tried again on a full disk.
    spare: Option<Instant>,
    was_full: bool,
    closing: bool,
}

impl Timers {
    fn next(&self) -> Option<Instant> {
        [self.sync, self.mark, self.spare].into_iter().flatten().min()
    }
}

/// Frames of several calls that make one window.
#[derive(Default)]
pub(crate) struct Batch {
    frames: Vec<Frame>,
    /// How many frames each call brought, and its ticket.
    calls: Vec<(usize, u64)>,
}

impl Writer {
    /// Works until it is told to close.
    pub(crate) fn run(writer: &Mutex<Writer>) {
        let mut this = lock(writer);
        // A thread that panics must not look like one that is slow.
        let mut guard = Guard { done: this.done.clone(), is_clean: false };
        let queue = this.queue.clone();
        this.ask_for_spare();
        this.show_gauges();
        while !this.timers.closing {
            let next = this.timers.next();
            drop(this);
            let mut jobs = queue.take(next);
            this = lock(writer);
            this.handle(&mut jobs);
            this.handle_timers();
            this.ask_for_spare();
            // There may be space now.
            this.write(Batch::default());
            this.show_gauges();
        }
        this.end_checkpoint();
        this.tidy();
        this.close();
        guard.is_clean = true;
    }

    /// Writes and syncs one call's frames on the caller's thread, which has claimed the queue; gives what is completed.
    pub(crate) fn write_now(&mut self, frames: Vec<Frame>, ticket: u64) -> Vec<Completion> {
        self.gathered = Some(Vec::new());
        self.write(Batch { calls: vec![(frames.len(), ticket)], frames });
        self.ask_for_spare();
        self.show_gauges();
        self.gathered.take().unwrap_or_default()
    }

    /// Whether frames can be written without waiting for space.
    pub(crate) fn has_space(&self, bytes: u64) -> bool {
        self.held.calls.is_empty() && self.storage.space_left() > bytes.saturating_mul(2) + SPACE_MIN
    }

    /// When the next timer ends.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn tell(&mut self, completion: Completion) {
        match &mut self.gathered {
            Some(gathered) => gathered.push(completion),
            None => (self.done)(completion),
        }
    }

    fn handle(&mut self, jobs: &mut VecDeque<Job>) {
        // A log file that is ready comes first: the appends before it in the queue may be waiting for it.
        for job in std::mem::take(jobs) {
            match job {
                Job::SpareDone(job, result) => self.handle_spare(job, result),
                other => jobs.push_back(other),
            }
        }
        let mut batch = Batch::default();
        while let Some(job) = jobs.pop_front() {
            match job {
                Job::Append { frames, ticket } => {
                    batch.calls.push((frames.len(), ticket));
                    batch.frames.extend(frames);
                }
                other => {
                    // What a checkpoint captures is what was appended before it.
                    self.write(std::mem::take(&mut batch));
                    self.control(other);
                }
            }
        }
        self.write(batch);
    }

    fn control(&mut self, job: Job) {
        match job {
            Job::Append { .. } => unreachable!("appends are collected"),
            Job::Checkpoint(job) => {
                // A server that stops asks for one more: what that says builds on the one before.
                self.end_checkpoint();
                self.begin_checkpoint(job);
            }
            Job::SpareDone(job, result) => self.handle_spare(job, result),
            Job::CheckpointDone(work, result) => self.handle_checkpoint(*work, result),
            Job::Tidy => self.tidy(),
            Job::Close => self.timers.closing = true,
        }
    }

    /// One write and one sync for the whole batch and what waited for space; if it cannot be written as a whole, call by
    /// call.
    fn write(&mut self, more: Batch) {
        let mut batch = std::mem::take(&mut self.held);
        batch.frames.extend(more.frames);
        batch.calls.extend(more.calls);
        let Some(&(_, last)) = batch.calls.last() else { return };
        let (mut written, result) = self.append(&batch.frames);
        let error = match result {
            Ok(()) => return self.tell(Completion::Synced { ticket: last }),
            Err(AppendError::Full) => return self.hold(batch, written),
            Err(error) => error,
        };
        let mut frames = batch.frames.as_slice();
        for &(count, ticket) in &batch.calls {
            let (now, later) = frames.split_at(count);
            frames = later;
            let before = written.min(count);
            written -= before;
            // What is written must not be written again: it would replace what followed it.
            let result = match &error {
                _ if before == count => Ok(()),
                AppendError::Stopped { .. } => Err(error.clone()),
                _ if batch.calls.len() == 1 => Err(error.clone()),
                _ => self.append(&now[before..]).1,
            };
            self.tell(match result {
                Ok(()) => Completion::Synced { ticket },
                Err(error) => Completion::Refused { ticket, error },
            });
        }
    }

    /// Not even the reserve has space for these: they wait until there is some. Nothing is acknowledged meanwhile.
    fn hold(&mut self, mut batch: Batch, mut written: usize) {
        batch.frames.drain(..written);
        let mut complete = 0;
        for (count, _) in &mut batch.calls {
            let now = written.min(*count);
            (written, *count) = (written - now, *count - now);
            if *count > 0 {
                break;
            }
            complete += 1;
        }
        let done = batch.calls.drain(..complete).next_back();
        self.held = batch;
        if let Some((_, ticket)) = done {
            self.tell(Completion::Synced { ticket });
        }
    }

    /// Writes frames; gives how many, which are all if it succeeds.
    fn append(&mut self, frames: &[Frame]) -> (usize, Result<(), AppendError>) {
        let mut rest = frames;
        while !rest.is_empty() {
            match self.append_some(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) => return (frames.len() - rest.len(), Err(error)),
            }
        }
        let now = Instant::now();
        self.timers.mark = Some(now + self.mark_after);
        if let SyncPolicy::Interval(span) = self.sync {
            let span = Duration::from_nanos(u64::try_from(span.0).unwrap_or(0));
            self.timers.sync.get_or_insert(now + span);
        }
        (frames.len(), Ok(()))
    }

    /// Writes the frames that the log has space for; 0 if it had none but may have now.
    fn append_some(&mut self, frames: &[Frame]) -> Result<usize, AppendError> {
        let mut ops = Vec::new();
        let Appended { position, taken } = match self.storage.append(frames, &mut ops) {
            Err(AppendError::NotReady) => return self.wait_for_spare().map(|()| 0),
            other => other?,
        };
        self.run_all(ops).map_err(|error| self.fail(&error))?;
        self.gauges.windows.fetch_add(1, Ordering::Relaxed);
        if self.sync == SyncPolicy::Always {
            self.storage.handle_synced(position);
        }
        Ok(taken)
    }

    /// The log cannot go on before the background thread has made the next file.
    fn wait_for_spare(&mut self) -> Result<(), AppendError> {
        self.timers.spare = None;
        self.ask_for_spare();
        if self.storage.failure().is_none() {
            let (job, result) = self.queue.take_spare();
            self.handle_spare(job, result);
        }
        match self.storage.failure() {
            Some(reason) => Err(AppendError::Stopped { reason: reason.to_owned() }),
            None => Ok(()),
        }
    }

    fn ask_for_spare(&mut self) {
        let is_due = self.timers.spare.is_none_or(|at| at <= Instant::now());
        if is_due && let Some(job) = self.storage.spare_job() {
            self.timers.spare = None;
            job.removes().for_each(|file| self.folder.forget(file));
            self.send(Work::Spare(job));
        }
    }

    fn handle_spare(&mut self, job: SpareJob, result: Result<(), DiskError>) {
        if matches!(result, Err(DiskError::Full { .. })) {
            self.timers.spare = Some(Instant::now() + FULL_RETRY);
        }
        let cleanup = self.storage.handle_spare(job, result);
        self.report_failure();
        if !cleanup.is_empty() {
            self.send(Work::Cleanup(cleanup));
        }
        self.show_gauges();
    }

    fn begin_checkpoint(&mut self, job: CheckpointJob) {
        match self.storage.begin_checkpoint(job) {
            Ok(work) => self.send(Work::Checkpoint(Box::new(work))),
            Err(refused) => self.tell(Completion::Checkpoint(Err(CheckpointFailed::Refused(refused)))),
        }
    }

    /// Waits until no checkpoint is being made.
    fn end_checkpoint(&mut self) {
        if self.storage.makes_checkpoint() {
            let (work, result) = self.queue.take_checkpoint();
            self.handle_checkpoint(*work, result);
        }
    }

    fn handle_checkpoint(&mut self, work: CheckpointWork, result: Result<(), DiskError>) {
        let written = work.done().clone();
        let count = if result.is_ok() { &self.gauges.checkpoints } else { &self.gauges.checkpoints_failed };
        count.fetch_add(1, Ordering::Relaxed);
        let cleanup = self.storage.handle_checkpoint(work, &result);
        self.report_failure();
        self.superseded.0.extend(cleanup);
        if result.is_ok() {
            self.superseded.1.extend(&written.removed);
        }
        // Nothing is removed before whoever reads it has taken notice: see `tidy`.
        self.tell(Completion::Checkpoint(result.map(|()| written).map_err(CheckpointFailed::Disk)));
        self.show_gauges();
    }

    /// What the last checkpoint superseded goes.
    fn tidy(&mut self) {
        let (cleanup, removed) = std::mem::take(&mut self.superseded);
        if !removed.is_empty() {
            // The reader may be gone only if everything is being closed.
            let _ = self.reader.send(ReadJob::Dropped(removed));
        }
        // An open handle keeps the space of what is removed.
        cleanup.iter().filter_map(DiskOp::removes).for_each(|file| self.folder.forget(file));
        self.send(Work::Cleanup(cleanup));
        // There may be space now.
        self.timers.spare = None;
        self.ask_for_spare();
        self.show_gauges();
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();
        if self.timers.sync.is_some_and(|at| at <= now) {
            self.sync_now();
        }
        if self.timers.mark.is_some_and(|at| at <= now) {
            self.mark_now();
        }
    }

    fn sync_now(&mut self) {
        self.timers.sync = None;
        let mut ops = Vec::new();
        let position = self.storage.sync(&mut ops);
        match self.run_all(ops) {
            Ok(()) => self.storage.handle_synced(position),
            Err(error) => drop(self.fail(&error)),
        }
    }

    fn mark_now(&mut self) {
        self.timers.mark = None;
        if self.timers.sync.is_some() {
            // What the mark claims must be durable first.
            self.sync_now();
        }
        let mut ops = Vec::new();
        let Ok(position) = self.storage.mark(&mut ops) else { return };
        match self.run_all(ops) {
            Ok(()) => self.storage.handle_synced(position),
            Err(error) => drop(self.fail(&error)),
        }
    }

    /// Runs a list and notes how long its syncs take; the first failure ends it.
    fn run_all(&mut self, ops: Vec<DiskOp>) -> Result<(), DiskError> {
        for op in ops {
            let begun = matches!(op, DiskOp::Sync(_)).then(Instant::now);
            self.folder.run(op)?;
            if let Some(begun) = begun {
                self.gauges.syncs.add(begun.elapsed());
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.storage.failure().is_none() {
            self.mark_now();
        }
        self.show_gauges();
    }

    fn fail(&mut self, error: &DiskError) -> AppendError {
        self.storage.handle_failed(error);
        for op in self.storage.void(error) {
            if let Err(error) = self.folder.run(op) {
                tracing::warn!(
                    "{}: the log's end cannot be made void: {error}",
                    self.folder.path().display()
                );
            }
        }
        self.report_failure();
        AppendError::Stopped { reason: error.to_string() }
    }

    fn report_failure(&mut self) {
        if let Some(reason) = self.storage.failure().map(str::to_owned)
            && !self.gauges.has_failed.swap(true, Ordering::Relaxed)
        {
            self.tell(Completion::Failed { reason });
        }
    }

    fn send(&mut self, work: Work) {
        if self.background.send(work).is_err() {
            let gone = DiskError::Failed {
                place: self.folder.path().display().to_string(),
                reason: "the background thread has ended".to_owned(),
            };
            drop(self.fail(&gone));
        }
    }

    fn show_gauges(&mut self) {
        let Gauges { wal_bytes, space_left, is_full, wants_full, .. } = &*self.gauges;
        wal_bytes.store(self.storage.wal_bytes(), Ordering::Relaxed);
        space_left.store(self.storage.space_left(), Ordering::Relaxed);
        wants_full.store(self.storage.wants_full(), Ordering::Relaxed);
        let full = self.storage.is_full();
        is_full.store(full, Ordering::Relaxed);
        if std::mem::replace(&mut self.timers.was_full, full) != full {
            self.tell(Completion::Space { full });
        }
    }
}

/// The writer, whoever works with it. One that panicked is not worked with again by its own thread, which is gone.
fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Guard {
    done: Arc<OnCompletion>,
    is_clean: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_clean {
            (self.done)(Completion::Failed { reason: "the writer thread has panicked".to_owned() });
        }
    }
}
