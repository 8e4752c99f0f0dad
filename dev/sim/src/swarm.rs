//! Many seeds on several threads, and what came of all of them together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cluster::simulate_cluster;
use crate::planted::Planted;
use crate::simulate::{Failure, Plan, Report};

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// How many were run.
    pub seeds: u64,
    /// Those that failed, by their seeds.
    pub failures: Vec<Failure>,
    /// What happened in those that did not, counted.
    pub counts: BTreeMap<&'static str, u64>,
    events: u64,
    millis: i64,
}

impl Swarm {
    /// Runs seeds, all of them or until there were so many power cuts.
    pub fn run(
        seeds: std::ops::Range<u64>,
        threads: usize,
        cuts: Option<u64>,
        simulate: &(dyn Fn(u64) -> Result<Report, Failure> + Sync),
    ) -> Swarm {
        let (next, all) = (AtomicU64::new(seeds.start), Mutex::new(Swarm::default()));
        let is_enough = || cuts.is_some_and(|cuts| lock(&all).count("power cuts") >= cuts);
        let work = || {
            while !is_enough() {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let result = simulate(seed);
                lock(&all).take(result);
            }
        };
        std::thread::scope(|scope| {
            (0..threads.max(1)).for_each(|_| {
                scope.spawn(work);
            });
        });
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.failures.sort_by_key(|failure| failure.seed);
        all
    }

    fn take(&mut self, result: Result<Report, Failure>) {
        self.seeds += 1;
        match result {
            Ok(report) => {
                self.events += report.events;
                self.millis += report.time.millis();
                for (what, count) in report.counts {
                    *self.counts.entry(what).or_default() += count;
                }
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

/// With which seed each bug is found that can be planted into a cluster, of those that take at most so many seeds; none: with
/// none of as many as it may take.
pub fn find_planted(threads: usize, seeds: u64) -> Vec<(Planted, Option<Failure>)> {
    let bugs: Vec<Planted> = Planted::CLUSTER.into_iter().filter(|bug| bug.within() <= seeds).collect();
    let (next, all) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let plan = |seed, planted| Plan { seed, planted, damage: false, trace: false };
            // Only what goes well without the bug shows it.
            let found = (0..bug.within()).find_map(|seed| {
                let found = simulate_cluster(plan(seed, *bug)).err()?;
                simulate_cluster(plan(seed, Planted::Nothing)).is_ok().then_some(found)
            });
            all.lock().unwrap_or_else(PoisonError::into_inner).push((*bug, found));
        }
    };
    std::thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| {
            scope.spawn(work);
        });
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock(all: &Mutex<Swarm>) -> std::sync::MutexGuard<'_, Swarm> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Display for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (failed, seconds) = (self.failures.len(), self.millis / 1000);
        write!(
            f,
            "{} seeds, {failed} failed; {seconds} s of virtual time, {} events",
            self.seeds, self.events
        )?;
        self.counts.iter().try_for_each(|(what, count)| write!(f, "\n{count:>10} {what}"))
    }
}
