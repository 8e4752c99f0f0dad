//! A second file that says how far the log is durable: an old copy of a log file that is put back does not pass for the
//! log. docs/format.md, "Witness".

use bytes::Bytes;
use hw_kit::ShardId;

use crate::bytes_io::{u32_at, u64_at};
use crate::layout::FileId;
use crate::op::{Disk, DiskError, DiskOp, read};
use crate::wal_window::WalPosition;

const MAGIC: [u8; 8] = *b"HWWIT\r\n\x1a";
const WITNESS_VERSION: u16 = 1;
const SLOT_BYTES: usize = 48;
/// Slots lie in sectors of their own and are written in turns: one is always whole.
const SLOT_ALIGN: u64 = 512;
/// The length of the file.
pub(crate) const WITNESS_BYTES: u64 = 2 * SLOT_ALIGN;

/// Everything before a position was durable in a session.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Witness {
    pub session: u32,
    pub durable: WalPosition,
    /// Counts what was written, to tell the slots apart.
    pub count: u64,
}

impl Witness {
    /// What writes it, into the slot that is older.
    pub(crate) fn ops(&self, shard: ShardId) -> [DiskOp; 2] {
        let file = FileId::Witness;
        let offset = self.count % 2 * SLOT_ALIGN;
        [DiskOp::Write { file, offset, data: vec![self.encode(shard)] }, DiskOp::Sync(file)]
    }

    fn encode(&self, shard: ShardId) -> Bytes {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&WITNESS_VERSION.to_le_bytes());
        out.extend_from_slice(&shard.0.to_le_bytes());
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.durable.file.to_le_bytes());
        out.extend_from_slice(&self.durable.offset.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(out.len(), SLOT_BYTES, "a slot is as long as the format says");
        out.into()
    }

    fn decode(shard: ShardId, slot: &[u8]) -> Option<Witness> {
        let slot = slot.get(..SLOT_BYTES)?;
        let version = u16::from_le_bytes([slot[8], slot[9]]);
        let of = u16::from_le_bytes([slot[10], slot[11]]);
        let is_sound = slot[..8] == MAGIC
            && u32_at(slot, SLOT_BYTES - 4) == crc32fast::hash(&slot[..SLOT_BYTES - 4])
            && version <= WITNESS_VERSION
            && of == shard.0;
        is_sound.then(|| Witness {
            session: u32_at(slot, 12),
            count: u64_at(slot, 16),
            durable: WalPosition { file: u64_at(slot, 24), offset: u64_at(slot, 32) },
        })
    }

    /// The stronger of what the two slots say; nothing where neither is whole, for it is only a second opinion.
    pub(crate) fn read(shard: ShardId, disk: &mut Disk<'_>) -> Result<Witness, DiskError> {
        let bytes = match read(FileId::Witness, 0, WITNESS_BYTES, disk) {
            Ok(bytes) => bytes,
            Err(DiskError::NotFound { .. }) => return Ok(Witness::default()),
            Err(error) => return Err(error),
        };
        let slots = bytes.chunks(SLOT_ALIGN as usize).filter_map(|slot| Witness::decode(shard, slot));
        Ok(slots.max_by_key(|witness| witness.count).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::DiskAnswer;

    #[test]
    fn numbers_on_disk_stay() {
        let witness = Witness { session: 3, durable: WalPosition { file: 5, offset: 8192 }, count: 7 };
        let bytes = witness.encode(ShardId(1));
        assert_eq!(&bytes[..16], b"HWWIT\r\n\x1a\x01\0\x01\0\x03\0\0\0");
        assert_eq!((u64_at(&bytes, 16), u64_at(&bytes, 24), u64_at(&bytes, 32)), (7, 5, 8192));
        assert!(matches!(witness.ops(ShardId(1))[0], DiskOp::Write { offset: 512, .. }));
    }

    #[test]
    fn one_whole_slot_is_enough() {
        let older = Witness { session: 2, durable: WalPosition { file: 5, offset: 4096 }, count: 6 };
        let newer = Witness { session: 3, durable: WalPosition { file: 5, offset: 8192 }, count: 7 };
        let mut file = vec![0; WITNESS_BYTES as usize];
        file[..SLOT_BYTES].copy_from_slice(&older.encode(ShardId(0)));
        file[512..512 + SLOT_BYTES].copy_from_slice(&newer.encode(ShardId(0)));
        let found = |file: &[u8]| {
            let bytes = Bytes::copy_from_slice(file);
            Witness::read(ShardId(0), &mut |_| Ok(DiskAnswer::Bytes(bytes.clone()))).expect("it is read")
        };
        assert_eq!(found(&file), newer);
        file[520] ^= 1;
        assert_eq!(found(&file), older);
        file[3] ^= 1;
        assert_eq!(found(&file), Witness::default());
        assert_eq!(found(&file[..100]), Witness::default());
    }
}
