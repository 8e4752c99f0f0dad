//! The typed settings: one plain struct per block, with nats-server's defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hw_auth::{AccountSpec, Login, MappingSpec, PermissionsSpec, UserSpec};
use hw_kit::Span;

use crate::cluster::ClusterOptions;
use crate::error::ConfErrors;
use crate::parse::Source;

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The client listener, the server's name, and what is neither of the below.
    pub server: ServerOptions,
    /// Sizes, counts and times.
    pub limits: Limits,
    /// The log.
    pub log: LogOptions,
    /// The monitoring endpoints.
    pub monitor: MonitorOptions,
    /// Users and accounts.
    pub auth: AuthOptions,
    /// Streams and consumers.
    pub jetstream: JetStreamOptions,
    /// Formats that clients may not know yet.
    pub features: FeatureFlags,
    /// TLS for clients; `None`: without.
    pub tls: Option<TlsOptions>,
    /// Whether clients without TLS are served besides those with.
    pub allow_non_tls: bool,
    /// The client protocol in websocket frames; `None`: not.
    pub websocket: Option<WebsocketOptions>,
    /// The leaf node listener; `None`: not.
    pub leafnodes: Option<LeafnodeOptions>,
    /// The cluster; `None`: not.
    pub cluster: Option<ClusterOptions>,
    /// The configuration file's digest, for monitoring; whoever reads the file sets it.
    pub digest: String,
    /// What the user should know, with places. `-t` takes these for errors.
    pub warnings: Vec<String>,
}

impl Options {
    /// Reads a configuration file and everything that it includes. Not yet checked as a whole:
    /// see [`Options::validate`], to be called once the flags are applied.
    pub fn load(file: &Path, source: &mut Source<'_>) -> Result<Options, ConfErrors> {
        crate::top::load(file, source)
    }
}

/// An address to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// A name or an address without brackets.
    pub host: String,
    /// 0 is any free port (-1 in the file).
    pub port: u16,
}

/// The client listener, the server's name, files, and lame duck mode.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// Where clients connect. 0.0.0.0:4222 by default.
    pub listen: Listen,
    /// `host:port` that INFO names to clients instead.
    pub client_advertise: Option<String>,
    /// The server's name; `None`: its id.
    pub name: Option<String>,
    /// Tags for placement and discovery.
    pub tags: Vec<String>,
    /// Free texts that monitoring shows.
    pub metadata: BTreeMap<String, String>,
    /// The file that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// The directory that gets the `_<pid>.ports` file.
    pub ports_file_dir: Option<PathBuf>,
    /// Over how long lame duck mode closes clients.
    pub lame_duck_duration: Span,
    /// How long lame duck mode waits before it closes the first client.
    pub lame_duck_grace_period: Span,
    /// Whether headers are refused.
    pub no_header_support: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            listen: Listen { host: "0.0.0.0".to_owned(), port: 4222 },
            client_advertise: None,
            name: None,
            tags: vec![],
            metadata: BTreeMap::new(),
            pid_file: None,
            ports_file_dir: None,
            lame_duck_duration: Span::from_secs(120),
            lame_duck_grace_period: Span::from_secs(10),
            no_header_support: false,
        }
    }
}

/// Sizes in bytes, counts, and times. -1 means no limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Headers and payload of one message.
    pub max_payload: u32,
    /// A protocol line.
    pub max_control_line: u32,
    /// Bytes waiting for one client.
    pub max_pending: u64,
    /// Client connections.
    pub max_connections: i64,
    /// Subscriptions of one connection.
    pub max_subscriptions: i64,
    /// Tokens of a subscription's subject.
    pub max_subscription_tokens: Option<u8>,
    /// Closed connections that monitoring remembers.
    pub max_closed_clients: i64,
    /// How often a silent client is asked for a sign of life.
    pub ping_interval: Span,
    /// How many unanswered pings close a connection.
    pub ping_max: u32,
    /// How long a write to a client may take.
    pub write_deadline: Span,
    /// Whoever publishes to a client that reads more slowly is read on all the same.
    pub no_fast_producer_stall: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_payload: 1 << 20,
            max_control_line: 4096,
            max_pending: 64 << 20,
            max_connections: 64 << 10,
            max_subscriptions: -1,
            max_subscription_tokens: None,
            max_closed_clients: 10_000,
            ping_interval: Span::from_secs(120),
            ping_max: 2,
            write_deadline: Span::from_secs(10),
            no_fast_producer_stall: false,
        }
    }
}

