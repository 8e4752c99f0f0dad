//! Several hubs side by side: every message once, interest in time, no loops.

use hw_kit::Rng;

use super::*;

/// Hubs that exchange batches when told to.
pub(super) struct Cluster {
    pub(super) rigs: Vec<Rig>,
    /// Batches on their way: from, to, batch.
    wire: Vec<(usize, usize, PeerBatch)>,
}

impl Cluster {
    fn new(shards: u16) -> Cluster {
        Cluster::with(shards, config(Directory::default()))
    }

    pub(super) fn with(shards: u16, config: HubConfig) -> Cluster {
        let rig = |shard| Rig::new(HubConfig { shard: ShardId(shard), shards, seed: 7, ..config.clone() });
        Cluster { rigs: (0..shards).map(rig).collect(), wire: vec![] }
    }

    fn collect(&mut self) {
        for (from, rig) in self.rigs.iter_mut().enumerate() {
            let ops = rig.hub.take_peer_ops();
            self.wire.extend(ops.into_iter().map(|(to, batch)| (from, usize::from(to.0), batch)));
        }
    }

    fn deliver(&mut self, at: usize) {
        let (from, to, batch) = self.wire.remove(at);
        let Rig { hub, now, inside, .. } = &mut self.rigs[to];
        hub.handle_peer(*now, ShardId(from as u16), batch, inside);
    }

    /// Lets everything arrive. Panics if it never ends.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            self.collect();
            if self.wire.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("batches breed batches");
    }
}

#[test]
fn one_copy_crosses_to_each_shard() {
    let mut c = Cluster::new(3);
    let publisher = c.rigs[0].connect(1, "");
    let (b1, b2) = (c.rigs[1].connect(2, ""), c.rigs[1].connect(3, ""));
    let far = c.rigs[2].connect(4, "");
    c.rigs[1].send(b1, "SUB a.* 1\r\nSUB a.b 2\r\n");
    c.rigs[1].send(b2, "SUB > 1\r\n");
    c.rigs[2].hub.subscribe_internal(AccountId::GLOBAL, b"a.>", None, InternalId(3));
    c.settle();
    c.rigs[0].send(publisher, "PUB a.b r 2\r\nhi\r\n");
    c.collect();
    assert_eq!(
        c.wire.iter().map(|(from, to, batch)| (*from, *to, batch.len())).collect::<Vec<_>>(),
        [(0, 1, 1), (0, 2, 1)]
    );
    c.settle();
    let mut got: Vec<_> = c.rigs[1].read(b1).split_inclusive("hi\r\n").map(String::from).collect();
    got.sort();
    assert_eq!(got, ["MSG a.b 1 r 2\r\nhi\r\n", "MSG a.b 2 r 2\r\nhi\r\n"]);
    assert_eq!(c.rigs[1].read(b2), "MSG a.b 1 r 2\r\nhi\r\n");
    assert_eq!(c.rigs[2].inside.0, ["3<0/1/0 a.b r||hi"]);
    assert_eq!(c.rigs[2].read(far), "");
}

