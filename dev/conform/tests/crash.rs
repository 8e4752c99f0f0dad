//! Killed without warning under load, again and again: what was acknowledged is there, once, in order, byte by byte, and
//! confirmed acknowledgements hold.
//!
//! `HEADWATER_CRASH_ROUNDS` says how often (default 5), `HEADWATER_CRASH_SEED` repeats a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use hw_conform::{Case, Cases, Delivered, Dice, Js, Lost, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

const PUBLISHERS: u64 = 3;
const WINDOW: usize = 64;
const STREAM: &str = "LOAD";

fn main() -> ExitCode {
    let rounds: u64 =
        std::env::var("HEADWATER_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let ours = targets().into_iter().filter(|target| target.name == "headwater");
    let encrypted = ours.map(|target| case(target, ", cipher: chacha, key: secret", rounds.div_ceil(2)));
    let cases = targets().into_iter().map(|target| case(target, "", rounds)).chain(encrypted).collect();
    run_all(Cases { cases, threads: 1 })
}

fn case(target: Target, settings: &'static str, rounds: u64) -> Case {
    let name = format!("{}: killed under load{settings}", target.name);
    let run = move || match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let ours = target.name == "headwater";
            // Small enough that most of what is read comes from segments and most restarts begin at a checkpoint.
            let config = ours.then(|| format!("jetstream {{ checkpoint_bytes: 400KB{settings} }}"));
            let launch = Launch { binary: binary.clone(), flags: vec!["-js".to_owned()], config };
            target.promised(Run::new(launch).and_then(|mut run| run.rounds(rounds)))
        }
    };
    Case { name, run: Box::new(run) }
}

/// What the clients know.
#[derive(Default)]
struct Known {
    /// By publisher: how many numbers were used.
    sent: BTreeMap<u64, u64>,
    /// By sequence: the publisher and its number.
    acked: BTreeMap<u64, (u64, u64)>,
    /// Sequences whose acknowledgement was confirmed before the server was killed last.
    held: BTreeSet<u64>,
    /// Those confirmed since: a redelivery may have been under way.
    confirmed: BTreeSet<u64>,
    /// Sequences that were acknowledged, confirmed or not.
    settled: BTreeSet<u64>,
    /// What must not be.
    wrong: Vec<String>,
    deliveries: u64,
}

struct Run {
    server: Server,
    known: Arc<Mutex<Known>>,
    dice: Dice,
    checked: u64,
}

type Shared = Arc<Mutex<Known>>;

fn lock(known: &Shared) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The payload is a function of who and what: nothing about it need be remembered.
fn payload(publisher: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice::new(publisher << 40 | number);
    let len = if dice.one_in(50) { dice.below(60_000) } else { dice.below(600) };
    let mut bytes = format!("{publisher}:{number}:").into_bytes();
    bytes.extend((0..len).map(|at| (at.wrapping_mul(number + 31) >> 3) as u8 ^ publisher as u8));
    bytes
}

fn read_payload(bytes: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let mut parts = text.split(':');
    let named = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (payload(named.0, named.1) == bytes).then_some(named)
}

