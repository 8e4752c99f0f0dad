//! A block of a segment in memory: its shape is checked when it comes, each record when somebody asks for it.
//!
//! Whoever reads one message out of fifty does not pay for the others. A damaged length is found at once, because the
//! records then do not add up to the block; any other damage is found by the record's own checksum.

use bytes::Bytes;
use hw_kit::{GroupId, Seq};

use crate::bytes_io::{u32_at, u64_at};
use crate::damage::{Damage, Flaw};
use crate::messages::Message;
use crate::packed::{is_packed, unpack};
use crate::sealed::open_block;
use crate::segment::{Block, RECORD_HEAD_BYTES, SegmentId, record_at};
use crate::vault::Vault;

/// The records of a block; messages share its bytes.
#[derive(Clone, Debug)]
pub struct LoadedBlock {
    id: SegmentId,
    /// Where the block is in its file.
    offset: u64,
    records: Bytes,
    /// Where each record starts.
    starts: Box<[u32]>,
    /// Whether all records were found to be what was written.
    is_checked: bool,
}

impl LoadedBlock {
    /// Wraps the bytes of a block: they hold as many records as they should, from the first to the last one, in order.
    pub fn open(id: SegmentId, row: &Block, bytes: &Bytes, vault: &Vault) -> Result<LoadedBlock, Damage> {
        if bytes.len() < row.len as usize {
            let len = row.offset + bytes.len() as u64;
            return Err(Damage::new(id.file(), row.offset, Flaw::Truncated { len }));
        }
        let mut records = open_block(vault, (id, row.offset), bytes.slice(..row.len as usize))?;
        if is_packed(&records) {
            let damaged = || Damage::checksum(id.file(), row.offset, "packed block");
            records = unpack(id, &records).ok_or_else(damaged)?;
        }
        let starts = shape(row, &records);
        let is_sound = starts.is_some();
        let starts = starts.unwrap_or_default().into_boxed_slice();
        let block = LoadedBlock { id, offset: row.offset, records, starts, is_checked: false };
        if is_sound {
            return Ok(block);
        }
        // Which record does it? If each is what was written, then not all are here, or in another order.
        block.walk().map(drop).and(Err(Damage::malformed(id.file(), row.offset, "order of records")))
    }

    /// A block that could not be read: no message is in it, and reading it again would change nothing.
    pub fn damaged() -> LoadedBlock {
        let (id, records) = (SegmentId { group: GroupId(0), number: 0 }, Bytes::new());
        LoadedBlock { id, offset: 0, records, starts: Box::default(), is_checked: true }
    }

    /// The same if all records are what was written.
    pub fn checked(self) -> Result<LoadedBlock, Damage> {
        self.walk()?;
        Ok(LoadedBlock { is_checked: true, ..self })
    }

    /// Whether what it lacks is not in the file either.
    pub(crate) fn is_checked(&self) -> bool {
        self.is_checked
    }

    /// One message; None if the block has none of this number, an error if its bytes are not what was written.
    pub fn get(&self, seq: Seq) -> Option<Result<Message, Damage>> {
        let seq_at = |&start: &u32| u64_at(&self.records, start as usize + 8);
        let at = self.starts.binary_search_by_key(&seq.0, seq_at).ok()?;
        let start = self.starts[at] as usize;
        let end = self.starts.get(at + 1).map_or(self.records.len(), |&next| next as usize);
        let found = record_at(self.id, &self.records.slice(start..end));
        Some(found.map(|(message, _)| message).ok_or_else(|| self.damage_at(start)))
    }

    /// The last message's sequence.
    pub fn last(&self) -> Option<Seq> {
        self.starts.last().map(|&start| Seq(u64_at(&self.records, start as usize + 8)))
    }

