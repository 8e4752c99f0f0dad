//! A disk in memory that runs the store's operations and can lose what was not synced.
//!
//! Two copies of everything: what a process sees (the page cache) and what is on the platter. A power cut keeps any
//! part of what lies between them: each unsynced write wholly, sector by sector or not at all, and any subset of the
//! unsynced changes of names. The death of a process alone loses nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hw_kit::Rng;
use hw_store::index::ReadSegment;
use hw_store::{Dir, DiskAnswer, DiskError, DiskOp, DiskResult, FileId, SegmentId};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Content {
    Zeros(usize),
    Pieces(Vec<Bytes>),
}

/// A write that no sync has followed.
#[derive(Clone, Debug)]
struct Unsynced {
    /// Counts all changes of the disk: a sync covers those before it began.
    serial: u64,
    offset: usize,
    content: Content,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

/// A change of names that a power cut takes or leaves as a whole.
#[derive(Clone, Debug)]
struct NameChange {
    serial: u64,
    dir: Dir,
    set: Vec<(FileId, Option<u64>)>,
}

/// A sync that has begun: it makes durable what was written before that.
#[derive(Clone, Copy, Debug)]
pub struct SyncBegun {
    inode: Option<u64>,
    dir: Option<Dir>,
    serial: u64,
}

/// What whoever shares the disk sees of its segments: a copy of what was synced. A clone of the disk is not shared.
#[derive(Debug, Default)]
struct Mirror(Option<Segments>);

impl Clone for Mirror {
    fn clone(&self) -> Mirror {
        Mirror(None)
    }
}

/// The segments of a disk, to be read while it runs other operations.
#[derive(Clone, Debug, Default)]
pub struct Segments(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    files: BTreeMap<FileId, Bytes>,
    unreadable: Option<FileId>,
}

impl Segments {
    fn set(&self, file: FileId, content: Option<Bytes>) {
        let files = &mut self.lock().files;
        match content {
            Some(content) => files.insert(file, content),
            None => files.remove(&file),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadSegment for Segments {
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        let shared = self.lock();
        if shared.unreadable == Some(id.file()) {
            return Err(unreadable(id.file().path()));
        }
        let file = shared.files.get(&id.file()).ok_or_else(|| missing(id.file()))?;
        let end = (offset.saturating_add(len)).min(file.len() as u64);
        Ok(file.slice(offset.min(end) as usize..end as usize))
    }
}

/// The disk of one shard.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    mirror: Mirror,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<FileId, u64>,
    durable_names: BTreeMap<FileId, u64>,
    unsynced_names: Vec<NameChange>,
    next_inode: u64,
    serial: u64,
    /// Operations that still succeed; then the power is gone.
    pub ops_left: Option<u64>,
    /// Operations that were run.
    pub ops_done: u64,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
    /// Fails the sync that comes after so many others.
    pub fail_sync_in: Option<u64>,
    /// Fails the write that comes after so many others, and each one after it; a part of it is written.
    pub fail_write_in: Option<u64>,
    /// Fails the read that comes after so many others, once.
    pub fail_read_in: Option<u64>,
    /// Nothing of this file can be read.
    unreadable: Option<FileId>,
    unreadable_pages: Option<FileId>,
    /// Every so-manieth read fails.
    pub fail_reads: Option<u64>,
    /// Nothing can be changed, as after a kernel has given up on a disk.
    pub read_only: bool,
    /// Operations that were made to fail, power cuts and want of space aside.
    pub failures: u64,
    /// Syncs report success and do nothing: a disk that lies.
    pub ignores_syncs: bool,
}

/// What an operation answers after the power is gone.
pub fn power_cut() -> DiskError {
    DiskError::Failed { place: "disk".to_owned(), reason: "power cut".to_owned() }
}

impl MemDisk {
    /// From now on the segments can also be read beside the disk.
    pub fn share(&mut self) -> Segments {
        let segments = Segments::default();
        for file in self.files().into_iter().filter(|file| matches!(file, FileId::Segment(..))) {
            segments.set(file, self.content(file).map(Bytes::copy_from_slice));
        }
        segments.lock().unreadable = self.unreadable_pages;
        self.mirror = Mirror(Some(segments.clone()));
        segments
    }

