//! The top level of a configuration file.

use std::path::Path;

use hw_kit::Span;

use crate::auth::authorization;
use crate::error::{ConfError, ConfErrors, Problem};
use crate::options::{FeatureFlags, Listen, Options};
use crate::parse::{Source, parse_text};
use crate::reader::{Reader, put, set};
use crate::refused::Block;
use crate::value::{Entry, ValueKind};
use crate::{accounts, jetstream, links, operator, sharing};

pub(crate) fn load(file: &Path, source: &mut Source<'_>) -> Result<Options, ConfErrors> {
    let unreadable = |detail: String| ConfError { at: None, problem: Problem::Unreadable { detail } };
    let text = (source.read)(file).map_err(unreadable)?;
    let entries = parse_text(file, &text, source)?;
    let mut options = Options::default();
    let mut reader = Reader::default();
    if entries.is_empty() {
        reader.warnings.push(format!("{}: config has no values or is empty", file.display()));
    }
    for entry in &entries {
        let key = entry.key.to_ascii_lowercase();
        let is_operator = ["operator", "operators", "roots", "root", "root_operators", "root_operator"];
        if is_operator.contains(&key.as_str()) {
            operator::operators(&mut options.auth, &mut reader, entry, source.read);
            continue;
        }
        let done = server(&mut options, &mut reader, &key, entry)
            || limits(&mut options, &mut reader, &key, entry)
            || log(&mut options, &mut reader, &key, entry)
            || monitor(&mut options, &mut reader, &key, entry)
            || blocks(&mut options, &mut reader, &key, entry);
        if !done {
            reader.other(entry, Block::Top);
        }
    }
    options.warnings = reader.finish()?;
    Ok(options)
}

fn server(options: &mut Options, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
    let server = &mut options.server;
    match key {
        "listen" => {
            let (host, port) = reader.address(entry).unwrap_or_default();
            set(&mut server.listen.host, host);
            set(&mut server.listen.port, port);
        }
        "host" | "net" => set(&mut server.listen.host, reader.name(entry)),
        "port" => set(&mut server.listen.port, reader.port(entry)),
        "client_advertise" => put(&mut server.client_advertise, reader.name(entry)),
        "server_name" => {
            let name = reader.name(entry);
            if name.as_ref().is_some_and(|name| name.contains(' ')) {
                reader.invalid(&entry.at, "server name cannot contain spaces");
            }
            put(&mut server.name, name);
        }
        "server_tags" => {
            let tags = reader.strings(entry).unwrap_or_default();
            // One string may hold several tags.
            server.tags =
                tags.iter().flat_map(|tag| tag.split(',')).map(|tag| tag.trim().to_owned()).collect();
        }
        "server_metadata" => {
            for inner in reader.map(entry).unwrap_or_default() {
                if let Some(text) = reader.string(inner) {
                    server.metadata.insert(inner.key.clone(), text);
                }
            }
        }
        "pid_file" | "pidfile" => put(&mut server.pid_file, reader.name(entry).map(Into::into)),
        "ports_file_dir" => put(&mut server.ports_file_dir, reader.name(entry).map(Into::into)),
        "lame_duck_duration" => {
            let span = reader.duration(entry);
            if span.is_some_and(|span| span < Span::from_secs(30)) {
                reader.invalid(&entry.at, "invalid lame_duck_duration, minimum is 30 seconds");
            }
            set(&mut server.lame_duck_duration, span);
        }
        "lame_duck_grace_period" => set(&mut server.lame_duck_grace_period, reader.positive(entry)),
        "no_header_support" => set(&mut server.no_header_support, reader.boolean(entry)),
        _ => return false,
    }
    true
}

fn limits(options: &mut Options, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
    let limits = &mut options.limits;
    let max = i64::from(i32::MAX);
    match key {
        "max_payload" => set(&mut limits.max_payload, reader.within(entry, 1, max).map(|bytes| bytes as u32)),
        "max_control_line" => {
            set(&mut limits.max_control_line, reader.within(entry, 1, max).map(|bytes| bytes as u32));
        }
        "max_pending" => {
            set(&mut limits.max_pending, reader.within(entry, 1, i64::MAX).map(i64::unsigned_abs))
        }
        "max_connections" | "max_conn" => {
            let count = reader.integer(entry);
            // 0 is the default, as for sizes.
            set(&mut limits.max_connections, count.filter(|count| *count != 0).map(|count| count.max(-1)));
        }
        "max_subscriptions" | "max_subs" => set(&mut limits.max_subscriptions, reader.limit(entry)),
        "max_subscription_tokens" | "max_sub_tokens" => {
            let tokens = reader.within(entry, 0, 255).and_then(|tokens| u8::try_from(tokens).ok());
            limits.max_subscription_tokens = tokens.filter(|tokens| *tokens > 0);
        }
        "max_closed_clients" => set(&mut limits.max_closed_clients, reader.limit(entry)),
        "ping_interval" => set(&mut limits.ping_interval, reader.positive(entry)),
        "ping_max" => set(&mut limits.ping_max, reader.within(entry, 1, max).map(|count| count as u32)),
        "write_deadline" => set(&mut limits.write_deadline, reader.positive(entry)),
        "no_fast_producer_stall" => set(&mut limits.no_fast_producer_stall, reader.boolean(entry)),
        _ => return false,
    }
    true
}

