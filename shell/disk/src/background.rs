//! The two threads beside the writer: one for checkpoints and log files, one for reads.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use hw_kit::GroupId;
use hw_store::messages::BlockId;
use hw_store::{CheckpointWork, DiskError, DiskOp, SegmentId, SegmentReader, SpareJob};

use crate::folder::Folder;
use crate::queue::{Job, Queue};
use crate::shard::{Completion, OnCompletion};

/// What the background thread is asked to do.
#[derive(Debug)]
pub(crate) enum Work {
    Spare(SpareJob),
    Checkpoint(Box<CheckpointWork>),
    /// Tidying up: a failure is reported and nothing more.
    Cleanup(Vec<DiskOp>),
}

/// What the reader is asked to do.
#[derive(Debug)]
pub(crate) enum ReadJob {
    Block { group: GroupId, block: BlockId, token: u64 },
    Dropped(Vec<SegmentId>),
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

/// Reads blocks until nobody can ask any more.
pub(crate) fn run_reader(
    mut folder: Folder,
    jobs: &Receiver<ReadJob>,
    tables_max: usize,
    done: &Arc<OnCompletion>,
) {
    let mut reader = SegmentReader::new(tables_max);
    while let Ok(job) = jobs.recv() {
        match job {
            ReadJob::Block { group, block, token } => {
                let result = reader.load(group, block, &mut |op| folder.run(op));
                done(Completion::Block { group, block, token, result });
            }
            ReadJob::Dropped(segments) => {
                for id in segments {
                    reader.handle_dropped(id);
                    folder.forget(id.file());
                }
            }
        }
    }
}
