//! Replicated JetStream on three real processes, with clients and tools that others wrote: streams and consumers from every
//! server, leaders that are killed, stopped or sent away under load, and what the `nats` tool shows of a cluster.
//!
//! `NATS_CLI` names the nats tool, `PYTHON_WITH_NATS` a Python that has nats-py.

use std::{
    path::Path,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream;
use hw_conform::trio::{
    Fault, Flow, PATIENCE, Trio, api, named, open, outcome, page, replicated, run, wait, want,
};
use hw_conform::{Case, Cases, Delivered, Js, Outcome, Target, run_all, targets};
use hw_testkit::Server;
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

fn main() -> ExitCode {
    let both: [(&str, Run); 5] = [
        ("a mirror answers for an origin that is gone", mirror_gets),
        ("streams and consumers from every server", everywhere),
        ("another leader on request", step_down),
        ("a server that was away catches up", missed),
        ("buckets on three servers", buckets),
    ];
    // A `nats-server` answers before every other server has the interest: who pulls through another one at once may hear
    // that nobody is there.
    let own: [(&str, Run); 5] = [
        ("direct gets are answered by the nearest replica, and are the newest", direct_gets),
        ("nats-py on three servers", python),
        ("a killed leader takes nothing with it", killed),
        ("a stopped leader takes nothing with it", stopped),
        ("servers are replaced one by one", rolling),
    ];
    let mut cases = Vec::new();
    for target in targets() {
        let ours = target.name == "headwater";
        for (name, run) in both.iter().chain(own.iter().filter(|_| ours)).copied() {
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

/// Every server creates, fills, lists and reads what is anywhere.
fn everywhere(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    for (at, server) in trio.servers.iter().enumerate() {
        let mut js = open(server)?;
        for (name, replicas) in [(format!("ONE{at}"), 1), (format!("THREE{at}"), 3)] {
            let config = json!({ "name": name, "subjects": [format!("{name}.>")], "num_replicas": replicas,
                "storage": "file", "retention": "limits" });
            let info = api(&mut js, &format!("STREAM.CREATE.{name}"), &config)?;
            let others = info["cluster"]["replicas"].as_array().map_or(0, Vec::len);
            want(others + 1 == replicas, || format!("{replicas} replicas: {}", info["cluster"]))?;
            want(info["cluster"]["leader"].is_string(), || format!("{info}"))?;
            let config =
                json!({ "stream_name": name, "config": { "durable_name": "C", "ack_policy": "explicit" } });
            api(&mut js, &format!("CONSUMER.DURABLE.CREATE.{name}.C"), &config)?;
        }
    }
    let all: Vec<String> =
        ["ONE", "THREE"].iter().flat_map(|kind| (0..3).map(move |at| format!("{kind}{at}"))).collect();
    for server in &trio.servers {
        let mut js = open(server)?;
        for name in &all {
            let ack = js.request(&format!("{name}.a"), b"payload")?;
            let ack: Value = serde_json::from_slice(&ack.payload)?;
            want(ack["stream"] == **name && ack["seq"].is_u64(), || format!("{name}: {ack}"))?;
        }
        let list = api(&mut js, "STREAM.LIST", &json!({}))?;
        let streams = list["streams"].as_array().cloned().unwrap_or_default();
        let named: Vec<&str> = streams.iter().filter_map(|info| info["config"]["name"].as_str()).collect();
        want(all.iter().all(|name| named.contains(&name.as_str())), || format!("{named:?}"))?;
        want(list.get("missing").is_none() && list["total"] == 6, || format!("{list}"))?;
        want(streams.iter().all(|info| info["cluster"]["leader"].is_string()), || format!("{list}"))?;
        let names = api(&mut js, "STREAM.NAMES", &json!({}))?;
        want(names["streams"] == json!(all), || format!("{names}"))?;
        let info = api(&mut js, "INFO", &json!({}))?;
        want(info["streams"] == 6 && info["consumers"] == 6, || format!("{info}"))?;
    }
    for server in &trio.servers {
        let mut js = open(server)?;
        for name in &all {
            let got = js.pull(name, "C", &json!({ "batch": 1, "expires": 2_000_000_000_u64 }))?;
            want(got.len() == 1 && got[0].payload == b"payload", || format!("{name}: {got:?}"))?;
            js.request(&got[0].reply, b"+ACK")?;
            let info = api(&mut js, &format!("CONSUMER.INFO.{name}.C"), &json!({}))?;
            want(info["cluster"]["leader"].is_string() && info["num_ack_pending"] == 0, || {
                format!("{info}")
            })?;
        }
    }
    let list = api(&mut open(&trio.servers[1])?, "STREAM.LIST", &json!({}))?;
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let streams = list["streams"].as_array().into_iter().flatten();
    let stored = |info: &Value| number(&info["state"]["bytes"]) * number(&info["config"]["num_replicas"]);
    let stored: u64 = streams.map(stored).sum();
    // A `nats-server` learns after a while what others store.
    wait(&format!("every replica counts, which makes {stored} bytes"), || {
        let info = open(&trio.servers[0]).ok()?.api("INFO", &json!({})).ok()?;
        (stored > 0 && info["storage"] == stored).then_some(())
    })
}

/// What any server says is the newest, although it need not be the leader who says it. A `nats-server` may say what is older.
fn direct_gets(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut config = replicated("S", 3);
    config["allow_direct"] = json!(true);
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &config)?;
    let leader = trio.leader(0, "S")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut contexts = Vec::new();
        for url in trio.urls() {
            contexts.push(jetstream::new(async_nats::connect(&url).await?));
        }
        for number in 0..300_usize {
            let ack = contexts[number % 3].publish("s", number.to_string().into()).await?.await?;
            for context in &contexts {
                let stream = context.get_stream_no_info("S").await?;
                let last = stream.direct_get_last_for_subject("s").await?;
                let is_newest =
                    last.sequence == ack.sequence && last.payload == number.to_string().as_bytes();
                want(is_newest, || format!("{number}: {ack:?} {last:?}"))?;
            }
        }
        let large = contexts[leader].publish("s", vec![b'x'; 500_000].into()).await?.await?.sequence;
        let sent = || {
            let routes = page(&trio.servers[leader], "/routez")?["routes"].as_array().cloned()?;
            Some(routes.iter().filter_map(|route| route["out_bytes"].as_u64()).sum::<u64>())
        };
        // Once a follower is known to have it, it is not sent there.
        let before = sent().ok_or("no routes")?;
        for context in &contexts {
            let stream = context.get_stream_no_info("S").await?;
            for _ in 0..20 {
                let got = stream.direct_get(large).await?;
                want(got.payload.len() == 500_000, || format!("{} bytes", got.payload.len()))?;
            }
        }
        let more = sent().ok_or("no routes")? - before;
        want(more < 1_000_000, || format!("the leader sent {more} bytes for gets of 30,000,000"))
    })
}

/// A mirror answers direct gets that name its origin, on every server.
fn mirror_gets(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    let mut config = replicated("S", 3);
    config["allow_direct"] = json!(true);
    api(&mut js, "STREAM.CREATE.S", &config)?;
    js.request("s", b"payload")?;
    let config = json!({ "name": "M", "mirror": { "name": "S" }, "num_replicas": 3, "storage": "file" });
    let info = api(&mut js, "STREAM.CREATE.M", &config)?;
    want(info["config"]["mirror_direct"] == true, || format!("{info}"))?;
    wait("the mirror has all", || {
        let info = js.api("STREAM.INFO.M", &json!({})).ok()?;
        (info["state"]["messages"] == 1 && info["mirror"]["lag"] == 0).then_some(())
    })?;
    api(&mut js, "STREAM.DELETE.S", &json!({}))?;
    for server in &trio.servers {
        let mut js = open(server)?;
        wait("the mirror's answer", || {
            let got = js.request("$JS.API.DIRECT.GET.S.s", b"").ok()?;
            let says_who = got.headers.iter().any(|line| line == "Nats-Stream: M");
            (got.payload == b"payload" && says_who).then_some(())
        })?;
    }
    Ok(())
}

/// The tool sends leaders away, and shows what became of it.
fn step_down(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let config = json!({ "name": "S", "subjects": ["s"], "num_replicas": 3, "storage": "file", "retention": "limits" });
    let mut js = open(&trio.servers[0])?;
    api(&mut js, "STREAM.CREATE.S", &config)?;
    let consumer = json!({ "stream_name": "S", "config": { "durable_name": "C", "ack_policy": "explicit" } });
    api(&mut js, "CONSUMER.DURABLE.CREATE.S.C", &consumer)?;
    js.request("s", b"x")?;
    let before = trio.leader(0, "S")?;
    trio.nats(1, "a", &["stream", "cluster", "step-down", "S"])?;
    let after = wait("another leader", || trio.leader(0, "S").ok().filter(|leader| *leader != before))?;
    let wanted = (0..3).find(|at| *at != after && *at != before).unwrap_or_default();
    trio.nats(2, "a", &["stream", "cluster", "step-down", "S", "--preferred", NAMES[wanted]])?;
    wait("the preferred leader", || trio.leader(1, "S").ok().filter(|leader| *leader == wanted))?;
    let refused = js.api("STREAM.LEADER.STEPDOWN.S", &json!({ "placement": { "preferred": "nobody" } }))?;
    want(refused["error"]["description"] == "preferred server \"nobody\" not known", || {
        format!("{refused}")
    })?;
    let refused = js.api("STREAM.PEER.REMOVE.S", &json!({ "peer": NAMES[wanted] }))?;
    want(refused["error"]["err_code"] == 10075, || format!("{refused}"))?;
    trio.nats(2, "a", &["consumer", "cluster", "step-down", "S", "C"])?;
    let leader =
        |at: usize| page(&trio.servers[at], "/jsz")?["meta_cluster"]["leader"].as_str().map(str::to_owned);
    let first = wait("a leader of all", || leader(0))?;
    trio.nats(0, "sys", &["server", "cluster", "step-down"])?;
    wait("another leader of all", || leader(2).filter(|leader| *leader != first))?;
    let said = trio.nats(1, "sys", &["server", "report", "jetstream"])?;
    want(NAMES.iter().all(|name| said.contains(name)) && said.contains("RAFT Meta Group"), || said.clone())?;
    let said = trio.nats(1, "a", &["stream", "report"])?;
    want(NAMES.iter().all(|name| said.contains(name)), || said.clone())?;
    let said = trio.nats(0, "sys", &["server", "report", "health"])?;
    want(said.contains("ok: 3 / err: 0"), || said.clone())
}

/// What happens while a server is away is there when it leads: messages, what was deleted and purged, what a consumer took, and
/// another configuration.
fn missed(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    let mut config = json!({ "name": "S", "subjects": ["s.>"], "num_replicas": 3, "storage": "file",
        "retention": "limits" });
    let consumer = json!({ "stream_name": "S", "config": { "durable_name": "C", "ack_policy": "explicit" } });
    let leader = {
        let mut js = open(&trio.servers[0])?;
        api(&mut js, "STREAM.CREATE.S", &config)?;
        api(&mut js, "CONSUMER.DURABLE.CREATE.S.C", &consumer)?;
        trio.leader(0, "S")?
    };
    // A `nats-server` does not answer what it is asked while nobody leads the cluster.
    let first = trio.meta_leader(0)?;
    let away = (0..3).find(|at| *at != leader && *at != first).ok_or("there are three")?;
    let mut js = open(&trio.servers[leader])?;
    let publish = |js: &mut Js, numbers: std::ops::Range<u32>| -> Flow {
        for number in numbers {
            let text = format!("{number} {}", "x".repeat(1000));
            let ack = js.request(&format!("s.{}", number % 7), text.as_bytes())?;
            let ack: Value = serde_json::from_slice(&ack.payload)?;
            want(ack["seq"] == number + 1, || ack.to_string())?;
        }
        Ok(())
    };
    publish(&mut js, 0..200)?;
    trio.servers[away].kill();
    publish(&mut js, 200..2000)?;
    let taken =
        wait("messages", || js.pull("S", "C", &json!({ "batch": 300 })).ok().filter(|all| all.len() == 300))?;
    for one in &taken {
        js.request(&one.reply, b"+ACK")?;
    }
    api(&mut js, "STREAM.MSG.DELETE.S", &json!({ "seq": 1500 }))?;
    api(&mut js, "STREAM.PURGE.S", &json!({ "filter": "s.3" }))?;
    config["description"] = json!("changed meanwhile");
    api(&mut js, "STREAM.UPDATE.S", &config)?;
    let seen = |js: &mut Js| -> Option<(Value, Value, Value)> {
        let info = js.api("STREAM.INFO.S", &json!({ "deleted_details": true })).ok()?;
        let of = js.api("CONSUMER.INFO.S.C", &json!({})).ok()?;
        let consumer =
            json!([of["delivered"]["stream_seq"], of["ack_floor"]["stream_seq"], of["num_pending"]]);
        Some((info["state"].clone(), info["config"]["description"].clone(), consumer))
    };
    let before = seen(&mut js).ok_or("no information")?;
    trio.servers[away].start_again()?;
    wait("it leads", || {
        let info = js.api("STREAM.INFO.S", &json!({})).ok()?;
        let others = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
        let is_current = others.iter().any(|one| one["name"] == NAMES[away] && one["current"] == true);
        if is_current {
            let to = json!({ "placement": { "preferred": NAMES[away] } });
            js.api("STREAM.LEADER.STEPDOWN.S", &to).ok()?;
            js.api("CONSUMER.LEADER.STEPDOWN.S.C", &to).ok()?;
        }
        (info["cluster"]["leader"] == NAMES[away]).then_some(())
    })?;
    let mut js = open(&trio.servers[away])?;
    let mut after = None;
    let same = wait("it has the same", || {
        after = seen(&mut js);
        after.as_ref().filter(|after| **after == before).map(drop)
    });
    want(same.is_ok(), || format!("{before:?}\n{after:?}"))?;
    // A `nats-server` may not have heard of the consumer that reads.
    let there = wait("all messages", || js.read_from("S", 1).ok())?;
    let first = |one: &Delivered| String::from_utf8_lossy(&one.payload).split(' ').next().map(str::to_owned);
    let wanted = (0..2000).filter(|number| number % 7 != 3 && *number != 1499);
    let wanted: Vec<String> = wanted.map(|number| number.to_string()).collect();
    want(there.iter().filter_map(first).eq(wanted), || format!("{} messages are there", there.len()))
}

/// Keys and objects, by the tool, through every server.
fn buckets(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    trio.nats(0, "a", &["kv", "add", "K", "--replicas", "3", "--history", "3"])?;
    trio.nats(1, "a", &["object", "add", "O", "--replicas", "3"])?;
    for at in 0..3 {
        let (key, value) = (format!("key{at}"), format!("value{at}"));
        trio.nats(at, "a", &["kv", "put", "K", &key, &value])?;
        let got = trio.nats((at + 1) % 3, "a", &["kv", "get", "K", &key, "--raw"])?;
        want(got.trim() == value, || format!("{key}: {got}"))?;
        let file = trio.servers[at].dir().join("object");
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&file, &bytes)?;
        let (name, path) = (format!("object{at}"), file.display().to_string());
        trio.nats(at, "a", &["object", "put", "O", &path, "--name", &name, "--no-progress", "--force"])?;
        let back = trio.servers[at].dir().join("back");
        let path = back.display().to_string();
        trio.nats(
            (at + 2) % 3,
            "a",
            &["object", "get", "O", &name, "--output", &path, "--no-progress", "--force"],
        )?;
        want(std::fs::read(&back)? == bytes, || format!("{name} came back different"))?;
    }
    Ok(())
}

