//! The write-ahead log of a shard: which files it has, where the next window goes, what is durable, what may be reused.
//!
//! A machine without I/O. Invariants: windows are numbered without gaps; a window never shares a sector with an earlier
//! one; a file is reused only under a new number and with a new salt; `durable <= end`.

mod erase;

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Map, ShardId};

use crate::frame::{Frame, FrameKind};
use crate::layout::{Dir, FileId};
use crate::limits::{
    FRAME_BYTES_MAX, GATHER_BYTES, WAL_FILL_BYTES, WAL_HEADER_BYTES, WAL_WINDOWS_FILLED, WINDOW_ALIGN,
    WINDOW_BYTES_MAX, WINDOW_FRAMES_MAX,
};
use crate::op::DiskOp;
use crate::vault::{Place, Vault};
use crate::wal_window::{
    FileHeader, StoredFrame, WalPosition, WindowHead, WindowKind, align, encode_head, head_bytes,
};

/// A window in the order of all windows ever written, also across a cut tail.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct WindowMark {
    pub session: u32,
    pub number: u64,
}

/// Where reading the log may start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct WalStart {
    pub position: WalPosition,
    /// The number of the window there.
    pub window: u64,
    /// The session that was open there.
    pub session: u32,
}

/// What a file holds of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The highest index of an entry.
    pub last: LogIndex,
    /// The last window with a note; the default if there is none.
    pub note: WindowMark,
}

/// A file with windows.
#[derive(Debug)]
pub(crate) struct WalFile {
    pub header: FileHeader,
    pub start: WalStart,
    pub groups: Map<GroupId, Seen>,
}

/// Why frames were refused. Nothing of these was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// The next log file is being made ready: try again when it is.
    #[error("the next log file is not ready yet")]
    NotReady,
    /// The disk is full and the reserve is used up.
    #[error("no space is left for the log")]
    Full,
    /// A frame is longer than any store takes.
    #[error("a frame of {bytes} bytes is longer than the {max} that a store takes")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Entries are missing before a frame: a defect of the caller.
    #[error("group {group}: entry {expected} comes next, not {found}")]
    Gap {
        /// The group.
        group: GroupId,
        /// The highest index that would be accepted.
        expected: LogIndex,
        /// The frame's first.
        found: LogIndex,
    },
    /// A disk operation failed before: the store takes nothing until it is opened again.
    #[error("the store stopped after a failure: {reason}")]
    Stopped {
        /// The failure.
        reason: String,
    },
}

/// How the log is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct WalLimits {
    pub shard: ShardId,
    /// What seals the frames.
    pub vault: Vault,
    pub frame_bytes_max: u64,
    pub file_bytes: u64,
}

/// The write-ahead log.
#[derive(Debug)]
pub(crate) struct Wal {
    limits: WalLimits,
    /// Files with windows, oldest first; the last one is written to.
    files: VecDeque<WalFile>,
    /// Files that are ready, ascending.
    spares: VecDeque<FileHeader>,
    /// Files that were made ready and are not used: they go before another is made, which takes their place.
    dropped: Vec<u64>,
    /// Files that hold nothing that is needed, with their lengths.
    free: Vec<(u64, u64)>,
    /// The last index of each group.
    tails: Map<GroupId, LogIndex>,
    /// Where the next window goes.
    end: WalPosition,
    durable: WalPosition,
    /// Where the last checkpoint lets reading start.
    base: WalPosition,
    session: u32,
    next_window: u64,
    next_number: u64,
    /// Files with writes that no sync has followed.
    unsynced: Vec<u64>,
    /// The length of the next file that is made.
    next_len: u64,
    /// How long windows are lately: a moving average.
    usual_window: u64,
    /// Files below this number may hold bytes that are to be overwritten; see `erase`.
    tainted_below: u64,
}

/// What recovery knows of the log.
#[derive(Debug, Default)]
pub(crate) struct WalParts {
    pub files: VecDeque<WalFile>,
    pub spares: VecDeque<FileHeader>,
    pub free: Vec<(u64, u64)>,
    pub tails: Map<GroupId, LogIndex>,
    pub end: WalPosition,
    pub session: u32,
    pub next_window: u64,
    pub next_number: u64,
}

