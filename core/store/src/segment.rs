//! Segments: immutable files of one stream's messages in blocks, with an index at the end. docs/format.md, "Segments".
//!
//! Writing is a stream of pieces, reading is by block; a record that is served was checked when its block was read.

use bytes::Bytes;
use hw_kit::{GroupId, Seq, Time};

use crate::bytes_io::{u32_at, u64_at};
use crate::damage::{Damage, Flaw};
use crate::index::{IndexWriter, Layout, Place};
use crate::layout::FileId;
use crate::limits::{BLOCK_BYTES_MAX, PACKED_BLOCK_BYTES_MAX, SEGMENT_WRITE_BYTES};
use crate::messages::{Message, SegmentInput, Written};
use crate::op::DiskOp;
use crate::packed::pack;
use crate::record::Record;
use crate::sealed::seal_block;
use crate::vault::{Cipher, Form, Vault};

/// The newest version that is read. In even ones blocks may be packed, in odd ones none is.
pub(crate) const SEGMENT_VERSION: u16 = 6;
/// The oldest: those before had an index that had to be read as a whole, and were never released.
const OLDEST_VERSION: u16 = 3;
/// From this one on, indexes have columns.
const COLUMNS_VERSION: u16 = 5;
const HEADER_MAGIC: [u8; 8] = *b"HWSEG\r\n\x1a";
const TRAILER_MAGIC: [u8; 8] = *b"HWSEGend";
pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const TRAILER_BYTES: usize = 128;
pub(crate) const RECORD_HEAD_BYTES: usize = 32;
const TABLE_ROW_BYTES: usize = 32;

/// Which segment.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentId {
    /// Whose.
    pub group: GroupId,
    /// Its number; a group's segments are numbered upwards and a number is not used for other content again.
    pub number: u64,
}

/// One row of a segment's table of blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
    /// How many records it has; never 0.
    pub count: u32,
    /// The first record's sequence.
    pub first: Seq,
    /// The last record's sequence.
    pub last: Seq,
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentInfo {
    /// Which segment.
    pub id: SegmentId,
    /// How much it holds, and where its index is.
    pub place: Place,
}

/// The end of a segment's file: where its table and its index are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trailer {
    id: SegmentId,
    version: u16,
    cipher: Option<Cipher>,
    file_len: u64,
    table_offset: u64,
    blocks: u32,
    table_crc: u32,
    place: Place,
}

impl SegmentId {
    /// Its file.
    pub fn file(self) -> FileId {
        FileId::Segment(self.group, self.number)
    }
}

/// Writes one segment as pieces that follow each other.
#[derive(Debug)]
pub struct SegmentWriter {
    id: SegmentId,
    /// Whether blocks are packed; packed or sealed, only complete ones are handed out.
    packed: bool,
    vault: Vault,
    /// What was not handed out yet; starts at `handed_out` in the file.
    piece: Vec<u8>,
    handed_out: u64,
    block_start: u64,
    blocks: Vec<Block>,
    open: Option<Block>,
    index: IndexWriter,
}

impl SegmentWriter {
    /// An empty segment; `packed`: its blocks are compressed where that makes them shorter.
    pub fn new(id: SegmentId, packed: bool, vault: Vault) -> SegmentWriter {
        let mut piece = Vec::new();
        piece.extend_from_slice(&HEADER_MAGIC);
        piece.extend_from_slice(&Form::new(version(packed), vault.cipher()).to_bytes());
        piece.extend_from_slice(&[0; 2]);
        piece.extend_from_slice(&id.group.0.to_le_bytes());
        piece.extend_from_slice(&id.number.to_le_bytes());
        let crc = crc32fast::hash(&piece);
        piece.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(piece.len(), HEADER_BYTES, "the header is as long as the format says");
        SegmentWriter {
            id,
            packed,
            vault,
            piece,
            handed_out: 0,
            block_start: HEADER_BYTES as u64,
            blocks: Vec::new(),
            open: None,
            index: IndexWriter::default(),
        }
    }

