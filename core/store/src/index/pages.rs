//! Pages of indexes: read when they are needed, checked, and kept while the budget allows.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use hw_kit::Map;

use super::{Directory, Place};
use crate::bytes_io::u32_at;
use crate::damage::{Damage, Flaw};
use crate::op::DiskError;
use crate::segment::SegmentId;
use crate::vault::{self, SEAL_BYTES, Vault};

/// A page in the file.
pub(super) const PAGE_BYTES: usize = 4096;
/// Before its content: its checksum.
const PAGE_HEAD_BYTES: usize = 4;
/// Its content; what remains is for the seal, or zero.
pub(super) const PAGE_DATA_BYTES: usize = PAGE_BYTES - PAGE_HEAD_BYTES - SEAL_BYTES;
/// What an entry costs beside its content.
const ENTRY_BYTES: usize = 96;

/// Reads from the files of segments, at once. It is asked for what is durable and never changes, so that whoever asks
/// gets the same bytes as everybody else: that is why state machines may read through it.
pub trait ReadSegment: std::fmt::Debug + Send + Sync {
    /// A part of a file; less where it ends.
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError>;

    /// The segment is gone: a handle that is still open would keep its space.
    fn forget(&self, _id: SegmentId) {}
}

/// The pages of all segments of a shard.
#[derive(Debug)]
pub struct Pages {
    files: Box<dyn ReadSegment>,
    cache: Mutex<Cache>,
    failures: AtomicU64,
    vault: Vault,
}

/// The bytes of one index, read beforehand: for checking and repairing without a server.
#[derive(Debug)]
pub(crate) struct Preloaded {
    pub offset: u64,
    pub bytes: Bytes,
}

impl ReadSegment for Preloaded {
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        let start = offset.checked_sub(self.offset).map(|start| start as usize);
        let part = start.and_then(|start| Some(start..start.checked_add(len as usize)?));
        match part.filter(|part| part.end <= self.bytes.len()) {
            Some(part) => Ok(self.bytes.slice(part)),
            None => Err(DiskError::NotFound { place: id.file().path() }),
        }
    }
}

/// Which page; the directory of a segment is kept whole and decoded, under a number that no page has.
type Key = (SegmentId, u32);
const DIRECTORY: u32 = u32::MAX;

#[derive(Debug)]
struct Cache {
    budget: usize,
    used: usize,
    entries: Map<Key, Entry>,
    /// In the order in which they came; one that was used meanwhile gets a second round.
    order: VecDeque<Key>,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    bytes: usize,
    is_used: bool,
}

#[derive(Clone, Debug)]
enum Item {
    Page(Bytes),
    Directory(Arc<Directory>),
}

impl Pages {
    /// Reads through `files`, opens with `vault` and keeps about so many bytes.
    pub fn new(files: Box<dyn ReadSegment>, budget: usize, vault: Vault) -> Pages {
        let (entries, order) = (Map::default(), VecDeque::new());
        let cache = Mutex::new(Cache { budget, used: 0, entries, order });
        Pages { files, cache, failures: AtomicU64::new(0), vault }
    }

