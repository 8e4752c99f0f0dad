//! Reading segments through a disk that is handed in: their ends when the store is opened, single blocks later.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{GroupId, Map};

use crate::block::LoadedBlock;
use crate::damage::{Damage, Flaw};
use crate::layout::FileId;
use crate::messages::BlockId;
use crate::op::{Disk, DiskError, length, read};
use crate::segment::{Block, SegmentId, SegmentInfo, TRAILER_BYTES, Trailer, read_trailer};
use crate::vault::Vault;

/// Why a read gave nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not what was written.
    #[error(transparent)]
    Damaged(Damage),
    /// The disk failed to read them, this time: nothing is known about the bytes.
    #[error("{file} cannot be read at byte {offset}: {reason}")]
    Failed {
        /// The file.
        file: FileId,
        /// Where the read began.
        offset: u64,
        /// What the system said.
        reason: String,
    },
    /// The segment has no such block.
    #[error("segment {} has no block {block}", .id.file())]
    NoBlock {
        /// Which segment.
        id: SegmentId,
        /// The position that was asked for.
        block: u32,
    },
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> ReadError {
        let Damage { file, offset, flaw } = damage;
        match flaw {
            Flaw::Unreadable { reason } => ReadError::Failed { file, offset, reason },
            flaw => ReadError::Damaged(Damage { file, offset, flaw }),
        }
    }
}

/// What a segment whose file is `len` long says of itself: its end is read, nothing else.
pub(crate) fn read_segment_info(id: SegmentId, len: u64, disk: &mut Disk<'_>) -> Result<SegmentInfo, Damage> {
    let start = len.saturating_sub(TRAILER_BYTES as u64);
    let tail = read_exact(id, start, len - start, disk)?;
    Ok(SegmentInfo { id, place: read_trailer(id, len, &tail)?.place() })
}

/// The table of blocks.
pub(crate) fn read_table(id: SegmentId, disk: &mut Disk<'_>) -> Result<Vec<Block>, Damage> {
    read_trailer_and_table(id, disk).map(|(_, table)| table)
}

/// The table of blocks, and what the trailer says of all.
pub(crate) fn read_trailer_and_table(
    id: SegmentId,
    disk: &mut Disk<'_>,
) -> Result<(Trailer, Vec<Block>), Damage> {
    let len = length(id.file(), disk).map_err(|error| unreadable(id, 0, error))?;
    let start = len.saturating_sub(TRAILER_BYTES as u64);
    let tail = read_exact(id, start, len - start, disk)?;
    let trailer = read_trailer(id, len, &tail)?;
    let table = read_exact(id, trailer.table_offset(), trailer.table_len(), disk)?;
    let table = trailer.read_table(&table)?;
    Ok((trailer, table))
}

pub(crate) fn read_exact(id: SegmentId, offset: u64, len: u64, disk: &mut Disk<'_>) -> Result<Bytes, Damage> {
    let file = id.file();
    let bytes = read(file, offset, len, disk).map_err(|error| unreadable(id, offset, error))?;
    if bytes.len() as u64 != len {
        return Err(Damage::new(file, offset, Flaw::Truncated { len: offset + bytes.len() as u64 }));
    }
    Ok(bytes)
}

fn unreadable(id: SegmentId, offset: u64, error: DiskError) -> Damage {
    let flaw = match error {
        DiskError::NotFound { .. } => Flaw::Missing,
        DiskError::Failed { reason, .. } => Flaw::Unreadable { reason },
        DiskError::Full { .. } => Flaw::Unreadable { reason: error.to_string() },
    };
    Damage::new(id.file(), offset, flaw)
}

/// Reads single blocks and remembers the tables of the segments that were asked for last.
#[derive(Debug)]
pub struct SegmentReader {
    tables: Map<SegmentId, Vec<Block>>,
    order: VecDeque<SegmentId>,
    tables_max: usize,
    vault: Vault,
}

impl SegmentReader {
    /// Remembers the tables of at most so many segments; the vault opens what is sealed.
    pub fn new(tables_max: usize, vault: Vault) -> SegmentReader {
        SegmentReader { tables: Map::default(), order: VecDeque::new(), tables_max: tables_max.max(1), vault }
    }

    /// One block. Its messages are checked when they are taken, or with [`LoadedBlock::checked`].
    pub fn load(
        &mut self,
        group: GroupId,
        id: BlockId,
        disk: &mut Disk<'_>,
    ) -> Result<LoadedBlock, ReadError> {
        let BlockId { segment: number, block } = id;
        let id = SegmentId { group, number };
        let row =
            self.table(id, disk)?.get(block as usize).copied().ok_or(ReadError::NoBlock { id, block })?;
        let bytes = read_exact(id, row.offset, u64::from(row.len), disk)?;
        Ok(LoadedBlock::open(id, &row, &bytes, &self.vault)?)
    }

    /// Forgets a segment that is gone.
    pub fn handle_dropped(&mut self, id: SegmentId) {
        if self.tables.remove(&id).is_some() {
            self.order.retain(|other| *other != id);
        }
    }

    fn table(&mut self, id: SegmentId, disk: &mut Disk<'_>) -> Result<&[Block], Damage> {
        if !self.tables.contains_key(&id) {
            let table = read_table(id, disk)?;
            if self.order.len() == self.tables_max
                && let Some(oldest) = self.order.pop_front()
            {
                self.tables.remove(&oldest);
            }
            self.order.push_back(id);
            self.tables.insert(id, table);
        }
        Ok(self.tables.get(&id).map_or(&[], Vec::as_slice))
    }
}
