//! Compressed blocks of segments. docs/format.md, "Segments".
//!
//! A packed block begins with a length that no record has, so that every block says itself what it is. The block format
//! of Snappy is used, which is also one that S2 reads.

use bytes::Bytes;

use crate::bytes_io::u32_at;
use crate::segment::SegmentId;

/// Where a record would have its length.
const MARK: [u8; 4] = [0xff; 4];
const HEAD_BYTES: usize = 16;

/// The packed form of a block, if it is shorter.
pub(crate) fn pack(id: SegmentId, block: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(block.len()).ok()?;
    let mut out = vec![0; HEAD_BYTES + snap::raw::max_compress_len(block.len())];
    let packed = snap::raw::Encoder::new().compress(block, &mut out[HEAD_BYTES..]).ok()?;
    out.truncate(HEAD_BYTES + packed);
    out[..4].copy_from_slice(&MARK);
    out[8..12].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(id, &out);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    (out.len() < block.len()).then_some(out)
}

/// Whether a block is packed.
pub(crate) fn is_packed(block: &[u8]) -> bool {
    block.starts_with(&MARK)
}

/// The records of a packed block; None if it is damaged.
pub(crate) fn unpack(id: SegmentId, block: &[u8]) -> Option<Bytes> {
    if block.len() < HEAD_BYTES || u32_at(block, 4) != checksum(id, block) {
        return None;
    }
    let (packed, len) = (&block[HEAD_BYTES..], u32_at(block, 8) as usize);
    if snap::raw::decompress_len(packed).ok()? != len {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(packed).ok().map(Bytes::from)
}

/// The records of a packed block that something follows whose start is not known, and the block's length; None if it is
/// damaged. The lengths that a block can have are tried: it ends where its checksum fits.
pub(crate) fn unpack_front(id: SegmentId, bytes: &Bytes) -> Option<(Bytes, usize)> {
    let (wanted, len) = (u32_at(bytes.get(..HEAD_BYTES)?, 4), u32_at(bytes, 8) as usize);
    let longest = bytes.len().min(HEAD_BYTES + snap::raw::max_compress_len(len));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.group.0.to_le_bytes());
    hasher.update(&id.number.to_le_bytes());
    hasher.update(&bytes[8..HEAD_BYTES]);
    let fits = |end: &usize| {
        hasher.update(&bytes[*end - 1..*end]);
        hasher.clone().finalize() == wanted
    };
    let end = (HEAD_BYTES + 1..=longest).find(fits)?;
    Some((unpack(id, &bytes.slice(..end))?, end))
}

/// The checksum of a packed block without its own place, bound to the segment: bytes of another file do not pass.
fn checksum(id: SegmentId, block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.group.0.to_le_bytes());
    hasher.update(&id.number.to_le_bytes());
    hasher.update(&block[8..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw_kit::GroupId;

    const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

    #[test]
    fn both_ways() {
        for block in [vec![b'x'; 5000], b"abc".repeat(999)] {
            let packed = pack(ID, &block).expect("it shrinks");
            assert!(is_packed(&packed) && packed.len() < block.len() / 2);
            assert_eq!(unpack(ID, &packed).as_deref(), Some(&block[..]));
            assert_eq!(unpack(SegmentId { number: 4, ..ID }, &packed), None);
        }
        assert_eq!(pack(ID, b"incompressible"), None);
    }

    #[test]
    fn damage_is_found() {
        let packed = pack(ID, &[b'x'; 5000]).expect("it shrinks");
        for at in 4..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            assert_eq!(unpack(ID, &damaged), None, "{at}");
            assert_eq!(unpack(ID, &packed[..at]), None, "{at}");
        }
    }
}
