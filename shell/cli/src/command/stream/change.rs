//! Commands that create, change and remove streams and messages.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::{self, Config, StreamFlags};
use super::{fetch, name, show};
use crate::command::api::Answer;
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, say};
use crate::command::view::StreamInfo;

/// A stream to create.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Name of the stream; with --config the file's name is used unless one is given
    stream: Option<String>,
    /// Read the configuration from a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the configuration to a file instead of creating the stream
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<StreamFlags>,
    /// Take the default for everything that is not given
    #[arg(long)]
    defaults: bool,
    /// Print the API's response
    #[arg(short, long)]
    json: bool,
}

/// A stream to change.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    stream: String,
    /// Read the whole new configuration from a JSON file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<StreamFlags>,
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

/// What to purge.
#[derive(Debug, clap::Args)]
pub struct PurgeArgs {
    stream: String,
    /// Only messages on this subject
    #[arg(long)]
    subject: Option<String>,
    /// Only messages before this sequence
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "keep")]
    seq: Option<u64>,
    /// Keep this many messages
    #[arg(long, value_name = "COUNT")]
    keep: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
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
        let mut config = self.config.as_ref().map(config::from_file).transpose()?.unwrap_or_default();
        if let Some(stream) = &self.stream {
            config.insert("name".into(), name(stream)?.into());
        }
        if !config.get("name").is_some_and(Value::is_string) {
            return Err(Failure::Usage("the stream needs a name".into()));
        }
        self.flags.apply(&mut config);
        let from_file = self.config.is_some();
        if !self.flags.has_origin() && !from_file {
            self.choose_subjects(&mut config)?;
        }
        let filled = config::fill_defaults(&mut config);
        if !self.defaults && !from_file && !filled.is_empty() {
            eprintln!("Using defaults: {}", filled.join(" "));
        }
        Ok(config)
    }

    /// A stream without subjects takes its own name as its subject; whoever sits there may say otherwise.
    fn choose_subjects(&self, config: &mut Config) -> Result<(), Failure> {
        let own = config["name"].as_str().unwrap_or_default().to_owned();
        if self.defaults {
            config.insert("subjects".into(), json!([own]));
        } else if std::io::stdin().is_terminal() {
            let answer = output::ask("Subjects", &own)?;
            let subjects: Vec<&str> = answer.split([',', ' ']).filter(|word| !word.is_empty()).collect();
            config.insert("subjects".into(), json!(subjects));
        } else {
            eprintln!("No --subjects given: the stream captures the subject {own:?}");
            config.insert("subjects".into(), json!([own]));
        }
        Ok(())
    }
}

/// Writes the configuration that would be created.
pub fn write_config(args: &AddArgs) -> Result<(), Failure> {
    let config = args.config()?;
    let Some(path) = &args.output else { return Ok(()) };
    let text = output::indent_json(&Value::Object(config).to_string());
    std::fs::write(path, text + "\n").map_err(|error| Failure::file("write", path, error))
}

/// Creates a stream.
pub async fn add(session: &Session, args: &AddArgs) -> Result<(), Failure> {
    let config = args.config()?;
    create(session, config, args.json).await
}

async fn create(session: &Session, config: Config, json: bool) -> Result<(), Failure> {
    let stream = name(config["name"].as_str().unwrap_or_default())?.to_owned();
    let doing = format!("create stream {stream}");
    let answer = session.api(&format!("STREAM.CREATE.{stream}"), &Value::Object(config), &doing).await?;
    present(&answer, json, &format!("Stream {stream} was created"))
}

fn present(answer: &Answer, json: bool, note: &str) -> Result<(), Failure> {
    if json {
        answer.print_json();
        return Ok(());
    }
    say!("{note}\n");
    show::print(&answer.read::<StreamInfo>()?);
    Ok(())
}

async fn fetch_config(session: &Session, stream: &str) -> Result<Config, Failure> {
    let doing = format!("get stream {stream}");
    let answer = session.api(&format!("STREAM.INFO.{}", name(stream)?), &json!({}), &doing).await?;
    match answer.read::<Value>()?.get_mut("config").map(Value::take) {
        Some(Value::Object(config)) => Ok(config),
        _ => Err(Failure::request(doing, "the server's answer has no configuration")),
    }
}

