//! Three servers of one cluster, with clients and tools that others wrote: messages, groups and requests from server to
//! server, clients that lose their server, and what does not belong together.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt;
use hw_conform::trio::{
    Fault, Flow, NAMES, PATIENCE, Trio, cluster_config, info, named, outcome, page, run, wait,
};
use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

type Run = fn(&Target) -> Flow;
type Play = fn(Vec<Server>) -> Pin<Box<dyn Future<Output = Flow>>>;

const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let flows: [(&str, Run); 7] = [
        ("async-nats across servers", |target| play(target, |servers| Box::pin(across(servers)))),
        ("async-nats goes to another server", |target| play(target, |servers| Box::pin(elsewhere(servers)))),
        ("nats-py on a cluster", python),
        ("nats server list", list),
        ("links are compressed", compressed),
        ("imports and exports are kept to", exchanging),
        ("a lame duck is no longer named", |target| play(target, |servers| Box::pin(lame_duck(servers)))),
    ];
    let own: [(&str, Run); 2] =
        [("a nats-server is refused", foreign), ("wrong names and passwords are refused", strangers)];
    let mut cases = Vec::new();
    for target in targets() {
        let ours = target.name == "headwater";
        for (name, run) in flows.iter().chain(own.iter().filter(|_| ours)).copied() {
            let (name, target) = (format!("{}: {name}", target.name), target.clone());
            let run = move || match &target.binary {
                Err(why) => Outcome::Skipped(why.clone()),
                Ok(_) => outcome(run(&target)),
            };
            cases.push(Case { name, run: Box::new(run) });
        }
    }
    run_all(Cases { cases, threads: 2 })
}

fn config(name: &str, cluster: &str, routes: &[u16]) -> String {
    cluster_config((name, cluster), "{port2}", routes, "")
}

fn play(target: &Target, run: Play) -> Flow {
    let servers = Trio::plain(target)?.servers;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, run(servers)).await? })
}

async fn enter(server: &Server, user: &str) -> Result<Client, Fault> {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
    Ok(options.connect(server.url()).await?)
}

/// The next message, if one comes soon.
async fn soon(sub: &mut Subscriber, time: Duration) -> Option<async_nats::Message> {
    tokio::time::timeout(time, sub.next()).await.ok().flatten()
}

/// Publishes until a subscription on another server hears it: real servers tell each other without waiting.
async fn heard(publisher: &Client, subject: &str, sub: &mut Subscriber) -> Flow {
    let deadline = Instant::now() + PATIENCE;
    loop {
        publisher.publish(subject.to_owned(), "probe".into()).await?;
        publisher.flush().await?;
        if soon(sub, PAUSE).await.is_some() {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{subject} is not heard").into());
        }
    }
    while soon(sub, PAUSE * 10).await.is_some() {}
    Ok(())
}

/// Each side of a link says how it wants that; messages get through in any case.
fn compressed(target: &Target) -> Flow {
    let modes = ["s2_best", "accept", "off"];
    let mut servers: Vec<Server> = Vec::new();
    for (name, mode) in NAMES.into_iter().zip(modes) {
        let routes: Vec<u16> = servers.iter().map(Server::second_port).collect();
        let config = config(name, "trio", &routes);
        let config = config.replacen("cluster {", &format!("cluster {{ compression: {mode},"), 1);
        let launch = Launch {
            binary: target.binary.clone()?,
            flags: ["-m", "{http}"].map(str::to_owned).to_vec(),
            config: Some(config),
        };
        servers.push(Server::start(launch)?);
    }
    // How a server compresses what it sends to another one.
    let seen = |from: usize, to: usize| -> Option<String> {
        let page = page(&servers[from], "/routez")?;
        let routes = page["routes"].as_array()?;
        let mut ways = routes.iter().filter(|route| route["remote_name"] == NAMES[to]);
        let way = ways.next()?["compression"].as_str()?.to_owned();
        ways.all(|route| route["compression"] == *way).then_some(way)
    };
    for (from, to, wanted) in
        [(0, 1, "s2_best"), (1, 0, "s2_best"), (0, 2, "off"), (2, 0, "off"), (1, 2, "off"), (2, 1, "off")]
    {
        wait(&format!("n{} sends {wanted} to n{}", from + 1, to + 1), || {
            seen(from, to).filter(|way| way == wanted)
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, across(servers)).await? })
}

