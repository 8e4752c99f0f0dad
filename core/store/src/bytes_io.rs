//! Numbers in byte strings: little-endian, fixed or variable length; reading never goes past the end.

use bytes::Bytes;

/// Reads from the front of a buffer.
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let array = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(array)
    }

    /// The next bytes, sharing the buffer.
    pub(crate) fn slice(&mut self, len: usize) -> Option<Bytes> {
        let end = self.at.checked_add(len)?;
        if end > self.bytes.len() {
            return None;
        }
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Some(slice)
    }
}

/// Numbers of variable length (LEB128, at most ten bytes) from the front of a slice.
pub(crate) struct Varints<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Varints<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Varints<'a> {
        Varints { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        self.at += 1;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn signed(&mut self) -> Option<i64> {
        let zigzag = self.next()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(slice)
    }

    /// Bytes after their number.
    #[inline]
    pub(crate) fn take_prefixed(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.next()?).ok()?;
        self.take(len)
    }

    /// Passes over so many numbers without reading them.
    #[inline]
    pub(crate) fn skip_numbers(&mut self, count: usize) -> Option<()> {
        let mut left = count;
        while left > 0 {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            left -= usize::from(byte < 0x80);
        }
        Some(())
    }

    pub(crate) fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(drop)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_signed_varint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
}

/// A number at a place that is known to exist; 0 where the caller's length check would have been wrong.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As `u32_at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 1, 63, -64, i64::MIN, i64::MAX];
        numbers.iter().for_each(|&number| put_varint(&mut out, number));
        signed.iter().for_each(|&number| put_signed_varint(&mut out, number));
        let mut reader = Varints::new(&out);
        assert!(numbers.iter().all(|&number| reader.next() == Some(number)));
        assert!(signed.iter().all(|&number| reader.signed() == Some(number)));
        assert!(reader.is_empty());
        assert_eq!((reader.next(), reader.take(1)), (None, None));
    }

    #[test]
    fn an_endless_number_is_refused() {
        assert_eq!(Varints::new(&[0xff; 11]).next(), None);
    }
}