fn python(target: &Target) -> Flow {
    let python = named("PYTHON_WITH_NATS")?;
    let trio = Trio::start(target)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/replicated.py");
    let mut command = Command::new(python);
    command.arg(script).args(trio.servers.iter().map(Server::url));
    run(&mut command).map(drop)
}

/// What publishers were told.
#[derive(Default)]
struct Ledger {
    acked: Vec<(u64, String)>,
    /// The longest that one message took, with all its attempts.
    longest: Duration,
    /// The most attempts that one message took.
    attempts: u32,
}

/// Publishes until told to stop; what is not acknowledged is published again.
async fn publish(js: jetstream::Context, who: usize, stop: Arc<AtomicBool>) -> Result<Ledger, Fault> {
    let mut ledger = Ledger::default();
    let mut again = tokio::time::interval(Duration::from_millis(100));
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (payload, begun) = (format!("{who}.{number}"), Instant::now());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sent = js.publish("s", payload.clone().into()).await;
            let ack = match sent {
                Ok(ack) => ack.await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match ack {
                Ok(ack) => {
                    ledger.acked.push((ack.sequence, payload));
                    break;
                }
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(format!("{payload}: {error} for {PATIENCE:?}").into());
                }
                Err(_) => drop(again.tick().await),
            }
        }
        ledger.longest = ledger.longest.max(begun.elapsed());
        ledger.attempts = ledger.attempts.max(attempts);
    }
    Ok(ledger)
}

