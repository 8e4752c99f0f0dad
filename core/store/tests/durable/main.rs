//! The durable half against a disk that loses what it may lose: power cuts, flipped bytes, a full disk.
#![allow(clippy::unwrap_used)] // The clippy setting for tests does not reach a crate of tests.

mod crash;
mod damage;
mod disk;
mod full;
mod golden;
mod model;
mod points;
mod sealing;
mod snapshot;
mod stream;