    /// All messages; an error if any is not what was written.
    pub fn messages(&self) -> Result<Vec<Message>, Damage> {
        self.walk()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> u64 {
        (self.records.len() + self.starts.len() * 4 + size_of::<LoadedBlock>()) as u64
    }

    fn walk(&self) -> Result<Vec<Message>, Damage> {
        let mut messages = Vec::with_capacity(self.starts.len());
        let mut at = 0;
        while at < self.records.len() {
            let found = record_at(self.id, &self.records.slice(at..));
            let (message, len) = found.ok_or_else(|| self.damage_at(at))?;
            at += len;
            messages.push(message);
        }
        Ok(messages)
    }

    fn damage_at(&self, start: usize) -> Damage {
        Damage::checksum(self.id.file(), self.offset + start as u64, "record")
    }
}

/// Where the records start, if their lengths add up and their numbers are those that the table of blocks says.
fn shape(row: &Block, records: &[u8]) -> Option<Vec<u32>> {
    let mut starts = Vec::with_capacity((row.count as usize).min(records.len() / RECORD_HEAD_BYTES));
    let (mut at, mut last) = (0, None);
    while at < records.len() {
        let head = records.get(at..at + RECORD_HEAD_BYTES)?;
        let seq = u64_at(head, 8);
        if last.map_or(seq != row.first.0, |last| seq <= last) {
            return None;
        }
        starts.push(u32::try_from(at).ok()?);
        last = Some(seq);
        at = at.checked_add(RECORD_HEAD_BYTES)?.checked_add(u32_at(head, 0) as usize)?;
    }
    (at == records.len() && starts.len() == row.count as usize && last == Some(row.last.0)).then_some(starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::segment::SegmentWriter;
    use hw_kit::Time;

    const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

    fn block(packed: bool) -> (Vec<Message>, Block, Vec<u8>) {
        let record = |seq: u64| Record::join(b"a.b", b"hh", &[b'a' + seq as u8; 40]).expect("it is short");
        let message = |seq| Message { seq: Seq(seq), ts: Time(seq as i64), record: record(seq) };
        let messages: Vec<Message> = [3, 4, 9, 12].map(message).into();
        let mut writer = SegmentWriter::new(ID, packed, Vault::default());
        messages.iter().for_each(|message| writer.push(message));
        let ((_, file), blocks, _) = writer.finish();
        let start = blocks[0].offset as usize;
        (messages, blocks[0], file[start..start + blocks[0].len as usize].to_vec())
    }

    #[test]
    fn each_message_is_found_and_no_other() {
        for packed in [false, true] {
            let (messages, row, bytes) = block(packed);
            let loaded = LoadedBlock::open(ID, &row, &bytes.into(), &Vault::default()).unwrap();
            for seq in 0..20 {
                let expected = messages.iter().find(|message| message.seq == Seq(seq)).cloned().map(Ok);
                assert_eq!(loaded.get(Seq(seq)), expected, "{seq}");
            }
            assert_eq!(loaded.messages(), Ok(messages));
        }
        assert_eq!(LoadedBlock::damaged().get(Seq(3)), None);
    }

    /// Every flipped bit is found before a message that it touches is served, and costs no other one, or the whole block
    /// is refused; the check of all finds it in any case.
    #[test]
    fn no_flipped_bit_is_served() {
        let (messages, row, good) = block(false);
        let mut refused = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(loaded) = LoadedBlock::open(ID, &row, &bytes.into(), &Vault::default()) else {
                refused += 1;
                continue;
            };
            let hit = bit / 8 / (good.len() / messages.len());
            let place = row.offset + (hit * (good.len() / messages.len())) as u64;
            for (at, message) in messages.iter().enumerate() {
                match loaded.get(message.seq) {
                    Some(Ok(found)) => assert!(at != hit && found == *message, "bit {bit}"),
                    Some(Err(damage)) => assert_eq!((at, damage.offset), (hit, place), "bit {bit}"),
                    // Its number is damaged: then it is found under none, and the check says so.
                    None => assert_eq!(at, hit, "bit {bit}"),
                }
            }
            assert_eq!(loaded.messages().unwrap_err().offset, place, "bit {bit}");
        }
        // At least the lengths: 32 bits in each of four records.
        assert!(refused >= 4 * 32, "{refused}");
    }

    #[test]
    fn a_cut_or_a_missing_record_is_found() {
        let (_, row, good) = block(false);
        let record = good.len() / 4;
        for len in 0..good.len() {
            assert!(
                LoadedBlock::open(ID, &row, &good[..len].to_vec().into(), &Vault::default()).is_err(),
                "{len}"
            );
            let shorter = Block { len: len as u32, ..row };
            assert!(
                LoadedBlock::open(ID, &shorter, &good[..len].to_vec().into(), &Vault::default()).is_err(),
                "{len}"
            );
        }
        let twice = [&good[..record], &good[..record], &good[record * 2..]].concat();
        let swapped =
            [&good[..record], &good[record * 2..record * 3], &good[record..record * 2], &good[record * 3..]];
        for bytes in [twice, swapped.concat()] {
            let damage = LoadedBlock::open(ID, &row, &bytes.into(), &Vault::default()).unwrap_err();
            assert!(matches!(damage.flaw, Flaw::Malformed { .. }), "{damage}");
        }
    }
}
