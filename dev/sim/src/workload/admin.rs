//! Making and deleting: streams, consumers, messages. One request at a time.

use hw_kit::Span;
use serde_json::{Value, json};

use crate::client::Msg;
use crate::history::{AckPolicy, ConsumerLog, Existence, Removal, Removed, Retention, Shape, StreamLog};
use crate::world::World;

use super::publish::subject;
use super::{Pending, STREAMS_MAX, Workload, cluster};

impl Workload {
    pub(super) fn administrate(&mut self, world: &mut World) {
        if self.pending.values().any(|(client, ..)| *client == self.admin) {
            return;
        }
        let streams =
            self.history.streams.values().filter(|stream| stream.existence == Existence::Yes).count();
        if self.cluster.is_some() && self.rng.chance(1, 4) && streams > 0 {
            return self.operate(world);
        }
        match self.rng.below(20) {
            _ if streams < 2 => self.create_stream(world),
            0..=2 if streams < STREAMS_MAX => self.create_stream(world),
            3 if streams > 3 => self.delete_stream(world),
            4..=5 => self.purge(world),
            6..=8 => self.delete_message(world),
            9..=14 => self.create_consumer(world),
            15 => self.delete_consumer(world),
            _ => {}
        }
    }

    fn create_stream(&mut self, world: &mut World) {
        let names = (0..STREAMS_MAX as u64 + 2).map(|number| format!("S{number}"));
        let is_free = |name: &String| {
            !self.history.unreachable.contains(name)
                && self.history.streams.get(name).is_none_or(|stream| stream.existence == Existence::No)
        };
        let free: Vec<String> = names.filter(is_free).collect();
        if free.is_empty() {
            return;
        }
        let name = free[self.rng.below(free.len() as u64) as usize].clone();
        let shape = self.shape();
        self.generations += 1;
        let generation = self.generations;
        let config = stream_config(&name, generation, &shape);
        self.history.streams.insert(name.clone(), StreamLog::new(shape, generation));
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        self.request(world, self.admin, Pending::CreateStream(name), (&subject, &config.to_string()));
    }

    fn shape(&mut self) -> Shape {
        let rng = &mut self.rng;
        let retention = match rng.below(5) {
            0 => Retention::WorkQueue,
            1 => Retention::Interest,
            _ => Retention::Limits,
        };
        let mut some = |chance: u64, from: u64, range: u64| {
            let value = from + rng.below(range);
            rng.chance(1, chance).then_some(value)
        };
        let max_msgs = some(3, 5, 60);
        let max_per_subject = some(3, 1, 4);
        let max_age = some(5, 150, 400).map(|ms| Span::from_millis(ms as i64));
        let discard_new = retention == Retention::Limits && max_msgs.is_some() && rng.chance(1, 3);
        let replicas = self.cluster.as_ref().map_or(1, |cluster| cluster.replicas(rng));
        // What one server alone has in memory is lost with it.
        let memory = rng.chance(1, 8) && (replicas > 1 || self.cluster.is_none());
        Shape { replicas, retention, memory, max_msgs, max_per_subject, max_age, discard_new }
    }

    fn delete_stream(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        if let Some(stream) = self.history.streams.get_mut(&name) {
            stream.delete_tried = true;
            stream.existence = Existence::Unknown;
        }
        let subject = format!("$JS.API.STREAM.DELETE.{name}");
        self.request(world, self.admin, Pending::DeleteStream(name), (&subject, ""));
    }

    fn purge(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        let Some(stream) = self.history.streams.get(&name) else { return };
        let (generation, last) = (stream.generation, stream.last_seq);
        let filter = self.rng.chance(1, 2).then(|| subject(&name, generation, self.rng.below(5)));
        let (mut before, mut keep) = (0, 0);
        match self.rng.below(4) {
            0 => before = self.rng.below(last + 3),
            1 => keep = 1 + self.rng.below(5),
            _ => {}
        }
        let mut body = json!({});
        if let Some(filter) = &filter {
            body["filter"] = json!(filter);
        }
        if before > 0 {
            body["seq"] = json!(before);
        }
        if keep > 0 {
            body["keep"] = json!(keep);
        }
        let what = Removed::Purge { filter, before, keep };
        self.remove(world, &name, what, (format!("$JS.API.STREAM.PURGE.{name}"), body));
    }

