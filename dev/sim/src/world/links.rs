//! The connections between servers: bytes through the real frames, over a network that delays, breaks and parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hw_hub::RemoteBatch;
use hw_kit::{LinkId, NodeId, Span, Time};
use hw_node::LinkFrame;
use hw_route::{Action, Channel, DialError, Mesh, MeshConfig, RouteUrl, SocketId};

use super::forge::forge;
use super::{Event, Place, World};
use crate::planted::Planted;
use crate::server::{Input, LinkInput};

/// How long an attempt to dial a server behind a partition takes.
const DIAL_TIME: Span = Span::from_secs(2);

/// All connections between servers.
#[derive(Default)]
pub(super) struct Links {
    pipes: BTreeMap<u64, Pipe>,
    /// The pipe and the end of each socket.
    sockets: BTreeMap<(usize, u32, SocketId), (u64, usize)>,
    last: u64,
    /// Directions in which nothing gets through: from, to.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// A frame that a planted bug keeps back, by the receiver's link.
    kept: BTreeMap<(usize, LinkId), Bytes>,
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

impl Pipe {
    /// Which way leads to an end.
    fn way(&self, end: usize) -> (usize, usize) {
        (self.ends[1 - end].0.host, self.ends[end].0.host)
    }
}

impl Links {
    /// The server at an end of a connection.
    pub(super) fn host_at(&self, pipe: u64, end: usize) -> Option<usize> {
        self.pipes.get(&pipe).map(|pipe| pipe.ends[end].0.host)
    }

    /// The connections of a server, and which end is its.
    fn of(&self, host: usize) -> Vec<(u64, usize)> {
        let ends = self.pipes.iter().flat_map(|(number, pipe)| {
            (0..2).filter(|end| pipe.ends[*end].0.host == host).map(|end| (*number, end))
        });
        ends.collect()
    }

    fn remove(&mut self, number: u64) -> Option<Pipe> {
        let pipe = self.pipes.remove(&number)?;
        for (place, socket) in pipe.ends {
            self.sockets.remove(&(place.host, place.epoch, socket));
        }
        Some(pipe)
    }

    /// Whether a server reaches none of the others.
    fn is_alone(&self, host: usize, servers: usize) -> bool {
        (0..servers).filter(|other| *other != host).all(|other| self.is_parted(host, other))
    }

    /// Whether servers cannot reach each other.
    pub(super) fn is_parted(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }
}

impl World {
    pub(super) fn new_mesh(&mut self, host: usize, name: &str, node: NodeId) -> Mesh {
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        // Servers that only pass messages on learn of each other from the first.
        let others = others.filter(|other| self.replicated || *other == 0);
        let config = MeshConfig {
            // A new one for each life, as real servers have.
            server_id: format!("N{host}-{}", self.hosts[host].epoch),
            name: name.to_owned(),
            node: if node.0 == 0 { NodeId(1000 + host as u64) } else { node },
            cluster: "C".to_owned(),
            address: format!("s:{host}"),
            auth_timeout: Span::from_secs(2),
            routes: others
                .map(|other| RouteUrl { address: format!("s:{other}"), ..RouteUrl::default() })
                .collect(),
            connect_retries: 5,
            silent_after: Span::from_secs(3),
            seed: self.rng.next_u64(),
            ..MeshConfig::default()
        };
        Mesh::new(self.now(), config)
    }

    /// A process is gone: its connections end.
    pub(super) fn end_pipes(&mut self, host: usize) {
        for (pipe, end) in self.links.of(host) {
            self.send_end(pipe, 1 - end);
        }
    }

    /// Nothing gets from one server to another any more; what is sent is held up.
    pub fn cut(&mut self, from: usize, to: usize) {
        if self.links.cut.insert((from, to)) {
            self.trace.line(self.agenda.now(), || format!("nothing gets from {from} to {to}"));
        }
    }

