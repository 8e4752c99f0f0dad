//! Files and folders, each as a process sees it and as it is on the platter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::Errno;

/// The topmost folder.
pub(crate) const ROOT: u64 = 1;

/// A change of a file that no sync has followed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Counts all changes: a sync covers those before it began.
    pub serial: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FileBody {
    pub current: Vec<u8>,
    pub durable: Vec<u8>,
    pub open: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DirBody {
    pub current: BTreeMap<OsString, u64>,
    pub durable: BTreeMap<OsString, u64>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    File(FileBody),
    Dir(DirBody),
}

#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub parent: u64,
    pub name: OsString,
    pub mode: u16,
    pub changed: SystemTime,
    pub handles: u32,
    pub body: Body,
}

/// A change of names that a power cut takes or leaves as a whole.
#[derive(Clone, Debug)]
pub(crate) struct NameChange {
    pub serial: u64,
    pub set: Vec<(u64, OsString, Option<u64>)>,
}

/// What a sync means for names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Journal {
    /// A folder's names are durable when the folder is synced, and then alone: all that is promised.
    Folders,
    /// Any sync makes all names durable, in their order, and a file that replaces another brings its content: what ext4
    /// does by default.
    Whole,
}

pub(crate) struct Tree {
    pub inodes: BTreeMap<u64, Inode>,
    pub names: Vec<NameChange>,
    pub journal: Journal,
    next: u64,
    serial: u64,
}

