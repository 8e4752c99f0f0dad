//! Frames: consecutive commands of one group in one buffer, from the proposer to the disk and back without a copy.

use std::ops::Range;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex};

use crate::limits::BODY_ALIGN;

/// What a frame means to the log.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum FrameKind {
    /// Entries `first .. first + count` of the group's log. They replace what the log has from `first` on.
    Entries = 1,
    /// The group's small state outside of its log, one entry; it takes no index. The last one counts.
    Note = 2,
    /// Commands that are applied together, in a replicated log: all of them take the one index `first`, which replaces what
    /// the log has from there on.
    Batch = 3,
    /// A change of a replicated group's members, one entry; it takes an index as a batch does.
    Change = 4,
}

/// Consecutive commands of one group. Clones share the bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    group: GroupId,
    term: u64,
    first: LogIndex,
    count: u32,
    kind: FrameKind,
    crc: u32,
    body: Bytes,
}

/// What a frame says of itself besides its entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameMeta {
    /// Whose log.
    pub group: GroupId,
    /// The term of all its entries; 0 where there are no terms.
    pub term: u64,
    /// The index of the first entry, from 1 on; of a note: where it was written, any number.
    pub first: LogIndex,
    /// What it is.
    pub kind: FrameKind,
}

impl FrameKind {
    /// The kind behind a number on disk.
    pub fn from_number(number: u8) -> Option<FrameKind> {
        match number {
            1 => Some(FrameKind::Entries),
            2 => Some(FrameKind::Note),
            3 => Some(FrameKind::Batch),
            4 => Some(FrameKind::Change),
            _ => None,
        }
    }

    /// Whether it is part of a log, and not beside it.
    pub fn is_logged(self) -> bool {
        self != FrameKind::Note
    }

    /// The last index of a frame of `count` entries that begins at `first`.
    pub(crate) fn last(self, first: LogIndex, count: u32) -> LogIndex {
        let indexes = if self == FrameKind::Entries { u64::from(count) } else { 1 };
        LogIndex(first.0.saturating_add(indexes).saturating_sub(1))
    }
}

impl Frame {
    /// Checks bytes that came from a disk or a peer: exactly `count` entries and their padding.
    pub fn from_body(meta: FrameMeta, count: u32, body: Bytes) -> Option<Frame> {
        let crc = crc32fast::hash(&body);
        Frame::with_crc(meta, count, body, crc)
    }

    /// A frame of a replicated log, whose body travels without its count. A body without bytes is that of a new leader's
    /// first batch. Commands are never empty, so that the first empty one is padding.
    pub fn from_log(meta: FrameMeta, body: Bytes) -> Option<Frame> {
        if body.is_empty() {
            return Frame::from_body(meta, 1, Bytes::from_static(&[0; BODY_ALIGN]));
        }
        let mut entries = Entries { body: &body, at: 0, left: u32::MAX };
        let mut count = 0;
        while entries.next_range().is_some_and(|entry| !entry.is_empty()) {
            count += 1;
        }
        Frame::from_body(meta, count, body)
    }

    /// The same body at another place of a log.
    pub fn placed(self, meta: FrameMeta) -> Frame {
        let FrameMeta { group, term, first, kind } = meta;
        let frame = Frame { group, term, first, kind, ..self };
        assert!(frame.has_sound_numbers(), "a frame's numbers are sound: {meta:?}");
        frame
    }

    /// The body as it travels: what [`Frame::from_log`] makes this frame of.
    pub fn log_body(&self) -> Bytes {
        let is_empty = self.count == 1 && self.entries().next_range().is_none_or(|entry| entry.is_empty());
        if is_empty { Bytes::new() } else { self.body.clone() }
    }

    /// As `from_body` for bytes whose checksum is known to be `crc`.
    pub(crate) fn with_crc(meta: FrameMeta, count: u32, body: Bytes, crc: u32) -> Option<Frame> {
        let FrameMeta { group, term, first, kind } = meta;
        let frame = Frame { group, term, first, count, kind, crc, body };
        (frame.has_exact_body() && frame.has_sound_numbers()).then_some(frame)
    }

