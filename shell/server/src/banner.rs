//! The log lines of a start. Programs that start servers wait for some of them: their wording is part of the interface.

use std::net::SocketAddr;
use std::time::Duration;

use hw_conf::Options;

use crate::inner::{Facts, JetStreamFacts};
use crate::{NATS_VERSION, VERSION};

/// Before anything is opened.
pub(crate) fn starting(options: &Options, id: &str) {
    let name = options.server.name.as_deref().unwrap_or(id);
    tracing::info!("Starting nats-server");
    tracing::info!("  Version:  {NATS_VERSION}");
    tracing::info!("  Server:   headwater {VERSION}");
    if let Some(cluster) = options.cluster.as_ref().and_then(|cluster| cluster.name.as_ref()) {
        tracing::info!("  Cluster:  {cluster}");
    }
    tracing::info!("  Name:     {name}");
    tracing::info!("  ID:       {id}");
    if !options.digest.is_empty() {
        tracing::info!("Using configuration file ({})", options.digest);
    }
    for warning in &options.warnings {
        tracing::warn!("{warning}");
    }
}

/// What is left out of accounts that operators signed.
pub(crate) fn remarks(directory: &hw_auth::Directory) {
    for remark in directory.remarks() {
        tracing::warn!("{remark}");
    }
}

/// The monitoring port is open.
pub(crate) fn monitoring(address: SocketAddr) {
    tracing::info!("Starting http monitor on {address}");
}

/// JetStream is about to be opened.
pub(crate) fn jetstream_starting() {
    tracing::info!("Starting JetStream");
}

/// JetStream is open.
pub(crate) fn jetstream(facts: &JetStreamFacts, took: Duration) {
    tracing::info!("---------------- JETSTREAM ----------------");
    tracing::info!("  Strict:          {}", facts.strict);
    tracing::info!("  Max Memory:      {}", size(facts.max_memory));
    tracing::info!("  Max Storage:     {}", size(facts.max_storage));
    tracing::info!("  Store Directory: \"{}\"", facts.store_dir.display());
    if !facts.domain.is_empty() {
        tracing::info!("  Domain:          {}", facts.domain);
    }
    if let Some(cipher) = &facts.encryption {
        tracing::info!("  Encryption:      {cipher}");
    }
    tracing::info!("  API Level:       {}", hw_jsapi::API_LEVEL);
    match facts.sync_interval.is_zero() {
        true => tracing::info!("  Acknowledged:    after fsync"),
        false => tracing::warn!(
            "  Acknowledged:    BEFORE fsync, synced every {:?}",
            duration(facts.sync_interval)
        ),
    }
    tracing::info!("-------------------------------------------");
    tracing::info!("Took {took:?} to start JetStream");
}

/// Clients can connect.
pub(crate) fn ready(facts: &Facts, cluster: &str) {
    if let Some(door) = &facts.websocket {
        let scheme = if door.tls { "wss" } else { "ws" };
        tracing::info!("Listening for websocket clients on {scheme}://{}", address(&door.host, door.port));
        if !door.tls {
            tracing::warn!("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!");
        }
    }
    if let Some(door) = &facts.leafnodes {
        tracing::info!("Listening for leafnode connections on {}", address(&door.host, door.port));
        tracing::warn!("Leaf nodes are not supported yet: every connection to that port is refused");
    }
    tracing::info!("Listening for client connections on {}", address(&facts.host, facts.port));
    if facts.tls_required {
        tracing::info!("TLS required for client connections");
    }
    tracing::info!("Server is ready");
    if let Some(door) = &facts.cluster {
        tracing::info!("Cluster name is {cluster}");
        if door.dynamic {
            tracing::warn!("Cluster name was dynamically generated, consider setting one");
        }
        tracing::info!("Listening for route connections on {}", address(&door.host, door.port));
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn duration(span: hw_kit::Span) -> Duration {
    Duration::from_nanos(span.0.unsigned_abs())
}

/// `17.66 GB`: binary multiples under their old names, as the real server writes them.
fn size(bytes: i64) -> String {
    if bytes < 0 {
        return "unlimited".to_owned();
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KB", "MB", "GB", "TB", "PB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.2} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(-1, "unlimited"), (12, "12 B"), (1536, "1.50 KB"), (18_957_376_512, "17.66 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
