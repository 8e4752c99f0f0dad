//! House checks: `cargo xtask ci|tidy|arrows|counts|clusters|conform`, the same here and in continuous integration.

mod arrows;
mod ci;
mod counts;
mod exceptions;
mod source;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "usage: cargo xtask COMMAND
  ci       everything: fmt, clippy, tidy, arrows, tests, clusters, conform; prints totals
  tidy     lengths of files and functions, parameters, head comments, tests without sleeps, leaks
  arrows   which crate uses which, compared with docs/architecture.md; core's outside dependencies
  counts   instructions of the hot paths under valgrind, compared with dev/bench/baseline.txt; `counts --record` writes it anew
  clusters seeds of simulated clusters, and bugs planted there that must be found
  conform  builds the server and plays the scripts and clients against it (and NATS_SERVER_BIN)";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    let problems = match words.first().map(String::as_str) {
        Some("ci") => return ci::run(&root),
        Some("counts") => return ci::counts(&root, words.get(1).is_some_and(|word| word == "--record")),
        Some("clusters") => return ci::clusters(&root),
        Some("conform") => return ci::conform(&root, &words[1..]),
        Some("tidy") => tidy::check(&root),
        Some("arrows") => arrows::check(&root),
        _ => Err(USAGE.to_owned()),
    };
    match problems {
        Ok(problems) => {
            problems.iter().for_each(|problem| println!("{problem}"));
            println!("{}: {} problems", words[0], problems.len());
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: two above this crate, which is right wherever cargo was called.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or_else(|| here.to_owned(), Path::to_owned)
}
