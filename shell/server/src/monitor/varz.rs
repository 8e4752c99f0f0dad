//! `/varz`: the server as a whole.

use std::collections::BTreeMap;

use hw_hub::{HubCounters, LinkCounters};
use hw_kit::{Span, Time};
use hw_route::LinkView;
use serde::{Serialize, Serializer};

use crate::inner::Inner;
use crate::monitor::{jsz, routez};

#[derive(Serialize)]
pub(crate) struct Varz {
    server_id: String,
    server_name: String,
    version: &'static str,
    headwater: &'static str,
    proto: i32,
    go: &'static str,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connect_urls: Vec<String>,
    max_connections: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_subscriptions: usize,
    ping_interval: i64,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: String,
    https_port: u16,
    #[serde(serialize_with = "seconds")]
    auth_timeout: Span,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Cluster,
    gateway: Empty,
    leaf: Leaf,
    mqtt: Empty,
    websocket: Websocket,
    jetstream: jsz::Summary,
    #[serde(serialize_with = "seconds")]
    tls_timeout: Span,
    write_deadline: i64,
    start: String,
    now: String,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    #[serde(flatten)]
    counts: Counts,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: String,
    config_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    feature_flags: BTreeMap<&'static str, bool>,
    system_account: String,
    slow_consumer_stats: SlowConsumers,
}

#[derive(Default, Serialize)]
struct Empty {}

#[derive(Default, Serialize)]
struct Cluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_seconds")]
    auth_timeout: Option<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_seconds")]
    tls_timeout: Option<Span>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_deadline: Option<i64>,
}

impl Cluster {
    async fn of(inner: &Inner) -> Cluster {
        let (Some(facts), Some(links)) = (&inner.facts.cluster, &inner.links) else {
            return Cluster::default();
        };
        let tls = facts.tls.is_some();
        Cluster {
            name: Some(inner.members().name),
            addr: Some(facts.host.clone()),
            cluster_port: Some(facts.port),
            auth_timeout: Some(facts.auth_timeout),
            urls: links.ask(|mesh, _| mesh.routes()).await.unwrap_or_default(),
            tls_timeout: Some(facts.tls.unwrap_or(Span::from_secs(2))),
            tls_required: tls,
            tls_verify: tls,
            // One connection with each server.
            pool_size: Some(1),
            write_deadline: Some(facts.write_deadline.0),
        }
    }
}

fn maybe_seconds<S: Serializer>(span: &Option<Span>, serializer: S) -> Result<S::Ok, S::Error> {
    seconds(&span.unwrap_or_default(), serializer)
}

#[derive(Serialize)]
struct SlowConsumers {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

#[derive(Default, Serialize)]
struct Leaf {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Default, Serialize)]
struct Websocket {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_tls: bool,
}

/// Seconds, without a fraction where there is none.
fn seconds<S: Serializer>(span: &Span, serializer: S) -> Result<S::Ok, S::Error> {
    match span.0 % 1_000_000_000 {
        0 => serializer.serialize_i64(span.0 / 1_000_000_000),
        _ => serializer.serialize_f64(span.0 as f64 / 1e9),
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What goes up and down while the server runs.
#[derive(Serialize)]
struct Counts {
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    subscriptions: u64,
}

impl Counts {
    fn of(total: &HubCounters, links: &[(LinkView, LinkCounters)]) -> Counts {
        let traffic = total.traffic;
        let mut with_servers = traffic;
        links.iter().for_each(|(_, counters)| with_servers.add(&counters.traffic));
        Counts {
            connections: total.connections,
            total_connections: total.total_connections,
            routes: links.len() as u64,
            remotes: links.len() as u64,
            leafnodes: 0,
            in_msgs: with_servers.in_msgs,
            in_bytes: with_servers.in_bytes,
            in_client_msgs: traffic.in_msgs,
            in_client_bytes: traffic.in_bytes,
            out_msgs: with_servers.out_msgs,
            out_bytes: with_servers.out_bytes,
            out_client_msgs: traffic.out_msgs,
            out_client_bytes: traffic.out_bytes,
            slow_consumers: total.slow_consumers,
            stale_connections: total.stale_connections,
            subscriptions: total.subscriptions,
        }
    }
}

pub(crate) async fn page(inner: &Inner) -> Varz {
    let now = inner.now();
    let facts = &inner.facts;
    let live = inner.live();
    let limits = &live.limits;
    let (leaf, websocket) = (facts.leafnodes.as_ref(), facts.websocket.as_ref());
    let total = inner.counters().await;
    let links = routez::links(inner).await;
    let (mem, cpu) = inner.usage();
    Varz {
        server_id: facts.id.clone(),
        server_name: facts.name.clone(),
        version: crate::NATS_VERSION,
        headwater: crate::VERSION,
        proto: 1,
        go: "",
        host: facts.host.clone(),
        port: facts.port,
        auth_required: live.directory.has_credentials(),
        connect_urls: match &facts.cluster {
            Some(_) => inner.members().client_urls,
            None => facts.connect_urls.clone(),
        },
        max_connections: live.max_connections,
        max_subscriptions: limits.max_subscriptions,
        ping_interval: limits.ping_interval.0,
        ping_max: limits.ping_max,
        http_host: facts.http_host.clone(),
        http_port: facts.http_port,
        http_base_path: facts.http_base_path.clone(),
        https_port: 0,
        auth_timeout: limits.auth_timeout,
        max_control_line: limits.max_control_line,
        max_payload: limits.max_payload,
        max_pending: limits.max_pending,
        cluster: Cluster::of(inner).await,
        gateway: Empty {},
        leaf: Leaf { host: leaf.map(|door| door.host.clone()), port: leaf.map(|door| door.port) },
        mqtt: Empty {},
        websocket: Websocket {
            host: websocket.map(|door| door.host.clone()),
            port: websocket.map(|door| door.port),
            no_tls: websocket.is_some_and(|door| !door.tls),
        },
        jetstream: jsz::summary(inner).await,
        tls_timeout: facts.tls_timeout,
        write_deadline: facts.write_deadline.0,
        start: inner.start.to_rfc3339(),
        now: now.to_rfc3339(),
        uptime: uptime(inner.start, now),
        mem,
        cores: inner.cores,
        gomaxprocs: inner.cores,
        cpu,
        counts: Counts::of(&total, &links),
        http_req_stats: inner.requests.counts(),
        config_load_time: live.loaded.to_rfc3339(),
        config_digest: live.config_digest.clone(),
        tags: facts.tags.clone(),
        metadata: facts.metadata.clone(),
        feature_flags: facts.jetstream.iter().map(|js| ("js_ack_fc_v2", js.long_acks)).collect(),
        system_account: facts.system_account.clone(),
        slow_consumer_stats: SlowConsumers {
            clients: total.slow_consumers,
            routes: 0,
            gateways: 0,
            leafs: 0,
        },
    }
}

/// A time span as `1d2h3m4s`: the largest unit that is not zero comes first.
pub(crate) fn uptime(start: Time, now: Time) -> String {
    let seconds = now.since(start).millis().max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m{}s", minutes % 60, seconds % 60),
        _ => format!("{days}d{}h{}m{}s", hours % 24, minutes % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw_kit::Span;

    #[test]
    fn uptimes() {
        let start = Time(1);
        for (seconds, text) in [(5, "5s"), (65, "1m5s"), (3_661, "1h1m1s"), (90_061, "1d1h1m1s")] {
            assert_eq!(uptime(start, start + Span::from_secs(seconds)), text);
        }
    }
}
