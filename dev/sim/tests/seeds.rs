//! Fixed seeds: none fails, each gives the same bytes twice, and planted bugs are found.

use hw_sim::{Plan, Planted, Swarm, simulate};

/// Seeds that are run: as many as a machine does in about half a minute.
const SEEDS: u64 = if cfg!(debug_assertions) { 160 } else { 2000 };
/// A planted bug is found within so many.
const FIND_WITHIN: u64 = 25;
const THREADS: usize = 2;

fn plan(seed: u64, planted: Planted) -> Plan {
    Plan { seed, planted, damage: false, trace: false }
}

#[test]
fn no_seed_fails() {
    let swarm = Swarm::run(0..SEEDS, THREADS, None, &|seed| simulate(plan(seed, Planted::Nothing)));
    let failures: Vec<String> = swarm.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} of {SEEDS} failed:\n{}", failures.len(), failures.join("\n"));
    // A simulation in which nothing happens finds nothing.
    let total = |what: &str| swarm.count(what);
    let all = [
        ("acked publishes", 200),
        ("duplicates", 20),
        ("committed batches", 10),
        ("refused batches", 0),
        ("schedules", 5),
        ("fast batches", 10),
        ("refused publishes", 10),
        ("deliveries", 100),
        ("confirmed acks", 50),
        ("removals", 2),
        ("deleted streams", 0),
        ("deleted consumers", 0),
        ("checkpoints", 5),
        ("rewritten segments", 1),
        ("erased messages", 1),
        ("power cuts", 1),
        ("kills", 1),
    ];
    // Not in every seed, but in a share of them.
    for what in ["full disks", "failed syncs", "failed writes", "read-only disks", "disks with failed reads"]
    {
        assert!(total(what) > SEEDS / 40, "only {} {what} in {SEEDS} seeds", total(what));
    }
    for (what, each) in all {
        assert!(total(what) > each * SEEDS, "only {} {what} in {SEEDS} seeds", total(what));
    }
}

#[test]
fn a_seed_gives_the_same_bytes_twice() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let (first, second) = (
            simulate(plan(seed, Planted::Nothing)).unwrap(),
            simulate(plan(seed, Planted::Nothing)).unwrap(),
        );
        assert_eq!(first, second, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 8, "seeds differ");
}

#[test]
fn planted_bugs_are_found() {
    for bug in Planted::ALL {
        let found = (0..FIND_WITHIN).find_map(|seed| simulate(plan(seed, bug)).err());
        let Some(failure) = found else { panic!("{bug:?} was not found in {FIND_WITHIN} seeds") };
        assert!(failure.to_string().contains("--seed"), "a failure says how to replay it: {failure}");
    }
}
