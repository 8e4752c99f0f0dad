//! Changing a bucket's configuration: what is not named stays.

use std::time::Duration;

use serde_json::{Value, json};

use super::bucket::{print, stream_name};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::units::{parse_age, parse_pair, parse_size};

/// What to change.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    bucket: String,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// How many values to keep of each key
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    history: Option<u64>,
    /// How long to keep values
    #[arg(long, value_parser = parse_age)]
    ttl: Option<Duration>,
    /// Let keys have their own time to live, and keep markers of those that expired for this long
    #[arg(long, value_parser = parse_age)]
    marker_ttl: Option<Duration>,
    /// How many servers hold the data
    #[arg(long)]
    replicas: Option<u64>,
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
    /// Compress the data, or not
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
    /// Make a mirror a bucket of its own
    #[arg(long)]
    no_mirror: bool,
}

impl EditArgs {
    fn change(&self, config: &mut Value) {
        let nanos = |span: Duration| span.as_nanos() as u64;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                config[name] = value;
            }
        };
        set("description", self.description.as_ref().map(|text| json!(text)));
        set("max_msgs_per_subject", self.history.map(|count| json!(count)));
        set("max_age", self.ttl.map(|span| json!(nanos(span))));
        set("subject_delete_marker_ttl", self.marker_ttl.map(|span| json!(nanos(span))));
        set("allow_msg_ttl", self.marker_ttl.map(|_| json!(true)));
        set("num_replicas", self.replicas.map(|count| json!(count)));
        set("max_msg_size", self.max_value_size.map(|bytes| json!(bytes)));
        set("max_bytes", self.max_bucket_size.map(|bytes| json!(bytes)));
        set("compression", self.compress.map(|packs| json!(if packs { "s2" } else { "none" })));
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
        if let Some(fields) = config.as_object_mut().filter(|_| self.no_mirror) {
            fields.remove("mirror");
        }
        // Ids are not remembered for longer than their messages.
        let (age, window) = (config["max_age"].as_u64().unwrap_or(0), &mut config["duplicate_window"]);
        if age > 0 && window.as_u64().is_some_and(|window| window > age) {
            *window = json!(age);
        }
    }
}

/// Changes a bucket.
pub async fn run(session: &Session, args: &EditArgs) -> Result<(), Failure> {
    let (stream, doing) = (stream_name(&args.bucket)?, format!("find bucket {}", args.bucket));
    let info = session.api(&format!("STREAM.INFO.{stream}"), &json!({}), &doing).await?;
    let mut config = info.read::<Value>()?["config"].take();
    args.change(&mut config);
    let doing = format!("update bucket {}", args.bucket);
    let answer = session.api(&format!("STREAM.UPDATE.{stream}"), &config, &doing).await?;
    print(&args.bucket, &answer.read()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: EditArgs,
    }

    #[test]
    fn what_is_not_named_stays() {
        let old =
            json!({ "name": "KV_b", "max_age": 0, "max_bytes": 7, "duplicate_window": 120, "mirror": {} });
        for (flags, changes) in [
            ("", json!({})),
            ("--history 3 --description x", json!({ "max_msgs_per_subject": 3, "description": "x" })),
            ("--max-bucket-size 1KB", json!({ "max_bytes": 1024 })),
            ("--compress", json!({ "compression": "s2" })),
            ("--compress=false", json!({ "compression": "none" })),
            ("--metadata a:b", json!({ "metadata": { "a": "b" } })),
            ("--no-mirror", json!({ "mirror": null })),
        ] {
            let words = ["edit", "b"].into_iter().chain(flags.split_whitespace());
            let mut config = old.clone();
            Line::parse_from(words).args.change(&mut config);
            let mut wanted = old.clone();
            for (name, value) in changes.as_object().into_iter().flatten() {
                wanted[name] = value.clone();
            }
            if wanted["mirror"].is_null() {
                wanted.as_object_mut().map(|fields| fields.remove("mirror"));
            }
            assert_eq!(config, wanted, "{flags}");
        }
    }
}
