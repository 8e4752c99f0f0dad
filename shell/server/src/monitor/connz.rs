//! `/connz`: connections, open or closed, sorted and paged.

use std::collections::BTreeMap;

use hw_hub::{ClosedView, ConnectionView, Hub};
use hw_kit::{ConnId, Time};
use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::{is_set, number, varz};

#[derive(Serialize)]
pub(crate) struct Connz {
    server_id: String,
    now: String,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<Connection>,
}

#[derive(Clone, Serialize)]
struct Connection {
    cid: u64,
    kind: &'static str,
    r#type: &'static str,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher_suite: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<Subscription>,
    #[serde(skip)]
    sort: Sort,
    /// Whether it has a subscription that was asked for; all have where none was.
    #[serde(skip)]
    is_chosen: bool,
}

#[derive(Clone, Serialize)]
struct Subscription {
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    qgroup: String,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    cid: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The numbers that a page can be sorted by.
#[derive(Clone, Default)]
struct Sort {
    start: i64,
    last: i64,
    stop: i64,
    rtt: i64,
}

/// What was asked for.
#[derive(Clone, Default)]
struct Wanted {
    open: bool,
    closed: bool,
    auth: bool,
    subs: bool,
    detail: bool,
    cid: Option<u64>,
    account: Option<String>,
    user: Option<String>,
    /// Of subscriptions.
    filter: Option<String>,
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<Connz, String> {
    let wanted = wanted(arguments)?;
    let now = inner.now();
    let mut all = Vec::new();
    for mailbox in &inner.mailboxes {
        let (wanted, accounts) = (wanted.clone(), inner.account_names());
        let part = mailbox.ask(move |shard, now| collect(shard.hub(), &wanted, &accounts, now)).await;
        all.extend(part.unwrap_or_default());
    }
    sort(&mut all, arguments.get("sort").map_or("", String::as_str), &wanted)?;
    let total = all.len();
    all.retain(|connection| connection.is_chosen);
    let offset = number(arguments, "offset").unwrap_or(0);
    let limit = number(arguments, "limit").filter(|limit| *limit > 0).unwrap_or(1024);
    let connections: Vec<Connection> = all.into_iter().skip(offset).take(limit).collect();
    Ok(Connz {
        server_id: inner.facts.id.clone(),
        now: now.to_rfc3339(),
        num_connections: connections.len(),
        total,
        offset,
        limit,
        connections,
    })
}

fn wanted(arguments: &BTreeMap<String, String>) -> Result<Wanted, String> {
    let (open, closed) = match arguments.get("state").map_or("open", String::as_str) {
        "open" | "0" => (true, false),
        "closed" | "1" => (false, true),
        "any" | "all" | "2" => (true, true),
        other => return Err(format!("Error decoding state for {other}")),
    };
    // What touches everything chooses everybody.
    let filter =
        arguments.get("filter_subject").filter(|filter| !matches!(filter.as_str(), "" | ">")).cloned();
    if filter.is_some() && arguments.get("acc").is_none_or(String::is_empty) {
        return Err("filter by subject only valid with account filtering".to_owned());
    }
    let detail = arguments.get("subs").is_some_and(|subs| subs == "detail");
    Ok(Wanted {
        open,
        closed,
        auth: is_set(arguments, "auth"),
        subs: is_set(arguments, "subs") && !detail,
        detail,
        cid: number(arguments, "cid"),
        account: arguments.get("acc").cloned(),
        user: arguments.get("user").cloned(),
        filter,
    })
}

fn collect(hub: &Hub, wanted: &Wanted, accounts: &[String], now: Time) -> Vec<Connection> {
    let mut found = Vec::new();
    if wanted.open {
        let open = hub.connections().filter(|view| wanted.takes(view, accounts));
        found.extend(open.map(|view| {
            let conn = view.conn;
            let mut connection = Connection::new(&view, None, now, accounts, wanted);
            connection.subscribe(hub, conn, wanted);
            connection
        }));
    }
    if wanted.closed {
        let closed = hub.closed_connections().filter(|view| wanted.takes(&view.connection, accounts));
        found.extend(closed.map(|view| Connection::new(&view.connection, Some(view), now, accounts, wanted)));
    }
    found
}

impl Wanted {
    fn takes(&self, view: &ConnectionView, accounts: &[String]) -> bool {
        self.cid.is_none_or(|cid| cid == view.conn.0)
            && self.user.as_ref().is_none_or(|user| *user == view.user)
            && self
                .account
                .as_ref()
                .is_none_or(|wanted| account_name(view, accounts).as_ref() == Some(wanted))
    }
}

fn account_name(view: &ConnectionView, accounts: &[String]) -> Option<String> {
    accounts.get(view.account?.0 as usize).cloned()
}

impl Connection {
    fn new(
        view: &ConnectionView,
        closed: Option<&ClosedView>,
        now: Time,
        accounts: &[String],
        wanted: &Wanted,
    ) -> Connection {
        let end = closed.map_or(now, |closed| closed.stop);
        let user = (!view.user.is_empty()).then(|| view.user.clone());
        Connection {
            cid: view.conn.0,
            kind: "Client",
            r#type: "nats",
            ip: view.ip.clone(),
            port: view.port,
            start: view.start.to_rfc3339(),
            last_activity: view.last_activity.to_rfc3339(),
            stop: closed.map(|closed| closed.stop.to_rfc3339()),
            reason: closed.map(|closed| closed.reason.name()),
            rtt: (view.rtt.0 > 0).then(|| format!("{}µs", view.rtt.0 / 1000)),
            uptime: varz::uptime(view.start, end),
            idle: varz::uptime(view.last_activity, end),
            pending_bytes: view.pending_bytes,
            in_msgs: view.traffic.in_msgs,
            out_msgs: view.traffic.out_msgs,
            in_bytes: view.traffic.in_bytes,
            out_bytes: view.traffic.out_bytes,
            subscriptions: view.subscriptions,
            name: view.name.clone(),
            lang: view.lang.clone(),
            version: view.version.clone(),
            tls_version: view.tls.as_ref().map(|tls| tls.version.clone()),
            tls_cipher_suite: view.tls.as_ref().map(|tls| tls.cipher.clone()),
            authorized_user: user.filter(|_| wanted.auth),
            account: account_name(view, accounts).filter(|_| wanted.auth),
            subscriptions_list: Vec::new(),
            subscriptions_list_detail: Vec::new(),
            sort: Sort {
                start: view.start.0,
                last: view.last_activity.0,
                stop: closed.map_or(0, |closed| closed.stop.0),
                rtt: view.rtt.0,
            },
            is_chosen: wanted.filter.is_none(),
        }
    }

