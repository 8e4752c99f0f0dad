//! The keys of nats-server that are not built here: refused by name, so that nobody relies on what is not there.

/// The block that a key stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Block {
    Top,
    Authorization,
    User,
    Account,
    Features,
    Export,
    Import,
    Mapping,
    AccountJetStream,
    JetStream,
    JetStreamLimits,
    Tls,
    Websocket,
    Leafnodes,
    Cluster,
    /// A block of which every key is built.
    Whole,
}

/// A key, and what to do instead.
type Refused = (&'static str, &'static str);

const NO_HELP: &str = "";
const OPERATOR: &str = ": accounts come from resolver_preload alone";
const LOGS: &str = ": use log_file";

const TOP: &[Refused] = &[
    ("gateway", NO_HELP),
    ("mqtt", NO_HELP),
    ("resolver_tls", OPERATOR),
    ("resolver_pinned_accounts", OPERATOR),
    ("trusted", ": use operator"),
    ("trusted_keys", ": use operator"),
    ("default_sentinel", NO_HELP),
    ("ocsp", NO_HELP),
    ("ocsp_cache", NO_HELP),
    ("syslog", LOGS),
    ("remote_syslog", LOGS),
    ("prof_port", NO_HELP),
    ("prof_block_rate", NO_HELP),
    ("default_js_domain", NO_HELP),
    ("trace_headers", NO_HELP),
    ("proxies", NO_HELP),
    ("proxy_protocol", NO_HELP),
    ("write_timeout", ": a client that does not read within write_deadline is closed"),
    ("disable_sublist_cache", ": there is no such cache"),
    ("connect_error_reports", ": there are no outgoing connections"),
    ("reconnect_error_reports", ": there are no outgoing connections"),
];

const AUTHORIZATION: &[Refused] = &[("auth_callout", NO_HELP), ("proxy_required", NO_HELP)];

const USER: &[Refused] = &[("proxy_required", NO_HELP)];

const ACCOUNT: &[Refused] = &[("msg_trace", NO_HELP), ("trace_dest", NO_HELP), ("nkey", NO_HELP)];

const CLUSTERED: &str = ": it has no meaning without clusters";

const FEATURES: &[Refused] = &[
    ("js_api_reply_v2", CLUSTERED),
    ("js_raft_delete_range", CLUSTERED),
    ("js_snapshot_sources", CLUSTERED),
];

const EXPORT: &[Refused] = &[("latency", NO_HELP), ("allow_trace", NO_HELP)];

const IMPORT: &[Refused] = &[("allow_trace", NO_HELP)];

const MAPPING: &[Refused] = &[("cluster", ": clustering is not built yet")];

const ACCOUNT_JETSTREAM: &[Refused] = &[("cluster_traffic", NO_HELP)];

const JETSTREAM: &[Refused] = &[
    ("tpm", ": use key"),
    ("extension_hint", NO_HELP),
    ("max_outstanding_catchup", NO_HELP),
    ("request_queue_limit", NO_HELP),
    ("info_queue_limit", NO_HELP),
    ("meta_compact", NO_HELP),
    ("meta_compact_size", NO_HELP),
    ("meta_compact_sync", NO_HELP),
    ("max_concurrent_io", NO_HELP),
];

const JETSTREAM_LIMITS: &[Refused] = &[];

const TLS: &[Refused] = &[
    ("verify_and_map", NO_HELP),
    ("verify_cert_and_check_known_urls", NO_HELP),
    ("cipher_suites", NO_HELP),
    ("curve_preferences", NO_HELP),
    ("pinned_certs", NO_HELP),
    ("connection_rate_limit", NO_HELP),
    ("certs", NO_HELP),
    ("insecure", NO_HELP),
    ("allow_insecure_cipher_suites", NO_HELP),
    ("cert_store", NO_HELP),
    ("cert_match", NO_HELP),
    ("cert_match_by", NO_HELP),
    ("cert_match_skip_invalid", NO_HELP),
    ("ca_certs_match", NO_HELP),
    ("ocsp_peer", NO_HELP),
];

const WEBSOCKET: &[Refused] = &[
    ("advertise", NO_HELP),
    ("no_auth_user", NO_HELP),
    ("authorization", NO_HELP),
    ("authentication", NO_HELP),
    ("jwt_cookie", NO_HELP),
    ("user_cookie", NO_HELP),
    ("pass_cookie", NO_HELP),
    ("token_cookie", NO_HELP),
    ("headers", NO_HELP),
    ("ping_interval", NO_HELP),
];

const LEAFNODES: &[Refused] = &[
    ("remotes", NO_HELP),
    ("authorization", NO_HELP),
    ("tls", NO_HELP),
    ("advertise", NO_HELP),
    ("no_advertise", NO_HELP),
    ("reconnect", NO_HELP),
    ("reconnect_delay", NO_HELP),
    ("reconnect_interval", NO_HELP),
    ("compression", NO_HELP),
    ("min_version", NO_HELP),
    ("minimum_version", NO_HELP),
    ("isolate_leafnode_interest", NO_HELP),
    ("isolate", NO_HELP),
    ("write_deadline", NO_HELP),
    ("write_timeout", NO_HELP),
];

const CLUSTER: &[Refused] = &[
    ("write_timeout", ": a server that takes no bytes within write_deadline is given up"),
    ("proxy_required", NO_HELP),
];

impl Block {
    /// For a key that is not built: what to do instead, which may be empty.
    pub(crate) fn refused(self, key: &str) -> Option<&'static str> {
        let keys = match self {
            Block::Top => TOP,
            Block::Authorization => AUTHORIZATION,
            Block::User => USER,
            Block::Account => ACCOUNT,
            Block::Features => FEATURES,
            Block::Export => EXPORT,
            Block::Import => IMPORT,
            Block::Mapping => MAPPING,
            Block::AccountJetStream => ACCOUNT_JETSTREAM,
            Block::JetStream => JETSTREAM,
            Block::JetStreamLimits => JETSTREAM_LIMITS,
            Block::Tls => TLS,
            Block::Websocket => WEBSOCKET,
            Block::Leafnodes => LEAFNODES,
            Block::Cluster => CLUSTER,
            Block::Whole => &[],
        };
        keys.iter().find(|(name, _)| *name == key).map(|(_, help)| *help)
    }
}
