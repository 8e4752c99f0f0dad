//! The index of messages, and frames on their way to the log.

use std::hint::black_box;

use hw_kit::{GroupId, LogIndex, Seq, ShardId, Time};
use hw_store::messages::{Keep, Messages};
use hw_store::{FrameBuilder, FrameKind, FrameMeta, Record, Storage, StorageOptions, recover};
use hw_testkit::disk::MemDisk;

use crate::subject;

const MESSAGES: u64 = 20_000;

fn records() -> Vec<Record> {
    let record = |at| Record::join(subject(at).as_bytes(), b"", &[b'x'; 128]).unwrap_or_default();
    (0..MESSAGES).map(record).collect()
}

fn filled() -> Messages {
    let mut messages = Messages::new(Seq(1), Keep::File);
    for (record, seq) in records().into_iter().zip(1..) {
        messages.append(Seq(seq), Time(seq as i64), record);
    }
    messages
}

/// 20,000 messages on 5,000 subjects.
pub(crate) fn append() -> Box<dyn FnMut()> {
    let (mut messages, mut records) = (Messages::new(Seq(1), Keep::File), records());
    Box::new(move || {
        for (record, seq) in records.drain(..).zip(1..) {
            messages.append(Seq(seq), Time(seq as i64), record);
        }
        assert_eq!(messages.len(), MESSAGES);
    })
}

/// Every message of one subject, of one in seven and of all, one after the other.
pub(crate) fn next_match() -> Box<dyn FnMut()> {
    let messages = filled();
    Box::new(move || {
        for filter in [subject(17).as_str(), "plant.3.>", ">"] {
            let mut matcher = messages.matcher(&[filter]);
            let (mut from, mut count) = (Seq(1), 0);
            while let Some(found) = messages.next_match(from, &mut matcher) {
                (from, count) = (found.next(), count + 1);
            }
            assert!(black_box(count) > 0);
        }
    })
}

/// The last message of each subject, and the last of each of seven parts.
pub(crate) fn last_of() -> Box<dyn FnMut()> {
    let messages = filled();
    let subjects: Vec<String> = (0..5_000).map(subject).collect();
    Box::new(move || {
        for subject in &subjects {
            assert!(messages.last_of(subject.as_bytes()).is_some());
        }
        for part in 0..7 {
            black_box(messages.last_matching(&format!("plant.{part}.>"), Seq(MESSAGES)));
        }
    })
}

/// 200 windows of 100 commands each.
pub(crate) fn wal_encode() -> Box<dyn FnMut()> {
    let mut disk = MemDisk::default();
    let opened = recover(StorageOptions::new(ShardId(0), 1), &mut |op| disk.run(op), &mut |_| {});
    let Ok((mut storage, _)) = opened else { unreachable!("a disk in memory does not fail") };
    give_space(&mut storage, &mut disk);
    let mut index = 1;
    Box::new(move || {
        for _ in 0..200 {
            let mut builder = FrameBuilder::new();
            for _ in 0..100 {
                builder.push(&[b'x'; 160]);
            }
            let kind = FrameKind::Entries;
            let meta = FrameMeta { group: GroupId(1), term: 0, first: LogIndex(index), kind };
            let frame = builder.finish(meta);
            index += 100;
            let mut ops = Vec::new();
            assert!(storage.append(&[frame], &mut ops).is_ok());
            black_box(ops);
        }
    })
}

/// Log files, so that what is measured does not wait for one.
fn give_space(storage: &mut Storage, disk: &mut MemDisk) {
    while let Some(mut job) = storage.spare_job() {
        let done = job.take_ops().into_iter().try_for_each(|op| disk.run(op).map(drop));
        for op in storage.handle_spare(job, done) {
            assert!(disk.run(op).is_ok());
        }
    }
}
