//! Log entries: whatever decodes is applied, to a stream and to the set of streams, and survives a checkpoint.

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Time};
use hw_meta::{Meta, MetaCommand};
use hw_store::Record;
use hw_stream::command::{ConsumerAction, Fed, RunOf, Settlement, Verdict};
use hw_stream::stream::{StreamLimits, StreamRestore, check};
use hw_stream::{Command, Stream, StreamConfig};

const CONFIGS: &[&str] = &[
    r#"{"name":"S","subjects":["a.>"],"max_msgs":5,"allow_rollup_hdrs":true,"allow_msg_ttl":true}"#,
    r#"{"name":"S","subjects":["a.>"],"retention":"workqueue","max_age":1000000000,"max_msgs_per_subject":2}"#,
    r#"{"name":"S","subjects":["a.>"],"retention":"interest","max_bytes":500,"discard":"new"}"#,
    r#"{"name":"S","subjects":["a.>"],"storage":"memory","allow_direct":true}"#,
    r#"{"name":"S","subjects":["a.>"],"allow_atomic":true,"allow_batched":true,"allow_msg_schedules":true,"allow_msg_ttl":true}"#,
    r#"{"name":"S","subjects":["a.>"],"allow_atomic":true,"allow_msg_counter":true,"sources":[{"name":"O"}]}"#,
];

fn config(text: &str) -> StreamConfig {
    let config: StreamConfig = serde_json::from_str(text).expect("the configurations above are JSON");
    let limits = StreamLimits { clustered: false, duplicate_window: hw_kit::Span::ZERO };
    check(&config, limits, false).expect("and are valid")
}

/// A configuration's number, then entries, each after its length in two bytes.
pub(super) fn corpus() -> Vec<Vec<u8>> {
    let publish = |ts: i64, subject: &str, header: &str| Command::Publish {
        ts: Time(ts),
        record: Record::join(subject.as_bytes(), header.as_bytes(), b"body").expect("short"),
    };
    let consumer = |name: &str, json: &str| Command::PutConsumer {
        ts: Time(5),
        name: Bytes::from(name.to_owned()),
        action: ConsumerAction::Any,
        pedantic: false,
        config: Bytes::from(json.to_owned()),
    };
    let c = || Bytes::from_static(b"C");
    let commands = [
        consumer(
            "C",
            r#"{"durable_name":"C","ack_policy":"explicit","max_deliver":2,"filter_subject":"a.b"}"#,
        ),
        publish(10, "a.b", ""),
        publish(11, "a.b", "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"),
        publish(12, "a.c", "NATS/1.0\r\nNats-TTL: 1s\r\n\r\n"),
        Command::Delivered { ts: Time(20), consumer: c(), seqs: vec![Seq(1), Seq(2)] },
        Command::Progress { ts: Time(21), consumer: c(), revision: 0, consumer_seq: 2, seq: Seq(2) },
        Command::Settled {
            ts: Time(21),
            consumer: c(),
            acks: vec![Settlement { seq: Seq(1), consumer_seq: 1, verdict: Verdict::Ack }],
        },
        publish(22, "a.b", "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"),
        Command::DeleteMessage { ts: Time(23), seq: Seq(2), erase: true },
        Command::Purge { ts: Time(24), filter: Bytes::from_static(b"a.c"), seq: Seq(0), keep: 1 },
        Command::PauseConsumer { ts: Time(25), name: c(), until: Time(90) },
        Command::ResetConsumer { ts: Time(26), name: c(), seq: Seq(1) },
        Command::Expire { ts: Time(3_000_000_000) },
        Command::Configure { ts: Time(27), revision: 2, config: Bytes::from(CONFIGS[0]) },
        Command::DeleteConsumer { ts: Time(28), name: c() },
    ];
    let mut all = Vec::new();
    for (number, _) in CONFIGS.iter().enumerate() {
        let mut entry = vec![number as u8];
        for command in commands.iter().chain(&batched()) {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            entry.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            entry.extend_from_slice(&bytes);
        }
        all.push(entry);
    }
    let metas = [
        r#"{"kind":"create","ts":1,"account":"$G","max_streams":-1,"config":{"name":"S","subjects":["a"],"retention":"limits","storage":"file"}}"#,
        r#"{"kind":"delete","ts":2,"account":"$G","name":"S"}"#,
        r#"{"kind":"dropped","group":1}"#,
    ];
    let mut entry = vec![0xff];
    for text in metas {
        entry.extend_from_slice(&(text.len() as u16).to_le_bytes());
        entry.extend_from_slice(text.as_bytes());
    }
    all.push(entry);
    all
}

