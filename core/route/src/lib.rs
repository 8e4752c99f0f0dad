//! Links between the servers of a cluster: frames, handshake, whom to dial, who is alive.
//!
//! A [`Mesh`] is told about sockets and times (`handle_*`) and asked for what it wants done ([`Mesh::take_actions`]). It
//! keeps one link with every other server. What travels on a link is opaque here: the hub's batches, JetStream's frames.
//!
//! A handshake: both sides send [`MAGIC`] and a [`Hello`]; who was dialled speaks second. Of two servers the one with the
//! lower id decides which connection is their link, and says so with an `Adopt` frame; the link is up when that was sent
//! or received. From then on each side sends a beat every [`BEAT_EVERY`], which the other answers at once.

mod compress;
mod dial;
mod fields;
mod frame;
mod hello;
mod limits;
mod line;
mod mesh;
mod view;

pub use compress::{Compression, Effort, Wish};
pub use fields::FieldError;
pub use frame::{Channel, FrameError, MAGIC};
pub use hello::{Hello, Refusal};
pub use limits::{BEAT_EVERY, QUEUE_BYTES, QUIET_AFTER};
pub use mesh::{Action, DialError, LinkDown, Mesh, MeshConfig, Peer, Remark, RouteUrl, SocketId};
pub use view::LinkView;

#[cfg(test)]
mod tests;