/// What is logged, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogOptions {
    /// Debug lines.
    pub debug: bool,
    /// Protocol lines of clients.
    pub trace: bool,
    /// Protocol lines of the system account too.
    pub trace_verbose: bool,
    /// Whether lines begin with the time.
    pub logtime: bool,
    /// Whether that is UTC.
    pub logtime_utc: bool,
    /// `None`: stderr.
    pub file: Option<PathBuf>,
    /// Bytes after which the file is rotated.
    pub file_size_limit: Option<u64>,
    /// Rotated files to keep.
    pub file_max_num: Option<u32>,
    /// Bytes of a message that a trace line shows.
    pub max_traced_msg_len: Option<u32>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            debug: false,
            trace: false,
            trace_verbose: false,
            logtime: true,
            logtime_utc: false,
            file: None,
            file_size_limit: None,
            file_max_num: None,
            max_traced_msg_len: None,
        }
    }
}

/// The monitoring endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MonitorOptions {
    /// Plain HTTP. The host is empty where none is given: the client listener's then.
    pub http: Option<Listen>,
    /// HTTPS with the `tls` block; excludes `http`.
    pub https: Option<Listen>,
    /// A path before every endpoint's.
    pub base_path: String,
}

/// Users and accounts as configured; [`Options::directory`] makes them one thing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthOptions {
    /// How long a client may take to authenticate; see [`Options::auth_timeout`].
    pub timeout: Option<Span>,
    /// The single user or token.
    pub login: Option<Login>,
    /// The users of `$G`.
    pub users: Vec<UserSpec>,
    /// For users without permissions.
    pub default_permissions: Option<PermissionsSpec>,
    /// The accounts.
    pub accounts: Vec<AccountSpec>,
    /// Where the messages of `$G`'s clients go.
    pub mappings: Vec<MappingSpec>,
    /// Operators' JWTs: then accounts are what they signed.
    pub operators: Vec<String>,
    /// Whether accounts' JWTs are those of `resolver_preload`; nothing else is built.
    pub resolver: bool,
    /// Accounts: public keys and JWTs.
    pub resolver_preload: Vec<(String, String)>,
    /// The user of connections without credentials.
    pub no_auth_user: Option<String>,
    /// The system account's name.
    pub system_account: Option<String>,
    /// Whether there is none.
    pub no_system_account: bool,
}

/// Formats that clients may not know yet, each behind a flag.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FeatureFlags {
    /// Acknowledgement and flow control subjects name the domain and the account.
    pub js_ack_fc_v2: bool,
}

/// Streams and consumers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JetStreamOptions {
    /// Whether there are any.
    pub enabled: bool,
    /// The directory in which `jetstream` is made; `None`: a temporary one.
    pub store_dir: Option<PathBuf>,
    /// Bytes for memory streams; `None`: three quarters of the memory.
    pub max_memory: Option<i64>,
    /// Bytes for file streams; `None`: three quarters of the free disk.
    pub max_storage: Option<i64>,
    /// The domain, one token.
    pub domain: Option<String>,
    /// A stream's servers differ in their tags of those that begin so; empty: no matter.
    pub unique_tag: String,
    /// Whether unknown fields in API requests are refused.
    pub strict: bool,
    /// How long an acknowledged message may wait for its fsync; `None`: not at all.
    pub sync_interval: Option<Span>,
    /// Whether every write is synced by itself.
    pub sync_always: bool,
    /// Bytes of log after which a checkpoint is begun: bounds what a restart reads again.
    pub checkpoint_bytes: u64,
    /// Bytes of segments that are read in a second to look for damage; 0: none.
    pub scrub_bytes: u64,
    /// Bytes of the messages' index on disk that stay in memory.
    pub index_cache_bytes: u64,
    /// Bytes of writes that may wait in one stream.
    pub max_buffered_size: Option<u64>,
    /// Messages that may wait in one stream.
    pub max_buffered_msgs: Option<u64>,
    /// How the store is encrypted.
    pub encryption: EncryptionOptions,
    /// What clients may ask for.
    pub limits: JetStreamLimits,
}

