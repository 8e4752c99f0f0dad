//! `server report`: what the servers say of themselves, in tables.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Identity, ask_all_with, print_payloads, read};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{Table, print_json, say};
use crate::command::units::{bytes, comma};

/// What can be reported.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What goes through each account (needs a system account)
    #[command(visible_alias = "acct")]
    Accounts(Args),
    /// The connections (needs a system account)
    #[command(visible_aliases = ["conn", "connz", "conns"])]
    Connections(ConnectionArgs),
    /// Whether the servers are well (needs a system account)
    #[command(visible_alias = "healthz")]
    Health(Args),
    /// What JetStream holds (needs a system account)
    #[command(visible_aliases = ["jsz", "js"])]
    Jetstream(JetStreamArgs),
}

/// How many servers are asked.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// How many servers to expect; without it the answers of a second are taken
    expect: Option<usize>,
    /// Print the servers' responses
    #[arg(short, long)]
    json: bool,
}

/// Which streams count.
#[derive(Debug, Default, clap::Args)]
pub struct JetStreamArgs {
    #[command(flatten)]
    common: Args,
    /// Only this account's
    #[arg(long)]
    account: Option<String>,
}

/// Which connections, and in which order.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConnectionArgs {
    /// How many servers to expect; without it the answers of a second are taken
    expect: Option<usize>,
    /// Only this account's
    #[arg(long)]
    account: Option<String>,
    /// Only this user's
    #[arg(long)]
    username: Option<String>,
    /// Only those that listen to messages on this subject
    #[arg(long)]
    subject: Option<String>,
    /// Open or closed ones
    #[arg(long, default_value = "open", value_parser = ["open", "closed", "all"])]
    state: String,
    /// What to sort by
    #[arg(long, default_value = "subs",
        value_parser = ["in-bytes", "out-bytes", "in-msgs", "out-msgs", "uptime", "cid", "subs"])]
    sort: String,
    /// The lowest first
    #[arg(short = 'R', long)]
    reverse: bool,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    top: usize,
    /// Print the connections
    #[arg(short, long)]
    json: bool,
}

/// Runs a report.
pub async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Accounts(args) => accounts(session, &args).await,
        Command::Connections(args) => connections(session, "$SYS.REQ.SERVER.PING.CONNZ", &args).await,
        Command::Health(args) => health(session, &args).await,
        Command::Jetstream(args) => jetstream(session, &args).await,
    }
}

