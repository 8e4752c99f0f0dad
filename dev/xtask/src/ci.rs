//! Everything that must hold before a change is taken, with the totals at the end.

use std::{
    io::{BufRead, BufReader, IsTerminal},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use crate::counts::{self, Counted};
use crate::{arrows, tidy};

/// What the test runners counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Totals {
    /// Adds what a closing line of a test runner says; other lines say nothing.
    fn read(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result: ") else { return };
        let Some((_, counts)) = rest.split_once(". ") else { return };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) =
                (words.next().and_then(|word| word.parse::<usize>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// How many seeds of clusters are run.
const CLUSTER_SEEDS: u64 = 500;

/// The simulator on both cores, with what follows for it.
const SIMULATE: [&str; 9] =
    ["run", "--quiet", "--profile", "sim", "--package", "hw-sim", "--", "--threads", "2"];

/// What the test runners said of what failed: told again at the end, because logs are often cut in the middle.
#[derive(Debug, Default)]
struct Recap {
    lines: Vec<String>,
    is_inside: bool,
}

impl Recap {
    /// Enough for some failures with their servers' logs.
    const MOST: usize = 120;

    /// Keeps a line that belongs to the report of a test that failed.
    fn read(&mut self, line: &str) {
        if line.starts_with("---- ") {
            self.is_inside = true;
        } else if line.starts_with("test result: ") {
            self.is_inside = false;
        }
        if self.is_inside && self.lines.len() < Self::MOST {
            self.lines.push(line.to_owned());
        }
    }
}

/// A running check of everything; all of it runs even if something failed.
struct Ci<'a> {
    root: &'a Path,
    totals: Totals,
    recap: Recap,
    broken: Vec<String>,
}

impl<'a> Ci<'a> {
    fn new(root: &'a Path) -> Ci<'a> {
        Ci { root, totals: Totals::default(), recap: Recap::default(), broken: Vec::new() }
    }
}

/// `cargo xtask ci`
pub fn run(root: &Path) -> ExitCode {
    let mut ci = Ci::new(root);
    ci.house("tidy", tidy::check);
    ci.house("arrows", arrows::check);
    ci.cargo("fmt", &["fmt", "--all", "--check"]);
    ci.cargo("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    ci.cargo("test", &["test", "--workspace", "--exclude", "hw-conform", "--no-fail-fast", "--quiet"]);
    ci.clusters();
    ci.planted(&[]);
    ci.counts(false);
    ci.conform(&[]);
    ci.end()
}

/// `cargo xtask clusters`
pub fn clusters(root: &Path) -> ExitCode {
    let mut ci = Ci::new(root);
    ci.clusters();
    ci.planted(&["--all"]);
    ci.end()
}

/// `cargo xtask counts [--record]`
pub fn counts(root: &Path, record: bool) -> ExitCode {
    let mut ci = Ci::new(root);
    ci.counts(record);
    ci.end()
}

/// `cargo xtask conform [WORD...]`
pub fn conform(root: &Path, words: &[String]) -> ExitCode {
    let mut ci = Ci::new(root);
    ci.conform(words);
    ci.end()
}

impl Ci<'_> {
    /// Seeds of clusters, with code that is fast enough for many.
    fn clusters(&mut self) {
        let seeds = CLUSTER_SEEDS.to_string();
        let chosen = ["--cluster", "--seeds", &seeds];
        self.cargo("clusters", &[&SIMULATE[..], &chosen].concat());
    }

    /// Bugs that are planted into clusters and must be found.
    fn planted(&mut self, more: &[&str]) {
        self.cargo("planted bugs", &[&SIMULATE[..], &["--plants"], more].concat());
    }

    fn conform(&mut self, words: &[String]) {
        let is_named = std::env::var_os("HEADWATER_BIN").is_some();
        if !is_named && !self.cargo("build", &["build", "--quiet", "--package", "headwater-cli"]) {
            return;
        }
        let mut arguments = vec!["test", "--package", "hw-conform", "--no-fail-fast", "--quiet"];
        if !words.is_empty() {
            // The words (and `--trace`) are for our own runners alone.
            arguments.extend(["--test", "scripts", "--test", "clients", "--test", "async_nats", "--"]);
            arguments.extend(words.iter().map(String::as_str));
        }
        self.cargo("conform", &arguments);
    }

    fn counts(&mut self, record: bool) {
        println!("== counts");
        let started = Instant::now();
        match counts::run(self.root, record) {
            Ok(Counted { lines, passed, failed }) => {
                lines.iter().for_each(|line| println!("{line}"));
                self.totals.passed += passed;
                self.totals.failed += failed;
                if failed > 0 {
                    self.broken.push("counts".to_owned());
                }
            }
            Err(counts::Stopped::Skipped(why)) => {
                println!("counts: skipped: {why}");
                self.totals.skipped += 1;
            }
            Err(counts::Stopped::Failed(why)) => {
                println!("{why}");
                self.count("counts", false, 0);
            }
        }
        println!("== counts: {:.0} s", started.elapsed().as_secs_f64());
    }

    fn house(&mut self, name: &str, check: fn(&Path) -> Result<Vec<String>, String>) {
        println!("== {name}");
        let problems = check(self.root).unwrap_or_else(|what| vec![what]);
        problems.iter().for_each(|problem| println!("{problem}"));
        self.count(name, problems.is_empty(), 0);
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) -> bool {
        println!("== {name}: cargo {}", arguments.join(" "));
        let (started, before) = (Instant::now(), self.totals);
        let succeeded = self.stream(arguments).unwrap_or_else(|error| {
            println!("cargo: {error}");
            false
        });
        println!("== {name}: {:.0} s", started.elapsed().as_secs_f64());
        self.count(name, succeeded, self.totals.failed - before.failed);
        succeeded
    }

    /// Passes the output through and reads the totals from it. `hw-conform` prints thousands of lines of `ok`:
    /// where nobody watches they are left out.
    fn stream(&mut self, arguments: &[&str]) -> std::io::Result<bool> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(self.root).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let is_watched = std::io::stdout().is_terminal();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                self.totals.read(&line);
                self.recap.read(&line);
                if is_watched || !(line.starts_with("test ") && line.ends_with(" ... ok")) {
                    println!("{line}");
                }
            }
        }
        Ok(child.wait()?.success())
    }

    /// A check is one test; one whose own tests failed is in the totals already.
    fn count(&mut self, name: &str, succeeded: bool, failed_tests: usize) {
        if succeeded {
            self.totals.passed += 1;
        } else {
            self.broken.push(name.to_owned());
            self.totals.failed += usize::from(failed_tests == 0);
        }
    }

    fn end(self) -> ExitCode {
        if !self.broken.is_empty() {
            println!("== what failed");
            self.recap.lines.iter().for_each(|line| println!("{line}"));
            println!("broken: {}", self.broken.join(", "));
        }
        let Totals { passed, failed, skipped } = self.totals;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if self.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_from_closing_lines_alone() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "5 passed",
        ] {
            totals.read(line);
        }
        assert_eq!(totals, Totals { passed: 13, failed: 3, skipped: 2 });
    }

    #[test]
    fn reports_of_failed_tests_are_told_again() {
        let mut recap = Recap::default();
        for line in [
            "test a ... FAILED",
            "---- a ----",
            "it is 3",
            "test result: FAILED. 0 passed; 1 failed",
            "running",
        ] {
            recap.read(line);
        }
        assert_eq!(recap.lines, ["---- a ----", "it is 3"]);
    }
}
