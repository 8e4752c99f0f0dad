//! One seed of a cluster: work and faults, then peace and the judgement.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hw_kit::{Rng, Span, Time};
use serde_json::{Value, json};

use super::world::{Happening, World};
use crate::client::{self, Msg};
use crate::history::Violation;
use crate::server::Setup;
use crate::simulate::{Failure, Plan, Report};
use crate::trace::Trace;

const CLIENTS: usize = 3;
const STREAM: &str = "S";

/// A server that was lost is replaced, and everything is healed, within this.
const PEACE: Span = Span::from_secs(10);

/// A publish is repeated under its id no later than this, well within the streams' window for duplicates.
const REPEATED_WITHIN: Span = Span::from_secs(60);

#[derive(Clone, Debug)]
struct Sent {
    subject: String,
    payload: String,
    since: Time,
    seq: Option<u64>,
}

struct Run {
    world: World,
    rng: Rng,
    sent: Vec<Sent>,
    asked: BTreeMap<String, Value>,
    waiting: BTreeMap<String, usize>,
    last_reply: u64,
    counts: BTreeMap<&'static str, u64>,
}

fn violation(invariant: &'static str, text: impl Into<String>) -> Violation {
    Violation { invariant, text: text.into() }
}

/// Runs a seed.
pub fn simulate_cluster(plan: Plan) -> Result<Report, Failure> {
    let run = || Run::new(plan).finish();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(violation("no panic", text.unwrap_or_default()))
    });
    result.map_err(|violation| Failure { seed: plan.seed, violation })
}

impl Run {
    fn new(plan: Plan) -> Run {
        let mut rng = Rng::new(plan.seed);
        let setup = Setup {
            shards: 1 + rng.below(2) as u16,
            checkpoint_bytes: [2 << 10, 8 << 10, 40 << 10][rng.below(3) as usize],
            wal_bytes: 144 << 10,
            planted: plan.planted,
        };
        let servers = if rng.chance(1, 4) { 5 } else { 3 };
        let mut world = World::new(plan.seed, setup, servers, Trace::new(plan.trace));
        for _ in 0..CLIENTS {
            world.add_client();
        }
        Run {
            world,
            rng,
            sent: Vec::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_reply: 0,
            counts: BTreeMap::new(),
        }
    }

    fn finish(mut self) -> Result<Report, Violation> {
        let start = self.world.now();
        for host in 0..self.world.servers() {
            self.boot(host)?;
        }
        self.create()?;
        for _ in 0..2 + self.rng.below(4) {
            self.work()?;
            self.fault()?;
        }
        self.heal()?;
        self.judge()?;
        Ok(Report {
            hash: self.world.trace.hash(),
            events: self.world.trace.events(),
            time: self.world.now().since(start),
            counts: self.counts,
        })
    }

    fn boot(&mut self, host: usize) -> Result<(), Violation> {
        self.world.boot(host).map_err(|text| violation("a server starts", text))
    }

    /// Lets things happen for a while.
    fn pass(&mut self, span: Span) -> Result<(), Violation> {
        let until = self.world.now() + span;
        while let Some(happening) = self.world.next(until).map_err(|text| violation("sane", text))? {
            self.take(happening)?;
        }
        Ok(())
    }

