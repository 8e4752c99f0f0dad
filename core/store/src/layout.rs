//! Names of folders and files inside a shard's folder (docs/format.md, "Files").

use std::fmt;

use hw_kit::GroupId;

/// Behind the name of a file that is not complete.
const TEMP_SUFFIX: &str = ".tmp";

/// A folder.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Dir {
    /// The shard's folder itself: log files and checkpoints.
    Root,
    /// Segments of all groups.
    Segments,
    /// What could not be understood or is not known; never deleted by the store.
    Quarantine,
}

/// A file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FileId {
    /// A log file; its number is the generation that its windows carry.
    Wal(u64),
    /// A complete checkpoint.
    Checkpoint(u64),
    /// A checkpoint that is being written.
    CheckpointTemp(u64),
    /// Segment so many of a group.
    Segment(GroupId, u64),
    /// The same segment while it is written anew.
    SegmentTemp(GroupId, u64),
    /// Space that is given up when the disk is full.
    Reserve,
    /// How far the log is durable, told a second time.
    Witness,
    /// A file moved to quarantine in the session with this number.
    Quarantined(u32, Kept),
}

/// What a quarantined file was.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kept {
    /// A log file.
    Wal(u64),
    /// A checkpoint.
    Checkpoint(u64),
    /// A segment.
    Segment(GroupId, u64),
}

impl Dir {
    /// The path relative to the shard's folder; empty for the folder itself.
    pub fn path(self) -> &'static str {
        match self {
            Dir::Root => "",
            Dir::Segments => "segments",
            Dir::Quarantine => "quarantine",
        }
    }
}

impl FileId {
    /// The folder that holds the file.
    pub fn dir(self) -> Dir {
        match self {
            FileId::Wal(_)
            | FileId::Checkpoint(_)
            | FileId::CheckpointTemp(_)
            | FileId::Reserve
            | FileId::Witness => Dir::Root,
            FileId::Segment(..) | FileId::SegmentTemp(..) => Dir::Segments,
            FileId::Quarantined(..) => Dir::Quarantine,
        }
    }

    /// The path relative to the shard's folder, with `/`.
    pub fn path(self) -> String {
        match self {
            FileId::Wal(number) => format!("wal-{number:016x}"),
            FileId::Checkpoint(number) => format!("checkpoint-{number:016x}"),
            FileId::CheckpointTemp(number) => format!("checkpoint-{number:016x}.tmp"),
            FileId::Segment(group, number) => format!("segments/{}-{number:08x}", group_name(group)),
            FileId::SegmentTemp(group, number) => FileId::Segment(group, number).path() + TEMP_SUFFIX,
            FileId::Reserve => "reserve".to_owned(),
            FileId::Witness => "witness".to_owned(),
            FileId::Quarantined(session, kept) => format!("quarantine/{session:08x}-{}", kept.name()),
        }
    }

    /// What a name found in a folder means; None when the store did not write it.
    pub fn parse(dir: Dir, name: &str) -> Option<FileId> {
        let file = match dir {
            Dir::Root if name == "reserve" => FileId::Reserve,
            Dir::Root if name == "witness" => FileId::Witness,
            Dir::Root => match name.strip_prefix("wal-") {
                Some(number) => FileId::Wal(hex(number, 16)?),
                None => {
                    let rest = name.strip_prefix("checkpoint-")?;
                    match rest.strip_suffix(".tmp") {
                        Some(number) => FileId::CheckpointTemp(hex(number, 16)?),
                        None => FileId::Checkpoint(hex(rest, 16)?),
                    }
                }
            },
            Dir::Segments => {
                let (whole, is_temp) =
                    name.strip_suffix(TEMP_SUFFIX).map_or((name, false), |whole| (whole, true));
                let (group, number) = whole.split_once('-')?;
                let (group, number) = (GroupId(hex(group, 16)?), hex(number, 8)?);
                if is_temp { FileId::SegmentTemp(group, number) } else { FileId::Segment(group, number) }
            }
            Dir::Quarantine => return None,
        };
        Some(file)
    }

    /// The same file in quarantine. Names cannot collide: a session moves a file once.
    pub(crate) fn quarantined(self, session: u32) -> Option<FileId> {
        let kept = match self {
            FileId::Wal(number) => Kept::Wal(number),
            FileId::Checkpoint(number) => Kept::Checkpoint(number),
            FileId::Segment(group, number) => Kept::Segment(group, number),
            FileId::CheckpointTemp(_)
            | FileId::SegmentTemp(..)
            | FileId::Reserve
            | FileId::Witness
            | FileId::Quarantined(..) => {
                return None;
            }
        };
        Some(FileId::Quarantined(session, kept))
    }
}

impl Kept {
    fn name(self) -> String {
        match self {
            Kept::Wal(number) => format!("wal-{number:016x}"),
            Kept::Checkpoint(number) => format!("checkpoint-{number:016x}"),
            Kept::Segment(group, number) => format!("{}-{number:08x}", group_name(group)),
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

fn group_name(group: GroupId) -> String {
    format!("{:016x}", group.0)
}

/// Exactly `digits` lower-case hexadecimal digits (more only if the number needs them), so that names map one to one.
fn hex(text: &str, digits: usize) -> Option<u64> {
    let number = u64::from_str_radix(text, 16).ok()?;
    (format!("{number:0digits$x}") == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_one_to_one() {
        let files = [
            (FileId::Wal(1), "wal-0000000000000001"),
            (FileId::Wal(u64::MAX), "wal-ffffffffffffffff"),
            (FileId::Checkpoint(255), "checkpoint-00000000000000ff"),
            (FileId::CheckpointTemp(16), "checkpoint-0000000000000010.tmp"),
            (FileId::Segment(GroupId(7), 9), "segments/0000000000000007-00000009"),
            (FileId::Segment(GroupId(u64::MAX), 1 << 40), "segments/ffffffffffffffff-10000000000"),
            (FileId::SegmentTemp(GroupId(7), 9), "segments/0000000000000007-00000009.tmp"),
            (FileId::Reserve, "reserve"),
            (FileId::Witness, "witness"),
        ];
        for (file, path) in files {
            assert_eq!(file.path(), path);
            let name = path.rsplit('/').next().expect("rsplit gives one part at least");
            assert_eq!(FileId::parse(file.dir(), name), Some(file), "{path}");
        }
        for name in
            ["wal-1", "wal-000000000000000G", "wal-000000000000000A", "checkpoint-1.tmp", "notes.txt", ""]
        {
            assert_eq!(FileId::parse(Dir::Root, name), None, "{name}");
        }
        assert_eq!(FileId::parse(Dir::Segments, "+000000000000007-00000009"), None);
    }
}
