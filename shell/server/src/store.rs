//! The store's folder: opened and read back before the server listens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hw_conf::{JetStreamOptions, Options, Secret, StoreCipher};
use hw_disk::{Completion, DiskOptions, KeyOptions, LockError, ShardDisk, StoreDir, Unlocked, index_pages};
use hw_kit::{GroupId, ShardId, Span};
use hw_net::{Mail, Mailbox};
use hw_node::{DiskCompletion, DiskRequest, LoadError, Recovery};
use hw_store::messages::BlockId;
use hw_store::{Cipher, Frame, ReadError, StorageOptions, SyncPolicy};

use crate::StartError;

/// The longest command beside its payload: subject, headers' bookkeeping, lengths.
const COMMAND_BYTES: u64 = 256 * 1024;

/// Bytes that may wait for the disk: far above what the shard lets wait, so that it is never reached.
const QUEUE_BYTES: u64 = 1 << 30;

/// An opened store.
pub(crate) struct Opened {
    pub(crate) folder: PathBuf,
    pub(crate) max_memory: i64,
    pub(crate) max_storage: i64,
    pub(crate) recovery: Recovery,
    pub(crate) disk: Arc<ShardDisk>,
    /// What the store is encrypted with.
    pub(crate) cipher: Option<Cipher>,
}

/// Opens the folder and reads everything but the messages. What the disk completes is posted to the shard.
pub(crate) fn open(options: &Options, mailbox: Arc<Mailbox>) -> Result<Opened, StartError> {
    let js = &options.jetstream;
    let folder = folder(js)?;
    let mut storage = StorageOptions::new(ShardId(0), crate::start::seed());
    storage.sync = policy(js);
    // A longer one, after a reload, makes the log's files longer.
    let longest = hw_node::FRAME_BYTES as u64 + u64::from(options.limits.max_payload) + COMMAND_BYTES;
    storage.frame_bytes_max = storage.frame_bytes_max.max(longest);
    let store = StoreDir::open(&folder).map_err(|error| StartError::Store(refused(&error)))?;
    let unlocked = unlock(&store, js)?;
    storage.vault = unlocked.vault(storage.shard).map_err(|error| StartError::Store(error.to_string()))?;
    let budget = usize::try_from(js.index_cache_bytes).unwrap_or(usize::MAX);
    let pages = index_pages(&store, (storage.shard, &storage.vault), budget);
    let options_of_disk = DiskOptions { queue_bytes_max: QUEUE_BYTES, ..DiskOptions::new(storage) };
    let mut recovery = Recovery::new(Some(pages));
    if options.cluster.is_some() {
        recovery.set_clustered();
    }
    let post = move |completion| {
        if let Some(completion) = translate(completion) {
            mailbox.post(Mail::Disk(completion));
        }
    };
    let mut each = |piece| recovery.handle(piece);
    let opened = ShardDisk::open(&Arc::new(store), options_of_disk, &mut each, Arc::new(post));
    let (disk, report) = opened.map_err(|error| StartError::Store(error.to_string()))?;
    if report.torn_windows > 0 {
        tracing::info!("  {} unfinished writes were cut from the log's end", report.torn_windows);
    }
    if let Some(reason) = recovery.refusal() {
        return Err(StartError::Store(format!("{}: {reason}; the data is left as it is", folder.display())));
    }
    for (group, reason) in &report.quarantined {
        tracing::error!("the data of group {group} is damaged and set aside: {reason}");
    }
    for damage in &report.damaged_segments {
        tracing::error!("a segment is damaged: {damage}");
    }
    for orphan in &report.orphans {
        tracing::warn!("a segment belongs to no stream and is kept in quarantine: {orphan:?}");
    }
    let max_memory = js.max_memory.unwrap_or_else(three_quarters_of_memory);
    let max_storage = js.max_storage.unwrap_or_else(|| three_quarters_of_disk(&folder));
    let cipher = unlocked.cipher();
    Ok(Opened { folder, max_memory, max_storage, recovery, disk: Arc::new(disk), cipher })
}

/// Finds the store's key, and seals what is to be sealed.
fn unlock(store: &StoreDir, js: &JetStreamOptions) -> Result<Unlocked, StartError> {
    let options = KeyOptions {
        key: js.encryption.key.as_ref().map(Secret::reveal),
        previous: js.encryption.previous.as_ref().map(Secret::reveal),
        cipher: js.encryption.cipher.map(|cipher| match cipher {
            StoreCipher::Aes => Cipher::Aes,
            StoreCipher::Chacha => Cipher::Chacha,
        }),
    };
    let mut begun = |cipher| tracing::info!("  Encrypting the store with {cipher}");
    let unlocked =
        hw_disk::unlock(store, &options, &mut begun).map_err(|error| StartError::Store(error.to_string()))?;
    if unlocked.has_rotated {
        tracing::info!("  The store's key was changed: prev_key is not needed any more");
    }
    if let Some(converted) = &unlocked.converted {
        if converted.segments > 0 {
            tracing::info!("  {} segments were encrypted", converted.segments);
        }
        for damage in &converted.damaged {
            tracing::info!("  A segment cannot be read and stays as it is: {damage}");
        }
    }
    match unlocked.converted.is_some() {
        true if unlocked.is_changing() => tracing::info!("  Log and checkpoints follow within a minute"),
        true => tracing::info!("  All of the store is encrypted now"),
        false => {}
    }
    Ok(unlocked)
}

