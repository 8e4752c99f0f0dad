//! Runs seeds: `hw-sim --seeds 2000 --from 0`, as many as bring so many power cuts: `hw-sim --cuts 10000`, or one with
//! everything that happens: `hw-sim --seed 1234`.

use std::process::ExitCode;

use hw_sim::{Failure, Plan, Planted, Report, simulate, simulate_cluster};

const USAGE: &str = "hw-sim [--cluster] [--seeds N | --cuts N] [--from N] [--planted NAME] | --seed N";

fn main() -> ExitCode {
    let (flags, args): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg == "--cluster");
    let simulate = if flags.is_empty() { simulate } else { simulate_cluster };
    let (mut seeds, mut from, mut one, mut planted) = (100, 0, None, Planted::Nothing);
    let mut cuts = None;
    for pair in args.chunks(2) {
        let (Some(name), value) = (pair.first(), pair.get(1)) else { continue };
        let number = value.and_then(|value| value.parse::<u64>().ok());
        match (name.as_str(), number) {
            ("--seeds", Some(number)) => seeds = number,
            ("--cuts", Some(number)) => cuts = Some(number),
            ("--from", Some(number)) => from = number,
            ("--seed", Some(number)) => one = Some(number),
            ("--planted", None) => {
                let named =
                    Planted::ALL.into_iter().find(|bug| value.is_some_and(|v| *v == format!("{bug:?}")));
                let Some(bug) = named else {
                    eprintln!("bugs: {:?}", Planted::ALL);
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
    match one {
        Some(seed) => run(simulate, seed..seed + 1, None, planted),
        None if cuts.is_some() => run(simulate, from..u64::MAX, cuts, planted),
        None => run(simulate, from..from + seeds, None, planted),
    }
}

/// Runs seeds, all of them or until there were so many power cuts.
fn run(
    simulate: fn(Plan) -> Result<Report, Failure>,
    seeds: std::ops::Range<u64>,
    cuts: Option<u64>,
    planted: Planted,
) -> ExitCode {
    let trace = seeds.end.saturating_sub(seeds.start) == 1;
    let (mut failed, mut events, mut time) = (0, 0, 0);
    let mut counts = std::collections::BTreeMap::<_, u64>::new();
    let mut all = 0;
    for seed in seeds {
        if cuts.is_some_and(|cuts| counts.get("power cuts").copied().unwrap_or(0) >= cuts) {
            break;
        }
        all += 1;
        match simulate(Plan { seed, planted, trace }) {
            Ok(report) => {
                events += report.events;
                time += report.time.millis();
                report.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
            }
            Err(failure) => {
                println!("{failure}");
                failed += 1;
            }
        }
    }
    println!("{all} seeds, {failed} failed; {} s of virtual time, {events} events", time / 1000);
    for (what, count) in counts {
        println!("{count:>10} {what}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
