//! Batches from other streams and what the stream made of them.

use hw_kit::{LogIndex, Span};
use hw_store::messages::Fetch;

use super::*;
use crate::command::Command;
use crate::config::StreamConfig;
use crate::outcome::Answer;
use crate::stream::check::{StreamLimits, check};
use crate::stream::headers;

const NOW: Time = Time(1_000_000_000_000);

fn stream(config: &str) -> Stream {
    let config: StreamConfig = serde_json::from_str(config).expect(config);
    Stream::new(check(&config, StreamLimits::default(), false).expect("it is valid"), NOW)
}

/// `seq subject [id]`, separated by commas.
fn messages(list: &str) -> Vec<Fed> {
    let one = |text: &str| {
        let mut words = text.split_whitespace();
        let seq: u64 = words.next().and_then(|word| word.parse().ok()).expect("a sequence");
        let subject = words.next().expect("a subject");
        let header = words.next().map_or_else(String::new, |field| {
            let (name, value) = field.split_once('=').expect("name=value");
            format!("NATS/1.0\r\n{name}: {value}\r\n\r\n")
        });
        let record = Record::join(subject.as_bytes(), header.as_bytes(), b"p").expect("it is short");
        Fed { seq: Seq(seq), ts: Time(seq as i64 * 1_000_000_000), record }
    };
    list.split(',').filter(|text| !text.is_empty()).map(one).collect()
}

fn apply(stream: &mut Stream, command: Command) -> String {
    match stream.apply(LogIndex(stream.applied().0 + 1), command, &mut Vec::new()) {
        Answer::Fed(Feeding::Taken) => "taken".to_owned(),
        Answer::Fed(Feeding::Stale) => "stale".to_owned(),
        Answer::Fed(Feeding::Refused(error)) => error.to_string(),
        other => format!("{other:?}"),
    }
}

/// `seq subject@seconds`, the numbers behind.
fn dump(stream: &Stream) -> String {
    let one = |seq| match stream.messages().fetch(seq) {
        Fetch::Message(m) => {
            format!("{} {}@{}", m.seq, String::from_utf8_lossy(m.record.subject()), m.ts.0 / 1_000_000_000)
        }
        other => format!("{other:?}"),
    };
    let all: Vec<String> = stream.messages().seqs().map(one).collect();
    format!("{} | {}..{}", all.join(", "), stream.messages().first_seq(), stream.messages().last_seq())
}

