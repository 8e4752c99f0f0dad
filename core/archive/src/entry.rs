//! Entries: five numbers of variable length, the name, the content.

use bytes::Bytes;
use hw_kit::{Seq, Time};

use crate::s2::Packer;
use crate::{ArchiveError, Item, Message};

/// What an archive begins with, inside the S2 stream.
pub(crate) const MAGIC: &[u8] = b"NATSARC1";
/// The name of the first entry.
pub(crate) const STATE: &[u8] = b"state.json";
/// What names of consumers' entries begin with.
pub(crate) const CONSUMER: &[u8] = b"consumers/";

/// No subject is longer.
const NAME_MAX: u64 = u16::MAX as u64;
/// No message is longer than 64 MiB; a consumer with half a million messages unacknowledged comes near.
const CONTENT_MAX: u64 = 80 << 20;
/// Seven bits a byte.
const NUMBER_MAX: usize = 10;
/// Where the type of a tar file's first block lies, and what stands there.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Writes one entry.
pub(crate) fn write(out: &mut Packer, (name, ts, seq): (&[u8], Time, Seq), header: &[u8], payload: &[u8]) {
    let zigzag = (ts.0 << 1) ^ (ts.0 >> 63);
    let numbers = [name.len() as u64, zigzag as u64, seq.0, header.len() as u64, payload.len() as u64];
    let mut head = Vec::with_capacity(numbers.len() * NUMBER_MAX);
    numbers.iter().for_each(|number| put(&mut head, *number));
    for part in [&head, name, header, payload] {
        out.write(part);
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Collects bytes until an entry is whole.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    input: Vec<u8>,
    at: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Magic,
    State,
    Rest,
    Ended,
}

impl Entries {
    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Whether the end entry was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The next entry; None until more bytes come.
    pub(crate) fn next_item(&mut self) -> Result<Option<Item>, ArchiveError> {
        let input = &self.input[self.at..];
        match self.stage {
            Stage::Magic if input.len() < MAGIC.len() => return Ok(None),
            Stage::Magic if input.starts_with(MAGIC) => {
                self.at += MAGIC.len();
                self.stage = Stage::State;
            }
            // The old archives say what they are in their first 512 bytes; every file of theirs is longer.
            Stage::Magic if input.len() < TAR.0 + TAR.1.len() => return Err(ArchiveError::Invalid),
            Stage::Magic if input[TAR.0..].starts_with(TAR.1) => return Err(ArchiveError::Tar),
            Stage::Magic => return Err(ArchiveError::Invalid),
            Stage::Ended if input.is_empty() => return Ok(None),
            Stage::Ended => return Err(ArchiveError::Invalid),
            Stage::State | Stage::Rest => {}
        }
        let Some(entry) = Entry::read(&self.input[self.at..])? else { return Ok(None) };
        self.at += entry.used;
        let item = entry.item(self.stage)?;
        self.stage = if item == Item::End { Stage::Ended } else { Stage::Rest };
        Ok(Some(item))
    }
}

/// An entry where it lies.
struct Entry<'a> {
    ts: Time,
    seq: Seq,
    name_len: usize,
    header_len: usize,
    /// Name and content.
    joined: &'a [u8],
    used: usize,
}

impl<'a> Entry<'a> {
    fn read(input: &'a [u8]) -> Result<Option<Entry<'a>>, ArchiveError> {
        let (mut numbers, mut at) = ([0; 5], 0);
        for number in &mut numbers {
            let Some((value, used)) = get(&input[at..])? else { return Ok(None) };
            *number = value;
            at += used;
        }
        let [name, ts, seq, header, payload] = numbers;
        if name > NAME_MAX || header > CONTENT_MAX || payload > CONTENT_MAX || header + payload > CONTENT_MAX
        {
            return Err(ArchiveError::TooLarge);
        }
        let length = (name + header + payload) as usize;
        let Some(joined) = input.get(at..at + length) else { return Ok(None) };
        Ok(Some(Entry {
            ts: Time((ts >> 1) as i64 ^ -((ts & 1) as i64)),
            seq: Seq(seq),
            name_len: name as usize,
            header_len: header as usize,
            joined,
            used: at + length,
        }))
    }

    fn item(&self, stage: Stage) -> Result<Item, ArchiveError> {
        let (name, content) = self.joined.split_at(self.name_len);
        let copy = Bytes::copy_from_slice;
        match (stage, self.seq, name.strip_prefix(CONSUMER)) {
            (Stage::State, Seq(0), _) if name == STATE => Ok(Item::State(copy(content))),
            (Stage::State, ..) => Err(ArchiveError::Invalid),
            (_, Seq(0), Some(consumer)) => Ok(Item::Consumer(copy(consumer), copy(content))),
            (_, Seq(0), None) if self.joined.is_empty() && self.ts == Time(0) => Ok(Item::End),
            (_, Seq(0), None) => Err(ArchiveError::Invalid),
            (_, seq, _) => Ok(Item::Message(Message {
                seq,
                ts: self.ts,
                joined: copy(self.joined),
                subject_len: self.name_len,
                header_len: self.header_len,
            })),
        }
    }
}

/// A number and how many bytes it takes; None when it is not whole.
fn get(input: &[u8]) -> Result<Option<(u64, usize)>, ArchiveError> {
    let mut number = 0_u64;
    for (place, byte) in input.iter().take(NUMBER_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if place == NUMBER_MAX - 1 && bits > 1 {
            return Err(ArchiveError::Invalid);
        }
        number |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((number, place + 1)));
        }
    }
    if input.len() >= NUMBER_MAX { Err(ArchiveError::Invalid) } else { Ok(None) }
}
