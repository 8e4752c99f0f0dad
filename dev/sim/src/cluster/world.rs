//! Everything that moves in a cluster, step by step in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hw_hub::{PeerBatch, RemoteBatch};
use hw_kit::{ConnId, LinkId, NodeId, Rng, ShardId, Span, Time};
use hw_node::{ClusterConfig, LinkFrame};
use hw_route::{LinkDown, Peer as LinkPeer};
use hw_testkit::disk::MemDisk;

use crate::client::{Msg, Protocol, Said, hello};
use crate::clock::Agenda;
use crate::net::{Net, Way};
use crate::planted::Planted;
use crate::server::{Boot, BootError, Input, LinkInput, Server, Setup};
use crate::trace::Trace;
use crate::volume::{Io, Lane};

/// Nothing is heard of a server behind a partition after this.
const QUIET: Span = Span::from_millis(400);

/// How long it takes to find out that a process is gone, and to link again.
const REDIAL: i64 = 3_000_000;

enum Event {
    Wake { server: usize, epoch: u32, shard: usize },
    DiskEnds { server: usize, epoch: u32, lane: Lane },
    Peer { server: usize, epoch: u32, to: usize, from: ShardId, batch: PeerBatch },
    Link { from: usize, to: usize, wire: u64, frame: LinkFrame },
    Join { a: usize, b: usize },
    Refused { server: usize, epoch: u32, link: LinkId },
    Quiet { server: usize, from: usize, wire: u64 },
    Beat { me: usize, other: usize, wire: u64 },
    Acked { me: usize, other: usize, wire: u64, sent: Time },
    Open(ConnId),
    Up(ConnId, Vec<u8>),
    Down(ConnId, Vec<u8>),
    DownClosed(ConnId),
}

/// Something that concerns the clients.
#[derive(Debug)]
pub enum Happening {
    /// A message for a client.
    Msg(Msg),
    /// A client's connection is gone.
    Gone,
}

struct Host {
    disk: MemDisk,
    server: Option<Server>,
    epoch: u32,
    wakes: Vec<Time>,
    between: BTreeMap<(usize, usize), Time>,
    /// How far its clock is from the right time.
    skew: Span,
}

/// What two servers have of each other. Each side has a number of its own.
struct Wire {
    id: u64,
    /// When the last frame of each direction arrives.
    last: [Time; 2],
    /// Whether a side has been told that the other is silent.
    quiet: [bool; 2],
}

struct Client {
    conn: Option<ConnId>,
    host: usize,
    protocol: Protocol,
    inbox: String,
}

/// A cluster and its surroundings.
pub struct World {
    agenda: Agenda<Event>,
    setup: Setup,
    hosts: Vec<Host>,
    wires: BTreeMap<(usize, usize), Wire>,
    /// Directions in which nothing gets through.
    cut: BTreeSet<(usize, usize)>,
    last_wire: u64,
    net: Net,
    homes: BTreeMap<ConnId, usize>,
    clients: Vec<Client>,
    happened: VecDeque<Happening>,
    rng: Rng,
    /// What happened.
    pub trace: Trace,
    wrong: Option<String>,
}

