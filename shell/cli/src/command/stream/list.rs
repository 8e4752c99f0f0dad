//! `stream ls`, `stream report` and `stream subjects`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::show::last_message;
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, Table, say, title_case};
use crate::command::units::{self, bytes, comma, local_time, nanoseconds};
use crate::command::view::{ClusterInfo, SourceInfo, StreamInfo};

/// What to list.
#[derive(Debug, Default, clap::Args)]
pub struct LsArgs {
    /// Only streams with subjects that match this one
    #[arg(long)]
    subject: Option<String>,
    /// Print only the names
    #[arg(short, long)]
    names: bool,
    /// Print the streams as the API gives them
    #[arg(short, long)]
    json: bool,
    /// Also list the streams of key-value and object buckets
    #[arg(short, long)]
    all: bool,
}

/// What to report on.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Only streams with subjects that match this one
    #[arg(long)]
    subject: Option<String>,
    /// Only streams in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Sort by the number of consumers
    #[arg(short = 'o', long, group = "sort")]
    consumers: bool,
    /// Sort by the number of messages
    #[arg(short, long, group = "sort")]
    messages: bool,
    /// Sort by name
    #[arg(short, long, group = "sort")]
    name: bool,
    /// Sort by storage
    #[arg(short = 't', long, group = "sort")]
    storage: bool,
    /// Plain numbers
    #[arg(short, long)]
    raw: bool,
    /// Print the streams as the API gives them
    #[arg(short, long)]
    json: bool,
}

/// Which subjects to show.
#[derive(Debug, clap::Args)]
pub struct SubjectsArgs {
    stream: String,
    /// Only subjects that match this one
    #[arg(default_value = ">")]
    filter: String,
    /// Print subjects and counts as JSON
    #[arg(short, long)]
    json: bool,
    /// Sort by name or messages
    #[arg(long, default_value = "messages", value_parser = ["name", "messages"])]
    sort: String,
    /// Reverse the order
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Print only the names
    #[arg(short, long)]
    names: bool,
}

/// Streams that hold a bucket are shown by `kv ls` and `object ls`.
fn is_internal(name: &str) -> bool {
    ["KV_", "OBJ_", "MQTT_", "$MQTT_"].iter().any(|prefix| name.starts_with(prefix))
}

fn filter(subject: Option<&String>) -> Value {
    subject.map_or_else(|| json!({}), |subject| json!({ "subject": subject }))
}

/// Lists streams.
pub async fn ls(session: &Session, args: &LsArgs) -> Result<(), Failure> {
    if args.names {
        let listing = session.api_list("STREAM.NAMES", filter(args.subject.as_ref()), "streams").await?;
        let mut names: Vec<String> = listing.read()?;
        names.retain(|name| args.all || !is_internal(name));
        names.sort();
        if args.json {
            return output::print_json(&names);
        }
        names.iter().for_each(|name| output::line(name));
        return Ok(());
    }
    let listing = session.api_list("STREAM.LIST", filter(args.subject.as_ref()), "streams").await?;
    if args.json {
        listing.print_json();
        return Ok(());
    }
    let mut streams: Vec<StreamInfo> = listing.read()?;
    let hidden = streams.len();
    streams.retain(|info| args.all || !is_internal(&info.config.name));
    let hidden = hidden - streams.len();
    streams.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    match (streams.is_empty(), hidden) {
        (true, 0) => say!("No Streams defined"),
        (true, hidden) => say!("No Streams defined, except for {hidden} of buckets: use --all to see them"),
        (false, _) => print_streams(&streams),
    }
    listing.print_unavailable("Streams");
    Ok(())
}

fn print_streams(streams: &[StreamInfo]) {
    let now = Timestamp::now();
    let columns = ["Name", "Description", "Created", "Messages", "Size", "Last Message"];
    let mut table = Table::new("Streams", columns);
    for info in streams {
        table.row([
            info.config.name.clone(),
            info.config.description.clone(),
            local_time(&info.created),
            comma(info.state.messages),
            bytes(info.state.bytes),
            last_message(info, now),
        ]);
    }
    table.print();
}

