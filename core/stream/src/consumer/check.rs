//! What a consumer's configuration may say, and the defaults that complete it.
//!
//! The numbers are the API's error codes; every text is what `nats-server` 2.15 answers.

use hw_kit::Span;
use hw_subject::Filter;

use super::Consumer;
use super::rules::check_update;
use crate::command::ConsumerAction;
use crate::config::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy, Retention, StreamConfig};
use crate::outcome::ConsumerError;

const ACK_WAIT: Span = Span::from_secs(30);
const MAX_ACK_PENDING: i64 = 1000;
const MAX_WAITING: i64 = 512;
const INACTIVE_THRESHOLD: Span = Span::from_secs(5);
const PIN_TIMEOUT: Span = Span::from_secs(120);
const FLOW_HEARTBEAT: Span = Span::from_secs(1);
const MIN_HEARTBEAT: Span = Span::from_millis(100);
const MIN_EXPIRES: Span = Span::from_millis(1);
const MAX_DESCRIPTION: usize = 4096;
const MAX_METADATA: usize = 128 * 1024;
const MAX_NAME: usize = 255;

/// What an account and a server allow consumers; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerLimits {
    /// The most unacknowledged deliveries.
    pub max_ack_pending: i64,
    /// The largest pull batch.
    pub max_request_batch: i64,
    /// The most consumers of one stream, whatever the stream itself says.
    pub max_consumers: i64,
    /// The most consumers of a stream that says nothing.
    pub default_max_consumers: i64,
    /// New consumers that were asked for and are not decided yet.
    pub in_flight: u64,
    /// Whether there are servers for more than one replica.
    pub clustered: bool,
}

/// A request to create or update a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As it came.
    pub config: &'a ConsumerConfig,
    /// What it allows.
    pub action: ConsumerAction,
    /// Whether what would be adjusted is refused.
    pub pedantic: bool,
}

/// Nothing, or the rule that does not hold.
pub type Checked = Result<(), ConsumerError>;

pub(super) fn refuse<T>(err_code: u16, text: impl Into<String>) -> Result<T, ConsumerError> {
    Err(ConsumerError::Rule { err_code, text: text.into() })
}

fn rule(holds: bool, err_code: u16, text: &str) -> Checked {
    if holds { Ok(()) } else { refuse(err_code, text) }
}

/// The complete configuration that a request asks for, or why it is refused. The rules between consumers of one
/// stream are in [`super::check_siblings`].
pub fn check(
    request: Request<'_>,
    stream: &StreamConfig,
    limits: ServerLimits,
    existing: Option<&Consumer>,
) -> Result<ConsumerConfig, ConsumerError> {
    let mut config = request.config.clone();
    // What the server adds for clients comes back with their updates; it is not kept.
    config.metadata.retain(|key, _| !key.starts_with("_nats."));
    if request.pedantic {
        check_pedantic(&config)?;
    }
    complete(&mut config, stream, limits, request.pedantic);
    if let (None, ConsumerAction::Update) = (existing, request.action) {
        return Err(ConsumerError::Missing);
    }
    check_numbers(&config, stream, limits)?;
    match config.is_pull() {
        true => check_pull(&config, stream)?,
        false => check_push(&config, stream)?,
    }
    check_priority(&config)?;
    check_limits(&config, stream, limits)?;
    check_start(&config)?;
    check_filters(&config)?;
    let metadata: usize = config.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    rule(metadata <= MAX_METADATA, 10135, "consumer metadata exceeds maximum size of 128KB")?;
    if let Err(why) = sample_percent(&config.sample_freq) {
        return refuse(10095, format!("failed to parse consumer sampling configuration: {why}"));
    }
    check_name(&config.name)?;
    if let Some(existing) = existing {
        config.pause_until = existing.config().pause_until;
        config.name.clone_from(&existing.config().name);
        if request.action == ConsumerAction::Create && config != *existing.config() {
            return Err(ConsumerError::Exists);
        }
        check_update(existing.config(), &config)?;
    }
    check_retention(&config, stream)?;
    Ok(config)
}

/// A name is one token of the subjects that its consumer uses.
fn check_name(name: &str) -> Checked {
    let long = format!("consumer name is too long, maximum allowed is {MAX_NAME}");
    rule(name.len() <= MAX_NAME, 10102, &long)?;
    rule(!name.contains(['/', '\\']), 10127, "Consumer name can not contain path separators")?;
    let forbidden = |c: char| c.is_ascii_whitespace() || matches!(c, '.' | '*' | '>' | '\0');
    rule(!name.contains(forbidden), 10052, "consumer name can not contain '.', '*', '>', '\\', '/'")
}

