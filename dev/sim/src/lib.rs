//! Whole servers on a virtual clock, network and disk, from one seed.
//!
//! [`simulate`] runs a seed: a server made of the real machines, its store on a disk that can lose what was not synced,
//! clients that do random things, kills and power cuts at random times. After each restart and at the end the
//! invariants judge what the clients saw. The same seed gives the same bytes.

#[cfg(test)]
mod asker;
mod audit;
mod client;
mod clock;
mod cluster;
#[cfg(test)]
mod feeds;
mod history;
mod invariants;
mod net;
mod planted;
mod sample;
#[cfg(test)]
mod scenes;
mod server;
mod simulate;
#[cfg(test)]
mod starts;
mod swarm;
mod tamper;
mod trace;
mod volume;
mod workload;
mod world;

pub use cluster::simulate_cluster;
pub use history::Violation;
pub use planted::Planted;
pub use sample::{Opened, Sample};
pub use server::Setup;
pub use simulate::{Failure, Plan, Report, simulate};
pub use swarm::{Swarm, find_planted};
pub use trace::Trace;
pub use world::{Ground, Happening, Start, World};
