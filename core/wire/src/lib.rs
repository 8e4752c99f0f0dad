//! The NATS client protocol: bytes to operations and back, headers, INFO and CONNECT.
//!
//! [`parse`] reads one operation from the front of a byte slice without copying; [`encode`] appends operations to a
//! buffer; [`headers`] reads and edits header blocks. Nothing here keeps state between calls.

mod connect;
pub mod encode;
pub mod headers;
mod info;
mod parse;
mod request_info;

pub use connect::ConnectOptions;
pub use info::Info;
pub use parse::{BadArguments, ClientOp, Limits, ParseError, Publish, Step, parse};
pub use request_info::{REQUEST_INFO, RequestInfo};
