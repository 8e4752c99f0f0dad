//! What JetStream reads: API requests, pulls, acknowledgements, direct gets.

use hw_jsapi::{AckSubject, DirectGet, Parsed, Request, ack_kind, parse, pull_request};
use hw_stream::StreamConfig;
use hw_stream::stream::{StreamLimits, check};

pub(super) const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "false",
    "\"a.>\"",
    "\"*\"",
    "\"\"",
    "\"name\":",
    "\"subjects\":",
    "\"max_age\":",
    "\"max_msgs\":",
    "\"max_bytes\":",
    "\"max_msgs_per_subject\":",
    "\"retention\":\"workqueue\"",
    "\"retention\":\"interest\"",
    "\"discard\":\"new\"",
    "\"storage\":\"memory\"",
    "\"allow_msg_ttl\":true",
    "\"allow_rollup_hdrs\":true",
    "\"subject_transform\":{\"src\":\">\",\"dest\":\"x.>\"}",
    "\"duplicate_window\":",
    "\"mirror\":{\"name\":\"S\"}",
    "\"sources\":[{\"name\":\"S\"}]",
    "\"republish\":{\"src\":\">\",\"dest\":\"r.>\"}",
    "\"ack_policy\":\"explicit\"",
    "\"ack_policy\":\"all\"",
    "\"ack_policy\":\"none\"",
    "\"deliver_subject\":\"d\"",
    "\"deliver_group\":\"g\"",
    "\"max_deliver\":",
    "\"ack_wait\":",
    "\"backoff\":[1,2]",
    "\"filter_subjects\":[\"a\"]",
    "\"opt_start_seq\":",
    "\"deliver_policy\":\"by_start_sequence\"",
    "\"deliver_policy\":\"last_per_subject\"",
    "\"opt_start_time\":\"2026-01-01T00:00:00Z\"",
    "\"flow_control\":true",
    "\"idle_heartbeat\":",
    "\"headers_only\":true",
    "\"max_ack_pending\":",
    "\"batch\":",
    "\"expires\":",
    "\"no_wait\":true",
    "\"max_bytes\":",
    "\"inactive_threshold\":",
    "+ACK",
    "-NAK",
    "+TERM",
    "+NXT",
    "+WPI",
    "$JS.API.",
    "STREAM.CREATE.S",
    "CONSUMER.CREATE.S.C",
    "\"seq\":",
    "\"priority_policy\":\"overflow\"",
    "\"priority_groups\":[\"A\"]",
    "\"allow_atomic\":true",
    "\"allow_msg_counter\":true",
    "Nats-Msg-Id: x\r\n",
    "Nats-Rollup: all\r\n",
    "Nats-Rollup: sub\r\n",
    "Nats-TTL: 1s\r\n",
    "Nats-Incr: +1\r\n",
    "Nats-Expected-Last-Sequence: 1\r\n",
    "Nats-Expected-Last-Subject-Sequence: 0\r\n",
    "Nats-Expected-Stream: S\r\n",
    "Nats-Batch-Id: b\r\n",
    "Nats-Batch-Sequence: 1\r\n",
    "Nats-Batch-Commit: 1\r\n",
];

