//! Backups: the requests that begin one or restore one, their answers and events, and the JSON documents inside an archive.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_stream::consumer::{Consumer, Delivery, Progress};
use hw_stream::info::{StreamInfo, StreamState};
use hw_stream::{ConsumerConfig, StreamConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::drop_nulls;
use crate::response::Kind;
use crate::{ApiError, to_json};

/// What a client wants of a backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct SnapshotRequest {
    /// Where the pieces go.
    #[serde(rename = "deliver_subject")]
    pub deliver: String,
    /// Whether consumers are left out.
    pub no_consumers: bool,
    /// How many bytes a piece has; 0: the server's choice.
    pub chunk_size: i64,
    /// How many bytes may be on their way; 0: the server's choice.
    pub window_size: i64,
    /// Checks of the stored messages are asked for; they are made in any case.
    #[serde(rename = "jsck")]
    pub check: bool,
}

/// No stream comes so far.
const SEQ_MAX: u64 = 1 << 62;

const CHUNK: (i64, i64, i64) = (1 << 10, 128 << 10, 1 << 20);
const WINDOW: (i64, i64, i64) = (1 << 10, 8 << 20, 32 << 20);

impl SnapshotRequest {
    /// The size of a piece, and how many may be on their way.
    pub fn sizes(&self) -> (usize, usize) {
        let within = |wanted: i64, (least, usual, most): (i64, i64, i64)| match wanted {
            ..=0 => usual,
            wanted => wanted.clamp(least, most),
        };
        let chunk = within(self.chunk_size, CHUNK);
        let window = within(self.window_size, WINDOW).max(chunk);
        (chunk as usize, (window / chunk) as usize)
    }
}

#[derive(Serialize)]
struct Snapshot<'a> {
    r#type: &'static str,
    config: &'a StreamConfig,
    state: &'a StreamState,
}

