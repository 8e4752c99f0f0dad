//! One server as shards: carries inputs to the machines and effects between them, and holds no rule of its own.
//!
//! A [`Shard`] is told everything (`handle_*`) and asked for what it wants done (`take_*`): output per connection, batches
//! for other shards, disk requests. Shard 0 hosts JetStream: the meta group and all streams.

mod advise;
mod api;
mod batch;
mod checkpoint;
mod cluster;
mod commit;
mod completion;
mod consumers;
mod damage;
mod external;
mod feed;
mod group;
mod groups;
mod held;
mod inside;
mod jetstream;
mod limits;
mod links;
mod log;
mod meters;
mod notice;
mod outbox;
mod publish;
mod pull;
mod read;
mod recover;
mod restore;
mod schedule;
mod scrub;
mod shard;
mod snapshot;
mod streams;
mod system;
mod tidy;
mod unheard;
mod untold;
mod usage;
mod view;

pub use hw_stream::batch::BatchLimits;
pub use hw_stream::info::{ClusterInfo, PeerInfo};

pub use cluster::{AssetProblem, ClusterConfig, MetaView, RaftView};
pub use completion::{DiskCompletion, LoadError};
pub use jetstream::{DiskRequest, JetStreamConfig};
pub use limits::{DEFAULT_MAX_CONSUMERS, ERASE_AFTER, FRAME_BYTES};
pub use links::{LinkFrame, Linked};
pub use meters::{ConsumerMeter, Meters, StreamMeter};
pub use notice::{Notice, NoticeConfig, NoticeLevel};
pub use recover::{Recovery, StoredStream};
pub use shard::Shard;
pub use system::Question;
pub use unheard::Unheard;
pub use view::{
    AccountView, Damaged, JetStreamHealth, JetStreamTotals, JetStreamView, ReplicaView, StreamView,
};
