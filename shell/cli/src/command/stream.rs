//! `stream`: the commands about streams.

mod change;
mod cluster;
pub mod config;
mod find;
mod list;
mod read;
pub mod show;

pub use self::list::replicas;

use serde_json::json;

use self::config::StreamFlags;
use super::backup;
use super::connect::{Global, Session};
use super::error::Failure;
use super::view::StreamInfo;

/// What can be done with streams.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the streams
    #[command(visible_aliases = ["list", "l"])]
    Ls(list::LsArgs),
    /// Report on all streams, and on their mirrors and sources
    Report(list::ReportArgs),
    /// Find streams by what they hold
    #[command(visible_alias = "query")]
    Find(find::FindArgs),
    /// Show a stream's configuration and state
    #[command(visible_aliases = ["nfo", "i"])]
    Info {
        stream: String,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
        /// Show only the state
        #[arg(long)]
        state: bool,
    },
    /// Show a stream's state
    State {
        stream: String,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Show which subjects a stream holds
    #[command(visible_alias = "subj")]
    Subjects(list::SubjectsArgs),
    /// Create a stream
    #[command(visible_aliases = ["create", "new"])]
    Add(change::AddArgs),
    /// Change a stream's configuration
    #[command(visible_alias = "update")]
    Edit(change::EditArgs),
    /// Create a stream with the configuration of another; no messages are copied
    #[command(visible_alias = "cp")]
    Copy {
        source: String,
        destination: String,
        #[command(flatten)]
        flags: Box<StreamFlags>,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Delete a stream with all its messages
    #[command(visible_aliases = ["delete", "del"])]
    Rm {
        stream: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Remove messages from a stream
    Purge(change::PurgeArgs),
    /// Remove one message and overwrite its bytes
    Rmm {
        stream: String,
        sequence: u64,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Seal a stream: nothing can be added, changed or removed any more
    Seal {
        stream: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Show one message
    Get(read::GetArgs),
    /// Page through a stream's messages
    View(read::ViewArgs),
    /// Back up a stream into a folder
    #[command(visible_alias = "snapshot")]
    Backup(backup::TakeArgs),
    /// Restore a stream from a backup
    Restore(backup::RestoreArgs),
    /// Change who leads a stream and which servers have it
    #[command(subcommand, visible_alias = "r")]
    Cluster(cluster::Command),
}

/// Runs a stream command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    if let Command::Add(args) = &command
        && args.is_offline()
    {
        return change::write_config(args);
    }
    let session = Session::open(global).await?;
    match command {
        Command::Ls(args) => list::ls(&session, &args).await,
        Command::Report(args) => list::report(&session, &args).await,
        Command::Find(args) => find::find(&session, &args).await,
        Command::Info { stream, json, state } => info(&session, &stream, json, state).await,
        Command::State { stream, json } => info(&session, &stream, json, true).await,
        Command::Subjects(args) => list::subjects(&session, &args).await,
        Command::Add(args) => change::add(&session, &args).await,
        Command::Edit(args) => change::edit(&session, &args).await,
        Command::Copy { source, destination, flags, json } => {
            change::copy(&session, [&source, &destination], &flags, json).await
        }
        Command::Rm { stream, force } => change::remove(&session, &stream, force).await,
        Command::Purge(args) => change::purge(&session, &args).await,
        Command::Rmm { stream, sequence, force } => change::erase(&session, &stream, sequence, force).await,
        Command::Seal { stream, force } => change::seal(&session, &stream, force).await,
        Command::Get(args) => read::get(&session, &args).await,
        Command::View(args) => read::view(&session, &args).await,
        Command::Backup(args) => backup::stream(&session, &args).await,
        Command::Cluster(command) => cluster::run(&session, command).await,
        Command::Restore(args) => backup::restore_stream(&session, &args).await,
    }
}

async fn info(session: &Session, stream: &str, json: bool, state: bool) -> Result<(), Failure> {
    let call = format!("STREAM.INFO.{}", name(stream)?);
    let answer = session.api(&call, &json!({}), &format!("get stream {stream}")).await?;
    if json {
        answer.print_json();
        return Ok(());
    }
    let info: StreamInfo = answer.read()?;
    if state {
        show::print_state(&info)
    } else {
        show::print(&info)
    }
    Ok(())
}

/// Lists the streams as `stream ls` does.
pub async fn ls(session: &Session) -> Result<(), Failure> {
    list::ls(session, &list::LsArgs::default()).await
}

/// Fetches a stream's information.
pub async fn fetch(session: &Session, stream: &str) -> Result<StreamInfo, Failure> {
    let doing = format!("get stream {stream}");
    session.api(&format!("STREAM.INFO.{}", name(stream)?), &json!({}), &doing).await?.read()
}

/// A stream's or a consumer's name, if it can stand in a subject as one token.
pub fn name(name: &str) -> Result<&str, Failure> {
    let bad = name.is_empty() || name.contains(|c: char| c.is_whitespace() || "./\\*>".contains(c));
    if bad { Err(Failure::Usage(format!("{name:?} is not a valid name"))) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_token() {
        for good in ["a", "shop_orders", "KV_x", "ä"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in ["", "a.b", "a b", "*", ">", "a/b", "a\\b", "a\tb"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
