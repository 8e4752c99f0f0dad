//! From options to a running server: check, open the store, start the shards, listen.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use hw_auth::{Directory, Permissions};
use hw_conf::{BatchOptions, Listen, Options};
use hw_hub::{HubConfig, HubLimits};
use hw_kit::{NodeId, ShardId, Span};
use hw_net::Mailbox;
use hw_node::{BatchLimits, ClusterConfig, JetStreamConfig, NoticeConfig, NoticeLevel};
use hw_wire::Info;

use crate::accept::Kind;
use crate::banner;
use crate::cluster::{self, Joining, Members};
use crate::inner::{Door, Facts, Inner, JetStreamFacts, Live};
use crate::ports::Ports;
use crate::server::{Listeners, Parts, Server};
use crate::shards::{self, Plan};
use crate::store::{self, Opened};
use crate::tls::TlsUpgrade;
use crate::websocket::WebsocketUpgrade;
use crate::{NATS_VERSION, Sink, VERSION};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("Error listening on port: {address}, {error}")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system said.
        error: String,
    },
    /// The store cannot be opened.
    #[error("Can't start JetStream: {0}")]
    Store(String),
    /// The log cannot be opened.
    #[error("error opening log file: {error}")]
    Log {
        /// What the system said.
        error: String,
    },
    /// A file (pid, ports) cannot be written, or a thread cannot be started.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: String,
    },
}

impl StartError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
        move |error| StartError::System { what, error: error.to_string() }
    }
}

/// Starts a server.
pub(crate) fn start(options: Options, log: Option<Sink>) -> Result<Server, StartError> {
    options.validate().map_err(|error| StartError::Config(error.to_string()))?;
    refuse_unbuilt(&options)?;
    let directory = options.directory().map_err(|error| StartError::Config(error.to_string()))?;
    let directory = Arc::new(directory);
    let tls = options.tls.as_ref().map(|tls| TlsUpgrade::new(tls, options.allow_non_tls)).transpose();
    let tls = tls.map_err(StartError::Config)?;
    let websocket = options.websocket.as_ref().filter(|websocket| websocket.listen.is_some());
    let websocket = websocket.map(WebsocketUpgrade::new).transpose().map_err(StartError::Config)?;
    let began = std::time::Instant::now();
    let id = nkeys::KeyPair::new_server().public_key();
    banner::starting(&options, &id);
    banner::remarks(&directory);
    let http = options.monitor.http.as_ref().map(|http| bind(&on_host(&options, http))).transpose()?;
    if let Some(address) = http.as_ref().and_then(|http| http.local_addr().ok()) {
        banner::monitoring(address);
    }
    let mailboxes: Vec<Arc<Mailbox>> = (0..shard_count()).map(|_| Arc::new(Mailbox::default())).collect();
    let opened = match options.jetstream.enabled {
        true => {
            banner::jetstream_starting();
            Some(store::open(&options, mailboxes[0].clone())?)
        }
        false => None,
    };
    let doors = Doors::bind(&options, http)?;
    let joining = Joining::new(&options, bind)?;
    let address = doors.clients.local_addr().map_err(StartError::system("listening"))?;
    let mut facts = facts(&options, &directory, (&id, &doors), opened.as_ref());
    let mut members = Members::default();
    if let (Some(joining), Some(cluster)) = (&joining, &options.cluster) {
        members.name = cluster::name(cluster, seed());
        let urls = cluster_urls(&facts, address);
        if !cluster.no_advertise {
            members.client_urls.clone_from(&urls);
        }
        facts.cluster = Some(joining.facts(&options, urls));
    }
    let live = live(&options, directory.clone());
    let (inner, questions) = Inner::new(facts, live, mailboxes, members);
    let inner = Arc::new(inner);
    let hubs = hub_configs(&inner, &options, &directory);
    let mut node = NodeId(0);
    let jetstream = opened.map(|Opened { mut recovery, disk, .. }| {
        let mut config = jetstream_config(&inner);
        if let (Some(joining), Some(cluster)) = (&joining, &options.cluster) {
            node = recovery.node(NodeId((seed() >> 1).max(1)));
            let expected = joining.expected(cluster);
            config.cluster = Some(cluster_config(&options, (inner.members().name, node), expected));
        }
        (config, recovery, disk)
    });
    let disk = jetstream.as_ref().map(|(_, _, disk)| disk.clone());
    if let Some(disk) = &disk {
        // Empty until now.
        let _ = inner.disk.set(disk.gauges().clone());
    }
    let write_deadline = options.limits.write_deadline;
    let plan = Plan { hubs, jetstream, write_deadline, notices: notices(&options) };
    let shards = shards::spawn(&inner, plan)?;
    let links = joining.map(|joining| cluster::join(&inner, &options, joining, node)).transpose()?;
    if let Some(facts) = &inner.facts.jetstream {
        banner::jetstream(facts, began.elapsed());
    }
    let ports = ports(&inner, doors.http.is_some());
    let doors = doors.listeners((tls, websocket), questions);
    Server::run(Parts { inner, shards, links, doors, log, ports, address, disk }, options)
}

