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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use hw_kit::{GroupId, LogIndex, ShardId};
    use hw_store::{
        CheckpointJob, FrameBuilder, FrameKind, FrameMeta, GroupCheckpoint, StorageOptions, recover,
    };

    use super::*;
    use crate::shard::tests::scratch;

    #[test]
    fn a_log_file_does_not_wait_for_the_end_of_a_checkpoint() {
        let path = scratch("between");
        let mut folder = Folder::new(path.clone());
        let mut options = StorageOptions::new(ShardId(0), 99);
        (options.frame_bytes_max, options.wal_first_bytes, options.wal_file_bytes) =
            (4096, 64 << 10, 64 << 10);
        let (mut storage, _) = recover(options, &mut |op| folder.run(op), &mut |_| {}).unwrap();
        let mut last = 0;
        let spare = loop {
            if let Some(spare) = storage.spare_job() {
                break spare;
            }
            let mut builder = FrameBuilder::new();
            builder.push(&[7; 4000]);
            last += 1;
            let (group, first) = (GroupId(1), LogIndex(last));
            let frame = builder.finish(FrameMeta { group, term: 0, first, kind: FrameKind::Entries });
            let mut ops = Vec::new();
            storage.append(&[frame], &mut ops).expect("there is a file to write to");
            folder.run_all(ops).unwrap();
        };
        let group = GroupCheckpoint {
            group: GroupId(1),
            applied: LogIndex(last),
            term: 0,
            state: bytes::Bytes::from_static(b"state"),
            live_segments: Vec::new(),
            new_segments: Vec::new(),
        };
        let job = CheckpointJob { groups: vec![group], full: true, ..CheckpointJob::default() };
        let checkpoint = storage.begin_checkpoint(job).unwrap();
        let (sender, work) = sync_channel(2);
        sender.send(Work::Checkpoint(Box::new(checkpoint))).unwrap();
        sender.send(Work::Spare(spare)).unwrap();
        drop(sender);
        let writer = Queue::new(1 << 20);
        run_background(folder, &work, &writer);
        let told = writer.take(None).into_iter().map(|job| match job {
            Job::SpareDone(_, Ok(())) => "a log file",
            Job::CheckpointDone(_, Ok(())) => "a checkpoint",
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), ["a log file", "a checkpoint"]);
        std::fs::remove_dir_all(path).unwrap();
    }
}
