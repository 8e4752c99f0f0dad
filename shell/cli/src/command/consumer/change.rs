//! Commands that create, change, pause and remove consumers.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::{self, ConsumerFlags};
use super::show;
use crate::command::api::Answer;
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, say};
use crate::command::stream::config::{Config, differences, from_file};
use crate::command::stream::name;
use crate::command::units;
use crate::command::view::{ConsumerConfig, ConsumerInfo};

/// A consumer to create.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    stream: String,
    /// Name of the consumer; an ephemeral one may do without
    consumer: Option<String>,
    /// Read the configuration from a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the configuration to a file instead of creating the consumer
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Let clients pull, which is what a consumer without --target does anyway
    #[arg(long, conflicts_with = "target")]
    pull: bool,
    /// Remove the consumer once nobody uses it
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    flags: Box<ConsumerFlags>,
    /// Take the default for everything that is not given
    #[arg(long)]
    defaults: bool,
    /// Print the API's response
    #[arg(short, long)]
    json: bool,
}

/// A consumer to change.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    stream: String,
    consumer: String,
    /// Read the whole new configuration from a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<ConsumerFlags>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Print the API's response
    #[arg(short, long)]
    json: bool,
}

impl AddArgs {
    /// Whether no server is needed.
    pub fn is_offline(&self) -> bool {
        self.output.is_some()
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut config = self.config.as_ref().map(from_file).transpose()?.unwrap_or_default();
        let text =
            |config: &Config, key: &str| config.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let in_file = text(&config, "durable_name").or_else(|| text(&config, "name"));
        let consumer = match self.consumer.clone().or(in_file) {
            Some(consumer) => consumer,
            None if self.ephemeral => crate::command::template::Dice::new().id(8),
            None => return Err(Failure::Usage("the consumer needs a name, or --ephemeral".into())),
        };
        config.insert("name".into(), name(&consumer)?.into());
        if self.ephemeral {
            config.remove("durable_name");
            config.entry("inactive_threshold").or_insert(json!(5_000_000_000_u64));
        } else {
            config.insert("durable_name".into(), consumer.into());
        }
        self.flags.apply(&mut config, Timestamp::now())?;
        config::fill_defaults(&mut config);
        if !self.defaults && !self.pull && self.config.is_none() && !self.flags.is_push() {
            eprintln!("Neither --pull nor --target given: creating a pull consumer");
        }
        Ok(config)
    }
}

/// Writes the configuration that would be created.
pub fn write_config(args: &AddArgs) -> Result<(), Failure> {
    let config = args.config()?;
    let Some(path) = &args.output else { return Ok(()) };
    let text = output::indent_json(&Value::Object(config).to_string());
    std::fs::write(path, text + "\n").map_err(|error| Failure::file("write", path, error))
}

/// Creates a consumer.
pub async fn add(session: &Session, args: &AddArgs) -> Result<(), Failure> {
    let config = args.config()?;
    let answer = create(session, &args.stream, config, "create").await?;
    present(&answer, args.json)
}

fn present(answer: &Answer, json: bool) -> Result<(), Failure> {
    if json {
        answer.print_json();
    } else {
        show::print(&answer.read::<ConsumerInfo>()?);
    }
    Ok(())
}

/// Sends a configuration; `action` is `create` or `update`. A single filter is part of the subject, so that
/// permissions can tell consumers apart.
async fn create(session: &Session, stream: &str, config: Config, action: &str) -> Result<Answer, Failure> {
    let consumer = config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut call = format!("CONSUMER.CREATE.{}.{}", name(stream)?, name(&consumer)?);
    if let Some(filter) =
        config.get("filter_subject").and_then(Value::as_str).filter(|filter| !filter.is_empty())
    {
        call = format!("{call}.{filter}");
    }
    let body = json!({ "stream_name": stream, "config": config, "action": action });
    session.api(&call, &body, &format!("{action} consumer {stream} > {consumer}")).await
}

