//! `service`: services that answer on `$SRV`, and requests to their endpoints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::Request;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{Facts, Table, print_json, raw, say};
use super::publish::header_map;
use super::stream::name as one_token;
use super::units::{comma, duration, local_time, nanoseconds, parse_pair};

/// What can be done with services.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the services
    #[command(visible_aliases = ["ls", "l"])]
    List {
        /// Only instances of this service
        #[arg(value_name = "SERVICE")]
        which: Option<String>,
        /// Print the services' answers
        #[arg(short, long)]
        json: bool,
    },
    /// Show a service and its endpoints
    #[command(visible_alias = "i")]
    Info {
        #[arg(value_name = "SERVICE")]
        which: String,
        /// Only this instance
        id: Option<String>,
        /// Print the services' answers
        #[arg(short, long)]
        json: bool,
    },
    /// Show what a service's endpoints have done
    Stats {
        #[arg(value_name = "SERVICE")]
        which: String,
        /// Only this instance
        id: Option<String>,
        /// Print the services' answers
        #[arg(short, long)]
        json: bool,
    },
    /// Measure the time to every service and back
    Ping {
        /// Only instances of this service
        #[arg(value_name = "SERVICE")]
        which: Option<String>,
    },
    /// Send a request to a service's endpoint
    #[command(visible_alias = "req")]
    Request {
        #[arg(value_name = "SERVICE")]
        which: String,
        endpoint: String,
        #[arg(default_value = "")]
        payload: String,
        /// A header, KEY:VALUE
        #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
        headers: Vec<(String, String)>,
        /// Print only the answer's body
        #[arg(short, long)]
        raw: bool,
    },
}

/// How long answers are taken after the last one.
const QUIET: Duration = Duration::from_millis(300);

/// What a service says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    name: String,
    id: String,
    version: String,
    description: String,
    started: String,
    metadata: Option<BTreeMap<String, String>>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    name: String,
    subject: String,
    queue_group: String,
    num_requests: u64,
    num_errors: u64,
    processing_time: i64,
    average_processing_time: i64,
    metadata: Option<BTreeMap<String, String>>,
}

/// Runs a service command.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let session = &Session::open(global).await?;
    match command {
        Command::List { which, json } => list(session, which.as_deref(), json).await,
        Command::Info { which, id, json } => info(session, (&which, id.as_deref()), json).await,
        Command::Stats { which, id, json } => stats(session, (&which, id.as_deref()), json).await,
        Command::Ping { which } => ping(session, which.as_deref()).await,
        Command::Request { which, endpoint, payload, headers, raw } => {
            request(session, (&which, &endpoint), (payload, &headers), raw).await
        }
    }
}

/// Asks services; the answers that come until it is quiet, with the time that each took.
async fn ask(
    session: &Session,
    verb: &str,
    (which, id): (Option<&str>, Option<&str>),
) -> Result<Vec<(Value, Duration)>, Failure> {
    let mut subject = format!("$SRV.{verb}");
    for part in [which, id].into_iter().flatten() {
        subject = format!("{subject}.{}", one_token(part)?);
    }
    let doing = format!("ask the services on {subject}");
    let inbox = session.client.new_inbox();
    let answers = session.client.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| Failure::request(&doing, error))?;
    let begin = Instant::now();
    let sent = session.client.publish_with_reply(subject, inbox, Bytes::new()).await;
    sent.map_err(|error| Failure::request(&doing, error))?;
    let (mut all, mut patience) = (Vec::new(), session.timeout);
    while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
        if answer.status.is_some() {
            return Err(Failure::request(&doing, "nobody answers: there is no such service"));
        }
        let value: Value =
            serde_json::from_slice(&answer.payload).map_err(|error| Failure::request(&doing, error))?;
        all.push((value, begin.elapsed()));
        patience = QUIET;
    }
    if all.is_empty() { Err(Failure::request(doing, "no answer")) } else { Ok(all) }
}

fn read(answers: &[(Value, Duration)]) -> Result<Vec<Service>, Failure> {
    let read = |(value, _): &(Value, Duration)| serde_json::from_value(value.clone());
    let all: Result<Vec<Service>, _> = answers.iter().map(read).collect();
    let mut all = all.map_err(|error| Failure::request("understand a service's answer", error))?;
    all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(all)
}

fn print_answers(answers: Vec<(Value, Duration)>) -> Result<(), Failure> {
    let values: Vec<Value> = answers.into_iter().map(|(value, _)| value).collect();
    print_json(&values)
}

