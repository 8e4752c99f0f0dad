//! The power goes under load, again and again, on a disk that then loses what was not synced: nothing that was acknowledged is
//! missing, changed, out of order or invented, and what was removed stays away. The twin of the simulator's power cuts, with the
//! real binary, the real kernel and the real server beside it.
//!
//! `HEADWATER_POWER_ROUNDS` says how often (default 6), `HEADWATER_POWER_SEED` makes other choices. For `nats-server` the
//! outcome is an observation that is printed; its disk is the kind one.

use std::{process::ExitCode, time::Duration};

use hw_conform::{Case, Cases, Dice, Load, Outcome, Target, run_all, targets};
use hw_faultfs::{FaultDisk, Survival};
use hw_kit::Rng;
use hw_testkit::{Launch, Server, TempDir};

/// After so many rounds with one store a new one is begun: what is checked must fit into memory.
const LIFE: u64 = 20;
/// A server that acknowledges before the disk is found out within so many rounds.
const FIND_WITHIN: u64 = 6;

fn main() -> ExitCode {
    let rounds = std::env::var("HEADWATER_POWER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut cases = Vec::new();
    for target in targets() {
        let ours = target.name == "headwater";
        // Small enough that most of what is read comes from segments and most restarts begin at a checkpoint.
        let small = "checkpoint_bytes: 400KB";
        match ours {
            true => {
                cases.push(case(&target, "", small, Survival::Any, rounds));
                cases.push(case(&target, "a journal, ", small, Survival::Ordered, rounds));
                cases.push(planted(&target));
            }
            false => {
                cases.push(case(&target, "", "", Survival::Ordered, rounds));
                cases.push(case(
                    &target,
                    "sync_interval always, ",
                    "sync_interval: always",
                    Survival::Ordered,
                    rounds,
                ));
            }
        }
    }
    run_all(Cases { cases, threads: 1 })
}

fn case(target: &Target, how: &str, options: &str, survival: Survival, rounds: u64) -> Case {
    let name = format!("{}: {how}the power goes under load", target.name);
    let (target, options) = (target.clone(), options.to_owned());
    let run = move || match (&target.binary, &mounted(survival)) {
        (Err(why), _) | (_, Err(why)) => Outcome::Skipped(why.clone()),
        (Ok(_), Ok(_)) if target.name == "headwater" => {
            let mut sum = Sum::default();
            let result = lives(&target, &options, survival, rounds, &mut sum);
            println!("{}: {}", target.name, sum.text());
            result.into()
        }
        (Ok(_), Ok(_)) => observe(&target, &options, survival, rounds),
    };
    Case { name, run: Box::new(run) }
}

/// The judge is judged: with an interval instead of syncs something is lost, and it says so.
fn planted(target: &Target) -> Case {
    let name = format!("{}: what an interval between syncs loses is found", target.name);
    let target = target.clone();
    let run = move || match (&target.binary, &mounted(Survival::Any)) {
        (Err(why), _) | (_, Err(why)) => Outcome::Skipped(why.clone()),
        (Ok(_), Ok(_)) => {
            let mut sum = Sum::default();
            match lives(&target, "sync_interval: \"10m\"", Survival::Any, FIND_WITHIN, &mut sum) {
                Err(what) if what.contains("cannot start") => Outcome::Failed(what),
                Err(what) => {
                    println!("found: {}", what.lines().next().unwrap_or_default());
                    Outcome::Passed
                }
                Ok(()) => Outcome::Failed(format!("no loss was found in {FIND_WITHIN} rounds")),
            }
        }
    };
    Case { name, run: Box::new(run) }
}

/// Each time something is wrong a new store is begun.
fn observe(target: &Target, options: &str, survival: Survival, rounds: u64) -> Outcome {
    let (mut sum, mut wrong) = (Sum::default(), Vec::new());
    while sum.rounds < rounds {
        let before = sum.rounds;
        if let Err(what) = lives(target, options, survival, rounds - before, &mut sum) {
            wrong.push(what.lines().next().unwrap_or_default().to_owned());
            sum.rounds = sum.rounds.max(before + 1);
        }
    }
    println!("{} ({options}): {}; {} of these with a loss", target.name, sum.text(), wrong.len());
    wrong.iter().for_each(|what| println!("    {what}"));
    match wrong.first() {
        None => Outcome::Passed,
        Some(what) => Outcome::Skipped(format!("makes no such promise, and it shows: {what}")),
    }
}

#[derive(Default)]
struct Sum {
    rounds: u64,
    cuts: u64,
    syncs: u64,
    known: Vec<String>,
}

impl Sum {
    fn text(&self) -> String {
        let Sum { rounds, cuts, syncs, known } = self;
        format!("{rounds} rounds, {cuts} power cuts, {syncs} syncs; {}", known.join("; "))
    }
}

fn mounted(survival: Survival) -> Result<(), String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    FaultDisk::mount(dir.path(), survival).map(drop).map_err(|error| format!("no FUSE here: {error}"))
}

