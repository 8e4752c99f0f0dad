//! Prints how long parse + route takes for small messages: `cargo run --release -p hw-hub --example route`.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // A measurement needs a clock and tells its result.

use std::sync::Arc;
use std::time::Instant;

use hw_auth::Directory;
use hw_hub::{Hub, HubConfig, HubLimits, Peer};
use hw_kit::{ConnId, ShardId, Time};
use hw_wire::{Info, Limits, Step, parse};

const MESSAGES: usize = 512;
const ROUNDS: usize = 4000;

fn hub() -> Hub {
    Hub::new(HubConfig {
        shard: ShardId(0),
        shards: 1,
        seed: 1,
        info: Info { headers: true, ..Info::default() },
        limits: HubLimits { max_pending: usize::MAX, ..HubLimits::default() },
        directory: Arc::new(Directory::default()),
        exchange: None,
    })
}

fn measure(name: &str, subs: &[&str], message: &str) {
    let mut hub = hub();
    let publisher = ConnId(1);
    hub.handle_open(Time(1), publisher, Peer::default());
    let connect = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n";
    hub.handle_bytes(Time(1), publisher, connect, &mut ());
    let mut receivers = vec![];
    for (n, sub) in (2u64..).zip(subs) {
        let conn = ConnId(n);
        hub.handle_open(Time(1), conn, Peer::default());
        hub.handle_bytes(Time(1), conn, connect, &mut ());
        hub.handle_bytes(Time(1), conn, sub.as_bytes(), &mut ());
        receivers.push(conn);
    }
    let batch = message.repeat(MESSAGES);
    let (mut spare, mut dirty, mut bytes) = (Vec::new(), Vec::new(), 0);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        hub.handle_bytes(Time(2), publisher, batch.as_bytes(), &mut ());
        dirty.clear();
        hub.take_dirty(&mut dirty);
        for &conn in &dirty {
            spare = hub.swap_output(conn, spare);
            bytes += spare.len();
        }
    }
    let each = start.elapsed().as_nanos() as f64 / (MESSAGES * ROUNDS) as f64;
    println!("{name:44} {each:7.1} ns/message, {:4} bytes out", bytes / (MESSAGES * ROUNDS));
}

fn parse_only(message: &str) {
    let batch = message.repeat(MESSAGES);
    let start = Instant::now();
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let mut rest = batch.as_bytes();
        while let Ok(Step::Op(op, consumed)) = parse(rest, &Limits::default()) {
            std::hint::black_box(&op);
            rest = &rest[consumed..];
            seen += 1;
        }
    }
    println!("{:44} {:7.1} ns/message", "parse only", start.elapsed().as_nanos() as f64 / f64::from(seen));
}

fn main() {
    let payload = "x".repeat(128);
    let message = format!("PUB orders.new 128\r\n{payload}\r\n");
    let request = format!("PUB orders.new _INBOX.abcdefghijkl.1 128\r\n{payload}\r\n");
    let header = format!("HPUB orders.new 28 156\r\nNATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n{payload}\r\n");
    parse_only(&message);
    measure("0 subscribers", &[], &message);
    measure("1 subscriber", &["SUB orders.new 1\r\n"], &message);
    measure("1 subscriber, wildcard", &["SUB orders.* 1\r\n"], &message);
    measure("1 subscriber, request", &["SUB orders.new 1\r\n"], &request);
    measure("1 subscriber, headers", &["SUB orders.new 1\r\n"], &header);
    measure("1 queue group of 4", &["SUB orders.new q 1\r\n"; 4], &message);
    measure("10 subscribers", &["SUB orders.new 1\r\n"; 10], &message);
}
