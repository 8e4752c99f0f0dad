//! `subscribe`: showing messages, from subjects or out of a stream.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::Message;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull;
use futures_util::stream::{SelectAll, StreamExt};
use jiff::Timestamp;

use super::connect::{Global, Session};
use super::error::Failure;
use super::ordered::{Ordered, Selection};
use super::output::{self, say};
use super::units::{self, comma, parse_duration};

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    subjects: Vec<String>,
    /// Queue group to join
    #[arg(long)]
    queue: Option<String>,
    /// Print only the data
    #[arg(short, long)]
    raw: bool,
    /// Print only the subjects
    #[arg(long, conflicts_with = "raw")]
    subjects_only: bool,
    /// Print only the headers
    #[arg(long, conflicts_with = "raw")]
    headers_only: bool,
    /// Listen on a subject made for this purpose
    #[arg(short, long)]
    inbox: bool,
    /// Stop after this many messages
    #[arg(long)]
    count: Option<u64>,
    /// Stop when nothing came for this long
    #[arg(long, value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Show the time of each message
    #[arg(short, long)]
    timestamp: bool,
    /// Show the time since the start with each message
    #[arg(short, long)]
    delta_time: bool,
    /// Do not show messages on this subject; it may have wildcards
    #[arg(short = 'I', long = "ignore-subject", value_name = "SUBJECT")]
    ignore: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Where in a stream to start. Any of these makes the messages come out of a stream.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "From a stream")]
struct Source {
    /// The stream; without a name it is found by the subject
    #[arg(long)]
    stream: Option<String>,
    /// A durable consumer to use, created if it is not there
    #[arg(long)]
    durable: Option<String>,
    /// Start with the first message
    #[arg(long, group = "start")]
    all: bool,
    /// Start with the next message
    #[arg(long, group = "start")]
    new: bool,
    /// Start with the last message
    #[arg(long, group = "start")]
    last: bool,
    /// Start with the last message of each subject
    #[arg(long, group = "start")]
    last_per_subject: bool,
    /// Start at this sequence
    #[arg(long, group = "start", value_name = "SEQUENCE")]
    start_sequence: Option<u64>,
    /// Start with what came within this time
    #[arg(long, group = "start", value_parser = parse_duration, value_name = "DURATION")]
    since: Option<Duration>,
    /// Stop when everything that is stored has been shown
    #[arg(short = 'T', long)]
    terminate_at_end: bool,
    /// Acknowledge what a durable consumer delivers [--no-ack to refrain]
    #[arg(long, requires = "durable", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ack: Option<bool>,
}

impl Source {
    fn is_asked_for(&self) -> bool {
        let start = self.all || self.new || self.last || self.last_per_subject;
        let place = self.stream.is_some() || self.durable.is_some() || self.ack.is_some();
        start || place || self.start_sequence.is_some() || self.since.is_some() || self.terminate_at_end
    }

    fn policy(&self) -> Result<(DeliverPolicy, String), Failure> {
        Ok(match (self.start_sequence, self.since) {
            (Some(start_sequence), _) => {
                let text = format!("starting with sequence {start_sequence}");
                (DeliverPolicy::ByStartSequence { start_sequence }, text)
            }
            (_, Some(ago)) => {
                let start =
                    Timestamp::now().checked_sub(ago).map_err(|error| Failure::Usage(error.to_string()))?;
                let start_time = async_nats::datetime::from_nanos(start.as_nanosecond())
                    .map_err(|error| Failure::Usage(error.to_string()))?;
                (DeliverPolicy::ByStartTime { start_time }, format!("starting {}", units::local(start)))
            }
            _ if self.new => (DeliverPolicy::New, "delivering any new messages".into()),
            _ if self.last => (DeliverPolicy::Last, "starting with the last message".into()),
            _ if self.last_per_subject => {
                (DeliverPolicy::LastPerSubject, "starting with the last message of each subject".into())
            }
            _ => (DeliverPolicy::All, "from first received message".into()),
        })
    }
}

/// Shows messages until stopped.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let mut args = args;
    if args.inbox {
        args.subjects.push(session.client.new_inbox());
    }
    let mut show = Show { begin: Instant::now(), shown: 0, args };
    let work = async {
        match show.args.source.is_asked_for() {
            true => from_stream(&session, &mut show).await,
            false => from_subjects(&session, &mut show).await,
        }
    };
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn from_subjects(session: &Session, show: &mut Show) -> Result<(), Failure> {
    if show.args.subjects.is_empty() {
        return Err(Failure::Usage("name a subject to subscribe to, or a --stream".into()));
    }
    let mut inboxes = SelectAll::new();
    for subject in &show.args.subjects {
        let subscribed = match &show.args.queue {
            Some(queue) => session.client.queue_subscribe(subject.clone(), queue.clone()).await,
            None => session.client.subscribe(subject.clone()).await,
        };
        inboxes.push(subscribed.map_err(|error| Failure::request(format!("subscribe to {subject}"), error))?);
    }
    session.finish().await?;
    let queue = show.args.queue.as_ref().map(|queue| format!(" in queue {queue:?}")).unwrap_or_default();
    show.note(format!("Subscribing on {}{queue}", show.args.subjects.join(", ")));
    while let Some(message) = show.within_wait(inboxes.next()).await {
        let heading = format!("Received on {:?}", message.subject.as_str());
        let reply = message.reply.as_ref().map(|reply| format!(" with reply {:?}", reply.as_str()));
        if show.message(&message, &(heading + &reply.unwrap_or_default())) {
            break;
        }
    }
    Ok(())
}

