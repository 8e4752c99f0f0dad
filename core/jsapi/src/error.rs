//! One API error: its codes and its text.

use hw_kit::Seq;
use hw_meta::MetaError;
use hw_stream::outcome::{ConsumerError, PublishError, StreamError};
use hw_stream::stream::ConfigError;
use serde::Serialize;

use crate::codes::ERRORS;
use crate::response::Kind;

/// The `error` object of a response.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ApiError {
    /// Like an HTTP status.
    pub code: u16,
    /// What clients compare.
    pub err_code: u16,
    /// For people.
    pub description: String,
}

impl ApiError {
    /// An error whose text needs nothing.
    pub fn new(err_code: u16) -> ApiError {
        let (code, text) = lookup(err_code);
        ApiError { code, err_code, description: text.to_owned() }
    }

    /// An error with its first placeholder filled.
    pub fn with(err_code: u16, fill: impl std::fmt::Display) -> ApiError {
        ApiError::new(err_code).and(fill)
    }

    /// The same with its next placeholder filled.
    fn and(mut self, fill: impl std::fmt::Display) -> ApiError {
        if let (Some(open), Some(close)) = (self.description.find('{'), self.description.find('}'))
            && open < close
        {
            self.description.replace_range(open..=close, &fill.to_string());
        }
        self
    }
}

/// What a request that changes something is refused with once the store has stopped; None for those that change nothing.
/// Codes are those of the real server's for a write that fails.
pub fn store_stopped(kind: Kind, reason: &str) -> Option<ApiError> {
    let err_code = match kind {
        Kind::StreamCreate => return Some(ApiError::with(10049, "error creating store for stream")),
        Kind::ConsumerCreate | Kind::ConsumerDurableCreate => {
            return Some(ApiError::with(10012, "error creating store for consumer"));
        }
        Kind::StreamUpdate => 10069,
        Kind::StreamDelete => 10067,
        Kind::StreamRestore => 10062,
        Kind::StreamPurge => 10051,
        Kind::MessageDelete => 10057,
        Kind::ConsumerDelete | Kind::ConsumerPause | Kind::ConsumerReset => 10012,
        _ => return None,
    };
    Some(ApiError::with(err_code, stopped(reason)))
}

fn stopped(reason: &str) -> String {
    format!("the store has stopped: {reason}")
}

fn lookup(err_code: u16) -> (u16, &'static str) {
    match ERRORS.binary_search_by_key(&err_code, |row| row.0) {
        Ok(at) => (ERRORS[at].1, ERRORS[at].2),
        Err(_) => (500, "general error"),
    }
}

impl From<&PublishError> for ApiError {
    fn from(error: &PublishError) -> ApiError {
        match error {
            PublishError::Sealed => ApiError::new(10109),
            PublishError::TooLarge => ApiError::new(10054),
            PublishError::HeaderTooLarge => ApiError::new(10097),
            PublishError::WrongStream => ApiError::new(10060),
            PublishError::WrongLastSequence(seq) => ApiError::with(10071, seq),
            PublishError::WrongLastSequenceConstant => ApiError::new(10164),
            PublishError::ExpectedSubjectAlone => ApiError::new(10193),
            PublishError::WrongLastMsgId(id) => ApiError::with(10070, id),
            PublishError::Rollup(text) => ApiError::with(10111, text),
            PublishError::MaxMessages => ApiError::with(10077, "maximum messages exceeded"),
            PublishError::MaxBytes => ApiError::with(10077, "maximum bytes exceeded"),
            PublishError::MaxPerSubject => ApiError::with(10077, "maximum messages per subject exceeded"),
            PublishError::InvalidTtl => ApiError::new(10165),
            PublishError::TtlDisabled => ApiError::new(10166),
            PublishError::CounterDisabled => ApiError::new(10168),
            PublishError::CounterMissing => ApiError::new(10169),
            PublishError::CounterPayload => ApiError::new(10170),
            PublishError::CounterInvalid => ApiError::new(10171),
            PublishError::CounterBroken => ApiError::new(10172),
            PublishError::SchedulesDisabled => ApiError::new(10188),
            PublishError::AtomicDisabled => ApiError::new(10174),
            PublishError::BatchSequenceMissing => ApiError::new(10175),
            PublishError::BatchIncomplete => ApiError::new(10176),
            PublishError::BatchUnsupported(header) => ApiError::with(10177, header),
            PublishError::BatchId => ApiError::new(10179),
            PublishError::BatchTooLarge(size) => ApiError::with(10199, size),
            PublishError::BatchCommit => ApiError::new(10200),
            PublishError::BatchDuplicate => ApiError::new(10201),
            PublishError::TooManyBatches => ApiError::new(10210),
            PublishError::BatchDisabled => ApiError::new(10205),
            PublishError::FastPattern => ApiError::new(10206),
            PublishError::FastId => ApiError::new(10207),
            PublishError::FastUnknown => ApiError::new(10208),
            PublishError::TooManyFastBatches => ApiError::new(10211),
            PublishError::SchedulePattern => ApiError::new(10189),
            PublishError::ScheduleTimeZone => ApiError::new(10223),
            PublishError::ScheduleTarget => ApiError::new(10190),
            PublishError::ScheduleTtl => ApiError::new(10191),
            PublishError::ScheduleRollup => ApiError::new(10192),
            PublishError::ScheduleSource => ApiError::new(10203),
            PublishError::Scheduler => ApiError::new(10212),
            PublishError::SourceHeader => ApiError::new(10227),
            PublishError::ApiLevel => ApiError::new(10185),
            PublishError::AccountLimit => ApiError::new(10002),
            PublishError::ServerLimit => ApiError::new(10023),
            PublishError::DiskFull => ApiError::with(10077, "no space left on device"),
            PublishError::Overrun => ApiError::new(10167),
            PublishError::StoreStopped(reason) => ApiError::with(10077, stopped(reason)),
        }
    }
}

