//! The durable half against a disk that loses what it may lose: power cuts, flipped bytes, a full disk.

mod crash;
mod damage;
mod disk;
mod full;
mod model;
