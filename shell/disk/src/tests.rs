//! The threads on a real folder: what is completed is there after reopening, blocks come back, failures are told.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Span, Time};
use hw_store::messages::Message;
use hw_store::{
    DiskAnswer, DiskOp, FileId, FrameBuilder, FrameKind, FrameMeta, GroupCheckpoint, NewSegment, Record,
    SyncPolicy,
};

use super::*;

/// A new empty folder for one test.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hw-disk-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

struct Shard {
    disk: ShardDisk,
    done: Receiver<Completion>,
    report: RecoveryReport,
    recovered: Vec<Recovered>,
}

fn open_with(path: &std::path::Path, sync: SyncPolicy) -> Shard {
    let store = Arc::new(StoreDir::open(path).unwrap());
    let mut storage = StorageOptions::new(ShardId(0), 99);
    storage.sync = sync;
    storage.frame_bytes_max = 64 << 10;
    storage.wal_first_bytes = 128 << 10;
    storage.wal_file_bytes = 256 << 10;
    let (sender, done) = sync_channel(100_000);
    let mut recovered = Vec::new();
    let tell = move |completion| drop(sender.send(completion));
    // However slow the disk of whoever runs this is.
    let options = DiskOptions { at_once_sync: Duration::MAX, ..DiskOptions::new(storage) };
    let (disk, report) =
        ShardDisk::open(&store, options, &mut |item| recovered.push(item), Arc::new(tell)).unwrap();
    Shard { disk, done, report, recovered }
}

fn open(path: &std::path::Path) -> Shard {
    open_with(path, SyncPolicy::Always)
}

impl Shard {
    fn next(&self) -> Completion {
        self.done.recv_timeout(Duration::from_secs(20)).expect("the disk answers")
    }

