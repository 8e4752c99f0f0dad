//! What the commands read of the API's answers. Unknown fields are ignored, absent ones are empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A value that some servers write as `null` when it is empty.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A stream's information. Sizes are bytes, spans are nanoseconds, times are RFC 3339 text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamInfo {
    pub config: StreamConfig,
    pub created: String,
    pub state: StreamState,
    pub cluster: Option<ClusterInfo>,
    pub mirror: Option<SourceInfo>,
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<SourceInfo>,
    #[serde(deserialize_with = "or_default")]
    pub alternates: Vec<Alternate>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    pub name: String,
    pub description: String,
    #[serde(deserialize_with = "or_default")]
    pub subjects: Vec<String>,
    pub retention: String,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    pub max_msg_size: i64,
    pub discard: String,
    pub discard_new_per_subject: bool,
    pub storage: String,
    pub num_replicas: i64,
    pub no_ack: bool,
    pub duplicate_window: i64,
    pub compression: String,
    pub first_seq: u64,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    pub allow_msg_ttl: bool,
    pub subject_delete_marker_ttl: i64,
    pub allow_msg_counter: bool,
    pub allow_atomic: bool,
    pub allow_batched: bool,
    pub allow_msg_schedules: bool,
    pub persist_mode: String,
    pub placement: Option<Placement>,
    pub mirror: Option<StreamSource>,
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<StreamSource>,
    pub republish: Option<Republish>,
    pub subject_transform: Option<Transform>,
    pub consumer_limits: Option<ConsumerLimits>,
    #[serde(deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Placement {
    pub cluster: String,
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamSource {
    pub name: String,
    pub opt_start_seq: u64,
    pub opt_start_time: Option<String>,
    pub filter_subject: String,
    pub external: Option<External>,
    #[serde(deserialize_with = "or_default")]
    pub subject_transforms: Vec<Transform>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct External {
    pub api: String,
    pub deliver: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Transform {
    pub src: String,
    pub dest: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Republish {
    pub src: String,
    pub dest: String,
    pub headers_only: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConsumerLimits {
    pub inactive_threshold: i64,
    pub max_ack_pending: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub first_ts: String,
    pub last_seq: u64,
    pub last_ts: String,
    pub num_subjects: u64,
    pub num_deleted: u64,
    #[serde(deserialize_with = "or_default")]
    pub subjects: BTreeMap<String, u64>,
    pub lost: Option<Lost>,
    pub consumer_count: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Lost {
    #[serde(deserialize_with = "or_default")]
    pub msgs: Vec<u64>,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClusterInfo {
    pub name: String,
    pub raft_group: String,
    pub leader: String,
    #[serde(deserialize_with = "or_default")]
    pub replicas: Vec<Peer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub name: String,
    pub current: bool,
    pub offline: bool,
    pub active: i64,
    pub lag: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SourceInfo {
    pub name: String,
    pub lag: u64,
    pub active: i64,
    pub filter_subject: String,
    pub external: Option<External>,
    pub error: Option<ApiError>,
    #[serde(deserialize_with = "or_default")]
    pub subject_transforms: Vec<Transform>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ApiError {
    pub err_code: u64,
    pub description: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Alternate {
    pub name: String,
    pub domain: String,
    pub cluster: String,
}

/// A consumer's information.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConsumerInfo {
    pub stream_name: String,
    pub name: String,
    pub created: String,
    pub config: ConsumerConfig,
    pub delivered: Progress,
    pub ack_floor: Progress,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
    pub cluster: Option<ClusterInfo>,
    pub push_bound: bool,
    pub paused: bool,
    pub pause_remaining: i64,
    #[serde(deserialize_with = "or_default")]
    pub priority_groups: Vec<PriorityGroup>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    pub durable_name: String,
    pub description: String,
    pub deliver_policy: String,
    pub opt_start_seq: u64,
    pub opt_start_time: Option<String>,
    pub ack_policy: String,
    pub ack_wait: i64,
    pub max_deliver: i64,
    #[serde(deserialize_with = "or_default")]
    pub backoff: Vec<i64>,
    pub filter_subject: String,
    #[serde(deserialize_with = "or_default")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: String,
    pub rate_limit_bps: u64,
    pub sample_freq: String,
    pub max_waiting: i64,
    pub max_ack_pending: i64,
    pub flow_control: bool,
    pub idle_heartbeat: i64,
    pub headers_only: bool,
    pub max_batch: i64,
    pub max_expires: i64,
    pub max_bytes: i64,
    pub inactive_threshold: i64,
    pub num_replicas: i64,
    pub mem_storage: bool,
    pub deliver_subject: String,
    pub deliver_group: String,
    pub pause_until: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub priority_groups: Vec<String>,
    pub priority_policy: String,
    pub priority_timeout: i64,
    #[serde(deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
}

impl ConsumerConfig {
    /// Whether clients ask for messages.
    pub fn is_pull(&self) -> bool {
        self.deliver_subject.is_empty()
    }

    /// The filters, in whichever of the two fields they are.
    pub fn filters(&self) -> Vec<String> {
        match self.filter_subject.as_str() {
            "" => self.filter_subjects.clone(),
            one => vec![one.to_owned()],
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub consumer_seq: u64,
    pub stream_seq: u64,
    pub last_active: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PriorityGroup {
    pub group: String,
    pub pinned_client_id: String,
    pub pinned_ts: Option<String>,
}

/// A message as `STREAM.MSG.GET` returns it; headers and data are base64.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StoredMessage {
    pub subject: String,
    pub seq: u64,
    pub hdrs: String,
    pub data: String,
    pub time: String,
}

/// Metadata without the server's own entries.
pub fn own_metadata(metadata: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    metadata.iter().filter(|(key, _)| !key.starts_with("_nats."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_taken() {
        let json = r#"{"config":{"name":"a","subjects":null,"new_field":1,"metadata":null},
            "state":{"messages":3,"subjects":null},"sources":null,"cluster":null,"extra":{}}"#;
        let info: StreamInfo = serde_json::from_str(json).unwrap();
        assert_eq!((info.config.name.as_str(), info.state.messages), ("a", 3));
    }

    #[test]
    fn filters_are_one_list() {
        let one: ConsumerConfig = serde_json::from_str(r#"{"filter_subject":"a"}"#).unwrap();
        let two: ConsumerConfig = serde_json::from_str(r#"{"filter_subjects":["a","b"]}"#).unwrap();
        assert_eq!((one.filters().len(), two.filters().len()), (1, 2));
        assert!(one.is_pull());
    }
}
