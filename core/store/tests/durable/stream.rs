//! A stream in small on a disk: commands in a log, the index of messages as its state, checkpoints that write and rewrite
//! segments, and a naive model beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Rng, Seq, Time};
use hw_store::index::Pages;
use hw_store::messages::{Fetch, IndexSource, Keep, Message, Restore, SegmentInput, Written};
use hw_store::{
    AppendError, CheckpointJob, CheckpointWork, DiskError, DiskOp, Erase, FrameBuilder, FrameKind, FrameMeta,
    GroupCheckpoint, Messages, NewSegment, Record, RecoverError, Recovered, SegmentReader, SpareJob, Storage,
    SyncPolicy, recover,
};

use crate::disk::MemDisk;
use crate::model::{options, vault};

const GROUP: GroupId = GroupId(9);
const SYNC: SyncPolicy = SyncPolicy::Always;

/// What happens to the messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Load {
    /// Few subjects, one message each.
    KeyValue,
    /// What was read goes, mostly in order.
    WorkQueue,
    /// The oldest go.
    Limits,
    /// Everything older than some time goes at once.
    Age,
    /// All of one subject, or all, goes now and then.
    Purge,
}

impl Load {
    pub const ALL: [Load; 5] = [Load::KeyValue, Load::WorkQueue, Load::Limits, Load::Age, Load::Purge];
}

#[derive(Clone, Debug)]
enum Command {
    Append { subject: String, payload: String },
    Remove { seqs: Vec<u64>, erase: bool },
    Clear,
}

/// What a naive reader of the commands expects: sequence to subject and payload, and the last sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plain {
    pub messages: BTreeMap<u64, (String, String)>,
    pub last: u64,
}

impl Command {
    fn encode(&self) -> Vec<u8> {
        match self {
            Command::Append { subject, payload } => format!("A {subject} {payload}"),
            Command::Remove { seqs, erase } => {
                let seqs: Vec<String> = seqs.iter().map(u64::to_string).collect();
                format!("{} {}", if *erase { 'E' } else { 'R' }, seqs.join(","))
            }
            Command::Clear => "C".to_owned(),
        }
        .into_bytes()
    }

    fn decode(bytes: &[u8]) -> Command {
        let text = std::str::from_utf8(bytes).expect("commands are text");
        let mut parts = text.split(' ');
        let kind = parts.next().expect("there is a kind");
        let mut word = || parts.next().unwrap_or_default().to_owned();
        match kind {
            "A" => Command::Append { subject: word(), payload: word() },
            "C" => Command::Clear,
            kind => Command::Remove {
                seqs: word().split(',').filter_map(|seq| seq.parse().ok()).collect(),
                erase: kind == "E",
            },
        }
    }

    fn apply_to(&self, messages: &mut Messages) {
        match self {
            Command::Append { subject, payload } => {
                let record = Record::join(subject.as_bytes(), b"", payload.as_bytes()).expect("it is short");
                let seq = messages.last_seq().next();
                messages.append(seq, Time(seq.0 as i64), record);
            }
            Command::Remove { seqs, erase } => {
                for &seq in seqs {
                    if *erase {
                        messages.mark_for_erasure(Seq(seq));
                    }
                    messages.remove(Seq(seq));
                }
            }
            Command::Clear => {
                messages.clear();
            }
        }
    }

    fn apply_plainly(&self, plain: &mut Plain) {
        match self {
            Command::Append { subject, payload } => {
                plain.last += 1;
                plain.messages.insert(plain.last, (subject.clone(), payload.clone()));
            }
            Command::Remove { seqs, .. } => {
                seqs.iter().for_each(|seq| drop(plain.messages.remove(seq)));
            }
            Command::Clear => plain.messages.clear(),
        }
    }
}

/// A stream that was opened.
pub struct Opened {
    pub storage: Storage,
    pub messages: Messages,
    pub applied: u64,
    last_segment: u64,
}

