//! A consumer's configuration from flags. It stays JSON, so that an edit keeps what we do not know.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::error::Failure;
use crate::command::stream::config::Config;
use crate::command::units::{parse_age, parse_duration, parse_moment, parse_pair, parse_size};

/// The flags that set a consumer's configuration.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConsumerFlags {
    /// What must be acknowledged: none, all, explicit or flow_control
    #[arg(long, value_parser = ["none", "all", "explicit", "flow_control"])]
    ack: Option<String>,
    /// Limit of the delivery rate in bits per second
    #[arg(long, value_name = "BITS")]
    bps: Option<u64>,
    /// Wait longer after each delivery: none or linear
    #[arg(long, value_parser = ["none", "linear"])]
    backoff: Option<String>,
    /// Number of steps of the backoff
    #[arg(long, default_value_t = 10)]
    backoff_steps: u32,
    /// Shortest wait of the backoff
    #[arg(long, value_parser = parse_duration, default_value = "1m")]
    backoff_min: Duration,
    /// Longest wait of the backoff
    #[arg(long, value_parser = parse_duration, default_value = "20m")]
    backoff_max: Duration,
    /// Where to start: all, new, last, subject (the last of each), a duration ago (1h) or a sequence
    #[arg(long, value_name = "POLICY")]
    deliver: Option<String>,
    /// Deliver to this queue group
    #[arg(long, value_name = "GROUP")]
    deliver_group: Option<String>,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// Only these subjects
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    filter: Vec<String>,
    /// Flow control of a push consumer
    #[arg(long)]
    flow_control: bool,
    /// Idle heartbeats of a push consumer
    #[arg(long, value_parser = parse_age, allow_hyphen_values = true, value_name = "DURATION")]
    heartbeat: Option<Duration>,
    /// Deliver only headers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    headers_only: Option<bool>,
    /// Most deliveries of a message
    #[arg(long, allow_negative_numbers = true)]
    max_deliver: Option<i64>,
    /// Most unacknowledged messages
    #[arg(long, allow_negative_numbers = true)]
    max_pending: Option<i64>,
    /// Most pull requests that wait
    #[arg(long)]
    max_waiting: Option<u64>,
    /// Largest batch of a pull request
    #[arg(long)]
    max_pull_batch: Option<u64>,
    /// Longest wait of a pull request
    #[arg(long, value_parser = parse_duration)]
    max_pull_expire: Option<Duration>,
    /// Most bytes of a pull request
    #[arg(long, value_parser = parse_size)]
    max_pull_bytes: Option<i64>,
    /// How fast to replay: instant or original
    #[arg(long, value_parser = ["instant", "original"])]
    replay: Option<String>,
    /// Percentage of messages to sample
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT")]
    sample: Option<i64>,
    /// Deliver to this subject (makes it a push consumer)
    #[arg(long, value_name = "SUBJECT")]
    target: Option<String>,
    /// How long to wait for an acknowledgement
    #[arg(long, value_parser = parse_age, allow_hyphen_values = true, value_name = "DURATION")]
    wait: Option<Duration>,
    /// How long a consumer may be idle before it is removed
    #[arg(long, value_parser = parse_age, value_name = "DURATION")]
    inactive_threshold: Option<Duration>,
    /// Keep the state in memory only
    #[arg(long)]
    memory: bool,
    /// How many servers hold the state, instead of as many as the stream's
    #[arg(long)]
    replicas: Option<u64>,
    /// Metadata, KEY:VALUE
    #[arg(long, value_parser = parse_pair, value_name = "KEY:VALUE")]
    metadata: Vec<(String, String)>,
    /// Start paused, until a time or for a duration
    #[arg(long, value_name = "TIME")]
    pause: Option<String>,
    /// Groups that pin one client
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    pinned_groups: Vec<String>,
    /// How long a client may be silent before it is unpinned
    #[arg(long, value_parser = parse_duration)]
    pinned_ttl: Option<Duration>,
    /// Groups that take only what overflows
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    overflow_groups: Vec<String>,
    /// Groups that serve clients by priority
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    prioritized_groups: Vec<String>,
}

