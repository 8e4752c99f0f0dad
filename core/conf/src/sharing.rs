//! What accounts share: `exports`, `imports`, `mappings`.

use hw_auth::{ExportSpec, ImportSpec, MappingSpec, Mappings, RESPONSE_THRESHOLD, ResponseType, Shared};
use hw_kit::Span;
use hw_subject::is_valid_filter;

use crate::error::Position;
use crate::reader::{Reader, put};
use crate::refused::Block;
use crate::units::parse_duration;
use crate::value::{Entry, Value, ValueKind};

/// The `exports` of an account.
pub(crate) fn exports(reader: &mut Reader, entry: &Entry) -> Vec<ExportSpec> {
    let items = items(reader, entry, "an array of exports");
    items.iter().filter_map(|item| export(reader, item)).collect()
}

/// The `imports` of an account.
pub(crate) fn imports(reader: &mut Reader, entry: &Entry) -> Vec<ImportSpec> {
    let mut imports: Vec<ImportSpec> = vec![];
    for item in items(reader, entry, "an array of imports") {
        let Some(import) = import(reader, item) else { continue };
        let ours = |import: &ImportSpec| import.to.clone().unwrap_or_else(|| import.subject.clone());
        let twice = imports.iter().find(|known| {
            (known.shared, import.shared) == (Shared::Service, Shared::Service)
                && known.account == import.account
                && ours(known) == ours(&import)
        });
        if let Some(known) = twice {
            let (account, subject) = (&known.account, &known.subject);
            let detail = format!(
                "Duplicate service import subject {:?}, previously used in import for account {account:?}, subject {subject:?}",
                ours(&import)
            );
            reader.invalid(&item.at, detail);
            continue;
        }
        imports.push(import);
    }
    imports
}

fn items<'e>(reader: &mut Reader, entry: &'e Entry, expected: &'static str) -> &'e [Value] {
    match &entry.value.kind {
        ValueKind::Array(items) => items,
        _ => reader.wrong(entry, expected).unwrap_or_default(),
    }
}

fn entries<'e>(reader: &mut Reader, item: &'e Value, what: &str) -> Option<&'e [Entry]> {
    match &item.kind {
        ValueKind::Map(entries) => Some(entries),
        other => {
            let detail = format!("{what} Items should be a map with type entry, got {}", other.name());
            reader.invalid(&item.at, detail);
            None
        }
    }
}

/// Directives that only one of the two kinds takes, and where they stand.
type Only<'e> = Vec<(&'static str, &'e Position)>;

fn export(reader: &mut Reader, item: &Value) -> Option<ExportSpec> {
    let before = reader.errors.len();
    let (mut stream, mut service, mut accounts) = (None, None, None);
    let (mut response, mut threshold, mut position) = (None, None, 0);
    let mut of_services: Only<'_> = vec![];
    for inner in entries(reader, item, "Export")? {
        match inner.key.to_ascii_lowercase().as_str() {
            "stream" => put(&mut stream, reader.string(inner).zip(Some(&inner.at))),
            "service" => put(&mut service, reader.string(inner).zip(Some(&inner.at))),
            "response" | "response_type" => {
                of_services.push(("response", &inner.at));
                let kind = response_type(reader, inner);
                once(reader, &mut response, kind, inner, "Duplicate response type definition");
            }
            "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
                of_services.push(("response", &inner.at));
                let span = response_threshold(reader, inner);
                once(reader, &mut threshold, span, inner, "Duplicate response threshold detected");
            }
            "accounts" => put(&mut accounts, reader.strings(inner)),
            "account_token_position" => {
                position =
                    reader.within(inner, 0, 255).and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
            }
            _ => reader.other(inner, Block::Export),
        }
    }
    let (shared, subject) = match (stream, service) {
        (Some(_), Some((service, at))) => {
            reader.invalid(at, format!("Detected service {service:?} but already saw a stream"));
            return None;
        }
        (Some((subject, _)), None) => {
            for (what, at) in of_services {
                reader.invalid(at, format!("Detected {what} directive on non-service"));
            }
            (Shared::Stream, subject)
        }
        (None, Some((subject, _))) => (Shared::Service, subject),
        // nats-server takes it for nothing at all.
        (None, None) => {
            // One that makes no sense has been reported already.
            if reader.errors.len() == before {
                reader.invalid(&item.at, "an export needs a stream or a service");
            }
            return None;
        }
    };
    let (response, threshold) = (response.unwrap_or_default(), threshold.unwrap_or(RESPONSE_THRESHOLD));
    Some(ExportSpec {
        shared,
        subject,
        accounts,
        activation_required: false,
        account_token_position: position,
        response,
        threshold,
    })
}

fn once<T>(reader: &mut Reader, slot: &mut Option<T>, value: Option<T>, entry: &Entry, twice: &str) {
    if slot.is_some() {
        reader.invalid(&entry.at, twice);
    }
    put(slot, value);
}

fn response_type(reader: &mut Reader, entry: &Entry) -> Option<ResponseType> {
    let name = reader.string(entry)?;
    Some(match name.to_ascii_lowercase().as_str() {
        "single" | "singleton" => ResponseType::Single,
        "stream" => ResponseType::Stream,
        "chunk" | "chunked" => ResponseType::Chunked,
        _ => {
            reader.invalid(&entry.at, format!("Unknown response type: {name:?}"));
            return None;
        }
    })
}

