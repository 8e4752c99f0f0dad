//! A node in small: groups with logs, a commit index and notes, on a disk that can lose power, and what must come back.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Rng, Seq, ShardId, Time};
use hw_store::messages::{BlockId, Message};
use hw_store::{
    AppendError, Appended, CheckpointJob, CheckpointWork, Cipher, DiskError, DiskOp, Erase, Frame,
    FrameBuilder, FrameKind, FrameMeta, GroupCheckpoint, NewSegment, ReadError, Record, RecoverError,
    Recovered, RecoveryReport, SESSION_SALT_BYTES, SegmentReader, SpareJob, Storage, StorageOptions,
    StoreKey, SyncPolicy, Vault, recover,
};

use crate::disk::{self, MemDisk};

/// One entry of a log: its term and what makes it different from others at its index.
pub type LogEntry = (u64, u64);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub log: Vec<LogEntry>,
    pub note: u64,
}

#[derive(Clone, Debug, Default)]
struct Live {
    term: u64,
    /// Entries up to here are never overwritten and are what a checkpoint holds.
    commit: usize,
    /// Entries up to here are in segments.
    written: usize,
    segments: Vec<u64>,
    last_segment: u64,
    changed: bool,
}

pub type Groups = BTreeMap<u64, Group>;

pub struct Model {
    pub groups: Groups,
    live: BTreeMap<u64, Live>,
    /// The groups after each append; the first `acked` of these must not be lost.
    pub history: Vec<Groups>,
    pub acked: usize,
    /// Gone for good, once their checkpoint is durable.
    pub dropped: Vec<u64>,
    pub dropping: Vec<u64>,
    next_group: u64,
    version: u64,
}

pub struct Node {
    pub disk: MemDisk,
    pub storage: Storage,
    pub model: Model,
    pub rng: Rng,
    sync: SyncPolicy,
    work: Option<(CheckpointWork, VecDeque<DiskOp>, BTreeMap<u64, usize>)>,
    spare: Option<(SpareJob, VecDeque<DiskOp>)>,
    cleanup: VecDeque<DiskOp>,
}

/// How the stores of a test are sealed, and how often one was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sealing {
    pub cipher: Option<Cipher>,
    /// Not everything is sealed yet.
    pub changing: bool,
    opened: u64,
}

thread_local! {
    static SEALING: Cell<Sealing> = const { Cell::new(Sealing { cipher: None, changing: false, opened: 0 }) };
}

/// From here on, this test's stores are sealed.
pub fn seal(cipher: Option<Cipher>, changing: bool) {
    SEALING.set(Sealing { cipher, changing, ..SEALING.get() });
}

/// What a store is opened with: as in production, no two openings have the same salt.
pub fn vault() -> Vault {
    let Sealing { cipher, changing, opened } = SEALING.get();
    SEALING.set(Sealing { cipher, changing, opened: opened + 1 });
    let mut salt = [0; SESSION_SALT_BYTES];
    salt[..8].copy_from_slice(&opened.to_le_bytes());
    cipher.map_or_else(Vault::default, |cipher| {
        Vault::new(StoreKey::new([9; 32]), ShardId(2), cipher, !changing, salt)
    })
}

pub fn options(sync: SyncPolicy) -> StorageOptions {
    StorageOptions {
        sync,
        vault: vault(),
        frame_bytes_max: 3000,
        wal_first_bytes: 12 << 10,
        wal_file_bytes: 24 << 10,
        reserve_bytes: 2048,
        ..StorageOptions::new(ShardId(2), 7)
    }
}

pub fn entry_bytes(group: u64, index: usize, (term, version): LogEntry) -> Vec<u8> {
    let mut bytes = format!("{group} {index} {term} {version} ").into_bytes();
    bytes.resize(bytes.len() + (version % 5 * 25) as usize, b'x');
    bytes
}

pub fn parse_entry(bytes: &[u8]) -> (u64, usize, LogEntry) {
    let text = std::str::from_utf8(bytes).expect("an entry is text");
    let numbers: Vec<u64> = text.split(' ').take(4).map(|part| part.parse().expect("a number")).collect();
    (numbers[0], numbers[1] as usize, (numbers[2], numbers[3]))
}

