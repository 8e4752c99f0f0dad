//! The bytes of log files: the file's header and the heads of windows. docs/format.md, "Write-ahead log".

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, ShardId};

use crate::bytes_io::{u32_at, u64_at};
use crate::frame::{Frame, FrameKind, FrameMeta};
use crate::limits::{FRAME_HEAD_BYTES, WAL_HEADER_BYTES, WINDOW_ALIGN, WINDOW_FRAMES_MAX, WINDOW_HEAD_BYTES};
use crate::vault::{Cipher, Form};

pub(crate) const WAL_VERSION: u16 = 1;
const FILE_MAGIC: [u8; 8] = *b"HWWAL\r\n\x1a";
const WINDOW_MAGIC: u32 = u32::from_le_bytes(*b"HWwi");
const HEADER_USED: usize = 56;
/// Where the header's second copy is: in another sector and another flash page half.
const SECOND_COPY: usize = 2048;

/// A place in a shard's log. Places compare in the order in which they were written.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WalPosition {
    /// The log file's number.
    pub file: u64,
    /// The byte in it.
    pub offset: u64,
}

/// Why a window was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum WindowKind {
    /// Frames.
    Frames = 1,
    /// The first of a session: durable before anything else of it is written.
    Open = 2,
    /// Nothing but the claim that all before it is durable.
    Mark = 3,
}

/// What a log file's header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileHeader {
    pub shard: ShardId,
    pub number: u64,
    /// The file that was the newest when this one was made, 0 if there was none: if it is missing, it was lost.
    pub previous: u64,
    pub len: u64,
    /// Goes into all checksums of the file's windows: what it held before it was recycled cannot pass for new.
    pub salt: u64,
    /// What the bodies of its frames are sealed with.
    pub cipher: Option<Cipher>,
    /// Tells whether a key is the one that they are sealed with.
    pub key_check: u32,
}

/// A frame as it is on disk: its body may be sealed.
#[derive(Debug)]
pub(crate) struct StoredFrame<'a> {
    pub frame: &'a Frame,
    pub body: Bytes,
    pub crc: u32,
}

/// The fixed part of a window's head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WindowHead {
    pub kind: WindowKind,
    /// Windows of a shard are numbered from 1 on over all files and sessions.
    pub number: u64,
    /// How many times the store had been opened.
    pub session: u32,
    /// All before this was durable when the window was written.
    pub durable: WalPosition,
    pub frames: u32,
    /// Head and bodies.
    pub bytes: u32,
}

/// One frame as its window's head describes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FrameHead {
    pub meta: FrameMeta,
    pub count: u32,
    pub body_len: u32,
    pub body_crc: u32,
}

/// The answer to a look at a file's first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeaderFound {
    Header(FileHeader),
    Newer(u16),
    None,
}

impl FileHeader {
    /// All bytes before the first window.
    pub(crate) fn encode(&self) -> Bytes {
        let mut copy = [0u8; HEADER_USED];
        copy[..8].copy_from_slice(&FILE_MAGIC);
        copy[8..10].copy_from_slice(&Form::new(WAL_VERSION, self.cipher).to_bytes());
        copy[10..12].copy_from_slice(&self.shard.0.to_le_bytes());
        copy[12..16].copy_from_slice(&self.key_check.to_le_bytes());
        copy[16..24].copy_from_slice(&self.number.to_le_bytes());
        copy[24..32].copy_from_slice(&self.len.to_le_bytes());
        copy[32..40].copy_from_slice(&self.salt.to_le_bytes());
        copy[40..48].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32fast::hash(&copy[..52]);
        copy[52..56].copy_from_slice(&crc.to_le_bytes());
        let mut page = vec![0u8; WAL_HEADER_BYTES as usize];
        page[..HEADER_USED].copy_from_slice(&copy);
        page[SECOND_COPY..SECOND_COPY + HEADER_USED].copy_from_slice(&copy);
        page.into()
    }

    /// Reads either copy.
    pub(crate) fn decode(page: &[u8]) -> HeaderFound {
        let mut found = HeaderFound::None;
        for start in [0, SECOND_COPY] {
            let Some(copy) = page.get(start..start + HEADER_USED) else { continue };
            if copy[..8] != FILE_MAGIC || u32_at(copy, 52) != crc32fast::hash(&copy[..52]) {
                continue;
            }
            let cipher = match Form::from_bytes([copy[8], copy[9]], WAL_VERSION) {
                Ok(form) => form.cipher,
                Err(version) => {
                    found = HeaderFound::Newer(version);
                    continue;
                }
            };
            return HeaderFound::Header(FileHeader {
                shard: ShardId(u16::from_le_bytes([copy[10], copy[11]])),
                number: u64_at(copy, 16),
                len: u64_at(copy, 24),
                salt: u64_at(copy, 32),
                previous: u64_at(copy, 40),
                cipher,
                key_check: u32_at(copy, 12),
            });
        }
        found
    }
}

