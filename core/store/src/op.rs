//! What the store asks of a disk. Nothing else ever touches one: shell/disk and the simulator both run these.

use bytes::Bytes;

use crate::layout::{Dir, FileId};

/// One operation on the shard's folder. Operations of a list run in order; after a failure the rest is not run.
#[derive(Clone, Debug, PartialEq)]
pub enum DiskOp {
    /// Makes a folder; an existing one is fine.
    MakeDir(Dir),
    /// Lists the files of a folder with their lengths.
    List(Dir),
    /// Makes an empty file; an existing one is emptied.
    Create(FileId),
    /// Writes zeros, so that later writes change neither length nor allocation.
    Fill {
        /// Which file.
        file: FileId,
        /// From this byte.
        offset: u64,
        /// So many.
        len: u64,
    },
    /// Takes space for a file, which reads as zeros, without writing them: what is written there later changes how the file
    /// is allocated, and each flush writes that down.
    Allocate {
        /// Which file.
        file: FileId,
        /// So many bytes from its beginning on.
        len: u64,
    },
    /// Writes pieces one after the other.
    Write {
        /// Which file.
        file: FileId,
        /// Where the first piece starts.
        offset: u64,
        /// The pieces.
        data: Vec<Bytes>,
    },
    /// Makes a file's content and length durable (`fdatasync`).
    Sync(FileId),
    /// Makes a folder's names durable.
    SyncDir(Dir),
    /// Renames; an existing target is replaced.
    Rename {
        /// The old name.
        from: FileId,
        /// The new one.
        to: FileId,
    },
    /// Removes a file; a missing one is fine.
    Remove(FileId),
    /// Overwrites a file with zeros and makes that durable; a missing one is fine.
    Erase(FileId),
    /// Asks for a file's length.
    Length(FileId),
    /// Reads; fewer bytes come back where the file ends before.
    Read {
        /// Which file.
        file: FileId,
        /// From this byte.
        offset: u64,
        /// At most so many.
        len: u64,
    },
}

/// What a disk answers.
#[derive(Clone, Debug, PartialEq)]
pub enum DiskAnswer {
    /// Done; there is nothing to tell.
    Done,
    /// To `List`: names and lengths, in any order.
    Listed(Vec<(String, u64)>),
    /// To `Length`.
    Length(u64),
    /// To `Read`.
    Bytes(Bytes),
}

/// Why an operation failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DiskError {
    /// No space (`ENOSPC`, `EDQUOT`).
    #[error("no space left on the disk for {place}")]
    Full {
        /// The file or folder.
        place: String,
    },
    /// There is no such file.
    #[error("{place} does not exist")]
    NotFound {
        /// The file or folder.
        place: String,
    },
    /// Anything else.
    #[error("{place}: {reason}")]
    Failed {
        /// The file or folder.
        place: String,
        /// What the system said.
        reason: String,
    },
}

/// The outcome of one operation.
pub type DiskResult = Result<DiskAnswer, DiskError>;

/// A disk as a function: runs one operation.
pub type Disk<'a> = dyn FnMut(DiskOp) -> DiskResult + 'a;

impl DiskOp {
    /// The file that is not there any more afterwards under this name.
    pub fn removes(&self) -> Option<FileId> {
        match self {
            DiskOp::Remove(file) | DiskOp::Rename { from: file, .. } => Some(*file),
            _ => None,
        }
    }

    /// What the operation is about, relative to the shard's folder; `.` is the folder.
    pub fn place(&self) -> String {
        match self {
            DiskOp::MakeDir(dir) | DiskOp::List(dir) | DiskOp::SyncDir(dir) => match dir {
                Dir::Root => ".".to_owned(),
                Dir::Segments | Dir::Quarantine => dir.path().to_owned(),
            },
            DiskOp::Create(file)
            | DiskOp::Sync(file)
            | DiskOp::Remove(file)
            | DiskOp::Erase(file)
            | DiskOp::Allocate { file, .. }
            | DiskOp::Length(file) => file.path(),
            DiskOp::Fill { file, .. } | DiskOp::Write { file, .. } | DiskOp::Read { file, .. } => file.path(),
            DiskOp::Rename { from, .. } => from.path(),
        }
    }
}

/// Runs a list; the first failure ends it.
pub fn run_all(ops: Vec<DiskOp>, disk: &mut Disk<'_>) -> Result<(), DiskError> {
    for op in ops {
        disk(op)?;
    }
    Ok(())
}

/// Reads a part of a file, or less where it ends.
pub(crate) fn read(file: FileId, offset: u64, len: u64, disk: &mut Disk<'_>) -> Result<Bytes, DiskError> {
    match disk(DiskOp::Read { file, offset, len })? {
        DiskAnswer::Bytes(bytes) => Ok(bytes),
        _ => Err(unexpected(file.path())),
    }
}

/// A file's length.
pub(crate) fn length(file: FileId, disk: &mut Disk<'_>) -> Result<u64, DiskError> {
    match disk(DiskOp::Length(file))? {
        DiskAnswer::Length(len) => Ok(len),
        _ => Err(unexpected(file.path())),
    }
}

/// What a folder holds.
pub(crate) struct Listing {
    /// Files that the store knows, with their lengths, ascending.
    pub files: Vec<(FileId, u64)>,
    /// The names of all others, ascending.
    pub foreign: Vec<String>,
}

/// Lists a folder.
pub(crate) fn list(dir: Dir, disk: &mut Disk<'_>) -> Result<Listing, DiskError> {
    let DiskAnswer::Listed(names) = disk(DiskOp::List(dir))? else {
        return Err(unexpected(dir.path().to_owned()));
    };
    let (mut files, mut foreign) = (Vec::new(), Vec::new());
    for (name, len) in names {
        match FileId::parse(dir, &name) {
            Some(file) => files.push((file, len)),
            None => foreign.push(name),
        }
    }
    files.sort_unstable();
    foreign.sort_unstable();
    Ok(Listing { files, foreign })
}

fn unexpected(place: String) -> DiskError {
    DiskError::Failed { place, reason: "the disk answered another question".to_owned() }
}
