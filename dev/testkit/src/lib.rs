//! Protocol scripts in plain text, servers on free ports, fixtures.
//!
//! Blocking and small on purpose: nothing here shares code with the server that it judges, so a wrong idea
//! about the protocol cannot hide by being wrong twice. The one exception is [`disk`], which runs the store's
//! operations in memory and loses what was not synced.

mod conn;
mod dir;
pub mod disk;
mod frame;
mod json;
mod parse;
mod ports;
mod proxy;
mod run;
mod script;
mod server;
mod template;

pub use conn::{Conn, ConnEnd};
pub use dir::TempDir;
pub use frame::Frame;
pub use parse::{ParseError, parse};
pub use ports::Port;
pub use proxy::{Parted, Proxy};
pub use run::{Failure, run};
pub use script::{Script, ScriptFile};
pub use server::{Launch, Server, ServerError};
pub use template::{Captures, Template};