async fn list(session: &Session, which: Option<&str>, json: bool) -> Result<(), Failure> {
    let answers = ask(session, "INFO", (which, None)).await?;
    if json {
        return print_answers(answers);
    }
    let mut table = Table::new("All Services", ["Name", "Version", "ID", "Description"]);
    for service in read(&answers)? {
        table.row([service.name, service.version, service.id, service.description]);
    }
    table.print();
    Ok(())
}

async fn info(session: &Session, (which, id): (&str, Option<&str>), json: bool) -> Result<(), Failure> {
    let answers = ask(session, "INFO", (Some(which), id)).await?;
    if json {
        return print_answers(answers);
    }
    for service in read(&answers)? {
        let mut facts = Facts::titled("Service Information");
        facts.row("Service", format!("{} ({})", service.name, service.id));
        facts.row_some("Description", &service.description);
        facts.row("Version", &service.version);
        metadata(&mut facts, service.metadata.as_ref());
        for endpoint in service.endpoints.unwrap_or_default() {
            facts.heading(&format!("Endpoint {}", endpoint.name));
            facts.row("Subject", &endpoint.subject);
            facts.row_some("Queue Group", &endpoint.queue_group);
            metadata(&mut facts, endpoint.metadata.as_ref());
        }
        facts.print();
    }
    Ok(())
}

fn metadata(facts: &mut Facts, metadata: Option<&BTreeMap<String, String>>) {
    for (key, value) in metadata.into_iter().flatten() {
        facts.row(&format!("Metadata {key}"), value);
    }
}

async fn stats(session: &Session, (which, id): (&str, Option<&str>), json: bool) -> Result<(), Failure> {
    let answers = ask(session, "STATS", (Some(which), id)).await?;
    if json {
        return print_answers(answers);
    }
    let columns =
        ["ID", "Endpoint", "Requests", "Queue Group", "Errors", "Processing Time", "Average Time", "Started"];
    let mut table = Table::new(format!("{which} Service Statistics"), columns);
    let mut total = Endpoint::default();
    for service in read(&answers)? {
        for endpoint in service.endpoints.unwrap_or_default() {
            total.num_requests += endpoint.num_requests;
            total.num_errors += endpoint.num_errors;
            total.processing_time += endpoint.processing_time;
            table.row([
                service.id.clone(),
                endpoint.name,
                comma(endpoint.num_requests),
                endpoint.queue_group,
                comma(endpoint.num_errors),
                nanoseconds(endpoint.processing_time),
                nanoseconds(endpoint.average_processing_time),
                local_time(&service.started),
            ]);
        }
    }
    let requests = i64::try_from(total.num_requests).unwrap_or(i64::MAX);
    let average = total.processing_time.checked_div(requests).unwrap_or(0);
    let blank = String::new;
    table.row([
        blank(),
        blank(),
        comma(total.num_requests),
        blank(),
        comma(total.num_errors),
        nanoseconds(total.processing_time),
        nanoseconds(average),
        blank(),
    ]);
    table.print();
    Ok(())
}

async fn ping(session: &Session, which: Option<&str>) -> Result<(), Failure> {
    for (value, elapsed) in ask(session, "PING", (which, None)).await? {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        say!("{:<30} {:<24} rtt={}", text("name"), text("id"), duration(elapsed));
    }
    Ok(())
}

async fn request(
    session: &Session,
    (which, endpoint): (&str, &str),
    (payload, headers): (String, &[(String, String)]),
    plain: bool,
) -> Result<(), Failure> {
    let services = read(&ask(session, "INFO", (Some(which), None)).await?)?;
    let mut endpoints = services.into_iter().flat_map(|service| service.endpoints.unwrap_or_default());
    let found = endpoints.find(|found| found.name == endpoint);
    let found = found.ok_or_else(|| Failure::Usage(format!("service {which} has no endpoint {endpoint}")))?;
    let doing = format!("ask {which} on {}", found.subject);
    let request = Request::new().payload(payload.into()).timeout(Some(session.timeout));
    let request = if headers.is_empty() { request } else { request.headers(header_map(headers)) };
    let begin = Instant::now();
    let answer = session.client.send_request(found.subject, request).await;
    let answer = answer.map_err(|error| Failure::request(&doing, error))?;
    let header =
        |name: &str| answer.headers.as_ref().and_then(|headers| headers.get(name)).map(ToString::to_string);
    if let Some(error) = header("Nats-Service-Error") {
        let code = header("Nats-Service-Error-Code").unwrap_or_default();
        return Err(Failure::request(doing, format!("{error} ({code})")));
    }
    if !plain {
        say!("Received with rtt {}", duration(begin.elapsed()));
        for (key, values) in answer.headers.iter().flat_map(async_nats::HeaderMap::iter) {
            values.iter().for_each(|value| say!("{key}: {value}"));
        }
        say!();
    }
    raw(&answer.payload);
    say!();
    Ok(())
}
