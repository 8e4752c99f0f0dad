//! The file `keys`: the store's key, wrapped with one that is derived from what the administrator configured.
//! docs/format.md, "Encryption".
//!
//! Bytes in, bytes out; random bytes are handed in. The wrapped key authenticates everything else in the file, so that
//! the right key is told from a wrong one, and a file that was changed from one that was not.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;

use crate::bytes_io::u32_at;
use crate::vault::{Cipher, Form, KEY_BYTES, StoreKey};

/// The length of the file.
pub const KEYS_BYTES: usize = 4096;
/// The random bytes that go into the derived key, other ones every time that the file is written.
pub const WRAP_SALT_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"HWKEY\r\n\x1a";
const KEYS_VERSION: u16 = 1;
const USED_BYTES: usize = 96;
/// What is authenticated: everything before the wrapped key.
const CLEAR_BYTES: usize = 40;
const WRAPPED_END: usize = CLEAR_BYTES + KEY_BYTES + 16;
/// Where the second copy is: in another sector and another flash page half.
const SECOND_COPY: usize = 2048;
/// PBKDF2 with HMAC-SHA-256, the only derivation so far.
const DERIVATION: u8 = 1;
const FLAG_WHOLE: u8 = 1;
/// What a key that a person thought of costs to guess, against what a start may take.
const ITERATIONS: u32 = 100_000;
/// A file that asks for more was not written by the store.
const ITERATIONS_MAX: u32 = 10_000_000;

/// What `keys` says.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The store's key.
    pub store: StoreKey,
    /// What new files are sealed with.
    pub cipher: Cipher,
    /// Whether all files are sealed with it: none is left from before.
    pub is_whole: bool,
}

/// Why a file gives no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeysError {
    /// Neither copy is as it was written.
    #[error("the file keys is damaged: put back a copy of it, without it nothing in the store can be read")]
    Damaged,
    /// Written by a newer version.
    #[error("the file keys has format version {0}, which is newer than this program")]
    Newer(u16),
    /// The file was wrapped with another key.
    #[error("the key is not the one that the store was encrypted with")]
    WrongKey,
}

impl Keys {
    /// The file's bytes, for whoever has `configured`. `salt` is random and was not used before.
    pub fn wrap(&self, configured: &[u8], salt: [u8; WRAP_SALT_BYTES]) -> Vec<u8> {
        self.wrap_with(configured, salt, ITERATIONS)
    }

    fn wrap_with(&self, configured: &[u8], salt: [u8; WRAP_SALT_BYTES], iterations: u32) -> Vec<u8> {
        let mut copy = Vec::with_capacity(USED_BYTES);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&Form::new(KEYS_VERSION, Some(self.cipher)).to_bytes());
        copy.extend_from_slice(&[DERIVATION, if self.is_whole { FLAG_WHOLE } else { 0 }]);
        copy.extend_from_slice(&iterations.to_le_bytes());
        copy.extend_from_slice(&[0; 8]);
        copy.extend_from_slice(&salt);
        assert_eq!(copy.len(), CLEAR_BYTES, "the clear part is as long as the format says");
        let mut key = *self.store.bytes();
        let tag = wrapping_key(configured, &salt, iterations)
            .seal_in_place_separate_tag(once(), Aad::from(&copy[..]), &mut key)
            .expect("invariant: 32 bytes can be sealed");
        copy.extend_from_slice(&key);
        copy.extend_from_slice(tag.as_ref());
        copy.extend_from_slice(&[0; USED_BYTES - WRAPPED_END - 4]);
        let crc = crc32fast::hash(&copy);
        copy.extend_from_slice(&crc.to_le_bytes());
        let mut file = vec![0; KEYS_BYTES];
        file[..USED_BYTES].copy_from_slice(&copy);
        file[SECOND_COPY..SECOND_COPY + USED_BYTES].copy_from_slice(&copy);
        file
    }

    /// Reads either copy.
    pub fn unwrap(file: &[u8], configured: &[u8]) -> Result<Keys, KeysError> {
        let mut error = KeysError::Damaged;
        for start in [0, SECOND_COPY] {
            let Some(copy) = file.get(start..start + USED_BYTES) else { continue };
            match unwrap_copy(copy, configured) {
                Err(KeysError::Damaged) => {}
                Err(other) => error = other,
                Ok(keys) => return Ok(keys),
            }
        }
        Err(error)
    }
}