impl Wal {
    /// Everything before `parts.end` must be durable.
    pub(crate) fn new(limits: WalLimits, parts: WalParts, next_len: u64) -> Wal {
        let WalParts { files, spares, free, tails, end, session, next_window, next_number } = parts;
        let base = files.front().map_or(end, |file| file.start.position);
        assert!(next_window >= 1 && next_number >= 1, "windows and files are numbered from 1 on");
        assert_eq!(
            files.back().map_or(0, |file| file.header.number),
            end.file,
            "the log ends in its last file"
        );
        Wal {
            limits,
            files,
            spares,
            dropped: Vec::new(),
            free,
            tails,
            end,
            durable: end,
            base,
            session,
            next_window,
            next_number,
            unsynced: Vec::new(),
            next_len,
            usual_window: 0,
            tainted_below: 0,
        }
    }

    /// Adds frames, as many as there is space for: writes without the sync that must follow. Gives how many; with
    /// `all`, none are written unless all are.
    pub(crate) fn append(
        &mut self,
        frames: &[Frame],
        all: bool,
        ops: &mut Vec<DiskOp>,
    ) -> Result<usize, AppendError> {
        self.check_lengths(frames, all)?;
        let taken = self.check_space(frames);
        if taken < frames.len() && (all || taken == 0) {
            return Err(AppendError::NotReady);
        }
        self.advance_tails(&frames[..taken])?;
        let mut rest = &frames[..taken];
        while !rest.is_empty() {
            let fitting = fitting(rest, self.limits.vault.overhead(), self.room());
            if fitting == 0 {
                assert!(self.switch(), "invariant: check_space found a spare for this frame");
                continue;
            }
            let (window, later) = rest.split_at(fitting);
            self.write(WindowKind::Frames, window, ops);
            rest = later;
        }
        assert!(self.durable <= self.end, "nothing is durable that was not written");
        Ok(taken)
    }

    /// Adds a window without frames, if there is room; what it claims protects all before it.
    pub(crate) fn mark(&mut self, kind: WindowKind, ops: &mut Vec<DiskOp>) -> bool {
        if self.room() < head_bytes(0) as u64 && !self.switch() {
            return false;
        }
        self.write(kind, &[], ops);
        true
    }

    /// Syncs what was written since the last sync.
    pub(crate) fn sync(&mut self, ops: &mut Vec<DiskOp>) {
        ops.extend(self.unsynced.drain(..).map(|number| DiskOp::Sync(FileId::Wal(number))));
    }

    /// What makes all that was written so far durable, for somebody else to run; `sync` will still sync it, too.
    pub(crate) fn sync_ops(&self) -> Vec<DiskOp> {
        self.unsynced.iter().map(|&number| DiskOp::Sync(FileId::Wal(number))).collect()
    }

    /// Takes the head off the first window of each file that is not durable: whoever reads the log ends there.
    pub(crate) fn void(&self) -> Vec<DiskOp> {
        let files = self.files.iter().filter(|file| file.header.number >= self.durable.file);
        let heads = files.filter_map(|file| {
            let FileHeader { number, len, .. } = file.header;
            let offset = if number == self.durable.file { self.durable.offset } else { WAL_HEADER_BYTES };
            let data = vec![Bytes::from_static(&[0; WINDOW_ALIGN as usize])];
            (offset + WINDOW_ALIGN <= len).then_some(DiskOp::Write {
                file: FileId::Wal(number),
                offset,
                data,
            })
        });
        heads.collect()
    }

    /// All before the position is durable.
    pub(crate) fn handle_synced(&mut self, position: WalPosition) {
        assert!(position <= self.end, "what is durable was written");
        self.durable = self.durable.max(position);
    }

    /// A spare is ready.
    pub(crate) fn handle_spare(&mut self, spare: FileHeader) {
        assert!(spare.number > self.end.file, "a spare comes after the files in use");
        assert!(self.spares.back().is_none_or(|last| last.number < spare.number), "spares come in order");
        // While it was made, files may have become longer.
        if spare.len < self.least_len() || spare.previous != self.newest() {
            self.dropped.push(spare.number);
        } else {
            self.spares.push_back(spare);
        }
    }

    /// A group's state stands for all entries up to an index, whether the log has them or not.
    pub(crate) fn handle_applied(&mut self, group: GroupId, applied: LogIndex) {
        let tail = self.tails.entry(group).or_default();
        *tail = (*tail).max(applied);
    }

