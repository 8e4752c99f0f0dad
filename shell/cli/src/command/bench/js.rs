//! Measurements of streams and consumers.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::crew::{Crew, Pool, Worker};
use super::stats::Sample;
use super::{Common, Content, Subjects};
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::ordered::{Ordered, Selection};
use crate::command::output::say;
use crate::command::publish::header_map;
use crate::command::template::Dice;
use crate::command::units::{clock, comma, duration, parse_duration, parse_size};

#[derive(Debug, Clone, clap::Args)]
pub struct PubArgs {
    subject: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    subjects: Subjects,
    /// Name of the stream
    #[arg(long, default_value = "benchstream")]
    stream: String,
    /// Create or update the stream first
    #[arg(long)]
    create: bool,
    /// Storage of the stream: file or memory
    #[arg(long, default_value = "file", value_parser = ["file", "memory"])]
    storage: String,
    /// Replicas of the stream
    #[arg(long, default_value_t = 1)]
    replicas: u64,
    /// Most bytes in the stream
    #[arg(long, default_value = "1GB", value_parser = parse_size)]
    maxbytes: i64,
    /// Give each message an id, so that duplicates are recognised
    #[arg(long)]
    dedup: bool,
    /// How long duplicates are recognised
    #[arg(long, value_parser = parse_duration, default_value = "2m")]
    dedupwindow: Duration,
    /// Purge the stream first
    #[arg(long)]
    purge: bool,
    /// Let the server acknowledge before the message is on disk (one replica only)
    #[arg(long)]
    persistasync: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct AsyncArgs {
    #[command(flatten)]
    publish: PubArgs,
    /// How many messages are on their way before acknowledgements are awaited
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the stream
    #[arg(long, default_value = "benchstream")]
    stream: String,
    /// Name of the durable consumer; one that is made here is deleted in the end
    #[arg(long, default_value = "nats-bench")]
    consumer: String,
    /// Messages of a fetch, or messages that the client may hold
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Acknowledgements: explicit, none or all
    #[arg(long, default_value = "explicit", value_parser = ["explicit", "none", "all"])]
    acks: String,
    /// Wait for the server to confirm each acknowledgement
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    doubleack: Option<bool>,
    /// Only these subjects
    #[arg(long, value_delimiter = ',')]
    filter: Vec<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct OrderedArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the stream
    #[arg(long, default_value = "benchstream")]
    stream: String,
    /// Messages that the client may hold
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=500))]
    batch: u64,
    /// Only these subjects
    #[arg(long, value_delimiter = ',')]
    filter: Vec<String>,
}

/// Publishes into a stream, a batch at a time.
pub async fn publish_async(global: &Global, args: AsyncArgs) -> Result<(), Failure> {
    publish(global, args.publish, Some(args.batch)).await
}

/// Publishes into a stream; without a batch each message is acknowledged before the next.
pub async fn publish(global: &Global, args: PubArgs, batch: Option<u64>) -> Result<(), Failure> {
    let title = match batch {
        None => "JetStream synchronous publisher",
        Some(_) => "JetStream asynchronous publisher",
    };
    let batch = batch.unwrap_or(1);
    let mut own = vec![
        ("stream", args.stream.clone()),
        ("subject", args.subject.clone()),
        ("batch", comma(batch)),
        ("deduplication", args.dedup.to_string()),
        ("purge", args.purge.to_string()),
    ];
    own.extend(args.subjects.settings());
    if args.create {
        own.push(("storage", args.storage.clone()));
        own.push(("replicas", args.replicas.to_string()));
        own.push(("max-bytes", comma(args.maxbytes)));
        own.push(("dedup-window", duration(args.dedupwindow)));
    }
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    prepare(&Session::open(global).await?, &args).await?;
    let data = args.content.data(&args.common)?;
    let run = Dice::new().id(8);
    let crew = Crew::assemble(global, &args.common, title, "publishing").await?;
    crew.work(move |worker| publisher(worker, args.clone(), batch, data.clone(), run.clone())).await
}

