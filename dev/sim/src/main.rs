//! Runs seeds: `hw-sim --seeds 2000 --from 0`, or one with everything that happens: `hw-sim --seed 1234`.

use std::process::ExitCode;

use hw_sim::{Plan, Planted, simulate};

const USAGE: &str = "hw-sim [--seeds N] [--from N] [--planted NAME] | --seed N";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mut seeds, mut from, mut one, mut planted) = (100, 0, None, Planted::Nothing);
    for pair in args.chunks(2) {
        let (Some(name), value) = (pair.first(), pair.get(1)) else { continue };
        let number = value.and_then(|value| value.parse::<u64>().ok());
        match (name.as_str(), number) {
            ("--seeds", Some(number)) => seeds = number,
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
        Some(seed) => run(seed..seed + 1, planted, true),
        None => run(from..from + seeds, planted, false),
    }
}

fn run(seeds: std::ops::Range<u64>, planted: Planted, trace: bool) -> ExitCode {
    let (mut failed, mut events, mut time) = (0, 0, 0);
    let mut counts = std::collections::BTreeMap::<_, u64>::new();
    let all = seeds.end - seeds.start;
    for seed in seeds {
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
