//! Bytes that no client would send, and configurations that nobody should write: the server lives, does not panic, keeps
//! its data, and says what is wrong.
//!
//! `HEADWATER_HOSTILE_ROUNDS` says how many random connections (default 300), `HEADWATER_HOSTILE_SEED` repeats a run.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use hw_conform::{Case, Cases, Dice, Js, Lost, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server, TempDir};
use serde_json::{Value, json};

type Attack = fn(&mut Server, &mut Dice) -> Result<(), String>;

fn main() -> ExitCode {
    let attacks: [(&str, Attack); 4] = [
        ("lines", |server, _| lines(server)),
        ("random bytes", random),
        ("api requests", |server, _| api(server)),
        ("headers and acknowledgements", |server, _| headers(server)),
    ];
    let mut cases = Vec::new();
    for target in targets() {
        cases.extend(attacks.iter().map(|(name, attack)| attack_case(target.clone(), name, *attack)));
        cases.push(config_case(target));
    }
    run_all(Cases { cases, threads: 2 })
}

fn attack_case(target: Target, name: &str, attack: Attack) -> Case {
    let run = move || match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => survive(binary, attack).into(),
    };
    Case { name: format!("{}: hostile {name}", target.name), run: Box::new(run) }
}

fn config_case(target: Target) -> Case {
    let name = format!("{}: broken configurations", target.name);
    let run = move || match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let wrong: Vec<String> =
                CONFIGS.iter().filter_map(|config| refused(binary, config).err()).collect();
            if wrong.is_empty() { Outcome::Passed } else { Outcome::Failed(wrong.join("\n")) }
        }
    };
    Case { name, run: Box::new(run) }
}

const STORED: u64 = 20;

fn survive(binary: &Path, attack: Attack) -> Result<(), String> {
    let launch = Launch { binary: binary.to_owned(), flags: vec!["-js".to_owned()], config: None };
    let mut server = Server::start(launch).map_err(|error| error.to_string())?;
    prepare(server.port()).map_err(|error| error.to_string())?;
    attack(&mut server, &mut Dice::from_env("HEADWATER_HOSTILE_SEED"))?;
    alive(&server, "the end")?;
    server.restart().map_err(|error| error.to_string())?;
    alive(&server, "a restart")
}

fn prepare(port: u16) -> Result<(), Lost> {
    let mut js = Js::open(port)?;
    let config = json!({ "name": "KEEP", "subjects": ["keep.>"], "storage": "file", "allow_direct": true,
        "allow_msg_ttl": true, "deny_delete": true, "deny_purge": true });
    js.api("STREAM.CREATE.KEEP", &config)?;
    for n in 0..STORED {
        js.request("keep.x", n.to_string().as_bytes())?;
    }
    let consumer =
        json!({ "stream_name": "KEEP", "config": { "durable_name": "C", "ack_policy": "explicit" } });
    js.api("CONSUMER.DURABLE.CREATE.KEEP.C", &consumer)?;
    Ok(())
}

/// The server answers, its log has no panic, and what was stored is there.
fn alive(server: &Server, after: &str) -> Result<(), String> {
    let fail = |what: String| Err(format!("after {after}: {what}"));
    if server.log().contains("panicked") || server.log().contains("goroutine ") {
        return fail(format!("it panicked\n{}", server.log()));
    }
    match kept(server.port()) {
        Err(error) => fail(error.to_string()),
        Ok(None) => Ok(()),
        Ok(Some(wrong)) => fail(wrong),
    }
}

