//! Any server that is started like `nats-server`, on a free loopback port with a fresh folder.

use std::{
    fs::File,
    io::{self, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{dir::TempDir, ports::Port};

/// What to start and how.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The executable.
    pub binary: PathBuf,
    /// Flags beside address, port and store folder. `{port}`, `{http}`, `{dir}` and `{port2}` are filled in.
    pub flags: Vec<String>,
    /// The text of a configuration file, with the same words filled in.
    pub config: Option<String>,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No folder, file, port or process.
    #[error("cannot start {binary}: {source}")]
    Start {
        /// What was to be started.
        binary: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("{binary} ended with {status} before it was ready; it said:\n{log}")]
    Ended {
        /// What was started.
        binary: String,
        /// Its exit status.
        status: String,
        /// The end of its output.
        log: String,
    },
    /// It runs but sends no INFO.
    #[error("{binary} sent no INFO within {seconds} s; it said:\n{log}")]
    Silent {
        /// What was started.
        binary: String,
        /// How long was waited.
        seconds: u64,
        /// The end of its output.
        log: String,
    },
}

const READY_TIMEOUT: Duration = Duration::from_secs(20);
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// A running server; killed on drop, its folder removed.
pub struct Server {
    launch: Launch,
    dir: TempDir,
    store: PathBuf,
    ports: [Port; 3],
    child: Option<Child>,
}

impl Server {
    /// Starts it and waits for its INFO line.
    pub fn start(launch: Launch) -> Result<Self, ServerError> {
        Self::start_with(launch, None)
    }

    /// The same with its store in a folder that is not removed with the rest.
    pub fn start_on(launch: Launch, store: &Path) -> Result<Self, ServerError> {
        Self::start_with(launch, Some(store))
    }

    fn start_with(launch: Launch, store: Option<&Path>) -> Result<Self, ServerError> {
        let fail = |source| ServerError::Start { binary: launch.binary.display().to_string(), source };
        let dir = TempDir::new().map_err(fail)?;
        let ports = [Port::take().map_err(fail)?, Port::take().map_err(fail)?, Port::take().map_err(fail)?];
        let store = store.map_or_else(|| dir.path().join("store"), Path::to_owned);
        let mut server = Self { launch: launch.clone(), dir, store, ports, child: None };
        server.spawn()?;
        Ok(server)
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.ports[0].number()
    }

    /// The port for monitoring, listened on only if flags or configuration say so.
    pub fn http_port(&self) -> u16 {
        self.ports[1].number()
    }

    /// The port that `{port2}` stands for.
    pub fn second_port(&self) -> u16 {
        self.ports[2].number()
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The folder with the store, the configuration and the log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The executable.
    pub fn binary(&self) -> &Path {
        &self.launch.binary
    }

    /// It is another executable when it is started next.
    pub fn replace_binary(&mut self, binary: PathBuf) {
        self.launch.binary = binary;
    }

    /// Everything it has written to its outputs.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            // A log that cannot be read is shown as empty: it only explains failures.
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Writes a new configuration file; the server reads it on [`Server::signal`] with `HUP` or when started anew.
    pub fn write_config(&mut self, config: &str) -> io::Result<()> {
        self.launch.config = Some(config.to_owned());
        std::fs::write(self.config_path(), self.fill(config))
    }

    /// Stops it with a signal as an operator would, waits, and starts it again on the same port and folder.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.stop()?;
        self.spawn()
    }

    /// Kills it without warning and starts it again on the same port and folder.
    pub fn kill9(&mut self) -> Result<(), ServerError> {
        self.kill();
        self.spawn()
    }

    /// Starts it again after it has ended.
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        self.spawn()
    }

    /// The same without waiting for its INFO line.
    pub fn begin_start(&mut self) -> Result<(), ServerError> {
        self.try_spawn()
            .map_err(|source| ServerError::Start { binary: self.launch.binary.display().to_string(), source })
    }

    /// Asks it to end and waits until it has; kills it if it does not listen.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        if self.signal("TERM").is_ok() {
            let deadline = Instant::now() + EXIT_TIMEOUT;
            while Instant::now() < deadline {
                match self.child.as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => std::thread::park_timeout(PAUSE),
                    _ => break,
                }
            }
        }
        self.kill();
        Ok(())
    }

    /// Sends it a signal by name, such as `HUP` or `USR2`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.pid().ok_or(io::ErrorKind::NotFound)?;
        let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
        if status.success() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Kills it without warning and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a child that is gone, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn spawn(&mut self) -> Result<(), ServerError> {
        self.begin_start()?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if info_arrives(self.port()) {
                return Ok(());
            }
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                self.child = None;
                let (binary, log) = (self.launch.binary.display().to_string(), self.log_end());
                return Err(ServerError::Ended { binary, status: status.to_string(), log });
            }
            std::thread::park_timeout(PAUSE);
        }
        let (binary, log) = (self.launch.binary.display().to_string(), self.log_end());
        self.kill();
        Err(ServerError::Silent { binary, seconds: READY_TIMEOUT.as_secs(), log })
    }

    fn try_spawn(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.launch.binary);
        command.args(["-a", "127.0.0.1", "-p", &self.port().to_string()]);
        command.arg("-sd").arg(&self.store);
        command.args(self.launch.flags.iter().map(|flag| self.fill(flag)));
        if let Some(config) = &self.launch.config {
            std::fs::write(self.config_path(), self.fill(config))?;
            command.arg("-c").arg(self.config_path());
        }
        command.current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.ports[0].number().to_string())
            .replace("{http}", &self.ports[1].number().to_string())
            .replace("{port2}", &self.ports[2].number().to_string())
            .replace("{dir}", &self.dir.path().display().to_string())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("output.log")
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("server.conf")
    }

    /// The last lines of that.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn info_arrives(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut start = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.read_exact(&mut start).is_ok()
        && &start == b"INFO "
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_and_one_that_ends_are_named() {
        let launch = Launch { binary: "/nonexistent/server".into(), ..Launch::default() };
        let error = Server::start(launch).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/server"), "{error}");
        let launch = Launch { binary: "/bin/false".into(), ..Launch::default() };
        let error = Server::start(launch).err().unwrap();
        assert!(matches!(error, ServerError::Ended { .. }), "{error}");
    }
}
