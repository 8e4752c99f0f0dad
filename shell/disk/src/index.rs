//! Reading the indexes of segments: at once, on the thread that asks.
//!
//! What is asked for again and again is in the cache of [`Pages`], and mostly in the system's; the rest waits for the disk
//! for the time of one page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hw_kit::ShardId;
use hw_store::index::{Pages, ReadSegment};
use hw_store::{DiskAnswer, DiskError, DiskOp, SegmentId, Vault};

use crate::folder::Folder;
use crate::lock::StoreDir;

/// Segments that are kept open.
const HANDLES_MAX: usize = 128;

/// The pages of a shard's indexes, of which about so many bytes stay in memory.
pub fn index_pages(store: &StoreDir, (shard, vault): (ShardId, &Vault), budget: usize) -> Arc<Pages> {
    let folder = Folder::with_handles(store.shard_path(shard), HANDLES_MAX);
    Arc::new(Pages::new(Box::new(IndexFiles(Mutex::new(folder))), budget, vault.clone()))
}

#[derive(Debug)]
struct IndexFiles(Mutex<Folder>);

impl IndexFiles {
    fn lock(&self) -> MutexGuard<'_, Folder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadSegment for IndexFiles {
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        match self.lock().run(DiskOp::Read { file: id.file(), offset, len })? {
            DiskAnswer::Bytes(bytes) => Ok(bytes),
            _ => Ok(Bytes::new()),
        }
    }

    fn forget(&self, id: SegmentId) {
        self.lock().forget(id.file());
    }
}
