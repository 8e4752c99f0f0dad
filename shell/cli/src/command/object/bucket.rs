//! Object store buckets as the streams that they are.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, Facts, Table, say, title_case};
use crate::command::stream::show::{cluster_facts, last_message};
use crate::command::units::{
    bytes, bytes_limit, duration_limit, local_time, parse_age, parse_pair, parse_size,
};
use crate::command::view::{StreamInfo, own_metadata};

/// A bucket to create.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    bucket: String,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// How long to keep objects
    #[arg(long, value_parser = parse_age)]
    ttl: Option<Duration>,
    /// How many servers hold the data
    #[arg(long, default_value_t = 1)]
    replicas: u64,
    /// Most bytes in the bucket
    #[arg(long, value_parser = parse_size, allow_hyphen_values = true)]
    max_bucket_size: Option<i64>,
    /// Storage backend: file or memory
    #[arg(long, default_value = "file", value_parser = ["file", "memory"])]
    storage: String,
    /// Place the bucket on servers with this tag
    #[arg(long)]
    tags: Vec<String>,
    /// Place the bucket in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Metadata, KEY:VALUE
    #[arg(long, value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// Compress the data
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    /// Print the API's response
    #[arg(short, long)]
    json: bool,
}

fn stream_name(bucket: &str) -> Result<String, Failure> {
    let good = !bucket.is_empty() && bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if good {
        Ok(format!("OBJ_{bucket}"))
    } else {
        Err(Failure::Usage(format!("{bucket:?} is not a valid bucket name")))
    }
}

impl AddArgs {
    fn config(&self) -> Result<Value, Failure> {
        let bucket = &self.bucket;
        let mut config = json!({
            "name": stream_name(bucket)?,
            "subjects": [format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            "storage": self.storage,
            "retention": "limits",
            "discard": "new",
            "num_replicas": self.replicas,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "max_msg_size": -1,
            "max_bytes": self.max_bucket_size.unwrap_or(-1),
            "max_age": self.ttl.unwrap_or_default().as_nanos() as u64,
            "allow_rollup_hdrs": true,
            "allow_direct": true,
        });
        if let Some(description) = &self.description {
            config["description"] = json!(description);
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
        Ok(config)
    }
}

/// A bucket's stream.
pub async fn fetch(session: &Session, bucket: &str) -> Result<StreamInfo, Failure> {
    let call = format!("STREAM.INFO.{}", stream_name(bucket)?);
    session.api(&call, &json!({}), &format!("find bucket {bucket}")).await?.read()
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
    output::confirm(&format!("deleting bucket {bucket} with all its objects"), force)?;
    session.api(&call, &Value::Null, &format!("delete bucket {bucket}")).await.map(|_| ())
}

/// Seals a bucket for good.
pub async fn seal(session: &Session, bucket: &str, force: bool) -> Result<(), Failure> {
    let call = stream_name(bucket)?;
    let doing = format!("seal bucket {bucket}");
    let answer = session.api(&format!("STREAM.INFO.{call}"), &json!({}), &doing).await?;
    let mut config = answer.read::<Value>()?["config"].take();
    output::confirm(&format!("sealing bucket {bucket} for good"), force)?;
    config["sealed"] = json!(true);
    let answer = session.api(&format!("STREAM.UPDATE.{call}"), &config, &doing).await?;
    say!("{bucket} has been sealed");
    print(bucket, &answer.read()?);
    Ok(())
}

/// Lists buckets.
pub async fn ls(session: &Session, names: bool, json: bool) -> Result<(), Failure> {
    let listing = session.api_list("STREAM.LIST", json!({ "subject": "$O.>" }), "streams").await?;
    let all: Vec<StreamInfo> = listing.read()?;
    let mut buckets: Vec<(String, StreamInfo)> = all
        .into_iter()
        .filter_map(|info| {
            info.config.name.strip_prefix("OBJ_").map(ToOwned::to_owned).map(|name| (name, info))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.cmp(&b.0));
    match (names, json) {
        (true, true) => return output::print_json(&buckets.iter().map(|(name, _)| name).collect::<Vec<_>>()),
        (true, false) => buckets.iter().for_each(|(name, _)| output::line(name)),
        (false, true) => listing.print_json(),
        (false, false) if buckets.is_empty() => say!("No Object Store buckets found"),
        (false, false) => {
            let now = Timestamp::now();
            let columns = ["Bucket", "Description", "Created", "Size", "Last Update"];
            let mut table = Table::new("Object Store Buckets", columns);
            for (name, info) in &buckets {
                table.row([
                    name.clone(),
                    info.config.description.clone(),
                    local_time(&info.created),
                    bytes(info.state.bytes),
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

fn print(bucket: &str, info: &StreamInfo) {
    let config = &info.config;
    let created = local_time(&info.created);
    let mut facts = Facts::titled(format!("Information for Object Store Bucket {bucket} created {created}"));
    facts.heading("Configuration");
    facts.row("Bucket Name", bucket);
    facts.row_some("Description", &config.description);
    facts.row("Replicas", config.num_replicas.to_string());
    facts.row("TTL", duration_limit(config.max_age));
    facts.row("Sealed", config.sealed.to_string());
    facts.row("Size", bytes(info.state.bytes));
    facts.row("Maximum Bucket Size", bytes_limit(config.max_bytes));
    facts.row_if(config.compression == "s2", "Compressed", "true");
    facts.row("Storage", title_case(&config.storage));
    facts.row("Backing Store Kind", "JetStream");
    facts.row("JetStream Stream", &config.name);
    if own_metadata(&config.metadata).next().is_some() {
        facts.heading("Metadata");
        own_metadata(&config.metadata).for_each(|(key, value)| facts.row(key, value));
    }
    if let Some(cluster) = &info.cluster {
        cluster_facts(&mut facts, cluster, "Cluster Group");
    }
    facts.print();
}