/// Creates and purges the stream as asked, and makes sure that there is one.
async fn prepare(session: &Session, args: &PubArgs) -> Result<(), Failure> {
    let stream = crate::command::stream::name(&args.stream)?;
    if args.create {
        let subject = match args.subjects.multisubject {
            true => format!("{}.>", args.subject),
            false => args.subject.clone(),
        };
        let mut config = json!({
            "name": stream,
            "subjects": [subject],
            "storage": args.storage,
            "num_replicas": args.replicas,
            "max_bytes": args.maxbytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "max_consumers": -1,
            "retention": "limits",
            "discard": "new",
            "allow_direct": true,
            "duplicate_window": args.dedupwindow.as_nanos() as u64,
        });
        if args.persistasync {
            config["persist_mode"] = json!("async");
        }
        let call = |verb: &str| format!("STREAM.{verb}.{stream}");
        let exists = match session.api(&call("INFO"), &json!({}), &format!("get stream {stream}")).await {
            Ok(_) => true,
            Err(Failure::Api { err_code: 10059, .. }) => false,
            Err(failure) => return Err(failure),
        };
        let verb = if exists { "UPDATE" } else { "CREATE" };
        session.api(&call(verb), &config, &format!("{} stream {stream}", verb.to_lowercase())).await?;
    }
    if args.purge {
        let doing = format!("purge stream {stream}");
        session.api(&format!("STREAM.PURGE.{stream}"), &Value::Null, &doing).await?;
    }
    crate::command::stream::fetch(session, stream).await?;
    say!("{} Using stream: {stream}", clock());
    Ok(())
}

async fn publisher(
    mut worker: Worker,
    args: PubArgs,
    batch: u64,
    data: Bytes,
    run: String,
) -> Result<Sample, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::request("publish", error);
    let jetstream = worker.session.jetstream.clone();
    let headers = header_map(&args.content.headers);
    let first = worker.index * worker.messages;
    worker.ready().await;
    let mut sample = Sample::start();
    let mut waiting = Vec::with_capacity(usize::try_from(batch).unwrap_or(0).min(1 << 20));
    let mut begin = Instant::now();
    for number in 0..worker.messages {
        let mut message = PublishMessage::build().payload(data.clone());
        if !headers.is_empty() {
            message = message.headers(headers.clone());
        }
        if args.dedup {
            message = message.message_id(format!("{run}-{}-{number}", worker.index));
        }
        let subject = args.subjects.of(&args.subject, first + number);
        let ack = jetstream.send_publish(subject, message).await.map_err(|error| failed(&error))?;
        waiting.push(ack);
        if waiting.len() as u64 >= batch || number + 1 == worker.messages {
            let count = waiting.len() as u64;
            for ack in waiting.drain(..) {
                ack.await.map_err(|error| failed(&error))?;
            }
            sample.latencies.push(begin.elapsed());
            worker.step(count).await;
            begin = Instant::now();
        }
    }
    sample.stop(worker.messages, data.len() as u64);
    Ok(sample)
}

fn consume_settings(args: &ConsumeArgs) -> String {
    let mut own = vec![
        ("stream", args.stream.clone()),
        ("consumer", args.consumer.clone()),
        ("batch", comma(args.batch)),
        ("acks", args.acks.clone()),
        ("double-acked", (args.doubleack == Some(true)).to_string()),
    ];
    if !args.filter.is_empty() {
        own.push(("filter", args.filter.join(" ")));
    }
    args.common.settings(&own)
}

/// Fetches batches from a durable consumer.
pub async fn fetch(global: &Global, args: ConsumeArgs) -> Result<(), Failure> {
    let title = "JetStream durable consumer (fetch)";
    say!("{} Starting {title} benchmark [{}]", clock(), consume_settings(&args));
    let own = Durable::create(&Session::open(global).await?, &args).await?;
    let crew = Crew::assemble(global, &args.common, title, "expecting").await?;
    let pool = Pool::new(args.common.msgs);
    let done = crew.work(move |worker| fetcher(worker, args.clone(), pool.clone())).await;
    own.remove().await;
    done
}

