//! What a stream's configuration must be, what is filled in, and what an update may change. The texts are those that
//! `nats-server` answers with; their codes are in `jsapi`.

mod feeds;

use hw_kit::Span;
use hw_subject::{Filter, Transform};

use crate::config::{Discard, Retention, Storage, StreamConfig};
use crate::consumer::Consumer;

const NAME_BYTES: usize = 255;
const DESCRIPTION_BYTES: usize = 4096;
const METADATA_BYTES: usize = 128 * 1024;
const MAX_REPLICAS: i64 = 5;
/// Far above every stream's life, far below the end of the numbers.
pub(super) const FIRST_SEQ_MAX: u64 = 1 << 62;
const SHORTEST: Span = Span::from_millis(100);
const DUPLICATE_WINDOW: Span = Span::from_secs(120);
/// Which API level a configuration needs; the server writes it.
const REQUIRED_LEVEL: &str = "_nats.req.level";

/// What the server knows that a configuration depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamLimits {
    /// Whether there are servers for more than one replica.
    pub clustered: bool,
    /// The longest duplicate window; zero: no limit.
    pub duplicate_window: Span,
}

/// Why a configuration is refused: one variant for each error code of the API.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Most rules share one code and differ in their text.
    #[error("{0}")]
    Invalid(String),
    /// `/` or `\` in the name.
    #[error("stream name can not contain path separators")]
    PathSeparators,
    /// Fewer than no replicas.
    #[error("replicas count cannot be negative")]
    NegativeReplicas,
    /// More than one replica on a server of its own.
    #[error("replicas > 1 not supported in non-clustered mode")]
    NotClustered,
    /// Pedantic mode: the text says what would have been adjusted.
    #[error("pedantic mode: {0}")]
    Pedantic(String),
    /// The source of the subject transform.
    #[error("stream transform source: {0}")]
    TransformSource(String),
    /// The destination of the subject transform.
    #[error("stream transform: {0}")]
    TransformDestination(String),
    /// Consumers that would break the new limits.
    #[error("change to limits violates consumers: {0}")]
    ViolatesConsumers(String),
    /// A prefix of an external origin that leads to something else.
    #[error("{prefix} overlaps {subject} (err_code {err_code})")]
    ExternalPrefix {
        /// The code; `jsapi` has its text.
        err_code: u16,
        /// The prefix.
        prefix: String,
        /// What it overlaps with.
        subject: String,
    },
    /// A rule that has a code of its own; `text` fills its placeholder where it has one.
    #[error("{text} (err_code {err_code})")]
    Rule {
        /// The code; `jsapi` has its text.
        err_code: u16,
        /// What is wrong.
        text: String,
    },
    /// A field of the API that this version does not support.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
}

type Checked = Result<(), ConfigError>;

fn rule(holds: bool, text: &str) -> Checked {
    if holds { Ok(()) } else { Err(ConfigError::Invalid(text.to_owned())) }
}

/// The complete configuration that a request to create a stream leads to, or why it is refused.
pub fn check(
    config: &StreamConfig,
    limits: StreamLimits,
    pedantic: bool,
) -> Result<StreamConfig, ConfigError> {
    rule(!config.sealed, "stream configuration for create can not be sealed")?;
    let direct = config.mirror.is_some() || !config.mirror_direct;
    rule(direct, "stream has no mirror but does have mirror direct")?;
    complete(config, limits, pedantic)
}

/// The same for a stream that a backup brings: it may be sealed.
pub fn check_restored(config: &StreamConfig, limits: StreamLimits) -> Result<StreamConfig, ConfigError> {
    let complete = check(&StreamConfig { sealed: false, ..config.clone() }, limits, false)?;
    Ok(StreamConfig { sealed: config.sealed, ..complete })
}

