//! What operators do with a cluster, on real processes: streams on servers with tags, streams that move, servers that give up
//! what they have or go for good, backups. Where the real server does the same it is asked the same.
//!
//! `NATS_CLI` names the nats tool.

use std::{process::ExitCode, time::Duration};

use hw_conform::trio::{
    Fault, Flow, Trio, api, arrived, filled, open, outcome, page, replicated, run, wait, want,
};
use hw_conform::{Case, Cases, Js, Outcome, Target, run_all, targets};
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

fn main() -> ExitCode {
    let both: [(&str, Run); 6] = [
        ("streams go where their tags are", tags),
        ("streams move", moves),
        ("servers give up what they have", evacuated),
        ("backups are restored into a cluster", backups),
        ("copies come from other servers", copies),
        ("an atomic batch ends when the leader changes", batched),
    ];
    let own: [(&str, Run); 5] = [
        ("who leads the cluster is taken out", removed),
        ("requests with what nobody knows are refused", unknown),
        ("all servers are killed at once", killed),
        ("our own tool", tool),
        ("a leader that reaches nobody takes a bounded amount", overrun),
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

const TAGS: [&str; 3] = ["[\"az:a\", \"ssd\"]", "[\"az:b\", \"ssd\"]", "[\"az:c\"]"];

fn tagged(target: &Target, more: &str) -> Result<Trio, Fault> {
    Trio::start_with(target, 3, |at| format!("server_tags: {}\n{more}", TAGS[at]))
}

fn placed(name: &str, replicas: usize, tags: &[&str]) -> Value {
    let mut config = replicated(name, replicas);
    config["placement"] = json!({ "tags": tags });
    config
}

/// A batch that is open when another server begins to lead ends: what comes of it after that is refused, and nothing of it is stored.
fn batched(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    let mut config = replicated("S", 3);
    config["allow_atomic"] = json!(true);
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &config)?;
    for way in ["asked", "killed"] {
        let leader = trio.leader(0, "S")?;
        let asked = (leader + 1) % 3;
        let mut js = open(&trio.servers[asked])?;
        let part = |js: &mut Js, number: u32, more: &str| -> Result<Vec<u8>, Fault> {
            let reply = js.inbox();
            let headers = format!("Nats-Batch-Id: {way}\r\nNats-Batch-Sequence: {number}{more}");
            js.publish_headed("s", &reply, &headers, b"x")?;
            Ok(js.frame("the answer to a part")?.payload.to_vec())
        };
        for number in 1..=3 {
            let answer = part(&mut js, number, "")?;
            want(answer.is_empty(), || format!("part {number}: {}", String::from_utf8_lossy(&answer)))?;
        }
        match way {
            "asked" => drop(api(&mut open(&trio.servers[asked])?, "STREAM.LEADER.STEPDOWN.S", &json!({}))?),
            _ => trio.servers[leader].kill(),
        }
        wait("another leader", || trio.leader(asked, "S").ok().filter(|next| *next != leader))?;
        for (number, more) in [(4, ""), (5, "\r\nNats-Batch-Commit: 1")] {
            let answer: Value = serde_json::from_slice(&part(&mut js, number, more)?)?;
            let error = &answer["error"];
            let is_right =
                error["err_code"] == 10176 && error["description"] == "atomic publish batch is incomplete";
            want(is_right, || format!("{way}, part {number}: {answer}"))?;
        }
        let info = api(&mut js, "STREAM.INFO.S", &json!({}))?;
        want(info["state"]["messages"] == 0, || info["state"].to_string())?;
    }
    Ok(())
}

/// A request that must be refused so.
fn refused(js: &mut Js, verb: &str, body: &Value, (code, text): (u64, &str)) -> Flow {
    let answer = js.api(verb, body)?;
    let error = &answer["error"];
    want(error["err_code"] == code && error["description"].as_str() == Some(text), || {
        format!("{verb} {body}: {answer}")
    })
}

/// The servers that a stream has, its leader first.
fn servers_of(js: &mut Js, stream: &str) -> Option<Vec<String>> {
    let info = js.api(&format!("STREAM.INFO.{stream}"), &json!({})).ok()?;
    let cluster = &info["cluster"];
    let mut names = vec![cluster["leader"].as_str()?.to_owned()];
    for replica in cluster["replicas"].as_array().into_iter().flatten() {
        if replica["current"] != true {
            return None;
        }
        names.push(replica["name"].as_str()?.to_owned());
    }
    Some(names)
}

fn tags(target: &Target) -> Flow {
    let trio = tagged(target, "")?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &placed("TWO", 2, &["SSD"]))?;
    let names = wait("two servers", || servers_of(&mut js, "TWO").filter(|names| names.len() == 2))?;
    want(!names.contains(&"n3".to_owned()), || format!("{names:?}"))?;
    create(target, &mut js, &placed("NOT", 1, &["!ssd"]))?;
    want(servers_of(&mut js, "NOT").is_some_and(|names| names == ["n3"]), || "!ssd is n3".to_owned())?;
    let none = |reasons: &str| format!("no suitable peers for placement{reasons}");
    let nope = none(", tags not matched ['nope']");
    refused(&mut js, "STREAM.CREATE.X", &placed("X", 1, &["nope"]), (10005, &nope))?;
    let ssd = none(", tags not matched ['ssd']");
    refused(&mut js, "STREAM.CREATE.X", &placed("X", 3, &["ssd"]), (10005, &ssd))?;
    refused(&mut js, "STREAM.CREATE.X", &replicated("X", 5), (10005, &none("")))?;
    let mut elsewhere = replicated("X", 1);
    elsewhere["placement"] = json!({ "cluster": "other" });
    refused(&mut js, "STREAM.CREATE.X", &elsewhere, (10005, &none("")))?;
    elsewhere["placement"] = json!({ "preferred": "n2" });
    let preferred = "preferred server not permitted in placement";
    refused(&mut js, "STREAM.CREATE.X", &elsewhere, (10052, preferred))?;
    refused(&mut js, "STREAM.UPDATE.NOT", &placed("NOT", 2, &["ssd"]), {
        (10123, "can not move and scale a stream in a single update")
    })?;
    let lead = |tags: &[&str]| json!({ "placement": { "tags": tags } });
    create(target, &mut js, &replicated("ALL", 3))?;
    wait("three servers", || servers_of(&mut js, "ALL").filter(|names| names.len() == 3))?;
    if trio.leader(0, "ALL")? != 2 {
        api(&mut js, "STREAM.LEADER.STEPDOWN.ALL", &lead(&["az:c"]))?;
    }
    wait("n3 leads", || trio.leader(0, "ALL").ok().filter(|leader| *leader == 2))?;
    let nobody = "no replacement peer connected";
    refused(&mut js, "STREAM.LEADER.STEPDOWN.ALL", &lead(&["az:c"]), (10005, nobody))?;
    drop(trio);
    let trio = tagged(target, "jetstream { unique_tag: \"az\" }")?;
    let mut js = open(&trio.servers[1])?;
    create(target, &mut js, &replicated("ALL", 3))?;
    drop(trio);
    let trio = tagged(target, "jetstream { unique_tag: \"rack\" }")?;
    let mut js = open(&trio.servers[1])?;
    let unique = none(", server tag not unique");
    refused(&mut js, "STREAM.CREATE.ONE", &replicated("ONE", 1), (10005, &unique))
}