fn message(group: u64, index: usize, entry: LogEntry) -> Message {
    let record =
        Record::join(format!("g.{group}").as_bytes(), b"", &entry_bytes(group, index, entry)).unwrap();
    Message { seq: Seq(index as u64), ts: Time(index as i64), record }
}

/// What recovery handed out, put together.
pub struct Reborn {
    pub storage: Storage,
    pub report: RecoveryReport,
    pub groups: Groups,
    live: BTreeMap<u64, Live>,
    pub quarantined: Vec<u64>,
    pub damaged_segments: usize,
    /// The last checkpoint was to overwrite something.
    pub unerased: bool,
}

pub fn open(sync: SyncPolicy, disk: &mut MemDisk) -> Result<Reborn, RecoverError> {
    let mut items = Vec::new();
    // As in production, no two openings draw the same salt, whether or not the first came far.
    let options = StorageOptions { salt: disk.ops_done, ..options(sync) };
    let (storage, report) = recover(options, &mut |op| disk.run(op), &mut |item| items.push(item))?;
    let mut reborn = Reborn {
        storage,
        report,
        groups: Groups::new(),
        live: BTreeMap::new(),
        quarantined: Vec::new(),
        damaged_segments: 0,
        unerased: false,
    };
    let power = disk.ops_left.take();
    items.into_iter().for_each(|item| reborn.take(item, disk));
    disk.ops_left = power;
    Ok(reborn)
}

impl Reborn {
    fn take(&mut self, item: Recovered, disk: &mut MemDisk) {
        match item {
            Recovered::Group(found) => {
                let state = std::str::from_utf8(&found.state).expect("state is text");
                let note = state.parse().expect("a number");
                let log = vec![(found.term, u64::MAX); found.applied.0 as usize];
                let live = Live {
                    term: found.term,
                    commit: log.len(),
                    written: log.len(),
                    segments: found.live_segments,
                    last_segment: found.last_segment,
                    changed: false,
                };
                assert!(
                    self.groups.insert(found.group.0, Group { log, note }).is_none(),
                    "a group comes once"
                );
                self.live.insert(found.group.0, live);
            }
            Recovered::Segment(info) => {
                let mut reader = SegmentReader::new(2, vault());
                for block in 0.. {
                    let id = BlockId { segment: info.id.number, block };
                    let loaded = reader.load(info.id.group, id, &mut |op| disk.run(op));
                    let messages = match loaded.and_then(|loaded| Ok(loaded.messages()?)) {
                        Ok(messages) => messages,
                        Err(ReadError::NoBlock { .. }) => break,
                        Err(error @ ReadError::Failed { .. }) => panic!("{error}"),
                        Err(ReadError::Damaged(damage)) => {
                            self.damaged_segments += 1;
                            // Without the table of blocks nothing of it can be read.
                            if damage.offset >= info.place.offset - 32 {
                                break;
                            }
                            continue;
                        }
                    };
                    for message in messages {
                        let (group, at, entry) = parse_entry(message.record.payload());
                        assert_eq!((group, at as u64), (info.id.group.0, message.seq.0));
                        self.groups.get_mut(&group).expect("its group came before").log[at - 1] = entry;
                    }
                }
            }
            Recovered::SegmentDamaged { .. } => self.damaged_segments += 1,
            Recovered::Unerased => self.unerased = true,
            Recovered::Replay(replay) => {
                let id = replay.frame.group().0;
                assert!(!self.quarantined.contains(&id), "nothing of a quarantined group is handed out");
                let group = self.groups.entry(id).or_default();
                let live = self.live.entry(id).or_default();
                live.changed = true;
                if replay.frame.kind() == FrameKind::Note {
                    let note = replay.frame.entries().next().expect("a note has an entry");
                    group.note = std::str::from_utf8(&note).unwrap().parse().unwrap();
                    return;
                }
                live.term = live.term.max(replay.frame.term());
                for (index, bytes) in replay.entries() {
                    let (from, at, entry) = parse_entry(&bytes);
                    assert_eq!((from, at as u64), (id, index.0));
                    assert!(at > live.commit, "what is applied is not replayed");
                    assert!(at <= group.log.len() + 1, "no gap");
                    group.log.truncate(at - 1);
                    group.log.push(entry);
                }
            }
            Recovered::Quarantined { group, .. } => {
                self.quarantined.push(group.0);
                self.groups.remove(&group.0);
                self.live.remove(&group.0);
            }
        }
    }
}

