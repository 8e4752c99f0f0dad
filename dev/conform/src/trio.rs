//! Servers that form a cluster, real processes, and what tests of clusters share.

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hw_testkit::{Launch, Parted, Port, Proxy, Server};
use serde_json::{Value, json};

use crate::{Js, Outcome, Target};

/// What goes wrong in a test.
pub type Fault = Box<dyn Error + Send + Sync>;
/// A test's course.
pub type Flow = Result<(), Fault>;

/// How long a condition is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Why a case is skipped rather than failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// A case's outcome.
pub fn outcome(flow: Flow) -> Outcome {
    match flow {
        Ok(()) => Outcome::Passed,
        Err(error) => match error.downcast::<Skip>() {
            Ok(skip) => Outcome::Skipped(skip.0),
            Err(error) => Outcome::Failed(error.to_string()),
        },
    }
}

/// A program that an environment variable names; without it the case is skipped.
pub fn named(variable: &str) -> Result<PathBuf, Skip> {
    let path =
        env::var_os(variable).map(PathBuf::from).ok_or_else(|| Skip(format!("{variable} is not set")))?;
    if path.is_file() {
        Ok(path)
    } else {
        Err(Skip(format!("{variable} names {}, which is no file", path.display())))
    }
}

/// Runs a program; gives what it said, which is the fault when it failed.
pub fn run(command: &mut Command) -> Result<String, Fault> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{command:?} ended with {}:\n{said}", output.status).into())
    }
}

/// Asks until there is an answer.
pub fn wait<T>(what: &str, condition: impl FnMut() -> Option<T>) -> Result<T, Fault> {
    wait_telling(|| what.to_owned(), condition)
}

