//! `server check`: the probes' flags.

use std::time::Duration;

use super::probe;
use super::verdict::{Format, Verdict};
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::units::parse_duration;

/// What can be checked.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The connection: connect time, round trip, request
    #[command(visible_alias = "conn")]
    Connection(ConnectionArgs),
    /// The account's JetStream: storage, limits, replicas
    #[command(visible_alias = "js")]
    Jetstream(JetStreamArgs),
    /// A stream: messages, subjects, sources, replicas
    #[command(visible_alias = "str")]
    Stream(StreamArgs),
    /// A consumer: what waits, what is not acknowledged, when it was last used
    Consumer(ConsumerArgs),
}

/// How the outcome is written.
#[derive(Debug, Clone, clap::Args)]
pub struct Outcome {
    /// How to write the outcome
    #[arg(long, value_enum, default_value = "nagios")]
    format: Format,
    /// The name of the check in the outcome
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct ConnectionArgs {
    #[command(flatten)]
    outcome: Outcome,
    /// Warn when connecting takes this long
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    pub connect_warn: Duration,
    /// Critical when connecting takes this long
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub connect_critical: Duration,
    /// Warn when the round trip takes this long
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    pub rtt_warn: Duration,
    /// Critical when the round trip takes this long
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub rtt_critical: Duration,
    /// Warn when a request and its reply take this long
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    pub req_warn: Duration,
    /// Critical when a request and its reply take this long
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub req_critical: Duration,
}

#[derive(Debug, clap::Args)]
pub struct JetStreamArgs {
    #[command(flatten)]
    outcome: Outcome,
    /// Warn at this percentage of the memory limit
    #[arg(long, default_value_t = 75.0, allow_negative_numbers = true)]
    pub mem_warn: f64,
    /// Critical at this percentage of the memory limit
    #[arg(long, default_value_t = 90.0, allow_negative_numbers = true)]
    pub mem_critical: f64,
    /// Warn at this percentage of the storage limit
    #[arg(long, default_value_t = 75.0, allow_negative_numbers = true)]
    pub store_warn: f64,
    /// Critical at this percentage of the storage limit
    #[arg(long, default_value_t = 90.0, allow_negative_numbers = true)]
    pub store_critical: f64,
    /// Warn at this percentage of the allowed streams
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub streams_warn: f64,
    /// Critical at this percentage of the allowed streams
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub streams_critical: f64,
    /// Warn at this percentage of the allowed consumers
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub consumers_warn: f64,
    /// Critical at this percentage of the allowed consumers
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub consumers_critical: f64,
    /// Whether every stream has healthy replicas [--no-replicas to leave that out]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub replicas: Option<bool>,
    /// Critical when a replica was not seen for this long
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    pub replica_seen_critical: Duration,
    /// Critical when a replica is this many operations behind
    #[arg(long, default_value_t = 200)]
    pub replica_lag_critical: u64,
}

#[derive(Debug, clap::Args)]
pub struct StreamArgs {
    #[command(flatten)]
    outcome: Outcome,
    /// The stream
    #[arg(long)]
    pub stream: String,
    /// Critical when a source or mirror is this many messages behind
    #[arg(long, value_name = "MESSAGES")]
    pub lag_critical: Option<u64>,
    /// Critical when a source or mirror was not seen for this long
    #[arg(long, value_parser = parse_duration)]
    pub seen_critical: Option<Duration>,
    /// Fewest sources to expect
    #[arg(long)]
    pub min_sources: Option<usize>,
    /// Most sources to expect
    #[arg(long)]
    pub max_sources: Option<usize>,
    /// How many replicas to expect
    #[arg(long, value_name = "SERVERS")]
    pub peer_expect: Option<usize>,
    /// Critical when a replica is this many operations behind
    #[arg(long, value_name = "OPERATIONS")]
    pub peer_lag_critical: Option<u64>,
    /// Critical when a replica was not seen for this long
    #[arg(long, value_parser = parse_duration)]
    pub peer_seen_critical: Option<Duration>,
    /// Warn when there are no more messages than this
    #[arg(long)]
    pub msgs_warn: Option<u64>,
    /// Critical when there are no more messages than this
    #[arg(long)]
    pub msgs_critical: Option<u64>,
    /// Warn at this many subjects
    #[arg(long)]
    pub subjects_warn: Option<u64>,
    /// Critical at this many subjects
    #[arg(long)]
    pub subjects_critical: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct ConsumerArgs {
    #[command(flatten)]
    outcome: Outcome,
    /// The stream
    #[arg(long)]
    pub stream: String,
    /// The consumer
    #[arg(long)]
    pub consumer: String,
    /// Most messages without an acknowledgement
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub outstanding_ack_critical: i64,
    /// Most waiting pulls
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub waiting_critical: i64,
    /// Most unprocessed messages
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub unprocessed_critical: i64,
    /// Longest time since the last delivery
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub last_delivery_critical: Duration,
    /// Longest time since the last acknowledgement
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub last_ack_critical: Duration,
    /// Most redelivered messages
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub redelivery_critical: i64,
    /// Every priority group has a pinned client
    #[arg(long)]
    pub pinned: bool,
}

/// Runs a check. What goes wrong on the way is part of the outcome.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let (outcome, suite, name) = match &command {
        Command::Connection(args) => (args.outcome.clone(), "connections", "Connection".to_owned()),
        Command::Jetstream(args) => (args.outcome.clone(), "jetstream", "JetStream".to_owned()),
        Command::Stream(args) => (args.outcome.clone(), "stream", args.stream.clone()),
        Command::Consumer(args) => {
            (args.outcome.clone(), "consumer", format!("{}_{}", args.stream, args.consumer))
        }
    };
    let mut verdict = Verdict::new(suite, outcome.name.unwrap_or(name));
    let begin = std::time::Instant::now();
    let session = match Session::open(global).await {
        Ok(session) => session,
        Err(failure @ (Failure::Connect { .. } | Failure::Request { .. })) => {
            verdict.critical(format!("connection failed: {failure}"));
            return verdict.deliver(outcome.format);
        }
        Err(failure) => {
            // A command line or a file that makes no sense says nothing about the server.
            eprintln!("headwater: error: {failure}");
            return Err(Failure::Silent(3));
        }
    };
    let connected = begin.elapsed();
    let done = match &command {
        Command::Connection(args) => probe::connection(&session, args, connected, &mut verdict).await,
        Command::Jetstream(args) => probe::jetstream(&session, args, &mut verdict).await,
        Command::Stream(args) => probe::stream(&session, args, &mut verdict).await,
        Command::Consumer(args) => probe::consumer(&session, args, &mut verdict).await,
    };
    if let Err(failure) = done {
        verdict.critical(failure.to_string());
    }
    verdict.deliver(outcome.format)
}
