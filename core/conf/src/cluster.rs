//! The `cluster` block.

use hw_kit::Span;

use hw_auth::PermissionsSpec;

use crate::auth;
use crate::error::Position;
use crate::links::{Parts, tls};
use crate::options::{Listen, TlsOptions};
use crate::reader::{Reader, put, set};
use crate::refused::Block;
use crate::units::parse_duration;
use crate::value::{Entry, ValueKind};

/// The port for other servers if none is given.
pub(crate) const DEFAULT_PORT: u16 = 6222;

/// The longest time between two signs of life of a route that nats-server allows.
const PING_INTERVAL_MAX: Span = Span::from_secs(30);

/// The cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterOptions {
    /// Where the block stands; `None`: on the command line.
    pub at: Option<Position>,
    /// Its name.
    pub name: Option<String>,
    /// Where other servers connect.
    pub listen: Option<Listen>,
    /// `nats://` or `nats-route://` URLs of other servers.
    pub routes: Vec<String>,
    /// What other servers must show.
    pub login: Option<RouteLogin>,
    /// How long they may take to do so.
    pub auth_timeout: Span,
    /// TLS between servers.
    pub tls: Option<TlsOptions>,
    /// `host:port` that other servers are told.
    pub advertise: Option<String>,
    /// Whether clients are not told of other servers.
    pub no_advertise: bool,
    /// How often to retry routes that other servers told of.
    pub connect_retries: u32,
    /// Whether the pauses between attempts grow.
    pub connect_backoff: bool,
    /// With `ping_max`: how soon a silent server is given up.
    pub ping_interval: Option<Span>,
    /// How many pings may be unanswered.
    pub ping_max: Option<u32>,
    /// A server that takes no bytes for this long is given up.
    pub write_deadline: Option<Span>,
    /// How links are compressed; None: as the other side wants it.
    pub compression: Option<Compression>,
    /// What is exchanged with other servers: publish lists say what is imported, subscribe lists what is exported.
    pub permissions: Option<PermissionsSpec>,
}

/// How links with other servers are compressed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Compression {
    /// Not.
    Off,
    /// As the other side wants it.
    Accept,
    /// With little work.
    Fast,
    /// With more.
    Better,
    /// With most.
    Best,
    /// The more, the longer the way: up to the first time not at all, then as the three above.
    Auto(Vec<Span>),
}

/// Those of `s2_auto`.
const RTT_THRESHOLDS: [Span; 3] = [Span::from_millis(10), Span::from_millis(50), Span::from_millis(100)];

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            at: None,
            name: None,
            listen: None,
            routes: Vec::new(),
            login: None,
            auth_timeout: Span::from_secs(2),
            tls: None,
            advertise: None,
            no_advertise: false,
            connect_retries: 0,
            connect_backoff: false,
            ping_interval: None,
            ping_max: None,
            write_deadline: None,
            compression: None,
            permissions: None,
        }
    }
}

/// A user and a password.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteLogin {
    /// The user.
    pub user: String,
    /// The password.
    pub pass: String,
}

/// A route's URL, taken apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteUrl {
    /// `host:port`.
    pub address: String,
    /// What to show there.
    pub login: Option<RouteLogin>,
}

impl RouteUrl {
    /// Reads `nats://user:password@host:port`; scheme, user and port may be left out. None when it is not that.
    pub fn parse(text: &str) -> Option<RouteUrl> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let rest = rest.split(['/', '?']).next().unwrap_or(rest);
        let (login, address) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((login, address)) => {
                let (user, pass) = login.split_once(':').unwrap_or((login, ""));
                (Some(RouteLogin { user: user.to_owned(), pass: pass.to_owned() }), address)
            }
        };
        let has_port =
            address.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let address = if has_port { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") };
        let (host, port) = address.rsplit_once(':')?;
        let known = ["nats", "nats-route", "tls"].contains(&scheme);
        let valid = known && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        valid.then_some(RouteUrl { address, login })
    }
}

