//! Sockets that feed a shard: bytes in, bytes out, timers; no NATS rule.
//!
//! A [`Driver`] runs one shard on one current-thread runtime. Reads are handled as they come; what they cause (replies,
//! disk requests, batches for other shards) leaves once per round, after every connection that was ready was read.

mod clock;
mod driver;
mod limits;
mod links;
mod mailbox;
mod stream;
mod tcp;
mod upgrade;

pub use clock::{Clock, steady_now};
pub use driver::{Driver, DriverConfig, Outside};
pub use links::{Linking, Links, LinksConfig, Secure};
pub use mailbox::{Adopted, Duplex, LinkMail, Mail, Mailbox, Socket};
pub use upgrade::{Upgrade, Upgraded, Upgrading};
