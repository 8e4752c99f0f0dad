//! Measurements of key-value buckets.

use std::time::Instant;

use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::StorageType;
use bytes::Bytes;
use serde_json::Value;

use super::Common;
use super::crew::{Crew, Worker};
use super::stats::Sample;
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::template::Dice;
use crate::command::units::{clock, comma, parse_size};

#[derive(Debug, Clone, clap::Args)]
pub struct PutArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the bucket, created if it is not there
    #[arg(long, default_value = "benchbucket")]
    bucket: String,
    /// Storage of a new bucket: file or memory
    #[arg(long, default_value = "file", value_parser = ["file", "memory"])]
    storage: String,
    /// Replicas of a new bucket
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Most bytes in a new bucket
    #[arg(long, default_value = "1GB", value_parser = parse_size)]
    maxbytes: i64,
    /// Values that a new bucket keeps of each key
    #[arg(long, default_value_t = 1)]
    history: i64,
    /// Empty the bucket first
    #[arg(long)]
    purge: bool,
    /// Use random keys below this number instead of one after the other
    #[arg(long, default_value_t = 0)]
    randomize: u64,
}

#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    #[command(flatten)]
    common: Common,
    /// Name of the bucket
    #[arg(long, default_value = "benchbucket")]
    bucket: String,
    /// Use random keys below this number instead of one after the other
    #[arg(long, default_value_t = 0)]
    randomize: u64,
}

/// Puts values.
pub async fn put(global: &Global, args: PutArgs) -> Result<(), Failure> {
    let title = "JetStream KV putter";
    let own = [
        ("bucket", args.bucket.clone()),
        ("purge", args.purge.to_string()),
        ("randomize", comma(args.randomize)),
    ];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let session = Session::open(global).await?;
    if session.jetstream.get_key_value(&args.bucket).await.is_err() {
        let config = async_nats::jetstream::kv::Config {
            bucket: args.bucket.clone(),
            history: args.history,
            max_bytes: args.maxbytes,
            num_replicas: args.replicas,
            storage: if args.storage == "memory" { StorageType::Memory } else { StorageType::File },
            ..async_nats::jetstream::kv::Config::default()
        };
        let created = session.jetstream.create_key_value(config).await;
        created.map_err(|error| Failure::request(format!("create bucket {}", args.bucket), error))?;
    }
    if args.purge {
        let doing = format!("purge bucket {}", args.bucket);
        session.api(&format!("STREAM.PURGE.KV_{}", args.bucket), &Value::Null, &doing).await?;
    }
    let data = Bytes::from(Dice::new().id(args.common.size()));
    let crew = Crew::assemble(global, &args.common, title, "publishing").await?;
    crew.work(move |worker| putter(worker, args.clone(), data.clone())).await
}

async fn open(session: &Session, bucket: &str) -> Result<Store, Failure> {
    let store = session.jetstream.get_key_value(bucket).await;
    store.map_err(|error| Failure::request(format!("open bucket {bucket}"), error))
}

/// The key of an operation.
fn key(randomize: u64, number: u64, dice: &mut Dice) -> String {
    if randomize > 0 { dice.between(0, randomize - 1).to_string() } else { number.to_string() }
}

async fn putter(mut worker: Worker, args: PutArgs, data: Bytes) -> Result<Sample, Failure> {
    let store = open(&worker.session, &args.bucket).await?;
    let (mut dice, first) = (Dice::new(), worker.index * worker.messages);
    worker.ready().await;
    let mut sample = Sample::start();
    for number in 0..worker.messages {
        let key = key(args.randomize, first + number, &mut dice);
        let begin = Instant::now();
        let put = store.put(&key, data.clone()).await;
        put.map_err(|error| Failure::request(format!("put {key}"), error))?;
        sample.latencies.push(begin.elapsed());
        worker.step(1).await;
    }
    sample.stop(worker.messages, data.len() as u64);
    Ok(sample)
}

/// Gets values.
pub async fn get(global: &Global, args: GetArgs) -> Result<(), Failure> {
    let title = "JetStream KV getter";
    let own = [("bucket", args.bucket.clone()), ("randomize", comma(args.randomize))];
    say!("{} Starting {title} benchmark [{}]", clock(), args.common.settings(&own));
    let crew = Crew::assemble(global, &args.common, title, "trying to get").await?;
    crew.work(move |worker| getter(worker, args.clone())).await
}

async fn getter(mut worker: Worker, args: GetArgs) -> Result<Sample, Failure> {
    let store = open(&worker.session, &args.bucket).await?;
    let (mut dice, first) = (Dice::new(), worker.index * worker.messages);
    worker.ready().await;
    let mut sample = Sample::start();
    let mut bytes = 0;
    for number in 0..worker.messages {
        let key = key(args.randomize, first + number, &mut dice);
        let begin = Instant::now();
        let got = store.get(&key).await.map_err(|error| Failure::request(format!("get {key}"), error))?;
        sample.latencies.push(begin.elapsed());
        let Some(value) = got else {
            return Err(Failure::request(format!("get {key}"), "key not found, run bench kv put first"));
        };
        bytes += value.len() as u64;
        worker.step(1).await;
    }
    sample.stop(worker.messages, 0);
    sample.bytes = bytes;
    Ok(sample)
}
