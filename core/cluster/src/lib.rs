//! The servers of a cluster: who is alive, who founds it, when groups elect a leader, and what JetStream servers say to
//! each other.
//!
//! Machines without I/O. Raft groups have no heartbeats of their own: liveness is known per pair of servers ([`Peers`]),
//! and what it means for thousands of groups is decided here ([`Elections`]). An idle group costs nothing.

mod compare;
mod elections;
mod formation;
mod frame;
mod note;
mod peers;

pub use compare::{Verdict, judge};
pub use elections::{Cause, Elections};
pub use formation::{Formation, FormationStep, Standing};
pub use frame::{FrameError, Given, PeerFrame, PieceEnd};
pub use note::{NoteError, ReplicaNote, StoreNote};
pub use peers::{LinkDown, Loss, Peer, Peers};