/// Commands that store several messages, or one for a schedule or a source.
fn batched() -> Vec<Command> {
    let message = |subject: &str, fields: &str| {
        let header = format!("NATS/1.0\r\n{fields}\r\n\r\n");
        Record::join(subject.as_bytes(), header.as_bytes(), b"").expect("short")
    };
    let schedule = "Nats-Schedule: @every 1s\r\nNats-Schedule-Target: a.t\r\nNats-Schedule-Source: a.b";
    let produced = "Nats-Scheduler: a.s\r\nNats-Schedule-Next: purge";
    let copied = "Nats-Incr: 1\r\nNats-Stream-Source: O 1 > > a.c ID";
    let counter =
        Record::join(b"a.c", format!("NATS/1.0\r\n{copied}\r\n\r\n").as_bytes(), b"{\"val\":\"7\"}");
    vec![
        Command::BatchPart { ts: Time(29), messages: vec![message("a.b", "Nats-Msg-Id: y")] },
        Command::PublishBatch { ts: Time(30), messages: vec![message("a.c", "Nats-Incr: 5")] },
        Command::PublishRun { ts: Time(31), stop: true, of: None, messages: vec![message("a.s", schedule)] },
        Command::PublishRun {
            ts: Time(31),
            stop: false,
            of: Some(RunOf { id: Bytes::from_static(b"b"), flow: 3, first: 2, last: 2, ends: true }),
            messages: vec![message("a.s", schedule)],
        },
        Command::Fire {
            ts: Time(32),
            schedule: Seq(8),
            due: Time(1_000_000_000),
            next: Time(2_000_000_000),
            record: message("a.t", produced),
        },
        Command::Sourced {
            ts: Time(33),
            source: Bytes::from_static(b"O > >"),
            identity: Bytes::from_static(b"ID"),
            after: Seq(0),
            messages: vec![Fed { seq: Seq(1), ts: Time(1), record: counter.expect("short") }],
        },
    ]
}

/// Applies entries as recovery does.
pub fn fuzz_commands(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    if *first == 0xff {
        return apply_meta(rest);
    }
    let config = config(CONFIGS[usize::from(*first) % CONFIGS.len()]);
    let mut stream = Stream::new(config, Time(1));
    let mut index = LogIndex(0);
    for entry in entries(rest) {
        let Ok(command) = Command::decode(&entry) else { continue };
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(
            Command::decode(&bytes.into()).ok().as_ref(),
            Some(&command),
            "a command survives its bytes"
        );
        index = index.next();
        stream.apply(index, command, &mut Vec::new());
    }
    let mut state = Vec::new();
    stream.snapshot(&mut state);
    let state = Bytes::from(state);
    let restore = StreamRestore::open(&state).expect("a checkpoint's state can be read");
    assert_eq!(restore.applied(), index);
    // Its messages are in segments, which are not here: only what is lost with them may differ.
    restore.finish(None).expect("a checkpoint's state makes sense");
    // Damaged states are refused or make sense, too.
    for cut in [1, 7, state.len() / 2] {
        let _ = StreamRestore::open(&state.slice(..state.len().saturating_sub(cut)))
            .map(|restore| restore.finish(None));
    }
    let _ = StreamRestore::open(&Bytes::copy_from_slice(rest)).map(|restore| restore.finish(None));
}

fn apply_meta(rest: &[u8]) {
    let mut meta = Meta::default();
    for entry in entries(rest) {
        if let Ok(command) = MetaCommand::decode(&entry) {
            meta.apply(command);
        }
    }
    let mut state = Vec::new();
    meta.snapshot(&mut state);
    let again = Meta::restore(&state).expect("a checkpoint's state can be read");
    assert_eq!(again.all().count(), meta.all().count());
    let _ = Meta::restore(rest);
}

fn entries(mut rest: &[u8]) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (entry, after) = after.split_at(len);
        rest = after;
        Some(Bytes::copy_from_slice(entry))
    })
}