fn lives(
    target: &Target,
    options: &str,
    survival: Survival,
    rounds: u64,
    sum: &mut Sum,
) -> Result<(), String> {
    let mut left = rounds;
    while left > 0 {
        let life = left.min(LIFE);
        let seed = sum.rounds;
        let mut run = Run::new(target, options, survival, seed)?;
        let result = run.rounds(life, sum);
        sum.known.push(run.load.summary());
        let counts = run.disk.counts();
        (sum.cuts, sum.syncs) = (sum.cuts + counts.cuts, sum.syncs + counts.syncs);
        result?;
        left -= life;
    }
    Ok(())
}

struct Run {
    server: Server,
    load: Load,
    disk: FaultDisk,
    rng: Rng,
    /// Where the disk is mounted; removed last.
    _dir: TempDir,
}

impl Drop for Run {
    fn drop(&mut self) {
        // A server that waits for the disk cannot even be killed.
        self.disk.end_waiting();
        self.server.kill();
    }
}

impl Run {
    fn new(target: &Target, options: &str, survival: Survival, life: u64) -> Result<Run, String> {
        let binary = target.binary.clone()?;
        let text = |error: std::io::Error| error.to_string();
        let dir = TempDir::new().map_err(text)?;
        let disk = FaultDisk::mount(dir.path(), survival).map_err(text)?;
        let is_kept_to_promise = target.name == "headwater" && !options.contains("sync_interval");
        let config = Some(format!("jetstream {{ {options} }}"));
        let launch = Launch { binary, flags: vec!["-js".to_owned()], config };
        let server =
            Server::start_on(launch, &dir.path().join("store")).map_err(|error| error.to_string())?;
        let mut dice = Dice::from_env("HEADWATER_POWER_SEED");
        for _ in 0..life {
            dice.below(2);
        }
        let rng = Rng::new(dice.below(u64::MAX));
        let load = Load::begin(server.port(), dice)?;
        if !is_kept_to_promise {
            // Streams that were made a moment ago would be lost as well, and hide the rest.
            disk.settle();
        }
        Ok(Run { server, load, disk, rng, _dir: dir })
    }

    fn rounds(&mut self, rounds: u64, sum: &mut Sum) -> Result<(), String> {
        for round in 1..=rounds {
            let whole = round % 10 == 0 || round == rounds;
            sum.rounds += 1;
            let done = self.load_and_cut().and_then(|()| self.load.check(self.server.port(), whole));
            done.map_err(|what| format!("{what}\nround {round} of {rounds}\n{}", self.server.log_end()))?;
        }
        self.load.drain(self.server.port())?;
        self.load.check(self.server.port(), true)
    }

    /// Clients work until the power goes in the middle of it.
    fn load_and_cut(&mut self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        self.disk.set_sync_delay(Duration::from_micros(self.load.below(3000)));
        let span = Duration::from_millis(30 + self.load.below(400));
        if self.load.below(2) == 0 {
            self.disk.freeze_after(self.load.below(2000));
        }
        let Run { server, load, disk, .. } = self;
        load.run(server.port(), || {
            disk.wait_for_cut(span);
            disk.freeze();
            let killed = server.signal("KILL").map_err(text);
            // It dies where it waits for the disk, and its connections close, only when that answers.
            disk.end_waiting();
            killed
        })?;
        self.cut()?;
        // Now and then it goes again while the server reads back what is left.
        for _ in 0..self.load.below(3) {
            self.disk.freeze_after(self.load.below(150));
            self.server.begin_start().map_err(|error| error.to_string())?;
            self.disk.wait_for_cut(Duration::from_millis(300));
            self.disk.freeze();
            self.cut()?;
        }
        self.server.start_again().map_err(|error| error.to_string())
    }

    fn cut(&mut self) -> Result<(), String> {
        // Dead already, mostly; where not, the signal comes before the disk's answer.
        let _ = self.server.signal("KILL");
        self.disk.end_waiting();
        self.server.kill();
        self.disk
            .power_on(&mut self.rng)
            .map_err(|error| format!("the disk cannot be mounted again: {error}"))
    }
}
