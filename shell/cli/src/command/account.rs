//! `account`: who this connection is and what it may use.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::backup;
use super::connect::{Global, Session, visible};
use super::error::Failure;
use super::output::Facts;
use super::server::report;
use super::units::{bytes, comma, duration};

/// What can be asked about the account.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the connection, the account and its JetStream usage
    #[command(visible_alias = "nfo")]
    Info {
        /// Print the JetStream API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Report on this account
    #[command(subcommand, visible_alias = "rep")]
    Report(ReportCommand),
    /// Back up all streams into a folder
    #[command(visible_alias = "snapshot")]
    Backup(backup::TakeAllArgs),
    /// Restore all streams from a folder
    Restore(backup::RestoreAllArgs),
}

/// What can be reported of an account.
#[derive(Debug, clap::Subcommand)]
pub enum ReportCommand {
    /// Its connections
    #[command(visible_aliases = ["conn", "connz", "conns"])]
    Connections(report::ConnectionArgs),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    user: String,
    account: String,
    account_name: String,
    expires: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    memory: u64,
    storage: u64,
    streams: i64,
    consumers: i64,
    limits: Limits,
    domain: String,
    tiers: Option<std::collections::BTreeMap<String, Tier>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tier {
    memory: u64,
    storage: u64,
    streams: i64,
    consumers: i64,
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    max_memory: i64,
    max_storage: i64,
    max_streams: i64,
    max_consumers: i64,
    max_ack_pending: i64,
    memory_max_stream_bytes: i64,
    storage_max_stream_bytes: i64,
    max_bytes_required: bool,
}

/// Runs an account command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    match command {
        Command::Info { json } => info(&session, json).await,
        Command::Report(ReportCommand::Connections(args)) => {
            report::connections(&session, "$SYS.REQ.ACCOUNT.PING.CONNZ", &args).await
        }
        Command::Backup(args) => backup::account(&session, &args).await,
        Command::Restore(args) => backup::restore_account(&session, &args).await,
    }
}

async fn info(session: &Session, json: bool) -> Result<(), Failure> {
    let usage = session.api("INFO", &Value::Null, "get the account's JetStream information").await;
    if json {
        usage?.print_json();
        return Ok(());
    }
    let mut facts = Facts::titled("Account Information");
    connection(session, &mut facts).await?;
    match usage.and_then(|answer| answer.read::<Usage>()) {
        Ok(usage) => jetstream(&mut facts, &usage),
        Err(failure) => {
            facts.heading("JetStream Account Information");
            facts.row("Unavailable", failure.to_string());
        }
    }
    facts.print();
    Ok(())
}

async fn connection(session: &Session, facts: &mut Facts) -> Result<(), Failure> {
    let server = session.client.server_info();
    let doing = "get the user's information";
    // Not every server answers this; the rest of the page is worth showing all the same.
    if let Ok(answer) = session.api_at("$SYS.REQ.USER.INFO", Bytes::new(), doing).await {
        let user: User = answer.read::<Value>()?.get("data").cloned().map_or_else(
            || answer.read(),
            |data| serde_json::from_value(data).map_err(|error| Failure::request(doing, error)),
        )?;
        facts.row("User", &user.user);
        let name = if user.account_name.is_empty() { &user.account } else { &user.account_name };
        facts.row("Account", format!("{} ({name})", user.account));
        let expires = u64::try_from(user.expires).ok().filter(|nanos| *nanos > 0);
        let expires = expires.map(|nanos| duration(std::time::Duration::from_nanos(nanos)));
        facts.row("Expires", expires.unwrap_or_else(|| "never".into()));
    }
    facts.row("Client ID", server.client_id.to_string());
    facts.row("Client IP", &server.client_ip);
    if let Ok(rtt) = session.round_trip().await {
        facts.row("RTT", duration(rtt));
    }
    facts.row("Headers Supported", server.headers.to_string());
    facts.row("Maximum Payload", bytes(server.max_payload as u64));
    facts.row("Connected URL", visible(&session.url));
    facts.row("Connected Address", format!("{}:{}", server.host, server.port));
    facts.row("Connected Server ID", &server.server_id);
    facts.row("Connected Server Version", &server.version);
    if server.server_name != server.server_id {
        facts.row_some("Connected Server Name", &server.server_name);
    }
    facts.row_some("Connected Cluster", server.cluster.as_deref().unwrap_or_default());
    facts.row("TLS Required", server.tls_required.to_string());
    Ok(())
}

fn jetstream(facts: &mut Facts, usage: &Usage) {
    facts.heading("JetStream Account Information");
    facts.row_some("Domain", &usage.domain);
    facts.row("Storage", bytes(usage.storage));
    facts.row("Memory", bytes(usage.memory));
    facts.row("Streams", comma(usage.streams));
    facts.row("Consumers", comma(usage.consumers));
    let tiers = usage.tiers.as_ref().filter(|tiers| !tiers.is_empty());
    match tiers {
        None => {
            let used = Tier {
                memory: usage.memory,
                storage: usage.storage,
                streams: usage.streams,
                consumers: usage.consumers,
                ..Tier::default()
            };
            limits(facts, "Account Limits", &used, &usage.limits);
        }
        Some(tiers) => {
            for (name, tier) in tiers {
                limits(facts, &format!("Account Limits of Tier {name}"), tier, &tier.limits);
            }
        }
    }
}

fn limits(facts: &mut Facts, heading: &str, used: &Tier, limits: &Limits) {
    let size = |limit: i64| if limit < 0 { "Unlimited".to_owned() } else { bytes(limit as u64) };
    let count = |limit: i64| if limit < 0 { "Unlimited".to_owned() } else { comma(limit) };
    let per_stream = |limit: i64| if limit <= 0 { "Unlimited".to_owned() } else { bytes(limit as u64) };
    facts.heading(heading);
    facts.row("Memory", format!("{} of {}", bytes(used.memory), size(limits.max_memory)));
    facts.row("Memory Per Stream", per_stream(limits.memory_max_stream_bytes));
    facts.row("Storage", format!("{} of {}", bytes(used.storage), size(limits.max_storage)));
    facts.row("Storage Per Stream", per_stream(limits.storage_max_stream_bytes));
    facts.row("Streams", format!("{} of {}", comma(used.streams), count(limits.max_streams)));
    facts.row("Consumers", format!("{} of {}", comma(used.consumers), count(limits.max_consumers)));
    facts.row("Stream Requires Max Bytes Set", limits.max_bytes_required.to_string());
    facts.row("Consumer Maximum Ack Pending", count(limits.max_ack_pending));
}
