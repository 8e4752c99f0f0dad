//! The index against a plain map: after every step both give the same answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use hw_kit::{GroupId, Rng};

use super::*;
use crate::block::LoadedBlock;
use crate::index::{Pages, ReadSegment};
use crate::op::DiskError;
use crate::segment::{Block, SegmentId, SegmentWriter, encode, read_trailer};
use crate::vault::Vault;

/// Segments as files, in memory.
#[derive(Clone, Debug, Default)]
struct Files(Arc<Mutex<BTreeMap<u64, Bytes>>>);

impl ReadSegment for Files {
    fn read(&self, id: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        let files = self.0.lock().expect("nobody panics with it");
        let file = files.get(&id.number).ok_or(DiskError::NotFound { place: id.file().path() })?;
        let end = file.len().min((offset + len) as usize);
        Ok(file.slice((offset as usize).min(end)..end))
    }
}

const GROUP: GroupId = GroupId(1);

impl Files {
    /// Few pages, so that they come and go.
    fn source(&self) -> IndexSource {
        IndexSource {
            group: GROUP,
            pages: Arc::new(Pages::new(Box::new(self.clone()), 30_000, Vault::default())),
        }
    }

    fn write(&self, number: u64, messages: &[Message], packed: bool) -> Written {
        let (bytes, written) = encode(
            SegmentWriter::new(SegmentId { group: GROUP, number }, packed, Vault::default()),
            messages,
        );
        self.0.lock().expect("nobody panics with it").insert(number, bytes);
        written
    }

    fn file(&self, number: u64) -> Bytes {
        self.0.lock().expect("nobody panics with it")[&number].clone()
    }

    fn blocks(&self, number: u64) -> (Vec<Block>, Written) {
        let (file, id) = (self.file(number), SegmentId { group: GROUP, number });
        let trailer = read_trailer(id, file.len() as u64, &file).expect("just written");
        let (start, len) = (trailer.table_offset() as usize, trailer.table_len() as usize);
        let blocks = trailer.read_table(&file[start..start + len]).expect("just written");
        (blocks, Written { segment: number, place: trailer.place() })
    }

    fn block(&self, id: BlockId) -> LoadedBlock {
        let (blocks, _) = self.blocks(id.segment);
        let block = &blocks[id.block as usize];
        let file = self.file(id.segment);
        let bytes = file.slice(block.offset as usize..(block.offset + u64::from(block.len)) as usize);
        let id = SegmentId { group: GROUP, number: id.segment };
        LoadedBlock::open(id, block, &bytes, &Vault::default()).expect("just written")
    }

    fn messages(&self, id: BlockId) -> Vec<Message> {
        self.block(id).messages().expect("just written")
    }

    fn remove(&self, number: u64) -> Vec<Message> {
        let count = self.blocks(number).0.len() as u32;
        let all = (0..count).flat_map(|block| self.messages(BlockId { segment: number, block })).collect();
        self.0.lock().expect("nobody panics with it").remove(&number);
        all
    }
}

/// What is obviously right: sequence to (time, record).
#[derive(Default)]
struct Model {
    messages: BTreeMap<u64, (i64, Record)>,
    first: u64,
    last: u64,
}

const FILTERS: &[&[&str]] = &[
    &[],
    &[">"],
    &["a.1"],
    &["b.*"],
    &["*.3"],
    &["a.>", "b.7"],
    &["*.1.*", "c.2", "c.5", "nothing.here"],
    &["u.>"],
    &["*.*.x"],
    // More than are tried one after the other: some overlap, one begins with no name.
    &[
        "a.1.*", "a.2.*", "a.*", "b.1*", "b.20", "b.3.>", "b.>", "*.*.y", "c.1", "c.*.>", "u.>", "a.*.x",
        "b.*",
    ],
    &["a.1.*", "a.2.*", "a.*", "c.1.>", "c.2.>", "c.3.*", "c.4.*", "u.1.*", "u.2.*", "u.*", "b.7", "a.3"],
];

fn matches(filters: &[&str], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| hw_subject::matches(filter.as_bytes(), subject))
}

