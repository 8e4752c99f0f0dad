//! Writing an index: records come in order, everything is sorted and laid out at the end.

use bytes::Bytes;
use hw_kit::{Map, Seq, Time};

use super::directory::DirectoryWriter;
use super::pages::put_pages;
use super::{CHUNK, CHUNK_ROW, DICTIONARY_BLOCK, GROUP, INLINE, Place, bloom};
use crate::bytes_io::{Varints, put_signed_varint, put_varint};
use crate::messages::Keep;
use crate::record::Record;
use crate::segment::SegmentId;
use crate::vault::Vault;

/// The index of a segment that is being written.
#[derive(Debug, Default)]
pub(crate) struct IndexWriter {
    /// Per record as it came: sequence and time after the one before, number of the subject by first appearance, size
    /// and whether it begins a block.
    entries: Vec<u8>,
    subjects: Map<Bytes, u32>,
    records: u64,
    first: Seq,
    last: (Seq, Time),
    bytes: u64,
}

/// A record whose subject has its final number.
struct Entry {
    seq: u64,
    ts: i64,
    rank: u32,
    size_and_start: u64,
}

impl IndexWriter {
    /// Adds a record; `begins`: it is the first of a block.
    pub fn push(&mut self, (seq, ts): (Seq, Time), record: &Record, begins: bool) {
        if self.records == 0 {
            self.first = seq;
        }
        let subject = match self.subjects.get(record.subject()) {
            Some(&known) => known,
            None => self.add_subject(record.subject()),
        };
        let size = Keep::File.size_of(record).min(u64::from(u32::MAX));
        put_varint(&mut self.entries, seq.0 - self.last.0.0);
        put_signed_varint(&mut self.entries, ts.0.wrapping_sub(self.last.1.0));
        put_varint(&mut self.entries, u64::from(subject));
        put_varint(&mut self.entries, size << 1 | u64::from(begins));
        self.last = (seq, ts);
        self.records += 1;
        self.bytes += size;
    }

    fn add_subject(&mut self, name: &[u8]) -> u32 {
        let number = u32::try_from(self.subjects.len()).expect("invariant: far below 2^32 subjects");
        self.subjects.insert(Bytes::copy_from_slice(name), number);
        number
    }

    /// Appends the index as pages; it begins at this place of the file.
    pub fn finish(self, (id, vault): (SegmentId, &Vault), offset: u64, out: &mut Vec<u8>) -> Place {
        let mut names: Vec<(&Bytes, u32)> =
            self.subjects.iter().map(|(name, &number)| (name, number)).collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        for (rank, (_, number)) in names.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        let (mut content, mut directory) = (Vec::new(), DirectoryWriter::default());
        let mut counts = vec![0u32; names.len()];
        self.put_groups(&ranks, &mut counts, &mut content, &mut directory);
        let dictionary = position(&content);
        let lists = self.lists(&ranks, &counts);
        let names = names.into_iter().map(|(name, _)| name);
        let mut postings = Vec::new();
        let mut at = 0;
        let mut block_start = usize::MAX;
        let mut before: &[u8] = &[];
        for (rank, name) in names.enumerate() {
            directory.hashes.push(bloom::hash(name));
            if block_start == usize::MAX || content.len() - block_start >= DICTIONARY_BLOCK {
                directory.blocks.push((rank as u32, position(&content), name.clone()));
                (block_start, before) = (content.len(), &[]);
            }
            let shared = name.iter().zip(before).take_while(|(one, other)| one == other).count();
            put_varint(&mut content, shared as u64);
            put_varint(&mut content, (name.len() - shared) as u64);
            content.extend_from_slice(&name[shared..]);
            before = name;
            let count = counts[rank] as usize;
            put_list(&lists[at..at + count], self.first.0, &mut content, &mut postings);
            at += count;
        }
        let postings_at = position(&content);
        content.extend_from_slice(&postings);
        let directory_at = position(&content);
        directory.encode(&mut content);
        put_pages(out, (id, vault), &content);
        Place {
            offset,
            records: self.records,
            subjects: ranks.len() as u32,
            first: self.first,
            last: self.last.0,
            bytes: self.bytes,
            dictionary,
            postings: postings_at,
            directory: directory_at,
            end: position(&content),
            cipher: vault.cipher(),
        }
    }