/// Settings that parse but whose service is not built: refused by name, never ignored.
fn refuse_unbuilt(options: &Options) -> Result<(), StartError> {
    let refuse = |what: &str| Err(StartError::Config(format!("{what} is not supported yet")));
    if options.monitor.https.is_some() {
        return refuse("https_port");
    }
    if options.websocket.as_ref().is_some_and(|websocket| websocket.compression) {
        return refuse("websocket compression");
    }
    Ok(())
}

/// Everything that is listened on, before it has a runtime.
struct Doors {
    clients: TcpListener,
    http: Option<TcpListener>,
    websocket: Option<TcpListener>,
    leafnodes: Option<TcpListener>,
}

impl Doors {
    fn bind(options: &Options, http: Option<TcpListener>) -> Result<Doors, StartError> {
        let websocket = options.websocket.as_ref().and_then(|websocket| websocket.listen.as_ref());
        let leafnodes = options.leafnodes.as_ref().and_then(|leafnodes| leafnodes.listen.as_ref());
        let open = |listen: Option<&Listen>| listen.map(|listen| bind(&on_host(options, listen))).transpose();
        Ok(Doors {
            websocket: open(websocket)?,
            leafnodes: open(leafnodes)?,
            clients: bind(&options.server.listen)?,
            http,
        })
    }

    fn listeners(
        self,
        (tls, websocket): (Option<TlsUpgrade>, Option<WebsocketUpgrade>),
        questions: tokio::sync::mpsc::Receiver<(usize, hw_node::Question)>,
    ) -> Listeners {
        let websocket = self.websocket.zip(websocket.map(Kind::Websocket));
        let leafnodes = self.leafnodes.map(|listener| (listener, Kind::Leafnodes));
        Listeners {
            clients: (self.clients, Kind::Clients(tls)),
            others: websocket.into_iter().chain(leafnodes).collect(),
            http: self.http,
            questions,
        }
    }
}

fn bind(listen: &Listen) -> Result<TcpListener, StartError> {
    let address = format!("{}:{}", listen.host, listen.port);
    let refuse =
        |error: std::io::Error| StartError::Listen { address: address.clone(), error: error.to_string() };
    let found: Vec<SocketAddr> =
        (listen.host.as_str(), listen.port).to_socket_addrs().map_err(refuse)?.collect();
    let listener = TcpListener::bind(&found[..]).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    Ok(listener)
}

/// A listener without a host of its own is where the clients' is.
fn on_host(options: &Options, listen: &Listen) -> Listen {
    let host = if listen.host.is_empty() { &options.server.listen.host } else { &listen.host };
    Listen { host: host.clone(), port: listen.port }
}

/// Which lines about connections the log gets.
pub(crate) fn notices(options: &Options) -> NoticeConfig {
    let log = &options.log;
    NoticeConfig {
        level: match (log.trace || log.trace_verbose, log.debug) {
            (true, _) => NoticeLevel::Trace,
            (false, true) => NoticeLevel::Debug,
            (false, false) => NoticeLevel::Info,
        },
        system: log.trace_verbose,
        message_bytes: log.max_traced_msg_len.map_or(0, |length| length as usize),
    }
}

fn shard_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn hub_configs(inner: &Inner, options: &Options, directory: &Arc<Directory>) -> Vec<HubConfig> {
    let facts = &inner.facts;
    let info = Info {
        server_id: facts.id.clone(),
        server_name: facts.name.clone(),
        version: NATS_VERSION.to_owned(),
        proto: 1,
        headwater: VERSION.to_owned(),
        host: facts.host.clone(),
        port: facts.port,
        headers: !options.server.no_header_support,
        auth_required: directory.auth_required(),
        tls_required: facts.tls_required,
        tls_available: facts.tls_available,
        tls_verify: facts.tls_verify,
        max_payload: options.limits.max_payload as usize,
        jetstream: facts.jetstream.is_some(),
        domain: options.jetstream.domain.clone().unwrap_or_default(),
        connect_urls: match &facts.cluster {
            Some(_) => inner.members().client_urls,
            None => facts.connect_urls.clone(),
        },
        cluster: inner.members().name,
        api_level: hw_jsapi::API_LEVEL as i32,
        ..Info::default()
    };
    let shards = inner.mailboxes.len() as u16;
    let exchange = exchange(options);
    let config = |shard| HubConfig {
        shard: ShardId(shard),
        shards,
        seed: seed(),
        info: info.clone(),
        limits: inner.live().limits,
        directory: directory.clone(),
        exchange: exchange.clone(),
    };
    (0..shards).map(config).collect()
}

