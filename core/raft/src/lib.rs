//! Consensus for one group: the adapter over the library `raft`, which nothing else in the tree knows.
//!
//! A [`Replica`] is one member of one group. It does no I/O and has no clock: the caller says what happened (a message came, a
//! write is durable, an entry is applied) and takes from [`Replica::ready`] what is to be done. Nothing happens by time: who wants
//! an election calls [`Replica::campaign`], who wants a leader to give up calls [`Replica::step_down`].
//!
//! What the caller owes:
//! - [`Ready::after`] leaves only when everything up to that [`Ready::number`] is durable. All safety hangs on this.
//! - What a `Ready` gives is made durable in the order of the numbers.
//! - [`Ready::committed`] is applied in order; a [`EntryKind::Change`] through [`Replica::apply_change`].
//! - What was durable is put together as [`Start`] says.
//! - A message that [`Message::disturbs`] is not given to a replica that hears its leader, or is one that hears a majority.
//! - A node's id belongs to its disk: with another disk it is another node. A replica that is out of its group is thrown away when all
//!   members have that on disk, in a state or below a [`Hard::commit`]; before, they may need it to elect.
//! - After a link comes up, leaders [`Replica::ping`]; after it breaks, both sides say [`Replica::handle_unreachable`].
//!
//! What it gives: messages of peers are checked before the library sees them, so that none of its panics can be reached from
//! the network; same inputs, same outputs, to the byte.

mod check;
mod codec;
mod convert;
mod entry;
mod error;
mod install;
mod log;
mod members;
mod message;
mod ready;
mod replica;
mod start;
mod status;
#[cfg(test)]
mod tests;

pub use codec::DecodeError;
pub use entry::{Entry, EntryKind, Hard, Role, Settings, Start};
pub use error::{ChangeError, InstallError, Misuse, NotLeader, Refused, StartError};
pub use members::{MemberChange, MemberStep, Members, MembersError};
pub use message::{Body, Message};
pub use ready::Ready;
pub use replica::Replica;
pub use status::{PeerState, PeerStatus, Status};