    /// Nothing gets from one of two servers to the other.
    pub fn part(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Everything gets everywhere again.
    pub fn heal_links(&mut self) {
        if self.links.cut.is_empty() {
            return;
        }
        self.trace.line(self.agenda.now(), || "the network is whole".to_owned());
        self.links.cut.clear();
        let now = self.now();
        for (number, pipe) in &mut self.links.pipes {
            for end in 0..2 {
                for bytes in std::mem::take(&mut pipe.held[end]) {
                    let at = now.max(pipe.last[end]);
                    pipe.last[end] = at;
                    self.agenda.at(at, Event::Pipe { pipe: *number, end, bytes });
                }
            }
        }
    }

    /// All connections between two servers break, and what is on its way is lost.
    pub fn break_links(&mut self, a: usize, b: usize) {
        self.trace.line(self.agenda.now(), || format!("the link between {a} and {b} breaks"));
        let is_theirs = |pipe: &Pipe| pipe.way(0) == (a, b) || pipe.way(0) == (b, a);
        let broken: Vec<u64> =
            self.links.pipes.iter().filter(|(_, pipe)| is_theirs(pipe)).map(|(number, _)| *number).collect();
        for number in broken {
            let Some(pipe) = self.links.remove(number) else { continue };
            for (place, socket) in pipe.ends {
                self.close_socket(place, socket);
            }
        }
    }

    /// Does something with a server's mesh, and what that wants done.
    pub(super) fn with_mesh(&mut self, host: usize, act: impl FnOnce(&mut Mesh, Time)) {
        let now = self.now();
        let Some((_, mesh)) = &mut self.hosts[host].server else { return };
        act(mesh, now);
        while let Some((_, mesh)) = &mut self.hosts[host].server {
            let actions = mesh.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(host, action);
            }
        }
        self.arm_mesh(host);
    }

    pub(super) fn arm_mesh(&mut self, host: usize) {
        let (now, place) = (self.now(), self.place(host));
        let one = &mut self.hosts[host];
        let next = one.server.as_ref().and_then(|(_, mesh)| mesh.next_deadline());
        if let Some(at) = next.map(|at| at.max(now)).filter(|at| *at < one.mesh_wake) {
            one.mesh_wake = at;
            self.agenda.at(at, Event::Mesh(place));
        }
    }

    fn perform(&mut self, host: usize, action: Action) {
        let (now, place, planted) = (self.now(), self.place(host), self.setup.planted);
        match action {
            Action::Up { link: id, peer } => self.linked(host, id, LinkInput::Up(peer)),
            Action::Down { link: id, why } => self.linked(host, id, LinkInput::Down(why)),
            Action::Quiet { quiet: true, .. }
                if planted == Planted::EndlessLease && self.links.is_alone(host, self.hosts.len()) => {}
            Action::Quiet { link: id, quiet } => self.linked(host, id, LinkInput::Quiet(quiet)),
            Action::Acked { link: id, at } => self.linked(host, id, LinkInput::Acked(at)),
            Action::Received { link: id, channel: Channel::Js, body } => self.received(host, id, body),
            Action::Received { link: id, channel: Channel::Hub, body } => match RemoteBatch::decode(body) {
                Ok(batch) => self.linked(host, id, LinkInput::Frame(LinkFrame::Hub(batch))),
                Err(error) => self.wrong = Some(error.to_string()),
            },
            Action::Dial { socket, address } => {
                let to: usize = address.strip_prefix("s:").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
                let parted = self.links.is_parted(host, to);
                let delay = if parted { DIAL_TIME } else { Span(self.rng.below(300_000) as i64) };
                self.agenda.at(now + delay, Event::Dialled { at: place, socket, to });
            }
            Action::Write(socket) => self.flush(host, socket),
            Action::Close(socket) => {
                self.flush(host, socket);
                if let Some((pipe, end)) = self.links.sockets.get(&(host, place.epoch, socket)).copied() {
                    self.send_end(pipe, 1 - end);
                }
                if let Some((_, mesh)) = &mut self.hosts[host].server {
                    mesh.handle_closed(now, socket);
                }
            }
            Action::News | Action::Remark(_) => {}
        }
    }

    fn linked(&mut self, host: usize, link: LinkId, input: LinkInput) {
        self.input(host, 0, Input::Link(link, input));
    }

    /// A frame of another JetStream server, unless a bug is planted here.
    fn received(&mut self, host: usize, link: LinkId, body: Bytes) {
        let planted = self.setup.planted;
        let mut frames = vec![body];
        match planted {
            Planted::DroppedFrames if self.rng.chance(1, 40) => frames.clear(),
            Planted::ReorderedFrames => match self.links.kept.remove(&(host, link)) {
                Some(kept) => frames.push(kept),
                None if self.rng.chance(1, 10) => {
                    self.links.kept.insert((host, link), frames.remove(0));
                }
                None => {}
            },
            Planted::OldReadIndexes
            | Planted::FalseVotes
            | Planted::EagerCommits
            | Planted::LostEntries
            | Planted::ChangedEntries
            | Planted::TransfersTooFar
            | Planted::TransfersCutShort
            | Planted::TransfersWithoutConsumers
            | Planted::TransfersWithoutIds => frames = vec![forge(planted, &mut self.rng, frames.remove(0))],
            _ => {}
        }
        for body in frames {
            self.trace.bytes(self.agenda.now(), link.0 << 8 | host as u64, &body);
            self.input(host, 0, Input::Link(link, LinkInput::Frame(LinkFrame::Js(body))));
        }
    }

