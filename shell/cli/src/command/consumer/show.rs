//! How a consumer's information reads.

use jiff::Timestamp;

use crate::command::output::{Facts, title_case};
use crate::command::stream::show::{cluster_facts, hosted};
use crate::command::units::{self, bytes, comma, local_time, nanoseconds};
use crate::command::view::{ConsumerConfig, ConsumerInfo, Progress, own_metadata};

/// Prints all of it.
pub fn print(info: &ConsumerInfo) {
    let (stream, name) = (&info.stream_name, &info.name);
    let created = local_time(&info.created);
    let mut facts = Facts::titled(format!("Information for Consumer {stream} > {name} created {created}"));
    configuration(&mut facts, info);
    if own_metadata(&info.config.metadata).next().is_some() {
        facts.heading("Metadata");
        own_metadata(&info.config.metadata).for_each(|(key, value)| facts.row(key, value));
    }
    if let Some(cluster) = &info.cluster {
        cluster_facts(&mut facts, cluster, "Raft Group");
    }
    state(&mut facts, info);
    facts.print();
}

/// Prints only the state.
pub fn print_state(info: &ConsumerInfo) {
    let (stream, name) = (&info.stream_name, &info.name);
    let created = local_time(&info.created);
    let mut facts = Facts::titled(format!("State for Consumer {stream} > {name} created {created}"));
    state(&mut facts, info);
    facts.print();
}

fn deliver_policy(config: &ConsumerConfig) -> String {
    match config.deliver_policy.as_str() {
        "by_start_sequence" => format!("From Sequence {}", config.opt_start_seq),
        "by_start_time" => {
            format!("Since {}", local_time(config.opt_start_time.as_deref().unwrap_or_default()))
        }
        policy => title_case(policy),
    }
}

fn configuration(facts: &mut Facts, info: &ConsumerInfo) {
    let config = &info.config;
    facts.heading("Configuration");
    facts.row("Name", &info.name);
    facts.row_some("Description", &config.description);
    match config.is_pull() {
        true => facts.row("Pull Mode", "true"),
        false => facts.row("Delivery Subject", &config.deliver_subject),
    }
    match config.filters().as_slice() {
        [] => {}
        [one] => facts.row("Filter Subject", one),
        many => facts.row("Filter Subjects", many.join(", ")),
    }
    facts.row("Deliver Policy", deliver_policy(config));
    facts.row_some("Deliver Queue Group", &config.deliver_group);
    facts.row("Ack Policy", title_case(&config.ack_policy));
    facts.row_if(config.ack_policy != "none", "Ack Wait", nanoseconds(config.ack_wait));
    if !config.backoff.is_empty() {
        let steps: Vec<String> = config.backoff.iter().map(|nanos| nanoseconds(*nanos)).collect();
        facts.row("Back Off", steps.join(", "));
    }
    facts.row("Replay Policy", title_case(&config.replay_policy));
    facts.row_if(config.max_deliver > 0, "Maximum Deliveries", comma(config.max_deliver));
    let sampled = !matches!(config.sample_freq.trim_end_matches('%'), "" | "0");
    facts.row_if(sampled, "Sampling Rate", format!("{}%", config.sample_freq.trim_end_matches('%')));
    facts.row_if(config.rate_limit_bps > 0, "Rate Limit", format!("{}/s", bytes(config.rate_limit_bps / 8)));
    facts.row_if(config.max_ack_pending > 0, "Max Ack Pending", comma(config.max_ack_pending));
    if config.is_pull() {
        facts.row("Max Waiting Pulls", comma(config.max_waiting));
        facts.row_if(config.max_batch > 0, "Max Pull Batch", comma(config.max_batch));
        facts.row_if(config.max_expires > 0, "Max Pull Expire", nanoseconds(config.max_expires));
        facts.row_if(config.max_bytes > 0, "Max Pull Max Bytes", bytes(config.max_bytes.max(0) as u64));
    } else {
        facts.row_if(config.idle_heartbeat > 0, "Idle Heartbeat", nanoseconds(config.idle_heartbeat));
        facts.row("Flow Control", config.flow_control.to_string());
    }
    facts.row_if(config.headers_only, "Headers Only", "true");
    facts.row_if(config.inactive_threshold > 0, "Inactive Threshold", nanoseconds(config.inactive_threshold));
    facts.row_if(config.num_replicas > 0, "Replicas", comma(config.num_replicas));
    facts.row_if(config.mem_storage, "Memory Storage", "true");
    facts.row_some("Paused Until Deadline", &paused_until(info));
    facts.row_if(!config.priority_groups.is_empty(), "Priority Groups", config.priority_groups.join(", "));
    let policy = !matches!(config.priority_policy.as_str(), "" | "none");
    facts.row_if(policy, "Priority Policy", title_case(&config.priority_policy));
    facts.row_if(config.priority_timeout > 0, "Priority Timeout", nanoseconds(config.priority_timeout));
}

