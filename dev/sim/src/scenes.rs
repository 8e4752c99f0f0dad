//! What happens to a cluster in exactly this order: situations that random seeds came across, or nearly.

use hw_kit::Span;
use hw_store::FileId;
use serde_json::json;

use crate::asker::Asker;
use crate::world::{Start, World};

const SUBJECT: &str = "s";

/// Whether a server has a replica of the stream.
fn has(world: &World, host: usize) -> bool {
    world.server(host).is_some_and(|server| server.replicas().any(|one| one.stream == "S"))
}

/// How far a server's replica of the stream is, and whether its state is whole.
fn stands(world: &World, host: usize) -> Option<(u64, bool)> {
    let mut replicas = world.server(host)?.replicas();
    replicas.find(|one| one.stream == "S").map(|one| (one.applied.0, one.is_whole))
}

impl Asker {
    fn with_stream(seed: u64, replicas: u64) -> Asker {
        let mut run = Asker::cluster(seed, 3, 4 << 10);
        run.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": [SUBJECT], "num_replicas": replicas}));
        run.publish_to(10);
        run
    }

    fn publish_to(&mut self, count: usize) {
        for _ in 0..count {
            let ack = self.request(SUBJECT, &"x".repeat(300)).expect("there is a leader");
            assert_eq!(ack.get("error"), None, "{ack}");
        }
    }

    fn leader(&mut self) -> usize {
        self.until("the stream has a leader", |world| world.leader_of("S").is_some());
        self.world.leader_of("S").expect("there is one")
    }

    /// A server that was away comes back to others that have forgotten the logs up to now: it has to fetch states.
    fn without_logs(&mut self, away: usize) {
        for round in 0..6 {
            // Checkpoints, after which restarted servers have no longer log than they need.
            let name = format!("T{round}");
            let config = json!({"name": name, "subjects": [name.to_lowercase()], "num_replicas": 1});
            self.api(&format!("STREAM.CREATE.{name}"), &config);
            for _ in 0..10 {
                self.request(&name.to_lowercase(), &"x".repeat(500)).expect("there is a leader");
            }
        }
        self.wait(Span::from_secs(1));
        let others: Vec<usize> = (0..self.world.servers()).filter(|host| *host != away).collect();
        others.iter().for_each(|host| self.world.kill(*host));
        for host in others.iter().copied().chain([away]) {
            self.world.boot(host, Start::default()).expect("it starts again");
        }
        self.go_to(others[0]);
        self.wait(Span::from_secs(2));
    }

    /// How many messages a server has, when it leads.
    fn messages_at(&mut self, host: usize) -> u64 {
        let to = json!({"placement": {"preferred": format!("s{host}")}});
        // A successor that is not ready leaves the leader in place, which may be asked again.
        for _ in 0..5 {
            if self.world.leader_of("S") == Some(host) {
                break;
            }
            self.request("$JS.API.STREAM.LEADER.STEPDOWN.S", &to.to_string());
            self.wait(Span::from_secs(1));
        }
        self.until("it leads", |world| world.leader_of("S") == Some(host));
        self.messages("S")
    }

    /// As many servers have the stream as its configuration says, and all ten messages are there.
    fn has_what_is_wanted(&mut self, step: u64) {
        let info = self.api("STREAM.INFO.S", &json!({}));
        let wanted = info["config"]["num_replicas"].as_u64().expect("a number");
        let have = (0..3).filter(|host| has(&self.world, *host)).count() as u64;
        assert_eq!((have, self.messages("S")), (wanted, 10), "step {step}: {info}");
    }

    /// All three servers have the same of the stream.
    fn settle(&mut self) {
        self.until("all have the same", |world| {
            let all: Vec<_> = (0..world.servers()).map(|host| stands(world, host)).collect();
            all[0].is_some_and(|(_, is_whole)| is_whole) && all.iter().all(|one| *one == all[0])
        });
    }
}

/// A stream goes from three servers to one and back. Those that gave it up must not begin it anew together, as they once did,
/// while the one that has it is away.
#[test]
fn who_gave_a_stream_up_does_not_begin_it_anew() {
    for seed in 1..=6 {
        let mut run = Asker::with_stream(seed, 3);
        let (leader, config) = (
            run.leader(),
            |replicas: u64| json!({"name": "S", "subjects": [SUBJECT], "num_replicas": replicas}),
        );
        let others: Vec<usize> = (0..3).filter(|host| *host != leader).collect();
        run.go_to(leader);
        run.api("STREAM.UPDATE.S", &config(1));
        run.until("the others give it up", |world| !others.iter().any(|host| has(world, *host)));
        run.wait(Span::from_secs(3));
        run.send("$JS.API.STREAM.UPDATE.S", &config(3).to_string());
        run.until("another server is to have it", |world| others.iter().any(|host| has(world, *host)));
        run.world.kill(leader);
        run.go_to(others[0]);
        run.wait(Span::from_secs(3));
        assert_eq!(run.world.leader_of("S"), None, "seed {seed}: nobody has it");
        run.world.boot(leader, Start::default()).expect("it starts again");
        run.settle();
        assert_eq!(run.messages("S"), 10, "seed {seed}");
    }
}

