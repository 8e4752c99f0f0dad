//! How a stream's information reads.

use jiff::Timestamp;

use crate::command::output::{Facts, title_case};
use crate::command::units::{self, bytes_limit, comma, count_limit, duration_limit, local_time, nanoseconds};
use crate::command::view::{ClusterInfo, SourceInfo, StreamConfig, StreamInfo, StreamSource, own_metadata};

/// Prints all of it.
pub fn print(info: &StreamInfo) {
    let config = &info.config;
    let mut facts = Facts::titled(format!(
        "Information for Stream {} created {}",
        config.name,
        local_time(&info.created)
    ));
    identity(&mut facts, config);
    options(&mut facts, config);
    limits(&mut facts, config);
    metadata(&mut facts, config);
    replication(&mut facts, config);
    if let Some(cluster) = &info.cluster {
        cluster_facts(&mut facts, cluster, "Cluster Group");
    }
    if let Some(mirror) = &info.mirror {
        source_state(&mut facts, "Mirror Information", mirror);
    }
    for source in &info.sources {
        source_state(&mut facts, "Source Information", source);
    }
    state(&mut facts, info);
    if info.alternates.len() > 1 {
        facts.heading("Alternates");
        for alternate in &info.alternates {
            let place = [("Cluster", &alternate.cluster), ("Domain", &alternate.domain)];
            let place = place.iter().filter(|(_, value)| !value.is_empty());
            let place: Vec<String> = place.map(|(label, value)| format!("{label}: {value}")).collect();
            facts.row(&alternate.name, place.join(" "));
        }
    }
    facts.print();
}

/// Prints only the state.
pub fn print_state(info: &StreamInfo) {
    let title = format!("State for Stream {} created {}", info.config.name, local_time(&info.created));
    let mut facts = Facts::titled(title);
    state(&mut facts, info);
    facts.print();
}

fn identity(facts: &mut Facts, config: &StreamConfig) {
    facts.row_some("Description", &config.description);
    facts.row_some("Subjects", &config.subjects.join(", "));
    facts.row("Replicas", config.num_replicas.to_string());
    facts.row_if(config.sealed, "Sealed", "true");
    facts.row("Storage", title_case(&config.storage));
    let compressed = !matches!(config.compression.as_str(), "" | "none");
    facts.row_if(compressed, "Compression", config.compression.to_uppercase());
    facts.row_if(config.first_seq > 1, "First Sequence", comma(config.first_seq));
    if let Some(placement) = &config.placement {
        facts.row_some("Placement Cluster", &placement.cluster);
        facts.row_some("Placement Tags", &placement.tags.join(", "));
    }
    facts.row_if(config.persist_mode == "async", "Persistence Mode", "Async");
}

fn options(facts: &mut Facts, config: &StreamConfig) {
    facts.heading("Options");
    let retention =
        if config.retention == "workqueue" { "WorkQueue".into() } else { title_case(&config.retention) };
    facts.row("Retention", retention);
    facts.row("Acknowledgments", (!config.no_ack).to_string());
    let discard = title_case(&config.discard);
    let per_subject = if config.discard_new_per_subject { " Per Subject" } else { "" };
    facts.row("Discard Policy", format!("{discard}{per_subject}"));
    facts.row("Duplicate Window", nanoseconds(config.duplicate_window));
    facts.row("Direct Get", config.allow_direct.to_string());
    facts.row_if(config.mirror.is_some(), "Mirror Direct Get", config.mirror_direct.to_string());
    facts.row("Allows Atomic Batch Publish", config.allow_atomic.to_string());
    facts.row("Allows Fast Batch Publish", config.allow_batched.to_string());
    facts.row("Allows Counters", config.allow_msg_counter.to_string());
    facts.row("Allows Msg Delete", (!config.deny_delete).to_string());
    facts.row("Allows Per-Message TTL", config.allow_msg_ttl.to_string());
    let marker = config.subject_delete_marker_ttl;
    facts.row_if(marker > 0, "Subject Delete Markers TTL", nanoseconds(marker));
    facts.row("Allows Purge", (!config.deny_purge).to_string());
    facts.row("Allows Schedules", config.allow_msg_schedules.to_string());
    facts.row("Allows Rollups", config.allow_rollup_hdrs.to_string());
}

fn limits(facts: &mut Facts, config: &StreamConfig) {
    facts.heading("Limits");
    facts.row("Maximum Messages", count_limit(config.max_msgs));
    facts.row("Maximum Per Subject", count_limit(config.max_msgs_per_subject));
    facts.row("Maximum Bytes", bytes_limit(config.max_bytes));
    facts.row("Maximum Age", duration_limit(config.max_age));
    facts.row("Maximum Message Size", bytes_limit(config.max_msg_size));
    facts.row("Maximum Consumers", count_limit(config.max_consumers));
    if let Some(limits) = &config.consumer_limits {
        let (inactive, pending) = (limits.inactive_threshold, limits.max_ack_pending);
        facts.row_if(inactive > 0, "Consumer Inactive Threshold", nanoseconds(inactive));
        facts.row_if(pending > 0, "Consumer Max Ack Pending", comma(pending));
    }
}

fn metadata(facts: &mut Facts, config: &StreamConfig) {
    if own_metadata(&config.metadata).next().is_some() {
        facts.heading("Metadata");
        own_metadata(&config.metadata).for_each(|(key, value)| facts.row(key, value));
    }
}

