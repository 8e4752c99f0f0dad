//! Runs seeds: `hw-sim --seeds 2000 --from 0`, as many as bring so many power cuts: `hw-sim --cuts 10000`, or one with
//! everything that happens: `hw-sim --seed 1234`. With `--cluster` these are seeds of clusters; `hw-sim --plants` says with
//! which seed each bug that can be planted into a cluster is found, of those that are found soon, and with `--all` of all.

use std::process::ExitCode;

use hw_sim::{Plan, Planted, Swarm, find_planted, simulate, simulate_cluster};

const USAGE: &str = "hw-sim [--cluster [--damage]] [--seeds N | --cuts N] [--from N] [--threads N] [--planted NAME] | --seed N | --plants [--all]";

/// Bugs that take more seeds are looked for only when all are.
const SOON: u64 = 80;

fn main() -> ExitCode {
    let is_flag = |arg: &String| matches!(arg.as_str(), "--cluster" | "--damage" | "--plants" | "--all");
    let (flags, args): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(is_flag);
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    let simulate = if has("--cluster") { simulate_cluster } else { simulate };
    let (mut seeds, mut from, mut one, mut planted) = (100, 0, None, Planted::Nothing);
    let (mut cuts, mut threads) = (None, 1);
    for pair in args.chunks(2) {
        let (Some(name), value) = (pair.first(), pair.get(1)) else { continue };
        let number = value.and_then(|value| value.parse::<u64>().ok());
        match (name.as_str(), number) {
            ("--seeds", Some(number)) => seeds = number,
            ("--cuts", Some(number)) => cuts = Some(number),
            ("--from", Some(number)) => from = number,
            ("--threads", Some(number)) => threads = number as usize,
            ("--seed", Some(number)) => one = Some(number),
            ("--planted", None) => {
                let mut all = Planted::ALL.into_iter().chain(Planted::CLUSTER);
                let Some(bug) = all.find(|bug| value.is_some_and(|v| *v == format!("{bug:?}"))) else {
                    eprintln!("bugs: {:?}, in clusters {:?}", Planted::ALL, Planted::CLUSTER);
                    return ExitCode::FAILURE;
                };
                planted = bug;
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    if has("--plants") {
        return plants(threads, if has("--all") { u64::MAX } else { SOON });
    }
    let range = match one {
        Some(seed) => seed..seed + 1,
        None if cuts.is_some() => from..u64::MAX,
        None => from..from + seeds,
    };
    let plan = Plan { seed: 0, planted, damage: has("--damage"), trace: one.is_some() };
    let swarm = Swarm::run(range, threads, cuts, &|seed| {
        let result = simulate(Plan { seed, ..plan });
        if let Err(failure) = &result {
            println!("{failure}");
        }
        result
    });
    println!("{swarm}");
    if swarm.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every bug is found that can be planted into a cluster.
fn plants(threads: usize, seeds: u64) -> ExitCode {
    let mut missed = 0;
    for (bug, found) in find_planted(threads, seeds) {
        match found {
            Some(failure) => {
                let text: String = failure.violation.text.chars().take(100).collect();
                println!("{bug:?}: seed {}: {}: {text}", failure.seed, failure.violation.invariant);
            }
            None => {
                println!("{bug:?} is not found within {} seeds", bug.within());
                missed += 1;
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