/// A page of one server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Page<T> {
    pub server: Identity,
    pub data: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Jsz {
    streams: u64,
    consumers: u64,
    messages: u64,
    bytes: u64,
    memory: u64,
    storage: u64,
    api: Api,
    config: JszConfig,
    account_details: Option<Vec<JszAccount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JszConfig {
    domain: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JszAccount {
    memory: u64,
    storage: u64,
    stream_detail: Vec<JszStream>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JszStream {
    state: JszState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JszState {
    messages: u64,
    bytes: u64,
    consumer_count: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Api {
    total: u64,
    errors: u64,
}

impl Jsz {
    /// Of a page about one account only that account counts.
    fn of_account(mut self) -> Jsz {
        let details = self.account_details.take().unwrap_or_default();
        let states = || details.iter().flat_map(|account| &account.stream_detail).map(|stream| &stream.state);
        self.streams = states().count() as u64;
        self.messages = states().map(|state| state.messages).sum();
        self.bytes = states().map(|state| state.bytes).sum();
        self.consumers = states().map(|state| state.consumer_count).sum();
        self.memory = details.iter().map(|account| account.memory).sum();
        self.storage = details.iter().map(|account| account.storage).sum();
        self
    }

    fn cells(&self) -> [String; 7] {
        let numbers = [self.streams, self.consumers, self.messages].map(comma);
        let sizes = [self.bytes, self.memory, self.storage].map(bytes);
        let [streams, consumers, messages] = numbers;
        let [stored, memory, storage] = sizes;
        let api = match self.api.errors {
            0 => comma(self.api.total),
            errors => format!("{} / {}", comma(self.api.total), comma(errors)),
        };
        [streams, consumers, messages, stored, memory, storage, api]
    }
}

async fn jetstream(session: &Session, args: &JetStreamArgs) -> Result<(), Failure> {
    let body = match &args.account {
        Some(account) => json!({ "account": account, "accounts": true, "streams": true }),
        None => json!({}),
    };
    let replies = ask_all_with(session, "$SYS.REQ.SERVER.PING.JSZ", &body, args.common.expect).await?;
    if args.common.json {
        print_payloads(&replies);
        return Ok(());
    }
    let mut pages = Vec::new();
    for reply in &replies {
        let mut page: Page<Jsz> = read(&reply.payload)?;
        if args.account.is_some() {
            page.data = page.data.of_account();
        }
        pages.push(page);
    }
    pages.sort_by(|a, b| (&a.server.cluster, &a.server.name).cmp(&(&b.server.cluster, &b.server.name)));
    let columns = [
        "Server",
        "Cluster",
        "Domain",
        "Streams",
        "Consumers",
        "Messages",
        "Bytes",
        "Memory",
        "File",
        "API Req",
    ];
    let mut table = Table::new("JetStream Summary", columns);
    let mut total = Jsz::default();
    for Page { server, data } in pages {
        let [streams, consumers, messages, stored, memory, storage, api] = data.cells();
        let domain = data.config.domain.clone();
        table.row([
            server.name,
            server.cluster,
            domain,
            streams,
            consumers,
            messages,
            stored,
            memory,
            storage,
            api,
        ]);
        total = sum(total, &data);
    }
    let [streams, consumers, messages, stored, memory, storage, api] = total.cells();
    let blank = String::new;
    table.row([blank(), blank(), blank(), streams, consumers, messages, stored, memory, storage, api]);
    table.print();
    Ok(())
}

fn sum(total: Jsz, more: &Jsz) -> Jsz {
    Jsz {
        streams: total.streams + more.streams,
        consumers: total.consumers + more.consumers,
        messages: total.messages + more.messages,
        bytes: total.bytes + more.bytes,
        memory: total.memory + more.memory,
        storage: total.storage + more.storage,
        api: Api { total: total.api.total + more.api.total, errors: total.api.errors + more.api.errors },
        ..Jsz::default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connz {
    pub connections: Vec<Value>,
    pub total: u64,
}

/// What the tables show of a connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connection {
    pub cid: u64,
    pub name: String,
    pub ip: String,
    pub port: u16,
    pub account: String,
    pub uptime: String,
    pub start: String,
    pub reason: String,
    pub lang: String,
    pub version: String,
    pub pending_bytes: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub subscriptions: u64,
}

/// Connections with the server that each is on.
pub struct Found {
    pub connections: Vec<(Identity, Connection)>,
    /// How many there are altogether.
    pub total: u64,
    raw: Vec<Value>,
}

/// Asks for connections.
pub async fn find(
    session: &Session,
    subject: &str,
    body: &Value,
    expect: Option<usize>,
) -> Result<Found, Failure> {
    let mut found = Found { connections: Vec::new(), total: 0, raw: Vec::new() };
    for reply in ask_all_with(session, subject, body, expect).await? {
        let answer: Value = read(&reply.payload)?;
        if let Some(why) = answer["error"]["description"].as_str() {
            return Err(Failure::request("get the connections", why));
        }
        let page: Page<Connz> = read(&reply.payload)?;
        found.total += page.data.total;
        for raw in page.data.connections {
            let connection = serde_json::from_value(raw.clone());
            let connection =
                connection.map_err(|error| Failure::request("understand a connection", error))?;
            found.connections.push((page.server.clone(), connection));
            found.raw.push(raw);
        }
    }
    Ok(found)
}

/// Puts connections in the order that is asked for: the largest first.
pub fn sort(connections: &mut [(Identity, Connection)], by: &str, reverse: bool) {
    connections.sort_by(|(_, a), (_, b)| {
        let order = match by {
            "in-bytes" => b.in_bytes.cmp(&a.in_bytes),
            "out-bytes" => b.out_bytes.cmp(&a.out_bytes),
            "in-msgs" => b.in_msgs.cmp(&a.in_msgs),
            "out-msgs" => b.out_msgs.cmp(&a.out_msgs),
            // The oldest is up the longest.
            "uptime" => a.start.cmp(&b.start),
            "cid" => a.cid.cmp(&b.cid),
            _ => b.subscriptions.cmp(&a.subscriptions),
        };
        order.then(a.cid.cmp(&b.cid))
    });
    if reverse {
        connections.reverse();
    }
}

/// Reports connections, of all accounts or, by another subject, of one's own.
pub async fn connections(session: &Session, subject: &str, args: &ConnectionArgs) -> Result<(), Failure> {
    let state = ["open", "closed", "all"].iter().position(|state| *state == args.state);
    let mut body = json!({ "auth": true, "limit": 2048, "state": state });
    let filters = [("acc", &args.account), ("user", &args.username), ("filter_subject", &args.subject)];
    for (field, value) in filters {
        if let Some(value) = value {
            body[field] = value.as_str().into();
        }
    }
    // The server cannot say what a subject interests without looking at subscriptions.
    if args.subject.is_some() {
        body["subscriptions"] = true.into();
    }
    let mut found = find(session, subject, &body, args.expect).await?;
    if args.json {
        return print_json(&found.raw);
    }
    sort(&mut found.connections, &args.sort, args.reverse);
    let all = found.connections.len();
    let shown = &found.connections[..all.min(args.top)];
    print_connections(shown, (all, args));
    say!();
    let mut of_server: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (server, _) in &found.connections {
        *of_server.entry((&server.name, &server.cluster)).or_default() += 1;
    }
    let mut table = Table::new("Connections per server", ["Server", "Cluster", "Connections"]).right(2);
    for ((server, cluster), count) in of_server {
        table.row([server.to_owned(), cluster.to_owned(), comma(count)]);
    }
    table.print();
    Ok(())
}

fn print_connections(shown: &[(Identity, Connection)], (all, args): (usize, &ConnectionArgs)) {
    let title = format!("Top {} Connections out of {all} by {}", shown.len(), args.sort);
    let columns = [
        "CID",
        "Name",
        "Server",
        "Cluster",
        "IP",
        "Account",
        "Uptime",
        "In Msgs",
        "Out Msgs",
        "In Bytes",
        "Out Bytes",
        "Subs",
        "Reason",
    ];
    let mut table = Table::new(title, columns);
    let mut sums = [0_u64; 5];
    for (server, c) in shown {
        let numbers = [c.in_msgs, c.out_msgs, c.in_bytes, c.out_bytes, c.subscriptions];
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        let [in_msgs, out_msgs, in_bytes, out_bytes, subs] = cells(numbers);
        table.row([
            c.cid.to_string(),
            c.name.clone(),
            server.name.clone(),
            server.cluster.clone(),
            format!("{}:{}", c.ip, c.port),
            c.account.clone(),
            c.uptime.clone(),
            in_msgs,
            out_msgs,
            in_bytes,
            out_bytes,
            subs,
            c.reason.clone(),
        ]);
    }
    let [in_msgs, out_msgs, in_bytes, out_bytes, subs] = cells(sums);
    let (total, blank) = (format!("Totals for {} connections", shown.len()), String::new);
    table.row([
        blank(),
        total,
        blank(),
        blank(),
        blank(),
        blank(),
        blank(),
        in_msgs,
        out_msgs,
        in_bytes,
        out_bytes,
        subs,
        blank(),
    ]);
    table.print();
}

fn cells([in_msgs, out_msgs, in_bytes, out_bytes, subs]: [u64; 5]) -> [String; 5] {
    [comma(in_msgs), comma(out_msgs), bytes(in_bytes), bytes(out_bytes), comma(subs)]
}

async fn accounts(session: &Session, args: &Args) -> Result<(), Failure> {
    let body = json!({ "auth": true, "limit": 65_536 });
    let found = find(session, "$SYS.REQ.SERVER.PING.CONNZ", &body, args.expect).await?;
    let mut accounts: BTreeMap<&str, (u64, [u64; 5])> = BTreeMap::new();
    for (_, c) in &found.connections {
        let (count, sums) = accounts.entry(&c.account).or_default();
        *count += 1;
        let numbers = [c.in_msgs, c.out_msgs, c.in_bytes, c.out_bytes, c.subscriptions];
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    if args.json {
        let rows: Vec<Value> = accounts
            .iter()
            .map(|(account, (count, [in_msgs, out_msgs, in_bytes, out_bytes, subs]))| {
                json!({ "account": account, "connections": count, "in_msgs": in_msgs, "out_msgs": out_msgs,
                    "in_bytes": in_bytes, "out_bytes": out_bytes, "subs": subs })
            })
            .collect();
        return print_json(&rows);
    }
    let columns = ["Account", "Connections", "In Msgs", "Out Msgs", "In Bytes", "Out Bytes", "Subs"];
    let mut table = Table::new(format!("{} Accounts Overview", accounts.len()), columns);
    for (account, (count, sums)) in accounts {
        let [in_msgs, out_msgs, in_bytes, out_bytes, subs] = cells(sums);
        table.row([account.to_owned(), comma(count), in_msgs, out_msgs, in_bytes, out_bytes, subs]);
    }
    table.print();
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Healthz {
    status: String,
    status_code: u64,
    error: String,
}

async fn health(session: &Session, args: &Args) -> Result<(), Failure> {
    let replies = ask_all_with(session, "$SYS.REQ.SERVER.PING.HEALTHZ", &json!({}), args.expect).await?;
    if args.json {
        print_payloads(&replies);
        return Ok(());
    }
    let mut table = Table::new("Health Report", ["Server", "Cluster", "Domain", "Status", "Error"]);
    let (mut well, mut ill) = (0_u64, 0_u64);
    for reply in &replies {
        let Page { server, data }: Page<Healthz> = read(&reply.payload)?;
        match data.status.as_str() {
            "ok" => well += 1,
            _ => ill += 1,
        }
        let status = format!("{} ({})", data.status, data.status_code);
        table.row([server.name, server.cluster, server.domain, status, data.error]);
    }
    let (count, blank) = (replies.len().to_string(), String::new);
    table.row([count, blank(), blank(), format!("ok: {well} / err: {ill}"), blank()]);
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_sorted() {
        let one = |cid, start: &str, in_msgs, subscriptions| {
            let connection =
                Connection { cid, start: start.into(), in_msgs, subscriptions, ..Connection::default() };
            (Identity::default(), connection)
        };
        let mut all = vec![one(3, "c", 5, 1), one(1, "a", 9, 1), one(2, "b", 7, 4)];
        for (by, reverse, wanted) in [
            ("cid", false, [1, 2, 3]),
            ("cid", true, [3, 2, 1]),
            ("in-msgs", false, [1, 2, 3]),
            ("subs", false, [2, 1, 3]),
            ("uptime", false, [1, 2, 3]),
        ] {
            sort(&mut all, by, reverse);
            assert_eq!(all.iter().map(|(_, c)| c.cid).collect::<Vec<_>>(), wanted, "{by}");
        }
    }

    #[test]
    fn one_accounts_part() {
        let page = r#"{"streams":9,"messages":9,"account_details":[{"memory":1,"storage":2,"stream_detail":
            [{"state":{"messages":3,"bytes":4,"consumer_count":5}},{"state":{"messages":1,"bytes":1,"consumer_count":0}}]}]}"#;
        let jsz: Jsz = serde_json::from_str(page).unwrap();
        assert_eq!(jsz.of_account().cells(), ["2", "5", "4", "5 B", "1 B", "2 B", "0"]);
    }
}
