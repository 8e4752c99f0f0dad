//! Three real servers with real disks, whose links are parted and whose processes are killed, stopped and replaced at random
//! while clients that others wrote publish, compare and set, and read. Judged by what the clients were told.
//!
//! `HEADWATER_STRESS_SECONDS` says how long (default 10), `HEADWATER_STRESS_SEED` what happens (`clock` draws one).

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, jetstream};
use hw_conform::trio::{Fault, Flow, Trio, api, open, outcome, replicated, wait, want};
use hw_conform::{Case, Cases, Dice, Outcome, run_all, targets};
use hw_testkit::Parted;
use serde_json::json;

const WRITERS: usize = 4;
const SETTERS: usize = 3;
const READERS: usize = 2;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for target in targets().into_iter().filter(|target| target.name == "headwater") {
        let name = format!("{}: faults of all kinds under load", target.name);
        let run = move || match &target.binary {
            Err(why) => Outcome::Skipped(why.clone()),
            Ok(_) => outcome(stress(&target)),
        };
        cases.push(Case { name, run: Box::new(run) });
    }
    run_all(Cases { cases, threads: 1 })
}

/// One thing that a client did, and what it was told.
#[derive(Clone, Debug)]
struct Op {
    begun: Instant,
    ended: Instant,
    /// What was written, or read; empty: nothing is there.
    value: String,
    /// The sequence that it has; None: the client does not know whether it was done.
    seq: Option<u64>,
}

/// What all clients were told.
#[derive(Debug, Default)]
struct History {
    /// By publisher, in order.
    published: BTreeMap<usize, Vec<Op>>,
    set: Vec<Op>,
    /// Sets that were refused because somebody was faster.
    lost: usize,
    read: Vec<Op>,
}

type Shared = Arc<Mutex<History>>;