impl Run {
    fn new(launch: Launch) -> Result<Run, String> {
        let server = Server::start(launch).map_err(|error| error.to_string())?;
        let dice = Dice::from_env("HEADWATER_CRASH_SEED");
        let run = Run { server, known: Shared::default(), dice, checked: 0 };
        let mut js = Js::open(run.server.port()).map_err(|error| error.to_string())?;
        let config = json!({ "name": STREAM, "subjects": ["load.*"], "allow_direct": true, "retention": "limits",
            "storage": "file", "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "discard": "old" });
        done(&js.api(&format!("STREAM.CREATE.{STREAM}"), &config))?;
        let config = json!({ "durable_name": "W", "ack_policy": "explicit", "ack_wait": 500_000_000,
            "max_ack_pending": 500 });
        let body = json!({ "stream_name": STREAM, "config": config });
        done(&js.api(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.W"), &body))?;
        Ok(run)
    }

    fn rounds(&mut self, rounds: u64) -> Result<(), String> {
        for round in 1..=rounds {
            let whole = round % 10 == 0 || round == rounds;
            let from = if whole { 1 } else { self.checked.saturating_sub(500).max(1) };
            let done = self.load_and_kill().and_then(|()| self.check(from));
            done.map_err(|what| format!("round {round} of {rounds}: {what}\n{}", tail(&self.server.log())))?;
            if whole {
                let known = lock(&self.known);
                println!(
                    "round {round}: {} acknowledged, {} confirmed, {} deliveries",
                    known.acked.len(),
                    known.held.len(),
                    known.deliveries
                );
            }
        }
        self.drain()?;
        self.check(1)
    }

    /// Clients work until the server dies in the middle of it.
    fn load_and_kill(&mut self) -> Result<(), String> {
        let (port, stop) = (self.server.port(), Arc::new(AtomicBool::new(false)));
        let (never, pause) = mpsc::sync_channel::<()>(1);
        let span = Duration::from_millis(30 + self.dice.below(500));
        let mut seeds = (0..2).map(|_| self.dice.below(u64::MAX)).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (known, stop) = (self.known.clone(), stop.clone());
                scope.spawn(move || publish(port, publisher, &known, &stop));
            }
            for seed in seeds.drain(..) {
                let (known, stop) = (self.known.clone(), stop.clone());
                scope.spawn(move || work(port, Dice::new(seed), &known, &stop));
            }
            // Nothing is ever sent: this is the time that the load lasts.
            let _ = pause.recv_timeout(span);
            let killed = self.server.signal("KILL").map_err(|error| error.to_string());
            stop.store(true, Ordering::Relaxed);
            drop(never);
            killed
        })?;
        self.server.kill9().map_err(|error| error.to_string())?;
        let mut known = lock(&self.known);
        let confirmed = std::mem::take(&mut known.confirmed);
        known.held.extend(confirmed);
        let wrong = std::mem::take(&mut known.wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Compares the stream from a sequence on with what is known.
    fn check(&mut self, from: u64) -> Result<(), String> {
        let text = |error: Lost| error.to_string();
        let mut js = Js::open(self.server.port()).map_err(text)?;
        let messages = js.read_from(STREAM, from).map_err(text)?;
        let info = js.api(&format!("STREAM.INFO.{STREAM}"), &Value::Null).map_err(text)?;
        let known = lock(&self.known);
        compare(&messages, &known, from)?;
        let last = messages.last().map_or(from.saturating_sub(1), |message| message.seq);
        let state = &info["state"];
        let wanted = json!([last, 1, last]);
        let got = json!([state["messages"], state["first_seq"], state["last_seq"]]);
        if last > 0 && got != wanted {
            return Err(format!("the stream's state is {got}, but {wanted} was read"));
        }
        let info = js.api(&format!("CONSUMER.INFO.{STREAM}.W"), &Value::Null).map_err(text)?;
        consumer(&info, last, &known)?;
        self.checked = last;
        drop(known);
        if let Some(first) = messages.first() {
            for _ in 0..5 {
                let seq = first.seq + self.dice.below(last - first.seq + 1);
                lookups(&mut js, &messages[(seq - first.seq) as usize])?;
            }
            last_ones(&mut js, &messages)?;
        }
        Ok(())
    }

    /// Works until nothing is left: everything was delivered.
    fn drain(&mut self) -> Result<(), String> {
        let text = |error: Lost| error.to_string();
        let mut js = Js::open(self.server.port()).map_err(text)?;
        loop {
            let info = js.api(&format!("CONSUMER.INFO.{STREAM}.W"), &Value::Null).map_err(text)?;
            if info["num_pending"] == 0 && info["num_ack_pending"] == 0 {
                break;
            }
            let messages = pull(&mut js, 200).map_err(text)?;
            settle(&mut js, &messages, &self.known, &mut Dice::new(1), false).map_err(text)?;
            let wrong = std::mem::take(&mut lock(&self.known).wrong);
            if !wrong.is_empty() {
                return Err(wrong.join("\n"));
            }
        }
        let known = lock(&self.known);
        let missed =
            (1..=self.checked).filter(|seq| !known.settled.contains(seq)).take(5).collect::<Vec<_>>();
        if missed.is_empty() { Ok(()) } else { Err(format!("never delivered, yet done: {missed:?}")) }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn done(answer: &Result<Value, Lost>) -> Result<(), String> {
    match answer {
        Ok(answer) if answer["error"].is_null() => Ok(()),
        Ok(answer) => Err(answer.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Publishes as fast as acknowledgements come, until the connection ends.
fn publish(port: u16, publisher: u64, known: &Shared, stop: &AtomicBool) {
    let Ok(mut js) = Js::open(port) else { return };
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    let subject = format!("load.{publisher}");
    while !stop.load(Ordering::Relaxed) {
        while open.len() < WINDOW {
            let number = {
                let mut known = lock(known);
                let sent = known.sent.entry(publisher).or_default();
                *sent += 1;
                *sent
            };
            let reply = js.inbox();
            open.insert(reply.clone(), number);
            if js.publish(&subject, &reply, &payload(publisher, number)).is_err() {
                return;
            }
        }
        let frame = match js.frame("a publish") {
            Ok(frame) => frame,
            Err(Lost::Gone(_)) => return,
            Err(silent) => return lock(known).wrong.push(silent.to_string()),
        };
        let Some(number) = frame.subject.and_then(|subject| open.remove(&subject)) else { continue };
        let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        let mut known = lock(known);
        match ack["seq"].as_u64() {
            Some(seq) if ack["error"].is_null() => {
                if let Some(other) = known.acked.insert(seq, (publisher, number)) {
                    known
                        .wrong
                        .push(format!("{seq} was acknowledged for {other:?} and {publisher}:{number}"));
                }
            }
            _ => known.wrong.push(format!("a publish was refused: {ack}")),
        }
    }
}

/// Pulls and acknowledges until the connection ends.
fn work(port: u16, mut dice: Dice, known: &Shared, stop: &AtomicBool) {
    let Ok(mut js) = Js::open(port) else { return };
    while !stop.load(Ordering::Relaxed) {
        let settled = pull(&mut js, 1 + dice.below(20))
            .and_then(|messages| settle(&mut js, &messages, known, &mut dice, true));
        match settled {
            Ok(()) => {}
            Err(Lost::Gone(_)) => return,
            Err(silent) => return lock(known).wrong.push(silent.to_string()),
        }
    }
}

fn pull(js: &mut Js, batch: u64) -> Result<Vec<Delivered>, Lost> {
    js.pull(STREAM, "W", &json!({ "batch": batch, "expires": 100_000_000 }))
}

/// Acknowledges with confirmation; `lazily`: some are refused or left alone.
fn settle(
    js: &mut Js,
    messages: &[Delivered],
    known: &Shared,
    dice: &mut Dice,
    lazily: bool,
) -> Result<(), Lost> {
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for message in messages {
        let mut known = lock(known);
        known.deliveries += 1;
        if known.held.contains(&message.seq) {
            known.wrong.push(format!("{} was confirmed and came again ({})", message.seq, message.count));
        }
        let named = read_payload(&message.payload);
        let acked = known.acked.get(&message.seq).copied();
        if named.is_none() || acked.is_some_and(|acked| Some(acked) != named) {
            known
                .wrong
                .push(format!("{} was delivered as {named:?}, acknowledged as {acked:?}", message.seq));
        }
        if lazily && dice.one_in(10) {
            drop(known);
            if dice.one_in(2) {
                js.publish(&message.reply, &message.reply.replace("$JS.ACK", "unheard"), b"-NAK")?;
            }
            continue;
        }
        known.settled.insert(message.seq);
        drop(known);
        let reply = js.inbox();
        js.publish(&message.reply, &reply, b"+ACK")?;
        open.insert(reply, message.seq);
    }
    while !open.is_empty() {
        let frame = js.frame("a confirmed acknowledgement")?;
        if let Some(seq) = frame.subject.and_then(|subject| open.remove(&subject))
            && frame.headers.is_empty()
        {
            lock(known).confirmed.insert(seq);
        }
    }
    Ok(())
}

/// Nothing is missing, invented, changed or out of order.
fn compare(messages: &[Delivered], known: &Known, from: u64) -> Result<(), String> {
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = from;
    for message in messages {
        if message.seq != next {
            return Err(format!("sequence {} comes where {next} should", message.seq));
        }
        next += 1;
        let Some((publisher, number)) = read_payload(&message.payload) else {
            return Err(format!("sequence {} holds what nobody sent", message.seq));
        };
        if message.subject != format!("load.{publisher}") || known.sent.get(&publisher) < Some(&number) {
            return Err(format!(
                "sequence {} holds {publisher}:{number} on {}",
                message.seq, message.subject
            ));
        }
        if newest.insert(publisher, number).is_some_and(|before| before >= number) {
            return Err(format!("sequence {}: {publisher}:{number} is out of order", message.seq));
        }
        if known.acked.get(&message.seq).is_some_and(|acked| *acked != (publisher, number)) {
            return Err(format!(
                "sequence {} holds {publisher}:{number}, acknowledged was another",
                message.seq
            ));
        }
    }
    match known.acked.range(next..).next() {
        Some((seq, named)) => {
            Err(format!("{named:?} was acknowledged as {seq}, but the stream ends before {next}"))
        }
        None => Ok(()),
    }
}

/// The consumer's numbers add up to what is known.
fn consumer(info: &Value, last: u64, known: &Known) -> Result<(), String> {
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let (pending, unacked) = (number(&info["num_pending"]), number(&info["num_ack_pending"]));
    let acked = last.checked_sub(pending).and_then(|rest| rest.checked_sub(unacked));
    let bounds = known.held.len() as u64..=known.settled.len() as u64;
    if !acked.is_some_and(|acked| bounds.contains(&acked)) {
        return Err(format!(
            "of {last} messages {pending} are pending and {unacked} unacknowledged, but {bounds:?}"
        ));
    }
    let floor = number(&info["ack_floor"]["stream_seq"]);
    match (1..=floor).find(|seq| !known.settled.contains(seq)) {
        Some(seq) => Err(format!("the ack floor is {floor}, but nobody acknowledged {seq}")),
        None => Ok(()),
    }
}

/// One message by every way that asks for one.
fn lookups(js: &mut Js, message: &Delivered) -> Result<(), String> {
    let text = |error: Lost| error.to_string();
    let body = json!({ "seq": message.seq });
    let got = js.api(&format!("STREAM.MSG.GET.{STREAM}"), &body).map_err(text)?;
    let data = got["message"]["data"].as_str().map(unbase64);
    if data.as_ref() != Some(&message.payload) {
        return Err(format!("STREAM.MSG.GET of {} gave {got}", message.seq));
    }
    let subject = format!("$JS.API.DIRECT.GET.{STREAM}");
    let got = js.request(&subject, body.to_string().as_bytes()).map_err(text)?;
    if got.payload != message.payload {
        return Err(format!("a direct get of {} gave {got}", message.seq));
    }
    Ok(())
}

/// The last message of each subject.
fn last_ones(js: &mut Js, messages: &[Delivered]) -> Result<(), String> {
    let text = |error: Lost| error.to_string();
    for publisher in 0..PUBLISHERS {
        let subject = format!("load.{publisher}");
        let Some(last) = messages.iter().rev().find(|message| message.subject == subject) else { continue };
        let got = js.request(&format!("$JS.API.DIRECT.GET.{STREAM}.{subject}"), b"").map_err(text)?;
        if got.payload != last.payload {
            return Err(format!("the last message of {subject} is {}, a direct get gave {got}", last.seq));
        }
    }
    let config = json!({ "name": "lasts", "deliver_policy": "last_per_subject", "ack_policy": "none",
        "filter_subject": "load.*" });
    let body = json!({ "stream_name": STREAM, "config": config });
    done(&js.api(&format!("CONSUMER.CREATE.{STREAM}.lasts.load.*"), &body))?;
    let request = json!({ "batch": PUBLISHERS + 1, "no_wait": true });
    let got: Vec<u64> =
        js.pull(STREAM, "lasts", &request).map_err(text)?.iter().map(|message| message.seq).collect();
    done(&js.api(&format!("CONSUMER.DELETE.{STREAM}.lasts"), &Value::Null))?;
    let mut lasts: BTreeMap<&str, u64> = BTreeMap::new();
    lasts.extend(messages.iter().map(|message| (message.subject.as_str(), message.seq)));
    let wanted: BTreeSet<u64> = lasts.into_values().collect();
    // Subjects whose last message is older than what was read are in the answer, too.
    match wanted.iter().find(|seq| !got.contains(seq)) {
        Some(seq) => Err(format!("last_per_subject gave {got:?}, without {seq}")),
        None => Ok(()),
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits =
            chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}