    /// A group is gone.
    pub(crate) fn handle_dropped(&mut self, group: GroupId) {
        self.tails.remove(&group);
    }

    /// The oldest place from which reading gives everything that `is_needed` says is needed, or the log's end.
    pub(crate) fn start_for(&self, is_needed: impl Fn(GroupId, Seen) -> bool) -> WalStart {
        let tail_of = |group: &GroupId| self.tails.get(group).copied().unwrap_or_default();
        let needed = self.files.iter().find(|file| {
            file.groups.iter().any(|(group, seen)| {
                // Entries behind a cut suffix are not needed by anybody.
                is_needed(*group, Seen { last: seen.last.min(tail_of(group)), note: seen.note })
            })
        });
        needed.map_or(
            WalStart { position: self.end, window: self.next_window, session: self.session },
            |file| file.start,
        )
    }

    /// Groups that have frames in files from `file` on.
    pub(crate) fn has_frames_of(&self, group: GroupId, file: u64) -> bool {
        self.files.iter().any(|seen| seen.header.number >= file && seen.groups.contains_key(&group))
    }

    /// How many files are in use.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// Gives up all files before a position; `is_held` ones come back, the others are reused.
    pub(crate) fn release(&mut self, up_to: WalPosition, is_held: impl Fn(u64) -> bool) -> Vec<u64> {
        assert!(up_to <= self.end, "only what was written can be released");
        self.base = self.base.max(up_to);
        let mut held = Vec::new();
        while self.files.front().is_some_and(|file| file.header.number < up_to.file) {
            let Some(file) = self.files.pop_front() else { break };
            self.unsynced.retain(|&number| number != file.header.number);
            if is_held(file.header.number) {
                held.push(file.header.number);
            } else {
                self.free.push((file.header.number, file.header.len));
            }
        }
        assert!(!self.files.is_empty(), "the file that is written to is never released");
        held
    }

    /// The operations that make a spare, and its header. `salt` has not been used before.
    pub(crate) fn make_spare(&mut self, salt: u64, is_full: bool) -> (FileHeader, Vec<DiskOp>) {
        let number = self.next_number;
        self.next_number += 1;
        // Each names the one before: the last goes first, and none is there any more when its place is taken.
        let dropped = std::mem::take(&mut self.dropped).into_iter().rev();
        let mut ops: Vec<DiskOp> =
            dropped.flat_map(|old| [DiskOp::Remove(FileId::Wal(old)), DiskOp::SyncDir(Dir::Root)]).collect();
        // On a full disk a short file is better than none; otherwise files grow to their full size and stay there.
        let len_new = if is_full { self.least_len() } else { self.next_len };
        let file = FileId::Wal(number);
        let len = match self.free.iter().position(|&(_, len)| len >= len_new) {
            Some(at) => {
                let (old, len) = self.free.swap_remove(at);
                ops.push(DiskOp::Rename { from: FileId::Wal(old), to: file });
                if old < self.tainted_below {
                    ops.push(DiskOp::Fill { file, offset: 0, len });
                }
                len
            }
            None => {
                ops.extend(self.free.drain(..).map(|(old, _)| DiskOp::Remove(FileId::Wal(old))));
                ops.push(DiskOp::Create(file));
                if self.usual_window * WAL_WINDOWS_FILLED > self.limits.file_bytes {
                    ops.push(DiskOp::Allocate { file, len: len_new });
                } else {
                    for offset in (0..len_new).step_by(WAL_FILL_BYTES as usize) {
                        let len = WAL_FILL_BYTES.min(len_new - offset);
                        ops.extend([DiskOp::Fill { file, offset, len }, DiskOp::Sync(file)]);
                    }
                }
                self.next_len =
                    if is_full { self.next_len } else { (len_new * 2).min(self.limits.file_bytes) };
                len_new
            }
        };
        let previous = self.newest();
        let cipher = self.limits.vault.cipher();
        let key_check = self.limits.vault.key_check();
        let header = FileHeader { shard: self.limits.shard, number, previous, len, salt, cipher, key_check };
        ops.push(DiskOp::Write { file, offset: 0, data: vec![header.encode()] });
        ops.push(DiskOp::Sync(file));
        ops.push(DiskOp::SyncDir(Dir::Root));
        (header, ops)
    }

