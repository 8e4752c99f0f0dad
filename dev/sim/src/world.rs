//! Everything that moves: servers and their disks, the connections between them and to clients, step by step in virtual
//! time. One server alone, servers that pass messages on, or a cluster that replicates.

mod clients;
mod faults;
mod forge;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::PeerBatch;
use hw_kit::{ConnId, NodeId, Rng, ShardId, Span, Time, WallClock};
use hw_node::{ClusterConfig, LinkFrame};
use hw_route::{Channel, Mesh};
use hw_testkit::disk::MemDisk;

use crate::client::Msg;
use crate::clock::Agenda;
use crate::invariants::agree::Agreement;
use crate::net::{Net, Way};
use crate::planted::Planted;
use crate::server::{Boot, BootError, Input, Server, Setup};
use crate::trace::Trace;
use crate::volume::{Io, Lane};

use clients::Client;
use links::Links;

/// Rounds of one shard without any time passing: more means that it turns in circles.
const ROUNDS_PER_INSTANT: u32 = 2000;

/// What happens next.
enum Event {
    Wake {
        at: Place,
        shard: usize,
    },
    Mesh(Place),
    DiskEnds {
        at: Place,
        lane: Lane,
    },
    Peer {
        at: Place,
        to: usize,
        from: ShardId,
        batch: PeerBatch,
    },
    Dialled {
        at: Place,
        socket: hw_route::SocketId,
        to: usize,
    },
    /// On a connection between servers: to which end. Without bytes it ends.
    Pipe {
        pipe: u64,
        end: usize,
        bytes: Option<Vec<u8>>,
    },
    Open(ConnId),
    Up(ConnId, Vec<u8>),
    UpClosed(ConnId),
    Down(ConnId, Vec<u8>),
    DownClosed(ConnId),
    Alarm(u64),
    Resume(Place),
}

/// A server, and how often it was started or stopped: what was meant for an earlier life is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    host: usize,
    epoch: u32,
}

/// Something that concerns the clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A message for a client.
    Msg(usize, Msg),
    /// The answer to a client's PING.
    Pong(usize),
    /// A client's connection is gone.
    Gone(usize),
    /// A client was told of an error.
    Error(usize, String),
    /// An alarm that was set.
    Alarm(u64),
}

/// Which servers there are.
pub struct Ground {
    /// The accounts and users of each.
    pub directories: Vec<Arc<Directory>>,
    /// Whether they are linked.
    pub linked: bool,
    /// Whether they replicate.
    pub replicated: bool,
}

impl Ground {
    /// One server.
    pub fn alone() -> Ground {
        Ground { directories: vec![Arc::default()], linked: false, replicated: false }
    }
}

/// How a server starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// The power may fail in the middle, several times.
    pub cuts: bool,
    /// A report of damage is no reason not to start.
    pub tolerant: bool,
}

struct Host {
    disk: MemDisk,
    directory: Arc<Directory>,
    server: Option<(Server, Mesh)>,
    epoch: u32,
    wakes: Vec<Time>,
    mesh_wake: Time,
    /// When the last batch from one shard to another arrives.
    between: BTreeMap<(usize, usize), Time>,
    clock: WallClock,
    /// How far its clock is from the right time.
    skew: Span,
    /// How often slower its disk is than others.
    slow: i64,
    /// It gets no time; what happens to it meanwhile waits.
    frozen: Option<VecDeque<Event>>,
    rounds: (Time, u32),
}

/// What a seed makes.
pub struct World {
    agenda: Agenda<Event>,
    setup: Setup,
    hosts: Vec<Host>,
    linked: bool,
    replicated: bool,
    links: Links,
    net: Net,
    homes: BTreeMap<ConnId, usize>,
    clients: Vec<Client>,
    happened: VecDeque<Happening>,
    rng: Rng,
    /// What happened.
    pub trace: Trace,
    /// What replicas were seen to have.
    pub agreement: Agreement,
    checkpoints: u64,
    rewritten: u64,
    wrong: Option<String>,
}