fn nanoseconds(span: Duration) -> Value {
    (span.as_nanos() as u64).into()
}

impl ConsumerFlags {
    /// Whether it is to be a push consumer.
    pub fn is_push(&self) -> bool {
        self.target.is_some()
    }

    /// Lays the flags that were given over a configuration.
    pub fn apply(&self, config: &mut Config, now: Timestamp) -> Result<(), Failure> {
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                config.insert(key.into(), value);
            }
        };
        set("ack_policy", self.ack.clone().map(Value::from));
        set("rate_limit_bps", self.bps.map(Value::from));
        set("deliver_group", self.deliver_group.clone().map(Value::from));
        set("deliver_subject", self.target.clone().map(Value::from));
        set("description", self.description.clone().map(Value::from));
        set("flow_control", self.flow_control.then(|| true.into()));
        set("idle_heartbeat", self.heartbeat.map(nanoseconds));
        set("headers_only", self.headers_only.map(Value::from));
        set("max_deliver", self.max_deliver.map(Value::from));
        set("max_ack_pending", self.max_pending.map(Value::from));
        set("max_waiting", self.max_waiting.map(Value::from));
        set("max_batch", self.max_pull_batch.map(Value::from));
        set("max_expires", self.max_pull_expire.map(nanoseconds));
        set("max_bytes", self.max_pull_bytes.map(Value::from));
        set("replay_policy", self.replay.clone().map(Value::from));
        set("sample_freq", self.sample.filter(|rate| *rate >= 0).map(|rate| rate.to_string().into()));
        set("ack_wait", self.wait.filter(|wait| !wait.is_zero()).map(nanoseconds));
        set("inactive_threshold", self.inactive_threshold.map(nanoseconds));
        set("mem_storage", self.memory.then(|| true.into()));
        set("num_replicas", self.replicas.map(Value::from));
        set("priority_timeout", self.pinned_ttl.map(nanoseconds));
        set("backoff", self.backoff.as_deref().map(|mode| self.backoff(mode)));
        self.apply_filter(config);
        self.apply_priorities(config)?;
        self.apply_deliver(config, now)?;
        if let Some(until) = &self.pause {
            let until = parse_moment(until, now).map_err(|error| Failure::Usage(error.to_string()))?;
            config.insert("pause_until".into(), until.to_string().into());
        }
        if !self.metadata.is_empty() {
            let metadata = config.entry("metadata").or_insert_with(|| json!({}));
            if !metadata.is_object() {
                *metadata = json!({});
            }
            for (key, value) in &self.metadata {
                metadata[key] = json!(value);
            }
        }
        Ok(())
    }

    fn backoff(&self, mode: &str) -> Value {
        let (min, max) = (self.backoff_min.as_nanos() as u64, self.backoff_max.as_nanos() as u64);
        match (mode, self.backoff_steps) {
            ("none", _) | (_, 0) => json!([]),
            (_, 1) => json!([min]),
            (_, steps) => {
                let stride = max.saturating_sub(min) / u64::from(steps - 1);
                json!((0..u64::from(steps)).map(|step| min + stride * step).collect::<Vec<u64>>())
            }
        }
    }

    fn apply_filter(&self, config: &mut Config) {
        if self.filter.is_empty() {
            return;
        }
        config.remove("filter_subject");
        config.remove("filter_subjects");
        match self.filter.as_slice() {
            [one] => config.insert("filter_subject".into(), json!(one)),
            many => config.insert("filter_subjects".into(), json!(many)),
        };
    }

    fn apply_priorities(&self, config: &mut Config) -> Result<(), Failure> {
        let kinds = [
            ("pinned_client", &self.pinned_groups),
            ("overflow", &self.overflow_groups),
            ("prioritized", &self.prioritized_groups),
        ];
        let given: Vec<_> = kinds.iter().filter(|(_, groups)| !groups.is_empty()).collect();
        match given.as_slice() {
            [] => Ok(()),
            [(policy, groups)] => {
                config.insert("priority_policy".into(), json!(policy));
                config.insert("priority_groups".into(), json!(groups));
                Ok(())
            }
            _ => Err(Failure::Usage("a consumer has groups of one kind only".into())),
        }
    }

    fn apply_deliver(&self, config: &mut Config, now: Timestamp) -> Result<(), Failure> {
        let Some(deliver) = &self.deliver else { return Ok(()) };
        config.remove("opt_start_seq");
        config.remove("opt_start_time");
        let policy = match deliver.as_str() {
            "all" | "new" | "last" => deliver.as_str(),
            "subject" | "last_per_subject" | "1st" => "last_per_subject",
            other => match (other.parse::<u64>(), parse_duration(other)) {
                (Ok(sequence), _) => {
                    config.insert("opt_start_seq".into(), sequence.into());
                    "by_start_sequence"
                }
                (Err(_), Ok(ago)) => {
                    let start = now.checked_sub(ago).map_err(|error| Failure::Usage(error.to_string()))?;
                    config.insert("opt_start_time".into(), start.to_string().into());
                    "by_start_time"
                }
                _ => {
                    return Err(Failure::Usage(format!(
                        "--deliver {other}: use all, new, last, subject, a duration or a sequence"
                    )));
                }
            },
        };
        config.insert("deliver_policy".into(), policy.into());
        Ok(())
    }
}