/// Opens the disk; everything that was found must be sound.
pub fn open(disk: &mut MemDisk) -> Result<Opened, RecoverError> {
    let mut messages: Option<Messages> = None;
    let mut restore: Option<Restore> = None;
    let (mut applied, mut last_segment) = (0, 0);
    let mut items = Vec::new();
    let (storage, _) = recover(options(SYNC), &mut |op| disk.run(op), &mut |item| items.push(item))?;
    // Hardly a page: they come and go all the time.
    let pages = Arc::new(Pages::new(Box::new(disk.share()), 10_000, vault()));
    let source = IndexSource { group: GROUP, pages };
    let finish = |restore: Option<Restore>| {
        let Some(restore) = restore else {
            let mut messages = Messages::new(Seq(1), Keep::File);
            messages.set_source(source.clone());
            return messages;
        };
        let (messages, lost) = restore.finish(Some(source.clone()));
        assert_eq!(lost, [], "no message is missing");
        messages
    };
    for item in items {
        match item {
            Recovered::Group(group) => {
                (applied, last_segment) = (group.applied.0, group.last_segment);
                restore = Some(Restore::open(&group.state).expect("a state is whole").0);
            }
            Recovered::Segment(info) => {
                let restore = restore.as_mut().expect("its group came before");
                let written = Written { segment: info.id.number, place: info.place };
                restore.add_segment(written).expect("it is listed");
            }
            Recovered::Replay(replay) => {
                let messages = messages.get_or_insert_with(|| finish(restore.take()));
                for (index, bytes) in replay.entries() {
                    assert_eq!(index.0, applied + 1, "commands come in order");
                    applied = index.0;
                    Command::decode(&bytes).apply_to(messages);
                }
            }
            Recovered::Unerased => {}
            Recovered::SegmentDamaged { damage, .. } => panic!("{damage}"),
            Recovered::Quarantined { reason, .. } => panic!("{reason}"),
        }
    }
    let mut messages = messages.unwrap_or_else(|| finish(restore.take()));
    messages.set_cache_budget(600);
    Ok(Opened { storage, messages, applied, last_segment })
}

