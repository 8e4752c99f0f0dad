//! The tables. Statuses, numbers and order are those of `nats-server` 2.15.1 where it was asked.

use hw_store::messages::BlockId;
use hw_store::segment::SegmentWriter;
use hw_store::{LoadedBlock, Vault};

use super::world::World;
use crate::outcome::{ConsumerError, Effect};

const TEN: [&str; 10] = ["a.0", "a.1", "a.0", "a.1", "a.0", "a.1", "a.0", "a.1", "a.0", "a.1"];

/// Configuration, published subjects, script.
type Case = (&'static str, &'static [&'static str], &'static str);

fn play(cases: &[Case]) {
    for (config, published, script) in cases {
        World::new(config, published).play(script);
    }
}

const PULLS_ARE_SERVED_AND_END: &[Case] = &[
    (
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &TEN,
        r#"
            > pull r 1
              r 1 c1 d1 p9
            > pull r 2
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > pull r {"batch":2,"no_wait":true}
              r 4 c4 d1 p6
              r 5 c5 d1 p5
            > pull r {"batch":20,"no_wait":true}
              r 6 c6 d1 p4
              r 7 c7 d1 p3
              r 8 c8 d1 p2
              r 9 c9 d1 p1
              r 10 c10 d1 p0
              r 404 No Messages
            > pull r {"batch":20,"no_wait":true}
              r 404 No Messages
            > pull r {"batch":5,"expires":300000000}
            > wait 299ms
            > wait 1ms
              r 408 Request Timeout; Nats-Pending-Messages: 5; Nats-Pending-Bytes: 0
            > pull r {"batch":5,"expires":300000000,"no_wait":true}
            > wait 300ms
              r 408 Request Timeout; Nats-Pending-Messages: 5; Nats-Pending-Bytes: 0
            > pull r {"batch":5,"expires":1000000000,"idle_heartbeat":300000000}
            > wait 2s
              r 100 Idle Heartbeat; Nats-Last-Consumer: 10; Nats-Last-Stream: 10
              r 100 Idle Heartbeat; Nats-Last-Consumer: 10; Nats-Last-Stream: 10
              r 100 Idle Heartbeat; Nats-Last-Consumer: 10; Nats-Last-Stream: 10
              r 408 Request Timeout; Nats-Pending-Messages: 5; Nats-Pending-Bytes: 0
            > pull r {"batch":5,"expires":1000000000,"idle_heartbeat":600000000}
              r 400 Bad Request - heartbeat value too large
            > pull r {"batch":5,"no_wait":true,"idle_heartbeat":1000000}
              r 400 Bad Request - heartbeat value too large
            > pull r {"expires":-5}
              r 408 Request Timeout; Nats-Pending-Messages: 0; Nats-Pending-Bytes: 0
            > pull r {"batch":5,"expires":1000000000,"no_wait":true}
            > pub a.0
              r 11 c11 d1 p0
              r 404 No Messages
            > info
              info 11/11 floor 0/0 acks 11 redelivered 0 waiting 0 pending 0
            "#,
    ),
    (
        // Subject, reply and payload count: 3 + 39 + 4 bytes a message.
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &TEN,
        r#"
            > pull r {"batch":10,"max_bytes":20,"no_wait":true}
              r 409 Message Size Exceeds MaxBytes; Nats-Pending-Messages: 10; Nats-Pending-Bytes: 20
            > pull r {"batch":10,"max_bytes":100,"expires":300000000}
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 409 Message Size Exceeds MaxBytes; Nats-Pending-Messages: 8; Nats-Pending-Bytes: 8
            > pull r {"batch":2,"max_bytes":1000,"expires":300000000}
              r 3 c3 d1 p7
              r 4 c4 d1 p6
              r 409 Batch Completed; Nats-Pending-Messages: 0; Nats-Pending-Bytes: 908
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","max_batch":5,"max_expires":1000000000,"max_bytes":100}"#,
        &TEN,
        r#"
            > pull r 6
              r 409 Exceeded MaxRequestBatch of 5
            > pull r {"batch":1,"expires":2000000000}
              r 409 Exceeded MaxRequestExpires of 1s
            > pull r {"batch":1,"max_bytes":200}
              r 409 Exceeded MaxRequestMaxBytes of 100
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","max_waiting":1,"filter_subject":"none"}"#,
        &TEN,
        r#"
            > pull r {"batch":1,"expires":2000000000}
            > pull s {"batch":1,"expires":2000000000}
              s 409 Exceeded MaxWaiting
            > pull s {"batch":1,"expires":2000000000,"idle_heartbeat":100000000}
            > pull s {"batch":1,"no_wait":true}
              s 404 No Messages
            > mute r
            > pull s {"batch":1,"expires":2000000000}
            > info
              info 0/0 floor 0/0 acks 0 redelivered 0 waiting 1 pending 0
            > deleted
              s 409 Consumer Deleted
            > pull s {"batch":7,"max_bytes":500}
            > stepdown 409 Server Shutdown
              s 409 Server Shutdown; Nats-Pending-Messages: 7; Nats-Pending-Bytes: 500
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &[],
        r#"
            > pull r {"batch":3,"expires":1000000000}
            > pull s {"batch":2,"expires":1500000000}
            > pub a.0
              r 1 c1 d1 p0
            > pub a.0
              s 2 c2 d1 p0
            > pub a.0
              r 3 c3 d1 p0
            > mute r
            > pub a.0
              s 4 c4 d1 p0
            > pub a.0
            > info
              info 4/4 floor 0/0 acks 4 redelivered 0 waiting 0 pending 1
            "#,
    ),
    (
        r#"{"durable_name":"C","deliver_subject":"d"}"#,
        &[],
        "
            > pull r 1
              r 409 Consumer is push based
            ",
    ),
];

#[test]
fn pulls_are_served_and_end() {
    play(PULLS_ARE_SERVED_AND_END);
}

const ACKNOWLEDGEMENTS_SETTLE: &[Case] = &[
    (
        r#"{"durable_name":"C","ack_policy":"explicit","filter_subject":"a.1"}"#,
        &TEN,
        r#"
            > pull r 4
              r 2 c1 d1 p4
              r 4 c2 d1 p3
              r 6 c3 d1 p2
              r 8 c4 d1 p1
            > ack 4
            > info
              info 4/8 floor 0/0 acks 3 redelivered 0 waiting 0 pending 1
            > ack 2
            > info
              info 4/8 floor 2/5 acks 2 redelivered 0 waiting 0 pending 1
            > ack 8
            > info
              info 4/8 floor 2/5 acks 1 redelivered 0 waiting 0 pending 1
            > ack 6
            > ack 6
            > ack 99
            > info
              info 4/8 floor 4/8 acks 0 redelivered 0 waiting 0 pending 1
            "#,
    ),
    (
        // A repetition keeps the place of the first delivery.
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &TEN,
        r#"
            > pull r 3
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > nak 1
              naked 1 d1
            > pull r 1
              r 1 c4 d2 p7
            > ack 2
            > info
              info 4/3 floor 0/0 acks 2 redelivered 1 waiting 0 pending 7
            > ack 1
            > info
              info 4/3 floor 2/2 acks 1 redelivered 0 waiting 0 pending 7
            > ack 3
            > info
              info 4/3 floor 4/3 acks 0 redelivered 0 waiting 0 pending 7
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"all"}"#,
        &TEN,
        r#"
            > pull r {"batch":6}
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
              r 4 c4 d1 p6
              r 5 c5 d1 p5
              r 6 c6 d1 p4
            > ack 4
            > info
              info 6/6 floor 4/4 acks 2 redelivered 0 waiting 0 pending 4
            > term 5 no use
              terminated 5 no use
            > info
              info 6/6 floor 5/5 acks 1 redelivered 0 waiting 0 pending 4
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"none"}"#,
        &TEN,
        r#"
            > pull r 3
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > info
              info 3/3 floor 3/3 acks 0 redelivered 0 waiting 0 pending 7
            > ack 2
            > nak 2
            > wait 60s
            > restart
            > pull r 1
              r 4 c4 d1 p6
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","sample_freq":"100%"}"#,
        &TEN,
        r#"
            > pull r 1
              r 1 c1 d1 p9
            > wait 250ms
            > ack 1
              sample 1 250ms
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &TEN,
        r#"
            > pull r 3
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > del 1
              terminated 1 Unacknowledged message was deleted
            > info
              info 3/3 floor 1/1 acks 2 redelivered 0 waiting 0 pending 7
            > del 7
            > info
              info 3/3 floor 1/1 acks 2 redelivered 0 waiting 0 pending 6
            > purge 4
            > info
              info 3/4 floor 3/4 acks 0 redelivered 0 waiting 0 pending 5
            > pull r 2
              r 5 c4 d1 p4
              r 6 c5 d1 p3
            "#,
    ),
];

