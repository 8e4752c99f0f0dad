//! Sessions, interest, queue groups: who gets this message.
//!
//! One [`Hub`] per shard owns the client connections of that shard and knows the interest of all accounts. It does
//! everything between the bytes that clients send and the bytes that they get; sockets are the shell's. The hubs of
//! several shards act like small servers side by side: each matches a message once, and hands it at most once to
//! every other shard that wants it.

mod answers;
mod close;
mod config;
mod cross;
mod event;
mod hub;
mod leaving;
mod links;
mod message;
mod peers;
mod reload;
mod remote;
mod route;
mod session;
mod sinks;
mod slab;
mod stall;
mod timers;
mod verbs;
mod view;

pub use close::CloseReason;
pub use config::{HubConfig, HubLimits, Peer, Tls};
pub use event::HubEvent;
pub use hub::Hub;
pub use leaving::Unclaimed;
pub use links::LinkCounters;
pub use message::{Inside, InternalId, Message, Origin};
pub use peers::PeerBatch;
pub use remote::{NotABatch, RemoteBatch};
pub use session::Traffic;
pub use view::{AccountCounters, ClosedView, ConnectionView, HubCounters, SubView};

#[cfg(test)]
mod tests;