impl World {
    /// A world with new disks, in which no server runs.
    pub fn new(seed: u64, setup: Setup, ground: Ground, trace: Trace) -> World {
        let mut rng = Rng::new(seed ^ 0x5eed_0001);
        let Ground { directories, linked, replicated } = ground;
        let host = |directory| {
            let skew =
                if replicated { Span(rng.below(2_000_000_000) as i64 - 1_000_000_000) } else { Span::ZERO };
            Host {
                disk: new_disk(setup),
                directory,
                server: None,
                epoch: 0,
                wakes: vec![Time::NEVER; usize::from(setup.shards)],
                mesh_wake: Time::NEVER,
                between: BTreeMap::new(),
                clock: WallClock::default(),
                skew,
                slow: 1,
                frozen: None,
                rounds: (Time(0), 0),
            }
        };
        World {
            agenda: Agenda::default(),
            setup,
            hosts: directories.into_iter().map(host).collect(),
            linked,
            replicated,
            links: Links::default(),
            net: Net::new(rng.next_u64()),
            homes: BTreeMap::new(),
            clients: Vec::new(),
            happened: VecDeque::new(),
            rng,
            trace,
            agreement: Agreement::default(),
            checkpoints: 0,
            rewritten: 0,
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

    /// Whether they replicate.
    pub fn is_replicated(&self) -> bool {
        self.replicated
    }

    /// Whether a server runs.
    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].server.is_some()
    }

    /// A running server.
    pub fn server(&self, host: usize) -> Option<&Server> {
        self.hosts[host].server.as_ref().map(|(server, _)| server)
    }

    /// A server that takes itself for the leader of a replicated stream.
    pub fn leader_of(&self, stream: &str) -> Option<usize> {
        let leads = |host: &usize| {
            let server = self.server(*host);
            server.is_some_and(|server| server.replicas().any(|one| one.leads && one.stream == stream))
        };
        (0..self.hosts.len()).find(leads)
    }

    /// The server that leads the meta group.
    pub fn meta_leader(&self) -> Option<usize> {
        (0..self.hosts.len())
            .find(|host| self.server(*host).is_some_and(|server| server.leads_meta(self.now())))
    }

    /// A server that is fetching the state of a stream, and which stream.
    pub fn fetching(&self) -> Option<(usize, String)> {
        let of = |host: usize| {
            let mut replicas = self.server(host)?.replicas();
            replicas.find(|one| !one.is_whole).map(|one| (host, one.stream.to_owned()))
        };
        (0..self.hosts.len()).find_map(of)
    }

    /// How many links a server has.
    pub fn links(&self, host: usize) -> usize {
        self.hosts[host].server.as_ref().map_or(0, |(_, mesh)| mesh.links().len())
    }

    /// A server's disk; it outlives the server.
    pub fn disk(&mut self, host: usize) -> &mut MemDisk {
        &mut self.hosts[host].disk
    }

    /// The same, to look at.
    pub fn look_at_disk(&self, host: usize) -> &MemDisk {
        &self.hosts[host].disk
    }

    /// Checkpoints that were completed so far.
    pub fn checkpoints(&self) -> u64 {
        let running = self.hosts.iter().filter_map(|host| host.server.as_ref());
        self.checkpoints + running.map(|(server, _)| server.volume.checkpoints()).sum::<u64>()
    }

    /// Segments that were made of others so far.
    pub fn rewritten(&self) -> u64 {
        let running = self.hosts.iter().filter_map(|host| host.server.as_ref());
        self.rewritten + running.map(|(server, _)| server.volume.rewritten()).sum::<u64>()
    }

    /// Whether a server's store has stopped, or only its reserve is left.
    pub fn is_in_trouble(&self, host: usize) -> (bool, bool) {
        let volume = self.server(host).map(|server| &server.volume);
        volume.map_or((false, false), |volume| (volume.has_failed(), volume.is_full()))
    }

    /// Streams whose data a server knows to be damaged.
    pub fn damaged(&self, host: usize) -> Vec<String> {
        self.server(host).map(Server::damaged).unwrap_or_default()
    }

    /// What a server takes for the time.
    fn time_of(&mut self, host: usize) -> Time {
        let now = self.agenda.now();
        let one = &mut self.hosts[host];
        let local = one.clock.read(now, now + one.skew);
        if let Some(step) = one.clock.take_step()
            && let Some((server, _)) = &mut one.server
        {
            // A server hears of a clock that was set before it sees the time.
            server.handle_clock_step(step);
        }
        local
    }

    fn place(&self, host: usize) -> Place {
        Place { host, epoch: self.hosts[host].epoch }
    }

    fn lives(&self, at: Place) -> bool {
        self.hosts[at.host].epoch == at.epoch && self.is_up(at.host)
    }

