//! Streams that get more, fewer or other servers, while one of these is lost in the middle: the stream is led again, has the
//! servers that it is to have, and everything that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hw_auth::{AccountSpec, Directory, DirectorySpec, JsLimits, UserKey, UserSpec};
use hw_kit::{Rng, Span};
use hw_sim::{Ground, Happening, Planted, Setup, Start, Trace, World};
use serde_json::{Value, json};

/// Within this an attempt is answered, or another one is made.
const ATTEMPT: Span = Span::from_millis(700);
/// Within this everything is as it is to be.
const PATIENCE: Span = Span::from_secs(40);

/// What changes.
#[derive(Clone, Copy, Debug)]
struct Case {
    servers: usize,
    from: usize,
    to: usize,
    storage: &'static str,
    /// By `ACCOUNT.STREAM.MOVE` to where it is not yet, instead of an update.
    moves: bool,
}

fn directory() -> Arc<Directory> {
    let operator = UserSpec {
        key: UserKey::Password { user: "sys".into(), pass: "sys".into() },
        permissions: None,
        connection_kinds: vec![],
    };
    let system = AccountSpec { name: "$SYS".into(), users: vec![operator], ..AccountSpec::default() };
    let spec = DirectorySpec {
        accounts: vec![system],
        global_jetstream: Some(JsLimits::NONE),
        ..DirectorySpec::default()
    };
    Arc::new(Directory::new(&spec).expect("one user is fine"))
}

struct Stage {
    seed: u64,
    world: World,
    rng: Rng,
    client: usize,
    operator: usize,
    asked: u64,
    acked: BTreeMap<u64, String>,
}

impl Stage {
    fn new(seed: u64, servers: usize) -> Stage {
        let setup =
            Setup { shards: 1, checkpoint_bytes: 8 << 10, wal_bytes: 144 << 10, planted: Planted::Nothing };
        let directories = (0..servers).map(|_| directory()).collect();
        let ground = Ground { directories, linked: true, replicated: true };
        let mut world =
            World::new(seed, setup, ground, Trace::new(std::env::var_os("HEADWATER_TRACE").is_some()));
        (0..servers).for_each(|host| world.boot(host, Start::default()).expect("a new disk is fine"));
        let (client, operator) = (world.add_client(), world.add_user("sys"));
        Stage { seed, world, rng: Rng::new(seed), client, operator, asked: 0, acked: BTreeMap::new() }
    }

    fn pass(&mut self, span: Span) {
        let until = self.world.now() + span;
        while self.world.next(until).unwrap_or_else(|wrong| panic!("seed {}: {wrong}", self.seed)).is_some() {
        }
    }

    /// An answer to one attempt; without one, the client goes to another server.
    fn attempt(&mut self, client: usize, subject: &str, body: &str) -> Option<Value> {
        if !self.world.is_connected(client) {
            self.world.connect(client);
        }
        self.asked += 1;
        let reply = format!("{}.{}", self.world.inbox(client), self.asked);
        let bytes = format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
        self.world.send(client, bytes.into_bytes());
        let until = self.world.now() + ATTEMPT;
        while let Some(happening) =
            self.world.next(until).unwrap_or_else(|wrong| panic!("seed {}: {wrong}", self.seed))
        {
            match happening {
                Happening::Msg(_, msg) if msg.subject == reply => {
                    return serde_json::from_slice(&msg.payload).ok();
                }
                Happening::Gone(gone) if gone == client => return None,
                _ => {}
            }
        }
        self.world.disconnect(client);
        None
    }

    /// Asks until there is an answer that is right.
    fn until(
        &mut self,
        client: usize,
        (subject, body): (&str, &Value),
        is_right: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = self.world.now() + PATIENCE;
        let mut last = None;
        while self.world.now() < until {
            match self.attempt(client, subject, &body.to_string()) {
                Some(answer) if is_right(&answer) => return answer,
                other => last = other.or(last),
            }
            self.pass(Span::from_millis(100));
        }
        let now = self.world.now();
        let views = (0..self.world.servers()).filter_map(|host| Some(self.world.server(host)?.groups(now)));
        let views: Vec<String> = views.collect();
        let last = last.map(|answer| answer.to_string());
        panic!("seed {}: {subject} {body}: {last:?}\n{}", self.seed, views.join("\n"));
    }