fn response_threshold(reader: &mut Reader, entry: &Entry) -> Option<Span> {
    let expected = "Expected response threshold to be a parseable time duration";
    let got = match &entry.value.kind {
        ValueKind::String(text) => match parse_duration(text) {
            Ok(span) => return Some(span),
            Err(_) => format!("{text:?}"),
        },
        other => other.name().to_owned(),
    };
    reader.invalid(&entry.at, format!("{expected}, got {got}"));
    None
}

fn import(reader: &mut Reader, item: &Value) -> Option<ImportSpec> {
    let before = reader.errors.len();
    let (mut stream, mut service) = (None, None);
    let (mut to, mut prefix, mut share) = (None, None, None);
    for inner in entries(reader, item, "Import")? {
        match inner.key.to_ascii_lowercase().as_str() {
            "stream" => put(&mut stream, source(reader, inner, "Stream").zip(Some(&inner.at))),
            "service" => put(&mut service, source(reader, inner, "Service").zip(Some(&inner.at))),
            "to" => put(&mut to, reader.name(inner).zip(Some(&inner.at))),
            "prefix" => put(&mut prefix, reader.name(inner)),
            "share" => share = reader.boolean(inner),
            _ => reader.other(inner, Block::Import),
        }
    }
    let (shared, (account, subject)) = match (stream, service) {
        (Some(_), Some((_, at))) => {
            reader.invalid(at, "Detected service but already saw a stream");
            return None;
        }
        (Some((source, _)), None) => (Shared::Stream, source),
        (None, Some((source, _))) => (Shared::Service, source),
        (None, None) => {
            // One that makes no sense has been reported already.
            if reader.errors.len() == before {
                reader.invalid(&item.at, "an import needs a stream or a service");
            }
            return None;
        }
    };
    if let (Shared::Stream, Some((_, at)), Some(_)) = (shared, &to, &prefix) {
        reader.invalid(at, "Stream import can not have a 'prefix' and a 'to' property");
        return None;
    }
    let (to, share) = (to.map(|(to, _)| to), share.unwrap_or_default());
    let prefix = prefix.filter(|_| shared == Shared::Stream);
    Some(ImportSpec { shared, account, subject, to, prefix, share, activated: false })
}

/// `{account, subject}`.
fn source(reader: &mut Reader, entry: &Entry, what: &str) -> Option<(String, String)> {
    let ValueKind::Map(entries) = &entry.value.kind else {
        let got = entry.value.kind.name();
        reader.invalid(&entry.at, format!("{what} entry should be an account map, got {got}"));
        return None;
    };
    let (mut account, mut subject) = (None, None);
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "account" => put(&mut account, reader.name(inner)),
            "subject" => put(&mut subject, reader.name(inner)),
            _ => reader.other(inner, Block::Whole),
        }
    }
    let source = account.zip(subject);
    if source.is_none() {
        reader.invalid(&entry.at, "Expect an account name and a subject");
    }
    source
}

/// `mappings`, of an account or of the whole server.
pub(crate) fn mappings(reader: &mut Reader, entry: &Entry) -> Vec<MappingSpec> {
    let entries = reader.map(entry).unwrap_or_default();
    entries.iter().filter_map(|inner| mapping(reader, inner)).collect()
}

fn mapping(reader: &mut Reader, entry: &Entry) -> Option<MappingSpec> {
    let source = entry.key.clone();
    if !is_valid_filter(source.as_bytes()) {
        reader.invalid(&entry.at, format!("Subject {source:?} is not a valid subject"));
        return None;
    }
    let mut what = format!("{source:?}");
    let destinations = match &entry.value.kind {
        ValueKind::String(to) => {
            what += &format!(" to {to:?}");
            vec![(to.clone(), 100)]
        }
        ValueKind::Array(items) => items.iter().filter_map(|item| destination(reader, item)).collect(),
        _ => vec![destination(reader, &entry.value)?],
    };
    let spec = MappingSpec { source, destinations };
    if let Err((_, error)) = Mappings::new(std::slice::from_ref(&spec)) {
        reader.invalid(&entry.at, format!("Error adding mapping for {what} : {error}"));
        return None;
    }
    Some(spec)
}

fn destination(reader: &mut Reader, value: &Value) -> Option<(String, u8)> {
    let ValueKind::Map(entries) = &value.kind else {
        reader.invalid(&value.at, "Expected an entry for the mapping destination");
        return None;
    };
    let (mut to, mut weight) = (String::new(), None);
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "dest" | "destination" => to = reader.string(inner)?,
            "weight" => weight = Some(percent(reader, inner)?),
            key if Block::Mapping.refused(key).is_some() => {
                reader.other(inner, Block::Mapping);
                return None;
            }
            _ => {
                reader.invalid(&inner.at, format!("Unknown field {:?} for mapping destination", inner.key));
                return None;
            }
        }
    }
    if weight.is_none() {
        reader.invalid(&value.at, format!("Missing weight for mapping destination {to:?}"));
    }
    weight.map(|weight| (to, weight))
}

fn percent(reader: &mut Reader, entry: &Entry) -> Option<u8> {
    let wrong = |shown: String| format!("Invalid weight {shown} for mapping destination");
    let number = match &entry.value.kind {
        ValueKind::Integer(number) => Ok(*number),
        ValueKind::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse::<i64>().map_err(|_| wrong(format!("{digits:?}")))
        }
        _ => return reader.wrong(entry, "a weight in percent"),
    };
    let weight = number.and_then(|number| {
        let weight = u8::try_from(number).ok().filter(|weight| *weight <= 100);
        weight.ok_or_else(|| wrong(number.to_string()))
    });
    weight.map_err(|detail| reader.invalid(&entry.at, detail)).ok()
}

#[cfg(test)]
#[path = "sharing/tests.rs"]
mod tests;
