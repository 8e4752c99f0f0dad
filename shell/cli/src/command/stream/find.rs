//! `stream find`: the streams to which everything that is asked for applies.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{Table, line};
use crate::command::units::{self, bytes, comma, local_time, parse_age};
use crate::command::view::StreamInfo;

/// What to look for; all of it must apply.
#[derive(Debug, Default, clap::Args)]
pub struct FindArgs {
    /// With subjects that match this one
    #[arg(long)]
    subject: Option<String>,
    /// Without messages
    #[arg(long)]
    empty: bool,
    /// Without a new message for so long
    #[arg(long, value_parser = parse_age, value_name = "DURATION")]
    idle: Option<Duration>,
    /// Created longer ago than this
    #[arg(long, value_parser = parse_age, value_name = "DURATION")]
    created: Option<Duration>,
    /// With at most so many consumers
    #[arg(long, value_name = "COUNT")]
    consumers: Option<u64>,
    /// With at most so many replicas
    #[arg(long, value_name = "COUNT")]
    replicas: Option<i64>,
    /// That take from other streams
    #[arg(long)]
    sourced: bool,
    /// That mirror another stream
    #[arg(long)]
    mirrored: bool,
    /// The others
    #[arg(long)]
    invert: bool,
    /// Print only the names
    #[arg(short, long)]
    names: bool,
}

impl FindArgs {
    /// Whether everything that is asked for applies to a stream.
    fn applies(&self, info: &StreamInfo, now: Timestamp) -> bool {
        let age = |text: &str| units::api_time(text).map(|at| units::elapsed(at, now));
        // What never had a message is idle since its creation.
        let last = match info.state.messages {
            0 if info.state.last_seq == 0 => age(&info.created),
            _ => age(&info.state.last_ts),
        };
        (!self.empty || info.state.messages == 0)
            && self.idle.is_none_or(|idle| last.is_none_or(|last| last >= idle))
            && self.created.is_none_or(|span| age(&info.created).is_some_and(|age| age >= span))
            && self.consumers.is_none_or(|most| info.state.consumer_count <= most)
            && self.replicas.is_none_or(|most| info.config.num_replicas <= most)
            && (!self.sourced || !info.sources.is_empty())
            && (!self.mirrored || info.mirror.is_some())
    }
}

/// Finds streams.
pub async fn find(session: &Session, args: &FindArgs) -> Result<(), Failure> {
    let filter = args.subject.as_ref().map_or_else(|| json!({}), |subject| json!({ "subject": subject }));
    let mut streams: Vec<StreamInfo> = session.api_list("STREAM.LIST", filter, "streams").await?.read()?;
    let now = Timestamp::now();
    streams.retain(|info| args.applies(info, now) != args.invert);
    streams.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if args.names {
        streams.iter().for_each(|info| line(&info.config.name));
        return Ok(());
    }
    let mut table = Table::new("Streams", ["Name", "Created", "Messages", "Size", "Last Message"]);
    for info in &streams {
        let last = if info.state.messages == 0 {
            "never".to_owned()
        } else {
            units::since(&info.state.last_ts, now)
        };
        table.row([
            info.config.name.clone(),
            local_time(&info.created),
            comma(info.state.messages),
            bytes(info.state.bytes),
            last,
        ]);
    }
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_must_apply() {
        let info = |json: &str| serde_json::from_str::<StreamInfo>(json).unwrap();
        let empty = info(r#"{"created":"2026-01-01T00:00:00Z","state":{"messages":0,"consumer_count":1}}"#);
        let used = info(
            r#"{"created":"2026-01-01T00:00:00Z","config":{"num_replicas":3},
            "state":{"messages":5,"last_seq":5,"last_ts":"2026-01-02T00:00:00Z","consumer_count":4}}"#,
        );
        let now: Timestamp = "2026-01-02T01:00:00Z".parse().unwrap();
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        for (args, of_empty, of_used) in [
            (FindArgs::default(), true, true),
            (FindArgs { empty: true, ..FindArgs::default() }, true, false),
            (FindArgs { idle: hours(2), ..FindArgs::default() }, true, false),
            (FindArgs { created: hours(48), ..FindArgs::default() }, false, false),
            (FindArgs { consumers: Some(1), ..FindArgs::default() }, true, false),
            (FindArgs { replicas: Some(2), ..FindArgs::default() }, true, false),
            (FindArgs { mirrored: true, ..FindArgs::default() }, false, false),
            (FindArgs { empty: true, mirrored: true, ..FindArgs::default() }, false, false),
        ] {
            assert_eq!(
                (args.applies(&empty, now), args.applies(&used, now)),
                (of_empty, of_used),
                "{args:?}"
            );
        }
    }
}