    fn api(&mut self, verb: &str, body: &Value) -> Value {
        self.until(self.client, (&format!("$JS.API.{verb}"), body), |answer| answer.get("error").is_none())
    }

    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let body = Value::String(format!("message {}", self.asked));
            let ack = self.until(self.client, ("s", &body), |answer| {
                answer["seq"].is_u64() && answer.get("error").is_none()
            });
            self.acked.insert(ack["seq"].as_u64().expect("a number"), body.to_string());
        }
    }

    /// Waits until the stream has so many servers, which all have everything.
    fn settle(&mut self, replicas: usize) {
        self.until(self.client, ("$JS.API.STREAM.INFO.S", &json!({})), |info| {
            let others = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
            info["cluster"]["leader"].as_str().is_some_and(|leader| !leader.is_empty())
                && others.len() + 1 == replicas
                && others.iter().all(|other| other["current"] == true)
        });
    }

    fn leader(&mut self) -> usize {
        let info = self.until(self.client, ("$JS.API.STREAM.INFO.S", &json!({})), |info| {
            info["cluster"]["leader"].as_str().is_some_and(|leader| !leader.is_empty())
        });
        let name = info["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('s'));
        name.and_then(|number| number.parse().ok()).expect("the name of a server")
    }

    fn judge(&mut self) {
        for (seq, body) in self.acked.clone() {
            let got = self.api("STREAM.MSG.GET.S", &json!({ "seq": seq }));
            let data = got["message"]["data"].as_str().expect("a message");
            let data = STANDARD.decode(data).expect("it is base64");
            assert_eq!(String::from_utf8_lossy(&data), body, "seed {}: {seq}", self.seed);
        }
    }

    fn restart_all(&mut self) {
        let servers = self.world.servers();
        (0..servers).for_each(|host| self.world.power_cut(host));
        self.pass(Span::from_millis(200));
        (0..servers).for_each(|host| self.world.boot(host, Start::default()).expect("it starts again"));
        self.pass(Span::from_millis(500));
    }
}

fn config(case: Case, replicas: usize) -> Value {
    json!({ "name": "S", "subjects": ["s"], "num_replicas": replicas, "storage": case.storage })
}

/// The servers change, and one of them is lost at some moment after that.
fn run(case: Case, seed: u64, is_lost: bool) {
    let mut stage = Stage::new(seed, case.servers);
    stage.api("STREAM.CREATE.S", &config(case, case.from));
    stage.settle(case.from);
    stage.publish(20);
    let leader = stage.leader();
    match case.moves {
        true => {
            let asked = ("$JS.API.ACCOUNT.STREAM.MOVE.$G.S", &json!({}));
            stage.until(stage.operator, asked, |answer| answer.get("error").is_none());
        }
        false => drop(stage.api("STREAM.UPDATE.S", &config(case, case.to))),
    }
    if is_lost {
        let moment = Span(stage.rng.below(120_000_000) as i64);
        stage.pass(moment);
        // What only one server has is lost with it: that is another matter.
        let victim = (leader + 1 + stage.rng.below(case.servers as u64 - 1) as usize) % case.servers;
        match stage.rng.chance(1, 2) {
            true => stage.world.kill(victim),
            false => stage.world.power_cut(victim),
        }
        if stage.rng.chance(2, 3) {
            stage.world.wipe(victim);
        }
        let moment = Span(stage.rng.below(1_500_000_000) as i64);
        stage.pass(moment);
        stage.world.boot(victim, Start::default()).expect("it starts again");
    }
    stage.settle(case.to);
    stage.publish(5);
    stage.judge();
    stage.restart_all();
    stage.settle(case.to);
    stage.publish(1);
    stage.judge();
}

const FILE: Case = Case { servers: 3, from: 3, to: 1, storage: "file", moves: false };

#[test]
fn a_server_is_lost_while_the_servers_change() {
    let cases = [
        FILE,
        Case { from: 1, to: 3, ..FILE },
        Case { servers: 5, from: 5, to: 3, ..FILE },
        Case { servers: 5, from: 3, to: 5, ..FILE },
        Case { servers: 5, from: 5, to: 1, ..FILE },
    ];
    for seed in 0..8 {
        cases.into_iter().for_each(|case| run(case, seed, true));
    }
}

#[test]
fn a_stream_moves_to_servers_that_do_not_have_it() {
    for seed in 0..6 {
        run(Case { servers: 3, from: 1, to: 1, moves: true, ..FILE }, seed, false);
        run(Case { servers: 5, from: 2, to: 2, moves: true, ..FILE }, seed, false);
    }
}

#[test]
fn a_stream_in_memory_gets_more_servers_and_fewer() {
    for seed in 0..4 {
        let case = Case { from: 1, to: 3, storage: "memory", ..FILE };
        run(case, seed, seed % 2 == 1);
        run(Case { from: 1, to: 1, moves: true, ..case }, seed, false);
        let mut stage = Stage::new(seed, 3);
        stage.api("STREAM.CREATE.S", &config(case, 3));
        stage.publish(10);
        for replicas in [1, 3, 2, 1] {
            stage.until(stage.client, ("$JS.API.STREAM.UPDATE.S", &config(case, replicas)), |answer| {
                answer.get("error").is_none()
            });
            stage.settle(replicas);
            stage.publish(3);
        }
        stage.restart_all();
        stage.settle(1);
        stage.judge();
    }
}

