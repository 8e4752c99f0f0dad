//! Everything that moves: one server, its disk, the network and the clients' connections, step by step in virtual time.

use std::collections::{BTreeMap, VecDeque};

use std::sync::Arc;

use hw_hub::PeerBatch;
use hw_kit::{ConnId, Rng, ShardId, Span, Time};
use hw_testkit::disk::MemDisk;

use crate::client::{Msg, Protocol, Said, hello};
use crate::clock::Agenda;
use crate::net::{Net, Way};
use crate::server::{Boot, BootError, Input, Server, Setup};
use crate::trace::Trace;
use crate::volume::{Io, Lane};

/// Rounds of one shard without any time passing: more means that it turns in circles.
const ROUNDS_PER_INSTANT: u32 = 2000;

enum Event {
    Wake { epoch: u32, shard: usize },
    DiskEnds { epoch: u32, lane: Lane },
    Peer { epoch: u32, to: usize, from: ShardId, batch: PeerBatch },
    Open(ConnId),
    Up(ConnId, Vec<u8>),
    UpClosed(ConnId),
    Down(ConnId, Vec<u8>),
    DownClosed(ConnId),
    Alarm(u64),
}

/// Something that concerns the clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A message for a client.
    Msg(usize, Msg),
    /// A client's connection is gone.
    Gone(usize),
    /// A client was told of an error.
    Error(usize, String),
    /// An alarm that was set.
    Alarm(u64),
}

struct Client {
    conn: Option<ConnId>,
    protocol: Protocol,
    inbox: String,
}

/// What a seed makes.
pub struct World {
    agenda: Agenda<Event>,
    setup: Setup,
    /// The disk; it outlives the server.
    pub disk: MemDisk,
    server: Option<Server>,
    epoch: u32,
    wakes: Vec<Time>,
    net: Net,
    clients: Vec<Client>,
    happened: VecDeque<Happening>,
    rng: Rng,
    /// What happened.
    pub trace: Trace,
    rounds: (Time, u32),
    /// When the last batch from one shard to another arrives.
    between: BTreeMap<(usize, usize), Time>,
    checkpoints: u64,
    rewritten: u64,
    wrong: Option<String>,
    tolerant: bool,
}

impl World {
    /// A world with a new disk and no server.
    pub fn new(seed: u64, setup: Setup, trace: Trace) -> World {
        let mut rng = Rng::new(seed ^ 0x5eed_0001);
        let mut disk = MemDisk::default();
        disk.ignores_syncs = setup.planted == crate::Planted::LyingDisk;
        World {
            agenda: Agenda::default(),
            setup,
            disk,
            server: None,
            epoch: 0,
            wakes: vec![Time::NEVER; usize::from(setup.shards)],
            net: Net::new(rng.next_u64()),
            clients: Vec::new(),
            happened: VecDeque::new(),
            rng,
            trace,
            rounds: (Time(0), 0),
            between: BTreeMap::new(),
            checkpoints: 0,
            rewritten: 0,
            wrong: None,
            tolerant: false,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.agenda.now()
    }

    /// Checkpoints that were completed so far.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints + self.server.as_ref().map_or(0, |server| server.volume.checkpoints())
    }

    /// Segments that were made of others so far.
    pub fn rewritten(&self) -> u64 {
        self.rewritten + self.server.as_ref().map_or(0, |server| server.volume.rewritten())
    }