/// Reports on streams and replication.
pub async fn report(session: &Session, args: &ReportArgs) -> Result<(), Failure> {
    let listing = session.api_list("STREAM.LIST", filter(args.subject.as_ref()), "streams").await?;
    if args.json {
        listing.print_json();
        return Ok(());
    }
    let mut streams: Vec<StreamInfo> = listing.read()?;
    if let Some(wanted) = &args.cluster {
        streams.retain(|info| info.cluster.as_ref().is_some_and(|cluster| &cluster.name == wanted));
    }
    streams.sort_by(|a, b| {
        let by_name = a.config.name.cmp(&b.config.name);
        if args.consumers {
            a.state.consumer_count.cmp(&b.state.consumer_count).then(by_name)
        } else if args.storage {
            a.config.storage.cmp(&b.config.storage).then(by_name)
        } else if args.name {
            by_name
        } else if args.messages {
            a.state.messages.cmp(&b.state.messages).then(by_name)
        } else {
            a.state.bytes.cmp(&b.state.bytes).then(by_name)
        }
    });
    if streams.is_empty() {
        say!("No Streams defined");
    } else {
        print_report(&streams, args.raw);
        print_replication(&streams);
    }
    listing.print_unavailable("Streams");
    Ok(())
}

fn print_report(streams: &[StreamInfo], raw: bool) {
    let count = |n: u64| if raw { n.to_string() } else { comma(n) };
    let columns = [
        "Stream",
        "Storage",
        "Placement",
        "Consumers",
        "Messages",
        "Bytes",
        "Lost",
        "Deleted",
        "API Level",
        "Replicas",
    ];
    let mut table = Table::new("Stream Report", columns);
    for info in streams {
        let (config, state) = (&info.config, &info.state);
        let placement = config.placement.as_ref().map(|placement| {
            let parts = [("cluster", placement.cluster.clone()), ("tags", placement.tags.join(", "))];
            let parts = parts.iter().filter(|(_, value)| !value.is_empty());
            parts.map(|(label, value)| format!("{label}: {value}")).collect::<Vec<_>>().join(" ")
        });
        let lost = state.lost.as_ref().map_or("0".to_owned(), |lost| {
            let bytes = if raw { lost.bytes.to_string() } else { bytes(lost.bytes) };
            format!("{} ({bytes})", count(lost.msgs.len() as u64))
        });
        table.row([
            config.name.clone(),
            title_case(&config.storage),
            placement.unwrap_or_default(),
            count(state.consumer_count),
            count(state.messages),
            if raw { state.bytes.to_string() } else { bytes(state.bytes) },
            lost,
            count(state.num_deleted),
            config.metadata.get("_nats.req.level").cloned().unwrap_or_default(),
            replicas(info.cluster.as_ref()),
        ]);
    }
    table.print();
}

/// The servers of a group in one cell: the leader with `*`, one that is behind or gone with `!`.
pub fn replicas(cluster: Option<&ClusterInfo>) -> String {
    let Some(cluster) = cluster.filter(|cluster| !cluster.name.is_empty() || !cluster.replicas.is_empty())
    else {
        return String::new();
    };
    let mut peers: Vec<String> = cluster
        .replicas
        .iter()
        .map(|peer| format!("{}{}", peer.name, if peer.offline || !peer.current { "!" } else { "" }))
        .collect();
    if !cluster.leader.is_empty() {
        peers.push(format!("{}*", cluster.leader));
    }
    peers.sort();
    peers.join(", ")
}

fn print_replication(streams: &[StreamInfo]) {
    let columns =
        ["Stream", "Kind", "API Prefix", "Source Stream", "Filters and Transforms", "Active", "Lag", "Error"];
    let mut table = Table::new("Replication Report", columns);
    for info in streams {
        let mirrors = info.mirror.iter().map(|source| ("Mirror", source));
        let sources = info.sources.iter().map(|source| ("Source", source));
        for (kind, source) in mirrors.chain(sources) {
            table.row(replication_row(&info.config.name, kind, source));
        }
    }
    if !table.is_empty() {
        say!();
        table.print();
    }
}

