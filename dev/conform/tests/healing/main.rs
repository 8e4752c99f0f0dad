//! Three real servers, and damage to what one of them has: a bit flipped in the messages, the index or the end of a segment,
//! a segment that is gone. No wrong byte is served by any server, what was damaged is whole again without anybody's help,
//! and `store check` agrees.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use hw_conform::trio::{Fault, Flow, NAMES, Trio, outcome, page, wait_telling as wait, want};
use hw_conform::{Case, Cases, Js, Outcome, Target, run_all, targets};
use hw_testkit::Server;
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

const MESSAGES: u64 = 400;
/// The first stream's group.
const GROUP: u64 = 1;

/// What happens to a segment.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// A bit of a message.
    Message,
    /// A bit of the index.
    Index,
    /// A bit of the trailer.
    End,
    /// The whole file.
    Gone,
}

fn main() -> ExitCode {
    let ours = targets().into_iter().find(|target| target.name == "headwater");
    let mut cases = Vec::new();
    if let Some(target) = ours {
        for (what, group) in [("the list of streams", 0), ("a stream's state", GROUP)] {
            let (name, target) = (format!("{}: damage of {what}", target.name), target.clone());
            let run = move || play(&target, |target| rejoined(target, group));
            cases.push(Case { name, run: Box::new(run) });
        }
        let others: [(&str, Run); 10] = [
            ("a replicated memory stream survives", in_memory),
            ("two replicas that differ are told of", disputed),
            ("every replica is damaged somewhere else", |target| several(target, [Harm::Message; 3])),
            ("two followers cannot decide", |target| {
                several(target, [Harm::Message, Harm::Index, Harm::End])
            }),
            ("what the list of streams does not have is kept", orphaned),
            ("a follower that differs is made anew", |target| diverged(target, false)),
            ("a leader that differs is made anew", |target| diverged(target, true)),
            ("damage that nobody reads is found", scrubbed),
            ("damage is found before the others go", left_alone),
            ("another leader goes on where a consumer without acks was", handed_over),
        ];
        for (what, run) in others {
            let (name, target) = (format!("{}: {what}", target.name), target.clone());
            cases.push(Case { name, run: Box::new(move || play(&target, run)) });
        }
        for harm in [Harm::Message, Harm::Index, Harm::End, Harm::Gone] {
            for is_leader in [false, true] {
                let who = if is_leader { "the leader" } else { "a follower" };
                let (name, target) = (format!("{}: damage at {who}: {harm:?}", target.name), target.clone());
                let run = move || play(&target, |target| mended(target, harm, is_leader));
                cases.push(Case { name, run: Box::new(run) });
            }
        }
    }
    run_all(Cases { cases, threads: 2 })
}

fn play(target: &Target, run: impl Fn(&Target) -> Flow) -> Outcome {
    match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(_) => outcome(run(target)),
    }
}

fn payload(seq: u64) -> Vec<u8> {
    let mut bytes = format!("{seq}:").into_bytes();
    bytes.extend((0..900).map(|at: u64| (at * (seq + 3) % 251) as u8));
    bytes
}

fn fill(trio: &Trio) -> Flow {
    fill_like(trio, 3, "file")
}

fn fill_like(trio: &Trio, replicas: u64, storage: &str) -> Flow {
    let mut js = Js::open(trio.servers[0].port())?;
    let config = json!({ "name": "S", "subjects": ["s.>"], "num_replicas": replicas, "storage": storage,
        "retention": "limits", "allow_direct": true });
    let info = js.api("STREAM.CREATE.S", &config)?;
    want(info["config"]["num_replicas"] == replicas, || info.to_string())?;
    for seq in 1..=MESSAGES {
        let ack = js.request(&format!("s.{}", seq % 7), &payload(seq))?;
        let ack: Value = serde_json::from_slice(&ack.payload)?;
        want(ack["seq"] == seq, || format!("{seq}: {ack}"))?;
    }
    Ok(())
}