/// What is exchanged with other servers.
pub(crate) fn exchange(options: &Options) -> Option<Arc<Permissions>> {
    let spec = options.cluster.as_ref()?.permissions.as_ref()?;
    // That was looked at when it was read.
    Permissions::new(spec).ok().map(Arc::new)
}

/// A seed from the system: shards draw names and choose queue members with it.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn hub_limits(options: &Options) -> HubLimits {
    let limits = &options.limits;
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    HubLimits {
        max_payload: limits.max_payload as usize,
        max_control_line: limits.max_control_line as usize,
        max_subscriptions: count(limits.max_subscriptions),
        max_subscription_tokens: limits.max_subscription_tokens.map_or(0, usize::from),
        max_pending: usize::try_from(limits.max_pending).unwrap_or(usize::MAX),
        stalls: !limits.no_fast_producer_stall,
        ping_interval: limits.ping_interval,
        ping_max: limits.ping_max,
        auth_timeout: options.auth_timeout(),
        max_closed_clients: count(limits.max_closed_clients),
    }
}

fn facts(
    options: &Options,
    directory: &Directory,
    (id, doors): (&str, &Doors),
    opened: Option<&Opened>,
) -> Facts {
    let port = |listener: Option<&TcpListener>| {
        listener.and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port())
    };
    let door = |listen: Option<&Listen>, listener: Option<&TcpListener>, tls| {
        listen.map(|listen| Door { host: on_host(options, listen).host, port: port(listener), tls })
    };
    let websocket = options.websocket.as_ref();
    let leafnodes = options.leafnodes.as_ref().and_then(|leafnodes| leafnodes.listen.as_ref());
    let ws_tls = websocket.is_some_and(|websocket| websocket.tls.is_some());
    let http_host = options.monitor.http.as_ref().map(|http| on_host(options, http).host);
    let system =
        directory.system_account().and_then(|id| directory.account(id)).map(|account| account.name.clone());
    let client_port = port(Some(&doors.clients));
    Facts {
        id: id.to_owned(),
        name: options.server.name.clone().unwrap_or_else(|| id.to_owned()),
        host: options.server.listen.host.clone(),
        port: client_port,
        http_host: http_host.unwrap_or_default(),
        http_port: port(doors.http.as_ref()),
        http_base_path: options.monitor.base_path.clone(),
        connect_urls: connect_urls(options, doors.clients.local_addr().ok()),
        tls_timeout: options.tls.as_ref().map_or(Span::from_secs(2), |tls| tls.timeout),
        tls_required: options.tls.is_some() && !options.allow_non_tls,
        tls_available: options.tls.is_some() && options.allow_non_tls,
        tls_verify: options.tls.as_ref().is_some_and(|tls| tls.verify),
        websocket: door(
            websocket.and_then(|websocket| websocket.listen.as_ref()),
            doors.websocket.as_ref(),
            ws_tls,
        ),
        leafnodes: door(leafnodes, doors.leafnodes.as_ref(), false),
        write_deadline: options.limits.write_deadline,
        tags: options.server.tags.clone(),
        metadata: options.server.metadata.clone(),
        system_account: system.unwrap_or_default(),
        jetstream: opened.map(|opened| jetstream_facts(options, opened)),
        cluster: None,
    }
}

/// Where clients reach this server of a cluster: the others tell theirs.
fn cluster_urls(facts: &Facts, address: SocketAddr) -> Vec<String> {
    match facts.connect_urls.is_empty() {
        true if facts.host.contains(':') => vec![address.to_string()],
        true => vec![format!("{}:{}", facts.host, facts.port)],
        false => facts.connect_urls.clone(),
    }
}

/// What a reload may change, as the options have it.
pub(crate) fn live(options: &Options, directory: Arc<Directory>) -> Live {
    Live {
        directory,
        limits: hub_limits(options),
        max_connections: options.limits.max_connections,
        loaded: hw_net::Clock::default().now(),
        config_digest: options.digest.clone(),
        exchange: options.cluster.as_ref().and_then(|cluster| cluster.permissions.clone()),
    }
}

