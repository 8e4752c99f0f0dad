//! Events under `$JS.EVENT.`: subject and JSON.

use hw_kit::Time;
use hw_stream::batch::Abandoned;
use hw_stream::info::PeerInfo;
use hw_stream::outcome::Advisory;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Transfer, to_json};

/// An API request that was answered, for the audit advisory.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Audit {
    pub server: String,
    pub client: Value,
    pub subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
    pub response: String,
}

/// Bytes of a stream that are not what was written, for the advisory.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct DamageFound<'a> {
    pub account: &'a str,
    pub server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    pub reason: &'a str,
    /// Whether nothing of the stream can be used.
    pub quarantined: bool,
    pub found: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// To a stream: `CREATED`, `DELETED` or `UPDATED`, and the action's name.
    Stream(&'static str, &'static str),
    /// To a consumer of the stream, or to one of its messages.
    Consumer(&'a Advisory),
    /// A batch was given up before its end: its id, and why.
    BatchAbandoned(&'a [u8], Abandoned),
    /// An API request was answered.
    Audit(&'a Audit),
    /// To a backup of the stream; the JSON says who asked for it.
    Backup(&'a Transfer<'a>, &'a Value),
    /// Some of the stream's bytes are not what was written.
    Damaged(&'a DamageFound<'a>),
    /// A leader was elected, or lost its majority; the name of a consumer of the stream, if it is about one.
    Leadership {
        /// Which consumer.
        consumer: Option<&'a str>,
        /// Who leads now.
        about: &'a Leadership,
    },
    /// A leader of the whole cluster was elected.
    Domain(&'a Leadership),
    /// A server's disk is full: it takes nothing more.
    OutOfSpace {
        /// Its name.
        server: &'a str,
        /// Its id.
        server_id: &'a str,
        /// Its cluster; empty: none.
        cluster: &'a str,
    },
    /// A server was taken out of the cluster.
    ServerRemoved {
        /// Its name.
        server: &'a str,
        /// Its id.
        server_id: &'a str,
        /// Which cluster.
        cluster: &'a str,
    },
}

/// Who leads, and who else is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Leadership {
    /// In the system account's copy: whose the stream is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// Who leads; empty: nobody, and the event is that no majority is reached.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leader: String,
    pub replicas: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
}

/// The subject and the JSON of an event on `stream` in `domain` (empty: none), with `id` as its identity.
pub fn advisory(event: &Event<'_>, stream: &str, domain: &str, id: String, now: Time) -> (String, Vec<u8>) {
    let mut fields = Map::new();
    let (subject, kind) = match event {
        Event::Stream(verb, action) => {
            fields.insert("stream".into(), stream.into());
            fields.insert("action".into(), (*action).into());
            (format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{stream}"), "advisory.v1.stream_action")
        }
        Event::Consumer(advisory) => {
            fields.insert("stream".into(), stream.into());
            consumer_event(advisory, stream, &mut fields)
        }
        Event::Backup(transfer, client) => {
            fields.insert("stream".into(), stream.into());
            let (verb, kind) = transfer.describe(&mut fields);
            fields.insert("client".into(), (*client).clone());
            (format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{stream}"), kind)
        }
        Event::BatchAbandoned(id, reason) => {
            let reason = match reason {
                Abandoned::Timeout => "timeout",
                Abandoned::Large => "large",
                Abandoned::Incomplete => "incomplete",
                Abandoned::Unsupported => "unsupported",
            };
            fields.insert("stream".into(), stream.into());
            fields.insert("batch".into(), String::from_utf8_lossy(id).into());
            fields.insert("reason".into(), reason.into());
            let subject = format!("$JS.EVENT.ADVISORY.STREAM.BATCH_ABANDONED.{stream}");
            (subject, "advisory.v1.stream_batch_abandoned")
        }
        Event::Audit(audit) => {
            if let Ok(Value::Object(audit)) = serde_json::to_value(audit) {
                fields.extend(audit);
            }
            ("$JS.EVENT.ADVISORY.API".to_owned(), "advisory.v1.api_audit")
        }
        Event::Damaged(damage) => {
            fields.insert("stream".into(), stream.into());
            if let Ok(Value::Object(damage)) = serde_json::to_value(damage) {
                fields.extend(damage);
            }
            (damage_subject(stream), "advisory.v1.stream_damaged")
        }
        Event::Leadership { consumer, about } => leadership_event(stream, *consumer, about, &mut fields),
        Event::Domain(about) => {
            add(about, &mut fields);
            ("$JS.EVENT.ADVISORY.DOMAIN.LEADER_ELECTED".to_owned(), "advisory.v1.domain_leader_elected")
        }
        Event::ServerRemoved { server, server_id, cluster } => {
            about_server((server, server_id, cluster), REMOVED, &mut fields)
        }
        Event::OutOfSpace { server, server_id, cluster } => {
            about_server((server, server_id, cluster), OUT_OF_STORAGE, &mut fields)
        }
    };
    if !domain.is_empty() {
        fields.insert("domain".into(), domain.into());
    }
    // What `nats-server` does not have is ours.
    let ours = if matches!(event, Event::Damaged(_)) { "headwater" } else { "nats" };
    let envelope = json!({
        "type": format!("io.{ours}.jetstream.{kind}"),
        "id": id,
        "timestamp": now.to_rfc3339(),
    });
    let Value::Object(mut document) = envelope else { unreachable!("json! of braces is an object") };
    document.append(&mut fields);
    (subject, to_json(&document))
}

const REMOVED: (&str, &str) = ("REMOVED", "advisory.v1.server_removed");
const OUT_OF_STORAGE: (&str, &str) = ("OUT_OF_STORAGE", "advisory.v1.server_out_of_space");

fn about_server(
    (server, server_id, cluster): (&str, &str, &str),
    (verb, kind): (&str, &'static str),
    fields: &mut Map<String, Value>,
) -> (String, &'static str) {
    fields.insert("server".into(), server.into());
    fields.insert("server_id".into(), server_id.into());
    fields.insert("cluster".into(), cluster.into());
    (format!("$JS.EVENT.ADVISORY.SERVER.{verb}"), kind)
}

fn add(about: &Leadership, fields: &mut Map<String, Value>) {
    if let Ok(Value::Object(about)) = serde_json::to_value(about) {
        fields.extend(about);
    }
}

fn leadership_event(
    stream: &str,
    consumer: Option<&str>,
    about: &Leadership,
    fields: &mut Map<String, Value>,
) -> (String, &'static str) {
    fields.insert("stream".into(), stream.into());
    if let Some(consumer) = consumer {
        fields.insert("consumer".into(), consumer.into());
    }
    add(about, fields);
    match (consumer, about.leader.is_empty()) {
        (None, false) => {
            let subject = format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}");
            (subject, "advisory.v1.stream_leader_elected")
        }
        (None, true) => {
            (format!("$JS.EVENT.ADVISORY.STREAM.QUORUM_LOST.{stream}"), "advisory.v1.stream_quorum_lost")
        }
        (Some(consumer), false) => {
            let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.{stream}.{consumer}");
            (subject, "advisory.v1.consumer_leader_elected")
        }
        (Some(consumer), true) => {
            let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.QUORUM_LOST.{stream}.{consumer}");
            (subject, "advisory.v1.consumer_quorum_lost")
        }
    }
}

/// Where it is told that a stream is damaged.
pub fn damage_subject(stream: &str) -> String {
    format!("$JS.EVENT.ADVISORY.STREAM.DAMAGED.{stream}")
}

fn consumer_event(
    advisory: &Advisory,
    stream: &str,
    fields: &mut Map<String, Value>,
) -> (String, &'static str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = text(advisory.consumer());
    fields.insert("consumer".into(), name.clone().into());
    let (verb, kind) = match advisory {
        Advisory::ConsumerCreated { .. } => {
            fields.insert("action".into(), "create".into());
            ("CREATED", "advisory.v1.consumer_action")
        }
        Advisory::ConsumerDeleted { .. } => {
            fields.insert("action".into(), "delete".into());
            ("DELETED", "advisory.v1.consumer_action")
        }
        Advisory::ConsumerPaused { until, .. } => {
            fields.insert("paused".into(), until.is_set().into());
            if until.is_set() {
                fields.insert("pause_until".into(), until.to_rfc3339().into());
            }
            ("PAUSE", "advisory.v1.consumer_pause")
        }
        Advisory::MaxDeliveries { stream_seq, deliveries, .. } => {
            fields.insert("stream_seq".into(), stream_seq.0.into());
            fields.insert("deliveries".into(), (*deliveries).into());
            ("MAX_DELIVERIES", "advisory.v1.max_deliver")
        }
        Advisory::MessageNaked { stream_seq, consumer_seq, deliveries, .. } => {
            fields.insert("consumer_seq".into(), (*consumer_seq).into());
            fields.insert("stream_seq".into(), stream_seq.0.into());
            fields.insert("deliveries".into(), (*deliveries).into());
            ("MSG_NAKED", "advisory.v1.nak")
        }
        Advisory::MessageTerminated { stream_seq, consumer_seq, deliveries, reason, .. } => {
            fields.insert("consumer_seq".into(), (*consumer_seq).into());
            fields.insert("stream_seq".into(), stream_seq.0.into());
            fields.insert("deliveries".into(), (*deliveries).into());
            if !reason.is_empty() {
                fields.insert("reason".into(), text(reason).into());
            }
            ("MSG_TERMINATED", "advisory.v1.terminated")
        }
        Advisory::GroupPinned { group, id, .. } => {
            fields.insert("group".into(), group.as_str().into());
            fields.insert("pinned_id".into(), text(id).into());
            ("PINNED", "advisory.v1.consumer_group_pinned")
        }
        Advisory::GroupUnpinned { group, reason, .. } => {
            fields.insert("group".into(), group.as_str().into());
            fields.insert("reason".into(), (*reason).into());
            ("UNPINNED", "advisory.v1.consumer_group_unpinned")
        }
        Advisory::AckSample { stream_seq, consumer_seq, ack_time, deliveries, .. } => {
            fields.insert("consumer_seq".into(), (*consumer_seq).into());
            fields.insert("stream_seq".into(), stream_seq.0.into());
            fields.insert("ack_time".into(), ack_time.0.into());
            fields.insert("deliveries".into(), (*deliveries).into());
            return (format!("$JS.EVENT.METRIC.CONSUMER.ACK.{stream}.{name}"), "metric.v1.consumer_ack");
        }
    };
    (format!("$JS.EVENT.ADVISORY.CONSUMER.{verb}.{stream}.{name}"), kind)
}