impl ClusterOptions {
    /// A server of which nothing is heard for this long is given up.
    pub fn silent_after(&self) -> Span {
        const SILENT: Span = Span::from_secs(5);
        let Some(interval) = self.ping_interval else { return SILENT };
        let pings = i64::from(self.ping_max.unwrap_or(2)) + 1;
        Span(interval.0.saturating_mul(pings)).clamp(Span::from_millis(500), SILENT)
    }

    /// The routes, taken apart; those that are no URLs are left out.
    pub fn route_urls(&self) -> Vec<RouteUrl> {
        self.routes.iter().filter_map(|text| RouteUrl::parse(text)).collect()
    }
}

pub(crate) fn cluster(reader: &mut Reader, entry: &Entry) -> Option<ClusterOptions> {
    let mut cluster = ClusterOptions { at: Some(entry.at.clone()), ..ClusterOptions::default() };
    let mut parts = Parts::default();
    for inner in reader.map(entry)? {
        let key = inner.key.to_ascii_lowercase();
        if parts.read(reader, &key, inner) {
            continue;
        }
        match key.as_str() {
            "name" => put(&mut cluster.name, name(reader, inner)),
            "routes" => set(&mut cluster.routes, routes(reader, inner)),
            "authorization" | "authentication" => authorization(reader, inner, &mut cluster),
            "tls" => put(&mut cluster.tls, tls(reader, inner)),
            "advertise" | "cluster_advertise" => put(&mut cluster.advertise, reader.name(inner)),
            "no_advertise" => set(&mut cluster.no_advertise, reader.boolean(inner)),
            "connect_retries" => {
                let retries =
                    reader.within(inner, -1, i64::from(u32::MAX)).map(|retries| retries.max(0) as u32);
                set(&mut cluster.connect_retries, retries);
            }
            "connect_backoff" => set(&mut cluster.connect_backoff, reader.boolean(inner)),
            "ping_interval" => put(&mut cluster.ping_interval, ping_interval(reader, inner)),
            "ping_max" => {
                let max = reader.within(inner, 0, i64::from(u32::MAX)).map(|max| max as u32);
                put(&mut cluster.ping_max, max);
            }
            "write_deadline" => put(&mut cluster.write_deadline, reader.positive(inner)),
            // There is one connection with each server, which all accounts share: these ask for more, and more is not needed.
            "pool_size" => drop(reader.within(inner, -1, i64::from(u32::MAX))),
            "accounts" => drop(reader.strings(inner)),
            "permissions" => put(&mut cluster.permissions, permissions(reader, inner)),
            "compression" => put(&mut cluster.compression, compression(reader, inner)),
            _ => reader.other(inner, Block::Cluster),
        }
    }
    cluster.listen = parts.listen();
    Some(cluster)
}

fn name(reader: &mut Reader, entry: &Entry) -> Option<String> {
    let name = reader.name(entry)?;
    if name.contains(' ') {
        reader.invalid(&entry.at, "cluster name cannot contain spaces");
    }
    Some(name)
}

fn routes(reader: &mut Reader, entry: &Entry) -> Option<Vec<String>> {
    let routes = reader.strings(entry)?;
    for route in routes.iter().filter(|route| RouteUrl::parse(route).is_none()) {
        reader.invalid(&entry.at, format!("error parsing route url {route:?}"));
    }
    Some(routes)
}

fn authorization(reader: &mut Reader, entry: &Entry, cluster: &mut ClusterOptions) {
    let Some(entries) = reader.map(entry) else { return };
    let (mut user, mut pass) = (None, None);
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "user" | "username" => put(&mut user, reader.name(inner)),
            "pass" | "password" => put(&mut pass, reader.name(inner)),
            "timeout" => set(&mut cluster.auth_timeout, reader.timeout(inner)),
            "users" => reader.invalid(&entry.at, "Cluster authorization does not allow multiple users"),
            "token" => reader.invalid(&entry.at, "Cluster authorization does not support tokens"),
            _ => reader.other(inner, Block::Cluster),
        }
    }
    match (user, pass) {
        (None, Some(_)) => reader.invalid(&entry.at, "Can not have a password without a user"),
        (Some(_), Some(pass)) if pass.starts_with("$2a$") || pass.starts_with("$2b$") => {
            // Servers show each other what stands here.
            reader.invalid(&entry.at, "a hashed password cannot be shown to other servers");
        }
        (Some(user), pass) => cluster.login = Some(RouteLogin { user, pass: pass.unwrap_or_default() }),
        (None, None) => {}
    }
}

