//! The blocks of listeners: `tls`, `websocket`, `leafnodes`.

use hw_kit::Span;

use crate::options::{HandshakeFirst, LeafnodeOptions, Listen, TlsOptions, TlsVersion, WebsocketOptions};
use crate::reader::{Reader, put, set};
use crate::refused::Block;
use crate::value::{Entry, ValueKind};

/// A `tls` block of any listener.
pub(crate) fn tls(reader: &mut Reader, entry: &Entry) -> Option<TlsOptions> {
    let mut tls = TlsOptions::default();
    for inner in reader.map(entry)? {
        match inner.key.to_ascii_lowercase().as_str() {
            "cert_file" => put(&mut tls.cert_file, reader.name(inner).map(Into::into)),
            "key_file" => put(&mut tls.key_file, reader.name(inner).map(Into::into)),
            "ca_file" => put(&mut tls.ca_file, reader.name(inner).map(Into::into)),
            "verify" => set(&mut tls.verify, reader.boolean(inner)),
            "timeout" => set(&mut tls.timeout, reader.timeout(inner)),
            "min_version" => set(&mut tls.min_version, version(reader, inner)),
            "handshake_first" | "first" | "immediate" => set(&mut tls.handshake_first, first(reader, inner)),
            _ => reader.other(inner, Block::Tls),
        }
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => reader.invalid(&entry.at, "missing 'key_file' in TLS configuration"),
        (None, Some(_)) => reader.invalid(&entry.at, "missing 'cert_file' in TLS configuration"),
        _ => {}
    }
    Some(tls)
}

fn version(reader: &mut Reader, entry: &Entry) -> Option<TlsVersion> {
    let text = match &entry.value.kind {
        ValueKind::Float(number) => number.to_string(),
        _ => reader.string(entry)?,
    };
    match text.as_str() {
        "1.2" => Some(TlsVersion::Tls12),
        "1.3" => Some(TlsVersion::Tls13),
        _ => {
            reader.invalid(&entry.at, format!("unsupported TLS version {text:?}: use \"1.2\" or \"1.3\""));
            None
        }
    }
}

fn first(reader: &mut Reader, entry: &Entry) -> Option<HandshakeFirst> {
    match &entry.value.kind {
        ValueKind::Bool(true) => Some(HandshakeFirst::Yes),
        ValueKind::Bool(false) => Some(HandshakeFirst::No),
        ValueKind::String(text) if text.eq_ignore_ascii_case("auto") => {
            Some(HandshakeFirst::Within(Span::from_millis(50)))
        }
        ValueKind::String(_) => reader.positive(entry).map(HandshakeFirst::Within),
        _ => reader.wrong(entry, "a boolean, \"auto\" or a duration"),
    }
}

/// A listener of which some parts may be given.
#[derive(Default)]
pub(crate) struct Parts {
    host: Option<String>,
    port: Option<u16>,
}

impl Parts {
    /// Takes `listen`, `host`, `net` or `port`.
    pub(crate) fn read(&mut self, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
        match key {
            "listen" => {
                let (host, port) = reader.address(entry).unwrap_or_default();
                put(&mut self.host, host);
                put(&mut self.port, port);
            }
            "host" | "net" => put(&mut self.host, reader.name(entry)),
            "port" => put(&mut self.port, reader.port(entry)),
            _ => return false,
        }
        true
    }

    pub(crate) fn listen(self) -> Option<Listen> {
        let host = self.host.unwrap_or_default();
        self.port.map(|port| Listen { host, port })
    }
}

pub(crate) fn websocket(reader: &mut Reader, entry: &Entry) -> Option<WebsocketOptions> {
    let mut websocket = WebsocketOptions::default();
    let mut parts = Parts::default();
    for inner in reader.map(entry)? {
        let key = inner.key.to_ascii_lowercase();
        if parts.read(reader, &key, inner) {
            continue;
        }
        match key.as_str() {
            "no_tls" => set(&mut websocket.no_tls, reader.boolean(inner)),
            "tls" => websocket.tls = tls(reader, inner),
            "compression" => set(&mut websocket.compression, reader.boolean(inner)),
            "same_origin" => set(&mut websocket.same_origin, reader.boolean(inner)),
            "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins"
            | "origin" => {
                set(&mut websocket.allowed_origins, origins(reader, inner));
            }
            "handshake_timeout" => put(&mut websocket.handshake_timeout, reader.timeout(inner)),
            _ => reader.other(inner, Block::Websocket),
        }
    }
    websocket.listen = parts.listen();
    Some(websocket)
}

/// Origins as browsers send them: `scheme://host` with a port perhaps.
fn origins(reader: &mut Reader, entry: &Entry) -> Option<Vec<String>> {
    let origins = reader.strings(entry)?;
    for origin in &origins {
        let parts = origin.split_once("://");
        if parts.is_none_or(|(scheme, host)| scheme.is_empty() || host.is_empty()) {
            reader.invalid(&entry.at, format!("unable to parse allowed origin: {origin:?}"));
        }
    }
    Some(origins)
}

pub(crate) fn leafnodes(reader: &mut Reader, entry: &Entry) -> Option<LeafnodeOptions> {
    let mut parts = Parts::default();
    for inner in reader.map(entry)? {
        if !parts.read(reader, &inner.key.to_ascii_lowercase(), inner) {
            reader.other(inner, Block::Leafnodes);
        }
    }
    Some(LeafnodeOptions { listen: parts.listen() })
}
