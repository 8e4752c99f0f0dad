//! What goes wrong on purpose.

use std::path::Path;

use fuser::Errno;

/// What a process does when it goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    /// Reads a part of a file.
    Read,
    /// Writes to a file or changes its length.
    Write,
    /// Makes a file or a folder's names durable.
    Sync,
    /// Makes, renames or removes a file or a folder.
    Name,
}

/// The error that it gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// `EIO`
    Io,
    /// `ENOSPC`
    Full,
    /// `EROFS`
    ReadOnly,
}

impl Trouble {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Trouble::Io => Errno::EIO,
            Trouble::Full => Errno::ENOSPC,
            Trouble::ReadOnly => Errno::EROFS,
        }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is done.
    pub act: Act,
    /// Only with files whose path below the mount has this in it; empty: with all.
    pub file: String,
    /// Only where it touches these bytes of the file; reads and writes alone have a place.
    pub bytes: std::ops::Range<u64>,
    /// So many of these succeed before.
    pub skip: u64,
    /// So many fail.
    pub times: u64,
    /// With what.
    pub trouble: Trouble,
}

impl Fault {
    /// Every such act on files whose path has `file` in it fails, from now on.
    pub fn every(act: Act, file: &str, trouble: Trouble) -> Fault {
        Fault { act, file: file.to_owned(), bytes: 0..u64::MAX, skip: 0, times: u64::MAX, trouble }
    }
}

/// Everything that goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Single acts that fail.
    pub list: Vec<Fault>,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
    /// Nothing can be changed, as after the kernel has given up on a disk.
    pub read_only: bool,
    /// A write takes at most so many bytes and says so.
    pub write_most: Option<usize>,
    /// Acts that failed.
    pub hits: u64,
}

impl Faults {
    /// Whether an act fails; it counts.
    pub(crate) fn check(&mut self, act: Act, path: &Path, bytes: std::ops::Range<u64>) -> Result<(), Errno> {
        if self.read_only && matches!(act, Act::Write | Act::Name) {
            self.hits += 1;
            return Err(Errno::EROFS);
        }
        let path = path.to_string_lossy();
        for fault in &mut self.list {
            let touches = fault.bytes.start < bytes.end && bytes.start < fault.bytes.end;
            if fault.act != act || !path.contains(&fault.file) || !touches || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = fault.times.saturating_sub(u64::from(fault.times != u64::MAX));
            self.hits += 1;
            return Err(fault.trouble.errno());
        }
        Ok(())
    }
}
