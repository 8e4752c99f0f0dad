//! Servers of a cluster are replaced one by one while clients that others wrote are at work: not one publish fails, nothing is
//! tried twice, and every message is consumed.
//!
//! `PYTHON_WITH_NATS` names a Python that has nats-py.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures_util::StreamExt;
use hw_conform::trio::{Fault, Flow, Trio, api, named, open, outcome, replicated, wait, want};
use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

fn main() -> ExitCode {
    let own: [(&str, Run); 6] = [
        ("nats-py: servers are stopped one by one", |target| python(target, stop)),
        ("nats-py: servers are sent away one by one", |target| python(target, send_away)),
        ("nats-py: every server gets another binary", |target| python(target, upgrade)),
        ("async-nats: servers are stopped one by one", |target| rust(target, stop)),
        ("async-nats: servers are sent away one by one", |target| rust(target, send_away)),
        ("a stream whose only server is gone says so", alone),
    ];
    let mut cases = Vec::new();
    for target in targets().into_iter().filter(|target| target.name == "headwater") {
        for (name, run) in own {
            let (name, target) = (format!("{}: {name}", target.name), target.clone());
            let run = move || match &target.binary {
                Err(why) => Outcome::Skipped(why.clone()),
                Ok(_) => outcome(run(&target)),
            };
            cases.push(Case { name, run: Box::new(run) });
        }
    }
    run_all(Cases { cases, threads: 2 })
}

/// How a server is replaced.
type Replace = fn(&mut Trio, usize) -> Flow;

fn stop(trio: &mut Trio, at: usize) -> Flow {
    trio.servers[at].restart()?;
    Ok(())
}

fn send_away(trio: &mut Trio, at: usize) -> Flow {
    trio.servers[at].signal("USR2")?;
    wait("a lame duck leads nothing", || {
        let leader = trio.leader((at + 1) % 3, "S").ok()?;
        (leader != at).then_some(())
    })?;
    stop(trio, at)
}

fn upgrade(trio: &mut Trio, at: usize) -> Flow {
    let server = &mut trio.servers[at];
    let other = server.dir().join("headwater-next");
    server.stop()?;
    std::fs::copy(server.binary(), &other)?;
    server.replace_binary(other);
    server.start_again()?;
    Ok(())
}

/// Three servers with a stream and a consumer.
fn begin(target: &Target) -> Result<Trio, Fault> {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    api(&mut js, "STREAM.CREATE.S", &replicated("S", 3))?;
    let consumer = json!({ "durable_name": "C", "ack_policy": "explicit", "ack_wait": 3_000_000_000_u64 });
    api(&mut js, "CONSUMER.DURABLE.CREATE.S.C", &json!({ "stream_name": "S", "config": consumer }))?;
    Ok(trio)
}

/// All three, one after the other, each while clients are at work.
fn replace_all(trio: &mut Trio, replace: Replace) -> Flow {
    more_messages(trio, 0)?;
    for at in 0..3 {
        replace(trio, at)?;
        trio.await_health()?;
        more_messages(trio, at)?;
    }
    Ok(())
}

/// Waits until so many more are stored.
fn more_messages(trio: &Trio, at: usize) -> Flow {
    let last = || {
        let info = open(&trio.servers[at]).ok()?.api("STREAM.INFO.S", &json!({})).ok()?;
        info["state"]["last_seq"].as_u64()
    };
    let goal = wait("a stream", last)? + 50;
    wait("more messages", || last().filter(|last| *last > goal)).map(drop)
}