/// Four publishers, each with a connection of its own.
fn publish_all(urls: &[String], stop: &Arc<AtomicBool>) -> Result<Ledger, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for who in 0..4 {
            let options =
                async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(50));
            let mut js = jetstream::new(options.connect(urls).await?);
            js.set_timeout(Duration::from_millis(500));
            tasks.push(tokio::spawn(publish(js, who, stop.clone())));
        }
        let mut all = Ledger::default();
        for task in tasks {
            let mut ledger = task.await??;
            all.acked.append(&mut ledger.acked);
            all.longest = all.longest.max(ledger.longest);
            all.attempts = all.attempts.max(ledger.attempts);
        }
        Ok(all)
    })
}

/// Something happens to the servers while publishers are at work: every message that was acknowledged is there.
fn under_load(target: &Target, what: &str, happens: fn(&mut Trio) -> Flow) -> Flow {
    let mut trio = Trio::start(target)?;
    let config = json!({ "name": "S", "subjects": ["s"], "num_replicas": 3, "storage": "file", "retention": "limits" });
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let urls: Vec<String> = trio.servers.iter().map(Server::url).collect();
    let load = std::thread::spawn({
        let stop = stop.clone();
        move || publish_all(&urls, &stop)
    });
    let is_growing = |trio: &Trio, at: usize, more: u64| {
        let last = || {
            let info = open(&trio.servers[at]).ok()?.api("STREAM.INFO.S", &json!({})).ok()?;
            info["state"]["last_seq"].as_u64()
        };
        let goal = wait("a stream", last)? + more;
        wait("more messages", || last().filter(|last| *last > goal)).map(drop)
    };
    is_growing(&trio, 0, 30)?;
    happens(&mut trio)?;
    is_growing(&trio, 1, 30)?;
    stop.store(true, Ordering::Relaxed);
    let all = load.join().map_err(|_| "a publisher panicked")??;
    let (count, longest, attempts) = (all.acked.len(), all.longest, all.attempts);
    println!("{what}: {count} acknowledged; the slowest took {longest:?} and {attempts} attempts");
    trio.await_health()?;
    for server in &trio.servers {
        let mut js = open(server)?;
        let there = js.read_from("S", 1)?;
        for (seq, payload) in &all.acked {
            let found = there.iter().any(|one| one.seq == *seq && one.payload == payload.as_bytes());
            want(found, || {
                format!("{payload} was acknowledged as {seq}, and {} does not have it", server.url())
            })?;
        }
    }
    Ok(())
}

