//! Bytes that are not what was written: where, and what is wrong with them.

use crate::layout::FileId;

/// A place on disk that cannot be trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {flaw}")]
pub struct Damage {
    /// The file.
    pub file: FileId,
    /// Where the part that fails starts.
    pub offset: u64,
    /// What is wrong.
    pub flaw: Flaw,
}

/// What is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// The file does not exist but is referred to.
    #[error("the file is missing")]
    Missing,
    /// The disk fails to read it.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// The file ends too early.
    #[error("the file ends after {len} bytes")]
    Truncated {
        /// Its length.
        len: u64,
    },
    /// A checksum does not fit.
    #[error("the checksum of the {part} does not match")]
    Checksum {
        /// Of which part.
        part: &'static str,
    },
    /// The checksum fits but the content cannot be.
    #[error("the {part} makes no sense")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// Written by a newer version.
    #[error("format version {version} is newer than this program")]
    Version {
        /// The version found.
        version: u16,
    },
    /// Bytes of another file, group or position.
    #[error("the content belongs elsewhere: {found}")]
    Misplaced {
        /// What it says it is.
        found: String,
    },
    /// Its seal does not open: other bytes than were written, or written with another key.
    #[error("the {part} does not open with the store's key")]
    Seal {
        /// Which part.
        part: &'static str,
    },
    /// It is sealed and there is no key.
    #[error("it is encrypted, and no key was given")]
    NoKey,
    /// It is not sealed though all of the store is: somebody else put it there.
    #[error("the {part} is not encrypted, though the store is")]
    Unsealed {
        /// Which part.
        part: &'static str,
    },
    /// Parts of the log are missing.
    #[error("log windows {first} and following are missing, yet a later one says that they were durable")]
    LostWindows {
        /// The first number that is missing.
        first: u64,
    },
    /// Entries of a group are missing.
    #[error("entry {expected} of group {group} is missing: the log goes on with {found}")]
    Gap {
        /// The group.
        group: u64,
        /// The entry that should come.
        expected: u64,
        /// The entry that comes.
        found: u64,
    },
}

impl Damage {
    pub(crate) fn new(file: FileId, offset: u64, flaw: Flaw) -> Damage {
        Damage { file, offset, flaw }
    }

    /// The file and the offset that a reason names, where it is the text of one of these. A checkpoint holds as text why
    /// a group is in quarantine.
    pub fn place_in(reason: &str) -> Option<(&str, u64)> {
        let (file, rest) = reason.split_once(" is damaged at byte ")?;
        let (offset, _) = rest.split_once(": ")?;
        Some((file, offset.parse().ok()?))
    }

    pub(crate) fn checksum(file: FileId, offset: u64, part: &'static str) -> Damage {
        Damage::new(file, offset, Flaw::Checksum { part })
    }

    pub(crate) fn malformed(file: FileId, offset: u64, part: &'static str) -> Damage {
        Damage::new(file, offset, Flaw::Malformed { part })
    }
}

#[cfg(test)]
mod tests {
    use hw_kit::GroupId;

    use super::*;

    #[test]
    fn a_place_is_read_from_its_text() {
        for (file, offset) in
            [(FileId::Wal(7), 0), (FileId::Checkpoint(3), u64::MAX), (FileId::Segment(GroupId(2), 9), 4096)]
        {
            let text = Damage::checksum(file, offset, "record: of a test").to_string();
            assert_eq!(Damage::place_in(&text), Some((file.path().as_str(), offset)), "{text}");
        }
        for text in ["", "its log is damaged", "wal is damaged at byte x: y", "wal is damaged at byte 7"] {
            assert_eq!(Damage::place_in(text), None, "{text}");
        }
    }
}
