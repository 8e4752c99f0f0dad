//! Inputs from numbers: a corpus entry, changed a little or a lot.

use hw_kit::Rng;

use crate::targets::Target;

/// Longer inputs only take longer.
const BYTES_MAX: usize = 16 << 10;

/// Numbers at which arithmetic goes wrong.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "255",
    "65535",
    "65536",
    "1048576",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e400",
    "0.5",
    "-0",
    "00",
];

/// The input with this number: the first ones are the corpus itself.
pub fn input(target: &Target, corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    if let Some(entry) = usize::try_from(number).ok().and_then(|number| corpus.get(number)) {
        return entry.clone();
    }
    let mut rng = Rng::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = match rng.below(12) {
        0 => (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect(),
        _ => pick(corpus, &mut rng).cloned().unwrap_or_default(),
    };
    for _ in 0..1 + rng.below(8) * rng.below(3) {
        change(&mut bytes, target, corpus, &mut rng);
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn pick<'a, T>(from: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    from.get(rng.below(from.len() as u64) as usize)
}

fn place(bytes: &[u8], rng: &mut Rng) -> usize {
    rng.below(bytes.len() as u64 + 1) as usize
}

fn change(bytes: &mut Vec<u8>, target: &Target, corpus: &[Vec<u8>], rng: &mut Rng) {
    let at = place(bytes, rng);
    match rng.below(12) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = [0, 0xff, b' ', b'\r', b'\n', b'.', b'*', b'>', b'"', b'{'][rng.below(10) as usize];
            }
        }
        2 => {
            let end = (at + 1 + rng.below(16) as usize).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        3 => {
            let from = place(bytes, rng).min(at);
            let copy = bytes[from..at].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => bytes.truncate(at),
        5 | 6 => {
            if let Some(word) = pick(target.words, rng) {
                bytes.splice(at..at, word.bytes());
            }
        }
        7 => {
            // Begins as one, ends as another.
            if let Some(other) = pick(corpus, rng) {
                let from = place(other, rng);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        8 => {
            if let Some(other) = pick(corpus, rng) {
                bytes.extend_from_slice(other);
            }
        }
        9 => {
            let value = rng.next_u64().to_le_bytes();
            let len = 1 + rng.below(8) as usize;
            bytes.splice(at..(at + len).min(bytes.len()), value[..len].iter().copied());
        }
        _ => number(bytes, at, rng),
    }
}

/// Replaces a number in the text by another.
fn number(bytes: &mut Vec<u8>, from: usize, rng: &mut Rng) {
    let is_digit = |at: &usize| bytes.get(*at).is_some_and(u8::is_ascii_digit);
    let Some(start) = (from..bytes.len()).find(is_digit) else { return };
    let end = (start..bytes.len()).find(|at| !is_digit(at)).unwrap_or(bytes.len());
    if let Some(other) = pick(NUMBERS, rng) {
        bytes.splice(start..end, other.bytes());
    }
}
