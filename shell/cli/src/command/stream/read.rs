//! `stream get` and `stream view`: a stream's messages.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{fetch, name};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, say};
use crate::command::units::{self, parse_duration};
use crate::command::view::StoredMessage;

/// Which message to show.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    stream: String,
    /// Sequence of the message
    #[arg(required_unless_present = "last_for")]
    sequence: Option<u64>,
    /// The last message on a subject
    #[arg(short = 'S', long, value_name = "SUBJECT", conflicts_with = "sequence")]
    last_for: Option<String>,
    /// Print the message as the API gives it
    #[arg(short, long)]
    json: bool,
}

/// Which messages to page through.
#[derive(Debug, clap::Args)]
pub struct ViewArgs {
    stream: String,
    /// Messages on a page
    #[arg(default_value_t = 10)]
    size: usize,
    /// Start at this sequence
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
    id: Option<u64>,
    /// Start with what came within this time
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    since: Option<Duration>,
    /// Only messages on this subject
    #[arg(long)]
    subject: Option<String>,
    /// Print only the data
    #[arg(long)]
    raw: bool,
}

/// Shows one message.
pub async fn get(session: &Session, args: &GetArgs) -> Result<(), Failure> {
    let (body, what) = match (&args.last_for, args.sequence) {
        (Some(subject), _) => (json!({ "last_by_subj": subject }), format!("the last message for {subject}")),
        (None, sequence) => {
            let sequence = sequence.unwrap_or_default();
            (json!({ "seq": sequence }), format!("{}#{sequence}", args.stream))
        }
    };
    let call = format!("STREAM.MSG.GET.{}", name(&args.stream)?);
    let answer = session.api(&call, &body, &format!("retrieve {what}")).await?;
    if args.json {
        let value: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> = answer.read()?;
        output::line(&output::indent_json(value.get("message").map_or("null", |raw| raw.get())));
        return Ok(());
    }
    let message: Stored = Stored::from(answer.read::<Envelope>()?.message);
    let (stream, seq, subject) = (&args.stream, message.seq, &message.subject);
    let age = units::since(&message.time, Timestamp::now());
    say!("Item: {stream}#{seq} received {} ({age}) on Subject {subject}\n", message.time);
    message.print(false);
    Ok(())
}

#[derive(serde::Deserialize)]
struct Envelope {
    message: StoredMessage,
}

/// A stored message with its bytes decoded.
struct Stored {
    subject: String,
    seq: u64,
    time: String,
    headers: Vec<String>,
    data: Vec<u8>,
}

impl From<StoredMessage> for Stored {
    fn from(message: StoredMessage) -> Self {
        let headers = STANDARD.decode(&message.hdrs).unwrap_or_default();
        let headers = String::from_utf8_lossy(&headers);
        // The first line is the version, and a status where there is one.
        let headers =
            headers.lines().skip(1).filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
        let data = STANDARD.decode(&message.data).unwrap_or_default();
        Self { subject: message.subject, seq: message.seq, time: message.time, headers, data }
    }
}

impl Stored {
    fn print(&self, raw: bool) {
        if !raw && !self.headers.is_empty() {
            say!("Headers:");
            self.headers.iter().for_each(|header| say!("  {header}"));
            say!();
        }
        output::raw(&self.data);
        say!();
    }
}

/// Pages through a stream: from a terminal with a question after each page, otherwise straight on.
pub async fn view(session: &Session, args: &ViewArgs) -> Result<(), Failure> {
    let mut sequence = first_sequence(session, args).await?;
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut shown = 0_usize;
    while let Some(message) = next(session, args, sequence).await? {
        sequence = message.seq + 1;
        if !args.raw {
            let (stream, subject, seq) = (&args.stream, &message.subject, message.seq);
            say!(
                "[{seq}] Stream: {stream} Subject: {subject} Received: {}",
                units::local_time(&message.time)
            );
        }
        message.print(args.raw);
        shown += 1;
        if interactive && args.size > 0 && shown.is_multiple_of(args.size) && !go_on()? {
            return Ok(());
        }
    }
    if !args.raw {
        say!("{} Reached apparent end of data", units::clock());
    }
    Ok(())
}

fn go_on() -> Result<bool, Failure> {
    output::raw(b"Next page? (enter, q to quit) ");
    output::flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let read = read.map_err(|error| Failure::request("read the answer", error))?;
    Ok(read > 0 && !answer.trim().eq_ignore_ascii_case("q"))
}

async fn next(session: &Session, args: &ViewArgs, sequence: u64) -> Result<Option<Stored>, Failure> {
    let body = json!({ "seq": sequence, "next_by_subj": args.subject.as_deref().unwrap_or(">") });
    let doing = format!("read stream {}", args.stream);
    match session.api(&format!("STREAM.MSG.GET.{}", args.stream), &body, &doing).await {
        Ok(answer) => Ok(Some(answer.read::<Envelope>()?.message.into())),
        Err(Failure::Api { err_code: 10037, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn first_sequence(session: &Session, args: &ViewArgs) -> Result<u64, Failure> {
    let info = fetch(session, &args.stream).await?;
    let Some(since) = args.since else { return Ok(args.id.unwrap_or(1).max(1)) };
    let from =
        Timestamp::now().checked_sub(since).map_err(|error| Failure::request("compute the time", error))?;
    // Sequences grow with time, so the first message that is young enough is found by halving.
    let (mut low, mut high) = (info.state.first_seq.max(1), info.state.last_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let body: Value = json!({ "seq": middle, "next_by_subj": ">" });
        let doing = format!("read stream {}", args.stream);
        match session.api(&format!("STREAM.MSG.GET.{}", args.stream), &body, &doing).await {
            Ok(answer) => {
                let message = answer.read::<Envelope>()?.message;
                let young = units::api_time(&message.time).is_none_or(|at| at >= from);
                if young { high = middle } else { low = message.seq.max(middle) + 1 }
            }
            Err(Failure::Api { err_code: 10037, .. }) => high = middle,
            Err(failure) => return Err(failure),
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_data_are_decoded() {
        let message = StoredMessage {
            hdrs: "TkFUUy8xLjANCmE6IGINCg0K".into(),
            data: "aGVsbG8=".into(),
            ..StoredMessage::default()
        };
        let stored = Stored::from(message);
        assert_eq!(stored.headers, ["a: b"]);
        assert_eq!(stored.data, b"hello");
    }

    #[test]
    fn damaged_base64_is_empty_not_a_panic() {
        let stored =
            Stored::from(StoredMessage { hdrs: "%%".into(), data: "%".into(), ..StoredMessage::default() });
        assert!(stored.headers.is_empty() && stored.data.is_empty());
    }
}
