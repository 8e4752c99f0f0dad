//! `cluster`: several servers on this machine that form a cluster, to try things out.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command as Process};
use tokio::signal::unix::{SignalKind, signal};

use super::error::Failure;
use super::output::say;

/// What can be done with a cluster on this machine.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start servers that form a cluster, each a process of its own, until Ctrl-C ends them all
    Up(UpArgs),
}

/// Which servers.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// How many servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    servers: u8,
    /// The folder for their stores, configurations and logs; it stays
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// How long servers may take to elect a leader.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// How long one that ended stays away.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// One server's name and ports.
struct Place {
    name: String,
    client: u16,
    http: u16,
    route: u16,
}

/// Runs a cluster command.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up(&args).await,
    }
}

async fn up(args: &UpArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.dir).map_err(|error| Failure::file("create", &args.dir, error))?;
    let dir = args.dir.canonicalize().map_err(|error| Failure::file("find", &args.dir, error))?;
    let places = places(args.servers)?;
    let mut interrupted = listen(SignalKind::interrupt())?;
    let mut terminated = listen(SignalKind::terminate())?;
    let mut children = Vec::new();
    for place in &places {
        children.push(start(&dir, place, &places)?);
    }
    let ended = tokio::select! {
        ended = serve(&dir, &places, &mut children) => ended,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    stop(&mut children).await;
    ended
}

