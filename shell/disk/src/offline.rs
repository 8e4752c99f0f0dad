//! A store that no server uses: read as it is, or repaired.

use hw_kit::ShardId;
use hw_store::{
    CheckpointJob, CheckpointWork, DiskError, DiskOp, RecoverError, Recovered, RecoveryReport, Salvaged,
    SegmentId, StorageOptions, Vault, recover, salvage,
};

use crate::folder::Folder;
use crate::lock::StoreDir;

/// Why a shard was not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// What is damaged is what everything else depends on.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was read cannot be written as it is.
    #[error("{0}")]
    Refused(String),
}

/// Hands out everything that is on disk and changes nothing.
pub fn inspect_shard(
    store: &StoreDir,
    (shard, vault): (ShardId, &Vault),
    each: &mut dyn FnMut(Recovered),
) -> Result<RecoveryReport, RecoverError> {
    let mut folder = Folder::new(store.shard_path(shard));
    hw_store::inspect(shard, vault, &mut |op| folder.run(op), each)
}

/// Replaces damaged segments by what is left of them; see [`hw_store::salvage`].
pub fn salvage_segments(
    store: &StoreDir,
    (shard, vault): (ShardId, &Vault),
    damaged: &[SegmentId],
) -> Result<Vec<(SegmentId, Salvaged)>, DiskError> {
    let mut folder = Folder::new(store.shard_path(shard));
    damaged.iter().map(|&id| Ok((id, salvage(id, vault, &mut |op: DiskOp| folder.run(op))?))).collect()
}

/// Opens a shard giving up what is lost, and makes what is there the truth: with a full checkpoint of what `job` makes
/// of it.
pub fn repair_shard(
    store: &StoreDir,
    options: StorageOptions,
    each: &mut dyn FnMut(Recovered),
    job: impl FnOnce() -> Result<CheckpointJob, String>,
) -> Result<RecoveryReport, RepairError> {
    let mut folder = Folder::new(store.shard_path(options.shard));
    let options = StorageOptions { accept_loss: true, ..options };
    let (mut storage, report) = recover(options, &mut |op| folder.run(op), each)?;
    let job = job().map_err(RepairError::Refused)?;
    let mut work =
        storage.begin_checkpoint(job).map_err(|refused| RepairError::Refused(refused.to_string()))?;
    let result = run(&mut folder, &mut work);
    let cleanup = storage.handle_checkpoint(work, &result);
    folder.run_all(cleanup)?;
    result?;
    Ok(report)
}

fn run(folder: &mut Folder, work: &mut CheckpointWork) -> Result<(), DiskError> {
    while let Some(ops) = work.next_ops() {
        folder.run_all(ops)?;
    }
    Ok(())
}
