//! The client half: commands in the manner of the `nats` tool, one file per noun.

mod account;
mod api;
mod backup;
mod bench;
mod cluster;
mod completion;
mod connect;
mod consumer;
mod context;
mod counter;
mod demo;
mod error;
mod events;
mod kv;
mod object;
mod ordered;
mod output;
mod publish;
mod reply;
mod request;
mod rtt;
mod server;
mod service;
mod store;
mod stream;
mod subscribe;
mod template;
mod top;
mod units;
mod view;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::connect::Global;
use self::error::Failure;

/// The command line of a client.
#[derive(Debug, Parser)]
#[command(
    name = "headwater",
    version,
    about = "Work with a JetStream server",
    disable_help_subcommand = true
)]
#[command(propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Information about the account and the connection
    #[command(subcommand, visible_alias = "a")]
    Account(account::Command),
    /// Back up and restore streams
    #[command(subcommand)]
    Backup(backup::Command),
    /// Measure a server
    #[command(subcommand)]
    Bench(bench::Command),
    /// Try out a cluster on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Write a completion script for a shell
    Completion(completion::Args),
    /// Manage consumers
    #[command(subcommand, visible_aliases = ["con", "obs", "c"])]
    Consumer(consumer::Command),
    /// Manage the saved connection contexts
    #[command(subcommand, visible_alias = "ctx")]
    Context(context::Command),
    /// Work with counters
    #[command(subcommand, visible_alias = "ctr")]
    Counter(counter::Command),
    /// Walk through the introduction on a server in this process: no other server is needed or touched
    Demo(demo::Args),
    /// Show advisories and events as they happen
    #[command(visible_aliases = ["event", "e"])]
    Events(events::Args),
    /// Work with key-value buckets
    #[command(subcommand)]
    Kv(kv::Command),
    /// Work with object store buckets
    #[command(subcommand, visible_alias = "obj")]
    Object(object::Command),
    /// Publish messages
    #[command(name = "publish", visible_alias = "pub")]
    Publish(publish::Args),
    /// Answer requests
    Reply(reply::Args),
    /// Send requests and wait for replies
    #[command(visible_alias = "req")]
    Request(request::Args),
    /// Measure the round-trip time to the server
    Rtt(rtt::Args),
    /// Server information and health checks
    #[command(subcommand, visible_aliases = ["srv", "sys"])]
    Server(server::Command),
    /// Work with services
    #[command(subcommand, visible_aliases = ["services", "micro"])]
    Service(service::Command),
    /// Check, show or repair what a server keeps on disk, while no server uses it
    #[command(subcommand)]
    Store(store::Command),
    /// Manage streams
    #[command(subcommand, visible_aliases = ["str", "st", "s"])]
    Stream(stream::Command),
    /// Watch a server and its connections
    Top(top::Args),
    /// Show messages as they are published
    #[command(name = "subscribe", visible_alias = "sub")]
    Subscribe(subscribe::Args),
}

/// Whether these arguments (without the program's name) name a client command: client flags may stand
/// before it, and nothing of a server's own command line is ever taken for one, as that has no plain words.
pub fn wanted(args: &[OsString]) -> bool {
    let command = Cli::command();
    let is_command = |word: &str| {
        command
            .get_subcommands()
            .any(|sub| sub.get_name() == word || sub.get_all_aliases().any(|alias| alias == word))
    };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(text) = arg.to_str() else { return false };
        let flag = text.split('=').next().unwrap_or(text);
        let known = command.get_arguments().find(|known| {
            let long = known.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
            long || known.get_short().is_some_and(|short| flag == format!("-{short}"))
        });
        match known {
            Some(known) if known.get_action().takes_values() && !text.contains('=') => {
                rest.next();
            }
            Some(_) => {}
            None => return is_command(text),
        }
    }
    false
}

