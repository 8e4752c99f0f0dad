//! Several servers of several shards each: every message once, interest in time, accounts apart.

use hw_auth::{Account, DirectorySpec};
use hw_kit::{LinkId, Rng};

use super::*;

/// Shards of servers, and links between the servers' first shards.
struct Servers {
    shards: usize,
    /// By server and shard.
    rigs: Vec<Vec<Rig>>,
    /// Between shards: server, from, to, batch.
    inner: Vec<(usize, usize, usize, PeerBatch)>,
    /// Between servers: from, to, batch as it travels.
    outer: Vec<(usize, usize, bytes::Bytes)>,
    rng: Rng,
}

impl Servers {
    fn new(servers: usize, shards: u16, config: impl Fn(usize) -> HubConfig) -> Servers {
        let rigs = |server| {
            let rig = |shard| {
                let seed = (server * 10) as u64 + u64::from(shard);
                Rig::new(HubConfig { shard: ShardId(shard), shards, seed, ..config(server) })
            };
            (0..shards).map(rig).collect()
        };
        let rigs = (0..servers).map(rigs).collect();
        Servers { shards: usize::from(shards), rigs, inner: vec![], outer: vec![], rng: Rng::new(9) }
    }

    fn open(servers: usize, shards: u16) -> Servers {
        let mut all = Servers::new(servers, shards, |_| config(Directory::default()));
        for a in 0..servers {
            for b in 0..a {
                all.link(a, b);
            }
        }
        all.settle();
        all
    }

    /// The link of `a` with `b` has `b`'s number, and the other way round.
    fn link(&mut self, a: usize, b: usize) {
        self.rigs[a][0].hub.handle_link_up(LinkId(b as u64));
        self.rigs[b][0].hub.handle_link_up(LinkId(a as u64));
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.outer.retain(|(from, to, _)| (*from, *to) != (a, b) && (*from, *to) != (b, a));
        self.rigs[a][0].hub.handle_link_down(LinkId(b as u64));
        self.rigs[b][0].hub.handle_link_down(LinkId(a as u64));
    }

    fn collect(&mut self) {
        for (server, rigs) in self.rigs.iter_mut().enumerate() {
            for (from, rig) in rigs.iter_mut().enumerate() {
                let ops = rig.hub.take_peer_ops();
                self.inner
                    .extend(ops.into_iter().map(|(to, batch)| (server, from, usize::from(to.0), batch)));
            }
            let batches = rigs[0].hub.take_remote_batches();
            self.outer
                .extend(batches.into_iter().map(|(to, batch)| (server, to.0 as usize, batch.into_bytes())));
        }
    }