/// The server stamps these itself.
fn drop_server_metadata(config: &mut Config) {
    if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
        metadata.retain(|key, _| !key.starts_with("_nats."));
        if metadata.is_empty() {
            config.remove("metadata");
        }
    }
}

/// Changes a stream.
pub async fn edit(session: &Session, args: &EditArgs) -> Result<(), Failure> {
    let mut old = fetch_config(session, &args.stream).await?;
    drop_server_metadata(&mut old);
    let mut new = match &args.config {
        Some(path) => config::from_file(path)?,
        None => old.clone(),
    };
    drop_server_metadata(&mut new);
    new.insert("name".into(), args.stream.clone().into());
    args.flags.apply(&mut new);
    let changes = config::differences(&old, &new);
    if changes.is_empty() {
        say!("The configuration of {} does not change", args.stream);
        return Ok(());
    }
    if !args.json {
        say!("Differences (-old +new):");
        changes.iter().for_each(|line| say!("  {line}"));
    }
    if args.dry_run {
        return Ok(());
    }
    output::confirm(&format!("editing stream {}", args.stream), args.force)?;
    let doing = format!("edit stream {}", args.stream);
    let answer = session.api(&format!("STREAM.UPDATE.{}", args.stream), &Value::Object(new), &doing).await?;
    present(&answer, args.json, &format!("Stream {} was updated", args.stream))
}

/// Creates `names[1]` with the configuration of `names[0]`.
pub async fn copy(
    session: &Session,
    names: [&str; 2],
    flags: &StreamFlags,
    json: bool,
) -> Result<(), Failure> {
    let mut config = fetch_config(session, names[0]).await?;
    drop_server_metadata(&mut config);
    config.insert("name".into(), name(names[1])?.into());
    config.remove("sealed");
    if !flags.has_origin() {
        return Err(Failure::Usage(
            "two streams cannot share subjects: give the copy its own with --subjects".into(),
        ));
    }
    flags.apply(&mut config);
    create(session, config, json).await
}

/// Deletes a stream.
pub async fn remove(session: &Session, stream: &str, force: bool) -> Result<(), Failure> {
    output::confirm(&format!("deleting stream {stream} with all its messages"), force)?;
    let call = format!("STREAM.DELETE.{}", name(stream)?);
    session.api(&call, &Value::Null, &format!("delete stream {stream}")).await.map(|_| ())
}

/// Purges a stream.
pub async fn purge(session: &Session, args: &PurgeArgs) -> Result<(), Failure> {
    let stream = name(&args.stream)?;
    output::confirm(&format!("purging stream {stream}"), args.force)?;
    let mut body = json!({});
    if let Some(subject) = &args.subject {
        body["filter"] = json!(subject);
    }
    if let Some(sequence) = args.seq {
        body["seq"] = json!(sequence);
    }
    if let Some(keep) = args.keep {
        body["keep"] = json!(keep);
    }
    let answer =
        session.api(&format!("STREAM.PURGE.{stream}"), &body, &format!("purge stream {stream}")).await?;
    if args.json {
        answer.print_json();
        return Ok(());
    }
    #[derive(serde::Deserialize)]
    struct Purged {
        purged: u64,
    }
    let count = super::super::units::comma(answer.read::<Purged>()?.purged);
    say!("Purged {count} messages from {stream}\n");
    show::print_state(&fetch(session, stream).await?);
    Ok(())
}

/// Erases one message.
pub async fn erase(session: &Session, stream: &str, sequence: u64, force: bool) -> Result<(), Failure> {
    output::confirm(&format!("removing message {sequence} of stream {stream}"), force)?;
    let call = format!("STREAM.MSG.DELETE.{}", name(stream)?);
    let doing = format!("remove {stream}#{sequence}");
    session.api(&call, &json!({ "seq": sequence }), &doing).await.map(|_| ())
}

/// Seals a stream for good.
pub async fn seal(session: &Session, stream: &str, force: bool) -> Result<(), Failure> {
    let mut config = fetch_config(session, stream).await?;
    output::confirm(&format!("sealing stream {stream} for good"), force)?;
    config.insert("sealed".into(), true.into());
    let doing = format!("seal stream {stream}");
    let answer = session.api(&format!("STREAM.UPDATE.{stream}"), &Value::Object(config), &doing).await?;
    show::print(&answer.read::<StreamInfo>()?);
    Ok(())
}