impl What {
    pub(crate) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            What::Length(len) => to.resize(*len, 0),
            What::Write { offset, data } => {
                if to.len() < offset + data.len() {
                    to.resize(offset + data.len(), 0);
                }
                to[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Inode {
    fn new(parent: u64, name: &OsStr, mode: u16, body: Body) -> Inode {
        Inode { parent, name: name.to_owned(), mode, changed: SystemTime::now(), handles: 0, body }
    }

    pub(crate) fn file(&self) -> Result<&FileBody, Errno> {
        match &self.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::EISDIR),
        }
    }

    pub(crate) fn dir(&self) -> Result<&DirBody, Errno> {
        match &self.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn file_mut(&mut self) -> Result<&mut FileBody, Errno> {
        self.changed = SystemTime::now();
        match &mut self.body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::EISDIR),
        }
    }
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let root = Inode::new(ROOT, OsStr::new(""), 0o755, Body::Dir(DirBody::default()));
        let inodes = [(ROOT, root)].into();
        Tree { inodes, names: Vec::new(), journal: Journal::Folders, next: ROOT + 1, serial: 0 }
    }

    pub(crate) fn get(&self, ino: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno::ENOENT)
    }

    pub(crate) fn get_mut(&mut self, ino: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    /// Where a file is or was, below the mount.
    pub(crate) fn path(&self, mut ino: u64) -> PathBuf {
        let mut parts = Vec::new();
        while let Some(inode) = self.inodes.get(&ino).filter(|_| ino != ROOT) {
            parts.push(inode.name.clone());
            ino = inode.parent;
        }
        parts.iter().rev().collect()
    }

    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.get(parent)?.dir()?.current.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// How many changes there have been.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Bytes of all files that have a name.
    pub(crate) fn used(&self) -> u64 {
        let named = self.inodes.values().filter_map(|inode| inode.dir().ok());
        let named = named.flat_map(|dir| dir.current.values());
        named.filter_map(|ino| Some(self.inodes.get(ino)?.file().ok()?.current.len() as u64)).sum()
    }

    pub(crate) fn make(&mut self, parent: u64, name: &OsStr, mode: u16, body: Body) -> Result<u64, Errno> {
        if self.get(parent)?.dir()?.current.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, Inode::new(parent, name, mode, body));
        self.change_names(vec![(parent, name.to_owned(), Some(ino))]);
        Ok(ino)
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr, is_dir: bool) -> Result<(), Errno> {
        let inode = self.get(self.lookup(parent, name)?)?;
        match (&inode.body, is_dir) {
            (Body::Dir(_), false) => return Err(Errno::EISDIR),
            (Body::File(_), true) => return Err(Errno::ENOTDIR),
            (Body::Dir(dir), true) if !dir.current.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.change_names(vec![(parent, name.to_owned(), None)]);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?;
        let replaced = self.lookup(to.0, to.1).ok();
        if replaced == Some(ino) {
            return Ok(());
        }
        if replaced.is_some_and(|old| {
            self.get(old).and_then(|old| old.dir()).is_ok_and(|dir| !dir.current.is_empty())
        }) {
            return Err(Errno::ENOTEMPTY);
        }
        if replaced.is_some() && self.journal == Journal::Whole {
            let serial = self.serial;
            self.sync_content(ino, serial);
        }
        self.change_names(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(ino))]);
        let inode = self.get_mut(ino)?;
        (inode.parent, inode.name) = (to.0, to.1.to_owned());
        Ok(())
    }

    pub(crate) fn change(&mut self, ino: u64, what: What) -> Result<(), Errno> {
        self.serial += 1;
        let serial = self.serial;
        let file = self.get_mut(ino)?.file_mut()?;
        what.apply(&mut file.current);
        file.open.push(Change { serial, what });
        Ok(())
    }

    /// What was written before `serial` is durable.
    pub(crate) fn sync_file(&mut self, ino: u64, serial: u64) {
        self.sync_content(ino, serial);
        if self.journal == Journal::Whole {
            self.sync_names(|_| true, serial);
        }
    }

    pub(crate) fn sync_dir(&mut self, ino: u64, serial: u64) {
        let whole = self.journal == Journal::Whole;
        self.sync_names(|change| whole || change.set.iter().any(|(dir, _, _)| *dir == ino), serial);
        self.collect();
    }

    /// A sync failed: the kernel drops what it could not write and calls it clean, so that a second sync finds nothing.
    pub(crate) fn lose_unsynced(&mut self, ino: u64) {
        if let Ok(Inode { body: Body::File(file), .. }) = self.get_mut(ino) {
            file.open.clear();
        }
    }

    /// What a process sees is what is durable.
    pub(crate) fn settle(&mut self) {
        let serial = self.serial;
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        all.into_iter().for_each(|ino| self.sync_content(ino, serial));
        self.sync_names(|_| true, serial);
        self.collect();
    }

    fn sync_content(&mut self, ino: u64, serial: u64) {
        let Ok(Inode { body: Body::File(file), .. }) = self.get_mut(ino) else { return };
        let at = file.open.partition_point(|change| change.serial <= serial);
        for change in file.open.drain(..at) {
            change.what.apply(&mut file.durable);
        }
    }

    fn sync_names(&mut self, is_meant: impl Fn(&NameChange) -> bool, serial: u64) {
        let all = std::mem::take(&mut self.names);
        let (now, later): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|change| change.serial <= serial && is_meant(change));
        self.names = later;
        now.iter().for_each(|change| self.apply_names(change, true));
    }

    fn change_names(&mut self, set: Vec<(u64, OsString, Option<u64>)>) {
        self.serial += 1;
        let change = NameChange { serial: self.serial, set };
        self.apply_names(&change, false);
        self.names.push(change);
    }

    pub(crate) fn apply_names(&mut self, change: &NameChange, durably: bool) {
        for (dir, name, ino) in &change.set {
            let Some(Inode { body: Body::Dir(dir), .. }) = self.inodes.get_mut(dir) else { continue };
            let names = if durably { &mut dir.durable } else { &mut dir.current };
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
    }

    /// Drops what has no name, may not get one back and is not open.
    pub(crate) fn collect(&mut self) {
        let mut used: BTreeSet<u64> = [ROOT].into();
        for inode in self.inodes.values() {
            if let Body::Dir(dir) = &inode.body {
                used.extend(dir.current.values().chain(dir.durable.values()));
            }
        }
        used.extend(self.names.iter().flat_map(|change| &change.set).filter_map(|(_, _, ino)| *ino));
        self.inodes.retain(|ino, inode| inode.handles > 0 || used.contains(ino));
    }
}
