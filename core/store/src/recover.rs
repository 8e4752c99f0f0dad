//! Opening a shard's store: the last checkpoint, then the log behind it, then a new session.
//!
//! Reading changes nothing; only when everything was read and understood is the folder tidied up and written to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Map, Rng, ShardId};

use crate::checkpoint::{Checkpoint, CheckpointHead, Entry, EntryKind, decode};
use crate::damage::{Damage, Flaw};
use crate::frame::{Frame, FrameKind};
use crate::layout::{Dir, FileId};
use crate::limits::WAL_HEADER_BYTES;
use crate::op::{Disk, DiskError, DiskOp, Listing, length, list, read, run_all};
use crate::segment::{SegmentId, SegmentInfo};
use crate::segment_reader::read_segment_info;
use crate::storage::{GroupMeta, Held, Quarantine, Storage, StorageOptions, StorageParts};
use crate::vault::Vault;
use crate::wal::{Wal, WalFile, WalParts, WalStart, WindowMark};
use crate::wal_scan::{ScanError, Scanned, ScannedFrame, UnusedFile, WalScan};
use crate::wal_window::{FileHeader, WalPosition, WindowKind};
use crate::witness::{WITNESS_BYTES, Witness};

/// What comes back from the disk, in this order: groups, each followed by its segments; then the log.
#[derive(Debug)]
pub enum Recovered {
    /// A group's state as of its last checkpoint.
    Group(RecoveredGroup),
    /// What one of the group's segments holds.
    Segment(SegmentInfo),
    /// One of the group's segments cannot be used. Its file stays.
    SegmentDamaged {
        /// Which segment.
        id: SegmentId,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Log entries that the state does not contain, or a note that it does not contain.
    Replay(Replay),
    /// A checkpoint was to overwrite what it superseded and may not have: another full one should be made soon.
    Unerased,
    /// A group must not be used: what was handed out of it so far is to be dropped. Its files stay.
    Quarantined {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        reason: String,
        /// The highest segment number that was ever used, as far as is known: who makes the group anew begins above.
        last_segment: u64,
    },
}

/// A group's state as of its last checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredGroup {
    /// Which.
    pub group: GroupId,
    /// The last log entry that the state contains.
    pub applied: LogIndex,
    /// That entry's term.
    pub term: u64,
    /// The state.
    pub state: Bytes,
    /// The segments that hold its messages.
    pub live_segments: Vec<u64>,
    /// The highest segment number that was ever used: new ones are above.
    pub last_segment: u64,
}

/// A frame of the log's tail.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The frame.
    pub frame: Frame,
    /// So many of its entries are in the state already.
    pub skip: u32,
}

impl Replay {
    /// The entries that are not in the state yet.
    pub fn entries(&self) -> impl Iterator<Item = (LogIndex, Bytes)> + '_ {
        let first = self.frame.first().0;
        let all = self.frame.entries().enumerate();
        all.skip(self.skip as usize).map(move |(at, entry)| (LogIndex(first + at as u64), entry))
    }
}

