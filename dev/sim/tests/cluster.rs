//! Fixed seeds of clusters: none fails, each gives the same bytes twice, and planted bugs are found.

use hw_sim::{Plan, Planted, Swarm, simulate_cluster};

/// Seeds that are run with debug code; `cargo xtask ci` runs more of them, faster.
const SEEDS: u64 = if cfg!(debug_assertions) { 6 } else { 400 };

fn plan(seed: u64, planted: Planted) -> Plan {
    Plan { seed, planted, damage: false, trace: false }
}

#[test]
fn no_seed_of_a_cluster_fails() {
    let swarm = Swarm::run(0..SEEDS, 2, None, &|seed| simulate_cluster(plan(seed, Planted::Nothing)));
    let failures: Vec<String> = swarm.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} of {SEEDS} failed:\n{}", failures.len(), failures.join("\n"));
    // A simulation in which nothing happens finds nothing.
    for (what, each) in [
        ("acked publishes", 20),
        ("key operations", 10),
        ("deliveries", 20),
        ("comparisons of replicas", 100),
    ] {
        assert!(swarm.count(what) > each * SEEDS, "only {} {what}", swarm.count(what));
    }
}

#[test]
fn a_seed_of_a_cluster_gives_the_same_bytes_twice() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..2 {
        let first = simulate_cluster(plan(seed, Planted::Nothing)).unwrap();
        assert_eq!(first, simulate_cluster(plan(seed, Planted::Nothing)).unwrap(), "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 2, "seeds differ");
}