/// The client commands with a line each, for the server's own help.
pub fn overview() -> String {
    let command = Cli::command();
    let lines = command.get_subcommands().map(|sub| {
        format!("    {:<12} {}", sub.get_name(), sub.get_about().map(ToString::to_string).unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Flags that are on unless `--no-…` is said, or the reverse; clap sees them as `--flag=false`.
const NEGATABLE: [&str; 18] = [
    "ack",
    "allow-batch",
    "allow-direct",
    "allow-fast",
    "allow-mirror-direct",
    "allow-rollup",
    "allow-schedules",
    "compress",
    "consumers",
    "deletes",
    "deny-delete",
    "deny-purge",
    "discard-per-subject",
    "doubleack",
    "headers-only",
    "progress",
    "replicas",
    "templates",
];

fn spell_negations(args: Vec<OsString>) -> Vec<OsString> {
    let mut plain = false;
    let spell = |arg: OsString| {
        plain = plain || arg == OsStr::new("--");
        match arg.to_str().and_then(|text| text.strip_prefix("--no-")) {
            Some(name) if !plain && NEGATABLE.contains(&name) => format!("--{name}=false").into(),
            _ => arg,
        }
    };
    args.into_iter().map(spell).collect()
}

/// Runs the command that the arguments (with the program's name) name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(spell_negations(args)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 1 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(1) };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headwater: error: could not start: {error}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(dispatch(cli));
    // A blocked read of standard input must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Silent(_)) {
                eprintln!("headwater: error: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Account(command) => account::run(global, command).await,
        Command::Backup(command) => backup::run(global, command).await,
        Command::Bench(command) => bench::run(global, command).await,
        Command::Completion(args) => completion::run(&args),
        Command::Consumer(command) => consumer::run(global, command).await,
        Command::Context(command) => context::run(global, command),
        Command::Counter(command) => counter::run(global, command).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Events(args) => events::run(global, args).await,
        Command::Kv(command) => kv::run(global, command).await,
        Command::Object(command) => object::run(global, command).await,
        Command::Publish(args) => publish::run(global, args).await,
        Command::Reply(args) => reply::run(global, args).await,
        Command::Request(args) => request::run(global, args).await,
        Command::Rtt(args) => rtt::run(global, args).await,
        Command::Server(command) => server::run(global, command).await,
        Command::Service(command) => service::run(global, command).await,
        Command::Store(command) => store::run(command),
        Command::Stream(command) => stream::run(global, command).await,
        Command::Top(args) => top::run(global, args).await,
        Command::Subscribe(args) => subscribe::run(global, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// A command's own value under a global flag's id would be taken for that flag.
    #[test]
    fn no_command_reuses_a_global_flag() {
        fn visit(command: &clap::Command, taken: &[String]) {
            for sub in command.get_subcommands() {
                let clash =
                    sub.get_arguments().find(|own| taken.iter().any(|id| own.get_id() == id.as_str()));
                assert!(clash.is_none(), "{}: {}", sub.get_name(), clash.expect("found above").get_id());
                visit(sub, taken);
            }
        }
        let command = Cli::command();
        let taken: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
        assert!(taken.contains(&"server".to_owned()));
        visit(&command, &taken);
    }

    #[test]
    fn a_command_is_told_from_a_server() {
        let cases = [
            ("stream ls", true),
            ("pub a b", true),
            ("-s nats://x stream ls", true),
            ("--server=nats://x sub a", true),
            ("--user bob --password x kv ls", true),
            ("--context prod s ls", true),
            ("", false),
            ("-js", false),
            ("-p 4222", false),
            ("--user stream", false),
            ("-c stream", false),
            ("--help", false),
            ("help", false),
            ("--user bob --pass x", false),
        ];
        for (line, want) in cases {
            assert_eq!(wanted(&words(line)), want, "{line:?}");
        }
    }

    #[test]
    fn negations_are_spelled_out() {
        let spelled = spell_negations(words("x --no-ack --no-context --ack -- --no-ack"));
        assert_eq!(spelled, words("x --ack=false --no-context --ack -- --no-ack"));
    }

    #[test]
    fn every_command_has_a_line() {
        assert!(overview().lines().all(|line| line.split_whitespace().count() > 2), "{}", overview());
    }
}
