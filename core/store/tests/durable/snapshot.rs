//! States and notes that take the place of log entries: what they replace is not seen again, what they do not is kept.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex};
use hw_store::{
    AppendError, CheckpointJob, CheckpointRefused, DiskError, Frame, FrameBuilder, FrameKind, FrameMeta,
    GroupCheckpoint, Recovered, Storage, SyncPolicy, recover,
};

use crate::disk::MemDisk;
use crate::model::options;

const GROUP: GroupId = GroupId(9);

fn frame(term: u64, first: u64, count: u64) -> Frame {
    let mut builder = FrameBuilder::new();
    (first..first + count).for_each(|index| builder.push(format!("{term} {index}").as_bytes()));
    builder.finish(FrameMeta { group: GROUP, term, first: LogIndex(first), kind: FrameKind::Entries })
}

fn append(storage: &mut Storage, disk: &mut MemDisk, frame: Frame) -> Result<(), AppendError> {
    let mut ops = Vec::new();
    let appended = storage.append(&[frame], &mut ops)?;
    ops.into_iter().try_for_each(|op| disk.run(op).map(|_| ())).expect("the disk works");
    storage.handle_synced(appended.position);
    Ok(())
}

fn job(applied: u64, term: u64) -> CheckpointJob {
    let (applied, state) = (LogIndex(applied), Bytes::from_static(b"snapshot"));
    let group = GroupCheckpoint { group: GROUP, applied, term, state, ..GroupCheckpoint::default() };
    CheckpointJob { groups: vec![group], full: true, ..CheckpointJob::default() }
}

fn checkpoint(
    storage: &mut Storage,
    disk: &mut MemDisk,
    job: CheckpointJob,
) -> Result<(), CheckpointRefused> {
    let mut work = storage.begin_checkpoint(job)?;
    let run = |disk: &mut MemDisk, ops: Vec<_>| ops.into_iter().try_for_each(|op| disk.run(op).map(|_| ()));
    while let Some(ops) = work.next_ops() {
        run(disk, ops).expect("the disk works");
    }
    let cleanup = storage.handle_checkpoint(work, &Ok::<(), DiskError>(()));
    run(disk, cleanup).expect("the disk works");
    Ok(())
}

/// The entries that are replayed, as their text.
fn reopen(disk: &mut MemDisk) -> (Storage, Vec<String>) {
    let mut entries = Vec::new();
    let mut each = |item| match item {
        Recovered::Group(found) => assert_eq!(&found.state[..], b"snapshot"),
        Recovered::Replay(replay) => {
            entries
                .extend(replay.entries().map(|(_, entry)| String::from_utf8(entry.to_vec()).expect("text")));
        }
        other => panic!("{other:?}"),
    };
    let (storage, _) =
        recover(options(SyncPolicy::Always), &mut |op| disk.run(op), &mut each).expect("it opens");
    (storage, entries)
}

#[test]
fn a_snapshot_replaces_the_log() {
    let mut disk = MemDisk::default();
    let (mut storage, _) = reopen(&mut disk);
    // Entries 11 to 30 were never committed: the snapshot comes from a leader of a later term.
    append(&mut storage, &mut disk, frame(1, 1, 10)).expect("the first entries");
    append(&mut storage, &mut disk, frame(1, 11, 20)).expect("the next ones");
    let gap = append(&mut storage, &mut disk, frame(4, 22 + 20, 1));
    assert!(
        matches!(gap, Err(AppendError::Gap { expected: LogIndex(31), found: LogIndex(42), .. })),
        "{gap:?}"
    );
    checkpoint(&mut storage, &mut disk, job(20, 3)).expect("a state of another leader");
    let (mut storage, entries) = reopen(&mut disk);
    assert_eq!(entries, Vec::<String>::new(), "entries of term 1 cannot follow one of term 3");
    append(&mut storage, &mut disk, frame(3, 21, 2)).expect("the log goes on behind the snapshot");
    let (mut storage, entries) = reopen(&mut disk);
    assert_eq!(entries, ["3 21", "3 22"]);
    // Far ahead of everything that the log has.
    checkpoint(&mut storage, &mut disk, job(1000, 5)).expect("a state far ahead");
    append(&mut storage, &mut disk, frame(5, 1001, 1)).expect("the log goes on there");
    let (mut storage, entries) = reopen(&mut disk);
    assert_eq!(entries, ["5 1001"]);
    let refused = checkpoint(&mut storage, &mut disk, job(999, 5));
    assert!(matches!(refused, Err(CheckpointRefused::Backwards { .. })), "{refused:?}");
    let empty = CheckpointJob { full: true, ..CheckpointJob::default() };
    assert_eq!(checkpoint(&mut storage, &mut disk, empty), Err(CheckpointRefused::Missing { group: GROUP }));
}

