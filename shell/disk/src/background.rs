//! The thread beside the writer that runs checkpoints and makes log files.

use std::sync::mpsc::Receiver;

use hw_store::{CheckpointWork, DiskError, DiskOp, SpareJob};

use crate::folder::Folder;
use crate::queue::{Job, Queue};

/// What the background thread is asked to do.
#[derive(Debug)]
pub(crate) enum Work {
    Spare(SpareJob),
    Checkpoint(Box<CheckpointWork>),
    /// Tidying up: a failure is reported and nothing more.
    Cleanup(Vec<DiskOp>),
}

/// Runs work until nobody can send any more.
pub(crate) fn run_background(mut folder: Folder, work: &Receiver<Work>, writer: &Queue) {
    while let Ok(work) = work.recv() {
        match work {
            Work::Spare(mut job) => {
                let result = folder.run_all(job.take_ops());
                writer.control(Job::SpareDone(job, result));
            }
            Work::Checkpoint(mut work) => {
                let result = run_checkpoint(&mut folder, &mut work);
                writer.control(Job::CheckpointDone(work, result));
            }
            Work::Cleanup(ops) => {
                if let Err(error) = folder.run_all(ops) {
                    tracing::warn!("{}: tidying up failed: {error}", folder.path().display());
                }
            }
        }
    }
}

fn run_checkpoint(folder: &mut Folder, work: &mut CheckpointWork) -> Result<(), DiskError> {
    while let Some(ops) = work.next_ops() {
        folder.run_all(ops)?;
    }
    Ok(())
}