    fn take(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Msg(msg) => self.message(&msg),
            Happening::Gone => Ok(()),
        }
    }

    fn message(&mut self, msg: &Msg) -> Result<(), Violation> {
        let json = msg.json();
        if let Some(at) = self.waiting.remove(&msg.subject) {
            let seq = json
                .as_ref()
                .filter(|json| json.get("error").is_none())
                .and_then(|json| json["seq"].as_u64());
            let Some(seq) = seq else { return Ok(()) };
            let before = self.sent[at].seq.replace(seq);
            if before.is_some_and(|before| before != seq) {
                let text = format!("{:?} was acknowledged at {before:?} and at {seq}", self.sent[at].payload);
                return Err(violation("one place", text));
            }
            self.count("acks");
            if json.is_some_and(|json| json["duplicate"] == true) {
                self.count("duplicates");
            }
            return Ok(());
        }
        self.asked.insert(msg.subject.clone(), json.unwrap_or(Value::Null));
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Sends a message, for the first time or again, under its id.
    fn publish(&mut self, client: usize, at: usize) {
        self.last_reply += 1;
        let reply = format!("{}.p{}", self.world.inbox(client), self.last_reply);
        let Sent { subject, payload, .. } = &self.sent[at];
        let mut bytes = Vec::new();
        let id = [format!("Nats-Msg-Id: m{at}")];
        client::publish(&mut bytes, subject, &reply, &id, payload.as_bytes());
        self.world.send(client, bytes);
        self.waiting.insert(reply, at);
    }

    /// The messages that were not acknowledged and may be sent again.
    fn unanswered(&self) -> Vec<usize> {
        let is_open =
            |sent: &Sent| sent.seq.is_none() && self.world.now().since(sent.since) < REPEATED_WITHIN;
        (0..self.sent.len()).filter(|at| is_open(&self.sent[*at])).collect()
    }

    /// When all is well, every message is taken that is repeated until it is.
    fn repeat(&mut self) -> Result<(), Violation> {
        let until = self.world.now() + PEACE;
        loop {
            let open = self.unanswered();
            if open.is_empty() {
                return Ok(());
            }
            if self.world.now() > until {
                return Err(violation("progress", format!("{} messages are not taken", open.len())));
            }
            self.connect_all();
            self.pass(Span::from_millis(5))?;
            for at in open {
                let client = self.rng.below(CLIENTS as u64) as usize;
                self.publish(client, at);
                self.count("repeated publishes");
            }
            self.pass(Span::from_millis(500))?;
        }
    }

    fn connect_all(&mut self) {
        for client in 0..CLIENTS {
            let host = self.rng.below(self.world.servers() as u64) as usize;
            if !self.world.is_connected(client) {
                self.world.connect(client, host);
            }
        }
    }

    /// Asks until there is an answer that is no failure to serve.
    fn ask(&mut self, subject: &str, body: &Value, until: Time) -> Result<Value, Violation> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        loop {
            self.connect_all();
            self.pass(Span::from_millis(5))?;
            let client = self.rng.below(CLIENTS as u64) as usize;
            self.last_reply += 1;
            let reply = format!("{}.q{}", self.world.inbox(client), self.last_reply);
            let mut bytes = Vec::new();
            client::publish(&mut bytes, subject, &reply, &[], &body);
            self.world.send(client, bytes);
            self.pass(Span::from_millis(150))?;
            if let Some(answer) = self.asked.remove(&reply) {
                let code = answer["error"]["err_code"].as_u64();
                if !answer.is_null() && !matches!(code, Some(10008 | 10005)) {
                    return Ok(answer);
                }
            }
            if self.world.now() > until {
                return Err(violation("progress", format!("nobody answers {subject}")));
            }
        }
    }

    fn create(&mut self) -> Result<(), Violation> {
        let replicas = if self.world.servers() == 5 && self.rng.chance(1, 2) { 5 } else { 3 };
        let config =
            json!({ "name": STREAM, "subjects": ["s.>"], "num_replicas": replicas, "storage": "file" });
        let until = self.world.now() + PEACE;
        let answer = self.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config, until)?;
        match answer["config"]["name"].as_str() {
            Some(STREAM) => Ok(()),
            _ => Err(violation("a stream is created", answer.to_string())),
        }
    }

    fn work(&mut self) -> Result<(), Violation> {
        for _ in 0..5 + self.rng.below(30) {
            self.connect_all();
            for _ in 0..1 + self.rng.below(8) {
                let client = self.rng.below(CLIENTS as u64) as usize;
                if !self.world.is_connected(client) {
                    continue;
                }
                let open = if self.rng.chance(1, 8) { self.unanswered() } else { Vec::new() };
                if !open.is_empty() {
                    self.count("repeated publishes");
                    let at = open[self.rng.below(open.len() as u64) as usize];
                    self.publish(client, at);
                    continue;
                }
                let (at, subject) = (self.sent.len(), format!("s.{}", self.rng.below(5)));
                let payload = format!("message {at} {}", "x".repeat(self.rng.below(200) as usize));
                let since = self.world.now();
                self.sent.push(Sent { subject, payload, since, seq: None });
                self.publish(client, at);
            }
            let longest = if self.rng.chance(1, 20) { 300_000_000 } else { 3_000_000 };
            let wait = self.rng.below(longest);
            self.pass(Span(wait as i64))?;
        }
        Ok(())
    }

    fn fault(&mut self) -> Result<(), Violation> {
        let servers = self.world.servers();
        let host = self.rng.below(servers as u64) as usize;
        match self.rng.below(8) {
            0 | 1 => {
                self.count("kills");
                self.world.kill(host);
            }
            2 => {
                self.count("power cuts");
                self.world.power_cut(host);
            }
            3 => {
                self.count("blackouts");
                (0..servers).for_each(|host| self.world.power_cut(host));
            }
            4 => {
                self.count("partitions");
                for other in (0..servers).filter(|other| *other != host) {
                    self.world.cut(host, other);
                    self.world.cut(other, host);
                }
            }
            5 => {
                self.count("broken links");
                let other = (host + 1 + self.rng.below(servers as u64 - 1) as usize) % servers;
                self.world.break_link(host, other);
            }
            6 => {
                self.count("power cuts of some");
                for host in 0..servers {
                    if self.rng.chance(1, 2) {
                        self.world.power_cut(host);
                    }
                }
            }
            _ => {
                self.count("half links");
                let other = (host + 1 + self.rng.below(servers as u64 - 1) as usize) % servers;
                self.world.cut(host, other);
            }
        }
        if self.rng.chance(2, 3) {
            self.work()?;
        }
        self.heal()
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.world.heal();
        for host in 0..self.world.servers() {
            if !self.world.is_up(host) {
                self.boot(host)?;
            }
        }
        Ok(())
    }

    /// What was acknowledged is there, once, in order, with its bytes; nothing else is; all replicas agree.
    fn judge(&mut self) -> Result<(), Violation> {
        // What is on its way arrives, and who is not answered by then is not answered any more.
        self.pass(Span::from_secs(2))?;
        self.repeat()?;
        self.waiting.clear();
        let until = self.world.now() + PEACE;
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), &Value::Null, until)?;
        let last = info["state"]["last_seq"].as_u64();
        let last = last.ok_or_else(|| violation("a stream stays", info.to_string()))?;
        let mut stored = BTreeMap::new();
        for seq in 1..=last {
            let until = self.world.now() + PEACE;
            let get = self.ask(&format!("$JS.API.STREAM.MSG.GET.{STREAM}"), &json!({ "seq": seq }), until)?;
            let data = get["message"]["data"].as_str().unwrap_or_default();
            let data = String::from_utf8_lossy(&STANDARD.decode(data).unwrap_or_default()).into_owned();
            stored.insert(seq, data);
        }
        let mut places: BTreeMap<&str, u64> = BTreeMap::new();
        for (seq, payload) in &stored {
            if !self.sent.iter().any(|sent| sent.payload == *payload) {
                return Err(violation("nothing is invented", format!("message {seq}: {payload:?}")));
            }
            if let Some(other) = places.insert(payload, *seq) {
                return Err(violation("once", format!("{payload:?} is at {other} and at {seq}")));
            }
        }
        for sent in &self.sent {
            let Some(seq) = sent.seq else { continue };
            if stored.get(&seq) != Some(&sent.payload) {
                let found = stored.get(&seq);
                return Err(violation(
                    "acknowledged is kept",
                    format!("{:?} was acknowledged at {seq}, where {found:?} is", sent.payload),
                ));
            }
        }
        self.agree()
    }

    fn agree(&mut self) -> Result<(), Violation> {
        let mut known: BTreeMap<(String, u64), (usize, u64)> = BTreeMap::new();
        let (mut lowest, mut highest) = (u64::MAX, 0);
        for host in 0..self.world.servers() {
            for (name, applied, fingerprint) in self.world.replicas(host) {
                (lowest, highest) = (lowest.min(applied), highest.max(applied));
                let (other, first) = *known.entry((name.clone(), applied)).or_insert((host, fingerprint));
                if first != fingerprint {
                    let text = format!("{name} at entry {applied}: servers {other} and {host} differ");
                    return Err(violation("replicas agree", text));
                }
            }
        }
        if lowest != highest {
            return Err(violation("replicas catch up", format!("entries {lowest} and {highest}")));
        }
        Ok(())
    }
}
