//! A replica that is brought up to date by a state instead of log entries: what its log had before is not seen again.

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
    CheckpointJob { groups: vec![group], dropped: Vec::new(), full: true }
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