async fn from_stream(session: &Session, show: &mut Show) -> Result<(), Failure> {
    let source = &show.args.source;
    if show.args.queue.is_some() {
        return Err(Failure::Usage(
            "a queue group shares what is published, not what is stored: use --durable".into(),
        ));
    }
    let (policy, text) = source.policy()?;
    let name = match (&source.stream, show.args.subjects.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(subject)) => session
            .jetstream
            .stream_by_subject(subject.clone())
            .await
            .map_err(|_| Failure::Usage(format!("no stream captures {subject:?}")))?,
        (None, None) => return Err(Failure::Usage("name a subject or a --stream".into())),
    };
    let subjects = show.args.subjects.clone();
    let what = if subjects.is_empty() { String::new() } else { format!(" subject {}", subjects.join(", ")) };
    let durable = source.durable.clone();
    show.note(format!("Subscribing to stream {name}{what} {text}"));
    match durable {
        Some(durable) => from_durable(session, show, [&name, &durable], policy).await,
        None => {
            let what = Selection { stream: name, from: policy, filters: subjects, batch: 0 };
            let mut messages = Ordered::open(session, what).await?;
            let nothing = messages.pending == 0 && show.args.source.terminate_at_end;
            while !nothing && let Some(message) = show.within_wait(messages.next()).await {
                if show.stored(&message?) {
                    break;
                }
            }
            messages.close().await;
            Ok(())
        }
    }
}

async fn from_durable(
    session: &Session,
    show: &mut Show,
    names: [&str; 2],
    deliver_policy: DeliverPolicy,
) -> Result<(), Failure> {
    let doing = format!("use consumer {} > {}", names[0], names[1]);
    let failed = |error: &dyn std::fmt::Display| Failure::request(&doing, error);
    let stream = session.jetstream.get_stream(names[0]).await.map_err(|error| failed(&error))?;
    let config = pull::Config {
        durable_name: Some(names[1].to_owned()),
        deliver_policy,
        filter_subjects: show.args.subjects.clone(),
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(names[1], config).await.map_err(|error| failed(&error))?;
    if consumer.cached_info().num_pending == 0 && show.args.source.terminate_at_end {
        return Ok(());
    }
    // One at a time: what would be fetched beyond the end would have to wait for its redelivery.
    let messages = consumer.stream().max_messages_per_batch(1).messages().await;
    let mut messages = messages.map_err(|error| failed(&error))?;
    while let Some(next) = show.within_wait(messages.next()).await {
        let message = next.map_err(|error| failed(&error))?;
        let enough = show.stored(&message);
        if show.args.source.ack != Some(false) {
            let sent = message.double_ack().await;
            sent.map_err(|error| Failure::request("acknowledge the message", error))?;
        }
        if enough {
            break;
        }
    }
    Ok(())
}

/// Headers as lines, sorted by name as the library does not keep their order.
pub fn header_lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {}", value.as_str())))
        .collect();
    lines.sort();
    lines
}

struct Show {
    begin: Instant,
    shown: u64,
    args: Args,
}

impl Show {
    fn note(&self, text: String) {
        if !self.args.raw && !self.args.subjects_only {
            eprintln!("{} {text}", units::clock());
        }
    }

    async fn within_wait<T>(&self, next: impl Future<Output = Option<T>>) -> Option<T> {
        match self.args.wait {
            Some(wait) => tokio::time::timeout(wait, next).await.unwrap_or(None),
            None => next.await,
        }
    }

    /// Prints a message out of a stream; true when it was the last one asked for.
    fn stored(&mut self, message: &jetstream::Message) -> bool {
        let Ok(info) = message.info() else { return self.message(message, "Received JetStream message") };
        let time = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).map(units::local);
        let heading = format!(
            "Received JetStream message: stream: {} seq: {} / pending: {} / subject: {} / time: {}",
            info.stream,
            info.stream_sequence,
            comma(info.pending),
            message.subject,
            time.unwrap_or_default()
        );
        self.message(message, &heading) || (info.pending == 0 && self.args.source.terminate_at_end)
    }

    /// Prints a message; true when that was the last one asked for.
    fn message(&mut self, message: &Message, heading: &str) -> bool {
        if self.args.ignore.iter().any(|filter| matches(filter, &message.subject)) {
            return false;
        }
        self.shown += 1;
        if self.args.raw {
            output::raw(&message.payload);
            say!();
        } else if self.args.subjects_only {
            output::line(&message.subject);
        } else {
            self.print(message, heading);
        }
        self.args.count.is_some_and(|count| self.shown >= count)
    }

    fn print(&self, message: &Message, heading: &str) {
        let mut when = String::new();
        if self.args.timestamp {
            when = format!(" @ {}", units::clock());
        } else if self.args.delta_time {
            when = format!(" @ {}", units::duration(self.begin.elapsed()));
        }
        say!("[#{}]{when} {heading}", self.shown);
        let lines = message.headers.as_ref().map(header_lines).unwrap_or_default();
        lines.iter().for_each(|line| output::line(line));
        if !lines.is_empty() {
            say!();
        }
        if !self.args.headers_only {
            output::raw(&message.payload);
            say!("\n");
        }
    }
}

/// Whether a subject matches a filter with wildcards.
fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_by_token() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a", "a.b", false),
            ("a.b", "a", false),
        ];
        for (filter, subject, want) in cases {
            assert_eq!(matches(filter, subject), want, "{filter} {subject}");
        }
    }

    #[test]
    fn headers_are_lines_in_order() {
        let mut headers = HeaderMap::new();
        headers.append("b", "1");
        headers.append("a", "2");
        headers.append("a", "1");
        assert_eq!(header_lines(&headers), ["a: 1", "a: 2", "b: 1"]);
    }
}
