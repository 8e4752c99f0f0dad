//! The server half of the binary: `nats-server`'s flags, log, files, signals and exit codes.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use headwater::{Builder, FATAL, LogConfig, Server, StartError};
use hw_conf::{Command, Options, Signal, Source, command_line};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Unix, SignalKind, signal};

/// Runs a server until it is told to stop. The first argument is the program's name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program)
        .file_name()
        .map_or_else(|| program.clone(), |name| name.to_string_lossy().into_owned());
    let args: Vec<String> = args.collect();
    let mut read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let env = |name: &str| std::env::var(name).ok();
    match command_line(&args, &mut Source { env: &env, read: &mut read }) {
        Ok(Command::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("nats-server: v{}", headwater::NATS_VERSION);
            ExitCode::SUCCESS
        }
        Ok(Command::TestConfig { config }) => test_config(&program, &config),
        Ok(Command::Signal { signal, target }) => report(&program, send(signal, target.as_deref())),
        Ok(Command::Run { mut options, config }) => {
            // Memory in pages of 2 MiB would double what an idle server takes. The allocator does not ask for them (`no_thp`);
            // this is for systems that give them unasked.
            #[cfg(target_os = "linux")]
            let _ = rustix::thread::disable_transparent_huge_pages(true);
            options.digest = config.as_deref().and_then(|config| digest(config).ok()).unwrap_or_default();
            serve(*options, &args)
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            if let Some(usage) = error.usage() {
                eprintln!("{usage}");
            }
            ExitCode::FAILURE
        }
    }
}

fn report(program: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test_config(program: &str, config: &Path) -> ExitCode {
    match digest(config) {
        Ok(digest) => {
            println!("{program}: configuration file {} is valid ({digest})", config.display());
            ExitCode::SUCCESS
        }
        Err(error) => report(program, Err(format!("{}: {error}", config.display()))),
    }
}

/// `sha256:` and the hash of the file.
fn digest(config: &Path) -> std::io::Result<String> {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(std::fs::read(config)?);
    Ok(hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

fn serve(options: Options, args: &[String]) -> ExitCode {
    let log = log_config(&options);
    let (pid_file, ports_dir) = (options.server.pid_file.clone(), options.server.ports_file_dir.clone());
    let (runtime, mut signals) = match listen() {
        Ok(listening) => listening,
        Err(error) => {
            eprintln!("nats-server: signals cannot be handled: {error}");
            return ExitCode::FAILURE;
        }
    };
    let start = move || Builder::from_options(options).start_with_log(&log);
    let server = match runtime.block_on(started(&mut signals, start)) {
        Some(Ok(server)) => server,
        Some(Err(error)) => return fatal(&error),
        // Told to stop before it had begun.
        None => std::process::exit(0),
    };
    let mut files = Vec::new();
    if let Some(path) = pid_file {
        match std::fs::File::create(&path).and_then(|mut file| write!(file, "{}", std::process::id())) {
            Ok(()) => files.push(path),
            Err(error) => tracing::error!("Could not write pidfile: {error}"),
        }
    }
    if let Some(folder) = ports_dir {
        match server.ports().write(&folder) {
            Ok(path) => files.push(path),
            Err(error) => tracing::error!("Error writing ports file into {}: {error}", folder.display()),
        }
    }
    let mut server = Some(server);
    runtime.block_on(wait(&mut server, &mut signals, args));
    if let Some(server) = server.take() {
        server.shutdown();
    }
    for path in files {
        let _ = std::fs::remove_file(path);
    }
    ExitCode::SUCCESS
}

fn fatal(error: &StartError) -> ExitCode {
    match error {
        // Settings are wrong before there is a log: said as the flags' errors are.
        StartError::Config(text) => eprintln!("nats-server: {text}"),
        StartError::Log { .. } => eprintln!("nats-server: {error}"),
        _ => tracing::error!(target: FATAL, "{error}"),
    }
    ExitCode::FAILURE
}

fn log_config(options: &Options) -> LogConfig {
    let log = &options.log;
    LogConfig {
        file: log.file.clone(),
        debug: log.debug,
        trace: log.trace || log.trace_verbose,
        no_time: !log.logtime,
        utc: log.logtime_utc,
        size_limit: log.file_size_limit.unwrap_or(0),
        max_files: log.file_max_num.unwrap_or(0) as usize,
    }
}

/// What tells the server something: INT and TERM stop it, USR1 opens the log anew, USR2 is lame duck mode, HUP reloads the
/// configuration.
struct Signals {
    interrupt: Unix,
    terminate: Unix,
    reopen: Unix,
    lame_duck: Unix,
    reload: Unix,
}

/// From now on no signal ends the process by itself: whoever reads that the server is ready may send any.
fn listen() -> std::io::Result<(Runtime, Signals)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        reopen: signal(SignalKind::user_defined1())?,
        lame_duck: signal(SignalKind::user_defined2())?,
        reload: signal(SignalKind::hangup())?,
    };
    drop(context);
    Ok((runtime, signals))
}

/// Starts the server beside what waits for signals; none if it is told to stop meanwhile. What else it is told waits.
async fn started<T: Send + 'static>(
    signals: &mut Signals,
    start: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::select! {
        started = tokio::task::spawn_blocking(start) => match started {
            Ok(started) => Some(started),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        },
        _ = signals.interrupt.recv() => None,
        _ = signals.terminate.recv() => None,
    }
}

