//! A store that no server uses: checked, shown, repaired. What damage means is in docs/format.md, "Damage".

use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hw_disk::{
    Folder, KeyError, KeyOptions, LockError, RepairError, StoreDir, Unlocked, check_shard, index_pages,
    inspect_shard, look_in, repair_shard, salvage_segments,
};
use hw_kit::{GroupId, Map, Seq, ShardId};
use hw_node::{Recovery, StoredStream};
use hw_store::limits::INDEX_CACHE_BYTES;
use hw_store::messages::{Fetch, Message};
use hw_store::{
    CheckReport, Damage, Dir, DiskError, FileId, LoadedBlock, RecoverError, Recovered, SegmentId,
    SegmentReader, StorageOptions, Vault,
};
use serde::Serialize;
use serde_json::{Value, json};

const BLIND: &str = "it is encrypted and no key was given: checksums were compared, seals were not";

/// Why a store cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is none.
    #[error("{} is no store: it has no folder shard-0, nor has its folder jetstream", .0.display())]
    NoStore(PathBuf),
    /// A server uses it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key is not the store's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is encrypted and there is no key.
    #[error("it is encrypted: its key is needed (--key-file, or HEADWATER_STORE_KEY)")]
    NoKey,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file beside the store, or the output, cannot be written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What is damaged is what the rest depends on.
    #[error("it cannot be repaired: {0}")]
    Beyond(String),
}

/// What a check found in one shard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShardCheck {
    /// The shard's folder.
    pub folder: PathBuf,
    /// Whether a server would start with it.
    pub opens: bool,
    /// The newest checkpoint.
    pub checkpoint: Option<u64>,
    /// Streams and the list of them.
    pub groups: u64,
    /// Messages in segments that were read and are as they were written.
    pub messages: u64,
    /// Bytes of segments that were read.
    pub segment_bytes: u64,
    /// What is wrong, by file and place.
    pub damage: Vec<String>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

impl ShardCheck {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repair {
    /// Where the files are that were changed, as they were before.
    pub kept: Option<PathBuf>,
    /// What was done, in sentences.
    pub done: Vec<String>,
    /// What is lost for good, in sentences.
    pub lost: Vec<String>,
}

/// A store's folder, locked.
pub struct OfflineStore {
    store: StoreDir,
    /// None: it is encrypted and there is no key.
    unlocked: Option<Unlocked>,
}

impl OfflineStore {
    /// Takes the folder that a server was given, or the one inside it, and the key of a store that is encrypted. Without
    /// that, checksums can be checked and nothing else.
    pub fn open(folder: &Path, key: Option<&str>) -> Result<OfflineStore, OfflineError> {
        let candidates = [folder.join("jetstream"), folder.to_owned()];
        let found = candidates.iter().find(|path| path.join("shard-0").is_dir());
        let found = found.ok_or_else(|| OfflineError::NoStore(folder.to_owned()))?;
        let store = StoreDir::open(found)?;
        let unlocked = look_in(&store, &KeyOptions { key, ..KeyOptions::default() })?;
        Ok(OfflineStore { store, unlocked })
    }

    fn vault(&self, shard: ShardId) -> Result<Vault, OfflineError> {
        Ok(self.unlocked.as_ref().ok_or(OfflineError::NoKey)?.vault(shard)?)
    }

    fn shards(&self) -> Result<Vec<ShardId>, OfflineError> {
        let mut shards = Vec::new();
        for entry in std::fs::read_dir(self.store.path())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse().ok());
            shards.extend(number.map(ShardId));
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// Reads everything, every message included, and changes nothing.
    pub fn check(&self) -> Result<Vec<ShardCheck>, OfflineError> {
        self.shards()?
            .into_iter()
            .map(|shard| {
                let vault = match &self.unlocked {
                    Some(unlocked) => unlocked.vault(shard)?,
                    None => Vault::default(),
                };
                Ok(self.summary(shard, check_shard(&self.store, shard, &vault)?))
            })
            .collect()
    }

    fn summary(&self, shard: ShardId, report: CheckReport) -> ShardCheck {
        let recovery = &report.recovery;
        let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        damage.dedup();
        damage.extend(
            recovery
                .quarantined
                .iter()
                .map(|(group, reason)| format!("group {group} cannot be used: {reason}")),
        );
        let mut notes = Vec::new();
        if recovery.torn_windows > 0 {
            let torn = recovery.torn_windows;
            notes.push(format!("{torn} unfinished writes at the log's end, never acknowledged, will be cut"));
        }
        if report.is_blind {
            notes.push(BLIND.to_owned());
        }
        notes.extend(recovery.foreign.iter().map(|name| format!("{name} is not a file of the store")));
        ShardCheck {
            folder: self.store.shard_path(shard),
            opens: !report.damage.iter().any(|damage| !matches!(damage.file, FileId::Segment(..))),
            checkpoint: recovery.checkpoint,
            groups: recovery.groups,
            messages: report.messages,
            segment_bytes: report.segment_bytes,
            damage,
            notes,
        }
    }

