//! Random clients from a seed: they make streams and consumers, publish, pull, acknowledge, purge and delete, and write
//! down what they tried and what they were told.

mod admin;
mod batch;
mod cluster;
mod consume;
mod keys;
mod publish;

pub use cluster::Cluster;
pub use consume::Delivery;
pub use keys::BUCKET;
pub use publish::is_schedule;

use std::collections::{BTreeMap, VecDeque};

use hw_kit::{ConnId, Rng, Span, Time};
use serde_json::Value;

use crate::client::{self, Msg};
use crate::history::{Existence, History, Outcome};
use crate::invariants;
use crate::world::{Happening, World};

/// A request must be answered within this, if neither the server nor the connection dies.
const ANSWER_WITHIN: Span = Span::from_secs(10);
/// How many streams there are at most.
const STREAMS_MAX: usize = 5;

/// What an answer is for.
#[derive(Clone, Debug)]
enum Pending {
    Publish(usize),
    Fast(usize),
    CreateStream(String),
    DeleteStream(String),
    Removal {
        stream: String,
        generation: u64,
        index: usize,
    },
    CreateConsumer {
        stream: String,
        generation: u64,
        consumer: String,
    },
    DeleteConsumer {
        stream: String,
        generation: u64,
        consumer: String,
    },
    Confirm {
        stream: String,
        generation: u64,
        consumer: String,
        seq: u64,
    },
    /// An operation of a client on a key.
    Key {
        key: String,
        index: usize,
    },
    /// A change of the cluster.
    Operate,
    Audit,
    AuditMany,
}

/// The clients and what they know.
pub struct Workload {
    /// What they know.
    pub history: History,
    rng: Rng,
    /// Makes and deletes.
    admin: usize,
    publishers: Vec<usize>,
    workers: Vec<usize>,
    /// Asks while all others are silent.
    auditor: usize,
    pending: BTreeMap<String, (usize, Pending, Time)>,
    /// Publishes that were answered, by where, and the connection that they were answered on.
    answered: BTreeMap<String, (usize, Option<ConnId>)>,
    answers: BTreeMap<String, VecDeque<Msg>>,
    tokens: u64,
    generations: u64,
    sessions: Vec<u64>,
    /// Nobody begins anything.
    pub paused: bool,
    /// The disk is full or has failed: requests may be refused or never answered.
    pub lenient: bool,
    /// Everything is pulled and confirmed, nothing is made.
    pub draining: bool,
    /// What there is in a cluster beside that.
    pub cluster: Option<Cluster>,
}

impl Workload {
    /// New clients in a world.
    pub fn new(seed: u64, world: &mut World) -> Workload {
        let mut rng = Rng::new(seed ^ 0x5eed_0002);
        let mut client = || world.add_client();
        let (admin, publishers, workers, auditor) =
            (client(), vec![client(), client()], vec![client(), client()], client());
        let clients = auditor + 1;
        for actor in 0..auditor {
            world.alarm(Span(rng.below(1_000_000) as i64), actor as u64);
        }
        Workload {
            history: History::default(),
            rng,
            admin,
            publishers,
            workers,
            auditor,
            pending: BTreeMap::new(),
            answered: BTreeMap::new(),
            answers: BTreeMap::new(),
            tokens: 0,
            generations: 0,
            sessions: vec![0; clients],
            paused: false,
            lenient: false,
            draining: false,
            cluster: None,
        }
    }

    /// The same in a cluster: an operator and clients that work on keys come in addition, and everybody is slower.
    pub fn of_cluster(seed: u64, world: &mut World) -> Workload {
        let mut workload = Workload::new(seed, world);
        workload.history.slack = Span::from_secs(3);
        workload.lenient = true;
        workload.cluster = Some(Cluster::new(&mut workload.rng, world));
        workload.sessions.resize(workload.sessions.len() + 8, 0);
        workload
    }

    /// Lets the world go on for so long.
    pub fn run(&mut self, world: &mut World, span: Span) -> Result<(), String> {
        let until = world.now() + span;
        while let Some(happening) = world.next(until)? {
            self.handle(world, happening);
        }
        self.check_answers(world)
    }

