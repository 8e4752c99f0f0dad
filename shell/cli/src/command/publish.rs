//! `publish`: sending messages.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use tokio::io::AsyncBufReadExt;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::say;
use super::template::{self, Dice, Values};
use super::units::{self, parse_duration, parse_pair};

/// What to publish.
#[derive(Debug, clap::Args)]
pub struct Args {
    subject: String,
    /// The message; without one it is read from standard input. {{Count}}, {{Time}}, {{TimeStamp}}, {{Unix}},
    /// {{UnixNano}}, {{ID}} and {{Random 10 100}} are replaced
    body: Option<String>,
    /// Subject for replies
    #[arg(long, value_name = "SUBJECT", conflicts_with = "jetstream")]
    reply: Option<String>,
    /// A header, KEY:VALUE
    #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
    headers: Vec<(String, String)>,
    /// How many messages to publish
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Pause between messages
    #[arg(long, value_parser = parse_duration)]
    sleep: Option<Duration>,
    /// Wait until JetStream has stored each message
    #[arg(short = 'J', long)]
    jetstream: bool,
    /// Read standard input even if there is a body or a terminal
    #[arg(long)]
    force_stdin: bool,
    /// What a message is when standard input is read: everything (eof) or each line (newline)
    #[arg(long, default_value = "eof", value_parser = ["eof", "newline"])]
    send_on: String,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Replace placeholders [--no-templates to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    templates: Option<bool>,
}

/// Publishes.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let from_stdin = args.force_stdin || args.body.is_none();
    if from_stdin && std::io::stdin().is_terminal() && !args.quiet {
        eprintln!("Reading the message from the terminal, end it with ctrl-d");
    }
    let session = Session::open(global).await?;
    let mut sender = Sender { session, args, dice: Dice::new(), sent: 0 };
    if from_stdin && sender.args.send_on == "newline" {
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) =
            lines.next_line().await.map_err(|error| Failure::request("read standard input", error))?
        {
            sender.send(line.as_bytes()).await?;
        }
        return sender.session.finish().await;
    }
    let body = match (&sender.args.body, from_stdin) {
        (Some(body), false) => body.clone().into_bytes(),
        _ => stdin()?,
    };
    for number in 0..sender.args.count {
        if let Some(pause) = sender.args.sleep.filter(|_| number > 0) {
            tokio::time::sleep(pause).await;
        }
        sender.send(&body).await?;
    }
    sender.session.finish().await
}

/// All of standard input.
pub fn stdin() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut body);
    read.map_err(|error| Failure::request("read standard input", error))?;
    Ok(body)
}

/// Headers as the client library takes them.
pub fn header_map(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs {
        headers.append(key.as_str(), value.as_str());
    }
    headers
}

/// A body with its placeholders replaced, if that is wanted and it is text.
pub fn expand(body: &[u8], templates: Option<bool>, values: &Values<'_>, dice: &mut Dice) -> Bytes {
    match std::str::from_utf8(body) {
        Ok(text) if templates != Some(false) && text.contains("{{") => {
            template::fill(text, values, dice).into()
        }
        _ => Bytes::copy_from_slice(body),
    }
}

struct Sender {
    session: Session,
    args: Args,
    dice: Dice,
    sent: u64,
}

impl Sender {
    async fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.sent += 1;
        let values = Values { count: self.sent, request: b"" };
        let payload = expand(body, self.args.templates, &values, &mut self.dice);
        let subject = expand(self.args.subject.as_bytes(), self.args.templates, &values, &mut self.dice);
        let subject = String::from_utf8_lossy(&subject).into_owned();
        let headers = header_map(&self.args.headers);
        let length = payload.len();
        let stored = match self.args.jetstream {
            true => Some(self.store(&subject, headers, payload).await?),
            false => {
                self.publish(&subject, headers, payload).await?;
                None
            }
        };
        if !self.args.quiet {
            let clock = units::clock();
            say!("{clock} Published {length} bytes to {subject:?}");
            if let Some(stored) = stored {
                say!("{clock} {stored}");
            }
        }
        Ok(())
    }

    async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), Failure> {
        let client = &self.session.client;
        let subject = subject.to_owned();
        let sent = match (&self.args.reply, headers.is_empty()) {
            (Some(reply), true) => client.publish_with_reply(subject, reply.clone(), payload).await,
            (Some(reply), false) => {
                client.publish_with_reply_and_headers(subject, reply.clone(), headers, payload).await
            }
            (None, true) => client.publish(subject, payload).await,
            (None, false) => client.publish_with_headers(subject, headers, payload).await,
        };
        sent.map_err(|error| Failure::request("publish", error))
    }

    async fn store(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<String, Failure> {
        let doing = format!("store a message for {subject}");
        let message = PublishMessage::build().headers(headers).payload(payload);
        let ack = self.session.jetstream.send_publish(subject.to_owned(), message).await;
        let ack = ack.map_err(|error| Failure::request(&doing, error))?;
        let ack = ack.await.map_err(|error| Failure::request(&doing, error))?;
        let duplicate = if ack.duplicate { " Duplicate: true" } else { "" };
        let domain = if ack.domain.is_empty() { String::new() } else { format!(" Domain: {}", ack.domain) };
        Ok(format!("Stored in Stream: {} Sequence: {}{domain}{duplicate}", ack.stream, ack.sequence))
    }
}
