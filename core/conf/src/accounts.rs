//! The `accounts` block.

use hw_auth::{AccountLimits, AccountSpec, SpecError};

use crate::auth::{permissions, users};
use crate::jetstream;
use crate::options::AuthOptions;
use crate::reader::{Reader, put};
use crate::refused::Block;
use crate::sharing;
use crate::value::{Entry, ValueKind};

pub(crate) fn accounts(options: &mut AuthOptions, reader: &mut Reader, entry: &Entry) {
    match &entry.value.kind {
        ValueKind::Map(entries) => {
            for inner in entries {
                if let Some(spec) = account(reader, inner) {
                    options.accounts.push(spec);
                }
            }
        }
        // Names alone.
        ValueKind::Array(_) => {
            for name in reader.strings(entry).unwrap_or_default() {
                if name == "$G" {
                    reader.error(&entry.at, SpecError::ReservedAccount { account: name });
                } else if options.accounts.iter().any(|known| known.name == name) {
                    reader.error(&entry.at, SpecError::DuplicateAccount { account: name });
                } else {
                    options.accounts.push(AccountSpec { name, ..AccountSpec::default() });
                }
            }
        }
        _ => reader.wrong(entry, "a map of accounts").unwrap_or(()),
    }
}

fn account(reader: &mut Reader, entry: &Entry) -> Option<AccountSpec> {
    let ValueKind::Map(entries) = &entry.value.kind else {
        // Only there for variables to name.
        if !entry.used {
            reader.invalid(&entry.at, "Expected map entries for accounts");
        }
        return None;
    };
    if entry.key == "$G" {
        reader.error(&entry.at, SpecError::ReservedAccount { account: entry.key.clone() });
        return None;
    }
    let mut spec = AccountSpec { name: entry.key.clone(), ..AccountSpec::default() };
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "users" => spec.users = users(reader, inner),
            "default_permissions" => put(&mut spec.default_permissions, permissions(reader, inner)),
            "jetstream" => spec.jetstream = jetstream::account(reader, inner),
            "exports" => spec.exports = sharing::exports(reader, inner),
            "imports" => spec.imports = sharing::imports(reader, inner),
            "mappings" | "maps" => spec.mappings = sharing::mappings(reader, inner),
            "limits" => limits(&mut spec.limits, reader, inner),
            _ => reader.other(inner, Block::Account),
        }
    }
    Some(spec)
}

fn limits(limits: &mut AccountLimits, reader: &mut Reader, entry: &Entry) {
    for inner in reader.map(entry).unwrap_or_default() {
        let slot = match inner.key.to_ascii_lowercase().as_str() {
            "max_connections" | "max_conn" => &mut limits.max_connections,
            "max_subscriptions" | "max_subs" => &mut limits.max_subscriptions,
            "max_payload" | "max_pay" => &mut limits.max_payload,
            "max_leafnodes" | "max_leafs" => &mut limits.max_leafnodes,
            _ => {
                reader.other(inner, Block::Whole);
                continue;
            }
        };
        if let Some(value) = reader.size(inner) {
            *slot = value.max(-1);
        }
    }
}
