//! The stream and consumer state machines.
//!
//! A stream is a group of one or more replicas: every change is a [`Command`] in the group's log, and
//! [`Stream::apply`] decides, identically everywhere. What only the leader does (waiting pulls, timers, flow
//! control, deliveries in flight) lives in [`Lead`] and is never persisted. Nothing here does I/O or knows JSON
//! beyond the serde shapes of the configuration.

pub mod batch;
pub mod command;
pub mod config;
pub mod consumer;
pub mod feed;
mod hash;
pub mod info;
pub mod lead;
pub mod outcome;
mod schedule;
pub mod stream;

pub use command::Command;
pub use config::{ConsumerConfig, StreamConfig};
pub use hash::short_hash;
pub use lead::Lead;
pub use outcome::{Advisory, Answer, Effect, PublishError};
pub use stream::Stream;