fn permissions(reader: &mut Reader, entry: &Entry) -> Option<PermissionsSpec> {
    let permissions = auth::permissions(reader, entry)?;
    if permissions.allow_responses.is_some() {
        reader.invalid(&entry.at, "Cluster permissions do not support dynamic responses");
    }
    Some(permissions)
}

fn ping_interval(reader: &mut Reader, entry: &Entry) -> Option<Span> {
    let interval = reader.positive(entry)?;
    if interval > PING_INTERVAL_MAX {
        reader
            .warnings
            .push("Cluster 'ping_interval' will reset to 30s which is the max for routes".to_owned());
    }
    Some(interval.min(PING_INTERVAL_MAX))
}

fn compression(reader: &mut Reader, entry: &Entry) -> Option<Compression> {
    match &entry.value.kind {
        ValueKind::Bool(on) => Some(if *on { Compression::Fast } else { Compression::Off }),
        ValueKind::String(mode) => mode_named(reader, entry, mode),
        ValueKind::Map(_) => {
            let (mut mode, mut thresholds) = (None, None);
            for inner in reader.map(entry)? {
                match inner.key.to_ascii_lowercase().as_str() {
                    "mode" => {
                        put(&mut mode, reader.name(inner).and_then(|text| mode_named(reader, inner, &text)))
                    }
                    "rtt_thresholds" | "thresholds" | "rtts" | "rtt" => {
                        put(&mut thresholds, rtt_thresholds(reader, inner));
                    }
                    _ => reader.other(inner, Block::Cluster),
                }
            }
            Some(match (mode.unwrap_or(Compression::Accept), thresholds) {
                (Compression::Auto(_), Some(thresholds)) if !thresholds.is_empty() => {
                    Compression::Auto(thresholds)
                }
                (mode, _) => mode,
            })
        }
        _ => reader.wrong(entry, "a boolean or a structure"),
    }
}

fn mode_named(reader: &mut Reader, entry: &Entry, mode: &str) -> Option<Compression> {
    Some(match mode.to_ascii_lowercase().as_str() {
        "off" | "disabled" | "false" | "not supported" => Compression::Off,
        "accept" => Compression::Accept,
        "on" | "enabled" | "true" | "s2_fast" | "fast" => Compression::Fast,
        "s2_better" | "better" => Compression::Better,
        "s2_best" | "best" => Compression::Best,
        "s2_auto" | "auto" => Compression::Auto(RTT_THRESHOLDS.to_vec()),
        _ => {
            reader.invalid(&entry.at, format!("unsupported compression mode {mode:?}"));
            return None;
        }
    })
}

