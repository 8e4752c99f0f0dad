//! The kernel's requests, answered from the tree.

use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::faults::{Act, Faults};
use crate::mount::Counts;
use crate::tree::{Body, DirBody, FileBody, ROOT, Tree, What};

/// Nothing is remembered by the kernel: after a power cut everything may be otherwise.
const TTL: Duration = Duration::ZERO;
/// What the disk seems to have where no capacity is set.
const CAPACITY: u64 = 4 << 30;
const BLOCK: u64 = 4096;

/// Whether the disk has power.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Power {
    On,
    /// Nothing is answered any more.
    Cut,
    /// Whoever still waits is told of an error.
    Off,
}

pub(crate) struct State {
    pub tree: Tree,
    pub faults: Faults,
    pub power: Power,
    /// How long a sync takes.
    pub sync_delay: Duration,
    /// Requests that are still answered; then the power goes.
    pub cut_after: Option<u64>,
    pub counts: Counts,
}

/// Shared by the file system's threads and whoever steers it.
pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    pub(crate) fn new(state: State) -> Arc<Shared> {
        Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked here has failed its test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_power(&self, power: Power) {
        self.lock().power = power;
        self.wake.notify_all();
    }

    /// The state while there is power; none is answered while it is gone.
    fn powered(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock();
        if state.cut_after == Some(0) && state.power == Power::On {
            state.power = Power::Cut;
            self.wake.notify_all();
        }
        state.cut_after = state.cut_after.map(|left| left.saturating_sub(1));
        self.settle(state)
    }

    /// Waits until the power is gone, but not longer than that; gives whether it is.
    pub(crate) fn wait_for_cut(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while state.power == Power::On {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn settle<'a>(&self, mut state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>, Errno> {
        while state.power == Power::Cut {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.power == Power::Off { Err(Errno::EIO) } else { Ok(state) }
    }

    /// Makes durable what was written before this was called, some time later.
    fn sync(&self, ino: u64, is_dir: bool) -> Result<(), Errno> {
        let mut state = self.powered()?;
        let serial = state.tree.serial();
        let end = Instant::now() + state.sync_delay;
        while state.power == Power::On {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut state = self.settle(state)?;
        state.counts.syncs += 1;
        let path = state.tree.path(ino);
        if let Err(error) = state.faults.check(Act::Sync, &path, 0..u64::MAX) {
            state.tree.lose_unsynced(ino);
            return Err(error);
        }
        match is_dir {
            true => state.tree.sync_dir(ino, serial),
            false => state.tree.sync_file(ino, serial),
        }
        Ok(())
    }
}

impl State {
    fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        let inode = self.tree.get(ino)?;
        let (kind, size) = match &inode.body {
            Body::File(file) => (FileType::RegularFile, file.current.len() as u64),
            Body::Dir(_) => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: inode.changed,
            mtime: inode.changed,
            ctime: inode.changed,
            crtime: UNIX_EPOCH,
            kind,
            perm: inode.mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }

    fn fits(&mut self, ino: u64, end: u64) -> Result<(), Errno> {
        let grows = end.saturating_sub(self.tree.get(ino)?.file()?.current.len() as u64);
        match self.faults.capacity {
            Some(capacity) if grows > 0 && self.tree.used() + grows > capacity => {
                self.faults.hits += 1;
                Err(Errno::ENOSPC)
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let data = &data[..data.len().min(self.faults.write_most.unwrap_or(usize::MAX))];
        let (path, end) = (self.tree.path(ino), offset + data.len() as u64);
        self.faults.check(Act::Write, &path, offset..end)?;
        self.fits(ino, end)?;
        self.counts.writes += 1;
        self.tree.change(ino, What::Write { offset: offset as usize, data: data.to_vec() })?;
        Ok(data.len() as u32)
    }

    fn set_length(&mut self, ino: u64, len: u64) -> Result<(), Errno> {
        let path = self.tree.path(ino);
        self.faults.check(Act::Write, &path, 0..u64::MAX)?;
        self.fits(ino, len)?;
        self.tree.change(ino, What::Length(len as usize))
    }

    fn names(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.counts.names += 1;
        let path = self.tree.path(parent).join(name);
        self.faults.check(Act::Name, &path, 0..u64::MAX)
    }

    fn make(&mut self, parent: INodeNo, name: &OsStr, mode: u32, body: Body) -> Result<FileAttr, Errno> {
        self.names(parent.0, name)?;
        let ino = self.tree.make(parent.0, name, (mode & 0o7777) as u16, body)?;
        self.attr(ino)
    }
}

/// What the kernel talks to; the tree outlives it.
pub(crate) struct Door(pub(crate) Arc<Shared>);

impl Filesystem for Door {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let look = |state: MutexGuard<'_, State>| state.attr(state.tree.lookup(parent.0, name)?);
        match self.0.powered().and_then(look) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.powered().and_then(|state| state.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = |mut state: MutexGuard<'_, State>| {
            if let Some(len) = size {
                state.set_length(ino.0, len)?;
            }
            if let Some(mode) = mode {
                state.tree.get_mut(ino.0)?.mode = (mode & 0o7777) as u16;
            }
            state.attr(ino.0)
        };
        match self.0.powered().and_then(set) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let body = Body::Dir(DirBody::default());
        match self.0.powered().and_then(|mut state| state.make(parent, name, mode & !umask, body)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let make = |mut state: MutexGuard<'_, State>| {
            let attr = state.make(parent, name, mode & !umask, Body::File(FileBody::default()))?;
            state.tree.get_mut(attr.ino.0)?.handles += 1;
            Ok(attr)
        };
        match self.0.powered().and_then(make) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |mut state: MutexGuard<'_, State>| {
            state.names(parent.0, name)?;
            state.tree.remove(parent.0, name, false)
        };
        end(self.0.powered().and_then(remove), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |mut state: MutexGuard<'_, State>| {
            state.names(parent.0, name)?;
            state.tree.remove(parent.0, name, true)
        };
        end(self.0.powered().and_then(remove), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = |mut state: MutexGuard<'_, State>| {
            if flags != RenameFlags::empty() {
                return Err(Errno::EINVAL);
            }
            state.names(to.0, new)?;
            state.tree.rename((parent.0, name), (to.0, new))
        };
        end(self.0.powered().and_then(rename), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let open = |mut state: MutexGuard<'_, State>| {
            state.tree.get_mut(ino.0)?.handles += 1;
            Ok(())
        };
        match self.0.powered().and_then(open) {
            // Past the page cache: each read asks the disk.
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(inode) = self.0.lock().tree.get_mut(ino.0) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |mut state: MutexGuard<'_, State>| {
            let path = state.tree.path(ino.0);
            state.faults.check(Act::Read, &path, offset..offset + u64::from(size))?;
            state.counts.reads += 1;
            let content = &state.tree.get(ino.0)?.file()?.current;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let end = start.saturating_add(size as usize).min(content.len());
            Ok(content[start..end].to_vec())
        };
        match self.0.powered().and_then(read) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.powered().and_then(|mut state| state.write(ino.0, offset, data)) {
            Ok(len) => reply.written(len),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        end(self.0.sync(ino.0, false), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        end(self.0.sync(ino.0, true), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let list = |state: MutexGuard<'_, State>| {
            let names = state.tree.get(ino.0)?.dir()?.current.iter();
            let mut list: Vec<_> = names.map(|(name, ino)| (*ino, name.clone())).collect();
            // By number, so that what is removed meanwhile shifts nothing.
            list.sort_unstable();
            let kind = |ino: u64| match state.tree.get(ino).map(|inode| &inode.body) {
                Ok(Body::Dir(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            Ok(list.into_iter().map(|(ino, name)| (ino, kind(ino), name)).collect::<Vec<_>>())
        };
        match self.0.powered().and_then(list) {
            Ok(list) => {
                for (ino, kind, name) in list.into_iter().filter(|(ino, _, _)| *ino > offset.max(ROOT)) {
                    if reply.add(INodeNo(ino), ino, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.0.lock();
        let capacity = state.faults.capacity.unwrap_or(CAPACITY);
        let free = capacity.saturating_sub(state.tree.used()) / BLOCK;
        reply.statfs(capacity / BLOCK, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }
}

fn end(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