    /// From now on nothing of this file can be read.
    pub fn set_unreadable(&mut self, file: Option<FileId>) {
        self.unreadable = file;
        self.set_unreadable_pages(file);
    }

    /// From now on nothing of this file can be read beside the disk.
    pub fn set_unreadable_pages(&mut self, file: Option<FileId>) {
        self.unreadable_pages = file;
        if let Mirror(Some(segments)) = &self.mirror {
            segments.lock().unreadable = file;
        }
    }

    fn reflect(&self, file: FileId) {
        if let Mirror(Some(segments)) = &self.mirror
            && matches!(file, FileId::Segment(..))
        {
            segments.set(file, self.content(file).map(Bytes::copy_from_slice));
        }
    }

    /// Runs one operation to its end.
    pub fn run(&mut self, op: DiskOp) -> DiskResult {
        if self.ops_left == Some(0) {
            // The operation that was under way may have had any effect that it could have without a sync.
            if matches!(
                op,
                DiskOp::Write { .. } | DiskOp::Rename { .. } | DiskOp::Create(_) | DiskOp::Remove(_)
            ) {
                let _ = self.apply(op);
            }
            return Err(power_cut());
        }
        self.ops_left = self.ops_left.map(|left| left - 1);
        self.ops_done += 1;
        self.fail(&op)?;
        self.apply(op)
    }

