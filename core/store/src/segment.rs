//! Segments: immutable files of one stream's messages in blocks, with an index at the end. docs/format.md, "Segments".
//!
//! Writing is a stream of pieces, reading is by block; a record that is served was checked when its block was read.

use bytes::Bytes;
use hw_kit::{GroupId, Map, Seq, Time};

use crate::bytes_io::{Reader, put_signed_varint, put_varint, u32_at, u64_at};
use crate::damage::{Damage, Flaw};
use crate::layout::FileId;
use crate::limits::{BLOCK_BYTES_MAX, PACKED_BLOCK_BYTES_MAX, SEGMENT_WRITE_BYTES};
use crate::messages::{IndexEntry, Message, Written};
use crate::op::DiskOp;
use crate::packed::pack;
use crate::record::Record;

/// The newest version that is read.
pub(crate) const SEGMENT_VERSION: u16 = 2;
/// Version 1 has no packed blocks; segments without them still have it.
const UNPACKED_VERSION: u16 = 1;
const HEADER_MAGIC: [u8; 8] = *b"HWSEG\r\n\x1a";
const TRAILER_MAGIC: [u8; 8] = *b"HWSEGend";
pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const TRAILER_BYTES: usize = 72;
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

/// What a segment says of itself, without its messages.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentIndex {
    /// Which segment.
    pub id: SegmentId,
    /// Its blocks in order.
    pub blocks: Vec<Block>,
    /// Per block, its records in order.
    pub entries: Vec<Vec<IndexEntry>>,
}

/// The end of a segment's file: where its table and its index are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trailer {
    id: SegmentId,
    version: u16,
    file_len: u64,
    table_offset: u64,
    blocks: u32,
    table_crc: u32,
    index_len: u64,
    index_crc: u32,
}

impl SegmentId {
    /// Its file.
    pub fn file(self) -> FileId {
        FileId::Segment(self.group, self.number)
    }
}

impl SegmentIndex {
    /// How many messages it has.
    pub fn messages(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.count)).sum()
    }

    /// What [`crate::Messages::handle_written`] wants to know.
    pub fn written(&self) -> Written {
        written(self.id, &self.blocks)
    }
}

fn written(id: SegmentId, blocks: &[Block]) -> Written {
    Written { segment: id.number, blocks: blocks.iter().map(|block| block.first).collect() }
}

/// Writes one segment as pieces that follow each other.
#[derive(Debug)]
pub struct SegmentWriter {
    id: SegmentId,
    /// Whether blocks are packed; then only complete ones are handed out.
    packed: bool,
    /// What was not handed out yet; starts at `handed_out` in the file.
    piece: Vec<u8>,
    handed_out: u64,
    block_start: u64,
    blocks: Vec<Block>,
    open: Option<Block>,
    index: Vec<u8>,
    subjects: Map<Bytes, u32>,
    dictionary: Vec<u8>,
    last_ts: i64,
}