    /// One thing that happened.
    pub fn handle(&mut self, world: &mut World, happening: Happening) {
        self.history.loose = self.history.stuck || world.now() < self.history.loose_until;
        match happening {
            Happening::Alarm(actor) => self.act(world, actor as usize),
            Happening::Msg(client, msg) => self.hear(world, client, msg),
            Happening::Gone(client) => self.gone(client),
            Happening::Pong(_) => {}
            Happening::Error(client, text) => {
                self.history.violate("protocol", format!("client {client} was told -ERR {text}"));
            }
        }
    }

    /// Whether nothing waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Sends a request of the auditor and waits for the answer.
    pub fn ask(&mut self, world: &mut World, subject: &str, body: &Value) -> Result<Msg, String> {
        if self.cluster.is_some() {
            return self.ask_cluster(world, subject, body);
        }
        let token = self.ask_as_auditor(world, subject, (body, Pending::Audit))?;
        self.answer(world, &token, (subject, ANSWER_WITHIN))
    }

    /// Sends a request of the auditor that is answered by several messages and a status at their end.
    pub fn ask_many(&mut self, world: &mut World, subject: &str, body: &Value) -> Result<Vec<Msg>, String> {
        if self.cluster.is_some() {
            return self.ask_cluster_many(world, subject, body);
        }
        self.ask_many_once(world, subject, (body, ANSWER_WITHIN))
    }

    fn ask_many_once(
        &mut self,
        world: &mut World,
        subject: &str,
        (body, patience): (&Value, Span),
    ) -> Result<Vec<Msg>, String> {
        let token = self.ask_as_auditor(world, subject, (body, Pending::AuditMany))?;
        let mut all = Vec::new();
        loop {
            let msg = self.answer(world, &token, (subject, patience))?;
            if msg.status().is_none() {
                all.push(msg);
                continue;
            }
            self.pending.remove(&token);
            return match msg.status() {
                Some(204 | 404) => Ok(all),
                _ => Err(format!("{subject} gave {:?}", String::from_utf8_lossy(&msg.header))),
            };
        }
    }

    fn ask_as_auditor(
        &mut self,
        world: &mut World,
        subject: &str,
        (body, pending): (&Value, Pending),
    ) -> Result<String, String> {
        let until = world.now() + ANSWER_WITHIN;
        while !world.is_connected(self.auditor) {
            world.connect(self.auditor);
            if world.now() >= until {
                return Err("the auditor cannot connect".to_owned());
            }
            self.run(world, Span(100_000))?;
        }
        Ok(self.request(world, self.auditor, pending, (subject, &body.to_string())))
    }

    /// The next answer to a request of the auditor.
    fn answer(
        &mut self,
        world: &mut World,
        token: &str,
        (subject, patience): (&str, Span),
    ) -> Result<Msg, String> {
        let until = world.now() + patience;
        loop {
            let queued = self.answers.get_mut(token).and_then(VecDeque::pop_front);
            if let Some(msg) = queued {
                return Ok(msg);
            }
            match world.next(until)? {
                Some(happening) => self.handle(world, happening),
                None => {
                    return Err(format!("{subject} was not answered within {} ms", patience.millis()));
                }
            }
        }
    }

    fn act(&mut self, world: &mut World, actor: usize) {
        let pace = self.cluster.as_ref().map_or(1, |cluster| cluster.pace);
        let micros = pace * if actor == self.admin { 6000 } else { 2500 };
        world.alarm(Span((1000 * (100 + self.rng.below(micros))) as i64), actor as u64);
        if !world.is_connected(actor) {
            self.connect(world, actor);
            return;
        }
        if self.paused {
            return;
        }
        if self.rng.chance(1, 400) && !self.draining {
            self.history.count("disconnects");
            world.disconnect(actor);
            return;
        }
        if self.works_on_keys(actor) {
            self.act_on_key(world, actor);
        } else if self.workers.contains(&actor) {
            self.work(world, actor);
        } else if actor == self.admin && !self.draining {
            self.administrate(world);
        } else if self.publishers.contains(&actor) && !self.draining {
            self.publish(world, actor);
        }
    }