    /// Starts a server; an error is a defect.
    pub fn boot(&mut self, host: usize, start: Start) -> Result<(), String> {
        assert!(!self.is_up(host), "one process at a time");
        let name = if self.linked { format!("s{host}") } else { String::new() };
        self.hosts[host].clock = WallClock::default();
        let server = loop {
            if start.cuts && self.rng.chance(1, 3) {
                self.hosts[host].disk.ops_left = Some(self.rng.below(40));
            }
            let local = self.time_of(host);
            let cluster = self.replicated.then(|| ClusterConfig {
                name: "C".to_owned(),
                expected: self.hosts.len() as u32,
                new_node: match self.setup.planted {
                    Planted::OldIdentity => NodeId(100 + host as u64),
                    _ => NodeId(self.rng.next_u64() >> 1),
                },
                ..ClusterConfig::default()
            });
            let one = &mut self.hosts[host];
            self.trace.host = host;
            let mut seeds = Boot {
                rng: &mut self.rng,
                trace: &mut self.trace,
                tolerant: start.tolerant,
                name: &name,
                cluster,
                directory: one.directory.clone(),
            };
            match Server::boot(local, self.setup, &mut one.disk, &mut seeds) {
                Ok(server) if !start.tolerant && !server.damaged().is_empty() => {
                    one.disk.ops_left = None;
                    return Err(format!("server {host} finds damage: {:?}", server.damaged()));
                }
                Ok(server) => break server,
                Err(BootError::PowerCut) => {
                    self.trace.line(self.agenda.now(), || format!("server {host}: power cut while starting"));
                    one.disk.crash(&mut self.rng);
                }
                Err(BootError::Refused(reason)) => {
                    one.disk.ops_left = None;
                    return Err(format!("server {host} does not start: {reason}"));
                }
            }
        };
        let mesh = self.new_mesh(host, &name, server.node());
        let one = &mut self.hosts[host];
        one.disk.ops_left = None;
        one.server = Some((server, mesh));
        one.epoch += 1;
        one.wakes.fill(Time::NEVER);
        one.mesh_wake = Time::NEVER;
        one.between.clear();
        one.frozen = None;
        self.agreement.restarted(host);
        self.trace.line(self.agenda.now(), || format!("server {host} started"));
        for shard in 0..usize::from(self.setup.shards) {
            self.wake(host, shard);
        }
        if self.linked {
            self.arm_mesh(host);
        }
        Ok(())
    }