fn replication(facts: &mut Facts, config: &StreamConfig) {
    let transforms = config.subject_transform.is_some() || config.republish.is_some();
    if !transforms && config.mirror.is_none() && config.sources.is_empty() {
        return;
    }
    facts.heading("Replication");
    if let Some(mirror) = &config.mirror {
        facts.row("Mirror", source_text(mirror));
    }
    for source in &config.sources {
        facts.row("Source", source_text(source));
    }
    if let Some(transform) = &config.subject_transform {
        facts.row("Subject Transform", format!("{} to {}", transform.src, transform.dest));
    }
    if let Some(republish) = &config.republish {
        let headers = if republish.headers_only { " (headers only)" } else { "" };
        facts.row("Republishing", format!("{} to {}{headers}", republish.src, republish.dest));
    }
}

fn source_text(source: &StreamSource) -> String {
    let mut text = source.name.clone();
    if !source.filter_subject.is_empty() {
        text.push_str(&format!(" filter {}", source.filter_subject));
    }
    for transform in &source.subject_transforms {
        text.push_str(&format!(" transform {} to {}", transform.src, transform.dest));
    }
    if source.opt_start_seq > 0 {
        text.push_str(&format!(" from sequence {}", source.opt_start_seq));
    }
    if let Some(start) = source.opt_start_time.as_deref().filter(|start| units::api_time(start).is_some()) {
        text.push_str(&format!(" from {}", local_time(start)));
    }
    if let Some(external) = &source.external {
        text.push_str(&format!(" through {}", external.api));
        if !external.deliver.is_empty() {
            text.push_str(&format!(" delivered at {}", external.deliver));
        }
    }
    text
}

/// Adds where a group's replicas are; a single unnamed server has nothing to say.
pub fn cluster_facts(facts: &mut Facts, cluster: &ClusterInfo, group: &str) {
    if cluster.name.is_empty() && cluster.replicas.is_empty() {
        return;
    }
    facts.heading("Cluster Information");
    facts.row("Name", &cluster.name);
    facts.row_some(group, &cluster.raft_group);
    facts.row("Leader", &cluster.leader);
    for peer in &cluster.replicas {
        let mut text = vec![if peer.current { "current".to_owned() } else { "outdated".to_owned() }];
        if peer.offline {
            text.push("OFFLINE".into());
        }
        text.push(format!("seen {} ago", nanoseconds(peer.active)));
        if peer.lag > 0 {
            text.push(format!("{} operations behind", comma(peer.lag)));
        }
        facts.row("Replica", format!("{}, {}", peer.name, text.join(", ")));
    }
}

fn source_state(facts: &mut Facts, heading: &str, source: &SourceInfo) {
    facts.heading(heading);
    facts.row("Stream Name", &source.name);
    facts.row_some("Subject Filter", &source.filter_subject);
    for transform in &source.subject_transforms {
        facts.row("Subject Transform", format!("{} to {}", transform.src, transform.dest));
    }
    facts.row("Lag", comma(source.lag));
    let seen = if source.active < 0 { "never".into() } else { nanoseconds(source.active) };
    facts.row("Last Seen", seen);
    if let Some(external) = &source.external {
        facts.row("Ext. API Prefix", &external.api);
        facts.row_some("Ext. Delivery Prefix", &external.deliver);
    }
    if let Some(error) = &source.error {
        facts.row("Error", format!("{} ({})", error.description, error.err_code));
    }
}

/// Adds which server version hosts something and which API level it asks for.
pub fn hosted(facts: &mut Facts, metadata: &std::collections::BTreeMap<String, String>) {
    if let Some(version) = metadata.get("_nats.ver") {
        facts.row("Host Version", version);
    }
    if let (Some(needs), Some(has)) = (metadata.get("_nats.req.level"), metadata.get("_nats.level")) {
        facts.row("Required API Level", format!("{needs} hosted at level {has}"));
    }
}

fn state(facts: &mut Facts, info: &StreamInfo) {
    let state = &info.state;
    facts.heading("State");
    hosted(facts, &info.config.metadata);
    facts.row("Messages", comma(state.messages));
    facts.row("Bytes", units::bytes(state.bytes));
    if let Some(lost) = state.lost.as_ref().filter(|lost| !lost.msgs.is_empty()) {
        let (messages, bytes) = (comma(lost.msgs.len() as u64), units::bytes(lost.bytes));
        facts.row("Lost Messages", format!("{messages} ({bytes})"));
    }
    let at = |sequence: u64, time: &str| match units::api_time(time).map(units::local) {
        Some(time) if sequence > 0 => format!("{} @ {time}", comma(sequence)),
        _ => comma(sequence),
    };
    facts.row("First Sequence", at(state.first_seq, &state.first_ts));
    facts.row("Last Sequence", at(state.last_seq, &state.last_ts));
    facts.row_if(state.num_deleted > 0, "Deleted Messages", comma(state.num_deleted));
    facts.row("Active Consumers", comma(state.consumer_count));
    facts.row_if(state.num_subjects > 0, "Number of Subjects", comma(state.num_subjects));
}

/// How long ago the stream's last message came; `never` when there was none.
pub fn last_message(info: &StreamInfo, now: Timestamp) -> String {
    if info.state.last_seq == 0 { "never".into() } else { units::since(&info.state.last_ts, now) }
}
