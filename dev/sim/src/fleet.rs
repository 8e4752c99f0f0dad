//! Several servers that form a cluster: each as it is, with its disk; their links as bytes through the real frames, over a
//! network that delays, breaks and parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::{PeerBatch, RemoteBatch};
use hw_kit::{ConnId, LinkId, NodeId, Rng, ShardId, Span, Time};
use hw_node::LinkFrame;
use hw_route::{Action, Channel, DialError, Mesh, MeshConfig, RouteUrl, SocketId};
use hw_testkit::disk::MemDisk;

use crate::client::{Msg, Protocol, Said};
use crate::clock::Agenda;
use crate::server::{Boot, Input, LinkInput, Output, Server, Setup};
use crate::trace::Trace;
use crate::volume::{Io, Lane};

/// How long an attempt to dial a server behind a partition takes.
const DIAL_TIME: Span = Span::from_secs(2);

enum Event {
    Wake {
        at: Place,
        shard: usize,
    },
    Mesh {
        at: Place,
    },
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
        socket: SocketId,
        to: usize,
    },
    /// On a connection between servers: to which end.
    Bytes {
        pipe: u64,
        end: usize,
        bytes: Vec<u8>,
    },
    Ended {
        pipe: u64,
        end: usize,
    },
    /// Bytes of a client, and bytes for one.
    Up(usize, ConnId, Vec<u8>),
    Down(usize, ConnId, Vec<u8>),
    Gone(usize, ConnId),
}

/// A server, and how often it was started: what was meant for an earlier life is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    server: usize,
    epoch: u32,
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A message for a client.
    Msg(usize, Msg),
    /// The answer to its PING.
    Pong(usize),
    /// Its connection is gone.
    Gone(usize),
}

struct Node {
    disk: MemDisk,
    directory: Arc<Directory>,
    server: Option<(Server, Mesh)>,
    epoch: u32,
    wakes: Vec<Time>,
    mesh_wake: Time,
    between: BTreeMap<(usize, usize), Time>,
}

/// A connection between two servers.
struct Pipe {
    /// Both ends: the server, its life, and its number for the connection.
    ends: [(Place, SocketId); 2],
    /// When the last bytes arrive there.
    last: [Time; 2],
    /// What a partition holds up, by end; `None` is the end of the connection.
    held: [VecDeque<Option<Vec<u8>>>; 2],
}

struct Client {
    server: usize,
    conn: Option<ConnId>,
    protocol: Protocol,
    last: Time,
}

/// Servers, their network, and clients.
pub struct Fleet {
    agenda: Agenda<Event>,
    setup: Setup,
    nodes: Vec<Node>,
    pipes: BTreeMap<u64, Pipe>,
    last_pipe: u64,
    parted: BTreeSet<(usize, usize)>,
    clients: Vec<Client>,
    last_conn: u64,
    heard: VecDeque<Heard>,
    rng: Rng,
    /// What happened.
    pub trace: Trace,
}

impl Fleet {
    /// One server for each directory, all running, with new disks. Each knows the address of the first.
    pub fn new(seed: u64, setup: Setup, directories: Vec<Arc<Directory>>) -> Result<Fleet, String> {
        let node = |directory| Node {
            disk: MemDisk::default(),
            directory,
            server: None,
            epoch: 0,
            wakes: vec![Time::NEVER; usize::from(setup.shards)],
            mesh_wake: Time::NEVER,
            between: BTreeMap::new(),
        };
        let mut fleet = Fleet {
            agenda: Agenda::default(),
            setup,
            nodes: directories.into_iter().map(node).collect(),
            pipes: BTreeMap::new(),
            last_pipe: 0,
            parted: BTreeSet::new(),
            clients: Vec::new(),
            last_conn: 0,
            heard: VecDeque::new(),
            rng: Rng::new(seed ^ 0x00f1_ee70),
            trace: Trace::new(false),
        };
        for server in 0..fleet.nodes.len() {
            fleet.boot(server)?;
        }
        Ok(fleet)
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.agenda.now()
    }

    /// Whether a server runs.
    pub fn is_up(&self, server: usize) -> bool {
        self.nodes[server].server.is_some()
    }

    /// How many links a server has.
    pub fn links(&self, server: usize) -> usize {
        self.nodes[server].server.as_ref().map_or(0, |(_, mesh)| mesh.links().len())
    }

