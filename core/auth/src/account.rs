//! Accounts and their limits, as plain numbers.

/// "No limit" in every limit of this crate.
pub const UNLIMITED: i64 = -1;

/// What JetStream may use in one account. -1 means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JsLimits {
    /// Bytes in memory streams.
    pub max_memory: i64,
    /// Bytes in file streams.
    pub max_storage: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers of all streams together.
    pub max_consumers: i64,
    /// The largest `max_ack_pending` that a consumer may ask for.
    pub max_ack_pending: i64,
    /// Bytes in one memory stream.
    pub memory_max_stream_bytes: i64,
    /// Bytes in one file stream.
    pub storage_max_stream_bytes: i64,
    /// Whether every stream must have `max_bytes`.
    pub max_bytes_required: bool,
}

impl JsLimits {
    /// JetStream without limits of its own.
    pub const NONE: JsLimits = JsLimits {
        max_memory: UNLIMITED,
        max_storage: UNLIMITED,
        max_streams: UNLIMITED,
        max_consumers: UNLIMITED,
        max_ack_pending: UNLIMITED,
        memory_max_stream_bytes: UNLIMITED,
        storage_max_stream_bytes: UNLIMITED,
        max_bytes_required: false,
    };
}

impl Default for JsLimits {
    fn default() -> JsLimits {
        JsLimits::NONE
    }
}

/// What the connections of one account may use. -1 means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AccountLimits {
    /// Client connections at the same time.
    pub max_connections: i64,
    /// Subscriptions of one connection.
    pub max_subscriptions: i64,
    /// Bytes of one message; the server's own limit holds as well.
    pub max_payload: i64,
    /// Leaf node connections at the same time.
    pub max_leafnodes: i64,
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        AccountLimits {
            max_connections: UNLIMITED,
            max_subscriptions: UNLIMITED,
            max_payload: UNLIMITED,
            max_leafnodes: UNLIMITED,
        }
    }
}

/// An account as the server sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// `$G`, `$SYS`, or the configured name.
    pub name: String,
    /// What people call it: the name, unless that is a key.
    pub label: String,
    /// `None`: JetStream is not enabled here.
    pub jetstream: Option<JsLimits>,
    /// Limits of its connections.
    pub limits: AccountLimits,
    /// A reload took it out. Its number stays its own.
    pub gone: bool,
}
