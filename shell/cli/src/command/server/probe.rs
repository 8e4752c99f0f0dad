//! The probes themselves: what is measured and what it is held against.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::check::{ConnectionArgs, ConsumerArgs, JetStreamArgs, StreamArgs};
use super::verdict::{Measure, Unit, Verdict};
use crate::command::connect::{Session, visible};
use crate::command::error::Failure;
use crate::command::units::{self, comma};
use crate::command::view::{Peer, StreamInfo};
use crate::command::{consumer, stream as streams};

/// Checks connecting, the round trip and a request.
pub async fn connection(
    session: &Session,
    args: &ConnectionArgs,
    connected: Duration,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let time = |name, span: Duration, warn: Duration, critical: Duration| {
        Measure::new(name, span.as_secs_f64(), Unit::Seconds)
            .limits(warn.as_secs_f64(), critical.as_secs_f64())
    };
    let connect = time("connect_time", connected, args.connect_warn, args.connect_critical);
    let text = format!("connected to {} in {}", visible(&session.url), units::duration(connected));
    verdict.judge(text, connect.value, connect.warning, connect.critical);
    verdict.measure(connect);
    session.round_trip().await?; // the first one also sets the reply subscription up
    let rtt = session.round_trip().await?;
    let measure = time("rtt", rtt, args.rtt_warn, args.rtt_critical);
    let text = format!("rtt time {}", units::duration(rtt));
    verdict.judge(text, measure.value, measure.warning, measure.critical);
    verdict.measure(measure);
    let request = echo(session).await?;
    let measure = time("request_time", request, args.req_warn, args.req_critical);
    let text = format!("round trip took {:.6}s", request.as_secs_f64());
    verdict.judge(text, measure.value, measure.warning, measure.critical);
    verdict.measure(measure);
    Ok(())
}

