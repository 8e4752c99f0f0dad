//! Encryption at rest, with nats-py as the client: nothing that a user wrote can be read in the store's files, a wrong key
//! is refused, keys and ciphers are changed, a store that was not encrypted becomes so.
//!
//! `PYTHON_WITH_NATS` names a Python that has nats-py.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};

/// In all names and bytes that the client writes.
const MARKER: &[u8] = b"MARKER";
const OLD: &str = "key: \"the first key, chosen by a person\"";
/// Log and checkpoints of a store that was not encrypted are overwritten one after the other.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

type Test = fn(&mut Run) -> Result<(), String>;

fn main() -> ExitCode {
    let python = std::env::var_os("PYTHON_WITH_NATS").map(PathBuf::from).filter(|path| path.is_file());
    let mut cases = Vec::new();
    for target in targets() {
        let tests: [(&str, Test); 5] = [
            ("nothing can be read, aes", |run| nothing_can_be_read(run, "aes")),
            ("nothing can be read, chacha", |run| nothing_can_be_read(run, "chacha")),
            ("keys and ciphers change", keys_and_ciphers_change),
            ("a store becomes encrypted", a_store_becomes_encrypted),
            ("the tools need the key", the_tools_need_the_key),
        ];
        for (name, test) in tests {
            cases.push(case(&target, python.clone(), name, test));
        }
    }
    run_all(Cases { cases, threads: 2 })
}

fn case(target: &Target, python: Option<PathBuf>, what: &str, test: Test) -> Case {
    let name = format!("{}: encryption: {what}", target.name);
    let ours = target.name == "headwater";
    let target = target.clone();
    let tools = what.contains("tools");
    let run = move || match (&target.binary, &python) {
        (Err(why), _) => Outcome::Skipped(why.clone()),
        (_, None) => Outcome::Skipped("PYTHON_WITH_NATS names no Python".to_owned()),
        (Ok(_), _) if tools && !ours => Outcome::Skipped("has no such tools".to_owned()),
        (Ok(binary), Some(python)) => {
            Run::new(binary, python, ours).and_then(|mut run| test(&mut run)).into()
        }
    };
    Case { name, run: Box::new(run) }
}

/// A server and what is known of it.
struct Run {
    server: Server,
    python: PathBuf,
    binary: PathBuf,
    ours: bool,
}

impl Run {
    fn new(binary: &Path, python: &Path, ours: bool) -> Result<Run, String> {
        let config = Some(format!("jetstream {{ {} {OLD} }}", small(ours)));
        let launch = Launch { binary: binary.to_owned(), flags: vec!["-js".to_owned()], config };
        let server = Server::start(launch).map_err(|error| error.to_string())?;
        Ok(Run { server, python: python.to_owned(), binary: binary.to_owned(), ours })
    }

    /// Has the client do something with the server.
    fn client(&self, what: &str) -> Result<(), String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sealed.py");
        let mut command = Command::new(&self.python);
        command.arg(script).arg(self.server.url()).arg(what).stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{what}: {}\n{}", String::from_utf8_lossy(&said), self.server.log())),
        }
    }

    /// Everything is still there. The real server loses acknowledgements when it is killed, and consumers when its key
    /// changes: it reads their files with one of the two ciphers alone.
    fn check(&self) -> Result<(), String> {
        self.client(if self.ours { "check" } else { "check-messages" })
    }

    /// Kills the server and starts it with other settings.
    fn restart_with(&mut self, settings: &str) -> Result<(), String> {
        let config = format!("jetstream {{ {} {settings} }}", small(self.ours));
        self.server.write_config(&config).map_err(|error| error.to_string())?;
        self.server.kill9().map_err(|error| format!("{settings}: {error}"))
    }

    /// With these settings, ours does not start and says why; the real server starts and has no streams.
    fn is_refused_with(&mut self, settings: &str, why: &str) -> Result<(), String> {
        // A server that runs writes now and then, also without anybody asking.
        self.server.stop().map_err(|error| error.to_string())?;
        let before = files(&self.store())?;
        match self.restart_with(settings) {
            Ok(()) if self.ours => return Err(format!("it started with {settings}")),
            Ok(()) => return self.client("absent"),
            Err(error) if !self.ours => return Err(error),
            Err(_) => {}
        }
        let (log, store) = (self.server.log(), self.store().join("jetstream"));
        if !log.contains(why) || !log.contains(&*store.to_string_lossy()) {
            return Err(format!("with {settings} the log does not say {why:?} and the folder:\n{log}"));
        }
        match files(&self.store())? == before {
            true => Ok(()),
            false => Err(format!("a start with {settings} was refused and changed files")),
        }
    }

    fn store(&self) -> PathBuf {
        self.server.dir().join("store")
    }

    /// The files in which something that the client wrote can be read. The real server names folders after streams.
    fn readable(&self) -> Result<Vec<PathBuf>, String> {
        let shows = |path: &Path, bytes: &[u8]| {
            let named = self.ours && path.to_string_lossy().as_bytes().windows(6).any(|part| part == MARKER);
            named || bytes.windows(MARKER.len()).any(|part| part == MARKER)
        };
        let found = files(&self.store())?.into_iter();
        Ok(found.filter(|(path, bytes)| shows(path, bytes)).map(|(path, _)| path).collect())
    }

    fn nothing_is_readable(&self) -> Result<(), String> {
        match self.readable()? {
            found if found.is_empty() => Ok(()),
            found => Err(format!("what a user wrote can be read in {found:?}")),
        }
    }

    /// `headwater store`, with the store's key in a file or without one.
    fn tool(&self, words: &[&str], key: Option<&str>) -> Result<(Option<i32>, String), String> {
        let mut command = Command::new(&self.binary);
        command.arg("store").args(words).arg(self.store()).env_remove("HEADWATER_STORE_KEY");
        if let Some(key) = key {
            let file = self.server.dir().join("key");
            fs::write(&file, format!("{key}\n")).map_err(|error| error.to_string())?;
            command.arg("--key-file").arg(file);
        }
        let output = command.output().map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }
}

