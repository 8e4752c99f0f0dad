//! Frames: what travels between two servers, in pieces of bounded size with a checksum each.
//!
//! A frame is a header of 12 bytes and a body: the body's length (u32), the kind (u8), flags (u8: 1 means that another
//! piece of the same body follows, 2 that this one is an S2 block), two zero bytes, and the CRC-32 of the header's first 8 bytes and the body (u32). All
//! numbers are little-endian. Between two pieces of a body only beats may stand.

use bytes::{Buf, Bytes, BytesMut};

use crate::compress::{Effort, unpack};
use crate::limits::{BODY_BYTES_MAX, PIECE_BYTES, SHARED_BYTES};

/// The first bytes on a connection, from both sides. They name the protocol's version.
pub const MAGIC: &[u8; 8] = b"HWLINK1\n";

pub(crate) const HEADER_BYTES: usize = 12;

const MORE: u8 = 1;
const PACKED: u8 = 2;

/// Whom the body of a frame is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// The hub: interest and messages.
    Hub,
    /// JetStream.
    Js,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Hello,
    Adopt,
    Refuse,
    Beat,
    Answer,
    News,
    Body(Channel),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Adopt => 2,
            Kind::Refuse => 3,
            Kind::Beat => 4,
            Kind::Answer => 5,
            Kind::News => 6,
            Kind::Body(Channel::Hub) => 16,
            Kind::Body(Channel::Js) => 17,
        }
    }

    fn of(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Hello,
            2 => Kind::Adopt,
            3 => Kind::Refuse,
            4 => Kind::Beat,
            5 => Kind::Answer,
            6 => Kind::News,
            16 => Kind::Body(Channel::Hub),
            17 => Kind::Body(Channel::Js),
            _ => return None,
        })
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// A length above the limit.
    #[error("a frame of {0} bytes")]
    TooLong(u64),
    /// The checksum differs.
    #[error("a frame's checksum is wrong")]
    Checksum,
    /// A kind or flag that this version does not know.
    #[error("an unknown kind of frame: {0}")]
    Kind(u8),
    /// It is no S2 block and should be one.
    #[error("a compressed frame is not readable")]
    Packed,
    /// A piece of something else in the middle of a body.
    #[error("pieces of two bodies are mixed")]
    Mixed,
}

/// Appends one piece.
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, piece: &[u8], more: bool) {
    put_packed(out, kind, (piece, more), Effort::Off);
}

/// The same, compressed if that is agreed on and makes it shorter.
pub(crate) fn put_packed(out: &mut Vec<u8>, kind: Kind, (piece, more): (&[u8], bool), effort: Effort) {
    debug_assert!(piece.len() <= PIECE_BYTES);
    let packed = effort.pack(piece);
    let mut head = [0; 8];
    head[4] = kind.number();
    head[5] = if more { MORE } else { 0 } | if packed.is_some() { PACKED } else { 0 };
    let piece = packed.as_deref().unwrap_or(piece);
    head[..4].copy_from_slice(&(piece.len() as u32).to_le_bytes());
    out.reserve(HEADER_BYTES + piece.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(&checksum(&head, piece).to_le_bytes());
    out.extend_from_slice(piece);
}

fn checksum(head: &[u8], piece: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(piece);
    hasher.finalize()
}

/// Makes bodies of bytes as they come. A long body is a part of the buffer into which it was read; a short one is copied, so
/// that whoever keeps it keeps no more than that.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: BytesMut,
    /// The pieces so far of a body that is not complete.
    begun: Option<(Kind, Vec<u8>)>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that are no frame yet.
    pub fn unread(&self) -> &[u8] {
        &self.bytes
    }

    /// Leaves out bytes that are no frame.
    pub fn skip(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// The next body, once all its pieces are there.
    pub fn next(&mut self) -> Result<Option<(Kind, Bytes)>, FrameError> {
        while let Some((kind, flags, length)) = self.piece()? {
            self.bytes.advance(HEADER_BYTES);
            let more = flags & MORE != 0;
            let piece = match flags & PACKED {
                0 => self.take(length),
                _ => unpack(&self.bytes.split_to(length))?.into(),
            };
            if matches!(kind, Kind::Beat | Kind::Answer) && !more {
                return Ok(Some((kind, piece)));
            }
            match self.begun.take() {
                None if !more => return Ok(Some((kind, piece))),
                None => self.begun = Some((kind, piece.into())),
                Some((begun, mut body)) => {
                    if begun != kind {
                        return Err(FrameError::Mixed);
                    }
                    let len = body.len() + piece.len();
                    if len > BODY_BYTES_MAX {
                        return Err(FrameError::TooLong(len as u64));
                    }
                    body.extend_from_slice(&piece);
                    if !more {
                        return Ok(Some((kind, body.into())));
                    }
                    self.begun = Some((kind, body));
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Bytes {
        let piece = self.bytes.split_to(length);
        if length < SHARED_BYTES { Bytes::copy_from_slice(&piece) } else { piece.freeze() }
    }

    /// The next piece: its kind, its flags, and how long it is behind its header.
    fn piece(&self) -> Result<Option<(Kind, u8, usize)>, FrameError> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let (length, head) = (u32::from_le_bytes([head[0], head[1], head[2], head[3]]), &head[..]);
        let length = length as usize;
        if length > PIECE_BYTES {
            return Err(FrameError::TooLong(length as u64));
        }
        let kind = Kind::of(head[4]).ok_or(FrameError::Kind(head[4]))?;
        if head[5] > MORE | PACKED || head[6] != 0 || head[7] != 0 {
            return Err(FrameError::Kind(head[5]));
        }
        let Some(piece) = rest.get(..length) else { return Ok(None) };
        if checksum(&head[..8], piece).to_le_bytes() != head[8..] {
            return Err(FrameError::Checksum);
        }
        Ok(Some((kind, head[5], length)))
    }
}