/// The segments of the stream at a server.
fn segments(trio: &Trio, at: usize) -> Result<Vec<PathBuf>, Fault> {
    let prefix = format!("{GROUP:016x}-");
    let mut found = Vec::new();
    for entry in fs::read_dir(trio.shard(at).join("segments"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && !name.ends_with("tmp") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn harm_it(path: &PathBuf, harm: Harm) -> Flow {
    let mut bytes = fs::read(path)?;
    let end = bytes.len() - 128;
    let index = usize::try_from(u64::from_le_bytes(bytes[end + 32..end + 40].try_into()?))?;
    let at = match harm {
        Harm::Message => 32 + 32 + 200,
        Harm::Index => index + 20,
        Harm::End => end + 40,
        Harm::Gone => return Ok(fs::remove_file(path)?),
    };
    bytes[at] ^= 4;
    Ok(fs::write(path, bytes)?)
}

/// Reads every message through every server: what comes is right. Gives how many came, through each.
fn read_all(trio: &Trio) -> Result<Vec<u64>, Fault> {
    let mut counts = Vec::new();
    for server in &trio.servers {
        let mut js = Js::open(server.port())?;
        let mut count = 0;
        for seq in 1..=MESSAGES {
            let body = json!({ "seq": seq }).to_string();
            let Ok(got) = js.request("$JS.API.DIRECT.GET.S", body.as_bytes()) else { continue };
            if got.headers.first().is_some_and(|line| line.starts_with("NATS/1.0 ")) {
                continue;
            }
            want(got.payload == payload(seq), || format!("message {seq} through {}: {got}", server.url()))?;
            count += 1;
        }
        counts.push(count);
    }
    Ok(counts)
}

fn mended(target: &Target, harm: Harm, is_leader: bool) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    let leader = trio.leader(0, "S")?;
    let victim = if is_leader { leader } else { (leader + 1) % 3 };
    wait(|| "there are segments".to_owned(), || segments(&trio, victim).ok().filter(|all| all.len() > 1))?;
    trio.servers[victim].kill();
    let harmed = segments(&trio, victim)?[0].clone();
    harm_it(&harmed, harm)?;
    trio.servers[victim].start_again()?;
    // Who has it is to read it: nobody who is known to be damaged leads.
    let name = NAMES[victim];
    let lead = json!({ "placement": { "preferred": name } });
    let asked = (victim + 1) % 3;
    wait(
        || format!("{name} is back"),
        || {
            let js = &mut Js::open(trio.servers[asked].port()).ok()?;
            js.api("STREAM.LEADER.STEPDOWN.S", &lead).ok()?;
            let is_back = trio.replica(victim, GROUP)?["state"] == "LEADER"
                || trio.servers[victim].log().contains("the others help");
            is_back.then_some(())
        },
    )?;
    read_all(&trio)?;
    wait(
        || format!("{name} is mended:\n{}", trio.servers[victim].log_end()),
        || trio.servers[victim].log().contains("this replica is whole again").then_some(()),
    )?;
    trio.await_health()?;
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )?;
    read_with_python(&trio)?;
    let raft = trio.replica(victim, GROUP);
    want(raft.as_ref().is_some_and(|raft| raft.get("problem").is_none()), || format!("{raft:?}"))?;
    let damaged = page(&trio.servers[victim], "/healthz?details=true");
    want(damaged.as_ref().is_some_and(|page| page["status"] == "ok"), || format!("{damaged:?}"))?;
    check(target, &mut trio, victim)
}

/// CRC-32 as the format has it, a bit at a time.
fn crc(pieces: &[&[u8]]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !pieces
        .iter()
        .flat_map(|piece| piece.iter())
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// Changes a group's entry in the newest checkpoint that has one, and makes all checksums fit. `edit` gets the entry.
fn rewrite_entry(trio: &Trio, at: usize, group: u64, edit: impl FnOnce(&mut [u8]) -> Flow) -> Flow {
    let (path, row) = newest_with(trio, at, group)?;
    let mut bytes = fs::read(&path)?;
    let (offset, len) = (number(&bytes, row + 8) as usize, number(&bytes, row + 16) as usize);
    edit(&mut bytes[offset..offset + len])?;
    let checked = crc(&[&bytes[16..24], &bytes[row..row + 8], &bytes[offset..offset + len]]);
    bytes[row + 24..row + 28].copy_from_slice(&checked.to_le_bytes());
    let count = short(&bytes, 12) as usize;
    let directory = crc(&[&bytes[112..112 + count * 32]]);
    bytes[104..108].copy_from_slice(&directory.to_le_bytes());
    let head = crc(&[&bytes[..108]]);
    bytes[108..112].copy_from_slice(&head.to_le_bytes());
    Ok(fs::write(path, bytes)?)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

/// Changes what a server believes of the stream: one that was wrong when it was written.
fn change_state(trio: &Trio, at: usize) -> Flow {
    rewrite_entry(trio, at, GROUP, |entry| {
        let state = 48 + short(entry, 28) as usize * 8;
        want(entry[state] == 0xf1, || format!("a replica's note begins with {:x}", entry[state]))?;
        let members = short(entry, state + 42) as usize;
        // The number that stands for everything that was decided so far.
        entry[state + 46 + members + 1 + 5 * 8] ^= 1;
        Ok(())
    })
}

/// In the list of streams, another group has the stream's name; on all servers.
fn rename_group(trio: &Trio, from: &str, to: &str) -> Flow {
    for at in 0..3 {
        rewrite_entry(trio, at, 0, |entry| {
            let found = entry.windows(from.len()).position(|part| part == from.as_bytes());
            let found = found.ok_or_else(|| format!("no {from} in the list of streams"))?;
            entry[found..found + to.len()].copy_from_slice(to.as_bytes());
            Ok(())
        })?;
    }
    Ok(())
}

/// The list of streams has lost one: nothing of it is removed, everybody is told, and it is there again with the list.
fn orphaned(target: &Target) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    for server in &mut trio.servers {
        server.stop()?;
    }
    rename_group(&trio, "\"group\":1,", "\"group\":7,")?;
    trio.servers.iter_mut().try_for_each(Server::start_again)?;
    wait(
        || "the stream is empty".to_owned(),
        || {
            let info = Js::open(trio.servers[0].port()).ok()?.api("STREAM.INFO.S", &json!({})).ok()?;
            (info["state"]["messages"] == 0).then_some(())
        },
    )?;
    for server in &trio.servers {
        let unwell = || page(server, "/healthz?details=true").unwrap_or_default().to_string();
        wait(
            || format!("{} names it: {}", server.url(), unwell()),
            || {
                let named = unwell().contains("group 1 (stream \\\"S\\\") is on disk");
                (named && server.log().contains("it is kept as it is")).then_some(())
            },
        )?;
    }
    // What comes next makes checkpoints, full ones too, and they leave it where it is.
    let mut js = Js::open(trio.servers[0].port())?;
    for seq in 1..=MESSAGES {
        js.request("s.new", &payload(seq))?;
    }
    for at in 0..3 {
        want(segments(&trio, at)?.len() > 1, || format!("n{} has lost its segments", at + 1))?;
    }
    for server in &mut trio.servers {
        server.stop()?;
    }
    let output = Command::new(target.binary.clone()?)
        .args(["store", "dump", "--messages", "--stream", "S"])
        .arg(trio.servers[0].dir().join("store"))
        .output()?;
    let dumped = String::from_utf8_lossy(&output.stdout).lines().count() as u64;
    want(dumped >= MESSAGES, || format!("{dumped} lines: {}", String::from_utf8_lossy(&output.stderr)))?;
    rename_group(&trio, "\"group\":7,", "\"group\":1,")?;
    trio.servers.iter_mut().try_for_each(Server::start_again)?;
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )
    .map(drop)
}

/// One replica differs from the others: they find out, and it becomes like them.
fn diverged(target: &Target, is_leader: bool) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    let victim = (trio.leader(0, "S")? + 1) % 3;
    trio.servers[victim].stop()?;
    change_state(&trio, victim)?;
    trio.servers[victim].start_again()?;
    trio.await_health()?;
    let name = NAMES[victim];
    if is_leader {
        let lead = json!({ "placement": { "preferred": name } });
        wait(
            || format!("{name} leads"),
            || {
                Js::open(trio.servers[victim].port()).ok()?.api("STREAM.LEADER.STEPDOWN.S", &lead).ok()?;
                (trio.replica(victim, GROUP)?["state"] == "LEADER").then_some(())
            },
        )?;
    }
    wait(
        || "a publish".to_owned(),
        || {
            let ack = Js::open(trio.servers[0].port()).ok()?.request("s.more", b"more").ok()?;
            let ack: Value = serde_json::from_slice(&ack.payload).ok()?;
            ack["seq"].is_u64().then_some(())
        },
    )?;
    let log = |at: usize| trio.servers[at].log();
    wait(
        || format!("{name} hears that it differs:\n{}", log(victim)),
        || log(victim).contains("this replica differs from the others").then_some(()),
    )?;
    wait(
        || format!("{name} is like the others:\n{}", log(victim)),
        || log(victim).contains("this replica is whole again").then_some(()),
    )?;
    trio.await_health()?;
    for at in (0..3).filter(|at| *at != victim) {
        want(!log(at).contains("differs"), || format!("a sound replica was blamed:\n{}", log(at)))?;
    }
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )?;
    check(target, &mut trio, victim)
}

