//! A disk that fails: what is answered, what goes on, and that nothing is acknowledged that is not there afterwards. Each way of
//! failing is one case; for `nats-server` what it answers is an observation that is printed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use hw_conform::{Case, Cases, Js, Lost, Outcome, Target, run_all, targets};
use hw_faultfs::{Act, Fault, FaultDisk, Faults, Survival, Trouble};
use hw_kit::Rng;
use hw_testkit::{Frame, Launch, Server, TempDir};
use serde_json::{Value, json};

const STREAM: &str = "S";
/// Larger than what is kept in memory, so that reads need the disk.
const MESSAGES: u64 = 400;
const PAYLOAD: usize = 3000;
/// Whoever does not say who he is has JetStream; servers' advisories are for `s`.
const ACCOUNTS: &str = "accounts {
  A { jetstream: enabled, users: [{ user: a, password: a }] }
  SYS { users: [{ user: s, password: s }] }
}
system_account: SYS
no_auth_user: a";
const OUT_OF_STORAGE: &str = "$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE";
/// A sequence that is never reached.
const NEVER: u64 = 1 << 40;

/// One way of failing.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    run: fn(&mut Run) -> Result<(), String>,
}

const WAYS: [Way; 9] = [
    Way { name: "a write fails", run: |run| run.stops(&[Act::Write], Trouble::Io) },
    Way { name: "a sync fails", run: |run| run.stops(&[Act::Sync], Trouble::Io) },
    Way { name: "the disk is read-only", run: |run| run.stops(&[Act::Write, Act::Name], Trouble::ReadOnly) },
    Way { name: "a file cannot be made", run: |run| run.stops(&[Act::Name], Trouble::Io) },
    Way { name: "the disk is full for a while", run: Run::full },
    Way { name: "one block cannot be read for a while", run: Run::unreadable },
    Way { name: "no message can be read for a while", run: Run::unreadable_all },
    Way { name: "some file cannot be read at the start", run: Run::unreadable_at_start },
    Way { name: "writes are cut short", run: Run::short },
];

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for target in targets() {
        for way in WAYS {
            let (name, target) = (format!("{}: {}", target.name, way.name), target.clone());
            cases.push(Case { name, run: Box::new(move || case(&target, way)) });
        }
    }
    run_all(Cases { cases, threads: 2 })
}

fn case(target: &Target, way: Way) -> Outcome {
    let binary = match &target.binary {
        Err(why) => return Outcome::Skipped(why.clone()),
        Ok(binary) => binary.clone(),
    };
    let ours = target.name == "headwater";
    let (dir, config) = match TempDir::new() {
        Ok(dir) => (
            dir,
            if ours {
                "jetstream { checkpoint_bytes: 200KB }"
            } else {
                "jetstream { sync_interval: always }"
            },
        ),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let disk = match FaultDisk::mount(dir.path(), if ours { Survival::Any } else { Survival::Ordered }) {
        Ok(disk) => disk,
        Err(error) => return Outcome::Skipped(format!("no FUSE here: {error}")),
    };
    let launch = Launch {
        binary,
        flags: ["-js", "-m", "{http}"].map(str::to_owned).to_vec(),
        config: Some(format!("{config}\n{ACCOUNTS}")),
    };
    let result = Run::new(launch, disk, dir, ours).and_then(|mut run| {
        let result = (way.run)(&mut run);
        run.seen.iter().for_each(|line| println!("    {}: {line}", target.name));
        result.map_err(|what| format!("{what}\n{}", run.server.log_end()))
    });
    target.promised(result)
}

struct Run {
    ours: bool,
    server: Server,
    disk: FaultDisk,
    _dir: TempDir,
    /// Sequences that were acknowledged.
    acked: Vec<u64>,
    /// What was answered, for the report.
    seen: Vec<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.disk.end_waiting();
        self.server.kill();
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn payload(seq: u64) -> Vec<u8> {
    let mut bytes = format!("{seq}:").into_bytes();
    bytes.extend((0..PAYLOAD as u64).map(|at| (at.wrapping_mul(seq + 7) >> 2) as u8));
    bytes
}

/// All files below a folder.
fn names(folder: &std::path::Path) -> Result<Vec<String>, String> {
    let (mut names, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(text)? {
            let path = entry.map_err(text)?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => names.push(path.display().to_string()),
            }
        }
    }
    names.sort();
    Ok(names)
}

fn shown(answer: &Result<Frame, Lost>) -> String {
    match answer {
        Ok(frame) if !frame.headers.is_empty() => frame.headers[0].clone(),
        Ok(frame) => String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(200)]).into_owned(),
        Err(error) => error.to_string(),
    }
}