    /// Files that nothing needs beyond those that spares are made of.
    pub(crate) fn surplus(&mut self, keep: usize) -> Vec<DiskOp> {
        let surplus = self.free.split_off(keep.min(self.free.len()));
        surplus.into_iter().map(|(number, _)| DiskOp::Remove(FileId::Wal(number))).collect()
    }

    /// How many files are ready.
    pub(crate) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Bytes that can be written without making another file.
    pub(crate) fn space_left(&self) -> u64 {
        self.room() + self.spares.iter().map(|spare| spare.len - WAL_HEADER_BYTES).sum::<u64>()
    }

    /// Where the next window goes.
    pub(crate) fn end(&self) -> WalPosition {
        self.end
    }

    pub(crate) fn durable(&self) -> WalPosition {
        self.durable
    }

    /// The next window.
    pub(crate) fn next_mark(&self) -> WindowMark {
        WindowMark { session: self.session, number: self.next_window }
    }

    /// Bytes of log that recovery would read.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let full: u64 = self.files.iter().map(|file| file.header.len).sum();
        let front = self.files.front().filter(|file| file.header.number == self.base.file);
        full - self.room() - front.map_or(WAL_HEADER_BYTES, |_| self.base.offset)
    }

    /// The newest file that is ready or in use; 0 if there is none.
    fn newest(&self) -> u64 {
        self.spares.back().map_or(self.end.file, |spare| spare.number)
    }

    /// The file that is written to; None if it was made for another cipher: the log goes on in the next one.
    fn writable(&self) -> Option<&WalFile> {
        self.files.back().filter(|file| file.header.cipher == self.limits.vault.cipher())
    }

    fn room(&self) -> u64 {
        self.writable().map_or(0, |file| file.header.len - self.end.offset.min(file.header.len))
    }

    /// Moves the groups' tails, or leaves them all as they were.
    fn advance_tails(&mut self, frames: &[Frame]) -> Result<(), AppendError> {
        let mut undo: Vec<(GroupId, LogIndex)> = Vec::with_capacity(frames.len());
        for frame in frames.iter().filter(|frame| frame.kind().is_logged()) {
            let tail = self.tails.entry(frame.group()).or_default();
            if frame.first() > tail.next() {
                let gap =
                    AppendError::Gap { group: frame.group(), expected: tail.next(), found: frame.first() };
                undo.into_iter().rev().for_each(|(group, tail)| {
                    self.tails.insert(group, tail);
                });
                return Err(gap);
            }
            undo.push((frame.group(), *tail));
            *tail = frame.last();
        }
        Ok(())
    }

    /// A file that takes the longest frame.
    fn least_len(&self) -> u64 {
        (self.limits.frame_bytes_max + 2 * WAL_HEADER_BYTES).next_multiple_of(WAL_HEADER_BYTES)
    }

    /// A frame that is longer than any so far makes all further files longer: what clients may send can be raised while
    /// the store is open, and streams copy what was stored when more was allowed. `is_full` says that no file can be made.
    fn check_lengths(&mut self, frames: &[Frame], is_full: bool) -> Result<(), AppendError> {
        let longest = frames.iter().map(|frame| frame.body().len() as u64).max().unwrap_or(0);
        if longest <= self.limits.frame_bytes_max {
            return Ok(());
        }
        if longest > FRAME_BYTES_MAX {
            return Err(AppendError::TooLong { bytes: longest, max: FRAME_BYTES_MAX });
        }
        if is_full {
            return Err(AppendError::NotReady);
        }
        self.limits.frame_bytes_max = longest;
        self.next_len = self.next_len.max(self.least_len());
        self.limits.file_bytes = self.limits.file_bytes.max(self.next_len);
        self.dropped.extend(self.spares.drain(..).map(|spare| spare.number));
        Ok(())
    }

    /// How many frames there is space for.
    fn check_space(&self, frames: &[Frame]) -> usize {
        let overhead = self.limits.vault.overhead();
        let mut spares = self.spares.iter();
        let mut offset = self.end.offset;
        let mut len = self.writable().map_or(0, |file| file.header.len);
        let mut rest = frames;
        while !rest.is_empty() {
            let taken = fitting(rest, overhead, len.saturating_sub(offset));
            if taken == 0 {
                let Some(spare) = spares.next() else { break };
                (len, offset) = (spare.len, WAL_HEADER_BYTES);
                continue;
            }
            offset = align(offset + window_bytes(&rest[..taken], overhead));
            rest = &rest[taken..];
        }
        frames.len() - rest.len()
    }

    fn switch(&mut self) -> bool {
        let Some(header) = self.spares.pop_front() else { return false };
        // A store that fills a file is worth a longer one; one that never does stays small.
        self.next_len = self.next_len.max(header.len * 2).min(self.limits.file_bytes);
        self.end = WalPosition { file: header.number, offset: WAL_HEADER_BYTES };
        let start = WalStart { position: self.end, window: self.next_window, session: self.session };
        self.files.push_back(WalFile { header, start, groups: Map::default() });
        true
    }

    fn write(&mut self, kind: WindowKind, frames: &[Frame], ops: &mut Vec<DiskOp>) {
        let mark = self.next_mark();
        let bytes = window_bytes(frames, self.limits.vault.overhead());
        let stored = stored(&self.limits.vault, mark, frames);
        let head = WindowHead {
            kind,
            number: self.next_window,
            session: self.session,
            durable: self.durable,
            frames: u32::try_from(frames.len()).expect("invariant: fitting() takes few frames"),
            bytes: u32::try_from(bytes).expect("invariant: fitting() stops at WINDOW_BYTES_MAX"),
        };
        let file = self.files.back_mut().expect("invariant: there is a file to write to");
        assert!(self.end.offset + bytes <= file.header.len, "a window stays inside of its file");
        assert_eq!(file.header.cipher, self.limits.vault.cipher(), "a file has one cipher");
        let data = gather(encode_head(&file.header, &head, &stored), stored);
        ops.push(DiskOp::Write { file: FileId::Wal(file.header.number), offset: self.end.offset, data });
        for frame in frames {
            let seen = file.groups.entry(frame.group()).or_default();
            match frame.kind() {
                FrameKind::Note => seen.note = mark,
                _ => seen.last = seen.last.max(frame.last()),
            }
        }
        if self.unsynced.last() != Some(&file.header.number) {
            self.unsynced.push(file.header.number);
        }
        self.end.offset = align(self.end.offset + bytes);
        self.next_window += 1;
        self.usual_window = (7 * self.usual_window + bytes) / 8;
    }
}