/// What one server exchanges with the other one, as it is configured and after a reload.
fn exchanging(target: &Target) -> Flow {
    let with = |permissions: &str| {
        let config = config("n1", "two", &[]);
        config.replacen("cluster {", &format!("cluster {{ permissions: {{ {permissions} }},"), 1)
    };
    let launch = |config: String| -> Result<Launch, Fault> {
        let flags = ["-m", "{http}"].map(str::to_owned).to_vec();
        Ok(Launch { binary: target.binary.clone()?, flags, config: Some(config) })
    };
    let mut first =
        Server::start(launch(with("import: [in.>, out.*, q], export: { allow: out.>, deny: out.no }"))?)?;
    let second = Server::start(launch(config("n2", "two", &[first.second_port()]))?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = async {
        let (a, b) = (enter(&first, "a").await?, enter(&second, "a").await?);
        wait("they know each other", || {
            (info(first.port())["connect_urls"].as_array()?.len() == 2).then_some(())
        })?;
        // Where it is published, what is asked for, on which subject, and whether it comes.
        let first_rules = [
            (&b, &a, "in.x", "in.x", true),
            (&b, &a, "in.>", "in.y", true),
            (&b, &a, "other", "other", false),
            (&b, &a, ">", "in.z", false),
            (&b, &a, "in", "in", false),
            (&a, &b, "out.x", "out.x", true),
            (&a, &b, "out.>", "out.y.z", true),
            (&a, &b, "out.>", "out.no", false),
            (&a, &b, "out.no", "out.no", false),
            (&a, &b, "in.x", "in.x", false),
            (&a, &b, ">", "out.z", false),
        ];
        for rule in first_rules {
            exchanged(rule).await?;
        }
        let lists =
            [json!({"allow": ["in.>", "out.*", "q"]}), json!({"allow": ["out.>"], "deny": ["out.no"]})];
        assert_eq!(permissions_of(&first), Some(lists));
        assert_eq!(permissions_of(&second), Some([Value::Null, Value::Null]));
        let more = "import: { deny: no.> }, export: { allow: [out.>, \"*\"] }";
        first.write_config(&with(more))?;
        first.signal("HUP")?;
        let mut sub = a.subscribe("later").await?;
        heard(&b, "later", &mut sub).await?;
        let second_rules = [
            (&b, &a, "no.x", "no.x", false),
            (&b, &a, "in.x", "in.x", true),
            (&b, &a, ">", "in.z", true),
            (&b, &a, ">", "no.x", true),
            (&a, &b, "out.no", "out.no", true),
            (&a, &b, "other", "other", true),
            (&a, &b, "in.x", "in.x", false),
        ];
        for rule in second_rules {
            exchanged(rule).await?;
        }
        let lists = [json!({"deny": ["no.>"]}), json!({"allow": ["out.>", "*"]})];
        assert_eq!(permissions_of(&first), Some(lists));
        Ok(())
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, run).await? })
}

/// What a server says of its own imports and exports.
fn permissions_of(server: &Server) -> Option<[Value; 2]> {
    page(server, "/routez").map(|page| [page["import"].clone(), page["export"].clone()])
}

async fn exchanged((from, to, filter, subject, comes): (&Client, &Client, &str, &str, bool)) -> Flow {
    let mut sub = to.subscribe(filter.to_owned()).await?;
    to.flush().await?;
    if comes {
        return heard(from, subject, &mut sub).await;
    }
    for _ in 0..10 {
        from.publish(subject.to_owned(), "no".into()).await?;
        from.flush().await?;
        if soon(&mut sub, PAUSE).await.is_some() {
            return Err(format!("{subject} came to {filter}").into());
        }
    }
    Ok(())
}