/// The API level that a client must know to use a consumer like this.
pub fn required_api_level(config: &ConsumerConfig) -> u8 {
    if config.ack_policy == AckPolicy::FlowControl {
        return 4;
    }
    u8::from(config.pause_until.is_some() || config.priority_policy != PriorityPolicy::None)
}

fn check_pedantic(config: &ConsumerConfig) -> Checked {
    let pedantic = |holds: bool, text: &str| rule(holds, 10157, &format!("pedantic mode: {text}"));
    for (value, field) in [
        (config.max_waiting, "max_waiting"),
        (config.idle_heartbeat.0, "idle_heartbeat"),
        (config.max_batch, "max_batch"),
        (config.max_expires.0, "max_expires"),
        (config.max_bytes, "max_bytes"),
        (config.inactive_threshold.0, "inactive_threshold"),
        (config.priority_timeout.0, "priority_timeout"),
    ] {
        pedantic(value >= 0, &format!("{field} must not be negative"))?;
    }
    pedantic(config.max_ack_pending >= -1, "max_ack_pending must be set to -1")?;
    pedantic(config.max_deliver >= -1, "max_deliver must be set to -1")?;
    let first = config.backoff.first().copied().unwrap_or(config.ack_wait);
    pedantic(first == config.ack_wait, "first backoff value has to equal batch AckWait")
}

/// Fills in what was left out and what may be adjusted.
fn complete(config: &mut ConsumerConfig, stream: &StreamConfig, limits: ServerLimits, pedantic: bool) {
    if !config.durable.is_empty() {
        config.name.clone_from(&config.durable);
    }
    for value in [&mut config.max_waiting, &mut config.max_batch, &mut config.max_bytes] {
        *value = (*value).max(0);
    }
    for span in [
        &mut config.idle_heartbeat,
        &mut config.max_expires,
        &mut config.inactive_threshold,
        &mut config.priority_timeout,
    ] {
        *span = (*span).max(Span::ZERO);
    }
    if config.max_deliver <= 0 {
        config.max_deliver = -1;
    }
    let (flow, wants_acks) =
        (config.ack_policy == AckPolicy::FlowControl, config.ack_policy != AckPolicy::None);
    if let Some(first) = config.backoff.first() {
        config.ack_wait = *first;
    } else if config.ack_wait.is_zero() && wants_acks && !flow {
        config.ack_wait = ACK_WAIT;
    }
    if config.is_pull() && config.max_waiting == 0 {
        config.max_waiting = MAX_WAITING;
    }
    if config.max_ack_pending == 0 {
        config.max_ack_pending = match stream.consumer_limits.max_ack_pending {
            0 if wants_acks && limits.max_ack_pending > 0 => MAX_ACK_PENDING.min(limits.max_ack_pending),
            0 if wants_acks => MAX_ACK_PENDING,
            limit => limit,
        };
    }
    config.max_ack_pending = config.max_ack_pending.max(-1);
    if config.inactive_threshold.is_zero() {
        config.inactive_threshold = match stream.consumer_limits.inactive_threshold {
            Span::ZERO if !config.is_durable() => INACTIVE_THRESHOLD,
            limit => limit,
        };
    }
    if config.priority_policy == PriorityPolicy::PinnedClient && config.priority_timeout.is_zero() {
        config.priority_timeout = PIN_TIMEOUT;
    }
    if flow && !pedantic {
        config.flow_control = true;
        config.idle_heartbeat = FLOW_HEARTBEAT;
    }
}

fn check_numbers(config: &ConsumerConfig, stream: &StreamConfig, limits: ServerLimits) -> Checked {
    rule(config.num_replicas >= 0, 10133, "replicas count cannot be negative")?;
    let alone = "replicas > 1 not supported in non-clustered mode";
    rule(config.num_replicas <= 1 || limits.clustered, 10074, alone)?;
    let more = "consumer config replica count exceeds parent stream";
    rule(config.num_replicas <= stream.num_replicas.max(1), 10126, more)?;
    let equal = "consumer config replicas must match interest retention stream's replicas";
    let same = config.num_replicas == 0 || config.num_replicas == stream.num_replicas.max(1);
    rule(same || stream.retention == Retention::Limits, 10134, equal)?;
    let long = format!("consumer description is too long, maximum allowed is {MAX_DESCRIPTION}");
    rule(config.description.len() <= MAX_DESCRIPTION, 10107, &long)?;
    // The first backoff is the ack wait by now.
    let positive = config.backoff.iter().all(|span| *span >= Span::ZERO);
    rule(positive, 10184, "consumer backoff needs to be positive")?;
    rule(config.ack_wait >= Span::ZERO, 10183, "consumer ack wait needs to be positive")?;
    let room = config.max_deliver == -1 || config.backoff.len() as i64 <= config.max_deliver;
    rule(room, 10116, "max deliver is required to be > length of backoff values")
}

