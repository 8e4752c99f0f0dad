//! Several connections, time, limits.

use super::*;

const NO_RESPONDERS: &str = r#","headers":true,"no_responders":true"#;

#[test]
fn headers_go_only_to_those_who_know_them() {
    let mut rig = Rig::new(config(Directory::default()));
    let old = rig.connect(1, "");
    let new = rig.connect(2, r#","headers":true"#);
    rig.send(old, "SUB h 1\r\nSUB h q 2\r\n");
    rig.send(
        new,
        "HPUB h 22 24\r\nNATS/1.0\r\nA: bcdef\r\n\r\nhi\r\nHPUB h rep 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    );
    assert_eq!(
        rig.read(old),
        "MSG h 1 2\r\nhi\r\nMSG h 2 2\r\nhi\r\nMSG h 1 rep 0\r\n\r\nMSG h 2 rep 0\r\n\r\n"
    );
    let view = rig.hub.connection(old).unwrap();
    assert_eq!((view.traffic.out_msgs, view.traffic.out_bytes), (4, 4));
    let view = rig.hub.connection(new).unwrap();
    assert_eq!((view.traffic.in_msgs, view.traffic.in_bytes), (2, 36));
}

#[test]
fn queue_members_share() {
    let mut rig = Rig::new(config(Directory::default()));
    let conns: Vec<_> = (1..=4).map(|n| rig.connect(n, "")).collect();
    for &conn in &conns[..3] {
        rig.send(conn, "SUB work.* q 1\r\n");
    }
    rig.send(conns[0], "SUB work.a q 2\r\nSUB work.> other 3\r\n");
    for _ in 0..3000 {
        rig.send(conns[3], "PUB work.a 1\r\nx\r\n");
    }
    let mut shares = vec![];
    for &conn in &conns[..3] {
        let text = rig.read(conn);
        shares.push(text.matches("MSG work.a 1 ").count());
        if conn == conns[0] {
            assert_eq!(text.matches("MSG work.a 3 ").count(), 3000);
            shares.push(text.matches("MSG work.a 2 ").count());
        }
    }
    assert_eq!(shares.iter().sum::<usize>(), 3000, "one member of each group, whatever its filter");
    assert!(shares.iter().all(|&share| share > 600), "{shares:?}");
}

#[test]
fn a_503_goes_to_the_asking_connection_only() {
    let mut rig = Rig::new(config(Directory::default()));
    let (asks, other) = (rig.connect(1, NO_RESPONDERS), rig.connect(2, NO_RESPONDERS));
    rig.send(other, "SUB r 9\r\n");
    let got = rig.ask(asks, "SUB r 1\r\nPUB nobody r 1\r\nx\r\n");
    assert_eq!(got, "HMSG r 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    assert_eq!(rig.ask(asks, "UNSUB 1\r\nPUB nobody r 1\r\nx\r\n"), "");
    assert_eq!(rig.read(other), "");
}

#[test]
fn pings_and_stale_connections() {
    let mut rig = Rig::new(users());
    let options = r#","user":"w","pass":"w""#;
    let (silent, busy, polite) = (rig.connect(1, options), rig.connect(2, options), rig.connect(3, options));
    let second = Span::from_secs(1);
    let mut seen = [vec![], vec![], vec![]];
    for at in 1..=8 {
        rig.send(busy, "PUB a 1\r\nx\r\n");
        rig.pass(second);
        for (seen, conn) in seen.iter_mut().zip([silent, busy, polite]) {
            let text = rig.read(conn);
            if !text.is_empty() {
                seen.push((at, text));
            }
        }
        rig.send(polite, "PONG\r\n");
    }
    let ping = |at| (at, "PING\r\n".to_string());
    assert_eq!(seen[0], [ping(2), (4, "-ERR 'Stale Connection'\r\n".to_string())]);
    assert_eq!(seen[1], [ping(2)], "whoever publishes is alive");
    assert_eq!(seen[2], [ping(2), ping(4), ping(6), ping(8)]);
    assert_eq!(rig.hub.closing(silent), Some(CloseReason::StaleConnection));
    assert_eq!(rig.hub.counters().stale_connections, 1);
    assert_eq!(rig.hub.connection(polite).unwrap().rtt, Span::ZERO);
}

#[test]
fn the_first_ping_measures_the_way() {
    let mut rig = Rig::new(config(Directory::default()));
    let conn = rig.connect(1, "");
    rig.pass(Span::from_millis(1999));
    assert_eq!(rig.read(conn), "");
    rig.pass(Span::from_millis(401));
    assert_eq!(rig.read(conn), "PING\r\n");
    rig.now = rig.now + Span::from_millis(3);
    rig.send(conn, "PONG\r\n");
    assert_eq!(rig.hub.connection(conn).unwrap().rtt, Span::from_millis(3));
    let next = rig.hub.next_deadline().unwrap();
    assert!(next > rig.now + Span::from_secs(119), "the next one follows the interval");
}

#[test]
fn silence_is_no_authentication() {
    let mut rig = Rig::new(users());
    let conn = rig.open(1);
    rig.pass(Span::from_millis(999));
    assert_eq!(rig.read(conn), "");
    rig.pass(Span::from_millis(1));
    assert_eq!(rig.read(conn), "-ERR 'Authentication Timeout'\r\n");
    assert_eq!(rig.hub.closing(conn), Some(CloseReason::AuthenticationTimeout));
    assert_eq!(rig.hub.next_deadline(), None);
    rig.hub.handle_closed(rig.now, conn, CloseReason::ClientClosed);
    let closed = rig.hub.closed_connections().next().unwrap();
    assert_eq!(closed.reason.to_string(), "Authentication Timeout");
    assert_eq!(rig.hub.counters().connections, 0);
}

#[test]
fn answers_are_allowed_for_a_while() {
    let mut rig = Rig::new(users());
    let asks = rig.connect(1, r#","user":"w","pass":"w""#);
    let answers = rig.connect(2, r#","user":"r","pass":"r""#);
    let refused = "-ERR 'Permissions Violation for Publish to \"in.1\"'\r\n";
    rig.send(answers, "SUB svc.x 1\r\n");
    rig.send(asks, "SUB in.* 1\r\nPUB svc.x in.1 1\r\nx\r\n");
    assert_eq!(rig.read(answers), "MSG svc.x 1 in.1 1\r\nx\r\n");
    assert_eq!(rig.ask(answers, "PUB in.1 1\r\na\r\nPUB in.1 1\r\nb\r\nPUB in.1 1\r\nc\r\n"), refused);
    assert_eq!(rig.read(asks), "MSG in.1 1 1\r\na\r\nMSG in.1 1 1\r\nb\r\n");
    rig.send(asks, "PUB svc.x in.1 1\r\nx\r\n");
    rig.read(answers);
    rig.now = rig.now + Span::from_millis(1001);
    assert_eq!(rig.ask(answers, "PUB in.1 1\r\na\r\n"), refused);
}

#[test]
fn a_slow_consumer_is_closed() {
    let mut rig = Rig::with_limits(HubLimits { max_pending: 1000, ..HubLimits::default() });
    let (slow, fast) = (rig.connect(1, ""), rig.connect(2, ""));
    rig.send(slow, "SUB a 1\r\n");
    let message = format!("PUB a 100\r\n{}\r\n", "x".repeat(100));
    for _ in 0..8 {
        rig.send(fast, &message);
    }
    assert_eq!(rig.hub.closing(slow), None);
    rig.hub.take_dirty(&mut vec![]);
    for _ in 0..8 {
        rig.send(fast, &message);
    }
    assert_eq!(rig.hub.closing(slow), Some(CloseReason::SlowConsumerPendingBytes));
    let mut dirty = vec![];
    rig.hub.take_dirty(&mut dirty);
    assert_eq!(dirty, [slow]);
    assert_eq!(rig.read(slow), "");
    assert_eq!(rig.hub.counters().slow_consumers, 1);
    assert!(!rig.hub.has_interest(AccountId::GLOBAL, b"a"));
    rig.hub.handle_closed(rig.now, slow, CloseReason::ClientClosed);
    let closed = rig.hub.closed_connections().next().unwrap();
    assert_eq!(closed.reason, CloseReason::SlowConsumerPendingBytes);
    assert_eq!(closed.connection.subscriptions, 1);
}

#[test]
fn what_is_in_flight_counts_as_pending() {
    let mut rig = Rig::with_limits(HubLimits { max_pending: 1000, ..HubLimits::default() });
    let conn = rig.connect(1, "");
    rig.hub.set_in_flight(conn, 990);
    assert_eq!(rig.ask(conn, "SUB a 1\r\nPUB a 5\r\nhello\r\n"), "");
    assert_eq!(rig.hub.closing(conn), Some(CloseReason::SlowConsumerPendingBytes));
}

#[test]
fn inside_and_outside_hear_each_other() {
    let mut rig = Rig::new(config(Directory::default()));
    let conn = rig.connect(1, r#","headers":true"#);
    rig.hub.subscribe_internal(AccountId::GLOBAL, b"in.>", None, InternalId(7));
    rig.hub.subscribe_internal(AccountId::GLOBAL, b"in.>", Some(b"q"), InternalId(8));
    rig.send(conn, "SUB out.* 1\r\nHPUB in.a r 12 13\r\nNATS/1.0\r\n\r\nx\r\n");
    let both = ["7<0/1/0 in.a r|NATS/1.0\\r\\n\\r\\n|x", "8<0/1/0 in.a r|NATS/1.0\\r\\n\\r\\n|x"];
    assert_eq!(rig.inside.0, both);
    rig.inside.0.clear();
    let msg = Message { subject: b"stream.subject", reply: b"ack", header: b"", payload: b"hi" };
    let Rig { hub, now, inside, .. } = &mut rig;
    assert_eq!(hub.publish(*now, AccountId::GLOBAL, b"out.1", &msg, inside), 1);
    assert_eq!(hub.publish(*now, AccountId::GLOBAL, b"in.b", &msg, inside), 2);
    assert_eq!(hub.publish(*now, AccountId::GLOBAL, b"none", &msg, inside), 0);
    assert_eq!(hub.publish(*now, AccountId(9), b"out.1", &msg, inside), 0);
    assert_eq!(rig.read(conn), "MSG stream.subject 1 ack 2\r\nhi\r\n");
    assert_eq!(rig.inside.0, ["7<0//0 in.b ack||hi", "8<0//0 in.b ack||hi"]);
    rig.hub.unsubscribe_internal(AccountId::GLOBAL, b"in.>", None, InternalId(7));
    rig.hub.unsubscribe_internal(AccountId::GLOBAL, b"in.>", Some(b"q"), InternalId(8));
    assert!(!rig.hub.has_interest(AccountId::GLOBAL, b"in.a"));
    assert_eq!(rig.hub.counters().subscriptions, 1);
}

pub(crate) fn two_accounts() -> HubConfig {
    let user = |name: &str| UserSpec {
        key: UserKey::Password { user: name.into(), pass: name.into() },
        permissions: None,
        connection_kinds: vec![],
    };
    let account = |name: &str, limits| hw_auth::AccountSpec {
        name: name.into(),
        users: vec![user(&name.to_lowercase())],
        limits,
        ..Default::default()
    };
    let limits = hw_auth::AccountLimits {
        max_connections: 1,
        max_subscriptions: 2,
        max_payload: 100,
        ..Default::default()
    };
    let accounts = vec![account("A", limits), account("B", hw_auth::AccountLimits::default())];
    let spec = DirectorySpec { accounts, no_auth_user: Some("b".into()), ..DirectorySpec::default() };
    config(Directory::new(&spec).unwrap())
}

#[test]
fn accounts_are_apart_and_have_limits() {
    let mut rig = Rig::new(two_accounts());
    let a = rig.connect(1, r#","user":"a","pass":"a","protocol":1"#);
    let info = rig.ask(a, "PING\r\n");
    assert!(info.contains(r#""max_payload":100,"#) && info.contains(r#""remote_account":"A""#), "{info}");
    let second = rig.connect(2, r#","user":"a","pass":"a""#);
    assert_eq!(rig.read(second), "-ERR 'maximum account active connections exceeded'\r\n");
    let anonymous = rig.open(3);
    let subs = "SUB > 1\r\nSUB b 2\r\nSUB c 3\r\n";
    assert_eq!(rig.ask(anonymous, subs), "+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(rig.ask(a, subs), "-ERR 'maximum subscriptions exceeded'\r\n");
    assert_eq!(rig.ask(a, "PUB b 1\r\nx\r\n").matches("MSG b").count(), 2);
    assert_eq!(rig.read(anonymous), "");
    assert_eq!(rig.ask(a, "PUB a 101\r\n"), "-ERR 'Maximum Payload Violation'\r\n");
    let wrong = rig.connect(4, r#","user":"x","pass":"x""#);
    assert_eq!(rig.read(wrong), "-ERR 'Authorization Violation'\r\n");
    // Room again: the limit is on connections at the same time.
    let third = rig.connect(5, r#","user":"a","pass":"a""#);
    assert_eq!(rig.read(third), "");
    // A second CONNECT moves to another account and leaves the subscriptions of the first behind.
    rig.send(
        third,
        "SUB > 1\r\nCONNECT {\"user\":\"b\",\"pass\":\"b\",\"verbose\":false}\r\nPUB b 1\r\nx\r\n",
    );
    assert_eq!(rig.read(third), "");
    assert!(rig.read(anonymous).contains("MSG b 1 1\r\nx\r\n"));
    assert_eq!(rig.hub.connection(third).unwrap().subscriptions, 0);
}

#[test]
fn limits_may_change() {
    let mut rig = Rig::new(two_accounts());
    let a = rig.connect(1, r#","user":"a","pass":"a""#);
    let b = rig.connect(2, r#","user":"b","pass":"b""#);
    rig.hub.set_limits(HubLimits { max_payload: 200, max_subscriptions: 1, ..HubLimits::default() });
    let subs = "SUB x 1\r\nSUB y 2\r\n";
    for conn in [a, b] {
        assert_eq!(rig.ask(conn, subs), "-ERR 'maximum subscriptions exceeded'\r\n");
    }
    assert_eq!(rig.ask(a, "PUB z 101\r\n"), "-ERR 'Maximum Payload Violation'\r\n");
    assert_eq!(rig.ask(b, "PUB z 200\r\n"), "");
    let later = rig.connect(3, r#","user":"b","pass":"b""#);
    assert_eq!(rig.ask(later, "PUB z 201\r\n"), "-ERR 'Maximum Payload Violation'\r\n");
}

#[test]
fn nkeys_need_a_nonce() {
    let key = "UCNGL4W5QX66CFX6A6DCBVDH5VOHMI7B2UZZU7TXAUQQSI2JPHULCKBR";
    let user = UserSpec { key: UserKey::Nkey(key.into()), permissions: None, connection_kinds: vec![] };
    let spec = DirectorySpec { users: vec![user], ..DirectorySpec::default() };
    let mut hub = Hub::new(config(Directory::new(&spec).unwrap()));
    let peer = Peer { nonce: "EFNmeDKvau1ZDZc".into(), ..Peer::default() };
    hub.handle_open(Time(1), ConnId(1), peer);
    let info = String::from_utf8(hub.swap_output(ConnId(1), Vec::new())).unwrap();
    assert!(info.contains(r#""auth_required":true"#) && info.contains(r#""nonce":"EFNmeDKvau1ZDZc""#));
}

#[test]
fn info_changes_are_told_to_those_who_understand() {
    let mut rig = Rig::new(config(Directory::default()));
    let (old, new) = (rig.connect(1, r#","protocol":0"#), rig.connect(2, r#","protocol":1"#));
    rig.ask(old, "PING\r\n");
    rig.ask(new, "PING\r\n");
    rig.hub.lame_duck();
    assert_eq!(rig.read(old), "");
    let info = rig.read(new);
    assert!(info.contains(r#""ldm":true"#) && info.ends_with("} \r\n"), "{info}");
    assert!(!info.contains("connect_info") && !info.contains("remote_account"), "{info}");
    rig.hub.close(new, CloseReason::ServerShutdown);
    assert_eq!((rig.read(new).as_str(), rig.hub.closing(new)), ("", Some(CloseReason::ServerShutdown)));
    rig.hub.close(old, CloseReason::MaxConnectionsExceeded);
    assert_eq!(rig.read(old), "-ERR 'maximum connections exceeded'\r\n");
}

#[test]
fn monitoring_sees_connections_and_subscriptions() {
    let mut rig = Rig::new(config(Directory::default()));
    let conn = rig.connect(1, r#","name":"nm","lang":"go","version":"1.2""#);
    rig.send(conn, "SUB u.x q 1\r\nSUB u.> 22\r\nUNSUB 22 5\r\nPUB u.x 1\r\nb\r\n");
    let view = rig.hub.connection(conn).unwrap();
    assert_eq!((view.name.as_str(), view.lang.as_str(), view.version.as_str()), ("nm", "go", "1.2"));
    assert_eq!((view.subscriptions, view.pending_bytes), (2, 33));
    let mut subs: Vec<_> = rig.hub.subscriptions_of(conn).collect();
    subs.sort_by_key(|sub| sub.sid);
    let plain = SubView {
        conn,
        account: AccountId::GLOBAL,
        subject: b"u.>",
        queue: None,
        sid: b"22",
        msgs: 1,
        max: 5,
    };
    assert_eq!(subs[1], plain);
    assert_eq!(subs[0].queue, Some(&b"q"[..]));
    assert_eq!(rig.hub.subscriptions().count(), 2);
    rig.hub.handle_closed(rig.now, conn, CloseReason::ClientClosed);
    assert_eq!(rig.hub.subscriptions().count(), 0);
    assert_eq!(rig.hub.connections().count(), 0);
    assert_eq!(rig.hub.counters().total_connections, 1);
    assert!(matches!(rig.hub.take_events().back(), Some(HubEvent::Closed(_))));
}

#[test]
fn the_closed_are_remembered_up_to_a_limit() {
    let mut rig = Rig::with_limits(HubLimits { max_closed_clients: 3, ..HubLimits::default() });
    for n in 1..=5 {
        let conn = rig.open(n);
        rig.hub.handle_closed(rig.now, conn, CloseReason::ClientClosed);
    }
    let left: Vec<_> = rig.hub.closed_connections().map(|closed| closed.connection.conn.0).collect();
    assert_eq!(left, [3, 4, 5]);
}

#[test]
fn operations_are_traced_on_demand() {
    let mut rig = Rig::new(config(Directory::default()));
    rig.hub.set_trace(true, 0);
    let conn = rig.connect(1, r#","user":"u","pass":"hush""#);
    rig.send(conn, "SUB foo 1\r\nPUB foo 2\r\nhi\r\nPING\r\nUNSUB 1\r\n");
    let lines: Vec<_> = rig
        .hub
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            HubEvent::Trace { text, .. } => Some(text),
            _ => None,
        })
        .collect();
    let expected = [
        "<<- [CONNECT]",
        "<<- [SUB foo 1]",
        "<<- [PUB foo 2]",
        "<<- MSG_PAYLOAD: [\"hi\"]",
        "->> [MSG foo 1 2]",
        "->> MSG_PAYLOAD: [\"hi\"]",
        "<<- [PING]",
        "->> [PONG]",
        "<<- [UNSUB 1]",
        "<-> [DELSUB 1]",
    ];
    assert_eq!(lines, expected);
}

proptest::proptest! {
    #[test]
    fn any_bytes_leave_the_hub_whole(chunks: Vec<Vec<u8>>, verbs in proptest::collection::vec(0usize..8, 0..20)) {
        let verbs = verbs.iter().map(|&verb| ["PUB a 1\r\nx\r\n", "SUB a 1\r\n", "SUB > q 2\r\n", "UNSUB 1\r\n",
            "CONNECT {}\r\n", "PING\r\n", "UNSUB 2 1\r\n", "PUB a r 0\r\n\r\n"][verb].as_bytes().to_vec());
        let mut rig = Rig::new(config(Directory::default()));
        let (conn, other) = (rig.open(1), rig.connect(2, ""));
        rig.send(other, "SUB > 1\r\n");
        for chunk in verbs.chain(chunks) {
            rig.send(conn, &chunk);
        }
        rig.hub.handle_closed(rig.now, conn, CloseReason::ClientClosed);
        rig.hub.handle_closed(rig.now, other, CloseReason::ClientClosed);
        proptest::prop_assert_eq!(rig.hub.counters().subscriptions, 0);
        proptest::prop_assert_eq!(rig.hub.next_deadline(), None);
        proptest::prop_assert!(!rig.hub.has_interest(AccountId::GLOBAL, b"a"));
    }
}