/// The same for an update of `old`.
pub fn check_update<'a>(
    old: &StreamConfig,
    new: &StreamConfig,
    consumers: impl Iterator<Item = &'a Consumer>,
    limits: StreamLimits,
    pedantic: bool,
) -> Result<StreamConfig, ConfigError> {
    feeds::check_mirror_change(old, new)?;
    let mut config = complete(new, limits, pedantic)?;
    let changes = [
        (old.name == config.name, "stream configuration name must match original"),
        (old.storage == config.storage, "stream configuration update can not change storage type"),
        (
            old.retention == config.retention
                || (old.retention != Retention::Workqueue && config.retention != Retention::Workqueue),
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (!old.sealed || config.sealed, "stream configuration update can not unseal a sealed stream"),
        (
            !old.deny_delete || config.deny_delete,
            "stream configuration update can not cancel deny message deletes",
        ),
        (!old.deny_purge || config.deny_purge, "stream configuration update can not cancel deny purge"),
        (!old.allow_msg_ttl || config.allow_msg_ttl, "message TTL status can not be disabled"),
        (
            old.allow_msg_counter == config.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        ),
        (!old.allow_msg_schedules || config.allow_msg_schedules, "message schedules can not be disabled"),
        (old.persist_mode == config.persist_mode, "stream configuration update can not change persist mode"),
    ];
    for (holds, text) in changes {
        rule(holds, text)?;
    }
    if config.sealed {
        config.max_age = Span::ZERO;
        config.discard = Discard::New;
        config.deny_delete = true;
        config.deny_purge = true;
        config.allow_rollup_hdrs = false;
    }
    check_consumers(&config, consumers)?;
    Ok(config)
}

fn check_consumers<'a>(config: &StreamConfig, consumers: impl Iterator<Item = &'a Consumer>) -> Checked {
    let limits = &config.consumer_limits;
    let violates = |consumer: &&Consumer| {
        let theirs = consumer.config();
        limits.max_ack_pending > 0 && theirs.max_ack_pending > limits.max_ack_pending
            || limits.inactive_threshold.0 > 0 && theirs.inactive_threshold > limits.inactive_threshold
    };
    let names: Vec<_> =
        consumers.filter(violates).map(|consumer| String::from_utf8_lossy(consumer.name())).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::ViolatesConsumers(names.join(", "))),
    }
}

fn complete(
    config: &StreamConfig,
    limits: StreamLimits,
    pedantic: bool,
) -> Result<StreamConfig, ConfigError> {
    let mut config = config.clone();
    check_name(&config)?;
    feeds::check_feeds(&config)?;
    default_limits(&mut config, pedantic)?;
    check_replicas(&mut config, limits)?;
    check_times(&mut config, limits, pedantic)?;
    complete_features(&mut config, pedantic)?;
    check_policies(&config)?;
    if config.subjects.is_empty() && !feeds::is_fed(&config) {
        config.subjects = vec![config.name.clone()];
    }
    check_subjects(&config)?;
    check_mappings(&mut config)?;
    check_placement(&mut config)?;
    if config.persist_mode == "default" {
        config.persist_mode.clear();
    }
    write_level(&mut config)?;
    Ok(config)
}

fn check_name(config: &StreamConfig) -> Checked {
    if config.name.contains(['/', '\\']) {
        return Err(ConfigError::PathSeparators);
    }
    let forbidden = |c: char| matches!(c, '.' | '*' | '>' | ' ' | '\t' | '\r' | '\n' | '\u{c}' | '\0');
    let text = "stream name is required and can not contain '.', '*', '>', '\\', '/'";
    rule(!config.name.is_empty() && !config.name.contains(forbidden), text)?;
    let text = format!("stream name is too long, maximum allowed is {NAME_BYTES}");
    rule(config.name.len() <= NAME_BYTES, &text)?;
    // Far above every stream's life, far below the end of the numbers: sequences never overflow.
    rule(config.first_seq <= FIRST_SEQ_MAX, "stream first sequence is too large")?;
    let text = format!("stream description is too long, maximum allowed is {DESCRIPTION_BYTES}");
    rule(config.description.len() <= DESCRIPTION_BYTES, &text)
}

fn default_limits(config: &mut StreamConfig, pedantic: bool) -> Checked {
    let mut size = i64::from(config.max_msg_size);
    for (value, field) in [
        (&mut config.max_consumers, "max_consumers"),
        (&mut config.max_msgs, "max_msgs"),
        (&mut config.max_bytes, "max_bytes"),
        (&mut config.max_msgs_per_subject, "max_msgs_per_subject"),
        (&mut size, "max_msg_size"),
    ] {
        if pedantic && *value < -1 {
            return Err(ConfigError::Pedantic(format!("{field} must be set to -1")));
        }
        if *value <= 0 {
            *value = -1;
        }
    }
    if size < 0 {
        config.max_msg_size = -1;
    }
    Ok(())
}

