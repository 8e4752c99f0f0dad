//! The commands against a server: the introduction's walk through a stream, and one of each other noun.
//!
//! The server is our own binary, or the one that `HEADWATER_TEST_SERVER` names: one with `nats-server`'s flags.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hw_testkit::Port;

/// A server with an empty store, ended with the test.
struct Server {
    process: Child,
    url: String,
    folder: PathBuf,
    _port: Port,
}

/// What a command did.
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Server {
    fn start(test: &str) -> Self {
        Self::start_with(test, "", "")
    }

    /// A server with more in its configuration; `login` is what stands before the `@` of its URL.
    fn start_with(test: &str, config: &str, login: &str) -> Self {
        let binary = std::env::var_os("HEADWATER_TEST_SERVER");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_headwater").into());
        let folder = std::env::temp_dir().join(format!("headwater-commands-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder can be made");
        let file = folder.join("server.conf");
        std::fs::write(&file, config).expect("a scratch file can be written");
        let held = Port::take().expect("a port is free");
        let port = held.number();
        let process = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-n", "S1", "-js", "-sd"])
            .arg(folder.join("store"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Self { process, url: format!("nats://{login}127.0.0.1:{port}"), folder, _port: held };
        let (_never, pause) = mpsc::sync_channel::<()>(1);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() || server.run(&["rtt"]).code != 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "the server does not come up");
            pause.recv_timeout(Duration::from_millis(20)).expect_err("nobody sends");
        }
        server
    }

    fn run(&self, args: &[&str]) -> Outcome {
        run(&self.url, &self.folder, args)
    }

    /// Runs a command that must succeed, and returns what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, 0, "{args:?}: {}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Runs a command that must fail with one line that contains a text.
    fn fails(&self, args: &[&str], text: &str) {
        let outcome = self.run(args);
        assert_eq!(outcome.code, 1, "{args:?}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.contains(text), "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {}", outcome.stderr);
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("our own child can be killed");
        self.process.wait().expect("and waited for");
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn run(url: &str, folder: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    let foreign = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("NATS_"));
    foreign.for_each(|name| {
        command.env_remove(name);
    });
    let output = command
        .args(args)
        .env("NATS_URL", url)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .expect("our own binary runs");
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The cells of a table's row that begins with a text.
fn row(table: &str, first: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(&format!("│ {first} ")));
    let line = line.unwrap_or_else(|| panic!("no row {first} in\n{table}"));
    line.trim_matches('│').split('│').map(|cell| cell.trim().to_owned()).collect()
}

fn header(table: &str) -> Vec<String> {
    let line = table.lines().nth(3).unwrap_or_default();
    line.trim_matches('│').split('│').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_introduction() {
    let server = Server::start("the_introduction");
    assert_eq!(server.ok(&["stream", "ls"]), "No Streams defined\n");
    let info = server.ok(&["stream", "add", "shop_orders", "--subjects", "orders.>", "--defaults"]);
    assert!(info.contains("Stream shop_orders was created"), "{info}");
    for number in 0..10 {
        let subject = format!("orders.new.{number}");
        let stored = server.ok(&["pub", "-J", &subject, r#"{"OrderId":1}"#]);
        assert!(
            stored.contains(&format!("Stored in Stream: shop_orders Sequence: {}", number + 1)),
            "{stored}"
        );
    }

    let table = server.ok(&["stream", "ls"]);
    assert_eq!(header(&table), ["Name", "Description", "Created", "Messages", "Size", "Last Message"]);
    let cells = row(&table, "shop_orders");
    assert_eq!((cells[0].as_str(), cells[3].as_str()), ("shop_orders", "10"), "{table}");
    assert!(cells[4].ends_with(" B") && !cells[5].is_empty(), "{table}");

    server.ok(&["consumer", "add", "shop_orders", "order_processor", "--pull", "--defaults"]);
    let table = server.ok(&["consumer", "report", "shop_orders"]);
    assert!(table.contains(" Consumer report for shop_orders with 1 consumers "), "{table}");
    let cells = row(&table, "order_processor");
    assert_eq!(
        cells[..8],
        ["order_processor", "Pull", "Explicit", "30.00s", "0", "0", "10 / 100%", "0"],
        "{table}"
    );

    let next = ["consumer", "next", "shop_orders", "order_processor", "--count", "10", "--raw"];
    assert_eq!(server.ok(&next), "{\"OrderId\":1}\n".repeat(10));
    let info = server.json(&["consumer", "info", "shop_orders", "order_processor", "--json"]);
    assert_eq!(info["num_pending"], 0);
    assert_eq!(info["num_ack_pending"], 0);
    assert_eq!(info["ack_floor"]["stream_seq"], 10);
    server.fails(&["consumer", "next", "shop_orders", "order_processor", "--wait", "100ms"], "408");
}

#[test]
fn streams_are_managed() {
    let server = Server::start("streams_are_managed");
    server.fails(&["stream", "info", "absent"], "stream not found (10059)");
    let limits = ["--max-msgs", "100", "--max-age", "1h", "--dupe-window", "30s", "--metadata", "team:a"];
    server.ok(&[["stream", "add", "S", "--subjects", "s.*", "--defaults"].as_slice(), &limits].concat());
    let config = &server.json(&["stream", "info", "S", "-j"])["config"];
    assert_eq!(config["max_msgs"], 100);
    assert_eq!(config["max_age"], 3_600_000_000_000_u64);
    assert_eq!(config["duplicate_window"], 30_000_000_000_u64);
    assert_eq!(config["metadata"]["team"], "a");
    server.fails(&["stream", "add", "S", "--subjects", "t", "--defaults"], "10058");

    server.ok(&["pub", "s.a", "one", "-H", "Kind: x", "-J"]);
    server.ok(&["pub", "s.b", "{{Count}}", "--count", "3"]);
    assert!(server.ok(&["stream", "get", "S", "1"]).contains("Headers:\n  Kind: x\n\none"));
    assert_eq!(server.json(&["stream", "get", "S", "-S", "s.b", "-j"])["seq"], 4);
    server.fails(&["stream", "get", "S", "99"], "10037");
    assert_eq!(server.json(&["stream", "subjects", "S", "-j"]), serde_json::json!({"s.a": 1, "s.b": 3}));
    assert_eq!(server.ok(&["stream", "view", "S", "--raw", "--subject", "s.b"]), "1\n2\n3\n");
    assert_eq!(server.ok(&["sub", "s.>", "--stream", "S", "--all", "-T", "--raw"]), "one\n1\n2\n3\n");

    let edit = ["stream", "edit", "S", "--max-msgs", "200"];
    server.fails(&edit, "stdin is not a terminal");
    server.ok(&[edit.as_slice(), &["-f"]].concat());
    let config = &server.json(&["stream", "info", "S", "-j"])["config"];
    assert_eq!((&config["max_msgs"], &config["metadata"]["team"]), (&200.into(), &"a".into()));
    server.ok(&["stream", "copy", "S", "T", "--subjects", "t"]);
    assert_eq!(server.ok(&["stream", "ls", "-n"]), "S\nT\n");

    server.ok(&["stream", "rmm", "S", "2", "-f"]);
    server.fails(&["stream", "get", "S", "2"], "10037");
    server.ok(&["stream", "purge", "S", "--subject", "s.a", "-f"]);
    assert_eq!(server.json(&["stream", "state", "S", "-j"])["state"]["messages"], 2);
    assert_eq!(row(&server.ok(&["stream", "report"]), "S")[4], "2");
    server.ok(&["stream", "seal", "T", "-f"]);
    assert_eq!(server.json(&["stream", "info", "T", "-j"])["config"]["sealed"], true);
    server.fails(&["stream", "rm", "S"], "use -f or --force");
    server.ok(&["stream", "rm", "S", "-f"]);
    server.fails(&["stream", "info", "S"], "10059");
}

#[test]
fn consumers_are_managed() {
    let server = Server::start("consumers_are_managed");
    server.ok(&["stream", "add", "S", "--subjects", "s.>", "--defaults"]);
    server.ok(&["pub", "s.a", "x", "--count", "5"]);
    let add = ["consumer", "add", "S", "C", "--pull", "--filter", "s.a", "--ack", "explicit", "--wait", "5s"];
    server.ok(&add);
    let info = server.json(&["consumer", "info", "S", "C", "-j"]);
    assert_eq!(info["config"]["filter_subject"], "s.a");
    assert_eq!(info["config"]["ack_wait"], 5_000_000_000_u64);
    server.ok(&["consumer", "edit", "S", "C", "--max-deliver", "7", "-f"]);
    assert_eq!(server.json(&["consumer", "info", "S", "C", "-j"])["config"]["max_deliver"], 7);
    server.ok(&["consumer", "next", "S", "C", "--no-ack"]);
    assert_eq!(server.json(&["consumer", "state", "S", "C", "-j"])["num_ack_pending"], 1);
    server.ok(&["consumer", "pause", "S", "C", "1h", "-f"]);
    assert_eq!(server.json(&["consumer", "info", "S", "C", "-j"])["paused"], true);
    assert!(server.ok(&["consumer", "resume", "S", "C", "-f"]).contains("was resumed"));
    assert_eq!(server.ok(&["consumer", "sub", "S", "C", "--count", "4", "--raw"]), "x\n".repeat(4));
    server.ok(&["consumer", "add", "S", "P", "--target", "deliver.here", "--ack", "none", "--defaults"]);
    assert_eq!(server.ok(&["consumer", "sub", "S", "P", "--count", "5", "--raw"]), "x\n".repeat(5));
    assert_eq!(server.ok(&["consumer", "ls", "S", "-n"]), "C\nP\n");
    assert_eq!(row(&server.ok(&["consumer", "ls", "S"]), "C")[4], "0");
    server.ok(&["consumer", "rm", "S", "C", "-f"]);
    server.fails(&["consumer", "info", "S", "C"], "consumer not found (10014)");
}

#[test]
fn buckets_hold_values_and_objects() {
    let server = Server::start("buckets_hold_values_and_objects");
    server.ok(&["kv", "add", "cfg", "--history", "5"]);
    server.ok(&["kv", "put", "cfg", "a", "1"]);
    server.ok(&["kv", "create", "cfg", "b", "2"]);
    server.fails(&["kv", "create", "cfg", "b", "2"], "key already exists");
    server.ok(&["kv", "update", "cfg", "a", "3", "1"]);
    server.fails(&["kv", "update", "cfg", "a", "4", "1"], "wrong last");
    assert_eq!(server.ok(&["kv", "get", "cfg", "a", "--raw"]), "3");
    assert_eq!(server.ok(&["kv", "get", "cfg", "a", "--raw", "--revision", "1"]), "1");
    assert_eq!(server.ok(&["kv", "ls", "cfg"]), "b\na\n");
    server.ok(&["kv", "del", "cfg", "b", "-f"]);
    assert_eq!(server.ok(&["kv", "ls", "cfg"]), "a\n");
    assert_eq!(row(&server.ok(&["kv", "history", "cfg", "b"]), "b").len(), 6);
    let watched = server.ok(&["kv", "watch", "cfg", "--count", "2"]);
    assert!(watched.contains("PUT cfg > a: 3") && watched.contains("DELETE cfg > b"), "{watched}");
    server.fails(&["kv", "get", "cfg", "b"], "key not found");
    assert_eq!(server.ok(&["stream", "ls", "-n"]), "", "a bucket is not listed among the streams");
    server.ok(&["kv", "edit", "cfg", "--history", "7", "--description", "settings"]);
    let config = &server.json(&["kv", "info", "cfg", "-j"])["config"];
    assert_eq!((&config["max_msgs_per_subject"], &config["description"]), (&7.into(), &"settings".into()));
    assert_eq!(config["allow_direct"], true, "what was not named stays");
    server.fails(&["kv", "edit", "none", "--history", "7"], "10059");
    server.ok(&["kv", "del", "cfg", "-f"]);
    server.fails(&["kv", "info", "cfg"], "10059");

    let data: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (source, target) = (server.folder.join("source"), server.folder.join("target"));
    std::fs::write(&source, &data).unwrap();
    let (source, target_name) = (source.to_str().unwrap(), target.to_str().unwrap());
    server.ok(&["object", "add", "files"]);
    server.ok(&["object", "put", "files", source, "--name", "f", "--no-progress"]);
    assert_eq!(server.json(&["object", "info", "files", "f", "-j"])["size"], 300_000);
    server.ok(&["object", "get", "files", "f", "-O", target_name, "--no-progress"]);
    assert!(std::fs::read(&target).unwrap() == data, "the file comes back as it was");
    server.fails(&["object", "get", "files", "f", "-O", target_name], "use -f or --force");
    assert_eq!(server.ok(&["object", "ls", "files", "-n"]), "f\n");
    server.ok(&["object", "del", "files", "f", "-f"]);
    server.fails(&["object", "info", "files", "f"], "object not found");
}

#[test]
fn checks_answer_by_their_exit_code() {
    let server = Server::start("checks_answer_by_their_exit_code");
    server.ok(&["stream", "add", "S", "--subjects", "s", "--defaults"]);
    server.ok(&["pub", "s", "x", "-J"]);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["server", "check", "connection"], 0, "OK Connection "),
        (&["server", "check", "jetstream"], 0, "OK JetStream "),
        (&["server", "check", "stream", "--stream", "S", "--msgs-warn", "1"], 1, "WARNING S "),
        (&["server", "check", "stream", "--stream", "S", "--msgs-critical", "1"], 2, "CRITICAL S "),
        (&["server", "check", "stream", "--stream", "absent"], 2, "CRITICAL absent "),
        (&["server", "check", "consumer", "--stream", "S", "--consumer", "absent"], 2, "CRITICAL S_absent "),
        (&["server", "check", "connection", "-s", "nats://127.0.0.1:1"], 2, "CRITICAL Connection "),
    ];
    for (args, code, text) in cases {
        let outcome = server.run(args);
        assert_eq!(outcome.code, code, "{args:?}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stdout.starts_with(text), "{args:?}: {}", outcome.stdout);
    }
    let verdict = server.json(&["server", "check", "connection", "--format", "json"]);
    assert_eq!((&verdict["status"], verdict["perf_data"].as_array().unwrap().len()), (&"OK".into(), 3));
}

#[test]
fn backups_are_taken_and_restored() {
    let server = Server::start("backups");
    server.ok(&["stream", "add", "S", "--subjects", "s.>", "--defaults"]);
    server.ok(&["stream", "add", "T", "--subjects", "t", "--defaults"]);
    server.ok(&["publish", "s.1", "message {{Count}}", "--count", "30", "--jetstream"]);
    server.ok(&["stream", "rmm", "S", "7", "--force"]);
    server.ok(&["consumer", "add", "S", "C", "--pull", "--defaults"]);
    server.ok(&["consumer", "next", "S", "C", "--ack"]);
    let folder = server.folder.join("backup").display().to_string();
    let said = server.ok(&["stream", "backup", "S", &folder, "--no-progress"]);
    assert!(said.contains("Starting backup of Stream \"S\"") && said.contains("29 messages"), "{said}");
    let contents = server.json(&["backup", "info", &folder, "--json"]);
    assert_eq!((contents["messages"].as_u64(), contents["consumers"][0].as_str()), (Some(29), Some("C")));
    server.fails(&["stream", "restore", &folder], "already in use");
    server.ok(&["stream", "rm", "S", "--force"]);
    let said = server.ok(&["stream", "restore", &folder, "--no-progress"]);
    assert!(said.contains("Restored stream \"S\""), "{said}");
    let state = &server.json(&["stream", "info", "S", "--json"])["state"];
    assert_eq!((state["messages"].as_u64(), state["last_seq"].as_u64()), (Some(29), Some(30)));
    let consumer = server.json(&["consumer", "info", "S", "C", "--json"]);
    assert_eq!(consumer["ack_floor"]["stream_seq"].as_u64(), Some(1));

    let archive = server.folder.join("backup/stream.arc.s2");
    let mut bytes = std::fs::read(&archive).expect("the backup is there");
    bytes[200] ^= 1;
    std::fs::write(&archive, bytes).expect("it can be written");
    server.fails(&["backup", "info", &folder], "crc mismatch");
    server.ok(&["stream", "rm", "S", "--force"]);
    server.fails(&["stream", "restore", &folder, "--no-progress"], "10062");
    server.fails(&["stream", "info", "S"], "stream not found");

    let all = server.folder.join("all").display().to_string();
    server.fails(&["account", "backup", &all], "cannot be confirmed");
    server.ok(&["account", "backup", &all, "--force", "--no-consumers"]);
    server.fails(&["account", "restore", &all], "stream T exists already");
    server.ok(&["stream", "rm", "T", "--force"]);
    assert!(server.ok(&["account", "restore", &all]).contains("Restored 1 streams"));
}

#[test]
fn services_are_found() {
    let server = Server::start("services");
    server.fails(&["service", "list"], "no such service");
    let endpoint = r#""name":"echo","subject":"demo.echo","queue_group":"q""#;
    let about = r#""name":"demo","id":"X1","version":"1.2.3","description":"a demo""#;
    let info = format!("{{{about},\"endpoints\":[{{{endpoint}}}]}}");
    let numbers = r#""num_requests":3,"num_errors":1,"processing_time":3000,"average_processing_time":1000"#;
    let stats = format!("{{{about},\"endpoints\":[{{{endpoint},{numbers}}}]}}");
    let mut parts = Vec::new();
    for (subject, answer) in [("$SRV.INFO", &info), ("$SRV.INFO.demo", &info), ("$SRV.STATS.demo", &stats)]
        .into_iter()
        .chain([("$SRV.PING", &info), ("demo.echo", &"you said {{Request}}".to_owned())])
    {
        let mut part = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["reply", subject, answer, "-s", &server.url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(part.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        assert!(line.contains("Listening on"), "{line}");
        // Its output stays open as long as it runs.
        parts.push((part, said));
    }
    assert_eq!(row(&server.ok(&["service", "list"]), "demo"), ["demo", "1.2.3", "X1", "a demo"]);
    let said = server.ok(&["service", "info", "demo"]);
    assert!(said.contains("Subject: demo.echo") && said.contains("Queue Group: q"), "{said}");
    assert_eq!(row(&server.ok(&["service", "stats", "demo"]), "X1")[1..5], ["echo", "3", "q", "1"]);
    assert!(server.ok(&["service", "ping"]).contains("rtt="));
    assert_eq!(server.ok(&["service", "request", "demo", "echo", "hi", "--raw"]), "you said hi\n");
    server.fails(&["service", "request", "demo", "other"], "has no endpoint other");
    for (mut part, _) in parts {
        part.kill().unwrap();
        part.wait().unwrap();
    }
}

#[test]
fn counters_count() {
    let server = Server::start("counters");
    let config = server.folder.join("counter.json");
    let text = r#"{"name":"CNT","subjects":["c.>"],"allow_msg_counter":true,"allow_direct":true}"#;
    std::fs::write(&config, text).expect("a scratch file can be written");
    server.ok(&["stream", "add", "CNT", "--config", &config.display().to_string()]);
    assert_eq!(
        server.ok(&["counter", "increment", "c.a", "99999999999999999999"]).trim(),
        "99999999999999999999"
    );
    assert_eq!(server.ok(&["counter", "decrement", "c.a", "1"]).trim(), "99999999999999999998");
    server.ok(&["counter", "increment", "c.b", "--", "-7"]);
    assert_eq!(server.ok(&["counter", "get", "c.b"]).trim(), "-7");
    assert!(server.ok(&["counter", "view", "c.a"]).contains("Nats-Incr: -1"));
    assert_eq!(server.json(&["counter", "list", "c.*", "--json"])["c.a"], "99999999999999999998");
    server.fails(&["counter", "get", "x"], "no stream takes x");
    server.fails(&["counter", "increment", "c.a", "1.5"], "not a whole number");
}

#[test]
fn streams_are_found_and_consumers_reset() {
    let server = Server::start("find");
    server.ok(&["stream", "add", "A", "--subjects", "a", "--defaults"]);
    server.ok(&["stream", "add", "B", "--subjects", "b", "--defaults"]);
    server.ok(&["publish", "a", "x", "--count", "3", "--jetstream"]);
    assert_eq!(server.ok(&["stream", "find", "--empty", "--names"]).trim(), "B");
    assert_eq!(server.ok(&["stream", "find", "--empty", "--invert", "--names"]).trim(), "A");
    server.ok(&["consumer", "add", "A", "C", "--pull", "--defaults"]);
    server.ok(&["consumer", "next", "A", "C", "--ack", "--count", "3"]);
    server.fails(&["consumer", "reset", "A", "C"], "cannot be confirmed");
    assert!(
        server.ok(&["consumer", "reset", "A", "C", "--sequence", "2", "--force"]).contains("at sequence 2")
    );
    assert_eq!(server.json(&["consumer", "info", "A", "C", "--json"])["num_pending"].as_u64(), Some(2));
}

#[test]
fn operators_see_reports() {
    let config = "accounts { SYS { users: [{user: sys, password: p}] }\n\
        A { jetstream: enabled, users: [{user: a, password: p}] } }\nsystem_account: SYS\n";
    let server = Server::start_with("reports", config, "sys:p@");
    let user = ["--user", "a", "--password", "p"];
    let as_user = |words: &[&str]| server.ok(&[words, &user].concat());
    as_user(&["stream", "add", "S", "--subjects", "s", "--defaults"]);
    as_user(&["publish", "s", "x", "--count", "5", "--jetstream"]);
    let summary = server.ok(&["server", "report", "jetstream", "1"]);
    assert_eq!(row(&summary, "S1")[3..6], ["1", "0", "5"]);
    let connections = server.ok(&["server", "report", "connections", "1"]);
    assert!(connections.contains("Top 1 Connections out of 1 by subs") && connections.contains("SYS"));
    assert!(server.ok(&["server", "report", "accounts", "1"]).contains("1 Accounts Overview"));
    assert_eq!(row(&server.ok(&["server", "report", "health", "1"]), "S1")[3], "ok (200)");
    let own = as_user(&["account", "report", "connections", "1", "--json"]);
    assert!(own.contains("\"account\": \"A\"") && !own.contains("SYS"), "{own}");
    let pages = server.json(&["server", "request", "variables", "1", "--name", "S1"]);
    assert_eq!(pages[0]["data"]["server_name"], "S1");
    let top = server.ok(&["top", "S1", "--max-refresh", "2", "--interval", "10ms"]);
    assert_eq!(top.matches("Server S1").count(), 2, "{top}");
    let file = server.folder.join("look.txt");
    server.ok(&["top", "--output", &file.display().to_string()]);
    assert!(std::fs::read_to_string(file).is_ok_and(|text| text.contains("Connections by cid")));
    server.fails(&["top", "S2"], "no server with the name");
}

#[test]
fn requests_are_answered() {
    let server = Server::start("requests_are_answered");
    server.fails(&["request", "nobody.there", "hi", "--raw"], "no responders");
    let mut service = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["reply", "svc.*", "hello {{Request}}", "--count", "1", "-s", &server.url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The service says that it listens once the server knows it.
    let mut line = String::new();
    let mut said = std::io::BufReader::new(service.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("Listening on"), "{line}");
    assert_eq!(server.ok(&["request", "svc.a", "you", "--raw"]), "hello you\n");
    assert!(service.wait().unwrap().success());
    let rtt = server.json(&["rtt", "--json"]);
    assert!(rtt[0]["results"][0]["rtt"].as_u64().unwrap() > 0, "{rtt}");
}

#[test]
fn contexts_supply_the_connection() {
    let server = Server::start("contexts_supply_the_connection");
    let add = ["context", "add", "here", "-s", &server.url, "--description", "the test", "--select"];
    server.ok(&add);
    assert_eq!(server.ok(&["context", "ls", "--names"]), "here\n");
    assert_eq!(row(&server.ok(&["context", "ls"]), "here*")[1], "the test");
    let wrong = "nats://127.0.0.1:1";
    assert_eq!(
        run(wrong, &server.folder, &["stream", "ls"]).code,
        1,
        "the environment goes over the context"
    );
    let saved = server.json(&["context", "info", "--json"]);
    assert_eq!(saved["url"], server.url);
    server.fails(&["context", "rm", "here", "-f"], "selected");
    server.ok(&["context", "unselect"]);
    server.ok(&["context", "rm", "here", "-f"]);
    server.fails(&["stream", "ls", "--context", "here"], "unknown context");
}

#[test]
fn measurements_measure() {
    let server = Server::start("measurements_measure");
    let common = ["--msgs", "500", "--no-progress", "--clients", "2"];
    let lines: [(&[&str], &str); 9] = [
        (&["bench", "pub", "b"], "Core NATS publisher"),
        (&["bench", "js", "pub", "sync", "b", "--create"], "JetStream synchronous publisher"),
        (&["bench", "js", "pub", "async", "b", "--purge"], "JetStream asynchronous publisher"),
        (&["bench", "js", "fetch", "--batch", "50"], "JetStream durable consumer (fetch)"),
        (&["bench", "js", "consume", "--batch", "50"], "JetStream durable consumer (callback)"),
        (&["bench", "js", "ordered"], "JetStream ordered ephemeral consumer"),
        (&["bench", "js", "get", "sync"], "JetStream synchronous getter"),
        (&["bench", "js", "get", "batch", "--batch", "50"], "JetStream batched direct getter"),
        (&["bench", "kv", "put"], "JetStream KV putter"),
    ];
    for (args, title) in lines {
        let text = server.ok(&[args, common.as_slice()].concat());
        assert!(text.contains(&format!(" NATS {title} aggregated stats: ")), "{args:?}: {text}");
    }
    let one = server.ok(&["bench", "kv", "get", "--msgs", "500", "--no-progress"]);
    assert!(one.contains("NATS JetStream KV getter stats: ") && one.contains(" ~ P99.9: "), "{one}");
    assert_eq!(server.json(&["stream", "state", "benchstream", "-j"])["state"]["messages"], 500);
    assert_eq!(server.ok(&["consumer", "ls", "benchstream", "-n"]), "", "the benchmark's consumers are gone");
}

#[test]
fn the_demo_needs_no_server() {
    let folder = std::env::temp_dir().join(format!("headwater-demo-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let demo = |args: &[&str]| {
        let outcome = run("nats://127.0.0.1:1", &folder, &[&["demo"], args].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
        outcome.stdout
    };
    let text = demo(&[]);
    assert_eq!(row(&text, "shop_orders")[3], "10", "{text}");
    assert_eq!(row(&text, "order_processor")[6..8], ["10 / 100%", "0"], "{text}");
    let done =
        &text[text.find("Processing orders.new.9 Order { order_id: 9 }...").expect("the last order")..];
    assert_eq!(row(done, "order_processor")[4..8], ["0", "0", "0", "10"], "{text}");
    let store =
        text.lines().find_map(|line| line.strip_prefix("Its store is in ")).expect("the store is named");
    let store = store.strip_suffix(" (removed at the end)").expect("it is temporary");
    assert!(!Path::new(store).exists(), "{store} is still there");

    let kept = folder.join("kept");
    let keep = ["--keep", kept.to_str().unwrap()];
    demo(&keep);
    let again = demo(&keep);
    assert_eq!(row(&again, "shop_orders")[3], "20", "the kept store is used again: {again}");
    drop(std::fs::remove_dir_all(&folder));
}

#[test]
fn completion_needs_no_server() {
    let folder = std::env::temp_dir();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = run("nats://127.0.0.1:1", &folder, &["completion", shell]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(outcome.stdout.contains("headwater"), "{shell}");
    }
}