/// Tells how to reach the servers, and starts those again that end by themselves.
async fn serve(dir: &Path, places: &[Place], children: &mut [Child]) -> Result<(), Failure> {
    let ready = async {
        for place in places {
            while !is_well(place.http, places.len()).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let ready = tokio::time::timeout(PATIENCE, ready);
    tokio::select! {
        ready = ready => ready.map_err(|_| Failure::request("start a cluster", "no leader was elected"))?,
        gone = first_gone(places, children) => return Err(gone),
    }
    let urls = |user: &str| {
        let url = |place: &Place| format!("nats://{user}127.0.0.1:{}", place.client);
        places.iter().map(url).collect::<Vec<_>>().join(",")
    };
    say!(
        "{} servers form a cluster; stores, configurations and logs are in {}\n",
        places.len(),
        dir.display()
    );
    for place in places {
        say!("  {}  nats://127.0.0.1:{}  http://127.0.0.1:{}", place.name, place.client, place.http);
    }
    say!(
        "\nTo work with it:\n  headwater --server {} stream add ORDERS --subjects 'orders.>' --replicas 3",
        urls("")
    );
    say!("To look after it:\n  headwater --server {} server report jetstream", urls("sys:sys@"));
    say!("Or save a context:\n  headwater context save local --server {}", urls(""));
    say!("\nWho is killed is started again after {} s. Ctrl-C ends all of them.", AGAIN_AFTER.as_secs());
    let mut again_at = vec![None; places.len()];
    loop {
        for at in 0..places.len() {
            revive(dir, places, (at, &mut children[at]), &mut again_at[at])?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A server that has ended is started again a little later, as a supervisor would: the others show meanwhile what they do without it.
fn revive(
    dir: &Path,
    places: &[Place],
    (at, child): (usize, &mut Child),
    again_at: &mut Option<Instant>,
) -> Result<(), Failure> {
    let place = &places[at];
    match again_at {
        None => {
            if let Ok(Some(status)) = child.try_wait() {
                say!("{} ended with {status}; it is started again soon", place.name);
                *again_at = Some(Instant::now() + AGAIN_AFTER);
            }
        }
        Some(due) if *due <= Instant::now() => {
            *child = start(dir, place, places)?;
            *again_at = None;
            say!("{} is started again", place.name);
        }
        Some(_) => {}
    }
    Ok(())
}

/// The first server that ends although nobody told it to.
async fn first_gone(places: &[Place], children: &mut [Child]) -> Failure {
    loop {
        for (place, child) in places.iter().zip(children.iter_mut()) {
            if let Ok(Some(status)) = child.try_wait() {
                return Failure::request(
                    format!("run {}", place.name),
                    format!("it ended with {status}, see its log"),
                );
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends them as an operator would, and waits until they are gone.
async fn stop(children: &mut [Child]) {
    for child in children.iter() {
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // One that is gone needs no signal.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
    for child in children {
        let _ = child.wait().await;
    }
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::request("listen to signals", error))
}

/// Free ports, all taken before the first is let go, so that they differ.
fn places(servers: u8) -> Result<Vec<Place>, Failure> {
    let mut held = Vec::new();
    let mut port = || -> std::io::Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    let mut place =
        |number: u8| Ok(Place { name: format!("n{number}"), client: port()?, http: port()?, route: port()? });
    let places: std::io::Result<Vec<Place>> = (1..=servers).map(&mut place).collect();
    places.map_err(|error| Failure::request("find free ports", error))
}

fn config(dir: &Path, place: &Place, all: &[Place]) -> String {
    let routes: Vec<String> =
        all.iter().map(|other| format!("\"nats://127.0.0.1:{}\"", other.route)).collect();
    let store = dir.join(&place.name).display().to_string();
    format!(
        "server_name: {name}
listen: \"127.0.0.1:{client}\"
http: \"127.0.0.1:{http}\"
jetstream {{ store_dir: {store:?} }}
cluster {{
  name: local
  listen: \"127.0.0.1:{route}\"
  routes: [ {routes} ]
}}
accounts {{
  APP {{ jetstream: enabled, users: [ {{ user: app, password: app }} ] }}
  SYS {{ users: [ {{ user: sys, password: sys }} ] }}
}}
system_account: SYS
no_auth_user: app
",
        name = place.name,
        client = place.client,
        http = place.http,
        route = place.route,
        routes = routes.join(", "),
    )
}

fn start(dir: &Path, place: &Place, all: &[Place]) -> Result<Child, Failure> {
    let path = dir.join(format!("{}.conf", place.name));
    std::fs::write(&path, config(dir, place, all)).map_err(|error| Failure::file("write", &path, error))?;
    let log = dir.join(format!("{}.log", place.name));
    let out = File::options().create(true).append(true).open(&log);
    let out = out.map_err(|error| Failure::file("create", &log, error))?;
    let err = out.try_clone().map_err(|error| Failure::file("open", &log, error))?;
    let failed = |error| Failure::request(format!("start {}", place.name), error);
    let own = std::env::current_exe().map_err(failed)?;
    let mut process = Process::new(own);
    process.arg("-c").arg(&path).stdin(Stdio::null()).stdout(out).stderr(err);
    // Ctrl-C is for this process, which ends them in order.
    process.process_group(0).kill_on_drop(true).spawn().map_err(failed)
}

/// Whether a server says that it is ready, and knows all `servers` of the cluster.
async fn is_well(http: u16, servers: usize) -> bool {
    let is_up = get(http, "/healthz").await.is_some_and(|said| said.starts_with("HTTP/1.0 200"));
    let jsz = get(http, "/jsz").await.unwrap_or_default();
    let body = jsz.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let jsz: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    is_up && jsz["meta_cluster"]["cluster_size"] == servers
}

/// What monitoring answers, with its head.
async fn get(http: u16, page: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", http)).await?;
        let request = format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map(|_| said)
    };
    let said: std::io::Result<String> = ask.await;
    said.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_routes_name_all() {
        let places = places(3).unwrap();
        let mut ports: Vec<u16> = places.iter().flat_map(|one| [one.client, one.http, one.route]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 9);
        let config = config(Path::new("/a b"), &places[1], &places);
        assert!(places.iter().all(|one| config.contains(&format!("nats://127.0.0.1:{}", one.route))));
        assert!(config.contains("store_dir: \"/a b/n2\"") && config.contains("server_name: n2"), "{config}");
    }
}