    /// Whose log.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The term of all entries.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The index of the first entry.
    pub fn first(&self) -> LogIndex {
        self.first
    }

    /// The index of the last entry.
    pub fn last(&self) -> LogIndex {
        self.kind.last(self.first, self.count)
    }

    /// How many entries; never 0.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// What it is.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Group, term, first index and kind.
    pub fn meta(&self) -> FrameMeta {
        FrameMeta { group: self.group, term: self.term, first: self.first, kind: self.kind }
    }

    /// All entries with their lengths and the padding, as on disk.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The checksum (CRC-32) of the body.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The entries in order, sharing the frame's buffer.
    pub fn entries(&self) -> Entries<'_> {
        Entries { body: &self.body, at: 0, left: self.count }
    }

    fn has_sound_numbers(&self) -> bool {
        match self.kind {
            FrameKind::Entries => {
                self.first.0 > 0 && self.first.0.checked_add(u64::from(self.count)).is_some()
            }
            FrameKind::Batch => self.first.0 > 0,
            FrameKind::Change => self.first.0 > 0 && self.count == 1,
            FrameKind::Note => self.count == 1,
        }
    }

    fn has_exact_body(&self) -> bool {
        let mut entries = self.entries();
        while entries.next_range().is_some() {}
        self.count > 0 && entries.left == 0 && self.body.len() == entries.at.next_multiple_of(BODY_ALIGN)
    }
}

/// The entries of a frame.
pub struct Entries<'a> {
    body: &'a Bytes,
    at: usize,
    left: u32,
}

impl Entries<'_> {
    /// Where the next one is: for those who only look, and need no share of the buffer.
    fn next_range(&mut self) -> Option<Range<usize>> {
        if self.left == 0 {
            return None;
        }
        let start = self.at + 4;
        let len = u32::from_le_bytes(self.body.get(self.at..start)?.try_into().ok()?);
        let end = start.checked_add(len as usize).filter(|end| *end <= self.body.len())?;
        self.left -= 1;
        self.at = end;
        Some(start..end)
    }
}

impl Iterator for Entries<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let range = self.next_range()?;
        Some(self.body.slice(range))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// Gathers entries into a frame's body. Entries are written straight into it.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    body: Vec<u8>,
    open: Option<usize>,
    count: u32,
    usual_bytes: usize,
}

impl FrameBuilder {
    /// An empty one.
    pub fn new() -> FrameBuilder {
        FrameBuilder::default()
    }

    /// Starts an entry: append its bytes to the vector, touch nothing that is there, then call `end_entry`.
    pub fn begin_entry(&mut self) -> &mut Vec<u8> {
        assert!(self.open.is_none(), "an entry is begun while another is open");
        if self.body.capacity() == 0 {
            self.body.reserve(self.usual_bytes);
        }
        self.open = Some(self.body.len());
        self.body.extend_from_slice(&[0; 4]);
        &mut self.body
    }

    /// Ends the entry; its length in bytes.
    pub fn end_entry(&mut self) -> usize {
        let start = self.open.take().expect("invariant: end_entry follows begin_entry");
        assert!(self.body.len() >= start + 4, "an entry's writer removed bytes that were there before");
        let len = self.body.len() - start - 4;
        let len_u32 = u32::try_from(len).expect("invariant: payloads are limited far below 4 GiB");
        self.body[start..start + 4].copy_from_slice(&len_u32.to_le_bytes());
        self.count += 1;
        len
    }

    /// Adds an entry that exists already.
    pub fn push(&mut self, entry: &[u8]) {
        self.begin_entry().extend_from_slice(entry);
        self.end_entry();
    }