/// What has replicas is on disk: all servers may lose their memory at once.
fn in_memory(target: &Target) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill_like(&trio, 3, "memory")?;
    wait(|| "there are segments".to_owned(), || segments(&trio, 0).ok().filter(|all| all.len() > 1))?;
    trio.servers.iter_mut().for_each(Server::kill);
    trio.servers.iter_mut().try_for_each(Server::start_again)?;
    trio.await_health()?;
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )?;
    want(trio.servers.iter().all(|server| !server.log().contains("the others help")), || {
        trio.servers.iter().map(Server::log).collect()
    })
}

/// Of two replicas that differ, neither can be said to be right: nothing is changed, and it is told.
fn disputed(target: &Target) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill_like(&trio, 2, "file")?;
    let leader = trio.leader(0, "S")?;
    let victim = (0..3).find(|at| *at != leader && trio.replica(*at, GROUP).is_some());
    let victim = victim.ok_or("no second replica")?;
    trio.servers[victim].stop()?;
    change_state(&trio, victim)?;
    trio.servers[victim].start_again()?;
    trio.await_health()?;
    wait(
        || "a publish".to_owned(),
        || {
            let ack = Js::open(trio.servers[0].port()).ok()?.request("s.more", b"more").ok()?;
            let ack: Value = serde_json::from_slice(&ack.payload).ok()?;
            ack["seq"].is_u64().then_some(())
        },
    )?;
    wait(
        || "somebody says that they differ".to_owned(),
        || {
            let told = |server: &Server| {
                let health = page(server, "/healthz?details=true").unwrap_or_default().to_string();
                health.contains("differ at entry") && server.log().contains("no majority is the same")
            };
            trio.servers.iter().any(told).then_some(())
        },
    )?;
    want(trio.servers.iter().all(|server| !server.log().contains("the others help")), || {
        trio.servers.iter().map(Server::log).collect()
    })
}