fn replication_row(stream: &str, kind: &str, source: &SourceInfo) -> [String; 8] {
    let mut filters: Vec<String> = Vec::new();
    if !source.filter_subject.is_empty() {
        filters.push(source.filter_subject.clone());
    }
    filters
        .extend(source.subject_transforms.iter().map(|change| format!("{} to {}", change.src, change.dest)));
    [
        stream.to_owned(),
        kind.to_owned(),
        source.external.as_ref().map(|external| external.api.clone()).unwrap_or_default(),
        source.name.clone(),
        filters.join(", "),
        if source.active < 0 { "never".into() } else { nanoseconds(source.active) },
        comma(source.lag),
        source.error.as_ref().map(|error| error.description.clone()).unwrap_or_default(),
    ]
}

/// Shows the subjects in a stream with their messages.
pub async fn subjects(session: &Session, args: &SubjectsArgs) -> Result<(), Failure> {
    let doing = format!("get the subjects of stream {}", args.stream);
    let call = format!("STREAM.INFO.{}", super::name(&args.stream)?);
    let mut all: Vec<(String, u64)> = Vec::new();
    loop {
        // The server answers with at most 100,000 subjects at a time.
        let body = json!({ "subjects_filter": args.filter, "offset": all.len() });
        let info: StreamInfo = session.api(&call, &body, &doing).await?.read()?;
        let page = info.state.subjects.len();
        all.extend(info.state.subjects);
        if page < 100_000 {
            break;
        }
    }
    all.sort_by(|a, b| if args.sort == "name" { a.0.cmp(&b.0) } else { a.1.cmp(&b.1).then(a.0.cmp(&b.0)) });
    if args.reverse {
        all.reverse();
    }
    if args.json {
        let map: serde_json::Map<String, Value> = all.into_iter().map(|(name, n)| (name, n.into())).collect();
        return output::print_json(&map);
    }
    if args.names {
        all.iter().for_each(|(name, _)| output::line(name));
    } else if all.is_empty() {
        say!("No subjects found matching {}", args.filter);
    } else {
        print_subjects(&args.stream, &all);
    }
    Ok(())
}

fn print_subjects(stream: &str, all: &[(String, u64)]) {
    let title = format!("{} Subjects in stream {stream}", units::comma(all.len() as u64));
    let cell = |entry: Option<&(String, u64)>| {
        entry.map(|(name, count)| (name.clone(), comma(*count))).unwrap_or_default()
    };
    if all.iter().any(|(name, _)| name.len() > 40) || all.len() == 1 {
        let mut table = Table::new(title, ["Subject", "Count"]);
        all.iter().for_each(|entry| table.row([entry.0.clone(), comma(entry.1)]));
        return table.print();
    }
    let mut table = Table::new(title, ["Subject", "Count", "Subject", "Count", "Subject", "Count"]);
    for three in all.chunks(3) {
        let [a, b, c] = [cell(three.first()), cell(three.get(1)), cell(three.get(2))];
        table.row([a.0, a.1, b.0, b.1, c.0, c.1]);
    }
    table.print();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::view::Peer;

    #[test]
    fn the_leader_and_the_laggard_are_marked() {
        let peer = |name: &str, current| Peer { name: name.into(), current, ..Peer::default() };
        let cluster = ClusterInfo {
            name: "c".into(),
            leader: "n2".into(),
            replicas: vec![peer("n3", false), peer("n1", true)],
            ..ClusterInfo::default()
        };
        assert_eq!(replicas(Some(&cluster)), "n1, n2*, n3!");
        assert_eq!(replicas(Some(&ClusterInfo { leader: "alone".into(), ..ClusterInfo::default() })), "");
        assert_eq!(replicas(None), "");
    }

    #[test]
    fn buckets_are_not_listed_as_streams() {
        assert!(is_internal("KV_config") && is_internal("OBJ_files"));
        assert!(!is_internal("orders") && !is_internal("MY_KV_"));
    }
}