/// The same; what is said when there is none, is asked for then.
pub fn wait_telling<T>(
    what: impl Fn() -> String,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Fault> {
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

/// Whether a stream has the messages 0, 1, 2 … and nothing else.
pub fn filled(js: &mut Js, stream: &str, count: u32) -> Flow {
    let there = js.read_from(stream, 1)?;
    let right = there.len() == count as usize
        && there.iter().zip(0..).all(|(one, number): (_, u32)| one.payload == number.to_string().as_bytes());
    want(right, || format!("{stream} has {} of {count}", there.len()))
}

/// Whether a stream that comes from elsewhere, or is elsewhere, has them as soon as it is led. A `nats-server` may
/// lead before it has, and answers 503 (no responders) while it has not heard of a consumer that another has made.
pub fn arrived(target: &Target, js: &mut Js, stream: &str, count: u32) -> Flow {
    match target.name {
        "headwater" => filled(js, stream, count),
        _ => wait(&format!("{stream} has {count}"), || filled(js, stream, count).ok()),
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

/// What a server says to whoever connects.
pub fn info(port: u16) -> Value {
    let mut line = String::new();
    let read = TcpStream::connect(("127.0.0.1", port))
        .and_then(|stream| BufReader::new(stream).read_line(&mut line));
    let json = read.ok().and_then(|_| serde_json::from_str(line.strip_prefix("INFO ")?).ok());
    json.unwrap_or_default()
}

/// A client of a server.
pub fn open(server: &Server) -> Result<Js, Fault> {
    Ok(Js::open(server.port())?)
}

/// A request that must succeed.
pub fn api(js: &mut Js, verb: &str, body: &Value) -> Result<Value, Fault> {
    let answer = js.api(verb, body)?;
    if answer.get("error").is_some() { Err(format!("{verb} {body}: {answer}").into()) } else { Ok(answer) }
}

/// What must be so.
pub fn want(is_so: bool, what: impl FnOnce() -> String) -> Flow {
    if is_so { Ok(()) } else { Err(what().into()) }
}

/// How the accounts of these servers are called: users `a`, who need not say so, `b`, and `sys`.
const ACCOUNTS: &str = "
    accounts {
        A { jetstream: enabled, users: [ { user: a, password: a } ] }
        B { users: [ { user: b, password: b } ] }
        SYS { users: [ { user: sys, password: sys } ] }
    }
    system_account: SYS
    no_auth_user: a
    http: \"127.0.0.1:{http}\"
";

/// The configuration of a server of a cluster: what it is called, its cluster, and its cluster port (`{port2}`: any).
pub fn cluster_config((name, cluster): (&str, &str), port: &str, routes: &[u16], more: &str) -> String {
    let routes: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let routes = routes.join(", ");
    let accounts =
        if more.contains("jetstream") { ACCOUNTS } else { &ACCOUNTS.replace("jetstream: enabled, ", "") };
    format!(
        "server_name: {name}\ncluster {{ name: {cluster}, listen: \"127.0.0.1:{port}\", routes: [ {routes} ] }}\n{accounts}\n{more}"
    )
}

/// What the first three servers are called.
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Servers that form a cluster, called `n1`, `n2` and so on; with JetStream, but for [`Trio::plain`] and guests.
pub struct Trio {
    /// The servers.
    pub servers: Vec<Server>,
    /// Their cluster ports, theirs for as long as they run.
    routes: Vec<Port>,
    _proxies: Vec<Proxy>,
}

impl Trio {
    /// Three of them.
    pub fn start(target: &Target) -> Result<Trio, Fault> {
        Trio::start_with(target, 3, |_| String::new())
    }

    /// So many of them, each with more in its configuration.
    pub fn start_with(target: &Target, count: usize, more: impl Fn(usize) -> String) -> Result<Trio, Fault> {
        Trio::start_all(target, count, more, None)
    }

    /// Three of them with these settings of `jetstream`, which log what they do.
    pub fn start_telling(target: &Target, jetstream: &str) -> Result<Trio, Fault> {
        Trio::start_with(target, 3, |_| format!("debug: true\njetstream {{ {jetstream} }}"))
    }

    /// Three servers without JetStream, which learn of each other: only the first one is known to the others.
    pub fn plain(target: &Target) -> Result<Trio, Fault> {
        let mut trio = Trio { servers: Vec::new(), routes: Vec::new(), _proxies: Vec::new() };
        for name in NAMES {
            let seed: Vec<u16> = trio.servers.first().map(Server::second_port).into_iter().collect();
            let config = cluster_config((name, "trio"), "{port2}", &seed, "");
            let launch = Launch { binary: target.binary.clone()?, flags: vec![], config: Some(config) };
            trio.servers.push(Server::start(launch)?);
        }
        for server in &trio.servers {
            wait(&format!("three servers are known to {}", server.url()), || {
                let info = info(server.port());
                let urls = info["connect_urls"].as_array().map_or(0, Vec::len);
                (urls == 3 && info["cluster"] == "trio").then_some(())
            })?;
        }
        Ok(trio)
    }

    /// Another server of the cluster, without JetStream.
    pub fn guest(&self, target: &Target, name: &str) -> Result<Server, Fault> {
        let routes: Vec<u16> = self.routes.iter().map(Port::number).collect();
        let config = cluster_config((name, "trio"), "{port2}", &routes, "");
        let launch = Launch { binary: target.binary.clone()?, flags: vec![], config: Some(config) };
        let guest = Server::start(launch)?;
        wait("the guest is linked with all", || {
            let routes = page(&guest, "/routez")?["num_routes"].as_u64()?;
            (routes >= self.servers.len() as u64).then_some(())
        })?;
        Ok(guest)
    }

    /// Three of them whose links can be parted.
    pub fn start_behind(target: &Target, parted: &Parted) -> Result<Trio, Fault> {
        Trio::start_all(target, 3, |_| String::new(), Some(parted))
    }

    fn start_all(
        target: &Target,
        count: usize,
        more: impl Fn(usize) -> String,
        parted: Option<&Parted>,
    ) -> Result<Trio, Fault> {
        let binary = target.binary.clone()?;
        let routes = (0..count).map(|_| Port::take()).collect::<Result<Vec<Port>, _>>()?;
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let mut proxies = Vec::new();
        for (name, port) in names.iter().zip(&routes) {
            if let Some(parted) = parted {
                proxies.push(Proxy::start(name, port.number(), &names, parted)?);
            }
        }
        let dialled: Vec<u16> = match parted {
            None => routes.iter().map(Port::number).collect(),
            Some(_) => proxies.iter().map(Proxy::port).collect(),
        };
        let mut servers = Vec::new();
        for (at, port) in routes.iter().enumerate() {
            let mut more = more(at);
            if !more.contains("jetstream") {
                more += "\njetstream: enabled\n";
            }
            // Others must not learn of a way around.
            let own = format!("{}\", advertise: \"127.0.0.1:{}", port.number(), dialled[at]);
            let config = cluster_config((&names[at], "trio"), &own, &dialled, &more);
            let launch = Launch { binary: binary.clone(), flags: vec![], config: Some(config) };
            servers.push(Server::start(launch)?);
        }
        let trio = Trio { servers, routes, _proxies: proxies };
        trio.await_health()?;
        Ok(trio)
    }

    /// All servers are up, know each other and who leads.
    pub fn await_health(&self) -> Flow {
        for server in &self.servers {
            let unwell = || format!("{} is well: {:?}", server.url(), page(server, "/healthz?details=true"));
            wait_telling(unwell, || {
                let ok = page(server, "/healthz").is_some_and(|page| page["status"] == "ok");
                let meta = page(server, "/jsz")?["meta_cluster"].clone();
                let is_whole = meta["cluster_size"] == self.servers.len() && meta["leader"].is_string();
                (ok && is_whole).then_some(())
            })?;
        }
        Ok(())
    }

    /// The server of this name.
    pub fn named(&self, name: &str) -> Result<usize, Fault> {
        let at = name.strip_prefix('n').and_then(|number| number.parse::<usize>().ok());
        let at = at.and_then(|number| number.checked_sub(1)).filter(|at| *at < self.routes.len());
        at.ok_or_else(|| format!("a server {name:?}?").into())
    }

    /// Who leads a stream, as a server says.
    pub fn leader(&self, asked: usize, stream: &str) -> Result<usize, Fault> {
        let name = wait(&format!("{stream} has a leader"), || {
            let mut js = Js::open(self.servers[asked].port()).ok()?;
            js.set_patience(Duration::from_secs(2));
            let info = js.api(&format!("STREAM.INFO.{stream}"), &json!({})).ok()?;
            info["cluster"]["leader"].as_str().map(str::to_owned)
        })?;
        self.named(&name)
    }

    /// Who leads the cluster, as a server says.
    pub fn meta_leader(&self, asked: usize) -> Result<usize, Fault> {
        let name = wait("a leader of all", || {
            page(&self.servers[asked], "/jsz")?["meta_cluster"]["leader"].as_str().map(str::to_owned)
        })?;
        self.named(&name)
    }

    /// The `nats` tool, on one of the servers.
    pub fn nats(&self, at: usize, user: &str, arguments: &[&str]) -> Result<String, Fault> {
        let tool = named("NATS_CLI")?;
        let server = &self.servers[at];
        let url = format!("nats://{user}:{user}@127.0.0.1:{}", server.port());
        let mut command = Command::new(tool);
        command.args(["--server", &url, "--no-context"]).args(arguments).env("HOME", server.dir());
        run(&mut command)
    }

    /// An operator's client.
    pub fn operator(&self, at: usize) -> Result<Js, Fault> {
        Ok(Js::open_as(self.servers[at].port(), &json!({ "user": "sys", "pass": "sys" }))?)
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

    /// The clients' addresses.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }
}

/// The configuration of a replicated stream that takes the subject of its name in lower case.
pub fn replicated(name: &str, replicas: usize) -> Value {
    json!({ "name": name, "subjects": [name.to_lowercase()], "num_replicas": replicas, "storage": "file",
        "retention": "limits" })
}
