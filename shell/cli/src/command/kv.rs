//! `kv`: key-value buckets.

mod bucket;
mod edit;
mod entries;

use std::time::Duration;

use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use jiff::Timestamp;

use self::entries::{Entry, From};
use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, Table, say};
use super::units::{self, comma, parse_duration};

/// What can be done with buckets and keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a bucket
    #[command(visible_alias = "new")]
    Add(bucket::AddArgs),
    /// Change a bucket's configuration
    Edit(edit::EditArgs),
    /// List the buckets, or the keys of one
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Put a value
    Put {
        bucket: String,
        key: String,
        /// The value; without one it is read from standard input
        value: Option<String>,
    },
    /// Get a value
    Get {
        bucket: String,
        key: String,
        /// An old revision
        #[arg(long)]
        revision: Option<u64>,
        /// Print only the value
        #[arg(long)]
        raw: bool,
    },
    /// Put a value where there is none
    Create {
        bucket: String,
        key: String,
        /// The value; without one it is read from standard input
        value: Option<String>,
        /// How long the value lives
        #[arg(long, value_parser = parse_duration)]
        ttl: Option<Duration>,
    },
    /// Put a value if the last revision is the one given
    Update {
        bucket: String,
        key: String,
        value: String,
        /// The revision that is to be replaced
        #[arg(default_value_t = 0)]
        revision: u64,
    },
    /// Delete a key, or a whole bucket
    #[command(visible_alias = "rm")]
    Del {
        bucket: String,
        key: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Delete a key with its history
    Purge {
        bucket: String,
        key: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Show the values that a key had
    History {
        bucket: String,
        key: String,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Show changes as they happen
    Watch(WatchArgs),
    /// Show a bucket's configuration and state
    #[command(visible_aliases = ["view", "status"])]
    Info {
        bucket: String,
        /// Print the API's response
        #[arg(short, long)]
        json: bool,
    },
}

/// What to list.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    bucket: Option<String>,
    /// Only keys that match; it may have wildcards
    key: Option<String>,
    /// Print only the names of buckets
    #[arg(short, long)]
    names: bool,
    /// Show when keys were put
    #[arg(short, long)]
    verbose: bool,
    /// Show values as well
    #[arg(long, requires = "verbose")]
    display_value: bool,
    /// Print JSON
    #[arg(short, long)]
    json: bool,
}

/// What to watch.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    bucket: String,
    /// Only keys that match; it may have wildcards
    #[arg(default_value = ">")]
    key: String,
    /// Begin with the values that keys had
    #[arg(long, group = "from")]
    history: bool,
    /// Only what changes from now on
    #[arg(long, group = "from")]
    updates: bool,
    /// Begin with this revision
    #[arg(long, group = "from")]
    revision: Option<u64>,
    /// Show deletions [--no-deletes to leave them out]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deletes: Option<bool>,
    /// Stop after this many changes
    #[arg(long)]
    count: Option<u64>,
}

/// Runs a command about buckets.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let session = &Session::open(global).await?;
    match command {
        Command::Add(args) => bucket::add(session, &args).await,
        Command::Edit(args) => edit::run(session, &args).await,
        Command::Ls(LsArgs { bucket: Some(bucket), key, names, verbose, display_value, json }) => {
            let shown = KeysShown { names, verbose, values: display_value, json };
            keys(session, &bucket, key.as_deref().unwrap_or(">"), &shown).await
        }
        Command::Ls(args) => bucket::ls(session, args.names, args.json).await,
        Command::Put { bucket, key, value } => {
            let value = value_or_stdin(value)?;
            let put = open(session, &bucket).await?.put(&key, value.clone()).await;
            put.map_err(|error| Failure::request(format!("put {bucket} > {key}"), error))?;
            echo(&value);
            Ok(())
        }
        Command::Get { bucket, key, revision, raw } => get(session, [&bucket, &key], revision, raw).await,
        Command::Create { bucket, key, value, ttl } => create(session, [&bucket, &key], value, ttl).await,
        Command::Update { bucket, key, value, revision } => {
            let value = Bytes::from(value);
            let updated = open(session, &bucket).await?.update(&key, value.clone(), revision).await;
            updated.map_err(|error| Failure::request(format!("update {bucket} > {key}"), error))?;
            echo(&value);
            Ok(())
        }
        Command::Del { bucket, key: None, force } => bucket::remove(session, &bucket, force).await,
        Command::Del { bucket, key: Some(key), force } => {
            output::confirm(&format!("deleting {bucket} > {key}"), force)?;
            let deleted = open(session, &bucket).await?.delete(&key).await;
            deleted.map_err(|error| Failure::request(format!("delete {bucket} > {key}"), error))
        }
        Command::Purge { bucket, key, force } => {
            output::confirm(&format!("purging {bucket} > {key}"), force)?;
            let purged = open(session, &bucket).await?.purge(&key).await;
            purged.map_err(|error| Failure::request(format!("purge {bucket} > {key}"), error))
        }
        Command::History { bucket, key, json } => history(session, &bucket, &key, json).await,
        Command::Watch(args) => watch(session, &args).await,
        Command::Info { bucket, json } => bucket::info(session, &bucket, json).await,
    }
}