/// Fills in what a new consumer needs.
pub fn fill_defaults(config: &mut Config) {
    let is_push =
        config.get("deliver_subject").and_then(Value::as_str).is_some_and(|subject| !subject.is_empty());
    let acked = config.get("ack_policy").and_then(Value::as_str) != Some("none");
    let mut fill = |key: &str, value: Value| {
        config.entry(key).or_insert(value);
    };
    fill("deliver_policy", json!("all"));
    fill("replay_policy", json!("instant"));
    fill("max_deliver", json!(-1));
    // A push consumer that was not asked about acknowledgements is read by plain subscribers as well.
    fill("ack_policy", json!(if is_push { "none" } else { "explicit" }));
    if acked && !is_push {
        fill("max_ack_pending", json!(1000));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        flags: ConsumerFlags,
    }

    fn config(line: &str) -> Result<Value, Failure> {
        let probe = Probe::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap();
        let mut config = Config::new();
        probe.flags.apply(&mut config, "2026-01-01T10:00:00Z".parse().unwrap())?;
        Ok(Value::Object(config))
    }

    #[test]
    fn flags_become_the_apis_fields() {
        let cases = [
            ("--ack none --target t", json!({"ack_policy": "none", "deliver_subject": "t"})),
            ("--deliver 5", json!({"deliver_policy": "by_start_sequence", "opt_start_seq": 5})),
            (
                "--deliver 1h",
                json!({"deliver_policy": "by_start_time", "opt_start_time": "2026-01-01T09:00:00Z"}),
            ),
            ("--deliver subject", json!({"deliver_policy": "last_per_subject"})),
            ("--filter a", json!({"filter_subject": "a"})),
            ("--filter a,b", json!({"filter_subjects": ["a", "b"]})),
            ("--wait 10s --max-pending -1", json!({"ack_wait": 10_000_000_000_u64, "max_ack_pending": -1})),
            ("--sample 50", json!({"sample_freq": "50"})),
            ("--pinned-groups g", json!({"priority_policy": "pinned_client", "priority_groups": ["g"]})),
            ("--pause 1h", json!({"pause_until": "2026-01-01T11:00:00Z"})),
            (
                "--backoff linear --backoff-steps 3 --backoff-min 1s --backoff-max 3s",
                json!({"backoff": [1_000_000_000_u64, 2_000_000_000_u64, 3_000_000_000_u64]}),
            ),
            ("--backoff none", json!({"backoff": []})),
        ];
        for (line, want) in cases {
            assert_eq!(config(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["--deliver sometimes", "--pause later", "--pinned-groups a --overflow-groups b"] {
            assert!(config(line).is_err(), "{line}");
        }
    }
}