fn subject(rng: &mut Rng, step: u64) -> String {
    match rng.below(10) {
        0 => format!("u.{step}"),
        1 => format!("a.{}.x", rng.below(4)),
        2..=4 => format!("b.{}", rng.below(400)),
        _ => format!("{}.{}", ["a", "b", "c"][rng.below(3) as usize], rng.below(12)),
    }
}

impl Model {
    fn matching<'a>(&'a self, filters: &'a [&'a str], from: u64) -> impl Iterator<Item = u64> + 'a {
        let wanted = move |record: &Record| matches(filters, record.subject());
        self.messages.range(from..).filter(move |(_, (_, r))| wanted(r)).map(|(&seq, _)| seq)
    }

    fn of_subject<'a>(&'a self, subject: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        self.messages.iter().filter(move |(_, (_, record))| record.subject() == subject).map(|(&seq, _)| seq)
    }

    /// What is asked of one subject.
    fn check_subject(&self, m: &Messages, subject: &[u8]) {
        let stored: Vec<Seq> = self.of_subject(subject).map(Seq).collect();
        // The last one first: it is looked for without the others.
        assert_eq!(m.last_of(subject), stored.last().copied());
        assert_eq!(m.first_of(subject), stored.first().copied());
        assert_eq!(m.count_of(subject), stored.len() as u64);
        assert_eq!(m.last_of(subject), stored.last().copied());
    }

    fn lasts(&self, filters: &[&str], from: u64, up_to: u64) -> Vec<Seq> {
        let mut by_subject = BTreeMap::new();
        for (&seq, (_, record)) in self.messages.range(..=up_to) {
            if matches(filters, record.subject()) {
                by_subject.insert(record.subject().to_vec(), seq);
            }
        }
        let mut lasts: Vec<Seq> = by_subject.into_values().filter(|&seq| seq >= from).map(Seq).collect();
        lasts.sort();
        lasts
    }

    fn check_state(&self, m: &Messages) {
        let state = m.state();
        let bytes: u64 = self.messages.values().map(|(_, record)| m.keep().size_of(record)).sum();
        let subjects: std::collections::BTreeSet<&[u8]> =
            self.messages.values().map(|(_, record)| record.subject()).collect();
        assert_eq!((state.messages, state.bytes), (self.messages.len() as u64, bytes));
        assert_eq!(state.num_subjects, subjects.len() as u64);
        assert_eq!((state.first_seq.0, state.last_seq.0), (self.first, self.last));
        let first_ts = self.messages.get(&self.first).map_or(0, |(ts, _)| *ts);
        assert_eq!(state.first_ts.0, first_ts);
        let gaps: Vec<Seq> = match self.messages.is_empty() {
            true => Vec::new(),
            false => {
                (self.first..=self.last).filter(|seq| !self.messages.contains_key(seq)).map(Seq).collect()
            }
        };
        assert_eq!(state.num_deleted, gaps.len() as u64);
        assert_eq!(m.deleted(), gaps);
    }

    fn check_reads(&self, m: &Messages, rng: &mut Rng, matchers: &mut [Matcher]) {
        let at = self.first.saturating_sub(2) + rng.below(self.last + 4 - self.first.min(self.last + 1));
        let up_to = at + rng.below(1000);
        assert_eq!(m.next(Seq(at)).map(|s| s.0), self.messages.range(at..).next().map(|(&s, _)| s));
        assert_eq!(m.prev(Seq(at)).map(|s| s.0), self.messages.range(..=at).next_back().map(|(&s, _)| s));
        assert_eq!(m.contains(Seq(at)), self.messages.contains_key(&at));
        match (m.fetch(Seq(at)), self.messages.get(&at)) {
            (Fetch::Message(got), Some((ts, record))) => {
                assert_eq!((got.seq.0, got.ts.0, &got.record), (at, *ts, record));
            }
            (Fetch::OnDisk(_), Some(_)) | (Fetch::Absent, None) => {}
            (got, expected) => panic!("{at}: {got:?} instead of {expected:?}"),
        }
        let ts = self.messages.get(&at).map_or(at as i64 * 10, |(ts, _)| *ts) - rng.below(3) as i64;
        let expected = self.messages.iter().find(|(_, (t, _))| *t >= ts).map_or(self.last + 1, |(&s, _)| s);
        assert_eq!(m.seq_at(Time(ts)).0, expected);
        for (filters, matcher) in FILTERS.iter().zip(matchers) {
            let count = self.matching(filters, at).count() as u64;
            assert_eq!(m.count_from(Seq(at), matcher), count, "{filters:?} from {at}");
            let mut from = at;
            for expected in self.matching(filters, at).map(Some).chain([None]).take(3) {
                assert_eq!(
                    m.next_match(Seq(from), matcher).map(|s| s.0),
                    expected,
                    "{filters:?} from {from}"
                );
                from = expected.map_or(from, |seq| seq + 1);
            }
            let lasts = self.lasts(filters, at, up_to);
            assert_eq!(m.last_per_subject(matcher, Seq(at), Seq(up_to)), lasts, "{filters:?}");
            if let [filter] = filters {
                let all = self.lasts(filters, 0, up_to);
                assert_eq!(
                    m.last_matching(filter, Seq(up_to)),
                    all.last().copied(),
                    "{filter} up to {up_to}"
                );
            }
        }
    }
}