    fn entries<'a>(&'a self, ranks: &'a [u32]) -> impl Iterator<Item = Entry> + 'a {
        let mut reader = Varints::new(&self.entries);
        let (mut seq, mut ts) = (0, 0i64);
        std::iter::from_fn(move || {
            seq += reader.next()?;
            ts = ts.wrapping_add(reader.signed()?);
            let rank = ranks[reader.next()? as usize];
            Some(Entry { seq, ts, rank, size_and_start: reader.next()? })
        })
    }

    fn put_groups(
        &self,
        ranks: &[u32],
        counts: &mut [u32],
        content: &mut Vec<u8>,
        directory: &mut DirectoryWriter,
    ) {
        let (mut blocks, mut last) = (0u64, (0u64, 0i64));
        for (number, entry) in self.entries(ranks).enumerate() {
            blocks += entry.size_and_start & 1;
            if number.is_multiple_of(GROUP) {
                // A group stands alone: its time is absolute, its sequence is in the directory.
                directory.groups.push((entry.seq, position(content)));
                put_signed_varint(content, entry.ts);
                put_varint(content, blocks - 1);
                last = (entry.seq, entry.ts);
            }
            put_varint(content, entry.seq - last.0);
            put_signed_varint(content, entry.ts.wrapping_sub(last.1));
            put_varint(content, u64::from(entry.rank));
            // The group's head counts the block that its first record begins.
            let starts = if number.is_multiple_of(GROUP) { 0 } else { entry.size_and_start & 1 };
            put_varint(content, entry.size_and_start & !1 | starts);
            last = (entry.seq, entry.ts);
            counts[entry.rank as usize] += 1;
        }
    }

    /// The sequences of all subjects, subject after subject.
    fn lists(&self, ranks: &[u32], counts: &[u32]) -> Vec<u64> {
        let mut ends = Vec::with_capacity(counts.len());
        let mut sum = 0usize;
        for &count in counts {
            ends.push(sum);
            sum += count as usize;
        }
        let mut lists = vec![0; sum];
        for entry in self.entries(ranks) {
            let end = &mut ends[entry.rank as usize];
            lists[*end] = entry.seq;
            *end += 1;
        }
        lists
    }
}

/// How many sequences, and they themselves if they are few; otherwise where their chunks are.
fn put_list(seqs: &[u64], first: u64, out: &mut Vec<u8>, postings: &mut Vec<u8>) {
    put_varint(out, seqs.len() as u64);
    if seqs.len() <= INLINE {
        let mut before = first;
        for &seq in seqs {
            put_varint(out, seq - before);
            before = seq;
        }
        return;
    }
    put_varint(out, postings.len() as u64);
    let chunks = seqs.chunks(CHUNK);
    let mut table = Vec::with_capacity(chunks.len() * CHUNK_ROW);
    let mut body = Vec::with_capacity(seqs.len() * 2);
    for chunk in chunks {
        table.extend_from_slice(&(chunk[0] - first).to_le_bytes());
        table.extend_from_slice(&(body.len() as u32).to_le_bytes());
        chunk.windows(2).for_each(|pair| put_varint(&mut body, pair[1] - pair[0]));
    }
    // So that the last chunk ends somewhere.
    postings.extend_from_slice(&(body.len() as u32).to_le_bytes());
    postings.extend_from_slice(&table);
    postings.extend_from_slice(&body);
}

fn position(content: &[u8]) -> u32 {
    u32::try_from(content.len()).expect("invariant: an index is far below 4 GiB")
}
