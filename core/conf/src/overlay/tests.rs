//! Whole command lines: flags over files, and what is refused.

use std::path::Path;

use super::*;

fn run_with(file: &str, line: &str) -> Result<Command, CommandError> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut read = |path: &Path| match path == Path::new("c.conf") {
        true => Ok(file.to_owned()),
        false => Err(format!("open {}: no such file or directory", path.display())),
    };
    command_line(&arguments, &mut Source { env: &|_| None, read: &mut read })
}

fn options(file: &str, line: &str) -> Options {
    match run_with(file, line) {
        Ok(Command::Run { options, .. }) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_win_over_the_file() {
    let file = "net: \"0.0.0.0\"\nport: 4333\nserver_name: f\nhttp: \"h:1\"\ndebug: true\nlogtime: true
                jetstream {store_dir: \"f\", enabled: false}\nauthorization {user: a, pass: b}\nlogfile: f.log";
    let line =
        "-c c.conf -a 127.0.0.1 -p -1 -n flag -m 8222 -D=false -V -T=false -js -sd dir --auth tok -l x.log
                -P p --ports_file_dir d --log_size_limit 10 --max_traced_msg_len 5 --logtime_utc";
    let options = options(file, line);
    assert_eq!(options.server.listen, Listen { host: "127.0.0.1".into(), port: 0 });
    assert_eq!(options.server.name.as_deref(), Some("flag"));
    assert_eq!(options.monitor.http, Some(Listen { host: "h".into(), port: 8222 }));
    assert!(!options.log.debug && options.log.trace && !options.log.logtime && options.log.logtime_utc);
    assert!(options.jetstream.enabled);
    assert_eq!(options.jetstream.store_dir, Some("dir".into()));
    assert_eq!(options.auth.login, Some(Login::Token("tok".into())));
    assert_eq!(options.log.file, Some("x.log".into()));
    assert_eq!(options.log.file_size_limit, Some(10));
    assert_eq!(options.log.max_traced_msg_len, Some(5));
    assert_eq!(options.server.pid_file, Some("p".into()));
    assert_eq!(options.server.ports_file_dir, Some("d".into()));
}

#[test]
fn the_file_stays_where_no_flag_is() {
    let options = options("port: 4333\ntrace: true\njetstream: true", "-c c.conf");
    assert_eq!(options.server.listen, Listen { host: "0.0.0.0".into(), port: 4333 });
    assert!(options.log.trace && options.jetstream.enabled);
}

#[test]
fn other_flags() {
    assert_eq!(options("", "-p 0").server.listen.port, 4222);
    assert_eq!(options("", "-m 0").monitor.http, None);
    let log = options("", "-DVV").log;
    assert!(log.debug && log.trace && log.trace_verbose);
    let login = Login::User { user: "a".into(), pass: "b".into() };
    assert_eq!(options("", "-user a --pass=b").auth.login, Some(login));
    let tls = options("", "--tls --tlscert c --tlskey k --tlscacert ca --tlsverify").tls.unwrap();
    assert_eq!(tls.cert_file, Some("c".into()));
    assert_eq!(tls.key_file, Some("k".into()));
    assert_eq!(tls.ca_file, Some("ca".into()));
    assert!(tls.verify);
    let cluster = options("", "--cluster_name \"local\"").cluster.unwrap();
    assert_eq!(cluster.name.as_deref(), Some("\"local\""));
    let line =
        "--cluster nats://u:p@127.0.0.1:-1 --routes nats-route://a:1,b:2 --connect_retries 3 --no_advertise";
    let cluster = options("", line).cluster.unwrap();
    assert_eq!(cluster.listen, Some(Listen { host: "127.0.0.1".into(), port: 0 }));
    assert_eq!(cluster.login, Some(RouteLogin { user: "u".into(), pass: "p".into() }));
    let addresses: Vec<String> = cluster.route_urls().into_iter().map(|route| route.address).collect();
    assert_eq!(addresses, ["a:1", "b:2"]);
    assert!(cluster.no_advertise && cluster.connect_retries == 3);
    // A store directory alone enables nothing.
    assert!(!options("", "-sd d").jetstream.enabled);
}

#[test]
fn commands() {
    assert_eq!(run_with("", "-v"), Ok(Command::Version));
    assert_eq!(run_with("", "version"), Ok(Command::Version));
    for line in ["-h", "--help", "help", "--help_tls"] {
        assert!(matches!(run_with("", line), Ok(Command::Help(_))), "{line}");
    }
    let signal =
        |signal, target: Option<&str>| Ok(Command::Signal { signal, target: target.map(str::to_owned) });
    assert_eq!(run_with("", "--signal ldm=12"), signal(Signal::LameDuck, Some("12")));
    assert_eq!(run_with("", "-sl=stop=/run/x.pid"), signal(Signal::Stop, Some("/run/x.pid")));
    assert_eq!(run_with("", "-sl reload"), signal(Signal::Reload, None));
    assert_eq!(run_with("port: 1", "-t -c c.conf"), Ok(Command::TestConfig { config: "c.conf".into() }));
}

#[test]
fn refused() {
    let cases = [
        ("", "-t", "must specify [-c, --config] option to check configuration file syntax"),
        ("", "-c nope.conf", "open nope.conf: no such file or directory"),
        ("", "-c c.conf -t", "c.conf: config has no values or is empty"),
        ("zz: 1", "-c c.conf", "c.conf:1:1: unknown field \"zz\""),
        ("a: [", "-c c.conf", "c.conf:1:5: Parse error on line 1: 'Unexpected EOF processing array.'"),
        ("", "--signal bogus=1", "unknown signal \"bogus\""),
        ("", "-p 99999", "99999: invalid port"),
        ("", "-s", "--syslog is not supported yet: use --log"),
        ("", "--profile 1", "--profile is not supported yet"),
        ("", "--pass b", "--pass needs --user"),
        ("", "--user a --auth t", "Cannot have a user/pass and token"),
        ("", "--tls", "TLS Server certificate must be present and valid"),
        ("", "--routes nats://a:1", "solicited routes require cluster capabilities, e.g. --cluster"),
        ("", "-js --cluster nats://127.0.0.1:-1", "jetstream cluster requires `server_name` to be set"),
        ("", "--cluster :1 --routes http://a:1", "--routes: error parsing route url \"http://a:1\""),
        ("", "--cluster bogus", "--cluster bogus: missing port in address"),
        ("", "-ms 1", "TLS cert and key required for HTTPS"),
        ("", "extra", "unrecognized command: \"extra\""),
    ];
    for (file, line, message) in cases {
        let error = run_with(file, line).unwrap_err();
        assert_eq!(error.to_string(), message, "{line}");
        assert_eq!(error.usage(), None, "{line}");
    }
    let unknown = run_with("", "--bogus").unwrap_err();
    assert_eq!(unknown.to_string(), "flag provided but not defined: -bogus");
    assert!(unknown.usage().is_some());
}
