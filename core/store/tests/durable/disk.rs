//! A disk in memory that loses what was not synced: any sectors of unsynced writes, any names that no folder sync covers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hw_kit::Rng;
use hw_store::index::ReadSegment;
use hw_store::{Dir, DiskAnswer, DiskError, DiskOp, DiskResult, FileId, SegmentId};

const SECTOR: usize = 512;
/// Headers at the front of files are written when nothing else is; they have a second copy.
const HEADERS: usize = 4096;

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

/// What becomes of a write or of a change of names when the power goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Lost,
    Kept,
    Torn,
}

/// A change of names that a crash takes or leaves as a whole.
#[derive(Clone)]
struct NameChange {
    dir: Dir,
    set: Vec<(FileId, Option<u64>)>,
}

/// The segments of a disk as they were synced, to be read beside it.
#[derive(Clone, Debug, Default)]
pub struct Segments(Arc<Mutex<BTreeMap<FileId, Bytes>>>);

impl ReadSegment for Segments {
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        let files = self.0.lock().expect("nobody panics with it");
        let file = files.get(&id.file()).ok_or(DiskError::NotFound { place: id.file().path() })?;
        let end = (offset + len).min(file.len() as u64) as usize;
        Ok(file.slice((offset as usize).min(end)..end))
    }
}

/// A clone of a disk shares nothing.
#[derive(Default)]
struct Mirror(Option<Segments>);

impl Clone for Mirror {
    fn clone(&self) -> Mirror {
        Mirror(None)
    }
}

#[derive(Clone, Default)]
pub struct MemDisk {
    mirror: Mirror,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<FileId, u64>,
    durable_names: BTreeMap<FileId, u64>,
    unsynced_names: Vec<NameChange>,
    next_inode: u64,
    /// Operations that still succeed; then the power is gone.
    pub ops_left: Option<u64>,
    pub ops_done: u64,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
    /// Fails the sync that comes after so many others.
    pub fail_sync_in: Option<u64>,
}

pub fn power_cut() -> DiskError {
    DiskError::Failed { place: "disk".to_owned(), reason: "power cut".to_owned() }
}

impl MemDisk {
    /// From now on the segments can also be read beside the disk.
    pub fn share(&mut self) -> Segments {
        let segments = Segments::default();
        self.mirror = Mirror(Some(segments.clone()));
        self.files().into_iter().for_each(|file| self.reflect(file));
        segments
    }

    fn reflect(&self, file: FileId) {
        let Mirror(Some(segments)) = &self.mirror else { return };
        if matches!(file, FileId::Segment(..)) {
            let mut files = segments.0.lock().expect("nobody panics with it");
            match self.content(file) {
                Some(content) => files.insert(file, Bytes::copy_from_slice(content)),
                None => files.remove(&file),
            };
        }
    }

    pub fn run(&mut self, op: DiskOp) -> DiskResult {
        let place = op.place();
        if self.ops_left == Some(0) {
            // The operation that was under way may have had any effect that it could have without a sync.
            if matches!(
                op,
                DiskOp::Write { .. } | DiskOp::Rename { .. } | DiskOp::Create(_) | DiskOp::Remove(_)
            ) {
                let _ = self.apply(op, place);
            }
            return Err(power_cut());
        }
        self.ops_left = self.ops_left.map(|left| left - 1);
        self.ops_done += 1;
        self.apply(op, place)
    }

