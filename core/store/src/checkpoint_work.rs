//! Making a checkpoint: checked and numbered on the shard's writer, encoded and written elsewhere, settled by the writer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex};

use crate::checkpoint::{CheckpointHead, Entry, EntryKind, encode};
use crate::layout::{Dir, FileId};
use crate::messages::{SegmentInput, Written};
use crate::op::DiskOp;
use crate::segment::{SegmentId, SegmentJob, SegmentWriter};
use crate::storage::{GroupMeta, Storage};
use crate::vault::Vault;
use crate::wal::{Seen, WindowMark};
use crate::wal_window::WalPosition;

/// What a checkpoint is to hold.
#[derive(Debug, Default)]
pub struct CheckpointJob {
    /// Groups as they are now. Those that did not change since they were last in a checkpoint may be left out, unless
    /// the checkpoint is full. A note counts as a change.
    pub groups: Vec<GroupCheckpoint>,
    /// Groups that are gone for good: their segments are removed, their log entries never come back.
    pub dropped: Vec<GroupId>,
    /// Whether it holds all groups, so that earlier checkpoints can go; see [`Storage::wants_full`].
    pub full: bool,
    /// What must not stay on disk.
    pub erase: Erase,
}

/// What a checkpoint overwrites before it is removed. The checkpoint should be a full one: a partial one keeps the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Erase {
    /// Everything that the log holds now. May take several checkpoints: see [`CheckpointDone::unerased`].
    pub log: bool,
    /// The segments that the checkpoint makes superfluous.
    pub segments: bool,
}

/// One group's part.
#[derive(Debug, Default)]
pub struct GroupCheckpoint {
    /// Which.
    pub group: GroupId,
    /// The last log entry that the state contains.
    pub applied: LogIndex,
    /// That entry's term.
    pub term: u64,
    /// Everything that is not in segments; includes what notes said.
    pub state: Bytes,
    /// Segments to write, numbered above all earlier ones.
    pub new_segments: Vec<NewSegment>,
    /// The numbers of all segments that hold messages of the state, new ones included. Others are removed.
    pub live_segments: Vec<u64>,
}

/// Messages to write to a segment.
#[derive(Debug, Default)]
pub struct NewSegment {
    /// Its number.
    pub number: u64,
    /// Its messages.
    pub messages: SegmentInput,
    /// Whether they are compressed.
    pub packed: bool,
}

/// Why a checkpoint was not begun. Nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointRefused {
    /// A disk operation failed before.
    #[error("the store stopped after a failure: {reason}")]
    Stopped {
        /// The failure.
        reason: String,
    },
    /// One is being made.
    #[error("another checkpoint is being made")]
    Busy,
    /// A full checkpoint must hold all groups.
    #[error("group {group} is missing in a full checkpoint")]
    Missing {
        /// The group.
        group: GroupId,
    },
    /// The group appears twice, or is dropped and kept.
    #[error("group {group} appears twice in a checkpoint")]
    Twice {
        /// The group.
        group: GroupId,
    },
    /// A state cannot be older than one that was saved.
    #[error("group {group} was saved at entry {saved} and cannot be saved at {applied}")]
    Backwards {
        /// The group.
        group: GroupId,
        /// The entry of the last checkpoint.
        saved: LogIndex,
        /// The entry of this one.
        applied: LogIndex,
    },
    /// A segment number is used again, or a live segment does not exist.
    #[error("segment {number} of group {group} is used twice or does not exist")]
    Segment {
        /// The group.
        group: GroupId,
        /// The segment.
        number: u64,
    },
}

/// What a checkpoint wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointDone {
    /// The checkpoint's number.
    pub number: u64,
    /// The segments that it wrote.
    pub written: Vec<(GroupId, Written)>,
    /// The segments that it made superfluous.
    pub removed: Vec<SegmentId>,
    /// Log files that [`Erase::log`] asked to be overwritten are still in use: another full checkpoint goes on with them.
    pub unerased: bool,
}

#[derive(Debug)]
enum Stage {
    Start,
    Segments,
    Checkpoint,
    Rename,
    Done,
}

/// A checkpoint that is being made. Plain data: it may go to another thread.
#[derive(Debug)]
pub struct CheckpointWork {
    head: CheckpointHead,
    full: bool,
    entries: Vec<Entry>,
    segments: VecDeque<(SegmentId, NewSegment)>,
    open: Option<(SegmentId, SegmentJob)>,
    stage: Stage,
    first: Vec<DiskOp>,
    file_len: u64,
    metas: BTreeMap<GroupId, GroupMeta>,
    dropped: Vec<GroupId>,
    vault: Vault,
    done: CheckpointDone,
}

