//! `cluster up`: servers that form a cluster, commands against it, and none of them left when it ends.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use hw_testkit::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_headwater");

fn run(url: &str, arguments: &[&str]) -> Output {
    let output =
        Command::new(BINARY).args(["--server", url]).args(arguments).output().expect("a JSON answer");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

fn kill(signal: &str, process: &str) {
    let status = Command::new("kill").args([signal, process]).status().expect("kill is a program");
    assert!(status.success());
}

/// The cluster, which ends with the test however that ends.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_cluster_to_try_out() {
    let dir = TempDir::new().unwrap();
    let up = Command::new(BINARY)
        .args(["cluster", "up", "--servers", "3", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = Up(up);
    let mut urls = Vec::new();
    let mut lines = BufReader::new(up.0.stdout.take().unwrap()).lines();
    for line in lines.by_ref() {
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
    // Who is killed comes back, and has what it had. Threads start processes: each of them has a list.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", up.0.id())).unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let victim = children.collect::<String>().split_whitespace().next().map(str::to_owned).unwrap();
    kill("-KILL", &victim);
    let again = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("is started again")));
    assert!(again.is_some(), "nobody is started again");
    run(&urls[1], &["pub", "s", "hello", "--jetstream"]);
    kill("-INT", &up.0.id().to_string());
    assert!(up.0.wait().unwrap().success());
    for url in urls {
        assert!(TcpStream::connect(url.trim_start_matches("nats://")).is_err(), "{url} still listens");
    }
}
