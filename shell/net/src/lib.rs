//! Sockets that feed a shard: bytes in, bytes out, timers; no NATS rule.
//!
//! A [`Driver`] runs one shard on one current-thread runtime. Reads are handled as they come; what they cause (replies,
//! disk requests, batches for other shards) leaves once per round, after every connection that was ready was read.

mod clock;
mod driver;
mod limits;
mod mailbox;
mod stream;
mod tcp;
mod upgrade;

pub use clock::Clock;
pub use driver::{Driver, DriverConfig, Outside};
pub use mailbox::{Adopted, Duplex, Mail, Mailbox, Socket};
pub use upgrade::{Upgrade, Upgraded, Upgrading};
