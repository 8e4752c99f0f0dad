//! One client and one server, or a cluster, for tests that say what happens when: a request, its answer, a wait, a fault.

use std::sync::Arc;

use hw_kit::{Rng, Span};
use serde_json::{Value, json};

use crate::client::publish;
use crate::planted::Planted;
use crate::server::Setup;
use crate::trace::Trace;
use crate::world::{Ground, Happening, Start, World};

const PATIENCE: Span = Span::from_secs(5);

/// A world with one client that waits for its answers.
pub struct Asker {
    /// The server and its disk.
    pub world: World,
    /// For choices.
    pub rng: Rng,
    /// The client.
    pub client: usize,
    asked: u64,
}

impl Asker {
    /// A new disk, a server on it, a connection. Checkpoints come often.
    pub fn new(seed: u64) -> Asker {
        let setup =
            Setup { shards: 1, checkpoint_bytes: 4 << 10, wal_bytes: 144 << 10, planted: Planted::Nothing };
        let mut world = World::new(seed, setup, Ground::alone(), Trace::new(false));
        let client = world.add_client();
        world.boot(0, Start::default()).expect("a new disk is fine");
        world.connect(client);
        Asker { world, rng: Rng::new(seed), client, asked: 0 }
    }

    /// The same with servers that replicate; the client is at the first of them.
    pub fn cluster(seed: u64, servers: usize, checkpoint_bytes: u64) -> Asker {
        let setup = Setup { shards: 1, checkpoint_bytes, wal_bytes: 144 << 10, planted: Planted::Nothing };
        let directories = (0..servers).map(|_| Arc::default()).collect();
        let ground = Ground { directories, linked: true, replicated: true };
        let mut world = World::new(seed, setup, ground, Trace::new(std::env::var_os("TRACE").is_some()));
        let client = world.add_client();
        (0..servers).for_each(|host| world.boot(host, Start::default()).expect("a new disk is fine"));
        let mut asker = Asker { world, rng: Rng::new(seed), client, asked: 0 };
        asker.go_to(0);
        asker.wait(Span::from_secs(2));
        asker
    }

    /// The client goes to another server.
    pub fn go_to(&mut self, host: usize) {
        self.world.disconnect(self.client);
        self.world.connect_to(self.client, host);
        self.wait(Span::from_millis(10));
    }

    /// Asks, and does not wait for the answer; gives where that comes.
    pub fn send(&mut self, subject: &str, body: &str) -> String {
        self.asked += 1;
        let reply = format!("{}.{}", self.world.inbox(self.client), self.asked);
        let mut bytes = Vec::new();
        publish(&mut bytes, subject, &reply, &[], body.as_bytes());
        self.world.send(self.client, bytes);
        reply
    }

    /// Lets time pass in small steps until something is so.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&World) -> bool) {
        let end = self.world.now() + Span::from_secs(20);
        while !is_so(&self.world) {
            assert!(self.world.now() < end, "never: {what}");
            self.wait(Span(50_000));
        }
    }

    /// An answer, or none when the connection is lost or nobody answers.
    pub fn request(&mut self, subject: &str, body: &str) -> Option<Value> {
        let reply = self.send(subject, body);
        let until = self.world.now() + PATIENCE;
        while let Some(happening) = self.world.next(until).expect("no defect") {
            match happening {
                Happening::Msg(_, msg) if msg.subject == reply => {
                    return serde_json::from_slice(&msg.payload).ok();
                }
                Happening::Gone(_) => return None,
                _ => {}
            }
        }
        None
    }

    /// The answer of the JetStream API, which is no error.
    pub fn api(&mut self, verb: &str, body: &Value) -> Value {
        let answer = self.request(&format!("$JS.API.{verb}"), &body.to_string()).expect("the server runs");
        assert_eq!(answer.get("error"), None, "{verb} {body}");
        answer
    }

    /// Time passes.
    pub fn wait(&mut self, span: Span) {
        let until = self.world.now() + span;
        while self.world.next(until).expect("no defect").is_some() {}
    }

    /// How many messages a stream has.
    pub fn messages(&mut self, stream: &str) -> u64 {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({}));
        info["state"]["messages"].as_u64().expect("a number")
    }
}