fn python(target: &Target, replace: Replace) -> Flow {
    let python = named("PYTHON_WITH_NATS")?;
    let mut trio = begin(target)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/rolling.py");
    let mut command = Command::new(python);
    command.arg(script).args(["S", "s"]).args(trio.urls()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = command.spawn()?;
    let done = replace_all(&mut trio, replace);
    client.stdin.take().ok_or("its input")?.write_all(b"\n")?;
    let mut said = String::new();
    client.stdout.take().ok_or("its output")?.read_to_string(&mut said)?;
    let status = client.wait()?;
    done?;
    let ledger: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .map_err(|error| format!("{status}: {said}: {error}"))?;
    println!("nats-py: {} acknowledged, the slowest after {} s", ledger["acked"], ledger["longest"]);
    want(ledger["acked"].as_u64() > Some(150), || format!("{ledger}"))?;
    want(ledger["failed"] == json!([]) && ledger["missed"] == json!([]), || format!("{ledger}"))
}

/// What async-nats was told.
#[derive(Default)]
struct Ledger {
    acked: BTreeSet<String>,
    failed: Vec<String>,
    seen: BTreeSet<String>,
    longest: Duration,
}

type Shared = Arc<Mutex<Ledger>>;

fn with<T>(ledger: &Shared, act: impl FnOnce(&mut Ledger) -> T) -> T {
    act(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn publish(urls: Vec<String>, who: usize, stop: Arc<AtomicBool>, ledger: Shared) -> Flow {
    let js = jetstream::new(async_nats::connect(&urls).await?);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (payload, begun) = (format!("{who}.{number}"), Instant::now());
        let sent = js.publish("s", payload.clone().into()).await;
        let result = match sent {
            Ok(ack) => ack.await.map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        with(&ledger, |ledger| {
            ledger.longest = ledger.longest.max(begun.elapsed());
            match result {
                Ok(()) => drop(ledger.acked.insert(payload)),
                Err(error) => ledger.failed.push(format!("{payload}: {error} after {:?}", begun.elapsed())),
            }
        });
    }
    Ok(())
}

/// Consumes until everything that was acknowledged is there.
async fn consume(urls: Vec<String>, stopped: Arc<AtomicBool>, ledger: Shared) -> Flow {
    let js = jetstream::new(async_nats::connect(&urls).await?);
    let consumer: PullConsumer = js.get_consumer_from_stream("C", "S").await?;
    let deadline = Duration::from_secs(60);
    let mut messages = consumer.messages().await?;
    let begun = Instant::now();
    while begun.elapsed() < deadline {
        let all = with(&ledger, |ledger| ledger.acked.is_subset(&ledger.seen));
        if stopped.load(Ordering::Relaxed) && all {
            return Ok(());
        }
        match tokio::time::timeout(Duration::from_millis(500), messages.next()).await {
            Ok(Some(Ok(message))) => {
                let payload = String::from_utf8_lossy(&message.payload).into_owned();
                with(&ledger, |ledger| ledger.seen.insert(payload));
                message.ack().await?;
            }
            // Missed heartbeats and the like: the stream of messages goes on.
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => messages = consumer.messages().await?,
        }
    }
    Err(format!("not everything was consumed within {deadline:?}").into())
}

fn rust(target: &Target, replace: Replace) -> Flow {
    let mut trio = begin(target)?;
    let (stop, stopped, ledger) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Shared::default());
    let load = std::thread::spawn({
        let (urls, stop, stopped, ledger) = (trio.urls(), stop.clone(), stopped.clone(), ledger.clone());
        move || -> Flow {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let consumer = tokio::spawn(consume(urls.clone(), stopped.clone(), ledger.clone()));
                let publishers: Vec<_> = (0..3)
                    .map(|who| tokio::spawn(publish(urls.clone(), who, stop.clone(), ledger.clone())))
                    .collect();
                for publisher in publishers {
                    publisher.await??;
                }
                stopped.store(true, Ordering::Relaxed);
                consumer.await?
            })
        }
    });
    let done = replace_all(&mut trio, replace);
    stop.store(true, Ordering::Relaxed);
    let loaded = load.join().map_err(|_| "a client panicked")?;
    done?;
    loaded?;
    with(&ledger, |ledger| {
        println!("async-nats: {} acknowledged, the slowest after {:?}", ledger.acked.len(), ledger.longest);
        want(ledger.acked.len() > 150 && ledger.failed.is_empty(), || {
            format!("{} acknowledged, failed: {:?}", ledger.acked.len(), ledger.failed)
        })
    })
}

/// One replica promises nothing; a publisher hears a clear error, and publishes that come while its server is back within a
/// second are stored.
fn alone(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.ONE", &replicated("ONE", 1))?;
    let at = trio.leader(0, "ONE")?;
    trio.servers[at].stop()?;
    let mut js = open(&trio.servers[(at + 1) % 3])?;
    let answer = js.request("one", b"x")?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    want(answer["error"]["err_code"] == 10118 && answer["stream"] == "ONE", || format!("{answer}"))?;
    trio.servers[at].start_again()?;
    let answer = js.request("one", b"x")?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    want(answer["seq"] == 1, || format!("{answer}"))
}
