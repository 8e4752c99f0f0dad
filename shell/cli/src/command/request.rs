//! `request`: asking a service.

use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode};
use futures_util::StreamExt;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, say};
use super::publish::{expand, header_map, stdin};
use super::subscribe::header_lines;
use super::template::{Dice, Values};
use super::units::{self, parse_duration, parse_pair};

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    subject: String,
    /// The message; without one it is read from standard input. The placeholders of publish are replaced
    body: Option<String>,
    /// Print only the data
    #[arg(short, long)]
    raw: bool,
    /// A header, KEY:VALUE
    #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
    headers: Vec<(String, String)>,
    /// How many requests to send
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many replies to wait for; 0 waits until the timeout
    #[arg(long, default_value_t = 1)]
    replies: u64,
    /// Longest time between replies when there can be several
    #[arg(long, value_parser = parse_duration, default_value = "300ms")]
    reply_timeout: Duration,
    /// Wait for replies until an empty one comes
    #[arg(long)]
    wait_for_empty: bool,
    /// Replace placeholders [--no-templates to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    templates: Option<bool>,
}

/// Sends the requests and shows the replies.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let body = match &args.body {
        Some(body) => body.clone().into_bytes(),
        None => stdin()?,
    };
    let session = Session::open(global).await?;
    let mut dice = Dice::new();
    for count in 1..=args.count {
        let payload = expand(&body, args.templates, &Values { count, request: b"" }, &mut dice);
        ask(&session, &args, payload).await?;
    }
    Ok(())
}

async fn ask(session: &Session, args: &Args, payload: bytes::Bytes) -> Result<(), Failure> {
    let doing = format!("request {:?}", args.subject);
    let failed = |error: &dyn std::fmt::Display| Failure::request(&doing, error);
    if !args.raw {
        say!("{} Sending request on {:?}", units::clock(), args.subject);
    }
    let inbox = session.client.new_inbox();
    let mut replies = session.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let headers = header_map(&args.headers);
    let subject = args.subject.clone();
    let begin = Instant::now();
    let sent = if headers.is_empty() {
        session.client.publish_with_reply(subject, inbox, payload).await
    } else {
        session.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await
    };
    sent.map_err(|error| failed(&error))?;
    let mut received = 0;
    loop {
        let many = args.replies != 1 || args.wait_for_empty;
        let wait =
            if received > 0 && many && args.replies != 0 { args.reply_timeout } else { session.timeout };
        match tokio::time::timeout(wait, replies.next()).await {
            Ok(Some(reply)) if reply.status == Some(StatusCode::NO_RESPONDERS) => {
                return Err(Failure::request(&doing, "no responders are available"));
            }
            Ok(Some(reply)) if args.wait_for_empty && reply.payload.is_empty() => return Ok(()),
            Ok(Some(reply)) => show(&reply, begin.elapsed(), args.raw),
            Ok(None) => return Err(Failure::request(&doing, "the connection was closed")),
            Err(_) if received > 0 => return Ok(()),
            Err(_) => {
                let reason = format!("no reply within {}", units::duration(session.timeout));
                return Err(Failure::request(&doing, reason));
            }
        }
        received += 1;
        if !args.wait_for_empty && args.replies > 0 && received >= args.replies {
            return Ok(());
        }
    }
}

fn show(reply: &Message, elapsed: Duration, raw: bool) {
    if !raw {
        say!("{} Received with rtt {}", units::clock(), units::duration(elapsed));
        let lines = reply.headers.as_ref().map(header_lines).unwrap_or_default();
        lines.iter().for_each(|line| output::line(line));
        if !lines.is_empty() {
            say!();
        }
    }
    output::raw(&reply.payload);
    say!("{}", if raw { "" } else { "\n" });
}