/// Creates a stream. A `nats-server` may be asked before it has heard of the others' tags.
fn create(target: &Target, js: &mut Js, config: &Value) -> Flow {
    let verb = format!("STREAM.CREATE.{}", config["name"].as_str().unwrap_or_default());
    if target.name == "headwater" {
        return api(js, &verb, config).map(drop);
    }
    let answer = wait(&format!("{config} has servers"), || {
        let answer = js.api(&verb, config).ok()?;
        (answer["error"]["err_code"] != 10005).then_some(answer)
    })?;
    want(answer.get("error").is_none(), || format!("{config}: {answer}"))
}

/// Messages with numbers. On a `nats-server` nobody may listen for a moment after a stream was created or has moved.
fn fill(target: &Target, js: &mut Js, subject: &str, count: u32) -> Flow {
    for number in 0..count {
        let mut take = || js.request(subject, number.to_string().as_bytes());
        let ack = match target.name {
            "headwater" => take()?,
            _ => wait("somebody listens", || take().ok().filter(|ack| !ack.payload.is_empty()))?,
        };
        let ack: Value = serde_json::from_slice(&ack.payload)?;
        want(ack["seq"].is_u64(), || format!("{subject} {number}: {ack}"))?;
    }
    Ok(())
}

fn moves(target: &Target) -> Flow {
    let mut trio = tagged(target, "")?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &placed("ONE", 1, &["az:c"]))?;
    fill(target, &mut js, "one", 200)?;
    let consumer =
        json!({ "stream_name": "ONE", "config": { "durable_name": "C", "ack_policy": "explicit" } });
    api(&mut js, "CONSUMER.DURABLE.CREATE.ONE.C", &consumer)?;
    for (tag, name) in [("az:b", "n2"), ("az:a", "n1"), ("az:c", "n3")] {
        // A `nats-server` takes a while until it knows that the last move is over.
        wait("a move begins", || {
            let answer = js.api("STREAM.UPDATE.ONE", &placed("ONE", 1, &[tag])).ok()?;
            (answer["error"]["err_code"] != 10124).then_some(answer)
        })
        .and_then(|answer| want(answer.get("error").is_none(), || format!("{answer}")))?;
        wait(&format!("ONE is on {name}"), || servers_of(&mut js, "ONE").filter(|names| names == &[name]))?;
        arrived(target, &mut js, "ONE", 200)?;
    }
    let info = api(&mut js, "CONSUMER.INFO.ONE.C", &json!({}))?;
    want(info["num_pending"] == 200 && info["cluster"]["leader"] == "n3", || format!("{info}"))?;
    // What came back to a server that had it before survives there.
    trio.servers[2].kill9()?;
    trio.await_health()?;
    wait("ONE is on n3", || servers_of(&mut js, "ONE").filter(|names| names == &["n3"]))?;
    arrived(target, &mut js, "ONE", 200)?;
    let mut operator = trio.operator(1)?;
    let verb = "ACCOUNT.STREAM.MOVE.A.ONE";
    let no_server = "server is not a member of the cluster";
    refused(&mut operator, verb, &json!({ "server": "nope" }), (10044, no_server))?;
    refused(&mut operator, verb, &json!({ "server": "n1" }), (10040, "peer not a member"))?;
    refused(&mut operator, "ACCOUNT.STREAM.MOVE.A.NOPE", &json!({}), (10059, "stream not found"))?;
    wait("it may be anywhere", || {
        let answer = js.api("STREAM.UPDATE.ONE", &replicated("ONE", 1)).ok()?;
        answer.get("error").is_none().then_some(())
    })?;
    let answer = wait("it moves", || {
        let answer = operator.api(verb, &json!({ "server": "n3" })).ok()?;
        (answer["error"]["err_code"] != 10124).then_some(answer)
    })?;
    let kind = "io.nats.jetstream.api.v1.stream_update_response";
    want(answer["type"] == kind && answer["config"]["name"] == "ONE", || format!("{answer}"))?;
    wait("ONE is elsewhere", || servers_of(&mut js, "ONE").filter(|names| names != &["n3"]))?;
    arrived(target, &mut js, "ONE", 200)?;
    fill(target, &mut js, "one", 1)
}