impl CheckpointWork {
    pub(crate) fn begin(
        storage: &mut Storage,
        job: CheckpointJob,
    ) -> Result<CheckpointWork, CheckpointRefused> {
        check(storage, &job)?;
        if job.erase.log {
            storage.wal.taint();
        }
        let erases = job.erase.segments
            || storage.wal.is_tainted(0, storage.spare_runs)
            || storage.wal.has_tainted_free();
        if erases && !storage.is_full() {
            storage.wal.leave_tainted();
        }
        let captured = storage.wal.next_mark();
        let Gathered { mut entries, segments, metas, mut removed } = gather(storage, job.groups, captured);
        let start = storage.wal.start_for(|group, seen| {
            let meta = metas.get(&group).or_else(|| storage.groups.get(&group));
            // One that was dropped may be back, in a checkpoint or, so far, only in the log.
            let is_back =
                |captured: &WindowMark| meta.is_some() || seen.last > LogIndex(0) || seen.note >= *captured;
            let is_gone = storage.dropped.get(&group).is_some_and(|captured| !is_back(captured));
            !is_gone && !job.dropped.contains(&group) && is_needed(meta, seen)
        });
        for &group in &job.dropped {
            entries.push(tombstone(group, captured));
            let live = storage.groups.get(&group).into_iter().flat_map(|meta| &meta.live);
            removed.extend(live.map(|&number| SegmentId { group, number }));
        }
        carry_quarantined(storage, &mut entries);
        if job.full {
            carry_tombstones(storage, start.position, &mut entries);
        }
        let previous = if job.full { 0 } else { storage.chain.last().map_or(0, |(number, _)| *number) };
        let number = storage.next_checkpoint;
        let durable = storage.wal.durable();
        let head = CheckpointHead {
            shard: storage.options.shard,
            number,
            previous,
            start,
            captured,
            durable,
            erases,
        };
        let unerased = storage.wal.is_tainted(start.position.file, storage.spare_runs);
        storage.next_checkpoint += 1;
        storage.checkpoint_runs = true;
        // A state must not be ahead of the durable log: an index it contains could be given out again.
        let mut first = storage.wal.sync_ops();
        if storage.is_full() && std::mem::replace(&mut storage.has_reserve, false) {
            first.push(DiskOp::Remove(FileId::Reserve));
        }
        Ok(CheckpointWork {
            head,
            full: job.full,
            entries,
            segments,
            open: None,
            stage: Stage::Start,
            first,
            file_len: 0,
            metas,
            dropped: job.dropped,
            vault: storage.options.vault.clone(),
            done: CheckpointDone { number, written: Vec::new(), removed, unerased },
        })
    }

    /// The next operations, to be run in order; None when all have been given. Encoding happens here.
    pub fn next_ops(&mut self) -> Option<Vec<DiskOp>> {
        match self.stage {
            Stage::Start => {
                self.stage = Stage::Segments;
                Some(std::mem::take(&mut self.first))
            }
            Stage::Segments => Some(self.segment_ops()),
            Stage::Checkpoint => {
                self.stage = Stage::Rename;
                let file = FileId::CheckpointTemp(self.head.number);
                let data = encode(&self.head, &std::mem::take(&mut self.entries), &self.vault);
                self.file_len = data.iter().map(|piece| piece.len() as u64).sum();
                Some(vec![DiskOp::Create(file), DiskOp::Write { file, offset: 0, data }, DiskOp::Sync(file)])
            }
            Stage::Rename => {
                self.stage = Stage::Done;
                let number = self.head.number;
                let (from, to) = (FileId::CheckpointTemp(number), FileId::Checkpoint(number));
                Some(vec![DiskOp::Rename { from, to }, DiskOp::SyncDir(Dir::Root)])
            }
            Stage::Done => None,
        }
    }

    /// What was written so far; complete once `next_ops` gave None.
    pub fn done(&self) -> &CheckpointDone {
        &self.done
    }

