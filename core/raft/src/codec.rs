//! Varints and bounds: how bytes of this crate are written and read.
//!
//! A number is written in groups of seven bits, the lowest first, the top bit of a byte saying that another follows; never
//! longer than needed, so that one value has one form. Nothing is allocated for what is announced, only for what is there.

use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// They end too early.
    #[error("it ends too early")]
    Short,
    /// Something follows that should not.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// A newer version, or no message at all.
    #[error("version {0} is unknown")]
    Version(u8),
    /// A kind that this version does not have.
    #[error("kind {0} is unknown")]
    Kind(u8),
    /// A number that is too long or too large.
    #[error("a number is out of range")]
    Number,
}

/// Writes a number.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The bytes that are left to read.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(rest: Bytes) -> Reader {
        Reader { rest }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.rest.is_empty() { Err(DecodeError::Short) } else { Ok(self.rest.get_u8()) }
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and the last byte of a longer number is never 0.
            if (at == 9 && bits > 1) || (at > 0 && byte == 0) {
                return Err(DecodeError::Number);
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                self.rest.advance(at + 1);
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { DecodeError::Short } else { DecodeError::Number })
    }

    /// How many things follow, each of at least `least` bytes: never more than there is room for.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::Number)?;
        if count > self.rest.len() / least { Err(DecodeError::Short) } else { Ok(count) }
    }

    /// So many bytes as announced, not copied.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.count(1)?;
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}
