//! Measurements without JetStream: publish, subscribe, request and reply.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;

use super::crew::{Crew, Worker};
use super::stats::Sample;
use super::{Common, Content, Subjects};
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::publish::header_map;
use crate::command::units::clock;

#[derive(Debug, Clone, clap::Args)]
pub struct PubArgs {
    subject: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    subjects: Subjects,
}

#[derive(Debug, Clone, clap::Args)]
pub struct SubArgs {
    subject: String,
    #[command(flatten)]
    common: Common,
    /// Receive from all subjects of bench pub --multisubject
    #[arg(long)]
    multisubject: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RequestArgs {
    subject: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    content: Content,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    subject: String,
    /// How many clients answer
    #[arg(long, default_value_t = 1)]
    clients: u64,
    /// Size of the replies
    #[arg(long, default_value = "128B", value_parser = crate::command::units::parse_size)]
    size: i64,
}

fn failed(doing: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    let doing = doing.to_owned();
    move |error| Failure::request(&doing, error)
}

/// Publishes as fast as it goes.
pub async fn publish(global: &Global, args: PubArgs) -> Result<(), Failure> {
    let title = "Core NATS publisher";
    let mut own = vec![("subject", args.subject.clone())];
    own.extend(args.subjects.settings());
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let data = args.content.data(&args.common)?;
    let crew = Crew::assemble(global, &args.common, title, "publishing").await?;
    crew.work(move |worker| publisher(worker, args.clone(), data.clone())).await
}

async fn publisher(mut worker: Worker, args: PubArgs, data: Bytes) -> Result<Sample, Failure> {
    let failed = failed("publish");
    let client = worker.session.client.clone();
    let headers = header_map(&args.content.headers);
    let first = worker.index * worker.messages;
    let one = async_nats::Subject::from(args.subject.clone());
    worker.ready().await;
    let mut sample = Sample::start();
    sample.latencies.reserve(usize::try_from(worker.messages).unwrap_or(0));
    for number in 0..worker.messages {
        let subject = match args.subjects.multisubject {
            true => args.subjects.of(&args.subject, first + number).into(),
            false => one.clone(),
        };
        let begin = Instant::now();
        let sent = match headers.is_empty() {
            true => client.publish(subject, data.clone()).await,
            false => client.publish_with_headers(subject, headers.clone(), data.clone()).await,
        };
        sent.map_err(|error| failed(&error))?;
        sample.latencies.push(begin.elapsed());
        worker.step(1).await;
    }
    client.flush().await.map_err(|error| failed(&error))?;
    // Messages count once the server has them: it answers in order.
    worker.session.round_trip().await?;
    sample.stop(worker.messages, data.len() as u64);
    Ok(sample)
}

/// Receives until the share of each client has come.
pub async fn subscribe(global: &Global, args: SubArgs) -> Result<(), Failure> {
    let title = "Core NATS subscriber";
    let own = [("subject", args.subject.clone()), ("multi-subject", args.multisubject.to_string())];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    // Every subscriber gets every message.
    let mut common = args.common.clone();
    common.msgs = common.msgs.saturating_mul(common.clients);
    let crew = Crew::assemble(global, &common, title, "expecting").await?;
    crew.work(move |worker| subscriber(worker, args.clone())).await
}

async fn subscriber(mut worker: Worker, args: SubArgs) -> Result<Sample, Failure> {
    let failed = failed("subscribe");
    let subject = if args.multisubject { format!("{}.>", args.subject) } else { args.subject.clone() };
    let mut messages = worker.session.client.subscribe(subject).await.map_err(|error| failed(&error))?;
    worker.session.finish().await?;
    let mut sample = Sample::start();
    let (mut received, mut bytes) = (0, 0);
    while received < worker.messages {
        let Some(message) = messages.next().await else {
            return Err(failed(&"the connection was closed"));
        };
        if received == 0 {
            sample = Sample::start(); // waiting for the publisher is not receiving
        }
        received += 1;
        bytes += message.payload.len() as u64;
        worker.step(1).await;
    }
    sample.stop(received, 0);
    sample.bytes = bytes;
    Ok(sample)
}

/// Requests one after the other.
pub async fn request(global: &Global, args: RequestArgs) -> Result<(), Failure> {
    let title = "Core NATS service requester";
    let own = [("subject", args.subject.clone())];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let data = args.content.data(&args.common)?;
    let crew = Crew::assemble(global, &args.common, title, "requesting").await?;
    crew.work(move |worker| requester(worker, args.clone(), data.clone())).await
}

async fn requester(mut worker: Worker, args: RequestArgs, data: Bytes) -> Result<Sample, Failure> {
    let doing = format!("request {:?}", args.subject);
    let headers = header_map(&args.content.headers);
    let client = worker.session.client.clone();
    worker.ready().await;
    let mut sample = Sample::start();
    for _ in 0..worker.messages {
        let mut request = async_nats::Request::new().payload(data.clone());
        if !headers.is_empty() {
            request = request.headers(headers.clone());
        }
        let begin = Instant::now();
        let reply = client.send_request(args.subject.clone(), request).await;
        reply.map_err(|error| Failure::request(&doing, error))?;
        sample.latencies.push(begin.elapsed());
        worker.step(1).await;
    }
    sample.stop(worker.messages, data.len() as u64);
    Ok(sample)
}

/// Answers requests until stopped.
pub async fn serve(global: &Global, args: ServeArgs) -> Result<(), Failure> {
    let failed = failed("serve");
    let data = Bytes::from(crate::command::template::Dice::new().id(usize::try_from(args.size).unwrap_or(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=args.clients.max(1) {
        let session = Session::open(global).await?;
        let subscribed = session.client.queue_subscribe(args.subject.clone(), "bench-service".into()).await;
        let mut requests = subscribed.map_err(|error| failed(&error))?;
        session.finish().await?;
        say!("{} [{number}] Starting Core NATS service server, hit control-c to stop", clock());
        let data = data.clone();
        tasks.spawn(async move {
            while let Some(request) = requests.next().await {
                if let Some(reply) = request.reply
                    && let Err(error) = session.client.publish(reply, data.clone()).await
                {
                    return Err(Failure::request("reply", error));
                }
            }
            Ok(())
        });
    }
    tokio::select! {
        done = tasks.join_next() => match done {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(failed(&error)),
            None => Ok(()),
        },
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