    /// Adds a message; sequences ascend.
    pub fn push(&mut self, message: &Message) {
        let Message { seq, ts, record } = message;
        let bytes = RECORD_HEAD_BYTES + record.joined().len();
        let filled = self.at() - self.block_start;
        let most = if self.packed { PACKED_BLOCK_BYTES_MAX } else { BLOCK_BYTES_MAX };
        if self.open.is_some() && filled as usize + bytes > most {
            self.close_block();
        }
        let last = self.open.or(self.blocks.last().copied()).map_or(Seq(0), |block| block.last);
        assert!(*seq > last, "sequences ascend within a segment: {seq} after {last}");
        put_record(&mut self.piece, self.id, message);
        self.index.push((*seq, *ts), record, self.open.is_none());
        let offset = self.block_start;
        let block = self.open.get_or_insert(Block { offset, len: 0, count: 0, first: *seq, last: *seq });
        (block.count, block.last) = (block.count + 1, *seq);
    }

    /// What is ready to be written, if it is worth a write: where, and the bytes.
    pub fn take_piece(&mut self) -> Option<(u64, Bytes)> {
        let ready = match self.packed || self.vault.cipher().is_some() {
            true => (self.block_start - self.handed_out) as usize,
            false => self.piece.len(),
        };
        (ready >= SEGMENT_WRITE_BYTES).then(|| self.take(ready))
    }

    /// The last piece, the table of blocks, and where the index is.
    pub fn finish(mut self) -> ((u64, Bytes), Vec<Block>, Place) {
        self.close_block();
        let table_offset = self.at();
        let mut table = Vec::with_capacity(self.blocks.len() * TABLE_ROW_BYTES);
        for block in &self.blocks {
            table.extend_from_slice(&block.offset.to_le_bytes());
            table.extend_from_slice(&block.len.to_le_bytes());
            table.extend_from_slice(&block.count.to_le_bytes());
            table.extend_from_slice(&block.first.0.to_le_bytes());
            table.extend_from_slice(&block.last.0.to_le_bytes());
        }
        self.piece.extend_from_slice(&table);
        let index = std::mem::take(&mut self.index);
        let place = index.finish((self.id, &self.vault), table_offset + table.len() as u64, &mut self.piece);
        let trailer = Trailer {
            id: self.id,
            version: version(self.packed),
            cipher: self.vault.cipher(),
            file_len: self.at() + TRAILER_BYTES as u64,
            table_offset,
            blocks: u32::try_from(self.blocks.len()).expect("invariant: a segment is far below 2^32 blocks"),
            table_crc: crc32fast::hash(&table),
            place,
        };
        put_trailer(&mut self.piece, &trailer);
        assert_eq!(self.at(), trailer.file_len, "the trailer knows the file's length");
        (self.take(self.piece.len()), self.blocks, place)
    }

    fn at(&self) -> u64 {
        self.handed_out + self.piece.len() as u64
    }

    fn take(&mut self, len: usize) -> (u64, Bytes) {
        let rest = self.piece.split_off(len);
        let piece = (self.handed_out, Bytes::from(std::mem::replace(&mut self.piece, rest)));
        self.handed_out += piece.1.len() as u64;
        piece
    }

    fn close_block(&mut self) {
        let Some(mut block) = self.open.take() else { return };
        if self.packed {
            let start = (self.block_start - self.handed_out) as usize;
            if let Some(packed) = pack(self.id, &self.piece[start..]) {
                self.piece.truncate(start);
                self.piece.extend_from_slice(&packed);
            }
        }
        if self.vault.cipher().is_some() {
            let start = (self.block_start - self.handed_out) as usize;
            let block = self.piece.split_off(start);
            seal_block(&self.vault, (self.id, self.block_start), &block, &mut self.piece);
        }
        let len = self.at() - self.block_start;
        block.len = u32::try_from(len).expect("invariant: one record is far below 4 GiB");
        self.blocks.push(block);
        self.block_start = self.at();
    }
}

fn version(packed: bool) -> u16 {
    if packed { SEGMENT_VERSION } else { SEGMENT_VERSION - 1 }
}

/// A whole segment in one piece, and what is kept of it in memory.
pub fn encode(mut writer: SegmentWriter, messages: &[Message]) -> (Bytes, Written) {
    let segment = writer.id.number;
    let mut all = Vec::new();
    for message in messages {
        writer.push(message);
        if let Some((_, piece)) = writer.take_piece() {
            all.extend_from_slice(&piece);
        }
    }
    let ((_, piece), _, place) = writer.finish();
    all.extend_from_slice(&piece);
    (all.into(), Written { segment, place })
}

/// The operations that write a segment, one list for each piece.
#[derive(Debug)]
pub(crate) struct SegmentJob {
    writer: Option<SegmentWriter>,
    messages: SegmentInput,
    id: SegmentId,
    started: bool,
}

