//! `consumer next` and `consumer sub`: receiving a consumer's messages.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;

use super::fetch;
use super::pull::{Pull, Pulled};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, say};
use crate::command::units::{self, comma, parse_duration};
use crate::command::view::ConsumerInfo;

/// What to fetch.
#[derive(Debug, clap::Args)]
pub struct NextArgs {
    stream: String,
    consumer: String,
    /// Acknowledge what is received [--no-ack to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ack: Option<bool>,
    /// Reject the message, so that it is delivered again
    #[arg(long, conflicts_with_all = ["ack", "term"])]
    nak: bool,
    /// End the message's delivery for good
    #[arg(long, conflicts_with = "ack")]
    term: bool,
    /// Print only the data
    #[arg(short, long)]
    raw: bool,
    /// How long to wait for messages [default: the timeout]
    #[arg(long, value_parser = parse_duration)]
    wait: Option<Duration>,
    /// How many messages to fetch
    #[arg(long, default_value_t = 1)]
    count: usize,
}

/// What to receive.
#[derive(Debug, clap::Args)]
pub struct SubArgs {
    stream: String,
    consumer: String,
    /// Acknowledge what is received [--no-ack to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ack: Option<bool>,
    /// Print only the data
    #[arg(short, long)]
    raw: bool,
    /// Queue group of a push consumer, instead of its own
    #[arg(long, value_name = "GROUP")]
    deliver_group: Option<String>,
    /// Stop after this many messages
    #[arg(long)]
    count: Option<u64>,
}

/// Fetches messages.
pub async fn next(session: &Session, args: &NextArgs) -> Result<(), Failure> {
    let names = [args.stream.as_str(), args.consumer.as_str()];
    let info = fetch(session, names[0], names[1]).await?;
    if !info.config.is_pull() {
        return Err(Failure::Usage(format!(
            "{} > {} is a push consumer: use consumer sub",
            names[0], names[1]
        )));
    }
    let kind = match () {
        () if args.nak => Some(AckKind::Nak(None)),
        () if args.term => Some(AckKind::Term),
        () if args.ack != Some(false) && info.config.ack_policy != "none" => Some(AckKind::Ack),
        () => None,
    };
    let mut left = args.count;
    let wait = args.wait.unwrap_or(session.timeout);
    while left > 0 {
        let batch = left.min(256);
        let mut pull = Pull::open(session, names, batch, wait).await?;
        for _ in 0..batch {
            match pull.next().await {
                Pulled::Message(message) => {
                    print(&message, args.raw);
                    acknowledge(&message, kind, args.raw).await?;
                    left -= 1;
                }
                Pulled::End(status) => {
                    let received = args.count - left;
                    let doing = format!("fetch message {} of {}", received + 1, args.count);
                    return Err(Failure::request(doing, status));
                }
            }
        }
    }
    Ok(())
}

/// Prints a message with where it stands.
fn print(message: &Message, raw: bool) {
    if raw {
        output::raw(&message.payload);
        return say!();
    }
    let place = match message.info() {
        Ok(info) => format!(
            " / tries: {} / cons seq: {} / str seq: {} / pending: {}",
            info.delivered,
            info.consumer_sequence,
            info.stream_sequence,
            comma(info.pending)
        ),
        Err(_) => String::new(),
    };
    say!("[{}] subj: {}{place}\n", units::clock(), message.subject);
    if let Some(headers) = message.headers.as_ref().filter(|headers| !headers.is_empty()) {
        say!("Headers:\n");
        crate::command::subscribe::header_lines(headers).iter().for_each(|line| say!("  {line}"));
        say!("\nData:\n");
    }
    output::raw(&message.payload);
    say!("\n");
}

async fn acknowledge(message: &Message, kind: Option<AckKind>, quiet: bool) -> Result<(), Failure> {
    let Some(kind) = kind else { return Ok(()) };
    let said = match kind {
        AckKind::Nak(_) => "Rejected message",
        AckKind::Term => "Terminated message",
        _ => "Acknowledged message",
    };
    // Confirmed, as the process ends soon after: an acknowledgement in a closed socket is none.
    let sent = message.double_ack_with(kind).await;
    sent.map_err(|error| Failure::request("acknowledge the message", error))?;
    if !quiet {
        say!("{said}\n");
    }
    Ok(())
}

/// Receives until stopped.
pub async fn subscribe(session: &Session, args: &SubArgs) -> Result<(), Failure> {
    let info = fetch(session, &args.stream, &args.consumer).await?;
    let ack = args.ack != Some(false) && info.config.ack_policy != "none";
    let kind = ack.then_some(AckKind::Ack);
    let work = async {
        if info.config.is_pull() {
            pull(session, args, kind).await
        } else {
            push(session, args, &info, kind).await
        }
    };
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn pull(session: &Session, args: &SubArgs, kind: Option<AckKind>) -> Result<(), Failure> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let batch = left.min(100) as usize;
        let names = [args.stream.as_str(), args.consumer.as_str()];
        let mut pull = Pull::open(session, names, batch, Duration::from_secs(30)).await?;
        for _ in 0..batch {
            match pull.next().await {
                Pulled::Message(message) => {
                    print(&message, args.raw);
                    acknowledge(&message, kind, args.raw).await?;
                    left -= 1;
                }
                Pulled::End(status) if is_lasting(&status) => {
                    return Err(Failure::request("go on receiving", status));
                }
                Pulled::End(_) => break,
            }
        }
    }
    Ok(())
}

/// Whether asking again would end the same way.
fn is_lasting(status: &str) -> bool {
    ["Consumer Deleted", "no responders", "closed", "Consumer is push"]
        .iter()
        .any(|text| status.contains(text))
}

async fn push(
    session: &Session,
    args: &SubArgs,
    info: &ConsumerInfo,
    kind: Option<AckKind>,
) -> Result<(), Failure> {
    let subject = info.config.deliver_subject.clone();
    let group = args.deliver_group.clone().unwrap_or_else(|| info.config.deliver_group.clone());
    let subscribed = match group.as_str() {
        "" => session.client.subscribe(subject).await,
        _ => session.client.queue_subscribe(subject, group).await,
    };
    let mut inbox = subscribed.map_err(|error| Failure::request("subscribe", error))?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(message) = inbox.next().await else { break };
        if message.status.is_some() {
            // Flow control asks for an answer; so does a heartbeat that names a stalled consumer.
            let stalled = message.headers.as_ref().and_then(|headers| headers.get("Nats-Consumer-Stalled"));
            let answer_to = message.reply.clone().or_else(|| stalled.map(|subject| subject.as_str().into()));
            if let Some(subject) = answer_to {
                let sent = session.client.publish(subject, bytes::Bytes::new()).await;
                sent.map_err(|error| Failure::request("answer the flow control", error))?;
            }
            continue;
        }
        let message = Message { message, context: session.jetstream.clone() };
        print(&message, args.raw);
        acknowledge(&message, kind, args.raw).await?;
        left -= 1;
    }
    Ok(())
}