fn check_pull(config: &ConsumerConfig, stream: &StreamConfig) -> Checked {
    if config.ack_policy == AckPolicy::FlowControl {
        return refuse(10218, "flow control ack policy requires a push based consumer");
    }
    rule(!config.direct, 10090, "consumer direct requires a push based consumer")?;
    let no_acks = config.ack_policy == AckPolicy::None && stream.retention == Retention::Workqueue;
    rule(!no_acks, 10084, "consumer in pull mode requires explicit ack policy on workqueue stream")?;
    rule(config.rate_limit_bps == 0, 10086, "consumer in pull mode can not have rate limit set")?;
    let heartbeat = "consumer idle heartbeat requires a push based consumer";
    rule(config.idle_heartbeat.is_zero(), 10088, heartbeat)?;
    rule(!config.flow_control, 10089, "consumer flow control requires a push based consumer")?;
    let short = config.max_expires.is_zero() || config.max_expires >= MIN_EXPIRES;
    rule(short, 10115, "consumer max request expires needs to be >= 1ms")
}

fn check_push(config: &ConsumerConfig, stream: &StreamConfig) -> Checked {
    let Ok(target) = Filter::parse(&config.deliver_subject) else {
        return refuse(10112, "invalid push consumer deliver subject");
    };
    rule(target.is_literal(), 10079, "consumer deliver subject has wildcards")?;
    let cycle = stream.subjects.iter().filter_map(|s| Filter::parse(s).ok()).any(|s| s.overlaps(&target));
    rule(!cycle, 10081, "consumer deliver subject forms a cycle")?;
    rule(config.max_waiting == 0, 10080, "consumer in push mode can not set max waiting")?;
    let idle_limit = config.ack_policy == AckPolicy::None && config.max_ack_pending > 0;
    rule(!idle_limit, 10082, "consumer requires ack policy for max ack pending")?;
    let beats = config.idle_heartbeat.is_zero() || config.idle_heartbeat >= MIN_HEARTBEAT;
    rule(beats, 10083, "consumer idle heartbeat needs to be >= 100ms")?;
    if config.ack_policy == AckPolicy::FlowControl {
        check_flow_acks(config)?;
    }
    let flow = !config.flow_control || !config.idle_heartbeat.is_zero();
    rule(flow, 10108, "consumer with flow control also needs heartbeats")?;
    rule(!config.direct || !config.is_durable(), 10091, "consumer direct requires an ephemeral consumer")
}

/// Flow control as acknowledgement: no timer repeats anything, and each answer settles all up to what it names.
fn check_flow_acks(config: &ConsumerConfig) -> Checked {
    rule(config.flow_control, 10219, "flow control ack policy requires flow control")?;
    let beats = config.idle_heartbeat == FLOW_HEARTBEAT;
    rule(beats, 10052, "flow control ack policy heartbeat needs to be 1s")?;
    rule(config.max_ack_pending > 0, 10220, "flow control ack policy requires max ack pending")?;
    let no_wait = config.ack_wait.is_zero() && config.backoff.is_empty();
    rule(no_wait, 10221, "flow control ack policy requires unset ack wait")?;
    rule(config.max_deliver == -1, 10222, "flow control ack policy requires unset max deliver")
}

fn check_priority(config: &ConsumerConfig) -> Checked {
    if config.priority_policy == PriorityPolicy::None {
        let groups = "consumer can not have priority groups when policy is none";
        rule(config.priority_groups.is_empty(), 10196, groups)?;
        let timeout = "PinnedTTL cannot be set when PriorityPolicy is none";
        return rule(config.priority_timeout.is_zero(), 10197, timeout);
    }
    rule(config.is_pull(), 10178, "priority groups can not be used with push consumers")?;
    let none = "Setting PriorityPolicy requires at least one PriorityGroup to be set";
    rule(!config.priority_groups.is_empty(), 10159, none)?;
    config.priority_groups.iter().try_for_each(|group| check_group(group))
}