async fn across(servers: Vec<Server>) -> Flow {
    let (a, b) = (enter(&servers[0], "a").await?, enter(&servers[1], "a").await?);
    let other = enter(&servers[2], "b").await?;
    let (mut wild, mut foreign) = (b.subscribe("x.>").await?, other.subscribe(">").await?);
    b.flush().await?;
    other.flush().await?;
    heard(&a, "x.y", &mut wild).await?;
    // Larger than what goes through a link at once.
    let large = "l".repeat(900_000);
    for number in 0..500u32 {
        a.publish("x.y", number.to_string().into()).await?;
    }
    a.publish("x.large", large.clone().into()).await?;
    for number in 0..500u32 {
        let message = soon(&mut wild, PATIENCE).await.ok_or("a message is missing")?;
        assert_eq!(message.payload, number.to_string().as_bytes());
    }
    let message = soon(&mut wild, PATIENCE).await.ok_or("the large message is missing")?;
    assert_eq!(message.payload.len(), large.len());
    assert!(soon(&mut foreign, PAUSE * 10).await.is_none(), "another account hears it");
    let mut answers = a.subscribe("answers").await?;
    let service = servers_service(&servers[2]).await?;
    // A request that is not heard yet is asked again.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        a.publish_with_reply("svc", "answers", "?".into()).await?;
        if soon(&mut answers, PAUSE).await.is_some_and(|answer| answer.payload == "!") {
            break;
        }
    }
    let reply = a.request("svc", "?".into()).await?;
    assert_eq!(reply.payload, "!");
    // Its own subscription to everything would be somebody who listens.
    foreign.unsubscribe().await?;
    other.flush().await?;
    let error = other.request("svc", "?".into()).await.expect_err("it is in another account");
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    service.abort();
    Ok(())
}

async fn servers_service(server: &Server) -> Result<tokio::task::JoinHandle<()>, Fault> {
    let client = enter(server, "a").await?;
    let mut requests = client.subscribe("svc").await?;
    client.flush().await?;
    Ok(tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                let _ = client.publish(reply, "!".into()).await;
            }
        }
    }))
}

async fn elsewhere(mut servers: Vec<Server>) -> Flow {
    let (events, mut happened) = tokio::sync::mpsc::channel(64);
    let options = ConnectOptions::with_user_and_password("a".to_owned(), "a".to_owned());
    let options = options.event_callback(move |event| {
        let events = events.clone();
        async move {
            let _ = events.send(event).await;
        }
    });
    let client = options.connect(servers[2].url()).await?;
    let mut sub = client.subscribe("stay").await?;
    client.flush().await?;
    let far = enter(&servers[0], "a").await?;
    heard(&far, "stay", &mut sub).await?;
    servers[2].kill();
    let (mut lost, mut back) = (false, false);
    while let Some(event) = happened.recv().await {
        lost |= matches!(event, Event::Disconnected);
        back |= lost && matches!(event, Event::Connected);
        if back {
            break;
        }
    }
    assert!(back);
    let port = client.server_info().port;
    assert!(port == servers[0].port() || port == servers[1].port(), "{port}");
    heard(&far, "stay", &mut sub).await?;
    // It comes back, and is one of them again.
    servers[2].start_again()?;
    let returned = enter(&servers[2], "a").await?;
    let mut sub = returned.subscribe("back").await?;
    returned.flush().await?;
    heard(&far, "back", &mut sub).await
}

async fn lame_duck(servers: Vec<Server>) -> Flow {
    let duck = format!("127.0.0.1:{}", servers[2].port());
    let staying = enter(&servers[0], "a").await?;
    let watcher = enter(&servers[1], "sys").await?;
    let mut events = watcher.subscribe("$SYS.SERVER.*.LAMEDUCK").await?;
    let mut ends = watcher.subscribe("$SYS.SERVER.*.SHUTDOWN").await?;
    heard_by_all(&watcher).await?;
    servers[2].signal("USR2")?;
    let event = soon(&mut events, PATIENCE).await.ok_or("the lame duck says nothing")?;
    let event: serde_json::Value = serde_json::from_slice(&event.payload)?;
    assert_eq!((&event["name"], &event["cluster"]), (&"n3".into(), &"trio".into()));
    wait("the lame duck is no longer named", || {
        let urls = info(servers[0].port())["connect_urls"].clone();
        let urls: Vec<String> = serde_json::from_value(urls).ok()?;
        (urls.len() == 2 && !urls.contains(&duck)).then_some(())
    })?;
    staying.flush().await?;
    servers[0].signal("TERM")?;
    let event = soon(&mut ends, PATIENCE).await.ok_or("who stops says nothing")?;
    let event: serde_json::Value = serde_json::from_slice(&event.payload)?;
    assert_eq!(event["name"], "n1");
    Ok(())
}

