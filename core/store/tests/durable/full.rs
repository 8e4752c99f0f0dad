//! A disk that is full: refused precisely, deletes still fit, and space that is freed is used again.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Rng, Seq, Time};
use hw_store::messages::Message;
use hw_store::{
    AppendError, CheckpointJob, DiskError, DiskOp, Erase, Frame, FrameBuilder, FrameKind, FrameMeta,
    GroupCheckpoint, NewSegment, Record, RecoverError, Recovered, Storage, StorageOptions, SyncPolicy,
    recover,
};

use crate::disk::MemDisk;
use crate::model::{open, options};

struct Shard {
    disk: MemDisk,
    storage: Storage,
    last: u64,
}

impl Shard {
    fn frame(&self, bytes: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(&vec![b'x'; bytes]);
        let first = LogIndex(self.last + 1);
        builder.finish(FrameMeta { group: GroupId(1), term: 0, first, kind: FrameKind::Entries })
    }

    fn append(&mut self, bytes: usize) -> Result<(), AppendError> {
        let (mut ops, frame) = (Vec::new(), self.frame(bytes));
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

    /// Appends what is longer than any file, until the power goes.
    fn grow(&mut self) -> Result<(), DiskError> {
        for bytes in [100 << 10, 300, 150 << 10] {
            let mut ops = Vec::new();
            let appended = loop {
                let frame = self.frame(bytes);
                match self.storage.append(&[frame], &mut ops) {
                    Ok(appended) => break appended,
                    Err(error) => assert_eq!(error, AppendError::NotReady),
                }
                let mut job = self.storage.spare_job().expect("a file is wanted");
                for op in job.take_ops() {
                    self.disk.run(op)?;
                }
                assert!(self.storage.handle_spare(job, Ok(())).is_empty());
            };
            for op in ops {
                self.disk.run(op)?;
            }
            self.storage.handle_synced(appended.position);
            self.last += 1;
        }
        Ok(())
    }

    fn checkpoint(&mut self, segment: Option<(u64, usize)>) -> Result<(), DiskError> {
        self.checkpoint_up_to(self.last, segment, Erase::default())
    }

    fn checkpoint_up_to(
        &mut self,
        applied: u64,
        segment: Option<(u64, usize)>,
        erase: Erase,
    ) -> Result<(), DiskError> {
        let message = |bytes: usize| {
            let record = Record::join(b"s", b"", &vec![b'y'; bytes]).unwrap();
            vec![Message { seq: Seq(self.last), ts: Time(1), record }].into()
        };
        let new =
            segment.map(|(number, bytes)| NewSegment { number, messages: message(bytes), packed: false });
        let group = GroupCheckpoint {
            group: GroupId(1),
            applied: LogIndex(applied),
            term: 0,
            state: Bytes::from_static(b"0"),
            live_segments: new.iter().map(|segment| segment.number).collect(),
            new_segments: new.into_iter().collect(),
        };
        let full = erase.log || self.storage.wants_full();
        let job = CheckpointJob { groups: vec![group], full, erase, ..CheckpointJob::default() };
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

#[test]
fn a_frame_longer_than_any_before_makes_the_log_grow() {
    let mut disk = MemDisk::default();
    let storage = open(SyncPolicy::Always, &mut disk).unwrap().storage;
    let mut shard = Shard { disk, storage, last: 0 };
    // One file is being made meanwhile; it comes too late to be of use.
    let mut late = shard.storage.spare_job().expect("a file is wanted");
    let made = late.take_ops().into_iter().try_for_each(|op| shard.disk.run(op).map(|_| ()));
    assert_eq!(shard.append(100 << 10), Err(AppendError::NotReady));
    assert!(shard.storage.handle_spare(late, made).is_empty());
    assert_eq!(shard.append(100 << 10), Err(AppendError::NotReady));
    assert!(shard.make_spare());
    for bytes in [100 << 10, 20, 99 << 10, 3000] {
        while shard.append(bytes) == Err(AppendError::NotReady) {
            assert!(shard.make_spare());
        }
    }
    assert_eq!(shard.last, 4);
}

fn last_entry(disk: &mut MemDisk) -> Result<u64, RecoverError> {
    reopen(disk).map(|(_, last)| last)
}

/// The store as the next process has it, and its last entry.
fn reopen(disk: &mut MemDisk) -> Result<(Storage, u64), RecoverError> {
    let options = StorageOptions { salt: disk.ops_done, ..options(SyncPolicy::Always) };
    let mut found = 0;
    let mut each = |item| {
        if let Recovered::Replay(replay) = item {
            found = replay.frame.last().0;
        }
    };
    let (storage, _) = recover(options, &mut |op| disk.run(op), &mut each)?;
    Ok((storage, found))
}

#[test]
fn a_log_that_grows_survives_power_cuts() {
    for cut in 0..400 {
        let mut disk = MemDisk::default();
        let storage = open(SyncPolicy::Always, &mut disk).unwrap().storage;
        let mut shard = Shard { disk, storage, last: 0 };
        while shard.make_spare() {}
        shard.append(2000).expect("it fits");
        let begun = shard.disk.ops_done;
        shard.disk.ops_left = Some(cut);
        let is_over = shard.grow().is_ok();
        assert!(!is_over || shard.disk.ops_done - begun <= cut);
        for seed in 0..20 {
            let mut disk = shard.disk.clone();
            disk.crash(&mut Rng::new(cut * 100 + seed));
            let found = last_entry(&mut disk).unwrap_or_else(|error| panic!("cut {cut}, {seed}: {error}"));
            assert!(found >= shard.last, "cut {cut}, {seed}: {found} of {}", shard.last);
        }
        if is_over {
            return;
        }
    }
    panic!("there are not so many operations");
}

/// What making the next log file writes, if one is wanted: zeros, and space that is taken without writing.
fn making(shard: &mut Shard) -> (u64, u64) {
    let mut job = shard.storage.spare_job().expect("a file is wanted");
    let (mut zeros, mut taken) = (0, 0);
    for op in job.take_ops() {
        match op {
            DiskOp::Fill { len, .. } => zeros += len,
            DiskOp::Allocate { len, .. } => taken += len,
            _ => {}
        }
        shard.disk.run(op).expect("there is space");
    }
    assert!(shard.storage.handle_spare(job, Ok(())).is_empty());
    (zeros, taken)
}

#[test]
fn a_log_of_long_windows_goes_on_in_files_that_were_not_filled() {
    let mut disk = MemDisk::default();
    let options = StorageOptions { wal_file_bytes: 64 << 10, ..options(SyncPolicy::Always) };
    let (storage, _) = recover(options, &mut |op| disk.run(op), &mut |_| {}).unwrap();
    let mut shard = Shard { disk, storage, last: 0 };
    let fill = |shard: &mut Shard, bytes: usize| {
        while shard.append(bytes).is_ok() {}
        making(shard)
    };
    let (zeros, taken) = fill(&mut shard, 10);
    assert!(zeros > 0 && taken == 0, "short windows: {zeros} bytes filled, {taken} taken");
    let (zeros, taken) = fill(&mut shard, 2 << 10);
    assert!(zeros == 0 && taken > 0, "long windows: {zeros} bytes filled, {taken} taken");
    shard.append(2 << 10).expect("the file that was made is one to go on with");
    for seed in 0..20 {
        let mut disk = shard.disk.clone();
        disk.crash(&mut Rng::new(seed));
        assert!(last_entry(&mut disk).is_ok_and(|found| found >= shard.last), "seed {seed}");
    }
}

#[test]
fn the_files_that_a_log_needs_between_checkpoints_stay() {
    let mut disk = MemDisk::default();
    let storage = open(SyncPolicy::Always, &mut disk).unwrap().storage;
    let mut shard = Shard { disk, storage, last: 0 };
    let mut made = Vec::new();
    for _ in 0..3 {
        let (files, mut created) = (12, 0);
        for _ in 0..files {
            while shard.append(2 << 10).is_ok() {}
            created += u32::from(making(&mut shard) != (0, 0));
        }
        shard.checkpoint(None).expect("there is space");
        made.push(created);
    }
    assert_eq!(made, [12, 2, 0], "new files until there are enough of them");
}

/// Each time something is erased the log goes on in the next file, whether this one was written to or not.
#[test]
fn a_file_that_the_log_left_unused_stays_while_the_next_one_names_it() {
    let mut disk = MemDisk::default();
    let storage = open(SyncPolicy::Always, &mut disk).unwrap().storage;
    let mut shard = Shard { disk, storage, last: 0 };
    // What the first file holds is needed all the time.
    shard.append(100).unwrap();
    let erase = Erase { log: true, ..Erase::default() };
    for _ in 0..3 {
        while shard.make_spare() {}
        shard.checkpoint_up_to(0, None, erase).expect("there is space");
    }
    for _ in 0..3 {
        shard.append(100).unwrap();
        let (storage, found) = reopen(&mut shard.disk).expect("the log is whole");
        assert_eq!(found, shard.last);
        shard.storage = storage;
        for _ in 0..6 {
            while shard.append(2000).is_ok() {}
            shard.make_spare();
        }
    }
    shard.checkpoint(None).expect("there is space");
    assert!(shard.storage.wal_bytes() < 100 << 10, "what was left goes when the first file does");
}