fn rtt_thresholds(reader: &mut Reader, entry: &Entry) -> Option<Vec<Span>> {
    let mut thresholds = Vec::new();
    for text in reader.strings(entry)? {
        match parse_duration(&text) {
            Ok(span) => thresholds.push(span),
            Err(why) => reader.invalid(&entry.at, format!("error parsing {}: {why}", entry.key)),
        }
    }
    if !thresholds.is_sorted() {
        reader.invalid(&entry.at, "RTT threshold values should be in ascending order");
        return None;
    }
    Some(thresholds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_all_kinds() {
        let with = |address: &str, user: &str, pass: &str| RouteUrl {
            address: address.into(),
            login: Some(RouteLogin { user: user.into(), pass: pass.into() }),
        };
        let plain = |address: &str| RouteUrl { address: address.into(), login: None };
        for (text, wanted) in [
            ("nats://h:1", Some(plain("h:1"))),
            ("nats-route://h:1/", Some(plain("h:1"))),
            ("tls://h", Some(plain("h:6222"))),
            ("h:2", Some(plain("h:2"))),
            ("nats://u:p@h:1", Some(with("h:1", "u", "p"))),
            ("nats://u:p@x@h:1", Some(with("h:1", "u", "p@x"))),
            ("nats://[::1]:5", Some(plain("[::1]:5"))),
            ("nats://[::1]", Some(plain("[::1]:6222"))),
            ("http://h:1", None),
            ("nats://:1", None),
            ("nats://h:0", None),
            ("nats://h:x", None),
        ] {
            assert_eq!(RouteUrl::parse(text), wanted, "{text}");
        }
    }

    fn load(text: &str) -> Result<crate::Options, crate::ConfErrors> {
        let mut read = |_: &std::path::Path| Ok(text.to_owned());
        let mut source = crate::Source { env: &|_| None, read: &mut read };
        crate::Options::load(std::path::Path::new("c.conf"), &mut source)
    }

    #[test]
    fn the_block() {
        let read = |text: &str| load(text).unwrap().cluster.unwrap();
        let full = read(
            "cluster { name: c, listen: \"127.0.0.1:-1\", routes: [nats://u:p@h:1], authorization {user: u, password: p
               timeout: 3}, advertise: \"a:1\", no_advertise: true, connect_retries: 4, connect_backoff: true
               ping_interval: 1s, ping_max: 1, write_deadline: 3s, pool_size: 3, accounts: [A], compression: accept }",
        );
        assert_eq!(full.login, Some(RouteLogin { user: "u".into(), pass: "p".into() }));
        assert_eq!(full.silent_after(), Span::from_secs(2));
        assert_eq!((full.auth_timeout, full.write_deadline), (Span::from_secs(3), Some(Span::from_secs(3))));
        assert!(full.connect_backoff && full.no_advertise && full.connect_retries == 4);
        assert_eq!(ClusterOptions::default().silent_after(), Span::from_secs(5));
        let auto = |ms: &[i64]| Compression::Auto(ms.iter().map(|ms| Span::from_millis(*ms)).collect());
        for (text, wanted) in [
            ("accept", Compression::Accept),
            ("off", Compression::Off),
            ("true", Compression::Fast),
            ("S2_BEST", Compression::Best),
            ("s2_auto", auto(&[10, 50, 100])),
            ("{mode: better, rtt_thresholds: [1s]}", Compression::Better),
            ("{mode: s2_auto, rtt_thresholds: [0s, 5ms]}", auto(&[0, 5])),
            ("{mode: s2_auto, rtt_thresholds: []}", auto(&[10, 50, 100])),
        ] {
            assert_eq!(
                read(&format!("cluster {{ compression: {text} }}")).compression,
                Some(wanted),
                "{text}"
            );
        }
        for (text, wanted) in [
            ("name: \"a b\"", "cluster name cannot contain spaces"),
            ("routes: [\"http://x\"]", "error parsing route url \"http://x\""),
            ("authorization {users: []}", "Cluster authorization does not allow multiple users"),
            ("authorization {token: t}", "Cluster authorization does not support tokens"),
            (
                "authorization {user: u, password: \"$2a$10$x\"}",
                "a hashed password cannot be shown to other servers",
            ),
            ("compression: s2_uncompressed", "unsupported compression mode \"s2_uncompressed\""),
            ("compression: 1", "expected a boolean or a structure"),
            ("compression: {mode: s2_auto, foo: 1}", "unknown field \"foo\""),
            (
                "compression: {mode: s2_auto, rtt_thresholds: [10ms, 5ms]}",
                "RTT threshold values should be in ascending order",
            ),
            ("compression: {mode: s2_auto, rtt_thresholds: [x]}", "error parsing rtt_thresholds"),
            ("permissions: {allow_responses: true}", "Cluster permissions do not support dynamic responses"),
            ("permissions: {import: a..b}", "a..b"),
            ("bogus: 1", "unknown field \"bogus\""),
        ] {
            let error = load(&format!("cluster {{ {text} }}")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
