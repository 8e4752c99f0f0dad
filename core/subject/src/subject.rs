//! [`Subject`]: proof that some bytes are a valid literal subject.

use std::borrow::{Borrow, Cow};
use std::fmt;

use bytes::Bytes;

use crate::token::{self, Tokens};

/// A valid subject without wildcards. Cloning is cheap.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject(Bytes);

/// Why some bytes are no subject or no filter. Positions count bytes from 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubjectError {
    /// There is nothing.
    #[error("subject is empty")]
    Empty,
    /// A dot at the start, at the end or next to another dot.
    #[error("subject has an empty token at {at}")]
    EmptyToken {
        /// Where the missing token should start.
        at: usize,
    },
    /// A space, tab, carriage return, line feed or form feed.
    #[error("subject has whitespace at {at}")]
    Whitespace {
        /// Where it stands.
        at: usize,
    },
    /// A `*` or `>` token where only a literal subject is allowed.
    #[error("subject has a wildcard")]
    Wildcard,
    /// A `>` token that is not the last one.
    #[error("'>' at {at} is not the last token")]
    TailNotLast {
        /// Where it stands.
        at: usize,
    },
}

impl Subject {
    /// Copies the bytes if they are a valid literal subject.
    pub fn parse(subject: impl AsRef<[u8]>) -> Result<Subject, SubjectError> {
        token::check_subject(subject.as_ref())?;
        Ok(Subject(Bytes::copy_from_slice(subject.as_ref())))
    }

    /// Takes the bytes, without copying, if they are a valid literal subject.
    pub fn from_bytes(subject: Bytes) -> Result<Subject, SubjectError> {
        token::check_subject(&subject)?;
        Ok(Subject(subject))
    }

    /// The subject as text; bytes that are not UTF-8 are replaced.
    pub fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The subject's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The subject's bytes, given up.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The subject's tokens.
    pub fn tokens(&self) -> Tokens<'_> {
        token::tokens(&self.0)
    }

    /// How many tokens the subject has.
    pub fn token_count(&self) -> usize {
        token::token_count(&self.0)
    }
}

impl AsRef<[u8]> for Subject {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Subject {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({:?})", self.0)
    }
}

impl TryFrom<&str> for Subject {
    type Error = SubjectError;
    fn try_from(subject: &str) -> Result<Subject, SubjectError> {
        Subject::parse(subject)
    }
}

impl std::str::FromStr for Subject {
    type Err = SubjectError;
    fn from_str(subject: &str) -> Result<Subject, SubjectError> {
        Subject::parse(subject)
    }
}
