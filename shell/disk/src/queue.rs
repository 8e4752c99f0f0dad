//! What waits for the writer: bounded in bytes, taken all at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hw_store::{CheckpointJob, CheckpointWork, DiskError, Frame, SpareJob};

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    Append { frames: Vec<Frame>, ticket: u64 },
    Checkpoint(CheckpointJob),
    SpareDone(SpareJob, Result<(), DiskError>),
    CheckpointDone(Box<CheckpointWork>, Result<(), DiskError>),
    Tidy,
    Close,
}

/// The writer is behind by more than it may be. Nothing was queued.
#[derive(Debug, thiserror::Error)]
#[error("the disk is behind: {waiting} bytes wait for it")]
pub struct QueueFull {
    /// What was to be queued.
    pub frames: Vec<Frame>,
    /// How much waits.
    pub waiting: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: u64,
}

/// From the shard and the background thread to the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    bytes_max: u64,
}

impl Queue {
    pub(crate) fn new(bytes_max: u64) -> Queue {
        Queue { waiting: Mutex::default(), wake: Condvar::new(), bytes_max }
    }

    /// Queues frames unless too many wait; one batch is always taken, however long.
    pub(crate) fn append(&self, frames: Vec<Frame>, ticket: u64) -> Result<(), QueueFull> {
        let bytes: u64 = frames.iter().map(|frame| frame.body().len() as u64).sum();
        let mut waiting = self.lock();
        if waiting.bytes > 0 && waiting.bytes + bytes > self.bytes_max {
            return Err(QueueFull { frames, waiting: waiting.bytes });
        }
        waiting.bytes += bytes;
        self.push(waiting, Job::Append { frames, ticket });
        Ok(())
    }

    /// Queues anything else: of these only a few exist at a time.
    pub(crate) fn control(&self, job: Job) {
        self.push(self.lock(), job);
    }

    /// Everything that waits; waits itself until there is something or `until` has come.
    pub(crate) fn take(&self, until: Option<Instant>) -> VecDeque<Job> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            let Some(until) = until else {
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.wake.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.bytes = 0;
        std::mem::take(&mut waiting.jobs)
    }

    /// Takes the answer to the last request for a log file out of the queue; waits for it.
    pub(crate) fn take_spare(&self) -> (SpareJob, Result<(), DiskError>) {
        self.take_out(|job| match job {
            Job::SpareDone(job, result) => Ok((job, result)),
            other => Err(other),
        })
    }

    /// The same with the end of the checkpoint that is being made.
    pub(crate) fn take_checkpoint(&self) -> (Box<CheckpointWork>, Result<(), DiskError>) {
        self.take_out(|job| match job {
            Job::CheckpointDone(work, result) => Ok((work, result)),
            other => Err(other),
        })
    }

    /// Takes the first job that `wanted` does not give back; waits for one.
    fn take_out<T>(&self, wanted: impl Fn(Job) -> Result<T, Job>) -> T {
        let mut waiting = self.lock();
        loop {
            let mut found = None;
            for job in std::mem::take(&mut waiting.jobs) {
                match wanted(job) {
                    Ok(job) if found.is_none() => found = Some(job),
                    Ok(_) => unreachable!("of these one is asked for at a time"),
                    Err(job) => waiting.jobs.push_back(job),
                }
            }
            if let Some(found) = found {
                return found;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn push(&self, mut waiting: MutexGuard<'_, Waiting>, job: Job) {
        waiting.jobs.push_back(job);
        drop(waiting);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A thread that panicked here left a queue that is still a queue; that it is gone is reported elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