    /// How many times somebody asked in vain: what could not be read or was damaged.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How many bytes are kept.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Forgets segments that are gone.
    pub fn forget(&self, ids: &[SegmentId]) {
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|id| self.files.forget(*id));
        let mut cache = self.lock();
        let Cache { entries, order, used, .. } = &mut *cache;
        order.retain(|key| {
            let is_gone = ids.contains(&key.0);
            if is_gone && let Some(entry) = entries.remove(key) {
                *used -= entry.bytes;
            }
            !is_gone
        });
    }

    /// A part of the content of an index, across pages where it must be.
    pub(super) fn read(&self, id: SegmentId, place: &Place, at: u32, len: usize) -> Result<Bytes, Damage> {
        let (at, end) = (at as usize, at as usize + len);
        if end > place.end as usize {
            return Err(Damage::malformed(id.file(), place.offset, "index"));
        }
        let (first, skip) = (at / PAGE_DATA_BYTES, at % PAGE_DATA_BYTES);
        if skip + len <= PAGE_DATA_BYTES {
            let mut page = self.page(id, place, first as u32)?;
            page.truncate(skip + len);
            page.advance(skip);
            return Ok(page);
        }
        let mut out = Vec::with_capacity(len);
        for number in first..end.div_ceil(PAGE_DATA_BYTES) {
            let page = self.page(id, place, number as u32)?;
            let start = if number == first { skip } else { 0 };
            let stop = (end - number * PAGE_DATA_BYTES).min(PAGE_DATA_BYTES);
            out.extend_from_slice(&page[start..stop]);
        }
        Ok(out.into())
    }

    /// The directory of a segment's index.
    pub(super) fn directory(&self, id: SegmentId, place: &Place) -> Result<Arc<Directory>, Damage> {
        if let Some(Item::Directory(directory)) = self.lock().get((id, DIRECTORY)) {
            return Ok(directory);
        }
        let len = (place.end - place.directory) as usize;
        // Its pages are not wanted again: they do not push out others.
        let mut bytes = Vec::with_capacity(len);
        let (first, skip) =
            (place.directory as usize / PAGE_DATA_BYTES, place.directory as usize % PAGE_DATA_BYTES);
        let pages = (place.end as usize).div_ceil(PAGE_DATA_BYTES) - first;
        let offset = place.offset + (first * PAGE_BYTES) as u64;
        let raw = self.raw(id, offset, pages * PAGE_BYTES)?;
        for number in 0..pages {
            let page = raw.slice(number * PAGE_BYTES..(number + 1) * PAGE_BYTES);
            bytes.extend_from_slice(&self.open(id, place, (first + number) as u32, &page)?);
        }
        let bytes = Bytes::from(bytes).slice(skip..skip + len);
        let directory = Directory::decode(bytes, place)
            .ok_or_else(|| Damage::malformed(id.file(), place.offset, "index"))?;
        let directory = Arc::new(directory);
        let size = directory.memory_bytes();
        self.lock().put((id, DIRECTORY), Item::Directory(directory.clone()), size);
        Ok(directory)
    }

    fn page(&self, id: SegmentId, place: &Place, number: u32) -> Result<Bytes, Damage> {
        if let Some(Item::Page(page)) = self.lock().get((id, number)) {
            return Ok(page);
        }
        let raw = self.raw(id, place.offset + u64::from(number) * PAGE_BYTES as u64, PAGE_BYTES)?;
        let page = self.open(id, place, number, &raw)?;
        self.lock().put((id, number), Item::Page(page.clone()), PAGE_BYTES);
        Ok(page)
    }

    /// Compares the checksums of all pages, and the seals if there is a key.
    pub(crate) fn check(&self, id: SegmentId, place: &Place) -> Result<(), Damage> {
        for number in 0..(place.end as usize).div_ceil(PAGE_DATA_BYTES) {
            match self.page(id, place, number as u32) {
                Ok(_) | Err(Damage { flaw: Flaw::NoKey, .. }) => {}
                Err(damage) => return Err(damage),
            }
        }
        Ok(())
    }

    /// The same for so many pages from one on, from the disk; gives the next one, or None at the end.
    pub(crate) fn check_some(
        &self,
        id: SegmentId,
        place: &Place,
        from: u32,
        count: u32,
    ) -> Result<Option<u32>, Damage> {
        let end = (place.end as usize).div_ceil(PAGE_DATA_BYTES) as u32;
        let to = from.saturating_add(count).min(end);
        if from >= to {
            return Ok(None);
        }
        let offset = place.offset + u64::from(from) * PAGE_BYTES as u64;
        let raw = self.raw(id, offset, (to - from) as usize * PAGE_BYTES)?;
        for number in from..to {
            let start = (number - from) as usize * PAGE_BYTES;
            match self.open(id, place, number, &raw.slice(start..start + PAGE_BYTES)) {
                Ok(_) | Err(Damage { flaw: Flaw::NoKey, .. }) => {}
                Err(damage) => return Err(damage),
            }
        }
        Ok((to < end).then_some(to))
    }

    /// The content of a page after its check.
    fn open(&self, id: SegmentId, index: &Place, number: u32, page: &Bytes) -> Result<Bytes, Damage> {
        let offset = index.offset + u64::from(number) * PAGE_BYTES as u64;
        if page.len() != PAGE_BYTES || u32_at(page, 0) != page_crc(id, number, page) {
            return Err(Damage::checksum(id.file(), offset, "page of the index"));
        }
        let end = if index.cipher.is_some() { PAGE_BYTES } else { PAGE_HEAD_BYTES + PAGE_DATA_BYTES };
        let place = vault::Place::index(id, u64::from(number));
        let content = self.vault.open(index.cipher, place, page.slice(PAGE_HEAD_BYTES..end));
        content.map_err(|flaw| Damage::new(id.file(), offset, flaw))
    }

    fn raw(&self, id: SegmentId, offset: u64, len: usize) -> Result<Bytes, Damage> {
        let bytes = self.files.read(id, offset, len as u64).map_err(|error| {
            let flaw = match error {
                DiskError::NotFound { .. } => Flaw::Missing,
                // The damage names the file.
                DiskError::Failed { reason, .. } => Flaw::Unreadable { reason },
                DiskError::Full { .. } => Flaw::Unreadable { reason: error.to_string() },
            };
            Damage::new(id.file(), offset, flaw)
        })?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => {
                Err(Damage::new(id.file(), offset, Flaw::Truncated { len: offset + bytes.len() as u64 }))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn take_used(&mut self) -> bool {
        let is_held = match &self.item {
            Item::Page(_) => false,
            Item::Directory(directory) => directory.take_used(),
        };
        std::mem::take(&mut self.is_used) | is_held
    }
}

impl Cache {
    fn get(&mut self, key: Key) -> Option<Item> {
        let entry = self.entries.get_mut(&key)?;
        entry.is_used = true;
        Some(entry.item.clone())
    }

    fn put(&mut self, key: Key, item: Item, bytes: usize) {
        let bytes = bytes + ENTRY_BYTES;
        while self.used + bytes > self.budget
            && let Some(oldest) = self.order.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&oldest) else { continue };
            if entry.take_used() {
                self.order.push_back(oldest);
            } else {
                self.used -= entry.bytes;
                self.entries.remove(&oldest);
            }
        }
        self.used += bytes;
        if let Some(before) = self.entries.insert(key, Entry { item, bytes, is_used: false }) {
            self.used -= before.bytes;
        } else {
            self.order.push_back(key);
        }
    }
}

