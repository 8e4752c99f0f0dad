//! Subjects and filters as proven types, the interest trie, the per-subject index, transforms.
//!
//! Subjects are bytes: nothing here asks for UTF-8.

mod filter;
mod interest;
pub mod limits;
mod subject;
#[cfg(test)]
mod testing;
mod token;
mod transform;
mod tree;

pub use filter::Filter;
pub use interest::{Interest, Matched};
pub use subject::{Subject, SubjectError};
pub use token::{
    Tokens, is_literal, is_subset, is_valid_filter, is_valid_subject, matches, overlaps, token_count, tokens,
};
pub use transform::{Transform, TransformError};
pub use tree::{Iter, Matches, SubjectTree};
