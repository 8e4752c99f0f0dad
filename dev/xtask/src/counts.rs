//! Instruction counts of the hot paths: each case of `hw-bench` under valgrind, compared with what was recorded.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const BASELINE: &str = "dev/bench/baseline.txt";
/// So much more than recorded is let pass, in percent.
const TOLERANCE: u64 = 5;
const HEAD: &str = "# Instructions of each case of hw-bench: `cargo xtask counts --record` writes this file.";

/// How the comparison ended.
pub struct Counted {
    /// What to print.
    pub lines: Vec<String>,
    /// Cases within what is allowed.
    pub passed: usize,
    /// Cases that are not.
    pub failed: usize,
}

/// Why there is no comparison.
pub enum Stopped {
    /// It cannot be made here.
    Skipped(String),
    /// It should work and does not.
    Failed(String),
}

/// What was counted, with which compiler for which machine.
#[derive(Debug, PartialEq)]
struct Counts {
    made_with: String,
    counts: BTreeMap<String, u64>,
}

/// Counts, then compares or records.
pub fn run(root: &Path, record: bool) -> Result<Counted, Stopped> {
    let made_with = made_with()?;
    let path = root.join(BASELINE);
    let baseline = fs::read_to_string(&path).ok().map(|text| Counts::read(&text));
    if output(Command::new("valgrind").arg("--version")).is_err() {
        return Err(Stopped::Skipped("there is no valgrind".to_owned()));
    }
    if let (false, Some(baseline)) = (record, &baseline)
        && baseline.made_with != made_with
    {
        let why = format!("recorded with {}, this is {made_with}", baseline.made_with);
        return Err(Stopped::Skipped(why));
    }
    let bench = build(root)?;
    let names = output(&mut Command::new(&bench)).map_err(Stopped::Failed)?;
    let mut counts = BTreeMap::new();
    for name in String::from_utf8_lossy(&names.stdout).lines() {
        counts.insert(name.to_owned(), count(&bench, name)?);
    }
    let now = Counts { made_with, counts };
    if record {
        fs::write(&path, now.write()).map_err(|error| Stopped::Failed(format!("{BASELINE}: {error}")))?;
        let lines = vec![format!("{BASELINE}: {} cases recorded", now.counts.len())];
        return Ok(Counted { lines, passed: 1, failed: 0 });
    }
    let baseline = baseline.ok_or_else(|| Stopped::Failed(format!("{BASELINE} is missing")))?;
    Ok(now.compare(&baseline))
}

impl Counts {
    fn read(text: &str) -> Counts {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let made_with = lines.next().unwrap_or_default().to_owned();
        let pair = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        Counts { made_with, counts: lines.filter_map(pair).collect() }
    }

    fn write(&self) -> String {
        let lines = self.counts.iter().map(|(name, count)| format!("{name} {count}\n"));
        format!("{HEAD}\n{}\n{}", self.made_with, lines.collect::<String>())
    }

    fn compare(&self, baseline: &Counts) -> Counted {
        let mut counted = Counted { lines: Vec::new(), passed: 0, failed: 0 };
        for (name, count) in &self.counts {
            let verdict = match baseline.counts.get(name) {
                None => Err("is not recorded: `cargo xtask counts --record`".to_owned()),
                Some(was) => compare(*was, *count),
            };
            match verdict {
                Ok(text) => {
                    counted.passed += 1;
                    counted.lines.push(format!("{name}: {count} instructions, {text}"));
                }
                Err(text) => {
                    counted.failed += 1;
                    counted.lines.push(format!("{name}: {count} instructions: {text}"));
                }
            }
        }
        for name in baseline.counts.keys().filter(|name| !self.counts.contains_key(*name)) {
            counted.failed += 1;
            counted.lines.push(format!("{name}: recorded, and no case any more"));
        }
        counted
    }
}

fn compare(was: u64, is: u64) -> Result<String, String> {
    let change = (is as f64 / was.max(1) as f64 - 1.0) * 100.0;
    let allowed = was + was * TOLERANCE / 100;
    let floor = was - was * TOLERANCE / 100;
    match is {
        _ if is > allowed => {
            Err(format!("{change:+.1} % against {was}: more than {TOLERANCE} % are too many"))
        }
        _ if is < floor => Ok(format!("{change:+.1} %: `cargo xtask counts --record` keeps the gain")),
        _ => Ok(format!("{change:+.1} %")),
    }
}

/// The compiler's version, and what it compiles for.
fn made_with() -> Result<String, Stopped> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("-V")).map_err(Stopped::Failed)?;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    Ok(format!("{} on {}-{}", words.join(" "), std::env::consts::ARCH, std::env::consts::OS))
}

fn build(root: &Path) -> Result<PathBuf, Stopped> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", "counts", "--package", "hw-bench"]).current_dir(root);
    // Both would change the code that is counted.
    command.env("CARGO_INCREMENTAL", "0").env_remove("RUSTFLAGS");
    command.args(["--message-format", "json"]);
    let built = output(&mut command).map_err(Stopped::Failed)?;
    let path = String::from_utf8_lossy(&built.stdout).lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    path.ok_or_else(|| Stopped::Failed("cargo does not say where hw-bench is".to_owned()))
}

/// The instructions of one case.
fn count(bench: &Path, name: &str) -> Result<u64, Stopped> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*hw_bench*measured*").arg(bench).arg(name);
    let ran = output(&mut command).map_err(Stopped::Failed)?;
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    match collected(&told) {
        Some(count) if count > 0 => Ok(count),
        _ => Err(Stopped::Failed(format!("{name}: valgrind counted nothing:\n{told}"))),
    }
}

/// From the line `==PID== Collected : N`.
fn collected(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// What a command prints; an error if it fails.
fn output(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        let counts = pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Counts { made_with: "rustc 1".to_owned(), counts }
    }

    #[test]
    fn a_baseline_is_read_as_written() {
        let some = counts(&[("a", 1), ("b", u64::MAX)]);
        assert_eq!(Counts::read(&some.write()), some);
    }

    #[test]
    fn five_percent_more_pass() {
        for (was, is, passes) in [(100, 105, true), (100, 106, false), (100, 50, true), (0, 1, false)] {
            assert_eq!(compare(was, is).is_ok(), passes, "{was} {is}");
        }
        let counted = counts(&[("a", 10), ("new", 1)]).compare(&counts(&[("a", 10), ("gone", 1)]));
        assert_eq!((counted.passed, counted.failed), (1, 2), "{:?}", counted.lines);
    }

    #[test]
    fn a_count_is_read_from_what_valgrind_says() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 4711\n"), Some(4711));
        assert_eq!(collected("==7== error\n"), None);
    }
}