fn killed(target: &Target) -> Flow {
    under_load(target, "killed leader", |trio| {
        let leader = trio.leader(0, "S")?;
        trio.servers[leader].kill();
        let other = (leader + 1) % 3;
        let begun = Instant::now();
        wait("another leader", || trio.leader(other, "S").ok().filter(|next| *next != leader))?;
        println!("killed leader: another one leads after {:?}", begun.elapsed());
        trio.servers[leader].start_again()?;
        trio.await_health()
    })
}

fn stopped(target: &Target) -> Flow {
    under_load(target, "stopped leader", |trio| {
        let leader = trio.leader(0, "S")?;
        trio.servers[leader].signal("STOP")?;
        let other = (leader + 1) % 3;
        let begun = Instant::now();
        let next = wait("another leader", || trio.leader(other, "S").ok().filter(|next| *next != leader));
        println!("stopped leader: another one leads after {:?}", begun.elapsed());
        trio.servers[leader].signal("CONT")?;
        next?;
        trio.await_health()
    })
}

fn rolling(target: &Target) -> Flow {
    under_load(target, "rolling restart", |trio| {
        for at in 0..3 {
            trio.servers[at].signal("USR2")?;
            wait("a lame duck leads nothing", || {
                let leader = trio.leader((at + 1) % 3, "S").ok()?;
                (leader != at).then_some(())
            })?;
            trio.servers[at].stop()?;
            trio.servers[at].start_again()?;
            trio.await_health()?;
        }
        Ok(())
    })
}
