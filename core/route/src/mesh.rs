//! All connections with other servers: which of them are links, who is alive, whom to dial.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_kit::{LinkId, NodeId, Rng, Span, Time};

use crate::compress::{Compression, Effort};
use crate::dial::{Manner, Targets};
use crate::frame::{Channel, Kind, MAGIC};
use crate::hello::{self, Hello, News, Refusal, Refused, VERSION};
use crate::limits::{
    BEAT_EVERY, COURTESY, FOREIGN_AFTER, HELLO_WITHIN, QUEUE_BYTES, QUIET_AFTER, STRANGERS_MAX,
};
use crate::line::{Line, Stage};

/// A connection's number, given by whoever opens it: the mesh for those that it dials, the shell for those it accepts.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(pub u64);

/// An address to dial, and what to show there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteUrl {
    /// `host:port`.
    pub address: String,
    /// Empty: none.
    pub user: String,
    /// Empty: none.
    pub pass: String,
}

/// How a server takes part in its cluster.
#[derive(Clone, Debug, Default)]
pub struct MeshConfig {
    /// Its public key.
    pub server_id: String,
    /// Its name.
    pub name: String,
    /// The release that it runs.
    pub release: String,
    /// The incarnation of its JetStream store; 0: none.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// Whether that was made up: it gives way to another server's.
    pub dynamic: bool,
    /// Where other servers reach this one: `host:port`, or `:port` on the host that it is seen on.
    pub address: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Where clients with websockets reach it.
    pub ws_urls: Vec<String>,
    /// What other servers must show, and what this one shows to servers that it learned of; empty: nothing.
    pub user: String,
    /// The password for that.
    pub pass: String,
    /// How long another server may take to say who it is.
    pub auth_timeout: Span,
    /// The servers to dial.
    pub routes: Vec<RouteUrl>,
    /// How often servers that were learned of are dialled again.
    pub connect_retries: u32,
    /// Whether the pauses between attempts grow.
    pub connect_backoff: bool,
    /// A link is given up when nothing was heard for this long.
    pub silent_after: Span,
    /// How it wants its links.
    pub compression: Compression,
    /// INFO, as a line: for clients and servers of other makes that connect here by mistake.
    pub greeting: Vec<u8>,
    /// Where the pauses' spread comes from.
    pub seed: u64,
}

/// Another server, once there is a link with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peer {
    /// Its public key.
    pub server_id: String,
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// The incarnation of its JetStream store; 0: none.
    pub node: NodeId,
    /// The release that it runs.
    pub release: String,
    /// Where other servers reach it.
    pub address: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// Why a link is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkDown {
    /// The connection ended.
    Closed,
    /// After that, the server's address refused a connection: its process is gone. Follows one of the others.
    Refused,
    /// Nothing was heard for too long.
    Silent,
}

/// Why an address could not be dialled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DialError {
    /// Nobody listens there.
    Refused,
    /// Anything else, for the log.
    Other(String),
}

/// Something for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remark {
    /// It goes as it should.
    Info(String),
    /// Detail.
    Debug(String),
    /// Somebody must do something about it.
    Error(String),
}

/// What the mesh wants done, or says.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect to an address; the answer comes by [`Mesh::handle_dialled`].
    Dial {
        /// The connection's number from now on.
        socket: SocketId,
        /// `host:port`.
        address: String,
    },
    /// Close a connection, once what waits for it is written.
    Close(SocketId),
    /// There is output for a connection.
    Write(SocketId),
    /// There is a link with another server.
    Up {
        /// Its number.
        link: LinkId,
        /// Who is there.
        peer: Peer,
    },
    /// A link is gone. Said a second time, with [`LinkDown::Refused`], when the server turns out to be dead.
    Down {
        /// Its number.
        link: LinkId,
        /// Why.
        why: LinkDown,
    },
    /// Nothing was heard on a link for [`QUIET_AFTER`]; or something was, after that. The link stands.
    Quiet {
        /// Its number.
        link: LinkId,
        /// Whether it is quiet now.
        quiet: bool,
    },
    /// The other server has seen the beat that was sent at `at`, by this mesh's clock.
    Acked {
        /// On this link.
        link: LinkId,
        /// When it was sent.
        at: Time,
    },
    /// A body came in.
    Received {
        /// On this link.
        link: LinkId,
        /// For whom.
        channel: Channel,
        /// What.
        body: Bytes,
    },
    /// The cluster's name, its members, or where clients reach them have changed.
    News,
    /// A line for the log.
    Remark(Remark),
}