/// A note that no checkpoint contains keeps its log file, however many checkpoints other groups have.
#[test]
fn a_note_stays_until_its_group_is_saved() {
    let mut disk = MemDisk::default();
    let (mut storage, _) = reopen(&mut disk);
    append(&mut storage, &mut disk, frame(1, 1, 1)).expect("an entry");
    checkpoint(&mut storage, &mut disk, job(1, 1)).expect("the group is saved");
    let mut builder = FrameBuilder::new();
    builder.push(b"vote for 2 in term 7");
    let meta = FrameMeta { group: GROUP, term: 7, first: LogIndex(0), kind: FrameKind::Note };
    append(&mut storage, &mut disk, builder.finish(meta)).expect("a note");
    others_go_on(&mut storage, &mut disk);
    let (mut storage, entries) = reopen(&mut disk);
    assert_eq!(entries, ["vote for 2 in term 7"]);
    // Once the group is saved, the note is a part of its state and the log may go.
    let held = storage.wal_bytes();
    let mut all = job(1, 7);
    let (group, state) = (GroupId(10), Bytes::from_static(b"snapshot"));
    let other =
        GroupCheckpoint { group, applied: LogIndex(60), term: 1, state, ..GroupCheckpoint::default() };
    all.groups.push(other);
    checkpoint(&mut storage, &mut disk, all).expect("both are saved");
    assert!(storage.wal_bytes() < held / 10, "{} of {held} bytes of log are left", storage.wal_bytes());
    assert_eq!(reopen(&mut disk).1, Vec::<String>::new());
}

/// A group that was dropped is back, and no checkpoint has it yet: the log does, however many checkpoints others have.
#[test]
fn a_group_that_is_back_stays_in_the_log_until_it_is_saved() {
    for has_entries in [true, false] {
        let mut disk = MemDisk::default();
        let (mut storage, _) = reopen(&mut disk);
        append(&mut storage, &mut disk, frame(1, 1, 3)).expect("an entry");
        checkpoint(&mut storage, &mut disk, job(3, 1)).expect("the group is saved");
        append(&mut storage, &mut disk, frame(1, 4, 1)).expect("an entry");
        let gone = CheckpointJob { dropped: vec![GROUP], ..CheckpointJob::default() };
        checkpoint(&mut storage, &mut disk, gone).expect("the group goes");
        let (back, text) = match has_entries {
            true => (frame(2, 1, 1), "2 1"),
            false => {
                let mut builder = FrameBuilder::new();
                builder.push(b"vote for 2 in term 7");
                let (term, first) = (7, LogIndex(0));
                let meta = FrameMeta { group: GROUP, term, first, kind: FrameKind::Note };
                (builder.finish(meta), "vote for 2 in term 7")
            }
        };
        append(&mut storage, &mut disk, back).expect("the group is back");
        others_go_on(&mut storage, &mut disk);
        assert_eq!(reopen(&mut disk).1, [text]);
    }
}

/// A group that was dropped is back and has nothing yet, which a checkpoint says: what the log has of the time before is not taken
/// for its log.
#[test]
fn what_the_log_has_of_an_earlier_life_does_not_count() {
    for is_full in [false, true] {
        let mut disk = MemDisk::default();
        let (mut storage, _) = reopen(&mut disk);
        append(&mut storage, &mut disk, frame(1, 1, 3)).expect("an entry");
        checkpoint(&mut storage, &mut disk, job(3, 1)).expect("the group is saved");
        append(&mut storage, &mut disk, frame(1, 4, 2)).expect("more of the first life");
        let gone = CheckpointJob { dropped: vec![GROUP], ..CheckpointJob::default() };
        checkpoint(&mut storage, &mut disk, gone).expect("the group goes");
        let back = |full| CheckpointJob { full, ..job(0, 0) };
        checkpoint(&mut storage, &mut disk, back(is_full)).expect("it is back, with nothing");
        let (mut storage, entries) = reopen(&mut disk);
        assert_eq!(entries, Vec::<String>::new());
        append(&mut storage, &mut disk, frame(2, 1, 1)).expect("it begins anew");
        checkpoint(&mut storage, &mut disk, back(true)).expect("it has nothing in its state yet");
        let (mut storage, entries) = reopen(&mut disk);
        assert_eq!(entries, ["2 1"]);
        checkpoint(&mut storage, &mut disk, job(1, 2)).expect("now it has");
        let (mut storage, entries) = reopen(&mut disk);
        assert_eq!(entries, Vec::<String>::new());
        let gone = CheckpointJob { dropped: vec![GROUP], full: true, ..CheckpointJob::default() };
        checkpoint(&mut storage, &mut disk, gone).expect("it goes for the second time");
        let mut each = |item| panic!("{item:?}");
        recover(options(SyncPolicy::Always), &mut |op| disk.run(op), &mut each).expect("it opens");
    }
}

/// Another group fills log files, and checkpoints have it alone.
fn others_go_on(storage: &mut Storage, disk: &mut MemDisk) {
    let mut builder = FrameBuilder::new();
    for round in 1..=60 {
        builder.push(&[b'x'; 2000]);
        let (group, first) = (GroupId(10), LogIndex(round));
        let other = builder.finish(FrameMeta { group, term: 1, first, kind: FrameKind::Entries });
        while append(storage, disk, other.clone()) == Err(AppendError::NotReady) {
            let mut spare = storage.spare_job().expect("a log file is wanted");
            let result = spare.take_ops().into_iter().try_for_each(|op| disk.run(op).map(|_| ()));
            storage.handle_spare(spare, result);
        }
        let state = Bytes::from_static(b"snapshot");
        let saved =
            GroupCheckpoint { group, applied: LogIndex(round), term: 1, state, ..GroupCheckpoint::default() };
        let partial = CheckpointJob { groups: vec![saved], ..CheckpointJob::default() };
        checkpoint(storage, disk, partial).expect("only the other group is saved");
    }
}