    fn segment_ops(&mut self) -> Vec<DiskOp> {
        let next = self.open.take().or_else(|| {
            let (id, new) = self.segments.pop_front()?;
            let writer = SegmentWriter::new(id, new.packed, self.vault.clone());
            Some((id, SegmentJob::new(writer, new.messages)))
        });
        let Some((id, mut job)) = next else {
            self.stage = Stage::Checkpoint;
            return if self.done.written.is_empty() {
                Vec::new()
            } else {
                vec![DiskOp::SyncDir(Dir::Segments)]
            };
        };
        let (ops, written) = job.next_ops();
        match written {
            Some(written) => self.done.written.push((id.group, written)),
            None => self.open = Some((id, job)),
        }
        ops
    }

    /// The checkpoint is durable: what it supersedes can go.
    pub(crate) fn finish(mut self, storage: &mut Storage) -> Vec<DiskOp> {
        assert!(matches!(self.stage, Stage::Done), "a checkpoint is settled after its last operation");
        let mut ops = Vec::new();
        let session = self.head.captured.session;
        let put_away = |ops: &mut Vec<DiskOp>, file: FileId, is_held: bool| {
            ops.push(match file.quarantined(session).filter(|_| is_held) {
                Some(to) => DiskOp::Rename { from: file, to },
                None => DiskOp::Remove(file),
            });
        };
        if self.full {
            for (number, _) in std::mem::take(&mut storage.chain) {
                if storage.options.vault.is_changing() && !storage.held.checkpoints.contains(&number) {
                    ops.push(DiskOp::Erase(FileId::Checkpoint(number)));
                }
                put_away(&mut ops, FileId::Checkpoint(number), storage.held.checkpoints.remove(&number));
            }
        }
        storage.chain.push((self.head.number, self.file_len));
        for (group, meta) in std::mem::take(&mut self.metas) {
            storage.wal.handle_applied(group, meta.applied);
            storage.groups.insert(group, meta);
        }
        for group in &self.dropped {
            storage.groups.remove(group);
            storage.wal.handle_dropped(*group);
            storage.dropped.insert(*group, self.head.captured);
        }
        if self.full {
            let start = self.head.start.position.file;
            let wal = &storage.wal;
            storage.dropped.retain(|&group, _| wal.has_frames_of(group, start));
        }
        for id in &self.done.removed {
            let is_held = storage.held.segments.remove(id);
            if self.head.erases && !is_held {
                ops.push(DiskOp::Erase(id.file()));
            }
            put_away(&mut ops, id.file(), is_held);
        }
        if !self.done.removed.is_empty() {
            // While its tombstone is still kept: a dropped group's segment must not come back as an unknown one.
            ops.push(DiskOp::SyncDir(Dir::Segments));
        }
        ops.push(DiskOp::SyncDir(Dir::Root));
        storage.release_wal(self.head.start.position, &mut ops);
        if !storage.is_full() {
            storage.refill_reserve(&mut ops);
        }
        ops
    }

    /// What takes back what was written of it.
    pub(crate) fn undo(self) -> Vec<DiskOp> {
        let mut ops = vec![DiskOp::Remove(FileId::CheckpointTemp(self.head.number))];
        for (group, written) in self.done.written {
            ops.push(DiskOp::Remove(FileId::Segment(group, written.segment)));
        }
        ops.extend(self.open.map(|(id, _)| DiskOp::Remove(id.file())));
        ops
    }
}

/// The groups of a checkpoint, taken apart.
struct Gathered {
    entries: Vec<Entry>,
    segments: VecDeque<(SegmentId, NewSegment)>,
    metas: BTreeMap<GroupId, GroupMeta>,
    removed: Vec<SegmentId>,
}

fn gather(storage: &Storage, groups: Vec<GroupCheckpoint>, captured: WindowMark) -> Gathered {
    let mut out = Gathered {
        entries: Vec::with_capacity(groups.len()),
        segments: VecDeque::new(),
        metas: BTreeMap::new(),
        removed: Vec::new(),
    };
    for group in groups {
        let id = group.group;
        let before = storage.groups.get(&id);
        let dead = before.into_iter().flat_map(|meta| &meta.live).copied();
        let dead = dead.filter(|number| !group.live_segments.contains(number));
        out.removed.extend(dead.map(|number| SegmentId { group: id, number }));
        let newest = group.new_segments.iter().map(|segment| segment.number).max().unwrap_or(0);
        let meta = GroupMeta {
            applied: group.applied,
            term: group.term,
            captured,
            last_segment: newest.max(before.map_or(0, |meta| meta.last_segment)),
            live: group.live_segments,
            quarantine: None,
        };
        out.entries.push(entry(id, EntryKind::Live, &meta, group.state));
        out.metas.insert(id, meta);
        let new = group.new_segments.into_iter();
        out.segments.extend(new.map(|segment| (SegmentId { group: id, number: segment.number }, segment)));
    }
    out
}