/// Whether a priority group may be called that.
pub fn check_group(group: &str) -> Checked {
    rule(!group.is_empty(), 10161, "Group name cannot be an empty string")?;
    let valid = group.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/=".contains(&b));
    rule(
        valid && group.len() <= 16,
        10162,
        "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
    )
}

fn check_limits(config: &ConsumerConfig, stream: &StreamConfig, limits: ServerLimits) -> Checked {
    for limit in [stream.consumer_limits.max_ack_pending, limits.max_ack_pending] {
        let text = format!("consumer max ack pending exceeds system limit of {limit}");
        rule(limit <= 0 || config.max_ack_pending <= limit, 10121, &text)?;
    }
    let limit = limits.max_request_batch;
    let text = format!("consumer max request batch exceeds server limit of {limit}");
    rule(limit <= 0 || config.max_batch <= limit, 10125, &text)?;
    let limit = stream.consumer_limits.inactive_threshold;
    let text = format!("consumer inactive threshold exceeds system limit of {}", go_duration(limit));
    rule(limit <= Span::ZERO || config.inactive_threshold <= limit, 10153, &text)
}

fn check_start(config: &ConsumerConfig) -> Checked {
    let policy = match config.deliver_policy {
        DeliverPolicy::All => "all",
        DeliverPolicy::Last => "last",
        DeliverPolicy::New => "new",
        DeliverPolicy::LastPerSubject => "last per subject",
        DeliverPolicy::ByStartSequence => "by start sequence",
        DeliverPolicy::ByStartTime => "by start time",
    };
    let conflict = |holds: bool, what: &str| {
        rule(holds, 10094, &format!("consumer delivery policy is deliver {policy}, but optional {what}"))
    };
    let (seq, time) = (config.opt_start_seq != 0, config.opt_start_time.is_some());
    match config.deliver_policy {
        DeliverPolicy::ByStartSequence => {
            conflict(seq, "start sequence is not set")?;
            conflict(!time, "start time is also set")
        }
        DeliverPolicy::ByStartTime => {
            conflict(time, "start time is not set")?;
            conflict(!seq, "start start sequence is also set")
        }
        _ => {
            conflict(!seq, "start sequence is also set")?;
            conflict(!time, "start time is also set")?;
            let filtered = !config.filter_subject.is_empty() || !config.filter_subjects.is_empty();
            let needs = config.deliver_policy == DeliverPolicy::LastPerSubject;
            conflict(filtered || !needs, "filter subject is not set")
        }
    }
}

fn check_filters(config: &ConsumerConfig) -> Checked {
    let both = !config.filter_subject.is_empty() && !config.filter_subjects.is_empty();
    rule(!both, 10136, "consumer cannot have both FilterSubject and FilterSubjects specified")?;
    let empty = config.filter_subjects.iter().any(String::is_empty);
    rule(!empty, 10139, "consumer filter in FilterSubjects cannot be empty")?;
    let mut filters: Vec<Filter> = Vec::new();
    for filter in config.filters() {
        let Ok(filter) = Filter::parse(filter) else { return refuse(10052, "invalid subject") };
        let overlaps = filters.iter().any(|earlier| earlier.overlaps(&filter));
        rule(!overlaps, 10138, "consumer subject filters cannot overlap")?;
        filters.push(filter);
    }
    Ok(())
}

fn check_retention(config: &ConsumerConfig, stream: &StreamConfig) -> Checked {
    if stream.retention != Retention::Workqueue || config.direct {
        return Ok(());
    }
    let acks = matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl);
    rule(acks, 10098, "workqueue stream requires explicit ack")?;
    let all = config.deliver_policy == DeliverPolicy::All;
    rule(all, 10101, "consumer must be deliver all on workqueue stream")
}

/// The percentage of acknowledgements to sample; the error is the reason that the API gives.
pub(super) fn sample_percent(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<i64>() {
        Ok(percent) => u64::try_from(percent).map_err(|_| "<nil>".to_owned()),
        Err(_) => Err(format!("strconv.Atoi: parsing {number:?}: invalid syntax")),
    }
}

/// A duration as Go prints it: `1s`, `1m30s`, `1.5ms`.
pub(crate) fn go_duration(span: Span) -> String {
    let (sign, nanos) = (if span.0 < 0 { "-" } else { "" }, span.0.unsigned_abs());
    let decimal = |value: u64, unit: u64| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}