impl SegmentWriter {
    /// An empty segment; `packed`: its blocks are compressed where that makes them shorter.
    pub fn new(id: SegmentId, packed: bool) -> SegmentWriter {
        let mut piece = Vec::new();
        piece.extend_from_slice(&HEADER_MAGIC);
        piece.extend_from_slice(&version(packed).to_le_bytes());
        piece.extend_from_slice(&[0; 2]);
        piece.extend_from_slice(&id.group.0.to_le_bytes());
        piece.extend_from_slice(&id.number.to_le_bytes());
        let crc = crc32fast::hash(&piece);
        piece.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(piece.len(), HEADER_BYTES, "the header is as long as the format says");
        SegmentWriter {
            id,
            packed,
            piece,
            handed_out: 0,
            block_start: HEADER_BYTES as u64,
            blocks: Vec::new(),
            open: None,
            index: Vec::new(),
            subjects: Map::default(),
            dictionary: Vec::new(),
            last_ts: 0,
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
        let known = self.subjects.get(record.subject()).copied();
        let subject = known.unwrap_or_else(|| self.add_subject(record.subject()));
        let (subject_len, header_len) = record.lengths();
        // A block's first entry is absolute, so that a block's part of the index stands alone.
        let (seq_before, ts_before) = self.open.map_or((0, 0), |block| (block.last.0, self.last_ts));
        put_varint(&mut self.index, seq.0 - seq_before);
        put_signed_varint(&mut self.index, ts.0.wrapping_sub(ts_before));
        put_varint(&mut self.index, u64::from(subject));
        put_varint(&mut self.index, u64::from(header_len));
        let payload = record.joined().len() as u64 - u64::from(subject_len) - u64::from(header_len);
        put_varint(&mut self.index, payload);
        self.last_ts = ts.0;
        let offset = self.block_start;
        let block = self.open.get_or_insert(Block { offset, len: 0, count: 0, first: *seq, last: *seq });
        (block.count, block.last) = (block.count + 1, *seq);
    }

    /// What is ready to be written, if it is worth a write: where, and the bytes.
    pub fn take_piece(&mut self) -> Option<(u64, Bytes)> {
        let ready = match self.packed {
            true => (self.block_start - self.handed_out) as usize,
            false => self.piece.len(),
        };
        (ready >= SEGMENT_WRITE_BYTES).then(|| self.take(ready))
    }

    /// The last piece, and the table of blocks.
    pub fn finish(mut self) -> ((u64, Bytes), Vec<Block>) {
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
        let mut index = Vec::with_capacity(self.dictionary.len() + self.index.len() + 10);
        put_varint(&mut index, self.subjects.len() as u64);
        index.extend_from_slice(&self.dictionary);
        index.extend_from_slice(&self.index);
        let trailer = Trailer {
            id: self.id,
            version: version(self.packed),
            file_len: table_offset + (table.len() + index.len() + TRAILER_BYTES) as u64,
            table_offset,
            blocks: u32::try_from(self.blocks.len()).expect("invariant: a segment is far below 2^32 blocks"),
            table_crc: crc32fast::hash(&table),
            index_len: index.len() as u64,
            index_crc: crc32fast::hash(&index),
        };
        self.piece.extend_from_slice(&table);
        self.piece.extend_from_slice(&index);
        put_trailer(&mut self.piece, &trailer);
        assert_eq!(self.at(), trailer.file_len, "the trailer knows the file's length");
        (self.take(self.piece.len()), self.blocks)
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

    fn add_subject(&mut self, subject: &[u8]) -> u32 {
        let id = u32::try_from(self.subjects.len()).expect("invariant: a segment is far below 2^32 subjects");
        self.subjects.insert(Bytes::copy_from_slice(subject), id);
        put_varint(&mut self.dictionary, subject.len() as u64);
        self.dictionary.extend_from_slice(subject);
        id
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
        let len = self.at() - self.block_start;
        block.len = u32::try_from(len).expect("invariant: one record is far below 4 GiB");
        self.blocks.push(block);
        self.block_start = self.at();
    }
}

fn version(packed: bool) -> u16 {
    if packed { SEGMENT_VERSION } else { UNPACKED_VERSION }
}

/// A whole segment in one piece, and its table of blocks.
pub fn encode(id: SegmentId, messages: &[Message], packed: bool) -> (Bytes, Vec<Block>) {
    let mut writer = SegmentWriter::new(id, packed);
    let mut all = Vec::new();
    for message in messages {
        writer.push(message);
        if let Some((_, piece)) = writer.take_piece() {
            all.extend_from_slice(&piece);
        }
    }
    let ((_, piece), blocks) = writer.finish();
    all.extend_from_slice(&piece);
    (all.into(), blocks)
}

/// The operations that write a segment, one list for each piece.
#[derive(Debug)]
pub(crate) struct SegmentJob {
    writer: Option<SegmentWriter>,
    messages: std::vec::IntoIter<Message>,
    id: SegmentId,
    started: bool,
}

impl SegmentJob {
    pub(crate) fn new(id: SegmentId, messages: Vec<Message>, packed: bool) -> SegmentJob {
        let writer = Some(SegmentWriter::new(id, packed));
        SegmentJob { writer, messages: messages.into_iter(), id, started: false }
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
        let ((offset, piece), blocks) = writer.finish();
        ops.push(DiskOp::Write { file, offset, data: vec![piece] });
        ops.push(DiskOp::Sync(file));
        (ops, Some(written(self.id, &blocks)))
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
    let start = out.len();
    out.extend_from_slice(&trailer.id.group.0.to_le_bytes());
    out.extend_from_slice(&trailer.id.number.to_le_bytes());
    out.extend_from_slice(&trailer.file_len.to_le_bytes());
    out.extend_from_slice(&trailer.table_offset.to_le_bytes());
    out.extend_from_slice(&trailer.index_len.to_le_bytes());
    out.extend_from_slice(&trailer.blocks.to_le_bytes());
    out.extend_from_slice(&trailer.table_crc.to_le_bytes());
    out.extend_from_slice(&trailer.index_crc.to_le_bytes());
    out.extend_from_slice(&trailer.version.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
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
    if trailer[64..] != TRAILER_MAGIC || u32_at(trailer, 60) != crc32fast::hash(&trailer[..60]) {
        return Err(Damage::checksum(file, offset, "trailer"));
    }
    let version = u16::from_le_bytes([trailer[52], trailer[53]]);
    if version > SEGMENT_VERSION {
        return Err(Damage::new(file, offset, Flaw::Version { version }));
    }
    let found = SegmentId { group: GroupId(u64_at(trailer, 0)), number: u64_at(trailer, 8) };
    if found != id {
        return Err(Damage::new(file, offset, Flaw::Misplaced { found: found.file().path() }));
    }
    let trailer = Trailer {
        id,
        version,
        file_len: u64_at(trailer, 16),
        table_offset: u64_at(trailer, 24),
        blocks: u32_at(trailer, 40),
        table_crc: u32_at(trailer, 44),
        index_len: u64_at(trailer, 32),
        index_crc: u32_at(trailer, 48),
    };
    let parts = trailer
        .table_offset
        .checked_add(trailer.table_len())
        .and_then(|end| end.checked_add(trailer.index_len));
    if trailer.file_len != file_len || parts != Some(offset) {
        return Err(Damage::new(file, offset, Flaw::Truncated { len: file_len }));
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

    /// The length of the index.
    pub fn index_len(&self) -> u64 {
        self.index_len
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

    /// Reads the index; `blocks` come from `read_table`.
    pub fn read_index(&self, blocks: Vec<Block>, bytes: &Bytes) -> Result<SegmentIndex, Damage> {
        let (file, offset) = (self.id.file(), self.table_offset + self.table_len());
        if bytes.len() as u64 != self.index_len || crc32fast::hash(bytes) != self.index_crc {
            return Err(Damage::checksum(file, offset, "index"));
        }
        let entries =
            index_entries(&blocks, bytes).ok_or_else(|| Damage::malformed(file, offset, "index"))?;
        Ok(SegmentIndex { id: self.id, blocks, entries })
    }
}

fn index_entries(blocks: &[Block], bytes: &Bytes) -> Option<Vec<Vec<IndexEntry>>> {
    // The subjects are kept by the caller for long: they must not pin the whole index.
    let mut reader = Reader::new(bytes);
    let subjects = reader.varint()?;
    let mut names = Vec::new();
    for _ in 0..subjects {
        let len = usize::try_from(reader.varint()?).ok()?;
        names.push(Bytes::copy_from_slice(&reader.slice(len)?));
    }
    let mut all = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut entries = Vec::with_capacity(block.count.min(block.len / RECORD_HEAD_BYTES as u32) as usize);
        let (mut seq, mut ts) = (0u64, 0i64);
        for _ in 0..block.count {
            seq = seq.checked_add(reader.varint()?)?;
            ts = ts.wrapping_add(reader.signed_varint()?);
            let subject = names.get(usize::try_from(reader.varint()?).ok()?)?.clone();
            let header_len = u32::try_from(reader.varint()?).ok()?;
            let payload_len = u32::try_from(reader.varint()?).ok()?;
            entries.push(IndexEntry { seq: Seq(seq), ts: Time(ts), subject, header_len, payload_len });
        }
        let ends = (entries.first()?.seq, entries.last()?.seq);
        if ends != (block.first, block.last) || !entries.is_sorted_by(|one, next| one.seq < next.seq) {
            return None;
        }
        all.push(entries);
    }
    reader.is_empty().then_some(all)
}

#[cfg(test)]
mod tests;
