//! The `jetstream` block, and an account's.

use hw_auth::JsLimits;
use hw_kit::Span;

use crate::options::{
    BatchOptions, EncryptionOptions, JetStreamLimits, JetStreamOptions, Secret, StoreCipher,
};
use crate::reader::{Reader, put, set};
use crate::refused::Block;
use crate::top::switch;
use crate::value::{Entry, ValueKind};

pub(crate) fn jetstream(options: &mut JetStreamOptions, reader: &mut Reader, entry: &Entry) {
    if let Some(on) = switch(entry) {
        options.enabled = on;
        return;
    }
    let entries = match &entry.value.kind {
        ValueKind::Map(entries) => entries,
        ValueKind::String(text) => {
            let expected = "Expected 'enabled' or 'disabled' for string value";
            return reader.invalid(&entry.at, format!("{expected}, got '{text}'"));
        }
        _ => return reader.wrong(entry, "map, bool or string to define JetStream").unwrap_or(()),
    };
    options.enabled = true;
    for inner in entries {
        setting(options, reader, inner);
    }
    let EncryptionOptions { key, previous, cipher } = &options.encryption;
    for (is_set, name) in [(previous.is_some(), "prev_key"), (cipher.is_some(), "cipher")] {
        if is_set && key.is_none() {
            reader.invalid(
                &entry.at,
                format!("{name} has no effect without a key: nothing would be encrypted"),
            );
        }
    }
}

fn setting(options: &mut JetStreamOptions, reader: &mut Reader, entry: &Entry) {
    let unsigned = |value: Option<i64>| value.map(i64::unsigned_abs);
    match entry.key.to_ascii_lowercase().as_str() {
        "enabled" | "enable" => set(&mut options.enabled, reader.boolean(entry)),
        "strict" => set(&mut options.strict, reader.boolean(entry)),
        "store" | "store_dir" | "storedir" => put(&mut options.store_dir, reader.name(entry).map(Into::into)),
        "max_memory_store" | "max_mem_store" | "max_mem" => options.max_memory = bytes(reader, entry),
        "max_file_store" | "max_file" => options.max_storage = bytes(reader, entry),
        "unique_tag" => set(&mut options.unique_tag, reader.name(entry)),
        "domain" => put(&mut options.domain, domain(reader, entry)),
        "sync" | "sync_interval" => match &entry.value.kind {
            ValueKind::String(text) if text.eq_ignore_ascii_case("always") => options.sync_always = true,
            _ => {
                let span = reader.duration(entry);
                if span.is_some_and(|span| span < Span::ZERO) {
                    reader.invalid(&entry.at, format!("invalid {}, needs to be positive", entry.key));
                }
                options.sync_interval = span.filter(|span| *span > Span::ZERO);
            }
        },
        "sync_always" => set(&mut options.sync_always, reader.boolean(entry)),
        "checkpoint_bytes" => {
            set(&mut options.checkpoint_bytes, unsigned(reader.size(entry).filter(|bytes| *bytes > 0)));
        }
        "scrub_bytes" => {
            set(&mut options.scrub_bytes, unsigned(reader.size(entry).filter(|bytes| *bytes >= 0)))
        }
        "index_cache_bytes" => {
            set(&mut options.index_cache_bytes, unsigned(reader.size(entry).filter(|bytes| *bytes > 0)));
        }
        "max_buffered_size" => {
            put(&mut options.max_buffered_size, unsigned(reader.within(entry, 1, i64::MAX)))
        }
        "max_buffered_msgs" => {
            put(&mut options.max_buffered_msgs, unsigned(reader.within(entry, 1, i64::MAX)))
        }
        "key" | "ek" | "encryption_key" => put(&mut options.encryption.key, secret(reader, entry)),
        "prev_key" | "prev_ek" | "prev_encryption_key" => {
            put(&mut options.encryption.previous, secret(reader, entry))
        }
        "cipher" => put(&mut options.encryption.cipher, cipher(reader, entry)),
        "limits" => {
            for inner in reader.map(entry).unwrap_or_default() {
                limit(&mut options.limits, reader, inner);
            }
        }
        _ => reader.other(entry, Block::JetStream),
    }
}

/// A key. An empty one, as an environment variable that was forgotten gives, would encrypt nothing.
fn secret(reader: &mut Reader, entry: &Entry) -> Option<Secret> {
    let text = reader.string(entry)?;
    if text.is_empty() {
        reader.invalid(&entry.at, format!("{} is empty: nothing would be encrypted", entry.key));
    }
    Some(Secret::new(text))
}

