//! Measurements of reads from a stream without a consumer.

use std::time::{Duration, Instant};

use async_nats::{Client, Message, StatusCode};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::Common;
use super::crew::{Crew, Worker};
use super::stats::Sample;
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::units::{clock, comma};

/// How long a message may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
pub struct SyncArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the stream
    #[arg(long, default_value = "benchstream")]
    stream: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct BatchArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the stream; it must allow direct gets
    #[arg(long, default_value = "benchstream")]
    stream: String,
    /// How many messages one request asks for
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Only these subjects
    #[arg(long, default_value = ">")]
    filter: String,
}

/// The part of a stream's info that reads need.
#[derive(Clone)]
struct Origin {
    first: u64,
    last: u64,
    direct: bool,
}

impl Origin {
    async fn of(session: &Session, stream: &str) -> Result<Origin, Failure> {
        let stream = crate::command::stream::name(stream)?;
        let doing = format!("get stream {stream}");
        let info = session.api(&format!("STREAM.INFO.{stream}"), &json!({}), &doing).await?;
        let info: Value = info.read()?;
        let number = |name: &str| info["state"][name].as_u64().unwrap_or(0);
        if number("messages") == 0 {
            return Err(Failure::request(doing, "it has no messages"));
        }
        let direct = info["config"]["allow_direct"] == true;
        Ok(Origin { first: number("first_seq"), last: number("last_seq"), direct })
    }
}

/// One message with each request, in the order of the stream and from its start again.
pub async fn sync(global: &Global, args: SyncArgs) -> Result<(), Failure> {
    let title = "JetStream synchronous getter";
    let origin = Origin::of(&Session::open(global).await?, &args.stream).await?;
    let own = [("stream", args.stream.clone()), ("direct", origin.direct.to_string())];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let crew = Crew::assemble(global, &args.common, title, "getting").await?;
    crew.work(move |worker| getter(worker, args.stream.clone(), origin.clone())).await
}

async fn getter(mut worker: Worker, stream: String, origin: Origin) -> Result<Sample, Failure> {
    let (session, count) = (worker.session.clone(), origin.last - origin.first + 1);
    let verb = if origin.direct { "DIRECT.GET" } else { "STREAM.MSG.GET" };
    let subject = format!("{}.{verb}.{stream}", session.prefix);
    let start = worker.index * worker.messages;
    worker.ready().await;
    let (mut sample, mut bytes) = (Sample::start(), 0);
    for number in 0..worker.messages {
        let begin = Instant::now();
        let body = json!({ "seq": origin.first + (start + number) % count }).to_string();
        let reply = session.client.request(subject.clone(), body.into()).await;
        let reply = reply.map_err(|error| Failure::request("get", error))?;
        check(&reply, origin.direct)?;
        bytes += reply.payload.len() as u64;
        sample.latencies.push(begin.elapsed());
        worker.step(1).await;
    }
    sample.stop(worker.messages, 0);
    sample.bytes = bytes;
    Ok(sample)
}

/// A message that was deleted is an answer as well; whatever else is no message is a failure.
fn check(reply: &Message, direct: bool) -> Result<(), Failure> {
    let failed = |what: String| Err(Failure::request("get", what));
    match (direct, reply.status) {
        (true, None | Some(StatusCode::NOT_FOUND)) => Ok(()),
        (true, Some(status)) => {
            failed(format!("{status} {}", reply.description.as_deref().unwrap_or_default()))
        }
        (false, _) => {
            let answer: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
            match answer["error"]["err_code"].as_u64() {
                None | Some(10037) => Ok(()),
                Some(_) => failed(answer["error"]["description"].to_string()),
            }
        }
    }
}

/// Many messages with each request.
pub async fn batch(global: &Global, args: BatchArgs) -> Result<(), Failure> {
    let title = "JetStream batched direct getter";
    let origin = Origin::of(&Session::open(global).await?, &args.stream).await?;
    if !origin.direct {
        let doing = format!("get from stream {}", args.stream);
        return Err(Failure::request(doing, "it does not allow direct gets"));
    }
    let own =
        [("stream", args.stream.clone()), ("batch", comma(args.batch)), ("filter", args.filter.clone())];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let crew = Crew::assemble(global, &args.common, title, "getting").await?;
    crew.work(move |worker| batch_getter(worker, args.clone(), origin.clone())).await
}

async fn batch_getter(mut worker: Worker, args: BatchArgs, origin: Origin) -> Result<Sample, Failure> {
    let subject = format!("{}.DIRECT.GET.{}", worker.session.prefix, args.stream);
    let client = worker.session.client.clone();
    worker.ready().await;
    let (mut sample, mut received, mut bytes, mut next) = (Sample::start(), 0, 0, origin.first);
    while received < worker.messages {
        let (begin, wanted) = (Instant::now(), args.batch.min(worker.messages - received));
        let body = json!({ "seq": next, "batch": wanted, "next_by_subj": args.filter }).to_string();
        let got = ask(&client, &subject, body).await?;
        if got.messages == 0 && next == origin.first {
            return Err(Failure::request("get", format!("no message matches {}", args.filter)));
        }
        // After the last message the stream begins again.
        next = if got.messages < wanted || got.last >= origin.last { origin.first } else { got.last + 1 };
        (received, bytes) = (received + got.messages, bytes + got.bytes);
        sample.latencies.push(begin.elapsed());
        worker.step(got.messages).await;
    }
    sample.stop(received, 0);
    sample.bytes = bytes;
    Ok(sample)
}

/// What one request brought.
#[derive(Default)]
struct Got {
    messages: u64,
    bytes: u64,
    last: u64,
}

async fn ask(client: &Client, subject: &str, body: String) -> Result<Got, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::request("get", error);
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let sent = client.publish_with_reply(subject.to_owned(), inbox, body.into()).await;
    sent.map_err(|error| failed(&error))?;
    let mut got = Got::default();
    loop {
        let reply = tokio::time::timeout(PATIENCE, replies.next()).await;
        let reply = reply.map_err(|_| failed(&"no message within 10s"))?;
        let Some(reply) = reply else { return Err(failed(&"the connection is gone")) };
        match reply.status {
            None => {
                let headers = reply.headers.as_ref();
                let seq = headers.and_then(|headers| headers.get("Nats-Sequence")?.as_str().parse().ok());
                got.last = seq.unwrap_or(got.last);
                (got.messages, got.bytes) = (got.messages + 1, got.bytes + reply.payload.len() as u64);
            }
            // The end of the batch, or nothing that matches.
            Some(StatusCode::NOT_FOUND) => return Ok(got),
            Some(status) if status.as_u16() == 204 => return Ok(got),
            Some(status) => {
                let text = reply.description.unwrap_or_default();
                return Err(failed(&format!("{status} {text}")));
            }
        }
    }
}
