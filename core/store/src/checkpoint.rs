//! Checkpoint files: where reading the log starts, and each group's state. docs/format.md, "Checkpoints".
//!
//! A partial checkpoint holds the groups that changed and builds on the one before it; a full one stands alone. The
//! directory at the front names every group, so that a damaged entry costs one group and not the shard.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, ShardId};

use crate::bytes_io::{Reader, u32_at, u64_at};
use crate::damage::{Damage, Flaw};
use crate::layout::FileId;
use crate::limits::GATHER_BYTES;
use crate::vault::{Cipher, Form, Place, Vault};
use crate::wal::{WalStart, WindowMark};
use crate::wal_window::WalPosition;

pub(crate) const CHECKPOINT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"HWCKP\r\n\x1a";
const HEADER_BYTES: usize = 112;
const ROW_BYTES: usize = 32;
const ENTRY_HEAD_BYTES: usize = 48;
const FLAG_ERASES: u64 = 1;

/// What a checkpoint says of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum EntryKind {
    /// Its state.
    Live = 1,
    /// It was dropped: what is found of it is to be removed.
    Dropped = 2,
    /// It was damaged: its state, if any, is kept but not used.
    Quarantined = 3,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub group: GroupId,
    pub kind: EntryKind,
    pub applied: LogIndex,
    /// The term of the entry at `applied`.
    pub term: u64,
    /// The first window that was written after the state was taken.
    pub captured: WindowMark,
    /// The highest segment number that was ever used.
    pub last_segment: u64,
    pub live: Vec<u64>,
    /// Why the group is in quarantine.
    pub reason: String,
    pub state: Bytes,
}

/// The fixed part.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct CheckpointHead {
    pub shard: ShardId,
    pub number: u64,
    /// The checkpoint that this one builds on; 0 for a full one.
    pub previous: u64,
    pub start: WalStart,
    /// The first window that was written after the checkpoint was begun.
    pub captured: WindowMark,
    /// All before this was durable when the checkpoint was begun.
    pub durable: WalPosition,
    /// What this checkpoint supersedes is overwritten before it is removed: until a later one, it may not have been.
    pub erases: bool,
}

/// A checkpoint file. Groups are listed even where their entry is damaged.
#[derive(Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub head: CheckpointHead,
    /// What its entries are sealed with.
    pub cipher: Option<Cipher>,
    pub entries: Vec<(GroupId, Result<Entry, Damage>)>,
}

/// The file as pieces that follow each other.
pub(crate) fn encode(head: &CheckpointHead, entries: &[Entry], vault: &Vault) -> Vec<Bytes> {
    let mut bodies: Vec<Bytes> = Vec::with_capacity(entries.len());
    let mut directory = Vec::with_capacity(entries.len() * ROW_BYTES);
    let mut offset = (HEADER_BYTES + entries.len() * ROW_BYTES) as u64;
    for entry in entries {
        let parts = sealed(head.number, entry, vault);
        let crc = entry_crc(head.number, entry.group, &parts.each_ref().map(|part| &part[..]));
        let len = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        directory.extend_from_slice(&entry.group.0.to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&len.to_le_bytes());
        directory.extend_from_slice(&crc.to_le_bytes());
        directory.extend_from_slice(&(entry.kind as u32).to_le_bytes());
        offset += len;
        bodies.extend(parts);
    }
    let mut front =
        encode_head(head, vault.cipher(), [entries.len() as u64, offset], crc32fast::hash(&directory));
    front.extend_from_slice(&directory);
    let mut pieces = Vec::new();
    for body in bodies {
        if body.len() < GATHER_BYTES {
            front.extend_from_slice(&body);
            continue;
        }
        pieces.push(Bytes::from(std::mem::take(&mut front)));
        pieces.push(body);
    }
    pieces.push(front.into());
    pieces.retain(|piece| !piece.is_empty());
    assert_eq!(
        pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(),
        offset,
        "the head knows the length"
    );
    pieces
}

/// An entry in parts that follow each other: sealed it is one, and a state that is not is not copied.
fn sealed(checkpoint: u64, entry: &Entry, vault: &Vault) -> [Bytes; 2] {
    let front = encode_entry(entry);
    if vault.cipher().is_none() {
        return [front.into(), entry.state.clone()];
    }
    let mut body = Vec::new();
    let place = Place::entry(checkpoint, entry.group, entry.kind as u32);
    vault.seal(place, &[&front, &entry.state], &mut body);
    [body.into(), Bytes::new()]
}

