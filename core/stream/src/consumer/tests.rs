//! Tables of what `nats-server` 2.15.1 answers to configurations, and of what settles what.

use bytes::Bytes;
use hw_kit::{Seq, Span, Time};
use hw_store::messages::Keep;
use hw_store::{Messages, Record};

use super::*;
use crate::command::{ConsumerAction, Settlement, Verdict};
use crate::config::StreamConfig;
use crate::outcome::{Advisory, ConsumerError, Effect};

fn stream(retention: Retention) -> StreamConfig {
    let subjects = vec!["s.>".to_owned()];
    StreamConfig { name: "S".into(), subjects, retention, num_replicas: 1, ..StreamConfig::default() }
}

fn parse(text: &str) -> ConsumerConfig {
    serde_json::from_str(text).expect(text)
}

fn ask(text: &str, stream: &StreamConfig, pedantic: bool) -> Result<ConsumerConfig, (u16, String)> {
    let mut config = parse(text);
    if config.name.is_empty() {
        config.name = "n".into();
    }
    let request = Request { config: &config, action: ConsumerAction::Any, pedantic };
    check(request, stream, ServerLimits::default(), None).map_err(code)
}

fn code(error: ConsumerError) -> (u16, String) {
    match error {
        ConsumerError::Rule { err_code, text } => (err_code, text),
        other => (0, other.to_string()),
    }
}

/// The complete configuration with what every one of these has left out.
fn shown(config: &ConsumerConfig) -> String {
    let mut value = serde_json::to_value(config).expect("json");
    let fields = value.as_object_mut().expect("an object");
    for (name, usual) in [
        ("name", "\"n\""),
        ("deliver_policy", "\"all\""),
        ("ack_policy", "\"none\""),
        ("max_deliver", "-1"),
        ("replay_policy", "\"instant\""),
        ("max_waiting", "512"),
        ("inactive_threshold", "5000000000"),
        ("num_replicas", "0"),
    ] {
        if fields.get(name).map(ToString::to_string).as_deref() == Some(usual) {
            fields.remove(name);
        }
    }
    value.to_string()
}

