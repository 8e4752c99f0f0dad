//! What a server that catches up costs publishers: `cargo run --release -p hw-conform --example catch_up -- BINARY [ROUNDS]`.
//!
//! Three servers, a stream on all of them that has 256 MiB already, 64 publishes of 128 bytes under way. In each round one server
//! that does not lead is killed, misses so many messages, and starts again. Prints the p99 of the seconds before it was killed, in
//! which there is a checkpoint, of the time without it, of the time from its start until the leader calls it current, and of the
//! seconds after that. Then the same for a server with a disk of its own (in memory) that gets only what the others leave of the
//! processors (`nice`), as if it had a machine of its own.
//! For comparison, the p99 of a second in which a process that has nothing to do with the servers keeps a processor busy.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use hw_conform::Target;
use hw_conform::trio::{Fault, Trio, api, open, replicated, wait};
use serde_json::json;

const UNDER_WAY: usize = 64;
const MISSED: [u64; 3] = [1000, 50_000, 400_000];
/// So many messages of so many bytes are there before: a server that has run for a while has log files that it uses again, a
/// new one makes them.
const EARLIER: (usize, usize) = (4096, 64 * 1024);
/// At the usual rate there is a checkpoint in it.
const CALM: Duration = Duration::from_secs(9);

/// When a publish was acknowledged, and how long that took.
type Samples = Arc<Mutex<Vec<(Instant, Duration)>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments.next().ok_or("which server?")?;
    let rounds: u32 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let target = Target { name: "headwater", binary: Ok(binary.into()) };
    for missed in MISSED {
        for is_apart in [false, true] {
            for number in 0..rounds {
                // Not always at the same moment between two checkpoints.
                let calm = CALM + number * Duration::from_millis(1700);
                round(&target, missed, is_apart, calm)
                    .map_err(|error| format!("{missed} missed: {error}"))?;
            }
        }
    }
    Ok(())
}

fn round(target: &Target, missed: u64, is_apart: bool, calm: Duration) -> Result<(), Fault> {
    let mut trio = Trio::start(target)?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &replicated("S", 3))?;
    let leader = trio.leader(0, "S")?;
    let victim = (leader + 1) % 3;
    let aside = PathBuf::from(format!("/dev/shm/headwater-catch-up-{}", std::process::id()));
    if is_apart {
        move_store(&mut trio, victim, &aside)?;
    }
    publish_earlier(&trio.servers[leader].url())?;
    let (samples, stop) = (Samples::default(), Arc::new(AtomicBool::new(false)));
    let load = std::thread::spawn({
        let (url, samples, stop) = (trio.servers[leader].url(), samples.clone(), stop.clone());
        move || publish(&url, &samples, &stop)
    });
    let second = Duration::from_secs(1);
    std::thread::sleep(second);
    let settled = Instant::now();
    std::thread::sleep(calm);
    let killed = Instant::now();
    trio.servers[victim].kill();
    let count = || samples.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    let goal = count() + missed;
    while count() < goal {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut js = open(&trio.servers[leader])?;
    let started = Instant::now();
    trio.servers[victim].begin_start()?;
    if let Some(pid) = trio.servers[victim].pid().filter(|_| is_apart) {
        // Before it has other threads, which inherit it.
        Command::new("renice").args(["-n", "19", "-p", &pid.to_string()]).output()?;
    }
    let name = hw_conform::trio::NAMES[victim];
    wait("the server is current", || {
        let info = js.api("STREAM.INFO.S", &json!({})).ok()?;
        let replica = info["cluster"]["replicas"].as_array()?.iter().find(|one| one["name"] == name)?;
        (replica["current"] == true && replica["offline"] != true).then_some(())
    })?;
    let current = Instant::now();
    std::thread::sleep(3 * second);
    let end = Instant::now();
    let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?;
    std::thread::sleep(second);
    busy.kill()?;
    busy.wait()?;
    let let_go = Instant::now();
    let _ = std::fs::remove_dir_all(&aside);
    stop.store(true, Ordering::Relaxed);
    load.join().map_err(|_| "the publisher panicked")??;
    let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let p99 = |from: Instant, to: Instant| {
        let mut all: Vec<Duration> =
            samples.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, took)| *took).collect();
        all.sort_unstable();
        let at = all.len() * 99 / 100;
        (all.get(at).map_or(0.0, |took| took.as_secs_f64() * 1000.0), all.len())
    };
    let (before, meanwhile, after) = (p99(settled, killed), p99(started, current), p99(current, end));
    let (down, beside) = (p99(killed, started), p99(end, let_go));
    let apart = if is_apart { ", on its own" } else { "" };
    let took = (current - started).as_secs_f64();
    println!(
        "{missed} missed{apart}: p99 {:.1} ms before, {:.1} ms while it is away, {:.1} ms while it catches up for {took:.2} s ({} acks), \
         {:.1} ms after; beside a busy process {:.1} ms",
        before.0, down.0, meanwhile.0, meanwhile.1, after.0, beside.0,
    );
    Ok(())
}

/// A server's store goes into memory.
fn move_store(trio: &mut Trio, at: usize, aside: &Path) -> Result<(), Fault> {
    trio.servers[at].kill();
    let store = trio.servers[at].dir().join("store");
    Command::new("mv").arg(&store).arg(aside).status()?;
    std::os::unix::fs::symlink(aside, &store)?;
    trio.servers[at].start_again()?;
    trio.await_health()
}

fn publish_earlier(url: &str) -> Result<(), Fault> {
    let (count, size) = EARLIER;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let js = jetstream::new(async_nats::connect(url).await?);
        for _ in 0..count / UNDER_WAY {
            let mut acks = Vec::new();
            for _ in 0..UNDER_WAY {
                acks.push(js.publish("s", vec![b'x'; size].into()).await?);
            }
            for ack in acks {
                ack.await?;
            }
        }
        Ok(())
    })
}

fn publish(url: &str, samples: &Samples, stop: &Arc<AtomicBool>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let js = jetstream::new(async_nats::connect(url).await?);
        for _ in 0..UNDER_WAY {
            let (js, samples, stop) = (js.clone(), samples.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    js.publish("s", vec![b'x'; 128].into()).await?.await?;
                    let sample = (Instant::now(), begun.elapsed());
                    samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                }
                Ok::<(), Fault>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}