#[test]
fn pongs_wait_until_the_others_know() {
    let mut c = Cluster::new(3);
    let conn = c.rigs[0].connect(1, r#","protocol":1"#);
    let other = c.rigs[0].connect(2, "");
    c.rigs[0].send(conn, "SUB a 1\r\nPING\r\nPING\r\n");
    assert_eq!(c.rigs[0].read(conn), "");
    assert_eq!(c.rigs[0].ask(other, "PING\r\n"), "PONG\r\n", "this connection has changed nothing");
    assert_eq!((c.rigs[0].hub.interest_mark(), c.rigs[0].hub.interest_settled()), (1, 0));
    c.collect();
    c.deliver(0);
    c.collect();
    // One of the two others has answered.
    let answer = c.wire.iter().position(|(_, to, _)| *to == 0).unwrap();
    c.deliver(answer);
    assert_eq!(c.rigs[0].read(conn), "");
    c.settle();
    let text = c.rigs[0].read(conn);
    assert!(text.starts_with("PONG\r\nINFO {") && text.ends_with(" \r\nPONG\r\n"), "{text}");
    assert_eq!(c.rigs[0].hub.interest_settled(), 1);
    assert_eq!(c.rigs[0].ask(conn, "SUB a 2\r\nPING\r\n"), "PONG\r\n", "the others know of `a` already");
}

#[test]
fn queue_groups_reach_over_shards_by_weight() {
    let mut c = Cluster::new(3);
    let publisher = c.rigs[0].connect(1, "");
    c.rigs[0].send(publisher, "SUB w q 1\r\n");
    let one = c.rigs[1].connect(2, "");
    c.rigs[1].send(one, "SUB w q 1\r\nSUB w q 2\r\nSUB w q 3\r\nSUB w q 4\r\nUNSUB 4\r\n");
    let two = c.rigs[2].connect(3, "");
    c.rigs[2].send(two, "SUB w q 1\r\nSUB w 2\r\n");
    c.settle();
    for _ in 0..5000 {
        c.rigs[0].send(publisher, "PUB w 1\r\nx\r\n");
    }
    c.settle();
    let count = |text: String, start: &str| text.matches(start).count();
    let here = count(c.rigs[0].read(publisher), "MSG w 1 ");
    let one = count(c.rigs[1].read(one), "MSG w ");
    let text = c.rigs[2].read(two);
    assert_eq!(text.matches("MSG w 2 ").count(), 5000, "plain subscriptions get all");
    let two = count(text, "MSG w 1 ");
    assert_eq!(here + one + two, 5000);
    for (share, of_five) in [(here, 1), (one, 3), (two, 1)] {
        assert!(share.abs_diff(of_five * 1000) < 150, "{here} {one} {two}");
    }
}

#[test]
fn a_message_for_a_group_that_left_moves_on() {
    let mut c = Cluster::new(3);
    let publisher = c.rigs[0].connect(1, "");
    let (one, two) = (c.rigs[1].connect(2, ""), c.rigs[2].connect(3, ""));
    c.rigs[1].send(one, "SUB w q 1\r\n");
    c.settle();
    c.rigs[0].send(publisher, "PUB w 1\r\nx\r\n");
    c.collect();
    assert_eq!(c.wire.len(), 1);
    let message = c.wire.pop().unwrap();
    c.rigs[2].send(two, "SUB w q 1\r\n");
    c.settle();
    c.rigs[1].send(one, "UNSUB 1\r\n");
    c.settle();
    c.wire.push(message);
    c.settle();
    assert_eq!((c.rigs[1].read(one).as_str(), c.rigs[2].read(two).as_str()), ("", "MSG w 1 1\r\nx\r\n"));
    // With nobody left it ends.
    c.rigs[0].send(publisher, "PUB w 1\r\nx\r\n");
    c.collect();
    let message = c.wire.pop().unwrap();
    c.rigs[2].send(two, "UNSUB 1\r\n");
    c.settle();
    c.wire.push(message);
    c.settle();
    assert!((0..3).all(|shard| !c.rigs[shard].hub.has_interest(AccountId::GLOBAL, b"w")));
}

#[test]
fn nobody_anywhere_is_a_503_and_somebody_elsewhere_is_none() {
    let mut c = Cluster::new(2);
    let asks = c.rigs[0].connect(1, r#","headers":true,"no_responders":true"#);
    let answers = c.rigs[1].connect(2, "");
    c.rigs[0].send(asks, "SUB in 1\r\nPUB svc in 0\r\n\r\n");
    assert!(c.rigs[0].read(asks).starts_with("HMSG in 1 35 35\r\nNATS/1.0 503\r\n"));
    c.rigs[1].send(answers, "SUB svc q 1\r\n");
    c.settle();
    c.rigs[0].send(asks, "PUB svc in 0\r\n\r\n");
    c.settle();
    assert_eq!(c.rigs[1].read(answers), "MSG svc 1 in 0\r\n\r\n");
    c.rigs[1].send(answers, "PUB in 2\r\nok\r\n");
    c.settle();
    assert_eq!(c.rigs[0].read(asks), "MSG in 1 2\r\nok\r\n");
    c.rigs[1].hub.handle_closed(Time(1), answers, CloseReason::ClientClosed);
    c.settle();
    assert!(c.rigs[0].ask(asks, "PUB svc in 0\r\n\r\n").contains("503"));
}

#[test]
fn an_account_counts_its_connections_on_all_shards() {
    let mut c = Cluster::with(2, flow::two_accounts());
    let options = r#","user":"a","pass":"a""#;
    let first = c.rigs[0].connect(1, options);
    c.settle();
    let second = c.rigs[1].connect(2, options);
    assert_eq!(c.rigs[1].read(second), "-ERR 'maximum account active connections exceeded'\r\n");
    c.rigs[0].hub.handle_closed(Time(1), first, CloseReason::ClientClosed);
    c.settle();
    let third = c.rigs[1].connect(3, options);
    assert_eq!(c.rigs[1].ask(third, "PING\r\n"), "PONG\r\n");
}

#[test]
fn an_internal_delivery_keeps_its_subject_on_the_way() {
    let mut c = Cluster::new(2);
    let conn = c.rigs[1].connect(1, "");
    c.rigs[1].send(conn, "SUB _INBOX.1.* 1\r\n");
    c.settle();
    let msg = Message { subject: b"orders.1", reply: b"$JS.ACK.x", header: b"", payload: b"hi" };
    let Rig { hub, now, inside, .. } = &mut c.rigs[0];
    assert_eq!(hub.publish(*now, AccountId::GLOBAL, b"_INBOX.1.7", &msg, inside), 1);
    c.settle();
    assert_eq!(c.rigs[1].read(conn), "MSG orders.1 1 $JS.ACK.x 2\r\nhi\r\n");
}

/// Three hubs and one hub must agree about who gets what, once everything has arrived.
#[test]
fn many_hubs_are_one() {
    let filters = ["a", "a.b", "a.*", ">", "b.>", "*.b"];
    let subjects = ["a", "a.b", "b.b", "c", "b.b.c"];
    let mut rng = Rng::new(11);
    for _ in 0..200 {
        let (mut many, mut one) = (Cluster::new(3), Rig::new(config(Directory::default())));
        let conns: Vec<_> = (1..=6u64).map(|n| (usize::try_from(n).unwrap() % 3, n)).collect();
        for &(shard, n) in &conns {
            many.rigs[shard].connect(n, "");
            one.connect(n, "");
        }
        for step in 0..60 {
            let (shard, n) = conns[rng.below(6) as usize];
            let conn = ConnId(n);
            let text = match rng.below(3) {
                0 => format!("UNSUB {}\r\n", rng.below(8)),
                _ => {
                    // Each connection is alone in its queue group: random choices cannot differ.
                    let queue = if rng.chance(1, 3) { format!(" q{n}") } else { String::new() };
                    let filter = filters[rng.below(6) as usize];
                    let sid = if queue.is_empty() { rng.below(8) } else { 9 };
                    format!("SUB {filter}{queue} {sid}\r\n")
                }
            };
            many.rigs[shard].send(conn, &text);
            one.send(conn, &text);
            if rng.chance(1, 4) {
                many.settle();
                let subject = subjects[rng.below(5) as usize];
                let text = format!("PUB {subject} 2\r\n{step:02}\r\n");
                many.rigs[shard].send(conn, &text);
                one.send(conn, &text);
            }
            many.settle();
        }
        for &(shard, n) in &conns {
            let lines = |text: String| {
                let mut all: Vec<_> = text.split("MSG ").map(String::from).collect();
                all.sort();
                all
            };
            assert_eq!(lines(many.rigs[shard].read(ConnId(n))), lines(one.read(ConnId(n))));
        }
    }
}

#[test]
fn a_publisher_waits_for_those_who_read_more_slowly() {
    let limits = HubLimits { max_pending: 16_000, ..HubLimits::default() };
    for shard in [0, 1] {
        let mut c = Cluster::with(2, HubConfig { limits, ..config(Directory::default()) });
        let publisher = c.rigs[0].connect(1, "");
        let slow = c.rigs[shard].connect(2, "");
        c.rigs[shard].send(slow, "SUB a 1\r\n");
        c.settle();
        let stalled = |c: &mut Cluster| {
            let Rig { hub, now, .. } = &mut c.rigs[0];
            hub.stalled_until(*now, publisher)
        };
        let publish = format!("PUB a 400\r\n{}\r\n", "x".repeat(400));
        c.rigs[0].send(publisher, publish.repeat(2));
        c.settle();
        assert_eq!(stalled(&mut c), None, "nothing is crowded below a sixteenth of max_pending");
        c.rigs[0].send(publisher, &publish);
        c.settle();
        let until = stalled(&mut c).expect("the output is crowded");
        assert!(until > c.rigs[0].now);
        // One read after each wait.
        c.rigs[0].now = until;
        assert_eq!(stalled(&mut c), None);
        c.rigs[0].send(publisher, &publish);
        c.settle();
        let until = stalled(&mut c).expect("it still is");
        assert!(until > c.rigs[0].now);
        // The shell takes the output; while most of it is not written, nothing changes.
        c.rigs[shard].read(slow);
        c.rigs[shard].hub.set_in_flight(slow, 900);
        c.settle();
        assert_eq!(stalled(&mut c), Some(until));
        assert!(!c.rigs[0].hub.take_resumed());
        c.rigs[shard].hub.set_in_flight(slow, 100);
        assert!(c.rigs[shard].hub.take_resumed(), "this shard has something to do or to say");
        c.settle();
        assert_eq!((stalled(&mut c), shard == 0 || c.rigs[0].hub.take_resumed()), (None, true));
        // Whoever closes lets go, too.
        c.rigs[0].send(publisher, publish.repeat(3));
        c.settle();
        assert!(stalled(&mut c).is_some());
        let Rig { hub, now, .. } = &mut c.rigs[shard];
        hub.handle_closed(*now, slow, CloseReason::ClientClosed);
        c.settle();
        assert_eq!(stalled(&mut c), None);
    }
}

#[test]
fn nobody_waits_where_stalls_are_off() {
    let limits = HubLimits { max_pending: 16_000, stalls: false, ..HubLimits::default() };
    let mut rig = Rig::new(HubConfig { limits, ..config(Directory::default()) });
    let (publisher, slow) = (rig.connect(1, ""), rig.connect(2, ""));
    rig.send(slow, "SUB a 1\r\n");
    let publish = format!("PUB a 400\r\n{}\r\n", "x".repeat(400));
    for _ in 0..38 {
        rig.send(publisher, &publish);
        assert_eq!(rig.hub.stalled_until(rig.now, publisher), None);
    }
    assert_eq!(rig.hub.closing(slow), None);
    rig.send(publisher, publish.repeat(2));
    assert_eq!(rig.hub.closing(slow), Some(CloseReason::SlowConsumerPendingBytes));
}