fn check_replicas(config: &mut StreamConfig, limits: StreamLimits) -> Checked {
    if config.num_replicas < 0 {
        return Err(ConfigError::NegativeReplicas);
    }
    rule(config.num_replicas <= MAX_REPLICAS, "maximum replicas is 5")?;
    config.num_replicas = config.num_replicas.max(1);
    let modes = ["", "default", "async"];
    rule(modes.contains(&config.persist_mode.as_str()), "persist mode must be default or async")?;
    if config.persist_mode == "async" {
        let memory = "async persist mode is only supported on file storage";
        rule(config.storage == Storage::File, memory)?;
        rule(config.num_replicas == 1, "async persist mode is not supported on replicated streams")?;
        rule(!config.allow_atomic, "async persist mode is not supported with atomic batch publish")?;
    }
    if config.num_replicas > 1 && !limits.clustered {
        return Err(ConfigError::NotClustered);
    }
    Ok(())
}

fn check_times(config: &mut StreamConfig, limits: StreamLimits, pedantic: bool) -> Checked {
    let age = config.max_age;
    rule(age >= Span::ZERO, "max age can not be negative")?;
    rule(age.is_zero() || age >= SHORTEST, "max age needs to be >= 100ms")?;
    if config.duplicate_window.is_zero() {
        if feeds::is_fed(config) {
            return Ok(());
        }
        let mut window = DUPLICATE_WINDOW;
        if !limits.duplicate_window.is_zero() {
            window = window.min(limits.duplicate_window);
        }
        if !age.is_zero() && age < window {
            if pedantic {
                let text = "duplicate window cannot be bigger than max age".to_owned();
                return Err(ConfigError::Pedantic(text));
            }
            window = age;
        }
        config.duplicate_window = window;
    }
    let window = config.duplicate_window;
    rule(window >= Span::ZERO, "duplicates window can not be negative")?;
    rule(window >= SHORTEST, "duplicates window needs to be >= 100ms")?;
    let limit = limits.duplicate_window;
    rule(limit.is_zero() || window <= limit, "duplicates window can not be larger then server limit")?;
    rule(age.is_zero() || window <= age, "duplicates window can not be larger then max age")
}

