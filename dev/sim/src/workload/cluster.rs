//! What clients do in a cluster beside what they do anywhere: they change who has streams and who leads, and ask again
//! when nobody answers.

use hw_kit::{Rng, Span};
use serde_json::{Value, json};

use super::admin::stream_config;
use super::{Pending, Workload};
use crate::client::{self, Msg};
use crate::world::World;

/// Who is not answered for so long is not answered any more.
pub(super) const PATIENCE: Span = Span::from_secs(5);
/// An answer to one attempt comes within this, or another attempt is made.
const ATTEMPT: Span = Span::from_millis(700);
/// In a cluster that is whole every request is answered within this.
const ANSWERED: Span = Span::from_secs(15);

/// Who else there is in a cluster.
pub struct Cluster {
    /// How many servers there are.
    servers: usize,
    /// How often slower clients are than with a server of their own.
    pub pace: u64,
    /// A client of the system account.
    operator: usize,
    /// Clients that work on keys.
    pub(super) keepers: Vec<usize>,
    /// The keys that they work on now.
    pub(super) keys: Vec<String>,
    pub(super) last_key: u64,
    pub(super) last_value: u64,
    /// A server that is cut off from the others: the first of those clients reads there, the others write elsewhere.
    pub(super) stranded: Option<usize>,
}

impl Cluster {
    pub(super) fn new(rng: &mut Rng, world: &mut World) -> Cluster {
        let keepers: Vec<usize> = (0..3).map(|_| world.add_client()).collect();
        for keeper in &keepers {
            world.alarm(Span(rng.below(30_000_000) as i64), *keeper as u64);
        }
        Cluster {
            servers: world.servers(),
            pace: 8 + rng.below(16),
            operator: world.add_user("sys"),
            keepers,
            keys: vec!["a".to_owned(), "b".to_owned()],
            last_key: 0,
            last_value: 0,
            stranded: None,
        }
    }

    /// How many replicas a stream gets.
    pub(super) fn replicas(&self, rng: &mut Rng) -> u64 {
        match rng.below(5) {
            0 => 1,
            1 if self.servers >= 5 => 5,
            _ => 3,
        }
    }
}

/// Whether an answer leaves open what becomes of a request.
pub(super) fn is_unknown(answer: &Value) -> bool {
    matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10118 | 10119))
}

/// Whether another answer comes soon: as above, or because others mend what is damaged here.
fn is_passing(answer: &Value) -> bool {
    is_unknown(answer) || answer["error"]["err_code"] == 10051
}

