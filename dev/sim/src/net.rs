//! The virtual network: byte pipes between clients and the server, with delays and fragments, in order.

use std::collections::BTreeMap;

use hw_kit::{ConnId, Rng, Span, Time};

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    /// The client at its end.
    pub client: usize,
    /// When the last bytes to the server arrive.
    to_server: Time,
    /// When the last bytes to the client arrive.
    to_client: Time,
}

/// All connections, and what delays them.
#[derive(Debug)]
pub struct Net {
    pipes: BTreeMap<ConnId, Pipe>,
    last: u64,
    rng: Rng,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

impl Net {
    /// No connections yet.
    pub fn new(seed: u64) -> Net {
        Net { pipes: BTreeMap::new(), last: 0, rng: Rng::new(seed) }
    }

    /// A new connection of a client, and when the server learns of it.
    pub fn open(&mut self, now: Time, client: usize) -> (ConnId, Time) {
        self.last += 1;
        let conn = ConnId(self.last);
        self.pipes.insert(conn, Pipe { client, to_server: now, to_client: now });
        (conn, self.arrival(now, conn, Way::Up))
    }

    /// Whose connection it is; None once it is gone.
    pub fn client(&self, conn: ConnId) -> Option<usize> {
        self.pipes.get(&conn).map(|pipe| pipe.client)
    }

    /// When something that is sent now arrives: after all that was sent before.
    pub fn arrival(&mut self, now: Time, conn: ConnId, way: Way) -> Time {
        let slow = if self.rng.chance(1, 60) { 30 } else { 1 };
        let delay = Span((slow * (20_000 + self.rng.below(150_000))) as i64);
        let Some(pipe) = self.pipes.get_mut(&conn) else { return now };
        let last = match way {
            Way::Up => &mut pipe.to_server,
            Way::Down => &mut pipe.to_client,
        };
        *last = (now + delay).max(*last);
        *last
    }

    /// Cuts bytes into the pieces in which they arrive.
    pub fn fragments(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while bytes.len() > 1 && pieces.len() < 4 && self.rng.chance(1, 6) {
            let rest = bytes.split_off(1 + self.rng.below(bytes.len() as u64 - 1) as usize);
            pieces.push(std::mem::replace(&mut bytes, rest));
        }
        pieces.push(bytes);
        pieces
    }

    /// A connection is gone for its client.
    pub fn close(&mut self, conn: ConnId) {
        self.pipes.remove(&conn);
    }
}