/// Loads what is on disk.
fn load(m: &mut Messages, disk: &Files, seq: Seq) {
    if let Fetch::OnDisk(id) = m.fetch(seq) {
        m.handle_block(id, disk.block(id));
        assert!(matches!(m.fetch(seq), Fetch::Message(_)));
    }
}

fn restored(m: &Messages, disk: &Files) -> Messages {
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    bytes.extend_from_slice(b"more");
    let (mut restore, rest) = Restore::open(&bytes).expect("just written");
    assert_eq!(rest, b"more");
    for number in restore.segments().to_vec() {
        restore.add_segment(disk.blocks(number).1).expect("in order");
    }
    let (messages, lost) = restore.finish(Some(disk.source()));
    assert_eq!(lost, []);
    messages
}

/// Rewrites what is worth it, or begins to and fails.
fn rewrite(m: &mut Messages, model: &mut Model, disk: &Files, segments: &mut u64, rng: &mut Rng) {
    let budget = [100, 5000, 1 << 30][rng.below(3) as usize];
    let Some(chosen) = m.worth_rewriting(budget, &BTreeSet::new()) else { return };
    let (mut messages, mut at): (Vec<Message>, Seq) = (Vec::new(), Seq(0));
    while let Some(block) = m.next_block(&chosen, at) {
        messages.extend(disk.messages(block));
        at = messages.last().expect("a block has messages").seq.next();
    }
    *segments += 1;
    if !m.begin_rewrite(&chosen.segments, *segments, &mut messages) {
        panic!("what is worth rewriting is there: {chosen:?}");
    }
    m.handle_checkpoint_begun();
    let listed = m.segment_numbers();
    assert!(listed.contains(segments) && chosen.segments.iter().all(|old| !listed.contains(old)));
    // What is removed meanwhile is removed from both.
    for seq in messages.iter().map(|message| message.seq).filter(|_| rng.chance(1, 30)) {
        m.mark_for_erasure(seq);
        assert!(m.remove(seq).is_some() && m.must_erase_segments());
        model.messages.remove(&seq.0);
    }
    model.first = m.first_seq().0;
    let wasted = m.wasted_bytes();
    if rng.chance(1, 4) {
        m.handle_checkpoint_failed();
        assert_eq!(m.wasted_bytes(), wasted);
        return;
    }
    m.handle_written(disk.write(*segments, &messages, rng.chance(1, 2)));
    m.handle_checkpointed();
    assert!(m.wasted_bytes() <= wasted);
    for old in &chosen.segments {
        disk.remove(*old);
    }
}

/// What happens in a history.
#[derive(Clone, Copy)]
struct Habits {
    /// So many of 10 steps remove.
    churn: u64,
    from_front: bool,
    /// So many messages of a subject stay.
    per_subject: usize,
}

