//! A whole shard with JetStream: protocol text with API requests, publishes, pulls and acknowledgements, on a disk that
//! takes everything. What it logged is replayed afterwards, as after a crash.

use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::{HubConfig, HubLimits, Peer};
use hw_kit::{ConnId, ShardId, Span, Time};
use hw_node::{DiskCompletion, DiskRequest, JetStreamConfig, LoadError, Recovery, Shard};
use hw_store::{Frame, Recovered, Replay};
use hw_wire::Info;

const CONN: ConnId = ConnId(1);

/// API requests of the `api` target as protocol text, after what makes a stream and a consumer.
pub(super) fn corpus() -> Vec<Vec<u8>> {
    let create = publish(
        "$JS.API.STREAM.CREATE.S",
        "i.1",
        r#"{"name":"S","subjects":["a.>"],"num_replicas":1,"allow_direct":true,"allow_rollup_hdrs":true,"allow_msg_ttl":true,"allow_atomic":true,"allow_batched":true,"allow_msg_schedules":true}"#,
    );
    let consumer = publish(
        "$JS.API.CONSUMER.CREATE.S.C",
        "i.2",
        r#"{"stream_name":"S","config":{"name":"C","durable_name":"C","ack_policy":"explicit","max_deliver":3,"ack_wait":1000000000}}"#,
    );
    let next = publish("$JS.API.CONSUMER.MSG.NEXT.S.C", "i.3", r#"{"batch":3,"expires":2000000000}"#);
    let work = [publish("a.b", "i.4", "x"), publish("a.c", "", "y"), next.clone()].concat();
    let header = "HPUB a.b i.5 31 32\r\nNATS/1.0\r\nNats-Msg-Id: abc\r\n\r\nx\r\n".to_owned();
    let acks = ["+ACK", "-NAK", "+NXT 2", "+TERM", "+WPI"]
        .map(|body| publish("$JS.ACK.S.C.1.1.1.1700000000000000000.1", "i.6", body))
        .concat();
    let headed = |fields: &str| {
        let block = format!("NATS/1.0\r\n{}\r\n\r\n", fields.replace('|', "\r\n"));
        format!("HPUB a.b i.7 {} {}\r\n{block}z\r\n", block.len(), block.len() + 1)
    };
    let batch = |number: &str| headed(&format!("Nats-Batch-Id: b|Nats-Batch-Sequence: {number}"));
    let atomic = [batch("1"), batch("2"), batch("3|Nats-Batch-Commit: 1")].concat();
    let fast = ["1.0", "2.1", "4.1", "4.4", "5.2"]
        .map(|place| publish("a.b", &format!("i.b.2.ok.{place}.$FI"), "f"))
        .concat();
    let schedules = [
        headed("Nats-Schedule: @every 1s|Nats-Schedule-Target: a.t|Nats-Schedule-TTL: 2"),
        headed("Nats-Schedule: 0 */5 * ? jan-dec mon|Nats-Schedule-Target: a.t|Nats-Schedule-Time-Zone: UTC"),
        headed("Nats-Schedule: @at 1970-01-01T00:00:09Z|Nats-Schedule-Target: a.t|Nats-Schedule-Source: a.c"),
    ]
    .concat();
    let begin = [create, consumer].concat();
    let mut all = vec![
        begin.clone(),
        [begin.clone(), work.clone()].concat(),
        [begin.clone(), work.clone(), acks].concat(),
        [begin.clone(), header, next].concat(),
        [begin.clone(), atomic].concat(),
        [begin.clone(), fast].concat(),
        [begin.clone(), schedules, work.clone()].concat(),
    ];
    for entry in super::api::corpus() {
        let text = String::from_utf8_lossy(&entry).into_owned();
        let (subject, body) = text.split_once('\n').unwrap_or((&text, ""));
        let subject =
            if subject.starts_with('$') { subject.to_owned() } else { format!("$JS.API.{subject}") };
        all.push([begin.clone(), work.clone(), publish(&subject, "i.9", body), work.clone()].concat());
    }
    all.into_iter().map(String::into_bytes).collect()
}

fn publish(subject: &str, reply: &str, body: &str) -> String {
    let reply = if reply.is_empty() { String::new() } else { format!(" {reply}") };
    format!("PUB {subject}{reply} {}\r\n{body}\r\n", body.len())
}

/// Lengths are put right so that most of what is changed is read as a message.
pub fn fuzz_server(data: &[u8]) {
    let mut shard = Shard::new(Time(1_000_000_000), hub(), Some((jetstream(), Recovery::new(None))));
    let mut now = Time(2_000_000_000);
    shard.handle_open(now, CONN, Peer::default());
    let mut frames = Vec::new();
    let hello = b"CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB i.> 1\r\nSUB d 2\r\n";
    feed(&mut shard, now, hello, &mut frames);
    for line in repaired(data) {
        if shard.closing(CONN).is_some() {
            break;
        }
        feed(&mut shard, now, &line, &mut frames);
        now = now + Span::from_millis(400);
        shard.handle_timeout(now);
        settle(&mut shard, now, &mut frames);
    }
    now = now + Span::from_secs(3600);
    shard.handle_timeout(now);
    settle(&mut shard, now, &mut frames);
    replay(now, frames);
}

/// After a crash the log makes the same server again.
fn replay(now: Time, frames: Vec<Frame>) {
    let mut recovery = Recovery::new(None);
    for frame in frames {
        recovery.handle(Recovered::Replay(Replay { frame, skip: 0 }));
    }
    let quarantined: Vec<_> = recovery.quarantined().map(|(group, why)| format!("{group}: {why}")).collect();
    assert!(quarantined.is_empty(), "what was logged can be replayed: {quarantined:?}");
    let mut shard = Shard::new(now, hub(), Some((jetstream(), recovery)));
    settle(&mut shard, now, &mut Vec::new());
}

fn feed(shard: &mut Shard, now: Time, bytes: &[u8], frames: &mut Vec<Frame>) {
    let used = shard.handle_bytes(now, CONN, bytes);
    assert!(used <= bytes.len(), "no more is used than there is");
    settle(shard, now, frames);
}

/// The disk takes everything at once; checkpoints fail, reads find nothing.
fn settle(shard: &mut Shard, now: Time, frames: &mut Vec<Frame>) {
    for round in 0.. {
        assert!(round < 1000, "a shard comes to rest");
        shard.settle(now);
        let requests = shard.take_disk();
        if requests.is_empty() {
            break;
        }
        for request in requests {
            let completion = match request {
                DiskRequest::Append { ticket, frames: more } => {
                    frames.extend(more);
                    DiskCompletion::Synced { ticket }
                }
                DiskRequest::Checkpoint(_) => DiskCompletion::Checkpointed { result: Err("no".to_owned()) },
                DiskRequest::Tidy => continue,
                DiskRequest::Load { group, block, .. } => {
                    DiskCompletion::Loaded { group, block, loaded: Err(LoadError::Damaged("no".to_owned())) }
                }
            };
            shard.handle_disk(now, completion);
        }
    }
    let mut dirty = Vec::new();
    shard.take_dirty(&mut dirty);
    dirty.into_iter().for_each(|conn| drop(shard.swap_output(conn, Vec::new())));
}

/// Splits at what looks like a publish, and corrects its length.
fn repaired(data: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(data);
    let mut pieces = Vec::new();
    for piece in text.split("PUB ") {
        let Some((line, body)) = piece.split_once("\r\n") else { continue };
        let body = body.strip_suffix("\r\n").or_else(|| body.strip_suffix("\r\nH")).unwrap_or(body);
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((subject, rest)) = words.split_first() else { continue };
        let reply = rest.first().filter(|word| word.starts_with('i')).copied().unwrap_or_default();
        let end = body.find("\r\n\r\n").filter(|_| body.starts_with("NATS/1.0")).map(|end| end + 4);
        pieces.push(match end {
            Some(end) => format!("HPUB {subject} {reply} {end} {}\r\n{body}\r\n", body.len()).into_bytes(),
            None => format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()).into_bytes(),
        });
    }
    pieces
}

fn hub() -> HubConfig {
    HubConfig {
        shard: ShardId(0),
        shards: 1,
        seed: 1,
        info: Info { headers: true, ..Info::default() },
        limits: HubLimits { max_payload: 64 << 10, ..HubLimits::default() },
        directory: Arc::new(Directory::default()),
        exchange: None,
    }
}

fn jetstream() -> JetStreamConfig {
    JetStreamConfig {
        cluster: None,
        domain: String::new(),
        strict: false,
        long_acks: false,
        max_memory: -1,
        max_storage: -1,
        max_duplicate_window: Span::ZERO,
        max_ack_pending: 0,
        max_request_batch: 0,
        batch: hw_node::BatchLimits::default(),
        max_buffered: (None, None),
        version: "fuzz".to_owned(),
        server_id: "FUZZ".to_owned(),
        server_name: "fuzz".to_owned(),
        checkpoint_bytes: 2000,
        erase_after: hw_kit::Span::from_millis(100),
        scrub_bytes: 100_000,
        seed: 1,
    }
}