    fn subscribe(&mut self, hub: &Hub, conn: ConnId, wanted: &Wanted) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(filter) = &wanted.filter {
            let touches = |subject: &[u8]| hw_subject::overlaps(subject, filter.as_bytes());
            self.is_chosen = hub.subscriptions_of(conn).any(|sub| touches(sub.subject));
        }
        if wanted.subs {
            self.subscriptions_list = hub.subscriptions_of(conn).map(|sub| text(sub.subject)).collect();
        }
        if wanted.detail {
            let detail = hub.subscriptions_of(conn).map(|sub| Subscription {
                subject: text(sub.subject),
                qgroup: sub.queue.map(text).unwrap_or_default(),
                sid: text(sub.sid),
                msgs: sub.msgs,
                max: sub.max,
                cid: sub.conn.0,
            });
            self.subscriptions_list_detail = detail.collect();
        }
    }
}

fn sort(all: &mut [Connection], by: &str, wanted: &Wanted) -> Result<(), String> {
    let falling = |number: u64| std::cmp::Reverse(number);
    match by {
        "" | "cid" => all.sort_by_key(|conn| conn.cid),
        "start" => all.sort_by_key(|conn| conn.sort.start),
        "subs" => all.sort_by_key(|conn| falling(conn.subscriptions as u64)),
        "pending" => all.sort_by_key(|conn| falling(conn.pending_bytes as u64)),
        "msgs_to" => all.sort_by_key(|conn| falling(conn.out_msgs)),
        "msgs_from" => all.sort_by_key(|conn| falling(conn.in_msgs)),
        "bytes_to" => all.sort_by_key(|conn| falling(conn.out_bytes)),
        "bytes_from" => all.sort_by_key(|conn| falling(conn.in_bytes)),
        "last" | "idle" => all.sort_by_key(|conn| std::cmp::Reverse(conn.sort.last)),
        "uptime" => all.sort_by_key(|conn| conn.sort.start),
        "rtt" => all.sort_by_key(|conn| std::cmp::Reverse(conn.sort.rtt)),
        "stop" | "reason" if !wanted.closed => {
            return Err(format!("sort by {by} only valid on closed connections"));
        }
        "stop" => all.sort_by_key(|conn| std::cmp::Reverse(conn.sort.stop)),
        "reason" => all.sort_by_key(|conn| conn.reason),
        other => return Err(format!("invalid sorting option: {other}")),
    }
    Ok(())
}