async fn fetcher(mut worker: Worker, args: ConsumeArgs, pool: Pool) -> Result<Sample, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::request("fetch", error);
    let consumer = open(&worker.session, &args).await?;
    let acker = Acker::of(&args);
    worker.ready().await;
    let mut sample = Sample::start();
    let (mut received, mut bytes) = (0, 0);
    let work = async {
        loop {
            let (begin, left, before) = (Instant::now(), pool.left(), received);
            let wanted = usize::try_from(left.clamp(1, args.batch)).unwrap_or(usize::MAX);
            let fetch = consumer.batch().max_messages(wanted).expires(Duration::from_secs(5));
            let mut messages = fetch.messages().await.map_err(|error| failed(&error))?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| failed(&error))?;
                acker.ack(&message).await?;
                received += 1;
                bytes += message.payload.len() as u64;
                pool.take();
            }
            if pool.left() == left && left > 0 {
                return Err(failed(&format!("no message within 5s, {} are missing", comma(left))));
            }
            sample.latencies.push(begin.elapsed());
            worker.step(received - before).await;
        }
    };
    pool.drain(work).await?;
    worker.session.round_trip().await?; // acknowledgements count once the server has them
    sample.stop(received, 0);
    sample.bytes = bytes;
    Ok(sample)
}

/// Receives from a durable consumer without a pause between batches.
pub async fn consume(global: &Global, args: ConsumeArgs) -> Result<(), Failure> {
    let title = "JetStream durable consumer (callback)";
    say!("{} Starting {title} benchmark [{}]", clock(), consume_settings(&args));
    let own = Durable::create(&Session::open(global).await?, &args).await?;
    let crew = Crew::assemble(global, &args.common, title, "expecting").await?;
    let pool = Pool::new(args.common.msgs);
    let done = crew.work(move |worker| receiver(worker, args.clone(), pool.clone())).await;
    own.remove().await;
    done
}

async fn receiver(mut worker: Worker, args: ConsumeArgs, pool: Pool) -> Result<Sample, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::request("consume", error);
    let consumer = open(&worker.session, &args).await?;
    let acker = Acker::of(&args);
    let batch = usize::try_from(args.batch).unwrap_or(usize::MAX);
    let messages = consumer.stream().max_messages_per_batch(batch).messages().await;
    let mut messages = messages.map_err(|error| failed(&error))?;
    worker.ready().await;
    let mut sample = Sample::start();
    let (mut received, mut bytes) = (0, 0);
    let work = async {
        loop {
            let left = pool.left();
            let next = match tokio::time::timeout(Duration::from_secs(10), messages.next()).await {
                Ok(next) => next,
                // Other clients may have got all that came; only silence for everybody is a failure.
                Err(_) if pool.left() < left => continue,
                Err(_) => return Err(failed(&format!("no message within 10s, {} are missing", comma(left)))),
            };
            let Some(message) = next else { return Err(failed(&"the consumer is gone")) };
            let message = message.map_err(|error| failed(&error))?;
            acker.ack(&message).await?;
            received += 1;
            bytes += message.payload.len() as u64;
            pool.take();
            worker.step(1).await;
        }
    };
    pool.drain(work).await?;
    worker.session.round_trip().await?;
    sample.stop(received, 0);
    sample.bytes = bytes;
    Ok(sample)
}

/// Receives from an ordered consumer of each client's own.
pub async fn ordered(global: &Global, args: OrderedArgs) -> Result<(), Failure> {
    let title = "JetStream ordered ephemeral consumer";
    let mut own = vec![("stream", args.stream.clone()), ("batch", comma(args.batch))];
    if !args.filter.is_empty() {
        own.push(("filter", args.filter.join(" ")));
    }
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let mut common = args.common.clone();
    common.msgs = common.msgs.saturating_mul(common.clients); // every client reads the whole stream
    let crew = Crew::assemble(global, &common, title, "expecting").await?;
    crew.work(move |worker| ordered_receiver(worker, args.clone())).await
}

