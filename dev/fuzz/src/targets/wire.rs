//! The client protocol through a hub: any bytes in any pieces.

use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::{CloseReason, Hub, HubConfig, HubLimits, Peer};
use hw_kit::{ConnId, ShardId, Span, Time};
use hw_wire::Info;

pub(super) const WORDS: &[&str] = &[
    "\r\n",
    "PUB ",
    "HPUB ",
    "SUB ",
    "UNSUB ",
    "PING\r\n",
    "PONG\r\n",
    "CONNECT {}\r\n",
    "CONNECT ",
    "NATS/1.0\r\n",
    "\"verbose\":true",
    "\"pedantic\":true",
    "\"headers\":true",
    "\"no_responders\":true",
    "\"echo\":false",
    "*",
    ">",
    "a.b.c",
    "_INBOX.",
    "$JS.API.",
    " 0\r\n\r\n",
    " 1\r\nx\r\n",
    "INFO {}\r\n",
    "+OK\r\n",
    "-ERR\r\n",
    "\t",
    "\0",
];

pub(super) fn corpus() -> Vec<Vec<u8>> {
    let connect = "CONNECT {\"verbose\":false,\"pedantic\":true,\"headers\":true,\"no_responders\":true,\"lang\":\"x\",\"version\":\"1\",\"protocol\":1}\r\n";
    let texts = [
        "PING\r\n".to_owned(),
        format!("{connect}PING\r\nSUB a.* 1\r\nSUB a.> q 2\r\nPUB a.b 5\r\nhello\r\nUNSUB 1 1\r\nPUB a.c r.x 0\r\n\r\n"),
        format!("{connect}SUB > 1\r\nHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHPUB a r 22 22\r\nNATS/1.0\r\nA: b\r\nC:\r\n\r\n\r\n"),
        format!("{connect}SUB $SYS.> 9\r\nPUB _INBOX.x 3\r\nabc\r\nUNSUB 9\r\nPONG\r\n"),
        "CONNECT {\"user\":\"a\",\"pass\":\"b\",\"auth_token\":\"c\",\"jwt\":\"d\",\"sig\":\"e\",\"nkey\":\"f\"}\r\n".to_owned(),
        "pub A 1\r\nx\r\nsub a 1\r\n".to_owned(),
    ];
    texts.map(String::into_bytes).into()
}

/// The first byte says how the rest is cut into pieces.
pub fn fuzz_wire(data: &[u8]) {
    let (step, bytes) = match data.split_first() {
        Some((first, rest)) if first % 3 == 0 => (1 + usize::from(first / 3), rest),
        _ => (data.len().max(1), data),
    };
    let mut hub = Hub::new(HubConfig {
        shard: ShardId(0),
        shards: 1,
        seed: 1,
        info: Info { headers: true, ..Info::default() },
        limits: HubLimits { max_payload: 4096, max_pending: 64 << 10, ..HubLimits::default() },
        directory: Arc::new(Directory::default()),
        exchange: None,
    });
    let (mut now, conns) = (Time(1), [ConnId(1), ConnId(2)]);
    conns.iter().for_each(|conn| hub.handle_open(now, *conn, Peer::default()));
    hub.handle_bytes(now, conns[1], b"CONNECT {\"headers\":true}\r\nSUB a.> 1\r\nSUB a.> q 2\r\n", &mut ());
    let mut unread = Vec::new();
    for piece in bytes.chunks(step) {
        unread.extend_from_slice(piece);
        let used = hub.handle_bytes(now, conns[0], &unread, &mut ());
        assert!(used <= unread.len(), "no more is used than there is");
        unread.drain(..used);
        now = now + Span::from_millis(300);
        hub.handle_timeout(now);
        if hub.closing(conns[0]).is_some() {
            break;
        }
    }
    let mut dirty = Vec::new();
    hub.take_dirty(&mut dirty);
    for conn in dirty {
        let output = hub.swap_output(conn, Vec::new());
        assert!(output.starts_with(b"INFO "), "a connection begins with INFO");
    }
    conns.iter().for_each(|conn| hub.handle_closed(now, *conn, CloseReason::ClientClosed));
    assert_eq!(hub.counters().subscriptions, 0, "nothing is left of closed connections");
}
