//! Reading the log: windows in order, where it ends, and whether the end is a torn tail or damage.
//!
//! Every window claims how far the log was durable when it was written. What is missing or broken before such a claim is
//! damage and is reported; what is broken behind all claims was never acknowledged: it is a torn tail and is cut.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{Map, ShardId};

use crate::bytes_io::{u32_at, u64_at};
use crate::damage::{Damage, Flaw};
use crate::frame::{Frame, FrameKind};
use crate::layout::FileId;
use crate::limits::{CLAIM_SEARCH_BYTES, SCAN_BYTES, WAL_HEADER_BYTES, WINDOW_ALIGN, WINDOW_HEAD_BYTES};
use crate::op::{Disk, DiskError, read};
use crate::vault::{Place, Vault};
use crate::wal::{WalFile, WalStart, WindowMark};
use crate::wal_window::{
    FileHeader, FrameHead, HeaderFound, WalPosition, WindowHead, WindowKind, align, head_bytes, peek_head,
    verify_head,
};

/// One frame of the log.
pub(crate) struct ScannedFrame {
    pub mark: WindowMark,
    pub head: FrameHead,
    pub frame: Result<Frame, Damage>,
}

/// A log file that holds nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UnusedFile {
    pub number: u64,
    /// The length that the folder says.
    pub len: u64,
    /// Its header, if it has its full length: it can be made a spare by giving it a new one.
    pub header: Option<FileHeader>,
}

/// What the log is.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Files with windows, from the one where reading started.
    pub files: VecDeque<WalFile>,
    pub end: WalPosition,
    pub session: u32,
    pub next_window: u64,
    pub windows: u64,
    pub frames: u64,
    /// Windows that were cut because they were not complete or did not follow a complete one.
    pub torn_windows: u64,
    /// Files without windows, whatever their number, ascending.
    pub unused: Vec<UnusedFile>,
}

/// Why the log cannot be read.
#[derive(Debug)]
pub(crate) enum ScanError {
    Damage(Damage),
    Disk(DiskError),
}

impl From<Damage> for ScanError {
    fn from(damage: Damage) -> ScanError {
        ScanError::Damage(damage)
    }
}

impl From<DiskError> for ScanError {
    fn from(error: DiskError) -> ScanError {
        ScanError::Disk(error)
    }
}

struct Found {
    number: u64,
    len: u64,
    header: Option<FileHeader>,
    /// The first bytes look like a log file of this number though no header says so.
    looks_used: bool,
}

struct Window {
    head: WindowHead,
    frames: Vec<FrameHead>,
}

/// What lies behind a place in the log.
#[derive(Clone, Copy, Default)]
struct Behind {
    durable: WalPosition,
    windows: u64,
}

/// Reads the log of one shard.
pub(crate) struct WalScan<'a, 'd> {
    disk: &'a mut Disk<'d>,
    found: Vec<Found>,
    chunk: Bytes,
    chunk_file: usize,
    chunk_start: u64,
    /// The strongest claim of a checkpoint or the witness: all before it was durable in its session.
    claim: WalPosition,
    claim_session: u32,
    behind: Option<Behind>,
    accept_loss: bool,
    vault: Vault,
}

impl<'a, 'd> WalScan<'a, 'd> {
    /// Reads the headers of the files, given by number and length, ascending. Without a key that fits, files that are
    /// sealed are refused; `blind`: they are read as far as that goes without.
    pub(crate) fn new(
        (shard, vault, blind): (ShardId, &Vault, bool),
        files: &[(u64, u64)],
        disk: &'a mut Disk<'d>,
    ) -> Result<WalScan<'a, 'd>, ScanError> {
        let mut found = Vec::with_capacity(files.len());
        for &(number, len) in files {
            let page = read(FileId::Wal(number), 0, WAL_HEADER_BYTES + WINDOW_HEAD_BYTES as u64, disk)?;
            let header = match FileHeader::decode(&page) {
                HeaderFound::Newer(version) => {
                    return Err(Damage::new(FileId::Wal(number), 0, Flaw::Version { version }).into());
                }
                HeaderFound::Header(header) if header.number == number => Some(header),
                // A file that was about to be reused: its header still has the old number.
                HeaderFound::Header(_) => None,
                HeaderFound::None => {
                    let looks_used = looks_used(number, &page);
                    found.push(Found { number, len, header: None, looks_used });
                    continue;
                }
            };
            if let Some(header) = header.filter(|header| header.shard != shard) {
                let found = format!("a log file of shard {}", header.shard);
                return Err(Damage::new(FileId::Wal(number), 0, Flaw::Misplaced { found }).into());
            }
            if let Some(header) = header.filter(|_| !blind) {
                vault
                    .check(header.cipher, header.key_check)
                    .map_err(|flaw| Damage::new(FileId::Wal(number), 0, flaw))?;
            }
            found.push(Found { number, len, header, looks_used: false });
        }
        Ok(WalScan {
            disk,
            found,
            chunk: Bytes::new(),
            chunk_file: usize::MAX,
            chunk_start: 0,
            claim: WalPosition::default(),
            claim_session: 0,
            behind: None,
            accept_loss: false,
            vault: vault.clone(),
        })
    }

