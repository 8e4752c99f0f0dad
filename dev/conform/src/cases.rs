//! Named cases run in parallel, reported in the manner of the standard test runner.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not run, and why.
    Skipped(String),
    /// What went wrong.
    Failed(String),
}

/// One case.
pub struct Case {
    /// Printed; the command line's words select by it.
    pub name: String,
    /// Does it. A panic is a failure too.
    pub run: Box<dyn Fn() -> Outcome + Send + Sync>,
}

/// What to run.
pub struct Cases {
    /// In the order of the report.
    pub cases: Vec<Case>,
    /// How many at once.
    pub threads: usize,
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(what) => Self::Failed(what),
        }
    }
}

/// Runs those whose name contains one of the command line's words (all without words; `--` words are left to
/// the caller), prints the report.
pub fn run_all(cases: Cases) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if std::env::args().any(|word| word == "--list") {
        cases.cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let total = cases.cases.len();
    let chosen: Vec<Case> = cases
        .cases
        .into_iter()
        .filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word)))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let outcomes = run_chosen(&chosen, cases.threads);
    let failed: Vec<(&Case, &String)> = chosen
        .iter()
        .zip(&outcomes)
        .filter_map(|(case, outcome)| match outcome {
            Outcome::Failed(what) => Some((case, what)),
            _ => None,
        })
        .collect();
    for (case, what) in &failed {
        println!("\n---- {} ----\n{what}", case.name);
    }
    let passed = outcomes.iter().filter(|outcome| **outcome == Outcome::Passed).count();
    let skipped = outcomes.len() - passed - failed.len();
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        total - chosen.len(),
        started.elapsed().as_secs_f64(),
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_chosen(chosen: &[Case], threads: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; chosen.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((at, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|at| chosen.get(at).map(|case| (at, case)))
                {
                    let outcome = catch_unwind(AssertUnwindSafe(&case.run))
                        .unwrap_or_else(|panic| Outcome::Failed(panic_text(panic.as_ref())));
                    match &outcome {
                        Outcome::Passed => println!("test {} ... ok", case.name),
                        Outcome::Skipped(why) => println!("test {} ... ignored, {why}", case.name),
                        Outcome::Failed(_) => println!("test {} ... FAILED", case.name),
                    }
                    outcomes.lock().expect("a case that panics is caught before it can hold the lock")[at] =
                        Some(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("a case that panics is caught before it can hold the lock");
    outcomes.into_iter().map(|outcome| outcome.expect("the threads run until every case is done")).collect()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_own_outcome_and_a_panic_is_a_failure() {
        let case = |name: &str, run: fn() -> Outcome| Case { name: name.to_owned(), run: Box::new(run) };
        let chosen = [
            case("a", || Outcome::Passed),
            case("b", || Outcome::Skipped("no tool".to_owned())),
            case("c", || panic!("broken")),
            case("d", || Outcome::Failed("wrong".to_owned())),
        ];
        let want = vec![
            Outcome::Passed,
            Outcome::Skipped("no tool".to_owned()),
            Outcome::Failed("broken".to_owned()),
            Outcome::Failed("wrong".to_owned()),
        ];
        for threads in [1, 3] {
            assert_eq!(run_chosen(&chosen, threads), want);
        }
    }
}
