//! [`Filter`]: proof that some bytes are a valid subject pattern.

use std::borrow::{Borrow, Cow};
use std::fmt;

use bytes::Bytes;

use crate::token::{self, Tokens};
use crate::{Subject, SubjectError};

/// A valid subject pattern: a `*` token matches one token, a final `>` token one or more. Cloning is cheap.
///
/// A literal subject is a filter that matches itself alone.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Filter(Bytes);

impl Filter {
    /// The filter `>`, which matches everything.
    pub const ALL: Filter = Filter(Bytes::from_static(b">"));

    /// Copies the bytes if they are a valid filter.
    pub fn parse(filter: impl AsRef<[u8]>) -> Result<Filter, SubjectError> {
        token::check_filter(filter.as_ref())?;
        Ok(Filter(Bytes::copy_from_slice(filter.as_ref())))
    }

    /// Takes the bytes, without copying, if they are a valid filter.
    pub fn from_bytes(filter: Bytes) -> Result<Filter, SubjectError> {
        token::check_filter(&filter)?;
        Ok(Filter(filter))
    }

    /// The filter as text; bytes that are not UTF-8 are replaced.
    pub fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The filter's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The filter's bytes, given up.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The filter's tokens, wildcards included.
    pub fn tokens(&self) -> Tokens<'_> {
        token::tokens(&self.0)
    }

    /// How many tokens the filter has, wildcards included.
    pub fn token_count(&self) -> usize {
        token::token_count(&self.0)
    }

    /// Whether it has no wildcard, so that it matches exactly one subject.
    pub fn is_literal(&self) -> bool {
        token::is_literal(&self.0)
    }

    /// Whether this is `>`.
    pub fn is_all(&self) -> bool {
        &self.0[..] == b">"
    }

    /// The one subject it matches, if it has no wildcard.
    pub fn to_subject(&self) -> Option<Subject> {
        Subject::from_bytes(self.0.clone()).ok()
    }

    /// Whether it matches a literal subject.
    pub fn matches(&self, subject: impl AsRef<[u8]>) -> bool {
        token::matches(&self.0, subject.as_ref())
    }

    /// Whether some subject matches both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        token::overlaps(&self.0, &other.0)
    }

    /// Whether `outer` matches every subject that this matches.
    pub fn is_subset_of(&self, outer: &Filter) -> bool {
        token::is_subset(&self.0, &outer.0)
    }
}

impl From<Subject> for Filter {
    fn from(subject: Subject) -> Filter {
        Filter(subject.into_bytes())
    }
}

impl AsRef<[u8]> for Filter {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Filter {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.0)
    }
}

impl TryFrom<&str> for Filter {
    type Error = SubjectError;
    fn try_from(filter: &str) -> Result<Filter, SubjectError> {
        Filter::parse(filter)
    }
}

impl std::str::FromStr for Filter {
    type Err = SubjectError;
    fn from_str(filter: &str) -> Result<Filter, SubjectError> {
        Filter::parse(filter)
    }
}
