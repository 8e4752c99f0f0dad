//! `store`: what a server keeps on disk, looked at and repaired while no server uses it.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use headwater::offline::{OfflineError, OfflineStore, Repair, ShardCheck};

use super::error::Failure;
use super::output::{self, say};
use super::units::{bytes, comma};

/// The exit code where something is damaged, so that a script can tell it from a failure to look.
const DAMAGED: u8 = 2;

/// Holds the key of an encrypted store, where no file is named.
const KEY_VARIABLE: &str = "HEADWATER_STORE_KEY";

/// Where the key of an encrypted store is.
#[derive(Debug, clap::Args)]
pub struct KeySource {
    /// The file with the key of an encrypted store, one line; without it HEADWATER_STORE_KEY is used
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeySource {
    fn read(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.key_file else { return Ok(std::env::var(KEY_VARIABLE).ok()) };
        let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))?;
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    fn open(&self, doing: &'static str, folder: &Path) -> Result<OfflineStore, Failure> {
        OfflineStore::open(folder, self.read()?.as_deref()).map_err(failed(doing, folder))
    }
}

/// What can be done with a store.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read everything, every message included, and say what is damaged: exit code 0 sound, 2 damaged, 1 could not look
    Check {
        /// The folder that the server was given (-sd), or the one inside it
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        key: KeySource,
        /// Print what was found as JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Write what is stored as lines of JSON: one for each stream, or one for each message
    Dump {
        /// The folder that the server was given (-sd), or the one inside it
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        key: KeySource,
        /// Write the messages that a server would have; exit code 2 if some cannot be read
        #[arg(long)]
        messages: bool,
        /// Only of this stream
        #[arg(long, value_name = "NAME", requires = "messages")]
        stream: Option<String>,
        /// Write whatever is readable in segment files, deleted messages included: for when the rest cannot be read
        #[arg(long, conflicts_with = "messages")]
        raw: bool,
    },
    /// Give up what is lost, so that a server starts and takes writes again: exit code 2 if that is not possible
    #[command(
        long_about = "Give up what is lost, so that a server starts and takes writes again.\n\nDamaged segments are \
        replaced by what can be read of them; where the log is damaged it ends, for one stream or for all; then a new \
        checkpoint is written. What was there before stays in the folder quarantine of the shard. A file that was \
        restored from a backup is better: put it back and check again first."
    )]
    Repair {
        /// The folder that the server was given (-sd), or the one inside it
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        key: KeySource,
        /// Do it; without this it is only said what there is to do
        #[arg(short, long)]
        force: bool,
    },
}

/// Runs a store command.
pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { folder, key, json } => check(&folder, &key, json),
        Command::Dump { folder, key, messages, stream, raw } => {
            let what = if raw {
                What::Raw
            } else if messages {
                What::Messages(stream)
            } else {
                What::Streams
            };
            dump(&folder, &key, &what)
        }
        Command::Repair { folder, key, force } => repair(&folder, &key, force),
    }
}

fn failed(doing: &'static str, folder: &Path) -> impl Fn(OfflineError) -> Failure {
    move |error| Failure::file(doing, folder, error)
}

fn check(folder: &Path, key: &KeySource, json: bool) -> Result<(), Failure> {
    let found = key.open("check", folder)?.check().map_err(failed("check", folder))?;
    if json {
        output::print_json(&found)?;
    } else {
        found.iter().for_each(show);
    }
    if found.iter().all(ShardCheck::is_sound) { Ok(()) } else { Err(Failure::Silent(DAMAGED)) }
}

fn show(shard: &ShardCheck) {
    say!(
        "{}: {} messages in segments ({}), {} streams and lists in checkpoint {}",
        shard.folder.display(),
        comma(shard.messages),
        bytes(shard.segment_bytes),
        shard.groups,
        shard.checkpoint.map_or("none".to_owned(), |number| number.to_string()),
    );
    shard.notes.iter().for_each(|note| say!("  note: {note}"));
    shard.damage.iter().for_each(|damage| say!("  DAMAGED: {damage}"));
    match (shard.is_sound(), shard.opens) {
        (true, _) => say!("  Everything is as it was written."),
        (false, true) => {
            say!(
                "  A server starts with it, serves what is sound, and takes no writes for streams that lack messages."
            );
        }
        (false, false) => say!("  A server does not start with it."),
    }
    if !shard.is_sound() {
        say!(
            "  Put back the named files from a backup if there is one; `headwater store repair` gives up what is lost."
        );
    }
}

enum What {
    Streams,
    Messages(Option<String>),
    Raw,
}

fn dump(folder: &Path, key: &KeySource, what: &What) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let store = key.open("dump", folder)?;
    let written = match what {
        What::Streams => store.dump_streams(&mut out).map(|()| 0),
        What::Messages(only) => store.dump_messages(only.as_deref(), &mut out),
        What::Raw => store.dump_segments(&mut out).map(|()| 0),
    };
    let unreadable =
        written.and_then(|count| Ok(out.flush().map(|()| count)?)).map_err(failed("dump", folder))?;
    if unreadable == 0 {
        return Ok(());
    }
    eprintln!("headwater: {} messages cannot be read", comma(unreadable));
    Err(Failure::Silent(DAMAGED))
}

fn repair(folder: &Path, key: &KeySource, force: bool) -> Result<(), Failure> {
    let store = key.open("repair", folder)?;
    let result = match store.repair(!force) {
        Err(OfflineError::Beyond(reason)) => {
            say!("It cannot be repaired: {reason}");
            say!(
                "Put back a backup; `headwater store dump --raw` writes the messages that are still readable."
            );
            return Err(Failure::Silent(DAMAGED));
        }
        other => other.map_err(failed("repair", folder))?,
    };
    let Repair { kept, done, lost } = result;
    if done.is_empty() && lost.is_empty() && kept.is_none() {
        say!("Nothing is damaged: nothing was done.");
        return Ok(());
    }
    if !force {
        say!("Nothing was changed. This is damaged:");
        done.iter().for_each(|line| say!("  {line}"));
        say!("With --force it is repaired and what is lost is given up.");
        return Err(Failure::Silent(DAMAGED));
    }
    done.iter().for_each(|line| say!("{line}"));
    lost.iter().for_each(|line| say!("LOST: {line}"));
    if let Some(kept) = kept {
        say!("What was there before is in {}", kept.display());
    }
    let left = store.check().map_err(failed("check", folder))?;
    left.iter().for_each(show);
    if left.iter().all(ShardCheck::is_sound) { Ok(()) } else { Err(Failure::Silent(DAMAGED)) }
}
