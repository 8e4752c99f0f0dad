//! Clients that work on the keys of a bucket, one operation at a time each, and write down what they saw.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Pending, Workload};
use crate::client::Msg;
use crate::history::{KeyAct, KeyOp, KeyResult};
use crate::world::World;

/// Operations on one key: more make judging slow.
const OPS_MAX: usize = 60;

/// The bucket's stream.
pub const BUCKET: &str = "KV_b";

impl Workload {
    pub(super) fn works_on_keys(&self, client: usize) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.keepers.contains(&client))
    }

    /// Makes the bucket as clients do.
    pub fn make_bucket(&mut self, world: &mut World, replicas: u64) -> Result<(), String> {
        let config = json!({
            "name": BUCKET,
            "subjects": ["$KV.b.>"],
            "max_msgs_per_subject": 1 + self.rng.below(3),
            "allow_direct": true,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
            "discard": "new",
            "num_replicas": replicas,
        });
        let answer = self.ask(world, &format!("$JS.API.STREAM.CREATE.{BUCKET}"), &config)?;
        let json = answer.json().unwrap_or_default();
        if json["config"]["name"] == BUCKET { Ok(()) } else { Err(format!("no bucket: {json}")) }
    }

    /// The next operation of a client that has none under way.
    pub(super) fn act_on_key(&mut self, world: &mut World, client: usize) {
        let is_busy =
            self.pending.values().any(|(of, what, _)| *of == client && matches!(what, Pending::Key { .. }));
        if is_busy || self.draining {
            return;
        }
        let stranded = self.cluster.as_ref().filter(|cluster| cluster.stranded.is_some());
        let reads = stranded.map(|cluster| cluster.keepers.first() == Some(&client));
        if reads.is_some() && self.rng.chance(1, 2) {
            return; // The key is to last as long as the server is cut off.
        }
        let key = self.some_key();
        let ops = self.history.keys.entry(key.clone()).or_default();
        let index = ops.len();
        let known = ops.iter().rev().filter(|op| op.client == client).find_map(|op| match op.result {
            Some(KeyResult::Written(revision) | KeyResult::Found(revision, _)) => Some(revision),
            Some(KeyResult::Nothing) => Some(0),
            _ => None,
        });
        let Some(cluster) = &mut self.cluster else { return };
        cluster.last_value += 1;
        let value = cluster.last_value;
        let act = match (self.rng.below(10), known) {
            _ if reads == Some(true) => KeyAct::Get,
            (0..8, _) if reads == Some(false) => KeyAct::Put(value),
            (0..2, _) => KeyAct::Put(value),
            (2, _) => KeyAct::Put(0),
            (3..6, Some(revision)) => KeyAct::Swap(revision, value),
            _ => KeyAct::Get,
        };
        let sent = world.now();
        ops.push(KeyOp { client, act: act.clone(), sent, done: None, result: None });
        world.trace.line(sent, || format!("c{client} key {key} operation {index}: {act:?}"));
        let subject = format!("$KV.b.{key}");
        let pending = Pending::Key { key, index };
        let expects = |revision: u64| format!("Nats-Expected-Last-Subject-Sequence: {revision}");
        match act {
            KeyAct::Put(0) => {
                let purges = self.rng.chance(1, 3);
                let mut headers = vec![format!("KV-Operation: {}", if purges { "PURGE" } else { "DEL" })];
                headers.extend(purges.then(|| "Nats-Rollup: sub".to_owned()));
                self.publish_for(world, client, pending, (&subject, &headers, b""));
            }
            KeyAct::Put(value) => {
                self.publish_for(world, client, pending, (&subject, &[], value.to_string().as_bytes()));
            }
            KeyAct::Swap(revision, value) => {
                let headers = [expects(revision)];
                self.publish_for(world, client, pending, (&subject, &headers, value.to_string().as_bytes()));
            }
            KeyAct::Get if self.rng.chance(1, 2) => {
                let body = json!({ "last_by_subj": subject }).to_string();
                let subject = format!("$JS.API.STREAM.MSG.GET.{BUCKET}");
                self.publish_for(world, client, pending, (&subject, &[], body.as_bytes()));
            }
            KeyAct::Get => {
                let subject = format!("$JS.API.DIRECT.GET.{BUCKET}.{subject}");
                self.publish_for(world, client, pending, (&subject, &[], b""));
            }
        }
    }

    fn some_key(&mut self) -> String {
        let Some(cluster) = &mut self.cluster else { return String::new() };
        let keys = if cluster.stranded.is_some() { 1 } else { cluster.keys.len() as u64 };
        let at = self.rng.below(keys) as usize;
        if self.history.keys.get(&cluster.keys[at]).is_some_and(|ops| ops.len() >= OPS_MAX) {
            cluster.last_key += 1;
            cluster.keys[at] = format!("k{}", cluster.last_key);
        }
        cluster.keys[at].clone()
    }

    pub(super) fn key_answered(&mut self, world: &mut World, (key, index): (&str, usize), msg: &Msg) {
        let now = world.now();
        let Some(op) = self.history.keys.get_mut(key).and_then(|ops| ops.get_mut(index)) else { return };
        let result = match op.act {
            KeyAct::Get => read(msg),
            KeyAct::Put(_) | KeyAct::Swap(..) => written(msg),
        };
        world.trace.line(now, || {
            format!("key {key} operation {index}: {result:?} {}", String::from_utf8_lossy(&msg.payload))
        });
        // An answer that leaves everything open is none.
        if let Some(result) = result {
            (op.done, op.result) = (Some(now), Some(result));
            self.history.count("key operations");
        }
    }
}

fn written(msg: &Msg) -> Option<KeyResult> {
    if msg.status() == Some(503) {
        return Some(KeyResult::Refused);
    }
    let json = msg.json()?;
    match (json["error"]["err_code"].as_u64(), json["seq"].as_u64()) {
        (None, Some(seq)) => Some(KeyResult::Written(seq)),
        (Some(10071 | 10164), _) => Some(KeyResult::Conflict),
        _ => Some(KeyResult::Refused),
    }
}

fn read(msg: &Msg) -> Option<KeyResult> {
    let value = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    if let Some(seq) = msg.field("Nats-Sequence") {
        let value = if msg.payload.is_empty() { Some(0) } else { value(&msg.payload) };
        return Some(KeyResult::Found(seq.parse().ok()?, value?));
    }
    match msg.status() {
        Some(404) => return Some(KeyResult::Nothing),
        Some(_) => return None,
        None => {}
    }
    let json: Value = msg.json()?;
    if json["error"]["err_code"] == 10037 {
        return Some(KeyResult::Nothing);
    }
    let data = STANDARD.decode(json["message"]["data"].as_str().unwrap_or_default()).ok()?;
    let value = if data.is_empty() { Some(0) } else { value(&data) };
    Some(KeyResult::Found(json["message"]["seq"].as_u64()?, value?))
}
