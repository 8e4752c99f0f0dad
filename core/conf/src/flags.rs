//! The command line's flags, as Go programs take them: `-flag` or `--flag`, a value behind `=` or as the next argument.

use std::path::PathBuf;

/// What the flags say; `None` where a flag is not given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Flags {
    /// `-a`, `--addr`, `--net`.
    pub host: Option<String>,
    /// `-p`, `--port`.
    pub port: Option<i64>,
    /// `-n`, `--name`, `--server_name`.
    pub server_name: Option<String>,
    /// `-P`, `--pid`.
    pub pid_file: Option<PathBuf>,
    /// `-m`, `--http_port`.
    pub http_port: Option<i64>,
    /// `-ms`, `--https_port`.
    pub https_port: Option<i64>,
    /// `-c`, `--config`.
    pub config: Option<PathBuf>,
    /// `-t`.
    pub test: bool,
    /// `-sl`, `--signal`.
    pub signal: Option<String>,
    /// `--client_advertise`.
    pub client_advertise: Option<String>,
    /// `--ports_file_dir`.
    pub ports_file_dir: Option<PathBuf>,
    /// `-l`, `--log`.
    pub log_file: Option<PathBuf>,
    /// `-T`, `--logtime`.
    pub logtime: Option<bool>,
    /// `--logtime_utc`.
    pub logtime_utc: Option<bool>,
    /// `-s`, `--syslog`; not built.
    pub syslog: bool,
    /// `-r`, `--remote_syslog`; not built.
    pub remote_syslog: Option<String>,
    /// `-D`, `--debug`, `-DV`, `-DVV`.
    pub debug: Option<bool>,
    /// `-V`, `--trace`, `-VV`, `-DV`, `-DVV`.
    pub trace: Option<bool>,
    /// `-VV`, `-DVV`.
    pub trace_verbose: Option<bool>,
    /// `--log_size_limit`.
    pub log_size_limit: Option<i64>,
    /// `--max_traced_msg_len`.
    pub max_traced_msg_len: Option<i64>,
    /// `-js`, `--jetstream`.
    pub jetstream: Option<bool>,
    /// `-sd`, `--store_dir`.
    pub store_dir: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--pass`.
    pub pass: Option<String>,
    /// `--auth`.
    pub token: Option<String>,
    /// `--tls`.
    pub tls: Option<bool>,
    /// `--tlscert`.
    pub tls_cert: Option<PathBuf>,
    /// `--tlskey`.
    pub tls_key: Option<PathBuf>,
    /// `--tlsverify`.
    pub tls_verify: Option<bool>,
    /// `--tlscacert`.
    pub tls_ca: Option<PathBuf>,
    /// `--routes`, parted by commas.
    pub routes: Option<String>,
    /// `--cluster`, `--cluster_listen`.
    pub cluster: Option<String>,
    /// `--cluster_name`.
    pub cluster_name: Option<String>,
    /// `--no_advertise`.
    pub no_advertise: Option<bool>,
    /// `--cluster_advertise`.
    pub cluster_advertise: Option<String>,
    /// `--connect_retries`.
    pub connect_retries: Option<i64>,
    /// `--profile`; not built.
    pub profile: Option<i64>,
    /// `-h`, `--help`, or the word `help`.
    pub help: bool,
    /// `--help_tls`.
    pub help_tls: bool,
    /// `-v`, `--version`, or the word `version`.
    pub version: bool,
}

/// Why the arguments are refused. For all but the last, nats-server prints its usage besides.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FlagsError {
    /// No flag has this name.
    #[error("flag provided but not defined: -{flag}")]
    Unknown {
        /// The name without dashes.
        flag: String,
    },
    /// The flag's value is missing.
    #[error("flag needs an argument: -{flag}")]
    NoArgument {
        /// The name.
        flag: String,
    },
    /// The value is not a number.
    #[error("invalid value {value:?} for flag -{flag}: parse error")]
    BadNumber {
        /// The name.
        flag: String,
        /// What was given.
        value: String,
    },
    /// The value is neither true nor false.
    #[error("invalid boolean value {value:?} for -{flag}: parse error")]
    BadBoolean {
        /// The name.
        flag: String,
        /// What was given.
        value: String,
    },
    /// Three dashes, or no name.
    #[error("bad flag syntax: {argument}")]
    BadSyntax {
        /// What was given.
        argument: String,
    },
    /// A word that is no flag.
    #[error("unrecognized command: {command:?}")]
    UnknownCommand {
        /// The word.
        command: String,
    },
}

impl FlagsError {
    /// Whether the usage is to be printed too.
    pub fn shows_usage(&self) -> bool {
        !matches!(self, FlagsError::UnknownCommand { .. })
    }
}

/// What `--signal` asks of a running server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Lame duck mode: SIGUSR2.
    LameDuck,
    /// Stop at once: SIGKILL.
    Stop,
    /// Stop cleanly: SIGINT.
    Quit,
    /// Stop gracefully: SIGTERM.
    Term,
    /// Open the log file anew: SIGUSR1.
    Reopen,
    /// Read the configuration again: SIGHUP.
    Reload,
}

impl Signal {
    /// By the name that `--signal` takes.
    pub fn from_name(name: &str) -> Option<Signal> {
        Some(match name {
            "ldm" => Signal::LameDuck,
            "stop" => Signal::Stop,
            "quit" => Signal::Quit,
            "term" => Signal::Term,
            "reopen" => Signal::Reopen,
            "reload" => Signal::Reload,
            _ => return None,
        })
    }
}

/// What a flag takes, and where it goes.
enum Kind {
    Switch(fn(&mut Flags, bool)),
    Number(fn(&mut Flags, i64)),
    Text(fn(&mut Flags, String)),
}

use Kind::{Number, Switch, Text};

const FLAGS: &[(&[&str], Kind)] = &[
    (&["a", "addr", "net"], Text(|f, v| f.host = Some(v))),
    (&["p", "port"], Number(|f, v| f.port = Some(v))),
    (&["n", "name", "server_name"], Text(|f, v| f.server_name = Some(v))),
    (&["P", "pid"], Text(|f, v| f.pid_file = Some(v.into()))),
    (&["m", "http_port"], Number(|f, v| f.http_port = Some(v))),
    (&["ms", "https_port"], Number(|f, v| f.https_port = Some(v))),
    (&["c", "config"], Text(|f, v| f.config = Some(v.into()))),
    (&["t"], Switch(|f, v| f.test = v)),
    (&["sl", "signal"], Text(|f, v| f.signal = Some(v))),
    (&["client_advertise"], Text(|f, v| f.client_advertise = Some(v))),
    (&["ports_file_dir"], Text(|f, v| f.ports_file_dir = Some(v.into()))),
    (&["l", "log"], Text(|f, v| f.log_file = Some(v.into()))),
    (&["T", "logtime"], Switch(|f, v| f.logtime = Some(v))),
    (&["logtime_utc"], Switch(|f, v| f.logtime_utc = Some(v))),
    (&["s", "syslog"], Switch(|f, v| f.syslog = v)),
    (&["r", "remote_syslog"], Text(|f, v| f.remote_syslog = Some(v))),
    (&["D", "debug"], Switch(|f, v| f.debug = Some(v))),
    (&["V", "trace"], Switch(|f, v| f.trace = Some(v))),
    (&["VV"], Switch(|f, v| (f.trace, f.trace_verbose) = (Some(v), Some(v)))),
    (&["DV"], Switch(|f, v| (f.debug, f.trace) = (Some(v), Some(v)))),
    (&["DVV"], Switch(|f, v| (f.debug, f.trace, f.trace_verbose) = (Some(v), Some(v), Some(v)))),
    (&["log_size_limit"], Number(|f, v| f.log_size_limit = Some(v))),
    (&["max_traced_msg_len"], Number(|f, v| f.max_traced_msg_len = Some(v))),
    (&["js", "jetstream"], Switch(|f, v| f.jetstream = Some(v))),
    (&["sd", "store_dir"], Text(|f, v| f.store_dir = Some(v.into()))),
    (&["user"], Text(|f, v| f.user = Some(v))),
    (&["pass"], Text(|f, v| f.pass = Some(v))),
    (&["auth"], Text(|f, v| f.token = Some(v))),
    (&["tls"], Switch(|f, v| f.tls = Some(v))),
    (&["tlscert"], Text(|f, v| f.tls_cert = Some(v.into()))),
    (&["tlskey"], Text(|f, v| f.tls_key = Some(v.into()))),
    (&["tlsverify"], Switch(|f, v| f.tls_verify = Some(v))),
    (&["tlscacert"], Text(|f, v| f.tls_ca = Some(v.into()))),
    (&["routes"], Text(|f, v| f.routes = Some(v))),
    (&["cluster", "cluster_listen"], Text(|f, v| f.cluster = Some(v))),
    (&["cluster_name"], Text(|f, v| f.cluster_name = Some(v))),
    (&["no_advertise"], Switch(|f, v| f.no_advertise = Some(v))),
    (&["cluster_advertise"], Text(|f, v| f.cluster_advertise = Some(v))),
    (&["connect_retries"], Number(|f, v| f.connect_retries = Some(v))),
    (&["profile"], Number(|f, v| f.profile = Some(v))),
    (&["h", "help"], Switch(|f, v| f.help = v)),
    (&["help_tls"], Switch(|f, v| f.help_tls = v)),
    (&["v", "version"], Switch(|f, v| f.version = v)),
];

impl Flags {
    /// Reads the arguments behind the program's name.
    pub fn parse(arguments: &[String]) -> Result<Flags, FlagsError> {
        let mut flags = Flags::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some((name, value)) = name_and_value(argument)? else {
                let word = if argument == "--" { arguments.next() } else { Some(argument) };
                return flags.word(word);
            };
            let known = FLAGS.iter().find(|(names, _)| names.contains(&name));
            let (_, kind) = known.ok_or_else(|| FlagsError::Unknown { flag: name.into() })?;
            if let Switch(apply) = kind {
                // A switch never takes the next argument.
                apply(&mut flags, value.map_or(Ok(true), |value| boolean(name, value))?);
                continue;
            }
            let next = value.or_else(|| arguments.next().map(String::as_str));
            let value = next.ok_or_else(|| FlagsError::NoArgument { flag: name.into() })?;
            match kind {
                Number(apply) => apply(&mut flags, number(name, value)?),
                Text(apply) => apply(&mut flags, value.to_owned()),
                Switch(_) => {}
            }
        }
        Ok(flags)
    }

    /// The first word that is no flag ends the flags.
    fn word(mut self, word: Option<&String>) -> Result<Flags, FlagsError> {
        match word.map(String::as_str) {
            Some("version") => self.version = true,
            Some("help") => self.help = true,
            Some(command) => return Err(FlagsError::UnknownCommand { command: command.into() }),
            None => {}
        }
        Ok(self)
    }
}

/// The flag's name and the value behind `=`; `None` for a word that is no flag.
fn name_and_value(argument: &str) -> Result<Option<(&str, Option<&str>)>, FlagsError> {
    let Some(rest) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.starts_with(['-', '=']) {
        return Err(FlagsError::BadSyntax { argument: argument.into() });
    }
    Ok(Some(match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    }))
}

fn boolean(flag: &str, value: &str) -> Result<bool, FlagsError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(FlagsError::BadBoolean { flag: flag.into(), value: value.into() }),
    }
}

/// Decimal, or hexadecimal, octal or binary behind `0x`, `0o` or `0b`.
fn number(flag: &str, value: &str) -> Result<i64, FlagsError> {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let sign = if value.starts_with('-') { "-" } else { "" };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    let bad = || FlagsError::BadNumber { flag: flag.into(), value: value.into() };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(bad());
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagsError> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&arguments)
    }

    #[test]
    fn every_way_to_write_a_flag() {
        let flags =
            parse("-p -1 --addr=127.0.0.1 -js -sd=DIR -DV --no_advertise=false -m 0x1F90 -T=0").unwrap();
        let wanted = Flags {
            port: Some(-1),
            host: Some("127.0.0.1".into()),
            jetstream: Some(true),
            store_dir: Some("DIR".into()),
            debug: Some(true),
            trace: Some(true),
            no_advertise: Some(false),
            http_port: Some(8080),
            logtime: Some(false),
            ..Flags::default()
        };
        assert_eq!(flags, wanted);
    }

    #[test]
    fn clients_lines_are_taken() {
        let lines = [
            "-p 4222 -l log -P pid --store_dir d -c f -n name",
            "-p -1 --cluster nats://h:1 --cluster_name c --routes a,b",
            "--port -1 --addr :: --config f --server_name n --debug --jetstream --store_dir d",
            "-js -sd DIR -DV -l log -user a -pass b -auth t -server_name s -config f -v",
            "--tls --tlscert a --tlskey b --tlsverify --tlscacert c",
            "-cluster u -cluster_name \"local\" -routes nats-route://h:1",
            "--signal ldm=12 --cluster_listen u --cluster_advertise x --connect_retries 3",
        ];
        for line in lines {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert_eq!(parse("-cluster_name \"local\"").unwrap().cluster_name.as_deref(), Some("\"local\""));
    }

    #[test]
    fn refusals_read_as_in_nats_server() {
        let cases = [
            ("--bogus", "flag provided but not defined: -bogus"),
            ("-p", "flag needs an argument: -p"),
            ("-p x", "invalid value \"x\" for flag -p: parse error"),
            ("-p -a 127.0.0.1", "invalid value \"-a\" for flag -p: parse error"),
            ("-p 99999999999999999999", "invalid value \"99999999999999999999\" for flag -p: parse error"),
            ("-p +-1", "invalid value \"+-1\" for flag -p: parse error"),
            ("-p 0xé", "invalid value \"0xé\" for flag -p: parse error"),
            ("-js=maybe", "invalid boolean value \"maybe\" for -js: parse error"),
            ("---p 1", "bad flag syntax: ---p"),
            ("-=x", "bad flag syntax: -=x"),
            ("extra", "unrecognized command: \"extra\""),
            ("-js false", "unrecognized command: \"false\""),
            ("-", "unrecognized command: \"-\""),
            ("-- -x", "unrecognized command: \"-x\""),
        ];
        for (line, message) in cases {
            let error = parse(line).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.shows_usage(), !message.starts_with("unrecognized"), "{line}");
        }
        assert!(parse("version x").unwrap().version);
        assert!(parse("help").unwrap().help);
        assert_eq!(parse("--"), Ok(Flags::default()));
    }

    #[test]
    fn every_flag_is_described() {
        for (names, _) in FLAGS {
            for name in *names {
                let dashed = [format!(" -{name}"), format!("--{name}")];
                assert!(dashed.iter().any(|flag| crate::usage::USAGE.contains(flag)), "{name}");
            }
        }
    }
}
