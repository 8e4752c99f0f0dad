//! Three servers that form a cluster, for tests on real processes.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hw_testkit::{Launch, Port, Server};
use serde_json::{Value, json};

use hw_conform::{Js, Target};

/// Why a test does not go on.
pub type Fault = Box<dyn Error + Send + Sync>;

/// How long a condition may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// What the servers are called.
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Three servers.
pub struct Trio {
    /// In the order of their names.
    pub servers: Vec<Server>,
    /// Theirs for as long as they run.
    _routes: Vec<Port>,
}

impl Trio {
    /// Starts them with these settings of `jetstream`, and waits until they are well.
    pub fn start(target: &Target, jetstream: &str) -> Result<Trio, Fault> {
        let binary = target.binary.clone()?;
        let routes = (0..3).map(|_| Port::take()).collect::<Result<Vec<Port>, _>>()?;
        let urls: Vec<String> =
            routes.iter().map(|port| format!("\"nats://127.0.0.1:{}\"", port.number())).collect();
        let urls = urls.join(", ");
        let mut servers = Vec::new();
        for (name, port) in NAMES.iter().zip(&routes) {
            let config = format!(
                "server_name: {name}
                debug: true
                http: \"127.0.0.1:{{http}}\"
                jetstream {{ {jetstream} }}
                cluster {{ name: trio, listen: \"127.0.0.1:{}\", routes: [ {urls} ] }}
                accounts {{
                    A {{ jetstream: enabled, users: [ {{ user: a, password: a }} ] }}
                    SYS {{ users: [ {{ user: sys, password: sys }} ] }}
                }}
                system_account: SYS
                no_auth_user: a
                ",
                port.number()
            );
            let launch = Launch { binary: binary.clone(), flags: vec![], config: Some(config) };
            servers.push(Server::start(launch)?);
        }
        let trio = Trio { servers, _routes: routes };
        trio.await_health()?;
        Ok(trio)
    }

    /// All servers are up, know each other and who leads, and have nothing to complain of.
    pub fn await_health(&self) -> Result<(), Fault> {
        for server in &self.servers {
            let url = server.url();
            wait(
                || format!("{url} is well: {:?}", page(server, "/healthz?details=true")),
                || {
                    let ok = page(server, "/healthz").is_some_and(|page| page["status"] == "ok");
                    let meta = page(server, "/jsz")?["meta_cluster"].clone();
                    let is_whole = meta["cluster_size"] == 3 && meta["leader"].is_string();
                    (ok && is_whole).then_some(())
                },
            )?;
        }
        Ok(())
    }

    /// Which server leads a stream, as one of them says.
    pub fn leader(&self, asked: usize, stream: &str) -> Result<usize, Fault> {
        wait(
            || format!("{stream} has a leader"),
            || {
                let mut js = Js::open(self.servers[asked].port()).ok()?;
                js.set_patience(Duration::from_secs(2));
                let info = js.api(&format!("STREAM.INFO.{stream}"), &json!({})).ok()?;
                let name = info["cluster"]["leader"].as_str()?;
                NAMES.iter().position(|known| *known == name)
            },
        )
    }

    /// The store's folder of a server.
    pub fn shard(&self, at: usize) -> PathBuf {
        self.servers[at].dir().join("store/jetstream/shard-0")
    }

    /// What a server says of a stream's replica that it has, in `/raftz`.
    pub fn replica(&self, at: usize, number: u64) -> Option<Value> {
        let page = page(&self.servers[at], "/raftz")?;
        let groups = page["$SYS"].as_object()?;
        let ends = format!("-{number:08}");
        groups.iter().find(|(name, _)| name.ends_with(&ends)).map(|(_, group)| group.clone())
    }
}

/// Waits for a condition.
pub fn wait<T>(what: impl Fn() -> String, mut condition: impl FnMut() -> Option<T>) -> Result<T, Fault> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Some(value) => return Ok(value),
            None if Instant::now() > deadline => {
                return Err(format!("not within {PATIENCE:?}: {}", what()).into());
            }
            None => std::thread::park_timeout(PAUSE),
        }
    }
}

/// A monitoring page, whatever its status.
pub fn page(server: &Server, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes()).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    serde_json::from_str(said.split_once("\r\n\r\n")?.1).ok()
}