/// Damage to the log of one group costs a server that group, which comes back from the others, and nothing else.
#[test]
fn a_server_with_one_broken_group_starts_and_fetches_that_one() {
    for (seed, host) in [(1, 0), (2, 1), (3, 2)] {
        let mut run = Asker::cluster(seed, 3, 1 << 20);
        for name in ["S", "T"] {
            let config = json!({"name": name, "subjects": [name.to_lowercase()], "num_replicas": 3});
            run.api(&format!("STREAM.CREATE.{name}"), &config);
        }
        let marker = b"what is going to be damaged";
        run.request(SUBJECT, &String::from_utf8_lossy(marker)).expect("there is a leader");
        run.publish_to(10);
        run.request("t", "of the other stream").expect("there is a leader");
        run.settle();
        run.wait(Span::from_secs(2));
        run.world.kill(host);
        let disk = run.world.disk(host);
        disk.settle();
        let logs: Vec<FileId> =
            disk.files().into_iter().filter(|file| matches!(file, FileId::Wal(_))).collect();
        let mut damaged = 0;
        for file in logs {
            let Some(bytes) = disk.content_mut(file) else { continue };
            if let Some(at) = bytes.windows(marker.len()).position(|part| part == marker) {
                bytes[at] ^= 1;
                damaged += 1;
            }
        }
        disk.settle();
        assert_eq!(damaged, 1, "seed {seed}: the log has it");
        let refused = run.world.boot(host, Start::default()).expect_err("it is told");
        assert!(refused.contains("is quarantined"), "{refused}");
        run.world.boot(host, Start { tolerant: true, ..Start::default() }).expect("it starts");
        run.until("the other stream is there", |world| {
            let mut all = world.server(host).into_iter().flat_map(|server| server.replicas());
            all.any(|one| one.stream == "T" && one.is_whole && one.damage.is_none())
        });
        run.settle();
        run.go_to(host);
        assert_eq!((run.world.damaged(host), run.messages_at(host)), (vec![], 11), "seed {seed}");
    }
}

/// A stream goes from three servers to one, whose server dies in the middle of it, at any moment: the other two give up what they
/// have of it all the same, whoever was told so or not.
#[test]
fn who_has_no_place_any_more_goes_although_the_leader_died_before_it_said_so() {
    for step in 1..=14 {
        let mut run = Asker::with_stream(step, 3);
        let leader = run.leader();
        run.go_to(leader);
        let config = json!({"name": "S", "subjects": [SUBJECT], "num_replicas": 1});
        run.send("$JS.API.STREAM.UPDATE.S", &config.to_string());
        run.wait(Span(step as i64 * 700_000));
        run.world.kill(leader);
        run.wait(Span::from_secs(1));
        run.world.boot(leader, Start::default()).expect("it starts again");
        run.go_to(leader);
        run.wait(Span::from_secs(8));
        run.has_what_is_wanted(step);
    }
}

/// The one server that is to keep a stream is not heard for a while, and no connection breaks. Whoever leads meanwhile waits for it, as
/// nobody else may give the stream up, and goes on when it is heard again.
#[test]
fn who_is_to_keep_a_stream_and_was_only_silent_is_waited_for() {
    let mut waited = 0;
    for step in 1..=14 {
        let mut run = Asker::with_stream(step, 3);
        run.settle();
        let leader = run.leader();
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        run.go_to(others[0]);
        let config = json!({"name": "S", "subjects": [SUBJECT], "num_replicas": 1});
        run.send("$JS.API.STREAM.UPDATE.S", &config.to_string());
        run.wait(Span(step as i64 * 700_000));
        others.iter().for_each(|other| run.world.part(leader, *other));
        run.wait(Span::from_secs(2));
        waited += u32::from(others.iter().all(|other| has(&run.world, *other)));
        run.world.heal_links();
        run.wait(Span::from_secs(8));
        run.has_what_is_wanted(step);
    }
    assert!(waited > 1, "{waited} streams waited");
}

