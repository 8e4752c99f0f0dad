//! Stream backups as bytes: the archive that `nats-server` 2.15 writes and reads, in both directions and piece by piece.
//!
//! An archive is a row of entries inside one S2 stream: the stream's numbers, its consumers, its messages in order, and an
//! end without which nothing counts. Every block of the S2 stream carries its checksum. docs/format.md, "Backups".

mod entry;
mod s2;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use hw_kit::{Seq, Time};

use entry::Entries;
use s2::{Packer, Unpacker};

/// Why bytes are not an archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ArchiveError {
    /// The S2 stream does not begin as one, or a piece of it cannot be what it says.
    #[error("s2: corrupt input")]
    Corrupt,
    /// A block's bytes are not those that were written.
    #[error("s2: corrupt input, crc mismatch")]
    Checksum,
    /// It is compressed soundly, but what is inside is not such an archive.
    #[error("archive: invalid archive stream")]
    Invalid,
    /// The archive of a server before 2.15: a tar file.
    #[error("archives of nats-server before 2.15 are not supported")]
    Tar,
    /// It ends before its end entry.
    #[error("unexpected EOF")]
    Truncated,
    /// An entry that no server writes, by its size.
    #[error("archive: an entry is too large")]
    TooLarge,
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The stream's numbers as JSON. Comes first.
    State(Bytes),
    /// A consumer's name, and its configuration and state as JSON.
    Consumer(Bytes, Bytes),
    /// A message.
    Message(Message),
    /// Everything was there.
    End,
}

/// A message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its sequence; never 0.
    pub seq: Seq,
    /// When it was stored.
    pub ts: Time,
    /// Subject, header block and payload in a row.
    pub joined: Bytes,
    /// The subject's length.
    pub subject_len: usize,
    /// The header block's length.
    pub header_len: usize,
}

/// Writes an archive: entries in, bytes out as blocks fill.
#[derive(Debug, Default)]
pub struct Writer {
    packer: Packer,
}

impl Writer {
    /// Adds the stream's numbers; they come first, taken at `ts`.
    pub fn state(&mut self, ts: Time, json: &[u8]) {
        self.packer.write(entry::MAGIC);
        entry::write(&mut self.packer, (entry::STATE, ts, Seq(0)), b"", json);
    }

    /// Adds a consumer.
    pub fn consumer(&mut self, ts: Time, name: &[u8], json: &[u8]) {
        let name = [entry::CONSUMER, name].concat();
        entry::write(&mut self.packer, (&name, ts, Seq(0)), b"", json);
    }

    /// Adds a message: its place, subject, header block and payload. Sequences ascend.
    pub fn message(&mut self, (seq, ts): (Seq, Time), subject: &[u8], header: &[u8], payload: &[u8]) {
        entry::write(&mut self.packer, (subject, ts, seq), header, payload);
    }

    /// Says that everything is there.
    pub fn end(&mut self) {
        entry::write(&mut self.packer, (b"", Time(0), Seq(0)), b"", b"");
        self.packer.flush();
    }

    /// How many bytes wait to be taken.
    pub fn ready(&self) -> usize {
        self.packer.out.len()
    }

    /// Takes up to `most` bytes.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let most = most.min(self.packer.out.len());
        self.packer.out.drain(..most).collect()
    }
}

/// Reads an archive: bytes in as they come, entries out.
#[derive(Debug, Default)]
pub struct Reader {
    unpacker: Unpacker,
    entries: Entries,
}

impl Reader {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unpacker.push(bytes);
    }

    /// How many bytes were taken and not read yet: a piece that is not whole, or what [`Reader::next_item`] has not come to.
    pub fn waiting(&self) -> usize {
        self.unpacker.waiting()
    }

    /// The next entry; None until more bytes come.
    pub fn next_item(&mut self) -> Result<Option<Item>, ArchiveError> {
        loop {
            if let Some(item) = self.entries.next_item()? {
                return Ok(Some(item));
            }
            match self.unpacker.next_block()? {
                Some(block) => self.entries.push(&block),
                None => return Ok(None),
            }
        }
    }

    /// Whether it may end here: after its end entry, and in no piece's middle.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        if self.unpacker.waiting() > 0 {
            return Err(ArchiveError::Corrupt);
        }
        if self.entries.has_ended() { Ok(()) } else { Err(ArchiveError::Truncated) }
    }
}