/// Streams of one server are created, and moved away, while one of the servers hears nothing; then the others have forgotten
/// how they came about, so that it only learns the end of it. Gives how many were to begin on that one.
fn moves_unheard(seed: u64) -> usize {
    let mut stage = Stage::new(seed, 3);
    // There are three servers when this is answered.
    stage.api("STREAM.CREATE.T", &json!({ "name": "T", "subjects": ["t"], "num_replicas": 3 }));
    stage.pass(Span::from_secs(1));
    let cut_off = stage.rng.below(3) as usize;
    let (one, other) = ((cut_off + 1) % 3, (cut_off + 2) % 3);
    let (client, operator) = (stage.client, stage.operator);
    let ask = |stage: &mut Stage, client: usize, subject: &str, body: &Value| {
        stage.pass(Span::from_millis(10)); // That it went after the last attempt is no answer to this one.
        stage.world.connect_to(client, one);
        stage.attempt(client, subject, &body.to_string())
    };
    [client, operator].into_iter().for_each(|client| stage.world.disconnect(client));
    stage.pass(Span::from_millis(10));
    stage.world.connect_to(client, one);
    [one, other].into_iter().for_each(|host| stage.world.part(cut_off, host));
    for number in 0..4 {
        // One after the other would take until they know that it is cut off.
        let config = json!({ "name": format!("S{number}"), "subjects": [format!("s{number}")] }).to_string();
        let (inbox, len) = (stage.world.inbox(client), config.len());
        let head = format!("PUB $JS.API.STREAM.CREATE.S{number} {inbox}.new{number} {len}");
        stage.world.send(client, format!("{head}\r\n{config}\r\n").into_bytes());
        stage.pass(Span::from_millis(20));
    }
    stage.pass(Span::from_millis(200));
    let names = (0..8).find_map(|_| ask(&mut stage, client, "$JS.API.STREAM.NAMES", &json!({})));
    let names: Vec<String> =
        names.and_then(|names| serde_json::from_value(names["streams"].clone()).ok()).unwrap_or_default();
    let is_led = |stage: &mut Stage, name: &String| {
        let info = ask(stage, client, &format!("$JS.API.STREAM.INFO.{name}"), &json!({}));
        info.is_some_and(|info| info.get("error").is_none())
    };
    let unheard: Vec<String> =
        names.into_iter().filter(|name| name != "T" && !is_led(&mut stage, name)).collect();
    for name in &unheard {
        // Who leads it would answer; it is on its way when the next one is refused for that.
        let subject = format!("$JS.API.ACCOUNT.STREAM.MOVE.$G.{name}");
        let moves = |answer: Option<Value>| answer.is_some_and(|answer| answer["error"]["err_code"] == 10124);
        let is_moving = (0..8).any(|_| moves(ask(&mut stage, operator, &subject, &json!({}))));
        assert!(is_moving, "seed {seed}: {name} does not move");
    }
    for number in 0..30 {
        let name = format!("X{number}");
        let config = json!({ "name": name, "subjects": [name], "description": "x".repeat(1000) });
        ask(&mut stage, client, &format!("$JS.API.STREAM.CREATE.{name}"), &config);
        ask(&mut stage, client, &format!("$JS.API.STREAM.DELETE.{name}"), &json!({}));
    }
    for host in [one, other] {
        stage.world.kill(host);
        stage.world.boot(host, Start::default()).expect("it starts again");
    }
    stage.world.heal_links();
    let mut acked = Vec::new();
    for _ in 0..2 {
        for name in &unheard {
            let ack = stage.until(client, (&name.to_lowercase(), &json!(1)), |ack| ack["seq"].is_u64());
            acked.push((name, ack["seq"].clone()));
            stage.until(client, (&format!("$JS.API.STREAM.INFO.{name}"), &json!({})), |info| {
                let cluster = &info["cluster"];
                cluster["leader"].as_str().is_some_and(|leader| leader != format!("s{cut_off}"))
                    && cluster["replicas"].as_array().is_none_or(Vec::is_empty)
                    && cluster.get("desired").is_none()
            });
        }
        for (name, seq) in &acked {
            stage.api(&format!("STREAM.MSG.GET.{name}"), &json!({ "seq": seq }));
        }
        stage.restart_all();
    }
    unheard.len()
}

#[test]
fn a_stream_moves_before_its_server_has_heard_of_it() {
    let unheard: usize = (0..8).map(moves_unheard).sum();
    assert!(unheard > 4, "only {unheard} were on a server that did not hear of them");
}

/// What a leader said to a server before it was taken out of the cluster does not bring that server back.
#[test]
fn a_server_that_runs_is_taken_out_and_knows_it() {
    for seed in 1..=4 {
        let mut stage = Stage::new(seed, 4);
        stage.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s"], "num_replicas": 3}));
        stage.publish(5);
        stage.settle(3);
        let leader = stage.world.meta_leader().expect("there is one");
        let gone = (leader + 1 + seed as usize % 3) % 4;
        let body = json!({ "peer": format!("s{gone}") });
        let operator = stage.operator;
        stage.until(operator, ("$JS.API.SERVER.REMOVE", &body), |answer| answer["success"] == true);
        stage.pass(Span::from_secs(2));
        for host in 0..4 {
            let is_outside = stage.world.server(host).map(|server| server.is_outside());
            assert_eq!(is_outside, Some(host == gone), "seed {seed}, server {host}");
        }
        stage.settle(3);
    }
}