const TEXTS: &[&str] = &[
    "STREAM.CREATE.S\n{\"name\":\"S\",\"subjects\":[\"a.>\"],\"retention\":\"limits\",\"max_msgs\":10,\"max_age\":1000000000,\"num_replicas\":1}",
    "STREAM.UPDATE.S\n{\"name\":\"S\",\"subjects\":[\"a.>\",\"b\"],\"max_msgs\":5,\"storage\":\"file\",\"discard\":\"new\",\"discard_new_per_subject\":true,\"max_msgs_per_subject\":1}",
    "STREAM.PURGE.S\n{\"filter\":\"a.b\",\"seq\":3}",
    "STREAM.MSG.GET.S\n{\"seq\":1,\"next_by_subj\":\"a.>\"}",
    "STREAM.MSG.DELETE.S\n{\"seq\":1,\"no_erase\":true}",
    "STREAM.INFO.S\n{\"deleted_details\":true,\"subjects_filter\":\">\",\"offset\":1}",
    "STREAM.NAMES\n{\"offset\":0,\"subject\":\"a.*\"}",
    "CONSUMER.CREATE.S.C.a.b\n{\"stream_name\":\"S\",\"action\":\"create\",\"config\":{\"name\":\"C\",\"durable_name\":\"C\",\"filter_subject\":\"a.b\",\"ack_policy\":\"explicit\",\"ack_wait\":30000000000,\"max_deliver\":5,\"backoff\":[1000000,2000000],\"replay_policy\":\"instant\"}}",
    "CONSUMER.DURABLE.CREATE.S.C\n{\"stream_name\":\"S\",\"config\":{\"durable_name\":\"C\",\"deliver_subject\":\"d\",\"flow_control\":true,\"idle_heartbeat\":5000000000,\"ack_policy\":\"none\"}}",
    "CONSUMER.MSG.NEXT.S.C\n{\"batch\":10,\"expires\":1000000000,\"no_wait\":true,\"max_bytes\":1000,\"idle_heartbeat\":100000000,\"group\":\"A\",\"min_pending\":5,\"id\":\"x\"}",
    "CONSUMER.MSG.NEXT.S.C\n10",
    "CONSUMER.PAUSE.S.C\n{\"pause_until\":\"2026-11-23T01:14:05.487483207Z\"}",
    "CONSUMER.RESET.S.C\n{\"seq\":5}",
    "CONSUMER.UNPIN.S.C\n{\"group\":\"A\"}",
    "STREAM.LEADER.STEPDOWN.S\n{\"placement\":{\"tags\":[\"a\"]}}",
    "STREAM.SNAPSHOT.S\n{\"deliver_subject\":\"x\",\"no_consumers\":true,\"chunk_size\":1024}",
    "$JS.ACK.S.C.1.2.3.1700000000000000000.4\n-NAK {\"delay\":1000000}",
    "$JS.ACK.dom.hash.S.C.1.2.3.1700000000000000000.4.r\n+NXT {\"batch\":5,\"expires\":10}",
    "DIRECT.GET.S\n{\"multi_last\":[\"a.*\"],\"batch\":10,\"up_to_seq\":7,\"up_to_time\":\"2026-11-23T01:14:05Z\"}",
    "DIRECT.GET.S\n{\"seq\":1,\"batch\":5,\"max_bytes\":100,\"next_by_subj\":\"a.>\",\"start_time\":\"2026-11-23T01:14:05Z\"}",
    "DIRECT.GET.S\n{\"last_by_subj\":\"a\",\"no_hdr\":true}",
    "INFO\n",
];

pub(super) fn corpus() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The first line is a subject, the rest the body.
pub fn fuzz_api(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (subject, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let _ = pull_request(body);
    let _ = ack_kind(body);
    let _ = AckSubject::parse(subject);
    let _ = DirectGet::parse(body);
    let _ = DirectGet::parse_no_hdr(body);
    let text = String::from_utf8_lossy(subject);
    for strict in [false, true] {
        match parse(&text, body, strict) {
            Parsed::Request(_, Request::StreamCreate { config, pedantic }) => settled(&config, pedantic),
            Parsed::Refused(refused) => {
                let json = hw_jsapi::error(refused.kind, &refused.error);
                serde_json::from_slice::<serde_json::Value>(&json).expect("an error is JSON");
            }
            _ => {}
        }
    }
}

/// A configuration that was completed stays as it is, also through its bytes.
fn settled(config: &StreamConfig, pedantic: bool) {
    let limits = StreamLimits { clustered: false, duplicate_window: hw_kit::Span::ZERO };
    let Ok(complete) = check(config, limits, pedantic) else { return };
    assert_eq!(check(&complete, limits, pedantic).ok().as_ref(), Some(&complete), "complete is complete");
    let bytes = serde_json::to_vec(&complete).expect("plain data encodes");
    let again: StreamConfig = serde_json::from_slice(&bytes).expect("what was written can be read");
    assert_eq!(again, complete, "a configuration survives its bytes");
}