    fn delete_message(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        let last = self.history.streams.get(&name).map_or(0, |stream| stream.last_seq);
        if last == 0 {
            return;
        }
        let seq = last - self.rng.below(last.min(12));
        let erase = self.rng.chance(1, 2);
        let body = json!({ "seq": seq, "no_erase": !erase });
        self.remove(
            world,
            &name,
            Removed::Message { seq, erase },
            (format!("$JS.API.STREAM.MSG.DELETE.{name}"), body),
        );
    }

    fn remove(&mut self, world: &mut World, name: &str, what: Removed, (subject, body): (String, Value)) {
        let Some(stream) = self.history.streams.get_mut(name) else { return };
        let (generation, index) = (stream.generation, stream.removals.len());
        stream.removals.push(Removal { what, sent: world.now(), done: None, refused: false });
        let pending = Pending::Removal { stream: name.to_owned(), generation, index };
        self.request(world, self.admin, pending, (&subject, &body.to_string()));
    }

    fn create_consumer(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        let Some(stream) = self.history.streams.get(&name) else { return };
        let (generation, retention) = (stream.generation, stream.shape.retention);
        let there = stream.consumers.values().filter(|consumer| consumer.existence != Existence::No).count();
        if there >= 3 {
            return;
        }
        let consumer = format!("C{}", self.tokens);
        let filter = self.rng.chance(1, 3).then(|| subject(&name, generation, self.rng.below(5)));
        // Others than pulls with acknowledgements: in clusters, where more of them is kept beside the log.
        let is_cluster = self.cluster.is_some();
        let ack = match retention {
            Retention::Limits if is_cluster && self.rng.chance(1, 6) => AckPolicy::None,
            Retention::Limits if self.rng.chance(1, 4) => AckPolicy::All,
            _ => AckPolicy::Explicit,
        };
        let owner = self.workers[self.rng.below(self.workers.len() as u64) as usize];
        let mut log = ConsumerLog::new(filter.clone(), ack, owner);
        log.pushes = is_cluster && self.rng.chance(1, 4);
        // What is pushed while nobody may acknowledge it would be given up.
        let may_exhaust = !log.pushes && ack != AckPolicy::None;
        log.max_deliver = (may_exhaust && self.rng.chance(1, 6)).then(|| 3 + self.rng.below(3));
        let mut config = self.consumer_config(&consumer, &log);
        if log.pushes {
            config["deliver_subject"] = json!(format!("{}.push", world.inbox(owner)));
        }
        let mut subject = format!("$JS.API.CONSUMER.CREATE.{name}.{consumer}");
        if let Some(filter) = filter {
            config["filter_subject"] = json!(filter);
            subject = format!("{subject}.{filter}");
        }
        let body = json!({ "stream_name": name, "config": config, "action": "create" });
        if let Some(stream) = self.history.streams.get_mut(&name) {
            stream.consumers.insert(consumer.clone(), log);
        }
        let pending = Pending::CreateConsumer { stream: name, generation, consumer };
        self.request(world, self.admin, pending, (&subject, &body.to_string()));
    }

    fn consumer_config(&mut self, name: &str, log: &ConsumerLog) -> Value {
        let pace = self.cluster.as_ref().map_or(1, |cluster| cluster.pace as i64);
        let mut config = json!({
            "name": name,
            "deliver_policy": "all",
            "ack_policy": match log.ack {
                AckPolicy::All => "all",
                AckPolicy::Explicit => "explicit",
                AckPolicy::None => "none",
            },
            "max_deliver": log.max_deliver.map_or(-1, |max| max as i64),
            "replay_policy": "instant",
        });
        match self.cluster.is_some() && self.rng.chance(1, 6) {
            // Longer than any run: its clients are silent for long.
            true => config["inactive_threshold"] = json!(Span::from_secs(3600).0),
            false => config["durable_name"] = json!(name),
        }
        if log.ack != AckPolicy::None {
            let wait = Span::from_millis(pace.min(10) * (20 + self.rng.below(80) as i64));
            config["ack_wait"] = json!(wait.0);
            if self.rng.chance(1, 3) {
                config["max_ack_pending"] = json!(2 + self.rng.below(10));
            }
        }
        config
    }