impl Run {
    fn new(launch: Launch, disk: FaultDisk, dir: TempDir, ours: bool) -> Result<Run, String> {
        let server = Server::start_on(launch, &dir.path().join("store")).map_err(text)?;
        let mut run = Run { ours, server, disk, _dir: dir, acked: Vec::new(), seen: Vec::new() };
        let mut js = run.js()?;
        let config = json!({ "name": STREAM, "subjects": ["s.*"], "allow_direct": true, "storage": "file" });
        js.api(&format!("STREAM.CREATE.{STREAM}"), &config).map_err(text)?;
        for _ in 0..MESSAGES {
            run.publish(&mut js)?;
        }
        if !ours {
            // The stream itself would be lost, made a moment ago, and hide the rest.
            run.disk.settle();
        }
        Ok(run)
    }

    fn js(&self) -> Result<Js, String> {
        let mut js = Js::open(self.server.port()).map_err(text)?;
        js.set_patience(self.patience());
        Ok(js)
    }

    /// The real server stays silent in many cases, ours in one for each case.
    fn patience(&self) -> Duration {
        Duration::from_millis(if self.ours { 3000 } else { 700 })
    }

    fn publish(&mut self, js: &mut Js) -> Result<(), String> {
        let seq = self.acked.last().map_or(1, |last| last + 1);
        match self.try_publish(js, seq) {
            (true, _) => Ok(()),
            (false, answer) => Err(format!("a publish was answered with {answer}")),
        }
    }

    /// Publishes what sequence `seq` is to hold; whether it was acknowledged as that, and the answer.
    fn try_publish(&mut self, js: &mut Js, seq: u64) -> (bool, String) {
        let answer = js.request(&format!("s.{}", seq % 5), &payload(seq));
        let ack: Value = answer
            .as_ref()
            .ok()
            .map_or(Value::Null, |frame| serde_json::from_slice(&frame.payload).unwrap_or_default());
        let is_acked = ack["error"].is_null() && ack["seq"] == seq;
        if is_acked {
            self.acked.push(seq);
        }
        (is_acked, shown(&answer))
    }

    fn note(&mut self, what: &str, answer: &str) {
        self.seen.push(format!("{what}: {answer}"));
    }

    fn get(&self, js: &mut Js, seq: u64) -> (bool, String) {
        let body = json!({ "seq": seq }).to_string();
        let answer = js.request(&format!("$JS.API.DIRECT.GET.{STREAM}"), body.as_bytes());
        let is_it = answer.as_ref().is_ok_and(|frame| frame.payload == payload(seq));
        (is_it, shown(&answer))
    }