#[test]
fn acknowledgements_settle() {
    play(ACKNOWLEDGEMENTS_SETTLE);
}

const DELIVERIES_ARE_REPEATED: &[Case] = &[
    (
        r#"{"durable_name":"C","ack_policy":"explicit","ack_wait":400000000,"max_deliver":2}"#,
        &TEN,
        r#"
            > pull r 3
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > wait 100ms
            > wpi 2
            > nak 3 200ms
              naked 3 d1
            > pull r {"batch":4,"expires":1000000000}
              r 4 c4 d1 p6
              r 5 c5 d1 p5
              r 6 c6 d1 p4
              r 7 c7 d1 p3
            > pull r {"batch":3,"expires":9000000000}
              r 8 c8 d1 p2
              r 9 c9 d1 p1
              r 10 c10 d1 p0
            > pull r {"batch":3,"expires":9000000000}
            > wait 200ms
              r 3 c11 d2 p0
            > wait 100ms
              r 1 c12 d2 p0
            > wait 100ms
              r 2 c13 d2 p0
            > ack 4
            > ack 5
            > ack 6
            > ack 7
            > ack 8
            > ack 9
            > ack 10
            > wait 200ms
              exhausted 3 d2
            > wait 200ms
              exhausted 1 d2
              exhausted 2 d2
            > info
              info 13/10 floor 13/10 acks 0 redelivered 0 waiting 0 pending 0
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","backoff":[200000000,500000000],"max_deliver":4}"#,
        &["a.0"],
        r#"
            > pull r {"batch":9,"expires":9000000000}
              r 1 c1 d1 p0
            > wait 199ms
            > wait 1ms
              r 1 c2 d2 p0
            > wait 499ms
            > wait 1ms
              r 1 c3 d3 p0
            > wait 500ms
              r 1 c4 d4 p0
            > wait 500ms
              exhausted 1 d4
            "#,
    ),
    (
        // Repetitions go out although no more acknowledgements may be pending, and before new messages.
        r#"{"durable_name":"C","ack_policy":"explicit","max_ack_pending":3}"#,
        &TEN,
        r#"
            > pull r 5
              r 1 c1 d1 p9
              r 2 c2 d1 p8
              r 3 c3 d1 p7
            > nak 2
              naked 2 d1
              r 2 c4 d2 p7
            > ack 1
              r 4 c5 d1 p6
            > pull s {"batch":3,"no_wait":true}
              s 404 No Messages
            > nak 4
              naked 4 d1
            > pull r 2
              r 4 c6 d2 p6
            > ack 3
              r 5 c7 d1 p5
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","max_deliver":1,"ack_wait":300000000}"#,
        &TEN,
        r#"
            > pull r 2
              r 1 c1 d1 p9
              r 2 c2 d1 p8
            > nak 1
              naked 1 d1
              exhausted 1 d1
            > wait 300ms
              exhausted 2 d1
            "#,
    ),
    (
        // A new leader repeats what is not acknowledged after the rest of the ack wait.
        r#"{"durable_name":"C","ack_policy":"explicit","ack_wait":1000000000}"#,
        &TEN,
        r#"
            > pull r 2
              r 1 c1 d1 p9
              r 2 c2 d1 p8
            > wait 600ms
            > restart
            > ack 1
            > pull r {"batch":1,"no_wait":true}
              r 3 c3 d1 p7
            > pull r 8
              r 4 c4 d1 p6
              r 5 c5 d1 p5
              r 6 c6 d1 p4
              r 7 c7 d1 p3
              r 8 c8 d1 p2
              r 9 c9 d1 p1
              r 10 c10 d1 p0
            > wait 399ms
            > wait 1ms
              r 2 c11 d2 p0
            "#,
    ),
    (
        // A refused proposal is chosen again, for the same requests.
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &["a.0", "a.1"],
        r#"
            > pull r {"batch":2,"expires":5000000000}
              r 1 c1 d1 p1
              r 2 c2 d1 p0
            > pull r {"batch":2,"expires":5000000000,"max_bytes":1000}
            > nak 1
              naked 1 d1
              r 1 c3 d2 p0
            > pub a.2
              r 3 c4 d1 p0
              r 409 Batch Completed; Nats-Pending-Messages: 0; Nats-Pending-Bytes: 908
            "#,
    ),
];