/// What a stream with one replica delivers without a word in its log is not in the state that others get when the stream becomes
/// theirs, too: after a power cut the log has to lead all of them to the same. `told`: the log was told before.
#[test]
fn deliveries_that_no_log_follows_are_the_same_everywhere() {
    for (seed, told) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut run = Asker::cluster(seed, 3, 1 << 20);
        let config = |replicas: u64| json!({"name": "S", "subjects": [SUBJECT], "num_replicas": replicas});
        run.api("STREAM.CREATE.S", &config(1));
        run.publish_to(10);
        let consumer =
            json!({"name": "C", "ack_policy": "none", "inactive_threshold": 3_600_000_000_000_i64});
        run.api("CONSUMER.CREATE.S.C", &json!({"stream_name": "S", "config": consumer}));
        run.send("$JS.API.CONSUMER.MSG.NEXT.S.C", r#"{"batch":5}"#);
        run.wait(Span::from_millis(if told { 2000 } else { 20 }));
        run.api("STREAM.UPDATE.S", &config(3));
        run.settle();
        (0..3).for_each(|host| run.world.kill(host));
        (0..3).for_each(|host| run.world.power_cut(host));
        (0..3).for_each(|host| run.world.boot(host, Start::default()).expect("it starts again"));
        run.go_to(0);
        run.wait(Span::from_secs(2));
        run.settle();
        let info = run.api("CONSUMER.INFO.S.C", &json!({}));
        let delivered = info["delivered"]["consumer_seq"].as_u64().expect("a number");
        assert!(delivered == 5 || (delivered == 0 && !told), "seed {seed}: {info}");
    }
}

/// What is acknowledged is pending for a consumer at once: who asks next sees it.
#[test]
fn what_is_acknowledged_is_pending_at_once() {
    for replicas in [1, 3] {
        let mut run = Asker::with_stream(replicas, replicas);
        let consumer = json!({"durable_name": "P", "deliver_subject": "nobody", "ack_policy": "explicit"});
        run.api("CONSUMER.CREATE.S.P", &json!({"stream_name": "S", "config": consumer}));
        for count in 11..=15 {
            run.publish_to(1);
            assert_eq!(run.api("CONSUMER.INFO.S.P", &json!({}))["num_pending"], count);
        }
    }
}

/// A server has just died, and whoever places streams only sees that its link has ended: nothing says that it is gone.
/// Streams that need one server get one of the others.
#[test]
fn a_new_stream_is_not_placed_on_a_server_that_has_just_died() {
    for seed in 1..=6 {
        let mut run = Asker::cluster(seed, 3, 4 << 10);
        let leader = run.world.meta_leader().expect("there is one");
        let dies = (leader + 1 + seed as usize % 2) % 3;
        run.go_to(leader);
        run.world.cut(leader, dies);
        run.world.kill(dies);
        run.wait(Span::from_millis(10));
        for number in 0..6 {
            let (name, subject) = (format!("N{number}"), format!("n{number}"));
            let config = json!({"name": name, "subjects": [subject], "num_replicas": 1});
            run.api(&format!("STREAM.CREATE.{name}"), &config);
        }
    }
}

/// Whoever leads the meta group dies, and a stream that another server leads is changed before there is a successor. The change
/// waits there, or comes to nothing with the leader that died and is asked for again: the client is told that it happened.
#[test]
fn a_stream_is_changed_while_nobody_leads_the_meta_group() {
    for step in 0..=10 {
        let mut run = Asker::with_stream(step + 1, 3);
        run.settle();
        let meta = run.world.meta_leader().expect("there is one");
        let leads = (meta + 1) % 3;
        run.go_to(leads);
        assert_eq!(run.messages_at(leads), 10);
        run.world.kill(meta);
        run.wait(Span::from_millis(step as i64 * 100));
        let config = json!({"name": "S", "subjects": [SUBJECT, "more"], "num_replicas": 3});
        let info = run.api("STREAM.UPDATE.S", &config);
        assert_eq!(info["config"]["subjects"], config["subjects"], "step {step}");
    }
}

/// A leader loses its last entry with its power, and is back before anybody has missed it. It asks for votes that nobody can give it,
/// as others have more: that it asks is no sign that it leads.
#[test]
fn a_leader_that_comes_back_at_once_with_less_is_replaced() {
    let mut replaced = 0;
    for seed in 1..=12 {
        let mut run = Asker::with_stream(seed, 3);
        run.settle();
        let leader = run.leader();
        run.go_to((leader + 1) % 3);
        run.world.set_slow(leader, 1_000_000);
        run.send(SUBJECT, "of which the leader may not know any more");
        run.wait(Span::from_millis(20));
        run.world.power_cut(leader);
        run.world.set_slow(leader, 1);
        run.world.boot(leader, Start::default()).expect("it starts again");
        run.until("somebody leads", |world| world.leader_of("S").is_some());
        replaced += u32::from(run.world.leader_of("S") != Some(leader));
        run.settle();
        run.wait(Span::from_secs(1));
        assert_eq!(run.messages("S"), 11, "seed {seed}");
    }
    // What was written before the power went is lost only now and then.
    assert!(replaced > 1, "{replaced} leaders had less than others");
}