impl Model {
    /// What was lost must not have been acknowledged, and what came back must have been written.
    pub fn check(&self, found: &Groups) {
        assert!(self.dropped.iter().all(|group| !found.contains_key(group)), "dropped groups stay away");
        let empty = Group::default();
        let matches = |state: &Groups, group: u64| {
            let came_back = found.get(&group).unwrap_or(&empty);
            if self.dropped.contains(&group) {
                return true;
            }
            if self.dropping.contains(&group) {
                // Until the checkpoint that drops it is durable, it is there as it was or not at all.
                let was = |earlier: &Groups| earlier.get(&group).unwrap_or(&empty) == came_back;
                return !found.contains_key(&group) || self.history.iter().any(was);
            }
            state.get(&group).unwrap_or(&empty) == came_back
        };
        let all: Vec<u64> = self.groups.keys().chain(found.keys()).copied().collect();
        let candidates = &self.history[self.acked..];
        let fits = candidates.iter().any(|state| all.iter().all(|&group| matches(state, group)));
        let is_lost = |group: &u64| !candidates.iter().any(|state| matches(state, *group));
        let wrong: Vec<u64> = all.iter().copied().filter(is_lost).collect();
        assert!(fits, "of {} states none fits; groups that fit none: {wrong:?}", candidates.len());
    }
}

impl Node {
    pub fn new(reborn: Reborn, disk: MemDisk, sync: SyncPolicy, seed: u64) -> Node {
        let Reborn { storage, groups, live, .. } = reborn;
        let next_group = groups.keys().max().copied().unwrap_or(0) + 1000;
        let version = groups.values().flat_map(|group| &group.log).map(|entry| entry.1).max().unwrap_or(0);
        let mut live = live;
        live.values_mut().for_each(|live| live.changed = true);
        let history = vec![groups.clone()];
        let model = Model {
            groups,
            live,
            history,
            acked: 0,
            dropped: Vec::new(),
            dropping: Vec::new(),
            next_group,
            version,
        };
        Node {
            disk,
            storage,
            model,
            rng: Rng::new(seed),
            sync,
            work: None,
            spare: None,
            cleanup: VecDeque::new(),
        }
    }

    /// One random step; an error is a power cut.
    pub fn step(&mut self) -> Result<(), DiskError> {
        if let (Some(reason), Some(0)) = (self.storage.failure(), self.disk.fail_sync_in) {
            return Err(DiskError::Failed { place: "store".to_owned(), reason: reason.to_owned() });
        }
        match self.rng.below(10) {
            0..=5 => self.append(),
            6 => self.checkpoint(),
            7 => {
                let mut ops = Vec::new();
                if let Ok(position) = self.storage.mark(&mut ops) {
                    self.run(ops)?;
                    self.storage.handle_synced(position);
                    self.model.acked = self.model.history.len() - 1;
                }
                Ok(())
            }
            _ => self.background(),
        }
    }

