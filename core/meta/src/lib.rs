//! Which streams exist: a state machine of its own, group 0 of the log.
//!
//! It decides existence, names and subjects; what is inside a stream is the stream's business. Data is never deleted
//! because an entry is missing here: only a `Delete` that was applied leaves a tombstone that allows it.

mod command;
mod origins;
mod place;
mod state;
mod taken;

pub use command::MetaCommand;
pub use place::{NoPlace, Wish, matches};
pub use state::{Asset, Created, Meta, MetaAnswer, MetaError, Node, Origin};