/// What is wrong with the messages that were stored at the start. Those behind them may be anything that both servers
/// store, headers that no client can read among them.
fn kept(port: u16) -> Result<Option<String>, Lost> {
    let mut js = Js::open(port)?;
    for n in 0..STORED {
        let body = json!({ "seq": n + 1 }).to_string();
        let message = js.request("$JS.API.DIRECT.GET.KEEP", body.as_bytes())?;
        if message.payload != n.to_string().as_bytes() {
            return Ok(Some(format!("sequence {} is {message}", n + 1)));
        }
    }
    let request = json!({ "stream_name": "KEEP", "config": { "name": "alive", "ack_policy": "none",
        "filter_subject": "keep.x", "mem_storage": true } });
    js.api("CONSUMER.CREATE.KEEP.alive.keep.x", &request)?;
    let pulled = js.pull("KEEP", "alive", &json!({ "batch": STORED, "no_wait": true }))?;
    js.api("CONSUMER.DELETE.KEEP.alive", &Value::Null)?;
    let all = pulled.iter().map(|message| message.seq).eq(1..=STORED);
    Ok((!all).then(|| format!("a consumer was given {} of {STORED} messages", pulled.len())))
}

/// Sends bytes on a connection of their own, closes the sending half, and reads what comes until the server closes.
fn throw(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) else { return answer };
    // The server may close in the middle: then there is nothing more to say, only to hear.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
    let mut chunk = [0; 4096];
    while let Ok(more) = socket.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..more]);
        if more == 0 || answer.len() > 1 << 20 {
            break;
        }
    }
    answer
}

/// What is sent, and what the answer must contain: nothing is asked where the real server just closes.
fn lines(server: &mut Server) -> Result<(), String> {
    let long = "a".repeat(5000);
    let deep = format!("CONNECT {}\r\nPING\r\n", "[".repeat(3000));
    let cases: Vec<(String, &str)> = vec![
        ("PUB a 99999999999999999999999\r\n".into(), ""),
        ("PUB a -1\r\n".into(), ""),
        ("PUB a 1048577\r\n".into(), "Maximum Payload Violation"),
        ("PUB a 18446744073709551615\r\nx\r\n".into(), ""),
        ("PUB a 2\r\nabcd\r\n".into(), "-ERR"),
        ("PUB\r\n".into(), "-ERR"),
        ("PUB a b c d e 2\r\n".into(), ""),
        ("CONNECT {\"headers\":true}\r\nHPUB a 9 3\r\nabc\r\n".into(), ""),
        ("CONNECT {\"headers\":true}\r\nHPUB a 99999999999999999999 3\r\nabc\r\n".into(), ""),
        ("CONNECT {\"headers\":true}\r\nHPUB a 0 3\r\nabc\r\nPING\r\n".into(), ""),
        ("CONNECT {\"headers\":true}\r\nHPUB elsewhere 4 4\r\n\r\n\r\n\r\nPING\r\n".into(), ""),
        ("SUB\r\n".into(), "-ERR"),
        ("SUB a..b 1\r\nPING\r\n".into(), "-ERR"),
        ("UNSUB\r\n".into(), "-ERR"),
        ("UNSUB 1 99999999999999999999\r\nPING\r\n".into(), ""),
        ("CONNECT\r\n".into(), ""),
        ("CONNECT {\r\n".into(), ""),
        ("CONNECT null\r\nPING\r\n".into(), ""),
        ("CONNECT {\"verbose\":7}\r\n".into(), ""),
        ("CONNECT {\"verbose\":true,\"protocol\":-99999999999}\r\nPING\r\n".into(), ""),
        (deep, ""),
        (format!("SUB {long} 1\r\nPING\r\n"), "-ERR"),
        (format!("PUB {long} 0\r\n\r\n"), "-ERR"),
        (long.clone(), "-ERR"),
        ("\r\n\r\n\r\nPING\r\n".into(), ""),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "-ERR"),
        ("MSG a 1 2\r\nxx\r\n".into(), ""),
        ("\0\0\0\0\0\0\0\0\r\n".into(), "-ERR"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".into(), "-ERR"),
        ("PING PING PING\r\nPONG\r\n".into(), ""),
    ];
    let mut wrong = Vec::new();
    for (bytes, want) in cases {
        let answer = throw(server.port(), bytes.as_bytes());
        let text = String::from_utf8_lossy(&answer).into_owned();
        let shown = &bytes[..bytes.len().min(80)];
        if !text.contains(want) {
            let said = text.split_once("\r\n").map_or("", |(_, rest)| rest);
            wrong.push(format!("{shown:?}: expected {want:?} in {said:?}"));
        }
        alive(server, &format!("{shown:?}"))?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

const SEEDS: &[&str] = &[
    "CONNECT {\"verbose\":true,\"headers\":true,\"name\":\"x\"}\r\nPING\r\n",
    "SUB keep.> 1\r\nPUB keep.a r 5\r\nhello\r\nUNSUB 1 3\r\n",
    "CONNECT {\"headers\":true}\r\nHPUB keep.b 22 27\r\nNATS/1.0\r\nA: b\r\nC: \r\n\r\nhello\r\n",
    "SUB _I.* 9\r\nPUB $JS.API.CONSUMER.MSG.NEXT.KEEP.C _I.1 11\r\n{\"batch\":5}\r\n",
    "SUB _I.* 9\r\nPUB $JS.API.STREAM.INFO.KEEP _I.1 0\r\n\r\nPUB $JS.ACK.KEEP.C.1.3.3.0.0 4\r\n+ACK\r\n",
    "SUB q g 2\r\nPUB q 0\r\n\r\nPONG\r\nPING\r\n",
];

fn random(server: &mut Server, dice: &mut Dice) -> Result<(), String> {
    let rounds =
        std::env::var("HEADWATER_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for round in 0..rounds {
        let bytes = match dice.below(4) {
            0 => (0..dice.below(3000)).map(|_| dice.below(256) as u8).collect(),
            _ => mutated(dice),
        };
        throw(server.port(), &bytes);
        if round % 50 == 49 {
            // Some of it may have been a valid publish: only what was stored before is compared.
            alive(server, &format!("round {round}"))?;
        }
    }
    Ok(())
}

fn mutated(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(3) {
        bytes.extend_from_slice(SEEDS[dice.below(SEEDS.len() as u64) as usize].as_bytes());
    }
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len().max(1) as u64) as usize;
        match dice.below(5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.splice(at..at, b"9999999999".iter().copied()).for_each(drop),
            3 => bytes.splice(at..at, (0..dice.below(40)).map(|n| n as u8)).for_each(drop),
            _ => bytes.splice(at..(at + 7).min(bytes.len()), b"\r\n".iter().copied()).for_each(drop),
        }
    }
    bytes
}