#[test]
fn deliveries_are_repeated() {
    play(DELIVERIES_ARE_REPEATED);
}

const LASTS: &str = r#"{"durable_name":"C","ack_policy":"explicit","deliver_policy":"last_per_subject","filter_subject":"a.*"}"#;

const STARTS: &[Case] = &[
    (
        LASTS,
        &["a.1", "a.2", "a.1", "a.3", "a.2"],
        r#"
            > info
              info 0/2 floor 0/2 acks 0 redelivered 0 waiting 0 pending 3
            > pub a.1
            > info
              info 0/2 floor 0/2 acks 0 redelivered 0 waiting 0 pending 4
            > del 4
            > info
              info 0/2 floor 0/2 acks 0 redelivered 0 waiting 0 pending 3
            > pull r 1
              r 3 c1 d1 p2
            > restart
            > pull r 5
              r 5 c2 d1 p1
              r 6 c3 d1 p0
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","deliver_policy":"last"}"#,
        &TEN,
        "
            > pull r 2
              r 10 c1 d1 p0
            ",
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","deliver_policy":"new"}"#,
        &TEN,
        "
            > pull r 2
            > pub a.0
              r 11 c1 d1 p0
            ",
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","deliver_policy":"by_start_sequence","opt_start_seq":12}"#,
        &TEN,
        "
            > info
              info 0/11 floor 0/11 acks 0 redelivered 0 waiting 0 pending 0
            > pull r 2
            > pub a.0
            > info
              info 0/11 floor 0/11 acks 0 redelivered 0 waiting 1 pending 0
            > pub a.0
              r 12 c1 d1 p0
            ",
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","filter_subjects":["a.1","b.>"]}"#,
        &["a.0", "a.1", "b.0", "c.0", "b.1"],
        "
            > pull r 2
              r 2 c1 d1 p2
              r 3 c2 d1 p1
            > update {\"filter_subjects\":[\"c.>\"]}
            > info
              info 2/3 floor 0/0 acks 2 redelivered 0 waiting 0 pending 1
            > pull r 2
              r 4 c3 d1 p0
            > reset 2
              r 4 c1 d1 p0
            > info
              info 1/4 floor 0/1 acks 1 redelivered 0 waiting 0 pending 0
            ",
    ),
];

#[test]
fn starts_are_where_the_policy_says() {
    play(STARTS);
}

const PUSHES_WHILE_SOMEBODY_LISTENS: &[Case] = &[
    (
        r#"{"durable_name":"C","deliver_subject":"d","idle_heartbeat":200000000}"#,
        &["a.0", "a.1"],
        r#"
            > mute d
            > wait 1s
            > unmute d
            > pub a.2
            "#,
    ),
    (
        r#"{"durable_name":"C","deliver_subject":"d","deliver_group":"g","headers_only":true,"ack_policy":"explicit"}"#,
        &["a.0"],
        r#"
            > pub a.1
              d 1 c1 d1 p1 group g [Nats-Msg-Size: 4]
              d 2 c2 d1 p0 group g [Nats-Msg-Size: 4]
            "#,
    ),
    (
        r#"{"durable_name":"C","deliver_subject":"d","idle_heartbeat":200000000}"#,
        &["a.0"],
        r#"
            > pub a.1
              d 1 c1 d1 p1
              d 2 c2 d1 p0
            > wait 399ms
              d 100 Idle Heartbeat; Nats-Last-Consumer: 2; Nats-Last-Stream: 2
            > pause 100ms
            > pub a.2
            > wait 100ms
              d 100 Idle Heartbeat; Nats-Last-Consumer: 2; Nats-Last-Stream: 2
              d 3 c3 d1 p0
            "#,
    ),
    (
        // 8,000 bits a second: after a burst of 10 ms a message of 1,000 bits every 125 ms.
        r#"{"durable_name":"C","deliver_subject":"d","rate_limit_bps":3000}"#,
        &["a.0", "a.0", "a.0"],
        r#"
            > wait 1ms
            > pub a.0
              d 1 c1 d1 p3
            > wait 100ms
            > wait 20ms
              d 2 c2 d1 p2
            "#,
    ),
    (
        r#"{"durable_name":"C","deliver_subject":"d","inactive_threshold":1000000000}"#,
        &[],
        "
            > wait 10s
            > mute d
            > wait 1500ms
              delete
            ",
    ),
];

#[test]
fn pushes_while_somebody_listens() {
    play(PUSHES_WHILE_SOMEBODY_LISTENS);
}

#[test]
fn old_messages_keep_their_pace() {
    let mut world = World::new(r#"{"durable_name":"C","ack_policy":"explicit"}"#, &[]);
    world.play("> pub a.0\n> wait 300ms\n> pub a.1\n> wait 500ms\n> pub a.2");
    world.consumer = super::world::create(
        r#"{"durable_name":"C","ack_policy":"explicit","replay_policy":"original"}"#,
        &world.stream,
        &world.messages,
    );
    world.restart();
    world.play(
        "
        > wait 10s
        > pull r 9
          r 1 c1 d1 p2
        > wait 299ms
        > wait 1ms
          r 2 c2 d1 p1
        > pub a.3
        > wait 499ms
        > wait 1ms
          r 3 c3 d1 p1
          r 4 c4 d1 p0
        ",
    );
}

#[test]
fn flow_control_answers_acknowledge() {
    let config =
        r#"{"durable_name":"C","deliver_subject":"d","ack_policy":"flow_control","max_ack_pending":3}"#;
    let mut world = World::new(config, &[]);
    world.play(
        "
        > pub a.0
          d 1 c1 d1 p0
        > pub a.0
          d 2 c2 d1 p0
        > wait 999ms
        > ack 2
        > info
          info 2/2 floor 0/0 acks 2 redelivered 0 waiting 0 pending 0
        > wait 1ms
          d 100 Idle Heartbeat; Nats-Last-Consumer: 2; Nats-Last-Stream: 2
          d 100 FlowControl Request
        > flow 1 3
        > info
          info 2/2 floor 0/0 acks 2 redelivered 0 waiting 0 pending 0
        > wait 1s
          d 100 Idle Heartbeat; Nats-Last-Consumer: 2; Nats-Last-Stream: 2
          d 100 FlowControl Request
        > flow 1
        > info
          info 2/2 floor 1/1 acks 1 redelivered 0 waiting 0 pending 0
        > flow 2
        > pub a.0
          d 3 c3 d1 p0
        > pub a.0
          d 4 c4 d1 p0
          d 100 FlowControl Request
        > pub a.0
        > flow 3
          d 5 c5 d1 p0
        > info
          info 5/5 floor 3/3 acks 2 redelivered 0 waiting 0 pending 0
        > pub a.0
          d 6 c6 d1 p0
          d 100 FlowControl Request
        > restart
        > info
          info 6/6 floor 3/3 acks 3 redelivered 0 waiting 0 pending 0
        > flow 6
        > wait 1s
          d 100 Idle Heartbeat; Nats-Last-Consumer: 6; Nats-Last-Stream: 6
          d 100 FlowControl Request
        > reset 0
          d 4 c1 d1 p2
          d 5 c2 d1 p1
          d 6 c3 d1 p0
          d 100 FlowControl Request
        > flow 6 3
        > info
          info 3/6 floor 3/6 acks 0 redelivered 0 waiting 0 pending 0
        > wait 3s
          d 100 Idle Heartbeat; Nats-Last-Consumer: 3; Nats-Last-Stream: 6
          d 100 Idle Heartbeat; Nats-Last-Consumer: 3; Nats-Last-Stream: 6
          d 100 Idle Heartbeat; Nats-Last-Consumer: 3; Nats-Last-Stream: 6
        ",
    );
}

/// A reset counts anew: what a client saw before it does not acknowledge what comes after.
#[test]
fn an_answer_from_before_a_reset_acknowledges_nothing() {
    let config = r#"{"durable_name":"C","deliver_subject":"d","ack_policy":"flow_control"}"#;
    let mut world = World::new(config, &[]);
    world.play(
        "
        > pub a.0
          d 1 c1 d1 p0
        > wait 1s
          d 100 Idle Heartbeat; Nats-Last-Consumer: 1; Nats-Last-Stream: 1
          d 100 FlowControl Request
        > reset 0
          d 1 c1 d1 p0
        > flow 1
        > info
          info 1/1 floor 0/0 acks 1 redelivered 0 waiting 0 pending 0
        ",
    );
}

#[test]
fn flow_control_waits_for_answers() {
    let config =
        r#"{"durable_name":"C","deliver_subject":"d","idle_heartbeat":1000000000,"flow_control":true}"#;
    let mut world = World::new(config, &[]);
    let big = "x".repeat(100_000);
    let publish = format!("> pub a.0 {big}\n").repeat(11);
    let publish = publish.replace("\n", "\n> wait 1ms\n").replacen("> wait 1ms\n", "", 0);
    let lines: Vec<String> = publish
        .lines()
        .filter(|line| line.starts_with("> pub"))
        .enumerate()
        .map(|(at, line)| format!("{line}\nd {0} c{0} d1 p0", at + 1))
        .collect();
    world.play(&format!("{}\nd 100 FlowControl Request", lines.join("\n")));
    for seq in 12..=21 {
        world.play(&format!("> pub a.0 {big}\nd {seq} c{seq} d1 p0"));
    }
    let beat = "d 100 Idle Heartbeat; Nats-Last-Consumer: 21; Nats-Last-Stream: 21; Nats-Consumer-Stalled: ";
    world.play(&format!("> pub a.0 {big}"));
    world.wait(hw_kit::Span::from_secs(1));
    let stalled: Vec<String> = world.effects.drain(..).map(|effect| super::world::text(&effect)).collect();
    assert!(stalled.len() == 1 && stalled[0].starts_with(&format!("{beat}$JS.FC.S.C.")), "{stalled:?}");
    world.play("> flow\nd 22 c22 d1 p0");
    // The window has doubled: nothing is asked until half of 4 MiB is on its way.
    world.play("> flow");
}

const PRIORITY_GROUPS_CHOOSE_WHO_IS_SERVED: &[Case] = &[
    (
        r#"{"durable_name":"C","ack_policy":"explicit","priority_policy":"overflow","priority_groups":["A","B"]}"#,
        &TEN,
        r#"
            > pull r 1
              r 400 Bad Request - Priority Group missing
            > pull r {"batch":1,"group":"X"}
              r 400 Bad Request - Invalid Priority Group
            > pull r {"batch":1,"group":"B"}
              r 1 c1 d1 p9
            > pull r {"batch":1,"group":"A","min_pending":100,"expires":100000000}
            > pull s {"batch":1,"group":"A","min_pending":5}
              s 2 c2 d1 p8
            > pull s {"batch":1,"group":"A","min_ack_pending":3}
            > pull t {"batch":1,"group":"A"}
              t 3 c3 d1 p7
              s 4 c4 d1 p6
            > pull r {"batch":1,"group":"A","id":"x"}
              r 400 Bad Request - Not a Pinned Client Priority consumer
            > pull r {"batch":1,"group":"A","min_pending":100,"no_wait":true}
              r 404 No Messages
            > wait 100ms
              r 408 Request Timeout; Nats-Pending-Messages: 1; Nats-Pending-Bytes: 0
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit","priority_policy":"prioritized","priority_groups":["A"]}"#,
        &[],
        r#"
            > pull r {"batch":1,"group":"A","priority":10}
              r 400 Bad Request - Priority must be between 0 and 9
            > pull r {"batch":2,"group":"A","priority":5}
            > pull s {"batch":1,"group":"A","priority":2}
            > pull t {"batch":2,"group":"A","priority":2}
            > pub a.0
              s 1 c1 d1 p0
            > pub a.0
              t 2 c2 d1 p0
            > pub a.0
              t 3 c3 d1 p0
            > pub a.0
              r 4 c4 d1 p0
            "#,
    ),
    (
        r#"{"durable_name":"C","ack_policy":"explicit"}"#,
        &TEN,
        r#"
            > pull r {"batch":1,"group":"A"}
              r 1 c1 d1 p9
            > pull r {"batch":1,"min_pending":5}
              r 400 Bad Request - Not a Overflow Priority consumer
            > pull r {"batch":1,"id":"z"}
              r 400 Bad Request - Not a Pinned Client Priority consumer
            > pull r {"batch":1,"priority":13}
              r 400 Bad Request - Priority must be between 0 and 9
            > pull r {"batch":1,"priority":3}
              r 2 c2 d1 p8
            "#,
    ),
];

#[test]
fn priority_groups_choose_who_is_served() {
    play(PRIORITY_GROUPS_CHOOSE_WHO_IS_SERVED);
}

#[test]
fn a_pin_is_held_lost_and_taken() {
    let config = r#"{"durable_name":"C","ack_policy":"explicit","priority_policy":"pinned_client",
        "priority_groups":["A"],"priority_timeout":1000000000}"#;
    let mut world = World::new(config, &TEN);
    let probe = world.lead.pins()[0].clone();
    assert!(probe.id.is_empty());
    world.call(|lead, m, out| {
        let request = crate::lead::PullRequest { batch: 2, group: "A".into(), ..Default::default() };
        lead.handle_pull(m, bytes::Bytes::from_static(b"r"), &request, out);
    });
    world.settle();
    let id = String::from_utf8(world.lead.pins()[0].id.to_vec()).expect("text");
    assert_eq!(id.len(), 22);
    let came: Vec<String> = world.effects.drain(..).map(|effect| super::world::text(&effect)).collect();
    assert_eq!(
        came,
        [
            "pinned A".to_owned(),
            format!("r 1 c1 d1 p9 [Nats-Pin-Id: {id}]"),
            format!("r 2 c2 d1 p8 [Nats-Pin-Id: {id}]")
        ]
    );
    world.play(&format!(
        r#"
        > pull s {{"batch":1,"group":"A","expires":5000000000}}
        > pull t {{"batch":1,"group":"A","id":"wrong"}}
          t 423 Nats-Pin-Id mismatch
        > wait 600ms
        > pull r {{"batch":1,"group":"A","id":"{id}"}}
          r 3 c3 d1 p7 [Nats-Pin-Id: {id}]
        > wait 999ms
        "#
    ));
    world.wait(hw_kit::Span::from_millis(1));
    let came: Vec<String> = world.effects.drain(..).map(|effect| super::world::text(&effect)).collect();
    assert_eq!(came[..2], ["unpinned A timeout", "pinned A"]);
    assert!(came[2].starts_with("s 4 c4 d1 p6 [Nats-Pin-Id: "));
    world.play(&format!(
        r#"
        > unpin A
          unpinned A admin
        > pull r {{"batch":1,"group":"A","expires":1000000000,"id":"{id}"}}
          r 423 Nats-Wrong-Pin-Id; Nats-Pending-Messages: 1; Nats-Pending-Bytes: 0
        "#
    ));
}

const PULLS_KEEP_A_CONSUMER_ALIVE: &[Case] = &[(
    r#"{"ack_policy":"explicit","inactive_threshold":1000000000,"ack_wait":2000000000}"#,
    &["a.0"],
    r#"
        > wait 900ms
        > pull r {"batch":1,"expires":3000000000}
          r 1 c1 d1 p0
        > pull r {"batch":1,"expires":5000000000}
        > ack 1
        > wait 4s
        > wait 1s
          r 408 Request Timeout; Nats-Pending-Messages: 1; Nats-Pending-Bytes: 0
        > wait 1s
          delete
        "#,
)];

#[test]
fn pulls_keep_a_consumer_alive() {
    play(PULLS_KEEP_A_CONSUMER_ALIVE);
}

#[test]
fn blocks_are_loaded_and_damage_does_not_hold_up() {
    let mut world = World::new(r#"{"durable_name":"C","ack_policy":"explicit","ack_wait":1000000000}"#, &[]);
    let mut all = world.put_on_disk(&["a.0"; 3], 4);
    let id = super::world::SEGMENT;
    let block = BlockId { segment: 1, block: 0 };
    world.call(|lead, m, out| {
        lead.handle_pull(m, bytes::Bytes::from_static(b"r"), &crate::lead::PullRequest::of(9), out);
        lead.pump(m, out);
    });
    assert_eq!(world.out.effects, [Effect::Load(block)]);
    assert!(world.out.proposals.is_empty());
    world.out.clear();
    all.remove(1);
    let mut writer = SegmentWriter::new(id, false, Vault::default());
    all.iter().for_each(|message| writer.push(message));
    let ((_, file), rows, _) = writer.finish();
    let bytes = file.slice(rows[0].offset as usize..);
    let loaded = LoadedBlock::open(id, &rows[0], &bytes, &Vault::default()).unwrap();
    world.messages.handle_block(block, loaded.checked().unwrap());
    // The damaged one is delivered in name only, and tried again with the next chance.
    world.settle();
    let came: Vec<String> = world.effects.drain(..).map(|effect| super::world::text(&effect)).collect();
    assert_eq!(came, ["r 1 c1 d1 p2", "r 3 c3 d1 p0"]);
    world.play("> ack 1\n> ack 3\n> info\ninfo 3/3 floor 1/1 acks 1 redelivered 0 waiting 1 pending 0\n> wait 2500ms");
    // Once it is repaired it arrives.
    world.messages = World::new(r#"{"durable_name":"C"}"#, &["a.0", "a.0", "a.0"]).messages;
    world.play("> wait 1s\nr 2 c4 d2 p0");
}

#[test]
fn a_bound_deliver_subject_stays() {
    let mut world = World::new(r#"{"durable_name":"C","deliver_subject":"d"}"#, &[]);
    let mut config = world.consumer.config().clone();
    config.deliver_subject = "e".into();
    let refused = world.call(|lead, m, _| lead.check_update(m, &config));
    assert!(matches!(refused, Err(ConsumerError::Rule { err_code: 10013, .. })));
    world.muted.insert(b"d".to_vec());
    assert_eq!(world.call(|lead, m, _| lead.check_update(m, &config)), Ok(()));
}

#[test]
fn what_vanished_is_made_up_for() {
    let mut world = World::new(r#"{"durable_name":"C","ack_policy":"explicit"}"#, &["a.0"]);
    world.call(|lead, m, out| {
        lead.handle_pull(m, bytes::Bytes::from_static(b"r"), &crate::lead::PullRequest::of(1), out);
        lead.pump(m, out);
    });
    world.remove(1);
    assert!(world.commit());
    world.play(
        "
        > info
          info 0/1 floor 0/1 acks 0 redelivered 0 waiting 1 pending 0
        > pub a.1
          r 2 c1 d1 p0
        ",
    );
}
