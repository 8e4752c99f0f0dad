//! What can still be read of a store that is damaged, without changing it; and a segment made of what is left of one.

use bytes::Bytes;
use hw_kit::ShardId;

use crate::messages::Message;
use crate::op::{Disk, DiskError, DiskOp, length, read};
use crate::packed::{is_packed, unpack, unpack_front};
use crate::recover::{Reading, RecoverError, Recovered, RecoveryReport, load};
use crate::sealed::open_front;
use crate::segment::{HEADER_BYTES, SegmentId, SegmentWriter, encode, record_at};
use crate::vault::Vault;

/// What was left of a segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Salvaged {
    /// Its messages that are as they were written.
    pub messages: Vec<Message>,
    /// Bytes between them that are not.
    pub skipped: u64,
}

/// Hands out everything that recovery would, and changes nothing.
pub fn inspect(
    shard: ShardId,
    vault: &Vault,
    disk: &mut Disk<'_>,
    each: &mut dyn FnMut(Recovered),
) -> Result<RecoveryReport, RecoverError> {
    let reading = Reading { shard, accept_loss: false, vault: vault.clone() };
    load(&reading, disk, each).map(|found| found.report)
}

/// Reads a segment without its index: record by record, behind what is damaged where the next sound one begins.
pub fn read_what_is_left(id: SegmentId, bytes: &Bytes, vault: &Vault) -> Salvaged {
    let mut found = Salvaged::default();
    let mut at = HEADER_BYTES.min(bytes.len());
    while at < bytes.len() {
        let rest = bytes.slice(at..);
        if let Some((inside, len)) = open_front(vault, (id, at as u64), &rest) {
            found.push_all(id, &inside);
            at += len;
        } else if is_packed(&rest)
            && let Some((records, len)) = unpack_front(id, &rest)
        {
            found.push_all(id, &records);
            at += len;
        } else if let Some((message, len)) = record_at(id, &rest) {
            found.push(message);
            at += len;
        } else {
            found.skipped += 1;
            at += 1;
        }
    }
    found
}

impl Salvaged {
    /// All of a whole block, packed or not.
    fn push_all(&mut self, id: SegmentId, block: &Bytes) {
        let records = match is_packed(block) {
            true => unpack(id, block).unwrap_or_default(),
            false => block.clone(),
        };
        let mut at = 0;
        while let Some((message, len)) = record_at(id, &records.slice(at..)) {
            at += len;
            self.push(message);
        }
    }

    fn push(&mut self, message: Message) {
        if self.messages.last().is_none_or(|last| last.seq < message.seq) {
            self.messages.push(message);
        }
    }
}

/// Replaces a damaged segment by one with what is left of it. The damaged one goes to quarantine, under the number of a
/// session that never was. With nothing left, it only goes there.
pub fn salvage(id: SegmentId, vault: &Vault, disk: &mut Disk<'_>) -> Result<Salvaged, DiskError> {
    let file = id.file();
    let len = match length(file, disk) {
        Ok(len) => len,
        Err(DiskError::NotFound { .. }) => return Ok(Salvaged::default()),
        Err(error) => return Err(error),
    };
    let found = read_what_is_left(id, &read(file, 0, len, disk)?, vault);
    let aside = file.quarantined(0).ok_or(DiskError::NotFound { place: file.path() })?;
    let mut ops = vec![
        DiskOp::MakeDir(aside.dir()),
        DiskOp::Rename { from: file, to: aside },
        DiskOp::SyncDir(aside.dir()),
        DiskOp::SyncDir(file.dir()),
    ];
    if !found.messages.is_empty() {
        let (bytes, _) = encode(SegmentWriter::new(id, false, vault.clone()), &found.messages);
        ops.push(DiskOp::Create(file));
        ops.push(DiskOp::Write { file, offset: 0, data: vec![bytes] });
        ops.push(DiskOp::Sync(file));
        ops.push(DiskOp::SyncDir(file.dir()));
    }
    crate::op::run_all(ops, disk)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use hw_kit::{GroupId, Seq, Time};

    const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

    fn messages() -> Vec<Message> {
        let record =
            |seq: u64| Record::join(b"a.b", b"", &vec![b'a' + (seq % 26) as u8; 300]).expect("it is short");
        (1..=1000).map(|seq| Message { seq: Seq(seq), ts: Time(seq as i64), record: record(seq) }).collect()
    }

    #[test]
    fn all_but_what_is_damaged_is_left() {
        let all = messages();
        let vaults = [Vault::default(), crate::vault::tests::vault(crate::Cipher::Aes, 1)];
        for (packed, vault) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
            let (is_sealed, vault) = (vault == 1, &vaults[vault]);
            let read_what_is_left = |id, bytes: &Bytes| super::read_what_is_left(id, bytes, vault);
            let (whole, _) = encode(SegmentWriter::new(ID, packed, vault.clone()), &all);
            assert_eq!(read_what_is_left(ID, &whole).messages, all);
            let mut damaged = whole.to_vec();
            damaged[40] ^= 0x10;
            let found = read_what_is_left(ID, &damaged.into());
            let lost = all.len() - found.messages.len();
            let most = if packed {
                800
            } else if is_sealed {
                30
            } else {
                1
            };
            assert!((1..=most).contains(&lost) && found.skipped > 0, "{lost} lost");
            assert!(found.messages.iter().all(|message| all.contains(message)));
            // Of most of a file, most is left; of another segment's, nothing.
            let most = read_what_is_left(ID, &whole.slice(..whole.len() / 10 * 9)).messages.len();
            assert!(packed || (700..1000).contains(&most), "{most}");
            assert_eq!(read_what_is_left(SegmentId { number: 4, ..ID }, &whole).messages, []);
        }
    }
}