fn cipher(reader: &mut Reader, entry: &Entry) -> Option<StoreCipher> {
    let text = reader.string(entry)?;
    match text.to_ascii_lowercase().as_str() {
        "aes" => Some(StoreCipher::Aes),
        "chacha" | "chachapoly" => Some(StoreCipher::Chacha),
        _ => {
            reader.invalid(&entry.at, format!("Unknown cipher type: {text:?}"));
            None
        }
    }
}

fn limit(limits: &mut JetStreamLimits, reader: &mut Reader, entry: &Entry) {
    match entry.key.to_ascii_lowercase().as_str() {
        "max_ack_pending" => limits.max_ack_pending = reader.limit(entry).filter(|count| *count > 0),
        "max_request_batch" => limits.max_request_batch = reader.limit(entry).filter(|count| *count > 0),
        "duplicate_window" => limits.duplicate_window = reader.positive(entry),
        "max_ha_assets" => limits.max_ha_assets = reader.limit(entry).filter(|count| *count > 0),
        "batch" => {
            for inner in reader.map(entry).unwrap_or_default() {
                batch(&mut limits.batch, reader, inner);
            }
        }
        _ => reader.other(entry, Block::JetStreamLimits),
    }
}

/// What is not above zero means the default, as with nats-server.
fn batch(options: &mut BatchOptions, reader: &mut Reader, entry: &Entry) {
    let slot = match entry.key.to_ascii_lowercase().as_str() {
        "max_inflight_per_stream" => &mut options.max_inflight_per_stream,
        "max_inflight_total" => &mut options.max_inflight_total,
        "max_msgs" => &mut options.max_msgs,
        "timeout" => {
            options.timeout = reader.duration(entry).filter(|span| *span > Span::ZERO);
            return;
        }
        _ => return reader.other(entry, Block::Whole),
    };
    *slot = reader.integer(entry).filter(|count| *count > 0);
}

/// A store's size; below zero means what the machine offers.
fn bytes(reader: &mut Reader, entry: &Entry) -> Option<i64> {
    reader.size(entry).filter(|bytes| *bytes >= 0)
}

fn domain(reader: &mut Reader, entry: &Entry) -> Option<String> {
    let domain = reader.name(entry)?;
    if domain.contains(['.', '*', '>', ' ']) {
        reader.invalid(&entry.at, "invalid domain name: may not contain ., * or >");
        return None;
    }
    Some(domain)
}

/// An account's JetStream; `None`: not enabled.
pub(crate) fn account(reader: &mut Reader, entry: &Entry) -> Option<JsLimits> {
    if let Some(on) = switch(entry) {
        return on.then_some(JsLimits::NONE);
    }
    if let ValueKind::String(text) = &entry.value.kind {
        let expected = "Expected 'enabled' or 'disabled' for string value";
        reader.invalid(&entry.at, format!("{expected}, got '{text}'"));
        return None;
    }
    let ValueKind::Map(entries) = &entry.value.kind else {
        return reader.wrong(entry, "map, bool or string to define JetStream");
    };
    let mut limits = JsLimits::NONE;
    for inner in entries {
        account_limit(&mut limits, reader, inner);
    }
    Some(limits)
}

fn account_limit(limits: &mut JsLimits, reader: &mut Reader, entry: &Entry) {
    let slot = match entry.key.to_ascii_lowercase().as_str() {
        "max_memory" | "max_mem" | "mem" | "memory" => &mut limits.max_memory,
        "max_store" | "max_file" | "max_disk" | "store" | "disk" => &mut limits.max_storage,
        "max_streams" | "streams" => &mut limits.max_streams,
        "max_consumers" | "consumers" => &mut limits.max_consumers,
        "max_ack_pending" => &mut limits.max_ack_pending,
        "memory_max_stream_bytes" | "mem_max_stream_bytes" => &mut limits.memory_max_stream_bytes,
        "store_max_stream_bytes" | "disk_max_stream_bytes" => &mut limits.storage_max_stream_bytes,
        "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
            return set(&mut limits.max_bytes_required, reader.boolean(entry));
        }
        _ => return reader.other(entry, Block::AccountJetStream),
    };
    set(slot, reader.size(entry).map(|value| value.max(-1)));
}