const VERBS: &[&str] = &[
    "INFO",
    "STREAM.CREATE.X",
    "STREAM.CREATE.KEEP",
    "STREAM.UPDATE.KEEP",
    "STREAM.NAMES",
    "STREAM.LIST",
    "STREAM.INFO.KEEP",
    "STREAM.INFO.NONE",
    "STREAM.DELETE.NONE",
    "STREAM.PURGE.KEEP",
    "STREAM.MSG.GET.KEEP",
    "STREAM.MSG.DELETE.KEEP",
    "STREAM.SNAPSHOT.KEEP",
    "STREAM.RESTORE.Y",
    "CONSUMER.CREATE.KEEP",
    "CONSUMER.CREATE.KEEP.D",
    "CONSUMER.CREATE.KEEP.D.keep.>",
    "CONSUMER.DURABLE.CREATE.KEEP.D",
    "CONSUMER.NAMES.KEEP",
    "CONSUMER.LIST.KEEP",
    "CONSUMER.INFO.KEEP.C",
    "CONSUMER.DELETE.KEEP.NONE",
    "CONSUMER.PAUSE.KEEP.C",
    "CONSUMER.RESET.KEEP.NONE",
    "CONSUMER.UNPIN.KEEP.C",
    "CONSUMER.MSG.NEXT.KEEP.C",
    "DIRECT.GET.KEEP",
    "DIRECT.GET.KEEP.keep.x",
    "ACCOUNT.PURGE.NONE",
    "META.LEADER.STEPDOWN",
    "STREAM.CREATE.*",
    "STREAM.INFO",
    "CONSUMER.CREATE",
    "NOTHING.AT.ALL",
    "STREAM.CREATE.\u{1F4A9}",
    "CONSUMER.CREATE.KEEP.\u{e9}",
];