/// Everything that can be read, through the disk where it must.
pub fn read_all(messages: &mut Messages, disk: &mut MemDisk) -> Plain {
    let mut reader = SegmentReader::new(4, vault());
    let mut plain = Plain { last: messages.last_seq().0, ..Plain::default() };
    let seqs: Vec<Seq> = messages.seqs().collect();
    for seq in seqs {
        if let Fetch::OnDisk(block) = messages.fetch(seq) {
            let loaded =
                reader.load(GROUP, block, &mut |op| disk.run(op)).expect("what is referred to is there");
            messages.handle_block(block, loaded);
        }
        let Fetch::Message(message) = messages.fetch(seq) else {
            panic!("{seq} is there and cannot be read")
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        plain.messages.insert(seq.0, (text(message.record.subject()), text(message.record.payload())));
    }
    plain
}

/// Called after every operation.
pub type Watch<'a> = dyn FnMut(&Machine, &MemDisk, &DiskOp) + 'a;

/// The stream at work.
pub struct Machine {
    storage: Storage,
    messages: Messages,
    applied: u64,
    proposed: u64,
    last_segment: u64,
    load: Load,
    rng: Rng,
    /// The naive model after each command.
    pub history: Vec<Plain>,
    /// Commands up to here were acknowledged.
    pub acked: u64,
    making: Option<Making>,
    spare: Option<(SpareJob, VecDeque<DiskOp>)>,
    cleanup: VecDeque<DiskOp>,
    /// What happened: checkpoints, rewritten segments, log files used again.
    pub counts: BTreeMap<&'static str, u64>,
}

struct Making {
    work: CheckpointWork,
    ops: VecDeque<DiskOp>,
    /// The segments that it writes.
    written: Vec<u64>,
}

impl Machine {
    pub fn new(opened: Opened, load: Load, seed: u64) -> Machine {
        let Opened { storage, messages, applied, last_segment } = opened;
        Machine {
            storage,
            messages,
            applied,
            proposed: applied,
            last_segment,
            load,
            rng: Rng::new(seed),
            history: vec![Plain::default()],
            acked: applied,
            making: None,
            spare: None,
            cleanup: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }

    /// What may be found after a power cut now.
    pub fn accepts(&self, applied: u64, found: &Plain) -> Result<(), String> {
        if applied < self.acked || applied > self.proposed {
            return Err(format!("{applied} commands are there, of {}..={}", self.acked, self.proposed));
        }
        let expected = &self.history[applied as usize];
        if expected != found {
            return Err(format!("after {applied} commands {expected:?} is expected, not {found:?}"));
        }
        Ok(())
    }

    /// One step of the load, with a little of what goes on beside it.
    pub fn step(&mut self, disk: &mut MemDisk, watch: &mut Watch<'_>) {
        match self.rng.below(12) {
            0 => self.begin_checkpoint(disk),
            1..=4 => {
                for _ in 0..4 + self.rng.below(12) {
                    self.beside(disk, watch);
                }
            }
            _ => {
                for _ in 0..1 + self.rng.below(3) {
                    let command = self.choose();
                    self.propose(&command, disk, watch);
                }
            }
        }
    }

    fn run(&mut self, op: DiskOp, disk: &mut MemDisk, watch: &mut Watch<'_>) -> Result<(), DiskError> {
        let done = disk.run(op.clone()).map(|_| ());
        watch(self, disk, &op);
        done
    }

    fn choose(&mut self) -> Command {
        let plain = self.history.last().expect("there is a state").clone();
        let seqs: Vec<u64> = plain.messages.keys().copied().collect();
        let erase = self.rng.chance(1, 4);
        let subject = format!("s.{}", self.rng.below(if self.load == Load::KeyValue { 12 } else { 4 }));
        let of_subject = |subject: &str| {
            let of = plain.messages.iter().filter(|(_, (other, _))| other == subject);
            of.map(|(seq, _)| *seq).collect::<Vec<u64>>()
        };
        let long = self.load != Load::KeyValue && seqs.len() > 25;
        match self.load {
            Load::KeyValue if !of_subject(&subject).is_empty() && self.rng.chance(1, 2) => {
                Command::Remove { seqs: of_subject(&subject), erase: false }
            }
            Load::WorkQueue if !seqs.is_empty() && self.rng.chance(9, 20) => {
                let at = self.rng.below(seqs.len().min(6) as u64) as usize;
                Command::Remove { seqs: vec![seqs[at]], erase }
            }
            Load::Limits if long => Command::Remove { seqs: vec![seqs[0]], erase: false },
            Load::Age if long => Command::Remove { seqs: seqs[..15].to_vec(), erase: false },
            Load::Purge if long && self.rng.chance(1, 3) => Command::Clear,
            Load::Purge if long => Command::Remove { seqs: of_subject("s.1"), erase },
            _ => {
                let number = self.history.len();
                let payload = format!("{number}-{}", "x".repeat(self.rng.below(150) as usize));
                Command::Append { subject, payload }
            }
        }
    }

    fn propose(&mut self, command: &Command, disk: &mut MemDisk, watch: &mut Watch<'_>) {
        let mut builder = FrameBuilder::new();
        builder.push(&command.encode());
        let first = LogIndex(self.proposed + 1);
        let frame = builder.finish(FrameMeta { group: GROUP, term: 0, first, kind: FrameKind::Entries });
        let mut plain = self.history.last().expect("there is a state").clone();
        command.apply_plainly(&mut plain);
        loop {
            let mut ops = Vec::new();
            match self.storage.append(std::slice::from_ref(&frame), &mut ops) {
                Ok(appended) => {
                    self.proposed += 1;
                    self.history.push(plain);
                    for op in ops {
                        self.run(op, disk, watch).expect("the disk works");
                    }
                    self.storage.handle_synced(appended.position);
                    break;
                }
                Err(AppendError::NotReady) => self.beside(disk, watch),
                Err(error) => panic!("{error}"),
            }
        }
        (self.acked, self.applied) = (self.proposed, self.proposed);
        command.apply_to(&mut self.messages);
    }

    /// One operation of what goes on beside the log.
    fn beside(&mut self, disk: &mut MemDisk, watch: &mut Watch<'_>) {
        if self.spare.is_none()
            && let Some(mut job) = self.storage.spare_job()
        {
            let ops: VecDeque<DiskOp> = job.take_ops().into();
            if ops.iter().any(|op| matches!(op, DiskOp::Rename { .. })) {
                *self.counts.entry("recycled").or_default() += 1;
            }
            self.spare = Some((job, ops));
        }
        if let Some(op) = self.cleanup.pop_front() {
            *self.counts.entry("erased").or_default() += u64::from(matches!(op, DiskOp::Erase(_)));
            return self.run(op, disk, watch).expect("the disk works");
        }
        if self.rng.chance(1, 2)
            && let Some((job, mut ops)) = self.spare.take()
        {
            if let Some(op) = ops.pop_front() {
                self.run(op, disk, watch).expect("the disk works");
                self.spare = Some((job, ops));
            } else {
                self.cleanup.extend(self.storage.handle_spare(job, Ok(())));
            }
            return;
        }
        self.continue_checkpoint(disk, watch);
    }

    fn begin_checkpoint(&mut self, disk: &mut MemDisk) {
        if self.making.is_some() {
            return;
        }
        let (mut new_segments, mut written) = (Vec::new(), Vec::new());
        let mut add = |number: u64, messages: SegmentInput| {
            written.push(number);
            new_segments.push(NewSegment { number, messages, packed: number.is_multiple_of(3) });
        };
        if let Some(unwritten) = self.messages.take_unwritten(self.last_segment + 1) {
            self.last_segment += 1;
            add(self.last_segment, unwritten);
        }
        if let Some(chosen) = self.messages.worth_rewriting(1500, &BTreeSet::new()) {
            let mut reader = SegmentReader::new(4, vault());
            let (mut messages, mut at): (Vec<Message>, Seq) = (Vec::new(), Seq(0));
            while let Some(block) = self.messages.next_block(&chosen, at) {
                let loaded = reader.load(GROUP, block, &mut |op| disk.run(op)).expect("it is there");
                messages.extend(loaded.messages().expect("it is what was written"));
                at = messages.last().expect("a block has messages").seq.next();
            }
            let number = self.last_segment + 1;
            if self.messages.begin_rewrite(&chosen.segments, number, &mut messages) {
                self.last_segment = number;
                add(number, messages.into());
                *self.counts.entry("rewritten").or_default() += chosen.segments.len() as u64;
            }
        }
        let erase =
            Erase { log: self.messages.take_erase_log(), segments: self.messages.must_erase_segments() };
        self.messages.dead_segments();
        self.messages.handle_checkpoint_begun();
        let mut state = Vec::new();
        self.messages.snapshot(&mut state);
        let group = GroupCheckpoint {
            group: GROUP,
            applied: LogIndex(self.applied),
            term: 0,
            state: Bytes::from(state),
            new_segments,
            live_segments: self.messages.segment_numbers(),
        };
        let full = erase.log || self.storage.wants_full() || self.rng.chance(1, 2);
        let job = CheckpointJob { groups: vec![group], full, erase, ..CheckpointJob::default() };
        let work = self.storage.begin_checkpoint(job).expect("the job is sound");
        self.making = Some(Making { work, ops: VecDeque::new(), written });
        *self.counts.entry("checkpoints").or_default() += 1;
    }

    fn continue_checkpoint(&mut self, disk: &mut MemDisk, watch: &mut Watch<'_>) {
        let Some(mut making) = self.making.take() else { return };
        if let Some(op) = making.ops.pop_front() {
            self.run(op, disk, watch).expect("the disk works");
        } else if let Some(ops) = making.work.next_ops() {
            making.ops.extend(ops);
        } else {
            let Making { work, written, .. } = making;
            let done = work.done().clone();
            self.cleanup.extend(self.storage.handle_checkpoint(work, &Ok(())));
            assert_eq!(done.written.iter().map(|(_, one)| one.segment).collect::<Vec<_>>(), written);
            done.written.into_iter().for_each(|(_, one)| self.messages.handle_written(one));
            self.messages.handle_checkpointed();
            return;
        }
        self.making = Some(making);
    }
}