    pub fn append(&mut self) -> Result<(), DiskError> {
        let count = 1 + self.rng.below(4);
        // Each frame on its own may be the last that survives, also where one call fills two files.
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.push(self.frame());
            self.model.history.push(self.model.groups.clone());
        }
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let mut ops = Vec::new();
            match self.storage.append(rest, &mut ops) {
                Ok(Appended { position, taken }) => {
                    rest = &rest[taken..];
                    self.run(ops)?;
                    if self.sync == SyncPolicy::Always {
                        self.storage.handle_synced(position);
                        self.model.acked = self.model.history.len() - 1 - rest.len();
                    }
                }
                Err(AppendError::NotReady) => {
                    self.start_spare();
                    assert!(self.spare.is_some(), "there is a spare to wait for");
                    self.background()?;
                }
                Err(AppendError::Stopped { reason }) if self.disk.fail_sync_in == Some(0) => {
                    return Err(DiskError::Failed { place: "store".to_owned(), reason });
                }
                Err(other) => panic!("{other}"),
            }
        }
        if self.sync == SyncPolicy::Always {
            self.commit();
        } else if self.rng.chance(1, 4) {
            self.sync()?;
        }
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), DiskError> {
        let mut ops = Vec::new();
        let position = self.storage.sync(&mut ops);
        self.run(ops)?;
        self.storage.handle_synced(position);
        self.model.acked = self.model.history.len() - 1;
        self.commit();
        Ok(())
    }

    pub fn checkpoint(&mut self) -> Result<(), DiskError> {
        if self.work.is_some() {
            return self.background();
        }
        let full = self.storage.wants_full() || self.rng.chance(1, 5);
        let drop_one = self.rng.chance(1, 4) && self.model.live.len() > 3;
        let gone = drop_one.then(|| *self.model.live.keys().nth(1).expect("there are more than three"));
        let erase = Erase { log: self.rng.chance(1, 6), segments: self.rng.chance(1, 3) };
        let mut job = CheckpointJob { full, erase, ..CheckpointJob::default() };
        if let Some(group) = gone {
            job.dropped.push(GroupId(group));
            self.model.dropping.push(group);
            self.model.live.remove(&group);
            self.model.groups.remove(&group);
        }
        let mut written = BTreeMap::new();
        let ids: Vec<u64> = self.model.live.keys().copied().collect();
        for id in ids {
            // A partial checkpoint may leave out what has changed: it stays in the log.
            let skip = !full && (!self.model.live[&id].changed || self.rng.chance(1, 3));
            if !skip {
                job.groups.push(self.group_checkpoint(id));
                written.insert(id, self.model.live[&id].written);
            }
        }
        let work = self.storage.begin_checkpoint(job).expect("the job is sound");
        self.work = Some((work, VecDeque::new(), written));
        Ok(())
    }

    fn group_checkpoint(&mut self, id: u64) -> GroupCheckpoint {
        let group = &self.model.groups[&id];
        let live = self.model.live.get_mut(&id).expect("it is alive");
        live.changed = false;
        let commit = live.commit;
        let mut new_segments = Vec::new();
        if commit > live.written {
            let fresh = live.written + 1..=commit;
            let messages = fresh.map(|index| message(id, index, group.log[index - 1])).collect();
            live.last_segment += 1;
            // Now and then everything is rewritten into one segment.
            if self.rng.chance(1, 4) {
                live.segments.clear();
                let messages = (1..=commit).map(|index| message(id, index, group.log[index - 1])).collect();
                new_segments.push(NewSegment {
                    number: live.last_segment,
                    messages,
                    packed: live.last_segment.is_multiple_of(2),
                });
            } else {
                new_segments.push(NewSegment {
                    number: live.last_segment,
                    messages,
                    packed: live.last_segment.is_multiple_of(2),
                });
            }
            live.segments.push(live.last_segment);
            live.written = commit;
        }
        GroupCheckpoint {
            group: GroupId(id),
            applied: LogIndex(commit as u64),
            term: if commit > 0 { group.log[commit - 1].0 } else { 0 },
            state: Bytes::from(group.note.to_string()),
            new_segments,
            live_segments: live.segments.clone(),
        }
    }

    /// A little of what happens beside the writer.
    pub fn background(&mut self) -> Result<(), DiskError> {
        self.start_spare();
        for _ in 0..1 + self.rng.below(6) {
            if let Some(op) = self.cleanup.pop_front() {
                self.disk.run(op)?;
                continue;
            }
            if self.rng.chance(1, 2) { self.spare_step()? } else { self.checkpoint_step()? }
        }
        Ok(())
    }

    /// Runs everything that is under way to its end.
    pub fn finish_background(&mut self) -> Result<(), DiskError> {
        self.start_spare();
        while self.work.is_some() || self.spare.is_some() || !self.cleanup.is_empty() {
            self.background()?;
        }
        Ok(())
    }

    pub fn start_spare(&mut self) {
        if self.spare.is_none()
            && let Some(mut job) = self.storage.spare_job()
        {
            let ops = job.take_ops().into();
            self.spare = Some((job, ops));
        }
    }

    fn spare_step(&mut self) -> Result<(), DiskError> {
        let Some((job, mut ops)) = self.spare.take() else { return Ok(()) };
        let result = ops.pop_front().map_or(Ok(()), |op| self.disk.run(op).map(|_| ()));
        match result {
            Err(error) if error == disk::power_cut() => return Err(error),
            Ok(()) if !ops.is_empty() => self.spare = Some((job, ops)),
            result => {
                let cleanup = self.storage.handle_spare(job, result);
                self.run(cleanup)?;
            }
        }
        Ok(())
    }

    fn checkpoint_step(&mut self) -> Result<(), DiskError> {
        let Some((mut work, mut ops, written)) = self.work.take() else { return Ok(()) };
        let result = match ops.pop_front() {
            Some(op) => self.disk.run(op).map(|_| ()),
            None => match work.next_ops() {
                Some(more) => {
                    ops.extend(more);
                    Ok(())
                }
                None => {
                    self.cleanup.extend(self.storage.handle_checkpoint(work, &Ok(())));
                    self.model.dropped.append(&mut self.model.dropping);
                    return Ok(());
                }
            },
        };
        match result {
            Ok(()) => self.work = Some((work, ops, written)),
            Err(error @ DiskError::Full { .. }) => {
                let undo = self.storage.handle_checkpoint(work, &Err(error));
                self.run(undo)?;
                panic!("this model does not go on after a checkpoint that failed");
            }
            Err(error) if self.disk.fail_sync_in == Some(0) => {
                let ops = self.storage.handle_checkpoint(work, &Err(error.clone()));
                self.run(ops)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn commit(&mut self) {
        // Only what is durable is committed.
        for (id, live) in &mut self.model.live {
            let len = self.model.groups[id].log.len();
            if live.commit < len {
                live.commit += self.rng.below((len - live.commit) as u64 + 1) as usize;
                live.changed = true;
            }
        }
    }

    fn frame(&mut self) -> Frame {
        let Model { groups, live, next_group, version, .. } = &mut self.model;
        let new = live.len() < 3 || self.rng.chance(1, 20);
        let id = if new {
            *next_group += 1;
            *next_group
        } else {
            *live.keys().nth(self.rng.below(live.len() as u64) as usize).expect("there is one")
        };
        let (group, state) = (groups.entry(id).or_default(), live.entry(id).or_default());
        state.changed = true;
        let mut builder = FrameBuilder::new();
        *version += 1;
        if self.rng.chance(1, 8) {
            group.note = *version;
            builder.push(group.note.to_string().as_bytes());
            let meta =
                FrameMeta { group: GroupId(id), term: state.term, first: LogIndex(0), kind: FrameKind::Note };
            return builder.finish(meta);
        }
        // Sometimes a new leader overwrites what was not committed.
        if self.rng.chance(1, 6) && group.log.len() > state.commit {
            state.term += 1;
            let keep = state.commit + self.rng.below((group.log.len() - state.commit) as u64) as usize;
            group.log.truncate(keep);
        }
        let first = group.log.len() + 1;
        for _ in 0..1 + self.rng.below(4) {
            *version += 1;
            group.log.push((state.term, *version));
            let index = group.log.len();
            builder.push(&entry_bytes(id, index, group.log[index - 1]));
        }
        let (group, first) = (GroupId(id), LogIndex(first as u64));
        builder.finish(FrameMeta { group, term: state.term, first, kind: FrameKind::Entries })
    }

    pub fn run(&mut self, ops: Vec<DiskOp>) -> Result<(), DiskError> {
        let result = ops.into_iter().try_for_each(|op| self.disk.run(op).map(|_| ()));
        if let (Err(error), Some(0)) = (&result, self.disk.fail_sync_in) {
            self.storage.handle_failed(error);
            for op in self.storage.void(error) {
                self.disk.run(op)?;
            }
        }
        result
    }
}
