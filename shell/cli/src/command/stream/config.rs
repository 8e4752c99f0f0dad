//! A stream's configuration from flags and files. It stays JSON, so that an edit keeps what we do not know.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::command::error::Failure;
use crate::command::units::{duration_limit, parse_age, parse_pair, parse_size};

/// The configuration as the API takes it.
pub type Config = Map<String, Value>;

/// The flags that set a stream's configuration.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct StreamFlags {
    /// Subjects that the stream captures
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// Storage backend: file or memory
    #[arg(long, value_parser = storage)]
    storage: Option<String>,
    /// Compression: none or s2
    #[arg(long, value_parser = ["none", "s2"])]
    compression: Option<String>,
    /// How many servers hold the data
    #[arg(long)]
    replicas: Option<u64>,
    /// Place the stream on servers with this tag
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// Place the stream in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Acknowledge publishes [--no-ack to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ack: Option<bool>,
    /// What keeps a message: limits, interest or work
    #[arg(long, value_parser = retention)]
    retention: Option<String>,
    /// What a full stream drops: old messages or new ones
    #[arg(long, value_parser = ["old", "new"])]
    discard: Option<String>,
    /// With discard new, hold every subject to its own limit
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    discard_per_subject: Option<bool>,
    /// Sequence of the first message
    #[arg(long, value_name = "SEQUENCE")]
    first_sequence: Option<u64>,
    /// Longest time to keep a message
    #[arg(long, value_parser = parse_age, allow_hyphen_values = true, value_name = "DURATION")]
    max_age: Option<Duration>,
    /// Most bytes to keep
    #[arg(long, value_parser = parse_size, allow_hyphen_values = true, value_name = "BYTES")]
    max_bytes: Option<i64>,
    /// Most consumers
    #[arg(long, allow_negative_numbers = true)]
    max_consumers: Option<i64>,
    /// Largest message
    #[arg(long, value_parser = parse_size, allow_hyphen_values = true, value_name = "BYTES")]
    max_msg_size: Option<i64>,
    /// Most messages to keep
    #[arg(long, allow_negative_numbers = true)]
    max_msgs: Option<i64>,
    /// Most messages to keep of each subject
    #[arg(long, allow_negative_numbers = true)]
    max_msgs_per_subject: Option<i64>,
    /// How long duplicates are recognised
    #[arg(long, value_parser = parse_age, allow_hyphen_values = true, value_name = "DURATION")]
    dupe_window: Option<Duration>,
    /// Mirror another stream
    #[arg(long, value_name = "STREAM")]
    mirror: Option<String>,
    /// Merge another stream into this one
    #[arg(long = "source", value_name = "STREAM")]
    sources: Vec<String>,
    /// Allow atomic batches
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_batch: Option<bool>,
    /// Allow fast batches
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_fast: Option<bool>,
    /// Make the stream a distributed counter
    #[arg(long)]
    allow_counter: bool,
    /// Allow headers that roll up a subject or the stream
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_rollup: Option<bool>,
    /// Deny deleting single messages
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deny_delete: Option<bool>,
    /// Deny purging
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deny_purge: Option<bool>,
    /// Let any replica answer direct gets
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_direct: Option<bool>,
    /// Let mirrors answer direct gets
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_mirror_direct: Option<bool>,
    /// Allow messages to have their own time to live
    #[arg(long)]
    allow_msg_ttl: bool,
    /// Allow scheduled messages
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_schedules: Option<bool>,
    /// How long the marker of an expired subject stays
    #[arg(long, value_parser = parse_age, value_name = "DURATION")]
    subject_del_markers_ttl: Option<Duration>,
    /// Subjects to transform when messages are stored
    #[arg(long, requires = "transform_destination", value_name = "SUBJECT")]
    transform_source: Option<String>,
    /// What the subjects become
    #[arg(long, value_name = "SUBJECT")]
    transform_destination: Option<String>,
    /// Metadata, KEY:VALUE
    #[arg(long, value_parser = parse_pair, value_name = "KEY:VALUE")]
    metadata: Vec<(String, String)>,
    /// Subjects to publish again once stored
    #[arg(long, requires = "republish_destination", value_name = "SUBJECT")]
    republish_source: Option<String>,
    /// Where to publish them
    #[arg(long, value_name = "SUBJECT")]
    republish_destination: Option<String>,
    /// Publish only headers again
    #[arg(long, requires = "republish_destination")]
    republish_headers: bool,
    /// Longest inactivity that a consumer of this stream may ask for
    #[arg(long, value_parser = parse_age, value_name = "DURATION")]
    limit_consumer_inactive: Option<Duration>,
    /// Most unacknowledged messages that a consumer of this stream may ask for
    #[arg(long, value_name = "COUNT")]
    limit_consumer_max_pending: Option<i64>,
    /// When an acknowledgement is given: default (after the disk) or async (before it)
    #[arg(long, value_parser = ["default", "async"])]
    persist_mode: Option<String>,
}

