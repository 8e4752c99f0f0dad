//! `hw-fuzz TARGET SECONDS` runs random inputs; `hw-fuzz TARGET --input N` runs one again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hw_fuzz::{TARGETS, Target, input};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let target = |name: &str| TARGETS.iter().find(|target| target.name == name);
    match words.as_slice() {
        [name, "--input", number] => match (target(name), number.parse()) {
            (Some(target), Ok(number)) => one(target, number),
            _ => usage(),
        },
        [name, seconds] => match (target(name), seconds.parse()) {
            (Some(target), Ok(seconds)) => many(target, Duration::from_secs(seconds)),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    eprintln!("hw-fuzz TARGET SECONDS | hw-fuzz TARGET --input N\ntargets: {}", names.join(" "));
    ExitCode::FAILURE
}

fn one(target: &Target, number: u64) -> ExitCode {
    let bytes = input(target, &(target.corpus)(), number);
    println!("{}", bytes.escape_ascii());
    (target.run)(&bytes);
    ExitCode::SUCCESS
}

fn many(target: &Target, time: Duration) -> ExitCode {
    let corpus = (target.corpus)();
    // Each run looks elsewhere.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = since.as_nanos() as u64 >> 8 << 8;
    let (start, mut runs, mut failed) = (Instant::now(), 0u64, 0);
    while start.elapsed() < time && failed < 10 {
        let number = if runs < corpus.len() as u64 { runs } else { from + runs };
        let bytes = input(target, &corpus, number);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            println!("cargo run --release -p hw-fuzz -- {} --input {number}", target.name);
            failed += 1;
        }
        runs += 1;
    }
    println!("{}: {runs} inputs, {failed} failed", target.name);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
