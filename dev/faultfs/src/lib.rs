//! A disk that loses power and fails, as a file system that real servers write to (FUSE; Linux, with the right to mount).
//!
//! Everything is kept in memory, twice: what a process sees, and what is on the platter. Only a sync moves anything from
//! one to the other, and a power cut leaves any part of what lies between. Unlike a kernel this one writes nothing back
//! early, so that whatever was not synced can be lost at any moment. Nothing here knows what is written to it.
#![cfg(target_os = "linux")]

mod cut;
mod faults;
mod fs;
mod mount;
mod tree;

pub use cut::Survival;
pub use faults::{Act, Fault, Faults, Trouble};
pub use mount::{Counts, FaultDisk};
