//! The S2 stream around an archive: pieces of a type, a length of three bytes and a content. Blocks carry the masked
//! CRC-32C of what they hold, which is checked before anything of it is used.

use minlz::crc::crc;
use minlz::s2::{decode_into, decode_len, encode};

use crate::ArchiveError;

const BEGIN: u8 = 0xff;
const S2_NAME: &[u8] = b"S2sTwO";
/// Snappy's framing is the same with smaller blocks; the readers of S2 take it.
const SNAPPY_NAME: &[u8] = b"sNaPpY";
const PACKED: u8 = 0x00;
const PLAIN: u8 = 0x01;
/// From here on, pieces may be skipped: padding, an index.
const SKIPPABLE: u8 = 0x80;

const HEAD: usize = 4;
const CHECKSUM: usize = 4;

/// What this writer puts into a block.
const BLOCK: usize = 64 * 1024;
/// The most that a block of an S2 stream holds.
const BLOCK_MAX: usize = 4 << 20;
/// A packed block can be a little longer than what it holds.
const PIECE_MAX: usize = BLOCK_MAX + BLOCK_MAX / 6 + 64;

/// Cuts what is written into blocks and packs them.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    begun: bool,
    block: Vec<u8>,
    pub(crate) out: Vec<u8>,
}

impl Packer {
    /// Adds bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(head);
            bytes = rest;
            if self.block.len() == BLOCK {
                self.flush();
            }
        }
    }

    /// Ends the block.
    pub(crate) fn flush(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.piece(BEGIN, &[S2_NAME]);
        }
        if self.block.is_empty() {
            return;
        }
        let block = std::mem::take(&mut self.block);
        let (sum, packed) = (crc(&block).to_le_bytes(), encode(&block));
        match packed.len() < block.len() {
            true => self.piece(PACKED, &[&sum, &packed]),
            false => self.piece(PLAIN, &[&sum, &block]),
        }
        self.block = block;
        self.block.clear();
    }

    fn piece(&mut self, kind: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.out.push(kind);
        self.out.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
    }
}

/// Collects bytes until a piece is whole.
#[derive(Debug, Default)]
pub(crate) struct Unpacker {
    begun: bool,
    input: Vec<u8>,
    at: usize,
    /// Bytes of a piece that is skipped, which have not come yet.
    skip: usize,
}

impl Unpacker {
    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        self.input.extend_from_slice(&bytes[skipped..]);
    }

    /// How many bytes belong to a piece that was not read yet.
    pub(crate) fn waiting(&self) -> usize {
        self.input.len() - self.at + self.skip
    }

    /// What the next block holds; None until more bytes come.
    pub(crate) fn next_block(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        loop {
            let Some(&[kind, a, b, c]) = self.input[self.at..].first_chunk::<HEAD>() else { return Ok(None) };
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            let from = self.at + HEAD;
            if kind != BEGIN && !self.begun {
                return Err(ArchiveError::Corrupt);
            }
            if (SKIPPABLE..BEGIN).contains(&kind) {
                let here = length.min(self.input.len() - from);
                (self.at, self.skip) = (from + here, length - here);
                continue;
            }
            if length > PIECE_MAX {
                return Err(ArchiveError::Corrupt);
            }
            let Some(content) = self.input.get(from..from + length) else { return Ok(None) };
            let block = match kind {
                BEGIN if content == S2_NAME || content == SNAPPY_NAME => None,
                PACKED | PLAIN => Some(unpack(kind, content)?),
                _ => return Err(ArchiveError::Corrupt),
            };
            self.begun = true;
            self.at = from + length;
            if block.is_some() {
                return Ok(block);
            }
        }
    }
}

fn unpack(kind: u8, content: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let (sum, content) = content.split_first_chunk::<CHECKSUM>().ok_or(ArchiveError::Corrupt)?;
    let block = match kind {
        PLAIN => content.to_vec(),
        _ => {
            let (length, _) = decode_len(content).map_err(|_| ArchiveError::Corrupt)?;
            if length > BLOCK_MAX {
                return Err(ArchiveError::Corrupt);
            }
            let mut block = vec![0; length];
            match decode_into(&mut block, content) {
                Ok(written) if written == length => block,
                _ => return Err(ArchiveError::Corrupt),
            }
        }
    };
    if block.len() > BLOCK_MAX {
        return Err(ArchiveError::Corrupt);
    }
    if crc(&block) != u32::from_le_bytes(*sum) { Err(ArchiveError::Checksum) } else { Ok(block) }
}
