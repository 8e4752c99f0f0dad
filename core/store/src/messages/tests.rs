//! The index against a plain map: after every step both give the same answers.

use std::collections::{BTreeMap, BTreeSet};

use hw_kit::{GroupId, Rng};

use super::*;
use crate::block::LoadedBlock;
use crate::segment::{SegmentId, encode};

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
];

fn matches(filters: &[&str], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| Filter::new(filter).matches(subject))
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

fn blocks_of(messages: &[Message]) -> Vec<Seq> {
    messages.chunks(100).map(|chunk| chunk[0].seq).collect()
}

/// A block of these messages, through its bytes.
fn as_read(id: BlockId, messages: &[Message]) -> LoadedBlock {
    let id = SegmentId { group: GroupId(1), number: id.segment };
    let (file, blocks) = encode(id, messages, true);
    assert_eq!(blocks.len(), 1, "they fit into one");
    LoadedBlock::open(id, &blocks[0], &file.slice(blocks[0].offset as usize..)).expect("just written")
}

/// Loads what is on disk.
fn load(m: &mut Messages, disk: &BTreeMap<u64, Vec<Message>>, seq: Seq) {
    if let Fetch::OnDisk(id) = m.fetch(seq) {
        let block = disk[&id.segment].chunks(100).nth(id.block as usize).expect("there is such a block");
        m.handle_block(id, as_read(id, block));
        assert!(matches!(m.fetch(seq), Fetch::Message(_)));
    }
}

fn restored(m: &Messages, disk: &BTreeMap<u64, Vec<Message>>) -> Messages {
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    bytes.extend_from_slice(b"more");
    let (mut restore, rest) = Restore::open(&bytes).expect("just written");
    assert_eq!(rest, b"more");
    for id in restore.segments().to_vec() {
        for (block, messages) in disk[&id].chunks(100).enumerate() {
            let entries: Vec<IndexEntry> = messages
                .iter()
                .map(|message| IndexEntry {
                    seq: message.seq,
                    ts: message.ts,
                    subject: Bytes::copy_from_slice(message.record.subject()),
                    header_len: message.record.header().len() as u32,
                    payload_len: message.record.payload().len() as u32,
                })
                .collect();
            restore.add_block(BlockId { segment: id, block: block as u32 }, &entries).expect("in order");
        }
    }
    let (messages, lost) = restore.finish();
    assert_eq!(lost, []);
    messages
}

/// Rewrites what is worth it, or begins to and fails.
fn rewrite(
    m: &mut Messages,
    model: &mut Model,
    disk: &mut BTreeMap<u64, Vec<Message>>,
    segments: &mut u64,
    rng: &mut Rng,
) {
    let budget = [100, 5000, 1 << 30][rng.below(3) as usize];
    let Some(chosen) = m.worth_rewriting(budget, &BTreeSet::new()) else { return };
    let in_block =
        |id: &BlockId| disk[&id.segment].chunks(100).nth(id.block as usize).expect("a block").to_vec();
    let mut messages: Vec<Message> = chosen.blocks.iter().flat_map(in_block).collect();
    *segments += 1;
    if !m.begin_rewrite(&chosen.segments, *segments, &mut messages) {
        panic!("what is worth rewriting is there: {chosen:?}");
    }
    m.handle_checkpoint_begun();
    let listed = m.segments_after_rewrite();
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
    m.handle_written(Written { segment: *segments, blocks: blocks_of(&messages) });
    m.handle_checkpointed();
    assert!(m.wasted_bytes() <= wasted);
    disk.retain(|id, _| !chosen.segments.contains(id));
    disk.insert(*segments, messages);
}