/// Reads the configuration file anew, under the same flags, and applies it.
fn apply_again(server: &mut Server, args: &[String]) -> Result<(), String> {
    let mut read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let env = |name: &str| std::env::var(name).ok();
    match command_line(args, &mut Source { env: &env, read: &mut read }).map_err(|error| error.to_string())? {
        Command::Run { config: None, .. } => Err("can't reload config without a config file".to_owned()),
        Command::Run { mut options, config: Some(config) } => {
            options.digest = digest(&config).map_err(|error| error.to_string())?;
            server.reload(*options).map_err(|error| error.to_string())
        }
        _ => Err("the command line runs no server".to_owned()),
    }
}

async fn wait(server: &mut Option<Server>, signals: &mut Signals, args: &[String]) {
    let Signals { interrupt, terminate, reopen, lame_duck, reload } = signals;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return,
            _ = terminate.recv() => return,
            _ = reopen.recv() => {
                if let Some(Err(error)) = server.as_ref().map(Server::reopen_log) {
                    tracing::error!("the log cannot be opened again: {error}");
                } else {
                    tracing::info!("File log re-opened");
                }
            }
            _ = reload.recv() => {
                if let Some(Err(error)) = server.as_mut().map(|server| apply_again(server, args)) {
                    tracing::error!("Failed to reload server configuration: {error}");
                }
            }
            _ = lame_duck.recv() => {
                if let Some(mut leaving) = server.take() {
                    // The clients leave over minutes; who wants the server to stop meanwhile sends them away at once.
                    let departure = leaving.departure();
                    let mut leave = tokio::task::spawn_blocking(move || {
                        leaving.lame_duck();
                        leaving
                    });
                    tokio::select! {
                        left = &mut leave => {
                            *server = left.ok();
                            return;
                        }
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    departure.hurry();
                    *server = leave.await.ok();
                    return;
                }
            }
        }
    }
}

/// `--signal NAME[=PID or pid file]`: tells a running server what to do.
fn send(signal: Signal, target: Option<&str>) -> Result<(), String> {
    use rustix::process::{Pid, Signal as Told, kill_process};
    let pid = match target {
        Some(target) => pid_of(target)?,
        None => only_server()?,
    };
    let pid = Pid::from_raw(pid).ok_or_else(|| format!("{pid} is no process id"))?;
    let unix = match signal {
        Signal::Stop => Told::KILL,
        Signal::Quit => Told::INT,
        Signal::Term => Told::TERM,
        Signal::Reopen => Told::USR1,
        Signal::LameDuck => Told::USR2,
        Signal::Reload => Told::HUP,
    };
    kill_process(pid, unix).map_err(|error| error.to_string())
}

fn pid_of(target: &str) -> Result<i32, String> {
    if let Ok(pid) = target.parse() {
        return Ok(pid);
    }
    let text = std::fs::read_to_string(target).map_err(|error| format!("{target}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{target} holds no process id"))
}

/// The process id of the only other running server of this program.
fn only_server() -> Result<i32, String> {
    let own = std::process::id() as i32;
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let processes = std::fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_server = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == exe);
    let found: Vec<i32> = pids.filter(|pid| *pid != own).filter(is_server).collect();
    match found[..] {
        [] => Err("no nats-server processes running".to_owned()),
        [pid] => Ok(pid),
        _ => Err("multiple nats-server processes running: name one by its pid".to_owned()),
    }
}
