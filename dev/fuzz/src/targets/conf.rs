//! The configuration language, with its includes and variables, up to typed options.

use hw_conf::{Source, command_line};

pub(super) const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "=",
    ":",
    "\n",
    "#",
    "//",
    "\"",
    "'",
    "$X",
    "$Y",
    "include ",
    "include 'b.conf'\n",
    "port",
    "jetstream",
    "accounts",
    "users",
    "user",
    "password",
    "permissions",
    "publish",
    "subscribe",
    "allow",
    "deny",
    "max_payload",
    "1k",
    "1GB",
    "10s",
    "1h30m",
    "true",
    "off",
    "authorization",
    "tls",
    "websocket",
    "cluster",
    "cluster_name",
    "\\x41",
    "\\u0000",
    "(",
    ")",
    ",",
    ";",
    "store_dir",
    "max_mem",
    "system_account",
];

const TEXTS: &[&str] = &[
    "port: 4222\nhttp: localhost:8222\nserver_name = x\n",
    "jetstream { store_dir: 'a', max_mem: 1G, max_file: 10GB, domain: d, sync_interval: always }\n",
    "accounts { A { users [ {user: a, password: b, permissions { publish { allow [\"a.>\"], deny b } } } ], jetstream: true }, SYS { users = [{user: s, pass: t}] } }\nsystem_account: SYS\n",
    "X = 4\nY: $X\nport: $Y\ninclude 'b.conf'\n",
    "authorization { user: a, password: $PASS, timeout: 3 }\nmax_payload: 1MB, max_pending: 10m; ping_interval: '2m'\n",
    "tls { cert_file: 'a', key_file: \"b\", verify: true, timeout: 2 }\nwebsocket { port: 1, no_tls: true }\n",
    "cluster { name: c, listen: 'localhost:1', routes = [nats://a:1, nats://b:2] }\nleafnodes { port: 7422 }\n",
    "debug: true, trace: off\nlogfile: 'x'\nwrite_deadline: \"5s\"\nlame_duck_duration: 30s\n",
    "{ \"port\": 1, \"accounts\": { \"A\": {} } }",
    "a = (\nmany\nlines\n)\n",
];

pub(super) fn corpus() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The text is the configuration file, and what it includes is a part of itself.
pub fn fuzz_conf(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let env = |name: &str| match name {
        "PASS" => Some("secret".to_owned()),
        "X" => Some("$Y".to_owned()),
        _ => None,
    };
    let included = text.clone();
    let mut reads = 0;
    let mut read = |path: &std::path::Path| {
        reads += 1;
        assert!(reads < 10_000, "includes come to an end");
        Ok(if path.ends_with("b.conf") { String::new() } else { included.clone() })
    };
    let mut source = Source { env: &env, read: &mut read };
    let arguments = ["-c", "x.conf"].map(str::to_owned);
    if let Err(error) = command_line(&arguments, &mut source) {
        assert!(!error.to_string().is_empty(), "an error says something");
    }
}
