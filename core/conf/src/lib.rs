//! The configuration language, and typed options with errors that name file, line and column.
//!
//! [`command_line`] is the whole way from arguments to [`Options`]: flags win over the file. [`Options::load`] reads a
//! file alone. Files and the environment come in through functions ([`Source`]): nothing here does I/O. A key of
//! nats-server that is not built here is refused by name, never ignored.

mod accounts;
mod auth;
mod cluster;
mod directory;
mod error;
mod flags;
mod jetstream;
mod links;
mod operator;
mod options;
mod overlay;
mod parse;
mod reader;
mod refused;
mod scan;
mod sharing;
mod top;
mod units;
mod usage;
mod validate;
mod value;

pub use cluster::{ClusterOptions, Compression, RouteLogin, RouteUrl};
pub use error::{ConfError, ConfErrors, Position, Problem};
pub use flags::{Flags, FlagsError, Signal};
pub use options::{
    AuthOptions, BatchOptions, EncryptionOptions, FeatureFlags, HandshakeFirst, JetStreamLimits,
    JetStreamOptions, LeafnodeOptions, Limits, Listen, LogOptions, MonitorOptions, Options, Secret,
    ServerOptions, StoreCipher, TlsOptions, TlsVersion, WebsocketOptions,
};
pub use overlay::{Command, CommandError, command_line};
pub use parse::{Source, parse_text};
pub use units::{parse_duration, parse_size};
pub use value::{Entry, Value, ValueKind};
