//! The index of a segment: which messages it holds, when they were stored, what they count, and which have which subject.
//!
//! It is written once, with its segment, and read on demand in pages of 4 KiB, each with its checksum, through a cache
//! with a budget: memory depends neither on the messages nor on their subjects. docs/format.md, "Segments".

mod bloom;
mod directory;
mod group;
mod names;
mod pages;
mod postings;
mod view;
mod writer;

use directory::Directory;
pub(crate) use directory::Held;
pub(crate) use pages::Preloaded;
use pages::{PAGE_BYTES, PAGE_DATA_BYTES};
pub use pages::{Pages, ReadSegment};
pub(crate) use postings::Postings;
pub(crate) use view::{IsWanted, OnSubject, Slot, View, literal_prefix};
pub(crate) use writer::IndexWriter;

use hw_kit::Seq;

use crate::vault::Cipher;

/// Records of a group: one group is decoded at a time.
const GROUP: usize = 64;
/// A block of the dictionary is closed when it has so many bytes.
const DICTIONARY_BLOCK: usize = 512;
/// Up to so many sequences are listed in the dictionary itself.
const INLINE: usize = 8;
/// Sequences of a chunk of a longer list.
const CHUNK: usize = 128;
/// Bytes in the table of chunks: first sequence (from the segment's first) and where the chunk begins.
const CHUNK_ROW: usize = 12;

/// What is kept in memory of a segment that is on disk: how much it holds, and where the parts of its index are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Where the index begins in the file; it consists of whole pages.
    pub offset: u64,
    /// How many messages it holds.
    pub records: u64,
    /// How many subjects they have.
    pub subjects: u32,
    /// The first message's sequence.
    pub first: Seq,
    /// The last message's sequence.
    pub last: Seq,
    /// What the messages count in `bytes`.
    pub bytes: u64,
    /// Where the dictionary begins, counted in the pages' content: before it are the groups of records.
    pub dictionary: u32,
    /// Where the lists of sequences begin.
    pub postings: u32,
    /// Where the directory begins.
    pub directory: u32,
    /// Where it ends.
    pub end: u32,
    /// How groups of records and blocks of the dictionary are laid out.
    pub layout: Layout,
    /// What its pages are sealed with.
    pub cipher: Option<Cipher>,
}

/// How groups of records and blocks of the dictionary are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// One after the other, to be read from the start: segments before version 5.
    Rows,
    /// Records in columns, subjects in runs.
    Columns,
}

impl Place {
    /// How long the index is in the file.
    pub fn file_bytes(&self) -> u64 {
        (u64::from(self.end)).div_ceil(PAGE_DATA_BYTES as u64) * PAGE_BYTES as u64
    }

    /// Whether the parts follow each other.
    pub(crate) fn is_sound(&self) -> bool {
        self.dictionary <= self.postings
            && self.postings <= self.directory
            && self.directory <= self.end
            && (self.records == 0 || self.first <= self.last)
    }
}
