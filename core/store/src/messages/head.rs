//! What is in memory of a stream's messages: all that are in no segment yet, and the latest of the others.

use super::slots::Slots;
use super::subjects::Subjects;

/// Messages in memory, by sequence and by subject.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub slots: Slots,
    pub subjects: Subjects,
}

impl Head {
    pub fn clear(&mut self) {
        self.slots = Slots::default();
        self.subjects.clear();
    }
}
