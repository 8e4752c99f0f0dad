//! One seed of a cluster: work and faults in turns, then everything is healed, and the judgement.

mod faults;
mod judge;

use std::sync::Arc;

use hw_auth::{AccountSpec, Directory, DirectorySpec, JsLimits, UserKey, UserSpec};
use hw_kit::{Rng, Span};

use crate::history::Violation;
use crate::server::Setup;
use crate::simulate::{Failure, Plan, Report, guarded};
use crate::trace::Trace;
use crate::workload::Workload;
use crate::world::{Ground, Start, World};

/// A cluster, its clients, and what was done to it.
struct Run {
    world: World,
    workload: Workload,
    rng: Rng,
    /// Whether bits change on disks.
    damages: bool,
    /// The server that lost its disk, or found it damaged: one in a run, so that others have everything.
    stricken: Option<usize>,
    /// Whether it may find damage: what that costs it has to come back from the others.
    is_damaged: bool,
}

fn violation(invariant: &'static str, text: impl Into<String>) -> Violation {
    Violation { invariant, text: text.into() }
}

/// Runs a seed.
pub fn simulate_cluster(plan: Plan) -> Result<Report, Failure> {
    let flags = if plan.damage { "--cluster --damage " } else { "--cluster " };
    guarded(plan, flags, || Run::new(plan).and_then(Run::finish))
}

/// Everybody is `$G`'s, but for the operator.
fn directory() -> Arc<Directory> {
    let operator = UserSpec {
        key: UserKey::Password { user: "sys".into(), pass: "sys".into() },
        permissions: None,
        connection_kinds: vec![],
    };
    let system = AccountSpec { name: "$SYS".into(), users: vec![operator], ..AccountSpec::default() };
    let spec = DirectorySpec {
        accounts: vec![system],
        global_jetstream: Some(JsLimits::NONE),
        ..DirectorySpec::default()
    };
    Arc::new(Directory::new(&spec).expect("one user is fine"))
}

impl Run {
    fn new(plan: Plan) -> Result<Run, Violation> {
        let mut rng = Rng::new(plan.seed);
        let setup = Setup {
            shards: 1 + rng.below(2) as u16,
            checkpoint_bytes: [2 << 10, 8 << 10, 40 << 10][rng.below(3) as usize],
            wal_bytes: 144 << 10,
            planted: plan.planted,
        };
        let servers = if rng.chance(1, 5) { 5 } else { 3 };
        let directory = directory();
        let directories = (0..servers).map(|_| directory.clone()).collect();
        let ground = Ground { directories, linked: true, replicated: true };
        let mut world = World::new(plan.seed, setup, ground, Trace::new(plan.trace));
        world.trace.line(world.now(), || format!("seed {} {servers} servers {setup:?}", plan.seed));
        let workload = Workload::of_cluster(plan.seed, &mut world);
        let mut run = Run { world, workload, rng, damages: plan.damage, stricken: None, is_damaged: false };
        for host in 0..servers {
            run.boot(host, false)?;
        }
        Ok(run)
    }

    fn finish(mut self) -> Result<Report, Violation> {
        let result = self.run();
        if let Err(Violation { invariant, text }) = &result {
            let now = self.world.now();
            for host in 0..self.world.servers() {
                let groups = self.world.server(host).map(|server| server.groups(now)).unwrap_or_default();
                self.world.trace.line(now, || format!("server {host} has {groups}"));
            }
            self.world.trace.line(now, || format!("{invariant}: {text}"));
        }
        result
    }

    fn run(&mut self) -> Result<Report, Violation> {
        let start = self.world.now();
        self.workload.paused = true;
        let replicas = if self.world.servers() == 5 && self.rng.chance(1, 2) { 5 } else { 3 };
        let made = self.workload.make_bucket(&mut self.world, replicas);
        made.map_err(|text| violation("progress", text))?;
        self.workload.paused = false;
        for _ in 0..2 + self.rng.below(3) {
            self.work(50, 250)?;
            self.fault()?;
            self.heal()?;
        }
        self.judge()?;
        let mut counts = std::mem::take(&mut self.workload.history.counts);
        counts.insert("checkpoints", self.world.checkpoints());
        counts.insert("comparisons of replicas", self.world.agreement.looks());
        let (hash, events) = (self.world.trace.hash(), self.world.trace.events());
        Ok(Report { hash, events, time: self.world.now().since(start), counts })
    }

    fn boot(&mut self, host: usize, cuts: bool) -> Result<(), Violation> {
        let tolerant = self.is_damaged && self.stricken == Some(host);
        let mut booted = self.world.boot(host, Start { cuts, tolerant });
        if tolerant && booted.is_err() {
            // It says that its store cannot be used: an operator takes that away, and the others replace it.
            self.count("replaced stores");
            self.is_damaged = false;
            self.world.wipe(host);
            booted = self.world.boot(host, Start { cuts, tolerant: false });
        }
        booted.map_err(|text| violation("recovery", text))
    }

    /// Lets things happen for between so many milliseconds.
    fn work(&mut self, least: u64, most: u64) -> Result<(), Violation> {
        let millis = least + self.rng.below(most - least + 1);
        self.go(Span::from_millis(millis as i64))
    }

    fn go(&mut self, span: Span) -> Result<(), Violation> {
        self.workload.run(&mut self.world, span).map_err(sorted)?;
        self.workload.take_violation().map_or(Ok(()), Err)
    }

    fn count(&mut self, what: &'static str) {
        self.workload.history.count(what);
    }
}

/// What the world says is wrong is about replicas, or about serving.
fn sorted(text: String) -> Violation {
    let is_about_replicas = text.contains("differ") || text.contains("went back");
    violation(if is_about_replicas { "agree" } else { "progress" }, text)
}
