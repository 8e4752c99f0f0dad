//! `counter`: streams that count (`allow_msg_counter`). Each subject is a counter; a publish carries what is added.

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{Facts, Table, line, print_json};
use super::stream::name;
use super::units::local_time;

/// What can be done with counters.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show a counter's value
    #[command(visible_alias = "g")]
    Get {
        subject: String,
        /// The stream that holds it
        #[arg(long)]
        stream: Option<String>,
    },
    /// Show a counter with its last message
    #[command(visible_alias = "v")]
    View {
        subject: String,
        /// The stream that holds it
        #[arg(long)]
        stream: Option<String>,
    },
    /// Add to a counter
    #[command(visible_aliases = ["incr", "inc", "i"])]
    Increment { subject: String, value: String },
    /// Take from a counter
    #[command(visible_aliases = ["decr", "dec", "d"])]
    Decrement { subject: String, value: String },
    /// List the counters of a stream
    #[command(visible_aliases = ["ls", "l"])]
    List {
        /// Only subjects that match this one
        #[arg(default_value = ">")]
        subject: String,
        /// The stream that holds them
        #[arg(long)]
        stream: Option<String>,
        /// Print subjects and values as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A counter's last message.
struct Counter {
    value: String,
    stream: String,
    sequence: u64,
    time: String,
    headers: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    seq: u64,
    time: String,
    data: String,
    hdrs: String,
}

/// Runs a counter command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let session = &Session::open(global).await?;
    match command {
        Command::Get { subject, stream } => {
            let stream = stream_of(session, &subject, stream).await?;
            line(&fetch(session, &stream, &subject).await?.value);
            Ok(())
        }
        Command::View { subject, stream } => {
            let stream = stream_of(session, &subject, stream).await?;
            view(&subject, &fetch(session, &stream, &subject).await?);
            Ok(())
        }
        Command::Increment { subject, value } => add(session, &subject, &signed(&value, false)?).await,
        Command::Decrement { subject, value } => add(session, &subject, &signed(&value, true)?).await,
        Command::List { subject, stream, json } => list(session, (&subject, stream), json).await,
    }
}

/// The number with a sign, turned round where it is taken away.
fn signed(value: &str, negative: bool) -> Result<String, Failure> {
    let (minus, digits) = match value.split_at_checked(1) {
        Some(("-", digits)) => (true, digits),
        Some(("+", digits)) => (false, digits),
        _ => (false, value),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::Usage(format!("{value:?} is not a whole number")));
    }
    Ok(format!("{}{digits}", if minus != negative { '-' } else { '+' }))
}

/// The stream that takes a subject.
async fn stream_of(session: &Session, subject: &str, given: Option<String>) -> Result<String, Failure> {
    if let Some(stream) = given {
        return name(&stream).map(ToOwned::to_owned);
    }
    let listing = session.api_list("STREAM.NAMES", json!({ "subject": subject }), "streams").await?;
    let mut names: Vec<String> = listing.read()?;
    match (names.pop(), names.is_empty()) {
        (Some(stream), true) => Ok(stream),
        (Some(_), false) => Err(Failure::Usage(format!("several streams take {subject}: use --stream"))),
        (None, _) => Err(Failure::Usage(format!("no stream takes {subject}"))),
    }
}

fn value_of(data: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(data).ok()?;
    Some(value.get("val")?.as_str()?.to_owned())
}

async fn fetch(session: &Session, stream: &str, subject: &str) -> Result<Counter, Failure> {
    let doing = format!("get counter {subject}");
    let body = json!({ "last_by_subj": subject });
    let answer: Value = session.api(&format!("STREAM.MSG.GET.{stream}"), &body, &doing).await?.read()?;
    let stored: Stored =
        serde_json::from_value(answer["message"].clone()).map_err(|error| Failure::request(&doing, error))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| Failure::request(&doing, error));
    let value = value_of(&decode(&stored.data)?);
    Ok(Counter {
        value: value.ok_or_else(|| Failure::request(&doing, "its last message holds no counter"))?,
        stream: stream.to_owned(),
        sequence: stored.seq,
        time: stored.time,
        headers: String::from_utf8_lossy(&decode(&stored.hdrs)?).into_owned(),
    })
}

fn view(subject: &str, counter: &Counter) {
    let mut facts = Facts::titled(format!("Counter {subject}"));
    facts.row("Value", &counter.value);
    facts.row("Stream", &counter.stream);
    facts.row("Sequence", counter.sequence.to_string());
    facts.row("Last Update", local_time(&counter.time));
    for field in counter.headers.lines().skip(1).filter(|field| !field.is_empty()) {
        if let Some((key, value)) = field.split_once(':') {
            facts.row(key, value.trim());
        }
    }
    facts.print();
}

async fn add(session: &Session, subject: &str, delta: &str) -> Result<(), Failure> {
    let doing = format!("change counter {subject}");
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Incr", delta);
    let sent = session.jetstream.publish_with_headers(subject.to_owned(), headers, Bytes::new()).await;
    let sent = sent.map_err(|error| Failure::request(&doing, error))?;
    let ack = sent.await.map_err(|error| Failure::request(&doing, error))?;
    match ack.value {
        Some(value) => {
            line(&value);
            Ok(())
        }
        None => Err(Failure::request(doing, format!("stream {} does not count", ack.stream))),
    }
}

async fn list(
    session: &Session,
    (subject, stream): (&str, Option<String>),
    json: bool,
) -> Result<(), Failure> {
    let stream = match stream {
        Some(stream) => stream,
        None if subject == ">" => return Err(Failure::Usage("use --stream, or name the subjects".into())),
        None => stream_of(session, subject, None).await?,
    };
    let doing = format!("list the counters of stream {stream}");
    let body = json!({ "subjects_filter": subject });
    let answer: Value =
        session.api(&format!("STREAM.INFO.{}", name(&stream)?), &body, &doing).await?.read()?;
    let mut counters = Vec::new();
    for subject in answer["state"]["subjects"].as_object().into_iter().flatten().map(|(subject, _)| subject) {
        counters.push((subject.clone(), fetch(session, &stream, subject).await?.value));
    }
    counters.sort();
    if json {
        let all: serde_json::Map<String, Value> =
            counters.into_iter().map(|(subject, value)| (subject, value.into())).collect();
        return print_json(&all);
    }
    let mut table = Table::new(format!("Counters in {stream}"), ["Subject", "Value"]).right(1);
    counters.into_iter().for_each(|(subject, value)| table.row([subject, value]));
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_a_sign() {
        for (value, negative, wanted) in [
            ("5", false, Some("+5")),
            ("5", true, Some("-5")),
            ("-5", true, Some("+5")),
            ("+5", true, Some("-5")),
            ("99999999999999999999999", false, Some("+99999999999999999999999")),
            ("", false, None),
            ("-", false, None),
            ("1.5", false, None),
            ("x", true, None),
        ] {
            assert_eq!(signed(value, negative).ok().as_deref(), wanted, "{value:?}");
        }
    }

    #[test]
    fn values_are_read() {
        assert_eq!(value_of(br#"{"val":"42"}"#).as_deref(), Some("42"));
        assert_eq!(value_of(b"42"), None);
    }
}