impl Workload {
    /// A server is cut off from the others, or none any more: clients that work on keys go to both sides.
    pub fn strand(&mut self, world: &mut World, host: Option<usize>) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.stranded = host;
        if host.is_some() {
            cluster.keepers.iter().for_each(|keeper| world.disconnect(*keeper));
        }
    }

    /// A client connects to any server, or to the one that it has to be at.
    pub(super) fn connect(&mut self, world: &mut World, client: usize) {
        let cluster = self.cluster.as_ref().filter(|cluster| cluster.keepers.contains(&client));
        let Some((cluster, stranded)) = cluster.and_then(|cluster| Some((cluster, cluster.stranded?))) else {
            return world.connect(client);
        };
        let is_reader = cluster.keepers.first() == Some(&client);
        let others: Vec<usize> =
            (0..cluster.servers).filter(|host| *host != stranded && world.is_up(*host)).collect();
        match others.get(self.rng.below(others.len().max(1) as u64) as usize) {
            Some(other) if !is_reader => world.connect_to(client, *other),
            _ => world.connect_to(client, stranded),
        }
    }

    /// Changes who has a stream, or who leads.
    pub(super) fn operate(&mut self, world: &mut World) {
        let Some(name) = self.some_stream() else { return };
        let Some(cluster) = &self.cluster else { return };
        let servers = cluster.servers as u64;
        match self.rng.below(8) {
            0 | 1 => self.scale(world, &name),
            2 | 3 => self.demand(world, &format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}"), &Value::Null),
            4 => {
                let stream = self.history.streams.get(&name);
                let consumer = stream.and_then(|stream| stream.consumers.keys().next_back().cloned());
                if let Some(consumer) = consumer {
                    let subject = format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{name}.{consumer}");
                    self.demand(world, &subject, &Value::Null);
                }
            }
            5 => self.order(world, "$JS.API.META.LEADER.STEPDOWN", &Value::Null),
            6 => {
                let peer = format!("s{}", self.rng.below(servers));
                self.history.count("removed peers");
                self.demand(world, &format!("$JS.API.STREAM.PEER.REMOVE.{name}"), &json!({ "peer": peer }));
            }
            _ => {
                let Some(stream) = self.history.streams.get(&name) else { return };
                let mut config = stream_config(&name, stream.generation, &stream.shape);
                config["description"] = json!(format!("updated {}", self.tokens));
                self.history.count("updates");
                self.demand(world, &format!("$JS.API.STREAM.UPDATE.{name}"), &config);
            }
        }
    }

    /// A stream gets more or fewer servers. Whether it does, and when, does not matter to its clients.
    fn scale(&mut self, world: &mut World, name: &str) {
        let Some(servers) = self.cluster.as_ref().map(|cluster| cluster.servers) else { return };
        let replicas = [1, 3, 3, if servers >= 5 { 5 } else { 3 }][self.rng.below(4) as usize];
        let Some(stream) = self.history.streams.get_mut(name) else { return };
        // What has one server cannot be kept in its memory alone.
        let replicas = if stream.shape.memory { replicas.max(3) } else { replicas };
        if stream.shape.replicas == replicas {
            return;
        }
        stream.shape.replicas = replicas;
        let config = stream_config(name, stream.generation, &stream.shape);
        self.history.count("scalings");
        self.demand(world, &format!("$JS.API.STREAM.UPDATE.{name}"), &config);
    }

    /// Asks for something of which the answer is only counted.
    fn demand(&mut self, world: &mut World, subject: &str, body: &Value) {
        // Who led may still be heard.
        self.history.loose_until = self.history.loose_until.max(world.now() + Span::from_millis(200));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(world, self.admin, Pending::Operate, (subject, &body));
    }

    /// The same as the operator.
    pub fn order(&mut self, world: &mut World, subject: &str, body: &Value) {
        let Some(operator) = self.cluster.as_ref().map(|cluster| cluster.operator) else { return };
        world.connect(operator);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(world, operator, Pending::Operate, (subject, &body));
    }

    /// Every stream gets another leader.
    pub fn change_leaders(&mut self, world: &mut World) {
        let names: Vec<String> = self.history.streams.keys().cloned().collect();
        for name in names {
            self.demand(world, &format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}"), &Value::Null);
        }
    }

    /// Asks until there is an answer.
    pub(super) fn ask_cluster(
        &mut self,
        world: &mut World,
        subject: &str,
        body: &Value,
    ) -> Result<Msg, String> {
        let until = world.now() + ANSWERED;
        loop {
            let token = self.ask_as_auditor(world, subject, (body, Pending::Audit))?;
            let answer = self.answer(world, &token, (subject, ATTEMPT));
            self.pending.remove(&token);
            let wrong = match answer {
                Ok(msg) if msg.status().is_none() && !msg.json().is_some_and(|json| is_passing(&json)) => {
                    return Ok(msg);
                }
                Ok(msg) => format!("{subject} gave {:?}", String::from_utf8_lossy(&msg.payload)),
                Err(text) => text,
            };
            if world.now() >= until {
                return Err(format!("nobody serves: {wrong}"));
            }
            self.run(world, Span::from_millis(100))?;
        }
    }

    pub(super) fn ask_cluster_many(
        &mut self,
        world: &mut World,
        subject: &str,
        body: &Value,
    ) -> Result<Vec<Msg>, String> {
        let until = world.now() + ANSWERED;
        loop {
            match self.ask_many_once(world, subject, (body, ATTEMPT)) {
                Err(text) if world.now() >= until => return Err(format!("nobody serves: {text}")),
                Err(_) => self.run(world, Span::from_millis(100))?,
                Ok(all) => return Ok(all),
            }
        }
    }

    /// Sends a message of a client.
    pub(super) fn publish_for(
        &mut self,
        world: &mut World,
        client: usize,
        pending: Pending,
        msg: (&str, &[String], &[u8]),
    ) {
        let (subject, headers, payload) = msg;
        let reply = self.expect(world, client, pending);
        let mut out = Vec::new();
        client::publish(&mut out, subject, &reply, headers, payload);
        world.send(client, out);
    }
}
