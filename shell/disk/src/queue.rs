//! What waits for the writer: bounded in bytes, taken all at once. Whoever finds nothing waiting and the writer idle may do
//! its work instead: see [`Queue::claim`].

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
    /// Who works on what was taken or claimed: nobody else begins before it is done.
    at_work: Option<Worker>,
    /// The writer's thread found it so when it had something to do.
    is_awaited: bool,
    /// Until when the writer's thread sleeps, if it does and not for good.
    sleeps_until: Option<Instant>,
    /// It must look again until when to sleep.
    is_new_time: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Worker {
    /// The writer's thread.
    Writer,
    /// Whoever claimed its place.
    Other,
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

    /// Everything that waits; what was taken before is done. Waits itself until there is something, `until` has come, or
    /// whoever claimed the work has another time to wait for.
    pub(crate) fn take(&self, until: Option<Instant>) -> VecDeque<Job> {
        let mut waiting = self.lock();
        if waiting.at_work == Some(Worker::Writer) {
            waiting.at_work = None;
        }
        (waiting.is_new_time, waiting.sleeps_until) = (false, until);
        loop {
            let is_due = until.is_some_and(|until| until <= Instant::now());
            let has_work = is_due || waiting.is_new_time || !waiting.jobs.is_empty();
            if has_work && waiting.at_work.is_none() {
                break;
            }
            waiting.is_awaited = has_work;
            let left = until.filter(|_| !has_work).map(|until| until.duration_since(Instant::now()));
            waiting = match left {
                Some(left) => self.wake.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
        (waiting.at_work, waiting.is_awaited, waiting.bytes) = (Some(Worker::Writer), false, 0);
        std::mem::take(&mut waiting.jobs)
    }

    /// Takes the writer's place if nothing waits for it and it does nothing; [`Queue::release`] gives it back.
    pub(crate) fn claim(&self) -> bool {
        let mut waiting = self.lock();
        let is_free = waiting.jobs.is_empty() && waiting.at_work.is_none();
        if is_free {
            waiting.at_work = Some(Worker::Other);
        }
        is_free
    }

    /// Gives the writer's place back; it must wake up at `next` at the latest.
    pub(crate) fn release(&self, next: Option<Instant>) {
        let mut waiting = self.lock();
        waiting.at_work = None;
        let sleeps_until = waiting.sleeps_until;
        waiting.is_new_time = next.is_some_and(|next| sleeps_until.is_none_or(|until| next < until));
        if waiting.is_new_time || waiting.is_awaited {
            drop(waiting);
            self.wake.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_works_at_a_time() {
        let queue = Queue::new(100);
        assert!(queue.claim() && !queue.claim());
        queue.release(None);
        queue.control(Job::Tidy);
        assert!(!queue.claim(), "something waits");
        assert_eq!(queue.take(None).len(), 1);
        assert!(!queue.claim(), "what was taken is not done");
    }

    #[test]
    fn what_comes_while_another_works_waits_for_it() {
        let queue = Arc::new(Queue::new(100));
        assert!(queue.claim());
        let (began, is_begun) = std::sync::mpsc::sync_channel(1);
        let taking = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let _ = began.send(());
                queue.take(None).len()
            }
        });
        is_begun.recv().unwrap();
        queue.control(Job::Tidy);
        assert!(!taking.is_finished());
        queue.release(None);
        assert_eq!(taking.join().unwrap(), 1);
    }

    #[test]
    fn an_earlier_time_wakes_who_sleeps() {
        let queue = Arc::new(Queue::new(100));
        let taking = std::thread::spawn({
            let queue = queue.clone();
            move || queue.take(Some(Instant::now() + Duration::from_secs(600))).len()
        });
        while queue.lock().sleeps_until.is_none() {
            std::thread::yield_now();
        }
        assert!(queue.claim());
        queue.release(Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(taking.join().unwrap(), 0);
    }
}