/// While a server is away a stream changes its configuration, and gives up that server's place. What the meta group decided reaches
/// it as one state, without the entries that said so.
#[test]
fn what_the_meta_group_decided_meanwhile_is_followed_when_it_comes_as_a_state() {
    for seed in 1..=4 {
        let mut run = Asker::with_stream(seed, 3);
        run.settle();
        let leader = run.leader();
        let away = (leader + 1) % 3;
        run.go_to(leader);
        run.world.kill(away);
        let config = json!({"name": "S", "subjects": [SUBJECT], "num_replicas": 1});
        run.api("STREAM.UPDATE.S", &config);
        run.without_logs(away);
        run.until("it gives up its replica", |world| !has(world, away));
        assert_eq!(run.messages("S"), 10, "seed {seed}");
    }
}

/// A server has no state of a stream yet, but its whole log, and hears of the list of streams as it is now: what is in the log was
/// decided with the configuration of then.
#[test]
fn a_log_happens_again_with_the_configuration_that_the_stream_began_with() {
    for seed in 1..=4 {
        let mut run = Asker::cluster(seed, 3, 4 << 10);
        let config = |max_msgs: i64| json!({"name": "S", "subjects": [SUBJECT], "num_replicas": 3, "max_msgs": max_msgs, "discard": "new"});
        run.api("STREAM.CREATE.S", &config(-1));
        let leader = run.leader();
        let away = (leader + 1) % 3;
        run.go_to(leader);
        for _ in 0..3 {
            run.request(SUBJECT, "x").expect("there is a leader");
        }
        run.settle();
        run.world.kill(away);
        run.api("STREAM.UPDATE.S", &config(20));
        run.publish_to(10);
        run.without_logs(away);
        // Replicas are compared at every entry.
        run.settle();
        assert_eq!(run.messages("S"), 13, "seed {seed}");
    }
}

/// The last place of a text in a server's log gets another bit; says whether there is one. Only for who does not run.
fn flip_last(world: &mut World, host: usize, text: &[u8]) -> bool {
    let disk = world.disk(host);
    let last = |file: &FileId| disk.content(*file)?.windows(text.len()).rposition(|found| found == text);
    let logs = disk.files().into_iter().filter(|file| matches!(file, FileId::Wal(_)));
    let Some((newest, at)) = logs.filter_map(|file| Some((file, last(&file)?))).max() else { return false };
    disk.content_mut(newest).expect("just seen")[at] ^= 1;
    true
}

/// The end of a follower's log is damaged before anything says that it was durable, which looks like what a crash leaves: it lacks
/// what it acknowledged, and does not know. It hears of that from the leader, and gets it back.
#[test]
fn a_follower_that_lost_what_it_acknowledged_gets_it_back() {
    let mut unaware = 0;
    for seed in 1..=8 {
        let mut run = Asker::with_stream(seed, 3);
        run.settle();
        let leader = run.leader();
        let follower = (leader + 1) % 3;
        run.go_to(leader);
        run.publish_to(1);
        run.until("the follower has it", |world| stands(world, follower) == stands(world, leader));
        run.world.kill(follower);
        assert!(flip_last(&mut run.world, follower, b"xxxxxxxx"));
        let start = Start { tolerant: true, ..Start::default() };
        run.world.boot(follower, start).expect("it starts again");
        unaware += u32::from(run.world.damaged(follower).is_empty());
        // Where there is nothing else to say, it took ten seconds.
        run.publish_to(1);
        run.settle();
        assert_eq!(run.messages_at(follower), 12, "seed {seed}");
    }
    assert!(unaware > 1, "{unaware} followers did not know");
}

/// The same for the list of streams: the follower goes down at any moment around the one in which it gets an entry.
#[test]
fn a_server_that_lost_a_stream_from_its_list_gets_it_back() {
    let mut unaware = 0;
    for step in 0..40 {
        let mut run = Asker::with_stream(1, 3);
        run.settle();
        let leader = run.world.meta_leader().expect("there is one");
        let follower = (leader + 1) % 3;
        run.go_to(leader);
        let config = json!({"name": "T", "subjects": ["t"], "description": "tttttttt", "num_replicas": 3});
        run.send("$JS.API.STREAM.CREATE.T", &config.to_string());
        run.wait(Span(step * 50_000));
        run.world.kill(follower);
        if !flip_last(&mut run.world, follower, b"tttttttt")
            || run.world.boot(follower, Start::default()).is_err()
        {
            continue; // It does not have it yet, or finds out by itself.
        }
        unaware += 1;
        run.api("STREAM.CREATE.U", &json!({"name": "U", "subjects": ["u"], "num_replicas": 1}));
        run.until("the follower knows it", |world| {
            world.server(follower).is_some_and(|server| server.replicas().any(|one| one.stream == "T"))
        });
    }
    assert!(unaware > 1, "{unaware} servers did not know");
}