fn encode_head(
    head: &CheckpointHead,
    cipher: Option<Cipher>,
    [entries, file_len]: [u64; 2],
    directory_crc: u32,
) -> Vec<u8> {
    let count = u32::try_from(entries).expect("invariant: a shard has fewer than 2^32 groups");
    let mut out = Vec::with_capacity(HEADER_BYTES + count as usize * ROW_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&Form::new(CHECKPOINT_VERSION, cipher).to_bytes());
    out.extend_from_slice(&head.shard.0.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    let WalStart { position, window, session } = head.start;
    let numbers = [
        head.number,
        head.previous,
        position.file,
        position.offset,
        window,
        head.captured.number,
        head.durable.file,
        head.durable.offset,
        file_len,
    ];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&head.captured.session.to_le_bytes());
    out.extend_from_slice(&(if head.erases { FLAG_ERASES } else { 0 }).to_le_bytes());
    out.extend_from_slice(&directory_crc.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(out.len(), HEADER_BYTES, "the header is as long as the format says");
    out
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let live = u32::try_from(entry.live.len()).expect("invariant: a group has fewer than 2^32 segments");
    let reason = u32::try_from(entry.reason.len()).expect("invariant: a reason is one sentence");
    let mut out = Vec::with_capacity(ENTRY_HEAD_BYTES + entry.live.len() * 8 + entry.reason.len());
    out.extend_from_slice(&entry.applied.0.to_le_bytes());
    out.extend_from_slice(&entry.term.to_le_bytes());
    out.extend_from_slice(&entry.captured.number.to_le_bytes());
    out.extend_from_slice(&entry.captured.session.to_le_bytes());
    out.extend_from_slice(&live.to_le_bytes());
    out.extend_from_slice(&entry.last_segment.to_le_bytes());
    out.extend_from_slice(&reason.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    assert_eq!(out.len(), ENTRY_HEAD_BYTES, "an entry's fixed part is as long as the format says");
    entry.live.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(entry.reason.as_bytes());
    out
}

/// Reads a whole file. Without a key, the entries of one that is sealed are checked and not opened.
pub(crate) fn decode(number: u64, bytes: &Bytes, vault: &Vault) -> Result<Checkpoint, Damage> {
    let file = FileId::Checkpoint(number);
    let (head, cipher, count, directory_crc) = decode_head(number, bytes)?;
    let rows_end = HEADER_BYTES + count * ROW_BYTES;
    let Some(directory) = bytes.get(HEADER_BYTES..rows_end) else {
        return Err(Damage::new(file, HEADER_BYTES as u64, Flaw::Truncated { len: bytes.len() as u64 }));
    };
    if crc32fast::hash(directory) != directory_crc {
        return Err(Damage::checksum(file, HEADER_BYTES as u64, "directory"));
    }
    let mut entries = Vec::with_capacity(count);
    for row in directory.chunks_exact(ROW_BYTES) {
        let (group, offset, len) = (GroupId(u64_at(row, 0)), u64_at(row, 8), u64_at(row, 16));
        let (crc, kind) = (u32_at(row, 24), u32_at(row, 28));
        let kind = match kind {
            1 => EntryKind::Live,
            2 => EntryKind::Dropped,
            3 => EntryKind::Quarantined,
            _ => return Err(Damage::malformed(file, HEADER_BYTES as u64, "directory")),
        };
        let end = offset.checked_add(len).filter(|&end| end <= bytes.len() as u64);
        let entry = match end {
            None => Err(Damage::new(file, offset, Flaw::Truncated { len: bytes.len() as u64 })),
            Some(end) => {
                let body = bytes.slice(offset as usize..end as usize);
                if entry_crc(number, group, &[&body]) == crc {
                    vault
                        .open(cipher, Place::entry(number, group, kind as u32), body)
                        .map_err(|flaw| Damage::new(file, offset, flaw))
                        .and_then(|body| {
                            let entry = decode_entry(group, kind, &body);
                            entry.ok_or_else(|| Damage::malformed(file, offset, "entry"))
                        })
                } else {
                    Err(Damage::checksum(file, offset, "entry"))
                }
            }
        };
        entries.push((group, entry));
    }
    Ok(Checkpoint { head, cipher, entries })
}

type Head = (CheckpointHead, Option<Cipher>, usize, u32);

fn decode_head(number: u64, bytes: &[u8]) -> Result<Head, Damage> {
    let file = FileId::Checkpoint(number);
    let Some(head) = bytes.get(..HEADER_BYTES) else {
        return Err(Damage::new(file, 0, Flaw::Truncated { len: bytes.len() as u64 }));
    };
    if head[..8] != MAGIC || crc32fast::hash(&head[..HEADER_BYTES - 4]) != u32_at(head, HEADER_BYTES - 4) {
        return Err(Damage::checksum(file, 0, "header"));
    }
    let form = Form::from_bytes([head[8], head[9]], CHECKPOINT_VERSION)
        .map_err(|version| Damage::new(file, 0, Flaw::Version { version }))?;
    if u64_at(head, 16) != number {
        return Err(Damage::new(
            file,
            0,
            Flaw::Misplaced { found: FileId::Checkpoint(u64_at(head, 16)).path() },
        ));
    }
    if u64_at(head, 80) != bytes.len() as u64 {
        return Err(Damage::new(file, 0, Flaw::Truncated { len: bytes.len() as u64 }));
    }
    let decoded = CheckpointHead {
        shard: ShardId(u16::from_le_bytes([head[10], head[11]])),
        number,
        previous: u64_at(head, 24),
        start: WalStart {
            position: WalPosition { file: u64_at(head, 32), offset: u64_at(head, 40) },
            window: u64_at(head, 48),
            session: u32_at(head, 88),
        },
        captured: WindowMark { session: u32_at(head, 92), number: u64_at(head, 56) },
        durable: WalPosition { file: u64_at(head, 64), offset: u64_at(head, 72) },
        erases: u64_at(head, 96) & FLAG_ERASES != 0,
    };
    if decoded.previous >= number {
        return Err(Damage::malformed(file, 0, "header"));
    }
    Ok((decoded, form.cipher, u32_at(head, 12) as usize, u32_at(head, 104)))
}

fn decode_entry(group: GroupId, kind: EntryKind, body: &Bytes) -> Option<Entry> {
    let mut reader = Reader::new(body);
    let (applied, term) = (LogIndex(reader.u64()?), reader.u64()?);
    let captured_number = reader.u64()?;
    let captured = WindowMark { session: reader.u32()?, number: captured_number };
    let live_count = reader.u32()?;
    let last_segment = reader.u64()?;
    let reason_len = reader.u32()? as usize;
    reader.u32()?;
    let live = (0..live_count).map(|_| reader.u64()).collect::<Option<Vec<u64>>>()?;
    let reason = String::from_utf8(reader.slice(reason_len)?.to_vec()).ok()?;
    let state = body.slice(reader.at()..);
    let sound = live.iter().all(|&number| number <= last_segment);
    sound.then_some(Entry { group, kind, applied, term, captured, last_segment, live, reason, state })
}

/// The checksum of an entry, bound to its file and group.
fn entry_crc(number: u64, group: GroupId, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&group.0.to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: u64, kind: EntryKind, state: &[u8]) -> Entry {
        Entry {
            group: GroupId(group),
            kind,
            applied: LogIndex(10 * group),
            term: 3,
            captured: WindowMark { session: 2, number: 30 + group },
            last_segment: 9,
            live: vec![4, 9],
            reason: if kind == EntryKind::Quarantined {
                "its log is damaged".to_owned()
            } else {
                String::new()
            },
            state: Bytes::copy_from_slice(state),
        }
    }

    fn sample() -> (CheckpointHead, Vec<Entry>) {
        let head = CheckpointHead {
            shard: ShardId(1),
            number: 12,
            previous: 11,
            start: WalStart { position: WalPosition { file: 5, offset: 8192 }, window: 700, session: 2 },
            captured: WindowMark { session: 2, number: 710 },
            durable: WalPosition { file: 6, offset: 4096 },
            erases: true,
        };
        let entries = vec![
            entry(1, EntryKind::Live, b"state of one"),
            entry(2, EntryKind::Live, &vec![7; GATHER_BYTES + 5]),
            entry(3, EntryKind::Dropped, b""),
            entry(4, EntryKind::Quarantined, b"old state"),
        ];
        (head, entries)
    }

    fn bytes_of(head: &CheckpointHead, entries: &[Entry]) -> Bytes {
        sealed_by(&Vault::default(), head, entries)
    }

    fn sealed_by(vault: &Vault, head: &CheckpointHead, entries: &[Entry]) -> Bytes {
        encode(head, entries, vault).concat().into()
    }

    fn decode(number: u64, bytes: &Bytes) -> Result<Checkpoint, Damage> {
        super::decode(number, bytes, &Vault::default())
    }

    #[test]
    fn what_is_written_comes_back() {
        let (head, entries) = sample();
        let found = decode(12, &bytes_of(&head, &entries)).unwrap();
        assert_eq!(found.head, head);
        let all: Vec<Entry> = found.entries.into_iter().map(|(_, entry)| entry.unwrap()).collect();
        assert_eq!(all, entries);
        assert_eq!(decode(12, &bytes_of(&head, &[])).unwrap().entries, vec![]);
        let misplaced = decode(13, &bytes_of(&head, &entries)).unwrap_err();
        assert!(matches!(misplaced.flaw, Flaw::Misplaced { .. }), "{misplaced}");
    }

    #[test]
    fn sealed_entries_come_back_to_whoever_has_the_key() {
        let (head, entries) = sample();
        let vault = crate::vault::tests::vault(Cipher::Aes, 1);
        let bytes = sealed_by(&vault, &head, &entries);
        assert!(!bytes.windows(8).any(|part| part == b"state of" || part == b"its log "));
        let found = super::decode(12, &bytes, &vault).unwrap();
        assert_eq!((found.head, found.cipher), (head, Some(Cipher::Aes)));
        let all: Vec<Entry> = found.entries.into_iter().map(|(_, entry)| entry.unwrap()).collect();
        assert_eq!(all, entries);
        let blind = decode(12, &bytes).unwrap();
        let flaws: Vec<Flaw> = blind.entries.into_iter().map(|(_, entry)| entry.unwrap_err().flaw).collect();
        assert_eq!(flaws, vec![Flaw::NoKey; entries.len()]);
        // Whole is whole: an entry that is not sealed was not written by the store.
        let plain = super::decode(12, &bytes_of(&head, &entries), &vault).unwrap();
        assert!(plain.entries.iter().all(|(_, entry)| entry.is_err()));
        assert_eq!(bytes[..20], *b"HWCKP\r\n\x1a\x01\x01\x01\0\x04\0\0\0\x0c\0\0\0");
    }

    #[test]
    fn a_flip_costs_the_file_or_one_group() {
        let (head, entries) = sample();
        for vault in [Vault::default(), crate::vault::tests::vault(Cipher::Chacha, 1)] {
            let bytes = sealed_by(&vault, &head, &entries);
            flip_all(&bytes, &vault, entries.len());
        }
    }

    fn flip_all(bytes: &Bytes, vault: &Vault, entries: usize) {
        let decode = |number, bytes: &Bytes| super::decode(number, bytes, vault);
        let rows_end = HEADER_BYTES + entries * ROW_BYTES;
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x40;
            match decode(12, &Bytes::from(flipped)) {
                Err(_) => assert!(at < rows_end, "byte {at}"),
                Ok(found) => {
                    let damaged = found.entries.iter().filter(|(_, entry)| entry.is_err()).count();
                    assert!(at >= rows_end && damaged == 1, "byte {at}: {damaged}");
                }
            }
        }
        for len in 0..bytes.len() {
            assert!(decode(12, &bytes.slice(..len)).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn numbers_on_disk_stay() {
        let kinds = [EntryKind::Live, EntryKind::Dropped, EntryKind::Quarantined];
        assert_eq!(kinds.map(|kind| kind as u32), [1, 2, 3]);
        let (head, entries) = sample();
        assert_eq!(bytes_of(&head, &entries)[..20], *b"HWCKP\r\n\x1a\x01\0\x01\0\x04\0\0\0\x0c\0\0\0");
    }
}
