//! `server request`: the servers' monitoring pages as they are.

use serde_json::{Map, Value, json};

use super::{ask_all_with, print_payloads};
use crate::command::connect::Session;
use crate::command::error::Failure;

/// Which page.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Accounts
    Accounts {
        /// This account in detail
        account: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Connections
    #[command(visible_aliases = ["conn", "connz"])]
    Connections {
        /// At most so many
        #[arg(long, default_value_t = 2048)]
        limit: u64,
        /// From this one on
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// With their subscriptions
        #[arg(long)]
        subscriptions: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Gateways
    Gateways(Which),
    /// JetStream
    #[command(visible_aliases = ["js", "jsz"])]
    Jetstream {
        /// Only this account
        #[arg(long)]
        account: Option<String>,
        /// With the streams
        #[arg(long)]
        streams: bool,
        /// With the consumers
        #[arg(long)]
        consumers: bool,
        /// With the configurations
        #[arg(long)]
        config: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Whether the servers are well
    #[command(visible_alias = "healthz")]
    JetstreamHealth(Which),
    /// Close a connection
    Kick {
        /// The connection's number
        client: u64,
        /// The id of the server that it is on
        host: String,
    },
    /// Leaf nodes
    Leafnodes(Which),
    /// Replicated groups
    #[command(visible_alias = "raftz")]
    Raft {
        /// An account; the system account without it
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
        /// One group
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Routes
    Routes(Which),
    /// Subscriptions
    #[command(visible_aliases = ["subs", "subsz"])]
    Subscriptions(Which),
    /// Settings and counters
    #[command(visible_aliases = ["vars", "varz"])]
    Variables(Which),
}

/// Which servers.
#[derive(Debug, Default, clap::Args)]
pub struct Which {
    /// How many servers to expect; without it the answers of a second are taken
    expect: Option<usize>,
    /// Only servers whose name contains this
    #[arg(long)]
    name: Option<String>,
    /// Only servers on this host
    #[arg(long)]
    host: Option<String>,
    /// Only servers of this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Only servers with this tag
    #[arg(long = "tags", value_name = "TAG")]
    tags: Vec<String>,
}

impl Which {
    fn put(&self, body: &mut Map<String, Value>) {
        let words = [("server_name", &self.name), ("host", &self.host), ("cluster", &self.cluster)];
        for (field, value) in words {
            if let Some(value) = value {
                body.insert(field.into(), value.as_str().into());
            }
        }
        if !self.tags.is_empty() {
            body.insert("tags".into(), self.tags.clone().into());
        }
    }
}

/// Asks and prints.
pub async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let (verb, body, which) = match command {
        Command::Kick { client, host } => {
            let subject = format!("$SYS.REQ.SERVER.{host}.KICK");
            print_payloads(&ask_all_with(session, &subject, &json!({ "cid": client }), Some(1)).await?);
            return Ok(());
        }
        Command::Accounts { account, which } => ("ACCOUNTZ", json!({ "account": account }), which),
        Command::Connections { limit, offset, subscriptions, which } => {
            let body =
                json!({ "limit": limit, "offset": offset, "subscriptions": subscriptions, "auth": true });
            ("CONNZ", body, which)
        }
        Command::Jetstream { account, streams, consumers, config, which } => {
            let accounts = account.is_some() || streams || consumers;
            let body = json!({ "account": account, "accounts": accounts, "streams": streams,
                "consumer": consumers, "consumers": consumers, "config": config });
            ("JSZ", body, which)
        }
        Command::Gateways(which) => ("GATEWAYZ", json!({}), which),
        Command::JetstreamHealth(which) => ("HEALTHZ", json!({}), which),
        Command::Leafnodes(which) => ("LEAFZ", json!({}), which),
        Command::Raft { account, group, which } => {
            ("RAFTZ", json!({ "account": account, "group": group }), which)
        }
        Command::Routes(which) => ("ROUTEZ", json!({}), which),
        Command::Subscriptions(which) => ("SUBSZ", json!({}), which),
        Command::Variables(which) => ("VARZ", json!({}), which),
    };
    let Value::Object(mut body) = body else {
        return Err(Failure::Usage(format!("{verb} takes no options")));
    };
    body.retain(|_, value| !value.is_null());
    which.put(&mut body);
    let subject = format!("$SYS.REQ.SERVER.PING.{verb}");
    print_payloads(&ask_all_with(session, &subject, &Value::Object(body), which.expect).await?);
    Ok(())
}
