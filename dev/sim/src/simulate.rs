//! One seed from beginning to end: work and faults in turns, then peace, and the judgement after each.

use std::collections::BTreeMap;

use hw_kit::{Rng, Span};

use crate::audit::{Dump, audit, has_work};
use crate::history::Violation;
use crate::invariants;
use crate::planted::Planted;
use crate::server::Setup;
use crate::trace::Trace;
use crate::workload::Workload;
use crate::world::{Ground, Start, World};

/// What is pulled and settled within this after the last fault, or never.
const DRAIN: Span = Span::from_secs(4);
/// Deleted messages are overwritten within this.
const ERASE: Span = Span::from_secs(20);

/// No schedule of the workload is due later than this after its publish.
const SCHEDULES_END: Span = Span::from_millis(450);

/// What a seed is run with.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// What is wrong on purpose.
    pub planted: Planted,
    /// Whether bits change on a disk of a cluster.
    pub damage: bool,
    /// Whether what happens is printed.
    pub trace: bool,
}

/// How a seed ended well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Of every byte sent and every disk operation.
    pub hash: u64,
    /// How many of these there were.
    pub events: u64,
    /// Virtual time that passed.
    pub time: Span,
    /// What happened, counted.
    pub counts: BTreeMap<&'static str, u64>,
}

/// How a seed failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was violated.
    pub violation: Violation,
    /// Of the command that replays it.
    pub flags: &'static str,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { seed, violation: Violation { invariant, text }, flags } = self;
        write!(f, "seed {seed}: {invariant}: {text}\n  cargo run --release -p hw-sim -- {flags}--seed {seed}")
    }
}

/// How the server goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Kill,
    PowerCut,
}

struct Run {
    world: World,
    workload: Workload,
    rng: Rng,
}

/// Runs a seed.
pub fn simulate(plan: Plan) -> Result<Report, Failure> {
    guarded(plan, "", || Run::new(plan).and_then(Run::finish))
}