/// Why a shard's store cannot be opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecoverError {
    /// Something that was durable is lost and it cannot be told which groups it concerns. Nothing was changed.
    #[error("{0}")]
    Damaged(#[from] Damage),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<ScanError> for RecoverError {
    fn from(error: ScanError) -> RecoverError {
        match error {
            ScanError::Damage(damage) => RecoverError::Damaged(damage),
            ScanError::Disk(error) => RecoverError::Disk(error),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecoveryReport {
    /// How many times the store has been opened.
    pub session: u32,
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<u64>,
    /// Groups with a state.
    pub groups: u64,
    /// Segments that the states refer to.
    pub segments: u64,
    /// Windows of the log that were read.
    pub windows: u64,
    /// Frames in them.
    pub frames: u64,
    /// Windows at the log's end that were not complete and were cut: never acknowledged.
    pub torn_windows: u64,
    /// Damaged groups and why.
    pub quarantined: Vec<(GroupId, String)>,
    /// Damaged segments.
    pub damaged_segments: Vec<Damage>,
    /// Groups that lost what came after some entry, and why: only where losses are accepted.
    pub given_up: Vec<(GroupId, String)>,
    /// Segments of unknown groups that were put aside.
    pub orphans: Vec<SegmentId>,
    /// Names that the store does not know; left alone.
    pub foreign: Vec<String>,
}

/// Everything that reading found.
pub(crate) struct Found {
    pub report: RecoveryReport,
    head: Option<CheckpointHead>,
    chain: Vec<(u64, u64)>,
    groups: BTreeMap<GroupId, GroupMeta>,
    dropped: BTreeMap<GroupId, WindowMark>,
    tails: Map<GroupId, LogIndex>,
    seen: BTreeSet<GroupId>,
    held: Held,
    scanned: Scanned,
    root: Vec<(FileId, u64)>,
    pub segments: Vec<(FileId, u64)>,
    accept_loss: bool,
    witness: Witness,
    /// The states that were handed out: a group that must go to quarantine later keeps its own.
    states: Map<GroupId, Bytes>,
}

/// How a store is read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub shard: ShardId,
    pub accept_loss: bool,
    pub vault: Vault,
}

/// Opens the store of one shard. `disk` runs one operation; `each` gets what is found.
pub fn recover(
    options: StorageOptions,
    disk: &mut Disk<'_>,
    each: &mut dyn FnMut(Recovered),
) -> Result<(Storage, RecoveryReport), RecoverError> {
    let options = options.normal();
    for dir in [Dir::Root, Dir::Segments, Dir::Quarantine] {
        disk(DiskOp::MakeDir(dir))?;
    }
    let reading =
        Reading { shard: options.shard, accept_loss: options.accept_loss, vault: options.vault.clone() };
    let mut found = load(&reading, disk, each)?;
    if !options.accept_loss {
        found.is_readable()?;
    }
    let session = next_session(&found);
    let mut salts = Rng::new(options.salt ^ u64::from(session).rotate_left(32));
    let cleanup = cleanup_ops(&mut found, session);
    let mut wal = open_wal(&options, &mut found, session, &mut salts, disk)?;
    // What is not sealed, or with another cipher, must not stay either.
    if found.head.is_some_and(|head| head.erases) || options.vault.is_changing() {
        wal.taint();
        each(Recovered::Unerased);
    }
    run_all(cleanup, disk)?;
    let has_reserve = keep_reserve(&options, &found, disk)?;
    let witness = open_witness(&options, &found, (session, wal.end()), disk)?;
    let mut report = std::mem::take(&mut found.report);
    report.session = session;
    let newest = found.root.iter().filter_map(|(file, _)| checkpoint_number(*file)).max().unwrap_or(0);
    let storage = Storage::new(StorageParts {
        options,
        wal,
        groups: found.groups,
        chain: found.chain,
        next_checkpoint: newest + 1,
        dropped: found.dropped,
        held: found.held,
        has_reserve,
        witness,
        salts,
    });
    Ok((storage, report))
}

/// Reads everything but the messages, changes nothing.
pub(crate) fn load(
    reading: &Reading,
    disk: &mut Disk<'_>,
    each: &mut dyn FnMut(Recovered),
) -> Result<Found, RecoverError> {
    let Listing { files: root, mut foreign } = list(Dir::Root, disk)?;
    let Listing { files: segments, foreign: more } = list(Dir::Segments, disk)?;
    foreign.retain(|name| ![Dir::Segments.path(), Dir::Quarantine.path()].contains(&name.as_str()));
    foreign.extend(more.into_iter().map(|name| format!("{}/{name}", Dir::Segments.path())));
    let (head, chain, entries, mut held) = load_chain(reading, &root, disk)?;
    let mut found = Found {
        report: RecoveryReport {
            checkpoint: head.map(|head| head.number),
            foreign,
            ..RecoveryReport::default()
        },
        head,
        chain,
        groups: BTreeMap::new(),
        dropped: entries.dropped,
        tails: Map::default(),
        seen: BTreeSet::new(),
        held: Held::default(),
        scanned: Scanned::default(),
        root,
        segments,
        accept_loss: reading.accept_loss,
        witness: Witness::default(),
        states: Map::default(),
    };
    std::mem::swap(&mut found.held, &mut held);
    for (group, entry) in entries.newest {
        load_group(group, entry, &mut found, disk, each);
    }
    load_wal(reading, &mut found, disk, each)?;
    Ok(found)
}

/// What checkpoints say of groups: the newest entry of each; and before which window what the log has is of an earlier life.
#[derive(Default)]
struct Entries {
    newest: BTreeMap<GroupId, Result<Entry, Damage>>,
    dropped: BTreeMap<GroupId, WindowMark>,
}

impl Entries {
    /// Takes the next entry; the newest come first.
    fn take(&mut self, group: GroupId, entry: Result<Entry, Damage>, accept_loss: bool) {
        if let Ok(Entry { kind: EntryKind::Dropped, captured, .. }) = &entry {
            let mark = self.dropped.entry(group).or_default();
            *mark = (*mark).max(*captured);
        }
        // An older one is better than none.
        let is_better = accept_loss && entry.is_ok() && matches!(self.newest.get(&group), Some(Err(_)));
        if is_better || !self.newest.contains_key(&group) {
            self.newest.insert(group, entry);
        }
    }
}

type Chain = (Option<CheckpointHead>, Vec<(u64, u64)>, Entries, Held);

/// Reads the newest checkpoint and those that it builds on.
fn load_chain(reading: &Reading, root: &[(FileId, u64)], disk: &mut Disk<'_>) -> Result<Chain, RecoverError> {
    let (mut chain, mut entries, mut held) = (Vec::new(), Entries::default(), Held::default());
    let mut next = root.iter().filter_map(|(file, _)| checkpoint_number(*file)).max().unwrap_or(0);
    let mut newest = None;
    while next != 0 {
        let Checkpoint { head, entries: listed, .. } = load_checkpoint(reading, next, disk, &mut chain)?;
        for (group, entry) in listed {
            if entry.is_err() {
                held.checkpoints.insert(next);
            }
            // The newest entry of a group counts; the chain is read backwards.
            entries.take(group, entry, reading.accept_loss);
        }
        newest = newest.or(Some(head));
        next = head.previous;
    }
    chain.reverse();
    Ok((newest, chain, entries, held))
}

fn load_checkpoint(
    reading: &Reading,
    number: u64,
    disk: &mut Disk<'_>,
    chain: &mut Vec<(u64, u64)>,
) -> Result<Checkpoint, RecoverError> {
    let file = FileId::Checkpoint(number);
    let missing = |error: DiskError| match error {
        DiskError::NotFound { .. } => RecoverError::Damaged(Damage::new(file, 0, Flaw::Missing)),
        other => RecoverError::Disk(other),
    };
    let len = length(file, disk).map_err(missing)?;
    let bytes = read(file, 0, len, disk).map_err(missing)?;
    let checkpoint = decode(number, &bytes, &reading.vault)?;
    if checkpoint.cipher.is_some() && reading.vault.cipher().is_none() {
        return Err(Damage::new(file, 0, Flaw::NoKey).into());
    }
    if checkpoint.head.shard != reading.shard {
        let found = format!("a checkpoint of shard {}", checkpoint.head.shard);
        return Err(Damage::new(file, 0, Flaw::Misplaced { found }).into());
    }
    chain.push((number, len));
    Ok(checkpoint)
}

fn load_group(
    group: GroupId,
    entry: Result<Entry, Damage>,
    found: &mut Found,
    disk: &mut Disk<'_>,
    each: &mut dyn FnMut(Recovered),
) {
    let entry = match entry {
        Ok(entry) => entry,
        Err(damage) => {
            found.quarantine(group, damage.to_string(), each);
            return;
        }
    };
    let Entry { mut kind, applied, term, captured, last_segment, live, reason, state, .. } = entry;
    if kind == EntryKind::Dropped {
        return;
    }
    if kind == EntryKind::Quarantined && found.accept_loss && !state.is_empty() {
        // As it was when it was last sound.
        found.report.given_up.push((group, reason.clone()));
        kind = EntryKind::Live;
    }
    let meta = GroupMeta { applied, term, captured, last_segment, live: live.clone(), quarantine: None };
    found.groups.insert(group, meta);
    found.tails.insert(group, applied);
    if kind == EntryKind::Quarantined {
        found.quarantine(group, reason, each);
        if let Some(kept) = found.groups.get_mut(&group).and_then(|meta| meta.quarantine.as_mut()) {
            kept.state = Bytes::copy_from_slice(&state);
        }
        return;
    }
    found.states.insert(group, state.clone());
    found.report.groups += 1;
    found.report.segments += live.len() as u64;
    each(Recovered::Group(RecoveredGroup {
        group,
        applied,
        term,
        state,
        live_segments: live.clone(),
        last_segment,
    }));
    for number in live {
        let id = SegmentId { group, number };
        let len =
            found.segments.binary_search_by_key(&id.file(), |(file, _)| *file).map(|at| found.segments[at].1);
        let info = match len {
            Ok(len) => read_segment_info(id, len, disk),
            Err(_) => Err(Damage::new(id.file(), 0, Flaw::Missing)),
        };
        match info {
            Ok(info) => each(Recovered::Segment(info)),
            Err(damage) => {
                // One that is missing cannot be put aside.
                if len.is_ok() {
                    found.held.segments.insert(id);
                }
                found.report.damaged_segments.push(damage.clone());
                each(Recovered::SegmentDamaged { id, damage });
            }
        }
    }
}

fn load_wal(
    reading: &Reading,
    found: &mut Found,
    disk: &mut Disk<'_>,
    each: &mut dyn FnMut(Recovered),
) -> Result<(), RecoverError> {
    let wal_files = found.root.iter().filter_map(|&(file, len)| match file {
        FileId::Wal(number) => Some((number, len)),
        _ => None,
    });
    let files: Vec<(u64, u64)> = wal_files.collect();
    let witness = Witness::read(reading.shard, disk)?;
    let mut scan = WalScan::new((reading.shard, &reading.vault, false), &files, disk)?;
    if let Some(head) = found.head {
        scan.set_claim(head.durable, head.captured.session);
    }
    found.witness = witness;
    scan.set_claim(found.witness.durable, found.witness.session);
    scan.set_accept_loss(found.accept_loss);
    let start = found.head.map(|head| head.start);
    let scanned = scan.run(start, &mut |frame| found.replay(frame, each))?;
    found.report.windows = scanned.windows;
    found.report.frames = scanned.frames;
    found.report.torn_windows = scanned.torn_windows;
    for file in &scanned.files {
        let is_damaged =
            |group: &GroupId| found.groups.get(group).is_some_and(|meta| meta.quarantine.is_some());
        if file.groups.keys().any(is_damaged) {
            found.held.wal.insert(file.header.number);
        }
    }
    found.scanned = scanned;
    Ok(())
}

impl Found {
    /// A segment that the disk does not read just now is not damaged, and what the log says of its messages cannot be done
    /// without it: what is deleted would come back with it.
    fn is_readable(&self) -> Result<(), DiskError> {
        let unreadable = self.report.damaged_segments.iter().find_map(|damage| match &damage.flaw {
            Flaw::Unreadable { reason } => {
                Some(DiskError::Failed { place: damage.file.path(), reason: reason.clone() })
            }
            _ => None,
        });
        unreadable.map_or(Ok(()), Err)
    }

    /// Hands on what the group's state does not contain.
    fn replay(&mut self, scanned: ScannedFrame, each: &mut dyn FnMut(Recovered)) {
        let ScannedFrame { mark, head, frame } = scanned;
        let group = head.meta.group;
        self.seen.insert(group);
        let meta = self.groups.get(&group);
        // What a group that went had in the log; later frames are of the same group that is here again, whether a checkpoint has
        // that or not.
        let is_gone = self.dropped.get(&group).is_some_and(|captured| mark < *captured);
        if is_gone || meta.is_some_and(|meta| meta.quarantine.is_some()) {
            return;
        }
        let (applied, term, captured) =
            meta.map_or_else(Default::default, |meta| (meta.applied, meta.term, meta.captured));
        if head.meta.kind == FrameKind::Note {
            // The state was taken after this note was written: it contains it.
            if mark < captured {
                return;
            }
            match frame {
                Ok(frame) => each(Recovered::Replay(Replay { frame, skip: 0 })),
                Err(damage) => self.quarantine(group, damage.to_string(), each),
            }
            return;
        }
        let last = head.meta.kind.last(head.meta.first, head.count);
        // A term below that of the state's last entry: left over from before a snapshot replaced this part of the log.
        let voids = last == applied && matches!(head.meta.kind, FrameKind::Batch | FrameKind::Change);
        if last < applied || last == applied && !voids || head.meta.term < term {
            return;
        }
        let tail = self.tails.get(&group).copied().unwrap_or_default();
        let frame = match frame {
            Ok(frame) if frame.first() <= tail.next() => frame,
            Ok(frame) => {
                let flaw = Flaw::Gap { group: group.0, expected: tail.next().0, found: frame.first().0 };
                return self.lose(group, flaw.to_string(), each);
            }
            Err(damage) => return self.lose(group, damage.to_string(), each),
        };
        self.tails.insert(group, frame.last());
        let skip = (applied.0 + 1).saturating_sub(frame.first().0);
        let skip = u32::try_from(skip).expect("invariant: the frame reaches beyond what is applied");
        each(Recovered::Replay(Replay { frame, skip }));
    }

    /// The group's log cannot be followed beyond here.
    fn lose(&mut self, group: GroupId, reason: String, each: &mut dyn FnMut(Recovered)) {
        if !self.accept_loss {
            return self.quarantine(group, reason, each);
        }
        // Everything further on is a gap: the first reason counts.
        if !self.report.given_up.iter().any(|(given_up, _)| *given_up == group) {
            self.report.given_up.push((group, reason));
        }
    }

    fn quarantine(&mut self, group: GroupId, reason: String, each: &mut dyn FnMut(Recovered)) {
        // Whatever there is of the group stays: also if it is rebuilt or dropped later, its files are only put aside.
        let listed = self.segments.iter().filter_map(|(file, _)| match file {
            FileId::Segment(of, number) if *of == group => Some(*number),
            _ => None,
        });
        let listed: Vec<u64> = listed.collect();
        self.held.segments.extend(listed.iter().map(|&number| SegmentId { group, number }));
        self.held.checkpoints.extend(self.chain.iter().map(|(number, _)| *number));
        let meta = self.groups.entry(group).or_default();
        meta.last_segment = listed.last().copied().unwrap_or(0).max(meta.last_segment);
        meta.live = listed;
        let last_segment = meta.last_segment;
        // A copy: it must not pin the whole checkpoint.
        let state = self.states.get(&group).map(|state| Bytes::copy_from_slice(state)).unwrap_or_default();
        meta.quarantine = Some(Quarantine { reason: reason.clone(), state });
        self.report.quarantined.push((group, reason.clone()));
        each(Recovered::Quarantined { group, reason, last_segment });
    }
}

fn next_session(found: &Found) -> u32 {
    let by_checkpoint = found.head.map_or(0, |head| head.captured.session);
    found.scanned.session.max(by_checkpoint).max(found.witness.session) + 1
}

/// What removes leftovers and puts aside what is not known.
fn cleanup_ops(found: &mut Found, session: u32) -> Vec<DiskOp> {
    let mut ops = Vec::new();
    for &(file, _) in &found.root {
        let is_leftover = match file {
            FileId::CheckpointTemp(_) => true,
            FileId::Checkpoint(number) => !found.chain.iter().any(|(known, _)| *known == number),
            _ => false,
        };
        if is_leftover {
            ops.push(DiskOp::Remove(file));
        }
    }
    let erases = found.head.is_some_and(|head| head.erases);
    let remove = |ops: &mut Vec<DiskOp>, file: FileId| {
        ops.extend(erases.then_some(DiskOp::Erase(file)));
        ops.push(DiskOp::Remove(file));
    };
    for &(file, _) in &found.segments {
        let FileId::Segment(group, number) = file else {
            ops.push(DiskOp::Remove(file));
            continue;
        };
        let meta = found.groups.get(&group);
        match meta {
            Some(meta) if meta.quarantine.is_some() || meta.live.contains(&number) => {}
            // No checkpoint refers to it: left over from one that was not completed, or from before one that was.
            // What a repair goes back behind is kept.
            Some(_) if found.accept_loss => {
                ops.extend(file.quarantined(session).map(|to| DiskOp::Rename { from: file, to }));
            }
            Some(_) => remove(&mut ops, file),
            None if found.seen.contains(&group) || found.dropped.contains_key(&group) => {
                remove(&mut ops, file);
            }
            None => {
                ops.extend(file.quarantined(session).map(|to| DiskOp::Rename { from: file, to }));
                found.report.orphans.push(SegmentId { group, number });
            }
        }
    }
    ops
}

/// Makes the log ready for the new session: nothing of its tail can come back, and there is a file to write to.
fn open_wal(
    options: &StorageOptions,
    found: &mut Found,
    session: u32,
    salts: &mut Rng,
    disk: &mut Disk<'_>,
) -> Result<Wal, RecoverError> {
    let mut scanned = std::mem::take(&mut found.scanned);
    let mut parts = WalParts {
        tails: std::mem::take(&mut found.tails),
        end: scanned.end,
        session,
        next_window: scanned.next_window,
        next_number: 1 + found.root.iter().map(|(file, _)| wal_number(*file).unwrap_or(0)).max().unwrap_or(0),
        ..WalParts::default()
    };
    // A process may have died while the system had not written everything: now it is made durable, then claimed.
    let mut ops: Vec<DiskOp> =
        scanned.files.iter().map(|file| DiskOp::Sync(FileId::Wal(file.header.number))).collect();
    let longest =
        found.root.iter().filter(|(file, _)| wal_number(*file).is_some()).map(|(_, len)| *len).max();
    parts.files = scanned.files;
    keep_places(&mut parts, &mut scanned.unused);
    if options.vault.is_changing() {
        // They hold what they held before. The newest goes first: a file names the one before it, which must be there.
        for UnusedFile { number, .. } in scanned.unused.drain(..).rev() {
            ops.extend([DiskOp::Erase(FileId::Wal(number)), DiskOp::Remove(FileId::Wal(number))]);
        }
    }
    for UnusedFile { number, len, header } in scanned.unused {
        let least = options.wal_first_bytes.min(options.frame_bytes_max + 2 * WAL_HEADER_BYTES);
        let is_usable = header.is_some() && len >= least;
        if number < parts.end.file || !is_usable {
            parts.free.push((number, len));
            continue;
        }
        // A new salt: windows that were cut together with the tail are not seen again.
        let previous = parts.spares.back().map_or(parts.end.file, |spare| spare.number);
        let header = FileHeader {
            shard: options.shard,
            number,
            previous,
            len,
            salt: salts.next_u64(),
            cipher: options.vault.cipher(),
            key_check: options.vault.key_check(),
        };
        let file = FileId::Wal(number);
        ops.push(DiskOp::Write { file, offset: 0, data: vec![header.encode()] });
        ops.push(DiskOp::Sync(file));
        parts.spares.push_back(header);
    }
    run_all(ops, disk)?;
    let next_len = longest.unwrap_or(0).clamp(options.wal_first_bytes, options.wal_file_bytes);
    let mut wal = Wal::new(options.limits(), parts, next_len);
    let mut ops = Vec::new();
    if !wal.mark(WindowKind::Open, &mut ops) {
        let (header, make) = wal.make_spare(salts.next_u64(), false);
        run_all(make, disk)?;
        wal.handle_spare(header);
        let has_room = wal.mark(WindowKind::Open, &mut ops);
        assert!(has_room, "a new file has room for a window");
    }
    wal.sync(&mut ops);
    ops.push(DiskOp::SyncDir(Dir::Root));
    run_all(ops, disk)?;
    wal.handle_synced(wal.end());
    Ok(wal)
}

/// Where the log went on in the next file before anything was written to one, the next one names it: it stays in its place.
fn keep_places(parts: &mut WalParts, unused: &mut Vec<UnusedFile>) {
    let oldest = parts.files.front().map_or(u64::MAX, |file| file.header.number);
    let places = oldest..parts.end.file;
    for header in unused.iter().filter_map(|file| file.header).filter(|one| places.contains(&one.number)) {
        let position = WalPosition { file: header.number, offset: WAL_HEADER_BYTES };
        let start = WalStart { position, ..WalStart::default() };
        let at = parts.files.partition_point(|file| file.header.number < header.number);
        parts.files.insert(at, WalFile { header, start, groups: Map::default() });
    }
    unused.retain(|file| file.header.is_none() || !places.contains(&file.number));
}

/// The reserve, if there is space for it.
fn keep_reserve(options: &StorageOptions, found: &Found, disk: &mut Disk<'_>) -> Result<bool, RecoverError> {
    if found.root.iter().any(|(file, len)| *file == FileId::Reserve && *len == options.reserve_bytes) {
        return Ok(true);
    }
    let file = FileId::Reserve;
    let ops = vec![DiskOp::Create(file), DiskOp::Fill { file, offset: 0, len: options.reserve_bytes }];
    match run_all(ops, disk) {
        Ok(()) => Ok(true),
        Err(DiskError::Full { .. }) => {
            disk(DiskOp::Remove(file))?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Says that the new session has begun.
fn open_witness(
    options: &StorageOptions,
    found: &Found,
    (session, durable): (u32, WalPosition),
    disk: &mut Disk<'_>,
) -> Result<Witness, RecoverError> {
    let file = FileId::Witness;
    if !found.root.iter().any(|&(other, len)| other == file && len == WITNESS_BYTES) {
        let make = vec![
            DiskOp::Create(file),
            DiskOp::Fill { file, offset: 0, len: WITNESS_BYTES },
            DiskOp::Sync(file),
            DiskOp::SyncDir(Dir::Root),
        ];
        run_all(make, disk)?;
    }
    let witness = Witness { session, durable, count: found.witness.count + 1 };
    run_all(witness.ops(options.shard).into(), disk)?;
    Ok(witness)
}

fn checkpoint_number(file: FileId) -> Option<u64> {
    match file {
        FileId::Checkpoint(number) => Some(number),
        _ => None,
    }
}

fn wal_number(file: FileId) -> Option<u64> {
    match file {
        FileId::Wal(number) => Some(number),
        _ => None,
    }
}
