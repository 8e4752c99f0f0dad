//! `hw-bench CASE` does one piece of work once; without a case it lists them. `cargo xtask counts` runs each under valgrind,
//! counts the instructions of [`measured`] alone, and compares them with `baseline.txt`.

mod kv;
mod store;
mod stream;
mod wire;

use std::process::ExitCode;

/// A case prepares what it needs and gives the work that counts.
type Case = fn() -> Box<dyn FnMut()>;

const CASES: [(&str, Case); 11] = [
    ("parse", wire::parse),
    ("headers", wire::headers),
    ("match", wire::interest),
    ("append", store::append),
    ("next_match", store::next_match),
    ("last_of", store::last_of),
    ("wal_encode", store::wal_encode),
    ("publish", stream::publish),
    ("ack", stream::ack),
    ("overwrite", kv::overwrite),
    ("get", kv::get),
];

/// The work, by a name that valgrind finds.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, case)) = CASES.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("no case {wanted}");
        return ExitCode::FAILURE;
    };
    let mut work = case();
    measured(&mut work);
    // What was made stays until the count is over: freeing it is not what is measured.
    std::mem::forget(work);
    ExitCode::SUCCESS
}

/// A subject of 5,000 that come in an order without a pattern.
fn subject(at: u64) -> String {
    let device = at.wrapping_mul(2_654_435_761) % 5_000;
    format!("plant.{}.device.{device}.state", device % 7)
}