    fn delete_consumer(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        let Some(stream) = self.history.streams.get_mut(&name) else { return };
        let there = stream.consumers.iter_mut().filter(|(_, consumer)| consumer.existence == Existence::Yes);
        let mut there: Vec<_> = there.collect();
        if there.is_empty() {
            return;
        }
        let at = self.rng.below(there.len() as u64) as usize;
        let (consumer, log) = &mut there[at];
        log.delete_tried = true;
        log.existence = Existence::Unknown;
        let (consumer, generation) = ((*consumer).clone(), stream.generation);
        let subject = format!("$JS.API.CONSUMER.DELETE.{name}.{consumer}");
        let pending = Pending::DeleteConsumer { stream: name, generation, consumer };
        self.request(world, self.admin, pending, (&subject, ""));
    }

    /// The answer to one of these.
    pub(super) fn administrated(&mut self, world: &mut World, pending: Pending, msg: &Msg) {
        let now = world.now();
        let answer = msg.json().unwrap_or_default();
        let refused = msg.status() == Some(503) || answer.get("error").is_some();
        world.trace.line(now, || format!("{pending:?}: {}", answer["error"]));
        if self.cluster.is_some() && cluster::is_unknown(&answer) {
            return self.lost(pending);
        }
        match pending {
            Pending::CreateStream(name) => {
                self.history.count(if refused { "refused streams" } else { "streams" });
                if refused && !self.lenient {
                    let text = format!("stream {name} was refused: {answer}");
                    return self.history.violate("protocol", text);
                }
                if let Some(stream) = self.history.streams.get_mut(&name) {
                    stream.existence = if refused { Existence::No } else { Existence::Yes };
                }
            }
            Pending::DeleteStream(name) => {
                self.history.count("deleted streams");
                if let Some(stream) = self.history.streams.get_mut(&name) {
                    stream.existence = if refused { Existence::Unknown } else { Existence::No };
                }
                if refused && !self.lenient {
                    self.history.violate("protocol", format!("{name} cannot be deleted: {answer}"));
                }
            }
            Pending::Removal { stream, generation, index } => {
                self.history.count(if refused { "refused removals" } else { "removals" });
                let stream = self.history.streams.get_mut(&stream);
                let stream = stream.filter(|stream| stream.generation == generation);
                if let Some(removal) = stream.and_then(|stream| stream.removals.get_mut(index)) {
                    removal.refused = refused;
                    removal.done = (!refused).then_some(now);
                }
            }
            Pending::CreateConsumer { stream, generation, consumer } => {
                self.history.count(if refused { "refused consumers" } else { "consumers" });
                if let Some(log) = self.consumer(&stream, generation, &consumer) {
                    log.existence = if refused { Existence::No } else { Existence::Yes };
                    log.made = (!refused).then_some(now);
                }
            }
            Pending::DeleteConsumer { stream, generation, consumer } => {
                self.history.count("deleted consumers");
                if let Some(log) = self.consumer(&stream, generation, &consumer) {
                    log.existence = if refused { Existence::Unknown } else { Existence::No };
                }
                if refused && !self.lenient {
                    self.history.violate("protocol", format!("{consumer} cannot be deleted: {answer}"));
                }
            }
            Pending::Publish(_)
            | Pending::Fast(_)
            | Pending::Confirm { .. }
            | Pending::Key { .. }
            | Pending::Operate
            | Pending::Audit
            | Pending::AuditMany => {}
        }
    }
}

pub(super) fn stream_config(name: &str, generation: u64, shape: &Shape) -> Value {
    let retention = match shape.retention {
        Retention::Limits => "limits",
        Retention::WorkQueue => "workqueue",
        Retention::Interest => "interest",
    };
    json!({
        "name": name,
        "subjects": [format!("{}g{generation}.>", name.to_lowercase())],
        "retention": retention,
        "storage": if shape.memory { "memory" } else { "file" },
        "max_msgs": shape.max_msgs.map_or(-1, |max| max as i64),
        "max_msgs_per_subject": shape.max_per_subject.map_or(-1, |max| max as i64),
        "max_age": shape.max_age.unwrap_or_default().0,
        "max_bytes": -1,
        "max_consumers": -1,
        "discard": if shape.discard_new { "new" } else { "old" },
        "num_replicas": shape.replicas,
        "allow_atomic": true,
        "allow_batched": true,
        "allow_msg_schedules": !shape.discard_new,
        "allow_direct": !generation.is_multiple_of(4),
    })
}