/// Sends a message through the server to ourselves and says whether it came back whole.
async fn echo(session: &Session) -> Result<Duration, Failure> {
    let doing = "send a message to ourselves";
    let failed = |error: &dyn std::fmt::Display| Failure::request(doing, error);
    let inbox = session.client.new_inbox();
    let mut messages = session.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let payload = crate::command::template::Dice::new().id(64);
    let begin = Instant::now();
    let sent = session.client.publish(inbox, payload.clone().into()).await;
    sent.map_err(|error| failed(&error))?;
    match tokio::time::timeout(session.timeout, messages.next()).await {
        Ok(Some(message)) if message.payload == payload.as_bytes() => Ok(begin.elapsed()),
        Ok(Some(_)) => Err(failed(&"what came back is not what was sent")),
        Ok(None) => Err(failed(&"the connection was closed")),
        Err(_) => Err(failed(&"it did not come back in time")),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    memory: f64,
    storage: f64,
    streams: f64,
    consumers: f64,
    limits: Limits,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Limits {
    max_memory: f64,
    max_storage: f64,
    max_streams: f64,
    max_consumers: f64,
}

/// Checks the account's usage and the replicas of its streams.
pub async fn jetstream(
    session: &Session,
    args: &JetStreamArgs,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let usage = session.api("INFO", &Value::Null, "get the account's JetStream information").await?;
    let Usage { memory, storage, streams, consumers, limits } = usage.read()?;
    let rows = [
        ("memory", "memory_pct", memory, limits.max_memory, args.mem_warn, args.mem_critical),
        ("storage", "storage_pct", storage, limits.max_storage, args.store_warn, args.store_critical),
        ("streams", "streams_pct", streams, limits.max_streams, args.streams_warn, args.streams_critical),
        (
            "consumers",
            "consumers_pct",
            consumers,
            limits.max_consumers,
            args.consumers_warn,
            args.consumers_critical,
        ),
    ];
    for (name, share_name, used, limit, warning, critical) in rows {
        let unit = if matches!(name, "memory" | "storage") { Unit::Bytes } else { Unit::Count };
        let share = if limit > 0.0 { (used * 100.0 / limit).floor() } else { 0.0 };
        verdict.measure(Measure::new(name, used, unit));
        let measure = Measure::new(share_name, share, Unit::Percent);
        verdict.measure(measure.limits(warning.max(0.0), critical.max(0.0)));
        if share > 0.0 {
            verdict.judge(format!("{share}% {name}"), share, warning, critical);
        }
    }
    if args.replicas != Some(false) {
        replicas(session, args, verdict).await?;
    }
    Ok(())
}

async fn replicas(session: &Session, args: &JetStreamArgs, verdict: &mut Verdict) -> Result<(), Failure> {
    let streams: Vec<StreamInfo> = session.api_list("STREAM.LIST", json!({}), "streams").await?.read()?;
    let (mut fine, mut no_leader, mut missing, mut lagged, mut unseen) = (0, 0, 0, 0, 0);
    for info in &streams {
        let cluster = info.cluster.clone().unwrap_or_default();
        let expected = usize::try_from(info.config.num_replicas).unwrap_or(1).saturating_sub(1);
        let lags = |peer: &Peer| peer.lag >= args.replica_lag_critical;
        let silent = |peer: &Peer| peer.offline || peer.active > args.replica_seen_critical.as_nanos() as i64;
        let faults = [
            (expected > 0 && cluster.leader.is_empty(), &mut no_leader),
            (cluster.replicas.len() < expected, &mut missing),
            (cluster.replicas.iter().any(lags), &mut lagged),
            (cluster.replicas.iter().any(silent), &mut unseen),
        ];
        let mut healthy = true;
        for (found, count) in faults {
            *count += u32::from(found);
            healthy &= !found;
        }
        fine += u32::from(healthy);
    }
    let failing = u32::try_from(streams.len()).unwrap_or(u32::MAX) - fine;
    let seen_limit = args.replica_seen_critical.as_secs_f64();
    let count = |name, value: u32| Measure::new(name, f64::from(value), Unit::Count);
    verdict.measure(count("replicas_ok", fine));
    verdict.measure(count("replicas_no_leader", no_leader));
    verdict.measure(count("replicas_missing_replicas", missing));
    verdict.measure(count("replicas_lagged", lagged).limits(0.0, args.replica_lag_critical as f64));
    verdict
        .measure(Measure::new("replicas_not_seen", f64::from(unseen), Unit::Seconds).limits(0.0, seen_limit));
    verdict.measure(count("replicas_fail", failing));
    let faults = [
        (no_leader, "without a leader"),
        (missing, "with missing replicas"),
        (lagged, "with lagging replicas"),
        (unseen, "with replicas that were not seen"),
    ];
    for (count, what) in faults {
        if count > 0 {
            verdict.critical(format!("{count} streams {what}"));
        }
    }
    Ok(())
}

/// Checks a stream.
pub async fn stream(session: &Session, args: &StreamArgs, verdict: &mut Verdict) -> Result<(), Failure> {
    let info = streams::fetch(session, &args.stream).await?;
    let limit = |limit: Option<u64>| limit.map_or(0.0, |limit| limit as f64);
    if args.msgs_warn.or(args.msgs_critical).is_some_and(|limit| limit > 0) {
        let (value, warn, critical) = (info.state.messages, args.msgs_warn, args.msgs_critical);
        let text = format!("{} messages", comma(value));
        let below = |limit: Option<u64>| limit.is_some_and(|limit| limit > 0 && value <= limit);
        // Few messages are the bad case, whichever thresholds are given.
        match (below(critical), below(warn)) {
            (true, _) => verdict.critical(text),
            (false, true) => verdict.judge(text, 1.0, 1.0, 0.0),
            (false, false) => verdict.ok(text),
        }
        verdict.measure(
            Measure::new("messages", value as f64, Unit::Count).limits(limit(warn), limit(critical)),
        );
    }
    if args.subjects_warn.or(args.subjects_critical).is_some_and(|limit| limit > 0) {
        let (value, warn, critical) =
            (info.state.num_subjects, limit(args.subjects_warn), limit(args.subjects_critical));
        verdict.judge(format!("{} subjects", comma(value)), value as f64, warn, critical);
        verdict.measure(Measure::new("subjects", value as f64, Unit::Count).limits(warn, critical));
    }
    sources(&info, args, verdict);
    peers(&info, args, verdict);
    Ok(())
}

fn sources(info: &StreamInfo, args: &StreamArgs, verdict: &mut Verdict) {
    let all = info.mirror.iter().chain(&info.sources);
    for source in all.clone() {
        if args.lag_critical.is_some_and(|limit| limit > 0 && source.lag >= limit) {
            verdict.critical(format!("{} is {} messages behind", source.name, comma(source.lag)));
        }
        let silent = |limit: Duration| source.active < 0 || source.active as u128 >= limit.as_nanos();
        if args.seen_critical.is_some_and(|limit| !limit.is_zero() && silent(limit)) {
            let seen = if source.active < 0 { "never".into() } else { units::nanoseconds(source.active) };
            verdict.critical(format!("{} last seen {seen}", source.name));
        }
    }
    if info.config.mirror.is_some() {
        return;
    }
    let count = all.count();
    let text = format!("{count} sources");
    let few = args.min_sources.is_some_and(|fewest| count < fewest);
    let many = args.max_sources.is_some_and(|most| count > most);
    if few || many {
        verdict.critical(text)
    } else {
        verdict.ok(text)
    }
    verdict.measure(Measure::new("sources", count as f64, Unit::Count));
}

fn peers(info: &StreamInfo, args: &StreamArgs, verdict: &mut Verdict) {
    let Some(expected) = args.peer_expect.filter(|expected| *expected > 0) else { return };
    let cluster = info.cluster.clone().unwrap_or_default();
    let count = cluster.replicas.len() + usize::from(!cluster.leader.is_empty());
    let text = format!("{count} peers of expected {expected}");
    if count < expected {
        verdict.critical(text)
    } else {
        verdict.ok(text)
    }
    verdict.measure(Measure::new("peers", count as f64, Unit::Count).limits(0.0, expected as f64));
    if cluster.leader.is_empty() {
        verdict.critical("no leader");
    }
    for peer in &cluster.replicas {
        if peer.offline {
            verdict.critical(format!("{} is offline", peer.name));
        }
        if args.peer_lag_critical.is_some_and(|limit| limit > 0 && peer.lag >= limit) {
            verdict.critical(format!("{} is {} operations behind", peer.name, comma(peer.lag)));
        }
        let silent = |limit: Duration| peer.active.max(0) as u128 >= limit.as_nanos();
        if args.peer_seen_critical.is_some_and(|limit| !limit.is_zero() && silent(limit)) {
            verdict.critical(format!("{} last seen {} ago", peer.name, units::nanoseconds(peer.active)));
        }
    }
}

/// Checks a consumer.
pub async fn consumer(session: &Session, args: &ConsumerArgs, verdict: &mut Verdict) -> Result<(), Failure> {
    let info = consumer::fetch(session, &args.stream, &args.consumer).await?;
    let rows = [
        ("ack_pending", "Ack Pending", info.num_ack_pending, args.outstanding_ack_critical),
        ("pull_waiting", "Waiting Pulls", info.num_waiting, args.waiting_critical),
        ("pending", "Unprocessed Messages", info.num_pending, args.unprocessed_critical),
        ("redelivered", "Redelivered Messages", info.num_redelivered, args.redelivery_critical),
    ];
    for (name, label, value, critical) in rows {
        let value = value as f64;
        if critical > 0 {
            verdict.judge(format!("{label}: {value}"), value, 0.0, critical as f64);
        }
        verdict.measure(Measure::new(name, value, Unit::Count).limits(0.0, critical.max(0) as f64));
    }
    let now = Timestamp::now();
    let rows = [
        ("last_delivery", "Last Delivery", &info.delivered, args.last_delivery_critical),
        ("last_ack", "Last Ack", &info.ack_floor, args.last_ack_critical),
    ];
    for (name, label, progress, critical) in rows {
        let at = progress.last_active.as_deref().and_then(units::api_time);
        let ago = at.map(|at| units::elapsed(at, now));
        let critical_seconds = critical.as_secs_f64();
        match ago {
            Some(ago) if !critical.is_zero() => {
                let text = format!("{label}: {} ago", units::duration(ago));
                verdict.judge(text, ago.as_secs_f64(), 0.0, critical_seconds);
            }
            None if !critical.is_zero() => verdict.critical(format!("{label}: never")),
            _ => {}
        }
        let seconds = ago.unwrap_or_default().as_secs_f64();
        verdict.measure(Measure::new(name, seconds, Unit::Seconds).limits(0.0, critical_seconds));
    }
    if args.pinned {
        let unpinned = info.priority_groups.iter().filter(|group| group.pinned_client_id.is_empty());
        let unpinned: Vec<&str> = unpinned.map(|group| group.group.as_str()).collect();
        match (info.config.priority_policy.as_str(), unpinned.is_empty()) {
            ("pinned_client", true) => verdict.ok("every group has a pinned client"),
            ("pinned_client", false) => {
                verdict.critical(format!("no pinned client in {}", unpinned.join(", ")))
            }
            _ => verdict.critical("not a consumer with pinned clients"),
        }
    }
    Ok(())
}