/// Most of what is read comes from segments, and most restarts begin at a checkpoint.
fn small(ours: bool) -> &'static str {
    if ours { "checkpoint_bytes: 60KB," } else { "" }
}

fn nothing_can_be_read(run: &mut Run, cipher: &str) -> Result<(), String> {
    let mine = format!("cipher: {cipher}, key: \"other\"");
    run.server.stop().map_err(|error| error.to_string())?;
    fs::remove_dir_all(run.store()).map_err(|error| error.to_string())?;
    run.restart_with(&mine)?;
    run.client("fill")?;
    run.nothing_is_readable()?;
    run.server.kill9().map_err(|error| error.to_string())?;
    run.check()?;
    run.server.restart().map_err(|error| error.to_string())?;
    run.check()?;
    run.nothing_is_readable()?;
    let name = if cipher == "aes" { "AES-GCM" } else { "ChaCha20-Poly1305" };
    if !run.server.log().contains(&format!("  Encryption:      {name}")) {
        return Err(format!("the log does not say {name}:\n{}", run.server.log()));
    }
    let wrong = "the key is not the one that the store was encrypted with";
    run.is_refused_with(&format!("cipher: {cipher}, {OLD}"), wrong)?;
    run.is_refused_with("", "is encrypted, and no key is configured")?;
    run.restart_with(&mine)?;
    run.check()
}

fn keys_and_ciphers_change(run: &mut Run) -> Result<(), String> {
    run.client("fill")?;
    run.is_refused_with("key: new, prev_key: wrong", "the key is not the one")?;
    let (_, old) = OLD.split_once(' ').ok_or("a setting has a value")?;
    run.restart_with(&format!("key: new, prev_key: {old}"))?;
    run.check()?;
    run.restart_with("key: new")?;
    run.check()?;
    run.is_refused_with(OLD, "the key is not the one")?;
    for cipher in ["aes", "chachapoly", "AES"] {
        run.restart_with(&format!("key: new, cipher: {cipher}"))?;
        run.check()?;
        run.nothing_is_readable()?;
    }
    run.restart_with("encryption_key: newer, prev_encryption_key: new, cipher: chacha")?;
    run.check()?;
    run.nothing_is_readable()
}

fn a_store_becomes_encrypted(run: &mut Run) -> Result<(), String> {
    run.server.stop().map_err(|error| error.to_string())?;
    fs::remove_dir_all(run.store()).map_err(|error| error.to_string())?;
    run.restart_with("")?;
    run.client("fill")?;
    if run.readable()?.is_empty() {
        return Err(
            "the search for what a user wrote finds nothing in a store that is not encrypted".to_owned()
        );
    }
    run.restart_with(&format!("cipher: aes, {OLD}"))?;
    run.check()?;
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    while !run.readable()?.is_empty() {
        if Instant::now() > deadline {
            return run.nothing_is_readable();
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    for _ in 0..2 {
        run.server.kill9().map_err(|error| error.to_string())?;
        run.check()?;
        run.nothing_is_readable()?;
    }
    run.is_refused_with("", "is encrypted, and no key is configured")
}

fn the_tools_need_the_key(run: &mut Run) -> Result<(), String> {
    run.client("fill")?;
    run.server.stop().map_err(|error| error.to_string())?;
    let key = OLD.split('"').nth(1);
    let said = |got: &(Option<i32>, String), code: i32, text: &str| match got {
        (Some(found), said) if *found == code && said.contains(text) => Ok(()),
        _ => Err(format!("expected {code} and {text:?}, got {got:?}")),
    };
    said(&run.tool(&["check"], key)?, 0, "Everything is as it was written.")?;
    said(&run.tool(&["check"], None)?, 0, "no key was given: checksums were compared, seals were not")?;
    said(&run.tool(&["check"], Some("wrong"))?, 1, "the key is not the one")?;
    said(&run.tool(&["dump"], None)?, 1, "its key is needed (--key-file, or HEADWATER_STORE_KEY)")?;
    said(&run.tool(&["dump", "--messages"], key)?, 0, "MARKERsubject.1")?;
    said(&run.tool(&["dump", "--raw"], key)?, 0, "MARKERsubject.1")?;
    let segment = files(&run.store())?
        .into_iter()
        .find(|(path, _)| path.parent().is_some_and(|dir| dir.ends_with("segments")));
    let (path, mut bytes) = segment.ok_or("there is a segment")?;
    bytes[200] ^= 1;
    fs::write(&path, &bytes).map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for key in [key, None] {
        said(&run.tool(&["check"], key)?, 2, &name)?;
    }
    said(&run.tool(&["repair", "--force"], None)?, 1, "its key is needed")?;
    said(&run.tool(&["repair", "--force"], key)?, 0, "LOST")?;
    run.nothing_is_readable()?;
    run.server.restart().map_err(|error| error.to_string())
}

/// Every file of a folder with its bytes, but for the one that names the process that has it.
fn files(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                match fs::read(&path) {
                    Ok(bytes) => found.push((path, bytes)),
                    // The server goes on meanwhile.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
    found.sort();
    Ok(found)
}
