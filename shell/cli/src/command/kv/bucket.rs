//! Key-value buckets as the streams that they are.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, Facts, Table, say, title_case};
use crate::command::stream::show::{cluster_facts, last_message};
use crate::command::units::{
    bytes, bytes_limit, comma, duration_limit, local_time, nanoseconds, parse_age, parse_pair, parse_size,
};
use crate::command::view::{StreamInfo, own_metadata};

/// A bucket to create.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    bucket: String,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// How many values to keep of each key
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    history: u64,
    /// Storage backend: file or memory
    #[arg(long, default_value = "file", value_parser = ["file", "memory"])]
    storage: String,
    /// How long to keep values
    #[arg(long, value_parser = parse_age)]
    ttl: Option<Duration>,
    /// Let keys have their own time to live, and keep markers of those that expired for this long
    #[arg(long, value_parser = parse_age)]
    marker_ttl: Option<Duration>,
    /// How many servers hold the data
    #[arg(long, default_value_t = 1)]
    replicas: u64,
    /// Largest value
    #[arg(long, value_parser = parse_size, allow_hyphen_values = true)]
    max_value_size: Option<i64>,
    /// Most bytes in the bucket
    #[arg(long, value_parser = parse_size, allow_hyphen_values = true)]
    max_bucket_size: Option<i64>,
    /// Place the bucket on servers with this tag
    #[arg(long)]
    tags: Vec<String>,
    /// Place the bucket in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Compress the data
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    /// Metadata, KEY:VALUE
    #[arg(long, value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// Subjects to publish again once stored
    #[arg(long, requires = "republish_destination", value_name = "SUBJECT")]
    republish_source: Option<String>,
    /// Where to publish them
    #[arg(long, value_name = "SUBJECT")]
    republish_destination: Option<String>,
    /// Publish only headers again
    #[arg(long, requires = "republish_destination")]
    republish_headers: bool,
    /// Print the API's response
    #[arg(short, long)]
    json: bool,
}

/// The name of a bucket's stream.
pub fn stream_name(bucket: &str) -> Result<String, Failure> {
    let good = !bucket.is_empty() && bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if good {
        Ok(format!("KV_{bucket}"))
    } else {
        Err(Failure::Usage(format!("{bucket:?} is not a valid bucket name")))
    }
}

/// A bucket's stream.
pub async fn fetch(session: &Session, bucket: &str) -> Result<StreamInfo, Failure> {
    let call = format!("STREAM.INFO.{}", stream_name(bucket)?);
    session.api(&call, &json!({}), &format!("find bucket {bucket}")).await?.read()
}

impl AddArgs {
    fn config(&self) -> Result<Value, Failure> {
        let ttl = self.ttl.unwrap_or_default().as_nanos() as u64;
        let two_minutes = 120_000_000_000;
        let mut config = json!({
            "name": stream_name(&self.bucket)?,
            "subjects": [format!("$KV.{}.>", self.bucket)],
            "storage": self.storage,
            "retention": "limits",
            "discard": "new",
            "num_replicas": self.replicas,
            "max_msgs_per_subject": self.history,
            "max_msgs": -1,
            "max_consumers": -1,
            "max_bytes": self.max_bucket_size.unwrap_or(-1),
            "max_msg_size": self.max_value_size.unwrap_or(-1),
            "max_age": ttl,
            "duplicate_window": if ttl > 0 && ttl < two_minutes { ttl } else { two_minutes },
            "deny_delete": true,
            "allow_rollup_hdrs": true,
            "allow_direct": true,
        });
        if let Some(description) = &self.description {
            config["description"] = json!(description);
        }
        if let Some(marker) = self.marker_ttl {
            config["allow_msg_ttl"] = json!(true);
            config["subject_delete_marker_ttl"] = json!(marker.as_nanos() as u64);
        }
        if self.compress == Some(true) {
            config["compression"] = json!("s2");
        }
        if !self.tags.is_empty() {
            config["placement"]["tags"] = json!(self.tags);
        }
        if let Some(cluster) = &self.cluster {
            config["placement"]["cluster"] = json!(cluster);
        }
        for (key, value) in &self.metadata {
            config["metadata"][key] = json!(value);
        }
        if let Some(destination) = &self.republish_destination {
            let source = self.republish_source.as_deref().unwrap_or(">");
            config["republish"] =
                json!({ "src": source, "dest": destination, "headers_only": self.republish_headers });
        }
        Ok(config)
    }
}

/// Creates a bucket.
pub async fn add(session: &Session, args: &AddArgs) -> Result<(), Failure> {
    let call = format!("STREAM.CREATE.{}", stream_name(&args.bucket)?);
    let answer = session.api(&call, &args.config()?, &format!("create bucket {}", args.bucket)).await?;
    if args.json {
        answer.print_json();
        return Ok(());
    }
    print(&args.bucket, &answer.read()?);
    Ok(())
}

/// Deletes a bucket.
pub async fn remove(session: &Session, bucket: &str, force: bool) -> Result<(), Failure> {
    let call = format!("STREAM.DELETE.{}", stream_name(bucket)?);
    output::confirm(&format!("deleting bucket {bucket} with all its keys"), force)?;
    session.api(&call, &Value::Null, &format!("delete bucket {bucket}")).await.map(|_| ())
}