fn storage(word: &str) -> Result<String, String> {
    match word {
        "file" | "f" => Ok("file".into()),
        "memory" | "mem" | "m" => Ok("memory".into()),
        _ => Err("use file or memory".into()),
    }
}

fn retention(word: &str) -> Result<String, String> {
    match word {
        "limits" => Ok("limits".into()),
        "interest" => Ok("interest".into()),
        "work" | "workq" | "workqueue" => Ok("workqueue".into()),
        _ => Err("use limits, interest or work".into()),
    }
}

fn nanoseconds(span: Duration) -> Value {
    (span.as_nanos() as u64).into()
}

impl StreamFlags {
    /// Whether anything says where messages come from.
    pub fn has_origin(&self) -> bool {
        !self.subjects.is_empty() || self.mirror.is_some() || !self.sources.is_empty()
    }

    /// Lays the flags that were given over a configuration.
    pub fn apply(&self, config: &mut Config) {
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                config.insert(key.into(), value);
            }
        };
        set("subjects", (!self.subjects.is_empty()).then(|| json!(self.subjects)));
        set("description", self.description.clone().map(Value::from));
        set("storage", self.storage.clone().map(Value::from));
        set("compression", self.compression.clone().map(Value::from));
        set("num_replicas", self.replicas.map(Value::from));
        set("no_ack", self.ack.map(|ack| Value::from(!ack)));
        set("retention", self.retention.clone().map(Value::from));
        set("discard", self.discard.clone().map(Value::from));
        set("discard_new_per_subject", self.discard_per_subject.map(Value::from));
        if self.discard_per_subject == Some(true) {
            set("discard", Some("new".into()));
        }
        set("first_seq", self.first_sequence.map(Value::from));
        set("max_age", self.max_age.map(nanoseconds));
        set("max_bytes", self.max_bytes.map(Value::from));
        set("max_consumers", self.max_consumers.map(Value::from));
        set("max_msg_size", self.max_msg_size.map(Value::from));
        set("max_msgs", self.max_msgs.map(Value::from));
        set("max_msgs_per_subject", self.max_msgs_per_subject.map(Value::from));
        set("duplicate_window", self.dupe_window.map(nanoseconds));
        set("persist_mode", self.persist_mode.clone().map(Value::from));
        set("subject_delete_marker_ttl", self.subject_del_markers_ttl.map(nanoseconds));
        self.apply_permissions(config);
        self.apply_topology(config);
    }

    fn apply_permissions(&self, config: &mut Config) {
        let switches = [
            ("allow_atomic", self.allow_batch),
            ("allow_batched", self.allow_fast),
            ("allow_msg_counter", self.allow_counter.then_some(true)),
            ("allow_rollup_hdrs", self.allow_rollup),
            ("deny_delete", self.deny_delete),
            ("deny_purge", self.deny_purge),
            ("allow_direct", self.allow_direct),
            ("mirror_direct", self.allow_mirror_direct),
            ("allow_msg_ttl", self.allow_msg_ttl.then_some(true)),
            ("allow_msg_schedules", self.allow_schedules),
        ];
        for (key, switch) in switches {
            if let Some(on) = switch {
                config.insert(key.into(), on.into());
            }
        }
    }

    fn apply_topology(&self, config: &mut Config) {
        if let Some(mirror) = &self.mirror {
            config.insert("mirror".into(), json!({ "name": mirror }));
        }
        if !self.sources.is_empty() {
            let sources: Vec<Value> = self.sources.iter().map(|name| json!({ "name": name })).collect();
            config.insert("sources".into(), sources.into());
        }
        let mut nested = |key: &str, field: &str, value: Value| {
            let inner = config.entry(key).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            inner[field] = value;
        };
        if !self.tags.is_empty() {
            nested("placement", "tags", json!(self.tags));
        }
        if let Some(cluster) = &self.cluster {
            nested("placement", "cluster", json!(cluster));
        }
        for (key, value) in &self.metadata {
            nested("metadata", key, json!(value));
        }
        if let Some(destination) = &self.transform_destination {
            nested("subject_transform", "src", json!(self.transform_source.as_deref().unwrap_or(">")));
            nested("subject_transform", "dest", json!(destination));
        }
        if let Some(destination) = &self.republish_destination {
            nested("republish", "src", json!(self.republish_source.as_deref().unwrap_or(">")));
            nested("republish", "dest", json!(destination));
            nested("republish", "headers_only", json!(self.republish_headers));
        }
        if let Some(span) = self.limit_consumer_inactive {
            nested("consumer_limits", "inactive_threshold", nanoseconds(span));
        }
        if let Some(count) = self.limit_consumer_max_pending {
            nested("consumer_limits", "max_ack_pending", json!(count));
        }
    }
}