fn unwrap_copy(copy: &[u8], configured: &[u8]) -> Result<Keys, KeysError> {
    if copy[..8] != MAGIC || u32_at(copy, USED_BYTES - 4) != crc32fast::hash(&copy[..USED_BYTES - 4]) {
        return Err(KeysError::Damaged);
    }
    let form = Form::from_bytes([copy[8], copy[9]], KEYS_VERSION).map_err(KeysError::Newer)?;
    let iterations = u32_at(copy, 12);
    let cipher = form.cipher.filter(|_| copy[10] == DERIVATION && (1..=ITERATIONS_MAX).contains(&iterations));
    let cipher = cipher.ok_or(KeysError::Damaged)?;
    let (clear, wrapped) = copy[..WRAPPED_END].split_at(CLEAR_BYTES);
    let (wrapped, tag) = wrapped.split_at(KEY_BYTES);
    let salt = &clear[CLEAR_BYTES - WRAP_SALT_BYTES..];
    let mut key = [0; KEY_BYTES];
    wrapping_key(configured, salt, iterations)
        .open_separate_gather(once(), Aad::from(clear), wrapped, tag, &mut key)
        .map_err(|_| KeysError::WrongKey)?;
    Ok(Keys { store: StoreKey::new(key), cipher, is_whole: copy[11] & FLAG_WHOLE != 0 })
}

fn wrapping_key(configured: &[u8], salt: &[u8], iterations: u32) -> LessSafeKey {
    let mut key = [0; KEY_BYTES];
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, configured, &mut key);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("invariant: AES-256 has keys of 32 bytes"))
}

/// The salt makes every wrapping key another one: each seals once.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { store: StoreKey::new([7; KEY_BYTES]), cipher: Cipher::Chacha, is_whole: true }
    }

    fn file() -> Vec<u8> {
        keys().wrap_with(b"a key", [3; WRAP_SALT_BYTES], 10)
    }

    #[test]
    fn only_the_right_key_opens_it() {
        let found = Keys::unwrap(&file(), b"a key").unwrap();
        assert_eq!((found.store.bytes(), found.cipher, found.is_whole), (&[7; 32], Cipher::Chacha, true));
        for wrong in [&b""[..], b"a Key", b"a key "] {
            assert_eq!(Keys::unwrap(&file(), wrong).unwrap_err(), KeysError::WrongKey);
        }
        let whole = Keys::unwrap(&keys().wrap(b"a key", [4; WRAP_SALT_BYTES]), b"a key").unwrap();
        assert_eq!(whole.store.bytes(), &[7; 32]);
    }

    #[test]
    fn either_copy_will_do_and_nothing_else() {
        let file = file();
        assert!(!file.windows(8).any(|part| part == [7; 8]), "the store's key is not in it");
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            assert!(Keys::unwrap(&flipped, b"a key").is_ok(), "byte {at}");
        }
        for at in 0..USED_BYTES {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            flipped[SECOND_COPY + at] ^= 0x10;
            assert_eq!(Keys::unwrap(&flipped, b"a key").unwrap_err(), KeysError::Damaged, "byte {at}");
            // Somebody who mends the checksum is found as well.
            for copy in [0, SECOND_COPY] {
                let crc = crc32fast::hash(&flipped[copy..copy + USED_BYTES - 4]);
                flipped[copy + USED_BYTES - 4..copy + USED_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            let reserved = (WRAPPED_END..USED_BYTES).contains(&at);
            let found = Keys::unwrap(&flipped, b"a key");
            assert_eq!(found.is_ok(), reserved, "byte {at}");
        }
        assert_eq!(Keys::unwrap(&file[..2000], b"a key").unwrap().cipher, Cipher::Chacha);
        assert_eq!(Keys::unwrap(&[], b"a key").unwrap_err(), KeysError::Damaged);
    }

    #[test]
    fn numbers_on_disk_stay() {
        let file = file();
        assert_eq!(file.len(), KEYS_BYTES);
        assert_eq!(file[..24], *b"HWKEY\r\n\x1a\x01\x02\x01\x01\x0a\0\0\0\0\0\0\0\0\0\0\0");
        let hex: String = file[CLEAR_BYTES..USED_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "c481bbe6d9b56443db0ac990bc8f7d57cbc3ce4fc07eafe89661a3ed9979a2df67c88550af06859d247a396434e903bc00000000c3250536"
        );
    }
}
