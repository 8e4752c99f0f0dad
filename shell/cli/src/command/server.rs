//! `server`: servers as the system account and the monitoring checks see them.

mod check;
mod cluster;
mod probe;
pub mod report;
mod request;
mod verdict;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, Facts, Table, say};
use super::units::{self, bytes, comma, local_time};

/// What can be asked of servers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check something for a monitoring system: exit code 0 is ok, 1 a warning, 2 critical, 3 unknown
    #[command(subcommand)]
    Check(check::Command),
    /// Change who leads the cluster and who belongs to it
    #[command(subcommand, visible_aliases = ["r", "raft"])]
    Cluster(cluster::Command),
    /// Show one server's information (needs a system account)
    #[command(visible_alias = "i")]
    Info {
        /// Name or id of the server, the one of this connection if none is given
        #[arg(value_name = "SERVER")]
        which: Option<String>,
        /// Print the server's response
        #[arg(short, long)]
        json: bool,
    },
    /// List the servers (needs a system account)
    #[command(visible_alias = "list")]
    Ls {
        /// How many servers to expect; without it the answers of a second are taken
        expect: Option<usize>,
        /// Print the servers' responses
        #[arg(short, long)]
        json: bool,
    },
    /// Measure the time to every server and back (needs a system account)
    Ping {
        /// How many servers to expect; without it the answers of a second are taken
        expect: Option<usize>,
        /// Show the servers' ids
        #[arg(long)]
        id: bool,
    },
    /// Report on connections, accounts, JetStream and health
    #[command(subcommand, visible_alias = "rep")]
    Report(report::Command),
    /// Print a monitoring page of the servers (needs a system account)
    #[command(subcommand, visible_alias = "req")]
    Request(request::Command),
}

/// Runs a server command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(command) => check::run(global, command).await,
        Command::Cluster(command) => cluster::run(&Session::open(global).await?, command).await,
        Command::Info { which, json } => info(&Session::open(global).await?, which, json).await,
        Command::Ls { expect, json } => list(&Session::open(global).await?, expect, json).await,
        Command::Ping { expect, id } => ping(&Session::open(global).await?, expect, id).await,
        Command::Report(command) => report::run(&Session::open(global).await?, command).await,
        Command::Request(command) => request::run(&Session::open(global).await?, command).await,
    }
}

/// One server's answer to a request that goes to all.
struct Reply {
    payload: Bytes,
    elapsed: Duration,
}

/// Asks all servers; the answers of `expect` servers, or those that come within the patience.
async fn ask_all(session: &Session, subject: &str, expect: Option<usize>) -> Result<Vec<Reply>, Failure> {
    ask_all_with(session, subject, &Value::Null, expect).await
}

/// The same with a body; null is none.
async fn ask_all_with(
    session: &Session,
    subject: &str,
    body: &Value,
    expect: Option<usize>,
) -> Result<Vec<Reply>, Failure> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let doing = format!("ask the servers on {subject}");
    let failed = |error: &dyn std::fmt::Display| Failure::request(&doing, error);
    let inbox = session.client.new_inbox();
    let mut answers = session.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let begin = Instant::now();
    let sent = session.client.publish_with_reply(subject.to_owned(), inbox, body).await;
    sent.map_err(|error| failed(&error))?;
    let patience =
        if expect.is_some() { session.timeout } else { session.timeout.min(Duration::from_secs(1)) };
    let deadline = tokio::time::Instant::now() + patience;
    let mut replies = Vec::new();
    while expect.is_none_or(|expect| replies.len() < expect) {
        let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await else { break };
        if answer.status.is_some() {
            return Err(failed(&"nobody answers, is this a user of the system account?"));
        }
        replies.push(Reply { payload: answer.payload, elapsed: begin.elapsed() });
    }
    if replies.is_empty() {
        Err(failed(&"no answer, is this a user of the system account?"))
    } else {
        Ok(replies)
    }
}