/// Requests with bodies that are no requests. Each is answered or ignored; all answers are whole.
fn api(server: &mut Server) -> Result<(), String> {
    let long = "n".repeat(3000);
    let bodies: Vec<String> = vec![
        "{".into(), "[]".into(), "null".into(), "\"x\"".into(), "-1".into(), "{\"name\":5}".into(), "\u{0}\u{1}".into(),
        "{\"name\":\"X\",\"subjects\":[\"\"]}".into(), "{\"name\":\"X\",\"subjects\":[\">\"]}".into(),
        "{\"name\":\"X\",\"subjects\":[\"a b\",\"..\"],\"max_age\":-5}".into(),
        "{\"name\":\"X\",\"max_msgs\":9223372036854775808}".into(), "{\"name\":\"X\",\"retention\":\"maybe\"}".into(),
        "{\"name\":\"X\",\"subjects\":[\"x\"],\"num_replicas\":-3,\"max_bytes\":-9223372036854775808}".into(),
        "{\"stream_name\":\"KEEP\",\"config\":{\"durable_name\":\"D\",\"ack_wait\":-9223372036854775808}}".into(),
        "{\"stream_name\":\"KEEP\",\"config\":{\"durable_name\":\"D\",\"backoff\":[0,-1,9223372036854775807]}}".into(),
        "{\"stream_name\":\"KEEP\",\"config\":{\"opt_start_time\":\"9999-99-99T00:00:00Z\"}}".into(),
        "{\"stream_name\":\"KEEP\",\"config\":{\"name\":\"D\",\"filter_subjects\":[\"\",\"keep.>\",\"keep.>\"]}}".into(),
        "{\"seq\":18446744073709551615}".into(), "{\"seq\":-1}".into(), "{\"last_by_subj\":\"..\"}".into(),
        "{\"next_by_subj\":\"\",\"seq\":0}".into(), "{\"batch\":-5,\"expires\":-1}".into(),
        "{\"batch\":9223372036854775807,\"max_bytes\":-9,\"expires\":1000000,\"idle_heartbeat\":1}".into(),
        "{\"multi_last\":[\"..\",\"\"],\"up_to_seq\":18446744073709551615}".into(),
        "{\"filter\":\"..\",\"keep\":18446744073709551615,\"seq\":3}".into(), "{\"offset\":-7,\"subject\":\"..\"}".into(),
        "{\"offset\":9223372036854775807}".into(), "{\"pause_until\":\"soon\"}".into(),
        "{\"pause_until\":\"99999-01-01T00:00:00Z\"}".into(), "{\"group\":\"\"}".into(),
        format!("{{\"name\":\"{long}\",\"subjects\":[\"{long}\"]}}"), "[".repeat(2000), "{\"a\":".repeat(2000),
    ];
    let mut js = Js::open(server.port()).map_err(|error| error.to_string())?;
    for verb in VERBS {
        for body in &bodies {
            let reply = js.inbox();
            let shown = format!("{verb} {}", &body.chars().take(60).collect::<String>());
            let sent = js.publish(&format!("$JS.API.{verb}"), &reply, body.as_bytes());
            sent.and_then(|()| js.write(b"PING\r\n")).map_err(|error| format!("{shown}: {error}"))?;
            loop {
                let frame = js.frame(&shown).map_err(|error| format!("{error}\n{}", server.log()))?;
                if frame.line == "PONG" {
                    break;
                }
                let is_json =
                    serde_json::from_slice::<Value>(&frame.payload).is_ok_and(|json| json.is_object());
                if frame.headers.is_empty() && !is_json && frame.line.split(' ').count() < 4 {
                    return Err(format!("{shown}: answered with {frame}"));
                }
            }
        }
        alive(server, verb)?;
    }
    Ok(())
}

