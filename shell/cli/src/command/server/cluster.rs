//! `server cluster`: who leads the cluster, and who belongs to it.

use serde_json::json;

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{confirm, say};

/// What can be done with the cluster as a whole.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Have another server decide about streams (needs a system account)
    #[command(visible_aliases = ["stepdown", "down"])]
    StepDown {
        /// The server that should lead
        #[arg(long, value_name = "NAME")]
        preferred: Option<String>,
    },
    /// Move what a server has to other servers; it stays in the cluster (needs a system account)
    Evacuate {
        /// Its name
        #[arg(value_name = "SERVER")]
        member: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Take a server that does not come back out of the cluster (needs a system account)
    #[command(visible_alias = "rm")]
    PeerRemove {
        /// Its name, or its id as reports show it
        #[arg(value_name = "SERVER")]
        member: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Runs a cluster command.
pub async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::StepDown { preferred } => {
            let body =
                preferred.map_or_else(|| json!({}), |name| json!({ "placement": { "preferred": name } }));
            session.api("META.LEADER.STEPDOWN", &body, "have another server lead").await?;
            say!("Another server leads the cluster.");
        }
        Command::Evacuate { member: server, force } => {
            confirm(&format!("move everything off server {server}"), force)?;
            let doing = format!("move everything off server {server}");
            session.api("SERVER.EVACUATE", &json!({ "peer": server }), &doing).await?;
            say!("What server {server} has moves to other servers.");
        }
        Command::PeerRemove { member: server, force } => {
            confirm(&format!("take server {server} out of the cluster for good"), force)?;
            let doing = format!("take server {server} out of the cluster");
            session.api("SERVER.REMOVE", &json!({ "peer": server }), &doing).await?;
            say!("Server {server} does not belong to the cluster any more.");
        }
    }
    Ok(())
}
