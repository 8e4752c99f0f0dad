//! Plays every script of `scripts/` against our server and the real one, each with a server of its own.
//!
//! `cargo test -p hw-conform --test scripts -- WORD --trace` plays those whose name contains WORD and prints
//! all traffic.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Script, ScriptFile, Server};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let trace = std::env::args().any(|word| word == "--trace");
    match cases(folder, trace) {
        Ok(cases) => run_all(Cases { cases, threads: if trace { 1 } else { 4 } }),
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn cases(folder: &Path, trace: bool) -> Result<Vec<Case>, String> {
    let files = script_files(&folder.join("scripts"))?;
    let known = known_differences(&folder.join("known_differences.txt"), &files)?;
    let mut cases = Vec::new();
    for target in targets() {
        for file in &files {
            for script in &file.scripts {
                let reason = known.get(&script.name).filter(|_| target.name == "headwater").cloned();
                cases.push(case(&target, file, script.clone(), (reason, trace)));
            }
        }
    }
    Ok(cases)
}

fn case(target: &Target, file: &ScriptFile, script: Script, (reason, trace): (Option<String>, bool)) -> Case {
    let name = format!("{}: {}", target.name, script.name);
    let binary = target.binary.clone();
    let (flags, config) = (file.flags.clone(), file.config.clone());
    let run = move || match &binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let launch = Launch { binary: binary.clone(), flags: flags.clone(), config: config.clone() };
            let outcome = play(launch, &script, trace);
            match (&reason, outcome) {
                (None, outcome) => outcome.into(),
                (Some(reason), Err(_)) => Outcome::Skipped(format!("known difference: {reason}")),
                (Some(reason), Ok(())) => {
                    Outcome::Failed(format!("passes, so it is no longer a known difference ({reason})"))
                }
            }
        }
    };
    Case { name, run: Box::new(run) }
}

fn play(launch: Launch, script: &Script, trace: bool) -> Result<(), String> {
    let mut server = Server::start(launch).map_err(|error| error.to_string())?;
    hw_testkit::run(script, &mut server, trace).map_err(|failure| {
        let log = server.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("{failure}\nthe server's last lines:\n  {tail}")
    })
}

fn script_files(folder: &Path) -> Result<Vec<ScriptFile>, String> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let parse = |path: &PathBuf| hw_testkit::parse(path, &read(path)?).map_err(|error| error.to_string());
    paths.iter().map(parse).collect()
}

/// `name of the script: reason`, one a line; a name without a script is an error.
fn known_differences(path: &Path, files: &[ScriptFile]) -> Result<BTreeMap<String, String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) =
                line.split_once(": ").ok_or_else(|| format!("{line:?}: expected NAME: REASON"))?;
            let exists = files.iter().flat_map(|file| &file.scripts).any(|script| script.name == name);
            if exists {
                Ok((name.to_owned(), reason.to_owned()))
            } else {
                Err(format!("{}: there is no script {name:?}", path.display()))
            }
        })
        .collect()
}