    fn hear(&mut self, world: &mut World, client: usize, msg: Msg) {
        if msg.reply.starts_with("$JS.ACK.") {
            return self.delivered(world, client, &msg);
        }
        if msg.subject.ends_with(".$FI") {
            return self.hurried(world, &msg);
        }
        let Some((_, pending, _)) = self.pending.remove(&msg.subject) else {
            // Who has moved to another server may get there what was on its way to where the client was before.
            let is_again = |(_, conn): &&(usize, _)| world.connection(client) == *conn;
            if let Some((index, _)) = self.answered.get(&msg.subject).filter(is_again) {
                self.history.violate("acked", format!("publish {index} is answered a second time"));
            }
            return;
        };
        match pending {
            Pending::Publish(index) => {
                if msg.status().is_none() {
                    self.answered.insert(msg.subject.clone(), (index, world.connection(client)));
                }
                self.published(world, index, &msg);
            }
            Pending::Key { key, index } => self.key_answered(world, (&key, index), &msg),
            Pending::Operate => {
                let answer = msg.json().unwrap_or_default();
                world.trace.line(world.now(), || format!("the operator is told {answer}"));
                let what = if answer["error"].is_null() { "operations" } else { "refused operations" };
                self.history.count(what);
            }
            Pending::Audit => self.answers.entry(msg.subject.clone()).or_default().push_back(msg),
            Pending::AuditMany => {
                // More may come.
                self.pending.insert(msg.subject.clone(), (client, Pending::AuditMany, world.now()));
                self.answers.entry(msg.subject.clone()).or_default().push_back(msg);
            }
            Pending::Confirm { stream, generation, consumer, seq } => {
                if msg.status() == Some(503) {
                    return;
                }
                if let Some(consumer) = self.consumer(&stream, generation, &consumer) {
                    consumer.confirmed.insert(seq);
                }
                self.history.count("confirmed acks");
            }
            pending => self.administrated(world, pending, &msg),
        }
    }