/// A bit of a message that nobody reads.
fn scrubbed(target: &Target) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    let victim = (trio.leader(0, "S")? + 1) % 3;
    wait(|| "there are segments".to_owned(), || segments(&trio, victim).ok().filter(|all| all.len() > 1))?;
    trio.servers[victim].kill();
    harm_it(&segments(&trio, victim)?[0], Harm::Message)?;
    trio.servers[victim].start_again()?;
    wait(
        || format!("it is found and mended:\n{}", trio.servers[victim].log()),
        || trio.servers[victim].log().contains("this replica is whole again").then_some(()),
    )?;
    trio.await_health()?;
    check(target, &mut trio, victim)
}

/// The others are to give up what they have of a stream, and who is to be alone with it has a bit that differs, which nobody
/// has read.
fn left_alone(target: &Target) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB, scrub_bytes: 0")?;
    fill(&trio)?;
    let victim = trio.leader(0, "S")?;
    wait(|| "there are segments".to_owned(), || segments(&trio, victim).ok().filter(|all| all.len() > 1))?;
    trio.servers[victim].kill();
    harm_it(&segments(&trio, victim)?[0], Harm::Message)?;
    trio.servers[victim].start_again()?;
    let other = (victim + 1) % 3;
    let lead = json!({ "placement": { "preferred": NAMES[victim] } });
    wait(
        || "it leads".to_owned(),
        || {
            let js = &mut Js::open(trio.servers[other].port()).ok()?;
            js.api("STREAM.LEADER.STEPDOWN.S", &lead).ok()?;
            (trio.replica(victim, GROUP)?["state"] == "LEADER").then_some(())
        },
    )?;
    want(!trio.servers[victim].log().contains("is damaged"), || trio.servers[victim].log())?;
    let js = &mut Js::open(trio.servers[other].port())?;
    let mut config = js.api("STREAM.INFO.S", &json!({}))?["config"].take();
    config["num_replicas"] = json!(1);
    let updated = js.api("STREAM.UPDATE.S", &config)?;
    want(updated.get("error").is_none(), || updated.to_string())?;
    wait(
        || format!("it is alone:\n{}", trio.servers[victim].log()),
        || {
            let info = js.api("STREAM.INFO.S", &json!({})).ok()?;
            let has_others = info["cluster"]["replicas"].as_array().is_some_and(|all| !all.is_empty());
            let is_there = info["cluster"]["leader"] == NAMES[victim];
            (is_there && !has_others && info["cluster"].get("desired").is_none()).then_some(())
        },
    )?;
    want(read_all(&trio)? == [MESSAGES; 3], || trio.servers[victim].log())?;
    check(target, &mut trio, victim)
}