    /// Delivers something that is on its way; what goes the same way stays in order.
    fn step(&mut self) -> bool {
        self.collect();
        let waiting = self.inner.len() + self.outer.len();
        if waiting == 0 {
            return false;
        }
        let at = self.rng.below(waiting as u64) as usize;
        if at < self.inner.len() {
            let way = |(server, from, to, _): &(usize, usize, usize, PeerBatch)| (*server, *from, *to);
            let wanted = way(&self.inner[at]);
            let at = self.inner.iter().position(|item| way(item) == wanted).unwrap();
            let (server, from, to, batch) = self.inner.remove(at);
            let Rig { hub, now, inside, .. } = &mut self.rigs[server][to];
            hub.handle_peer(*now, ShardId(from as u16), batch, inside);
        } else {
            let (from, to, _) = self.outer[at - self.inner.len()];
            let at = self.outer.iter().position(|item| (item.0, item.1) == (from, to)).unwrap();
            let (from, to, bytes) = self.outer.remove(at);
            let batch = RemoteBatch::decode(bytes).unwrap();
            let Rig { hub, now, inside, .. } = &mut self.rigs[to][0];
            hub.handle_remote(*now, LinkId(from as u64), &batch, inside);
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("batches breed batches");
    }

    fn rig(&mut self, (server, shard): (usize, usize)) -> &mut Rig {
        &mut self.rigs[server][shard]
    }

    fn places(&self) -> Vec<(usize, usize)> {
        (0..self.rigs.len()).flat_map(|server| (0..self.shards).map(move |shard| (server, shard))).collect()
    }
}

#[test]
fn one_copy_crosses_to_each_server_and_everybody_hears_it_once() {
    for shards in 1..=3 {
        let mut s = Servers::open(3, shards);
        let places = s.places();
        let conns: Vec<ConnId> =
            places.iter().enumerate().map(|(n, at)| s.rig(*at).connect(n as u64 + 1, "")).collect();
        for (at, conn) in places.iter().zip(&conns) {
            s.rig(*at).send(*conn, "SUB a.* 1\r\nSUB > 2\r\n");
        }
        s.settle();
        for (from, conn) in places.iter().zip(&conns) {
            s.rig(*from).send(*conn, "PUB a.b r 2\r\nhi\r\n");
            s.settle();
            for (at, conn) in places.iter().zip(&conns) {
                let mut got: Vec<String> =
                    s.rig(*at).read(*conn).split_inclusive("hi\r\n").map(String::from).collect();
                got.sort();
                assert_eq!(got, ["MSG a.b 1 r 2\r\nhi\r\n", "MSG a.b 2 r 2\r\nhi\r\n"], "{from:?} to {at:?}");
            }
        }
    }
}

#[test]
fn pongs_wait_until_other_servers_know() {
    for shard in 0..2 {
        let mut s = Servers::open(2, 2);
        let conn = s.rig((0, shard)).connect(1, "");
        s.rig((0, shard)).send(conn, "SUB a 1\r\nPING\r\n");
        let far = s.rig((1, 1)).connect(2, "");
        let mut heard = false;
        while s.step() {
            let knows = (0..2).all(|shard| s.rigs[1][shard].hub.has_interest(AccountId::GLOBAL, b"a"));
            heard |= s.rig((0, shard)).read(conn).contains("PONG");
            assert!(knows || !heard);
        }
        assert!(heard, "shard {shard}");
        s.rig((1, 1)).send(far, "PUB a 1\r\nx\r\n");
        s.settle();
        assert_eq!(s.rig((0, shard)).read(conn), "MSG a 1 1\r\nx\r\n");
    }
}

#[test]
fn nobody_waits_for_a_server_that_is_gone_or_quiet() {
    for quiet in [false, true] {
        let mut s = Servers::open(2, 2);
        let conn = s.rig((0, 1)).connect(1, "");
        s.rig((0, 1)).send(conn, "SUB a 1\r\nPING\r\n");
        // Nothing reaches the other server.
        for _ in 0..50 {
            s.collect();
            s.outer.clear();
            s.step();
        }
        assert_eq!(s.rig((0, 1)).read(conn), "");
        match quiet {
            true => s.rigs[0][0].hub.handle_link_quiet(LinkId(1), true),
            false => s.rigs[0][0].hub.handle_link_down(LinkId(1)),
        }
        s.settle();
        assert!(s.rig((0, 1)).read(conn).contains("PONG"));
    }
}

#[test]
fn marks_of_servers_that_wait_for_each_other_settle() {
    let mut s = Servers::open(3, 3);
    let places = s.places();
    let conns: Vec<ConnId> =
        places.iter().enumerate().map(|(n, at)| s.rig(*at).connect(n as u64 + 1, "")).collect();
    for round in 0..20 {
        for (n, (at, conn)) in places.iter().zip(&conns).enumerate() {
            s.rig(*at).send(*conn, format!("SUB a.{round}.{n} {round} \r\nPING\r\n"));
            s.step();
        }
    }
    s.settle();
    for (at, conn) in places.iter().zip(&conns) {
        assert_eq!(s.rig(*at).read(*conn).matches("PONG").count(), 20);
    }
    for rigs in &s.rigs {
        assert_eq!(rigs[0].hub.interest_mark(), rigs[0].hub.interest_settled());
    }
}

#[test]
fn one_member_of_a_group_gets_it_and_the_own_server_comes_first() {
    let mut s = Servers::open(3, 2);
    let members = [(0, 1), (1, 0), (1, 1), (2, 1)];
    let conns = members.map(|at| s.rig(at).connect(7, ""));
    for (at, conn) in members.into_iter().zip(conns) {
        s.rig(at).send(conn, "SUB a q 1\r\n");
    }
    let publisher = s.rig((0, 0)).connect(8, "");
    s.settle();
    let publish = |s: &mut Servers, count: usize| {
        for _ in 0..count {
            s.rig((0, 0)).send(publisher, "PUB a 1\r\nx\r\n");
        }
        s.settle();
        let mut got = [0; 4];
        for ((at, conn), got) in members.into_iter().zip(conns).zip(&mut got) {
            *got = s.rig(at).read(conn).matches("MSG").count();
        }
        got
    };
    assert_eq!(publish(&mut s, 100), [100, 0, 0, 0]);
    s.rig((0, 1)).send(conns[0], "UNSUB 1\r\n");
    s.settle();
    let got = publish(&mut s, 300);
    assert_eq!(got.iter().sum::<usize>(), 300);
    // By the number of members.
    assert!(got[0] == 0 && got[1] > 60 && got[2] > 60 && got[3] > 60, "{got:?}");
    s.rigs[0][0].hub.handle_link_quiet(LinkId(2), true);
    let got = publish(&mut s, 100);
    assert!(got[3] == 0 && got[1] + got[2] == 100, "{got:?}");
}

#[test]
fn a_group_whose_member_left_meanwhile_is_served_elsewhere() {
    let mut s = Servers::open(3, 2);
    let leaves = s.rig((1, 1)).connect(7, "");
    s.rig((1, 1)).send(leaves, "SUB a q 1\r\n");
    let publisher = s.rig((0, 1)).connect(8, "");
    s.settle();
    let stays = s.rig((2, 1)).connect(9, "");
    s.rig((2, 1)).send(stays, "SUB a q 1\r\n");
    // Server 1 hears of it, server 0 does not yet.
    s.collect();
    for _ in 0..200 {
        s.collect();
        let held: Vec<_> = s.outer.extract_if(.., |(from, to, _)| (*from, *to) == (2, 0)).collect();
        s.step();
        s.outer.extend(held);
    }
    s.rig((1, 1)).send(leaves, "UNSUB 1\r\n");
    s.rig((0, 1)).send(publisher, "PUB a 1\r\nx\r\n");
    s.settle();
    assert_eq!(s.rig((1, 1)).read(leaves), "");
    assert_eq!(s.rig((2, 1)).read(stays), "MSG a 1 1\r\nx\r\n");
}

#[test]
fn requests_are_answered_across_servers_or_nobody_hears_them() {
    let mut s = Servers::open(2, 2);
    let asker = s.rig((0, 1)).connect(1, r#","headers":true,"no_responders":true"#);
    let service = s.rig((1, 1)).connect(2, "");
    s.rig((0, 1)).send(asker, "SUB _INBOX.x 1\r\n");
    s.settle();
    s.rig((0, 1)).send(asker, "PUB svc _INBOX.x 0\r\n\r\n");
    s.settle();
    assert!(s.rig((0, 1)).read(asker).contains("NATS/1.0 503"));
    s.rig((1, 1)).send(service, "SUB svc 1\r\n");
    s.settle();
    s.rig((0, 1)).send(asker, "PUB svc _INBOX.x 0\r\n\r\n");
    s.settle();
    assert_eq!(s.rig((0, 1)).read(asker), "");
    assert_eq!(s.rig((1, 1)).read(service), "MSG svc 1 _INBOX.x 0\r\n\r\n");
    s.rig((1, 1)).send(service, "PUB _INBOX.x 1\r\n7\r\n");
    s.settle();
    assert_eq!(s.rig((0, 1)).read(asker), "MSG _INBOX.x 1 1\r\n7\r\n");
    s.cut(0, 1);
    s.settle();
    let knows = |s: &Servers, shard: usize| s.rigs[0][shard].hub.has_interest(AccountId::GLOBAL, b"svc");
    assert!(!knows(&s, 0) && !knows(&s, 1));
    s.rig((0, 1)).send(asker, "PUB svc _INBOX.x 0\r\n\r\n");
    assert!(s.rig((0, 1)).read(asker).contains("NATS/1.0 503"), "its interest is gone with the link");
    s.link(0, 1);
    s.settle();
    s.rig((0, 1)).send(asker, "PUB svc _INBOX.x 0\r\n\r\n");
    s.settle();
    assert_eq!(s.rig((1, 1)).read(service), "MSG svc 1 _INBOX.x 0\r\n\r\n");
}

fn accounts(names: &[&str]) -> HubConfig {
    let account = |name: &&str| hw_auth::AccountSpec { name: name.to_string(), ..Default::default() };
    let user = |name: &&str| UserSpec {
        key: UserKey::Password { user: name.to_lowercase(), pass: "p".into() },
        permissions: None,
        connection_kinds: vec![],
    };
    let accounts =
        names.iter().map(|name| hw_auth::AccountSpec { users: vec![user(name)], ..account(name) }).collect();
    let spec = DirectorySpec { accounts, ..DirectorySpec::default() };
    let directory = Directory::new(&spec).unwrap();
    assert!(directory.accounts().any(|(_, account): (_, &Account)| account.name == names[0]));
    config(directory)
}

#[test]
fn accounts_are_told_apart_by_name() {
    let order = [["A", "B"], ["B", "A"]];
    let mut s = Servers::new(3, 2, |server| match order.get(server) {
        Some(names) => accounts(names),
        None => accounts(&["B"]),
    });
    for (a, b) in [(1, 0), (2, 0), (2, 1)] {
        s.link(a, b);
    }
    let user = |name: &str| format!(r#","user":"{name}","pass":"p""#);
    let a = s.rig((0, 1)).connect(1, &user("a"));
    let b = s.rig((0, 1)).connect(2, &user("b"));
    for conn in [a, b] {
        s.rig((0, 1)).send(conn, "SUB x 1\r\n");
    }
    let (far_a, far_b) = (s.rig((1, 0)).connect(1, &user("a")), s.rig((2, 1)).connect(2, &user("b")));
    s.settle();
    s.rig((1, 0)).send(far_a, "PUB x 1\r\na\r\n");
    s.rig((2, 1)).send(far_b, "PUB x 1\r\nb\r\n");
    s.settle();
    assert_eq!(s.rig((0, 1)).read(a), "MSG x 1 1\r\na\r\n");
    assert_eq!(s.rig((0, 1)).read(b), "MSG x 1 1\r\nb\r\n");
    // An account that the third server gets to know later.
    for shard in 0..2 {
        let directory = accounts(&["B", "A"]).directory;
        s.rig((2, shard)).hub.set_directory(directory);
    }
    s.settle();
    let late = s.rig((2, 1)).connect(3, &user("a"));
    s.rig((2, 1)).send(late, "PUB x 1\r\nl\r\n");
    s.settle();
    assert_eq!(s.rig((0, 1)).read(a), "MSG x 1 1\r\nl\r\n");
    assert_eq!(s.rig((0, 1)).read(b), "");
}

#[test]
fn inside_subscribers_hear_other_servers_unless_they_are_private() {
    for shards in [1, 2] {
        let mut s = Servers::new(2, shards, |_| config(Directory::default()));
        for server in 0..2 {
            let hub = &mut s.rig((server, 0)).hub;
            hub.subscribe_internal(AccountId::GLOBAL, b"all", None, InternalId(1));
            hub.subscribe_private(AccountId::GLOBAL, b"own", InternalId(2));
        }
        s.link(0, 1);
        s.settle();
        let conn = s.rig((1, usize::from(shards) - 1)).connect(1, "");
        let at = (1, usize::from(shards) - 1);
        s.rig(at).send(conn, "PUB all 1\r\nx\r\nPUB own 1\r\ny\r\n");
        s.settle();
        let got = |s: &mut Servers, server| std::mem::take(&mut s.rig((server, 0)).inside.0);
        let near = format!("1/{}", shards - 1);
        assert_eq!(got(&mut s, 1), [format!("1<0/{near} all ||x"), format!("2<0/{near} own ||y")]);
        assert_eq!(
            got(&mut s, 0),
            ["1<0//0 all ||x"],
            "without the connection's number: it is another server's"
        );
    }
}

#[test]
fn what_was_wanted_before_the_first_link_is_taken_back_with_the_last_member() {
    for shards in [1, 2] {
        let mut s = Servers::new(2, shards, |_| config(Directory::default()));
        let conns = [1, 2].map(|conn| s.rig((0, 0)).connect(conn, ""));
        for conn in conns {
            s.rig((0, 0)).send(conn, "SUB a 1\r\nSUB a 2\r\nSUB b q 3\r\n");
        }
        s.link(0, 1);
        s.settle();
        let wanted = |s: &Servers| {
            let (_, counters) = s.rigs[1][0].hub.link_counters().next().unwrap();
            let has = |subject: &[u8]| s.rigs[1][0].hub.has_interest(AccountId::GLOBAL, subject);
            (counters.subscriptions, has(b"a"), has(b"b"))
        };
        assert_eq!(wanted(&s), (2, true, true));
        s.rig((0, 0)).send(conns[0], "UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n");
        s.settle();
        assert_eq!(wanted(&s), (2, true, true));
        s.rig((0, 0)).send(conns[1], "UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n");
        s.settle();
        assert_eq!(wanted(&s), (0, false, false), "{shards} shards");
    }
}

/// Links that come and go while everybody subscribes and publishes: nothing twice, and all of it once it is quiet.
#[test]
fn what_was_settled_arrives_whatever_happened_before() {
    for seed in 0..40 {
        let mut s = Servers::open(3, 2);
        s.rng = Rng::new(seed);
        let mut rng = Rng::new(seed + 1000);
        let places = s.places();
        let conns: Vec<ConnId> = places.iter().map(|at| s.rig(*at).connect(5, "")).collect();
        let mut wants: Vec<Map<u64, bool>> = vec![Map::default(); places.len()];
        let mut cut: Option<(usize, usize)> = None;
        for round in 0..120 {
            let n = rng.below(places.len() as u64) as usize;
            let topic = rng.below(4);
            match rng.below(8) {
                0..3 if !wants[n].contains_key(&topic) => {
                    let queue = rng.chance(1, 3);
                    let group = if queue { "q " } else { "" };
                    s.rig(places[n]).send(conns[n], format!("SUB t.{topic} {group}{topic}\r\n"));
                    wants[n].insert(topic, queue);
                }
                3 => {
                    if wants[n].remove(&topic).is_some() {
                        s.rig(places[n]).send(conns[n], format!("UNSUB {topic}\r\n"));
                    }
                }
                4 if cut.is_none() => {
                    let (a, b) = [(0, 1), (0, 2), (1, 2)][rng.below(3) as usize];
                    s.cut(a, b);
                    cut = Some((a, b));
                }
                5 => {
                    if let Some((a, b)) = cut.take() {
                        s.link(a, b);
                    }
                }
                6 => s.rig(places[n]).send(conns[n], format!("PUB t.{topic} 4\r\nr{round:03}\r\n")),
                _ => {
                    s.step();
                }
            }
        }
        if let Some((a, b)) = cut.take() {
            s.link(a, b);
        }
        s.settle();
        for (at, conn) in places.iter().zip(&conns) {
            let got = s.rig(*at).read(*conn);
            for round in 0..120 {
                // One subscription for each topic: nothing comes twice.
                assert!(got.matches(&format!("r{round:03}")).count() <= 1, "seed {seed}: {got}");
            }
        }
        for topic in 0..4u64 {
            let from = rng.below(places.len() as u64) as usize;
            s.rig(places[from]).send(conns[from], format!("PUB t.{topic} 1\r\n!\r\n"));
            s.settle();
            let mut queue = 0;
            for ((at, conn), wants) in places.iter().zip(&conns).zip(&wants) {
                let got = s.rig(*at).read(*conn).matches("MSG").count();
                match wants.get(&topic) {
                    Some(false) => assert_eq!(got, 1, "seed {seed} {at:?}"),
                    Some(true) => queue += got,
                    None => assert_eq!(got, 0, "seed {seed} {at:?}"),
                }
            }
            let members = wants.iter().filter(|wants| wants.get(&topic) == Some(&true)).count();
            assert_eq!(queue, members.min(1), "seed {seed}");
        }
    }
}
