//! A bucket's entries, read in order through an ordered consumer.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::bucket::stream_name;
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::ordered::{Ordered, Selection};
use crate::command::units;

/// A put or a deletion.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub key: String,
    pub revision: u64,
    /// How many entries follow.
    pub delta: u64,
    /// `PUT`, `DELETE` or `PURGE`.
    pub operation: &'static str,
    #[serde(serialize_with = "as_rfc3339")]
    at: Timestamp,
    #[serde(serialize_with = "as_text")]
    pub value: Bytes,
}

fn as_rfc3339<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&at.to_string())
}

fn as_text<S: Serializer>(value: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&String::from_utf8_lossy(value))
}

impl Entry {
    /// When it was stored, in the local zone.
    pub fn created(&self) -> String {
        units::local(self.at)
    }

    /// The value, short enough for a table.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.value);
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(41).collect();
        if line.chars().count() > 40 { line.chars().take(37).chain("...".chars()).collect() } else { line }
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// All that is stored.
    First,
    /// The last entry of each key.
    Last,
    /// Only what comes.
    Now,
    Revision(u64),
}

/// The entries that are stored now.
pub async fn stored(
    session: &Session,
    bucket: &str,
    filter: &str,
    from: From,
) -> Result<Vec<Entry>, Failure> {
    let mut ordered = open(session, bucket, filter, from).await?;
    let doing = format!("read bucket {bucket}");
    let mut entries = Vec::new();
    let mut at_end = ordered.pending == 0;
    while !at_end {
        let next = tokio::time::timeout(session.timeout.max(Duration::from_secs(1)), ordered.next()).await;
        let next = next.map_err(|_| Failure::request(&doing, "the server fell silent"))?;
        let Some(message) = next else { break };
        let entry = entry(&message?, bucket, &doing)?;
        at_end = entry.delta == 0;
        entries.push(entry);
    }
    ordered.close().await;
    Ok(entries)
}

/// Hands over every entry as it comes, until `show` says that it was enough.
pub async fn each(
    session: &Session,
    bucket: &str,
    filter: &str,
    from: From,
    mut show: impl FnMut(Entry) -> bool,
) -> Result<(), Failure> {
    let doing = format!("watch bucket {bucket}");
    let mut ordered = open(session, bucket, filter, from).await?;
    while let Some(message) = ordered.next().await {
        if !show(entry(&message?, bucket, &doing)?) {
            break;
        }
    }
    ordered.close().await;
    Ok(())
}

async fn open(session: &Session, bucket: &str, filter: &str, from: From) -> Result<Ordered, Failure> {
    // Asked first, so that a bucket that is not there is an error that says so.
    super::bucket::fetch(session, bucket).await?;
    let from = match from {
        From::First => DeliverPolicy::All,
        From::Last => DeliverPolicy::LastPerSubject,
        From::Now => DeliverPolicy::New,
        From::Revision(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
    };
    let filters = vec![format!("$KV.{bucket}.{filter}")];
    Ordered::open(session, Selection { stream: stream_name(bucket)?, from, filters, batch: 0 }).await
}

fn entry(message: &Message, bucket: &str, doing: &str) -> Result<Entry, Failure> {
    let info = message.info().map_err(|error| Failure::request(doing, error))?;
    let at = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos());
    let header = |name: &str| {
        let value = message.headers.as_ref().and_then(|headers| headers.get(name));
        value.map(|value| value.as_str().to_owned()).unwrap_or_default()
    };
    // A key that ran out of time leaves a marker that the server wrote, with a header of its own.
    let operation = match (header("KV-Operation").as_str(), header("Nats-Marker-Reason").as_str()) {
        ("DEL", _) | (_, "Remove") => "DELETE",
        ("PURGE", _) | (_, "MaxAge" | "Purge") => "PURGE",
        _ => "PUT",
    };
    let prefix = format!("$KV.{bucket}.");
    Ok(Entry {
        key: message.subject.strip_prefix(&prefix).unwrap_or(&message.subject).to_owned(),
        revision: info.stream_sequence,
        delta: info.pending,
        operation,
        at: at.map_err(|error| Failure::request(doing, error))?,
        value: message.payload.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        let entry = |value: &str| Entry {
            key: "k".into(),
            revision: 1,
            delta: 0,
            operation: "PUT",
            at: Timestamp::UNIX_EPOCH,
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        assert_eq!(entry("short").excerpt(), "short");
        assert_eq!(entry("two\nlines").excerpt(), "two lines");
        assert_eq!(entry(&"x".repeat(40)).excerpt().len(), 40);
        assert_eq!(entry(&"x".repeat(41)).excerpt(), format!("{}...", "x".repeat(37)));
    }
}