    /// Whether an operation fails, as it was asked for.
    fn fail(&mut self, op: &DiskOp) -> Result<(), DiskError> {
        let failed = |reason: &str| DiskError::Failed { place: op.place(), reason: reason.to_owned() };
        let is_read = matches!(op, DiskOp::List(_) | DiskOp::Length(_) | DiskOp::Read { .. });
        if is_read {
            let every = self.fail_reads.unwrap_or(u64::MAX);
            let is_this_one = self.fail_read_in == Some(0);
            self.fail_read_in = self.fail_read_in.and_then(|left| left.checked_sub(1));
            let is_bad = matches!(op, DiskOp::Length(file) | DiskOp::Read { file, .. } if Some(*file) == self.unreadable);
            if is_this_one || is_bad || every != u64::MAX && self.ops_done.is_multiple_of(every) {
                self.failures += 1;
                return Err(unreadable(op.place()));
            }
            return Ok(());
        }
        if self.read_only {
            self.failures += 1;
            return Err(failed("read-only file system"));
        }
        match &mut self.fail_write_in {
            None => Ok(()),
            Some(0) => {
                self.failures += 1;
                if let DiskOp::Write { file, offset, data } = op {
                    // How far it came is anybody's guess: its first half, here.
                    let data = data.concat();
                    let half = Bytes::copy_from_slice(&data[..data.len() / 2]);
                    let _ = self.write(*file, *offset, Content::Pieces(vec![half]));
                }
                Err(failed("the device reports an error"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Begins a `Sync` or `SyncDir`; None for other operations.
    pub fn begin_sync(&self, op: &DiskOp) -> Option<Result<SyncBegun, DiskError>> {
        let serial = self.serial;
        match op {
            DiskOp::Sync(file) => Some(match self.names.get(file) {
                Some(&inode) => Ok(SyncBegun { inode: Some(inode), dir: None, serial }),
                None => Err(DiskError::NotFound { place: file.path() }),
            }),
            DiskOp::SyncDir(dir) => Some(Ok(SyncBegun { inode: None, dir: Some(*dir), serial })),
            _ => None,
        }
    }

    /// Ends a sync: what was written before it began is durable.
    pub fn finish_sync(&mut self, begun: SyncBegun) -> DiskResult {
        if begun.inode.is_some() {
            if self.fail_sync_in == Some(0) {
                self.failures += 1;
                if let Some(inode) = begun.inode.and_then(|inode| self.inodes.get_mut(&inode)) {
                    // The kernel calls clean what it could not write: a later sync finds nothing to do.
                    inode.unsynced.clear();
                }
                let reason = "the device reports an error".to_owned();
                let named = self.names.iter().find(|(_, inode)| Some(**inode) == begun.inode);
                let place = named.map_or_else(|| "disk".to_owned(), |(file, _)| file.path());
                return Err(DiskError::Failed { place, reason });
            }
            self.fail_sync_in = self.fail_sync_in.map(|left| left - 1);
        }
        if self.ignores_syncs {
            return Ok(DiskAnswer::Done);
        }
        let synced = begun.inode.and_then(|inode| self.names.iter().find(|(_, named)| **named == inode));
        if let Some((&file, _)) = synced {
            self.reflect(file);
        }
        if let Some(inode) = begun.inode.and_then(|inode| self.inodes.get_mut(&inode)) {
            let (done, open) = std::mem::take(&mut inode.unsynced)
                .into_iter()
                .partition(|write| write.serial <= begun.serial);
            inode.unsynced = open;
            let done: Vec<Unsynced> = done;
            for write in &done {
                write.content.write_to(&mut inode.durable, write.offset, |_| true);
            }
        }
        if let Some(dir) = begun.dir {
            let all = std::mem::take(&mut self.unsynced_names);
            let (now, later): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|change| change.dir == dir && change.serial <= begun.serial);
            self.unsynced_names = later;
            now.iter().for_each(|change| apply_names(&mut self.durable_names, change));
        }
        Ok(DiskAnswer::Done)
    }

    fn apply(&mut self, op: DiskOp) -> DiskResult {
        if let Some(begun) = self.begin_sync(&op) {
            return self.finish_sync(begun?);
        }
        match op {
            DiskOp::List(dir) => return Ok(DiskAnswer::Listed(self.list(dir))),
            DiskOp::Create(file) => {
                self.next_inode += 1;
                self.inodes.insert(self.next_inode, Inode::default());
                let inode = self.next_inode;
                self.change_names(file.dir(), vec![(file, Some(inode))]);
            }
            DiskOp::Fill { file, offset, len } => self.write(file, offset, Content::Zeros(len as usize))?,
            DiskOp::Allocate { file, len } => self.write(file, 0, Content::Zeros(len as usize))?,
            DiskOp::Write { file, offset, data } => self.write(file, offset, Content::Pieces(data))?,
            DiskOp::Rename { from, to } => {
                let inode = *self.names.get(&from).ok_or_else(|| missing(from))?;
                self.change_names(from.dir(), vec![(from, None), (to, Some(inode))]);
            }
            DiskOp::Remove(file) => self.change_names(file.dir(), vec![(file, None)]),
            DiskOp::Erase(file) => {
                if let Some(len) = self.content(file).map(<[u8]>::len) {
                    self.write(file, 0, Content::Zeros(len))?;
                    return self.apply(DiskOp::Sync(file));
                }
            }
            DiskOp::Length(file) => {
                let content = self.content(file).ok_or_else(|| missing(file))?;
                return Ok(DiskAnswer::Length(content.len() as u64));
            }
            DiskOp::Read { file, offset, len } => {
                let content = self.content(file).ok_or_else(|| missing(file))?;
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(content.len() - start);
                return Ok(DiskAnswer::Bytes(Bytes::copy_from_slice(&content[start..start + len])));
            }
            DiskOp::MakeDir(_) | DiskOp::Sync(_) | DiskOp::SyncDir(_) => {}
        }
        Ok(DiskAnswer::Done)
    }

    /// The power comes back: what was not durable is there or not.
    pub fn crash(&mut self, rng: &mut Rng) {
        // Between "nothing survives" and "everything does" lies all that matters.
        let keep = rng.below(5);
        for inode in self.inodes.values_mut() {
            for write in std::mem::take(&mut inode.unsynced) {
                let fate = rng.below(3);
                let whole = rng.chance(keep, 4);
                write.content.write_to(&mut inode.durable, write.offset, |_| match fate {
                    0 => whole,
                    _ => rng.chance(keep, 4),
                });
            }
            inode.current.clone_from(&inode.durable);
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

    /// Everything is written and synced, as after a clean shutdown.
    pub fn settle(&mut self) {
        self.durable_names = self.names.clone();
        self.unsynced_names.clear();
        for inode in self.inodes.values_mut() {
            inode.durable.clone_from(&inode.current);
            inode.unsynced.clear();
        }
    }

    /// All files.
    pub fn files(&self) -> Vec<FileId> {
        self.names.keys().copied().collect()
    }

    /// What a process reads in a file.
    pub fn content(&self, file: FileId) -> Option<&[u8]> {
        Some(&self.inodes.get(self.names.get(&file)?)?.current)
    }

    /// A file's content, to damage it behind the store's back; `settle` makes that durable.
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

    /// Takes a file away behind the store's back.
    pub fn remove(&mut self, file: FileId) {
        self.names.remove(&file);
    }

    fn list(&self, dir: Dir) -> Vec<(String, u64)> {
        let files = self.names.iter().filter(|(file, _)| file.dir() == dir);
        let named = files.map(|(file, inode)| {
            let path = file.path();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            (name, self.inodes[inode].current.len() as u64)
        });
        named.collect()
    }

    /// Every file with what a process reads in it and what is on the platter.
    pub fn contents(&self) -> impl Iterator<Item = (FileId, &[u8], &[u8])> {
        let all = self.names.iter().map(|(file, inode)| (*file, &self.inodes[inode]));
        all.map(|(file, inode)| (file, &inode.current[..], &inode.durable[..]))
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }

    fn write(&mut self, file: FileId, offset: u64, content: Content) -> Result<(), DiskError> {
        let used = if self.capacity.is_some() { self.used() } else { 0 };
        let inode = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode));
        let inode = inode.ok_or_else(|| missing(file))?;
        let offset = offset as usize;
        let grows = (offset + content.len()).saturating_sub(inode.current.len()) as u64;
        if self.capacity.is_some_and(|capacity| used + grows > capacity) {
            return Err(DiskError::Full { place: file.path() });
        }
        content.write_to(&mut inode.current, offset, |_| true);
        self.serial += 1;
        inode.unsynced.push(Unsynced { serial: self.serial, offset, content });
        Ok(())
    }

    fn change_names(&mut self, dir: Dir, set: Vec<(FileId, Option<u64>)>) {
        self.serial += 1;
        let change = NameChange { serial: self.serial, dir, set };
        apply_names(&mut self.names, &change);
        change.set.iter().filter(|(_, inode)| inode.is_none()).for_each(|(file, _)| self.reflect(*file));
        self.unsynced_names.push(change);
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Zeros(len) => *len,
            Content::Pieces(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Writes the sectors that `survives` lets through; it gets the number of the sector.
    fn write_to(&self, file: &mut Vec<u8>, offset: usize, mut survives: impl FnMut(usize) -> bool) {
        match self {
            Content::Zeros(len) => write_sectors(file, offset, &vec![0; *len], &mut survives),
            Content::Pieces(pieces) if pieces.len() == 1 => {
                write_sectors(file, offset, &pieces[0], &mut survives)
            }
            Content::Pieces(pieces) => write_sectors(file, offset, &pieces.concat(), &mut survives),
        }
    }
}

fn write_sectors(file: &mut Vec<u8>, offset: usize, data: &[u8], survives: &mut impl FnMut(usize) -> bool) {
    let mut at = 0;
    while at < data.len() {
        let start = offset + at;
        let len = (SECTOR - start % SECTOR).min(data.len() - at);
        if survives(start / SECTOR) {
            if file.len() < start + len {
                file.resize(start + len, 0);
            }
            file[start..start + len].copy_from_slice(&data[at..at + len]);
        }
        at += len;
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

fn unreadable(place: String) -> DiskError {
    DiskError::Failed { place, reason: "the device reports an error".to_owned() }
}

fn missing(file: FileId) -> DiskError {
    DiskError::NotFound { place: file.path() }
}
