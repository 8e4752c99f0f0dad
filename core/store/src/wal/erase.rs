//! Log files that hold bytes which must not stay on disk: they are overwritten instead of being used again.
//!
//! Where a deleted message lies in the log is not known, so all files of that moment are tainted. Each checkpoint moves
//! the log on by one file and overwrites what it releases; after a few, no tainted file is left.

use crate::layout::FileId;
use crate::op::DiskOp;

use super::Wal;

impl Wal {
    /// Everything that any file holds now is to be overwritten.
    pub(crate) fn taint(&mut self) {
        self.tainted_below = self.next_number;
    }

    /// Whether a file from `oldest` on is tainted; `making`: a spare is being made.
    pub(crate) fn is_tainted(&self, oldest: u64, making: bool) -> bool {
        let used = self.files.iter().map(|file| file.header.number).filter(|&number| number >= oldest);
        let newest = making.then_some(self.next_number - 1);
        used.chain(self.spares.iter().map(|spare| spare.number))
            .chain(newest)
            .any(|number| number < self.tainted_below)
    }

    /// Whether a file that is not in use any more is tainted.
    pub(crate) fn has_tainted_free(&self) -> bool {
        self.free.iter().any(|&(number, _)| number < self.tainted_below)
    }

    /// Goes on in the next file if this one is tainted and there is a next one.
    pub(crate) fn leave_tainted(&mut self) {
        if self.end.file < self.tainted_below && !self.spares.is_empty() {
            self.switch();
        }
    }

    /// Overwrites and removes the tainted files among those that nothing needs.
    pub(crate) fn erase_free(&mut self, ops: &mut Vec<DiskOp>) {
        let below = self.tainted_below;
        let (tainted, clean): (Vec<_>, Vec<_>) = self.free.drain(..).partition(|&(number, _)| number < below);
        self.free = clean;
        for (number, _) in tainted {
            ops.extend([DiskOp::Erase(FileId::Wal(number)), DiskOp::Remove(FileId::Wal(number))]);
        }
    }
}
