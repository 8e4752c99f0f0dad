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
        let info = run.api("STREAM.INFO.S", &json!({}));
        let wanted = info["config"]["num_replicas"].as_u64().expect("a number");
        let have = (0..3).filter(|host| has(&run.world, *host)).count() as u64;
        assert_eq!((have, run.messages("S")), (wanted, 10), "step {step}: {info}");
    }
}
