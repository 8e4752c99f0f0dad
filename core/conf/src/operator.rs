//! Operator mode: `operator`, `resolver`, `resolver_preload`.

use std::path::Path;

use hw_auth::jwt_in;

use crate::error::Problem;
use crate::options::AuthOptions;
use crate::reader::Reader;
use crate::value::{Entry, ValueKind};

/// Reads a file.
type Read<'a> = dyn FnMut(&Path) -> Result<String, String> + 'a;

/// `operator`: JWTs, or the files that have them.
pub(crate) fn operators(options: &mut AuthOptions, reader: &mut Reader, entry: &Entry, read: &mut Read<'_>) {
    for text in reader.strings(entry).unwrap_or_default() {
        let found = match text.starts_with("eyJ") {
            true => Ok(text),
            false => read(Path::new(&text)),
        };
        match found.map(|text| jwt_in(&text).map(str::to_owned)) {
            Ok(Some(jwt)) => options.operators.push(jwt),
            Ok(None) => reader.invalid(&entry.at, "error parsing operator JWT: not a valid JWT"),
            Err(why) => reader.invalid(&entry.at, format!("error parsing operator JWT: {why}")),
        }
    }
}

/// `resolver`: `MEMORY` alone.
pub(crate) fn resolver(options: &mut AuthOptions, reader: &mut Reader, entry: &Entry) {
    let in_memory = match &entry.value.kind {
        ValueKind::String(text) => ["mem", "memory"].contains(&text.trim().to_ascii_lowercase().as_str()),
        _ => false,
    };
    match in_memory {
        true => options.resolver = true,
        false => {
            let detail = " other than MEMORY: put the accounts into resolver_preload";
            let problem = Problem::NotSupported { field: entry.key.clone(), detail };
            reader.error(&entry.at, problem);
        }
    }
}

/// `resolver_preload`: accounts by their public keys.
pub(crate) fn preload(options: &mut AuthOptions, reader: &mut Reader, entry: &Entry) {
    let ValueKind::Map(entries) = &entry.value.kind else {
        return reader.invalid(&entry.at, "preload should be a map of account_public_key:account_jwt");
    };
    for inner in entries {
        match &inner.value.kind {
            ValueKind::String(jwt) => options.resolver_preload.push((inner.key.clone(), jwt.clone())),
            _ => reader.invalid(&inner.at, "preload map value should be a string JWT"),
        }
    }
}

#[cfg(test)]
#[path = "operator/tests.rs"]
mod tests;
