//! What a hub is told when it starts, and what it is told about a new connection.

use std::sync::Arc;

use hw_auth::{ConnectionKind, Directory, Permissions};
use hw_kit::{ShardId, Span};
use hw_wire::Info;

/// How a hub is set up.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Which of the shards this is.
    pub shard: ShardId,
    /// How many shards there are; each has a hub.
    pub shards: u16,
    /// Seed of all choices among queue members, and of the pings' spread.
    pub seed: u64,
    /// What INFO says to everybody. The client's own fields are filled in per connection.
    pub info: Info,
    /// Limits of every connection.
    pub limits: HubLimits,
    /// Accounts and users.
    pub directory: Arc<Directory>,
    /// What is exchanged with other servers, all accounts alike; None: everything.
    pub exchange: Option<Arc<Permissions>>,
}

impl HubConfig {
    /// Whether other servers are asked for this, which the publish lists say: a filter is read as a literal subject.
    pub(crate) fn imports(&self, filter: &[u8]) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange.may_publish(filter))
    }

    /// Whether other servers get this if they ask for it, which the subscribe lists say.
    pub(crate) fn exports(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange.may_subscribe(filter, queue))
    }

    /// Whether a message may go to other servers that asked for it: they may have asked for more than is exported.
    pub(crate) fn sends(&self, subject: &[u8]) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange.may_deliver(subject, None))
    }
}

/// Limits of every connection, under their names in the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HubLimits {
    /// Bytes of headers and payload of one message.
    pub max_payload: usize,
    /// Bytes of an operation's arguments.
    pub max_control_line: usize,
    /// Subscriptions of one connection; 0 means no limit.
    pub max_subscriptions: usize,
    /// Tokens of a subscription's subject; 0 means no limit.
    pub max_subscription_tokens: usize,
    /// Bytes that may wait to be written to one connection.
    pub max_pending: usize,
    /// Whether those who publish to a client that reads more slowly wait (`no_fast_producer_stall` unset).
    pub stalls: bool,
    /// Time between two pings.
    pub ping_interval: Span,
    /// How many pings may be unanswered.
    pub ping_max: u32,
    /// How long a connection may take to present its credentials.
    pub auth_timeout: Span,
    /// How many closed connections are remembered.
    pub max_closed_clients: usize,
}

impl Default for HubLimits {
    fn default() -> HubLimits {
        HubLimits {
            max_payload: 1024 * 1024,
            max_control_line: 4096,
            max_subscriptions: 0,
            max_subscription_tokens: 0,
            max_pending: 64 * 1024 * 1024,
            stalls: true,
            ping_interval: Span::from_secs(120),
            ping_max: 2,
            auth_timeout: Span::from_secs(2),
            max_closed_clients: 10_000,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peer {
    /// Its address without a port, as INFO's `client_ip` shows it.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// How it came in.
    pub kind: ConnectionKind,
    /// Set once the TLS handshake is done; see also `Hub::handle_tls`.
    pub tls: Option<Tls>,
    /// Fresh randomness from the shell, as text, that an nkey can sign. Used only if the directory needs a nonce.
    pub nonce: String,
}

/// A finished TLS handshake, for monitoring.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// Such as `1.3`.
    pub version: String,
    /// The cipher suite's name.
    pub cipher: String,
    /// Whether this was the connection's first bytes, before INFO.
    pub first: bool,
}