    /// Writes a line of JSON for every stream.
    pub fn dump_streams(&self, out: &mut dyn Write) -> Result<(), OfflineError> {
        for shard in self.shards()? {
            let mut recovery = self.inspect(shard)?;
            let mut result = Ok(());
            recovery.for_each_stream(|stream| {
                let line = stream_line(&stream);
                if result.is_ok() {
                    result = writeln!(out, "{line}");
                }
            });
            result?;
        }
        Ok(())
    }

    /// Writes a line of JSON for every message that a server would have; what cannot be read says so in its line. Gives
    /// how many could not.
    pub fn dump_messages(&self, only: Option<&str>, out: &mut dyn Write) -> Result<u64, OfflineError> {
        let mut unreadable = 0;
        for shard in self.shards()? {
            let mut recovery = self.inspect(shard)?;
            let mut folder = Folder::new(self.store.shard_path(shard));
            let mut reader = SegmentReader::new(64, self.vault(shard)?);
            let mut result = Ok(());
            recovery.for_each_stream(|mut stream| {
                if result.is_ok() && only.is_none_or(|name| name == stream.name) {
                    result = dump_stream(&mut stream, &mut reader, &mut folder, out)
                        .map(|more| unreadable += more);
                }
            });
            result?;
        }
        Ok(unreadable)
    }

    /// Writes a line of JSON for every message in a segment file that is as it was written, deleted ones included,
    /// without asking checkpoints or log: for when those cannot be read.
    pub fn dump_segments(&self, out: &mut dyn Write) -> Result<(), OfflineError> {
        for shard in self.shards()? {
            let folder = self.store.shard_path(shard).join(Dir::Segments.path());
            let vault = self.vault(shard)?;
            let mut names: Vec<String> = std::fs::read_dir(&folder)?
                .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
                .collect();
            names.sort_unstable();
            for name in names {
                let Some(FileId::Segment(group, number)) = FileId::parse(Dir::Segments, &name) else {
                    continue;
                };
                let bytes = Bytes::from(std::fs::read(folder.join(&name))?);
                let found = hw_store::read_what_is_left(SegmentId { group, number }, &bytes, &vault);
                for message in found.messages {
                    writeln!(out, "{}", json!({ "group": group.0, "message": message_value(&message) }))?;
                }
            }
        }
        Ok(())
    }

    fn inspect(&self, shard: ShardId) -> Result<Recovery, OfflineError> {
        let vault = self.vault(shard)?;
        let pages = index_pages(&self.store, (shard, &vault), INDEX_CACHE_BYTES);
        let mut recovery = Recovery::new(Some(pages));
        let read = inspect_shard(&self.store, (shard, &vault), &mut |piece| recovery.handle(piece));
        match read {
            Ok(_) => Ok(recovery),
            Err(RecoverError::Disk(error)) => Err(error.into()),
            Err(RecoverError::Damaged(damage)) => Err(OfflineError::Beyond(damage.to_string())),
        }
    }

    /// Makes a damaged store one that a server starts with and that takes writes again: what is lost is given up. With
    /// `dry` it only says what there is to do. Files are copied or moved before they are changed, never removed.
    pub fn repair(&self, dry: bool) -> Result<Repair, OfflineError> {
        let mut repair = Repair::default();
        for shard in self.shards()? {
            let report = check_shard(&self.store, shard, &self.vault(shard)?)?;
            if report.is_sound() {
                continue;
            }
            let summary = self.summary(shard, report.clone());
            if dry {
                repair.done.extend(summary.damage);
            } else {
                self.repair_one(shard, &report, &mut repair)?;
            }
        }
        Ok(repair)
    }

