//! `bench`: measuring a server.

mod core;
mod crew;
mod get;
mod js;
mod kv;
mod stats;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::connect::Global;
use super::error::Failure;
use super::template::Dice;
use super::units::{comma, duration, parse_duration, parse_pair, parse_size};

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publish without acknowledgements
    Pub(core::PubArgs),
    /// Receive what bench pub publishes
    Sub(core::SubArgs),
    /// Requests and replies
    #[command(subcommand, visible_alias = "request-reply")]
    Service(Service),
    /// Streams and consumers
    #[command(subcommand)]
    Js(Js),
    /// Key-value buckets
    #[command(subcommand)]
    Kv(Kv),
}

/// Both sides of a service.
#[derive(Debug, clap::Subcommand)]
pub enum Service {
    /// Answer requests until stopped
    Serve(core::ServeArgs),
    /// Send requests and wait for each reply
    Request(core::RequestArgs),
}

/// Streams and consumers.
#[derive(Debug, clap::Subcommand)]
pub enum Js {
    /// Publish into a stream
    #[command(subcommand)]
    Pub(JsPub),
    /// Fetch batches from a durable consumer
    Fetch(js::ConsumeArgs),
    /// Receive continuously from a durable consumer
    Consume(js::ConsumeArgs),
    /// Receive from an ordered consumer
    Ordered(js::OrderedArgs),
    /// Read without a consumer
    #[command(subcommand)]
    Get(JsGet),
}

/// How many messages one request asks for.
#[derive(Debug, clap::Subcommand)]
pub enum JsGet {
    /// One message with each request
    Sync(get::SyncArgs),
    /// Many messages with each request
    Batch(get::BatchArgs),
}

/// How to wait for acknowledgements.
#[derive(Debug, clap::Subcommand)]
pub enum JsPub {
    /// Wait for each acknowledgement before the next message
    Sync(js::PubArgs),
    /// Wait for the acknowledgements of a batch at a time
    Async(js::AsyncArgs),
}

/// Key-value buckets.
#[derive(Debug, clap::Subcommand)]
pub enum Kv {
    /// Put values
    Put(kv::PutArgs),
    /// Get values
    Get(kv::GetArgs),
}

/// Flags of every measurement.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// How many clients work at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub clients: u64,
    /// How many messages, for all clients together
    #[arg(long, default_value_t = 100_000)]
    pub msgs: u64,
    /// Size of the messages that are sent; receivers take them as they come
    #[arg(long, default_value = "128B", value_parser = parse_size)]
    pub size: i64,
    /// Pause after each operation
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub sleep: Duration,
    /// Show the progress [--no-progress to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub progress: Option<bool>,
    /// Write the results to a CSV file
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

impl Common {
    /// How many messages client number `index` gets; the first ones take what cannot be shared evenly.
    fn share(&self, index: u64) -> u64 {
        self.msgs / self.clients + u64::from(index < self.msgs % self.clients)
    }

    fn size(&self) -> usize {
        usize::try_from(self.size).unwrap_or(0)
    }

    /// The settings as the first line shows them, sorted, with those of the measurement itself.
    fn settings(&self, own: &[(&str, String)]) -> String {
        let mut all = vec![
            ("clients", self.clients.to_string()),
            ("msg-size", super::units::bytes(self.size.max(0) as u64)),
            ("msgs", comma(self.msgs)),
            ("sleep", duration(self.sleep)),
        ];
        all.extend_from_slice(own);
        all.sort();
        all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    }
}

/// What is sent.
#[derive(Debug, Clone, clap::Args)]
pub struct Content {
    /// File with the message's data
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// A header, KEY:VALUE
    #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
    headers: Vec<(String, String)>,
}

impl Content {
    /// The data of a message.
    fn data(&self, common: &Common) -> Result<Bytes, Failure> {
        match &self.payload {
            Some(path) => {
                let read = std::fs::read(path).map_err(|error| Failure::file("read", path, error));
                Ok(read?.into())
            }
            // Random, as a server that compresses should not have it too easy.
            None => Ok(Dice::new().id(common.size()).into()),
        }
    }
}

/// Subjects made of a base and a number.
#[derive(Debug, Clone, clap::Args)]
pub struct Subjects {
    /// Publish each message on its own subject
    #[arg(long)]
    multisubject: bool,
    /// Most subjects to use
    #[arg(long, default_value_t = 100_000)]
    multisubjectmax: u64,
}

impl Subjects {
    fn of(&self, base: &str, number: u64) -> String {
        match (self.multisubject, self.multisubjectmax) {
            (false, _) => base.to_owned(),
            (true, 0) => format!("{base}.{number}"),
            (true, most) => format!("{base}.{}", number % most),
        }
    }

    fn settings(&self) -> [(&'static str, String); 2] {
        let most = comma(self.multisubjectmax);
        [("multi-subject", self.multisubject.to_string()), ("multi-subject-max", most)]
    }
}

/// Runs a measurement.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Pub(args) => core::publish(global, args).await,
        Command::Sub(args) => core::subscribe(global, args).await,
        Command::Service(Service::Serve(args)) => core::serve(global, args).await,
        Command::Service(Service::Request(args)) => core::request(global, args).await,
        Command::Js(Js::Pub(JsPub::Sync(args))) => js::publish(global, args, None).await,
        Command::Js(Js::Pub(JsPub::Async(args))) => js::publish_async(global, args).await,
        Command::Js(Js::Fetch(args)) => js::fetch(global, args).await,
        Command::Js(Js::Consume(args)) => js::consume(global, args).await,
        Command::Js(Js::Ordered(args)) => js::ordered(global, args).await,
        Command::Js(Js::Get(JsGet::Sync(args))) => get::sync(global, args).await,
        Command::Js(Js::Get(JsGet::Batch(args))) => get::batch(global, args).await,
        Command::Kv(Kv::Put(args)) => kv::put(global, args).await,
        Command::Kv(Kv::Get(args)) => kv::get(global, args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn every_message_has_a_client() {
        for (clients, msgs) in [(1, 100_000), (3, 10), (7, 3), (4, 0)] {
            let line = format!("x --clients {clients} --msgs {msgs}");
            let common = Probe::try_parse_from(line.split(' ')).unwrap().common;
            let shares: Vec<u64> = (0..clients).map(|index| common.share(index)).collect();
            assert_eq!(shares.iter().sum::<u64>(), msgs, "{shares:?}");
        }
    }

    #[test]
    fn many_subjects_go_round() {
        let subjects = Subjects { multisubject: true, multisubjectmax: 2 };
        assert_eq!([0, 1, 2].map(|n| subjects.of("a", n)), ["a.0", "a.1", "a.0"]);
        let one = Subjects { multisubject: false, multisubjectmax: 2 };
        assert_eq!(one.of("a", 5), "a");
    }
}
