//! `/routez`: the links with the other servers of the cluster.

use std::collections::BTreeMap;

use hw_auth::Allowance;
use hw_hub::LinkCounters;
use hw_kit::{LinkId, Span, Time};
use hw_net::steady_now;
use hw_route::LinkView;
use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::varz::uptime;

#[derive(Serialize)]
pub(crate) struct Routez {
    server_id: String,
    server_name: String,
    now: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<Lists>,
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<Lists>,
    num_routes: usize,
    routes: Vec<Route>,
}

/// What the cluster's `permissions` say of one direction.
#[derive(Serialize)]
struct Lists {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

impl Lists {
    /// None where nothing is said.
    fn of(Allowance { allow, deny }: Allowance) -> Option<Lists> {
        (!allow.is_empty() || !deny.is_empty()).then_some(Lists { allow, deny })
    }
}

#[derive(Serialize)]
struct Route {
    rid: u64,
    remote_id: String,
    remote_name: String,
    did_solicit: bool,
    is_configured: bool,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    rtt: String,
    uptime: String,
    idle: String,
    pending_size: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list: Option<Vec<String>>,
    compression: &'static str,
}

/// The links, with what the first shard counts of each.
pub(crate) async fn links(inner: &Inner) -> Vec<(LinkView, LinkCounters)> {
    let Some(links) = &inner.links else { return Vec::new() };
    let views = links.ask(|mesh, _| mesh.links()).await.unwrap_or_default();
    let count = |shard: &mut hw_node::Shard, _: Time| shard.hub().link_counters().collect();
    let counters: BTreeMap<LinkId, LinkCounters> = match inner.mailboxes.first() {
        Some(first) => first.ask(count).await.unwrap_or_default(),
        None => BTreeMap::new(),
    };
    views
        .into_iter()
        .map(|view| {
            let counters = counters.get(&view.link).copied().unwrap_or_default();
            (view, counters)
        })
        .collect()
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Routez {
    let wants_subs = arguments.get("subs").is_some_and(|subs| !matches!(subs.as_str(), "" | "0" | "false"));
    let mut wanted: BTreeMap<LinkId, Vec<String>> = BTreeMap::new();
    if wants_subs && let Some(first) = inner.mailboxes.first() {
        let filters = |shard: &mut hw_node::Shard, _: Time| shard.hub().link_filters().collect();
        wanted = first.ask(filters).await.unwrap_or_default();
    }
    let now = inner.now();
    let routes: Vec<Route> = links(inner)
        .await
        .into_iter()
        .map(|(view, counters)| {
            let filters = wants_subs.then(|| wanted.remove(&view.link).unwrap_or_default());
            route(now, view, counters, filters)
        })
        .collect();
    let exchange = inner.live().exchange.unwrap_or_default();
    Routez {
        server_id: inner.facts.id.clone(),
        server_name: inner.facts.name.clone(),
        now: now.to_rfc3339(),
        import: Lists::of(exchange.publish),
        export: Lists::of(exchange.subscribe),
        num_routes: routes.len(),
        routes,
    }
}

fn route(
    now: Time,
    view: LinkView,
    counters: LinkCounters,
    subscriptions_list: Option<Vec<String>>,
) -> Route {
    let age = |at: Time| now - steady_now().since(at);
    let (start, active) = (age(view.began), age(view.active));
    let (ip, port) = view.remote.rsplit_once(':').unwrap_or((&view.remote, ""));
    Route {
        rid: view.link.0,
        remote_id: view.server_id,
        remote_name: view.name,
        did_solicit: view.dialled,
        is_configured: view.configured,
        ip: ip.trim_matches(['[', ']']).to_owned(),
        port: port.parse().unwrap_or(0),
        start: start.to_rfc3339(),
        last_activity: active.to_rfc3339(),
        rtt: duration(view.rtt),
        uptime: uptime(start, now),
        idle: uptime(active, now),
        pending_size: view.pending_bytes,
        in_msgs: counters.traffic.in_msgs,
        out_msgs: counters.traffic.out_msgs,
        in_bytes: counters.traffic.in_bytes,
        out_bytes: counters.traffic.out_bytes,
        subscriptions: counters.subscriptions,
        subscriptions_list,
        compression: view.compression.name(),
    }
}

/// As Go writes short durations.
fn duration(span: Span) -> String {
    let nanos = span.0.max(0);
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{}ms", nanos as f64 / 1e6),
        _ => format!("{}s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanos, text) in [(12, "12ns"), (112_400, "112µs"), (1_500_000, "1.5ms"), (2_000_000_000, "2s")]
        {
            assert_eq!(duration(Span(nanos)), text);
        }
    }
}