/// All connections with other servers.
#[derive(Debug)]
pub struct Mesh {
    config: MeshConfig,
    lame_duck: bool,
    lines: BTreeMap<SocketId, Line>,
    links: BTreeMap<LinkId, SocketId>,
    servers: BTreeMap<String, LinkId>,
    targets: Targets,
    actions: Vec<Action>,
    last_socket: u64,
    last_link: u64,
    rng: Rng,
    stopped: bool,
}

impl Mesh {
    /// A server that is alone until [`Mesh::handle_timeout`] dials the first others.
    pub fn new(now: Time, config: MeshConfig) -> Mesh {
        let mut targets = Targets::default();
        targets.configure(now, &config.routes);
        Mesh {
            rng: Rng::new(config.seed),
            config,
            lame_duck: false,
            lines: BTreeMap::new(),
            links: BTreeMap::new(),
            servers: BTreeMap::new(),
            targets,
            actions: Vec::new(),
            last_socket: 0,
            last_link: 0,
            stopped: false,
        }
    }

    /// A connection came in from this address: its number.
    pub fn handle_accepted(&mut self, now: Time, remote: String) -> SocketId {
        let socket = self.next_socket();
        let strangers = self.lines.values().filter(|line| line.link().is_none()).count();
        let mut line = Line::new(now, now + FOREIGN_AFTER, remote, None);
        if strangers >= STRANGERS_MAX || self.stopped {
            line.stage = Stage::Ended;
            self.actions.push(Action::Close(socket));
        }
        self.lines.insert(socket, line);
        socket
    }

    /// What came of an [`Action::Dial`].
    pub fn handle_dialled(&mut self, now: Time, socket: SocketId, result: Result<(), DialError>) {
        let Some(line) = self.lines.get_mut(&socket) else { return };
        let Some(address) = line.dialled.clone() else { return };
        if line.stage == Stage::Ended {
            // The server stopped, or its routes changed meanwhile.
            return self.actions.push(Action::Close(socket));
        }
        match result {
            Ok(()) => {
                line.heard = now;
                line.until = now + HELLO_WITHIN;
                let target = self.targets.get(&address);
                let (user, pass) = target.map_or(("", ""), |target| (&target.user, &target.pass));
                let hello = self.hello(user, pass);
                if let Some(line) = self.lines.get_mut(&socket) {
                    line.greet(hello);
                }
                self.wake(socket);
            }
            Err(error) => {
                self.lines.remove(&socket);
                if error == DialError::Refused
                    && let Some(link) = self.targets.refused(&address)
                {
                    self.actions.push(Action::Down { link, why: LinkDown::Refused });
                }
                if let DialError::Other(text) = error {
                    self.remark(Remark::Debug(format!("Error trying to connect to route {address}: {text}")));
                }
                self.attempt_ended(now, &address);
            }
        }
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: Time, socket: SocketId, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(&socket).filter(|line| line.stage != Stage::Ended) else {
            return;
        };
        line.heard = now;
        line.active = now;
        line.in_bytes += bytes.len() as u64;
        line.decoder.push(bytes);
        if line.quiet {
            line.quiet = false;
            if let Some(link) = line.link() {
                self.actions.push(Action::Quiet { link, quiet: false });
            }
        }
        if !self.passes_magic(now, socket) {
            return;
        }
        while let Some(line) = self.lines.get_mut(&socket).filter(|line| line.stage != Stage::Ended) {
            match line.decoder.next() {
                Ok(None) => break,
                Ok(Some((kind, body))) => {
                    if let Err(text) = self.handle_frame(now, socket, (kind, body)) {
                        self.fail(now, socket, &text);
                    }
                }
                Err(error) => self.fail(now, socket, &error.to_string()),
            }
        }
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, now: Time, socket: SocketId) {
        self.end(now, socket, LinkDown::Closed);
        self.lines.remove(&socket);
    }

