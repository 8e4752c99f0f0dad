//! Runs the clients that others wrote (`clients/`), each against a server of its own.
//!
//! `PYTHON_WITH_NATS` names a Python that has nats-py, `NATS_CLI` the nats tool, `NATS_JS` the folder
//! with the packages of nats.js.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};

/// A script of `clients/`, what runs it, and which variable names the tool that it needs.
struct Client {
    script: &'static str,
    runner: Result<PathBuf, String>,
    tool: Result<(), String>,
}

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for target in targets() {
        cases.extend(clients().into_iter().map(|client| case(target.clone(), client)));
    }
    run_all(Cases { cases, threads: 2 })
}

fn clients() -> Vec<Client> {
    let tool = named("NATS_CLI").map(drop);
    vec![
        Client { script: "intro.py", runner: named("PYTHON_WITH_NATS"), tool: Ok(()) },
        Client { script: "intro.sh", runner: Ok("bash".into()), tool },
        Client { script: "batches.cjs", runner: Ok("node".into()), tool: packages() },
    ]
}

fn named(variable: &str) -> Result<PathBuf, String> {
    let path = env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set"))?;
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{variable} names {}, which is no file", path.display()))
    }
}

/// The packages of nats.js are found by the script itself.
fn packages() -> Result<(), String> {
    let folder = env::var_os("NATS_JS").map(PathBuf::from).ok_or("NATS_JS is not set")?;
    match folder.join("node_modules").is_dir() {
        true => Ok(()),
        false => Err(format!("NATS_JS names {}, which has no packages", folder.display())),
    }
}

fn case(target: Target, client: Client) -> Case {
    let name = format!("{}: {}", target.name, client.script);
    let run = move || match (&target.binary, &client.runner, &client.tool) {
        (Err(why), _, _) | (_, Err(why), _) | (_, _, Err(why)) => Outcome::Skipped(why.clone()),
        (Ok(binary), Ok(runner), Ok(())) => agree(binary, runner, client.script).into(),
    };
    Case { name, run: Box::new(run) }
}

fn agree(binary: &Path, runner: &Path, script: &str) -> Result<(), String> {
    let launch = Launch { binary: binary.to_owned(), flags: vec!["-js".to_owned()], config: None };
    let server = Server::start(launch).map_err(|error| error.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let output = Command::new(runner)
        .arg(&script)
        .arg(server.url())
        .current_dir(server.dir())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", runner.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{} ended with {}:\n{}", script.display(), output.status, String::from_utf8_lossy(&said)))
}
