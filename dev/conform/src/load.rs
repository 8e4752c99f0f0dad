//! Work that a server is killed or loses its power under: publishers, consumers that acknowledge with confirmation, and keys
//! that are overwritten, purged and deleted; and what the clients know afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use crate::judge::{self, done};
use crate::keys::{Keys, WORKERS};
use crate::{Delivered, Dice, Js, Lost};

pub(crate) const PUBLISHERS: u64 = 3;
const WINDOW: usize = 64;
pub(crate) const STREAM: &str = "LOAD";

/// What the clients know.
#[derive(Default)]
pub(crate) struct Known {
    /// By publisher: how many numbers were used.
    pub(crate) sent: BTreeMap<u64, u64>,
    /// By sequence: the publisher and its number.
    pub(crate) acked: BTreeMap<u64, (u64, u64)>,
    /// Sequences whose acknowledgement was confirmed before the server was killed last.
    pub(crate) held: BTreeSet<u64>,
    /// Those confirmed since: a redelivery may have been under way.
    confirmed: BTreeSet<u64>,
    /// Sequences that were acknowledged, confirmed or not.
    pub(crate) settled: BTreeSet<u64>,
    /// What must not be.
    wrong: Vec<String>,
    deliveries: u64,
}

type Shared = Arc<Mutex<Known>>;

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
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

pub(crate) fn read_payload(bytes: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let mut parts = text.split(':');
    let named = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (payload(named.0, named.1) == bytes).then_some(named)
}

/// Clients and what they know of one server's store.
pub struct Load {
    known: Shared,
    keys: Vec<Arc<Mutex<Keys>>>,
    dice: Dice,
    checked: u64,
}

impl Load {
    /// Makes the streams and the consumer on a new server.
    pub fn begin(port: u16, dice: Dice) -> Result<Load, String> {
        let mut js = Js::open(port).map_err(|error| error.to_string())?;
        let config = json!({ "name": STREAM, "subjects": ["load.*"], "allow_direct": true, "retention": "limits",
            "storage": "file", "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "discard": "old" });
        done(&js.api(&format!("STREAM.CREATE.{STREAM}"), &config))?;
        let config = json!({ "durable_name": "W", "ack_policy": "explicit", "ack_wait": 500_000_000,
            "max_ack_pending": 500 });
        let body = json!({ "stream_name": STREAM, "config": config });
        done(&js.api(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.W"), &body))?;
        Keys::make_stream(&mut js)?;
        let keys = (0..WORKERS).map(|worker| Arc::new(Mutex::new(Keys::new(worker)))).collect();
        Ok(Load { known: Shared::default(), keys, dice, checked: 0 })
    }

    /// A number below `n`, from the same seed as everything else.
    pub fn below(&mut self, n: u64) -> u64 {
        self.dice.below(n)
    }

    /// Clients work until `end` has ended the server in the middle of it.
    pub fn run(&mut self, port: u16, end: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut seeds = (0..2).map(|_| self.dice.below(u64::MAX)).collect::<Vec<_>>();
        let ended = std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (known, stop) = (self.known.clone(), stop.clone());
                scope.spawn(move || publish(port, publisher, &known, &stop));
            }
            for seed in seeds.drain(..) {
                let (known, stop) = (self.known.clone(), stop.clone());
                scope.spawn(move || work(port, Dice::new(seed), &known, &stop));
            }
            for keys in &self.keys {
                let (keys, stop, dice) = (keys.clone(), stop.clone(), Dice::new(self.dice.below(u64::MAX)));
                scope.spawn(move || lock(&keys).work(port, dice, &stop));
            }
            let ended = end();
            stop.store(true, Ordering::Relaxed);
            ended
        });
        let mut known = lock(&self.known);
        let confirmed = std::mem::take(&mut known.confirmed);
        known.held.extend(confirmed);
        let mut wrong = std::mem::take(&mut known.wrong);
        self.keys.iter().for_each(|keys| wrong.append(&mut lock(keys).wrong));
        if wrong.is_empty() { ended } else { Err(wrong.join("\n")) }
    }

    /// Compares what the server has with what is known: everything, or what is new and a little of the rest.
    pub fn check(&mut self, port: u16, whole: bool) -> Result<(), String> {
        let from = if whole { 1 } else { self.checked.saturating_sub(500).max(1) };
        let text = |error: Lost| error.to_string();
        let mut js = Js::open(port).map_err(text)?;
        let messages = js.read_from(STREAM, from).map_err(text)?;
        let info = js.api(&format!("STREAM.INFO.{STREAM}"), &Value::Null).map_err(text)?;
        let known = lock(&self.known);
        judge::compare(&messages, &known, from)?;
        let last = messages.last().map_or(from.saturating_sub(1), |message| message.seq);
        let state = &info["state"];
        let wanted = json!([last, 1, last]);
        let got = json!([state["messages"], state["first_seq"], state["last_seq"]]);
        if last > 0 && got != wanted {
            return Err(format!("the stream's state is {got}, but {wanted} was read"));
        }
        let info = js.api(&format!("CONSUMER.INFO.{STREAM}.W"), &Value::Null).map_err(text)?;
        judge::consumer(&info, last, &known)?;
        self.checked = last;
        drop(known);
        if let Some(first) = messages.first() {
            for _ in 0..5 {
                let seq = first.seq + self.dice.below(last - first.seq + 1);
                judge::lookups(&mut js, &messages[(seq - first.seq) as usize])?;
            }
            judge::last_ones(&mut js, &messages)?;
        }
        let mut live = 0;
        for keys in &self.keys {
            live += lock(keys).check(&mut js)?;
        }
        Keys::check_count(&mut js, live)
    }

    /// Works until nothing is left: everything was delivered.
    pub fn drain(&mut self, port: u16) -> Result<(), String> {
        let text = |error: Lost| error.to_string();
        let mut js = Js::open(port).map_err(text)?;
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

    /// How much the clients know.
    pub fn summary(&self) -> String {
        let known = lock(&self.known);
        let keys: u64 = self.keys.iter().map(|keys| lock(keys).done).sum();
        let (acked, held, deliveries) = (known.acked.len(), known.held.len(), known.deliveries);
        format!("{acked} acknowledged, {held} confirmed, {deliveries} deliveries, {keys} changes of keys")
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
