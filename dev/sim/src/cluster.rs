//! Clusters: several servers with their disks and clients, on a virtual network that can be parted.

mod run;
mod world;

pub use run::simulate_cluster;
