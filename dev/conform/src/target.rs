//! Which servers are there to be tested.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::Outcome;

/// A server under test.
#[derive(Clone, Debug)]
pub struct Target {
    /// `headwater` or `nats-server`.
    pub name: &'static str,
    /// The executable, or why there is none.
    pub binary: Result<PathBuf, String>,
}

impl Target {
    /// The outcome of a test of a promise that ours makes and the real server does not: by default that one acknowledges
    /// before the disk, so there a violation is an observation that is printed, not a failure.
    pub fn promised(&self, result: Result<(), String>) -> Outcome {
        match result {
            Err(what) if self.name == "nats-server" => {
                let what = what.lines().next().unwrap_or_default();
                Outcome::Skipped(format!("makes no such promise, and it shows: {what}"))
            }
            result => result.into(),
        }
    }
}

/// Ours first, then the real one.
pub fn targets() -> Vec<Target> {
    let ours = match env::var_os("HEADWATER_BIN") {
        Some(path) => existing("HEADWATER_BIN", PathBuf::from(path)),
        None => built_beside_this(),
    };
    let real = match env::var_os("NATS_SERVER_BIN") {
        Some(path) => existing("NATS_SERVER_BIN", PathBuf::from(path)),
        None => Err("NATS_SERVER_BIN is not set".to_owned()),
    };
    vec![Target { name: "headwater", binary: ours }, Target { name: "nats-server", binary: real }]
}

fn existing(variable: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{variable} names {}, which is no file", path.display()))
    }
}

/// Test executables lie in `target/PROFILE/deps`; the server in `target/PROFILE`, else in the other profile's.
fn built_beside_this() -> Result<PathBuf, String> {
    let here = env::current_exe().map_err(|error| format!("this executable has no path: {error}"))?;
    let profile = here.parent().and_then(Path::parent).ok_or("this executable lies in no target folder")?;
    let others = ["debug", "release"].map(|name| profile.with_file_name(name));
    let folders = std::iter::once(profile.to_owned()).chain(others);
    let mut tried = folders.map(|folder| folder.join("headwater"));
    tried
        .find(|path| path.is_file())
        .ok_or_else(|| format!("no headwater in {} (cargo build -p headwater-cli)", profile.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_is_held_to_our_promise() {
        let [ours, real] =
            ["headwater", "nats-server"].map(|name| Target { name, binary: Err(String::new()) });
        let broken = || Err("seq 7 is missing\nlog".to_owned());
        assert_eq!(ours.promised(broken()), Outcome::Failed("seq 7 is missing\nlog".to_owned()));
        let observed = "makes no such promise, and it shows: seq 7 is missing";
        assert_eq!(real.promised(broken()), Outcome::Skipped(observed.to_owned()));
        assert_eq!(real.promised(Ok(())), Outcome::Passed);
    }
}