/// All servers answer on one server's behalf: what was subscribed before has reached them.
async fn heard_by_all(client: &Client) -> Flow {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply("$SYS.REQ.SERVER.PING", inbox, "".into()).await?;
    for _ in 0..3 {
        soon(&mut answers, PATIENCE).await.ok_or("a server does not answer")?;
    }
    Ok(())
}

fn python(target: &Target) -> Flow {
    let python = named("PYTHON_WITH_NATS")?;
    let servers = Trio::plain(target)?.servers;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/cluster.py");
    let pid = servers[2].pid().ok_or("the third server runs")?;
    let mut command = Command::new(python);
    command.arg(script).args(servers.iter().map(Server::url)).arg(pid.to_string());
    run(&mut command).map(drop)
}

/// The tool asks all servers by one request to the system account, wherever it is connected.
fn list(target: &Target) -> Flow {
    let tool = named("NATS_CLI")?;
    let servers = Trio::plain(target)?.servers;
    for server in &servers {
        let ask = |arguments: &[&str]| {
            let url = format!("nats://sys:sys@127.0.0.1:{}", server.port());
            run(Command::new(&tool).args(["--server", &url, "--no-context"]).args(arguments))
        };
        let said = ask(&["server", "list", "3"])?;
        for name in ["n1", "n2", "n3", "trio"] {
            assert!(said.contains(name), "{name} is missing:\n{said}");
        }
        let said = ask(&["server", "ping", "3"])?;
        assert!(["n1", "n2", "n3"].iter().all(|name| said.contains(name)), "{said}");
        let said = ask(&["server", "report", "routes"])?;
        assert!(["n1", "n2", "n3"].iter().all(|name| said.contains(name)), "{said}");
    }
    Ok(())
}

/// A `nats-server` and ours do not form a cluster, and both logs say why.
fn foreign(target: &Target) -> Flow {
    let real = named("NATS_SERVER_BIN")?;
    let binary = target.binary.clone()?;
    for ours_dials in [false, true] {
        let launch = |binary: &Path, name: &str, routes: &[u16]| {
            let config = Some(config(name, "conform", routes));
            Server::start(Launch { binary: binary.to_owned(), flags: vec![], config })
        };
        let (first, second) = if ours_dials { (&real, &binary) } else { (&binary, &real) };
        let first = launch(first, "first", &[])?;
        let second = launch(second, "second", &[first.second_port()])?;
        let (ours, theirs) = if ours_dials { (&second, &first) } else { (&first, &second) };
        let wanted = match ours_dials {
            true => "a nats-server answers there: it cannot be in one cluster with Headwater servers",
            false => "a nats-server cannot join it",
        };
        wait(wanted, || ours.log().contains(wanted).then_some(()))?;
        if !ours_dials {
            wait("the other one says why", || theirs.log().contains(wanted).then_some(()))?;
        }
        assert_eq!(info(ours.port())["connect_urls"].as_array().map_or(0, Vec::len), 1);
    }
    Ok(())
}

fn strangers(target: &Target) -> Flow {
    let binary = target.binary.clone()?;
    let with = |name: &str, cluster: &str, extra: &str, routes: &[u16]| {
        let config = config(name, cluster, routes).replace("cluster {", &format!("cluster {{ {extra}"));
        Server::start(Launch { binary: binary.clone(), flags: vec![], config: Some(config) })
    };
    let login = |pass: &str| format!("authorization {{ user: u, password: {pass} }},");
    let first = with("n1", "right", &login("p"), &[])?;
    let seed = [first.second_port()];
    let wrong_name = with("n2", "wrong", &login("p"), &seed)?;
    let wrong_pass = with("n3", "right", &login("x"), &seed)?;
    let right = with("n4", "right", &login("p"), &seed)?;
    let says = |server: &Server, text: &str| wait(text, || server.log().contains(text).then_some(()));
    says(&wrong_name, "cluster name \"wrong\" does not match \"right\"")?;
    says(&wrong_pass, "authentication error")?;
    says(&first, "authentication error")?;
    wait("the right one is linked", || {
        let urls = info(right.port())["connect_urls"].as_array().map_or(0, Vec::len);
        (urls == 2).then_some(())
    })?;
    Ok(())
}
