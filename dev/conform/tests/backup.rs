//! Streams move between servers in backups that the `nats` tool takes and restores: from ours to ours, from ours to
//! `nats-server` and back. What arrives is compared with what was there, message by message and consumer by consumer.
//!
//! `NATS_CLI` names the nats tool.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use hw_conform::{Case, Cases, Js, Lost, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

/// How a case is run: on which servers, with which tool.
type Run = fn(&Path, &Path, &Path) -> Result<(), String>;

fn main() -> ExitCode {
    let all = targets();
    let mut cases = Vec::new();
    for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        cases.push(case(&all[from], &all[to], "everything arrives", everything_arrives));
    }
    cases.push(case(&all[0], &all[0], "a large stream arrives", a_large_stream_arrives));
    cases.push(case(&all[1], &all[0], "damage is refused", damage_is_refused));
    cases.push(case(&all[0], &all[0], "damage is refused", damage_is_refused));
    cases.push(case(&all[1], &all[0], "killed while it restores", killed_while_it_restores));
    run_all(Cases { cases, threads: 2 })
}

fn case(from: &Target, to: &Target, what: &str, run: Run) -> Case {
    let name = format!("{} to {}: {what}", from.name, to.name);
    let (from, to) = (from.binary.clone(), to.binary.clone());
    let tool = env::var_os("NATS_CLI").map(PathBuf::from).filter(|path| path.is_file());
    let run = move || match (&from, &to, &tool) {
        (Err(why), ..) | (_, Err(why), _) => Outcome::Skipped(why.clone()),
        (.., None) => Outcome::Skipped("NATS_CLI names no file".to_owned()),
        (Ok(from), Ok(to), Some(tool)) => run(from, to, tool).into(),
    };
    Case { name, run: Box::new(run) }
}

fn start(binary: &Path) -> Result<Server, String> {
    let launch = Launch { binary: binary.to_owned(), flags: vec!["-js".to_owned()], config: None };
    Server::start(launch).map_err(|error| error.to_string())
}

fn open(server: &Server) -> Result<Js, String> {
    Js::open(server.port()).map_err(text)
}

fn text(lost: Lost) -> String {
    lost.to_string()
}

/// Runs the nats tool; its output is part of the error.
fn nats(tool: &Path, server: &Server, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool)
        .args(["--server", &server.url()])
        .args(arguments)
        .current_dir(server.dir())
        .env("HOME", server.dir())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", tool.display()))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("nats {}: {said}", arguments.join(" "))) }
}

fn api(js: &mut Js, verb: &str, body: &Value) -> Result<Value, String> {
    let answer = js.api(verb, body).map_err(text)?;
    if answer.get("error").is_some() { Err(format!("{verb} {body}: {answer}")) } else { Ok(answer) }
}

/// Publishes and wants an acknowledgement.
fn publish(js: &mut Js, subject: &str, headers: &str, payload: &[u8]) -> Result<(), String> {
    let reply = js.inbox();
    match headers {
        "" => js.publish(subject, &reply, payload),
        headers => js.publish_headed(subject, &reply, headers, payload),
    }
    .map_err(text)?;
    let frame = js.frame(subject).map_err(text)?;
    let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
    if ack["seq"].is_u64() { Ok(()) } else { Err(format!("{subject}: {frame:?}")) }
}

