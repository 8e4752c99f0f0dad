//! Sealing a store that is not sealed yet, or with another cipher. docs/format.md, "Encryption".
//!
//! Segments are written anew, one after the other, under their own names: at every moment each is what it was or what it
//! will be. Log and checkpoints follow while the store is used: see [`crate::Vault::is_changing`].

use bytes::Bytes;

use crate::block::LoadedBlock;
use crate::checkpoint::decode;
use crate::damage::Damage;
use crate::layout::{Dir, FileId};
use crate::limits::WAL_HEADER_BYTES;
use crate::op::{Disk, DiskError, DiskOp, length, list, read, run_all};
use crate::segment::{Block, HEADER_BYTES, SegmentId, SegmentWriter, Trailer, encode, read_header};
use crate::segment_reader::{read_exact, read_trailer_and_table};
use crate::vault::Vault;
use crate::wal_window::{FileHeader, HeaderFound};

/// What is sealed now, and what is not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Converted {
    /// Segments that were sealed now.
    pub segments: u64,
    /// Log files and checkpoints that are still as they were: they go when the next checkpoints are made.
    pub waiting: u64,
    /// Segments that cannot be read and stay as they are. Those that a checkpoint refers to are reported by recovery, too;
    /// the others are left over from one that was not completed.
    pub damaged: Vec<Damage>,
}

impl Converted {
    /// Whether everything is sealed as it should be.
    pub fn is_whole(&self) -> bool {
        self.waiting == 0 && self.damaged.is_empty()
    }
}

/// Seals the segments of one shard as the vault does, and says what else is not sealed so. The folder may be missing.
pub fn convert(vault: &Vault, disk: &mut Disk<'_>) -> Result<Converted, DiskError> {
    let mut done = Converted::default();
    for (file, _) in listed(Dir::Root, disk)? {
        done.waiting += u64::from(!is_sealed_so(file, vault, disk)?);
    }
    for (file, _) in listed(Dir::Segments, disk)? {
        let FileId::Segment(group, number) = file else { continue };
        match convert_segment(SegmentId { group, number }, vault, disk)? {
            Ok(false) => {}
            Ok(true) => done.segments += 1,
            Err(damage) => done.damaged.push(damage),
        }
    }
    Ok(done)
}

/// Whether any log file, checkpoint or segment of one shard says that it is sealed. The folder may be missing.
pub fn is_anything_sealed(disk: &mut Disk<'_>) -> Result<bool, DiskError> {
    let plain = Vault::default();
    for (file, _) in listed(Dir::Root, disk)? {
        if !is_sealed_so(file, &plain, disk)? {
            return Ok(true);
        }
    }
    for (file, _) in listed(Dir::Segments, disk)? {
        let FileId::Segment(group, number) = file else { continue };
        let trailer = read_trailer_and_table(SegmentId { group, number }, disk);
        if trailer.is_ok_and(|(trailer, _)| trailer.cipher().is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn listed(dir: Dir, disk: &mut Disk<'_>) -> Result<Vec<(FileId, u64)>, DiskError> {
    match list(dir, disk) {
        Ok(listing) => Ok(listing.files),
        Err(DiskError::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether a log file or a checkpoint says that it is sealed as the vault does, or holds nothing.
fn is_sealed_so(file: FileId, vault: &Vault, disk: &mut Disk<'_>) -> Result<bool, DiskError> {
    let cipher = match file {
        FileId::Wal(_) => match FileHeader::decode(&read(file, 0, WAL_HEADER_BYTES, disk)?) {
            HeaderFound::Header(header) => header.cipher,
            // It is about to be used and may hold what it held before.
            HeaderFound::None | HeaderFound::Newer(_) => None,
        },
        FileId::Checkpoint(number) => {
            let len = length(file, disk)?;
            let bytes: Bytes = read(file, 0, len, disk)?;
            decode(number, &bytes, &Vault::default()).ok().and_then(|checkpoint| checkpoint.cipher)
        }
        // Left over from a crash, and removed at the next start: it says nothing of itself that could be relied on.
        FileId::CheckpointTemp(_) => None,
        FileId::Segment(..)
        | FileId::SegmentTemp(..)
        | FileId::Reserve
        | FileId::Witness
        | FileId::Quarantined(..) => return Ok(true),
    };
    Ok(cipher == vault.cipher())
}

/// Writes a segment anew if it is not sealed as the vault does; whether it was.
fn convert_segment(
    id: SegmentId,
    vault: &Vault,
    disk: &mut Disk<'_>,
) -> Result<Result<bool, Damage>, DiskError> {
    let (trailer, blocks) = match read_trailer_and_table(id, disk) {
        Ok((trailer, _)) if trailer.cipher() == vault.cipher() => return Ok(Ok(false)),
        Ok(found) => found,
        Err(damage) => return Ok(Err(damage)),
    };
    match sealed_anew(id, (&trailer, &blocks), vault, disk) {
        Ok(bytes) => {
            let (temp, file) = (FileId::SegmentTemp(id.group, id.number), id.file());
            let ops = vec![
                DiskOp::Create(temp),
                DiskOp::Write { file: temp, offset: 0, data: vec![bytes] },
                DiskOp::Sync(temp),
                DiskOp::Rename { from: temp, to: file },
                DiskOp::SyncDir(Dir::Segments),
            ];
            run_all(ops, disk)?;
            Ok(Ok(true))
        }
        Err(damage) => Ok(Err(damage)),
    }
}

fn sealed_anew(
    id: SegmentId,
    (trailer, blocks): (&Trailer, &[Block]),
    vault: &Vault,
    disk: &mut Disk<'_>,
) -> Result<Bytes, Damage> {
    read_header(id, &read_exact(id, 0, HEADER_BYTES as u64, disk)?)?;
    let mut messages = Vec::new();
    for block in blocks {
        let bytes = read_exact(id, block.offset, u64::from(block.len), disk)?;
        messages.extend(LoadedBlock::open(id, block, &bytes, vault)?.messages()?);
    }
    let writer = SegmentWriter::new(id, trailer.is_packed(), vault.clone());
    Ok(encode(writer, &messages).0)
}