/// The answer to a snapshot request that begins.
pub fn snapshot_begun(info: &StreamInfo) -> Vec<u8> {
    let r#type = Kind::StreamSnapshot.type_name();
    to_json(&Snapshot { r#type, config: &info.config, state: &info.state })
}

#[derive(Serialize)]
struct Restore<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    deliver_subject: &'a str,
}

/// The answer to a restore request: where the pieces are to be sent.
pub fn restore_begun(deliver: &str) -> Vec<u8> {
    to_json(&Restore { r#type: Kind::StreamRestore.type_name(), error: None, deliver_subject: deliver })
}

/// The answer to a restore request that is refused.
pub(crate) fn restore_refused(error: &ApiError) -> Vec<u8> {
    to_json(&Restore { r#type: Kind::StreamRestore.type_name(), error: Some(error), deliver_subject: "" })
}

/// The numbers of a stream, as the first entry of an archive has them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ArchivedState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    #[serde(rename = "last_ts")]
    last_ts_text: String,
    pub consumer_count: i64,
}

impl ArchivedState {
    /// Reads the entry; the error says what is wrong.
    pub fn parse(json: &[u8]) -> Result<ArchivedState, String> {
        let state: ArchivedState = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let (first, last) = (state.first_seq, state.last_seq);
        let empty = (first, last) == (0, 0) || first == last.saturating_add(1);
        if last > SEQ_MAX {
            return Err(format!("last sequence {last} is too large"));
        }
        if state.consumer_count < 0 {
            return Err(format!("negative consumer count {}", state.consumer_count));
        }
        if !empty && first > last
            || state.messages > 0 && (empty || first == 0 || state.messages > last - first + 1)
        {
            return Err(format!("{} messages from sequence {first} to {last}", state.messages));
        }
        Ok(state)
    }

    /// When the last sequence was given.
    pub fn last_ts(&self) -> Time {
        Time::parse_rfc3339(&self.last_ts_text).unwrap_or_default()
    }
}

/// A place in both numberings.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Place {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct Waiting {
    sequence: u64,
    timestamp: i64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct ConsumerState {
    delivered: Place,
    ack_floor: Place,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pending: BTreeMap<u64, Waiting>,
    /// How often beyond the first time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    redelivered: BTreeMap<u64, u64>,
}

#[derive(Serialize)]
struct Archived<'a> {
    config: &'a ConsumerConfig,
    state: ConsumerState,
}

/// A consumer as an archive has it.
pub fn archived_consumer(consumer: &Consumer) -> Vec<u8> {
    let progress = consumer.progress();
    let place = |(consumer_seq, Seq(stream_seq))| Place { consumer_seq, stream_seq };
    let mut state = ConsumerState {
        delivered: place(progress.delivered),
        ack_floor: place(progress.ack_floor),
        ..ConsumerState::default()
    };
    for (seq, delivery) in progress.pending {
        let waiting = Waiting { sequence: delivery.consumer_seq, timestamp: delivery.ts.0 };
        state.pending.insert(seq.0, waiting);
        if delivery.count > 1 {
            state.redelivered.insert(seq.0, u64::from(delivery.count) - 1);
        }
    }
    to_json(&Archived { config: consumer.config(), state })
}

/// Reads a consumer of an archive: its configuration and how far it was; the error says what is wrong.
pub fn parse_archived_consumer(json: &[u8]) -> Result<(ConsumerConfig, Progress), String> {
    let mut value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    drop_nulls(&mut value);
    let mut part =
        |name: &str| value.get_mut(name).map(Value::take).ok_or_else(|| format!("it has no {name}"));
    let (config, state) = (part("config")?, part("state")?);
    let config: ConsumerConfig = known(config)?;
    let state: ConsumerState = serde_json::from_value(state).map_err(|error| error.to_string())?;
    let place = |place: Place| (place.consumer_seq, Seq(place.stream_seq));
    let delivery = |(seq, waiting): (u64, Waiting)| {
        let again = state.redelivered.get(&seq).copied().unwrap_or_default();
        let count = u32::try_from(again.saturating_add(1)).unwrap_or(u32::MAX);
        (Seq(seq), Delivery { consumer_seq: waiting.sequence, ts: Time(waiting.timestamp), count })
    };
    let progress = Progress {
        delivered: place(state.delivered),
        ack_floor: place(state.ack_floor),
        pending: state.pending.into_iter().map(delivery).collect(),
    };
    Ok((config, progress))
}

/// A configuration of another server: what this one does not know is left out.
fn known<T: serde::de::DeserializeOwned>(mut value: Value) -> Result<T, String> {
    loop {
        let error = match serde_json::from_value::<T>(value.clone()) {
            Ok(config) => return Ok(config),
            Err(error) => error.to_string(),
        };
        let unknown = error.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let dropped =
            unknown.is_some_and(|field| value.as_object_mut().is_some_and(|all| all.remove(field).is_some()));
        if !dropped {
            return Err(error);
        }
    }
}

/// What happened to a backup, for its advisory; `client` is who asked.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Transfer<'a> {
    SnapshotBegun { state: &'a StreamState },
    SnapshotDone { start: Time, end: Time, error: &'a str },
    RestoreBegun,
    RestoreDone { start: Time, end: Time, bytes: u64 },
}

impl Transfer<'_> {
    /// Adds its fields; gives the subject's verb and the type.
    pub(crate) fn describe(&self, fields: &mut Map<String, Value>) -> (&'static str, &'static str) {
        let mut times = |start: Time, end: Time| {
            fields.insert("start".into(), start.to_rfc3339().into());
            fields.insert("end".into(), end.to_rfc3339().into());
        };
        match self {
            Transfer::SnapshotBegun { state } => {
                fields.insert("state".into(), serde_json::to_value(state).unwrap_or_default());
                ("SNAPSHOT_CREATE", "advisory.v1.snapshot_create")
            }
            Transfer::SnapshotDone { start, end, error } => {
                times(*start, *end);
                if !error.is_empty() {
                    fields.insert("error".into(), (*error).into());
                }
                ("SNAPSHOT_COMPLETE", "advisory.v1.snapshot_complete")
            }
            Transfer::RestoreBegun => ("RESTORE_CREATE", "advisory.v1.restore_create"),
            Transfer::RestoreDone { start, end, bytes } => {
                times(*start, *end);
                fields.insert("bytes".into(), (*bytes).into());
                ("RESTORE_COMPLETE", "advisory.v1.restore_complete")
            }
        }
    }
}

/// Where the acknowledgements of a backup's pieces go: the part before the piece's size and number.
pub fn snapshot_ack_prefix(stream: &str, id: &str) -> String {
    format!("$JS.SNAPSHOT.ACK.{stream}.{id}")
}

/// Where the pieces of a backup that is restored go.
pub fn restore_subject(stream: &str, id: &str) -> String {
    format!("$JS.SNAPSHOT.RESTORE.{stream}.{id}")
}

/// A configuration as the log has it.
pub fn config_document(config: &ConsumerConfig) -> Bytes {
    to_json(config).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_bounds() {
        for (chunk_size, window_size, wanted) in [
            (0, 0, (128 << 10, 64)),
            (-1, -1, (128 << 10, 64)),
            (1, 1, (1 << 10, 1)),
            (1 << 40, 1, (1 << 20, 1)),
            (1 << 10, 1 << 40, (1 << 10, 32 << 10)),
            (1000, 0, (1 << 10, 8 << 10)),
        ] {
            let request = SnapshotRequest { chunk_size, window_size, ..SnapshotRequest::default() };
            assert_eq!(request.sizes(), wanted, "{chunk_size} {window_size}");
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        for (first, last, messages, consumers, sound) in [
            (0, 0, 0, 0, true),
            (1, 0, 0, 0, true),
            (8, 7, 0, 2, true),
            (1, 5, 3, 0, true),
            (1, 5, 0, 0, true),
            (0, 0, 0, -1, false),
            (1, 5, 6, 0, false),
            (6, 5, 1, 0, false),
            (7, 5, 0, 0, false),
            (0, 5, 6, 0, false),
            (SEQ_MAX, SEQ_MAX, 1, 0, true),
            (u64::MAX, u64::MAX, 1, 0, false),
        ] {
            let json = format!(
                r#"{{"messages":{messages},"first_seq":{first},"last_seq":{last},"consumer_count":{consumers}}}"#
            );
            assert_eq!(ArchivedState::parse(json.as_bytes()).is_ok(), sound, "{json}");
        }
    }

    #[test]
    fn a_consumer_of_nats_server_is_read() {
        let json = br#"{"config":{"durable_name":"C","name":"C","deliver_policy":"all","ack_policy":"explicit",
            "ack_wait":30000000000,"replay_policy":"instant","num_replicas":0,"something_new":[1],
            "pause_until":"0001-01-01T00:00:00Z"},
            "state":{"delivered":{"consumer_seq":4,"stream_seq":3},"ack_floor":{"consumer_seq":1,"stream_seq":1},
            "pending":{"2":{"Sequence":2,"Timestamp":17},"3":{"Sequence":3,"Timestamp":18}},"redelivered":{"3":1}}}"#;
        let (config, progress) = parse_archived_consumer(json).expect("it is sound");
        assert_eq!((config.name.as_str(), config.ack_wait.0), ("C", 30_000_000_000));
        let delivery = |consumer_seq, ts, count| Delivery { consumer_seq, ts: Time(ts), count };
        let pending = vec![(Seq(2), delivery(2, 17, 1)), (Seq(3), delivery(3, 18, 2))];
        assert_eq!(progress, Progress { delivered: (4, Seq(3)), ack_floor: (1, Seq(1)), pending });
        assert_eq!(parse_archived_consumer(b"{\"config\":{}}"), Err("it has no state".to_owned()));
    }
}