impl From<&StreamError> for ApiError {
    fn from(error: &StreamError) -> ApiError {
        match error {
            StreamError::Sealed => ApiError::new(10109),
            StreamError::DeleteDenied => ApiError::with(10057, "message delete not permitted"),
            StreamError::PurgeDenied => ApiError::with(10110, "stream purge not permitted"),
            StreamError::SequenceNotFound(seq) => ApiError::with(10043, seq),
            StreamError::OutOfRange(Seq(0)) => ApiError::with(10057, "no message found"),
            StreamError::OutOfRange(_) => ApiError::with(10057, "stream store EOF"),
            StreamError::BadRequest => ApiError::new(10003),
        }
    }
}

impl From<&ConsumerError> for ApiError {
    fn from(error: &ConsumerError) -> ApiError {
        match error {
            ConsumerError::NotFound => ApiError::new(10014),
            ConsumerError::Exists => ApiError::new(10148),
            ConsumerError::Missing => ApiError::new(10149),
            ConsumerError::TooMany => ApiError::new(10026),
            // The machine's rules come with their complete text.
            ConsumerError::Rule { err_code, text } => {
                ApiError { description: text.clone(), ..ApiError::new(*err_code) }
            }
        }
    }
}

impl From<&ConfigError> for ApiError {
    fn from(error: &ConfigError) -> ApiError {
        match error {
            ConfigError::Invalid(text) => ApiError::with(10052, text),
            ConfigError::PathSeparators => ApiError::new(10128),
            ConfigError::NegativeReplicas => ApiError::new(10133),
            ConfigError::NotClustered => ApiError::new(10074),
            ConfigError::Pedantic(text) => ApiError::with(10157, text),
            ConfigError::TransformSource(text) => ApiError::with(10155, text),
            ConfigError::TransformDestination(text) => ApiError::with(10156, text),
            ConfigError::ViolatesConsumers(text) => ApiError::with(10052, text),
            ConfigError::ExternalPrefix { err_code, prefix, subject } => {
                ApiError::with(*err_code, prefix).and(subject)
            }
            ConfigError::Rule { err_code, text } => ApiError::with(*err_code, text),
            ConfigError::Unsupported(what) => ApiError::with(10052, format!("{what} is not supported yet")),
        }
    }
}

impl From<&MetaError> for ApiError {
    fn from(error: &MetaError) -> ApiError {
        match error {
            MetaError::NameInUse => ApiError::new(10058),
            MetaError::Exists => ApiError::new(10130),
            MetaError::NotFound => ApiError::new(10059),
            MetaError::SubjectsOverlap => ApiError::new(10065),
            MetaError::TooMany => ApiError::new(10027),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_texts_fill() {
        assert!(ERRORS.is_sorted_by_key(|row| row.0));
        let error = ApiError::with(10071, 7);
        assert_eq!((error.code, error.description.as_str()), (400, "wrong last sequence: 7"));
        assert_eq!(ApiError::new(10059).description, "stream not found");
    }
}
