//! Views of a stream and of a consumer in the shape of the JetStream API: field names, their order and what is left out
//! when it is empty.

use std::collections::BTreeMap;

use hw_kit::{Span, Time};
use hw_store::Messages;
use serde::{Serialize, Serializer};

use crate::config::{ConsumerConfig, ExternalStream, Placement, StreamConfig, SubjectTransformConfig};
use crate::consumer::{Consumer, Position};
use crate::stream::Stream;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn instant<S: Serializer>(time: &Time, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&time.to_rfc3339())
}

fn nanos<S: Serializer>(span: &Span, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_i64(span.0)
}

/// A stream's numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // The fields are those of features.md 2b and docs/api.md.
pub struct StreamState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    #[serde(serialize_with = "instant")]
    pub first_ts: Time,
    pub last_seq: u64,
    #[serde(serialize_with = "instant")]
    pub last_ts: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub num_subjects: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subjects: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub num_deleted: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostState>,
    pub consumer_count: u64,
}

/// Messages that a damaged disk took away.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct LostState {
    pub msgs: Vec<u64>,
    pub bytes: u64,
}

/// Where an asset's replicas are. A server on its own has only a leader.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ClusterInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub raft_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leader: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub system_account: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub traffic_account: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredInfo>,
}

/// Where a stream is to be, while it is not there yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct DesiredInfo {
    /// When that was decided.
    pub created: String,
    /// The cluster.
    pub name: String,
    pub replicas: Vec<DesiredPeer>,
    pub origin: DesiredOrigin,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DesiredStatus>,
}

/// A server that is to have a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct DesiredPeer {
    pub name: String,
    pub peer: String,
}

/// Where a stream was before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct DesiredOrigin {
    pub replicas: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// What a change of servers waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct DesiredStatus {
    pub description: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// One replica beside the leader.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PeerInfo {
    pub name: String,
    pub current: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub offline: bool,
    #[serde(serialize_with = "nanos")]
    pub active: Span,
    #[serde(skip_serializing_if = "is_default")]
    pub lag: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
}

/// A stream: what it is, when it began, what it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct StreamInfo {
    pub config: StreamConfig,
    #[serde(serialize_with = "instant")]
    pub created: Time,
    pub state: StreamState,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSourceInfo>,
    #[serde(serialize_with = "instant")]
    pub ts: Time,
}

/// How a stream follows another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // The fields are those of features.md 2b and docs/api.md.
pub struct StreamSourceInfo {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    pub lag: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub seq: u64,
    /// Since the origin was seen last; -1 for never.
    #[serde(serialize_with = "nanos")]
    pub active: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransformConfig>,
}

/// An error of the API within an info; its numbers come from `jsapi`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ErrorInfo {
    pub code: u16,
    pub err_code: u16,
    pub description: String,
}

/// A place in a consumer's and in its stream's numbering.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct SequenceInfo {
    pub consumer_seq: u64,
    pub stream_seq: u64,
    #[serde(skip_serializing_if = "is_default", serialize_with = "instant")]
    pub last_active: Time,
}

/// What the leader alone knows about a consumer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeadInfo {
    /// Waiting pull requests.
    pub num_waiting: u64,
    /// Whether somebody listens on a push consumer's deliver subject.
    pub push_bound: bool,
    /// Pinned clients.
    pub priority_groups: Vec<PriorityGroupInfo>,
}

/// A priority group and who is pinned.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PriorityGroupInfo {
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pinned_client_id: String,
    #[serde(serialize_with = "instant")]
    pub pinned_ts: Time,
}

/// A consumer: what it is and how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // The fields are those of features.md 4b and docs/api.md.
pub struct ConsumerInfo {
    pub stream_name: String,
    pub name: String,
    #[serde(serialize_with = "instant")]
    pub created: Time,
    pub config: ConsumerConfig,
    pub delivered: SequenceInfo,
    pub ack_floor: SequenceInfo,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub push_bound: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub paused: bool,
    #[serde(skip_serializing_if = "is_default", serialize_with = "nanos")]
    pub pause_remaining: Span,
    #[serde(serialize_with = "instant")]
    pub ts: Time,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<PriorityGroupInfo>,
}

impl StreamState {
    /// The numbers without the optional lists.
    pub fn of(messages: &Messages, consumers: u64) -> StreamState {
        let state = messages.state();
        StreamState {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq.0,
            first_ts: state.first_ts,
            last_seq: state.last_seq.0,
            last_ts: state.last_ts,
            num_subjects: state.num_subjects,
            num_deleted: state.num_deleted,
            consumer_count: consumers,
            ..StreamState::default()
        }
    }

    /// Adds the interior gaps.
    pub fn with_deleted(mut self, messages: &Messages) -> StreamState {
        self.deleted = messages.deleted().into_iter().map(|seq| seq.0).collect();
        self
    }

    /// Adds matching subjects with their counts, `limit` of them from `offset` on; gives their total, too.
    pub fn with_subjects(
        mut self,
        messages: &Messages,
        filter: &str,
        (offset, limit): (u64, u64),
    ) -> (StreamState, u64) {
        let (mut total, subjects) = (0, &mut self.subjects);
        messages.for_each_subject(filter, |subject, count| {
            if total >= offset && total - offset < limit {
                subjects.insert(String::from_utf8_lossy(subject).into_owned(), count);
            }
            total += 1;
        });
        (self, total)
    }
}

impl Stream {
    /// The stream as the API shows it at `now`; domain and cluster are for the node to fill in.
    pub fn info(&self, now: Time) -> StreamInfo {
        let consumers = self.consumers().filter(|consumer| !consumer.config().direct).count() as u64;
        StreamInfo {
            config: self.config().clone(),
            created: self.created(),
            state: StreamState::of(self.messages(), consumers),
            ts: now,
            ..StreamInfo::default()
        }
    }
}

impl Consumer {
    /// The consumer as the API shows it at `now`; the cluster is for the node to fill in.
    pub fn info(&self, stream: &Stream, lead: LeadInfo, now: Time) -> ConsumerInfo {
        let position = |at: Position| SequenceInfo {
            consumer_seq: at.consumer_seq,
            stream_seq: at.stream_seq.0,
            last_active: at.last_active,
        };
        let remaining = self.paused_until().map_or(Span::ZERO, |until| until.since(now)).max(Span::ZERO);
        let redelivered = match self.config().max_deliver {
            1 => 0,
            _ => self.pending().iter().filter(|(_, delivery)| delivery.count > 1).count(),
        };
        ConsumerInfo {
            stream_name: stream.config().name.clone(),
            name: String::from_utf8_lossy(self.name()).into_owned(),
            created: self.created(),
            config: self.config().clone(),
            delivered: position(self.delivered()),
            ack_floor: position(self.ack_floor()),
            num_ack_pending: self.pending().len() as u64,
            num_redelivered: redelivered as u64,
            num_waiting: lead.num_waiting,
            num_pending: self.num_pending(stream.messages(), &mut self.matcher(stream.messages())),
            cluster: None,
            push_bound: lead.push_bound,
            paused: remaining > Span::ZERO,
            pause_remaining: remaining,
            ts: now,
            priority_groups: lead.priority_groups,
        }
    }
}