fn check(storage: &Storage, job: &CheckpointJob) -> Result<(), CheckpointRefused> {
    if storage.checkpoint_runs {
        return Err(CheckpointRefused::Busy);
    }
    let mut named = BTreeSet::new();
    // A group that was dropped may be back: its state says where its log begins, and older frames are before that.
    for group in job.groups.iter().map(|group| group.group).chain(job.dropped.iter().copied()) {
        if !named.insert(group) {
            return Err(CheckpointRefused::Twice { group });
        }
    }
    if job.full {
        let missing = storage
            .groups
            .iter()
            .find(|(group, meta)| meta.quarantine.is_none() && !named.contains(group))
            .map(|(group, _)| *group);
        if let Some(group) = missing {
            return Err(CheckpointRefused::Missing { group });
        }
    }
    job.groups.iter().try_for_each(|group| check_group(storage.groups.get(&group.group), group))
}

fn check_group(before: Option<&GroupMeta>, now: &GroupCheckpoint) -> Result<(), CheckpointRefused> {
    let group = now.group;
    let (saved, mut last_segment) = before.map_or((LogIndex(0), 0), |meta| (meta.applied, meta.last_segment));
    if now.applied < saved && before.is_some_and(|meta| meta.quarantine.is_none()) {
        return Err(CheckpointRefused::Backwards { group, saved, applied: now.applied });
    }
    let mut known: BTreeSet<u64> = before.map(|meta| meta.live.iter().copied().collect()).unwrap_or_default();
    for segment in &now.new_segments {
        if segment.number <= last_segment {
            return Err(CheckpointRefused::Segment { group, number: segment.number });
        }
        last_segment = segment.number;
        known.insert(segment.number);
    }
    let mut live = BTreeSet::new();
    let wrong = now.live_segments.iter().find(|number| !known.contains(number) || !live.insert(**number));
    match wrong {
        Some(&number) => Err(CheckpointRefused::Segment { group, number }),
        None => Ok(()),
    }
}

/// Whether the log must be kept for what a file holds of a group.
fn is_needed(meta: Option<&GroupMeta>, seen: Seen) -> bool {
    match meta {
        // Not in any checkpoint yet: the log is all there is.
        None => true,
        Some(meta) if meta.quarantine.is_some() => false,
        Some(meta) => {
            let has_note = seen.note != WindowMark::default() && seen.note >= meta.captured;
            seen.last > meta.applied || has_note
        }
    }
}

/// Every checkpoint says which groups are in quarantine: once the damaged part of the log is put aside, nothing else
/// tells that their state is not the last one.
fn carry_quarantined(storage: &Storage, entries: &mut Vec<Entry>) {
    let named: BTreeSet<GroupId> = entries.iter().map(|entry| entry.group).collect();
    for (&group, meta) in storage.groups.iter().filter(|(group, _)| !named.contains(group)) {
        if let Some(kept) = &meta.quarantine {
            let state = kept.state.clone();
            entries.push(Entry {
                reason: kept.reason.clone(),
                ..entry(group, EntryKind::Quarantined, meta, state)
            });
        }
    }
}

/// A full checkpoint takes over the groups whose frames are still in the log although they were dropped. Those that are back have
/// two entries, the later one for what the log has of the time before.
fn carry_tombstones(storage: &Storage, start: WalPosition, entries: &mut Vec<Entry>) {
    let gone = entries.iter().filter(|entry| entry.kind == EntryKind::Dropped);
    let gone: BTreeSet<GroupId> = gone.map(|entry| entry.group).collect();
    let dropped = storage.dropped.iter().filter(|(group, _)| !gone.contains(group));
    let in_log = dropped.filter(|(group, _)| storage.wal.has_frames_of(**group, start.file));
    entries.extend(in_log.map(|(&group, &captured)| tombstone(group, captured)));
}

fn entry(group: GroupId, kind: EntryKind, meta: &GroupMeta, state: Bytes) -> Entry {
    Entry {
        group,
        kind,
        applied: meta.applied,
        term: meta.term,
        captured: meta.captured,
        last_segment: meta.last_segment,
        live: meta.live.clone(),
        reason: String::new(),
        state,
    }
}

fn tombstone(group: GroupId, captured: WindowMark) -> Entry {
    let meta = GroupMeta { captured, ..GroupMeta::default() };
    entry(group, EntryKind::Dropped, &meta, Bytes::new())
}
