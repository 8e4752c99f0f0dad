//! `events`: advisories as they happen.

use futures_util::stream::{SelectAll, StreamExt};
use serde_json::Value;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, Facts, say, title_case};
use super::units;

/// Which events to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All events, those of connections among them
    #[arg(short, long)]
    all: bool,
    /// Print the events as they are
    #[arg(short, long)]
    json: bool,
    /// A line for each event
    #[arg(long)]
    short: bool,
    /// Only events that contain this text
    #[arg(long)]
    filter: Option<String>,
    /// JetStream metrics
    #[arg(long)]
    js_metric: bool,
    /// JetStream advisories (the default)
    #[arg(long)]
    js_advisory: bool,
    /// Connections, disconnections and authentication errors (needs a system account)
    #[arg(long)]
    srv_advisory: bool,
    /// Events on these subjects
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Stop after this many events
    #[arg(long)]
    count: Option<u64>,
}

impl Args {
    fn subjects(&self) -> Vec<(String, String)> {
        let mut subjects: Vec<(&str, &str)> = Vec::new();
        let nothing_chosen = !self.js_metric && !self.srv_advisory && self.subjects.is_empty();
        if self.all || self.js_advisory || nothing_chosen {
            subjects.push(("Advisories", "$JS.EVENT.ADVISORY.>"));
        }
        if self.all || self.js_metric {
            subjects.push(("Metrics", "$JS.EVENT.METRIC.>"));
        }
        if self.all || self.srv_advisory {
            subjects.push(("Client Connection events", "$SYS.ACCOUNT.*.CONNECT"));
            subjects.push(("Client Disconnection events", "$SYS.ACCOUNT.*.DISCONNECT"));
            subjects.push(("Authentication Errors events", "$SYS.SERVER.*.CLIENT.AUTH.ERR"));
        }
        let own = self.subjects.iter().map(|subject| ("Events", subject.as_str()));
        let all = subjects.into_iter().chain(own);
        all.map(|(what, subject)| (what.to_owned(), subject.to_owned())).collect()
    }
}

/// Shows events until stopped.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let mut events = SelectAll::new();
    for (what, subject) in args.subjects() {
        eprintln!("Listening for {what} on {subject}");
        let subscribed = session.client.subscribe(subject.clone()).await;
        events.push(subscribed.map_err(|error| Failure::request(format!("subscribe to {subject}"), error))?);
    }
    session.finish().await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = event else { break };
        let text = String::from_utf8_lossy(&event.payload);
        if args.filter.as_ref().is_some_and(|filter| !text.contains(filter)) {
            continue;
        }
        left -= 1;
        match serde_json::from_str::<Value>(&text) {
            Ok(_) if args.json => output::line(&output::indent_json(&text)),
            Ok(value) if args.short => output::line(&short(&value)),
            Ok(value) => long(&value),
            Err(_) => say!("[{}] {}\n\n{text}\n", units::clock(), event.subject),
        }
    }
    Ok(())
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What kind of event it is, from `io.nats.jetstream.advisory.v1.stream_action`.
fn kind(event: &Value) -> String {
    let word = text(event, "type").rsplit('.').next().unwrap_or_default();
    let name = match word {
        "api_audit" => "JetStream API Access".into(),
        "" => "Event".into(),
        word => title_case(word),
    };
    match text(event, "action") {
        "" => name,
        action => format!("{name} {}", title_case(action)),
    }
}

fn short(event: &Value) -> String {
    let keys = ["stream", "consumer", "stream_seq", "subject", "deliveries", "reason", "server"];
    let parts = keys.iter().filter_map(|key| match event.get(*key)? {
        Value::String(value) => Some(format!("{key}: {value}")),
        Value::Number(value) => Some(format!("{key}: {value}")),
        _ => None,
    });
    format!("[{}] [{}] {}", units::clock(), kind(event), parts.collect::<Vec<_>>().join(" "))
}

fn long(event: &Value) {
    let clock = units::api_time(text(event, "timestamp"));
    let clock = clock.map_or_else(units::clock, |at| units::local(at)[11..].to_owned());
    let mut facts = Facts::titled(format!("[{clock}] [{}] {}", text(event, "id"), kind(event)));
    for (key, value) in event.as_object().into_iter().flatten() {
        if matches!(key.as_str(), "type" | "id" | "timestamp" | "action") {
            continue;
        }
        match value {
            Value::String(value) => facts.row_some(&title_case(key), value),
            Value::Object(fields) => {
                let plain = fields.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
                let parts = plain.map(|(key, value)| match value {
                    Value::String(value) => format!("{key}={value}"),
                    value => format!("{key}={value}"),
                });
                facts.row_some(&title_case(key), &parts.collect::<Vec<_>>().join(" "));
            }
            value => facts.row(&title_case(key), value.to_string()),
        }
    }
    facts.print();
    say!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_well() {
        let cases = [
            (
                r#"{"type":"io.nats.jetstream.advisory.v1.stream_action","action":"create"}"#,
                "Stream Action Create",
            ),
            (r#"{"type":"io.nats.jetstream.advisory.v1.api_audit"}"#, "JetStream API Access"),
            (r#"{"type":"io.nats.jetstream.advisory.v1.max_deliver"}"#, "Max Deliver"),
            ("{}", "Event"),
        ];
        for (json, want) in cases {
            assert_eq!(kind(&serde_json::from_str(json).unwrap()), want);
        }
    }

    #[test]
    fn a_short_event_is_one_line() {
        let json = r#"{"type":"a.max_deliver","stream":"S","consumer":"C","stream_seq":3,"x":{}}"#;
        let line = short(&serde_json::from_str(json).unwrap());
        assert!(line.ends_with("[Max Deliver] stream: S consumer: C stream_seq: 3"), "{line}");
    }
}
