//! Restoring backups: a piece, an answer, the next piece; at last the stream.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::Request;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{Place, RestoreAllArgs, RestoreArgs, data_file, progress_bar, read_meta};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::stream::{fetch, name, show};
use crate::command::units::{comma, duration};

/// The most that is sent at once.
const PIECE: usize = 512 * 1024;
/// How long the server may take for the end: it makes all of it durable.
const END_PATIENCE: Duration = Duration::from_secs(3600);

/// A backup and what to make of it.
struct Backup {
    stream: String,
    data: PathBuf,
    body: Value,
}

impl Backup {
    fn open(folder: &Path, config: Option<&Path>, place: &Place) -> Result<Backup, Failure> {
        let mut body = read_meta(folder)?;
        if let Some(path) = config {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))?;
            let other: Value =
                serde_json::from_str(&text).map_err(|error| Failure::file("understand", path, error))?;
            // A file as `stream info --json` prints it, or the configuration alone.
            body["config"] = if other["config"].is_object() { other["config"].clone() } else { other };
        }
        if place.cluster.is_some() || !place.tags.is_empty() {
            body["config"]["placement"] = json!({ "cluster": place.cluster, "tags": place.tags });
        }
        let stream = body["config"]["name"].as_str().unwrap_or_default().to_owned();
        name(&stream)?;
        Ok(Backup { stream, data: data_file(folder), body })
    }

    async fn restore(&self, session: &Session, progress: Option<bool>) -> Result<(), Failure> {
        let doing = format!("restore stream {}", self.stream);
        let failed = |error: std::io::Error| Failure::file("read", &self.data, error);
        let begin = Instant::now();
        let mut file = tokio::fs::File::open(&self.data).await.map_err(failed)?;
        let length = file.metadata().await.map_err(failed)?.len();
        say!("Starting restore of Stream {:?} from file {:?}", self.stream, self.data);
        say!();
        let call = format!("STREAM.RESTORE.{}", self.stream);
        let answer: Value = session.api(&call, &self.body, &doing).await?.read()?;
        let to = answer["deliver_subject"].as_str().unwrap_or_default().to_owned();
        let bar = progress_bar(progress, length);
        let most = PIECE.min(session.client.server_info().max_payload.max(1024));
        let (mut piece, mut count) = (vec![0; most], 0_u64);
        loop {
            let size = file.read(&mut piece).await.map_err(failed)?;
            if size == 0 {
                break;
            }
            let patience = session.timeout.max(Duration::from_secs(30));
            send(session, (&to, patience), &piece[..size], &doing).await?;
            count += 1;
            bar.inc(size as u64);
        }
        bar.finish_and_clear();
        send(session, (&to, END_PATIENCE), b"", &doing).await?;
        let took = duration(begin.elapsed());
        say!("Restored stream {:?} from {} chunks in {took}", self.stream, comma(count));
        say!();
        Ok(())
    }
}

/// Sends one piece and waits for its answer, which says nothing unless something is wrong or all is done.
async fn send(
    session: &Session,
    (to, patience): (&str, Duration),
    piece: &[u8],
    doing: &str,
) -> Result<(), Failure> {
    let request = Request::new().payload(Bytes::copy_from_slice(piece)).timeout(Some(patience));
    let answer = session.client.send_request(to.to_owned(), request).await;
    let answer = answer.map_err(|error| Failure::request(doing, error))?;
    if answer.payload.is_empty() {
        return Ok(());
    }
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| Failure::request(doing, error))?;
    let number = |field: &str| answer["error"][field].as_u64().unwrap_or(0);
    match answer["error"]["description"].as_str() {
        None => Ok(()),
        Some(description) => Err(Failure::Api {
            doing: doing.to_owned(),
            description: description.to_owned(),
            code: number("code"),
            err_code: number("err_code"),
        }),
    }
}

/// Restores one stream.
pub async fn stream(session: &Session, args: &RestoreArgs) -> Result<(), Failure> {
    let mut backup = Backup::open(&args.folder, args.config.as_deref(), &args.place)?;
    if let Some(replicas) = args.replicas {
        backup.body["config"]["num_replicas"] = replicas.into();
    }
    backup.restore(session, args.progress).await?;
    show::print(&fetch(session, &backup.stream).await?);
    Ok(())
}

/// Restores all streams of an account's backup: none, if one of them is there already.
pub async fn account(session: &Session, args: &RestoreAllArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file("read", &args.folder, error);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&args.folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(failed)?;
    folders.retain(|folder| folder.join(super::META_FILE).exists());
    folders.sort();
    let backups: Result<Vec<Backup>, Failure> =
        folders.iter().map(|folder| Backup::open(folder, None, &args.place)).collect();
    let backups = backups?;
    if backups.is_empty() {
        return Err(Failure::Usage(format!("there are no backups in {}", args.folder.display())));
    }
    let there: Vec<String> = names(session).await?;
    if let Some(taken) = backups.iter().find(|backup| there.contains(&backup.stream)) {
        return Err(Failure::Usage(format!("stream {} exists already, nothing was restored", taken.stream)));
    }
    for backup in &backups {
        backup.restore(session, Some(false)).await?;
    }
    say!("Restored {} streams from {}", backups.len(), args.folder.display());
    Ok(())
}

async fn names(session: &Session) -> Result<Vec<String>, Failure> {
    session.api_list("STREAM.NAMES", json!({}), "streams").await?.read()
}
