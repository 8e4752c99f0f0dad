//! `cluster up`: servers that form a cluster, commands against it, and none of them left when it ends.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use hw_testkit::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_headwater");

fn run(url: &str, arguments: &[&str]) -> Output {
    let output =
        Command::new(BINARY).args(["--server", url]).args(arguments).output().expect("a JSON answer");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

#[test]
fn a_cluster_to_try_out() {
    let dir = TempDir::new().unwrap();
    let mut up = Command::new(BINARY)
        .args(["cluster", "up", "--servers", "3", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut urls = Vec::new();
    for line in BufReader::new(up.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        urls.extend(
            line.split_whitespace()
                .filter(|word| word.starts_with("nats://127") && !word.contains(','))
                .map(str::to_owned),
        );
        if line.contains("Ctrl-C") {
            break;
        }
    }
    assert_eq!(urls.len(), 3, "{urls:?}");
    run(&urls[0], &["stream", "add", "S", "--subjects", "s", "--replicas", "3", "--defaults"]);
    run(&urls[1], &["pub", "s", "hello", "--jetstream"]);
    let shown = run(&urls[2], &["stream", "report"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(["n1", "n2", "n3", "*"].iter().all(|name| shown.contains(name)), "{shown}");
    run(&urls[2], &["stream", "cluster", "step-down", "S"]);
    let operator = urls[0].replace("nats://", "nats://sys:sys@");
    run(&operator, &["server", "cluster", "step-down"]);
    let ended = Command::new("kill").args(["-INT", &up.id().to_string()]).status().unwrap();
    assert!(ended.success());
    assert!(up.wait().unwrap().success());
    for url in urls {
        assert!(TcpStream::connect(url.trim_start_matches("nats://")).is_err(), "{url} still listens");
    }
}