/// What a stream with a limit per subject does after each message.
fn enforce(m: &mut Messages, model: &mut Model, subject: &[u8], limit: usize) {
    loop {
        let stored: Vec<u64> = model.of_subject(subject).collect();
        assert_eq!(m.count_of(subject), stored.len() as u64);
        assert_eq!(m.first_of(subject), stored.first().map(|&seq| Seq(seq)));
        if stored.len() <= limit {
            return;
        }
        let removed = m.remove(Seq(stored[0])).expect("it was just found");
        assert_eq!((&removed.name[..], removed.last_of_subject), (subject, false));
        model.messages.remove(&stored[0]);
        model.first = model.messages.first_key_value().map_or(model.last + 1, |(&seq, _)| seq);
    }
}

/// One random history.
fn history(seed: u64, steps: u64, budget: u64, habits: Habits) {
    let Habits { churn, from_front, per_subject } = habits;
    let mut rng = Rng::new(seed);
    let mut m = Messages::new(Seq(1), Keep::File);
    m.set_cache_budget(budget);
    let disk = Files::default();
    m.set_source(disk.source());
    let mut model = Model { first: 1, ..Model::default() };
    let mut matchers: Vec<Matcher> = FILTERS.iter().map(|filters| m.matcher(filters)).collect();
    let (mut segments, mut ts, mut held) = (0, 100, (SegmentInput::default(), Vec::new()));
    for step in 0..steps {
        if rng.below(10) >= churn || model.messages.is_empty() {
            model.last += 1 + if rng.chance(1, 50) { rng.below(200) } else { 0 };
            ts += rng.below(20) as i64;
            let header = if rng.chance(1, 3) { &b"NATS/1.0\r\nA: b\r\n\r\n"[..] } else { b"" };
            let record =
                Record::join(subject(&mut rng, step).as_bytes(), header, &[b'x'; 9][..rng.below(9) as usize])
                    .expect("it is short");
            m.append(Seq(model.last), Time(ts), record.clone());
            if model.messages.is_empty() {
                model.first = model.last;
            }
            model.messages.insert(model.last, (ts, record.clone()));
            enforce(&mut m, &mut model, record.subject(), per_subject);
        } else {
            let span = model.last - model.first + 1;
            let at = model.first + if from_front { rng.below(3) } else { rng.below(span) };
            let removed = m.remove(Seq(at));
            let expected = model.messages.remove(&at);
            assert_eq!(
                removed.as_ref().map(|r| (r.name.to_vec(), r.ts.0)),
                expected.map(|(ts, r)| (r.subject().to_vec(), ts))
            );
            if at == model.first || model.messages.is_empty() {
                model.first = model.messages.first_key_value().map_or(model.last + 1, |(&seq, _)| seq);
            }
        }
        if rng.chance(1, 400) {
            segments += 1;
            // What was taken the last time is as it was then, whatever has happened since.
            assert!(held.0.by_ref().eq(held.1.drain(..)), "seed {seed}, step {step}");
            held.0 = m.take_unwritten(segments).unwrap_or_default();
            held.1 = held.0.clone().collect();
            let taken = held.1.clone();
            if !taken.is_empty() {
                if rng.chance(1, 4) {
                    m.handle_write_failed(segments);
                } else {
                    m.handle_written(disk.write(segments, &taken, rng.chance(1, 2)));
                }
            }
            rewrite(&mut m, &mut model, &disk, &mut segments, &mut rng);
            for dead in m.dead_segments() {
                let gone: Vec<Message> = disk.remove(dead);
                assert!(gone.iter().all(|message| !model.messages.contains_key(&message.seq.0)));
            }
        }
        if rng.chance(1, 4) {
            let at = model.first + rng.below(model.last + 1);
            let name = match model.messages.range(at..).next() {
                Some((_, (_, record))) => record.subject().to_vec(),
                None => subject(&mut rng, step).into_bytes(),
            };
            model.check_subject(&m, &name);
        }
        if rng.chance(1, 10) {
            model.check_reads(&m, &mut rng, &mut matchers);
            load(&mut m, &disk, Seq(model.first + rng.below(model.last + 1)));
        }
        if rng.chance(1, 300) {
            model.check_state(&m);
        }
        if rng.chance(1, 1000) {
            m.clear();
            model.messages.clear();
            model.first = model.last + 1;
            model.check_state(&m);
        }
        if rng.chance(1, 400) {
            segments += 1;
            let taken = take(&mut m, segments);
            if !taken.is_empty() {
                m.handle_written(disk.write(segments, &taken, false));
            }
            let old = m.state();
            m = restored(&m, &disk);
            m.set_cache_budget(budget);
            assert_eq!(m.state(), old);
            matchers = FILTERS.iter().map(|filters| m.matcher(filters)).collect();
        }
    }
    model.check_state(&m);
    assert_eq!(m.fault(), None);
}