/// Reads a block that is in memory. Damage is left to the reader's thread, which reads the disk and tells.
pub(crate) fn read_cached(disk: &ShardDisk, group: GroupId, block: BlockId) -> Option<DiskCompletion> {
    let loaded = Ok(disk.load_cached(group, block)?.ok()?);
    Some(DiskCompletion::Loaded { group, block, loaded })
}

/// Writes a small append on the shard's own thread, where that is quick; gives it back otherwise.
pub(crate) fn append_at_once(
    disk: &ShardDisk,
    mailbox: &Mailbox,
    frames: Vec<Frame>,
    ticket: u64,
) -> Result<Option<DiskCompletion>, Vec<Frame>> {
    let mut done: Vec<DiskCompletion> =
        disk.append_at_once(frames, ticket)?.into_iter().filter_map(translate).collect();
    match done.len() {
        1 => Ok(done.pop()),
        _ => {
            done.into_iter().for_each(|done| mailbox.post(Mail::Disk(done)));
            Ok(None)
        }
    }
}

/// Has the disk do what a shard wants. What it cannot even queue comes back as a failure.
pub(crate) fn perform(disk: &ShardDisk, mailbox: &Mailbox, request: DiskRequest) {
    match request {
        DiskRequest::Append { ticket, frames } => {
            if let Err(full) = disk.append(frames, ticket) {
                mailbox.post(Mail::Disk(DiskCompletion::Failed { reason: full.to_string() }));
            }
        }
        DiskRequest::Checkpoint(job) => disk.checkpoint(job),
        DiskRequest::Tidy => disk.tidy(),
        DiskRequest::Load { group, block, check } => {
            if disk.load_block(group, block, check).is_err() {
                let loaded = Err(LoadError::Busy);
                mailbox.post(Mail::Disk(DiskCompletion::Loaded { group, block, loaded }));
            }
        }
    }
}

fn translate(completion: Completion) -> Option<DiskCompletion> {
    Some(match completion {
        Completion::Synced { ticket } => DiskCompletion::Synced { ticket },
        Completion::Failed { reason } => {
            tracing::error!("the store has stopped, nothing is acknowledged any more: {reason}");
            DiskCompletion::Failed { reason }
        }
        // What was proposed after it builds on it: nothing more can be written in this run.
        Completion::Refused { error, .. } => DiskCompletion::Failed { reason: error.to_string() },
        Completion::Checkpoint(result) => {
            if let Err(error) = &result {
                tracing::error!("a checkpoint was not made, the log keeps everything: {error}");
            }
            DiskCompletion::Checkpointed { result: result.map_err(|error| error.to_string()) }
        }
        Completion::Block { group, block, result, .. } => {
            let loaded = result.map_err(|error| {
                tracing::error!("messages cannot be read: {error}");
                match error {
                    ReadError::Failed { .. } => LoadError::Failed(error.to_string()),
                    ReadError::Damaged(_) | ReadError::NoBlock { .. } => {
                        LoadError::Damaged(error.to_string())
                    }
                }
            });
            DiskCompletion::Loaded { group, block, loaded }
        }
        Completion::Space { full } => DiskCompletion::Space { full },
    })
}

/// `jetstream` below the store folder; below the system's temporary folder when none is set.
fn folder(js: &JetStreamOptions) -> Result<PathBuf, StartError> {
    let root = match &js.store_dir {
        Some(root) => root.clone(),
        None => {
            let root = std::env::temp_dir().join("nats");
            tracing::warn!("Temporary storage directory used, data could be lost on system reboot");
            root
        }
    };
    if root.exists() && !root.is_dir() {
        return Err(StartError::Store("storage directory is not a directory".to_owned()));
    }
    Ok(root.join("jetstream"))
}

fn refused(error: &LockError) -> String {
    match error {
        LockError::Folder { error, .. } => format!("could not create storage directory - {error}"),
        LockError::InUse { .. } | LockError::Io { .. } => error.to_string(),
    }
}

/// Acknowledged means on disk, unless an interval says otherwise.
fn policy(js: &JetStreamOptions) -> SyncPolicy {
    match js.sync_interval {
        Some(span) if !js.sync_always && span > Span::ZERO => SyncPolicy::Interval(span),
        _ => SyncPolicy::Always,
    }
}

fn three_quarters_of_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    total.and_then(|kib| kib.trim().parse::<i64>().ok()).map_or(-1, |kib| kib * 1024 / 4 * 3)
}

fn three_quarters_of_disk(folder: &Path) -> i64 {
    let stat = rustix::fs::statvfs(folder);
    stat.map_or(1 << 40, |stat| (stat.f_bavail * stat.f_frsize / 4 * 3) as i64)
}