fn evacuated(target: &Target) -> Flow {
    let trio = tagged(target, "")?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &replicated("ALL", 3))?;
    create(target, &mut js, &replicated("ONE", 1))?;
    fill(target, &mut js, "one", 50)?;
    fill(target, &mut js, "all", 50)?;
    let at = trio.leader(0, "ONE")?;
    let name = format!("n{}", at + 1);
    refused(&mut js, "STREAM.PEER.EVACUATE.ALL", &json!({ "peer": "nope" }), (10040, "peer not a member"))?;
    refused(&mut js, "STREAM.PEER.EVACUATE.ALL", &json!({ "peer": name }), (10075, "peer remap failed"))?;
    let mut operator = trio.operator(0)?;
    refused(&mut operator, "SERVER.EVACUATE", &json!({}), (10003, "bad request"))?;
    let answer = api(&mut operator, "SERVER.EVACUATE", &json!({ "peer": name }))?;
    want(answer["success"] == true, || format!("{answer}"))?;
    wait("ONE has moved", || servers_of(&mut js, "ONE").filter(|names| names[0] != name))?;
    wait("ALL has two", || servers_of(&mut js, "ALL").filter(|all| all.len() == 2 && !all.contains(&name)))?;
    arrived(target, &mut js, "ONE", 50)?;
    arrived(target, &mut js, "ALL", 50)
}

