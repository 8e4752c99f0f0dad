//! A key-value bucket whose keys are in segments: what an overwrite asks of their indexes, and what a get reads.

use std::hint::black_box;
use std::sync::Arc;

use hw_kit::{GroupId, LogIndex, Rng, ShardId, Time};
use hw_store::index::Pages;
use hw_store::messages::{Fetch, IndexSource};
use hw_store::{
    CheckpointJob, GroupCheckpoint, NewSegment, Record, SegmentReader, Storage, StorageOptions, Vault,
    recover,
};
use hw_stream::command::Command;
use hw_stream::stream::{StreamLimits, check};
use hw_stream::{Stream, StreamConfig};
use hw_testkit::disk::MemDisk;

const KEYS: u64 = 40_000;
const SEGMENTS: u64 = 8;
const ASKED: u64 = 2_000;
const GROUP: GroupId = GroupId(1);

struct Bucket {
    stream: Stream,
    applied: u64,
    storage: Storage,
    disk: MemDisk,
    reader: SegmentReader,
}

fn key(at: u64) -> String {
    format!("$KV.b.k{at:07}")
}

impl Bucket {
    fn new() -> Bucket {
        let config = r#"{"name":"KV_b","subjects":["$KV.b.>"],"storage":"file","max_msgs_per_subject":1,"discard":"new"}"#;
        let config: StreamConfig = serde_json::from_str(config).unwrap_or_default();
        let Ok(config) = check(&config, StreamLimits::default(), false) else {
            unreachable!("the configuration is valid")
        };
        let mut disk = MemDisk::default();
        let files = disk.share();
        let opened = recover(StorageOptions::new(ShardId(0), 1), &mut |op| disk.run(op), &mut |_| {});
        let Ok((storage, _)) = opened else { unreachable!("a disk in memory does not fail") };
        let mut stream = Stream::new(config, Time(1));
        let pages = Arc::new(Pages::new(Box::new(files), 64 << 20, Vault::default()));
        stream.messages_mut().set_source(IndexSource { group: GROUP, pages });
        let reader = SegmentReader::new(SEGMENTS as usize, Vault::default());
        Bucket { stream, applied: 0, storage, disk, reader }
    }

    fn put(&mut self, at: u64) {
        self.applied += 1;
        let record = Record::join(key(at).as_bytes(), b"", &[b'x'; 128]).unwrap_or_default();
        let mut effects = Vec::new();
        let publish = Command::Publish { ts: Time(self.applied as i64 * 1000), record };
        black_box(self.stream.apply(LogIndex(self.applied), publish, &mut effects));
    }

    /// All that is in memory goes to a segment.
    fn checkpoint(&mut self, number: u64) {
        let messages = self.stream.messages_mut().take_unwritten(number).unwrap_or_default();
        let new_segments = vec![NewSegment { number, messages, packed: false }];
        let group = GroupCheckpoint {
            group: GROUP,
            applied: LogIndex(self.applied),
            new_segments,
            live_segments: self.stream.messages().segment_numbers(),
            ..GroupCheckpoint::default()
        };
        let job = CheckpointJob { groups: vec![group], full: number == 1, ..CheckpointJob::default() };
        let Ok(mut work) = self.storage.begin_checkpoint(job) else { unreachable!("none runs") };
        while let Some(ops) = work.next_ops() {
            assert!(ops.into_iter().all(|op| self.disk.run(op).is_ok()));
        }
        let written = work.done().written.clone();
        self.storage.handle_checkpoint(work, &Ok(()));
        written.into_iter().for_each(|(_, written)| self.stream.messages_mut().handle_written(written));
        self.stream.messages_mut().set_cache_budget(0);
    }

    /// The keys in no order, spread over the segments.
    fn filled() -> Bucket {
        let mut bucket = Bucket::new();
        for at in 0..KEYS {
            bucket.put(at * 7919 % KEYS);
            if (at + 1) % (KEYS / SEGMENTS) == 0 {
                bucket.checkpoint((at + 1) / (KEYS / SEGMENTS));
            }
        }
        // What is asked for is in the cache.
        (0..KEYS).for_each(|at| bucket.get(at));
        bucket
    }

    /// Reads a key's value as a direct get does: what its block lacks in memory comes from the disk.
    fn get(&mut self, at: u64) {
        let key = key(at);
        loop {
            match self.stream.last_by_subject(&key).map(|seq| self.stream.get(seq)) {
                Some(Fetch::Message(message)) => return drop(black_box(message)),
                Some(Fetch::OnDisk(id)) => {
                    let loaded = self.reader.load(GROUP, id, &mut |op| self.disk.run(op));
                    let Ok(loaded) = loaded else { unreachable!("a disk in memory does not fail") };
                    self.stream.messages_mut().handle_block(id, loaded);
                }
                _ => unreachable!("every key has a value"),
            }
        }
    }
}

/// 2,000 keys that are not in memory get other values.
pub(crate) fn overwrite() -> Box<dyn FnMut()> {
    let (mut bucket, mut rng) = (Bucket::filled(), Rng::new(1));
    Box::new(move || {
        for _ in 0..ASKED {
            bucket.put(rng.below(KEYS));
        }
        assert_eq!((bucket.stream.messages().len(), bucket.stream.messages().fault()), (KEYS, None));
    })
}

/// 2,000 keys that are not in memory are read.
pub(crate) fn get() -> Box<dyn FnMut()> {
    let (mut bucket, mut rng) = (Bucket::filled(), Rng::new(1));
    Box::new(move || (0..ASKED).for_each(|_| bucket.get(rng.below(KEYS))))
}