    /// A checkpoint or the witness says that all before `durable` was durable in a session.
    pub(crate) fn set_claim(&mut self, durable: WalPosition, session: u32) {
        let stronger = (session, durable).max((self.claim_session, self.claim));
        (self.claim_session, self.claim) = stronger;
    }

    /// What is missing is taken for never written: the log ends there.
    pub(crate) fn set_accept_loss(&mut self, accept: bool) {
        self.accept_loss = accept;
    }

    /// Reads from `start` to the end; without one, from the first window ever written.
    pub(crate) fn run(
        mut self,
        start: Option<WalStart>,
        each: &mut dyn FnMut(ScannedFrame),
    ) -> Result<Scanned, ScanError> {
        let mut out = Scanned { next_window: 1, ..Scanned::default() };
        if !self.accept_loss {
            self.check_chain(start.map_or(1, |start| start.position.file))?;
        }
        if let Some(at) = self.enter(start, &mut out)? {
            self.follow(at, &mut out, each)?;
        }
        let used: Vec<u64> = out.files.iter().map(|file| file.header.number).collect();
        for file in self.found.iter().filter(|file| !used.contains(&file.number)) {
            if file.looks_used && file.number > out.end.file && !self.accept_loss {
                return Err(Damage::checksum(FileId::Wal(file.number), 0, "header").into());
            }
            let header = file.header.filter(|header| header.len == file.len);
            out.unused.push(UnusedFile { number: file.number, len: file.len, header });
        }
        Ok(out)
    }

    /// Whether a file from `oldest` on is missing or too short: a file is whole before the next one is made.
    fn check_chain(&self, oldest: u64) -> Result<(), ScanError> {
        let later = self.found.iter().filter(|file| file.number > oldest).filter_map(|file| file.header);
        for number in later.map(|header| header.previous).filter(|&number| number >= oldest) {
            let file = self.found.iter().find(|file| file.number == number);
            let flaw = match file {
                None => Flaw::Missing,
                Some(Found { header: Some(header), len, .. }) if *len >= header.len => continue,
                Some(Found { header: Some(_), len, .. }) => Flaw::Truncated { len: *len },
                Some(Found { header: None, .. }) => Flaw::Checksum { part: "header" },
            };
            return Err(Damage::new(FileId::Wal(number), 0, flaw).into());
        }
        Ok(())
    }

    /// Finds the file in which reading starts.
    fn enter(&mut self, start: Option<WalStart>, out: &mut Scanned) -> Result<Option<usize>, ScanError> {
        let Some(start) = start else {
            let first = WindowMark { session: 0, number: 1 };
            if let Some(index) = self.file_that_starts_with(0, first)? {
                self.push_file(index, WalStart { window: 1, ..WalStart::default() }, out)?;
                return Ok(Some(index));
            }
            let behind = self.behind(0, WAL_HEADER_BYTES - WINDOW_ALIGN, 0)?;
            let is_told = behind.durable > WalPosition::default() || self.claim > WalPosition::default();
            if is_told && !self.accept_loss {
                let number = self.found.first().map_or(self.claim.file, |file| file.number);
                let flaw = match self.found.first() {
                    Some(_) => Flaw::LostWindows { first: 1 },
                    None => Flaw::Missing,
                };
                return Err(self.explain(0, Damage::new(FileId::Wal(number), WAL_HEADER_BYTES, flaw)).into());
            }
            out.torn_windows = behind.windows;
            return Ok(None);
        };
        let file = FileId::Wal(start.position.file);
        let index = self.found.iter().position(|found| found.number == start.position.file);
        let index = index.ok_or_else(|| Damage::new(file, 0, Flaw::Missing))?;
        if self.found[index].header.is_none() {
            return Err(Damage::checksum(file, 0, "header").into());
        }
        self.push_file(index, start, out)?;
        Ok(Some(index))
    }