/// One random history. `churn` of 10 steps remove.
fn history(seed: u64, steps: u64, churn: u64, from_front: bool) {
    let mut rng = Rng::new(seed);
    let mut m = Messages::new(Seq(1), Keep::File);
    m.set_cache_budget(20_000);
    let mut model = Model { first: 1, ..Model::default() };
    let mut matchers: Vec<Matcher> = FILTERS.iter().map(|filters| m.matcher(filters)).collect();
    let (mut disk, mut segments, mut ts) = (BTreeMap::new(), 0, 100);
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
            model.messages.insert(model.last, (ts, record));
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
            let taken = m.take_unwritten(segments);
            if !taken.is_empty() {
                let blocks = blocks_of(&taken);
                if rng.chance(1, 4) {
                    m.handle_write_failed(segments);
                } else {
                    disk.insert(segments, taken);
                    m.handle_written(Written { segment: segments, blocks });
                }
            }
            rewrite(&mut m, &mut model, &mut disk, &mut segments, &mut rng);
            for dead in m.dead_segments() {
                let gone: Vec<Message> = disk.remove(&dead).expect("reported once");
                assert!(gone.iter().all(|message| !model.messages.contains_key(&message.seq.0)));
            }
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
            let taken = m.take_unwritten(segments);
            if !taken.is_empty() {
                m.handle_written(Written { segment: segments, blocks: blocks_of(&taken) });
                disk.insert(segments, taken);
            }
            let old = m.state();
            m = restored(&m, &disk);
            m.set_cache_budget(20_000);
            assert_eq!(m.state(), old);
            matchers = FILTERS.iter().map(|filters| m.matcher(filters)).collect();
        }
    }
    model.check_state(&m);
}

#[test]
fn agrees_with_a_plain_map() {
    for (seed, churn, from_front) in
        [(1, 0, false), (2, 3, false), (3, 5, true), (4, 5, false), (5, 4, true), (6, 6, false)]
    {
        history(seed, 3_000, churn, from_front);
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

#[test]
fn a_snapshot_has_pinned_bytes() {
    let mut m = Messages::new(Seq(8192), Keep::File);
    for seq in 8192..12_290 {
        m.append(Seq(seq), Time(7), Record::join(b"a", b"", b"x").expect("it is short"));
    }
    m.take_unwritten(5);
    m.handle_written(Written { segment: 5, blocks: vec![Seq(8192)] });
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    let mut expected = vec![2, 0];
    for number in [8192u64, 12_289, 7, 2] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    // Block 2 is whole; block 3 has its first two.
    expected.extend_from_slice(b"\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    expected.extend_from_slice(b"\x02\x03\0\0\0\0\0\0\0\x02\0\0\0\x01\0");
    expected.extend_from_slice(b"\x01\0\0\0\x05\0\0\0\0\0\0\0");
    // The first version ends here.
    let mut first_version = expected.clone();
    first_version[0] = 1;
    assert_eq!(Restore::open(&first_version).expect("it is read").0.segments(), [5]);
    expected.extend_from_slice(b"\0\0\0\0");
    assert_eq!(bytes, expected);
}

#[test]
fn lost_messages_are_told() {
    let mut m = Messages::new(Seq(1), Keep::File);
    for seq in 1..5000 {
        m.append(Seq(seq), Time(7), Record::join(b"a", b"", b"x").expect("it is short"));
    }
    let mut bytes = Vec::new();
    m.snapshot(&mut bytes);
    let (mut restore, _) = Restore::open(&bytes).expect("just written");
    let entry = |seq: u64| IndexEntry {
        seq: Seq(seq),
        ts: Time(7),
        subject: Bytes::from_static(b"a"),
        header_len: 0,
        payload_len: 1,
    };
    let block = BlockId { segment: 1, block: 3 };
    restore.add_block(block, &[entry(4), entry(4998)]).expect("in order");
    let (messages, lost) = restore.finish();
    let all: u64 = lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
    assert_eq!((messages.len(), all), (2, 4997));
    assert!(lost.iter().all(|(first, last)| !(*first..=*last).contains(&Seq(4))));
    assert_eq!((messages.first_seq(), messages.last_seq()), (Seq(4), Seq(4999)));
    assert_eq!(messages.fetch(Seq(4)), Fetch::OnDisk(block));
}
