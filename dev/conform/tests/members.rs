//! Which servers have a stream, on real processes: it gets more, fewer and other ones with everything that is in it and in its
//! consumers, in files and in memory; a server that alone has something is not taken out before others have it; and clients
//! of servers that have nothing of a stream, or no JetStream at all, do not notice.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use hw_conform::trio::{
    Fault, Flow, Trio, api, arrived, filled, open, outcome, page, replicated, wait, wait_telling, want,
};
use hw_conform::{Case, Cases, Js, Outcome, Target, run_all, targets};
use hw_testkit::Server;
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

fn main() -> ExitCode {
    let own: [(&str, Run); 9] = [
        ("a stream in files has one, three, one and five servers", |target| scaled(target, "file")),
        ("a stream in memory has one, three, one and five servers", |target| scaled(target, "memory")),
        ("a server that alone has a stream is taken out", last_one),
        ("a server that is gone and alone had a stream is taken out", lost_one),
        ("a change of servers is taken back", cancelled),
        ("a server has as many streams with others as it may", full),
        ("a create before there is a leader is answered", early),
        ("publishes at a server without the stream stay in order", ordered),
        ("a server without JetStream serves through the others", guest),
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
    run_all(Cases { cases, threads: 1 })
}

fn stored(name: &str, replicas: usize, storage: &str) -> Value {
    let mut config = replicated(name, replicas);
    config["storage"] = json!(storage);
    config
}

fn placed(name: &str, replicas: usize, tags: &[&str]) -> Value {
    let mut config = replicated(name, replicas);
    config["placement"] = json!({ "tags": tags });
    config
}

/// Messages with numbers from `first` on.
fn fill(js: &mut Js, subject: &str, (first, count): (u32, u32)) -> Flow {
    for number in first..first + count {
        let ack = js.request(subject, number.to_string().as_bytes())?;
        let ack: Value = serde_json::from_slice(&ack.payload)?;
        want(ack["seq"].is_u64(), || format!("{subject} {number}: {ack}"))?;
    }
    Ok(())
}

/// The servers of a stream, its leader first, when all are there and have everything.
fn servers_of(js: &mut Js, stream: &str) -> Option<Vec<String>> {
    let info = js.api(&format!("STREAM.INFO.{stream}"), &json!({})).ok()?;
    let mut names = vec![info["cluster"]["leader"].as_str()?.to_owned()];
    for replica in info["cluster"]["replicas"].as_array().into_iter().flatten() {
        if replica["current"] != true {
            return None;
        }
        names.push(replica["name"].as_str()?.to_owned());
    }
    Some(names)
}

fn scale(js: &mut Js, config: &Value) -> Result<(), Fault> {
    let name = config["name"].as_str().unwrap_or_default().to_owned();
    let replicas = config["num_replicas"].as_u64().unwrap_or_default() as usize;
    wait("the last change is over", || {
        let answer = js.api(&format!("STREAM.UPDATE.{name}"), config).ok()?;
        (answer.get("error").is_none()).then_some(())
    })?;
    let last = std::cell::RefCell::new(Value::Null);
    wait_telling(
        || format!("{name} has {replicas} servers: {}", last.borrow()),
        || {
            *last.borrow_mut() = js.api(&format!("STREAM.INFO.{name}"), &json!({})).unwrap_or_default();
            servers_of(js, &name).filter(|names| names.len() == replicas).map(drop)
        },
    )
}

/// What of a consumer must stay: how far it delivered, what is acknowledged, what waits for that.
fn standing(js: &mut Js, stream: &str) -> Result<Value, Fault> {
    let info = api(js, &format!("CONSUMER.INFO.{stream}.C"), &json!({}))?;
    let sequence = |of: &str| [info[of]["consumer_seq"].clone(), info[of]["stream_seq"].clone()];
    Ok(json!([sequence("delivered"), sequence("ack_floor"), info["num_ack_pending"], info["num_pending"]]))
}

/// One, three, one and five servers: messages, and a consumer with acknowledgements under way, stay.
fn scaled(target: &Target, storage: &str) -> Flow {
    let mut five = Trio::start_with(target, 5, |_| "debug: true".to_owned())?;
    let mut js = open(&five.servers[0])?;
    api(&mut js, "STREAM.CREATE.S", &stored("S", 1, storage))?;
    fill(&mut js, "s", (0, 60))?;
    let config = json!({ "durable_name": "C", "ack_policy": "explicit", "ack_wait": 600_000_000_000_u64 });
    api(&mut js, "CONSUMER.DURABLE.CREATE.S.C", &json!({ "stream_name": "S", "config": config }))?;
    let got = js.pull("S", "C", &json!({ "batch": 10, "expires": 5_000_000_000_u64 }))?;
    want(got.len() == 10, || format!("{got:?}"))?;
    for one in got.iter().filter(|one| one.seq != 4 && one.seq != 7) {
        js.request(&one.reply, b"+ACK")?;
    }
    let before = standing(&mut js, "S")?;
    want(before == json!([[10, 10], [3, 3], 2, 50]), || before.to_string())?;
    let (mut count, mut pending) = (60, 50);
    for replicas in [3, 1, 5] {
        scale(&mut js, &stored("S", replicas, storage))?;
        let after = standing(&mut js, "S")?;
        want(after == json!([[10, 10], [3, 3], 2, pending]), || format!("{replicas} servers: {after}"))?;
        filled(&mut js, "S", count)?;
        fill(&mut js, "s", (count, 10))?;
        (count, pending) = (count + 10, pending + 10);
        if replicas == 3 {
            let leader = five.leader(0, "S")?;
            five.servers[leader].kill();
            let other = (leader + 1) % 5;
            wait("another leader", || five.leader(other, "S").ok().filter(|next| *next != leader))?;
            five.servers[leader].start_again()?;
            five.await_health()?;
            js = open(&five.servers[0])?;
            wait("three have all", || servers_of(&mut js, "S").filter(|names| names.len() == 3))?;
            filled(&mut js, "S", count)?;
        }
    }
    five.servers.iter_mut().for_each(Server::kill);
    for server in &mut five.servers {
        server.begin_start()?;
    }
    five.await_health()?;
    let mut js = open(&five.servers[3])?;
    wait("five are back", || servers_of(&mut js, "S").filter(|names| names.len() == 5))?;
    filled(&mut js, "S", count)?;
    let after = standing(&mut js, "S")?;
    want(after == json!([[10, 10], [3, 3], 2, pending]), || format!("after a restart of all: {after}"))
}

/// Who has the stream alone gives it to another server before it goes.
fn last_one(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    api(&mut js, "STREAM.CREATE.ONE", &replicated("ONE", 1))?;
    fill(&mut js, "one", (0, 500))?;
    let at = trio.leader(0, "ONE")?;
    let (name, other) = (format!("n{}", at + 1), (at + 1) % 3);
    let mut operator = trio.operator(other)?;
    wait_telling(
        || format!("{name} is taken out"),
        || {
            let answer = operator.api("SERVER.REMOVE", &json!({ "peer": name })).ok()?;
            // A large stream takes its time: whoever asks is told so, and asks again.
            (answer["success"] == true || answer["error"]["err_code"] == 10044).then_some(())
        },
    )?;
    let mut js = open(&trio.servers[other])?;
    let names = wait("ONE is elsewhere", || servers_of(&mut js, "ONE").filter(|names| names[0] != name))?;
    want(names.len() == 1, || format!("{names:?}"))?;
    arrived(target, &mut js, "ONE", 500)?;
    fill(&mut js, "one", (500, 1))
}

/// The only server of a stream is taken out while it is gone: the stream is never shown as if it were empty, and whoever
/// asks is told that it is not there.
fn lost_one(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    for at in 0..3 {
        api(&mut js, &format!("STREAM.CREATE.ONE{at}"), &replicated(&format!("ONE{at}"), 1))?;
        fill(&mut js, &format!("one{at}"), (0, 20))?;
    }
    let meta = trio.meta_leader(0)?;
    let (mut stream, mut at) = (String::new(), meta);
    for number in 0..3 {
        let leader = trio.leader(0, &format!("ONE{number}"))?;
        if leader != meta {
            (stream, at) = (format!("ONE{number}"), leader);
        }
    }
    want(at != meta, || "streams are spread".to_owned())?;
    let consumer =
        json!({ "stream_name": stream, "config": { "durable_name": "C", "ack_policy": "explicit" } });
    api(&mut js, &format!("CONSUMER.DURABLE.CREATE.{stream}.C"), &consumer)?;
    trio.servers[at].kill();
    let other = (at + 1) % 3;
    let mut operator = trio.operator(other)?;
    let mut js = open(&trio.servers[other])?;
    let offline = |js: &mut Js| {
        let answer = js.api(&format!("STREAM.INFO.{stream}"), &json!({}))?;
        let error = &answer["error"];
        want(error["err_code"] == 10118 && error["description"] == "stream is offline", || {
            answer.to_string()
        })?;
        let answer = js.api(&format!("CONSUMER.INFO.{stream}.C"), &json!({}))?;
        let error = &answer["error"];
        want(error["err_code"] == 10119 && error["description"] == "consumer is offline", || {
            answer.to_string()
        })
    };
    wait("its only server is missed", || offline(&mut js).ok())?;
    let answer = api(&mut operator, "SERVER.REMOVE", &json!({ "peer": format!("n{}", at + 1) }))?;
    want(answer["success"] == true, || answer.to_string())?;
    offline(&mut js)?;
    let names = api(&mut js, "STREAM.NAMES", &json!({}))?;
    want(names["total"] == 3, || names.to_string())?;
    let list = api(&mut js, "STREAM.LIST", &json!({}))?;
    want(list["total"] == 3 && list["missing"] == json!([stream]), || list.to_string())?;
    let ack = js.request(&stream.to_lowercase(), b"lost?")?;
    let ack: Value = serde_json::from_slice(&ack.payload)?;
    want(ack["error"]["err_code"] == 10118, || format!("a publish: {ack}"))?;
    // Whoever gives it up can.
    api(&mut js, &format!("STREAM.DELETE.{stream}"), &json!({}))?;
    api(&mut js, &format!("STREAM.CREATE.{stream}"), &replicated(&stream, 1))?;
    fill(&mut js, &stream.to_lowercase(), (0, 5))?;
    filled(&mut js, &stream, 5)?;
    // Who was taken out stays outside with what it had, and brings nothing back.
    trio.servers[at].start_again()?;
    wait("it serves through the others", || {
        let mut js = open(&trio.servers[at]).ok()?;
        filled(&mut js, &stream, 5).ok()
    })?;
    let mut js = open(&trio.servers[at])?;
    fill(&mut js, &stream.to_lowercase(), (5, 5))?;
    filled(&mut js, &stream, 10)?;
    let names = servers_of(&mut js, &stream);
    want(names.is_some_and(|names| names != [format!("n{}", at + 1)]), || "it has a stream".to_owned())
}

/// A move that cannot end is taken back.
fn cancelled(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    let mut operator = trio.operator(0)?;
    api(&mut js, "STREAM.CREATE.ONE", &replicated("ONE", 1))?;
    fill(&mut js, "one", (0, 50))?;
    let code = |answer: &Value| answer["error"]["err_code"].as_u64().unwrap_or_default();
    for (js, verb) in
        [(&mut js, "STREAM.CANCEL_MOVE.ONE"), (&mut operator, "ACCOUNT.STREAM.CANCEL_MOVE.A.ONE")]
    {
        let answer = js.api(verb, &json!({}))?;
        want(code(&answer) == 10129, || format!("{verb}: {answer}"))?;
    }
    let answer = js.api("STREAM.CANCEL_MOVE.NOPE", &json!({}))?;
    want(code(&answer) == 10059, || answer.to_string())?;
    // The servers that are to come stand still: nothing goes on.
    let at = trio.leader(0, "ONE")?;
    let meta = trio.meta_leader(0)?;
    let slow = (0..3).find(|slow| *slow != at && *slow != meta).ok_or("a server that leads nothing")?;
    let mut js = open(&trio.servers[at])?;
    trio.servers[slow].signal("STOP")?;
    let grown = js.api("STREAM.UPDATE.ONE", &replicated("ONE", 3));
    let between = js.api("STREAM.INFO.ONE", &json!({}));
    let again = js.api("STREAM.UPDATE.ONE", &placed("ONE", 3, &["nope"]));
    let back = js.api("STREAM.CANCEL_MOVE.ONE", &json!({}));
    trio.servers[slow].signal("CONT")?;
    let (grown, again, back) = (grown?, again?, back?);
    want(grown.get("error").is_none(), || format!("a scale: {grown}"))?;
    let between = between?;
    let desired = &between["cluster"]["desired"];
    let is_told = desired["name"] == "trio"
        && desired["created"].is_string()
        && desired["origin"]["replicas"] == 1
        && desired["replicas"].as_array().is_some_and(|all| all.len() == 3 && all[0]["peer"].is_string())
        && desired["status"]["type"] == "catchup";
    want(is_told, || format!("where it is to be: {desired}"))?;
    want(code(&again) == 10226, || format!("a move meanwhile: {again}"))?;
    want(back["config"]["num_replicas"] == 1, || format!("back: {back}"))?;
    let kind = "io.nats.jetstream.api.v1.stream_cancel_move_response";
    want(back["type"] == kind, || back.to_string())?;
    wait("ONE is where it was", || {
        servers_of(&mut js, "ONE").filter(|names| *names == [format!("n{}", at + 1)])
    })?;
    let info = api(&mut js, "STREAM.INFO.ONE", &json!({}))?;
    want(info["config"]["num_replicas"] == 1, || info["config"].to_string())?;
    wait("nothing else is desired any more", || {
        let info = js.api("STREAM.INFO.ONE", &json!({})).ok()?;
        info["cluster"].get("desired").is_none().then_some(())
    })?;
    filled(&mut js, "ONE", 50)?;
    scale(&mut js, &replicated("ONE", 3))?;
    filled(&mut js, "ONE", 50)
}

fn full(target: &Target) -> Flow {
    let trio = Trio::start_with(target, 3, |_| "jetstream { limits { max_ha_assets: 2 } }".to_owned())?;
    let mut js = open(&trio.servers[0])?;
    for name in ["A", "B"] {
        api(&mut js, &format!("STREAM.CREATE.{name}"), &replicated(name, 3))?;
    }
    let answer = js.api("STREAM.CREATE.C", &replicated("C", 3))?;
    let text = "no suitable peers for placement, miscellaneous issue";
    let error = &answer["error"];
    want(error["err_code"] == 10005 && error["description"] == text, || answer.to_string())?;
    api(&mut js, "STREAM.CREATE.C", &replicated("C", 1)).map(drop)
}

/// Servers that have only just started have no leader yet: whoever creates a stream waits, and not long.
fn early(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    for _ in 0..3 {
        trio.servers.iter_mut().for_each(Server::kill);
        for server in &mut trio.servers {
            server.begin_start()?;
        }
        let mut asked = Vec::new();
        for (at, server) in trio.servers.iter().enumerate() {
            let mut js = wait("it listens", || Js::open(server.port()).ok())?;
            let (reply, name) = (js.inbox(), format!("S{at}"));
            let subject = format!("$JS.API.STREAM.CREATE.{name}");
            js.publish(&subject, &reply, replicated(&name, 3).to_string().as_bytes())?;
            asked.push((js, Instant::now()));
        }
        for (mut js, begun) in asked {
            js.set_patience(Duration::from_secs(10));
            let answer: Value = serde_json::from_slice(&js.frame("a stream")?.payload)?;
            let took = begun.elapsed();
            println!("a create without a leader took {took:?}");
            want(answer.get("error").is_none(), || answer.to_string())?;
            want(took < Duration::from_secs(2), || format!("{took:?}"))?;
        }
        let mut js = open(&trio.servers[0])?;
        for at in 0..3 {
            api(&mut js, &format!("STREAM.DELETE.S{at}"), &json!({}))?;
        }
    }
    trio.await_health()
}

/// Publishes of one connection are stored in the order in which they were sent, also while leaders change.
fn ordered(target: &Target) -> Flow {
    const COUNT: u32 = 3000;
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    api(&mut js, "STREAM.CREATE.ONE", &replicated("ONE", 1))?;
    api(&mut js, "STREAM.CREATE.ALL", &replicated("ALL", 3))?;
    for (stream, subject) in [("ONE", "one"), ("ALL", "all")] {
        let leader = trio.leader(0, stream)?;
        let mut js = open(&trio.servers[(leader + 1) % 3])?;
        let mut waiting = std::collections::BTreeMap::new();
        for number in 0..COUNT {
            let reply = js.inbox();
            js.publish(subject, &reply, number.to_string().as_bytes())?;
            waiting.insert(reply, number);
            if number == COUNT / 2 && stream == "ALL" {
                let mut other = open(&trio.servers[(leader + 2) % 3])?;
                api(&mut other, "STREAM.LEADER.STEPDOWN.ALL", &json!({}))?;
            }
        }
        while !waiting.is_empty() {
            let frame = js.frame("an acknowledgement")?;
            let ack: Value = serde_json::from_slice(&frame.payload)?;
            let number = waiting.remove(frame.subject.as_deref().unwrap_or_default());
            let number = number.ok_or_else(|| format!("{subject}: a second answer: {ack}"))?;
            let is_right = ack["seq"] == u64::from(number) + 1 && ack.get("error").is_none();
            want(is_right, || format!("{subject} {number}: {ack}"))?;
        }
        filled(&mut js, stream, COUNT)?;
    }
    Ok(())
}

/// A server of the cluster without JetStream.
fn guest(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let guest = trio.guest(target, "n9")?;
    let mut js = open(&guest)?;
    want(page(&guest, "/jsz").is_some_and(|page| page["disabled"] == true), || {
        "it has JetStream".to_owned()
    })?;
    for (name, replicas) in [("ONE", 1), ("ALL", 3)] {
        api(&mut js, &format!("STREAM.CREATE.{name}"), &replicated(name, replicas))?;
        fill(&mut js, &name.to_lowercase(), (0, 50))?;
        let consumer =
            json!({ "stream_name": name, "config": { "durable_name": "C", "ack_policy": "explicit" } });
        api(&mut js, &format!("CONSUMER.DURABLE.CREATE.{name}.C"), &consumer)?;
        let got = js.pull(name, "C", &json!({ "batch": 50, "expires": 5_000_000_000_u64 }))?;
        want(got.len() == 50, || format!("{name}: {}", got.len()))?;
        for one in &got {
            js.request(&one.reply, b"+ACK")?;
        }
        let info = api(&mut js, &format!("CONSUMER.INFO.{name}.C"), &json!({}))?;
        want(info["ack_floor"]["stream_seq"] == 50, || info.to_string())?;
        filled(&mut js, name, 50)?;
    }
    let names = api(&mut js, "STREAM.NAMES", &json!({}))?;
    want(names["total"] == 2, || names.to_string())?;
    let size = page(&trio.servers[0], "/jsz").map(|page| page["meta_cluster"]["cluster_size"].clone());
    want(size == Some(json!(3)), || format!("it is no member of the meta group: {size:?}"))
}