    /// What `/healthz` says.
    fn health(&self) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.server.http_port()))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().unwrap_or_else(|error| error.to_string());
        answer.rsplit("\r\n").find(|line| line.contains('{')).unwrap_or(&answer).to_owned()
    }

    /// What must be so where the promise is ours; what the real server does is printed.
    fn must(&mut self, is_so: bool, what: &str) -> Result<(), String> {
        if is_so {
            return Ok(());
        }
        if self.ours {
            Err(what.to_owned())
        } else {
            self.seen.push(format!("not so: {what}"));
            Ok(())
        }
    }

    /// From the first failure on nothing is acknowledged, also after the disk works again; reads go on, and the reason is
    /// told. A new start finds everything that was acknowledged.
    fn stops(&mut self, acts: &[Act], trouble: Trouble) -> Result<(), String> {
        let faults = acts.iter().map(|act| Fault::every(*act, "", trouble)).collect::<Vec<_>>();
        self.disk.set(|disk| disk.list = faults);
        let mut js = self.js()?;
        let (next, mut refusal) = (self.acked.len() as u64 + 1, String::new());
        // The log is written to space that it has: only the next file may be what fails.
        for seq in next..next + 8000 {
            let (is_acked, answer) = self.try_publish(&mut js, seq);
            if !is_acked {
                refusal = answer;
                break;
            }
        }
        self.note("the first publish that fails", &refusal);
        let hits = self.disk.hits();
        self.must(hits > 0, "the disk failed")?;
        let (_, second) = self.try_publish(&mut js, NEVER);
        self.note("the next publish", &second);
        self.must(second.contains("\"error\""), "a publish is refused, not left alone")?;
        for (name, verb, body) in [
            ("a delete", format!("STREAM.MSG.DELETE.{STREAM}"), json!({ "seq": 2 })),
            ("a purge", format!("STREAM.PURGE.{STREAM}"), json!({ "filter": "s.9" })),
            (
                "a new consumer",
                format!("CONSUMER.CREATE.{STREAM}.c"),
                json!({ "stream_name": STREAM, "config": { "name": "c", "ack_policy": "explicit" } }),
            ),
            (
                "a new stream",
                "STREAM.CREATE.T".to_owned(),
                json!({ "name": "T", "subjects": ["t"], "storage": "file" }),
            ),
            ("a stream's end", format!("STREAM.DELETE.{STREAM}"), Value::Null),
        ] {
            if !self.ours && name == "a stream's end" {
                continue;
            }
            let answer = js.api(&verb, &body).map_or_else(text, |answer| answer["error"].to_string());
            self.note(name, &answer);
            self.must(answer.contains("err_code"), &format!("{name} is refused, not left alone: {answer}"))?;
        }
        for seq in [1, MESSAGES / 2, MESSAGES] {
            let (is_it, answer) = self.get(&mut js, seq);
            self.must(is_it, &format!("{seq} can be read: {answer}"))?;
        }
        let health = self.health();
        self.note("healthz", &health);
        self.must(
            health.contains("unavailable") && health.contains("error"),
            "healthz says that the store has stopped",
        )?;
        let log = self.server.log();
        let told = log.lines().find(|line| line.contains("stopped") || line.contains("error: "));
        let told = told.unwrap_or_default().to_owned();
        self.note("the log", &told);
        self.must(told.contains("stopped"), "the log says that the store has stopped, and why")?;
        // A sync that succeeds after one that failed says nothing.
        self.disk.set(|disk| disk.list.clear());
        let (is_acked, answer) = self.try_publish(&mut js, next);
        self.note("a publish once the disk works again", &answer);
        self.must(!is_acked, "nothing is acknowledged any more")?;
        self.power_cut()
    }

    /// Publishes are refused while there is no space, everything else goes on, and so do they when there is some again.
    fn full(&mut self) -> Result<(), String> {
        let mut js = self.js()?;
        let mut operator =
            Js::open_as(self.server.port(), &json!({ "user": "s", "pass": "s" })).map_err(text)?;
        operator.write(format!("SUB {OUT_OF_STORAGE} 2\r\nPING\r\n").as_bytes()).map_err(text)?;
        self.must(operator.frame("a PONG").is_ok_and(|pong| pong.line == "PONG"), "an operator listens")?;
        operator.set_patience(Duration::from_secs(3));
        let used = self.disk.used();
        self.disk.set(|disk| disk.capacity = Some(used + 100_000));
        let mut refusal = String::new();
        let next = self.acked.len() as u64 + 1;
        for seq in next..next + 20_000 {
            let (is_acked, answer) = self.try_publish(&mut js, seq);
            if !is_acked {
                refusal = answer;
                break;
            }
        }
        self.note("the first publish without space", &refusal);
        self.must(
            refusal.contains("10077") && refusal.contains("no space left"),
            "a publish is refused precisely",
        )?;
        let told = operator.frame("an advisory").map(|frame| frame.payload).unwrap_or_default();
        let told = String::from_utf8_lossy(&told).into_owned();
        self.note("the operator hears", &told);
        let kind = "\"type\":\"io.nats.jetstream.advisory.v1.server_out_of_space\"";
        self.must(told.contains(kind) && told.contains("\"server_id\":"), "the operator hears of it")?;
        let last = self.acked.last().copied().unwrap_or_default();
        for seq in [1, MESSAGES / 2, last] {
            let (is_it, answer) = self.get(&mut js, seq);
            self.must(is_it, &format!("{seq} can be read: {answer}"))?;
        }
        let answer = js.api(&format!("STREAM.MSG.DELETE.{STREAM}"), &json!({ "seq": 3, "no_erase": true }));
        let answer = answer.map_or_else(text, |answer| answer.to_string());
        self.note("a delete", &answer);
        self.must(answer.contains("\"success\":true"), "a message can be deleted")?;
        self.acked.retain(|seq| *seq != 3);
        self.disk.set(|disk| disk.capacity = None);
        let until = Instant::now() + Duration::from_secs(10);
        let (mut is_acked, mut answer) = (false, String::new());
        while !is_acked && Instant::now() < until {
            (is_acked, answer) = self.try_publish(&mut js, last + 1);
            std::thread::park_timeout(Duration::from_millis(100));
        }
        self.note("a publish once there is space", &answer);
        self.must(is_acked, "publishes go on when there is space again, without a restart")?;
        self.power_cut()
    }

    /// A read that fails is an error for who asked; nothing else stops, and when it is asked for again it is read again.
    fn unreadable(&mut self) -> Result<(), String> {
        // Nothing is in memory after this.
        self.server.stop().map_err(text)?;
        self.server.start_again().map_err(text)?;
        let place = if self.ours { "segments/" } else { "/msgs/" };
        let mut js = self.js()?;
        let fault = Fault { bytes: 20_000..40_000, ..Fault::every(Act::Read, place, Trouble::Io) };
        self.disk.set(|disk| disk.list = vec![fault]);
        let (mut failed, mut fine) = (Vec::new(), 0);
        for seq in (1..=MESSAGES).step_by(3) {
            let (is_it, answer) = self.get(&mut js, seq);
            if is_it {
                fine += 1;
            } else {
                failed.push((seq, answer));
            }
        }
        let Some((seq, answer)) = failed.first().cloned() else {
            return self.must(false, "some block could not be read");
        };
        self.note(&format!("{fine} reads are fine, {} are not; the first", failed.len()), &answer);
        self.must(answer.contains("500"), "a direct get says that it failed")?;
        let body = json!({ "seq": seq });
        let got = js.api(&format!("STREAM.MSG.GET.{STREAM}"), &body).map_or_else(text, |got| got.to_string());
        self.note("STREAM.MSG.GET", &got[..got.len().min(200)]);
        self.must(got.contains("could not be read"), "and so does a get")?;
        self.must(fine > failed.len(), "most can be read")?;
        self.publish(&mut js)?;
        let log = self.server.log();
        let told = log.lines().find(|line| line.contains("cannot be read at byte")).unwrap_or_default();
        let told = told.to_owned();
        self.note("the log", &told);
        self.must(told.contains(place), "the log names file and place")?;
        // A small segment has its index there, too, and that is told until it can be read.
        let health = self.health();
        let is_index = health.contains("Input/output error");
        self.must(is_index || health.contains("\"ok\""), &format!("nothing is damaged: {health}"))?;
        self.consumer_gets_all(&mut js, seq)?;
        self.is_well_again()?;
        for (seq, _) in failed {
            let (is_it, answer) = self.get(&mut js, seq);
            self.must(is_it, &format!("{seq} is read when it is asked for again: {answer}"))?;
        }
        self.power_cut()
    }

    /// What cannot be found because indexes cannot be read is not said to be absent, and all goes on once they can.
    fn unreadable_all(&mut self) -> Result<(), String> {
        self.server.stop().map_err(text)?;
        self.server.start_again().map_err(text)?;
        let place = if self.ours { "segments/" } else { "/msgs/" };
        let mut js = self.js()?;
        self.disk.set(|disk| disk.list = vec![Fault::every(Act::Read, place, Trouble::Io)]);
        let last = json!({ "last_by_subj": "s.1" }).to_string();
        for body in [json!({ "seq": 7 }).to_string(), last] {
            let answer = js.request(&format!("$JS.API.DIRECT.GET.{STREAM}"), body.as_bytes());
            let answer = shown(&answer);
            self.note(&format!("a get of {body}"), &answer);
            self.must(answer.contains("500"), &format!("a get says that it failed: {answer}"))?;
        }
        self.disk.set(|disk| disk.list.clear());
        self.is_well_again()?;
        for seq in 1..=MESSAGES {
            let (is_it, answer) = self.get(&mut js, seq);
            self.must(is_it, &format!("{seq} is read: {answer}"))?;
        }
        self.publish(&mut js)?;
        self.power_cut()
    }

    /// The disk works again: without a restart nothing is wrong any more.
    fn is_well_again(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(10);
        let mut health = self.health();
        while !health.contains("\"ok\"") && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(100));
            health = self.health();
        }
        self.must(health.contains("\"ok\""), &format!("all is well again: {health}"))
    }

    /// A consumer waits at what cannot be read and goes on once it can.
    fn consumer_gets_all(&mut self, js: &mut Js, seq: u64) -> Result<(), String> {
        let config = json!({ "name": "c", "ack_policy": "none", "deliver_policy": "by_start_sequence",
            "opt_start_seq": seq.saturating_sub(2).max(1), "mem_storage": true });
        let body = json!({ "stream_name": STREAM, "config": config });
        js.api(&format!("CONSUMER.CREATE.{STREAM}.c"), &body).map_err(text)?;
        let request = json!({ "batch": 20, "expires": 1_000_000_000 });
        let before = js.pull(STREAM, "c", &request).map_or(0, |got| got.len());
        self.disk.set(|disk| disk.list.clear());
        let request = json!({ "batch": 20, "expires": 5_000_000_000_u64 });
        js.set_patience(Duration::from_secs(8));
        let after = js.pull(STREAM, "c", &request).unwrap_or_default();
        js.set_patience(self.patience());
        let (first, wanted) =
            (after.first().map(|message| message.seq), seq.saturating_sub(2).max(1) + before as u64);
        self.note("a consumer got", &format!("{before} before and {} after, from {first:?}", after.len()));
        self.must(first == Some(wanted) && after.len() == 20, "a consumer goes on where it was, once it can")
    }

    /// A start that cannot read one of its files says which and why, changes nothing, and is a start like any other once the
    /// disk reads.
    fn unreadable_at_start(&mut self) -> Result<(), String> {
        let places: &[&str] = match self.ours {
            true => &["/wal-", "/checkpoint-", "/witness", "/segments/"],
            false => &["/meta.inf", "/meta.sum", "/index.db", "/msgs/"],
        };
        for place in places {
            self.server.stop().map_err(text)?;
            let before = names(self.disk.path())?;
            let (fault, hits) = (Fault::every(Act::Read, place, Trouble::Io), self.disk.hits());
            self.disk.set(|disk| disk.list = vec![fault]);
            let log_before = self.server.log().len();
            let started = self.server.start_again();
            self.must(self.disk.hits() > hits, &format!("{place} is read at the start"))?;
            let log = self.server.log().split_off(log_before.min(self.server.log().len()));
            let told =
                log.lines().find(|line| line.contains("nput/output error")).unwrap_or_default().to_owned();
            let outcome = if started.is_ok() { "started" } else { "refused" };
            self.note(&format!("{place} unreadable: {outcome}"), &told);
            self.must(started.is_err(), &format!("it does not start without {place}"))?;
            self.must(told.contains(&place[1..]), &format!("the log names {place} and the cause: {log}"))?;
            let after = names(self.disk.path())?;
            self.must(before == after, &format!("no file is made or removed: {before:?} {after:?}"))?;
            self.server.kill();
            self.disk.set(|disk| disk.list.clear());
            self.server.start_again().map_err(text)?;
            let (mut js, last) = (self.js()?, self.acked.last().copied().unwrap_or_default());
            for seq in [1, MESSAGES / 2, last] {
                let (is_it, answer) = self.get(&mut js, seq);
                self.must(is_it, &format!("{seq} is there after {place} could not be read: {answer}"))?;
            }
            let health = self.health();
            self.must(health.contains("\"ok\""), &format!("nothing is damaged: {health}"))?;
            self.publish(&mut js).or_else(|error| self.must(false, &error))?;
        }
        self.power_cut()
    }

    /// Writes that take only a part of what they were given are gone on with.
    fn short(&mut self) -> Result<(), String> {
        self.disk.set(|disk: &mut Faults| disk.write_most = Some(1000));
        let mut js = self.js()?;
        for _ in 0..200 {
            self.publish(&mut js)?;
        }
        self.power_cut()
    }

    /// Everything that was acknowledged is there after the power went and came back.
    fn power_cut(&mut self) -> Result<(), String> {
        self.disk.freeze();
        let _ = self.server.signal("KILL");
        self.disk.end_waiting();
        self.server.kill();
        self.disk.set(|disk| *disk = Faults::default());
        self.disk.power_on(&mut Rng::new(5)).map_err(text)?;
        self.server.start_again().map_err(text)?;
        let mut js = self.js()?;
        let mut lost = 0;
        for seq in self.acked.clone() {
            let (is_it, answer) = self.get(&mut js, seq);
            if !is_it {
                lost += 1;
                self.must(false, &format!("{seq} was acknowledged: {answer}"))?;
                if lost > 3 {
                    break;
                }
            }
        }
        let last = self.acked.last().map_or(0, |last| last + 1);
        let answer = js.request("s.1", b"after").map_err(text)?;
        let ack: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        self.must(ack["seq"].as_u64() >= Some(last), &format!("publishes go on after a new start: {ack}"))
    }
}