impl SegmentJob {
    pub(crate) fn new(writer: SegmentWriter, messages: SegmentInput) -> SegmentJob {
        let (id, writer) = (writer.id, Some(writer));
        SegmentJob { writer, messages, id, started: false }
    }

    /// The next operations and, with the last ones, what was written.
    pub(crate) fn next_ops(&mut self) -> (Vec<DiskOp>, Option<Written>) {
        let file = self.id.file();
        let mut ops = Vec::new();
        if !std::mem::replace(&mut self.started, true) {
            ops.push(DiskOp::Create(file));
        }
        let mut writer = self.writer.take().expect("invariant: nobody asks after the last piece");
        for message in self.messages.by_ref() {
            writer.push(&message);
            if let Some((offset, piece)) = writer.take_piece() {
                ops.push(DiskOp::Write { file, offset, data: vec![piece] });
                self.writer = Some(writer);
                return (ops, None);
            }
        }
        let ((offset, piece), _, place) = writer.finish();
        ops.push(DiskOp::Write { file, offset, data: vec![piece] });
        ops.push(DiskOp::Sync(file));
        (ops, Some(Written { segment: self.id.number, place }))
    }
}

fn put_record(out: &mut Vec<u8>, id: SegmentId, message: &Message) {
    let start = out.len();
    let (subject_len, header_len) = message.record.lengths();
    let joined = message.record.joined();
    let len = u32::try_from(joined.len()).expect("invariant: one record is far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&message.seq.0.to_le_bytes());
    out.extend_from_slice(&message.ts.0.to_le_bytes());
    out.extend_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&subject_len.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(joined);
    let crc = record_crc(id, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum of a record without its own place, bound to the segment: bytes of another file do not pass.
fn record_crc(id: SegmentId, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.group.0.to_le_bytes());
    hasher.update(&id.number.to_le_bytes());
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

pub(crate) fn record_at(id: SegmentId, bytes: &Bytes) -> Option<(Message, usize)> {
    if bytes.len() < RECORD_HEAD_BYTES {
        return None;
    }
    let end = RECORD_HEAD_BYTES.checked_add(u32_at(bytes, 0) as usize)?;
    if end > bytes.len() || u32_at(bytes, 4) != record_crc(id, &bytes[..end]) {
        return None;
    }
    let subject_len = u16::from_le_bytes([bytes[28], bytes[29]]);
    let record = Record::from_joined(bytes.slice(RECORD_HEAD_BYTES..end), subject_len, u32_at(bytes, 24))?;
    let (seq, ts) = (Seq(u64_at(bytes, 8)), Time(u64_at(bytes, 16).cast_signed()));
    Some((Message { seq, ts, record }, end))
}

fn put_trailer(out: &mut Vec<u8>, trailer: &Trailer) {
    let (start, place) = (out.len(), &trailer.place);
    for number in [
        trailer.id.group.0,
        trailer.id.number,
        trailer.file_len,
        trailer.table_offset,
        place.offset,
        place.records,
        place.first.0,
        place.last.0,
        place.bytes,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [
        place.subjects,
        place.dictionary,
        place.postings,
        place.directory,
        place.end,
        trailer.blocks,
        trailer.table_crc,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&Form::new(trailer.version, trailer.cipher).to_bytes());
    out.extend_from_slice(&[0; 14]);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&TRAILER_MAGIC);
    assert_eq!(out.len() - start, TRAILER_BYTES, "the trailer is as long as the format says");
}

/// Checks the first bytes of a segment.
pub fn read_header(id: SegmentId, head: &[u8]) -> Result<(), Damage> {
    let file = id.file();
    let Some(head) = head.get(..HEADER_BYTES) else {
        return Err(Damage::new(file, 0, Flaw::Truncated { len: head.len() as u64 }));
    };
    if head[..8] != HEADER_MAGIC || u32_at(head, 28) != crc32fast::hash(&head[..28]) {
        return Err(Damage::checksum(file, 0, "header"));
    }
    let found = SegmentId { group: GroupId(u64_at(head, 12)), number: u64_at(head, 20) };
    if found != id {
        return Err(Damage::new(file, 0, Flaw::Misplaced { found: found.file().path() }));
    }
    Ok(())
}

/// Reads the trailer out of the last bytes of a file that is `file_len` long.
pub fn read_trailer(id: SegmentId, file_len: u64, tail: &[u8]) -> Result<Trailer, Damage> {
    let file = id.file();
    let Some(start) = tail.len().checked_sub(TRAILER_BYTES) else {
        return Err(Damage::new(file, 0, Flaw::Truncated { len: file_len }));
    };
    let (trailer, offset) = (&tail[start..], file_len - TRAILER_BYTES as u64);
    if trailer[120..] != TRAILER_MAGIC || u32_at(trailer, 116) != crc32fast::hash(&trailer[..116]) {
        return Err(Damage::checksum(file, offset, "trailer"));
    }
    let form = Form::from_bytes([trailer[100], trailer[101]], SEGMENT_VERSION)
        .map_err(|version| Damage::new(file, offset, Flaw::Version { version }))?;
    if u16::from(form.version) < OLDEST_VERSION {
        return Err(Damage::new(file, offset, Flaw::Version { version: form.version.into() }));
    }
    let found = SegmentId { group: GroupId(u64_at(trailer, 0)), number: u64_at(trailer, 8) };
    if found != id {
        return Err(Damage::new(file, offset, Flaw::Misplaced { found: found.file().path() }));
    }
    let place = Place {
        offset: u64_at(trailer, 32),
        records: u64_at(trailer, 40),
        first: Seq(u64_at(trailer, 48)),
        last: Seq(u64_at(trailer, 56)),
        bytes: u64_at(trailer, 64),
        subjects: u32_at(trailer, 72),
        dictionary: u32_at(trailer, 76),
        postings: u32_at(trailer, 80),
        directory: u32_at(trailer, 84),
        end: u32_at(trailer, 88),
        layout: if u16::from(form.version) < COLUMNS_VERSION { Layout::Rows } else { Layout::Columns },
        cipher: form.cipher,
    };
    let trailer = Trailer {
        id,
        version: form.version.into(),
        cipher: form.cipher,
        file_len: u64_at(trailer, 16),
        table_offset: u64_at(trailer, 24),
        blocks: u32_at(trailer, 92),
        table_crc: u32_at(trailer, 96),
        place,
    };
    let index = trailer.table_offset.checked_add(trailer.table_len());
    let end = index.and_then(|index| index.checked_add(place.file_bytes()));
    if trailer.file_len != file_len || index != Some(place.offset) || end != Some(offset) {
        return Err(Damage::new(file, offset, Flaw::Truncated { len: file_len }));
    }
    if !place.is_sound() {
        return Err(Damage::malformed(file, offset, "trailer"));
    }
    Ok(trailer)
}

impl Trailer {
    /// Where the table of blocks starts; the index follows it.
    pub fn table_offset(&self) -> u64 {
        self.table_offset
    }

    /// The length of the table of blocks.
    pub fn table_len(&self) -> u64 {
        u64::from(self.blocks) * TABLE_ROW_BYTES as u64
    }

    /// What is kept of the segment in memory.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads the table of blocks.
    pub fn read_table(&self, bytes: &[u8]) -> Result<Vec<Block>, Damage> {
        let (file, offset) = (self.id.file(), self.table_offset);
        if bytes.len() as u64 != self.table_len() || crc32fast::hash(bytes) != self.table_crc {
            return Err(Damage::checksum(file, offset, "table of blocks"));
        }
        let row = |row: &[u8]| Block {
            offset: u64_at(row, 0),
            len: u32_at(row, 8),
            count: u32_at(row, 12),
            first: Seq(u64_at(row, 16)),
            last: Seq(u64_at(row, 24)),
        };
        let blocks: Vec<Block> = bytes.chunks_exact(TABLE_ROW_BYTES).map(row).collect();
        let mut end = HEADER_BYTES as u64;
        let mut seq = Seq(0);
        for block in &blocks {
            let sound =
                block.offset == end && block.count > 0 && block.first > seq && block.first <= block.last;
            if !sound {
                return Err(Damage::malformed(file, offset, "table of blocks"));
            }
            (end, seq) = (end.saturating_add(u64::from(block.len)), block.last);
        }
        if end != offset { Err(Damage::malformed(file, offset, "table of blocks")) } else { Ok(blocks) }
    }

    /// Whether its blocks are packed where that makes them shorter.
    pub fn is_packed(&self) -> bool {
        self.version.is_multiple_of(2)
    }

    /// What it is sealed with.
    pub fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }
}

#[cfg(test)]
mod tests;