#[test]
fn defaults_are_filled_in() {
    let limits = stream(Retention::Limits);
    for (config, expected) in [
        ("{}", "{}"),
        (
            r#"{"ack_policy":"explicit"}"#,
            r#"{"ack_policy":"explicit","ack_wait":30000000000,"max_ack_pending":1000}"#,
        ),
        (r#"{"ack_policy":"all"}"#, r#"{"ack_policy":"all","ack_wait":30000000000,"max_ack_pending":1000}"#),
        (r#"{"deliver_subject":"a"}"#, r#"{"deliver_subject":"a"}"#),
        (r#"{"max_waiting":-1}"#, "{}"),
        (r#"{"max_waiting":10}"#, r#"{"max_waiting":10}"#),
        (r#"{"max_ack_pending":-7}"#, r#"{"max_ack_pending":-1}"#),
        (r#"{"max_ack_pending":5}"#, r#"{"max_ack_pending":5}"#),
        (r#"{"max_deliver":-5}"#, "{}"),
        (r#"{"max_deliver":3}"#, r#"{"max_deliver":3}"#),
        (r#"{"backoff":[1000000000]}"#, r#"{"ack_wait":1000000000,"backoff":[1000000000]}"#),
        (r#"{"deliver_subject":"a","idle_heartbeat":-1}"#, r#"{"deliver_subject":"a"}"#),
        (r#"{"max_batch":-1,"max_expires":-1,"max_bytes":-1,"inactive_threshold":-1}"#, "{}"),
        (r#"{"durable_name":"d"}"#, r#"{"durable_name":"d","name":"d"}"#),
        (
            r#"{"priority_policy":"pinned_client","priority_groups":["a"],"priority_timeout":-1}"#,
            r#"{"priority_groups":["a"],"priority_policy":"pinned_client","priority_timeout":120000000000}"#,
        ),
        (r#"{"sample_freq":"50%"}"#, r#"{"sample_freq":"50%"}"#),
        (r#"{"metadata":{"_nats.level":"5","a":"b"}}"#, r#"{"metadata":{"a":"b"}}"#),
    ] {
        let found = ask(config, &limits, false).map(|found| shown(&found));
        let expected: serde_json::Value = serde_json::from_str(expected).expect(expected);
        assert_eq!(found, Ok(expected.to_string()), "{config}");
    }
    let mut tight = stream(Retention::Limits);
    tight.consumer_limits.max_ack_pending = 50;
    tight.consumer_limits.inactive_threshold = Span::from_secs(10);
    let found = ask(r#"{"durable_name":"d"}"#, &tight, false).expect("valid");
    assert_eq!((found.max_ack_pending, found.inactive_threshold), (50, Span::from_secs(10)));
}

/// Configuration, code, text.
const RULES: &[(&str, u16, &str)] = &[
    (r#"{"deliver_subject":"a.*"}"#, 10079, "consumer deliver subject has wildcards"),
    (r#"{"deliver_subject":"a..b"}"#, 10112, "invalid push consumer deliver subject"),
    (r#"{"deliver_subject":"a b"}"#, 10112, "invalid push consumer deliver subject"),
    (r#"{"deliver_subject":"s.x"}"#, 10081, "consumer deliver subject forms a cycle"),
    (r#"{"deliver_subject":"a","max_waiting":5}"#, 10080, "consumer in push mode can not set max waiting"),
    (r#"{"rate_limit_bps":10}"#, 10086, "consumer in pull mode can not have rate limit set"),
    (r#"{"idle_heartbeat":1000000000}"#, 10088, "consumer idle heartbeat requires a push based consumer"),
    (
        r#"{"deliver_subject":"a","idle_heartbeat":1000000}"#,
        10083,
        "consumer idle heartbeat needs to be >= 100ms",
    ),
    (r#"{"flow_control":true}"#, 10089, "consumer flow control requires a push based consumer"),
    (
        r#"{"deliver_subject":"a","flow_control":true}"#,
        10108,
        "consumer with flow control also needs heartbeats",
    ),
    (
        r#"{"deliver_subject":"a","max_ack_pending":5}"#,
        10082,
        "consumer requires ack policy for max ack pending",
    ),
    (r#"{"ack_wait":-1}"#, 10183, "consumer ack wait needs to be positive"),
    (r#"{"backoff":[-1]}"#, 10184, "consumer backoff needs to be positive"),
    (r#"{"name":"a/b"}"#, 10127, "Consumer name can not contain path separators"),
    (r#"{"name":"a.b"}"#, 10052, "consumer name can not contain '.', '*', '>', '\\', '/'"),
    (r#"{"backoff":[1,-1]}"#, 10184, "consumer backoff needs to be positive"),
    (
        r#"{"backoff":[1,2],"max_deliver":1}"#,
        10116,
        "max deliver is required to be > length of backoff values",
    ),
    (
        r#"{"deliver_policy":"last_per_subject"}"#,
        10094,
        "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
    ),
    (
        r#"{"deliver_policy":"by_start_sequence"}"#,
        10094,
        "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
    ),
    (
        r#"{"opt_start_time":"2024-01-01T00:00:00Z"}"#,
        10094,
        "consumer delivery policy is deliver all, but optional start time is also set",
    ),
    (
        r#"{"deliver_policy":"by_start_time","opt_start_seq":5,"opt_start_time":"2024-01-01T00:00:00Z"}"#,
        10094,
        "consumer delivery policy is deliver by start time, but optional start start sequence is also set",
    ),
    (r#"{"filter_subject":"s..a"}"#, 10052, "invalid subject"),
    (
        r#"{"filter_subject":"s.a","filter_subjects":["s.b"]}"#,
        10136,
        "consumer cannot have both FilterSubject and FilterSubjects specified",
    ),
    (r#"{"filter_subjects":["s.a",""]}"#, 10139, "consumer filter in FilterSubjects cannot be empty"),
    (r#"{"filter_subjects":["s.a","s.*"]}"#, 10138, "consumer subject filters cannot overlap"),
    (
        r#"{"sample_freq":"abc"}"#,
        10095,
        "failed to parse consumer sampling configuration: strconv.Atoi: parsing \"abc\": invalid syntax",
    ),
    (r#"{"sample_freq":"-5"}"#, 10095, "failed to parse consumer sampling configuration: <nil>"),
    (r#"{"max_expires":1000}"#, 10115, "consumer max request expires needs to be >= 1ms"),
    (r#"{"num_replicas":-1}"#, 10133, "replicas count cannot be negative"),
    (r#"{"num_replicas":3}"#, 10074, "replicas > 1 not supported in non-clustered mode"),
    (r#"{"direct":true}"#, 10090, "consumer direct requires a push based consumer"),
    (
        r#"{"direct":true,"deliver_subject":"a","durable_name":"d"}"#,
        10091,
        "consumer direct requires an ephemeral consumer",
    ),
    (r#"{"priority_groups":["a"]}"#, 10196, "consumer can not have priority groups when policy is none"),
    (
        r#"{"priority_policy":"overflow"}"#,
        10159,
        "Setting PriorityPolicy requires at least one PriorityGroup to be set",
    ),
    (
        r#"{"priority_policy":"overflow","priority_groups":[""]}"#,
        10161,
        "Group name cannot be an empty string",
    ),
    (
        r#"{"priority_policy":"overflow","priority_groups":["a b"]}"#,
        10162,
        "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
    ),
    (
        r#"{"priority_policy":"overflow","priority_groups":["a"],"deliver_subject":"a"}"#,
        10178,
        "priority groups can not be used with push consumers",
    ),
    (r#"{"priority_timeout":5}"#, 10197, "PinnedTTL cannot be set when PriorityPolicy is none"),
    (r#"{"ack_policy":"flow_control"}"#, 10218, "flow control ack policy requires a push based consumer"),
    (
        r#"{"ack_policy":"flow_control","deliver_subject":"a","max_ack_pending":-1}"#,
        10220,
        "flow control ack policy requires max ack pending",
    ),
    (
        r#"{"ack_policy":"flow_control","deliver_subject":"a","ack_wait":5}"#,
        10221,
        "flow control ack policy requires unset ack wait",
    ),
    (
        r#"{"ack_policy":"flow_control","deliver_subject":"a","max_deliver":3}"#,
        10222,
        "flow control ack policy requires unset max deliver",
    ),
];

#[test]
fn rules_have_codes_and_texts() {
    let limits = stream(Retention::Limits);
    for &(config, err_code, text) in RULES {
        let found = ask(config, &limits, false).expect_err(config);
        assert_eq!(found, (err_code, text.to_owned()), "{config}");
    }
}

#[test]
fn pedantic_requests_are_not_adjusted() {
    for (config, err_code, text) in [
        (r#"{"max_waiting":-1}"#, 10157, "pedantic mode: max_waiting must not be negative"),
        (r#"{"max_ack_pending":-5}"#, 10157, "pedantic mode: max_ack_pending must be set to -1"),
        (r#"{"max_deliver":-5}"#, 10157, "pedantic mode: max_deliver must be set to -1"),
        (r#"{"backoff":[5]}"#, 10157, "pedantic mode: first backoff value has to equal batch AckWait"),
        (r#"{"inactive_threshold":-1}"#, 10157, "pedantic mode: inactive_threshold must not be negative"),
        (
            r#"{"ack_policy":"flow_control","deliver_subject":"a"}"#,
            10219,
            "flow control ack policy requires flow control",
        ),
        (
            r#"{"ack_policy":"flow_control","deliver_subject":"a","flow_control":true,"idle_heartbeat":2000000000}"#,
            10052,
            "flow control ack policy heartbeat needs to be 1s",
        ),
    ] {
        let found = ask(config, &stream(Retention::Limits), true).expect_err(config);
        assert_eq!(found, (err_code, text.to_owned()), "{config}");
    }
}

#[test]
fn work_queues_have_rules() {
    let queue = stream(Retention::Workqueue);
    for (config, err_code) in [
        ("{}", 10084),
        (r#"{"ack_policy":"all"}"#, 10098),
        (r#"{"deliver_subject":"a"}"#, 10098),
        (r#"{"ack_policy":"explicit","deliver_policy":"new"}"#, 10101),
        (r#"{"ack_policy":"explicit","deliver_policy":"by_start_sequence"}"#, 10094),
    ] {
        assert_eq!(ask(config, &queue, false).expect_err(config).0, err_code, "{config}");
    }
    let with = |name: &str, filter: &str| {
        ask(
            &format!(r#"{{"durable_name":"{name}","ack_policy":"explicit","filter_subject":"{filter}"}}"#),
            &queue,
            false,
        )
        .expect("valid")
    };
    let by_flow =
        ask(r#"{"ack_policy":"flow_control","deliver_subject":"a"}"#, &queue, false).expect("valid");
    for (others, config, expected) in [
        (vec![], with("a", ""), None),
        (vec![with("a", "")], with("b", ""), Some(10099)),
        (vec![with("a", "")], with("b", "s.1"), Some(10100)),
        (vec![with("a", "s.1")], with("b", ""), Some(10099)),
        (vec![with("a", "s.1")], with("b", "s.*"), Some(10100)),
        (vec![with("a", "s.1")], with("b", "s.2"), None),
        (vec![], by_flow, None),
    ] {
        let found = check_siblings(&config, &queue, others.iter()).err().map(|error| code(error).0);
        assert_eq!(found, expected, "{others:?} {config:?}");
    }
}

#[test]
fn updates_and_actions() {
    let limits = stream(Retention::Limits);
    let messages = Messages::new(Seq(0), Keep::Memory);
    let update = |old: &str, new: &str, action| {
        let config = ask(old, &limits, false).expect(old);
        let existing =
            Consumer::new(Bytes::from_static(b"d"), config, Retention::Limits, (Time(1), &messages));
        let mut fields: serde_json::Map<_, _> =
            serde_json::from_value(serde_json::to_value(existing.config()).expect("json")).expect("object");
        fields.extend(serde_json::from_str::<serde_json::Map<_, _>>(new).expect(new));
        fields.retain(|_, value| !value.is_null());
        let config: ConsumerConfig = serde_json::from_value(fields.into()).expect(new);
        let request = Request { config: &config, action, pedantic: false };
        check(request, &limits, ServerLimits::default(), Some(&existing)).map_err(code)
    };
    let pull = r#"{"durable_name":"d","ack_policy":"explicit"}"#;
    let push = r#"{"durable_name":"d","ack_policy":"explicit","deliver_subject":"x"}"#;
    for (old, new, text) in [
        (pull, r#"{"deliver_policy":"new"}"#, "deliver policy can not be updated"),
        (pull, r#"{"ack_policy":"none"}"#, "ack policy can not be updated"),
        (pull, r#"{"replay_policy":"original"}"#, "replay policy can not be updated"),
        (push, r#"{"idle_heartbeat":1000000000}"#, "heart beats can not be updated"),
        (pull, r#"{"max_waiting":100}"#, "max waiting can not be updated"),
        (pull, r#"{"mem_storage":true}"#, "storage type can not be updated"),
        (pull, r#"{"sourcing":true}"#, "sourcing can not be updated"),
        (pull, r#"{"deliver_subject":"x","max_waiting":null}"#, "can not update pull consumer to push based"),
        (push, r#"{"deliver_subject":null}"#, "can not update push consumer to pull based"),
    ] {
        let found = update(old, new, ConsumerAction::Update).expect_err(new);
        assert_eq!(found, (10012, text.to_owned()), "{new}");
    }
    for new in [
        r#"{"description":"q"}"#,
        r#"{"ack_wait":5}"#,
        r#"{"filter_subjects":["s.1"]}"#,
        r#"{"max_ack_pending":7}"#,
        r#"{"inactive_threshold":1000000000}"#,
    ] {
        assert!(update(pull, new, ConsumerAction::Update).is_ok(), "{new}");
        assert_eq!(
            update(pull, new, ConsumerAction::Create),
            Err((0, "consumer already exists".into())),
            "{new}"
        );
    }
    assert!(update(pull, "{}", ConsumerAction::Create).is_ok());
    // The pause is not part of an update.
    let paused =
        update(pull, r#"{"pause_until":"2040-01-01T00:00:00Z"}"#, ConsumerAction::Any).expect("ignored");
    assert_eq!(paused.pause_until, None);
    let config = parse(pull);
    let request = Request { config: &config, action: ConsumerAction::Update, pedantic: false };
    let missing = check(request, &limits, ServerLimits::default(), None);
    assert_eq!(missing, Err(ConsumerError::Missing));
}

#[test]
fn limits_are_named() {
    let mut tight = stream(Retention::Limits);
    tight.consumer_limits.max_ack_pending = 50;
    tight.consumer_limits.inactive_threshold = Span::from_secs(10);
    for (config, err_code, text) in [
        (r#"{"max_ack_pending":51}"#, 10121, "consumer max ack pending exceeds system limit of 50"),
        (
            r#"{"inactive_threshold":20000000000}"#,
            10153,
            "consumer inactive threshold exceeds system limit of 10s",
        ),
    ] {
        assert_eq!(ask(config, &tight, false), Err((err_code, text.to_owned())), "{config}");
    }
    for (span, text) in [
        (0, "0s"),
        (5, "5ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
    ] {
        assert_eq!(go_duration(Span(span)), text);
    }
}

fn queue() -> (Messages, Consumer) {
    let mut messages = Messages::new(Seq(0), Keep::Memory);
    for seq in 1..=4 {
        messages.append(Seq(seq), Time(seq as i64), Record::join(b"s.a", b"", b"x").expect("short"));
    }
    let config = ask(r#"{"durable_name":"d","ack_policy":"explicit"}"#, &stream(Retention::Workqueue), false);
    let config = config.expect("valid");
    let consumer =
        Consumer::new(Bytes::from_static(b"d"), config, Retention::Workqueue, (Time(9), &messages));
    (messages, consumer)
}

#[test]
fn a_late_acknowledgement_still_removes() {
    let (messages, mut consumer) = queue();
    let settle = |consumer: &mut Consumer, seq, verdict| {
        let mut applied = Applied::default();
        consumer.apply_settled(
            Time(20),
            &[Settlement { seq: Seq(seq), consumer_seq: 1, verdict }],
            &mut applied,
        );
        applied
    };
    consumer.apply_delivered(Time(10), &[Seq(1), Seq(2)], &messages, &mut Applied::default());
    let gave_up = settle(&mut consumer, 1, Verdict::Exhausted);
    assert!(gave_up.done.is_empty(), "it stays in the stream");
    assert!(matches!(gave_up.effects[..], [Effect::Advise(Advisory::MaxDeliveries { .. })]));
    assert!(
        consumer.needs(Seq(1), b"s.a") && consumer.needs(Seq(2), b"s.a") && consumer.needs(Seq(3), b"s.a")
    );
    assert_eq!(settle(&mut consumer, 1, Verdict::Ack).done, [Seq(1)]);
    assert!(!consumer.needs(Seq(1), b"s.a"));
    assert_eq!(settle(&mut consumer, 1, Verdict::Ack).done, []);
    assert_eq!(settle(&mut consumer, 2, Verdict::Term(Bytes::new())).done, [Seq(2)]);
    assert_eq!(settle(&mut consumer, 3, Verdict::Ack).done, [], "it was not delivered");
}

#[test]
fn resets_have_limits() {
    let (messages, _) = queue();
    for (config, seq, expected) in [
        (r#"{}"#, 3, Ok(Seq(3))),
        (r#"{}"#, 100, Ok(Seq(100))),
        (r#"{"deliver_policy":"new"}"#, 3, Err("invalid reset: not allowed")),
        (r#"{"deliver_policy":"new"}"#, 0, Ok(Seq(5))),
        (
            r#"{"deliver_policy":"by_start_sequence","opt_start_seq":3}"#,
            2,
            Err("invalid reset: below start seq"),
        ),
        (r#"{"deliver_policy":"by_start_sequence","opt_start_seq":3}"#, 4, Ok(Seq(4))),
        (
            r#"{"deliver_policy":"by_start_time","opt_start_time":"2034-01-01T00:00:00Z"}"#,
            2,
            Err("invalid reset: below start time"),
        ),
    ] {
        let checked = ask(config, &stream(Retention::Limits), false).expect(config);
        let mut consumer =
            Consumer::new(Bytes::from_static(b"d"), checked, Retention::Limits, (Time(9), &messages));
        let found = consumer.apply_reset(Seq(seq), &messages).map_err(|error| code(error).1);
        assert_eq!(found, expected.map_err(str::to_owned), "{config} {seq}");
    }
}