/// How the store is encrypted; without a key, not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EncryptionOptions {
    /// The key.
    pub key: Option<Secret>,
    /// The key before this one, with which the store may still have to be opened.
    pub previous: Option<Secret>,
    /// What seals new files; `None`: ChaCha20-Poly1305.
    pub cipher: Option<StoreCipher>,
}

/// A cipher for the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreCipher {
    /// AES-256 in Galois counter mode.
    Aes,
    /// ChaCha20 with Poly1305.
    Chacha,
}

/// Text that no log shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Default for JetStreamOptions {
    fn default() -> JetStreamOptions {
        JetStreamOptions {
            enabled: false,
            store_dir: None,
            max_memory: None,
            max_storage: None,
            domain: None,
            unique_tag: String::new(),
            strict: true,
            sync_interval: None,
            sync_always: false,
            checkpoint_bytes: 48 << 20,
            scrub_bytes: 4 << 20,
            index_cache_bytes: 64 << 20,
            max_buffered_size: None,
            max_buffered_msgs: None,
            encryption: EncryptionOptions::default(),
            limits: JetStreamLimits::default(),
        }
    }
}

/// What clients may ask for. `None`: no limit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JetStreamLimits {
    /// A consumer's `max_ack_pending`.
    pub max_ack_pending: Option<i64>,
    /// A pull request's batch.
    pub max_request_batch: Option<i64>,
    /// A stream's duplicate window.
    pub duplicate_window: Option<Span>,
    /// Streams that a server has together with others.
    pub max_ha_assets: Option<i64>,
    /// Batches.
    pub batch: BatchOptions,
}

/// What batches may be. `None`: as nats-server does without the setting.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BatchOptions {
    /// Atomic batches that are open at the same time in one stream.
    pub max_inflight_per_stream: Option<i64>,
    /// And on the server.
    pub max_inflight_total: Option<i64>,
    /// Messages of an atomic batch.
    pub max_msgs: Option<i64>,
    /// How long a batch may be silent.
    pub timeout: Option<Span>,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

/// Whether TLS begins before INFO.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HandshakeFirst {
    /// INFO first.
    #[default]
    No,
    /// TLS first.
    Yes,
    /// TLS first if the client begins it within this time, else INFO.
    Within(Span),
}

/// TLS for a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsOptions {
    /// PEM, relative to the working directory.
    pub cert_file: Option<PathBuf>,
    /// PEM.
    pub key_file: Option<PathBuf>,
    /// PEM: who may sign client certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether clients must present a certificate.
    pub verify: bool,
    /// How long the handshake may take.
    pub timeout: Span,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// Whether TLS begins before INFO.
    pub handshake_first: HandshakeFirst,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions {
            cert_file: None,
            key_file: None,
            ca_file: None,
            verify: false,
            timeout: Span::from_secs(2),
            min_version: TlsVersion::default(),
            handshake_first: HandshakeFirst::default(),
        }
    }
}

/// The client protocol in websocket frames.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WebsocketOptions {
    /// `None`: no port is given, so nothing is opened. The host may be empty: the client listener's then.
    pub listen: Option<Listen>,
    /// Whether plain connections are meant.
    pub no_tls: bool,
    /// TLS of its own.
    pub tls: Option<TlsOptions>,
    /// Whether frames may be compressed.
    pub compression: bool,
    /// Whether browsers must come from this server's own pages.
    pub same_origin: bool,
    /// The origins that browsers may come from; empty means all.
    pub allowed_origins: Vec<String>,
    /// How long the HTTP upgrade may take.
    pub handshake_timeout: Option<Span>,
}

/// The leaf node listener. **Leaf nodes are not built yet**: the port may be opened and named in the ports file, but
/// every connection to it must be refused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeafnodeOptions {
    /// `None`: no port is given. The host may be empty: the client listener's then.
    pub listen: Option<Listen>,
}