/// What is in no segment yet, one by one.
fn take(m: &mut Messages, segment: u64) -> Vec<Message> {
    m.take_unwritten(segment).into_iter().flatten().collect()
}

#[test]
fn agrees_with_a_plain_map() {
    for (seed, churn, from_front) in
        [(1, 0, false), (2, 3, false), (3, 5, true), (4, 5, false), (5, 4, true), (6, 6, false)]
    {
        let budget = [0, 3_000, 20_000][seed as usize % 3];
        history(seed, 1_600, budget, Habits { churn, from_front, per_subject: usize::MAX });
    }
    for (seed, per_subject, churn) in [(7, 1, 0), (8, 1, 3), (9, 2, 1), (10, 3, 4), (11, 1, 1)] {
        let budget = [0, 1_000, 10_000][seed as usize % 3];
        history(seed, 800, budget, Habits { churn, from_front: false, per_subject });
    }
}

#[test]
fn counts_bytes_as_nats_server_does() {
    type Case = (&'static str, &'static [u8], &'static [u8], u64, u64);
    let cases: [Case; 3] = [
        ("s.a", b"", b"", 33, 19),
        ("s.a", b"", b"12345", 38, 24),
        ("s.abc", b"NATS/1.0\r\nA: b\r\n\r\n", b"1", 58, 40),
    ];
    for (subject, header, payload, file, memory) in cases {
        let record = Record::join(subject.as_bytes(), header, payload).expect("it is short");
        assert_eq!((Keep::File.size_of(&record), Keep::Memory.size_of(&record)), (file, memory));
    }
}

#[test]
fn numbers_an_empty_stream_as_nats_server_does() {
    let numbers = |m: &Messages| (m.state().first_seq.0, m.state().last_seq.0, m.state().last_ts.0);
    let mut m = Messages::new(Seq(0), Keep::Memory);
    assert_eq!(numbers(&m), (0, 0, 0));
    m.append(Seq(1), Time(7), Record::default());
    m.remove(Seq(1));
    assert_eq!(numbers(&m), (2, 1, 7));
    m.advance_to(Seq(5), Time(9));
    assert_eq!(numbers(&m), (6, 5, 9));
    assert_eq!(numbers(&Messages::new(Seq(100), Keep::File)), (100, 99, 0));
}

#[test]
fn damaged_snapshots_are_refused() {
    let mut m = Messages::new(Seq(1), Keep::File);
    for seq in 1..100 {
        m.append(Seq(seq), Time(seq as i64), Record::join(b"a", b"", b"x").expect("it is short"));
    }
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    for cut in 0..bytes.len() {
        assert!(Restore::open(&bytes[..cut]).is_err(), "{cut}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let _ = Restore::open(&bytes); // It may be read as something else, but it must not panic.
        }
    }
    assert_eq!(Restore::open(&[9, 0]).err(), Some(RestoreError::Version(9)));
}

fn filled(first: u64, last: u64) -> Messages {
    let mut m = Messages::new(Seq(first), Keep::File);
    for seq in first..=last {
        m.append(Seq(seq), Time(7), Record::join(b"a", b"", b"x").expect("it is short"));
    }
    m
}

#[test]
fn a_snapshot_has_pinned_bytes() {
    let mut m = filled(8192, 12_289);
    let taken = take(&mut m, 5);
    m.handle_written(Files::default().write(5, &taken, false));
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    let mut expected = vec![3, 0];
    for number in [8192u64, 12_289, 7, 1, 2] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    // Block 2 is whole; block 3 has its first two.
    expected.extend_from_slice(b"\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x02\x03\0\0\0\0\0\0\0\x02\0\0\0\x01\0");
    expected.extend_from_slice(b"\x01\0\0\0");
    for number in [5u64, 8192, 12_289, 4098, 4098, 4098 * 32, 4098 * 32] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.extend_from_slice(b"\0\0\0\0");
    assert_eq!(bytes, expected);
}

#[test]
fn lost_messages_are_told_and_come_back_with_their_file() {
    let (mut m, files) = (filled(1, 3000), Files::default());
    m.set_source(files.source());
    m.set_cache_budget(0);
    let taken = take(&mut m, 1);
    m.handle_written(files.write(1, &taken, false));
    for seq in 3001..=5000 {
        m.append(Seq(seq), Time(8), Record::join(b"b", b"", b"x").expect("it is short"));
    }
    let taken = take(&mut m, 2);
    m.handle_written(files.write(2, &taken, false));
    m.remove(Seq(10));
    let whole = m.state();
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    let (mut restore, _) = Restore::open(&bytes).expect("just written");
    restore.add_segment(files.blocks(2).1).expect("it is listed");
    let (m, lost) = restore.finish(Some(files.source()));
    assert_eq!(lost, [(Seq(1), Seq(9)), (Seq(11), Seq(3000))]);
    assert_eq!((m.len(), m.first_seq(), m.last_seq()), (2000, Seq(3001), Seq(5000)));
    assert!(matches!(m.fetch(Seq(3001)), Fetch::OnDisk(BlockId { segment: 2, block: 0 })));
    assert_eq!(m.fetch(Seq(7)), Fetch::Absent);
    // The next checkpoint says the same, so that the file can come back.
    let mut again = Vec::new();
    m.snapshot(&mut again);
    assert_eq!(again, bytes);
    let (mut restore, _) = Restore::open(&again).expect("just written");
    for number in [1, 2] {
        restore.add_segment(files.blocks(number).1).expect("it is listed");
    }
    let (m, lost) = restore.finish(Some(files.source()));
    assert_eq!((lost, m.state()), (vec![], whole));
}

#[test]
fn a_segment_that_holds_less_is_counted() {
    let (mut m, files) = (filled(1, 3000), Files::default());
    let mut taken = take(&mut m, 1);
    m.handle_written(files.write(1, &taken, false));
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    taken.retain(|message| message.seq.0 % 1000 != 0);
    let written = files.write(1, &taken, false);
    let (mut restore, _) = Restore::open(&bytes).expect("just written");
    restore.add_segment(written).expect("it is listed");
    let (mut m, lost) = restore.finish(Some(files.source()));
    assert_eq!(lost, [1000, 2000, 3000].map(|seq| (Seq(seq), Seq(seq))));
    assert_eq!((m.len(), m.bytes()), (2997, 2997 * 32));
    m.forget_lost();
    assert_eq!(m.state().num_subjects, 1);
}

#[test]
fn a_damaged_index_is_a_fault_and_nothing_else() {
    let (mut m, files) = (filled(1, 3000), Files::default());
    m.set_source(files.source());
    m.set_cache_budget(0);
    let taken = take(&mut m, 1);
    let written = files.write(1, &taken, false);
    let mut damaged = files.file(1).to_vec();
    damaged[written.place.offset as usize + 100] ^= 1;
    files.0.lock().expect("nobody panics with it").insert(1, damaged.into());
    m.handle_written(written);
    assert_eq!(m.fault(), None);
    assert_eq!((m.len(), m.time_of(Seq(5))), (3000, None));
    let fault = m.fault().expect("it was looked at");
    assert_eq!(
        (fault.file, fault.offset),
        (SegmentId { group: GROUP, number: 1 }.file(), written.place.offset)
    );
    assert_eq!(m.remove(Seq(5)), None);
    assert_eq!(m.len(), 3000);
}
