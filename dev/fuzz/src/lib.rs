//! Fuzz targets for every byte that comes from outside: functions of bytes that must not panic.
//!
//! No coverage feedback and no special toolchain: inputs are mutations of a corpus, each made from a number, so that a
//! failure is a number, too. `hw-fuzz TARGET SECONDS` goes on for as long as one likes.

mod mutate;
mod targets;

pub use mutate::input;
pub use targets::{TARGETS, Target};