/// Streams of every kind, with gaps, headers and consumers in the middle of their work.
fn fill(js: &mut Js, tool: &Path, server: &Server) -> Result<(), String> {
    for config in [
        json!({"name": "LIMITS", "subjects": ["l.>"], "description": "a < b", "max_msgs": 40, "first_seq": 1000}),
        json!({"name": "WORK", "subjects": ["w.>"], "retention": "workqueue"}),
        json!({"name": "INTEREST", "subjects": ["i.>"], "retention": "interest"}),
        json!({"name": "MEMORY", "subjects": ["m.>"], "storage": "memory", "compression": "s2"}),
        json!({"name": "EMPTY", "subjects": ["e.>"]}),
        json!({"name": "PURGED", "subjects": ["p.>"]}),
        json!({"name": "TTL", "subjects": ["t.>"], "allow_msg_ttl": true, "max_age": 3_600_000_000_000_u64}),
        json!({"name": "COUNTER", "subjects": ["c.>"], "allow_msg_counter": true}),
    ] {
        let name = config["name"].as_str().unwrap_or_default().to_owned();
        api(js, &format!("STREAM.CREATE.{name}"), &config)?;
    }
    for number in 0..60 {
        let headers =
            if number % 3 == 0 { format!("Nats-Msg-Id: id{number}\r\nA: {number}") } else { String::new() };
        publish(js, &format!("l.{}", number % 7), &headers, format!("limits {number}").as_bytes())?;
        publish(js, &format!("m.{number}"), &headers, &[number; 300])?;
    }
    for seq in [1030, 1031, 1032, 1040, 1058, 1059] {
        api(js, "STREAM.MSG.DELETE.LIMITS", &json!({ "seq": seq }))?;
    }
    for number in 0..20 {
        publish(js, "w.job", "", format!("job {number}").as_bytes())?;
        publish(js, "p.x", "", b"gone")?;
        publish(js, "t.x", if number % 2 == 0 { "Nats-TTL: 1h" } else { "Nats-TTL: never" }, b"ttl")?;
        publish(js, "c.x", "Nats-Incr: +2", b"")?;
    }
    api(js, "STREAM.PURGE.PURGED", &Value::Null)?;
    for (stream, name, more) in [
        ("WORK", "WORKER", json!({"max_deliver": 9, "ack_wait": 3_600_000_000_000_u64})),
        ("LIMITS", "FILTERED", json!({"filter_subject": "l.3", "deliver_policy": "last"})),
        ("LIMITS", "PUSH", json!({"deliver_subject": "to.me", "ack_policy": "all"})),
        ("INTEREST", "A", json!({})),
        ("INTEREST", "B", json!({})),
    ] {
        let mut config = json!({"durable_name": name, "name": name, "ack_policy": "explicit"});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let body = json!({"stream_name": stream, "config": config});
        api(js, &format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &body)?;
    }
    for number in 0..10 {
        publish(js, "i.x", "", format!("interest {number}").as_bytes())?;
    }
    work(js, "WORK", "WORKER", 12, |at| at % 2 == 0)?;
    work(js, "INTEREST", "A", 5, |_| true)?;
    work(js, "INTEREST", "B", 3, |at| at == 0)?;
    nats(tool, server, &["kv", "add", "KV", "--history", "3"])?;
    for number in 0..20 {
        nats(tool, server, &["kv", "put", "KV", &format!("key{}", number % 4), &format!("value {number}")])?;
    }
    nats(tool, server, &["kv", "del", "KV", "key1", "--force"])?;
    nats(tool, server, &["object", "add", "OBJECTS"])?;
    let file = server.dir().join("object.bin");
    let bytes: Vec<u8> = (0..400_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, bytes).map_err(|error| error.to_string())?;
    nats(tool, server, &["object", "put", "OBJECTS", "object.bin", "--force", "--no-progress"]).map(drop)
}

/// Takes messages of a consumer and acknowledges those that `done` names; one is asked for again.
fn work(
    js: &mut Js,
    stream: &str,
    consumer: &str,
    batch: u64,
    done: fn(usize) -> bool,
) -> Result<(), String> {
    let request = json!({"batch": batch, "expires": 2_000_000_000_u64});
    let messages = js.pull(stream, consumer, &request).map_err(text)?;
    if messages.len() as u64 != batch {
        return Err(format!("{stream}: {} of {batch} messages came", messages.len()));
    }
    for (at, message) in messages.iter().enumerate() {
        let verdict: &[u8] = match at {
            at if done(at) => b"+ACK",
            7 => b"-NAK",
            _ => continue,
        };
        if verdict == b"+ACK" {
            js.request(&message.reply, verdict).map_err(text)?;
        } else {
            js.publish(&message.reply, "", verdict).map_err(text)?;
            let again = js.pull(stream, consumer, &json!({"batch": 1, "expires": 2_000_000_000_u64}));
            again.map_err(text)?;
        }
    }
    Ok(())
}

