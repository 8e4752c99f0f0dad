//! Meshes that talk to each other over wires in memory.

mod frames;
mod meshes;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_kit::{LinkId, NodeId, Rng, Span, Time};

use crate::*;

/// One server of a test.
pub(crate) struct Server {
    pub mesh: Mesh,
    /// Where the other end of each connection is.
    ends: BTreeMap<SocketId, (usize, SocketId)>,
    pub links: BTreeMap<LinkId, Peer>,
    pub downs: Vec<(LinkId, LinkDown)>,
    pub quiet: Vec<(LinkId, bool)>,
    pub acked: BTreeMap<LinkId, Time>,
    pub received: Vec<(LinkId, Channel, Bytes)>,
    pub remarks: Vec<Remark>,
    pub alive: bool,
    /// Nothing of it is delivered, and nothing to it.
    pub cut_off: bool,
}

pub(crate) struct World {
    pub servers: Vec<Server>,
    pub now: Time,
    wire: VecDeque<(usize, SocketId, Vec<u8>)>,
    rng: Rng,
}

pub(crate) fn config(name: &str, number: usize, routes: &[usize]) -> MeshConfig {
    let route = |at: &usize| RouteUrl { address: format!("h:{at}"), ..RouteUrl::default() };
    MeshConfig {
        server_id: format!("N{number}"),
        name: format!("s{number}"),
        node: NodeId(100 + number as u64),
        cluster: name.to_owned(),
        address: format!("h:{number}"),
        client_urls: vec![format!("c:{number}")],
        auth_timeout: Span::from_secs(2),
        silent_after: Span::from_secs(5),
        routes: routes.iter().map(route).collect(),
        greeting: b"INFO {}\r\n".to_vec(),
        seed: number as u64,
        ..MeshConfig::default()
    }
}

impl World {
    pub fn new(configs: Vec<MeshConfig>) -> World {
        let now = Time(1_000_000_000);
        let server = |config| Server {
            mesh: Mesh::new(now, config),
            ends: BTreeMap::new(),
            links: BTreeMap::new(),
            downs: vec![],
            quiet: vec![],
            acked: BTreeMap::new(),
            received: vec![],
            remarks: vec![],
            alive: true,
            cut_off: false,
        };
        let servers = configs.into_iter().map(server).collect();
        World { servers, now, wire: VecDeque::new(), rng: Rng::new(5) }
    }

    /// Servers of one cluster that all know the first one.
    pub fn cluster(count: usize) -> World {
        World::new((0..count).map(|n| config("c", n, &[0])).collect())
    }

    pub fn act(&mut self, at: usize) -> bool {
        let now = self.now;
        let actions = self.servers[at].mesh.take_actions();
        let acted = !actions.is_empty();
        for action in actions {
            match action {
                Action::Dial { socket, address } => self.dial(at, socket, &address),
                Action::Close(socket) => {
                    self.flush(at, socket);
                    if let Some((to, there)) = self.servers[at].ends.remove(&socket) {
                        // An empty piece is the end.
                        self.wire.push_back((to, there, vec![]));
                    }
                    self.servers[at].mesh.handle_closed(now, socket);
                }
                Action::Write(socket) => self.flush(at, socket),
                Action::Up { link, peer } => {
                    self.servers[at].links.insert(link, peer);
                }
                Action::Down { link, why } => {
                    self.servers[at].links.remove(&link);
                    self.servers[at].downs.push((link, why));
                }
                Action::Quiet { link, quiet } => self.servers[at].quiet.push((link, quiet)),
                Action::Acked { link, at: sent } => {
                    self.servers[at].acked.insert(link, sent);
                }
                Action::Received { link, channel, body } => {
                    self.servers[at].received.push((link, channel, body));
                }
                Action::News => {}
                Action::Remark(remark) => self.servers[at].remarks.push(remark),
            }
        }
        acted
    }

    fn dial(&mut self, at: usize, socket: SocketId, address: &str) {
        let now = self.now;
        let to: usize = address.strip_prefix("h:").unwrap().parse().unwrap();
        let result = match self.servers.get(to).map(|server| (server.alive, server.cut_off)) {
            Some((true, false)) if !self.servers[at].cut_off => {
                let there = self.servers[to].mesh.handle_accepted(now, "h:9".to_owned());
                self.servers[at].ends.insert(socket, (to, there));
                self.servers[to].ends.insert(there, (at, socket));
                Ok(())
            }
            Some((true, _)) => Err(DialError::Other("timeout".to_owned())),
            _ => Err(DialError::Refused),
        };
        self.servers[at].mesh.handle_dialled(now, socket, result);
    }

    fn flush(&mut self, at: usize, socket: SocketId) {
        loop {
            let mut out = Vec::new();
            self.servers[at].mesh.take_output(self.now, socket, &mut out);
            if out.is_empty() {
                return;
            }
            if let Some(&(to, there)) = self.servers[at].ends.get(&socket)
                && !self.servers[at].cut_off
                && !self.servers[to].cut_off
            {
                // Bytes come in pieces of any size.
                let cut = self.rng.below(out.len() as u64) as usize;
                let rest = out.split_off(cut);
                for piece in [out, rest].into_iter().filter(|piece| !piece.is_empty()) {
                    self.wire.push_back((to, there, piece));
                }
            }
        }
    }

    /// Lets everything arrive that is on its way.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut acted = false;
            for at in 0..self.servers.len() {
                if self.servers[at].alive {
                    acted |= self.act(at);
                }
            }
            let Some((to, socket, bytes)) = self.wire.pop_front() else {
                if acted {
                    continue;
                }
                return;
            };
            let server = &mut self.servers[to];
            if !server.alive {
                continue;
            }
            if bytes.is_empty() {
                server.ends.remove(&socket);
                server.mesh.handle_closed(self.now, socket);
            } else {
                server.mesh.handle_bytes(self.now, socket, &bytes);
            }
        }
        panic!("they talk for ever");
    }

    /// Lets time pass, from deadline to deadline.
    pub fn run(&mut self, span: Span) {
        let end = self.now + span;
        self.settle();
        loop {
            let alive = self.servers.iter().filter(|server| server.alive);
            let next = alive.filter_map(|server| server.mesh.next_deadline()).min().unwrap_or(end);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next) + Span(1);
            for server in self.servers.iter_mut().filter(|server| server.alive) {
                server.mesh.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// The process is gone: the others see their connections end.
    pub fn kill(&mut self, at: usize) {
        self.servers[at].alive = false;
        for (_, (to, there)) in std::mem::take(&mut self.servers[at].ends) {
            self.wire.push_back((to, there, vec![]));
        }
        self.settle();
    }

    pub fn peers(&self, at: usize) -> Vec<&str> {
        let mut names: Vec<&str> = self.servers[at].links.values().map(|peer| &*peer.name).collect();
        names.sort_unstable();
        names
    }

    pub fn remarks(&self, at: usize) -> String {
        format!("{:?}", self.servers[at].remarks)
    }
}
