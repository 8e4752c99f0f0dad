//! Fast batches whose stream gets another leader: it goes on with them. Where messages were lost with the leader that was, the
//! publisher hears of the gap, and what it then does is up to the batch's mode (ADR-50).

use std::process::ExitCode;

use hw_conform::trio::{Fault, Flow, Trio, api, arrived, open, outcome, replicated, wait, want};
use hw_conform::{Case, Cases, Js, Outcome, Target, run_all, targets};
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;

fn main() -> ExitCode {
    let both: [(&str, Run); 2] = [
        ("a fast batch goes on after a step-down", stepped_down),
        ("a fast batch that may have gaps goes on after its leader is killed", killed),
    ];
    let own: [(&str, Run); 3] = [
        ("a planned change of leaders leaves no gaps", unbroken),
        ("nor does one for clients of the leader that was", unbroken_there),
        ("the death of leaders leaves no gaps for clients of others", bereft),
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

/// A batch of messages 0, 1, 2 …
struct Batch {
    js: Js,
    prefix: String,
    /// No other has it.
    id: String,
    /// `fail` or `ok`.
    mode: &'static str,
    flow: u32,
    /// How many messages were sent.
    sent: u32,
}

/// What the server says of it.
#[derive(Debug)]
enum Word {
    Flow(u64),
    Gap,
    Last(Value),
}

impl Batch {
    fn new(trio: &Trio, at: usize, mode: &'static str, flow: u32) -> Result<Batch, Fault> {
        let mut js = open(&trio.servers[at])?;
        let prefix = format!("{}.fast", js.inbox());
        js.write(format!("SUB {prefix}.> 2\r\n").as_bytes())?;
        let id = js.inbox().replace('.', "_");
        Ok(Batch { js, prefix, id, mode, flow, sent: 0 })
    }

    /// The next message; the first begins the batch, the last ends it.
    fn send(&mut self, is_last: bool) -> Flow {
        let op = if is_last { 2 } else { u32::from(self.sent > 0) };
        self.say(self.sent + 1, op, self.sent.to_string().as_bytes())?;
        self.sent += 1;
        Ok(())
    }

    fn ping(&mut self) -> Flow {
        self.say(self.sent, 4, b"")
    }

    fn say(&mut self, sequence: u32, op: u32, payload: &[u8]) -> Flow {
        let Batch { prefix, id, mode, flow, .. } = self;
        let reply = format!("{prefix}.{id}.{flow}.{mode}.{sequence}.{op}.$FI");
        Ok(self.js.publish("s", &reply, payload)?)
    }

    fn hear(&mut self) -> Result<Word, Fault> {
        loop {
            let frame = self.js.frame("a word about a batch")?;
            if frame.subject.as_ref().is_none_or(|subject| !subject.starts_with(&self.prefix)) {
                continue;
            }
            // Nobody leads: whoever publishes is told so by a nats-server.
            let Ok(answer) = serde_json::from_slice::<Value>(&frame.payload) else { continue };
            return Ok(match answer["type"].as_str() {
                Some("ack") => Word::Flow(answer["seq"].as_u64().unwrap_or_default()),
                Some("gap") => Word::Gap,
                Some(_) => return Err(format!("{answer}").into()),
                None => Word::Last(answer),
            });
        }
    }

    /// Waits until everything that was sent is decided.
    fn settle(&mut self) -> Flow {
        loop {
            match self.hear()? {
                Word::Flow(seq) if seq == u64::from(self.sent) => return Ok(()),
                Word::Flow(_) | Word::Gap => {}
                Word::Last(answer) => return Err(format!("it is over: {answer}").into()),
            }
        }
    }

    /// The answer to the whole.
    fn end(&mut self) -> Result<Value, Fault> {
        loop {
            if let Word::Last(answer) = self.hear()? {
                return Ok(answer);
            }
        }
    }
}

fn created(target: &Target) -> Result<(Trio, usize), Fault> {
    let trio = Trio::start(target)?;
    let mut config = replicated("S", 3);
    config["subjects"] = json!(["s"]);
    config["allow_batched"] = json!(true);
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &config)?;
    let leader = trio.leader(0, "S")?;
    Ok((trio, leader))
}

/// Another leader, and which.
fn step_down(trio: &Trio, leader: usize) -> Result<usize, Fault> {
    let mut js = open(&trio.servers[(leader + 2) % 3])?;
    api(&mut js, "STREAM.LEADER.STEPDOWN.S", &Value::Null)?;
    wait("another leader", || trio.leader(0, "S").ok().filter(|next| *next != leader))
}

fn stepped_down(target: &Target) -> Flow {
    let (trio, mut leader) = created(target)?;
    let mut batch = Batch::new(&trio, (leader + 1) % 3, "fail", 1)?;
    for _ in 0..3 {
        for _ in 0..5 {
            batch.send(false)?;
            batch.settle()?;
        }
        leader = step_down(&trio, leader)?;
    }
    batch.send(true)?;
    let answer = batch.end()?;
    want(answer["seq"] == 16 && answer["count"] == 16, || format!("{answer}"))?;
    arrived(target, &mut batch.js, "S", 16)
}

fn killed(target: &Target) -> Flow {
    let (mut trio, leader) = created(target)?;
    let mut batch = Batch::new(&trio, (leader + 1) % 3, "ok", 2)?;
    for _ in 0..10 {
        batch.send(false)?;
    }
    while !matches!(batch.hear()?, Word::Flow(10)) {}
    trio.servers[leader].kill();
    // Some of these come to nobody.
    for _ in 0..10 {
        batch.send(false)?;
    }
    wait("another leader", || trio.leader((leader + 1) % 3, "S").ok().filter(|next| *next != leader))?;
    batch.ping()?;
    batch.send(true)?;
    let answer = batch.end()?;
    want(answer["count"] == 21, || format!("{answer}"))?;
    let there = match target.name {
        "headwater" => batch.js.read_from("S", 1)?,
        // A consumer that is new while a server is away may give it nothing at first.
        _ => wait("what is there", || batch.js.read_from("S", 1).ok())?,
    };
    let numbers: Vec<u32> =
        there.iter().filter_map(|one| String::from_utf8_lossy(&one.payload).parse().ok()).collect();
    let is_right = numbers.is_sorted_by(|a, b| a < b)
        && numbers.starts_with(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        && numbers.last() == Some(&20)
        && answer["seq"] == numbers.len();
    want(is_right, || format!("{answer}: {numbers:?}"))
}

/// Batches that end at their first gap, while leaders change in the middle of them.
fn unbroken(target: &Target) -> Flow {
    let (trio, leader) = created(target)?;
    let batch = Batch::new(&trio, (leader + 1) % 3, "fail", 50)?;
    unbroken_from(target, (&trio, leader), batch)
}

fn unbroken_there(target: &Target) -> Flow {
    let (trio, leader) = created(target)?;
    let batch = Batch::new(&trio, leader, "fail", 50)?;
    unbroken_from(target, (&trio, leader), batch)
}

fn unbroken_from(target: &Target, (trio, mut leader): (&Trio, usize), mut batch: Batch) -> Flow {
    for _ in 0..10 {
        let mut asker = open(&trio.servers[(leader + 2) % 3])?;
        for number in 0..400 {
            if number == 200 {
                let reply = asker.inbox();
                asker.publish("$JS.API.STREAM.LEADER.STEPDOWN.S", &reply, b"")?;
            }
            batch.send(false)?;
        }
        leader = wait("another leader", || trio.leader(0, "S").ok().filter(|next| *next != leader))?;
    }
    batch.send(true)?;
    let answer = batch.end()?;
    want(answer["seq"] == 4001 && answer["count"] == 4001, || format!("{answer}"))?;
    arrived(target, &mut batch.js, "S", 4001)
}

fn bereft(target: &Target) -> Flow {
    let (mut trio, first) = created(target)?;
    let here = (first + 1) % 3;
    let mut count = 0;
    for round in 0..6 {
        let leader = trio.leader(here, "S")?;
        if leader == here {
            step_down(&trio, leader)?;
            continue;
        }
        // The last message, which nothing comes after, is in doubt as well.
        let (mut batch, struck) = (Batch::new(&trio, here, "fail", 20)?, 150 + 50 * (round % 4));
        for number in 0..300 {
            if number == struck {
                trio.servers[leader].kill();
            }
            batch.send(number == 299)?;
        }
        if struck == 300 {
            trio.servers[leader].kill();
        }
        let answer = batch.end()?;
        count += 300;
        want(answer["seq"] == count && answer["count"] == 300, || format!("round {round}: {answer}"))?;
        let there = batch.js.read_from("S", count - 299)?;
        let right = there.len() == 300
            && there
                .iter()
                .zip(0..)
                .all(|(one, number): (_, u32)| one.payload == number.to_string().as_bytes());
        want(right, || format!("round {round}: {} there", there.len()))?;
        trio.servers[leader].start_again()?;
        trio.await_health()?;
    }
    want(count > 0, || "nobody else led".to_owned())
}