    /// How many entries there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes the body has so far; compare with the store's `frame_bytes_max`.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frame of everything that was added; the builder is empty again. There must be an entry, and a note has one.
    pub fn finish(&mut self, meta: FrameMeta) -> Frame {
        assert!(self.open.is_none(), "a frame is finished while an entry is open");
        self.body.resize(self.body.len().next_multiple_of(BODY_ALIGN), 0);
        // The next body starts with the room that this one needed: a steady load never grows a buffer twice.
        self.usual_bytes = (self.usual_bytes / 2).max(self.body.len());
        let (body, count) = (std::mem::take(&mut self.body), std::mem::take(&mut self.count));
        let FrameMeta { group, term, first, kind } = meta;
        let frame = Frame { group, term, first, count, kind, crc: crc32fast::hash(&body), body: body.into() };
        assert!(count > 0, "a frame has an entry");
        assert!(frame.has_sound_numbers(), "a frame's numbers are sound: {meta:?}, {count} entries");
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(first: u64) -> FrameMeta {
        FrameMeta { group: GroupId(3), term: 2, first: LogIndex(first), kind: FrameKind::Entries }
    }

    fn frame(entries: &[&[u8]]) -> Frame {
        let mut builder = FrameBuilder::new();
        entries.iter().for_each(|entry| builder.push(entry));
        builder.finish(meta(5))
    }

    #[test]
    fn a_replicated_log_counts_what_it_got() {
        let meta = FrameMeta { kind: FrameKind::Batch, ..meta(5) };
        for entries in [vec![&b"a"[..]], vec![b"abcd"], vec![b"ab", b"0123456789abcdef", b"xyz"]] {
            let mut builder = FrameBuilder::new();
            entries.iter().for_each(|entry| builder.push(entry));
            let frame = builder.finish(meta);
            assert_eq!(frame.last(), LogIndex(5), "a batch takes one index");
            assert_eq!(Frame::from_log(meta, frame.log_body()), Some(frame));
        }
        let empty = Frame::from_log(meta, Bytes::new()).unwrap();
        assert_eq!(empty.entries().collect::<Vec<_>>(), [Bytes::new()]);
        assert_eq!(empty.log_body(), Bytes::new());
        assert_eq!(Frame::from_log(meta, Bytes::from_static(b"12345678")), None);
        assert_eq!(Frame::from_log(meta, Bytes::from_static(b"\x02\0\0\0ab")), None, "not padded");
    }

    #[test]
    fn entries_come_back_and_share_the_buffer() {
        for entries in
            [vec![&b""[..]], vec![b"a"], vec![b"abcd", b"", b"0123456789abcdef"], vec![b"1234"; 100]]
        {
            let frame = frame(&entries);
            assert_eq!(frame.body().len() % 8, 0);
            assert_eq!(frame.last().0, 4 + entries.len() as u64);
            let all: Vec<Bytes> = frame.entries().collect();
            assert_eq!(all, entries);
            let again = Frame::from_body(meta(5), frame.count(), frame.body().clone()).unwrap();
            assert_eq!(again, frame);
            let range = frame.body().as_ptr_range();
            assert!(all.iter().all(|entry| entry.is_empty() || range.contains(&entry.as_ptr())));
        }
    }

    #[test]
    fn a_body_that_does_not_hold_its_count_is_refused() {
        let good = frame(&[b"abc", b"de"]);
        let body = good.body();
        let longer = Bytes::from([&body[..], &[0; 8]].concat());
        let cases = [
            (1, body.clone()),
            (3, body.clone()),
            (0, Bytes::new()),
            (0, body.clone()),
            (2, body.slice(..8)),
            (2, longer),
            (u32::MAX, body.clone()),
        ];
        for (count, body) in cases {
            assert_eq!(Frame::from_body(meta(5), count, body), None, "{count}");
        }
        assert_eq!(Frame::from_body(meta(0), 2, body.clone()), None);
        assert_eq!(Frame::from_body(meta(u64::MAX), 2, body.clone()), None);
        assert_eq!(Frame::from_body(FrameMeta { kind: FrameKind::Note, ..meta(5) }, 2, body.clone()), None);
        assert!(Frame::from_body(meta(5), 2, body.clone()).is_some());
    }

    #[test]
    fn numbers_on_disk_stay() {
        assert_eq!((FrameKind::Entries as u8, FrameKind::Note as u8), (1, 2));
        assert_eq!(frame(&[b"abc", b"de"]).body()[..], *b"\x03\0\0\0abc\x02\0\0\0de\0\0\0");
        assert_eq!(frame(&[b"abc"]).crc(), crc32fast::hash(b"\x03\0\0\0abc\0"));
    }
}
