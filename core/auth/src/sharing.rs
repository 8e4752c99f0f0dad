//! What accounts share, as configured: exports, imports, subject mappings; and why an import is refused.

use std::fmt;

use hw_kit::Span;
use hw_subject::TransformError;

/// Requests are answered within this time, unless the export says otherwise.
pub const RESPONSE_THRESHOLD: Span = Span::from_secs(120);

/// What is shared: messages that others hear, or a service that others ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shared {
    /// Messages.
    Stream,
    /// Requests and their answers.
    Service,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shared::Stream => "stream",
            Shared::Service => "service",
        })
    }
}

/// How many messages answer one request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ResponseType {
    /// One.
    #[default]
    Single,
    /// Any number, until an empty one ends them.
    Stream,
    /// The parts of one answer, until an empty one ends them.
    Chunked,
}

/// What an account lets others have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportSpec {
    /// Messages or a service.
    pub shared: Shared,
    /// Its subjects.
    pub subject: String,
    /// Who may import it; `None`: everybody.
    pub accounts: Option<Vec<String>>,
    /// Whether an importer needs a signed permission.
    pub activation_required: bool,
    /// The token, from 1, that must be the importing account's name; 0: none.
    pub account_token_position: usize,
    /// How a service answers.
    pub response: ResponseType,
    /// How long a service's answers are waited for.
    pub threshold: Span,
}

/// What an account has from another one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportSpec {
    /// Messages or a service.
    pub shared: Shared,
    /// The exporting account.
    pub account: String,
    /// The subject there.
    pub subject: String,
    /// The subject here; `None`: the same.
    pub to: Option<String>,
    /// What stands before the subject here, for messages.
    pub prefix: Option<String>,
    /// Whether a service is told who asks.
    pub share: bool,
    /// Whether the exporter has signed a permission.
    pub activated: bool,
}

/// Where messages of a subject go instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MappingSpec {
    /// The subjects.
    pub source: String,
    /// The destinations with their shares in percent. What is missing to 100 stays as it is, unless the source is
    /// among the destinations: then it is dropped.
    pub destinations: Vec<(String, u8)>,
}

/// Why an account may not have what it wants to import.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// There is no export of that to this account.
    #[error("{shared} import not authorized")]
    NotAuthorized {
        /// What was wanted.
        shared: Shared,
    },
    /// A wildcard in a prefix.
    #[error("stream import prefix can not contain wildcard tokens")]
    BadPrefix,
    /// The same messages twice.
    #[error("stream import already exists")]
    Duplicate,
    /// Accounts would import from each other in a circle.
    #[error("import forms a cycle")]
    Cycle,
    /// No valid subject.
    #[error("sublist: invalid subject")]
    BadSubject,
    /// The subjects here and there do not fit together.
    #[error("failed to create mapping transform for {shared} import subject from {from:?} to {to:?}: {why}")]
    Transform {
        /// What was wanted.
        shared: Shared,
        /// The subject that is mapped.
        from: String,
        /// What to.
        to: String,
        /// Why not.
        why: RewriteError,
    },
}

/// Why one subject cannot stand for another.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RewriteError {
    /// The destination makes no sense.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A wildcard of the source would be lost.
    #[error("invalid mapping destination: not using all of the token wildcard(s) in {to}")]
    Unused {
        /// The destination.
        to: String,
    },
}

/// Why a mapping is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MappingError {
    /// Two entries for one destination.
    #[error("duplicate entry for {to:?}")]
    Duplicate {
        /// The destination.
        to: String,
    },
    /// More than everything.
    #[error("total weight needs to be <= 100")]
    Total,
    /// The source is no valid subject.
    #[error("invalid subject")]
    BadSubject,
    /// The destination makes no sense.
    #[error(transparent)]
    Transform(#[from] TransformError),
}