    /// Starts a server on its disk. An error is a defect.
    pub fn boot(&mut self, server: usize) -> Result<(), String> {
        let now = self.now();
        let name = format!("S{server}");
        let node = &mut self.nodes[server];
        node.epoch += 1;
        let mut seeds = Boot {
            rng: &mut self.rng,
            trace: &mut self.trace,
            tolerant: false,
            name: &name,
            cluster: None,
            directory: node.directory.clone(),
        };
        let started = Server::boot(now, self.setup, &mut node.disk, &mut seeds);
        let started = started.map_err(|error| format!("server {server} does not start: {error:?}"))?;
        let config = MeshConfig {
            // A new one for each life, as real servers have.
            server_id: format!("N{server}-{}", node.epoch),
            name,
            node: NodeId(1000 + server as u64),
            cluster: "sim".to_owned(),
            address: format!("s:{server}"),
            auth_timeout: Span::from_secs(2),
            routes: vec![RouteUrl { address: "s:0".to_owned(), ..RouteUrl::default() }],
            connect_retries: 5,
            silent_after: Span::from_secs(3),
            seed: self.rng.next_u64(),
            ..MeshConfig::default()
        };
        node.server = Some((started, Mesh::new(now, config)));
        node.wakes.fill(Time::NEVER);
        node.mesh_wake = Time::NEVER;
        node.between.clear();
        for shard in 0..usize::from(self.setup.shards) {
            self.wake(server, shard);
        }
        self.arm_mesh(server);
        Ok(())
    }

    /// A process dies: its connections end.
    pub fn kill(&mut self, server: usize) {
        let node = &mut self.nodes[server];
        node.server = None;
        node.epoch += 1;
        let ends: Vec<(u64, usize)> = self.pipes_of(server).collect();
        for (pipe, end) in ends {
            self.send_end(pipe, 1 - end);
        }
        for client in 0..self.clients.len() {
            if self.clients[client].server == server {
                self.lose(client);
            }
        }
    }

    /// Nothing passes between two servers from now on; what is sent is held up.
    pub fn part(&mut self, a: usize, b: usize) {
        self.parted.insert((a.min(b), a.max(b)));
    }

    /// It passes again.
    pub fn heal(&mut self, a: usize, b: usize) {
        self.parted.remove(&(a.min(b), a.max(b)));
        let now = self.now();
        for (number, pipe) in &mut self.pipes {
            if self.parted.contains(&sides(pipe)) {
                continue;
            }
            for end in 0..2 {
                for bytes in std::mem::take(&mut pipe.held[end]) {
                    let at = now.max(pipe.last[end]);
                    pipe.last[end] = at;
                    let event = match bytes {
                        Some(bytes) => Event::Bytes { pipe: *number, end, bytes },
                        None => Event::Ended { pipe: *number, end },
                    };
                    self.agenda.at(at, event);
                }
            }
        }
    }

    /// All connections between two servers break, and what is on its way is lost.
    pub fn break_links(&mut self, a: usize, b: usize) {
        let wanted = (a.min(b), a.max(b));
        let broken: Vec<u64> =
            self.pipes.iter().filter(|(_, pipe)| sides(pipe) == wanted).map(|(n, _)| *n).collect();
        for number in broken {
            let Some(pipe) = self.pipes.remove(&number) else { continue };
            for (place, socket) in pipe.ends {
                self.close_socket(place, socket);
            }
        }
    }

    /// A further client of a server; its number. It is connected with this user.
    pub fn add_client(&mut self, server: usize, user: &str) -> usize {
        self.clients.push(Client { server, conn: None, protocol: Protocol::default(), last: Time(0) });
        let client = self.clients.len() - 1;
        self.connect(client, server, user);
        client
    }

    /// Connects a client, to another server perhaps.
    pub fn connect(&mut self, client: usize, server: usize, user: &str) {
        if !self.is_up(server) || self.clients[client].conn.is_some() {
            return;
        }
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let now = self.now();
        self.clients[client] = Client { server, conn: Some(conn), protocol: Protocol::default(), last: now };
        self.input_of(server, conn, Input::Open(conn));
        let options = r#""verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1"#;
        self.send(
            client,
            format!("CONNECT {{{options},\"user\":\"{user}\",\"pass\":\"{user}\"}}\r\n").into_bytes(),
        );
    }

    /// Whether a client has a connection.
    pub fn is_connected(&self, client: usize) -> bool {
        self.clients[client].conn.is_some()
    }

    /// Sends a client's bytes; they are lost if it is not connected.
    pub fn send(&mut self, client: usize, bytes: Vec<u8>) {
        let Some(conn) = self.clients[client].conn else { return };
        let at = self.client_delay(client);
        self.agenda.at(at, Event::Up(client, conn, bytes));
    }

