//! What a user may set of a stream and of a consumer: the field names and shapes of the JetStream API.
//!
//! These are plain data; `stream::check` and `consumer::check` say what is valid and fill in defaults. The same
//! serde shape is what the log and the checkpoints hold, so a field may be added but never renamed.

use std::collections::BTreeMap;

use hw_kit::{Span, Time};
use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A duration as integer nanoseconds.
pub mod nanos {
    use super::*;
    use serde::{Deserializer, Serializer};

    /// Writes nanoseconds.
    pub fn serialize<S: Serializer>(span: &Span, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(span.0)
    }

    /// Reads nanoseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        i64::deserialize(d).map(Span)
    }
}

/// A list of durations as integer nanoseconds.
pub mod nanos_list {
    use super::*;
    use serde::{Deserializer, Serializer};

    /// Writes nanoseconds.
    pub fn serialize<S: Serializer>(spans: &[Span], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(spans.iter().map(|span| span.0))
    }

    /// Reads nanoseconds; null is an empty list.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Span>, D::Error> {
        let list: Option<Vec<i64>> = Option::deserialize(d)?;
        Ok(list.unwrap_or_default().into_iter().map(Span).collect())
    }
}

/// An optional instant as RFC 3339 text.
pub mod instant {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    /// Writes RFC 3339 with nanoseconds, UTC.
    pub fn serialize<S: Serializer>(time: &Option<Time>, s: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => s.serialize_str(&time.to_rfc3339()),
            None => s.serialize_none(),
        }
    }

    /// Reads RFC 3339; null and the zero time are none.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Time>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        if text.starts_with("0001-01-01T00:00:00") {
            return Ok(None);
        }
        Time::parse_rfc3339(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("cannot parse {text:?} as a time")))
    }
}

/// Reads null as the type's default: Go's decoder does.
fn null_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// When messages leave the stream.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// When a limit says so.
    #[default]
    Limits,
    /// When every interested consumer has acknowledged.
    Interest,
    /// When a consumer has acknowledged.
    Workqueue,
}

/// What gives way when a limit is reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest message.
    #[default]
    Old,
    /// The new message is refused.
    New,
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory; gone after a restart.
    Memory,
}

/// How stored messages are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// S2.
    S2,
}

/// A subject mapping (ADR-30).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SubjectTransformConfig {
    /// The pattern that is replaced.
    #[serde(default)]
    pub src: String,
    /// What replaces it.
    #[serde(default)]
    pub dest: String,
}

/// Republishing of stored messages (ADR-28).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RepublishConfig {
    /// Which messages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// Where to.
    #[serde(default)]
    pub dest: String,
    /// Without payload.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers_only: bool,
}

/// Where replicas should be.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Placement {
    /// The cluster's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Server tags that must all be present.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub tags: Vec<String>,
    /// The preferred leader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preferred: String,
}

/// Defaults and caps for a stream's consumers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConsumerLimits {
    /// The longest inactive threshold.
    #[serde(default, skip_serializing_if = "is_default", with = "nanos")]
    pub inactive_threshold: Span,
    /// The most unacknowledged deliveries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
}

/// Another stream that feeds this one: the origin of a mirror, or one of several sources.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // The fields are those of features.md 2c and docs/api.md.
pub struct StreamSource {
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", with = "instant")]
    pub opt_start_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub subject_transforms: Vec<SubjectTransformConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SourceConsumer>,
}

/// Where an origin is when it is not in the same account and domain.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ExternalStream {
    pub api: String,
    pub deliver: String,
}

/// The durable consumer that an origin is read by.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SourceConsumer {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
}

/// A stream's configuration, with the API's field names, in the API's order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // The fields are those of features.md 2a and docs/api.md.
pub struct StreamConfig {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub subjects: Vec<String>,
    pub retention: Retention,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    #[serde(with = "nanos")]
    pub max_age: Span,
    pub max_msgs_per_subject: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_msg_size: i32,
    pub discard: Discard,
    pub storage: Storage,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub no_ack: bool,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub duplicate_window: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSource>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub sources: Vec<StreamSource>,
    pub compression: Compression,
    #[serde(skip_serializing_if = "is_default")]
    pub first_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransformConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<RepublishConfig>,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub discard_new_per_subject: bool,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub consumer_limits: ConsumerLimits,
    pub allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub subject_delete_marker_ttl: Span,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_msg_counter: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_atomic: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_batched: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_msg_schedules: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub persist_mode: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub metadata: BTreeMap<String, String>,
}

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DeliverPolicy {
    #[default]
    All,
    Last,
    New,
    ByStartSequence,
    ByStartTime,
    LastPerSubject,
}

/// What counts as received.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum AckPolicy {
    #[default]
    None,
    All,
    Explicit,
    FlowControl,
}

/// How fast old messages come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ReplayPolicy {
    #[default]
    Instant,
    Original,
}

/// Which of several clients is served (ADR-42).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PriorityPolicy {
    #[default]
    None,
    Overflow,
    PinnedClient,
    Prioritized,
}

/// A consumer's configuration, with the API's field names, in the API's order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // The fields are those of features.md 4a and docs/api.md.
pub struct ConsumerConfig {
    #[serde(rename = "durable_name", skip_serializing_if = "String::is_empty")]
    pub durable: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_default")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", with = "instant")]
    pub opt_start_time: Option<Time>,
    pub ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub ack_wait: Span,
    #[serde(skip_serializing_if = "is_default")]
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty", with = "nanos_list")]
    pub backoff: Vec<Span>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: ReplayPolicy,
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit_bps: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    #[serde(skip_serializing_if = "is_default")]
    pub max_waiting: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub flow_control: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub headers_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub max_batch: i64,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub max_expires: Span,
    #[serde(skip_serializing_if = "is_default")]
    pub max_bytes: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub idle_heartbeat: Span,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub inactive_threshold: Span,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub mem_storage: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub direct: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub sourcing: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none", with = "instant")]
    pub pause_until: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub priority_policy: PriorityPolicy,
    #[serde(skip_serializing_if = "is_default", with = "nanos")]
    pub priority_timeout: Span,
}

impl StreamConfig {
    /// The configuration as a JSON document: how the log and checkpoints hold it.
    pub fn to_document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data with text keys always encodes")
    }
}

impl ConsumerConfig {
    /// The configuration as a JSON document: how the log and checkpoints hold it.
    pub fn to_document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data with text keys always encodes")
    }

    /// The filters, whichever of the two fields holds them; empty means every message.
    pub fn filters(&self) -> Vec<&str> {
        match self.filter_subject.is_empty() {
            false => vec![&self.filter_subject],
            true => self.filter_subjects.iter().map(String::as_str).collect(),
        }
    }

    /// Whether clients ask for messages (no deliver subject).
    pub fn is_pull(&self) -> bool {
        self.deliver_subject.is_empty()
    }

    /// Whether the consumer outlives its clients.
    pub fn is_durable(&self) -> bool {
        !self.durable.is_empty()
    }
}