    /// A connection ended: its answers never come.
    fn gone(&mut self, client: usize) {
        self.sessions[client] += 1;
        let lost: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, (of, ..))| *of == client)
            .map(|(token, _)| token.clone())
            .collect();
        for token in lost {
            if let Some((_, pending, _)) = self.pending.remove(&token) {
                self.lost(pending);
            }
        }
    }

    /// An answer never comes: what it was for may have happened or not.
    /// Streams that were asked for, of which nobody knows whether they are there.
    pub fn streams_in_doubt(&self) -> Vec<String> {
        let asked = self.pending.values().filter_map(|(_, pending, _)| match pending {
            Pending::CreateStream(name) => Some(name.clone()),
            _ => None,
        });
        let unknown = self.history.streams.iter().filter(|(_, log)| log.existence == Existence::Unknown);
        asked.chain(unknown.map(|(name, _)| name.clone())).collect()
    }

    fn lost(&mut self, pending: Pending) {
        match pending {
            Pending::Publish(index) => self.history.end(index, Outcome::Lost),
            Pending::CreateStream(name) | Pending::DeleteStream(name) => {
                if let Some(stream) = self.history.streams.get_mut(&name) {
                    stream.existence = Existence::Unknown;
                }
            }
            Pending::CreateConsumer { stream, generation, consumer }
            | Pending::DeleteConsumer { stream, generation, consumer } => {
                if let Some(consumer) = self.consumer(&stream, generation, &consumer) {
                    consumer.existence = Existence::Unknown;
                }
            }
            Pending::Fast(_)
            | Pending::Removal { .. }
            | Pending::Confirm { .. }
            | Pending::Key { .. }
            | Pending::Operate
            | Pending::Audit
            | Pending::AuditMany => {}
        }
    }

    /// Sends a request; the token is the subject of its answer.
    fn request(
        &mut self,
        world: &mut World,
        client: usize,
        pending: Pending,
        (subject, body): (&str, &str),
    ) -> String {
        let token = self.expect(world, client, pending);
        let mut out = Vec::new();
        client::publish(&mut out, subject, &token, &[], body.as_bytes());
        world.trace.line(world.now(), || format!("c{client} asks {subject} {body}"));
        world.send(client, out);
        token
    }

    fn expect(&mut self, world: &World, client: usize, pending: Pending) -> String {
        self.tokens += 1;
        let token = format!("{}.t{}", world.inbox(client), self.tokens);
        self.pending.insert(token.clone(), (client, pending, world.now()));
        token
    }

    /// Requests that should have been answered long ago.
    fn check_answers(&mut self, world: &World) -> Result<(), String> {
        let now = world.now();
        let patience = if self.cluster.is_some() { cluster::PATIENCE } else { ANSWER_WITHIN };
        let is_late = |sent: Time| now.since(sent) > patience;
        let late: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, (client, _, sent))| world.is_connected(*client) && is_late(*sent))
            .map(|(token, _)| token.clone())
            .collect();
        for token in late {
            let Some((_, pending, _)) = self.pending.remove(&token) else { continue };
            if self.lenient {
                self.lost(pending);
                continue;
            }
            if self.may_stay_silent(&pending) {
                continue;
            }
            return Err(format!("{pending:?} was never answered"));
        }
        Ok(())
    }

    /// What was on its way to a stream that was deleted meanwhile.
    fn may_stay_silent(&mut self, pending: &Pending) -> bool {
        let of = match pending {
            Pending::Publish(index) => {
                self.history.end(*index, Outcome::Lost);
                let attempt = &self.history.attempts[*index];
                (attempt.stream.clone(), attempt.generation)
            }
            Pending::Fast(batch) => {
                let first = self.history.fast[*batch].messages.start;
                let attempt = &self.history.attempts[first];
                (attempt.stream.clone(), attempt.generation)
            }
            Pending::Removal { stream, generation, .. } | Pending::Confirm { stream, generation, .. } => {
                (stream.clone(), *generation)
            }
            _ => return false,
        };
        self.history.streams.get(&of.0).is_none_or(|stream| stream.generation != of.1 || stream.delete_tried)
    }

    fn consumer(
        &mut self,
        stream: &str,
        generation: u64,
        consumer: &str,
    ) -> Option<&mut crate::history::ConsumerLog> {
        let stream = self.history.streams.get_mut(stream).filter(|stream| stream.generation == generation)?;
        stream.consumers.get_mut(consumer)
    }

    /// A stream that is there for certain.
    fn some_stream(&mut self) -> Option<String> {
        let there: Vec<&String> = self
            .history
            .streams
            .iter()
            .filter(|(_, stream)| stream.existence == Existence::Yes)
            .map(|(name, _)| name)
            .collect();
        let at = self.rng.below(there.len() as u64) as usize;
        there.get(at).map(|name| (*name).clone())
    }

    /// What was unknown because an answer was lost in a restart is settled by what an audit found; memory streams are
    /// gone.
    pub fn settle_unknown(&mut self, is_there: &dyn Fn(&str, Option<&str>) -> bool) {
        for (name, stream) in &mut self.history.streams {
            if stream.existence == Existence::Unknown {
                stream.existence = if is_there(name, None) { Existence::Yes } else { Existence::No };
            }
            for (consumer, log) in &mut stream.consumers {
                if log.existence == Existence::Unknown {
                    log.existence =
                        if is_there(name, Some(consumer)) { Existence::Yes } else { Existence::No };
                }
            }
        }
    }

    /// The server was restarted.
    pub fn restarted(&mut self) {
        for stream in self.history.streams.values_mut() {
            stream.survived = true;
            if stream.shape.memory {
                stream.existence = Existence::No;
            }
        }
        self.history.streams.retain(|_, stream| !stream.shape.memory);
    }

    /// What was found on the way.
    pub fn take_violation(&mut self) -> Option<crate::history::Violation> {
        (!self.history.violations.is_empty()).then(|| self.history.violations.remove(0))
    }

    fn published(&mut self, world: &mut World, index: usize, msg: &Msg) {
        let now = world.now();
        let attempt = &mut self.history.attempts[index];
        let answer = msg.json().unwrap_or_default();
        world.trace.line(now, || format!("publish {index} answered {answer}"));
        if msg.status() == Some(503) || answer.get("error").is_some() {
            let refused = if attempt.batch.is_some() { "refused batches" } else { "refused publishes" };
            self.history.end(index, Outcome::Refused);
            self.history.count(refused);
            return;
        }
        let (Some(stream), Some(seq)) = (answer["stream"].as_str(), answer["seq"].as_u64()) else {
            let text = format!("publish {index} was answered with {msg:?}");
            return self.history.violate("protocol", text);
        };
        if stream != attempt.stream {
            let text = format!("publish {index} for {} went into {stream}", attempt.stream);
            return self.history.violate("acked", text);
        }
        let duplicate = answer["duplicate"] == true;
        if let Some(batch) = attempt.batch.clone() {
            return self.committed(world, (index, batch), (seq, &answer));
        }
        attempt.outcome = Outcome::Acked { seq, at: now, duplicate };
        self.history.count(if duplicate { "duplicates" } else { "acked publishes" });
        invariants::acked::on_ack(&mut self.history, index);
    }
}
