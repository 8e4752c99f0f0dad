//! A cluster of three servers while links break, servers are parted and die: nobody hears anything twice or of another
//! account, and once it is quiet everybody hears everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hw_auth::{AccountSpec, Directory, DirectorySpec, UserKey, UserSpec};
use hw_kit::{Rng, Span};
use hw_sim::{Ground, Happening, Planted, Setup, Start, Trace, World};

const SERVERS: usize = 3;
const USERS: [&str; 2] = ["a", "b"];
const TOPICS: u64 = 4;

/// The accounts' numbers differ from server to server.
fn directory(turned: bool) -> Arc<Directory> {
    let account = |name: &str| AccountSpec {
        name: name.to_uppercase(),
        users: vec![UserSpec {
            key: UserKey::Password { user: name.into(), pass: name.into() },
            permissions: None,
            connection_kinds: vec![],
        }],
        ..AccountSpec::default()
    };
    let mut accounts: Vec<AccountSpec> = USERS.map(account).into();
    if turned {
        accounts.reverse();
    }
    Arc::new(Directory::new(&DirectorySpec { accounts, ..DirectorySpec::default() }).expect("two accounts"))
}

fn setup() -> Setup {
    Setup { shards: 2, checkpoint_bytes: 100_000, wal_bytes: 1 << 20, planted: Planted::Nothing }
}

#[derive(Default)]
struct Client {
    user: usize,
    /// Topics, and whether in the queue group.
    subs: BTreeMap<u64, bool>,
}