/// Backups by the tool, from a server that does not lead, into streams with one and with three replicas.
fn backups(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    for (name, replicas) in [("ONE", 1), ("ALL", 3)] {
        create(target, &mut js, &replicated(name, replicas))?;
        fill(target, &mut js, &name.to_lowercase(), 300)?;
        let consumer =
            json!({ "stream_name": name, "config": { "durable_name": "C", "ack_policy": "explicit" } });
        api(&mut js, &format!("CONSUMER.DURABLE.CREATE.{name}.C"), &consumer)?;
        let elsewhere = (trio.leader(0, name)? + 1) % 3;
        let folder = trio.servers[0].dir().join(name).display().to_string();
        trio.nats(elsewhere, "a", &["stream", "backup", name, &folder, "--no-progress"])?;
        api(&mut js, &format!("STREAM.DELETE.{name}"), &json!({}))?;
        trio.nats((elsewhere + 1) % 3, "a", &["stream", "restore", &folder, "--no-progress"])?;
        let names =
            wait("its servers", || servers_of(&mut js, name).filter(|names| names.len() == replicas))?;
        arrived(target, &mut js, name, 300)?;
        wait(&format!("300 wait on {names:?}"), || {
            let info = js.api(&format!("CONSUMER.INFO.{name}.C"), &json!({})).ok()?;
            (info["num_pending"] == 300).then_some(())
        })?;
        fill(target, &mut js, &name.to_lowercase(), 1)?;
    }
    Ok(())
}

/// A mirror and sources whose origins have no replica where the copies are led.
fn copies(target: &Target) -> Flow {
    let mut trio = tagged(target, "")?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &placed("ONE", 1, &["az:a"]))?;
    create(target, &mut js, &placed("TWO", 1, &["az:b"]))?;
    fill(target, &mut js, "one", 600)?;
    fill(target, &mut js, "two", 100)?;
    let copy = |name: &str, what: &str, origins: Value| {
        let mut config = placed(name, 1, &["az:c"]);
        config["subjects"] = json!([]);
        config[what] = origins;
        config
    };
    let source = |name: &str| json!({ "name": name });
    let (one, two) = (source("ONE"), source("TWO"));
    create(target, &mut js, &copy("MIRROR", "mirror", one.clone()))?;
    create(target, &mut js, &copy("BOTH", "sources", json!([one, two])))?;
    let has = |js: &mut Js, name: &str, count: u64| {
        let info = js.api(&format!("STREAM.INFO.{name}"), &json!({})).ok()?;
        (info["state"]["messages"] == count && info["cluster"]["leader"] == "n3").then_some(())
    };
    wait("the mirror has all", || has(&mut js, "MIRROR", 600))?;
    arrived(target, &mut js, "MIRROR", 600)?;
    wait("both are there", || has(&mut js, "BOTH", 700))?;
    fill(target, &mut js, "one", 1)?;
    fill(target, &mut js, "two", 1)?;
    wait("the mirror has one more", || has(&mut js, "MIRROR", 601))?;
    wait("both have one more", || has(&mut js, "BOTH", 702))?;
    // Origin and copy go on where they were.
    trio.servers[2].kill9()?;
    trio.servers[1].restart()?;
    trio.await_health()?;
    let mut js = open(&trio.servers[0])?;
    fill(target, &mut js, "one", 1)?;
    fill(target, &mut js, "two", 1)?;
    wait("the mirror goes on", || has(&mut js, "MIRROR", 602))?;
    wait("both go on", || has(&mut js, "BOTH", 704))
}

fn removed(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.ALL", &replicated("ALL", 3))?;
    fill(target, &mut open(&trio.servers[0])?, "all", 50)?;
    let leader = trio.meta_leader(0)?;
    let (name, other) = (format!("n{}", leader + 1), (leader + 1) % 3);
    let answer = api(&mut trio.operator(leader)?, "SERVER.REMOVE", &json!({ "peer": name }))?;
    want(answer["success"] == true, || format!("{answer}"))?;
    let size =
        |trio: &Trio, at: usize| page(&trio.servers[at], "/jsz")?["meta_cluster"]["cluster_size"].as_u64();
    wait("two are left", || size(&trio, other).filter(|size| *size == 2))?;
    let mut js = open(&trio.servers[other])?;
    wait("ALL has two", || servers_of(&mut js, "ALL").filter(|all| all.len() == 2 && !all.contains(&name)))?;
    filled(&mut js, "ALL", 50)?;
    // With the store that it had it stays outside, also when it is started again.
    trio.servers[leader].restart()?;
    let ack: Value = serde_json::from_slice(&js.request("all", b"50")?.payload)?;
    want(ack["seq"] == 51, || format!("the next one: {ack}"))?;
    want(size(&trio, other) == Some(2), || "it is back".to_owned())?;
    // With a new store it is another one, and what has too few servers has it from then on.
    trio.servers[leader].kill();
    std::fs::remove_dir_all(trio.servers[leader].dir().join("store")).map_err(|error| error.to_string())?;
    trio.servers[leader].start_again()?;
    wait("ALL has three", || servers_of(&mut js, "ALL").filter(|all| all.len() == 3 && all.contains(&name)))?;
    filled(&mut js, "ALL", 51)
}