    fn push_file(&self, index: usize, start: WalStart, out: &mut Scanned) -> Result<(), ScanError> {
        let Some(header) = self.found[index].header else { return Ok(()) };
        let len = self.found[index].len;
        if len < header.len {
            return Err(Damage::new(FileId::Wal(header.number), len, Flaw::Truncated { len }).into());
        }
        let first = WalPosition { file: header.number, offset: WAL_HEADER_BYTES };
        let position = start.position.max(first);
        out.files.push_back(WalFile {
            header,
            start: WalStart { position, ..start },
            groups: Map::default(),
        });
        out.end = position;
        (out.next_window, out.session) = (start.window, start.session);
        Ok(())
    }

    fn follow(
        &mut self,
        mut index: usize,
        out: &mut Scanned,
        each: &mut dyn FnMut(ScannedFrame),
    ) -> Result<(), ScanError> {
        loop {
            let offset = out.end.offset;
            let expected = WindowMark { session: out.session, number: out.next_window };
            let Some(window) = self.window(index, offset, expected)? else {
                if let Some(next) = self.file_that_starts_with(index + 1, expected)? {
                    index = next;
                    let (window, session) = (expected.number, expected.session);
                    let goes_on = WalStart { position: WalPosition::default(), window, session };
                    self.push_file(index, goes_on, out)?;
                    continue;
                }
                return self.finish(index, expected, out);
            };
            let mark = WindowMark { session: window.head.session, number: window.head.number };
            let Some(frames) = self.frames(index, offset, &window, out)? else {
                out.torn_windows += 1;
                return Ok(());
            };
            let groups = out.files.back_mut().map(|file| &mut file.groups);
            if let Some(groups) = groups {
                for (head, _) in &frames {
                    let seen = groups.entry(head.meta.group).or_default();
                    match head.meta.kind {
                        FrameKind::Note => seen.note = mark,
                        kind => seen.last = seen.last.max(kind.last(head.meta.first, head.count)),
                    }
                }
            }
            out.windows += 1;
            out.frames += frames.len() as u64;
            out.end.offset = align(offset + u64::from(window.head.bytes));
            (out.session, out.next_window) = (mark.session, mark.number + 1);
            frames.into_iter().for_each(|(head, frame)| each(ScannedFrame { mark, head, frame }));
        }
    }

    /// Nothing more follows: was there more?
    fn finish(&mut self, index: usize, expected: WindowMark, out: &mut Scanned) -> Result<(), ScanError> {
        let behind = self.behind(index, out.end.offset, out.session)?;
        if self.is_claimed(behind, out) && !self.accept_loss {
            let file = FileId::Wal(out.end.file);
            let damage = Damage::new(file, out.end.offset, Flaw::LostWindows { first: expected.number });
            return Err(self.explain(index, damage).into());
        }
        out.torn_windows += behind.windows;
        Ok(())
    }

    fn is_claimed(&self, behind: Behind, out: &Scanned) -> bool {
        // What was said in an earlier session says nothing about a log that has been cut since; that there was a later one
        // says that its first window was durable.
        let is_told = (self.claim_session, self.claim) > (out.session, out.end);
        behind.durable > out.end || is_told
    }

    /// Lost windows because a later file cannot be read at all: name that file.
    fn explain(&self, index: usize, damage: Damage) -> Damage {
        let mut later = self.found.iter().skip(index);
        let unreadable = later.find(|file| file.looks_used);
        unreadable.map_or(damage, |file| Damage::checksum(FileId::Wal(file.number), 0, "header"))
    }

    /// The frames of a window, damaged ones as damage; None if it is a torn tail.
    #[allow(clippy::type_complexity)] // One use: a name would not say more.
    fn frames(
        &mut self,
        index: usize,
        offset: u64,
        window: &Window,
        out: &Scanned,
    ) -> Result<Option<Vec<(FrameHead, Result<Frame, Damage>)>>, ScanError> {
        let bytes = self.bytes(index, offset, u64::from(window.head.bytes))?;
        let file = FileId::Wal(self.found[index].number);
        let cipher = self.found[index].header.and_then(|header| header.cipher);
        let mark = WindowMark { session: window.head.session, number: window.head.number };
        let mut at = head_bytes(window.frames.len());
        let mut frames = Vec::with_capacity(window.frames.len());
        for (number, head) in window.frames.iter().enumerate() {
            let end = at + head.body_len as usize;
            // A copy: what is replayed lives long and must not pin the whole chunk.
            let body = bytes.get(at..end).map(Bytes::copy_from_slice).unwrap_or_default();
            let place = offset + at as u64;
            let is_whole = body.len() == head.body_len as usize && crc32fast::hash(&body) == head.body_crc;
            let frame = if is_whole {
                let sealed = Place::frame(mark, number, head.meta, head.count);
                let opened = self.vault.open(cipher, sealed, body);
                opened.map_err(|flaw| Damage::new(file, place, flaw)).and_then(|body| {
                    let frame = match cipher {
                        Some(_) => Frame::from_body(head.meta, head.count, body),
                        None => Frame::with_crc(head.meta, head.count, body, head.body_crc),
                    };
                    frame.ok_or_else(|| Damage::malformed(file, place, "frame"))
                })
            } else {
                Err(Damage::checksum(file, place, "frame"))
            };
            at = end;
            frames.push((*head, frame));
        }
        // What cannot be opened for lack of a key was written as it is.
        let is_torn = |damage: &Damage| damage.flaw != Flaw::NoKey;
        if frames.iter().any(|(_, frame)| frame.as_ref().is_err_and(is_torn)) {
            let behind = self.behind(index, offset, out.session)?;
            if !self.is_claimed(behind, out) {
                return Ok(None);
            }
        }
        Ok(Some(frames))
    }

