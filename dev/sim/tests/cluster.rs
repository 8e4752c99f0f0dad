//! Fixed seeds of clusters: none fails, each gives the same bytes twice, and a disk that lies is found.

use hw_sim::{Plan, Planted, simulate_cluster};

/// Seeds that are run: as many as a machine does in about half a minute.
const SEEDS: u64 = if cfg!(debug_assertions) { 12 } else { 400 };
/// A planted bug is found within so many.
const FIND_WITHIN: u64 = 25;

fn plan(seed: u64, planted: Planted) -> Plan {
    Plan { seed, planted, trace: false }
}

#[test]
fn no_seed_of_a_cluster_fails() {
    let mut counts = std::collections::BTreeMap::<_, u64>::new();
    let mut failures = Vec::new();
    for seed in 0..SEEDS {
        match simulate_cluster(plan(seed, Planted::Nothing)) {
            Ok(report) => {
                report.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} of {SEEDS} failed:\n{}", failures.len(), failures.join("\n"));
    // A simulation in which nothing happens finds nothing.
    for what in
        ["kills", "power cuts", "power cuts of some", "blackouts", "partitions", "half links", "broken links"]
    {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "{what} of {counts:?}");
    }
    for what in ["acks", "repeated publishes", "duplicates"] {
        assert!(counts.get(what).is_some_and(|count| *count > SEEDS), "{what} of {counts:?}");
    }
}

#[test]
fn a_seed_of_a_cluster_gives_the_same_bytes_twice() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..4 {
        let first = simulate_cluster(plan(seed, Planted::Nothing)).unwrap();
        assert_eq!(first, simulate_cluster(plan(seed, Planted::Nothing)).unwrap(), "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 4, "seeds differ");
}

#[test]
fn a_disk_that_lies_is_found_in_clusters() {
    let bug = Planted::LyingDisk;
    let found = (0..FIND_WITHIN).find_map(|seed| simulate_cluster(plan(seed, bug)).err());
    assert!(found.is_some(), "{bug:?} was not found in {FIND_WITHIN} seeds");
}