/// The servers that answer within a second.
pub async fn identities(session: &Session) -> Result<Vec<Identity>, Failure> {
    let replies = ask_all(session, "$SYS.REQ.SERVER.PING", None).await?;
    replies.iter().map(|reply| read::<Statsz>(&reply.payload).map(|answer| answer.server)).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Statsz {
    server: Identity,
    statsz: Stats,
}

/// Which server says something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Identity {
    pub name: String,
    pub id: String,
    pub host: String,
    pub cluster: String,
    pub domain: String,
    pub ver: String,
    pub jetstream: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    start: String,
    mem: u64,
    cores: u64,
    cpu: f64,
    connections: u64,
    subscriptions: u64,
    slow_consumers: u64,
    routes: Option<Vec<Value>>,
    gateways: Option<Vec<Value>>,
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(payload).map_err(|error| Failure::request("understand a server's answer", error))
}

fn print_payloads(replies: &[Reply]) {
    let texts: Vec<_> = replies.iter().map(|reply| String::from_utf8_lossy(&reply.payload)).collect();
    output::line(&output::indent_json(&format!("[{}]", texts.join(","))));
}

async fn list(session: &Session, expect: Option<usize>, json: bool) -> Result<(), Failure> {
    let replies = ask_all(session, "$SYS.REQ.SERVER.PING.STATSZ", expect).await?;
    if json {
        print_payloads(&replies);
        return Ok(());
    }
    let columns = [
        "Name", "Cluster", "Host", "Version", "JS", "Conns", "Subs", "Routes", "GWs", "Mem", "CPU %",
        "Cores", "Slow", "Uptime", "RTT",
    ];
    let now = jiff::Timestamp::now();
    let mut table = Table::new("Server Overview", columns).right(7).right(8).right(11);
    let mut rows = Vec::new();
    for reply in &replies {
        rows.push((read::<Statsz>(&reply.payload)?, reply.elapsed));
    }
    rows.sort_by(|a, b| {
        (&a.0.server.cluster, &a.0.server.name).cmp(&(&b.0.server.cluster, &b.0.server.name))
    });
    for (Statsz { server, statsz }, elapsed) in rows {
        table.row([
            server.name,
            server.cluster,
            server.host,
            server.ver,
            if server.jetstream { "yes" } else { "no" }.to_owned(),
            comma(statsz.connections),
            comma(statsz.subscriptions),
            comma(statsz.routes.map_or(0, |routes| routes.len() as u64)),
            comma(statsz.gateways.map_or(0, |gateways| gateways.len() as u64)),
            bytes(statsz.mem),
            format!("{:.0}", statsz.cpu),
            statsz.cores.to_string(),
            comma(statsz.slow_consumers),
            units::since(&statsz.start, now),
            units::duration(elapsed),
        ]);
    }
    table.print();
    Ok(())
}