    fn synced(&self, ticket: u64) {
        loop {
            match self.next() {
                Completion::Synced { ticket: done } if done >= ticket => return,
                Completion::Synced { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn entries(&self) -> Vec<(u64, u64, Bytes)> {
        let replays = self.recovered.iter().filter_map(|item| match item {
            Recovered::Replay(replay) => Some(replay),
            _ => None,
        });
        let entries = |replay: &hw_store::Replay| {
            let group = replay.frame.group().0;
            replay.entries().map(|(index, bytes)| (group, index.0, bytes)).collect::<Vec<_>>()
        };
        replays.flat_map(entries).collect()
    }
}

fn frame(group: u64, first: u64, entries: &[&[u8]]) -> Frame {
    let mut builder = FrameBuilder::new();
    entries.iter().for_each(|entry| builder.push(entry));
    let (group, first) = (GroupId(group), LogIndex(first));
    builder.finish(FrameMeta { group, term: 1, first, kind: FrameKind::Entries })
}

#[test]
fn what_was_completed_is_there_again() {
    for (at, sync) in [SyncPolicy::Always, SyncPolicy::Interval(Span::from_millis(1))].into_iter().enumerate()
    {
        let path = scratch(&format!("reopen-{at}"));
        let shard = open_with(&path, sync);
        let mut expected = Vec::new();
        for ticket in 1..=2000 {
            let payload = vec![ticket as u8; 700];
            shard
                .disk
                .append(vec![frame(ticket % 5, (ticket - ticket % 5) / 5 + 1, &[&payload])], ticket)
                .ok();
            expected.push((ticket % 5, (ticket - ticket % 5) / 5 + 1, Bytes::from(payload)));
        }
        // Group 0 starts at ticket 5: its first entry is missing, so it is refused from the start.
        let mut refused = 0;
        loop {
            match shard.next() {
                Completion::Refused { error: AppendError::Gap { .. }, .. } => refused += 1,
                Completion::Synced { ticket: 1999 } => break,
                Completion::Synced { ticket } => assert!(ticket < 1999),
                other => panic!("{other:?}"),
            }
        }
        assert!(refused >= 399, "{refused}");
        expected.retain(|(group, ..)| *group != 0);
        shard.disk.close();
        let shard = open_with(&path, sync);
        assert!(shard.entries() == expected, "what was written comes back once and in order");
        assert_eq!((shard.report.torn_windows, shard.report.session), (0, 2));
        shard.disk.close();
        std::fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn small_appends_are_written_at_once_where_nothing_waits() {
    let path = scratch("at-once");
    let shard = open(&path);
    let mut rng = hw_kit::Rng::new(3);
    let (mut at_once, mut completed, mut expected) = (0, 0, Vec::new());
    for ticket in 1..=1000 {
        let payload = vec![ticket as u8; 200];
        let frames = vec![frame(1, ticket, &[&payload])];
        expected.push((1, ticket, Bytes::from(payload)));
        let is_wanted = rng.below(3) > 0;
        match if is_wanted { shard.disk.append_at_once(frames, ticket) } else { Err(frames) } {
            Ok(done) => {
                assert!(
                    matches!(done[..], [Completion::Synced { ticket: done }] if done == ticket),
                    "{done:?}"
                );
                // What was queued before it was completed before it.
                while let Ok(Completion::Synced { ticket }) = shard.done.try_recv() {
                    completed = ticket;
                }
                assert_eq!(completed, ticket - 1);
                (at_once, completed) = (at_once + 1, ticket);
            }
            Err(frames) => {
                shard.disk.append(frames, ticket).unwrap();
                if rng.below(2) == 0 {
                    shard.synced(ticket);
                    completed = ticket;
                }
            }
        }
    }
    assert!(at_once > 100, "{at_once}");
    let large = vec![frame(1, 1001, &[&[7; 2000]])];
    let large = shard.disk.append_at_once(large, 1001).expect_err("left to the writer's thread");
    assert_eq!(large.len(), 1);
    shard.disk.close();
    let shard = open(&path);
    assert!(shard.entries() == expected, "what was written comes back once and in order");
    shard.disk.close();
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn the_last_checkpoint_is_made_before_the_disk_closes() {
    let path = scratch("last-checkpoint");
    let shard = open(&path);
    for round in 1..=2u64 {
        shard.disk.append(vec![frame(1, round, &[&[7; 3000]])], round).unwrap();
        // The second one does not wait for the first: it builds on it.
        let group = GroupCheckpoint {
            group: GroupId(1),
            applied: LogIndex(round),
            term: 1,
            state: Bytes::from(vec![round as u8; 10]),
            new_segments: Vec::new(),
            live_segments: Vec::new(),
        };
        shard.disk.checkpoint(CheckpointJob {
            groups: vec![group],
            full: round == 1,
            ..CheckpointJob::default()
        });
    }
    shard.disk.append(vec![frame(1, 3, &[b"after it"])], 3).unwrap();
    shard.disk.close();
    let ended = shard.done.iter().filter(|done| matches!(done, Completion::Checkpoint(Ok(_)))).count();
    assert_eq!(ended, 2);
    let shard = open(&path);
    let states = shard.recovered.iter().filter_map(|item| match item {
        Recovered::Group(group) => Some((group.applied, group.state.clone())),
        _ => None,
    });
    assert_eq!(states.collect::<Vec<_>>(), [(LogIndex(2), Bytes::from(vec![2; 10]))]);
    assert_eq!(
        shard.entries(),
        [(1, 3, Bytes::from_static(b"after it"))],
        "the rest of the log is not needed"
    );
    shard.disk.close();
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn checkpoints_free_the_log_and_blocks_come_back() {
    let path = scratch("checkpoint");
    let shard = open(&path);
    let message = |seq: u64| {
        let record = Record::join(b"a.b", b"", &vec![seq as u8; 3000]).unwrap();
        Message { seq: Seq(seq), ts: Time(seq as i64), record }
    };
    let mut ticket = 0;
    for round in 1..=6u64 {
        for index in (round - 1) * 100 + 1..=round * 100 {
            ticket += 1;
            shard.disk.append(vec![frame(1, index, &[&[7; 3000]])], ticket).unwrap();
        }
        shard.synced(ticket);
        let messages = ((round - 1) * 100 + 1..=round * 100).map(message).collect();
        let group = GroupCheckpoint {
            group: GroupId(1),
            applied: LogIndex(round * 100),
            term: 1,
            state: Bytes::from(vec![round as u8; 10]),
            new_segments: vec![NewSegment { number: round, messages, packed: false }],
            live_segments: (round.saturating_sub(2).max(1)..=round).collect(),
        };
        let full = shard.disk.gauges().wants_full.load(Ordering::Relaxed) || round == 1;
        shard.disk.checkpoint(CheckpointJob { groups: vec![group], full, ..CheckpointJob::default() });
        let Completion::Checkpoint(Ok(done)) = shard.next() else { panic!("the checkpoint is made") };
        assert_eq!((done.number, done.written.len(), done.removed.len()), (round, 1, usize::from(round > 3)));
        let mut read = 0;
        for block in 0.. {
            let id = BlockId { segment: round, block };
            shard.disk.load_block(GroupId(1), id, block % 2 == 0).unwrap();
            let Completion::Block { block, result, .. } = shard.next() else { panic!("it is read") };
            assert_eq!(block, id);
            let messages = match result {
                Ok(loaded) => loaded.messages().unwrap(),
                Err(ReadError::NoBlock { .. }) => break,
                Err(error) => panic!("{error}"),
            };
            assert!(messages.iter().all(|read| *read == message(read.seq.0)));
            read += messages.len();
        }
        assert_eq!(read, 100);
        if round > 3 {
            // Whoever still reads what was superseded can do so until he says that he does not.
            let old = BlockId { segment: round - 3, block: 0 };
            shard.disk.load_block(GroupId(1), old, false).unwrap();
            assert!(matches!(shard.next(), Completion::Block { result: Ok(_), .. }));
        }
        shard.disk.tidy();
    }
    shard.disk.load_block(GroupId(1), BlockId { segment: 1, block: 0 }, false).unwrap();
    assert!(
        matches!(shard.next(), Completion::Block { result: Err(ReadError::Damaged(_)), .. }),
        "it was removed"
    );
    let store = shard.disk.store().shard_path(ShardId(0));
    shard.disk.close();
    let wal = std::fs::read_dir(&store).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        matches!(FileId::parse(hw_store::Dir::Root, &name.to_string_lossy()), Some(FileId::Wal(_)))
    });
    assert!(wal.count() <= 5, "1.8 MB went through a log that kept a few files of 256 KiB");
    let shard = open(&path);
    let [Recovered::Group(group), rest @ ..] = &shard.recovered[..] else { panic!("{:?}", shard.report) };
    assert_eq!(
        (group.applied.0, &group.state[..], &group.live_segments[..]),
        (600, &[6; 10][..], &[4, 5, 6][..])
    );
    assert_eq!(rest.len(), 3, "three segments, nothing to replay");
    drop(shard);
    let store = StoreDir::open(&path).unwrap();
    let report = check_shard(&store, ShardId(0), &hw_store::Vault::default()).unwrap();
    assert!(report.is_sound() && report.messages == 300, "{report:?}");
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn long_is_taken_and_too_much_is_refused() {
    let path = scratch("refused");
    let shard = open(&path);
    // Longer than the store was opened for, and than any of its files.
    shard.disk.append(vec![frame(1, 1, &[&[0; 70 << 10]])], 1).unwrap();
    shard.synced(1);
    shard.disk.append(vec![frame(1, 2, &[&[0; 3 << 20]])], 2).unwrap();
    shard.synced(2);
    shard.disk.append(vec![frame(1, 3, &[b"x"])], 3).unwrap();
    shard.synced(3);
    let queue = Queue::new(100);
    queue.append(vec![frame(1, 1, &[&[0; 200]])], 1).expect("one batch is always taken");
    let error = queue.append(vec![frame(1, 2, &[b"x"])], 2).unwrap_err();
    assert_eq!((error.frames.len(), error.waiting), (1, 208));
    drop(shard);
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn what_is_only_allocated_reads_as_zeros() {
    let path = scratch("allocated");
    let mut folder = Folder::new(path.clone());
    let (file, len) = (FileId::Reserve, 100_000);
    folder.run_all(vec![DiskOp::Create(file), DiskOp::Allocate { file, len }, DiskOp::Sync(file)]).unwrap();
    folder.run(DiskOp::Write { file, offset: 50_000, data: vec![Bytes::from_static(b"here")] }).unwrap();
    assert_eq!(folder.run(DiskOp::Length(file)), Ok(DiskAnswer::Length(len)));
    let mut expected = vec![0; len as usize];
    expected[50_000..50_004].copy_from_slice(b"here");
    let found = folder.run(DiskOp::Read { file, offset: 0, len: 2 * len });
    assert_eq!(found, Ok(DiskAnswer::Bytes(expected.into())));
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_store_that_cannot_be_written_stops() {
    let path = scratch("stops");
    let shard = open(&path);
    // The folder goes away: the file in use can still be written, the next one cannot be made or opened.
    let folder = shard.disk.store().shard_path(ShardId(0));
    shard.disk.append(vec![frame(1, 1, &[b"x"])], 1).unwrap();
    shard.synced(1);
    std::fs::rename(&folder, path.join("elsewhere")).unwrap();
    let mut ticket = 1;
    let failure = loop {
        ticket += 1;
        shard.disk.append(vec![frame(1, ticket, &[&[1; 60_000]])], ticket).unwrap();
        match shard.next() {
            Completion::Synced { .. } => {}
            Completion::Failed { reason } => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(failure.contains("does not exist"), "{failure}");
    assert!(matches!(shard.next(), Completion::Refused { error: AppendError::Stopped { .. }, .. }));
    shard.disk.append(vec![frame(1, ticket + 1, &[b"x"])], ticket + 1).unwrap();
    assert!(matches!(shard.next(), Completion::Refused { error: AppendError::Stopped { .. }, .. }));
    drop(shard);
    std::fs::remove_dir_all(path).unwrap();
}
