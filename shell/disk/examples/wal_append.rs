//! How fast the log takes windows on a real disk: `cargo run --release -p hw-disk --example wal_append -- FOLDER`.
//!
//! Per size of window: what encoding costs without a disk, then one window after the other (write, sync, repeat), then
//! through the threads with many windows asked for at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use hw_disk::{Completion, DiskOptions, Folder, ShardDisk, StoreDir};
use hw_kit::{GroupId, LogIndex, ShardId};
use hw_store::{
    AppendError, Frame, FrameBuilder, FrameKind, FrameMeta, Storage, StorageOptions, recover, run_all,
};

const PAYLOAD: [u8; 128] = [b'x'; 128];
const RUN: Duration = Duration::from_secs(2);

fn main() {
    let folder =
        std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("wal-append-bench");
    println!("messages of 128 bytes; {} in {}", env!("CARGO_PKG_NAME"), folder.display());
    for messages in [1, 64, 256] {
        let encode = encode(messages);
        let (windows, p50, p99) = one_by_one(&folder, messages);
        let (syncs, rate) = through_threads(&folder, messages);
        println!(
            "{messages:>4} a window: encode {encode:>5.0} ns a message; one by one {windows:>6.0} windows/s \
             (p50 {p50:?}, p99 {p99:?}); pipelined {syncs:>6.0} syncs/s, {:>5.2} M messages/s",
            rate / 1e6
        );
    }
}

fn frame(builder: &mut FrameBuilder, messages: u64, first: u64) -> Frame {
    for _ in 0..messages {
        builder.begin_entry().extend_from_slice(&PAYLOAD);
        builder.end_entry();
    }
    let first = LogIndex(first);
    builder.finish(FrameMeta { group: GroupId(1), term: 1, first, kind: FrameKind::Entries })
}

fn open(folder: &Path) -> (Storage, Folder) {
    let _ = std::fs::remove_dir_all(folder);
    let mut disk = Folder::new(folder.to_owned());
    let options = StorageOptions::new(ShardId(0), 1);
    let (storage, _) =
        recover(options, &mut |op| disk.run(op), &mut |_| {}).expect("the folder can be written");
    (storage, disk)
}

/// Nanoseconds a message for building the frame, its checksum, the window and the list of operations.
fn encode(messages: u64) -> f64 {
    let folder = std::env::temp_dir().join("wal-append-bench-encode");
    let (mut builder, mut total, mut spent) = (FrameBuilder::new(), 0, Duration::ZERO);
    while spent < RUN / 4 {
        let (mut storage, _disk) = open(&folder);
        let (mut ops, mut first) = (Vec::new(), 1);
        let start = Instant::now();
        loop {
            let frame = frame(&mut builder, messages, first);
            ops.clear();
            match storage.append(&[frame], &mut ops) {
                Ok(done) => storage.handle_synced(done.position),
                Err(AppendError::NotReady) => break,
                Err(error) => panic!("{error}"),
            }
            first += messages;
        }
        spent += start.elapsed();
        total += first - 1;
    }
    let _ = std::fs::remove_dir_all(folder);
    spent.as_nanos() as f64 / total as f64
}

/// One window after the other: windows a second, and how long one takes.
fn one_by_one(folder: &Path, messages: u64) -> (f64, Duration, Duration) {
    let (mut storage, mut disk) = open(folder);
    let (mut builder, mut first, mut times) = (FrameBuilder::new(), 1, Vec::new());
    let mut busy = Duration::ZERO;
    while busy < RUN {
        let frame = frame(&mut builder, messages, first);
        let mut ops = Vec::new();
        let start = Instant::now();
        match storage.append(&[frame], &mut ops) {
            Ok(done) => {
                run_all(ops, &mut |op| disk.run(op)).expect("the disk works");
                storage.handle_synced(done.position);
                times.push(start.elapsed());
                busy += start.elapsed();
                first += messages;
            }
            // Made beside the writer in the server: not counted here.
            Err(AppendError::NotReady) => {
                let mut job = storage.spare_job().expect("one is wanted");
                let result = run_all(job.take_ops(), &mut |op| disk.run(op));
                storage.handle_spare(job, result);
            }
            Err(error) => panic!("{error}"),
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    (times.len() as f64 / busy.as_secs_f64(), at(50), at(99))
}

/// Frames of `messages` each, up to 64 not completed: syncs and messages a second.
fn through_threads(folder: &Path, messages: u64) -> (f64, f64) {
    let _ = std::fs::remove_dir_all(folder);
    let store = Arc::new(StoreDir::open(folder).expect("the folder can be written"));
    let (sender, done) = sync_channel(100_000);
    let tell = Arc::new(move |completion| drop(sender.send(completion)));
    let options = DiskOptions::new(StorageOptions::new(ShardId(0), 1));
    let (disk, _) = ShardDisk::open(&store, options, &mut |_| {}, tell).expect("the store opens");
    let (mut builder, mut sent, mut synced) = (FrameBuilder::new(), 0u64, 0u64);
    let start = Instant::now();
    while start.elapsed() < RUN {
        while sent - synced < 64 {
            let frame = frame(&mut builder, messages, sent * messages + 1);
            sent += 1;
            disk.append(vec![frame], sent).expect("the queue takes 64 windows");
        }
        match done.recv().expect("the writer answers") {
            Completion::Synced { ticket } => synced = ticket,
            other => panic!("{other:?}"),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let windows = disk.gauges().windows.load(std::sync::atomic::Ordering::Relaxed);
    disk.close();
    let _ = std::fs::remove_dir_all(folder);
    (windows as f64 / seconds, (synced * messages) as f64 / seconds)
}
