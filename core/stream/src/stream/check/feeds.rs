//! The rules for mirrors and sources that need no look at other streams.

use std::collections::BTreeSet;

use hw_subject::{Filter, Transform, TransformError, is_valid_subject};

use super::{Checked, ConfigError, rule};
use crate::config::{ExternalStream, StreamConfig, StreamSource};

/// The codes that differ between mirrors and sources.
struct Codes {
    what: &'static str,
    name: u16,
    filter_and_transforms: u16,
    transform_source: u16,
    transform: u16,
    overlap: u16,
}

const MIRROR: Codes = Codes {
    what: "mirror",
    name: 10142,
    filter_and_transforms: 10150,
    transform_source: 10151,
    transform: 10154,
    overlap: 10152,
};

const SOURCE: Codes = Codes {
    what: "source:",
    name: 10141,
    filter_and_transforms: 10144,
    transform_source: 10145,
    transform: 10146,
    overlap: 10147,
};

fn coded(holds: bool, err_code: u16) -> Checked {
    if holds { Ok(()) } else { Err(ConfigError::Rule { err_code, text: String::new() }) }
}

/// Whether messages come from other streams: such a stream needs no subjects and no duplicate window.
pub(super) fn is_fed(config: &StreamConfig) -> bool {
    config.mirror.is_some() || !config.sources.is_empty()
}

pub(super) fn check_feeds(config: &StreamConfig) -> Checked {
    if let Some(mirror) = &config.mirror {
        check_mirror(config)?;
        check_origin(mirror, &MIRROR)?;
        rule(mirror.external.is_some() || mirror.name != config.name, "detected cycle")?;
    }
    coded(config.sources.is_empty() || !config.allow_msg_schedules, 10187)?;
    let mut keys = BTreeSet::new();
    for source in &config.sources {
        check_origin(source, &SOURCE)?;
        rule(source.external.is_some() || source.name != config.name, "detected cycle")?;
        coded(keys.insert(crate::feed::source_key(source)), 10140)?;
    }
    Ok(())
}

/// A mirror stays what it is, or becomes a stream of its own.
pub(super) fn check_mirror_change(old: &StreamConfig, new: &StreamConfig) -> Checked {
    coded(new.mirror.is_none() || new.mirror == old.mirror, 10055)
}

fn check_mirror(config: &StreamConfig) -> Checked {
    coded(config.subjects.is_empty(), 10034)?;
    coded(config.sources.is_empty(), 10031)?;
    coded(config.first_seq == 0, 10143)?;
    coded(!config.allow_msg_counter, 10173)?;
    coded(!config.allow_atomic, 10198)?;
    coded(!config.allow_batched, 10209)?;
    coded(!config.allow_msg_schedules, 10186)?;
    rule(config.subject_delete_marker_ttl.is_zero(), "subject delete markers forbidden on mirrors")
}

fn check_origin(origin: &StreamSource, codes: &Codes) -> Checked {
    let forbidden = |c: char| matches!(c, '.' | '*' | '>' | '/' | '\\') || c.is_whitespace();
    coded(!origin.name.is_empty() && !origin.name.contains(forbidden), codes.name)?;
    let transforms = &origin.subject_transforms;
    coded(transforms.is_empty() || origin.filter_subject.is_empty(), codes.filter_and_transforms)?;
    if !origin.filter_subject.is_empty() && Filter::parse(&origin.filter_subject).is_err() {
        let text =
            format!("subject filter '{}' for the {} invalid subject", origin.filter_subject, codes.what);
        return Err(ConfigError::Rule { err_code: 10049, text });
    }
    let mut filters: Vec<Filter> = Vec::with_capacity(transforms.len());
    for transform in transforms {
        let filter = match Transform::new(&transform.src, &transform.dest) {
            Ok(valid) => valid.src().clone(),
            Err(error @ TransformError::Source { .. }) => {
                return Err(ConfigError::Rule { err_code: codes.transform_source, text: error.to_string() });
            }
            Err(error) => {
                return Err(ConfigError::Rule { err_code: codes.transform, text: error.to_string() });
            }
        };
        coded(!filters.iter().any(|other| other.overlaps(&filter)), codes.overlap)?;
        filters.push(filter);
    }
    if origin.consumer.is_some() {
        return Err(ConfigError::Unsupported("consumer of a mirror or source"));
    }
    origin.external.as_ref().map_or(Ok(()), check_external)
}

/// Where streams of another account or domain are asked for and delivered.
fn check_external(external: &ExternalStream) -> Checked {
    const API: &str = "$JS.API";
    let (api, deliver) = (&external.api, &external.deliver);
    if !deliver.is_empty() && !is_valid_subject(deliver.as_bytes()) {
        return Err(ConfigError::Rule { err_code: 10024, text: deliver.clone() });
    }
    if api.is_empty() {
        return Ok(());
    }
    if !is_valid_subject(api.as_bytes()) {
        let text = format!("stream external api prefix {api:?} must be a valid subject without wildcards");
        return Err(ConfigError::Invalid(text));
    }
    match api == API {
        true => {
            let (prefix, subject) = (api.clone(), API.to_owned());
            Err(ConfigError::ExternalPrefix { err_code: 10021, prefix, subject })
        }
        false => Ok(()),
    }
}
