//! `stream cluster`: who leads a stream, and which servers have it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::name;
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::view::StreamInfo;

/// What can be done with a stream's servers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Have another server lead a stream
    #[command(visible_aliases = ["stepdown", "down"])]
    StepDown {
        stream: String,
        /// The server that should lead
        #[arg(long, value_name = "NAME")]
        preferred: Option<String>,
    },
    /// Have another server take the place of one of a stream's servers
    #[command(visible_alias = "rm")]
    PeerRemove {
        stream: String,
        /// Its name, or its id as reports show it
        peer: String,
    },
    /// Move a stream off one of its servers
    Evacuate {
        stream: String,
        /// Its name, or its id as reports show it
        peer: String,
    },
    /// Spread the leaders of streams over their servers
    Balance,
}

/// Runs a cluster command.
pub async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::StepDown { stream, preferred } => {
            step_down(session, &stream, preferred.as_deref()).await?;
            say!("Another server leads {stream}.");
        }
        Command::PeerRemove { stream, peer } => {
            let call = format!("STREAM.PEER.REMOVE.{}", name(&stream)?);
            session.api(&call, &json!({ "peer": peer }), &format!("move {stream} off {peer}")).await?;
            say!("{stream} moves off {peer}.");
        }
        Command::Evacuate { stream, peer } => {
            let call = format!("STREAM.PEER.EVACUATE.{}", name(&stream)?);
            session.api(&call, &json!({ "peer": peer }), &format!("move {stream} off {peer}")).await?;
            say!("{stream} moves off {peer}.");
        }
        Command::Balance => balance(session).await?,
    }
    Ok(())
}

async fn step_down(session: &Session, stream: &str, preferred: Option<&str>) -> Result<(), Failure> {
    let call = format!("STREAM.LEADER.STEPDOWN.{}", name(stream)?);
    let body = preferred.map_or_else(|| json!({}), |name| json!({ "placement": { "preferred": name } }));
    session.api(&call, &body, &format!("have another server lead {stream}")).await.map(drop)
}

async fn balance(session: &Session) -> Result<(), Failure> {
    let listing = session.api_list("STREAM.LIST", Value::Object(serde_json::Map::new()), "streams").await?;
    let streams: Vec<StreamInfo> = listing.read()?;
    let placed = streams.iter().filter_map(|info| {
        let cluster = info.cluster.as_ref().filter(|cluster| !cluster.replicas.is_empty())?;
        let others = cluster.replicas.iter().map(|peer| peer.name.clone()).collect();
        Some((info.config.name.clone(), cluster.leader.clone(), others))
    });
    let moves = moves(placed.collect());
    for (stream, to) in &moves {
        step_down(session, stream, Some(to)).await?;
        say!("{to} leads {stream}.");
    }
    say!("{} streams have another leader.", moves.len());
    Ok(())
}

/// Which streams go to which server, so that none leads two more than another one that could.
fn moves(streams: Vec<(String, String, Vec<String>)>) -> Vec<(String, String)> {
    let mut led: BTreeMap<String, usize> = BTreeMap::new();
    for (_, leader, _) in &streams {
        *led.entry(leader.clone()).or_default() += 1;
    }
    let mut moves = Vec::new();
    for (stream, leader, others) in streams {
        let count = |name: &String| led.get(name).copied().unwrap_or_default();
        let Some(least) = others.iter().min_by_key(|name| count(name)).cloned() else { continue };
        if count(&leader) > count(&least) + 1 {
            *led.entry(leader).or_default() -= 1;
            *led.entry(least.clone()).or_default() += 1;
            moves.push((stream, least));
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::moves;

    #[test]
    fn leaders_are_spread() {
        let stream = |name: &str, leader: &str, others: [&str; 2]| {
            (name.to_owned(), leader.to_owned(), others.map(str::to_owned).to_vec())
        };
        let all = ["A", "B", "C"].map(|name| stream(name, "n1", ["n2", "n3"])).to_vec();
        let moved: Vec<String> = moves(all).into_iter().map(|(name, to)| format!("{name}:{to}")).collect();
        assert_eq!(moved, ["A:n2", "B:n3"]);
        let even = vec![stream("A", "n1", ["n2", "n3"]), stream("B", "n2", ["n1", "n3"])];
        assert!(moves(even).is_empty());
    }
}
