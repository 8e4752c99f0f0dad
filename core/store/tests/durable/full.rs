//! A disk that is full: refused precisely, deletes still fit, and space that is freed is used again.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Seq, Time};
use hw_store::messages::Message;
use hw_store::{
    AppendError, CheckpointJob, DiskError, FrameBuilder, FrameKind, FrameMeta, GroupCheckpoint, NewSegment,
    Record, Storage, SyncPolicy,
};

use crate::disk::MemDisk;
use crate::model::open;

struct Shard {
    disk: MemDisk,
    storage: Storage,
    last: u64,
}

impl Shard {
    fn append(&mut self, bytes: usize) -> Result<(), AppendError> {
        let mut builder = FrameBuilder::new();
        builder.push(&vec![b'x'; bytes]);
        let first = LogIndex(self.last + 1);
        let frame = builder.finish(FrameMeta { group: GroupId(1), term: 0, first, kind: FrameKind::Entries });
        let mut ops = Vec::new();
        let appended = self.storage.append(&[frame], &mut ops)?;
        for op in ops {
            self.disk.run(op).expect("the log is written to space that it has");
        }
        self.storage.handle_synced(appended.position);
        self.last += 1;
        Ok(())
    }

    fn make_spare(&mut self) -> bool {
        let Some(mut job) = self.storage.spare_job() else { return false };
        let result = job.take_ops().into_iter().try_for_each(|op| self.disk.run(op).map(|_| ()));
        let is_made = result.is_ok();
        for op in self.storage.handle_spare(job, result) {
            self.disk.run(op).expect("removing needs no space");
        }
        is_made
    }

    fn checkpoint(&mut self, segment: Option<(u64, usize)>) -> Result<(), DiskError> {
        let message = |bytes: usize| {
            let record = Record::join(b"s", b"", &vec![b'y'; bytes]).unwrap();
            vec![Message { seq: Seq(self.last), ts: Time(1), record }]
        };
        let new =
            segment.map(|(number, bytes)| NewSegment { number, messages: message(bytes), packed: false });
        let group = GroupCheckpoint {
            group: GroupId(1),
            applied: LogIndex(self.last),
            term: 0,
            state: Bytes::from_static(b"0"),
            live_segments: new.iter().map(|segment| segment.number).collect(),
            new_segments: new.into_iter().collect(),
        };
        let full = self.storage.wants_full();
        let job = CheckpointJob { groups: vec![group], full, ..CheckpointJob::default() };
        let mut work = self.storage.begin_checkpoint(job).expect("the job is sound");
        let mut result = Ok(());
        while let (Ok(()), Some(ops)) = (&result, work.next_ops()) {
            result = ops.into_iter().try_for_each(|op| self.disk.run(op).map(|_| ()));
        }
        for op in self.storage.handle_checkpoint(work, &result) {
            let _ = self.disk.run(op);
        }
        result
    }
}

#[test]
fn a_full_disk_refuses_precisely_and_recovers() {
    let mut disk = MemDisk::default();
    disk.capacity = Some(160 << 10);
    let storage = open(SyncPolicy::Always, &mut disk).unwrap().storage;
    let mut shard = Shard { disk, storage, last: 0 };
    // Publishes go on until only the reserve is left.
    while !shard.storage.is_full() {
        match shard.append(2000) {
            Ok(()) | Err(AppendError::NotReady) => {}
            Err(error) => panic!("{error}"),
        }
        shard.make_spare();
        assert!(shard.last < 1000, "the disk is full some time");
    }
    let published = shard.last;
    assert!(
        published > 10 && shard.storage.space_left() >= 8 << 10,
        "the reserve is untouched: {} {}",
        published,
        shard.storage.space_left()
    );
    // What frees space still fits, for a while; then the refusal says why.
    let mut deletes = 0;
    let refusal = loop {
        match shard.append(20) {
            Ok(()) => deletes += 1,
            Err(error) => break error,
        }
    };
    assert!(deletes > 10, "{deletes}");
    assert_eq!(refusal, AppendError::Full);
    // A checkpoint that does not fit changes nothing.
    let failed = shard.checkpoint(Some((1, 60 << 10)));
    assert!(matches!(failed, Err(DiskError::Full { .. })), "{failed:?}");
    assert_eq!(shard.append(20), Err(AppendError::Full));
    // One without messages does, and frees the log.
    shard.checkpoint(None).expect("the reserve makes room for it");
    assert!(shard.make_spare());
    assert!(!shard.storage.is_full());
    shard.append(2000).expect("there is space again");
    let mut disk = shard.disk;
    disk.settle();
    let mut tail = 0;
    let options = crate::model::options(SyncPolicy::Always);
    let (mut again, _) = hw_store::recover(options, &mut |op| disk.run(op), &mut |_| tail += 1).unwrap();
    assert!(again.spare_job().is_some() || again.space_left() > 0);
    assert!(tail >= 2, "the group and its last entry");
}
