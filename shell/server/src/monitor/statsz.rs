//! What `$SYS.REQ.SERVER.PING` answers: the server's numbers in short.

use hw_hub::LinkCounters;
use hw_route::LinkView;
use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::{jsz, routez};

#[derive(Serialize)]
pub(crate) struct Statsz {
    start: String,
    mem: u64,
    cores: usize,
    cpu: f64,
    connections: u64,
    total_connections: u64,
    active_accounts: usize,
    subscriptions: u64,
    sent: Sum,
    sent_to_clients: Sum,
    received: Sum,
    received_from_clients: Sum,
    slow_consumers: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    active_servers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    jetstream: Option<jsz::Summary>,
    gomaxprocs: usize,
}

#[derive(Serialize)]
struct Route {
    rid: u64,
    name: String,
    sent: Sum,
    received: Sum,
    pending: usize,
}

#[derive(Clone, Copy, Serialize)]
struct Sum {
    msgs: u64,
    bytes: u64,
}

pub(crate) async fn page(inner: &Inner) -> Statsz {
    let total = inner.counters().await;
    let (mem, cpu) = inner.usage();
    let accounts = inner.account_counters().await;
    let sent = Sum { msgs: total.traffic.out_msgs, bytes: total.traffic.out_bytes };
    let received = Sum { msgs: total.traffic.in_msgs, bytes: total.traffic.in_bytes };
    let jetstream = match inner.facts.jetstream {
        Some(_) => Some(jsz::summary(inner).await),
        None => None,
    };
    let links = routez::links(inner).await;
    Statsz {
        start: inner.start.to_rfc3339(),
        mem,
        cores: inner.cores,
        cpu,
        connections: total.connections,
        total_connections: total.total_connections,
        active_accounts: accounts.iter().filter(|account| account.connections > 0).count(),
        subscriptions: total.subscriptions,
        sent,
        sent_to_clients: sent,
        received,
        received_from_clients: received,
        slow_consumers: total.slow_consumers,
        active_servers: 1 + links.len(),
        routes: links.iter().map(route).collect(),
        jetstream,
        gomaxprocs: inner.cores,
    }
}

fn route((view, counters): &(LinkView, LinkCounters)) -> Route {
    let traffic = &counters.traffic;
    Route {
        rid: view.link.0,
        name: view.name.clone(),
        sent: Sum { msgs: traffic.out_msgs, bytes: traffic.out_bytes },
        received: Sum { msgs: traffic.in_msgs, bytes: traffic.in_bytes },
        pending: view.pending_bytes,
    }
}
