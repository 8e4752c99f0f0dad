//! Files into and out of buckets.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::jetstream::object_store::ObjectMetadata;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::{find, open, print};
use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, say};
use crate::command::publish::header_map;
use crate::command::units::{bytes, duration, parse_pair, parse_size};

/// A file to put.
#[derive(Debug, clap::Args)]
pub struct PutArgs {
    bucket: String,
    /// The file; without one standard input is read, and --name is needed
    #[arg(required_unless_present = "name")]
    file: Option<PathBuf>,
    /// Name of the object, instead of the file's path
    #[arg(long)]
    name: Option<String>,
    /// A description
    #[arg(long)]
    description: Option<String>,
    /// A header, KEY:VALUE
    #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
    headers: Vec<(String, String)>,
    /// Size of the chunks
    #[arg(long, value_parser = parse_size)]
    chunk_size: Option<i64>,
    /// Show the progress [--no-progress to refrain]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    progress: Option<bool>,
    /// Replace an object without asking
    #[arg(short, long)]
    force: bool,
}

fn progress_bar(wanted: bool, length: u64) -> ProgressBar {
    if !wanted {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template = "{bar:40} {bytes} of {total_bytes} {bytes_per_sec} {eta}";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Puts a file.
pub async fn put(session: &Session, args: &PutArgs) -> Result<(), Failure> {
    let from_file = args.file.as_ref().map(|path| path.to_string_lossy().into_owned());
    let name = args.name.clone().or(from_file).unwrap_or_default();
    let store = open(session, &args.bucket).await?;
    let doing = format!("put {} > {name}", args.bucket);
    if find(&store, &name, &doing).await.is_ok() {
        output::confirm(&format!("replacing {} > {name}", args.bucket), args.force)?;
    }
    let (length, source): (u64, Box<dyn AsyncRead + Unpin + Send>) = match &args.file {
        Some(path) => {
            let failed = |error: std::io::Error| Failure::file("read", path, error);
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            (file.metadata().await.map_err(failed)?.len(), Box::new(file))
        }
        None => (0, Box::new(tokio::io::stdin())),
    };
    let bar = progress_bar(args.progress != Some(false), length);
    let mut source = bar.wrap_async_read(source);
    let metadata = ObjectMetadata {
        name,
        description: args.description.clone(),
        chunk_size: args.chunk_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0),
        headers: Some(header_map(&args.headers)).filter(|headers| !headers.is_empty()),
        ..ObjectMetadata::default()
    };
    let info = store.put(metadata, &mut source).await.map_err(|error| Failure::request(&doing, error))?;
    bar.finish_and_clear();
    print(&info)
}

/// An object to get.
pub struct Download {
    pub bucket: String,
    pub object: String,
    pub output: Option<PathBuf>,
    pub progress: bool,
    pub force: bool,
}

impl Download {
    /// Gets it. A file appears only once it is whole.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let doing = format!("get {} > {}", self.bucket, self.object);
        let store = open(session, &self.bucket).await?;
        let info = find(&store, &self.object, &doing).await?;
        let object = store.get(&self.object).await.map_err(|error| Failure::request(&doing, error))?;
        let bar = progress_bar(self.progress, info.size as u64);
        let mut object = bar.wrap_async_read(object);
        let begin = Instant::now();
        if self.output.as_deref() == Some(Path::new("-")) {
            let mut stdout = tokio::io::stdout();
            let copied = tokio::io::copy(&mut object, &mut stdout).await;
            copied.map_err(|error| Failure::request(&doing, error))?;
            return stdout.flush().await.map_err(|error| Failure::request(&doing, error));
        }
        let path = self.path()?;
        if path.exists() {
            output::confirm(&format!("overwriting {}", path.display()), self.force)?;
        }
        let part = PathBuf::from(format!("{}.{}.part", path.display(), std::process::id()));
        let written = write(&mut object, &part, &doing).await;
        let size = match written {
            Ok(size) => size,
            Err(failure) => {
                // What came so far is of no use, and a failure to remove it changes nothing.
                drop(tokio::fs::remove_file(&part).await);
                return Err(failure);
            }
        };
        let renamed = tokio::fs::rename(&part, &path).await;
        renamed.map_err(|error| Failure::file("write", &path, error))?;
        bar.finish_and_clear();
        report(size, &path, begin.elapsed());
        Ok(())
    }

    /// Where to write. An object's name comes from the network, so only its last part may name a file.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.output {
            return Ok(path.clone());
        }
        let last = Path::new(&self.object).file_name();
        let last =
            last.ok_or_else(|| Failure::Usage(format!("{:?} is no file name: use --output", self.object)))?;
        Ok(PathBuf::from(last))
    }
}

async fn write(source: &mut (impl AsyncRead + Unpin), path: &Path, doing: &str) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::file("write", path, error);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let copied = tokio::io::copy(source, &mut file).await;
    let copied = copied.map_err(|error| Failure::request(doing, error))?;
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    Ok(copied)
}

fn report(size: u64, path: &Path, elapsed: Duration) {
    say!("Wrote: {} to {} in {}", bytes(size), path.display(), duration(elapsed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_cannot_choose_the_folder() {
        let path = |object: &str| {
            let download = Download {
                bucket: "b".into(),
                object: object.into(),
                output: None,
                progress: false,
                force: false,
            };
            download.path()
        };
        assert_eq!(path("/etc/passwd").unwrap(), PathBuf::from("passwd"));
        assert_eq!(path("../../x").unwrap(), PathBuf::from("x"));
        assert_eq!(path("plain.txt").unwrap(), PathBuf::from("plain.txt"));
        assert!(path("..").is_err());
    }
}
