//! Seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Options, Planted, Stats, world::World};

/// More of everything: so many seeds and steps.
const SEEDS: &str = "HEADWATER_RAFT_SEEDS";
const STEPS: &str = "HEADWATER_RAFT_STEPS";

const BASE: Options = Options { voters: 3, steps: 800, is_ordered: true, has_wipes: false, planted: None };

#[allow(clippy::disallowed_methods)] // Long runs ask for it, and there is nobody to hand it in.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn run(seed: u64, options: Options) -> Result<Stats, String> {
    let mut world = World::new(seed, options)?;
    for step in 0..options.steps {
        world.step().map_err(|error| format!("step {step}: {error}"))?;
    }
    if !options.has_wipes {
        world.heal()?;
    }
    world.truth.count(&mut world.stats);
    Ok(world.stats)
}

/// A violation or a panic is what was to be found.
fn finds(seed: u64, options: Options) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, options))) {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default(),
            )
        }
    }
}

fn many(options: Options, seeds: u64) -> Stats {
    let mut sum = Stats::default();
    let options = Options { steps: number(STEPS, options.steps as u64) as usize, ..options };
    for seed in 0..number(SEEDS, seeds) {
        let stats = match run(seed, options) {
            Ok(stats) => stats,
            Err(error) => panic!("seed {seed} of {options:?}: {error}"),
        };
        sum.elections += stats.elections;
        sum.committed += stats.committed;
        sum.crashes += stats.crashes;
        sum.installs += stats.installs;
        sum.resets += stats.resets;
        sum.changes += stats.changes;
        sum.transfers += stats.transfers;
        sum.refused += stats.refused;
        sum.messages += stats.messages;
    }
    // Seen with `--nocapture` only.
    #[allow(clippy::disallowed_macros)]
    {
        println!("{} seeds of {options:?}: {sum:?}", number(SEEDS, seeds));
    }
    sum
}

/// Runs that never got anywhere would show nothing.
fn assert_worth(sum: Stats, seeds: u64) {
    for (what, count, least) in [
        ("elections", sum.elections, 1),
        ("committed", sum.committed, 10),
        ("crashes", sum.crashes, 2),
        ("messages", sum.messages, 200),
    ] {
        assert!(count >= seeds * least, "{what}: {count} in {seeds} runs");
    }
    for (what, count) in [
        ("installs", sum.installs),
        ("resets", sum.resets),
        ("changes", sum.changes),
        ("transfers", sum.transfers),
    ] {
        assert!(count > seeds / 10, "{what}: {count} in {seeds} runs");
    }
}

#[test]
fn three_on_ordered_links() {
    assert_worth(many(BASE, 200), 200);
}

#[test]
fn five_on_ordered_links() {
    assert_worth(many(Options { voters: 5, ..BASE }, 100), 100);
}

#[test]
fn three_on_links_that_lose_double_and_reorder() {
    assert_worth(many(Options { is_ordered: false, ..BASE }, 150), 150);
}

#[test]
fn five_on_links_that_lose_double_and_reorder() {
    assert_worth(many(Options { voters: 5, is_ordered: false, ..BASE }, 100), 100);
}

#[test]
fn one_that_grows() {
    many(Options { voters: 1, ..BASE }, 100);
}

#[test]
fn a_lost_disk_under_the_old_id_panics_nobody() {
    many(Options { has_wipes: true, is_ordered: false, ..BASE }, 100);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for is_ordered in [true, false] {
        for seed in 0..10 {
            let options = Options { is_ordered, ..BASE };
            let (first, second) = (run(seed, options), run(seed, options));
            assert_eq!(first, second);
            assert_ne!(first.unwrap().trace, run(seed + 1, options).unwrap().trace);
        }
    }
}

/// Each bug with the groups and links that show it soonest.
const PLANTED: &[(Planted, u64, bool)] = &[
    (Planted::AfterSentEarly, 3, true),
    (Planted::ChangeSkipped, 3, true),
    (Planted::CompactedTooFar, 3, true),
    (Planted::EntriesNotSynced, 3, true),
    (Planted::HardNotWritten, 3, true),
    (Planted::LeaderNotDurable, 1, true),
    (Planted::AloneNotSettled, 1, true),
    (Planted::OverwrittenKept, 3, true),
];

/// Those that take tens of thousands of seeds: looked for when so many are asked for. Each has a scene of its own, too.
const RARE: &[(Planted, u64, bool)] =
    &[(Planted::InstallKeepsLog, 3, true), (Planted::SurelyNotDurable, 3, true)];

#[test]
fn planted_bugs_are_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (seeds, mut missed) = (number(SEEDS, 400), Vec::new());
    let rare = RARE.iter().filter(|_| seeds >= 40_000);
    for &(bug, voters, is_ordered) in PLANTED.iter().chain(rare) {
        let options = Options { voters, is_ordered, planted: Some(bug), ..BASE };
        let found = (0..seeds).find_map(|seed| Some((seed, finds(seed, options)?)));
        #[allow(clippy::disallowed_macros)]
        match found {
            Some((seed, what)) => {
                println!("{bug:?}: seed {seed}: {}", what.lines().next().unwrap_or_default());
            }
            None => missed.push((bug, is_ordered)),
        }
    }
    std::panic::set_hook(quiet);
    assert_eq!(missed, []);
}
