//! Sealing what leaves for a file and opening what comes from one. docs/format.md, "Encryption".
//!
//! A sealed piece stands alone: the salt of the session that wrote it and its number in that session are in front, an
//! authentication tag is behind. Session and number make a nonce that is never used again under one key, whatever is
//! written to the same place later, and the place is authenticated too: a piece that lies elsewhere does not open.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use bytes::Bytes;
use hw_kit::{GroupId, ShardId};

use crate::damage::Flaw;
use crate::frame::FrameMeta;
use crate::segment::SegmentId;
use crate::wal::WindowMark;

/// The random number that every session draws anew.
pub const SESSION_SALT_BYTES: usize = 16;
/// A store's key.
pub const KEY_BYTES: usize = 32;
/// Session and number of a piece.
const FRONT_BYTES: usize = SESSION_SALT_BYTES + 8;
const TAG_BYTES: usize = 16;
/// A sealed piece is so much longer than what is in it.
pub const SEAL_BYTES: usize = FRONT_BYTES + TAG_BYTES;
/// Keys of other sessions that are kept.
const SESSIONS_KEPT: usize = 16;
/// What a session's key is derived for, beside the cipher's number and the shard.
const PURPOSE: &[u8] = b"headwater session key";

const CHECK_PURPOSE: &[u8] = b"headwater key check";

/// How pieces are sealed; the numbers are those on disk.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256 in Galois counter mode.
    Aes = 1,
    /// ChaCha20 with Poly1305.
    Chacha = 2,
}

impl Cipher {
    /// The cipher behind a number on disk.
    pub fn from_number(number: u8) -> Option<Cipher> {
        match number {
            1 => Some(Cipher::Aes),
            2 => Some(Cipher::Chacha),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Cipher::Aes => &AES_256_GCM,
            Cipher::Chacha => &CHACHA20_POLY1305,
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cipher::Aes => "AES-GCM",
            Cipher::Chacha => "ChaCha20-Poly1305",
        })
    }
}

/// The version and the cipher of a file, in two bytes: 0 where it is not sealed, so that programs which know no ciphers
/// refuse a sealed file as one of a newer version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Form {
    pub version: u8,
    pub cipher: Option<Cipher>,
}

impl Form {
    pub(crate) fn new(version: u16, cipher: Option<Cipher>) -> Form {
        Form { version: u8::try_from(version).unwrap_or(u8::MAX), cipher }
    }

    pub(crate) fn to_bytes(self) -> [u8; 2] {
        [self.version, self.cipher.map_or(0, |cipher| cipher as u8)]
    }

    /// The form behind two bytes, if versions up to `newest` are known.
    pub(crate) fn from_bytes(bytes: [u8; 2], newest: u16) -> Result<Form, u16> {
        let unknown = Err(u16::from_le_bytes(bytes));
        let [version, cipher] = bytes;
        if u16::from(version) > newest {
            return unknown;
        }
        match (cipher, Cipher::from_number(cipher)) {
            (0, _) => Ok(Form { version, cipher: None }),
            (_, Some(cipher)) => Ok(Form { version, cipher: Some(cipher) }),
            (_, None) => unknown,
        }
    }
}

/// Where a piece belongs; authenticated with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    part: &'static str,
    kind: u8,
    numbers: [u64; 7],
}

impl Place {
    /// The body of a frame, `at` in its window.
    pub(crate) fn frame(window: WindowMark, at: usize, meta: FrameMeta, count: u32) -> Place {
        let FrameMeta { group, term, first, kind } = meta;
        let (session, kind) = (u64::from(window.session), u64::from(kind as u8) << 32);
        let numbers = [window.number, session, at as u64, group.0, term, first.0, kind | u64::from(count)];
        Place { part: "frame", kind: 1, numbers }
    }

    /// A group's entry in a checkpoint.
    pub(crate) fn entry(checkpoint: u64, group: GroupId, kind: u32) -> Place {
        Place { part: "entry", kind: 2, numbers: [checkpoint, group.0, u64::from(kind), 0, 0, 0, 0] }
    }

