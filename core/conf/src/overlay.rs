//! From the command line to options: the file first, then the flags over it.

use hw_auth::Login;

use crate::cluster::{ClusterOptions, DEFAULT_PORT, RouteLogin, RouteUrl};
use crate::error::{ConfError, ConfErrors};
use crate::flags::{Flags, FlagsError, Signal};
use crate::options::{Listen, Options, TlsOptions};
use crate::parse::Source;
use crate::reader::split_address;
use crate::usage::{USAGE, USAGE_TLS};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Run a server.
    Run {
        /// How; already validated.
        options: Box<Options>,
        /// The configuration file, for reloads and digests.
        config: Option<std::path::PathBuf>,
    },
    /// Print this text and exit with 0.
    Help(String),
    /// Print the version and exit with 0.
    Version,
    /// `-t`: the file is valid. Say so, with its digest, and exit with 0.
    TestConfig {
        /// The file.
        config: std::path::PathBuf,
    },
    /// Signal a running server and exit.
    Signal {
        /// What to do.
        signal: Signal,
        /// Its process id, or a file that holds it; `None`: the only server that runs.
        target: Option<String>,
    },
}

/// Why nothing can be run; to be printed behind the program's name, with exit code 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The flags are wrong.
    #[error(transparent)]
    Flags(#[from] FlagsError),
    /// `-t` without a file.
    #[error("must specify [-c, --config] option to check configuration file syntax")]
    NothingToTest,
    /// No signal has this name.
    #[error("unknown signal {name:?}")]
    UnknownSignal {
        /// What was given.
        name: String,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Conf(#[from] ConfErrors),
}

impl CommandError {
    /// The usage, where it should be printed too.
    pub fn usage(&self) -> Option<&'static str> {
        match self {
            CommandError::Flags(error) if error.shows_usage() => Some(USAGE),
            _ => None,
        }
    }
}

/// Reads the arguments behind the program's name, and the configuration file that they name.
pub fn command_line(arguments: &[String], source: &mut Source<'_>) -> Result<Command, CommandError> {
    let flags = Flags::parse(arguments)?;
    if flags.help {
        return Ok(Command::Help(USAGE.to_owned()));
    }
    if flags.help_tls {
        return Ok(Command::Help(USAGE_TLS.to_owned()));
    }
    if flags.version {
        return Ok(Command::Version);
    }
    if let Some(signal) = &flags.signal {
        let (name, target) = match signal.split_once('=') {
            Some((name, target)) => (name, Some(target.to_owned()).filter(|target| !target.is_empty())),
            None => (signal.as_str(), None),
        };
        let signal =
            Signal::from_name(name).ok_or_else(|| CommandError::UnknownSignal { name: name.to_owned() })?;
        return Ok(Command::Signal { signal, target });
    }
    let mut options = match &flags.config {
        Some(file) => Options::load(file, source)?,
        None if flags.test => return Err(CommandError::NothingToTest),
        None => Options::default(),
    };
    flags.apply(&mut options)?;
    options.validate()?;
    if !flags.test {
        return Ok(Command::Run { options: Box::new(options), config: flags.config });
    }
    match options.warnings.is_empty() {
        true => Ok(Command::TestConfig { config: flags.config.unwrap_or_default() }),
        false => Err(ConfErrors(options.warnings.into_iter().map(ConfError::nowhere).collect()).into()),
    }
}

impl Flags {
    /// Sets what the flags say, whatever the file said.
    pub fn apply(&self, options: &mut Options) -> Result<(), ConfErrors> {
        let mut errors = vec![];
        self.apply_unsupported(&mut errors);
        self.apply_server(options, &mut errors);
        self.apply_monitor(options, &mut errors);
        self.apply_log(options);
        self.apply_login(options, &mut errors);
        self.apply_tls(options);
        self.apply_cluster(options, &mut errors);
        let jetstream = &mut options.jetstream;
        jetstream.enabled = self.jetstream.unwrap_or(jetstream.enabled);
        over(&mut jetstream.store_dir, &self.store_dir);
        match errors.is_empty() {
            true => Ok(()),
            false => Err(ConfErrors(errors)),
        }
    }

    fn apply_unsupported(&self, errors: &mut Vec<ConfError>) {
        let given = [
            (self.syslog, "--syslog is not supported yet: use --log"),
            (self.remote_syslog.is_some(), "--remote_syslog is not supported yet: use --log"),
            (self.profile.is_some(), "--profile is not supported yet"),
        ];
        errors.extend(given.iter().filter(|(given, _)| *given).map(|(_, why)| ConfError::nowhere(*why)));
    }

    fn apply_server(&self, options: &mut Options, errors: &mut Vec<ConfError>) {
        let server = &mut options.server;
        if let Some(host) = self.host.as_ref().filter(|host| !host.is_empty()) {
            server.listen.host.clone_from(host);
        }
        if let Some(number) = self.port {
            server.listen.port = port(number, errors).unwrap_or(4222);
        }
        if self.server_name.as_ref().is_some_and(|name| name.contains(' ')) {
            errors.push(ConfError::nowhere("server name cannot contain spaces"));
        }
        over(&mut server.name, &self.server_name);
        over(&mut server.client_advertise, &self.client_advertise);
        over(&mut server.pid_file, &self.pid_file);
        over(&mut server.ports_file_dir, &self.ports_file_dir);
    }

    fn apply_monitor(&self, options: &mut Options, errors: &mut Vec<ConfError>) {
        let monitor = &mut options.monitor;
        for (flag, slot) in [(self.http_port, &mut monitor.http), (self.https_port, &mut monitor.https)] {
            if let Some(number) = flag {
                // A host from the file stays.
                let host = slot.take().map_or(String::new(), |listen| listen.host);
                *slot = port(number, errors).map(|port| Listen { host, port });
            }
        }
    }

    fn apply_log(&self, options: &mut Options) {
        let log = &mut options.log;
        log.debug = self.debug.unwrap_or(log.debug);
        log.trace = self.trace.unwrap_or(log.trace);
        log.trace_verbose = self.trace_verbose.unwrap_or(log.trace_verbose);
        log.logtime = self.logtime.unwrap_or(log.logtime);
        log.logtime_utc = self.logtime_utc.unwrap_or(log.logtime_utc);
        over(&mut log.file, &self.log_file.clone().filter(|file| !file.as_os_str().is_empty()));
        if let Some(limit) = self.log_size_limit {
            log.file_size_limit = u64::try_from(limit).ok().filter(|limit| *limit > 0);
        }
        if let Some(length) = self.max_traced_msg_len {
            let length = u32::try_from(length.min(i64::from(u32::MAX))).ok();
            log.max_traced_msg_len = length.filter(|length| *length > 0);
        }
    }

    fn apply_login(&self, options: &mut Options, errors: &mut Vec<ConfError>) {
        let given = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
        let (user, pass, token) = (given(&self.user), given(&self.pass), given(&self.token));
        match (user, pass, token) {
            (None, None, None) => {}
            (Some(user), pass, None) => {
                options.auth.login = Some(Login::User { user, pass: pass.unwrap_or_default() });
            }
            (None, None, Some(token)) => options.auth.login = Some(Login::Token(token)),
            (None, Some(_), None) => errors.push(ConfError::nowhere("--pass needs --user")),
            (_, _, Some(_)) => errors.push(ConfError::nowhere("Cannot have a user/pass and token")),
        }
    }

    fn apply_tls(&self, options: &mut Options) {
        let wanted = self.tls == Some(true) || self.tls_verify == Some(true);
        let files = [&self.tls_cert, &self.tls_key, &self.tls_ca].iter().any(|file| file.is_some());
        if wanted || files {
            let tls = options.tls.get_or_insert_with(TlsOptions::default);
            over(&mut tls.cert_file, &self.tls_cert);
            over(&mut tls.key_file, &self.tls_key);
            over(&mut tls.ca_file, &self.tls_ca);
            tls.verify = self.tls_verify.unwrap_or(tls.verify);
        } else if self.tls == Some(false) {
            options.tls = None;
        }
    }

    fn apply_cluster(&self, options: &mut Options, errors: &mut Vec<ConfError>) {
        let texts = [&self.cluster, &self.cluster_name, &self.routes, &self.cluster_advertise];
        let given = texts.iter().any(|text| text.as_ref().is_some_and(|text| !text.is_empty()));
        if !given && self.no_advertise.is_none() && self.connect_retries.is_none() {
            return;
        }
        let cluster = options.cluster.get_or_insert_with(ClusterOptions::default);
        over(&mut cluster.name, &self.cluster_name);
        over(&mut cluster.advertise, &self.cluster_advertise);
        cluster.no_advertise = self.no_advertise.unwrap_or(cluster.no_advertise);
        if let Some(retries) = self.connect_retries {
            cluster.connect_retries = u32::try_from(retries).unwrap_or(0);
        }
        if let Some(routes) = &self.routes {
            let routes = routes.split(',').map(str::trim).filter(|route| !route.is_empty());
            cluster.routes = routes.map(str::to_owned).collect();
            for route in cluster.routes.iter().filter(|route| RouteUrl::parse(route).is_none()) {
                errors.push(ConfError::nowhere(format!("--routes: error parsing route url {route:?}")));
            }
        }
        if let Some(url) = self.cluster.as_ref().filter(|url| !url.is_empty()) {
            match cluster_listen(url, errors) {
                Some((listen, login)) => {
                    cluster.listen = Some(listen);
                    if login.is_some() {
                        cluster.login = login;
                    }
                }
                None => errors.push(ConfError::nowhere(format!("--cluster {url}: missing port in address"))),
            }
        }
    }
}

/// `nats://host:port`, and what other servers must show: `nats://user:password@host:port`.
fn cluster_listen(url: &str, errors: &mut Vec<ConfError>) -> Option<(Listen, Option<RouteLogin>)> {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let (login, address) = match address.rsplit_once('@') {
        None => (None, address),
        Some((login, address)) => {
            let (user, pass) = login.split_once(':').unwrap_or((login, ""));
            (Some(RouteLogin { user: user.to_owned(), pass: pass.to_owned() }), address)
        }
    };
    let (host, number) = split_address(address)?;
    let number = number.parse().ok()?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let listen = Listen { host: host.to_owned(), port: port(number, errors).unwrap_or(DEFAULT_PORT) };
    Some((listen, login))
}

fn over<T: Clone>(slot: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        slot.clone_from(flag);
    }
}

/// -1 is any free port (given out as 0), 0 is the default (`None`).
fn port(number: i64, errors: &mut Vec<ConfError>) -> Option<u16> {
    match number {
        0 => None,
        -1 => Some(0),
        _ => {
            let port = u16::try_from(number).ok();
            if port.is_none() {
                errors.push(ConfError::nowhere(format!("{number}: invalid port")));
            }
            port
        }
    }
}

#[cfg(test)]
#[path = "overlay/tests.rs"]
mod tests;