#[test]
fn a_mirror_keeps_numbers_and_times() {
    let mut m = stream(r#"{"name":"M","mirror":{"name":"O"}}"#);
    for (after, first, list, answer, state) in [
        (0, 3, "", "taken", " | 3..2"),
        (0, 3, "3 a", "stale", " | 3..2"),
        (2, 0, "3 a,4 b,7 a", "taken", "3 a@3, 4 b@4, 7 a@7 | 3..7"),
        (7, 0, "5 a,8 c Nats-Rollup=all", "taken", "3 a@3, 4 b@4, 7 a@7, 8 c@8 | 3..8"),
        (7, 0, "9 c", "stale", "3 a@3, 4 b@4, 7 a@7, 8 c@8 | 3..8"),
    ] {
        let command =
            Command::Mirrored { ts: NOW, after: Seq(after), first: Seq(first), messages: messages(list) };
        assert_eq!((apply(&mut m, command).as_str(), dump(&m).as_str()), (answer, state), "{list}");
    }
    assert_eq!(m.messages().deleted(), [Seq(5), Seq(6)]);
}

#[test]
fn a_mirror_has_limits_of_its_own() {
    for (config, list, answer, state) in [
        (r#""max_msgs":2"#, "1 a,2 b,3 c", "taken", "2 b@2, 3 c@3 | 2..3"),
        (
            r#""max_msgs":2,"discard":"new""#,
            "1 a,2 b,3 c",
            "maximum messages exceeded",
            "1 a@1, 2 b@2 | 1..2",
        ),
        (r#""max_msgs_per_subject":1"#, "1 a,2 b,3 a", "taken", "2 b@2, 3 a@3 | 2..3"),
        (r#""allow_rollup_hdrs":true"#, "1 a,2 b,3 c Nats-Rollup=all", "taken", "3 c@3 | 3..3"),
        // Ids do not matter: the origin has decided.
        (
            r#""duplicate_window":100000000000"#,
            "1 a Nats-Msg-Id=x,2 a Nats-Msg-Id=x",
            "taken",
            "1 a@1, 2 a@2 | 1..2",
        ),
        (r#""retention":"interest""#, "4 a", "taken", " | 5..4"),
    ] {
        let mut m = stream(&format!(r#"{{"name":"M","mirror":{{"name":"O"}},{config}}}"#));
        let command = Command::Mirrored { ts: NOW, after: Seq(0), first: Seq(0), messages: messages(list) };
        assert_eq!((apply(&mut m, command).as_str(), dump(&m).as_str()), (answer, state), "{config}");
    }
}

#[test]
fn a_mirrored_ttl_counts_from_the_origins_time() {
    let mut m = stream(r#"{"name":"M","mirror":{"name":"O"},"allow_msg_ttl":true}"#);
    let messages = messages("990 a Nats-TTL=20s,991 b Nats-TTL=5s");
    apply(&mut m, Command::Mirrored { ts: NOW, after: Seq(0), first: Seq(0), messages });
    assert_eq!(m.next_deadline(), Some(Time(996_000_000_000)));
    m.apply(LogIndex(2), Command::Expire { ts: NOW }, &mut Vec::new());
    assert_eq!(m.next_deadline(), Some(NOW + Span::from_secs(10)));
}

fn sourced(
    stream: &mut Stream,
    (key, identity): (&'static str, &'static str),
    after: u64,
    list: &str,
) -> String {
    let (source, identity) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(identity.as_bytes()));
    apply(stream, Command::Sourced { ts: NOW, source, identity, after: Seq(after), messages: messages(list) })
}

const S: &str = r#"{"name":"S","sources":[{"name":"A"},{"name":"B","filter_subject":"b"}],"max_msgs":5,"discard":"new",
    "duplicate_window":100000000000,"subject_transform":{"src":"t","dest":"u"}}"#;

#[test]
fn sources_get_new_numbers_and_each_goes_on_where_it_was() {
    let mut s = stream(S);
    let (a, b) = ("A > >", "B b >");
    for (from, after, list, answer, state) in [
        ((a, "1"), 0, "3 a,9 t", "taken", "1 a@1000, 2 u@1000 | 1..2"),
        ((b, "1"), 0, "1 b", "taken", "1 a@1000, 2 u@1000, 3 b@1000 | 1..3"),
        // A second copy of a batch, and one that skips.
        ((a, "1"), 0, "3 a,9 t", "stale", "1 a@1000, 2 u@1000, 3 b@1000 | 1..3"),
        ((a, "1"), 10, "11 a", "stale", "1 a@1000, 2 u@1000, 3 b@1000 | 1..3"),
        (("C > >", "1"), 0, "1 c", "stale", "1 a@1000, 2 u@1000, 3 b@1000 | 1..3"),
        ((a, "1"), 9, "10 a Nats-Msg-Id=x", "taken", "1 a@1000, 2 u@1000, 3 b@1000, 4 a@1000 | 1..4"),
        ((b, "1"), 1, "2 b Nats-Msg-Id=x", "taken", "1 a@1000, 2 u@1000, 3 b@1000, 4 a@1000 | 1..4"),
        // What has no place waits; what is before it was taken.
        (
            (b, "1"),
            2,
            "3 b,4 b",
            "maximum messages exceeded",
            "1 a@1000, 2 u@1000, 3 b@1000, 4 a@1000, 5 b@1000 | 1..5",
        ),
    ] {
        let came = sourced(&mut s, from, after, list);
        assert_eq!((came.as_str(), dump(&s).as_str()), (answer, state), "{from:?} {list}");
    }
    let at = |s: &Stream, key: &str| s.position(key.as_bytes()).map(|at| (at.identity.clone(), at.seq.0));
    assert_eq!(at(&s, a), Some((Bytes::from_static(b"1"), 10)));
    assert_eq!(at(&s, b), Some((Bytes::from_static(b"1"), 3)));
    // The origin was deleted and created again: it begins from the start.
    assert_eq!(sourced(&mut s, (a, "2"), 10, "11 a"), "stale");
    s.apply(
        LogIndex(99),
        Command::Purge { ts: NOW, filter: Bytes::new(), seq: Seq(0), keep: 0 },
        &mut Vec::new(),
    );
    assert_eq!(sourced(&mut s, (a, "2"), 0, "1 a"), "taken");
    assert_eq!(at(&s, a), Some((Bytes::from_static(b"2"), 1)));
}

#[test]
fn positions_survive_a_snapshot() {
    let mut s = stream(S);
    sourced(&mut s, ("A > >", "1"), 0, "3 a,9 t");
    let mut bytes = Vec::new();
    s.snapshot(&mut bytes);
    let restore = crate::stream::StreamRestore::open(&bytes.into()).expect("its own bytes");
    let (restored, _) = restore.finish(None).expect("its own bytes");
    assert_eq!(restored.positions, s.positions);
    assert_eq!(
        restored.position(b"A > >"),
        Some(&Position { identity: Bytes::from_static(b"1"), seq: Seq(9) })
    );
}

#[test]
fn counters_add_up_and_remember_their_sources() {
    let config = r#"{"name":"C","subjects":["c"],"storage":"memory","allow_msg_counter":true,
        "sources":[{"name":"A"},{"name":"B"}]}"#;
    let mut c = stream(config);
    let copy = |origin: &str, seq: u64, total: &str| {
        let header =
            format!("NATS/1.0\r\nNats-Incr: 1\r\nNats-Stream-Source: {origin} {seq} > > c ID\r\n\r\n");
        let payload = format!("{{\"val\":\"{total}\"}}");
        let record = Record::join(b"c", header.as_bytes(), payload.as_bytes()).expect("it is short");
        let (source, identity) = (format!("{origin} > >").into(), Bytes::from_static(b"ID"));
        let messages = vec![Fed { seq: Seq(seq), ts: NOW, record }];
        Command::Sourced { ts: NOW, source, identity, after: Seq(seq - 1), messages }
    };
    let last = |stream: &Stream| {
        let fetched = stream.messages().last_of(b"c").map(|seq| stream.messages().fetch(seq));
        let Some(Fetch::Message(message)) = fetched else { panic!("{fetched:?}") };
        let field = |name: &str| {
            let mut fields = headers::fields(message.record.header());
            let value = fields.find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value);
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        let payload = String::from_utf8_lossy(message.record.payload()).into_owned();
        format!("{} {} {payload}", field("Nats-Incr"), field("Nats-Counter-Sources"))
    };
    for (command, expected) in [
        (copy("A", 1, "5"), r#"5 {"A":{"c":"5"}} {"val":"5"}"#),
        (copy("B", 1, "-2"), r#"-2 {"A":{"c":"5"},"B":{"c":"-2"}} {"val":"3"}"#),
        (copy("A", 2, "4"), r#"-1 {"A":{"c":"4"},"B":{"c":"-2"}} {"val":"2"}"#),
    ] {
        assert_eq!(apply(&mut c, command), "taken");
        assert_eq!(last(&c), expected);
    }
    // What is no counter is left out.
    assert_eq!(apply(&mut c, copy("A", 3, "x")), "taken");
    assert_eq!(c.messages().last_seq(), Seq(3));
    let mut bytes = Vec::new();
    c.snapshot(&mut bytes);
    let mut restore = crate::stream::StreamRestore::open(&bytes.into()).expect("its own bytes");
    for seq in c.messages().seqs() {
        let Fetch::Message(message) = c.messages().fetch(seq) else { panic!("{seq} is in memory") };
        restore.messages.add_message(message).expect("in order");
    }
    let mut again = restore.finish(None).expect("its own bytes").0;
    let local = Record::join(b"c", b"NATS/1.0\r\nNats-Incr: 10\r\n\r\n", b"").expect("it is short");
    again.apply(LogIndex(9), Command::Publish { ts: NOW, record: local }, &mut Vec::new());
    assert_eq!(last(&again), r#"10 {"A":{"c":"4"},"B":{"c":"-2"}} {"val":"12"}"#);
}