    /// Lets time pass; what clients heard meanwhile.
    pub fn run(&mut self, span: Span) -> Vec<Heard> {
        let until = self.now() + span;
        while self.agenda.next_time().is_some_and(|time| time <= until) {
            if let Some(event) = self.agenda.next() {
                self.handle(event);
            }
        }
        self.agenda.advance(until);
        self.heard.drain(..).collect()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { at, shard } => {
                if self.lives(at) && self.nodes[at.server].wakes[shard] == self.now() {
                    self.round(at.server, shard);
                }
            }
            Event::Mesh { at } => {
                if self.lives(at) && self.nodes[at.server].mesh_wake == self.now() {
                    self.nodes[at.server].mesh_wake = Time::NEVER;
                    self.with_mesh(at.server, |mesh, now| mesh.handle_timeout(now));
                }
            }
            Event::DiskEnds { at, lane } if self.lives(at) => self.with_volume(at.server, Some(lane)),
            Event::Peer { at, to, from, batch } if self.lives(at) => {
                self.input(at.server, to, Input::Peer(from, batch));
            }
            Event::DiskEnds { .. } | Event::Peer { .. } => {}
            Event::Dialled { at, socket, to } => self.dialled(at, socket, to),
            Event::Bytes { pipe, end, bytes } => self.arrive(pipe, end, Some(bytes)),
            Event::Ended { pipe, end } => self.arrive(pipe, end, None),
            Event::Up(client, conn, bytes) => {
                let server = self.clients[client].server;
                if self.clients[client].conn == Some(conn) {
                    self.input_of(server, conn, Input::Bytes(conn, bytes));
                }
            }
            Event::Down(client, conn, bytes) => self.down(client, conn, &bytes),
            Event::Gone(client, conn) => {
                if self.clients[client].conn == Some(conn) {
                    self.lose(client);
                }
            }
        }
    }

    fn lives(&self, at: Place) -> bool {
        self.nodes[at.server].epoch == at.epoch && self.is_up(at.server)
    }

    fn place(&self, server: usize) -> Place {
        Place { server, epoch: self.nodes[server].epoch }
    }

    fn lose(&mut self, client: usize) {
        if self.clients[client].conn.take().is_some() {
            self.heard.push_back(Heard::Gone(client));
        }
    }

    fn client_delay(&mut self, client: usize) -> Time {
        let at = self.now() + Span(10_000 + self.rng.below(200_000) as i64);
        let last = &mut self.clients[client].last;
        *last = at.max(*last);
        *last
    }

    fn down(&mut self, client: usize, conn: ConnId, bytes: &[u8]) {
        if self.clients[client].conn != Some(conn) {
            return;
        }
        self.clients[client].protocol.feed(bytes);
        let mut pings = 0;
        while let Ok(Some(said)) = self.clients[client].protocol.next() {
            match said {
                Said::Msg(msg) => self.heard.push_back(Heard::Msg(client, msg)),
                Said::Pong => self.heard.push_back(Heard::Pong(client)),
                Said::Ping => pings += 1,
                Said::Err(text) => panic!("client {client} is told {text:?}"),
                Said::Info | Said::Ok => {}
            }
        }
        for _ in 0..pings {
            self.send(client, b"PONG\r\n".to_vec());
        }
    }

    fn input_of(&mut self, server: usize, conn: ConnId, input: Input) {
        let Some((running, _)) = &self.nodes[server].server else { return };
        let shard = running.shard_of(conn);
        self.input(server, shard, input);
    }

    fn input(&mut self, server: usize, shard: usize, input: Input) {
        if let Some((running, _)) = &mut self.nodes[server].server {
            running.push(shard, input);
            self.wake(server, shard);
        }
    }

    fn wake(&mut self, server: usize, shard: usize) {
        let at = self.now() + Span(self.rng.below(40_000) as i64);
        self.wake_at(server, shard, at);
    }

    fn wake_at(&mut self, server: usize, shard: usize, at: Time) {
        let (at, place) = (at.max(self.now()), self.place(server));
        let wake = &mut self.nodes[server].wakes[shard];
        if at < *wake {
            *wake = at;
            self.agenda.at(at, Event::Wake { at: place, shard });
        }
    }

    fn round(&mut self, server: usize, shard: usize) {
        let (now, place) = (self.now(), self.place(server));
        self.nodes[server].wakes[shard] = Time::NEVER;
        let Some((running, _)) = &mut self.nodes[server].server else { return };
        let Output { bytes, closed, peers, links, wake, .. } = running.round(now, shard);
        for (conn, bytes) in bytes {
            self.trace.bytes(now, conn.0, &bytes);
            if let Some(client) = self.client_of(conn) {
                let at = self.client_delay(client);
                self.agenda.at(at, Event::Down(client, conn, bytes));
            }
        }
        for conn in closed {
            if let Some(client) = self.client_of(conn) {
                let at = self.client_delay(client);
                self.agenda.at(at, Event::Gone(client, conn));
            }
        }
        for (to, batch) in peers {
            let to = usize::from(to.0);
            let delay = Span(self.rng.below(30_000) as i64);
            let last = self.nodes[server].between.entry((shard, to)).or_default();
            *last = (now + delay).max(*last);
            let event = Event::Peer { at: place, to, from: ShardId(shard as u16), batch };
            self.agenda.at(*last, event);
        }
        for (link, frame) in links {
            let (channel, body) = match frame {
                LinkFrame::Hub(batch) => (Channel::Hub, batch.into_bytes()),
                LinkFrame::Js(body) => (Channel::Js, body),
            };
            self.with_mesh(server, |mesh, now| mesh.handle_send(now, link, channel, body));
        }
        if let Some(at) = wake {
            self.wake_at(server, shard, at);
        }
        self.with_volume(server, None);
    }

    fn client_of(&self, conn: ConnId) -> Option<usize> {
        self.clients.iter().position(|client| client.conn == Some(conn))
    }

    fn with_volume(&mut self, server: usize, ended: Option<Lane>) {
        let (now, place) = (self.now(), self.place(server));
        let node = &mut self.nodes[server];
        let Some((running, _)) = &mut node.server else { return };
        let (disk, rng, trace) = (&mut node.disk, &mut self.rng, &mut self.trace);
        let mut io = Io { disk, rng, trace, now, planned: Vec::new() };
        match ended {
            Some(lane) => running.volume.handle_end(lane, &mut io),
            None => running.volume.pump(&mut io),
        }
        for (lane, span) in io.planned {
            self.agenda.after(span, Event::DiskEnds { at: place, lane });
        }
        let done = running.volume.take_done();
        if !done.is_empty() {
            done.into_iter().for_each(|completion| running.push(0, Input::Disk(completion)));
            self.wake(server, 0);
        }
    }

    /// Does something with a server's mesh, and what that wants done.
    fn with_mesh(&mut self, server: usize, act: impl FnOnce(&mut Mesh, Time)) {
        let now = self.now();
        let Some((_, mesh)) = &mut self.nodes[server].server else { return };
        act(mesh, now);
        while let Some((_, mesh)) = &mut self.nodes[server].server {
            let actions = mesh.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(server, action);
            }
        }
        self.arm_mesh(server);
    }

    fn arm_mesh(&mut self, server: usize) {
        let (now, place) = (self.now(), self.place(server));
        let node = &mut self.nodes[server];
        let next = node.server.as_ref().and_then(|(_, mesh)| mesh.next_deadline());
        if let Some(at) = next.map(|at| at.max(now)).filter(|at| *at < node.mesh_wake) {
            node.mesh_wake = at;
            self.agenda.at(at, Event::Mesh { at: place });
        }
    }

    fn perform(&mut self, server: usize, action: Action) {
        let (now, place) = (self.now(), self.place(server));
        let mut link = |link: LinkId, input: LinkInput| self.input(server, 0, Input::Link(link, input));
        match action {
            Action::Up { link: id, peer } => link(id, LinkInput::Up(peer)),
            Action::Down { link: id, why } => link(id, LinkInput::Down(why)),
            Action::Quiet { link: id, quiet } => link(id, LinkInput::Quiet(quiet)),
            Action::Acked { link: id, at } => link(id, LinkInput::Acked(at)),
            Action::Received { link: id, channel: Channel::Js, body } => {
                link(id, LinkInput::Frame(LinkFrame::Js(body)));
            }
            Action::Received { link: id, channel: Channel::Hub, body } => {
                let batch = RemoteBatch::decode(body).unwrap_or_else(|error| panic!("{error}"));
                link(id, LinkInput::Frame(LinkFrame::Hub(batch)));
            }
            Action::Dial { socket, address } => {
                let to: usize = address.strip_prefix("s:").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
                let parted = self.parted.contains(&(server.min(to), server.max(to)));
                let delay = if parted { DIAL_TIME } else { Span(self.rng.below(300_000) as i64) };
                self.agenda.at(now + delay, Event::Dialled { at: place, socket, to });
            }
            Action::Write(socket) => self.flush(server, socket),
            Action::Close(socket) => {
                self.flush(server, socket);
                let ours = self.pipes_of(server).find(|(pipe, end)| self.pipes[pipe].ends[*end].1 == socket);
                if let Some((pipe, end)) = ours {
                    self.send_end(pipe, 1 - end);
                }
                if let Some((_, mesh)) = &mut self.nodes[server].server {
                    mesh.handle_closed(now, socket);
                }
            }
            Action::News | Action::Remark(_) => {}
        }
    }

    fn dialled(&mut self, at: Place, socket: SocketId, to: usize) {
        if !self.lives(at) {
            return;
        }
        let parted = self.parted.contains(&(at.server.min(to), at.server.max(to)));
        let result = match self.nodes.get(to).is_some_and(|node| node.server.is_some()) {
            _ if parted => Err(DialError::Other("timeout".to_owned())),
            true => Ok(()),
            false => Err(DialError::Refused),
        };
        if result.is_ok() {
            let there = self.place(to);
            let (now, mut accepted) = (self.now(), SocketId(0));
            self.with_mesh(to, |mesh, now| accepted = mesh.handle_accepted(now, format!("x:{}", at.server)));
            self.last_pipe += 1;
            let ends = [(at, socket), (there, accepted)];
            self.pipes.insert(self.last_pipe, Pipe { ends, last: [now; 2], held: Default::default() });
        }
        self.with_mesh(at.server, |mesh, now| mesh.handle_dialled(now, socket, result));
    }

    /// The connections of a server, and which end is its.
    fn pipes_of(&self, server: usize) -> impl Iterator<Item = (u64, usize)> {
        self.pipes.iter().flat_map(move |(number, pipe)| {
            (0..2).filter(move |end| pipe.ends[*end].0.server == server).map(|end| (*number, end))
        })
    }

    fn flush(&mut self, server: usize, socket: SocketId) {
        let now = self.now();
        let place = self.place(server);
        loop {
            let Some((_, mesh)) = &mut self.nodes[server].server else { return };
            let mut bytes = Vec::new();
            mesh.take_output(now, socket, &mut bytes);
            if bytes.is_empty() {
                return;
            }
            self.trace.bytes(now, socket.0 | 1 << 60, &bytes);
            let found = self.pipes.iter().find_map(|(number, pipe)| {
                let end = pipe.ends.iter().position(|end| *end == (place, socket))?;
                Some((*number, 1 - end))
            });
            let Some((pipe, end)) = found else { continue };
            let at = self.delay(pipe, end);
            // Bytes come in pieces of any size.
            let rest = bytes.split_off(self.rng.below(bytes.len() as u64) as usize);
            for bytes in [bytes, rest].into_iter().filter(|piece| !piece.is_empty()) {
                self.agenda.at(at, Event::Bytes { pipe, end, bytes });
            }
        }
    }

    fn send_end(&mut self, pipe: u64, end: usize) {
        let at = self.delay(pipe, end);
        self.agenda.at(at, Event::Ended { pipe, end });
    }

    fn delay(&mut self, pipe: u64, end: usize) -> Time {
        let slow = if self.rng.chance(1, 100) { 50 } else { 1 };
        let at = self.agenda.now() + Span((20_000 + self.rng.below(300_000) as i64) * slow);
        let Some(pipe) = self.pipes.get_mut(&pipe) else { return at };
        pipe.last[end] = at.max(pipe.last[end]);
        pipe.last[end]
    }

    /// Bytes, or the end of a connection, are there; unless the servers are parted.
    fn arrive(&mut self, number: u64, end: usize, bytes: Option<Vec<u8>>) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        if self.parted.contains(&sides(pipe)) || !pipe.held[end].is_empty() {
            pipe.held[end].push_back(bytes);
            return;
        }
        let (place, socket) = pipe.ends[end];
        match bytes {
            Some(bytes) if self.lives(place) => {
                self.with_mesh(place.server, |mesh, now| mesh.handle_bytes(now, socket, &bytes));
            }
            Some(_) => {}
            None => {
                self.pipes.remove(&number);
                self.close_socket(place, socket);
            }
        }
    }

    fn close_socket(&mut self, place: Place, socket: SocketId) {
        if self.lives(place) {
            self.with_mesh(place.server, |mesh, now| mesh.handle_closed(now, socket));
        }
    }
}

/// The two servers of a connection.
fn sides(pipe: &Pipe) -> (usize, usize) {
    let [(a, _), (b, _)] = pipe.ends;
    (a.server.min(b.server), a.server.max(b.server))
}
