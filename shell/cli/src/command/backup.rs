//! Backups of streams, in the folders of the `nats` tool: `backup.json` says what the stream was, `stream.arc.s2` holds it.

mod archive;
mod restore;
mod take;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output;

/// The file with the stream's configuration and numbers.
const META_FILE: &str = "backup.json";
/// The file with everything else.
const DATA_FILE: &str = "stream.arc.s2";
/// Its name in backups that older tools took.
const OLD_DATA_FILE: &str = "stream.tar.s2";

/// What can be done with backups.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Back up one stream
    Stream(TakeArgs),
    /// Back up all streams of the account
    Account(TakeAllArgs),
    /// Restore what was backed up
    #[command(subcommand)]
    Restore(RestoreCommand),
    /// Look at a backup: what it holds, and whether it is whole
    #[command(visible_alias = "validate")]
    Info {
        /// The backup's folder
        folder: PathBuf,
        /// Print it as JSON
        #[arg(short, long)]
        json: bool,
    },
}

/// What can be restored.
#[derive(Debug, clap::Subcommand)]
pub enum RestoreCommand {
    /// Restore one stream
    Stream(RestoreArgs),
    /// Restore all streams of an account's backup
    Account(RestoreAllArgs),
}

/// A stream to back up.
#[derive(Debug, clap::Args)]
pub struct TakeArgs {
    stream: String,
    /// The folder to write
    target: PathBuf,
    #[command(flatten)]
    how: How,
}

/// How to take a backup.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct How {
    /// Show the progress [--no-progress to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    progress: Option<bool>,
    /// Ask the server to check the stream first
    #[arg(long)]
    check: bool,
    /// Take the consumers, too [--no-consumers to leave them out]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    consumers: Option<bool>,
    /// How much the server sends at once
    #[arg(long, value_parser = super::units::parse_size)]
    chunk_size: Option<i64>,
    /// How much may be on its way
    #[arg(long, value_parser = super::units::parse_size)]
    window_size: Option<i64>,
}

/// All streams, to back up.
#[derive(Debug, clap::Args)]
pub struct TakeAllArgs {
    /// The folder to write, a folder in it for each stream
    target: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    how: How,
}

/// A stream to restore.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup's folder
    folder: PathBuf,
    /// Show the progress [--no-progress to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    progress: Option<bool>,
    /// A file with another configuration for the stream
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many replicas the stream gets
    #[arg(long, value_name = "COUNT")]
    replicas: Option<i64>,
    #[command(flatten)]
    place: Place,
}

/// An account's streams, to restore.
#[derive(Debug, clap::Args)]
pub struct RestoreAllArgs {
    /// The folder with a folder for each stream
    folder: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Where restored streams are placed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// The cluster that gets the stream
    #[arg(long)]
    cluster: Option<String>,
    /// A tag that the servers must have
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

/// Runs a backup command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Stream(args) => stream(&Session::open(global).await?, &args).await,
        Command::Account(args) => account(&Session::open(global).await?, &args).await,
        Command::Restore(RestoreCommand::Stream(args)) => {
            restore_stream(&Session::open(global).await?, &args).await
        }
        Command::Restore(RestoreCommand::Account(args)) => {
            restore_account(&Session::open(global).await?, &args).await
        }
        Command::Info { folder, json } => archive::show(&folder, json),
    }
}

/// Backs up one stream.
pub async fn stream(session: &Session, args: &TakeArgs) -> Result<(), Failure> {
    take::stream(session, &args.stream, &args.target, &args.how).await
}

/// Backs up all streams.
pub async fn account(session: &Session, args: &TakeAllArgs) -> Result<(), Failure> {
    take::account(session, args).await
}

/// Restores one stream.
pub async fn restore_stream(session: &Session, args: &RestoreArgs) -> Result<(), Failure> {
    restore::stream(session, args).await
}

/// Restores an account's streams.
pub async fn restore_account(session: &Session, args: &RestoreAllArgs) -> Result<(), Failure> {
    restore::account(session, args).await
}

/// A bar over so many bytes, on standard error.
fn progress_bar(wanted: Option<bool>, length: u64) -> ProgressBar {
    if wanted == Some(false) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template = "{bar:40} {bytes} of {total_bytes} {bytes_per_sec} {eta}";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Reads a backup's description.
fn read_meta(folder: &Path) -> Result<Value, Failure> {
    let path = folder.join(META_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, error))?;
    serde_json::from_str(&text).map_err(|error| Failure::file("understand", &path, error))
}

/// The file with a backup's data.
fn data_file(folder: &Path) -> PathBuf {
    let path = folder.join(DATA_FILE);
    if path.exists() || !folder.join(OLD_DATA_FILE).exists() { path } else { folder.join(OLD_DATA_FILE) }
}

fn write_meta(folder: &Path, meta: &Value) -> Result<(), Failure> {
    let path = folder.join(META_FILE);
    std::fs::write(&path, output::indent_json(&meta.to_string()))
        .map_err(|error| Failure::file("write", &path, error))
}