    /// The window at a place, if it is complete in its head and the one that is expected.
    fn window(
        &mut self,
        index: usize,
        offset: u64,
        expected: WindowMark,
    ) -> Result<Option<Window>, ScanError> {
        let Some(window) = self.any_window(index, offset)? else { return Ok(None) };
        let WindowHead { session, kind, number, .. } = window.head;
        let goes_on = session == expected.session;
        let opens = session > expected.session && kind == WindowKind::Open;
        Ok((number == expected.number && (goes_on || opens)).then_some(window))
    }

    fn any_window(&mut self, index: usize, offset: u64) -> Result<Option<Window>, ScanError> {
        let Some(header) = self.found[index].header else { return Ok(None) };
        let bytes = self.bytes(index, offset, WINDOW_HEAD_BYTES as u64)?;
        let Some(head) = peek_head(&header, offset, &bytes) else { return Ok(None) };
        let bytes = self.bytes(index, offset, head_bytes(head.frames as usize) as u64)?;
        Ok(verify_head(&header, &head, &bytes).map(|frames| Window { head, frames }))
    }

    fn file_that_starts_with(
        &mut self,
        from: usize,
        expected: WindowMark,
    ) -> Result<Option<usize>, ScanError> {
        for index in from..self.found.len() {
            if self.window(index, WAL_HEADER_BYTES, expected)?.is_some() {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// What the windows behind a place claim, at least those of this session or later ones.
    fn behind(&mut self, index: usize, offset: u64, session: u32) -> Result<Behind, ScanError> {
        // Later windows make the strongest claims: what was found once holds for all places further on.
        if let Some(behind) = self.behind {
            return Ok(behind);
        }
        let mut behind = Behind::default();
        for file in index..self.found.len() {
            let from = if file == index { offset + WINDOW_ALIGN } else { WAL_HEADER_BYTES };
            let to = if file == index { u64::MAX } else { WAL_HEADER_BYTES + CLAIM_SEARCH_BYTES };
            let end = self.found[file].header.map_or(0, |header| header.len.min(to));
            let mut at = from;
            while at < end {
                if let Some(window) = self.any_window(file, at)?
                    && window.head.session >= session
                {
                    behind.durable = behind.durable.max(window.head.durable);
                    behind.windows += 1;
                }
                at += WINDOW_ALIGN;
            }
        }
        self.behind = Some(behind);
        Ok(behind)
    }

    /// Bytes of a file, fewer where it ends.
    fn bytes(&mut self, index: usize, offset: u64, len: u64) -> Result<Bytes, ScanError> {
        let number = self.found[index].number;
        let is_inside = |start: u64, have: u64| offset >= start && offset + len <= start + have;
        if self.chunk_file != index || !is_inside(self.chunk_start, self.chunk.len() as u64) {
            let wanted = len.max(SCAN_BYTES as u64);
            self.chunk = read(FileId::Wal(number), offset, wanted, self.disk)?;
            (self.chunk_file, self.chunk_start) = (index, offset);
        }
        let start = ((offset - self.chunk_start) as usize).min(self.chunk.len());
        let end = (start + len as usize).min(self.chunk.len());
        Ok(self.chunk.slice(start..end))
    }
}

fn looks_used(number: u64, page: &[u8]) -> bool {
    let Some(window) = page.get(WAL_HEADER_BYTES as usize..) else { return false };
    window.len() >= WINDOW_HEAD_BYTES && u32_at(window, 0) != 0 && u64_at(window, 8) == number
}
