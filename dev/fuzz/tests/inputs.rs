//! Every target runs its corpus and many inputs made of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hw_fuzz::{TARGETS, input};

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("it is in the table");
    let corpus = (target.corpus)();
    // Optimised code has time for more.
    let all = corpus.len() as u64 + if cfg!(debug_assertions) { target.tested } else { target.tested * 10 };
    let mut failed = Vec::new();
    for number in 0..all {
        let bytes = input(target, &corpus, number);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            failed.push(number);
        }
    }
    assert!(failed.is_empty(), "cargo run -p hw-fuzz -- {name} --input {failed:?}");
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn no_target_is_left_out() {
            let named = [$(stringify!($name)),*];
            assert!(TARGETS.iter().all(|target| named.contains(&target.name)) && named.len() == TARGETS.len());
        }
    };
}

targets!(wire, conf, api, archive, commands, server, raft, recovery);

#[test]
fn an_input_is_its_number() {
    for target in TARGETS {
        let corpus = (target.corpus)();
        let again = |number| input(target, &corpus, number) == input(target, &corpus, number);
        assert!((0..500).all(again), "{}", target.name);
    }
}