    /// Rings later, with a number.
    pub fn alarm(&mut self, after: Span, number: u64) {
        self.agenda.after(after, Event::Alarm(number));
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

    /// Lets time pass; what concerned clients meanwhile. An error is a defect.
    pub fn run(&mut self, span: Span) -> Result<Vec<Happening>, String> {
        let until = self.now() + span;
        let mut all = Vec::new();
        while let Some(happening) = self.next(until)? {
            all.push(happening);
        }
        Ok(all)
    }

    /// Which server something happens to, if it is one that gets no time.
    fn frozen_for(&self, event: &Event) -> Option<usize> {
        let host = match event {
            Event::Wake { at, .. }
            | Event::Mesh(at)
            | Event::DiskEnds { at, .. }
            | Event::Peer { at, .. }
            | Event::Dialled { at, .. } => self.lives(*at).then_some(at.host),
            Event::Pipe { pipe, end, .. } => self.links.host_at(*pipe, *end),
            Event::Open(conn) | Event::Up(conn, _) | Event::UpClosed(conn) => self.homes.get(conn).copied(),
            Event::Down(..) | Event::DownClosed(_) | Event::Alarm(_) | Event::Resume(_) => None,
        };
        host.filter(|host| self.hosts[*host].frozen.is_some())
    }

    fn handle(&mut self, event: Event) {
        if let Some(host) = self.frozen_for(&event)
            && let Some(frozen) = &mut self.hosts[host].frozen
        {
            return frozen.push_back(event);
        }
        match event {
            Event::Wake { at, shard } => {
                if self.lives(at) && self.hosts[at.host].wakes[shard] <= self.now() {
                    self.round(at.host, shard);
                }
            }
            Event::Mesh(at) => {
                if self.lives(at) && self.hosts[at.host].mesh_wake <= self.now() {
                    self.hosts[at.host].mesh_wake = Time::NEVER;
                    self.with_mesh(at.host, |mesh, now| mesh.handle_timeout(now));
                }
            }
            Event::DiskEnds { at, lane } if self.lives(at) => self.with_volume(at.host, Some(lane)),
            Event::Peer { at, to, from, batch } if self.lives(at) => {
                self.input(at.host, to, Input::Peer(from, batch));
            }
            Event::DiskEnds { .. } | Event::Peer { .. } => {}
            Event::Dialled { at, socket, to } => self.dialled(at, socket, to),
            Event::Pipe { pipe, end, bytes } => self.arrive(pipe, end, bytes),
            Event::Open(conn) => self.input_of(conn, Input::Open(conn)),
            Event::Up(conn, bytes) => self.input_of(conn, Input::Bytes(conn, bytes)),
            Event::UpClosed(conn) => {
                self.input_of(conn, Input::Closed(conn));
                self.net.close(conn);
                self.homes.remove(&conn);
            }
            Event::Down(conn, bytes) => self.down(conn, &bytes),
            Event::DownClosed(conn) => self.down_closed(conn),
            Event::Alarm(number) => self.happened.push_back(Happening::Alarm(number)),
            Event::Resume(at) => {
                if self.lives(at) {
                    self.resume(at.host);
                }
            }
        }
    }

    fn input_of(&mut self, conn: ConnId, input: Input) {
        // A connection from before a restart is unknown to the server that runs now.
        if self.net.client(conn).is_none() {
            return;
        }
        let Some(host) = self.homes.get(&conn).copied() else { return };
        let Some(shard) = self.server(host).map(|server| server.shard_of(conn)) else { return };
        self.input(host, shard, input);
    }

    fn input(&mut self, host: usize, shard: usize, input: Input) {
        let Some((server, _)) = &mut self.hosts[host].server else { return };
        server.push(shard, input);
        self.wake(host, shard);
    }

    /// A shard acts soon: what comes until then is one round's.
    fn wake(&mut self, host: usize, shard: usize) {
        let at = self.now() + Span(self.rng.below(40_000) as i64);
        self.wake_at(host, shard, at);
    }

    fn wake_at(&mut self, host: usize, shard: usize, at: Time) {
        let (at, place) = (at.max(self.now()), self.place(host));
        let wake = &mut self.hosts[host].wakes[shard];
        if at < *wake {
            *wake = at;
            self.agenda.at(at, Event::Wake { at: place, shard });
        }
    }

    fn round(&mut self, host: usize, shard: usize) {
        let (now, local) = (self.now(), self.time_of(host));
        let one = &mut self.hosts[host];
        one.rounds = if one.rounds.0 == now { (now, one.rounds.1 + 1) } else { (now, 1) };
        if one.rounds.1 > ROUNDS_PER_INSTANT {
            self.wrong = Some(format!("shard {shard} turns in circles: its next deadline does not move"));
            return;
        }
        one.wakes[shard] = Time::NEVER;
        let Some((server, mesh)) = &mut one.server else { return };
        if self.setup.planted == Planted::EndlessLease && shard == 0 {
            let acked = |link| Input::Link(link, crate::server::LinkInput::Acked(now));
            mesh.links().into_iter().for_each(|view| server.push(0, acked(view.link)));
        }
        let output = server.round(local, now, shard);
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
        let place = self.place(host);
        for (to, batch) in output.peers {
            let (from, to) = (ShardId(shard as u16), usize::from(to.0));
            let last = self.hosts[host].between.entry((shard, to)).or_default();
            *last = (now + Span(self.rng.below(30_000) as i64)).max(*last);
            let at = *last;
            self.agenda.at(at, Event::Peer { at: place, to, from, batch });
        }
        for (link, frame) in output.links {
            let (channel, body) = match frame {
                LinkFrame::Hub(batch) => (Channel::Hub, batch.into_bytes()),
                LinkFrame::Js(body) => (Channel::Js, body),
            };
            self.with_mesh(host, |mesh, now| mesh.handle_send(now, link, channel, body));
        }
        if let Some(at) = output.wake {
            self.wake_at(host, shard, now + at.since(local));
        }
        self.with_volume(host, None);
        if shard == 0 && self.replicated {
            self.compare(host);
        }
    }

    /// What a server has applied is what others have, or had, at the same entry.
    fn compare(&mut self, host: usize) {
        let Some((server, _)) = &self.hosts[host].server else { return };
        if let Err(text) = self.agreement.look(host, server) {
            self.wrong.get_or_insert(text);
        }
    }

    /// Lets the store go on, after an operation of `ended` has ended.
    fn with_volume(&mut self, host: usize, ended: Option<Lane>) {
        let (now, place) = (self.now(), self.place(host));
        let one = &mut self.hosts[host];
        let Some((server, _)) = &mut one.server else { return };
        let (disk, rng, trace) = (&mut one.disk, &mut self.rng, &mut self.trace);
        trace.host = host;
        let mut io = Io { disk, rng, trace, now, planned: Vec::new() };
        match ended {
            Some(lane) => server.volume.handle_end(lane, &mut io),
            None => server.volume.pump(&mut io),
        }
        for (lane, span) in io.planned {
            self.agenda.after(Span(span.0 * one.slow), Event::DiskEnds { at: place, lane });
        }
        let done = server.volume.take_done();
        if !done.is_empty() {
            done.into_iter().for_each(|completion| server.push(0, Input::Disk(completion)));
            self.wake(host, 0);
        }
    }
}

/// An empty disk.
fn new_disk(setup: Setup) -> MemDisk {
    let mut disk = MemDisk::default();
    disk.ignores_syncs = setup.planted == Planted::LyingDisk;
    disk
}