fn jetstream_facts(options: &Options, opened: &Opened) -> JetStreamFacts {
    let js = &options.jetstream;
    JetStreamFacts {
        store_dir: opened.folder.clone(),
        domain: js.domain.clone().unwrap_or_default(),
        encryption: opened.cipher.map(|cipher| cipher.to_string()),
        strict: js.strict,
        long_acks: options.features.js_ack_fc_v2,
        max_memory: opened.max_memory,
        max_storage: opened.max_storage,
        sync_interval: js.sync_interval.unwrap_or(Span::ZERO),
        max_ack_pending: js.limits.max_ack_pending.unwrap_or(0),
        max_request_batch: js.limits.max_request_batch.unwrap_or(0),
        duplicate_window: js.limits.duplicate_window.unwrap_or(Span::ZERO),
        checkpoint_bytes: js.checkpoint_bytes,
        scrub_bytes: js.scrub_bytes,
        batch: batch_limits(&js.limits.batch),
        max_buffered: (js.max_buffered_size, js.max_buffered_msgs),
    }
}

fn batch_limits(options: &BatchOptions) -> BatchLimits {
    let default = BatchLimits::default();
    let count = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok());
    BatchLimits {
        messages: options.max_msgs.map_or(default.messages, i64::unsigned_abs),
        per_stream: count(options.max_inflight_per_stream).unwrap_or(default.per_stream),
        total: count(options.max_inflight_total).unwrap_or(default.total),
        timeout: options.timeout.unwrap_or(default.timeout),
        ..default
    }
}

fn jetstream_config(inner: &Inner) -> JetStreamConfig {
    let facts = inner.facts.jetstream.clone().unwrap_or_default();
    JetStreamConfig {
        domain: facts.domain,
        strict: facts.strict,
        long_acks: facts.long_acks,
        max_memory: facts.max_memory,
        max_storage: facts.max_storage,
        max_duplicate_window: facts.duplicate_window,
        max_ack_pending: facts.max_ack_pending,
        max_request_batch: facts.max_request_batch,
        batch: facts.batch,
        max_buffered: facts.max_buffered,
        version: NATS_VERSION.to_owned(),
        server_id: inner.facts.id.clone(),
        server_name: inner.facts.name.clone(),
        checkpoint_bytes: facts.checkpoint_bytes,
        scrub_bytes: facts.scrub_bytes,
        erase_after: hw_node::ERASE_AFTER,
        seed: seed(),
        cluster: None,
    }
}

fn cluster_config(options: &Options, (name, new_node): (String, NodeId), expected: u32) -> ClusterConfig {
    let limit = options.jetstream.limits.max_ha_assets;
    ClusterConfig {
        name,
        expected,
        new_node,
        tags: options.server.tags.clone(),
        unique_tag: options.jetstream.unique_tag.clone(),
        max_shared: limit.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

/// What clients are told: the advertised address, or this machine's addresses when it listens on all of them.
fn connect_urls(options: &Options, address: Option<SocketAddr>) -> Vec<String> {
    if let Some(advertised) = &options.server.client_advertise {
        return vec![advertised.clone()];
    }
    let Some(address) = address.filter(|address| address.ip().is_unspecified()) else { return Vec::new() };
    // 0.0.0.0 takes no IPv6 connections.
    let reachable =
        crate::addresses::of_this_machine().into_iter().filter(|ip| ip.is_ipv4() || address.is_ipv6());
    reachable.map(|ip| SocketAddr::new(ip, address.port()).to_string()).collect()
}

fn ports(inner: &Inner, has_http: bool) -> Ports {
    let url = |scheme: &str, host: &str, port: u16| {
        let host = if host.is_empty() || host == "0.0.0.0" || host == "::" { "127.0.0.1" } else { host };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        vec![format!("{scheme}://{host}:{port}")]
    };
    let facts = &inner.facts;
    let door = |door: Option<&Door>, scheme: &str| {
        door.map(|door| url(scheme, &door.host, door.port)).unwrap_or_default()
    };
    let ws = if facts.websocket.as_ref().is_some_and(|door| door.tls) { "wss" } else { "ws" };
    Ports {
        nats: url(if facts.tls_required { "tls" } else { "nats" }, &facts.host, facts.port),
        monitoring: if has_http { url("http", &facts.http_host, facts.http_port) } else { Vec::new() },
        cluster: facts.cluster.iter().flat_map(|cluster| url("nats", &cluster.host, cluster.port)).collect(),
        websocket: door(facts.websocket.as_ref(), ws),
        leafnodes: door(facts.leafnodes.as_ref(), "leafnode"),
    }
}