/// Lists buckets.
pub async fn ls(session: &Session, names: bool, json: bool) -> Result<(), Failure> {
    let listing = session.api_list("STREAM.LIST", json!({ "subject": "$KV.>" }), "streams").await?;
    let all: Vec<StreamInfo> = listing.read()?;
    let mut buckets: Vec<(String, StreamInfo)> = all
        .into_iter()
        .filter_map(|info| {
            info.config.name.strip_prefix("KV_").map(ToOwned::to_owned).map(|name| (name, info))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.cmp(&b.0));
    match (names, json) {
        (true, true) => return output::print_json(&buckets.iter().map(|(name, _)| name).collect::<Vec<_>>()),
        (true, false) => buckets.iter().for_each(|(name, _)| output::line(name)),
        (false, true) => listing.print_json(),
        (false, false) if buckets.is_empty() => say!("No Key-Value buckets found"),
        (false, false) => {
            let now = Timestamp::now();
            let columns = ["Bucket", "Description", "Created", "Size", "Values", "Last Update"];
            let mut table = Table::new("Key-Value Buckets", columns);
            for (name, info) in &buckets {
                table.row([
                    name.clone(),
                    info.config.description.clone(),
                    local_time(&info.created),
                    bytes(info.state.bytes),
                    comma(info.state.messages),
                    last_message(info, now),
                ]);
            }
            table.print();
        }
    }
    Ok(())
}

/// Shows a bucket.
pub async fn info(session: &Session, bucket: &str, json: bool) -> Result<(), Failure> {
    let call = format!("STREAM.INFO.{}", stream_name(bucket)?);
    let answer = session.api(&call, &json!({}), &format!("find bucket {bucket}")).await?;
    if json {
        answer.print_json();
        return Ok(());
    }
    print(bucket, &answer.read()?);
    Ok(())
}

pub fn print(bucket: &str, info: &StreamInfo) {
    let config = &info.config;
    let created = local_time(&info.created);
    let mut facts =
        Facts::titled(format!("Information for Key-Value Store Bucket {bucket} created {created}"));
    facts.heading("Configuration");
    facts.row("Bucket Name", bucket);
    facts.row_some("Description", &config.description);
    facts.row("History Kept", comma(config.max_msgs_per_subject));
    facts.row("Values Stored", comma(info.state.messages));
    facts.row("Compressed", (config.compression == "s2").to_string());
    facts.row("Per-Key TTL Supported", config.allow_msg_ttl.to_string());
    let marker = config.subject_delete_marker_ttl;
    facts.row_if(marker > 0, "Limit Marker TTL", nanoseconds(marker));
    facts.row("Backing Store Kind", "JetStream");
    facts.row("Bucket Size", bytes(info.state.bytes));
    facts.row("Maximum Bucket Size", bytes_limit(config.max_bytes));
    facts.row("Maximum Value Size", bytes_limit(config.max_msg_size));
    facts.row("Maximum Age", duration_limit(config.max_age));
    facts.row("JetStream Stream", &config.name);
    facts.row("Storage", title_case(&config.storage));
    facts.row_if(config.num_replicas > 1, "Replicas", config.num_replicas.to_string());
    if let Some(republish) = &config.republish {
        facts.row("Republishing", format!("{} to {}", republish.src, republish.dest));
    }
    if own_metadata(&config.metadata).next().is_some() {
        facts.heading("Metadata");
        own_metadata(&config.metadata).for_each(|(key, value)| facts.row(key, value));
    }
    if let Some(cluster) = &info.cluster {
        cluster_facts(&mut facts, cluster, "Cluster Group");
    }
    facts.print();
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        args: AddArgs,
    }

    #[test]
    fn a_bucket_is_a_stream_with_a_history() {
        let line = "x cfg --history 5 --ttl 30s --marker-ttl 1m --compress --metadata a:b --tags t";
        let config = Probe::try_parse_from(line.split(' ')).unwrap().args.config().unwrap();
        let want = [
            ("name", json!("KV_cfg")),
            ("subjects", json!(["$KV.cfg.>"])),
            ("max_msgs_per_subject", json!(5)),
            ("max_age", json!(30_000_000_000_u64)),
            ("duplicate_window", json!(30_000_000_000_u64)),
            ("subject_delete_marker_ttl", json!(60_000_000_000_u64)),
            ("allow_msg_ttl", json!(true)),
            ("compression", json!("s2")),
            ("metadata", json!({"a": "b"})),
            ("placement", json!({"tags": ["t"]})),
        ];
        for (key, value) in want {
            assert_eq!(config[key], value, "{key}");
        }
    }

    #[test]
    fn bucket_names_are_plain() {
        assert_eq!(stream_name("a_b-1").unwrap(), "KV_a_b-1");
        for bad in ["", "a.b", "a b", "ä", ">"] {
            assert!(stream_name(bad).is_err(), "{bad:?}");
        }
    }
}