/// Fills in what a new stream needs; returns what was filled in, for those who did not ask for it.
pub fn fill_defaults(config: &mut Config) -> Vec<String> {
    let two_minutes = 120_000_000_000_u64;
    let max_age = config.get("max_age").and_then(Value::as_u64).filter(|age| *age > 0);
    let is_mirror = config.get("mirror").is_some_and(|mirror| !mirror.is_null());
    let defaults = [
        ("storage", json!("file")),
        ("retention", json!("limits")),
        ("discard", json!("old")),
        ("num_replicas", json!(1)),
        ("max_msgs", json!(-1)),
        ("max_msgs_per_subject", json!(-1)),
        ("max_bytes", json!(-1)),
        ("max_age", json!(0)),
        ("max_msg_size", json!(-1)),
        ("max_consumers", json!(-1)),
        // A window longer than the messages live is refused.
        ("duplicate_window", json!(max_age.map_or(two_minutes, |age| age.min(two_minutes)))),
        ("allow_direct", json!(true)),
    ];
    let mut filled = Vec::new();
    for (key, value) in defaults {
        let skip = is_mirror && key == "duplicate_window";
        if !skip && !config.contains_key(key) {
            let shown = match (key, value.as_i64()) {
                ("duplicate_window" | "max_age", Some(nanos)) => duration_limit(nanos),
                (_, Some(-1)) => "unlimited".to_owned(),
                _ => value.to_string().trim_matches('"').to_owned(),
            };
            filled.push(format!("{key}={shown}"));
            config.insert(key.into(), value);
        }
    }
    filled
}

/// Reads a configuration from a JSON file; a whole stream information is taken for its `config`.
pub fn from_file(path: &PathBuf) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|error| Failure::file("understand", path, error))?;
    let value = match value.get("config") {
        Some(inner) if inner.is_object() => inner.clone(),
        _ => value,
    };
    match value {
        Value::Object(config) => Ok(config),
        _ => Err(Failure::file("use", path, "it is not a JSON object")),
    }
}

/// The differences between two configurations, a line each way for every changed field.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut lines = Vec::new();
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if before != after {
            lines.extend(before.map(|value| format!("- {key}: {value}")));
            lines.extend(after.map(|value| format!("+ {key}: {value}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        flags: StreamFlags,
    }

    fn config(line: &str) -> Config {
        let probe = Probe::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap();
        let mut config = Config::new();
        probe.flags.apply(&mut config);
        config
    }

    #[test]
    fn flags_become_the_apis_fields() {
        let cases = [
            ("--subjects a.>,b --subjects c", json!({"subjects": ["a.>", "b", "c"]})),
            ("--max-age 1h --max-bytes 1GB", json!({"max_age": 3_600_000_000_000_u64, "max_bytes": 1 << 30})),
            ("--max-msgs -1 --max-age -1", json!({"max_msgs": -1, "max_age": 0})),
            ("--retention work --storage m", json!({"retention": "workqueue", "storage": "memory"})),
            ("--ack=false --deny-delete", json!({"no_ack": true, "deny_delete": true})),
            ("--discard-per-subject", json!({"discard": "new", "discard_new_per_subject": true})),
            ("--metadata a:b --tag x", json!({"metadata": {"a": "b"}, "placement": {"tags": ["x"]}})),
            ("--mirror M --source S", json!({"mirror": {"name": "M"}, "sources": [{"name": "S"}]})),
            (
                "--republish-source a --republish-destination b",
                json!({"republish": {"src": "a", "dest": "b", "headers_only": false}}),
            ),
            ("--dupe-window 30s", json!({"duplicate_window": 30_000_000_000_u64})),
        ];
        for (line, want) in cases {
            assert_eq!(Value::Object(config(line)), want, "{line}");
        }
    }

    #[test]
    fn bad_words_are_refused() {
        for line in ["--storage tape", "--retention forever", "--max-age soon", "--max-bytes lots"] {
            assert!(
                Probe::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn the_duplicate_window_is_no_longer_than_the_age() {
        let mut short = config("--max-age 10s");
        fill_defaults(&mut short);
        assert_eq!(short["duplicate_window"], 10_000_000_000_u64);
        let mut plain = config("");
        assert!(!fill_defaults(&mut plain).is_empty());
        assert_eq!(plain["duplicate_window"], 120_000_000_000_u64);
        assert!(fill_defaults(&mut plain).is_empty(), "the second time there is nothing left to fill");
    }

    #[test]
    fn differences_go_both_ways() {
        let old = config("--max-msgs 1 --description a");
        let new = config("--max-msgs 2 --description a --replicas 3");
        assert_eq!(differences(&old, &new), ["- max_msgs: 1", "+ max_msgs: 2", "+ num_replicas: 3"]);
    }
}
