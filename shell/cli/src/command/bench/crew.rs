//! Clients that work at the same time, each over a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::Barrier;

use super::Common;
use super::stats::{self, Sample};
use crate::command::connect::{Global, Session};
use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::units::{clock, comma};

/// One client at work.
pub struct Worker {
    /// Number of the client, from 0.
    pub index: u64,
    /// How many messages are its share.
    pub messages: u64,
    pub session: Session,
    pub sleep: std::time::Duration,
    bar: ProgressBar,
    barrier: Arc<Barrier>,
    behind: u64,
}

impl Worker {
    /// Waits until every client is ready.
    pub async fn ready(&self) {
        self.barrier.wait().await;
    }

    /// Notes progress, and rests if that was asked for.
    pub async fn step(&mut self, messages: u64) {
        // The bar is told now and then, as telling it takes longer than publishing.
        self.behind += messages;
        if self.behind >= 256 {
            self.bar.inc(self.behind);
            self.behind = 0;
        }
        if !self.sleep.is_zero() {
            tokio::time::sleep(self.sleep).await;
        }
    }
}

/// What clients that share one consumer have received together: which of them gets how much is the server's
/// choice, so they stop when the sum is reached.
#[derive(Clone)]
pub struct Pool {
    left: Arc<AtomicU64>,
    done: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Pool {
    /// A pool of so many messages.
    pub fn new(messages: u64) -> Self {
        let done = tokio::sync::watch::Sender::new(messages == 0);
        Self { left: Arc::new(AtomicU64::new(messages)), done: Arc::new(done) }
    }

    /// Takes a message out.
    pub fn take(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.send_replace(true);
        }
    }

    /// How many messages are still to come.
    pub fn left(&self) -> u64 {
        // What is received beyond the sum wraps below zero.
        let left = self.left.load(Ordering::Relaxed);
        if left > u64::MAX / 2 { 0 } else { left }
    }

    /// Does a client's work until it fails or the pool is empty.
    pub async fn drain(
        &self,
        work: impl Future<Output = Result<std::convert::Infallible, Failure>>,
    ) -> Result<(), Failure> {
        let mut done = self.done.subscribe();
        tokio::select! {
            failed = work => match failed? {},
            _ = done.wait_for(|done| *done) => Ok(()),
        }
    }
}

/// A measurement by several clients.
pub struct Crew {
    common: Common,
    title: &'static str,
    workers: Vec<Worker>,
}

impl Crew {
    /// Connects the clients. `doing` is what each of them says: `publishing 100 messages`.
    pub async fn assemble(
        global: &Global,
        common: &Common,
        title: &'static str,
        doing: &str,
    ) -> Result<Self, Failure> {
        let bars = match common.progress {
            Some(false) => MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()),
            _ => MultiProgress::new(),
        };
        let barrier = Arc::new(Barrier::new(usize::try_from(common.clients).unwrap_or(1)));
        let style = ProgressStyle::with_template("{prefix:>5} {bar:50} {pos}/{len} {per_sec} {eta}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let mut workers = Vec::new();
        for index in 0..common.clients {
            // A slow reader must not lose messages to the library's limit while it is being measured.
            let session =
                Session::open_with(global, |options| options.subscription_capacity(1 << 20)).await?;
            let messages = common.share(index);
            say!("{} [{}] Starting {title}, {doing} {} messages", clock(), index + 1, comma(messages));
            let bar = bars.add(ProgressBar::new(messages).with_style(style.clone()));
            bar.set_prefix(format!("[{}]", index + 1));
            let (sleep, barrier) = (common.sleep, barrier.clone());
            workers.push(Worker { index, messages, session, sleep, bar, barrier, behind: 0 });
        }
        Ok(Self { common: common.clone(), title, workers })
    }

    /// Lets them work and prints what came of it.
    pub async fn work<F, W>(self, work: W) -> Result<(), Failure>
    where
        W: Fn(Worker) -> F,
        F: Future<Output = Result<Sample, Failure>> + Send + 'static,
    {
        let bars: Vec<ProgressBar> = self.workers.iter().map(|worker| worker.bar.clone()).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in self.workers {
            let index = worker.index;
            let task = work(worker);
            tasks.spawn(async move { task.await.map(|sample| (index, sample)) });
        }
        let mut samples = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let done = done.map_err(|error| Failure::request("finish the measurement", error))?;
            samples.push(done?); // the first failure ends all: the set aborts the others
        }
        bars.iter().for_each(ProgressBar::finish_and_clear);
        samples.sort_by_key(|(index, _)| *index);
        let samples: Vec<Sample> = samples.into_iter().map(|(_, sample)| sample).collect();
        stats::print(self.title, &samples);
        match &self.common.csv {
            Some(path) => stats::write_csv(path, &samples),
            None => Ok(()),
        }
    }
}
