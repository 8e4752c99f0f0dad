//! Taking backups: pieces come, are written and acknowledged. A folder holds a backup only once all of it has come.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::archive::{Contents, Inspector};
use super::{DATA_FILE, How, TakeAllArgs, progress_bar, write_meta};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, Table, say};
use crate::command::stream::name;
use crate::command::units::{bytes, comma, duration};
use crate::command::view::StreamInfo;

/// How long the next piece may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came.
struct Received {
    bytes: u64,
    pieces: u64,
    contents: Contents,
}

/// Backs up one stream into a folder.
pub async fn stream(session: &Session, stream: &str, target: &Path, how: &How) -> Result<(), Failure> {
    let doing = format!("back up stream {stream}");
    let begin = Instant::now();
    std::fs::create_dir_all(target).map_err(|error| Failure::file("create", target, error))?;
    let deliver = session.client.new_inbox();
    let pieces = session.client.subscribe(deliver.clone()).await;
    let pieces = pieces.map_err(|error| Failure::request(&doing, error))?;
    session.finish().await?;
    let body = json!({
        "deliver_subject": deliver,
        "no_consumers": how.consumers == Some(false),
        "jsck": how.check,
        "chunk_size": how.chunk_size.unwrap_or(0),
        "window_size": how.window_size.unwrap_or(0),
    });
    let call = format!("STREAM.SNAPSHOT.{}", name(stream)?);
    let answer: Value = session.api(&call, &body, &doing).await?.read()?;
    let expected = answer["state"]["bytes"].as_u64().unwrap_or(0);
    say!("Starting backup of Stream {stream:?} with {}", bytes(expected));
    say!();
    let bar = progress_bar(how.progress, expected);
    let part = target.join(format!("{DATA_FILE}.part"));
    let received = match receive(session, pieces, (&part, &bar), &doing).await {
        Ok(received) => received,
        Err(failure) => {
            // What came so far is of no use, and a failure to remove it changes nothing.
            drop(std::fs::remove_file(&part));
            return Err(failure);
        }
    };
    bar.finish_and_clear();
    let path = target.join(DATA_FILE);
    std::fs::rename(&part, &path).map_err(|error| Failure::file("write", &path, error))?;
    write_meta(target, &json!({ "config": answer["config"], "state": answer["state"] }))?;
    say!(
        "Received {} compressed data in {} chunks for stream {stream:?} in {}, {} messages with {}",
        bytes(received.bytes),
        comma(received.pieces),
        duration(begin.elapsed()),
        comma(received.contents.messages),
        bytes(received.contents.bytes),
    );
    Ok(())
}

async fn receive(
    session: &Session,
    mut pieces: Subscriber,
    (path, bar): (&Path, &ProgressBar),
    doing: &str,
) -> Result<Received, Failure> {
    let failed = |error: std::io::Error| Failure::file("write", path, error);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let (mut inspector, mut size, mut count) = (Inspector::default(), 0, 0);
    loop {
        let piece = tokio::time::timeout(PATIENCE.max(session.timeout), pieces.next()).await;
        let Ok(Some(piece)) = piece else {
            return Err(Failure::request(doing, "the server sends no more"));
        };
        if piece.payload.is_empty() {
            if let Some(status) = piece.status.filter(|status| status.as_u16() != 204) {
                let text = piece.description.unwrap_or_default();
                return Err(Failure::request(doing, format!("the server says {status} {text}")));
            }
            break;
        }
        file.write_all(&piece.payload).await.map_err(failed)?;
        size += piece.payload.len() as u64;
        count += 1;
        inspector.push(&piece.payload).map_err(|why| Failure::request(doing, why))?;
        bar.set_position(inspector.contents.bytes);
        if let Some(reply) = piece.reply {
            let sent = session.client.publish(reply, Bytes::new()).await;
            sent.map_err(|error| Failure::request(doing, error))?;
        }
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    let contents = inspector.finish().map_err(|why| Failure::request(doing, why))?;
    Ok(Received { bytes: size, pieces: count, contents })
}

/// Backs up all streams, each into a folder of its name.
pub async fn account(session: &Session, args: &TakeAllArgs) -> Result<(), Failure> {
    let streams: Vec<StreamInfo> = session.api_list("STREAM.LIST", json!({}), "streams").await?.read()?;
    if streams.is_empty() {
        return Err(Failure::Usage("there are no streams to back up".into()));
    }
    let mut table =
        Table::new("Streams to back up", ["Stream", "Messages", "Size", "Consumers"]).right(1).right(2);
    for info in &streams {
        let state = &info.state;
        let cells = [comma(state.messages), bytes(state.bytes), comma(state.consumer_count)];
        let [messages, size, consumers] = cells;
        table.row([info.config.name.clone(), messages, size, consumers]);
    }
    table.print();
    output::confirm(&format!("backing up {} streams", streams.len()), args.force)?;
    for info in &streams {
        let target: PathBuf = args.target.join(&info.config.name);
        stream(session, &info.config.name, &target, &args.how).await?;
        say!();
    }
    say!("Backed up {} streams to {}", streams.len(), args.target.display());
    Ok(())
}