/// Publishes with headers that make no sense, and acknowledgements of nothing.
fn headers(server: &mut Server) -> Result<(), String> {
    let mut js = Js::open(server.port()).map_err(|error| error.to_string())?;
    let names = [
        "Nats-Msg-Id",
        "Nats-Expected-Stream",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Msg-Id",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Subject-Sequence-Subject",
        "Nats-Rollup",
        "Nats-TTL",
        "Nats-Schedule",
        "Nats-Schedule-Target",
        "Nats-Batch-Id",
        "Nats-Batch-Sequence",
        "Nats-Batch-Commit",
        "Nats-Incr",
        "Nats-Marker-Reason",
        "Status",
        "",
    ];
    let long = "v".repeat(70_000);
    let values = [
        "",
        "-1",
        "99999999999999999999",
        "1h2x",
        "never",
        "\u{e9}\u{1F4A9}",
        "..",
        "a b",
        "@every 0s",
        &long,
    ];
    for name in names {
        for value in values {
            let line = format!("{name}: {value}");
            let reply = js.inbox();
            js.publish_headed("keep.h", &reply, &line, b"x").map_err(|error| error.to_string())?;
            let answer =
                js.frame(&format!("an answer to {name}: {}", value.chars().take(30).collect::<String>()));
            answer.map_err(|error| format!("{error}\n{}", server.log()))?;
        }
        alive(server, name)?;
    }
    for subject in [
        "C.1.1.1.1.0",
        "C.x.y.z",
        "C",
        "",
        "NONE.1.1.1.1.0",
        "C.1.99999999999999999999.1.1.0",
        "C.1.1.1.1.0.r.s.t",
    ] {
        for payload in [
            "",
            "+ACK",
            "-NAK",
            "-NAK {\"delay\":-9223372036854775808}",
            "-NAK {",
            "+TERM \u{1F4A9}",
            "+NXT -1",
            "+NXT {",
            "?",
        ] {
            js.publish(&format!("$JS.ACK.KEEP.{subject}"), "nowhere", payload.as_bytes())
                .map_err(|error| error.to_string())?;
            js.publish(&format!("$JS.ACK._.hash.KEEP.{subject}"), "nowhere", payload.as_bytes())
                .map_err(|error| error.to_string())?;
            js.publish(&format!("$JS.FC.KEEP.{subject}"), "nowhere", payload.as_bytes())
                .map_err(|error| error.to_string())?;
        }
    }
    alive(server, "acknowledgements")
}

const CONFIGS: &[&str] = &[
    "port: ",
    "port: \"many\"",
    "{{{{{{",
    "}",
    "jetstream { store_dir: ",
    "jetstream { max_mem: \"lots\" }",
    "accounts { A { users: [ { user: a } ",
    "authorization { users: [ { user: a, password: b, permissions: 5 } ] }",
    "authorization { user: a, password: b, timeout: \"x\" }",
    "include \"/nonexistent/file.conf\"",
    "$A: $A",
    "port: $NOT_SET_ANYWHERE_AT_ALL",
    "\"unterminated: 1",
    "unknown_key_of_nobody: 5",
    "http: \"nowhere:at:all\"",
    "a [ [ [ [ [",
];

/// The server ends with an error and says why, in words.
fn refused(binary: &Path, config: &str) -> Result<(), String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    let file = dir.path().join("broken.conf");
    std::fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file).args(["-t", "-sd"]).arg(dir.path()).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        return Err(format!("{config:?} was accepted: {said}"));
    }
    if said.trim().is_empty() || said.contains("panicked") || output.status.code().is_none_or(|code| code > 2)
    {
        return Err(format!("{config:?} ended with {} and said {said:?}", output.status));
    }
    Ok(())
}
