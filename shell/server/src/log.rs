//! Log lines in the form that operators' tools know: `[pid] 2026/11/23 01:42:15.335956 [INF] text`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// How and where to log.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// A file; none: stderr.
    pub file: Option<PathBuf>,
    /// Debug lines too.
    pub debug: bool,
    /// Protocol lines too.
    pub trace: bool,
    /// Without date and time.
    pub no_time: bool,
    /// Time in UTC instead of local time.
    pub utc: bool,
    /// The file is put aside when it grows beyond so many bytes; 0: never.
    pub size_limit: u64,
    /// How many files are kept, the current one included; 0: all.
    pub max_files: usize,
}

/// An error's level that ends the server: logged as `[FTL]`.
pub const FATAL: &str = "fatal";

/// Where lines go; can be opened again after a log rotation by others.
#[derive(Clone)]
pub struct Sink {
    inner: Arc<Mutex<Inner>>,
    level: Arc<AtomicU8>,
}

struct Inner {
    config: LogConfig,
    file: Option<File>,
    written: u64,
}

impl Sink {
    /// Opens the file, or stderr.
    pub fn open(config: &LogConfig) -> io::Result<Sink> {
        let mut inner = Inner { config: config.clone(), file: None, written: 0 };
        inner.reopen()?;
        Ok(Sink { inner: Arc::new(Mutex::new(inner)), level: Arc::new(AtomicU8::new(rank(Level::INFO))) })
    }

    /// Opens the file again under its name.
    pub fn reopen(&self) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).reopen()
    }

    /// Makes this sink the process's log. Only the first call of a process has an effect; says whether it was.
    pub fn install(&self, config: &LogConfig) -> bool {
        self.set_level(config);
        let wanted = self.level.clone();
        let filter = dynamic_filter_fn(move |meta, _| {
            // Libraries have a lot to say that is not for operators.
            let ours = ["headwater", "hw_", FATAL].iter().any(|prefix| meta.target().starts_with(prefix));
            (ours || *meta.level() <= Level::WARN) && rank(*meta.level()) <= wanted.load(Ordering::Relaxed)
        });
        let lines = Lines { config: config.clone() };
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(self.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        tracing::subscriber::set_global_default(subscriber).is_ok()
    }

    /// Changes which lines are written; where and how stays.
    pub fn set_level(&self, config: &LogConfig) {
        let level = match (config.trace, config.debug) {
            (true, _) => Level::TRACE,
            (false, true) => Level::DEBUG,
            _ => Level::INFO,
        };
        self.level.store(rank(level), Ordering::Relaxed);
    }
}

/// The higher, the less important.
fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Inner {
    fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.config.file else { return Ok(()) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        self.written = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.file {
            None => io::stderr().write_all(line)?,
            Some(file) => {
                file.write_all(line)?;
                self.written += line.len() as u64;
            }
        }
        if self.config.size_limit > 0 && self.written > self.config.size_limit {
            self.rotate()?;
        }
        Ok(())
    }

    /// Puts the file aside under its name and the time, removes the oldest beyond the limit, and starts a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(path) = self.config.file.clone() else { return Ok(()) };
        let mut aside = path.clone().into_os_string();
        aside.push(now(true).replace(['/', ':', ' '], "."));
        std::fs::rename(&path, aside)?;
        if self.config.max_files > 0 {
            remove_oldest(&path, self.config.max_files - 1)?;
        }
        self.reopen()
    }
}

fn remove_oldest(path: &std::path::Path, keep: usize) -> io::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
    let mut aside: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|other| {
            let other = other.file_name().and_then(|name| name.to_str());
            other.is_some_and(|other| other.len() > name.len() && other.starts_with(name))
        })
        .collect();
    aside.sort(); // The time in the names sorts them by age.
    let surplus = aside.len().saturating_sub(keep);
    aside.iter().take(surplus).try_for_each(std::fs::remove_file)
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { sink: self }
    }
}

/// Writes whole lines to the sink.
pub struct LineWriter<'a> {
    sink: &'a Sink,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink.inner.lock().unwrap_or_else(PoisonError::into_inner).write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lines {
    config: LogConfig,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let label = match *meta.level() {
            Level::ERROR if meta.target() == FATAL => "FTL",
            Level::ERROR => "ERR",
            Level::WARN => "WRN",
            Level::INFO => "INF",
            Level::DEBUG => "DBG",
            Level::TRACE => "TRC",
        };
        write!(out, "[{}] ", std::process::id())?;
        if !self.config.no_time {
            write!(out, "{} ", now(self.config.utc))?;
        }
        write!(out, "[{label}] ")?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The time as `2026/11/23 01:42:15.335956`.
fn now(utc: bool) -> String {
    let stamp = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let zone = if utc { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
    stamp.to_zoned(zone).strftime("%Y/%m/%d %H:%M:%S%.6f").to_string()
}