    /// Something for another server. Without a link with it any more it is left out.
    pub fn handle_send(&mut self, now: Time, link: LinkId, channel: Channel, body: Bytes) {
        let Some(&socket) = self.links.get(&link) else { return };
        let Some(line) = self.lines.get_mut(&socket) else { return };
        line.put(Kind::Body(channel), body);
        if line.queued > QUEUE_BYTES {
            let text = format!("more than {QUEUE_BYTES} bytes wait for it");
            return self.fail(now, socket, &text);
        }
        self.wake(socket);
    }

    /// What came on a link cannot be what a server of ours sends: the link ends.
    pub fn break_link(&mut self, now: Time, link: LinkId, text: &str) {
        if let Some(&socket) = self.links.get(&link) {
            self.fail(now, socket, text);
        }
    }

    /// How what leaves on a connection is compressed.
    pub(crate) fn effort(&self, line: &Line) -> Effort {
        line.effort(&self.config.compression)
    }

    /// Takes a connection's output, appended to `out`; empty: nothing waits.
    pub fn take_output(&mut self, now: Time, socket: SocketId, out: &mut Vec<u8>) {
        if let Some(line) = self.lines.get_mut(&socket) {
            let effort = line.effort(&self.config.compression);
            line.take(now, effort, out);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        let sockets: Vec<SocketId> = self.lines.keys().copied().collect();
        for socket in sockets {
            self.line_timeout(now, socket);
        }
        if self.stopped {
            return;
        }
        let servers = &self.servers;
        for address in self.targets.due(now, |id| servers.contains_key(id)) {
            let socket = self.next_socket();
            // The shell bounds the time of the attempt itself.
            let line = Line::new(now, Time::NEVER, address.clone(), Some(address.clone()));
            self.lines.insert(socket, line);
            self.targets.begin(&address, socket);
            self.actions.push(Action::Dial { socket, address });
        }
    }

    /// When [`Mesh::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let lines = self.lines.values().filter(|line| line.stage != Stage::Ended).map(|line| {
            let silent = match (line.link(), line.quiet) {
                (None, _) => Time::NEVER,
                (Some(_), false) => line.heard + QUIET_AFTER,
                (Some(_), true) => line.heard + self.config.silent_after,
            };
            line.until.min(line.next_beat).min(silent)
        });
        let servers = &self.servers;
        let dial = self.targets.next_deadline(|id| servers.contains_key(id)).filter(|_| !self.stopped);
        lines.chain(dial).min().filter(|at| *at != Time::NEVER)
    }

    /// What is to be done, in this order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The cluster's name as it is now.
    pub fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// The most bytes that wait for a server that is not quiet: who publishes should wait above some number.
    pub fn pressure(&self) -> usize {
        self.up().filter(|(_, line)| !line.quiet).map(|(_, line)| line.queued).max().unwrap_or(0)
    }

    /// The configured addresses.
    pub fn routes(&self) -> Vec<String> {
        self.targets.explicit().cloned().collect()
    }

    /// Other addresses are to be dialled. Links with servers behind addresses that are gone are closed.
    pub fn set_routes(&mut self, now: Time, routes: Vec<RouteUrl>) {
        for server in self.targets.configure(now, &routes) {
            let link = self.servers.get(&server).copied();
            if let Some(&socket) = link.and_then(|link| self.links.get(&link)) {
                self.end(now, socket, LinkDown::Closed);
            }
        }
        self.config.routes = routes;
    }

    /// This server is about to go: the others no longer send clients here.
    pub fn set_lame_duck(&mut self) {
        self.lame_duck = true;
        self.tell_news();
    }

    /// The server stops: all connections are closed.
    pub fn handle_shutdown(&mut self, now: Time) {
        self.stopped = true;
        let sockets: Vec<SocketId> = self.lines.keys().copied().collect();
        for socket in sockets {
            self.end(now, socket, LinkDown::Closed);
        }
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = (LinkId, &Line)> {
        self.links.iter().filter_map(|(link, socket)| Some((*link, self.lines.get(socket)?)))
    }

    pub(crate) fn is_configured(&self, server: &str) -> bool {
        self.targets.is_configured(server)
    }

    fn next_socket(&mut self) -> SocketId {
        self.last_socket += 1;
        SocketId(self.last_socket)
    }

    fn remark(&mut self, remark: Remark) {
        self.actions.push(Action::Remark(remark));
    }

    fn wake(&mut self, socket: SocketId) {
        if let Some(line) = self.lines.get_mut(&socket)
            && line.has_output()
            && !std::mem::replace(&mut line.told, true)
        {
            self.actions.push(Action::Write(socket));
        }
    }

    fn news(&self) -> News {
        let members = self.up().map(|(_, line)| (line.peer.server_id.clone(), line.address()));
        News {
            cluster: self.config.cluster.clone(),
            dynamic: self.config.dynamic,
            address: self.config.address.clone(),
            client_urls: self.config.client_urls.clone(),
            ws_urls: self.config.ws_urls.clone(),
            lame_duck: self.lame_duck,
            members: members.collect(),
        }
    }

    fn hello(&self, user: &str, pass: &str) -> Vec<u8> {
        let own = &self.config;
        let (user, pass) = if user.is_empty() { (&*own.user, &*own.pass) } else { (user, pass) };
        let hello = Hello {
            versions: (VERSION, VERSION),
            server_id: own.server_id.clone(),
            name: own.name.clone(),
            node: own.node,
            release: own.release.clone(),
            user: user.to_owned(),
            pass: pass.to_owned(),
            news: self.news(),
            compression: own.compression.wish(),
        };
        hello.encode()
    }

    /// Tells all servers what has changed here.
    fn tell_news(&mut self) {
        let mut body = Vec::new();
        self.news().encode(&mut body);
        let body = Bytes::from(body);
        let sockets: Vec<SocketId> = self.links.values().copied().collect();
        for socket in sockets {
            if let Some(line) = self.lines.get_mut(&socket) {
                line.put(Kind::News, body.clone());
            }
            self.wake(socket);
        }
        self.actions.push(Action::News);
    }

    fn attempt_ended(&mut self, now: Time, address: &str) {
        let manner = Manner { retries: self.config.connect_retries, backoff: self.config.connect_backoff };
        self.targets.ended(now, address, (manner, &mut self.rng));
    }

    fn fail(&mut self, now: Time, socket: SocketId, text: &str) {
        if let Some(line) = self.lines.get(&socket) {
            let who = if line.peer.name.is_empty() { &line.remote } else { &line.peer.name };
            let text = format!("{} - route to {who} closed: {text}", line.remote);
            self.remark(Remark::Error(text));
        }
        self.end(now, socket, LinkDown::Closed);
    }

    /// Ends a connection; its last words still leave.
    fn end(&mut self, now: Time, socket: SocketId, why: LinkDown) {
        let Some(line) = self.lines.get_mut(&socket) else { return };
        let (link, address, server) = (line.link(), line.address(), line.peer.server_id.clone());
        let before = std::mem::replace(&mut line.stage, Stage::Ended);
        if before == Stage::Ended {
            return;
        }
        let dialled = line.dialled.clone();
        if let Some(target) = dialled {
            self.attempt_ended(now, &target);
        }
        self.actions.push(Action::Close(socket));
        let Some(link) = link else { return };
        self.links.remove(&link);
        if self.servers.get(&server) == Some(&link) {
            self.servers.remove(&server);
            self.targets.lost(now, &server, (link, &address));
        }
        self.actions.push(Action::Down { link, why });
        self.tell_news();
    }

    fn line_timeout(&mut self, now: Time, socket: SocketId) {
        let Some(line) = self.lines.get_mut(&socket).filter(|line| line.stage != Stage::Ended) else {
            return;
        };
        if line.until <= now {
            match line.stage {
                Stage::Strange if line.dialled.is_none() && !line.magic_seen => {
                    return self.greet_foreigner(now, socket);
                }
                Stage::Foreign => return self.refuse_foreigner(now, socket),
                _ => return self.fail(now, socket, "it did not say who it is in time"),
            }
        }
        let Some(link) = line.link() else { return };
        if now >= line.heard + self.config.silent_after {
            let text = format!("{} - route to {} closed: nothing was heard", line.remote, line.peer.name);
            self.remark(Remark::Error(text));
            return self.end(now, socket, LinkDown::Silent);
        }
        if !line.quiet && now >= line.heard + QUIET_AFTER {
            line.quiet = true;
            self.actions.push(Action::Quiet { link, quiet: true });
        }
        if line.next_beat <= now {
            line.put_urgent(Kind::Beat, &hello::beat(now));
            line.next_beat = now + BEAT_EVERY;
            self.wake(socket);
        }
    }

    /// Looks at the first bytes; true if what follows are frames.
    fn passes_magic(&mut self, now: Time, socket: SocketId) -> bool {
        let auth_timeout = self.config.auth_timeout;
        let Some(line) = self.lines.get_mut(&socket) else { return false };
        if line.magic_seen {
            return true;
        }
        let unread = line.decoder.unread();
        if let Some(rest) = unread.get(..MAGIC.len())
            && rest == MAGIC
            && line.stage == Stage::Strange
        {
            line.magic_seen = true;
            line.decoder.skip(MAGIC.len());
            if line.dialled.is_none() {
                line.until = now + auth_timeout;
            }
            return true;
        }
        if line.stage == Stage::Strange && MAGIC.starts_with(unread) {
            return false;
        }
        if line.stage == Stage::Strange && is_other_magic(unread) {
            let text = "the other side speaks another version of the frames between servers".to_owned();
            self.refuse(now, socket, (Refusal::Version, text));
            return false;
        }
        let complete = unread.contains(&b'\n') || unread.len() > 4096;
        match (line.dialled.is_some(), line.stage) {
            (true, _) if complete => self.found_foreigner(now, socket),
            (false, Stage::Strange) => {
                self.greet_foreigner(now, socket);
                if complete {
                    self.refuse_foreigner(now, socket);
                }
            }
            (false, _) if complete => self.refuse_foreigner(now, socket),
            _ => {}
        }
        false
    }

    /// What we dialled is no server of ours.
    fn found_foreigner(&mut self, now: Time, socket: SocketId) {
        let Some(line) = self.lines.get(&socket) else { return };
        let said = String::from_utf8_lossy(line.decoder.unread());
        let text = if !said.starts_with("INFO ") {
            "what answers there is no Headwater server"
        } else if said.contains("\"client_id\"") {
            "attempted to connect to a client port: the cluster port is another one"
        } else {
            "a nats-server answers there: it cannot be in one cluster with Headwater servers"
        };
        self.fail(now, socket, text);
    }

    /// Somebody who waits for INFO gets it: the refusal is then understood.
    fn greet_foreigner(&mut self, now: Time, socket: SocketId) {
        let greeting = self.config.greeting.clone();
        if let Some(line) = self.lines.get_mut(&socket) {
            line.stage = Stage::Foreign;
            line.until = now + FOREIGN_AFTER;
            line.put_raw(&greeting);
            self.wake(socket);
        }
    }

    fn refuse_foreigner(&mut self, now: Time, socket: SocketId) {
        let Some(line) = self.lines.get_mut(&socket) else { return };
        let said = String::from_utf8_lossy(line.decoder.unread());
        let is_server =
            said.starts_with("CONNECT ") && said.contains("\"cluster\"") || said.starts_with("INFO ");
        let text = match is_server {
            true => "this is a Headwater cluster: a nats-server cannot join it",
            false => "attempted to connect to route port",
        };
        line.put_raw(format!("-ERR '{text}'\r\n").as_bytes());
        self.wake(socket);
        self.fail(now, socket, text);
    }

    fn handle_frame(
        &mut self,
        now: Time,
        socket: SocketId,
        (kind, body): (Kind, Bytes),
    ) -> Result<(), String> {
        let Some(line) = self.lines.get_mut(&socket) else { return Ok(()) };
        let wrong = |error: crate::FieldError| format!("a frame is not what it should be: {error}");
        match (kind, line.stage) {
            (Kind::Hello, Stage::Strange) => {
                let versions = Hello::versions(&body).map_err(wrong)?;
                if let Some(why) = stranger(versions) {
                    // Whatever else it says may mean something else.
                    self.refuse(now, socket, why);
                    return Ok(());
                }
                let hello = Hello::decode(&body).map_err(wrong)?;
                self.handle_hello(now, socket, hello);
            }
            (Kind::Refuse, Stage::Strange | Stage::Greeted) => {
                let refused = Refused::decode(&body).map_err(wrong)?;
                self.handle_refusal(now, socket, &refused);
            }
            (Kind::Adopt, Stage::Greeted) => self.adopt(now, socket),
            (Kind::Beat, Stage::Up(_)) => {
                hello::read_beat(&body).map_err(wrong)?;
                line.put_urgent(Kind::Answer, &body);
                self.wake(socket);
            }
            (Kind::Answer, Stage::Up(link)) => {
                let sent = hello::read_beat(&body).map_err(wrong)?;
                if sent > now {
                    return Err("it answers a beat that was not sent".to_owned());
                }
                if sent > line.acked_at {
                    line.acked_at = sent;
                    line.rtt = now.since(sent);
                    self.actions.push(Action::Acked { link, at: sent });
                }
            }
            (Kind::News, Stage::Up(_)) => {
                line.peer.news = News::decode(&body).map_err(wrong)?;
                self.follow_news(now, socket);
            }
            (Kind::Body(channel), Stage::Up(link)) => {
                self.actions.push(Action::Received { link, channel, body });
            }
            _ => return Err(format!("{kind:?} at the wrong time")),
        }
        Ok(())
    }

    fn handle_hello(&mut self, now: Time, socket: SocketId, hello: Hello) {
        let Some(line) = self.lines.get_mut(&socket) else { return };
        line.peer = hello;
        let (server, dialled) = (line.peer.server_id.clone(), line.dialled.clone());
        if let Some(address) = &dialled {
            self.targets.found(address, &server, server == self.config.server_id);
        }
        if let Some((why, text)) = self.objection(socket) {
            return self.refuse(now, socket, (why, text));
        }
        if dialled.is_none() {
            // Whom we dialled heard our hello already.
            let hello = self.hello("", "");
            if let Some(line) = self.lines.get_mut(&socket) {
                line.greet(hello);
            }
        }
        match self.config.server_id < server {
            true => {
                if let Some(line) = self.lines.get_mut(&socket) {
                    line.put(Kind::Adopt, Bytes::new());
                }
                self.adopt(now, socket);
            }
            false => {
                if let Some(line) = self.lines.get_mut(&socket) {
                    line.stage = Stage::Greeted;
                }
            }
        }
        self.wake(socket);
    }

    /// Why the server on this connection is not taken into the cluster.
    fn objection(&self, socket: SocketId) -> Option<(Refusal, String)> {
        let line = self.lines.get(&socket)?;
        let (own, peer) = (&self.config, &line.peer);
        if peer.server_id == own.server_id {
            return Some((Refusal::Itself, "it is the same server".to_owned()));
        }
        if line.dialled.is_none()
            && !own.user.is_empty()
            && (&peer.user, &peer.pass) != (&own.user, &own.pass)
        {
            return Some((Refusal::Authorization, "authentication error".to_owned()));
        }
        if agreed_name(own, &peer.news).is_none() {
            let text = format!("cluster name {:?} does not match {:?}", peer.news.cluster, own.cluster);
            return Some((Refusal::Cluster, text));
        }
        // With the same store it is the same server, started again: the other link is that of its last life.
        let same_name = |other: &Line| {
            other.peer.name == peer.name
                && other.peer.server_id != peer.server_id
                && other.peer.node != peer.node
        };
        let stores = own.node != NodeId(0) && peer.node != NodeId(0);
        if stores && (peer.name == own.name || self.up().any(|(_, other)| same_name(other))) {
            return Some((Refusal::Name, format!("Duplicate Server Name: {}", peer.name)));
        }
        // The other side decides otherwise.
        if own.server_id < peer.server_id && self.servers.contains_key(&peer.server_id) {
            return Some((Refusal::Duplicate, "there is a link with it".to_owned()));
        }
        None
    }

    fn refuse(&mut self, now: Time, socket: SocketId, (why, text): (Refusal, String)) {
        let server_id = self.config.server_id.clone();
        let Some(line) = self.lines.get_mut(&socket) else { return };
        if line.dialled.is_none() {
            line.put_raw(MAGIC);
        }
        line.put(Kind::Refuse, Refused { why, server_id, text: text.clone() }.encode().into());
        self.wake(socket);
        match why {
            Refusal::Itself | Refusal::Duplicate => self.end(now, socket, LinkDown::Closed),
            _ => self.fail(now, socket, &text),
        }
    }

    fn handle_refusal(&mut self, now: Time, socket: SocketId, refused: &Refused) {
        let Some(line) = self.lines.get(&socket) else { return };
        if let Some(address) = line.dialled.clone() {
            match refused.why {
                Refusal::Itself => self.targets.found(&address, &refused.server_id, true),
                Refusal::Duplicate => self.targets.found(&address, &refused.server_id, false),
                _ => {}
            }
        }
        match refused.why {
            Refusal::Itself | Refusal::Duplicate => self.end(now, socket, LinkDown::Closed),
            _ => self.fail(now, socket, &format!("the other server refuses: {}", refused.text)),
        }
    }

    /// This connection is the link with its server.
    fn adopt(&mut self, now: Time, socket: SocketId) {
        let Some(line) = self.lines.get(&socket) else { return };
        let server = line.peer.server_id.clone();
        let node = line.peer.node;
        let is_older = |other: &Line| {
            // The other side has lost that one, or it belongs to a process that is gone: a store has one at a time.
            other.peer.server_id == server || (node != NodeId(0) && other.peer.node == node)
        };
        let older: Vec<LinkId> = self.up().filter(|(_, line)| is_older(line)).map(|(link, _)| link).collect();
        for link in older {
            if let Some(&socket) = self.links.get(&link) {
                self.end(now, socket, LinkDown::Closed);
            }
        }
        self.last_link += 1;
        let link = LinkId(self.last_link);
        let Some(line) = self.lines.get_mut(&socket) else { return };
        line.stage = Stage::Up(link);
        line.until = Time::NEVER;
        line.heard = now;
        line.next_beat = now;
        self.links.insert(link, socket);
        self.servers.insert(server.clone(), link);
        self.targets.linked(&server);
        self.follow_name(socket);
        let Some(line) = self.lines.get(&socket) else { return };
        let peer = Peer {
            server_id: server,
            name: line.peer.name.clone(),
            cluster: self.config.cluster.clone(),
            node: line.peer.node,
            release: line.peer.release.clone(),
            address: line.address(),
            client_urls: line.peer.news.client_urls.clone(),
        };
        let way = if line.dialled.is_some() { "to" } else { "from" };
        let text = format!("{} - Route connection created {way} {}", line.remote, peer.name);
        self.remark(Remark::Info(text));
        self.actions.push(Action::Up { link, peer });
        self.learn_members(now, socket);
        self.tell_news();
    }

    fn follow_news(&mut self, now: Time, socket: SocketId) {
        if self.follow_name(socket) {
            self.tell_news();
        }
        self.learn_members(now, socket);
        self.actions.push(Action::News);
    }

    /// A name that was made up gives way. True if this server's changed.
    fn follow_name(&mut self, socket: SocketId) -> bool {
        let Some(line) = self.lines.get(&socket) else { return false };
        let agreed = agreed_name(&self.config, &line.peer.news).map(str::to_owned);
        match agreed {
            Some(name) if name != self.config.cluster => {
                self.config.cluster = name;
                true
            }
            _ => false,
        }
    }

    fn learn_members(&mut self, now: Time, socket: SocketId) {
        let Some(line) = self.lines.get(&socket) else { return };
        for (server, address) in &line.peer.news.members {
            if *server == self.config.server_id || self.servers.contains_key(server) {
                continue;
            }
            let at = if self.config.server_id < *server { now } else { now + COURTESY };
            self.targets.learn(at, server, address);
        }
    }
}

/// Whether a connection begins as those of another version do.
fn is_other_magic(bytes: &[u8]) -> bool {
    bytes.get(..MAGIC.len()).is_some_and(|first| first.starts_with(b"HWLINK") && first.ends_with(b"\n"))
}

/// Why a server that speaks these versions, and no others, is not taken into the cluster.
fn stranger((oldest, newest): (u16, u16)) -> Option<(Refusal, String)> {
    let is_common = oldest <= VERSION && VERSION <= newest;
    let text = || {
        format!(
            "one side speaks versions {oldest} to {newest} of the protocol between servers, the other {VERSION}"
        )
    };
    (!is_common).then(|| (Refusal::Version, text()))
}

/// The name of the cluster of both; None if they are in different ones.
fn agreed_name<'a>(own: &'a MeshConfig, peer: &'a News) -> Option<&'a str> {
    match (own.dynamic, peer.dynamic) {
        _ if own.cluster == peer.cluster => Some(&own.cluster),
        (false, false) => None,
        (false, true) => Some(&own.cluster),
        (true, false) => Some(&peer.cluster),
        (true, true) => Some(own.cluster.as_str().max(&peer.cluster)),
    }
}