    /// Starts the server; with `cuts` the power may fail in the middle, several times. An error is a defect.
    pub fn boot(&mut self, cuts: bool) -> Result<(), String> {
        assert!(self.server.is_none(), "one server at a time");
        loop {
            if cuts && self.rng.chance(1, 3) {
                self.disk.ops_left = Some(self.rng.below(40));
            }
            let now = self.now();
            let mut seeds = Boot {
                rng: &mut self.rng,
                trace: &mut self.trace,
                tolerant: self.tolerant,
                name: "",
                cluster: None,
                directory: Arc::default(),
            };
            match Server::boot(now, self.setup, &mut self.disk, &mut seeds) {
                Ok(server) => {
                    self.disk.ops_left = None;
                    self.server = Some(server);
                    break;
                }
                Err(BootError::PowerCut) => {
                    self.trace.line(now, || "power cut while starting".to_owned());
                    self.disk.crash(&mut self.rng);
                }
                Err(BootError::Refused(reason)) => {
                    return Err(format!("the server does not start: {reason}"));
                }
            }
        }
        self.epoch += 1;
        self.wakes.fill(Time::NEVER);
        self.trace.line(self.agenda.now(), || "server started".to_owned());
        for shard in 0..usize::from(self.setup.shards) {
            self.wake(shard);
        }
        Ok(())
    }

    /// Starts on a disk that may be damaged: a report of damage is no reason not to start.
    pub fn boot_damaged(&mut self) -> Result<(), String> {
        self.tolerant = true;
        self.boot(false)
    }

    /// Whether the store has stopped, or only its reserve is left.
    pub fn is_in_trouble(&self) -> (bool, bool) {
        let volume = self.server.as_ref().map(|server| &server.volume);
        volume.map_or((false, false), |volume| (volume.has_failed(), volume.is_full()))
    }

    /// Streams whose data the server knows to be damaged.
    pub fn damaged(&self) -> Vec<String> {
        self.server.as_ref().map(Server::damaged).unwrap_or_default()
    }

    /// The process dies; what it wrote is in the page cache.
    pub fn kill(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.checkpoints += server.volume.checkpoints();
        self.rewritten += server.volume.rewritten();
        self.epoch += 1;
        let now = self.now();
        self.trace.line(now, || "server killed".to_owned());
        for conn in self.net.conns() {
            let at = self.net.arrival(now, conn, Way::Down);
            self.agenda.at(at, Event::DownClosed(conn));
        }
    }

    /// The power fails: what was not synced may be lost.
    pub fn power_cut(&mut self) {
        self.kill();
        self.trace.line(self.agenda.now(), || "power cut".to_owned());
        self.disk.crash(&mut self.rng);
    }

    /// A further client; its number. It is not connected yet.
    pub fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        let inbox = format!("_INBOX.c{index}");
        self.clients.push(Client { conn: None, protocol: Protocol::default(), inbox });
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

    /// Connects a client and subscribes to its inbox.
    pub fn connect(&mut self, client: usize) {
        if self.server.is_none() || self.clients[client].conn.is_some() {
            return;
        }
        let (conn, at) = self.net.open(self.agenda.now(), client);
        self.clients[client].conn = Some(conn);
        self.clients[client].protocol = Protocol::default();
        self.agenda.at(at, Event::Open(conn));
        let hello = hello(&self.clients[client].inbox);
        self.send(client, hello);
    }

    /// A client goes without a word.
    pub fn disconnect(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn.take() else { return };
        let at = self.net.arrival(self.now(), conn, Way::Up);
        self.agenda.at(at, Event::UpClosed(conn));
        self.happened.push_back(Happening::Gone(client));
    }