/// Changes a consumer.
pub async fn edit(session: &Session, args: &EditArgs) -> Result<(), Failure> {
    let (stream, consumer) = (name(&args.stream)?, name(&args.consumer)?);
    let doing = format!("get consumer {stream} > {consumer}");
    let answer = session.api(&format!("CONSUMER.INFO.{stream}.{consumer}"), &json!({}), &doing).await?;
    let Some(Value::Object(mut old)) = answer.read::<Value>()?.get_mut("config").map(Value::take) else {
        return Err(Failure::request(doing, "the server's answer has no configuration"));
    };
    if let Some(Value::Object(metadata)) = old.get_mut("metadata") {
        metadata.retain(|key, _| !key.starts_with("_nats."));
    }
    let mut new = match &args.config {
        Some(path) => from_file(path)?,
        None => old.clone(),
    };
    new.insert("name".into(), consumer.into());
    args.flags.apply(&mut new, Timestamp::now())?;
    let changes = differences(&old, &new);
    if changes.is_empty() {
        say!("The configuration of {stream} > {consumer} does not change");
        return Ok(());
    }
    if !args.json {
        say!("Differences (-old +new):");
        changes.iter().for_each(|line| say!("  {line}"));
    }
    if args.dry_run {
        return Ok(());
    }
    output::confirm(&format!("editing consumer {stream} > {consumer}"), args.force)?;
    let answer = create(session, stream, new, "update").await?;
    present(&answer, args.json)
}

/// Deletes a consumer.
pub async fn remove(session: &Session, stream: &str, consumer: &str, force: bool) -> Result<(), Failure> {
    output::confirm(&format!("deleting consumer {stream} > {consumer}"), force)?;
    let call = format!("CONSUMER.DELETE.{}.{}", name(stream)?, name(consumer)?);
    session.api(&call, &Value::Null, &format!("delete consumer {stream} > {consumer}")).await.map(|_| ())
}

#[derive(serde::Deserialize)]
struct Pause {
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    pause_until: String,
}

/// Pauses a consumer.
pub async fn pause(
    session: &Session,
    names: [&str; 2],
    until: &str,
    force: bool,
    json: bool,
) -> Result<(), Failure> {
    let [stream, consumer] = names;
    let until =
        units::parse_moment(until, Timestamp::now()).map_err(|error| Failure::Usage(error.to_string()))?;
    output::confirm(&format!("pausing {stream} > {consumer} until {}", units::local(until)), force)?;
    let call = format!("CONSUMER.PAUSE.{}.{}", name(stream)?, name(consumer)?);
    let body = json!({ "pause_until": until.to_string() });
    let answer = session.api(&call, &body, &format!("pause consumer {stream} > {consumer}")).await?;
    if json {
        answer.print_json();
        return Ok(());
    }
    let pause: Pause = answer.read()?;
    let until = units::local_time(&pause.pause_until);
    match pause.paused {
        true => say!("Paused {stream} > {consumer} until {until}"),
        false => say!("{stream} > {consumer} is not paused: {until} has passed"),
    }
    Ok(())
}

/// Resumes a consumer.
pub async fn resume(session: &Session, names: [&str; 2], force: bool, json: bool) -> Result<(), Failure> {
    let [stream, consumer] = names;
    let before: ConsumerConfig = super::fetch(session, stream, consumer).await?.config;
    output::confirm(&format!("resuming {stream} > {consumer}"), force)?;
    let call = format!("CONSUMER.PAUSE.{stream}.{consumer}");
    let answer = session.api(&call, &json!({}), &format!("resume consumer {stream} > {consumer}")).await?;
    if json {
        answer.print_json();
        return Ok(());
    }
    let paused: Pause = answer.read()?;
    let until = before.pause_until.as_deref().map(units::local_time).unwrap_or_default();
    match (paused.paused, until.is_empty()) {
        (true, _) => say!("{stream} > {consumer} is still paused"),
        (false, true) => say!("Consumer {stream} > {consumer} was not paused"),
        (false, false) => {
            say!("Consumer {stream} > {consumer} was resumed while previously paused until {until}")
        }
    }
    Ok(())
}
/// Starts a consumer again.
pub async fn reset(
    session: &Session,
    [stream, consumer]: [&str; 2],
    sequence: Option<u64>,
    force: bool,
) -> Result<(), Failure> {
    output::confirm(&format!("resetting consumer {stream} > {consumer}"), force)?;
    let call = format!("CONSUMER.RESET.{}.{}", name(stream)?, name(consumer)?);
    let body = sequence.map_or(Value::Null, |seq| json!({ "seq": seq }));
    let answer = session.api(&call, &body, &format!("reset consumer {stream} > {consumer}")).await?;
    let first: Value = answer.read()?;
    say!("Consumer {stream} > {consumer} starts again at sequence {}", first["reset_seq"]);
    show::print(&answer.read::<ConsumerInfo>()?);
    Ok(())
}
