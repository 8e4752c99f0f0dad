//! Every crash point: after each single operation, each way in which unsynced writes and names may survive is opened, and
//! must be a state that a naive model accepts.
//!
//! One image in so many is opened, chosen evenly; `HEADWATER_CRASH_EVERY=1` opens all. `HEADWATER_CRASH_STEPS` makes the
//! runs longer, `HEADWATER_CRASH_SEEDS` runs more of them.

use std::collections::BTreeMap;

use hw_store::Cipher;

use crate::disk::{Fate, MemDisk};
use crate::model::seal;
use crate::stream::{Load, Machine, open, read_all};

/// So many open items are tried in all combinations; with more, each alone, all but each, and all up to each.
const ALL_SUBSETS: usize = 3;

#[allow(clippy::disallowed_methods)] // A test asks for nothing else, and there is nobody to hand it in.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What may have survived, as the fate of each item.
fn fates(items: usize) -> Vec<Vec<Fate>> {
    let mut all = Vec::new();
    if items <= ALL_SUBSETS {
        for subset in 0..1 << items {
            let kept = |at: usize| if subset & (1 << at) != 0 { Fate::Kept } else { Fate::Lost };
            all.push((0..items).map(kept).collect::<Vec<Fate>>());
        }
    } else {
        all.push(vec![Fate::Lost; items]);
        for at in 0..items {
            let only = |other: usize| if other == at { Fate::Kept } else { Fate::Lost };
            let but = |other: usize| if other == at { Fate::Lost } else { Fate::Kept };
            let up_to = |other: usize| if other <= at { Fate::Kept } else { Fate::Lost };
            all.push((0..items).map(only).collect());
            all.push((0..items).map(but).collect());
            all.push((0..items).map(up_to).collect());
        }
    }
    // The power goes in the middle of one of them, with the others written or not.
    for at in 0..items {
        for others in [Fate::Kept, Fate::Lost] {
            let torn = |other: usize| if other == at { Fate::Torn } else { others };
            all.push((0..items).map(torn).collect());
        }
    }
    all
}

/// Opens one image, twice.
fn judge(machine: &Machine, mut image: MemDisk, what: &dyn Fn() -> String) {
    for time in ["once", "twice"] {
        let mut opened =
            open(&mut image).unwrap_or_else(|error| panic!("{}, opened {time}: {error}", what()));
        let found = read_all(&mut opened.messages, &mut image);
        if let Err(wrong) = machine.accepts(opened.applied, &found) {
            panic!("{}, opened {time}: {wrong}", what());
        }
    }
}

fn run(load: Load, seed: u64, steps: u64, counts: &mut BTreeMap<&'static str, u64>) {
    let mut disk = MemDisk::default();
    let mut machine = Machine::new(open(&mut disk).expect("a new disk opens"), load, seed);
    let every = number("HEADWATER_CRASH_EVERY", 16).max(1);
    let (mut images, mut points, mut turn) = (0, 0, seed);
    for step in 0..steps {
        machine.step(&mut disk, &mut |machine, disk, op| {
            points += 1;
            for fate in fates(disk.open_items()) {
                turn += 1;
                if turn % every != 0 {
                    continue;
                }
                images += 1;
                let what = || format!("{load:?} seed {seed} step {step} after {op:?}, {fate:?}");
                judge(machine, disk.after_cut(&|item| fate[item]), &what);
            }
        });
    }
    *counts.entry("crash points").or_default() += points;
    *counts.entry("images").or_default() += images;
    machine.counts.iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
}

#[test]
fn every_crash_point_leaves_what_the_model_accepts() {
    check_all();
}

#[test]
fn every_crash_point_of_a_sealed_store_leaves_what_the_model_accepts() {
    seal(Some(Cipher::Aes), false);
    check_all();
}

fn check_all() {
    let mut counts = BTreeMap::new();
    let (seeds, steps) = (number("HEADWATER_CRASH_SEEDS", 1), number("HEADWATER_CRASH_STEPS", 150));
    for load in Load::ALL {
        for seed in 0..seeds {
            run(load, seed, steps, &mut counts);
        }
    }
    for what in ["crash points", "images", "checkpoints", "rewritten", "recycled", "erased"] {
        assert!(counts.get(what).is_some_and(|count| *count > 3), "{what}: {counts:?}");
    }
}
