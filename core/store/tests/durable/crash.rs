//! Power cuts at every operation: what was acknowledged is there, in order, and nothing else is.
//!
//! `HEADWATER_CRASH_RUNS` says how many random runs there are (default 300).

use crate::disk::MemDisk;
use crate::model::{Node, open, seal};
use crate::points::number;
use hw_kit::{Rng, Span};
use hw_store::{Cipher, SyncPolicy};

#[allow(clippy::disallowed_macros)] // Seen with `--nocapture`, by who asked for a long run.
fn report(what: std::fmt::Arguments<'_>) {
    println!("{what}");
}

const STEPS: u64 = 110;
const POLICIES: [SyncPolicy; 2] = [SyncPolicy::Always, SyncPolicy::Interval(Span(1))];

/// Runs a seed's steps until the power fails; how many operations that took.
fn live(node: &mut Node, steps: u64) -> u64 {
    for _ in 0..steps {
        if node.step().is_err() {
            break;
        }
    }
    node.disk.ops_done
}

/// Cuts the power after `ops` operations, and again soon after each recovery. Gives how many power cuts and how many deaths
/// of the process alone that were.
fn check(seed: u64, sync: SyncPolicy, ops: u64, damage: u64) -> (u64, u64) {
    let (mut cuts, mut kills) = (0, 0);
    let mut rng = Rng::new(seed ^ ops << 20 ^ damage << 50);
    let mut disk = MemDisk::default();
    let reborn = open(sync, &mut disk).expect("a new store opens");
    disk.ops_left = Some(ops);
    let mut node = Node::new(reborn, disk, sync, seed);
    live(&mut node, STEPS);
    for round in 0..3 {
        let Node { mut disk, model, .. } = node;
        if rng.chance(1, 3) {
            kills += 1;
            disk.restart()
        } else {
            cuts += 1;
            disk.crash(&mut rng)
        }
        // The power fails during recovery, too.
        for _ in 0..rng.below(3) {
            disk.ops_left = Some(rng.below(30));
            match open(sync, &mut disk) {
                Ok(reborn) => model.check(&reborn.groups),
                Err(error) => assert!(error.to_string().contains("power cut"), "{error}"),
            }
            cuts += 1;
            disk.crash(&mut rng);
        }
        let reborn = open(sync, &mut disk)
            .unwrap_or_else(|error| panic!("{seed} {sync:?} {ops} {damage} round {round}: {error}"));
        assert_eq!(
            (reborn.damaged_segments, reborn.quarantined.len()),
            (0, 0),
            "{seed} {sync:?} {ops} {damage}"
        );
        model.check(&reborn.groups);
        disk.ops_left = Some(rng.below(60));
        node = Node::new(reborn, disk, sync, seed + 100 + round);
        live(&mut node, 20);
    }
    (cuts, kills)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    for sync in POLICIES {
        let mut disk = MemDisk::default();
        let reborn = open(sync, &mut disk).expect("a new store opens");
        let start = disk.ops_done;
        let all = live(&mut Node::new(reborn, disk, sync, 1), STEPS) - start;
        assert!(all > 100, "the run is long enough: {all}");
        for ops in 0..all {
            for damage in 0..3 {
                check(1, sync, ops, damage);
            }
        }
    }
}

#[test]
fn power_cuts_in_sealed_stores() {
    for seed in 300..360 {
        seal(Some(if seed % 2 == 0 { Cipher::Aes } else { Cipher::Chacha }), false);
        let mut rng = Rng::new(seed);
        check(seed, POLICIES[seed as usize % 2], rng.below(400), seed);
    }
}

#[test]
fn power_cuts_in_many_different_runs() {
    let (mut all_cuts, mut all_kills) = (0, 0);
    for seed in 2..number("HEADWATER_CRASH_RUNS", 300) {
        let mut rng = Rng::new(seed);
        let sync = POLICIES[seed as usize % 2];
        let (cuts, kills) = check(seed, sync, rng.below(400), seed);
        (all_cuts, all_kills) = (all_cuts + cuts, all_kills + kills);
    }
    report(format_args!("{all_cuts} power cuts and {all_kills} kills, no violation"));
    assert!(all_cuts > 500, "{all_cuts}");
}

/// What a failed sync left behind is shown by the system as if it were written, until the power goes.
#[test]
fn a_failed_sync_and_a_new_start_without_a_new_boot() {
    let (mut failed, runs) = (0, number("HEADWATER_CRASH_RUNS", 300));
    // One that was found by a long run comes first: a checkpoint was to sync the log, and failed.
    for seed in std::iter::once(761).chain(0..runs) {
        let (mut rng, sync) = (Rng::new(seed ^ 77), POLICIES[seed as usize % 2]);
        let mut disk = MemDisk::default();
        let reborn = open(sync, &mut disk).expect("a new store opens");
        disk.fail_sync_in = Some(rng.below(150));
        let mut node = Node::new(reborn, disk, sync, seed);
        live(&mut node, STEPS);
        let Node { mut disk, model, .. } = node;
        failed += u64::from(disk.fail_sync_in == Some(0));
        (disk.fail_sync_in, disk.ops_left) = (None, None);
        let reborn = open(sync, &mut disk).unwrap_or_else(|error| panic!("{seed} {sync:?}: {error}"));
        model.check(&reborn.groups);
        disk.ops_left = Some(rng.below(200));
        let mut node = Node::new(reborn, disk, sync, seed + 1000);
        live(&mut node, 40);
        let Node { mut disk, model, .. } = node;
        disk.crash(&mut rng);
        let reborn = open(sync, &mut disk).unwrap_or_else(|error| panic!("{seed} {sync:?}, cut: {error}"));
        assert_eq!((reborn.damaged_segments, reborn.quarantined.len()), (0, 0), "{seed} {sync:?}");
        model.check(&reborn.groups);
    }
    assert!(failed > runs / 2, "{failed} of {runs} runs had a failed sync");
}