fn paused_until(info: &ConsumerInfo) -> String {
    let until = info.config.pause_until.as_deref().map(local_time).unwrap_or_default();
    match (until.is_empty(), info.paused) {
        (true, _) => String::new(),
        (false, true) => {
            // Rounded, as a remainder of 59m59.99s reads worse than the hour that was asked for.
            let seconds = (info.pause_remaining.max(0) + 500_000_000) / 1_000_000_000;
            format!("{until} ({} remaining)", nanoseconds(seconds * 1_000_000_000))
        }
        (false, false) => format!("{until} (passed)"),
    }
}

fn progress(progress: &Progress, last: &str, now: Timestamp) -> String {
    let (consumer, stream) = (comma(progress.consumer_seq), comma(progress.stream_seq));
    let mut text = format!("Consumer sequence: {consumer} Stream sequence: {stream}");
    if let Some(at) = progress.last_active.as_deref().and_then(units::api_time) {
        text.push_str(&format!(" {last}: {} ago", units::duration(units::elapsed(at, now))));
    }
    text
}

fn state(facts: &mut Facts, info: &ConsumerInfo) {
    let (config, now) = (&info.config, Timestamp::now());
    facts.heading("State");
    hosted(facts, &config.metadata);
    facts.row("Last Delivered Message", progress(&info.delivered, "Last delivery", now));
    if config.ack_policy != "none" {
        facts.row("Acknowledgment Floor", progress(&info.ack_floor, "Last Ack", now));
        let outstanding = match config.max_ack_pending {
            limit if limit > 0 => format!("{} out of maximum {}", comma(info.num_ack_pending), comma(limit)),
            _ => comma(info.num_ack_pending),
        };
        facts.row("Outstanding Acks", outstanding);
        facts.row("Redelivered Messages", comma(info.num_redelivered));
    }
    facts.row("Unprocessed Messages", comma(info.num_pending));
    if config.is_pull() {
        let waiting = match config.max_waiting {
            limit if limit > 0 => format!("{} of maximum {}", comma(info.num_waiting), comma(limit)),
            _ => comma(info.num_waiting),
        };
        facts.row("Waiting Pulls", waiting);
    } else {
        let interest = match (info.push_bound, config.deliver_group.as_str()) {
            (true, "") => "Active".to_owned(),
            (true, group) => format!("Active using Queue Group {group}"),
            (false, _) => "No interest".to_owned(),
        };
        facts.row("Active Interest", interest);
    }
    for group in &info.priority_groups {
        let pinned = match group.pinned_client_id.as_str() {
            "" => "no client".to_owned(),
            id => format!("{id} at {}", local_time(group.pinned_ts.as_deref().unwrap_or_default())),
        };
        facts.row("Priority Group", format!("{}: pinned {pinned}", group.group));
    }
    facts.row_some("Paused Until", &paused_until(info));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_when() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let idle = Progress::default();
        assert_eq!(progress(&idle, "Last Ack", now), "Consumer sequence: 0 Stream sequence: 0");
        let last_active = Some("2026-01-01T00:00:09.969Z".into());
        let active = Progress { consumer_seq: 5, stream_seq: 6_000, last_active };
        assert_eq!(
            progress(&active, "Last Ack", now),
            "Consumer sequence: 5 Stream sequence: 6,000 Last Ack: 31ms ago"
        );
    }
}