/// A stream's state that a backup has to bring over.
fn picture(js: &mut Js, stream: &str) -> Result<Value, String> {
    let mut info = api(js, &format!("STREAM.INFO.{stream}"), &json!({"deleted_details": true}))?;
    let config = info["config"].take();
    let mut state = info["state"].take();
    let (first, last) = (state["first_seq"].as_u64().unwrap_or(0), state["last_seq"].as_u64().unwrap_or(0));
    if state["messages"] == 0 {
        state["last_ts"] = Value::Null;
        // Servers describe a stream that never had a message in two ways.
        for name in ["first_seq", "deleted", "num_deleted"].iter().filter(|_| last == 0) {
            state[name] = Value::Null;
        }
    }
    let mut messages = Vec::new();
    for seq in first.max(1)..=last {
        let answer = js.api(&format!("STREAM.MSG.GET.{stream}"), &json!({"seq": seq})).map_err(text)?;
        messages.push(answer["message"].clone());
    }
    if messages.last().is_some_and(Value::is_null) {
        // The real server does not say any more when a deleted last message was stored.
        state["last_ts"] = Value::Null;
    }
    let list = api(js, &format!("CONSUMER.LIST.{stream}"), &Value::Null)?;
    let consumers = list["consumers"].as_array().into_iter().flatten().map(|info| {
        let place = |name: &str| [&info[name]["consumer_seq"], &info[name]["stream_seq"]].map(Value::clone);
        json!({
            "config": plain(info["config"].clone()), "delivered": place("delivered"), "ack_floor": place("ack_floor"),
            "pending": info["num_pending"], "ack_pending": info["num_ack_pending"], "again": info["num_redelivered"],
        })
    });
    let consumers: Vec<Value> = consumers.collect();
    Ok(json!({"config": plain(config), "state": state, "messages": messages, "consumers": consumers}))
}

/// A configuration without what the server adds.
fn plain(mut config: Value) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.remove("metadata");
        fields.remove("num_replicas");
    }
    config
}

fn pictures(js: &mut Js, streams: &[String]) -> Result<Vec<Value>, String> {
    streams.iter().map(|stream| picture(js, stream)).collect()
}

fn compare(when: &str, streams: &[String], before: &[Value], after: &[Value]) -> Result<(), String> {
    for (stream, (before, after)) in streams.iter().zip(before.iter().zip(after)) {
        for part in ["config", "state", "messages", "consumers"] {
            if before[part] != after[part] {
                let (before, after) = (&before[part], &after[part]);
                return Err(format!("{when}, {part} of {stream}:\nbefore {before}\nafter  {after}"));
            }
        }
    }
    Ok(())
}