async fn open(session: &Session, bucket: &str) -> Result<Store, Failure> {
    // Asked first, as the library's own error does not say that there is no such bucket.
    bucket::fetch(session, bucket).await?;
    let store = session.jetstream.get_key_value(bucket).await;
    store.map_err(|error| Failure::request(format!("open bucket {bucket}"), error))
}

fn value_or_stdin(value: Option<String>) -> Result<Bytes, Failure> {
    match value {
        Some(value) => Ok(value.into()),
        None => super::publish::stdin().map(Bytes::from),
    }
}

fn echo(value: &[u8]) {
    output::raw(value);
    say!();
}

async fn create(
    session: &Session,
    names: [&str; 2],
    value: Option<String>,
    ttl: Option<Duration>,
) -> Result<(), Failure> {
    let [bucket, key] = names;
    let value = value_or_stdin(value)?;
    let store = open(session, bucket).await?;
    let created = match ttl {
        Some(ttl) => store.create_with_ttl(key, value.clone(), ttl).await,
        None => store.create(key, value.clone()).await,
    };
    created.map_err(|error| Failure::request(format!("create {bucket} > {key}"), error))?;
    echo(&value);
    Ok(())
}

async fn get(session: &Session, names: [&str; 2], revision: Option<u64>, raw: bool) -> Result<(), Failure> {
    use async_nats::jetstream::kv::Operation;
    let [bucket, key] = names;
    let doing = format!("get {bucket} > {key}");
    let store = open(session, bucket).await?;
    let entry = match revision {
        Some(revision) => store.entry_for_revision(key, revision).await,
        None => store.entry(key).await,
    };
    let entry = entry.map_err(|error| Failure::request(&doing, error))?;
    let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
        return Err(Failure::request(&doing, "key not found"));
    };
    if raw {
        output::raw(&entry.value);
        output::flush();
        return Ok(());
    }
    let created = Timestamp::from_nanosecond(entry.created.unix_timestamp_nanos()).map(units::local);
    say!("{bucket} > {key} revision: {} created @ {}\n", entry.revision, created.unwrap_or_default());
    echo(&entry.value);
    say!();
    Ok(())
}

struct KeysShown {
    names: bool,
    verbose: bool,
    values: bool,
    json: bool,
}

async fn keys(session: &Session, bucket: &str, filter: &str, shown: &KeysShown) -> Result<(), Failure> {
    let mut entries = entries::stored(session, bucket, filter, From::Last).await?;
    entries.retain(|entry| entry.operation == "PUT");
    if shown.json {
        return output::print_json(&entries);
    }
    if !shown.verbose || shown.names {
        entries.iter().for_each(|entry| output::line(&entry.key));
        return Ok(());
    }
    let title = format!("Contents for bucket '{bucket}'");
    let row = |entry: &Entry| [entry.key.clone(), entry.created(), comma(entry.delta), comma(entry.revision)];
    if shown.values {
        let columns = ["Key", "Created", "Delta", "Revision", "Value"];
        let mut table = Table::new(title, columns).right(2).right(3);
        for entry in &entries {
            let [key, created, delta, revision] = row(entry);
            table.row([key, created, delta, revision, entry.excerpt()]);
        }
        table.print();
    } else {
        let mut table = Table::new(title, ["Key", "Created", "Delta", "Revision"]).right(2).right(3);
        entries.iter().for_each(|entry| table.row(row(entry)));
        table.print();
    }
    Ok(())
}

async fn history(session: &Session, bucket: &str, key: &str, json: bool) -> Result<(), Failure> {
    let entries = entries::stored(session, bucket, key, From::First).await?;
    if entries.is_empty() {
        return Err(Failure::request(format!("get the history of {bucket} > {key}"), "key not found"));
    }
    if json {
        return output::print_json(&entries);
    }
    let columns = ["Key", "Revision", "Op", "Created", "Length", "Value"];
    let mut table = Table::new(format!("History for {bucket} > {key}"), columns).right(1);
    for entry in &entries {
        table.row([
            entry.key.clone(),
            comma(entry.revision),
            entry.operation.to_owned(),
            entry.created(),
            comma(entry.value.len() as u64),
            entry.excerpt(),
        ]);
    }
    table.print();
    Ok(())
}

async fn watch(session: &Session, args: &WatchArgs) -> Result<(), Failure> {
    let from = match (args.history, args.updates, args.revision) {
        (true, _, _) => From::First,
        (_, true, _) => From::Now,
        (_, _, Some(revision)) => From::Revision(revision),
        _ => From::Last,
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    let show = |entry: Entry| {
        if entry.operation != "PUT" && args.deletes == Some(false) {
            return true;
        }
        let at = format!("[{}] {} {} > {}", entry.created(), entry.operation, args.bucket, entry.key);
        match entry.operation {
            "PUT" => say!("{at}: {}", String::from_utf8_lossy(&entry.value)),
            _ => say!("{at}"),
        }
        left -= 1;
        left > 0
    };
    tokio::select! {
        done = entries::each(session, &args.bucket, &args.key, from, show) => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
