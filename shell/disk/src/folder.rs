//! One shard's folder: runs the store's operations with system calls, one file handle per file in use.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use hw_store::{Dir, DiskAnswer, DiskError, DiskOp, DiskResult, FileId};

/// Handles that one thread keeps open.
const HANDLES_MAX: usize = 16;
/// Writes of this size are parts of long files: see [`start_writing_back`].
const LARGE_WRITE_BYTES: usize = 512 << 10;
/// Reads that are no longer than this are tried without asking for the file's length before.
#[cfg(target_os = "linux")]
const LOOK_BYTES: u64 = 1 << 20;
/// A page at a time: what is filled in larger pieces sits in larger pieces in the page cache, and a kernel may then write
/// all of such a piece back for every small window in it.
const ZEROS: &[u8; 4 << 10] = &[0; 4 << 10];

/// Runs operations in a folder. Each thread has its own.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Most recently used last.
    handles: VecDeque<(FileId, File)>,
    handles_max: usize,
}

impl Folder {
    /// The folder need not exist yet: `MakeDir` makes it.
    pub fn new(path: PathBuf) -> Folder {
        Folder::with_handles(path, HANDLES_MAX)
    }

    /// The same, with so many files kept open.
    pub(crate) fn with_handles(path: PathBuf, handles_max: usize) -> Folder {
        Folder { path, handles: VecDeque::new(), handles_max }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs one operation to its end.
    pub fn run(&mut self, op: DiskOp) -> DiskResult {
        self.apply(&op).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DiskError::Full { place: op.place() }
            }
            io::ErrorKind::NotFound => DiskError::NotFound { place: op.place() },
            _ => DiskError::Failed { place: op.place(), reason: format!("{}: {error}", act(&op)) },
        })
    }

    /// Runs an operation that reads, if that needs no disk: None if what it reads is not in memory.
    pub(crate) fn run_cached(&mut self, op: &DiskOp) -> Option<DiskResult> {
        let DiskOp::Read { file, offset, len } = *op else { return Some(self.run(op.clone())) };
        let bytes = read_cached(self.handle(file).ok()?, offset, len)?;
        Some(Ok(DiskAnswer::Bytes(bytes)))
    }

    /// Runs a list; the first failure ends it.
    pub fn run_all(&mut self, ops: Vec<DiskOp>) -> Result<(), DiskError> {
        ops.into_iter().try_for_each(|op| self.run(op).map(|_| ()))
    }

    /// Closes a file that somebody else removed: an open handle would keep its space.
    pub fn forget(&mut self, file: FileId) {
        self.handles.retain(|(open, _)| *open != file);
    }

    fn apply(&mut self, op: &DiskOp) -> io::Result<DiskAnswer> {
        match *op {
            DiskOp::MakeDir(dir) => make_dir(&self.dir_path(dir))?,
            DiskOp::List(dir) => return list(&self.dir_path(dir)).map(DiskAnswer::Listed),
            DiskOp::Create(file) => {
                self.forget(file);
                let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
                let handle = options.open(self.file_path(file))?;
                self.keep(file, handle);
            }
            DiskOp::Fill { file, offset, len } => fill(self.handle(file)?, offset, len)?,
            DiskOp::Allocate { file, len } => allocate(self.handle(file)?, len)?,
            DiskOp::Write { file, mut offset, ref data } => {
                let handle = self.handle(file)?;
                for piece in data {
                    handle.write_all_at(piece, offset)?;
                    if piece.len() >= LARGE_WRITE_BYTES {
                        start_writing_back(handle, offset, piece.len() as u64);
                    }
                    offset += piece.len() as u64;
                }
            }
            DiskOp::Sync(file) => self.handle(file)?.sync_data()?,
            DiskOp::SyncDir(dir) => File::open(self.dir_path(dir))?.sync_all()?,
            DiskOp::Rename { from, to } => {
                self.forget(from);
                self.forget(to);
                fs::rename(self.file_path(from), self.file_path(to))?;
            }
            DiskOp::Remove(file) => {
                self.forget(file);
                match fs::remove_file(self.file_path(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            DiskOp::Erase(file) => match self.handle(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                handle => {
                    let handle = handle?;
                    fill(handle, 0, handle.metadata()?.len())?;
                    handle.sync_data()?;
                }
            },
            DiskOp::Length(file) => return Ok(DiskAnswer::Length(self.handle(file)?.metadata()?.len())),
            DiskOp::Read { file, offset, len } => {
                return read(self.handle(file)?, offset, len).map(DiskAnswer::Bytes);
            }
        }
        Ok(DiskAnswer::Done)
    }

    fn handle(&mut self, file: FileId) -> io::Result<&File> {
        match self.handles.iter().position(|(open, _)| *open == file) {
            Some(at) if at + 1 == self.handles.len() => {}
            Some(at) => {
                let used = self.handles.remove(at);
                self.handles.extend(used);
            }
            None => {
                let handle = OpenOptions::new().read(true).write(true).open(self.file_path(file))?;
                self.keep(file, handle);
            }
        }
        self.handles.back().map(|(_, handle)| handle).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn keep(&mut self, file: FileId, handle: File) {
        if self.handles.len() == self.handles_max {
            self.handles.pop_front();
        }
        self.handles.push_back((file, handle));
    }

    fn dir_path(&self, dir: Dir) -> PathBuf {
        self.path.join(dir.path())
    }

    fn file_path(&self, file: FileId) -> PathBuf {
        self.path.join(file.path())
    }
}

/// What failed, for people.
fn act(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::MakeDir(_) | DiskOp::Create(_) => "cannot be made",
        DiskOp::List(_) => "cannot be listed",
        DiskOp::Fill { .. } | DiskOp::Allocate { .. } | DiskOp::Write { .. } | DiskOp::Erase(_) => {
            "cannot be written"
        }
        DiskOp::Sync(_) | DiskOp::SyncDir(_) => "cannot be synced",
        DiskOp::Rename { .. } => "cannot be renamed",
        DiskOp::Remove(_) => "cannot be removed",
        DiskOp::Length(_) | DiskOp::Read { .. } => "cannot be read",
    }
}

/// Makes a folder and those above it, each with a durable name. The name of one that is there is made durable as well:
/// whoever made it may have been killed before it was.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    let parent = parent_of(path);
    if !path.is_dir() {
        make_dir(parent)?;
        match fs::create_dir(path) {
            // Another shard's thread may make the same folder above both.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // A folder that others keep and that cannot be listed here: what is in it is theirs to keep.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// The folder that a folder is in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn list(path: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        names.push((name, if about.is_dir() { 0 } else { about.len() }));
    }
    Ok(names)
}

fn fill(file: &File, mut offset: u64, len: u64) -> io::Result<()> {
    let end = offset + len;
    while offset < end {
        let part = ZEROS.len().min((end - offset) as usize);
        file.write_all_at(&ZEROS[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

/// Takes space without writing, where the file system can do that.
#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(full @ (Errno::NOSPC | Errno::DQUOT)) => Err(full.into()),
        // Not every file system can do it, and a signal may interrupt it: no reason to stop. What is wrong with the disk
        // itself, writing finds as well.
        Err(_) => fill(file, 0, len),
        Ok(()) => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    fill(file, 0, len)
}

/// Has the kernel begin to write dirty pages now, without waiting: the flush at a long file's end, which holds up those of
/// the log, then has little left to do. The pages are dirty, so they stay in memory.
#[cfg(target_os = "linux")]
fn start_writing_back(file: &File, offset: u64, len: u64) {
    // Only a hint: where it is not taken, the flush does all the work.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn start_writing_back(_: &File, _: u64, _: u64) {}

/// Reads what the page cache has; None if it lacks a part of it, or the file ends before.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, offset: u64, len: u64) -> Option<Bytes> {
    use rustix::io::{ReadWriteFlags, preadv2};
    // A long read is worth a look whether there is so much: its length may come from damaged bytes.
    if len > LOOK_BYTES && file.metadata().ok()?.len().checked_sub(offset)? < len {
        return None;
    }
    let mut buffer = BytesMut::zeroed(usize::try_from(len).ok()?);
    let count =
        preadv2(file, &mut [io::IoSliceMut::new(&mut buffer)], offset, ReadWriteFlags::NOWAIT).ok()?;
    (count as u64 == len).then(|| buffer.freeze())
}

/// Other systems cannot say what is in memory.
#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: u64, _: u64) -> Option<Bytes> {
    None
}

fn read(file: &File, offset: u64, len: u64) -> io::Result<Bytes> {
    // The length may come from damaged bytes: never allocate more than there is.
    let left = file.metadata()?.len().saturating_sub(offset);
    let mut buffer = BytesMut::zeroed(len.min(left) as usize);
    let mut at = 0;
    while at < buffer.len() {
        match file.read_at(&mut buffer[at..], offset + at as u64) {
            Ok(0) => break,
            Ok(more) => at += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(at);
    Ok(buffer.freeze())
}