/// Appends content as pages; the last one is filled with zeros.
pub(super) fn put_pages(out: &mut Vec<u8>, (id, vault): (SegmentId, &Vault), content: &[u8]) {
    const ZEROS: [u8; PAGE_DATA_BYTES] = [0; PAGE_DATA_BYTES];
    for (number, data) in content.chunks(PAGE_DATA_BYTES).enumerate() {
        let start = out.len();
        out.resize(start + PAGE_HEAD_BYTES, 0);
        vault.seal(vault::Place::index(id, number as u64), &[data, &ZEROS[data.len()..]], out);
        out.resize(start + PAGE_BYTES, 0);
        let crc = page_crc(id, number as u32, &out[start..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The checksum of a page without its own place, bound to segment and position: another page does not pass.
fn page_crc(id: SegmentId, number: u32, page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.group.0.to_le_bytes());
    hasher.update(&id.number.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&page[4..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use hw_kit::{GroupId, Seq};

    use super::super::Layout;
    use super::*;

    #[derive(Debug)]
    struct Broken;

    impl ReadSegment for Broken {
        fn read(&self, id: SegmentId, _offset: u64, _len: u64) -> Result<Bytes, DiskError> {
            Err(DiskError::Failed { place: id.file().path(), reason: "Input/output error".to_owned() })
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_once() {
        let id = SegmentId { group: GroupId(7), number: 3 };
        let place = Place {
            offset: 8192,
            records: 1,
            subjects: 1,
            first: Seq(1),
            last: Seq(1),
            bytes: 1,
            dictionary: 10,
            postings: 20,
            directory: 20,
            end: 100,
            layout: Layout::Columns,
            cipher: None,
        };
        let pages = Pages::new(Box::new(Broken), 10_000, Vault::default());
        let damage = pages.read(id, &place, 0, 1).expect_err("nothing can be read");
        let text = damage.to_string();
        assert_eq!(text.matches(&id.file().path()).count(), 1, "{text}");
        assert!(text.ends_with("it cannot be read: Input/output error"), "{text}");
    }
}
