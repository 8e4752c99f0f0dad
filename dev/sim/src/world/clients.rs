//! The clients' connections.

use hw_kit::ConnId;

use super::{Event, Happening, World};
use crate::client::{Protocol, Said, hello};
use crate::net::Way;

/// One client.
pub(super) struct Client {
    pub(super) conn: Option<ConnId>,
    protocol: Protocol,
    inbox: String,
    user: String,
}

impl World {
    /// A further client; its number. It is not connected yet.
    pub fn add_client(&mut self) -> usize {
        self.add_user("")
    }

    /// The same, with a user of this name and password.
    pub fn add_user(&mut self, user: &str) -> usize {
        let index = self.clients.len();
        let inbox = format!("_INBOX.c{index}");
        self.clients.push(Client { conn: None, protocol: Protocol::default(), inbox, user: user.to_owned() });
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

    /// A client's connection.
    pub fn connection(&self, client: usize) -> Option<ConnId> {
        self.clients[client].conn
    }

    /// Connects a client to any server that runs, and subscribes to its inbox.
    pub fn connect(&mut self, client: usize) {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.is_up(*host)).collect();
        let host = match up[..] {
            [] => return,
            [host] => host,
            _ => up[self.rng.below(up.len() as u64) as usize],
        };
        self.connect_to(client, host);
    }

    /// Connects a client to this server, if it runs.
    pub fn connect_to(&mut self, client: usize, host: usize) {
        if !self.is_up(host) || self.clients[client].conn.is_some() {
            return;
        }
        let (conn, at) = self.net.open(self.agenda.now(), client);
        self.homes.insert(conn, host);
        let one = &mut self.clients[client];
        (one.conn, one.protocol) = (Some(conn), Protocol::default());
        let hello = hello(&one.inbox, &one.user);
        self.agenda.at(at, Event::Open(conn));
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

    /// A server's process is gone: its clients learn that.
    pub(super) fn hang_up(&mut self, host: usize) {
        let now = self.now();
        let conns: Vec<ConnId> =
            self.homes.iter().filter(|(_, home)| **home == host).map(|(conn, _)| *conn).collect();
        for conn in conns {
            let at = self.net.arrival(now, conn, Way::Down);
            self.agenda.at(at, Event::DownClosed(conn));
        }
    }

    pub(super) fn down_closed(&mut self, conn: ConnId) {
        let Some(client) = self.net.client(conn) else { return };
        self.net.close(conn);
        self.homes.remove(&conn);
        if self.clients[client].conn == Some(conn) {
            self.clients[client].conn = None;
            self.happened.push_back(Happening::Gone(client));
        }
    }

    pub(super) fn down(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(index) = self.net.client(conn) else { return };
        let client = &mut self.clients[index];
        if client.conn != Some(conn) {
            return;
        }
        client.protocol.feed(bytes);
        let mut pings = 0;
        loop {
            match client.protocol.next() {
                Ok(None) => break,
                Ok(Some(Said::Msg(msg))) => self.happened.push_back(Happening::Msg(index, msg)),
                Ok(Some(Said::Err(text))) => self.happened.push_back(Happening::Error(index, text)),
                Ok(Some(Said::Pong)) => self.happened.push_back(Happening::Pong(index)),
                Ok(Some(Said::Ping)) => pings += 1,
                Ok(Some(Said::Info | Said::Ok)) => {}
                Err(text) => {
                    self.wrong = Some(format!("the server speaks no protocol: {text}"));
                    return;
                }
            }
        }
        for _ in 0..pings {
            self.send(index, b"PONG\r\n".to_vec());
        }
    }
}