impl World {
    /// So many servers, none of which runs yet.
    pub fn new(seed: u64, setup: Setup, servers: usize, trace: Trace) -> World {
        let mut rng = Rng::new(seed ^ 0x5eed_0c15);
        let hosts = (0..servers).map(|_| Host {
            disk: MemDisk::default(),
            server: None,
            epoch: 0,
            wakes: vec![Time::NEVER; usize::from(setup.shards)],
            between: BTreeMap::new(),
            skew: Span((rng.below(2_000_000_000) as i64) - 1_000_000_000),
        });
        let mut hosts: Vec<Host> = hosts.collect();
        for host in &mut hosts {
            host.disk.ignores_syncs = setup.planted == Planted::LyingDisk;
        }
        World {
            agenda: Agenda::default(),
            setup,
            hosts,
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            last_wire: 0,
            net: Net::new(rng.next_u64()),
            homes: BTreeMap::new(),
            clients: Vec::new(),
            happened: VecDeque::new(),
            rng,
            trace,
            wrong: None,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.agenda.now()
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.hosts.len()
    }

    /// Whether a server runs.
    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].server.is_some()
    }

    /// What a server has of replicated streams.
    pub fn replicas(&self, host: usize) -> Vec<(String, u64, u64)> {
        self.hosts[host].server.as_ref().map(Server::replicas).unwrap_or_default()
    }

    fn time_of(&self, host: usize) -> Time {
        self.now() + self.hosts[host].skew
    }

    /// Starts a server; an error is a defect.
    pub fn boot(&mut self, host: usize) -> Result<(), String> {
        let now = self.time_of(host);
        let config = ClusterConfig {
            name: "C".to_owned(),
            expected: self.hosts.len() as u32,
            new_node: NodeId(self.rng.next_u64() >> 1),
            ..ClusterConfig::default()
        };
        let name = format!("s{host}");
        let mut seeds = Boot {
            rng: &mut self.rng,
            trace: &mut self.trace,
            tolerant: false,
            name: &name,
            cluster: Some(config),
            directory: Arc::default(),
        };
        let server = match Server::boot(now, self.setup, &mut self.hosts[host].disk, &mut seeds) {
            Ok(server) => server,
            Err(BootError::Refused(reason)) => return Err(format!("server {host} does not start: {reason}")),
            Err(BootError::PowerCut) => return Err("no power cut was asked for".to_owned()),
        };
        let one = &mut self.hosts[host];
        one.server = Some(server);
        one.epoch += 1;
        one.wakes.fill(Time::NEVER);
        self.trace.line(self.agenda.now(), || format!("server {host} started"));
        for shard in 0..usize::from(self.setup.shards) {
            self.wake(host, shard);
        }
        for other in 0..self.hosts.len() {
            self.rejoin(host, other);
        }
        Ok(())
    }

    /// The process dies; what it wrote is in the page cache.
    pub fn kill(&mut self, host: usize) {
        if self.hosts[host].server.take().is_none() {
            return;
        }
        self.hosts[host].epoch += 1;
        let now = self.now();
        self.trace.line(now, || format!("server {host} killed"));
        for other in 0..self.hosts.len() {
            self.part(host, other, true);
        }
        let conns: Vec<ConnId> =
            self.homes.iter().filter(|(_, home)| **home == host).map(|(conn, _)| *conn).collect();
        for conn in conns {
            let at = self.net.arrival(now, conn, Way::Down);
            self.agenda.at(at, Event::DownClosed(conn));
        }
    }

    /// The power fails: what was not synced may be lost.
    pub fn power_cut(&mut self, host: usize) {
        self.kill(host);
        self.trace.line(self.agenda.now(), || format!("server {host}: power cut"));
        self.hosts[host].disk.crash(&mut self.rng);
    }

    /// Nothing gets from one server to another any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        if self.cut.insert((from, to)) {
            self.trace.line(self.agenda.now(), || format!("nothing gets from {from} to {to}"));
            if let Some(wire) = self.wires.get(&key(from, to)) {
                self.agenda.after(QUIET, Event::Quiet { server: to, from, wire: wire.id });
            }
        }
    }

    /// The connection between two servers breaks; they dial again at once.
    pub fn break_link(&mut self, a: usize, b: usize) {
        self.trace.line(self.agenda.now(), || format!("the link between {a} and {b} breaks"));
        self.part(a, b, false);
        self.rejoin(a, b);
    }

    /// Everything gets everywhere again. Links on which something was lost are made anew.
    pub fn heal(&mut self) {
        self.trace.line(self.agenda.now(), || "the network is whole".to_owned());
        let cut = std::mem::take(&mut self.cut);
        for (from, to) in cut {
            self.part(from, to, false);
            self.rejoin(from, to);
        }
    }

    /// The link between two servers ends.
    fn part(&mut self, a: usize, b: usize, dead: bool) {
        let Some(wire) = self.wires.remove(&key(a, b)) else { return };
        for (me, other) in [(a, b), (b, a)] {
            let link = link_of(wire.id, me, other);
            if self.hosts[me].server.is_some() {
                self.input(me, 0, Input::Link(link, LinkInput::Down(LinkDown::Closed)));
                // Whoever is cut off does not learn whether the process lives.
                if dead && !self.cut.contains(&(me, other)) && !self.cut.contains(&(other, me)) {
                    let (server, epoch) = (me, self.hosts[me].epoch);
                    let after = Span(self.rng.below(REDIAL as u64) as i64);
                    self.agenda.after(after, Event::Refused { server, epoch, link });
                }
            }
        }
    }

    fn rejoin(&mut self, a: usize, b: usize) {
        if a != b {
            let after = Span(self.rng.below(REDIAL as u64) as i64);
            self.agenda.after(after, Event::Join { a, b });
        }
    }

    fn join(&mut self, a: usize, b: usize) {
        let is_open = !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a));
        let is_up = self.hosts[a].server.is_some() && self.hosts[b].server.is_some();
        if !is_open || !is_up || self.wires.contains_key(&key(a, b)) {
            return;
        }
        self.last_wire += 1;
        let wire = Wire { id: self.last_wire, last: [self.now(); 2], quiet: [false; 2] };
        self.wires.insert(key(a, b), wire);
        for (me, other) in [(a, b), (b, a)] {
            let node = self.hosts[other].server.as_ref().map_or(NodeId(0), Server::node);
            let (name, server_id) = (format!("s{other}"), format!("S{other}"));
            let peer = LinkPeer { server_id, name, cluster: "C".to_owned(), node, ..LinkPeer::default() };
            self.input(me, 0, Input::Link(link_of(self.last_wire, me, other), LinkInput::Up(peer)));
            self.agenda.after(Span::ZERO, Event::Beat { me, other, wire: self.last_wire });
        }
    }

    /// A further client; its number. It is not connected yet.
    pub fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        let inbox = format!("_INBOX.c{index}");
        self.clients.push(Client { conn: None, host: 0, protocol: Protocol::default(), inbox });
        index
    }

    /// Below what a client gets its answers.
    pub fn inbox(&self, client: usize) -> &str {
        &self.clients[client].inbox
    }

    /// Whether a client has a connection.
    pub fn is_connected(&self, client: usize) -> bool {
        self.clients[client].conn.is_some()
    }

    /// Connects a client to a server that runs.
    pub fn connect(&mut self, client: usize, host: usize) {
        if self.hosts[host].server.is_none() || self.clients[client].conn.is_some() {
            return;
        }
        let (conn, at) = self.net.open(self.agenda.now(), client);
        self.homes.insert(conn, host);
        let one = &mut self.clients[client];
        (one.conn, one.host, one.protocol) = (Some(conn), host, Protocol::default());
        let hello = hello(&one.inbox);
        self.agenda.at(at, Event::Open(conn));
        self.send(client, hello);
    }

    /// Sends a client's bytes; they are lost if it is not connected.
    pub fn send(&mut self, client: usize, bytes: Vec<u8>) {
        let Some(conn) = self.clients[client].conn else { return };
        for piece in self.net.fragments(bytes) {
            let at = self.net.arrival(self.agenda.now(), conn, Way::Up);
            self.agenda.at(at, Event::Up(conn, piece));
        }
    }

    /// The next thing that concerns clients, or None when `until` is reached; an error is a defect.
    pub fn next(&mut self, until: Time) -> Result<Option<Happening>, String> {
        loop {
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
            if let Some(happening) = self.happened.pop_front() {
                return Ok(Some(happening));
            }
            if self.agenda.next_time().is_none_or(|time| time > until) {
                self.agenda.advance(until);
                return Ok(None);
            }
            if let Some(event) = self.agenda.next() {
                self.handle(event);
            }
        }
    }

    fn is_current(&self, server: usize, epoch: u32) -> bool {
        self.hosts[server].epoch == epoch
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { server, epoch, shard } => {
                if self.is_current(server, epoch) && self.hosts[server].wakes[shard] == self.now() {
                    self.round(server, shard);
                }
            }
            Event::DiskEnds { server, epoch, lane } => {
                if self.is_current(server, epoch) {
                    self.with_volume(server, Some(lane));
                }
            }
            Event::Peer { server, epoch, to, from, batch } => {
                if self.is_current(server, epoch) {
                    self.input(server, to, Input::Peer(from, batch));
                }
            }
            Event::Link { from, to, wire, frame } => self.link(from, to, wire, frame),
            Event::Join { a, b } => self.join(a, b),
            Event::Refused { server, epoch, link } => {
                if self.is_current(server, epoch) {
                    self.input(server, 0, Input::Link(link, LinkInput::Down(LinkDown::Refused)));
                }
            }
            Event::Quiet { server, from, wire } => self.quiet(server, from, wire),
            Event::Beat { me, other, wire } => self.beat(me, other, wire),
            Event::Acked { me, other, wire, sent } => {
                let is_open = !self.cut.contains(&(me, other)) && !self.cut.contains(&(other, me));
                if is_open && self.wires.get(&key(me, other)).is_some_and(|found| found.id == wire) {
                    self.input(me, 0, Input::Link(link_of(wire, me, other), LinkInput::Acked(sent)));
                }
            }
            Event::Open(conn) => self.input_of(conn, Input::Open(conn)),
            Event::Up(conn, bytes) => self.input_of(conn, Input::Bytes(conn, bytes)),
            Event::Down(conn, bytes) => self.down(conn, &bytes),
            Event::DownClosed(conn) => {
                let Some(client) = self.net.client(conn) else { return };
                self.net.close(conn);
                self.homes.remove(&conn);
                if self.clients[client].conn == Some(conn) {
                    self.clients[client].conn = None;
                    self.happened.push_back(Happening::Gone);
                }
            }
        }
    }

    /// One server says that it is alive, and hears so in answer.
    fn beat(&mut self, me: usize, other: usize, wire: u64) {
        if self.wires.get(&key(me, other)).is_some_and(|found| found.id == wire) {
            let (sent, round) = (self.time_of(me), Span(self.rng.below(2_000_000) as i64));
            self.agenda.after(round, Event::Acked { me, other, wire, sent });
            self.agenda.after(Span::from_millis(100), Event::Beat { me, other, wire });
        }
    }

    fn quiet(&mut self, server: usize, from: usize, wire: u64) {
        if !self.cut.contains(&(from, server)) || self.hosts[server].server.is_none() {
            return;
        }
        let Some(found) = self.wires.get_mut(&key(server, from)).filter(|found| found.id == wire) else {
            return;
        };
        found.quiet[usize::from(server > from)] = true;
        self.input(server, 0, Input::Link(link_of(wire, server, from), LinkInput::Quiet(true)));
    }

    fn link(&mut self, from: usize, to: usize, wire: u64, frame: LinkFrame) {
        let is_there = self.wires.get(&key(from, to)).is_some_and(|found| found.id == wire);
        if !is_there || self.hosts[to].server.is_none() || self.cut.contains(&(from, to)) {
            return;
        }
        // Through the bytes, as on a real link.
        let frame = match frame {
            LinkFrame::Hub(batch) => match RemoteBatch::decode(batch.into_bytes()) {
                Ok(batch) => LinkFrame::Hub(batch),
                Err(error) => return self.wrong = Some(error.to_string()),
            },
            LinkFrame::Js(bytes) => LinkFrame::Js(Bytes::copy_from_slice(&bytes)),
        };
        self.input(to, 0, Input::Link(link_of(wire, to, from), LinkInput::Frame(frame)));
    }

    fn input_of(&mut self, conn: ConnId, input: Input) {
        if self.net.client(conn).is_none() {
            return;
        }
        let Some(host) = self.homes.get(&conn).copied() else { return };
        let Some(server) = &self.hosts[host].server else { return };
        let shard = server.shard_of(conn);
        self.input(host, shard, input);
    }

    fn input(&mut self, host: usize, shard: usize, input: Input) {
        let Some(server) = &mut self.hosts[host].server else { return };
        server.push(shard, input);
        self.wake(host, shard);
    }

    fn wake(&mut self, host: usize, shard: usize) {
        let at = self.now() + Span(self.rng.below(40_000) as i64);
        self.wake_at(host, shard, at);
    }

    fn wake_at(&mut self, host: usize, shard: usize, at: Time) {
        let at = at.max(self.now());
        let one = &mut self.hosts[host];
        if at < one.wakes[shard] {
            one.wakes[shard] = at;
            self.agenda.at(at, Event::Wake { server: host, epoch: one.epoch, shard });
        }
    }

    fn round(&mut self, host: usize, shard: usize) {
        let (now, local) = (self.now(), self.time_of(host));
        let one = &mut self.hosts[host];
        one.wakes[shard] = Time::NEVER;
        let epoch = one.epoch;
        let Some(server) = &mut one.server else { return };
        let output = server.round(local, shard);
        for text in &output.notices {
            self.trace.line(now, || format!("server {host}: {text}"));
        }
        for (conn, bytes) in output.bytes {
            self.trace.bytes(now, conn.0, &bytes);
            for piece in self.net.fragments(bytes) {
                let at = self.net.arrival(now, conn, Way::Down);
                self.agenda.at(at, Event::Down(conn, piece));
            }
        }
        for conn in output.closed {
            let at = self.net.arrival(now, conn, Way::Down);
            self.agenda.at(at, Event::DownClosed(conn));
        }
        for (to, batch) in output.peers {
            let (from, to) = (ShardId(shard as u16), usize::from(to.0));
            let last = self.hosts[host].between.entry((shard, to)).or_default();
            let at = (now + Span(self.rng.below(30_000) as i64)).max(*last);
            *last = at;
            self.agenda.at(at, Event::Peer { server: host, epoch, to, from, batch });
        }
        for (link, frame) in output.links {
            self.frame(host, link, frame);
        }
        if let Some(at) = output.wake {
            let at = Time(at.0.saturating_sub(self.hosts[host].skew.0));
            self.wake_at(host, shard, at);
        }
        self.with_volume(host, None);
    }

    fn frame(&mut self, from: usize, link: LinkId, frame: LinkFrame) {
        let (id, to) = (link.0 >> 8, (link.0 & 0xff) as usize);
        let now = self.now();
        let slow = if self.rng.chance(1, 80) { 50 } else { 1 };
        let delay = Span((slow * (30_000 + self.rng.below(300_000))) as i64);
        let Some(wire) = self.wires.get_mut(&key(from, to)).filter(|wire| wire.id == id) else { return };
        let last = &mut wire.last[usize::from(from > to)];
        *last = (now + delay).max(*last);
        let at = *last;
        if let LinkFrame::Js(bytes) = &frame {
            self.trace.bytes(now, link.0, bytes);
        }
        self.agenda.at(at, Event::Link { from, to, wire: id, frame });
    }

    /// Lets a store go on, after an operation of `ended` has ended.
    fn with_volume(&mut self, host: usize, ended: Option<Lane>) {
        let now = self.agenda.now();
        let one = &mut self.hosts[host];
        let Some(server) = &mut one.server else { return };
        let (disk, rng, trace) = (&mut one.disk, &mut self.rng, &mut self.trace);
        let mut io = Io { disk, rng, trace, now, planned: Vec::new() };
        match ended {
            Some(lane) => server.volume.handle_end(lane, &mut io),
            None => server.volume.pump(&mut io),
        }
        for (lane, span) in io.planned {
            self.agenda.after(span, Event::DiskEnds { server: host, epoch: one.epoch, lane });
        }
        let done = server.volume.take_done();
        if !done.is_empty() {
            done.into_iter().for_each(|completion| server.push(0, Input::Disk(completion)));
            self.wake(host, 0);
        }
    }

    fn down(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(index) = self.net.client(conn) else { return };
        let client = &mut self.clients[index];
        if client.conn != Some(conn) {
            return;
        }
        client.protocol.feed(bytes);
        let mut pongs = 0;
        loop {
            match client.protocol.next() {
                Ok(None) => break,
                Ok(Some(Said::Msg(msg))) => self.happened.push_back(Happening::Msg(msg)),
                Ok(Some(Said::Ping)) => pongs += 1,
                Ok(Some(Said::Info | Said::Pong | Said::Ok | Said::Err(_))) => {}
                Err(text) => {
                    self.wrong = Some(format!("the server speaks no protocol: {text}"));
                    return;
                }
            }
        }
        for _ in 0..pongs {
            self.send(index, b"PONG\r\n".to_vec());
        }
    }
}

fn key(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The number that a server has for a link: it says where the link leads.
fn link_of(wire: u64, _me: usize, other: usize) -> LinkId {
    LinkId(wire << 8 | other as u64)
}