    pub(super) fn dialled(&mut self, at: Place, socket: SocketId, to: usize) {
        if !self.lives(at) {
            return;
        }
        let result = match self.hosts.get(to).is_some_and(|one| one.server.is_some()) {
            _ if self.links.is_parted(at.host, to) => Err(DialError::Other("timeout".to_owned())),
            true => Ok(()),
            false => Err(DialError::Refused),
        };
        if result.is_ok() {
            let there = self.place(to);
            let (now, mut accepted) = (self.now(), SocketId(0));
            self.with_mesh(to, |mesh, now| accepted = mesh.handle_accepted(now, format!("x:{}", at.host)));
            self.links.last += 1;
            let (number, ends) = (self.links.last, [(at, socket), (there, accepted)]);
            for (end, (place, socket)) in ends.into_iter().enumerate() {
                self.links.sockets.insert((place.host, place.epoch, socket), (number, end));
            }
            self.links.pipes.insert(number, Pipe { ends, last: [now; 2], held: Default::default() });
        }
        self.with_mesh(at.host, |mesh, now| mesh.handle_dialled(now, socket, result));
    }

    fn flush(&mut self, host: usize, socket: SocketId) {
        let (now, epoch) = (self.now(), self.hosts[host].epoch);
        loop {
            let Some((_, mesh)) = &mut self.hosts[host].server else { return };
            let mut bytes = Vec::new();
            mesh.take_output(now, socket, &mut bytes);
            if bytes.is_empty() {
                return;
            }
            self.trace.bytes(now, socket.0 | 1 << 60, &bytes);
            let Some((pipe, end)) = self.links.sockets.get(&(host, epoch, socket)).copied() else { continue };
            let end = 1 - end;
            let at = self.delay(pipe, end);
            // Bytes come in pieces of any size.
            if self.rng.chance(1, 4) {
                let rest = bytes.split_off(self.rng.below(bytes.len() as u64) as usize);
                if !bytes.is_empty() {
                    self.agenda.at(at, Event::Pipe { pipe, end, bytes: Some(bytes) });
                }
                bytes = rest;
            }
            self.agenda.at(at, Event::Pipe { pipe, end, bytes: Some(bytes) });
        }
    }

    fn send_end(&mut self, pipe: u64, end: usize) {
        let at = self.delay(pipe, end);
        self.agenda.at(at, Event::Pipe { pipe, end, bytes: None });
    }

    fn delay(&mut self, pipe: u64, end: usize) -> Time {
        let slow = if self.rng.chance(1, 100) { 50 } else { 1 };
        let at = self.agenda.now() + Span((20_000 + self.rng.below(300_000) as i64) * slow);
        let Some(pipe) = self.links.pipes.get_mut(&pipe) else { return at };
        pipe.last[end] = at.max(pipe.last[end]);
        pipe.last[end]
    }

    /// Bytes, or the end of a connection, are there; unless nothing gets through.
    pub(super) fn arrive(&mut self, number: u64, end: usize, bytes: Option<Vec<u8>>) {
        let Some(pipe) = self.links.pipes.get_mut(&number) else { return };
        if self.links.cut.contains(&pipe.way(end)) || !pipe.held[end].is_empty() {
            pipe.held[end].push_back(bytes);
            return;
        }
        let (place, socket) = pipe.ends[end];
        match bytes {
            Some(bytes) if self.lives(place) => {
                self.with_mesh(place.host, |mesh, now| mesh.handle_bytes(now, socket, &bytes));
            }
            Some(_) => {}
            None => {
                self.links.remove(number);
                self.close_socket(place, socket);
            }
        }
    }

    fn close_socket(&mut self, place: Place, socket: SocketId) {
        if self.lives(place) {
            self.with_mesh(place.host, |mesh, now| mesh.handle_closed(now, socket));
        }
    }
}