    /// Sends a client's bytes; they are lost if it is not connected.
    pub fn send(&mut self, client: usize, bytes: Vec<u8>) {
        let Some(conn) = self.clients[client].conn else { return };
        for piece in self.net.fragments(bytes) {
            let at = self.net.arrival(self.agenda.now(), conn, Way::Up);
            self.agenda.at(at, Event::Up(conn, piece));
        }
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

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { epoch, shard } if epoch == self.epoch && self.wakes[shard] == self.now() => {
                self.round(shard);
            }
            Event::DiskEnds { epoch, lane } if epoch == self.epoch => self.with_volume(Some(lane)),
            Event::Peer { epoch, to, from, batch } if epoch == self.epoch => {
                self.input(to, Input::Peer(from, batch));
            }
            Event::Wake { .. } | Event::DiskEnds { .. } | Event::Peer { .. } => {}
            Event::Open(conn) => self.input_of(conn, Input::Open(conn)),
            Event::Up(conn, bytes) => self.input_of(conn, Input::Bytes(conn, bytes)),
            Event::UpClosed(conn) => {
                self.input_of(conn, Input::Closed(conn));
                self.net.close(conn);
            }
            Event::Down(conn, bytes) => self.down(conn, &bytes),
            Event::DownClosed(conn) => {
                let Some(client) = self.net.client(conn) else { return };
                self.net.close(conn);
                if self.clients[client].conn == Some(conn) {
                    self.clients[client].conn = None;
                    self.happened.push_back(Happening::Gone(client));
                }
            }
            Event::Alarm(number) => self.happened.push_back(Happening::Alarm(number)),
        }
    }

    fn input_of(&mut self, conn: ConnId, input: Input) {
        // A connection from before a restart is unknown to the server that runs now.
        if self.net.client(conn).is_none() {
            return;
        }
        let Some(shard) = self.server.as_ref().map(|server| server.shard_of(conn)) else { return };
        self.input(shard, input);
    }

    fn input(&mut self, shard: usize, input: Input) {
        let Some(server) = &mut self.server else { return };
        server.push(shard, input);
        self.wake(shard);
    }

    /// A shard acts soon: what comes until then is one round's.
    fn wake(&mut self, shard: usize) {
        let at = self.now() + Span(self.rng.below(40_000) as i64);
        self.wake_at(shard, at);
    }

    fn wake_at(&mut self, shard: usize, at: Time) {
        let at = at.max(self.now());
        if at < self.wakes[shard] {
            self.wakes[shard] = at;
            self.agenda.at(at, Event::Wake { epoch: self.epoch, shard });
        }
    }

    fn round(&mut self, shard: usize) {
        let now = self.now();
        self.rounds = if self.rounds.0 == now { (now, self.rounds.1 + 1) } else { (now, 1) };
        if self.rounds.1 > ROUNDS_PER_INSTANT {
            self.wrong = Some(format!("shard {shard} turns in circles: its next deadline does not move"));
            return;
        }
        self.wakes[shard] = Time::NEVER;
        let Some(server) = &mut self.server else { return };
        let output = server.round(now, shard);
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
            let from = ShardId(shard as u16);
            let last = self.between.entry((shard, usize::from(to.0))).or_default();
            let at = (now + Span(self.rng.below(30_000) as i64)).max(*last);
            *last = at;
            self.agenda.at(at, Event::Peer { epoch: self.epoch, to: usize::from(to.0), from, batch });
        }
        if let Some(at) = output.wake {
            self.wake_at(shard, at);
        }
        self.with_volume(None);
    }

    /// Lets the store go on, after an operation of `ended` has ended.
    fn with_volume(&mut self, ended: Option<Lane>) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        let (disk, rng, trace) = (&mut self.disk, &mut self.rng, &mut self.trace);
        let mut io = Io { disk, rng, trace, now, planned: Vec::new() };
        match ended {
            Some(lane) => server.volume.handle_end(lane, &mut io),
            None => server.volume.pump(&mut io),
        }
        for (lane, span) in io.planned {
            self.agenda.after(span, Event::DiskEnds { epoch: self.epoch, lane });
        }
        let done = server.volume.take_done();
        if !done.is_empty() {
            done.into_iter().for_each(|completion| server.push(0, Input::Disk(completion)));
            self.wake(0);
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
                Ok(Some(Said::Msg(msg))) => self.happened.push_back(Happening::Msg(index, msg)),
                Ok(Some(Said::Err(text))) => self.happened.push_back(Happening::Error(index, text)),
                Ok(Some(Said::Ping)) => pongs += 1,
                Ok(Some(Said::Info | Said::Pong | Said::Ok)) => {}
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