fn names(js: &mut Js) -> Result<Vec<String>, String> {
    let answer = api(js, "STREAM.NAMES", &Value::Null)?;
    let names = answer["streams"].as_array().into_iter().flatten();
    Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

fn everything_arrives(from: &Path, to: &Path, tool: &Path) -> Result<(), String> {
    let (source, mut target) = (start(from)?, start(to)?);
    let (mut js, mut arrived) = (open(&source)?, open(&target)?);
    fill(&mut js, tool, &source)?;
    let streams = names(&mut js)?;
    let before = pictures(&mut js, &streams)?;
    let folder = source.dir().join("backups");
    std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
    for stream in &streams {
        let path = folder.join(stream).display().to_string();
        nats(tool, &source, &["backup", "stream", stream, &path, "--consumers", "--no-progress"])?;
        nats(tool, &target, &["backup", "restore", "stream", &path, "--no-progress"])?;
    }
    compare("restored", &streams, &before, &pictures(&mut arrived, &streams)?)?;
    go_on(&mut arrived)?;
    if is_ours(to) {
        ids_are_known(&mut arrived)?;
    }
    let before = pictures(&mut arrived, &streams)?;
    if is_ours(to) {
        // What is in memory does not survive.
        let kept = |stream: &String| stream != "MEMORY";
        target.kill9().map_err(|error| error.to_string())?;
        target.restart().map_err(|error| error.to_string())?;
        let mut js = open(&target)?;
        let streams: Vec<String> = streams.iter().filter(|stream| kept(stream)).cloned().collect();
        let before: Vec<Value> =
            before.into_iter().filter(|picture| picture["config"]["storage"] == "file").collect();
        compare("restarted", &streams, &before, &pictures(&mut js, &streams)?)?;
    }
    let got = target.dir().join("got");
    let got = got.display().to_string();
    nats(
        tool,
        &target,
        &["object", "get", "OBJECTS", "object.bin", "--output", &got, "--force", "--no-progress"],
    )?;
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    if read(&source.dir().join("object.bin"))? != read(Path::new(&got))? {
        return Err("the object is another one".to_owned());
    }
    let value = nats(tool, &target, &["kv", "get", "KV", "key3", "--raw"])?;
    if value.trim() == "value 19" { Ok(()) } else { Err(format!("key3 is {value:?}")) }
}

fn is_ours(binary: &Path) -> bool {
    binary.file_stem().is_some_and(|name| name == "headwater")
}

/// The restored consumers and streams do their work.
fn go_on(js: &mut Js) -> Result<(), String> {
    let rest = js.pull("WORK", "WORKER", &json!({"batch": 20, "no_wait": true})).map_err(text)?;
    let seqs: Vec<u64> = rest.iter().map(|message| message.seq).collect();
    // The 13th may have been delivered instead of the one that was asked for again.
    if !(14..=20).all(|seq| seqs.contains(&seq)) {
        return Err(format!("the worker got {seqs:?}, not 14 to 20"));
    }
    publish(js, "w.job", "", b"one more")?;
    publish(js, "l.1", "", b"one more")?;
    publish(js, "c.x", "Nats-Incr: +2", b"")?;
    let count = api(js, "STREAM.MSG.GET.COUNTER", &json!({"last_by_subj": "c.x"}))?;
    // {"val":"42"}
    if count["message"]["data"] != "eyJ2YWwiOiI0MiJ9" {
        return Err(format!("the counter went on as {count}"));
    }
    Ok(())
}

/// A publisher that tries again what it sent before the backup is not stored twice.
fn ids_are_known(js: &mut Js) -> Result<(), String> {
    let known = js.inbox();
    js.publish_headed("l.1", &known, "Nats-Msg-Id: id57", b"again").map_err(text)?;
    let frame = js.frame("a message that was there").map_err(text)?;
    let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
    if ack["duplicate"] == true { Ok(()) } else { Err(format!("id57 is not known any more: {ack}")) }
}

/// Several pieces, blocks that are on disk only, pieces that wait for acknowledgements.
fn a_large_stream_arrives(from: &Path, to: &Path, tool: &Path) -> Result<(), String> {
    let config = Some("jetstream { checkpoint_bytes: 1MB }".to_owned());
    let launch = |binary: &Path| Launch {
        binary: binary.to_owned(),
        flags: vec!["-js".to_owned()],
        config: config.clone(),
    };
    let source = Server::start(launch(from)).map_err(|error| error.to_string())?;
    let target = Server::start(launch(to)).map_err(|error| error.to_string())?;
    let (mut js, mut arrived) = (open(&source)?, open(&target)?);
    api(
        &mut js,
        "STREAM.CREATE.BIG",
        &json!({"name": "BIG", "subjects": ["b.>"], "max_msgs_per_subject": 3}),
    )?;
    let count = 3000_u64;
    let mut random = 1_u64;
    for number in 0..count {
        let payload: Vec<u8> = (0..5000)
            .map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .collect();
        js.publish(&format!("b.{}", number % 900), "", &payload).map_err(text)?;
    }
    js.request("b.0", b"last").map_err(text)?;
    let path = source.dir().join("backup").display().to_string();
    let sizes = ["--chunk-size", "65536", "--window-size", "262144"];
    let arguments = ["backup", "stream", "BIG", &path, "--no-progress"];
    nats(tool, &source, &[&arguments[..], &sizes[..]].concat())?;
    nats(tool, &target, &["backup", "restore", "stream", &path, "--no-progress"])?;
    let streams = vec!["BIG".to_owned()];
    compare("restored", &streams, &pictures(&mut js, &streams)?, &pictures(&mut arrived, &streams)?)
}

/// A stream and its backup's archive.
fn small_backup(from: &Path, tool: &Path) -> Result<(Server, PathBuf), String> {
    let source = start(from)?;
    let mut js = open(&source)?;
    api(&mut js, "STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]}))?;
    for number in 0..500 {
        publish(&mut js, &format!("s.{number}"), "", format!("message {number}").as_bytes())?;
    }
    let folder = source.dir().join("backup");
    nats(tool, &source, &["backup", "stream", "S", &folder.display().to_string(), "--no-progress"])?;
    Ok((source, folder.join("stream.arc.s2")))
}

fn damage_is_refused(from: &Path, to: &Path, tool: &Path) -> Result<(), String> {
    let ((source, archive), target) = (small_backup(from, tool)?, start(to)?);
    let mut js = open(&target)?;
    let sound = std::fs::read(&archive).map_err(|error| error.to_string())?;
    let folder = source.dir().join("backup").display().to_string();
    let mut variants: Vec<Vec<u8>> =
        [1, 12, sound.len() / 2, sound.len() - 1].map(|cut| sound[..cut].to_vec()).into();
    for at in (4..sound.len()).step_by(sound.len() / 10) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        variants.push(bytes);
    }
    for (number, bytes) in variants.into_iter().enumerate() {
        std::fs::write(&archive, bytes).map_err(|error| error.to_string())?;
        if let Ok(said) = nats(tool, &target, &["backup", "restore", "stream", &folder, "--no-progress"]) {
            return Err(format!("variant {number} was taken: {said}"));
        }
        if names(&mut js)? != Vec::<String>::new() {
            return Err(format!("something is left of variant {number}"));
        }
    }
    std::fs::write(&archive, sound).map_err(|error| error.to_string())?;
    nats(tool, &target, &["backup", "restore", "stream", &folder, "--no-progress"])?;
    let info = api(&mut js, "STREAM.INFO.S", &Value::Null)?;
    if info["state"]["messages"] == 500 { Ok(()) } else { Err(format!("after all that: {info}")) }
}

/// The server dies after some pieces, at each of several places: nothing is left, and the whole can come again.
fn killed_while_it_restores(from: &Path, to: &Path, tool: &Path) -> Result<(), String> {
    let (_source, archive) = small_backup(from, tool)?;
    let archive = std::fs::read(&archive).map_err(|error| error.to_string())?;
    let config = Some("jetstream { checkpoint_bytes: 4KB }".to_owned());
    let launch = Launch { binary: to.to_owned(), flags: vec!["-js".to_owned()], config };
    let mut target = Server::start(launch).map_err(|error| error.to_string())?;
    let begin = |js: &mut Js| {
        let body = json!({"config": {"name": "S", "subjects": ["s.>"]}, "state": {}});
        let answer = api(js, "STREAM.RESTORE.S", &body)?;
        Ok::<String, String>(answer["deliver_subject"].as_str().unwrap_or_default().to_owned())
    };
    let pieces: Vec<&[u8]> = archive.chunks(archive.len() / 4 + 1).collect();
    for sent in 0..=pieces.len() {
        let mut js = open(&target)?;
        let to = begin(&mut js)?;
        for piece in &pieces[..sent] {
            js.request(&to, piece).map_err(text)?;
        }
        target.kill9().map_err(|error| error.to_string())?;
        target.restart().map_err(|error| error.to_string())?;
        let mut js = open(&target)?;
        if names(&mut js)? != Vec::<String>::new() {
            return Err(format!("something is left after {sent} pieces"));
        }
    }
    let mut js = open(&target)?;
    let to = begin(&mut js)?;
    for piece in pieces.iter().chain([&&b""[..]].iter().copied()) {
        js.request(&to, piece).map_err(text)?;
    }
    target.kill9().map_err(|error| error.to_string())?;
    target.restart().map_err(|error| error.to_string())?;
    let info = api(&mut open(&target)?, "STREAM.INFO.S", &Value::Null)?;
    if info["state"]["messages"] == 500 {
        Ok(())
    } else {
        Err(format!("what was acknowledged is not there: {info}"))
    }
}