/// Delete markers need message TTLs and roll-ups, schedules need roll-ups; counters go with little else.
fn complete_features(config: &mut StreamConfig, pedantic: bool) -> Checked {
    if config.allow_msg_counter {
        rule(config.discard != Discard::New, "counter stream cannot use discard new")?;
        rule(!config.allow_msg_ttl, "counter stream cannot use message TTLs")?;
        rule(config.retention == Retention::Limits, "counter stream can only use limits retention")?;
        rule(!config.allow_msg_schedules, "counter stream cannot use message schedules")?;
    }
    if config.allow_msg_schedules {
        rule(config.discard != Discard::New, "message scheduling cannot use discard new")?;
        let rollups = config.allow_rollup_hdrs || !pedantic;
        rule(rollups, "message scheduling cannot be set if roll-ups are disabled")?;
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    let ttl = config.subject_delete_marker_ttl;
    rule(ttl >= Span::ZERO, "subject delete marker TTL must not be negative")?;
    if ttl.is_zero() {
        return Ok(());
    }
    rule(ttl >= Span::from_secs(1), "subject delete marker TTL must be at least 1 second")?;
    if pedantic {
        rule(config.allow_msg_ttl, "subject delete marker cannot be set if message TTLs are disabled")?;
        rule(config.allow_rollup_hdrs, "subject delete marker cannot be set if roll-ups are disabled")?;
    }
    config.allow_msg_ttl = true;
    config.allow_rollup_hdrs = true;
    config.deny_purge = false;
    Ok(())
}

fn check_policies(config: &StreamConfig) -> Checked {
    if config.discard_new_per_subject {
        let policy = "discard new per subject requires discard new policy to be set";
        rule(config.discard == Discard::New, policy)?;
        rule(config.max_msgs_per_subject > 0, "discard new per subject requires max msgs per subject > 0")?;
    }
    let text = "roll-ups require the purge permission";
    rule(!(config.deny_purge && config.allow_rollup_hdrs && !config.sealed), text)
}

fn check_subjects(config: &StreamConfig) -> Checked {
    let mut filters: Vec<Filter> = Vec::with_capacity(config.subjects.len());
    for subject in &config.subjects {
        let Ok(filter) = Filter::parse(subject) else { return rule(false, "invalid subject") };
        if let Some(other) = filters.iter().find(|other| other.overlaps(&filter)) {
            return rule(false, &format!("subject {:?} overlaps with {:?}", other.as_str(), subject));
        }
        if !config.no_ack {
            check_reserved(&filter)?;
        } else if filter.is_all() {
            rule(config.num_replicas == 1, "capturing all subjects requires replicas of 1")?;
        }
        filters.push(filter);
    }
    Ok(())
}

/// A stream that acknowledges must not capture what the server itself answers.
fn check_reserved(filter: &Filter) -> Checked {
    let known = |text: &str| Filter::parse(text).expect("the constant is a valid filter");
    rule(!filter.is_all(), "capturing all subjects requires no-ack to be true")?;
    let events = filter.is_subset_of(&known("$JS.EVENT.>"));
    let api = ["$JS.>", "$JSC.>", "$NRG.>"].iter().any(|reserved| filter.overlaps(&known(reserved)));
    rule(events || !api, "subjects that overlap with jetstream api require no-ack to be true")?;
    let account = filter.is_subset_of(&known("$SYS.ACCOUNT.>"));
    let text = "subjects that overlap with system api require no-ack to be true";
    rule(account || !filter.overlaps(&known("$SYS.>")), text)
}

fn check_mappings(config: &mut StreamConfig) -> Checked {
    if let Some(transform) = &config.subject_transform {
        if !transform.src.is_empty() && Filter::parse(&transform.src).is_err() {
            return Err(ConfigError::TransformSource(format!("invalid subject {}", transform.src)));
        }
        if !transform.dest.is_empty() {
            Transform::new(&transform.src, &transform.dest)
                .map_err(|error| ConfigError::TransformDestination(error.to_string()))?;
        }
    }
    let Some(republish) = &mut config.republish else { return Ok(()) };
    if let Some(transform) = &config.subject_transform
        && (republish.src.as_str(), republish.dest.as_str()) == (">", ">")
        && config.subjects.contains(&transform.src)
    {
        (republish.src, republish.dest) = (transform.dest.clone(), transform.dest.clone());
    }
    if republish.dest.is_empty() {
        return Ok(());
    }
    let src = if republish.src.is_empty() { ">" } else { &republish.src };
    let dest = &republish.dest;
    if let Ok(to) = Filter::parse(dest) {
        let cycle = |subject: &String| Filter::parse(subject).is_ok_and(|subject| subject.overlaps(&to));
        let text = "stream configuration for republish destination forms a cycle";
        rule(!config.subjects.iter().any(cycle), text)?;
    }
    let valid = Transform::new(src, dest).is_ok();
    let text =
        format!("stream configuration for republish with transform from '{src}' to '{dest}' not valid");
    rule(valid, &text)
}

fn check_placement(config: &mut StreamConfig) -> Checked {
    let Some(placement) = &config.placement else { return Ok(()) };
    rule(placement.preferred.is_empty(), "preferred server not permitted in placement")?;
    if placement.cluster.is_empty() && placement.tags.is_empty() {
        config.placement = None;
    }
    Ok(())
}

/// The API level that a client must know to use a stream like this.
pub fn required_api_level(config: &StreamConfig) -> u8 {
    if config.allow_batched {
        4
    } else if config.allow_msg_counter
        || config.allow_atomic
        || config.allow_msg_schedules
        || config.persist_mode == "async"
    {
        2
    } else {
        u8::from(config.allow_msg_ttl || !config.subject_delete_marker_ttl.is_zero())
    }
}

fn write_level(config: &mut StreamConfig) -> Checked {
    // The server adds these to its answers; they come back with updates and are not kept.
    for added in ["_nats.ver", "_nats.level"] {
        config.metadata.remove(added);
    }
    let level = required_api_level(config).to_string();
    config.metadata.insert(REQUIRED_LEVEL.to_owned(), level);
    let size: usize = config.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    let text = format!("stream metadata exceeds maximum size of {METADATA_BYTES} bytes");
    rule(size <= METADATA_BYTES, &text)
}

#[cfg(test)]
mod tests;