    /// The block of a segment that starts at `offset`.
    pub(crate) fn block(id: SegmentId, offset: u64) -> Place {
        Place { part: "block", kind: 3, numbers: [id.group.0, id.number, offset, 0, 0, 0, 0] }
    }

    /// A part of the index of a segment, by its number.
    pub(crate) fn index(id: SegmentId, part: u64) -> Place {
        Place { part: "index", kind: 4, numbers: [id.group.0, id.number, part, 0, 0, 0, 0] }
    }

    fn bytes(&self, shard: ShardId) -> [u8; 59] {
        let mut out = [0; 59];
        out[0] = self.kind;
        out[1..3].copy_from_slice(&shard.0.to_le_bytes());
        for (at, number) in self.numbers.iter().enumerate() {
            out[3 + 8 * at..11 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        out
    }
}

/// A store's key: random, the same for the store's whole life.
#[derive(Clone)]
pub struct StoreKey([u8; KEY_BYTES]);

impl StoreKey {
    /// From random bytes, or from what `keys` holds.
    pub fn new(bytes: [u8; KEY_BYTES]) -> StoreKey {
        StoreKey(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn check(&self) -> u32 {
        let derived = self.derive(&[], &[CHECK_PURPOSE]);
        u32::from_le_bytes([derived[0], derived[1], derived[2], derived[3]])
    }

    fn derive(&self, salt: &[u8], purpose: &[&[u8]]) -> [u8; KEY_BYTES] {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let mut key = [0; KEY_BYTES];
        prk.expand(purpose, Length)
            .and_then(|okm| okm.fill(&mut key))
            .expect("invariant: HKDF gives up to 8160 bytes");
        key
    }

    fn session_key(&self, cipher: Cipher, shard: ShardId, salt: &[u8]) -> LessSafeKey {
        let key = self.derive(salt, &[PURPOSE, &[cipher as u8], &shard.0.to_le_bytes()]);
        let key = UnboundKey::new(cipher.algorithm(), &key);
        LessSafeKey::new(key.expect("invariant: both ciphers have keys of 32 bytes"))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

#[derive(Debug)]
struct OtherSession {
    cipher: Cipher,
    salt: [u8; SESSION_SALT_BYTES],
    key: Arc<LessSafeKey>,
}

/// What seals and opens the pieces of one shard. Clones share the count of pieces. The default is no encryption.
#[derive(Clone, Debug, Default)]
pub struct Vault(Option<Arc<Keyed>>);

#[derive(Debug)]
struct Keyed {
    key: StoreKey,
    shard: ShardId,
    cipher: Cipher,
    /// Everything in the store is sealed by now: what is not was put there by somebody else.
    is_whole: bool,
    salt: [u8; SESSION_SALT_BYTES],
    /// This session's key, for sealing.
    session: Arc<LessSafeKey>,
    /// Those of other sessions that were derived last: to derive one costs more than to open a small piece.
    others: Mutex<VecDeque<OtherSession>>,
    key_check: u32,
    /// Pieces sealed in this session.
    sealed: AtomicU64,
}

impl Vault {
    /// `salt` is random and is drawn anew each time that a store is opened: nothing else keeps sessions apart. `is_whole`:
    /// what is not sealed is refused.
    pub fn new(
        key: StoreKey,
        shard: ShardId,
        cipher: Cipher,
        is_whole: bool,
        salt: [u8; SESSION_SALT_BYTES],
    ) -> Vault {
        Vault(Some(Arc::new(Keyed {
            session: Arc::new(key.session_key(cipher, shard, &salt)),
            key_check: key.check(),
            sealed: AtomicU64::new(0),
            others: Mutex::default(),
            key,
            shard,
            cipher,
            is_whole,
            salt,
        })))
    }

    /// What new files are sealed with.
    pub fn cipher(&self) -> Option<Cipher> {
        self.0.as_ref().map(|keyed| keyed.cipher)
    }

    /// Whether the store has files that are still to be sealed, or sealed with another cipher.
    pub fn is_changing(&self) -> bool {
        self.0.as_ref().is_some_and(|keyed| !keyed.is_whole)
    }

    /// A number that two keys hardly share; 0 without encryption.
    pub(crate) fn key_check(&self) -> u32 {
        self.0.as_ref().map_or(0, |keyed| keyed.key_check)
    }

    /// Whether a file of a log, sealed or not, can be read.
    pub(crate) fn check(&self, cipher: Option<Cipher>, key_check: u32) -> Result<(), Flaw> {
        match (cipher, &self.0) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Flaw::NoKey),
            (Some(_), Some(keyed)) if keyed.key_check == key_check => Ok(()),
            (Some(_), Some(_)) => Err(Flaw::Seal { part: "file" }),
        }
    }

    /// How much longer pieces are than what is in them.
    pub(crate) fn overhead(&self) -> usize {
        self.0.as_ref().map_or(0, |_| SEAL_BYTES)
    }

    /// Appends what is sealed to `out`; without a cipher, as it is.
    pub(crate) fn seal(&self, place: Place, parts: &[&[u8]], out: &mut Vec<u8>) {
        let start = out.len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        out.reserve(len + self.overhead());
        let Some(keyed) = &self.0 else {
            return parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        let number = keyed.sealed.fetch_add(1, Ordering::Relaxed);
        out.extend_from_slice(&keyed.salt);
        out.extend_from_slice(&number.to_le_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        let aad = Aad::from(place.bytes(keyed.shard));
        let inside = &mut out[start + FRONT_BYTES..];
        let tag = keyed
            .session
            .seal_in_place_separate_tag(nonce(number), aad, inside)
            .expect("invariant: pieces are far below the ciphers' limit of 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// What is in a piece of a file that says it is sealed with `cipher`, or not at all.
    pub(crate) fn open(&self, cipher: Option<Cipher>, place: Place, bytes: Bytes) -> Result<Bytes, Flaw> {
        match (cipher, &self.0) {
            (None, Some(keyed)) if keyed.is_whole => Err(Flaw::Unsealed { part: place.part }),
            (None, _) => Ok(bytes),
            (Some(_), None) => Err(Flaw::NoKey),
            (Some(cipher), Some(keyed)) => {
                keyed.open(cipher, place, &bytes).ok_or(Flaw::Seal { part: place.part })
            }
        }
    }
}

impl Keyed {
    fn open(&self, cipher: Cipher, place: Place, bytes: &[u8]) -> Option<Bytes> {
        let (front, sealed) = bytes.split_at_checked(FRONT_BYTES)?;
        let (inside, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_BYTES)?)?;
        let (salt, number) = front.split_at(SESSION_SALT_BYTES);
        let number = u64::from_le_bytes(number.try_into().ok()?);
        let key = self.session_key(cipher, salt.try_into().ok()?);
        let mut out = vec![0; inside.len()];
        let aad = Aad::from(place.bytes(self.shard));
        key.open_separate_gather(nonce(number), aad, inside, tag, &mut out).ok()?;
        Some(out.into())
    }
}

impl Keyed {
    fn session_key(&self, cipher: Cipher, salt: [u8; SESSION_SALT_BYTES]) -> Arc<LessSafeKey> {
        if salt == self.salt && cipher == self.cipher {
            return self.session.clone();
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = others.iter().find(|other| other.salt == salt && other.cipher == cipher) {
            return known.key.clone();
        }
        let key = Arc::new(self.key.session_key(cipher, self.shard, &salt));
        if others.len() == SESSIONS_KEPT {
            others.pop_front();
        }
        others.push_back(OtherSession { cipher, salt, key: key.clone() });
        key
    }
}

/// The session is in the key, so the number is enough.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

    pub(crate) fn vault(cipher: Cipher, salt: u8) -> Vault {
        Vault::new(StoreKey::new([5; KEY_BYTES]), ShardId(1), cipher, true, [salt; SESSION_SALT_BYTES])
    }

    fn sealed(vault: &Vault, place: Place, bytes: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        vault.seal(place, &[&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]], &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    #[test]
    fn pieces_open_in_any_session_and_only_as_they_were() {
        for cipher in [Cipher::Aes, Cipher::Chacha] {
            let writer = vault(cipher, 1);
            for text in [&b""[..], b"x", &[7; 5000]] {
                let piece = sealed(&writer, Place::block(ID, 32), text);
                assert_eq!(piece.len(), text.len() + SEAL_BYTES);
                assert!(text.len() < 9 || !piece.windows(8).any(|part| part == &text[..8]));
                let open = |vault: &Vault, place, piece: &[u8]| {
                    vault.open(Some(cipher), place, Bytes::copy_from_slice(piece))
                };
                for reader in [&writer, &vault(cipher, 2), &vault(Cipher::Aes, 3), &vault(Cipher::Chacha, 1)]
                {
                    assert_eq!(open(reader, Place::block(ID, 32), &piece).unwrap(), text);
                }
                for at in 0..piece.len().min(200) {
                    let mut other = piece.clone();
                    other[at] ^= 0x10;
                    assert_eq!(
                        open(&writer, Place::block(ID, 32), &other),
                        Err(Flaw::Seal { part: "block" }),
                        "byte {at}"
                    );
                    assert!(open(&writer, Place::block(ID, 32), &piece[..at.min(piece.len() - 1)]).is_err());
                }
            }
        }
    }

    #[test]
    fn many_sessions_are_told_apart() {
        let writers: Vec<Vault> = (0..40).map(|salt| vault(Cipher::Aes, salt)).collect();
        let pieces: Vec<Bytes> =
            writers.iter().map(|writer| sealed(writer, Place::index(ID, 0), b"one of many").into()).collect();
        let reader = vault(Cipher::Chacha, 1);
        for piece in pieces.iter().chain(pieces.iter().rev()).chain(&pieces[30..]) {
            let opened = reader.open(Some(Cipher::Aes), Place::index(ID, 0), piece.clone());
            assert_eq!(opened.unwrap()[..], *b"one of many");
            assert!(reader.open(Some(Cipher::Chacha), Place::index(ID, 0), piece.clone()).is_err());
        }
    }

    #[test]
    fn a_piece_belongs_to_its_place() {
        let vault = vault(Cipher::Aes, 1);
        let meta = FrameMeta {
            group: GroupId(7),
            term: 2,
            first: hw_kit::LogIndex(9),
            kind: crate::frame::FrameKind::Entries,
        };
        let mark = WindowMark { session: 3, number: 4 };
        let places = [
            Place::frame(mark, 0, meta, 1),
            Place::frame(mark, 0, meta, 2),
            Place::frame(mark, 1, meta, 1),
            Place::frame(WindowMark { number: 5, ..mark }, 0, meta, 1),
            Place::frame(WindowMark { session: 4, ..mark }, 0, meta, 1),
            Place::frame(mark, 0, FrameMeta { group: GroupId(8), ..meta }, 1),
            Place::frame(mark, 0, FrameMeta { term: 3, ..meta }, 1),
            Place::frame(mark, 0, FrameMeta { first: hw_kit::LogIndex(8), ..meta }, 1),
            Place::frame(mark, 0, FrameMeta { kind: crate::frame::FrameKind::Note, ..meta }, 1),
            Place::entry(1, GroupId(7), 1),
            Place::entry(2, GroupId(7), 1),
            Place::entry(1, GroupId(8), 1),
            Place::entry(1, GroupId(7), 2),
            Place::block(ID, 32),
            Place::block(ID, 33),
            Place::block(SegmentId { number: 4, ..ID }, 32),
            Place::block(SegmentId { group: GroupId(8), ..ID }, 32),
            Place::index(ID, 0),
            Place::index(SegmentId { number: 4, ..ID }, 0),
            Place::index(ID, 1),
        ];
        for (written, &place) in places.iter().enumerate() {
            let piece = Bytes::from(sealed(&vault, place, b"what is inside"));
            for (read, &place) in places.iter().enumerate() {
                let opened = vault.open(Some(Cipher::Aes), place, piece.clone());
                assert_eq!(opened.is_ok(), read == written, "{written} {read}");
            }
        }
        let piece = Bytes::from(sealed(&vault, Place::index(ID, 0), b"what is inside"));
        let key = StoreKey::new([5; KEY_BYTES]);
        let other = Vault::new(key, ShardId(2), Cipher::Aes, true, [1; SESSION_SALT_BYTES]);
        assert!(other.open(Some(Cipher::Aes), Place::index(ID, 0), piece.clone()).is_err());
        let key = StoreKey::new([6; KEY_BYTES]);
        let other = Vault::new(key, ShardId(1), Cipher::Aes, true, [1; SESSION_SALT_BYTES]);
        assert!(other.open(Some(Cipher::Aes), Place::index(ID, 0), piece.clone()).is_err());
        assert!(vault.open(Some(Cipher::Chacha), Place::index(ID, 0), piece).is_err());
    }

    #[test]
    fn nothing_is_sealed_twice_in_the_same_way() {
        let vault = vault(Cipher::Aes, 1);
        let clone = vault.clone();
        let pieces = [&vault, &clone, &vault].map(|vault| sealed(vault, Place::index(ID, 0), b"the same"));
        assert!(pieces[0] != pieces[1] && pieces[1] != pieces[2]);
        let numbers = pieces.map(|piece| piece[SESSION_SALT_BYTES..FRONT_BYTES].to_vec());
        assert_eq!(numbers, [0u64, 1, 2].map(|number| number.to_le_bytes().to_vec()));
    }

    #[test]
    fn what_is_not_sealed_passes_until_everything_is() {
        let text = Bytes::from_static(b"as it is");
        let plain = Vault::default();
        assert_eq!(sealed(&plain, Place::index(ID, 0), &text), text);
        assert_eq!(plain.open(None, Place::index(ID, 0), text.clone()), Ok(text.clone()));
        assert_eq!(plain.open(Some(Cipher::Aes), Place::index(ID, 0), text.clone()), Err(Flaw::NoKey));
        let whole = vault(Cipher::Aes, 1).open(None, Place::index(ID, 0), text.clone());
        assert_eq!(whole, Err(Flaw::Unsealed { part: "index" }));
        let (key, salt) = (StoreKey::new([5; KEY_BYTES]), [1; SESSION_SALT_BYTES]);
        let changing = Vault::new(key, ShardId(1), Cipher::Aes, false, salt);
        assert_eq!(changing.open(None, Place::index(ID, 0), text.clone()), Ok(text));
        assert!(changing.is_changing() && !plain.is_changing());
    }

    #[test]
    fn numbers_on_disk_stay() {
        assert_eq!((Cipher::Aes as u8, Cipher::Chacha as u8, SEAL_BYTES), (1, 2, 40));
        assert_eq!(Form::new(2, Some(Cipher::Chacha)).to_bytes(), [2, 2]);
        assert_eq!(Form::new(1, None).to_bytes(), [1, 0]);
        assert_eq!(Form::from_bytes([2, 1], 2), Ok(Form::new(2, Some(Cipher::Aes))));
        assert_eq!(Form::from_bytes([3, 0], 2), Err(3));
        assert_eq!(Form::from_bytes([1, 3], 2), Err(0x301));
        let piece = sealed(&vault(Cipher::Chacha, 9), Place::entry(1, GroupId(2), 3), b"state");
        let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "090909090909090909090909090909090000000000000000af7336eae4622799208ba2c234a065d4639b6c4549"
        );
    }
}
