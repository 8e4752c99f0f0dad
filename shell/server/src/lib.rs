//! Headwater, a JetStream server, as a library.
//!
//! ```no_run
//! # fn main() -> Result<(), headwater::StartError> {
//! let server = headwater::Server::builder().port(0).store_dir("data").start()?;
//! println!("clients connect to {}", server.client_url());
//! server.shutdown(); // waits until everything is on disk
//! # Ok(())
//! # }
//! ```
//!
//! The server runs on threads of its own and needs no async runtime from the program. Dropping it stops it, as
//! [`Server::shutdown`] does. Two servers may run in one process; two on one store are refused ([`StartError::Store`]).
//!
//! [`Server::connect`] gives a connection inside the process, without a socket, that speaks the client protocol:
//!
//! ```no_run
//! use tokio::io::{AsyncBufReadExt, BufReader};
//!
//! # async fn example(server: headwater::Server) -> std::io::Result<()> {
//! let mut lines = BufReader::new(server.connect()).lines();
//! let greeting = lines.next_line().await?; // INFO {"server_id":"N...",...}
//! # drop(greeting);
//! # Ok(())
//! # }
//! ```
//!
//! Settings without a method of their own are reached by [`Builder::with`]; [`Builder::from_options`] takes what a
//! configuration file or flags gave.

mod accept;
mod addresses;
mod banner;
mod builder;
mod cluster;
mod inner;
mod leave;
mod link_tls;
mod log;
mod monitor;
pub mod offline;
mod ports;
mod reload;
mod server;
mod shards;
mod start;
mod store;
mod system;
mod tls;
mod usage;
mod websocket;

pub use builder::Builder;
pub use leave::Departure;
pub use log::{FATAL, LogConfig, Sink};
pub use ports::Ports;
pub use reload::ReloadError;
pub use server::Server;
pub use start::StartError;

/// The nats-server version whose behaviour this server has, and that it announces.
pub const NATS_VERSION: &str = "2.15.1";

/// Headwater's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
