//! The thread beside the writer that runs checkpoints and makes log files.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use hw_store::{CheckpointWork, DiskError, DiskOp, SpareJob};

use crate::folder::Folder;
use crate::queue::{Job, Queue};

/// Log files that are made while a checkpoint is: then the log waits for it, as what is in memory grows with the log.
const SPARES_MAX: usize = 4;

/// What the background thread is asked to do.
#[derive(Debug)]
pub(crate) enum Work {
    Spare(SpareJob),
    Checkpoint(Box<CheckpointWork>),
    /// Tidying up: a failure is reported and nothing more.
    Cleanup(Vec<DiskOp>),
}

/// Runs work until nobody can send any more. A log file that is wanted does not wait for the end of a checkpoint, which
/// may take longer than the log has space for.
pub(crate) fn run_background(mut folder: Folder, work: &Receiver<Work>, writer: &Queue) {
    let mut later = VecDeque::new();
    while let Some(next) = later.pop_front().or_else(|| work.recv().ok()) {
        match next {
            Work::Spare(job) => make_spare(&mut folder, job, writer),
            Work::Checkpoint(mut checkpoint) => {
                let mut spares = 0;
                let result = run_checkpoint(&mut folder, &mut checkpoint, |folder| {
                    while let Ok(other) = work.try_recv() {
                        match other {
                            Work::Spare(job) if spares < SPARES_MAX => {
                                spares += 1;
                                make_spare(folder, job, writer);
                            }
                            other => later.push_back(other),
                        }
                    }
                });
                writer.control(Job::CheckpointDone(checkpoint, result));
            }
            Work::Cleanup(ops) => {
                if let Err(error) = folder.run_all(ops) {
                    tracing::warn!("{}: tidying up failed: {error}", folder.path().display());
                }
            }
        }
    }
}

fn make_spare(folder: &mut Folder, mut job: SpareJob, writer: &Queue) {
    let result = folder.run_all(job.take_ops());
    writer.control(Job::SpareDone(job, result));
}

/// `between` is called between its parts.
fn run_checkpoint(
    folder: &mut Folder,
    work: &mut CheckpointWork,
    mut between: impl FnMut(&mut Folder),
) -> Result<(), DiskError> {
    while let Some(ops) = work.next_ops() {
        folder.run_all(ops)?;
        between(folder);
    }
    Ok(())
}