/// A consumer whose deliveries are in no log: another leader repeats none and skips none.
fn handed_over(target: &Target) -> Flow {
    let trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    let mut js = Js::open(trio.servers[0].port())?;
    let inbox = js.inbox();
    let config = json!({ "stream_name": "S", "config": { "deliver_subject": inbox, "ack_policy": "none",
        "deliver_policy": "all", "mem_storage": true, "num_replicas": 1 } });
    // Through another connection: what is delivered at once must not get lost behind the answer.
    let made = Js::open(trio.servers[1].port())?.api("CONSUMER.CREATE.S", &config)?;
    want(made["name"].is_string(), || made.to_string())?;
    let mut got = Vec::new();
    let mut take = |js: &mut Js, up_to: u64| -> Flow {
        while got.last() != Some(&up_to) {
            let frame = js.frame("a delivery")?;
            // $JS.ACK.stream.consumer.deliveries.sequence...
            let reply = frame.line.split_whitespace().find(|word| word.starts_with("$JS.ACK."));
            let seq =
                reply.and_then(|reply| reply.split('.').nth(5)).and_then(|token| token.parse::<u64>().ok());
            let Some(seq) = seq else { continue };
            want(got.last().map_or(1, |last| last + 1) == seq, || format!("{seq} after {:?}", got.last()))?;
            got.push(seq);
        }
        Ok(())
    };
    take(&mut js, MESSAGES)?;
    for round in 1..=2_u64 {
        let before = trio.leader(1, "S")?;
        let asked = (before + 1) % 3;
        Js::open(trio.servers[asked].port())?.api("STREAM.LEADER.STEPDOWN.S", &json!({}))?;
        wait(|| "another leader".to_owned(), || trio.leader(1, "S").ok().filter(|leader| *leader != before))?;
        wait(
            || "a publish".to_owned(),
            || {
                let ack = Js::open(trio.servers[asked].port()).ok()?.request("s.1", b"more").ok()?;
                let ack: Value = serde_json::from_slice(&ack.payload).ok()?;
                (ack["seq"] == MESSAGES + round).then_some(())
            },
        )?;
        take(&mut js, MESSAGES + round)?;
    }
    Ok(())
}

/// The newest checkpoint that has a group, and where its row in the directory is.
fn newest_with(trio: &Trio, at: usize, group: u64) -> Result<(PathBuf, usize), Fault> {
    let mut checkpoints = Vec::new();
    for entry in fs::read_dir(trio.shard(at))? {
        let path = entry?.path();
        if path.file_name().unwrap_or_default().to_string_lossy().starts_with("checkpoint-") {
            checkpoints.push(path);
        }
    }
    checkpoints.sort();
    for path in checkpoints.iter().rev() {
        let bytes = fs::read(path)?;
        let count = u32::from_le_bytes(bytes[12..16].try_into()?) as usize;
        let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
        let row =
            (0..count).map(|row| 112 + row * 32).find(|row| number(*row).is_ok_and(|found| found == group));
        if let Some(row) = row {
            return Ok((path.clone(), row));
        }
    }
    Err(format!("no checkpoint has group {group}").into())
}

/// Flips a bit in the state of a group in the newest checkpoint that has one.
fn harm_state(trio: &Trio, at: usize, group: u64) -> Flow {
    let (path, row) = newest_with(trio, at, group)?;
    let mut bytes = fs::read(&path)?;
    let (offset, len) = (number(&bytes, row + 8) as usize, number(&bytes, row + 16) as usize);
    bytes[offset + len - 3] ^= 4;
    Ok(fs::write(path, bytes)?)
}

