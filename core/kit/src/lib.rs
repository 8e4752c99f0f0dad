//! Words that all crates share: time values, ids, seeded randomness and maps.
//!
//! Nothing here reads a clock or draws entropy: times and seeds are handed in from the shell.

mod id;
mod rng;
mod time;
mod wall;

pub use id::{AccountId, ConnId, GroupId, LinkId, LogIndex, NodeId, Seq, ShardId};
pub use rng::{Nuid, Rng};
pub use time::{Span, Time};
pub use wall::WallClock;

/// A hash map whose order depends only on its history: replays are exact.
#[allow(clippy::disallowed_types)] // The one place that may name it: the hasher is fixed here.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// A hash set whose order depends only on its history.
#[allow(clippy::disallowed_types)] // As for `Map`.
pub type Set<T> = std::collections::HashSet<T, foldhash::fast::FixedState>;
