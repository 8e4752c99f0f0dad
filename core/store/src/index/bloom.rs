//! A blocked Bloom filter over the subjects of a segment: whether a subject may be in it, in one cache line.

/// Bytes of a line; all bits of a subject are in one.
const LINE: usize = 64;
/// Bits of filter for each subject: about one false answer in 200.
const BITS_PER_SUBJECT: usize = 12;
const PROBES: u32 = 6;

/// The hash that is part of the format: two checksums of the name, mixed.
pub(super) fn hash(name: &[u8]) -> u64 {
    let low = crc32fast::hash(name);
    let mut second = crc32fast::Hasher::new_with_initial(0x9e37_79b9);
    second.update(name);
    let mut mixed = u64::from(low) << 32 | u64::from(second.finalize());
    // Checksums are linear: without this, names that differ in few bits would share lines.
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 32)
}

/// The filter of these subjects.
pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
    let lines = (hashes.len() * BITS_PER_SUBJECT).div_ceil(LINE * 8).max(1);
    let mut bits = vec![0; lines * LINE];
    for &hash in hashes {
        let (line, probes) = place(hash, lines);
        for bit in probes {
            bits[line + bit / 8] |= 1 << (bit % 8);
        }
    }
    bits
}

/// Whether the subject with this hash may be among them; `bits` has at least one whole line.
pub(super) fn may_contain(bits: &[u8], hash: u64) -> bool {
    let (line, mut probes) = place(hash, bits.len() / LINE);
    probes.all(|bit| bits[line + bit / 8] & (1 << (bit % 8)) != 0)
}

fn place(hash: u64, lines: usize) -> (usize, impl Iterator<Item = usize>) {
    let line = ((u128::from(hash) * lines as u128) >> 64) as usize * LINE;
    // The upper bits choose the line, so the probes come from a hash of the lower ones.
    let mut rest = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let probes = (0..PROBES).map(move |_| {
        rest = rest.rotate_left(9);
        (rest & 511) as usize
    });
    (line, probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missed_and_little_is_mistaken() {
        let name = |n: u32| hash(format!("$KV.bucket.key-{n}").as_bytes());
        for count in [0, 1, 10, 10_000] {
            let hashes: Vec<u64> = (0..count).map(name).collect();
            let bits = build(&hashes);
            assert!(hashes.iter().all(|&hash| may_contain(&bits, hash)));
            let wrong = (1_000_000..1_010_000).filter(|&n| may_contain(&bits, name(n))).count();
            assert!(wrong < 200, "{wrong} of 10,000 with {count}");
        }
    }

    #[test]
    fn the_hash_stays() {
        assert_eq!((hash(b""), hash(b"a.b")), (hash(b""), hash(b"a.b")));
        assert_ne!(hash(b"a.b"), hash(b"a.c"));
    }
}
