//! Sealed blocks of segments. docs/format.md, "Segments".
//!
//! As a packed block, a sealed one begins with a length that no record has: every block says itself what it is. What is in
//! it is the block as it would be without the seal, packed or not.

use bytes::Bytes;

use crate::bytes_io::u32_at;
use crate::damage::{Damage, Flaw};
use crate::segment::SegmentId;
use crate::vault::{Cipher, Place, SEAL_BYTES, Vault};

/// Where a record would have its length.
const MARK: [u8; 4] = [0xfe, 0xff, 0xff, 0xff];
const HEAD_BYTES: usize = 16;

/// A segment and the offset at which a block starts in it.
pub(crate) type At = (SegmentId, u64);

/// Appends the sealed form of a block to `out`; the vault has a cipher.
pub(crate) fn seal_block(vault: &Vault, (id, offset): At, block: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let len = HEAD_BYTES + SEAL_BYTES + block.len();
    out.reserve(len);
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(len).expect("invariant: a block is far below 4 GiB").to_le_bytes());
    out.extend_from_slice(&[vault.cipher().map_or(0, |cipher| cipher as u8), 0, 0, 0]);
    vault.seal(Place::block(id, offset), &[block], out);
    let crc = checksum(id, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// What is in a block, sealed or not.
pub(crate) fn open_block(vault: &Vault, (id, offset): At, block: Bytes) -> Result<Bytes, Damage> {
    let damage = |flaw| Damage::new(id.file(), offset, flaw);
    let place = Place::block(id, offset);
    if !is_sealed(&block) {
        return vault.open(None, place, block).map_err(damage);
    }
    let cipher = check(id, &block).filter(|(_, len)| *len == block.len());
    let (cipher, _) = cipher.ok_or_else(|| damage(Flaw::Checksum { part: "sealed block" }))?;
    vault.open(Some(cipher), place, block.slice(HEAD_BYTES..)).map_err(damage)
}

/// What is in a sealed block that something may follow, and the block's length; None if it is damaged.
pub(crate) fn open_front(vault: &Vault, (id, offset): At, bytes: &Bytes) -> Option<(Bytes, usize)> {
    let (cipher, len) = check(id, bytes)?;
    let inside = vault.open(Some(cipher), Place::block(id, offset), bytes.slice(HEAD_BYTES..len));
    Some((inside.ok()?, len))
}

/// Whether a block is sealed.
pub(crate) fn is_sealed(block: &[u8]) -> bool {
    block.starts_with(&MARK)
}

/// The cipher and the length of a sealed block that is as it was written.
fn check(id: SegmentId, bytes: &[u8]) -> Option<(Cipher, usize)> {
    let head = bytes.get(..HEAD_BYTES)?;
    let len = u32_at(head, 8) as usize;
    let block = bytes.get(..len).filter(|block| block.len() >= HEAD_BYTES + SEAL_BYTES)?;
    let is_sound = is_sealed(block) && u32_at(head, 4) == checksum(id, block);
    Some((Cipher::from_number(head[12]).filter(|_| is_sound)?, len))
}

/// The checksum of a sealed block without its own place, bound to the segment.
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
    use crate::vault::tests::vault;
    use hw_kit::GroupId;

    const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

    #[test]
    fn both_ways() {
        for cipher in [Cipher::Aes, Cipher::Chacha] {
            let vault = vault(cipher, 1);
            let mut out = Vec::new();
            seal_block(&vault, (ID, 32), b"what is in it", &mut out);
            assert_eq!(out.len(), 13 + 16 + 40);
            let sealed = Bytes::from(out.clone());
            assert_eq!(open_block(&vault, (ID, 32), sealed.clone()).unwrap()[..], *b"what is in it");
            assert!(open_block(&vault, (ID, 33), sealed.clone()).is_err());
            out.extend_from_slice(b"what follows");
            let (inside, len) = open_front(&vault, (ID, 32), &out.into()).unwrap();
            assert_eq!((&inside[..], len), (&b"what is in it"[..], sealed.len()));
            let blind = open_block(&Vault::default(), (ID, 32), sealed.clone()).unwrap_err();
            assert_eq!(blind.flaw, Flaw::NoKey);
            let other = SegmentId { number: 4, ..ID };
            assert!(open_block(&vault, (other, 32), sealed.clone()).is_err());
            for at in 0..sealed.len() {
                let mut damaged = sealed.to_vec();
                damaged[at] ^= 0x10;
                assert!(open_block(&vault, (ID, 32), damaged.clone().into()).is_err(), "{at}");
                assert_eq!(open_front(&vault, (ID, 32), &damaged.clone().into()), None, "{at}");
                // Without a key, the checksum finds it too, but in the mark, which says whether there is a seal at all.
                let blind = open_block(&Vault::default(), (ID, 32), damaged.into()).map_err(|d| d.flaw);
                assert!(at < 4 || blind == Err(Flaw::Checksum { part: "sealed block" }), "{at}: {blind:?}");
                assert!(open_block(&vault, (ID, 32), sealed.slice(..at)).is_err(), "{at}");
            }
        }
    }
}