    fn repair_one(
        &self,
        shard: ShardId,
        report: &CheckReport,
        repair: &mut Repair,
    ) -> Result<(), OfflineError> {
        let kept = keep_copies(&self.store.shard_path(shard), report.recovery.session)?;
        repair.kept = Some(kept);
        let mut segments: Vec<SegmentId> = report.damage.iter().filter_map(segment_of).collect();
        segments.sort_unstable();
        segments.dedup();
        for (id, left) in salvage_segments(&self.store, (shard, &self.vault(shard)?), &segments)? {
            let (file, count) = (id.file(), left.messages.len());
            repair
                .done
                .push(format!("{file}: {count} messages were saved; the file is in quarantine as it was"));
        }
        let vault = self.vault(shard)?;
        let pages = index_pages(&self.store, (shard, &vault), INDEX_CACHE_BYTES);
        let options = StorageOptions { vault, ..StorageOptions::new(shard, crate::start::seed()) };
        let recovery = std::cell::RefCell::new(Recovery::accepting_loss(Some(pages)));
        let mut each = |piece: Recovered| recovery.borrow_mut().handle(piece);
        let job = || {
            recovery.take().into_checkpoint_with(|stream, text| repair.lost.push(format!("{stream}: {text}")))
        };
        let repaired = repair_shard(&self.store, options, &mut each, job).map_err(|error| match error {
            RepairError::Disk(error) | RepairError::Recover(RecoverError::Disk(error)) => error.into(),
            other => OfflineError::Beyond(other.to_string()),
        })?;
        for (group, reason) in repaired.given_up {
            repair.lost.push(format!("what group {group} had in its log from here on: {reason}"));
        }
        for (group, reason) in repaired.quarantined {
            repair.lost.push(format!("group {group} stays in quarantine: {reason}"));
        }
        Ok(())
    }
}

fn segment_of(damage: &Damage) -> Option<SegmentId> {
    match damage.file {
        FileId::Segment(group, number) => Some(SegmentId { group, number }),
        _ => None,
    }
}

/// Copies log and checkpoints, which a repair changes, to a folder beside them.
fn keep_copies(folder: &Path, session: u32) -> Result<PathBuf, std::io::Error> {
    let aside = folder.join(Dir::Quarantine.path());
    let kept = (0..).map(|number| aside.join(format!("before-repair-{session}-{number}")));
    let kept = kept.take(1000).find(|path| !path.exists()).ok_or(std::io::ErrorKind::AlreadyExists)?;
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let file = name.to_str().and_then(|name| FileId::parse(Dir::Root, name));
        if matches!(file, Some(FileId::Wal(_) | FileId::Checkpoint(_))) {
            std::fs::copy(entry.path(), kept.join(&name))?;
            std::fs::File::open(kept.join(&name))?.sync_all()?;
        }
    }
    std::fs::File::open(&kept)?.sync_all()?;
    std::fs::File::open(&aside)?.sync_all()?;
    Ok(kept)
}

fn stream_line(stream: &StoredStream<'_>) -> Value {
    let state = stream.messages.as_ref().map(|messages| messages.state());
    json!({
        "account": stream.account,
        "stream": stream.name,
        "group": stream.group.0,
        "messages": state.map(|state| state.messages),
        "bytes": state.map(|state| state.bytes),
        "first_seq": state.map(|state| state.first_seq.0),
        "last_seq": state.map(|state| state.last_seq.0),
        "subjects": state.map(|state| state.num_subjects),
        "segments": stream.messages.as_ref().map(|messages| messages.live_segments().len()),
        "damage": stream.damage,
    })
}

fn dump_stream(
    stream: &mut StoredStream<'_>,
    reader: &mut SegmentReader,
    folder: &mut Folder,
    out: &mut dyn Write,
) -> Result<u64, std::io::Error> {
    let (account, name, group) = (stream.account.to_owned(), stream.name.to_owned(), stream.group);
    let Some(messages) = stream.messages.as_mut() else { return Ok(0) };
    let (mut unreadable, mut failed) = (0, Map::<_, String>::default());
    let seqs: Vec<Seq> = messages.seqs().collect();
    for seq in seqs {
        if let Fetch::OnDisk(block) = messages.fetch(seq)
            && !failed.contains_key(&block)
        {
            match load(group, block, reader, folder) {
                Ok(loaded) => messages.handle_block(block, loaded),
                Err(reason) => drop(failed.insert(block, reason)),
            }
        }
        let mut line = json!({ "account": account, "stream": name });
        match messages.fetch(seq) {
            Fetch::Message(message) => line["message"] = message_value(&message),
            Fetch::OnDisk(block) => {
                unreadable += 1;
                (line["seq"], line["error"]) = (json!(seq.0), json!(failed.get(&block)));
            }
            Fetch::Absent => continue,
        }
        writeln!(out, "{line}")?;
    }
    Ok(unreadable)
}

fn load(
    group: GroupId,
    block: hw_store::messages::BlockId,
    reader: &mut SegmentReader,
    folder: &mut Folder,
) -> Result<LoadedBlock, String> {
    let loaded = reader.load(group, block, &mut |op| folder.run(op)).map_err(|error| error.to_string())?;
    loaded.checked().map_err(|damage| damage.to_string())
}

/// A message as `STREAM.MSG.GET` shows it.
fn message_value(message: &Message) -> Value {
    let json = serde_json::from_slice::<Value>(&hw_jsapi::message(message, false));
    json.map(|mut json| json["message"].take()).unwrap_or_default()
}