    fn apply(&mut self, op: DiskOp, place: String) -> DiskResult {
        let missing = || DiskError::NotFound { place: place.clone() };
        match op {
            DiskOp::MakeDir(_) => {}
            DiskOp::List(dir) => {
                let mut names = Vec::new();
                for (file, inode) in self.names.iter().filter(|(file, _)| file.dir() == dir) {
                    let path = file.path();
                    let name = path.rsplit('/').next().unwrap_or_default();
                    names.push((name.to_owned(), self.inodes[inode].current.len() as u64));
                }
                return Ok(DiskAnswer::Listed(names));
            }
            DiskOp::Create(file) => {
                self.next_inode += 1;
                self.inodes.insert(self.next_inode, Inode::default());
                let inode = self.next_inode;
                self.rename(file.dir(), vec![(file, Some(inode))]);
            }
            DiskOp::Fill { file, offset, len } => {
                self.write(file, offset, &vec![0; len as usize], missing)?
            }
            DiskOp::Allocate { file, len } => self.write(file, 0, &vec![0; len as usize], missing)?,
            DiskOp::Write { file, offset, data } => self.write(file, offset, &data.concat(), missing)?,
            DiskOp::Sync(file) => {
                if self.fail_sync_in == Some(0) {
                    // The system calls clean what it could not write, and shows it all the same.
                    if let Some(inode) = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)) {
                        inode.unsynced.clear();
                    }
                    return Err(DiskError::Failed {
                        place,
                        reason: "the device reports an error".to_owned(),
                    });
                }
                self.fail_sync_in = self.fail_sync_in.map(|left| left - 1);
                let inode =
                    self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)).ok_or_else(missing)?;
                for (offset, data) in std::mem::take(&mut inode.unsynced) {
                    let end = offset as usize + data.len();
                    inode.durable.resize(inode.durable.len().max(end), 0);
                    inode.durable[offset as usize..end].copy_from_slice(&data);
                }
                self.reflect(file);
            }
            DiskOp::SyncDir(dir) => {
                let all = std::mem::take(&mut self.unsynced_names);
                let (now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|change| change.dir == dir);
                self.unsynced_names = later;
                now.iter().for_each(|change| apply_names(&mut self.durable_names, change));
            }
            DiskOp::Rename { from, to } => {
                let inode = *self.names.get(&from).ok_or_else(missing)?;
                self.rename(from.dir(), vec![(from, None), (to, Some(inode))]);
            }
            DiskOp::Remove(file) => self.rename(file.dir(), vec![(file, None)]),
            DiskOp::Erase(file) => {
                if let Some(inode) = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)) {
                    inode.current.fill(0);
                    inode.durable = inode.current.clone();
                    inode.unsynced.clear();
                }
            }
            DiskOp::Length(file) => {
                return Ok(DiskAnswer::Length(self.content(file).ok_or_else(missing)?.len() as u64));
            }
            DiskOp::Read { file, offset, len } => {
                let content = self.content(file).ok_or_else(missing)?;
                let start = (offset as usize).min(content.len());
                let end = (start + len as usize).min(content.len());
                return Ok(DiskAnswer::Bytes(Bytes::copy_from_slice(&content[start..end])));
            }
        }
        Ok(DiskAnswer::Done)
    }

    /// The power comes back: what was not durable is there or not, sector by sector and name by name.
    pub fn crash(&mut self, rng: &mut Rng) {
        // Between "nothing survives" and "everything does" lies all that matters.
        let keep = rng.below(5);
        for inode in self.inodes.values_mut() {
            let mut content = std::mem::take(&mut inode.durable);
            for (offset, data) in std::mem::take(&mut inode.unsynced) {
                let mut at = 0;
                while at < data.len() {
                    let start = offset as usize + at;
                    let len = (SECTOR - start % SECTOR).min(data.len() - at);
                    if rng.chance(keep, 4) {
                        content.resize(content.len().max(start + len), 0);
                        content[start..start + len].copy_from_slice(&data[at..at + len]);
                    } else if start >= HEADERS && rng.chance(1, 8) {
                        // The sector that was being written when the power went: nothing in it is left.
                        let sector = start - start % SECTOR;
                        content.resize(content.len().max(sector + SECTOR), 0);
                        content[sector..sector + SECTOR].fill(0xa5);
                    }
                    at += len;
                }
            }
            inode.durable = content.clone();
            inode.current = content;
        }
        let keep_names = rng.below(5);
        for change in std::mem::take(&mut self.unsynced_names) {
            if rng.chance(keep_names, 4) {
                apply_names(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        let used: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| used.contains(inode));
        self.ops_left = None;
    }

    /// How many writes and changes of names no sync has followed.
    pub fn open_items(&self) -> usize {
        self.inodes.values().map(|inode| inode.unsynced.len()).sum::<usize>() + self.unsynced_names.len()
    }

    /// The disk after a power cut that exactly this much survived; what cannot be torn is kept.
    pub fn after_cut(&self, fate: &dyn Fn(usize) -> Fate) -> MemDisk {
        let mut disk = self.clone();
        let mut item = 0..;
        let mut next = || fate(item.next().unwrap_or_default());
        for inode in disk.inodes.values_mut() {
            let mut content = std::mem::take(&mut inode.durable);
            for (offset, data) in std::mem::take(&mut inode.unsynced) {
                let (fate, offset) = (next(), offset as usize);
                let sectors = data.len().div_ceil(SECTOR);
                for (number, sector) in data.chunks(SECTOR).enumerate() {
                    // Half of a torn write is there; of a single sector, none: a sector is written as a whole.
                    let is_there = match fate {
                        Fate::Lost => false,
                        Fate::Kept => true,
                        Fate::Torn => number < sectors / 2,
                    };
                    if is_there {
                        let start = offset + number * SECTOR;
                        content.resize(content.len().max(start + sector.len()), 0);
                        content[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            inode.durable = content.clone();
            inode.current = content;
        }
        for change in std::mem::take(&mut disk.unsynced_names) {
            if next() != Fate::Lost {
                apply_names(&mut disk.durable_names, &change);
            }
        }
        disk.names = disk.durable_names.clone();
        disk
    }

    /// The process died, not the machine: everything is there, but it is not durable.
    pub fn restart(&mut self) {
        self.ops_left = None;
    }

    /// Everything is written and synced, as after a clean shutdown.
    pub fn settle(&mut self) {
        self.durable_names = self.names.clone();
        self.unsynced_names.clear();
        for inode in self.inodes.values_mut() {
            inode.durable = inode.current.clone();
            inode.unsynced.clear();
        }
    }

    pub fn files(&self) -> Vec<FileId> {
        self.names.keys().copied().collect()
    }

    pub fn content(&self, file: FileId) -> Option<&[u8]> {
        Some(&self.inodes.get(self.names.get(&file)?)?.current)
    }

    pub fn content_mut(&mut self, file: FileId) -> Option<&mut Vec<u8>> {
        Some(&mut self.inodes.get_mut(self.names.get(&file)?)?.current)
    }

    /// Makes a file with a content, durably.
    pub fn put(&mut self, file: FileId, content: Vec<u8>) {
        self.next_inode += 1;
        let inode = Inode { durable: content.clone(), current: content, unsynced: Vec::new() };
        self.inodes.insert(self.next_inode, inode);
        self.names.insert(file, self.next_inode);
        self.durable_names.insert(file, self.next_inode);
    }

    pub fn remove(&mut self, file: FileId) {
        self.names.remove(&file);
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }

    fn write(
        &mut self,
        file: FileId,
        offset: u64,
        data: &[u8],
        missing: impl Fn() -> DiskError,
    ) -> Result<(), DiskError> {
        let used = self.used();
        let inode = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)).ok_or_else(missing)?;
        let end = offset as usize + data.len();
        let grows = end.saturating_sub(inode.current.len()) as u64;
        if self.capacity.is_some_and(|capacity| used + grows > capacity) {
            return Err(DiskError::Full { place: file.path() });
        }
        inode.current.resize(inode.current.len().max(end), 0);
        inode.current[offset as usize..end].copy_from_slice(data);
        inode.unsynced.push((offset, data.to_vec()));
        Ok(())
    }

    fn rename(&mut self, dir: Dir, set: Vec<(FileId, Option<u64>)>) {
        let change = NameChange { dir, set };
        apply_names(&mut self.names, &change);
        change.set.iter().filter(|(_, inode)| inode.is_none()).for_each(|(file, _)| self.reflect(*file));
        self.unsynced_names.push(change);
    }
}

fn apply_names(names: &mut BTreeMap<FileId, u64>, change: &NameChange) {
    for (file, inode) in &change.set {
        match inode {
            Some(inode) => names.insert(*file, *inode),
            None => names.remove(file),
        };
    }
}