fn with<T>(history: &Shared, act: impl FnOnce(&mut History) -> T) -> T {
    act(&mut history.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Client {
    urls: Vec<String>,
    who: usize,
    stop: Arc<AtomicBool>,
    history: Shared,
}

impl Client {
    async fn connect(&self) -> Result<jetstream::Context, Fault> {
        let mut urls = self.urls.clone();
        urls.rotate_left(self.who % self.urls.len());
        let options = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_millis(500))
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(50));
        let mut js = jetstream::new(options.connect(urls).await?);
        js.set_timeout(Duration::from_secs(2));
        Ok(js)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What came of a publish: its sequence, a certain refusal, or nobody knows.
enum Told {
    Stored(u64),
    Refused,
    Unknown,
}

async fn publish(js: &jetstream::Context, subject: &str, value: &str, expected: Option<u64>) -> Told {
    let mut headers = HeaderMap::new();
    if let Some(expected) = expected {
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string().as_str());
    }
    let Ok(sent) = js.publish_with_headers(subject.to_owned(), headers, value.to_owned().into()).await else {
        return Told::Unknown;
    };
    match sent.await {
        Ok(ack) => Told::Stored(ack.sequence),
        Err(error) if error.kind() == jetstream::context::PublishErrorKind::WrongLastSequence => {
            Told::Refused
        }
        Err(_) => Told::Unknown,
    }
}

/// Publishes each message once.
async fn write(client: Client) -> Flow {
    let js = client.connect().await?;
    for number in 0.. {
        if client.is_over() {
            break;
        }
        let (begun, value) = (Instant::now(), format!("{}.{number}", client.who));
        let told = publish(&js, "s", &value, None).await;
        let seq = if let Told::Stored(seq) = told { Some(seq) } else { None };
        let op = Op { begun, ended: Instant::now(), value, seq };
        with(&client.history, |history| history.published.entry(client.who).or_default().push(op));
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The last value, as the leader says; None: nobody answered.
async fn last(stream: &jetstream::stream::Stream<()>) -> Option<(String, u64)> {
    let patience = Duration::from_secs(2);
    let got = tokio::time::timeout(patience, stream.get_last_raw_message_by_subject("kv")).await;
    match got.ok()? {
        Ok(message) => Some((String::from_utf8_lossy(&message.payload).into_owned(), message.sequence)),
        Err(error) => {
            let is_empty = error.kind() == jetstream::stream::LastRawMessageErrorKind::NoMessageFound;
            is_empty.then(|| (String::new(), 0))
        }
    }
}

/// The same, as the server says to which the client is connected, if that has a replica.
async fn last_near(stream: &jetstream::stream::Stream<()>) -> Option<(String, u64)> {
    let patience = Duration::from_secs(2);
    let got = tokio::time::timeout(patience, stream.direct_get_last_for_subject("kv")).await;
    match got.ok()? {
        Ok(message) => Some((String::from_utf8_lossy(&message.payload).into_owned(), message.sequence)),
        Err(error) => {
            let is_empty = error.kind() == jetstream::stream::DirectGetErrorKind::NotFound;
            is_empty.then(|| (String::new(), 0))
        }
    }
}

/// Reads a value and sets another one if it is still there.
async fn set(client: Client) -> Flow {
    let js = client.connect().await?;
    let stream = js.get_stream_no_info("KV").await?;
    for number in 0.. {
        if client.is_over() {
            break;
        }
        let Some((_, expected)) = last(&stream).await else { continue };
        let (begun, value) = (Instant::now(), format!("{}.{number}", client.who));
        let told = publish(&js, "kv", &value, Some(expected)).await;
        let op = |seq| Op { begun, ended: Instant::now(), value, seq };
        with(&client.history, |history| match told {
            Told::Stored(seq) => history.set.push(op(Some(seq))),
            Told::Unknown => history.set.push(op(None)),
            Told::Refused => history.lost += 1,
        });
    }
    Ok(())
}

async fn read(client: Client) -> Flow {
    let js = client.connect().await?;
    let stream = js.get_stream_no_info("KV").await?;
    for number in 0.. {
        if client.is_over() {
            break;
        }
        let begun = Instant::now();
        let got = if number % 2 == 0 { last(&stream).await } else { last_near(&stream).await };
        if let Some((value, seq)) = got {
            let op = Op { begun, ended: Instant::now(), value, seq: Some(seq) };
            with(&client.history, |history| history.read.push(op));
        }
    }
    Ok(())
}

fn load(urls: Vec<String>, stop: Arc<AtomicBool>, history: Shared) -> Flow {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = |who| Client { urls: urls.clone(), who, stop: stop.clone(), history: history.clone() };
        let mut tasks: Vec<tokio::task::JoinHandle<Flow>> = Vec::new();
        tasks.extend((0..WRITERS).map(|who| tokio::spawn(write(client(who)))));
        tasks.extend((0..SETTERS).map(|who| tokio::spawn(set(client(who)))));
        tasks.extend((0..READERS).map(|who| tokio::spawn(read(client(who)))));
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

fn stress(target: &hw_conform::Target) -> Flow {
    let seconds = env::var("HEADWATER_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut dice = Dice::from_env("HEADWATER_STRESS_SEED");
    let parted = Parted::default();
    let mut trio = Trio::start_behind(target, &parted)?;
    let mut js = open(&trio.servers[0])?;
    api(&mut js, "STREAM.CREATE.S", &replicated("S", 3))?;
    let mut keys = replicated("KV", 3);
    keys["allow_direct"] = json!(true);
    api(&mut js, "STREAM.CREATE.KV", &keys)?;
    let (stop, history) = (Arc::new(AtomicBool::new(false)), Shared::default());
    let clients = std::thread::spawn({
        let (urls, stop, history) = (trio.urls(), stop.clone(), history.clone());
        move || load(urls, stop, history)
    });
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut faults = BTreeMap::<&str, usize>::new();
    while Instant::now() < end {
        let what = fault(&mut trio, &parted, &mut dice)?;
        *faults.entry(what).or_default() += 1;
        trio.await_health()?;
        let before = with(&history, acked);
        wait("clients get on", || (with(&history, acked) > before + 10).then_some(()))?;
    }
    stop.store(true, Ordering::Relaxed);
    clients.join().map_err(|_| "a client panicked")??;
    trio.await_health()?;
    with(&history, |history| {
        let (acked, unknown) = (acked(history), unknown(history));
        println!(
            "{faults:?}: {acked} publishes acknowledged, {unknown} unknown; {} sets, {} lost; {} reads",
            history.set.len(),
            history.lost,
            history.read.len()
        );
        judge(&trio, history)
    })
}

fn acked(history: &mut History) -> usize {
    history.published.values().flatten().filter(|op| op.seq.is_some()).count()
}

fn unknown(history: &mut History) -> usize {
    history.published.values().flatten().filter(|op| op.seq.is_none()).count()
}

/// Waits without sleeping.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Something happens to one of the servers, for a while.
fn fault(trio: &mut Trio, parted: &Parted, dice: &mut Dice) -> Result<&'static str, Fault> {
    let at = dice.below(3) as usize;
    let time = Duration::from_millis(200 + dice.below(1500));
    let name = |at: usize| format!("n{}", at + 1);
    Ok(match dice.below(6) {
        0 => {
            trio.servers[at].kill();
            pass(time / 4);
            trio.servers[at].start_again()?;
            "killed"
        }
        1 => {
            trio.servers[at].signal("STOP")?;
            pass(time);
            trio.servers[at].signal("CONT")?;
            "stopped"
        }
        2 => {
            trio.servers[at].restart()?;
            "restarted"
        }
        3 => {
            for other in (0..3).filter(|other| *other != at) {
                parted.part(&name(at), &name(other));
                parted.part(&name(other), &name(at));
            }
            pass(time);
            parted.heal();
            "alone"
        }
        4 => {
            let other = (at + 1) % 3;
            parted.part(&name(at), &name(other));
            parted.part(&name(other), &name(at));
            pass(time);
            parted.heal();
            "parted"
        }
        _ => {
            parted.part(&name(at), &name((at + 1) % 3));
            pass(time);
            parted.heal();
            "half parted"
        }
    })
}

fn judge(trio: &Trio, history: &History) -> Flow {
    for server in &trio.servers {
        let there = open(server)?.read_from("S", 1)?;
        let mut by_value = BTreeMap::new();
        for message in &there {
            let value = String::from_utf8_lossy(&message.payload).into_owned();
            want(by_value.insert(value.clone(), message.seq).is_none(), || {
                format!("{value} is there twice")
            })?;
        }
        for ops in history.published.values() {
            let mut before = 0;
            for op in ops {
                let Some(seq) = op.seq else { continue };
                want(by_value.get(&op.value) == Some(&seq), || {
                    format!("{op:?} was acknowledged; there is {:?}", by_value.get(&op.value))
                })?;
                want(seq > before, || format!("{op:?} is not behind {before}"))?;
                before = seq;
            }
        }
    }
    judge_sets(trio, history)
}

/// Sets in the order of their sequences are one history that agrees with everything that clients saw, and when.
fn judge_sets(trio: &Trio, history: &History) -> Flow {
    let there = open(&trio.servers[0])?.read_from("KV", 1)?;
    let known: BTreeMap<u64, String> = there
        .iter()
        .map(|message| (message.seq, String::from_utf8_lossy(&message.payload).into_owned()))
        .collect();
    let mut seqs = BTreeMap::new();
    for op in &history.set {
        let Some(seq) = op.seq else { continue };
        want(known.get(&seq) == Some(&op.value), || {
            format!("{op:?} was set; there is {:?}", known.get(&seq))
        })?;
        want(seqs.insert(seq, op).is_none(), || format!("{op:?}: two have this sequence"))?;
    }
    // Whoever begins when a set or a read has ended sees that, or something later.
    let mut ops: Vec<&Op> = history.set.iter().chain(&history.read).filter(|op| op.seq.is_some()).collect();
    ops.sort_by_key(|op| op.ended);
    let mut newest = Vec::new();
    let mut highest = 0;
    for op in &ops {
        highest = highest.max(op.seq.unwrap_or_default());
        newest.push((op.ended, highest));
    }
    for op in history.read.iter().chain(&history.set) {
        let Some(seq) = op.seq else { continue };
        let ended = newest.partition_point(|(ended, _)| *ended < op.begun);
        let seen = ended.checked_sub(1).map_or(0, |at| newest[at].1);
        want(seq >= seen, || format!("{op:?} began when {seen} had been seen"))?;
    }
    // And nobody reads what was not begun yet.
    for read in history.read.iter().filter(|read| !read.value.is_empty()) {
        let set = history.set.iter().find(|set| set.value == read.value);
        want(set.is_some_and(|set| set.begun < read.ended), || format!("{read:?}: nobody set that"))?;
    }
    let count = json!({ "sets": seqs.len(), "stored": known.len() });
    want(seqs.len() <= known.len(), || count.to_string())
}
