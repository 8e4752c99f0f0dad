//! Writing an index: records come in order, everything is sorted and laid out at the end.

use bytes::Bytes;
use hw_kit::{Map, Seq, Time};

use super::directory::DirectoryWriter;
use super::group::{Row, put_group};
use super::names::NamesWriter;
use super::pages::put_pages;
use super::{CHUNK, CHUNK_ROW, GROUP, INLINE, Layout, Place, bloom};
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

impl IndexWriter {
    /// Adds a record; `begins`: it is the first of a block.
    pub fn push(&mut self, (seq, ts): (Seq, Time), record: &Record, begins: bool) {
        if self.records == 0 {
            self.first = seq;
        }
        let subject = match self.subjects.get(record.subject()) {
            Some(&known) => known,
            None => self.add_subject(record),
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

    fn add_subject(&mut self, record: &Record) -> u32 {
        let number = u32::try_from(self.subjects.len()).expect("invariant: far below 2^32 subjects");
        // Shared with the message, which stays in memory until its segment is on disk.
        self.subjects.insert(record.joined().slice(..record.subject().len()), number);
        number
    }

    /// Appends the index as pages; it begins at this place of the file.
    pub fn finish(self, (id, vault): (SegmentId, &Vault), offset: u64, out: &mut Vec<u8>) -> Place {
        let names = self.sorted_names();
        let mut ranks = vec![0; names.len()];
        for (rank, (.., number)) in names.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        let (mut content, mut directory) = (Vec::new(), DirectoryWriter::default());
        let mut counts = vec![0u32; names.len()];
        self.put_groups(&ranks, &mut counts, &mut content, &mut directory);
        let dictionary = position(&content);
        let lists = self.lists(&ranks, &counts);
        let names = names.into_iter().map(|(_, name, _)| name);
        let mut postings = Vec::new();
        let (mut at, mut block) = (0, NamesWriter::default());
        for (rank, name) in names.enumerate() {
            directory.hashes.push(bloom::hash(name));
            if block.is_full() {
                block.finish(&mut content);
                directory.blocks.push((rank as u32, position(&content), name.clone()));
            }
            let count = counts[rank] as usize;
            put_list(&lists[at..at + count], self.first.0, block.push(name), &mut postings);
            at += count;
        }
        block.finish(&mut content);
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
            layout: Layout::Columns,
            cipher: vault.cipher(),
        }
    }

    /// The subjects in order, each with its number and with what it is sorted by before its name: the eight bytes behind
    /// what all names begin with, as most have a long beginning in common.
    fn sorted_names(&self) -> Vec<(u64, &Bytes, u32)> {
        let mut prefix: Option<&[u8]> = None;
        for name in self.subjects.keys() {
            let common = prefix.unwrap_or(name);
            let len = common.iter().zip(name.iter()).take_while(|(a, b)| a == b).count();
            prefix = Some(&common[..len]);
        }
        let skipped = prefix.unwrap_or_default().len();
        let key = |name: &Bytes| {
            let mut key = [0; 8];
            let rest = &name[skipped..];
            let len = rest.len().min(key.len());
            key[..len].copy_from_slice(&rest[..len]);
            u64::from_be_bytes(key)
        };
        let mut names: Vec<_> =
            self.subjects.iter().map(|(name, &number)| (key(name), name, number)).collect();
        names.sort_unstable();
        names
    }

    /// The records, whose subjects have their final numbers.
    fn entries<'a>(&'a self, ranks: &'a [u32]) -> impl Iterator<Item = Row> + 'a {
        let mut reader = Varints::new(&self.entries);
        let (mut seq, mut ts) = (0, 0i64);
        std::iter::from_fn(move || {
            seq += reader.next()?;
            ts = ts.wrapping_add(reader.signed()?);
            let rank = ranks[reader.next()? as usize];
            let size_and_start = reader.next()?;
            let (size, begins) = ((size_and_start >> 1) as u32, size_and_start & 1 == 1);
            Some(Row { seq, ts, rank, size, begins })
        })
    }

    fn put_groups(
        &self,
        ranks: &[u32],
        counts: &mut [u32],
        content: &mut Vec<u8>,
        directory: &mut DirectoryWriter,
    ) {
        let (mut blocks, mut rows) = (0u64, Vec::with_capacity(GROUP));
        let mut entries = self.entries(ranks);
        loop {
            rows.clear();
            rows.extend(entries.by_ref().take(GROUP));
            let Some(first) = rows.first() else { return };
            directory.groups.push((first.seq, position(content)));
            // The block of the first one, counted from 0.
            put_group(&rows, blocks + u64::from(first.begins) - 1, content);
            for row in &rows {
                blocks += u64::from(row.begins);
                counts[row.rank as usize] += 1;
            }
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
