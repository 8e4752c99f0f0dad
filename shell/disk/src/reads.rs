//! Reading blocks of segments: by a thread that may wait for the disk, and at once where the page cache has them.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw_kit::GroupId;
use hw_store::messages::BlockId;
use hw_store::{DiskError, DiskOp, LoadedBlock, ReadError, SegmentId, SegmentReader, Vault};

use crate::folder::Folder;
use crate::shard::{Completion, OnCompletion};

/// What the reader's thread is asked to do.
#[derive(Debug)]
pub(crate) enum ReadJob {
    Block { group: GroupId, block: BlockId, check: bool },
    Dropped(Vec<SegmentId>),
}

/// The open segments of one shard, shared by those who read them.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Mutex<Open>>);

struct Open {
    folder: Folder,
    tables: SegmentReader,
}

impl Reads {
    pub(crate) fn new(path: PathBuf, tables_max: usize, vault: Vault) -> Reads {
        let tables = SegmentReader::new(tables_max, vault);
        Reads(Arc::new(Mutex::new(Open { folder: Folder::new(path), tables })))
    }

    /// Reads blocks until nobody can ask any more.
    pub(crate) fn run(&self, jobs: &Receiver<ReadJob>, done: &Arc<OnCompletion>) {
        while let Ok(job) = jobs.recv() {
            match job {
                ReadJob::Block { group, block, check } => {
                    let result = {
                        let Open { folder, tables } = &mut *self.lock();
                        tables.load(group, block, &mut |op| folder.run(op))
                    };
                    let result = match result {
                        Ok(loaded) if check => loaded.checked().map_err(ReadError::from),
                        other => other,
                    };
                    done(Completion::Block { group, block, result });
                }
                ReadJob::Dropped(segments) => {
                    let Open { folder, tables } = &mut *self.lock();
                    for id in segments {
                        tables.handle_dropped(id);
                        folder.forget(id.file());
                    }
                }
            }
        }
    }

    /// A block if no disk need be waited for, nor the other thread.
    pub(crate) fn load_cached(
        &self,
        group: GroupId,
        block: BlockId,
    ) -> Option<Result<LoadedBlock, ReadError>> {
        let mut open = self.0.try_lock().ok()?;
        let Open { folder, tables } = &mut *open;
        let mut is_cached = true;
        let mut disk = |op: DiskOp| {
            folder.run_cached(&op).unwrap_or_else(|| {
                is_cached = false;
                Err(DiskError::Failed { place: op.place(), reason: "it is not in memory".to_owned() })
            })
        };
        let result = tables.load(group, block, &mut disk);
        is_cached.then_some(result)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