async fn ping(session: &Session, expect: Option<usize>, id: bool) -> Result<(), Failure> {
    let replies = ask_all(session, "$SYS.REQ.SERVER.PING", expect).await?;
    let mut times = Vec::new();
    for reply in &replies {
        let server = read::<Statsz>(&reply.payload)?.server;
        let name = if id { format!("{} {}", server.id, server.name) } else { server.name };
        say!("{name:<60} rtt={}", units::duration(reply.elapsed));
        times.push(reply.elapsed);
    }
    let total: Duration = times.iter().sum();
    let (min, max) =
        (times.iter().min().copied().unwrap_or_default(), times.iter().max().copied().unwrap_or_default());
    let average = total / u32::try_from(times.len()).unwrap_or(1).max(1);
    let [max, min, average] = [max, min, average].map(units::duration);
    say!("\n---- ping statistics ----\n{} replies max: {max} min: {min} avg: {average}", times.len());
    match expect {
        Some(expect) if times.len() < expect => {
            Err(Failure::request("ping the servers", format!("{} of {expect} answered", times.len())))
        }
        _ => Ok(()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VarzReply {
    server: Identity,
    data: Varz,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Varz {
    version: String,
    git_commit: String,
    start: String,
    config_load_time: String,
    uptime: String,
    auth_required: bool,
    tls_required: bool,
    host: String,
    port: u16,
    max_connections: i64,
    max_payload: u64,
    max_pending: u64,
    write_deadline: i64,
    cores: u64,
    cpu: f64,
    mem: u64,
    connections: u64,
    subscriptions: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    slow_consumers: u64,
    jetstream: Option<VarzJetStream>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VarzJetStream {
    config: Option<VarzJetStreamConfig>,
    stats: Option<VarzJetStreamStats>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VarzJetStreamConfig {
    max_memory: u64,
    max_storage: u64,
    store_dir: String,
    domain: String,
    sync_always: bool,
    sync_interval: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VarzJetStreamStats {
    memory: u64,
    storage: u64,
    accounts: u64,
    api: VarzApi,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VarzApi {
    level: u64,
    total: u64,
    errors: u64,
}

async fn info(session: &Session, wanted: Option<String>, json: bool) -> Result<(), Failure> {
    let own = session.client.server_info().server_id;
    let wanted = wanted.unwrap_or(own);
    for reply in ask_all(session, "$SYS.REQ.SERVER.PING.VARZ", None).await? {
        let varz: VarzReply = read(&reply.payload)?;
        if varz.server.id != wanted && varz.server.name != wanted {
            continue;
        }
        if json {
            output::line(&output::indent_json(&String::from_utf8_lossy(&reply.payload)));
        } else {
            print_info(&varz);
        }
        return Ok(());
    }
    Err(Failure::Usage(format!("no server with the name or id {wanted:?} answered")))
}

fn print_info(reply: &VarzReply) {
    let (server, varz) = (&reply.server, &reply.data);
    let mut facts = Facts::titled(format!("Server information for {} ({})", server.name, server.id));
    facts.heading("Process Details");
    facts.row("Version", &varz.version);
    facts.row_some("Git Commit", &varz.git_commit);
    facts.row("Start Time", local_time(&varz.start));
    facts.row_some("Configuration Load Time", &local_time(&varz.config_load_time));
    facts.row("Uptime", &varz.uptime);
    facts.heading("Connection Details");
    facts.row("Auth Required", varz.auth_required.to_string());
    facts.row("TLS Required", varz.tls_required.to_string());
    facts.row("Host", format!("{}:{}", varz.host, varz.port));
    facts.row_some("Cluster", &server.cluster);
    if let Some(jetstream) = &varz.jetstream {
        print_jetstream(&mut facts, jetstream);
    }
    facts.heading("Limits");
    facts.row("Maximum Connections", comma(varz.max_connections));
    facts.row("Maximum Payload", bytes(varz.max_payload));
    facts.row("Maximum Pending", bytes(varz.max_pending));
    facts.row("Write Deadline", units::nanoseconds(varz.write_deadline));
    facts.heading("Statistics");
    facts.row("CPU Cores", format!("{} {:.2}%", varz.cores, varz.cpu));
    facts.row("Memory", bytes(varz.mem));
    facts.row("Connections", comma(varz.connections));
    facts.row("Subscriptions", comma(varz.subscriptions));
    facts.row("Messages", format!("{} in {} out", comma(varz.in_msgs), comma(varz.out_msgs)));
    facts.row("Bytes", format!("{} in {} out", bytes(varz.in_bytes), bytes(varz.out_bytes)));
    facts.row("Slow Consumers", comma(varz.slow_consumers));
    facts.print();
}

fn print_jetstream(facts: &mut Facts, jetstream: &VarzJetStream) {
    let Some(config) = &jetstream.config else { return };
    facts.heading("JetStream");
    facts.row_some("Domain", &config.domain);
    facts.row("Storage Directory", &config.store_dir);
    facts.row("Maximum Memory Storage", bytes(config.max_memory));
    facts.row("Maximum File Storage", bytes(config.max_storage));
    facts.row("Always sync writes to disk", config.sync_always.to_string());
    facts.row_if(config.sync_interval > 0, "Write sync Frequency", units::nanoseconds(config.sync_interval));
    if let Some(stats) = &jetstream.stats {
        facts.row("API Support Level", stats.api.level.to_string());
        facts.row("Active Accounts", comma(stats.accounts));
        facts.row("Memory In Use", bytes(stats.memory));
        facts.row("File In Use", bytes(stats.storage));
        facts.row("API Requests", comma(stats.api.total));
        facts.row("API Errors", comma(stats.api.errors));
    }
}
