//! One server as shards: carries inputs to the machines and effects between them, and holds no rule of its own.
//!
//! A [`Shard`] is told everything (`handle_*`) and asked for what it wants done (`take_*`): output per connection, batches
//! for other shards, disk requests. Shard 0 hosts JetStream: the meta group and all streams.

mod advise;
mod api;
mod checkpoint;
mod commit;
mod completion;
mod feed;
mod group;
mod inside;
mod jetstream;
mod limits;
mod log;
mod outbox;
mod publish;
mod pull;
mod read;
mod recover;
mod shard;
mod streams;
mod system;
mod view;

pub use completion::DiskCompletion;
pub use jetstream::{DiskRequest, JetStreamConfig};
pub use recover::Recovery;
pub use shard::Shard;
pub use view::{AccountView, Damaged, JetStreamHealth, JetStreamTotals, JetStreamView, StreamView};
