//! `consumer`: the commands about consumers.

mod change;
mod config;
mod list;
pub mod pull;
mod receive;
mod show;

use serde_json::json;

use super::connect::{Global, Session};
use super::error::Failure;
use super::stream::name;
use super::view::ConsumerInfo;

/// What can be done with consumers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List a stream's consumers
    #[command(visible_alias = "list")]
    Ls {
        stream: String,
        /// Print only the names
        #[arg(short, long)]
        names: bool,
        /// Print the consumers as the API gives them
        #[arg(short, long)]
        json: bool,
    },
    /// Report on a stream's consumers
    Report {
        stream: String,
        /// Plain numbers
        #[arg(short, long)]
        raw: bool,
        /// Print the consumers as the API gives them
        #[arg(short, long)]
        json: bool,
    },
    /// Show a consumer's configuration and state
    #[command(visible_alias = "nfo")]
    Info {
        stream: String,
        consumer: String,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Show a consumer's state
    State {
        stream: String,
        consumer: String,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Create a consumer
    #[command(visible_aliases = ["create", "new"])]
    Add(change::AddArgs),
    /// Change a consumer's configuration
    #[command(visible_alias = "update")]
    Edit(change::EditArgs),
    /// Delete a consumer
    #[command(visible_aliases = ["delete", "del"])]
    Rm {
        stream: String,
        consumer: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Pause a consumer until a time
    Pause {
        stream: String,
        consumer: String,
        /// A time (2026-01-31 10:00:00, or RFC 3339) or a duration from now (1h)
        until: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Resume a paused consumer
    Resume {
        stream: String,
        consumer: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
    /// Start a consumer again, after what it has acknowledged or at a sequence
    Reset {
        stream: String,
        consumer: String,
        /// The sequence that comes first
        #[arg(long)]
        sequence: Option<u64>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Fetch messages from a pull consumer
    Next(receive::NextArgs),
    /// Receive a consumer's messages until stopped
    #[command(visible_alias = "subscribe")]
    Sub(receive::SubArgs),
}

/// Runs a consumer command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    if let Command::Add(args) = &command
        && args.is_offline()
    {
        return change::write_config(args);
    }
    let session = &Session::open(global).await?;
    match command {
        Command::Ls { stream, names, json } => list::ls(session, &stream, names, json).await,
        Command::Report { stream, raw, json } => list::report(session, &stream, raw, json).await,
        Command::Info { stream, consumer, json } => info(session, [&stream, &consumer], json, false).await,
        Command::State { stream, consumer, json } => info(session, [&stream, &consumer], json, true).await,
        Command::Add(args) => change::add(session, &args).await,
        Command::Edit(args) => change::edit(session, &args).await,
        Command::Rm { stream, consumer, force } => change::remove(session, &stream, &consumer, force).await,
        Command::Pause { stream, consumer, until, force, json } => {
            change::pause(session, [&stream, &consumer], &until, force, json).await
        }
        Command::Resume { stream, consumer, force, json } => {
            change::resume(session, [&stream, &consumer], force, json).await
        }
        Command::Reset { stream, consumer, sequence, force } => {
            change::reset(session, [&stream, &consumer], sequence, force).await
        }
        Command::Next(args) => receive::next(session, &args).await,
        Command::Sub(args) => receive::subscribe(session, &args).await,
    }
}

async fn info(session: &Session, names: [&str; 2], json: bool, state: bool) -> Result<(), Failure> {
    let [stream, consumer] = names;
    let call = format!("CONSUMER.INFO.{}.{}", name(stream)?, name(consumer)?);
    let answer = session.api(&call, &json!({}), &format!("get consumer {stream} > {consumer}")).await?;
    if json {
        answer.print_json();
        return Ok(());
    }
    let info: ConsumerInfo = answer.read()?;
    if state {
        show::print_state(&info)
    } else {
        show::print(&info)
    }
    Ok(())
}

/// Reports on a stream's consumers as `consumer report` does.
pub async fn report(session: &Session, stream: &str) -> Result<(), Failure> {
    list::report(session, stream, false, false).await
}

/// Fetches a consumer's information.
pub async fn fetch(session: &Session, stream: &str, consumer: &str) -> Result<ConsumerInfo, Failure> {
    let call = format!("CONSUMER.INFO.{}.{}", name(stream)?, name(consumer)?);
    session.api(&call, &json!({}), &format!("get consumer {stream} > {consumer}")).await?.read()
}