/// Frames as they are written; shares the bodies where nothing seals them.
fn stored<'a>(vault: &Vault, window: WindowMark, frames: &'a [Frame]) -> Vec<StoredFrame<'a>> {
    let one = |(at, frame): (usize, &'a Frame)| {
        if vault.cipher().is_none() {
            return StoredFrame { frame, body: frame.body().clone(), crc: frame.crc() };
        }
        let mut body = Vec::new();
        let place = Place::frame(window, at, frame.meta(), frame.count());
        vault.seal(place, &[frame.body()], &mut body);
        StoredFrame { frame, crc: crc32fast::hash(&body), body: body.into() }
    };
    frames.iter().enumerate().map(one).collect()
}

/// How many of the frames, each longer by `overhead`, make one window of at most `room` bytes.
fn fitting(frames: &[Frame], overhead: usize, room: u64) -> usize {
    let mut bytes = head_bytes(0) as u64;
    let limit = room.min(WINDOW_BYTES_MAX);
    let fits = |frame: &&Frame| {
        bytes += (head_bytes(1) - head_bytes(0) + overhead + frame.body().len()) as u64;
        bytes <= limit
    };
    frames.iter().take(WINDOW_FRAMES_MAX).take_while(fits).count()
}

fn window_bytes(frames: &[Frame], overhead: usize) -> u64 {
    let bodies = frames.iter().map(|frame| (frame.body().len() + overhead) as u64).sum::<u64>();
    head_bytes(frames.len()) as u64 + bodies
}

/// The pieces of a window: short bodies are copied together, long ones stay where they are.
fn gather(head: Vec<u8>, frames: Vec<StoredFrame<'_>>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = head;
    let short: usize = frames.iter().map(|frame| frame.body.len()).filter(|&len| len < GATHER_BYTES).sum();
    piece.reserve(short);
    for StoredFrame { body, .. } in frames {
        if body.len() < GATHER_BYTES {
            piece.extend_from_slice(&body);
            continue;
        }
        if !piece.is_empty() {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
        pieces.push(body);
    }
    if !piece.is_empty() {
        pieces.push(piece.into());
    }
    pieces
}