/// A server that cannot read what it knew of a group, or of all of them, gets it from the others; what is on its disk of
/// streams that only it has is there again; and it has a vote.
fn rejoined(target: &Target, group: u64) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 100KB")?;
    fill(&trio)?;
    let mut js = Js::open(trio.servers[0].port())?;
    let alone: Vec<String> = (0..3).map(|at| format!("ALONE{at}")).collect();
    for name in &alone {
        js.api(
            &format!("STREAM.CREATE.{name}"),
            &json!({ "name": name, "subjects": [name], "num_replicas": 1 }),
        )?;
        for number in 0..20 {
            js.request(name, format!("{name}.{number}").as_bytes())?;
        }
    }
    let leader = trio.leader(0, "S")?;
    let victim = (leader + 1) % 3;
    // In order: what it has is in a checkpoint.
    trio.servers[victim].stop()?;
    harm_state(&trio, victim, group)?;
    trio.servers[victim].start_again()?;
    wait(
        || format!("it takes part again:\n{}", trio.servers[victim].log()),
        || trio.servers[victim].log().contains("takes part again").then_some(()),
    )?;
    trio.await_health()?;
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )?;
    for server in &trio.servers {
        let mut js = Js::open(server.port())?;
        for name in &alone {
            let there = js.read_from(name, 1)?;
            want(there.len() == 20, || {
                format!("{name} has {} messages through {}", there.len(), server.url())
            })?;
        }
    }
    // With its vote, and only with that, the other two go on.
    trio.servers[leader].kill();
    wait(
        || format!("a publish without n{}:\n{}", leader + 1, trio.servers[victim].log_end()),
        || {
            let mut js = Js::open(trio.servers[victim].port()).ok()?;
            js.set_patience(std::time::Duration::from_secs(2));
            let ack = js.request("s.after", b"after").ok()?;
            let ack: Value = serde_json::from_slice(&ack.payload).ok()?;
            ack["seq"].as_u64().filter(|seq| *seq > MESSAGES)
        },
    )?;
    trio.servers[leader].start_again()?;
    trio.await_health()?;
    check(target, &mut trio, victim)
}

/// Each replica has damage in another segment, the leader as `harms` has it first.
fn several(target: &Target, harms: [Harm; 3]) -> Flow {
    let mut trio = Trio::start_telling(target, "checkpoint_bytes: 60KB")?;
    fill(&trio)?;
    let leader = trio.leader(0, "S")?;
    for at in 0..3 {
        wait(|| "there are segments".to_owned(), || segments(&trio, at).ok().filter(|all| all.len() > 3))?;
    }
    trio.servers.iter_mut().for_each(Server::kill);
    for (step, harm) in harms.into_iter().enumerate() {
        let at = (leader + step) % 3;
        harm_it(&segments(&trio, at)?[step], harm)?;
    }
    trio.servers.iter_mut().try_for_each(Server::start_again)?;
    for server in &trio.servers {
        let is_whole = || server.log().contains("this replica is whole again").then_some(());
        wait(|| format!("{} is mended:\n{}", server.url(), server.log()), is_whole)?;
    }
    trio.await_health()?;
    wait(
        || "everything is read through every server".to_owned(),
        || read_all(&trio).ok().filter(|counts| *counts == [MESSAGES; 3]),
    )?;
    (0..3).try_for_each(|at| check(target, &mut trio, at))
}

/// The same, by a client that others wrote.
fn read_with_python(trio: &Trio) -> Flow {
    let Some(python) = std::env::var_os("PYTHON_WITH_NATS") else { return Ok(()) };
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/healing.py");
    let urls = trio.servers.iter().map(Server::url);
    let output = Command::new(python).arg(script).arg(MESSAGES.to_string()).args(urls).output()?;
    want(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A server's store is sound on disk.
fn check(target: &Target, trio: &mut Trio, at: usize) -> Flow {
    trio.servers[at].stop()?;
    let binary = target.binary.clone()?;
    let output =
        Command::new(binary).args(["store", "check"]).arg(trio.servers[at].dir().join("store")).output()?;
    want(output.status.success(), || String::from_utf8_lossy(&output.stdout).into_owned())
}