fn unknown(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &replicated("ALL", 3))?;
    let text = "invalid JSON: json: unknown field \"foo\"";
    let (outer, inner) = (json!({ "foo": 1 }), json!({ "placement": { "foo": 1 } }));
    for body in [&outer, &inner] {
        refused(&mut js, "STREAM.LEADER.STEPDOWN.ALL", body, (10025, text))?;
        refused(&mut trio.operator(1)?, "META.LEADER.STEPDOWN", body, (10025, text))?;
    }
    refused(&mut trio.operator(1)?, "SERVER.REMOVE", &outer, (10025, text))?;
    refused(&mut trio.operator(1)?, "ACCOUNT.STREAM.MOVE.A.ALL", &outer, (10025, text))
}

/// What was acknowledged is there, though the cluster's own log comes back later than what was stored.
fn killed(target: &Target) -> Flow {
    let mut trio = Trio::start(target)?;
    let mut js = open(&trio.servers[0])?;
    for (name, replicas) in [("ONE", 1), ("TWO", 1), ("THREE", 1), ("ALL", 3)] {
        create(target, &mut js, &replicated(name, replicas))?;
        fill(target, &mut js, &name.to_lowercase(), 100)?;
    }
    trio.servers.iter_mut().for_each(hw_testkit::Server::kill);
    // One alone knows of nothing, and keeps it when it ends in order.
    trio.servers[0].start_again()?;
    trio.servers[0].stop()?;
    for server in &mut trio.servers {
        server.begin_start()?;
    }
    trio.await_health()?;
    let mut js = open(&trio.servers[1])?;
    for name in ["ONE", "TWO", "THREE", "ALL"] {
        wait(&format!("{name} is led"), || servers_of(&mut js, name))?;
        filled(&mut js, name, 100)?;
    }
    Ok(())
}

/// The commands of our binary, which are those of the `nats` tool.
fn tool(target: &Target) -> Flow {
    let trio = Trio::start(target)?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.ONE", &replicated("ONE", 1))?;
    let say = |user: &str, arguments: &[&str]| {
        let url = format!("nats://{user}:{user}@127.0.0.1:{}", trio.servers[0].port());
        let mut command = std::process::Command::new(target.binary.clone()?);
        command.args(["--server", &url, "--no-context"]).args(arguments).env("HOME", trio.servers[0].dir());
        run(&mut command)
    };
    let said = say("sys", &["server", "request", "raft", "3"])?;
    want(said.contains("_meta_"), || said.clone())?;
    let before = trio.meta_leader(0)?;
    say("sys", &["server", "raft", "step-down"])?;
    wait("another leader of all", || trio.meta_leader(0).ok().filter(|leader| *leader != before))?;
    let mut js = open(&trio.servers[0])?;
    let name = |trio: &Trio| Ok::<String, Fault>(format!("n{}", trio.leader(0, "ONE")? + 1));
    let first = name(&trio)?;
    say("a", &["stream", "cluster", "evacuate", "ONE", &first])?;
    wait("ONE has moved", || servers_of(&mut js, "ONE").filter(|names| names[0] != first))?;
    let second = name(&trio)?;
    // The real tool asks who leads first.
    trio.nats(0, "sys", &["server", "cluster", "evacuate", &first, "--force"])?;
    say("sys", &["server", "cluster", "evacuate", &second, "--force"])?;
    wait("ONE has moved again", || servers_of(&mut js, "ONE").filter(|names| names[0] != second)).map(drop)
}

fn overrun(target: &Target) -> Flow {
    let limits = |_| "jetstream { max_buffered_size: 64KB, max_buffered_msgs: 100 }".to_owned();
    let trio = Trio::start_with(target, 3, limits)?;
    let mut js = open(&trio.servers[0])?;
    create(target, &mut js, &replicated("ALL", 3))?;
    let at = trio.leader(0, "ALL")?;
    let mut js = open(&trio.servers[at])?;
    js.set_patience(Duration::from_secs(10));
    for other in (0..3).filter(|other| *other != at) {
        trio.servers[other].signal("STOP")?;
    }
    let inbox = js.inbox();
    for number in 0..300 {
        js.publish("all", &inbox, format!("{number}").as_bytes())?;
    }
    let answer = js.frame("a refusal")?;
    for other in (0..3).filter(|other| *other != at) {
        trio.servers[other].signal("CONT")?;
    }
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    want(answer["error"]["err_code"] == 10167, || format!("{answer}"))
}