async fn ordered_receiver(mut worker: Worker, args: OrderedArgs) -> Result<Sample, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::request("consume", error);
    let batch = i64::try_from(args.batch).unwrap_or(i64::MAX);
    let what = Selection { stream: args.stream, from: DeliverPolicy::All, filters: args.filter, batch };
    let mut messages = Ordered::open(&worker.session, what).await?;
    worker.ready().await;
    let mut sample = Sample::start();
    let (mut received, mut bytes) = (0, 0);
    while received < worker.messages {
        let next = tokio::time::timeout(Duration::from_secs(10), messages.next()).await;
        let next = next.map_err(|_| failed(&format!("no message within 10s, after {}", comma(received))))?;
        let Some(message) = next else { return Err(failed(&"the consumer is gone")) };
        received += 1;
        bytes += message?.payload.len() as u64;
        worker.step(1).await;
    }
    sample.stop(received, 0);
    sample.bytes = bytes;
    messages.close().await;
    Ok(sample)
}

async fn open(session: &Session, args: &ConsumeArgs) -> Result<Consumer<pull::Config>, Failure> {
    let consumer = session.jetstream.get_consumer_from_stream(&args.consumer, &args.stream).await;
    consumer
        .map_err(|error| Failure::request(format!("get consumer {} > {}", args.stream, args.consumer), error))
}

/// The durable consumer of a measurement.
struct Durable {
    session: Session,
    stream: String,
    /// Empty when the consumer was there before.
    made: String,
}

impl Durable {
    async fn create(session: &Session, args: &ConsumeArgs) -> Result<Self, Failure> {
        let (stream, consumer) = (args.stream.clone(), args.consumer.clone());
        let found = crate::command::consumer::fetch(session, &stream, &consumer).await;
        if found.is_ok() {
            return Ok(Self { session: session.clone(), stream, made: String::new() });
        }
        let ack_policy = match args.acks.as_str() {
            "none" => AckPolicy::None,
            "all" => AckPolicy::All,
            _ => AckPolicy::Explicit,
        };
        let most = i64::try_from(args.batch.saturating_mul(args.common.clients)).unwrap_or(i64::MAX);
        let config = pull::Config {
            durable_name: Some(consumer.clone()),
            ack_policy,
            filter_subjects: args.filter.clone(),
            max_ack_pending: if ack_policy == AckPolicy::None { 0 } else { most.max(1_000) },
            ..pull::Config::default()
        };
        let created = session.jetstream.create_consumer_on_stream(config, &stream).await;
        created.map_err(|error| Failure::request(format!("create consumer {stream} > {consumer}"), error))?;
        Ok(Self { session: session.clone(), stream, made: consumer })
    }

    /// Removes it again; a failure is only said, as the results are there.
    async fn remove(self) {
        if self.made.is_empty() {
            return;
        }
        let call = format!("CONSUMER.DELETE.{}.{}", self.stream, self.made);
        if let Err(failure) = self.session.api(&call, &Value::Null, "delete the consumer").await {
            eprintln!("headwater: error: {failure}");
        }
    }
}

/// How messages are acknowledged.
#[derive(Clone, Copy)]
enum Acker {
    Nothing,
    Once,
    Confirmed,
}

impl Acker {
    fn of(args: &ConsumeArgs) -> Self {
        match (args.acks.as_str(), args.doubleack == Some(true)) {
            ("none", _) => Self::Nothing,
            (_, true) => Self::Confirmed,
            (_, false) => Self::Once,
        }
    }

    async fn ack(self, message: &Message) -> Result<(), Failure> {
        let done = match self {
            Self::Nothing => return Ok(()),
            Self::Once => message.ack_with(AckKind::Ack).await,
            Self::Confirmed => message.double_ack().await,
        };
        done.map_err(|error| Failure::request("acknowledge", error))
    }
}