/// A panic of the server is a violation like any other.
pub fn guarded(
    plan: Plan,
    flags: &'static str,
    run: impl FnOnce() -> Result<Report, Violation>,
) -> Result<Report, Failure> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { invariant: "no panic", text: text.unwrap_or_default() })
    });
    result.map_err(|violation| Failure { seed: plan.seed, violation, flags })
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
        let mut world = World::new(plan.seed, setup, Ground::alone(), Trace::new(plan.trace));
        world.trace.line(world.now(), || format!("seed {} {setup:?}", plan.seed));
        let workload = Workload::new(plan.seed, &mut world);
        world.boot(0, Start::default()).map_err(refused)?;
        Ok(Run { world, workload, rng })
    }

    fn finish(mut self) -> Result<Report, Violation> {
        let start = self.world.now();
        for _ in 0..1 + self.rng.below(4) {
            self.work()?;
            let failed = self.trouble()?;
            let quiet = self.rng.chance(1, 3) && !failed;
            let before = if quiet { Some(self.audit("before a restart")?) } else { None };
            let fault = if self.rng.chance(2, 3) { Fault::PowerCut } else { Fault::Kill };
            self.restart(fault)?;
            let after = self.audit("after a restart")?;
            if let Some(before) = before {
                invariants::replay::compare(&before, &after, "restart").map_err(|found| self.mark(found))?;
            }
        }
        self.drain()?;
        self.erased()?;
        self.twice()?;
        let checkpoints = self.world.checkpoints();
        let mut counts = self.workload.history.counts;
        counts.insert("checkpoints", checkpoints);
        counts.insert("rewritten segments", self.world.rewritten());
        let (hash, events) = (self.world.trace.hash(), self.world.trace.events());
        Ok(Report { hash, events, time: self.world.now().since(start), counts })
    }

    fn work(&mut self) -> Result<(), Violation> {
        let span = Span::from_millis(20 + self.rng.below(100) as i64);
        self.go(span)
    }

    /// Now and then the disk is full for a while, or a sync fails; gives whether the store stopped.
    fn trouble(&mut self) -> Result<bool, Violation> {
        match self.rng.below(8) {
            0 => self.full_disk(),
            1 => {
                self.workload.lenient = true;
                self.world.disk(0).fail_sync_in = Some(self.rng.below(20));
                self.work()?;
                self.end_trouble("failed syncs")
            }
            2 => self.unreadable(),
            3 => {
                self.workload.lenient = true;
                self.world.disk(0).fail_write_in = Some(self.rng.below(60));
                self.work()?;
                self.end_trouble("failed writes")
            }
            4 => {
                self.workload.lenient = true;
                self.world.disk(0).read_only = true;
                self.work()?;
                self.end_trouble("read-only disks")
            }
            _ => Ok(false),
        }
    }

    /// Some reads fail for a while: who asked is told, nothing else stops, and later everything is read after all.
    fn unreadable(&mut self) -> Result<bool, Violation> {
        let before = self.world.disk(0).failures;
        self.world.disk(0).fail_reads = Some(2 + self.rng.below(4));
        self.work()?;
        self.world.disk(0).fail_reads = None;
        if self.world.is_in_trouble(0).0 {
            return Err(stuck("the store has stopped because of reads".to_owned()));
        }
        let failed = self.world.disk(0).failures - before;
        self.workload.history.count(if failed > 0 { "disks with failed reads" } else { "no read failed" });
        self.audit("after reads failed")?;
        Ok(false)
    }

    /// The disk works again. What failed on it may not have been told to the store yet, so that comes first.
    fn end_trouble(&mut self, what: &'static str) -> Result<bool, Violation> {
        let disk = self.world.disk(0);
        (disk.fail_sync_in, disk.fail_write_in, disk.read_only) = (None, None, false);
        let failures = disk.failures;
        self.work()?;
        if self.world.is_in_trouble(0).0 {
            self.workload.history.count(what);
            return self.stopped();
        }
        // What tidies up may fail alone, which is told and no more.
        self.workload.history.count(if failures > 0 { "failures without an end" } else { "no write failed" });
        Ok(false)
    }

    /// The store has stopped: what is there can still be read, and stays so now that the disk works again.
    fn stopped(&mut self) -> Result<bool, Violation> {
        let Run { world, workload, .. } = self;
        // Whether what was asked for when it stopped has happened is seen at the next start.
        let dump = audit(world, workload).map_err(stuck)?;
        invariants::check_stopped(&workload.history, &dump, world.now()).map_err(|found| self.mark(found))?;
        if !self.world.is_in_trouble(0).0 {
            return Err(stuck("a store that has stopped goes on".to_owned()));
        }
        Ok(true)
    }

    /// No space is left: writes may be refused, everything else goes on, and writes do once there is space again.
    fn full_disk(&mut self) -> Result<bool, Violation> {
        self.workload.lenient = true;
        let used = self.world.disk(0).used();
        self.world.disk(0).capacity = Some(used + self.rng.below(100_000));
        for _ in 0..3 {
            self.work()?;
        }
        let (failed, full) = self.world.is_in_trouble(0);
        self.workload.history.count(if full { "full disks" } else { "disks that were not filled" });
        if failed {
            self.workload.history.count("stores stopped by a full disk");
            return Ok(true);
        }
        self.audit("on a full disk")?;
        self.world.disk(0).capacity = None;
        self.go(Span::from_millis(1500))?;
        match self.world.is_in_trouble(0) {
            (true, _) => Ok(true),
            (false, true) => Err(stuck("there is space again, but the store does not see it".to_owned())),
            (false, false) => {
                self.audit("after there is space again")?;
                self.workload.lenient = false;
                Ok(false)
            }
        }
    }

    fn go(&mut self, span: Span) -> Result<(), Violation> {
        self.workload.run(&mut self.world, span).map_err(stuck)?;
        self.found()
    }

    fn found(&mut self) -> Result<(), Violation> {
        self.workload.take_violation().map_or(Ok(()), Err)
    }

    fn restart(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::Kill => self.world.kill(0),
            Fault::PowerCut => self.world.power_cut(0),
        }
        self.workload.history.count(if fault == Fault::Kill { "kills" } else { "power cuts" });
        // What the network still carries arrives; clients wait for the server.
        self.go(Span::from_millis(20))?;
        self.workload.lenient = false;
        let disk = self.world.disk(0);
        (disk.capacity, disk.fail_sync_in, disk.fail_write_in) = (None, None, None);
        self.world.boot(0, Start { cuts: fault == Fault::PowerCut, ..Start::default() }).map_err(refused)?;
        self.workload.restarted();
        Ok(())
    }

    /// Asks for everything and checks it.
    fn audit(&mut self, when: &str) -> Result<Dump, Violation> {
        let Run { world, workload, .. } = self;
        let dump = audit(world, workload).map_err(stuck)?;
        world.trace.line(world.now(), || format!("audit {when}: {} streams", dump.streams.len()));
        self.found()?;
        let is_there = |stream: &str, consumer: Option<&str>| {
            dump.streams
                .get(stream)
                .is_some_and(|found| consumer.is_none_or(|consumer| found.consumers.contains_key(consumer)))
        };
        self.workload.settle_unknown(&is_there);
        self.workload.history.starved = self.workload.lenient;
        invariants::check(&self.workload.history, &dump, self.world.now())
            .map_err(|found| self.mark(found))?;
        Ok(dump)
    }

    fn mark(&self, violation: Violation) -> Violation {
        self.world.trace.clone().line(self.world.now(), || format!("{violation:?}"));
        violation
    }

    /// Peace: everything that is there is delivered and settled.
    fn drain(&mut self) -> Result<(), Violation> {
        self.workload.draining = true;
        // What is scheduled comes before it is asked for.
        self.go(SCHEDULES_END)?;
        let until = self.world.now() + DRAIN;
        loop {
            self.go(Span::from_millis(120))?;
            if self.world.now() >= until || !has_work(&mut self.world, &mut self.workload).map_err(stuck)? {
                break;
            }
        }
        let dump = self.audit("after the drain")?;
        invariants::delivery::check_drained(&self.workload.history, &dump)
    }

    /// What was deleted and was to be overwritten is nowhere on the disk, after a while.
    fn erased(&mut self) -> Result<(), Violation> {
        let until = self.world.now() + ERASE;
        loop {
            let Run { world, workload, .. } = self;
            let left = invariants::erased::check(&mut workload.history, world.disk(0));
            match left {
                Err(_) if self.world.now() < until => self.go(Span::from_millis(500))?,
                other => return other,
            }
        }
    }

    /// Opens the disk twice more, with nothing in between.
    fn twice(&mut self) -> Result<(), Violation> {
        self.restart(Fault::Kill)?;
        let first = self.audit("opened once")?;
        self.restart(Fault::Kill)?;
        let second = self.audit("opened twice")?;
        invariants::replay::compare(&first, &second, "opened twice")
    }
}

fn refused(text: String) -> Violation {
    Violation { invariant: "recovery", text }
}

fn stuck(text: String) -> Violation {
    Violation { invariant: "liveness", text }
}