/// The bytes of a window before its first body.
pub(crate) fn encode_head(file: &FileHeader, head: &WindowHead, frames: &[StoredFrame<'_>]) -> Vec<u8> {
    assert_eq!(frames.len(), head.frames as usize, "a window's head counts its frames");
    let mut out = Vec::with_capacity(head_bytes(frames.len()));
    out.extend_from_slice(&WINDOW_MAGIC.to_le_bytes());
    out.extend_from_slice(&(head.kind as u32).to_le_bytes());
    out.extend_from_slice(&file.number.to_le_bytes());
    out.extend_from_slice(&head.number.to_le_bytes());
    out.extend_from_slice(&head.durable.file.to_le_bytes());
    out.extend_from_slice(&head.durable.offset.to_le_bytes());
    out.extend_from_slice(&head.session.to_le_bytes());
    out.extend_from_slice(&head.frames.to_le_bytes());
    out.extend_from_slice(&head.bytes.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    assert_eq!(out.len(), WINDOW_HEAD_BYTES, "the fixed part is as long as the format says");
    for StoredFrame { frame, body, crc } in frames {
        out.extend_from_slice(&frame.group().0.to_le_bytes());
        out.extend_from_slice(&frame.term().to_le_bytes());
        out.extend_from_slice(&frame.first().0.to_le_bytes());
        out.extend_from_slice(&frame.count().to_le_bytes());
        let body_len = u32::try_from(body.len()).expect("invariant: append refuses longer frames");
        out.extend_from_slice(&body_len.to_le_bytes());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&[frame.kind() as u8, 0, 0, 0]);
    }
    let crc = head_crc(file.salt, &out);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The fixed part of a head if there may be one: magic, generation and sizes fit. Not yet checked: `verify_head`.
pub(crate) fn peek_head(file: &FileHeader, offset: u64, bytes: &[u8]) -> Option<WindowHead> {
    let head = bytes.get(..WINDOW_HEAD_BYTES)?;
    if u32_at(head, 0) != WINDOW_MAGIC || u64_at(head, 8) != file.number {
        return None;
    }
    let kind = match u32_at(head, 4) {
        1 => WindowKind::Frames,
        2 => WindowKind::Open,
        3 => WindowKind::Mark,
        _ => return None,
    };
    let (frames, len) = (u32_at(head, 44), u32_at(head, 48));
    let room = file.len.checked_sub(offset)?;
    let fits = u64::from(len) <= room
        && frames as usize <= WINDOW_FRAMES_MAX
        && head_bytes(frames as usize) as u64 <= u64::from(len);
    fits.then(|| WindowHead {
        kind,
        number: u64_at(head, 16),
        session: u32_at(head, 40),
        durable: WalPosition { file: u64_at(head, 24), offset: u64_at(head, 32) },
        frames,
        bytes: len,
    })
}

/// Checks the head's checksum; `bytes` hold `head_bytes` of it. Gives its frames.
pub(crate) fn verify_head(file: &FileHeader, head: &WindowHead, bytes: &[u8]) -> Option<Vec<FrameHead>> {
    let bytes = bytes.get(..head_bytes(head.frames as usize))?;
    if u32_at(bytes, 60) != head_crc(file.salt, bytes) {
        return None;
    }
    let frames: Vec<FrameHead> =
        bytes[WINDOW_HEAD_BYTES..].chunks_exact(FRAME_HEAD_BYTES).map(frame_head).collect::<Option<_>>()?;
    let bodies: u64 = frames.iter().map(|frame| u64::from(frame.body_len)).sum();
    (bodies + bytes.len() as u64 == u64::from(head.bytes)).then_some(frames)
}

fn frame_head(bytes: &[u8]) -> Option<FrameHead> {
    let kind = FrameKind::from_number(bytes[36])?;
    let (group, term) = (GroupId(u64_at(bytes, 0)), u64_at(bytes, 8));
    let meta = FrameMeta { group, term, first: LogIndex(u64_at(bytes, 16)), kind };
    Some(FrameHead {
        meta,
        count: u32_at(bytes, 24),
        body_len: u32_at(bytes, 28),
        body_crc: u32_at(bytes, 32),
    })
}

/// The checksum of a head: the file's salt, then the head without the checksum itself.
fn head_crc(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&bytes[..60]);
    hasher.update(&bytes[WINDOW_HEAD_BYTES..]);
    hasher.finalize()
}

/// The length of a head with so many frames.
pub(crate) fn head_bytes(frames: usize) -> usize {
    WINDOW_HEAD_BYTES + frames * FRAME_HEAD_BYTES
}

/// The first place at or after `offset` where a window may start.
pub(crate) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(WINDOW_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameBuilder;

    const FILE: FileHeader = FileHeader {
        shard: ShardId(3),
        number: 9,
        previous: 8,
        len: 1 << 20,
        salt: 0x1122_3344,
        cipher: None,
        key_check: 0,
    };

    fn stored(frames: &[Frame]) -> Vec<StoredFrame<'_>> {
        frames
            .iter()
            .map(|frame| StoredFrame { frame, body: frame.body().clone(), crc: frame.crc() })
            .collect()
    }

    fn frames() -> Vec<Frame> {
        let mut builder = FrameBuilder::new();
        let mut all = Vec::new();
        for (group, kind) in [(1, FrameKind::Entries), (2, FrameKind::Note)] {
            builder.push(b"some entry");
            all.push(builder.finish(FrameMeta { group: GroupId(group), term: 4, first: LogIndex(7), kind }));
        }
        all
    }

    fn head(frames: &[Frame]) -> WindowHead {
        let bodies: usize = frames.iter().map(|frame| frame.body().len()).sum();
        WindowHead {
            kind: WindowKind::Frames,
            number: 77,
            session: 5,
            durable: WalPosition { file: 8, offset: 4608 },
            frames: frames.len() as u32,
            bytes: (head_bytes(frames.len()) + bodies) as u32,
        }
    }

    #[test]
    fn heads_come_back_and_every_flip_shows() {
        let frames = frames();
        let head = head(&frames);
        let bytes = encode_head(&FILE, &head, &stored(&frames));
        assert_eq!(bytes.len(), 64 + 2 * 40);
        assert_eq!(peek_head(&FILE, 4096, &bytes), Some(head));
        let found = verify_head(&FILE, &head, &bytes).unwrap();
        assert!(found.iter().zip(&frames).all(|(found, frame)| found.meta == frame.meta()
            && found.count == frame.count()
            && found.body_len as usize == frame.body().len()
            && found.body_crc == frame.crc()));
        let read = |file: &FileHeader, bytes: &[u8]| {
            peek_head(file, 4096, bytes).and_then(|head| verify_head(file, &head, bytes))
        };
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(read(&FILE, &flipped), None, "byte {at} bit {bit}");
            }
        }
        assert_eq!(read(&FileHeader { salt: 1, ..FILE }, &bytes), None, "bytes of the file's former life");
        assert_eq!(peek_head(&FileHeader { number: 10, ..FILE }, 4096, &bytes), None);
        assert_eq!(peek_head(&FILE, FILE.len - 100, &bytes), None, "it would reach over the end");
    }

    #[test]
    fn either_copy_of_a_file_header_will_do() {
        let page = FILE.encode();
        assert_eq!(FileHeader::decode(&page), HeaderFound::Header(FILE));
        for at in 0..page.len() {
            let mut flipped = page.to_vec();
            flipped[at] ^= 0x10;
            assert_eq!(FileHeader::decode(&flipped), HeaderFound::Header(FILE), "byte {at}");
        }
        let mut both = page.to_vec();
        both[20] ^= 1;
        both[SECOND_COPY + 20] ^= 1;
        assert_eq!(FileHeader::decode(&both), HeaderFound::None);
        assert_eq!(FileHeader::decode(&[]), HeaderFound::None);
    }

    #[test]
    fn numbers_on_disk_stay() {
        assert_eq!((WindowKind::Frames as u32, WindowKind::Open as u32, WindowKind::Mark as u32), (1, 2, 3));
        let page = FILE.encode();
        assert_eq!(page[..20], *b"HWWAL\r\n\x1a\x01\0\x03\0\0\0\0\0\x09\0\0\0");
        for (cipher, number) in [(Cipher::Aes, 1), (Cipher::Chacha, 2)] {
            let file = FileHeader { cipher: Some(cipher), key_check: 0x0403_0201, ..FILE };
            assert_eq!(file.encode()[8..16], [1, number, 3, 0, 1, 2, 3, 4]);
            assert_eq!(FileHeader::decode(&file.encode()), HeaderFound::Header(file));
        }
        let frames = frames();
        let bytes = encode_head(&FILE, &head(&frames), &stored(&frames));
        assert_eq!(bytes[..20], *b"HWwi\x01\0\0\0\x09\0\0\0\0\0\0\0\x4d\0\0\0");
    }
}
