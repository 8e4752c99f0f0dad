//! What may be wrong with a configuration, and where.

use std::fmt;
use std::sync::Arc;

use hw_auth::SpecError;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Position {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Its line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What is wrong. The wording is nats-server's where clients look for it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The text does not follow the grammar.
    #[error("Parse error on line {line}: '{detail}'")]
    Parse {
        /// The line.
        line: u32,
        /// What was expected.
        detail: String,
    },
    /// A number that does not fit 64 bits.
    #[error("integer '{text}' is out of the range")]
    OutOfRange {
        /// The number.
        text: String,
    },
    /// A variable that no enclosing block and no environment defines.
    #[error("variable reference for '{name}' on line {line} can not be found")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The line.
        line: u32,
    },
    /// An environment variable whose value is not a value of the language.
    #[error("variable reference for '{name}' on line {line} could not be parsed: {detail}")]
    VariableValue {
        /// Its name.
        name: String,
        /// The line.
        line: u32,
        /// The inner error.
        detail: String,
    },
    /// An environment variable that refers to itself.
    #[error("variable reference cycle for '{name}'")]
    VariableCycle {
        /// Its name.
        name: String,
    },
    /// An included file that cannot be read.
    #[error("error parsing include file '{file}', {detail}")]
    Include {
        /// The file as written.
        file: String,
        /// Why.
        detail: String,
    },
    /// Maps, arrays or includes inside each other, beyond every sensible depth.
    #[error("nested too deeply: {what}")]
    TooDeep {
        /// What is nested.
        what: &'static str,
    },
    /// Variables that multiply beyond every sensible size.
    #[error("variables expand to too many values")]
    TooLarge,
    /// A key that nats-server does not know either.
    #[error("unknown field {field:?}")]
    UnknownField {
        /// The key.
        field: String,
    },
    /// A key of nats-server that is not built here.
    #[error("{field:?} is not supported yet{detail}")]
    NotSupported {
        /// The key.
        field: String,
        /// What to do instead, if anything.
        detail: &'static str,
    },
    /// A value of the wrong kind.
    #[error("{field}: expected {expected}, got {found}")]
    WrongType {
        /// The key.
        field: String,
        /// What the key takes.
        expected: &'static str,
        /// What the file says.
        found: String,
    },
    /// A value that is out of bounds or makes no sense.
    #[error("{detail}")]
    Invalid {
        /// What is wrong, naming the key or value.
        detail: String,
    },
    /// A file that cannot be read.
    #[error("{detail}")]
    Unreadable {
        /// Why, naming the file.
        detail: String,
    },
    /// Users and accounts that do not fit together.
    #[error(transparent)]
    Auth(#[from] SpecError),
}

/// One thing that is wrong, and where; only settings from the command line, and settings that are wrong together
/// only, have no place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfError {
    /// The place.
    pub at: Option<Position>,
    /// What is wrong there.
    pub problem: Problem,
}

impl ConfError {
    pub(crate) fn new(at: &Position, problem: Problem) -> ConfError {
        ConfError { at: Some(at.clone()), problem }
    }

    pub(crate) fn nowhere(detail: impl Into<String>) -> ConfError {
        ConfError { at: None, problem: Problem::Invalid { detail: detail.into() } }
    }
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ConfError {}

/// Everything that is wrong with a configuration; never empty. Prints one line each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfErrors(pub Vec<ConfError>);

impl fmt::Display for ConfErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfErrors {}

impl From<ConfError> for ConfErrors {
    fn from(error: ConfError) -> ConfErrors {
        ConfErrors(vec![error])
    }
}
