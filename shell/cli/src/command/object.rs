//! `object`: object store buckets.

mod bucket;
mod transfer;

use std::path::PathBuf;

use async_nats::jetstream::object_store::{ObjectInfo, ObjectStore};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, Facts, Table, say};
use super::units::{self, bytes, comma};

/// What can be done with buckets and objects.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a bucket
    #[command(visible_alias = "new")]
    Add(bucket::AddArgs),
    /// Put a file into a bucket
    Put(transfer::PutArgs),
    /// Get a file out of a bucket
    Get {
        bucket: String,
        object: String,
        /// Where to write it, instead of a file with the object's name; - is standard output
        #[arg(short = 'O', long)]
        output: Option<PathBuf>,
        /// Show the progress [--no-progress to refrain]
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        progress: Option<bool>,
        /// Overwrite a file without asking
        #[arg(short, long)]
        force: bool,
    },
    /// List the buckets, or the objects in one
    #[command(visible_alias = "list")]
    Ls {
        bucket: Option<String>,
        /// Print only the names
        #[arg(short, long)]
        names: bool,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Delete an object, or a whole bucket
    #[command(visible_alias = "rm")]
    Del {
        bucket: String,
        object: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Show a bucket, or an object in it
    #[command(visible_alias = "show")]
    Info {
        bucket: String,
        object: Option<String>,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Show changes as they happen
    Watch {
        bucket: String,
        /// Stop after this many changes
        #[arg(long)]
        count: Option<u64>,
    },
    /// Seal a bucket: nothing can be changed any more
    Seal {
        bucket: String,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Runs a command about buckets.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let session = &Session::open(global).await?;
    match command {
        Command::Add(args) => bucket::add(session, &args).await,
        Command::Put(args) => transfer::put(session, &args).await,
        Command::Get { bucket, object, output, progress, force } => {
            let progress = progress != Some(false);
            transfer::Download { bucket, object, output, progress, force }.run(session).await
        }
        Command::Ls { bucket: None, names, json } => bucket::ls(session, names, json).await,
        Command::Ls { bucket: Some(bucket), names, json } => list(session, &bucket, names, json).await,
        Command::Del { bucket, object: None, force } => bucket::remove(session, &bucket, force).await,
        Command::Del { bucket, object: Some(object), force } => {
            output::confirm(&format!("deleting {bucket} > {object}"), force)?;
            let store = open(session, &bucket).await?;
            let doing = format!("delete {bucket} > {object}");
            find(&store, &object, &doing).await?;
            store.delete(&object).await.map_err(|error| Failure::request(&doing, error))?;
            say!("Removed {bucket} > {object}");
            Ok(())
        }
        Command::Info { bucket, object: None, json } => bucket::info(session, &bucket, json).await,
        Command::Info { bucket, object: Some(object), json } => {
            let store = open(session, &bucket).await?;
            let info = find(&store, &object, &format!("find {bucket} > {object}")).await?;
            if json { output::print_json(&info) } else { print(&info) }
        }
        Command::Watch { bucket, count } => watch(session, &bucket, count).await,
        Command::Seal { bucket, force } => bucket::seal(session, &bucket, force).await,
    }
}

async fn open(session: &Session, bucket: &str) -> Result<ObjectStore, Failure> {
    bucket::fetch(session, bucket).await?;
    let store = session.jetstream.get_object_store(bucket).await;
    store.map_err(|error| Failure::request(format!("open bucket {bucket}"), error))
}

/// An object that is there.
async fn find(store: &ObjectStore, object: &str, doing: &str) -> Result<ObjectInfo, Failure> {
    use async_nats::jetstream::object_store::InfoErrorKind;
    match store.info(object).await {
        Ok(info) if info.deleted => Err(Failure::request(doing, "object not found")),
        Ok(info) => Ok(info),
        Err(error) if error.kind() == InfoErrorKind::NotFound => {
            Err(Failure::request(doing, "object not found"))
        }
        Err(error) => Err(Failure::request(doing, error)),
    }
}

fn modified(info: &ObjectInfo) -> String {
    let at = info.modified.and_then(|at| Timestamp::from_nanosecond(at.unix_timestamp_nanos()).ok());
    at.map(units::local).unwrap_or_default()
}

/// `SHA-256=<base64>` as the kind and the number in hexadecimal.
fn digest(text: &str) -> String {
    let Some((kind, encoded)) = text.split_once('=') else { return text.to_owned() };
    let bytes = URL_SAFE.decode(encoded).or_else(|_| URL_SAFE_NO_PAD.decode(encoded));
    match bytes {
        Ok(bytes) => format!("{kind} {}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Err(_) => text.to_owned(),
    }
}

fn print(info: &ObjectInfo) -> Result<(), Failure> {
    let mut facts = Facts::titled(format!("Object information for {} > {}", info.bucket, info.name));
    facts.row_some("Description", info.description.as_deref().unwrap_or_default());
    facts.row("Size", bytes(info.size as u64));
    facts.row("Modification Time", modified(info));
    facts.row("Chunks", comma(info.chunks as u64));
    facts.row_some("Digest", &digest(info.digest.as_deref().unwrap_or_default()));
    let headers = info.headers.as_ref().map(super::subscribe::header_lines).unwrap_or_default();
    headers.iter().for_each(|header| facts.row("Header", header));
    facts.print();
    Ok(())
}

async fn list(session: &Session, bucket: &str, names: bool, json: bool) -> Result<(), Failure> {
    let doing = format!("list bucket {bucket}");
    let store = open(session, bucket).await?;
    let mut listed = store.list().await.map_err(|error| Failure::request(&doing, error))?;
    let mut objects = Vec::new();
    while let Some(object) = listed.next().await {
        let object = object.map_err(|error| Failure::request(&doing, error))?;
        if !object.deleted {
            objects.push(object);
        }
    }
    if json {
        return output::print_json(&objects);
    }
    if names {
        objects.iter().for_each(|info| output::line(&info.name));
    } else if objects.is_empty() {
        say!("No entries found");
    } else {
        let mut table = Table::new("Bucket Contents", ["Name", "Size", "Time"]);
        for info in &objects {
            table.row([info.name.clone(), bytes(info.size as u64), modified(info)]);
        }
        table.print();
    }
    Ok(())
}

async fn watch(session: &Session, bucket: &str, count: Option<u64>) -> Result<(), Failure> {
    let doing = format!("watch bucket {bucket}");
    let store = open(session, bucket).await?;
    let mut changes = store.watch_with_history().await.map_err(|error| Failure::request(&doing, error))?;
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(change) = change else { break };
        let info = change.map_err(|error| Failure::request(&doing, error))?;
        let (at, name) = (modified(&info), &info.name);
        match info.deleted {
            true => say!("[{at}] DEL {bucket} > {name}"),
            false => {
                let (size, chunks) = (bytes(info.size as u64), comma(info.chunks as u64));
                say!("[{at}] PUT {bucket} > {name}: {size} in {chunks} chunks");
            }
        }
        left -= 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_hexadecimal() {
        let cases = [
            ("SHA-256=AQL_", "SHA-256 0102ff"),
            ("SHA-256=AQI=", "SHA-256 0102"),
            ("SHA-256=AQI", "SHA-256 0102"),
            ("SHA-256=%%", "SHA-256=%%"),
            ("none", "none"),
        ];
        for (text, want) in cases {
            assert_eq!(digest(text), want, "{text}");
        }
    }
}