struct Run {
    world: World,
    rng: Rng,
    clients: Vec<Client>,
    published: u64,
    /// Who heard a message, by its number: the client, and whether as the group's member.
    heard: BTreeMap<u64, Vec<(usize, bool)>>,
    /// The account and the topic of each message.
    sent: BTreeMap<u64, (usize, u64)>,
    pongs: BTreeSet<usize>,
    unheard: u64,
    parted: Option<(usize, usize)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let directories = (0..SERVERS).map(|server| directory(server % 2 == 1)).collect();
        let mut run = Run {
            world: World::new(
                seed,
                setup(),
                Ground { directories, linked: true, replicated: false },
                Trace::new(false),
            ),
            rng: Rng::new(seed),
            clients: vec![],
            published: 0,
            heard: BTreeMap::new(),
            sent: BTreeMap::new(),
            pongs: BTreeSet::new(),
            unheard: 0,
            parted: None,
        };
        for server in 0..SERVERS {
            run.world.boot(server, Start::default()).expect("it starts");
            for n in 0..4 {
                let user = n % 2;
                let client = run.world.add_user(USERS[user]);
                run.world.connect_to(client, server);
                run.clients.push(Client { user, ..Client::default() });
            }
        }
        run
    }

    fn pass(&mut self, span: Span) {
        for heard in self.world.run(span).expect("no defect") {
            match heard {
                Happening::Msg(client, msg) if msg.status() == Some(503) => {
                    assert!(msg.subject.starts_with("r."), "client {client}");
                    self.unheard += 1;
                }
                Happening::Msg(client, msg) => {
                    let text = String::from_utf8(msg.payload).expect("text");
                    let (number, _) = text.split_once(' ').expect("a number");
                    let topic: u64 =
                        msg.subject.strip_prefix("t.").and_then(|topic| topic.parse().ok()).expect("a topic");
                    let number: u64 = number.parse().expect("a number");
                    let (account, sent) = self.sent[&number];
                    assert_eq!((self.clients[client].user, topic), (account, sent), "message {number}");
                    let grouped = self.clients[client].subs.get(&topic) == Some(&true);
                    self.heard.entry(number).or_default().push((client, grouped));
                }
                Happening::Pong(client) => {
                    self.pongs.insert(client);
                }
                Happening::Gone(client) => self.clients[client].subs.clear(),
                Happening::Error(client, text) => panic!("client {client} is told {text:?}"),
                Happening::Alarm(_) => {}
            }
        }
    }

    fn publish(&mut self, client: usize, topic: u64) -> u64 {
        self.published += 1;
        let large = if self.rng.chance(1, 40) { 300_000 } else { 5 };
        let payload = format!("{} {}", self.published, "x".repeat(large));
        self.world.send(client, format!("PUB t.{topic} {}\r\n{payload}\r\n", payload.len()).into_bytes());
        self.sent.insert(self.published, (self.clients[client].user, topic));
        self.published
    }

    fn fault(&mut self) {
        let server = self.rng.below(SERVERS as u64) as usize;
        let other = (server + 1 + self.rng.below(2) as usize) % SERVERS;
        match self.rng.below(5) {
            0 => self.world.break_links(server, other),
            1 if self.parted.is_none() => {
                self.world.part(server, other);
                self.parted = Some((server, other));
            }
            2 => self.heal(),
            3 => self.world.kill(server),
            _ => self.recover(),
        }
    }

    fn heal(&mut self) {
        if self.parted.take().is_some() {
            self.world.heal_links();
        }
    }

    /// Dead servers start, and clients that lost theirs go to any that runs.
    fn recover(&mut self) {
        for server in 0..SERVERS {
            if !self.world.is_up(server) {
                self.world.boot(server, Start::default()).expect("it starts again");
            }
        }
        for client in 0..self.clients.len() {
            if !self.world.is_connected(client) {
                let server = self.rng.below(SERVERS as u64) as usize;
                self.world.connect_to(client, server);
            }
        }
    }

    fn step(&mut self) {
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let topic = self.rng.below(TOPICS);
        match self.rng.below(10) {
            0 if !self.clients[client].subs.contains_key(&topic) && self.world.is_connected(client) => {
                let grouped = self.rng.chance(1, 3);
                let group = if grouped { "q " } else { "" };
                self.world.send(client, format!("SUB t.{topic} {group}{topic}\r\n").into_bytes());
                self.clients[client].subs.insert(topic, grouped);
            }
            1..8 => {
                self.publish(client, topic);
            }
            _ => {}
        }
        let pause = Span(self.rng.below(20_000_000) as i64);
        self.pass(pause);
    }

    /// Nobody heard anything twice, and of each group one member at most.
    fn judge(&self) {
        for (number, heard) in &self.heard {
            let clients: BTreeSet<usize> = heard.iter().map(|(client, _)| *client).collect();
            assert_eq!(clients.len(), heard.len(), "message {number} was heard twice: {heard:?}");
            let grouped = heard.iter().filter(|(_, grouped)| *grouped).count();
            assert!(grouped <= 1, "message {number}: {heard:?}");
        }
    }

    /// After a while without faults everybody hears everything.
    fn settle(&mut self) {
        self.heal();
        self.recover();
        self.pass(Span::from_secs(12));
        self.recover();
        self.pass(Span::from_secs(1));
        for server in 0..SERVERS {
            assert_eq!(self.world.links(server), SERVERS - 1, "server {server}");
        }
        self.pongs.clear();
        for client in 0..self.clients.len() {
            self.world.send(client, b"SUB r.* r\r\nPING\r\n".to_vec());
        }
        self.pass(Span::from_millis(300));
        assert_eq!(self.pongs.len(), self.clients.len(), "everybody's interest is known");
        let mut last = Vec::new();
        for client in 0..self.clients.len() {
            last.extend((0..TOPICS).map(|topic| (client, topic, self.publish(client, topic))));
        }
        self.unheard = 0;
        for client in 0..self.clients.len() {
            self.world.send(client, format!("PUB nobody r.{client} 0\r\n\r\n").into_bytes());
        }
        self.pass(Span::from_secs(1));
        // Everybody in the account has subscribed to all answers.
        assert_eq!(self.unheard, self.clients.len() as u64, "requests that nobody hears");
        for (client, topic, number) in last {
            let account = self.clients[client].user;
            let heard = self.heard.get(&number).cloned().unwrap_or_default();
            let members = |grouped: bool| {
                let of_account = self.clients.iter().enumerate().filter(|(_, other)| other.user == account);
                let wanting = of_account.filter(|(_, other)| other.subs.get(&topic) == Some(&grouped));
                wanting.map(|(at, _)| at).collect::<BTreeSet<usize>>()
            };
            let plain: BTreeSet<usize> =
                heard.iter().filter(|(_, grouped)| !grouped).map(|(client, _)| *client).collect();
            assert_eq!(plain, members(false), "message {number} on topic {topic}");
            let grouped = heard.iter().filter(|(_, grouped)| *grouped).count();
            assert_eq!(grouped, members(true).len().min(1), "message {number} on topic {topic}");
        }
    }
}

fn run(seed: u64) -> (u64, usize) {
    let mut run = Run::new(seed);
    run.pass(Span::from_secs(1));
    for round in 0..120 {
        run.step();
        if round % 6 == 5 {
            run.fault();
        }
    }
    run.settle();
    run.judge();
    (run.world.trace.hash(), run.heard.len())
}

#[test]
fn a_cluster_under_faults() {
    let mut heard = 0;
    for seed in 0..12 {
        heard += run(seed).1;
    }
    assert!(heard > 300, "{heard}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