fn log(options: &mut Options, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
    let log = &mut options.log;
    let max = i64::from(u32::MAX);
    match key {
        "debug" => set(&mut log.debug, reader.boolean(entry)),
        "trace" => set(&mut log.trace, reader.boolean(entry)),
        "trace_verbose" => {
            let verbose = reader.boolean(entry);
            set(&mut log.trace_verbose, verbose);
            log.trace |= verbose == Some(true);
        }
        "logtime" => set(&mut log.logtime, reader.boolean(entry)),
        "logtime_utc" => set(&mut log.logtime_utc, reader.boolean(entry)),
        "log_file" | "logfile" => put(&mut log.file, reader.name(entry).map(Into::into)),
        "logfile_size_limit" | "log_size_limit" => {
            put(&mut log.file_size_limit, reader.within(entry, 1, i64::MAX).map(i64::unsigned_abs));
        }
        "logfile_max_num" | "log_max_num" => {
            put(&mut log.file_max_num, reader.within(entry, 1, max).map(|count| count as u32));
        }
        "max_traced_msg_len" => {
            let length = reader.limit(entry).filter(|length| *length > 0);
            log.max_traced_msg_len = length.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
        }
        _ => return false,
    }
    true
}

fn monitor(options: &mut Options, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
    let listen = |host: Option<String>, port| Listen { host: host.unwrap_or_default(), port };
    let monitor = &mut options.monitor;
    match key {
        "http" | "https" => {
            let (host, port) = reader.address(entry).unwrap_or_default();
            let slot = if key == "http" { &mut monitor.http } else { &mut monitor.https };
            put(slot, port.map(|port| listen(host, port)));
        }
        "http_port" | "monitor_port" => {
            put(&mut monitor.http, reader.port(entry).map(|port| listen(None, port)))
        }
        "https_port" => put(&mut monitor.https, reader.port(entry).map(|port| listen(None, port))),
        "http_base_path" => set(&mut monitor.base_path, reader.string(entry)),
        _ => return false,
    }
    true
}

fn blocks(options: &mut Options, reader: &mut Reader, key: &str, entry: &Entry) -> bool {
    match key {
        "authorization" => authorization(&mut options.auth, reader, entry),
        "accounts" => accounts::accounts(&mut options.auth, reader, entry),
        "mappings" | "maps" => options.auth.mappings = sharing::mappings(reader, entry),
        "resolver" | "account_resolver" | "accounts_resolver" => {
            operator::resolver(&mut options.auth, reader, entry);
        }
        "resolver_preload" => operator::preload(&mut options.auth, reader, entry),
        "no_auth_user" => put(&mut options.auth.no_auth_user, reader.name(entry)),
        "system_account" | "system" => put(&mut options.auth.system_account, reader.name(entry)),
        "no_system_account" | "no_system" | "no_sys_acc" => {
            set(&mut options.auth.no_system_account, reader.boolean(entry));
        }
        "feature_flags" => features(&mut options.features, reader, entry),
        "jetstream" => jetstream::jetstream(&mut options.jetstream, reader, entry),
        "store_dir" | "storedir" => put(&mut options.jetstream.store_dir, reader.name(entry).map(Into::into)),
        "tls" => options.tls = links::tls(reader, entry),
        "allow_non_tls" => set(&mut options.allow_non_tls, reader.boolean(entry)),
        "websocket" | "ws" => options.websocket = links::websocket(reader, entry),
        "leafnodes" | "leaf" => options.leafnodes = links::leafnodes(reader, entry),
        "cluster" => options.cluster = crate::cluster::cluster(reader, entry),
        _ => return false,
    }
    true
}

fn features(features: &mut FeatureFlags, reader: &mut Reader, entry: &Entry) {
    for inner in reader.map(entry).unwrap_or_default() {
        match inner.key.as_str() {
            "js_ack_fc_v2" => set(&mut features.js_ack_fc_v2, reader.boolean(inner)),
            name if Block::Features.refused(name).is_some() => reader.other(inner, Block::Features),
            // nats-server starts with flags that it does not know, for other versions know them.
            name => reader.warnings.push(format!("{}: unsupported feature flag {name:?}", inner.at)),
        }
    }
}

/// `enabled`, `true` and their opposites; `None` for anything else.
pub(crate) fn switch(entry: &Entry) -> Option<bool> {
    match &entry.value.kind {
        ValueKind::Bool(on) => Some(*on),
        ValueKind::String(text) => match text.to_ascii_lowercase().as_str() {
            "enabled" | "enable" => Some(true),
            "disabled" | "disable" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
#[path = "top/tests.rs"]
mod tests;
