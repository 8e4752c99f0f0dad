//! Tests of a replica alone, of its messages, and of whole groups.

mod basics;
pub(crate) mod sim;
