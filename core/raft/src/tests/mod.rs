//! Tests of a replica alone, of its messages, and of whole groups.

mod basics;
mod hostile;
mod messages;
mod scenes;
pub(crate) mod sim;
