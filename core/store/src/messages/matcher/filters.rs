//! A set of filters: whether a subject matches, and which subjects do, each once.
//!
//! A subject is compared with a few filters one after the other; of many, a trie of their tokens is asked. Where subjects
//! are enumerated, many filters with wildcards are one walk over the stretches of names that begin as they do.

use std::ops::ControlFlow;

use bytes::Bytes;
use hw_kit::Set;
use hw_subject::Interest;

use crate::index::{OnSubject, literal_prefix};
use crate::messages::Messages;
use crate::messages::segments::Segment;
use crate::messages::subjects::{Filter, Subjects};

/// Up to so many filters with wildcards are tried one after the other.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) enum Filters {
    All,
    Literal(Bytes),
    Several(Box<Several>),
}

/// At least one filter; those without wildcards are none that one with wildcards matches.
#[derive(Debug)]
pub(super) struct Several {
    literals: Set<Bytes>,
    /// The same, ascending.
    names: Vec<Bytes>,
    wildcards: Wildcards,
}

#[derive(Debug)]
enum Wildcards {
    Few(Vec<Filter>),
    Many {
        any: Interest<()>,
        /// Every subject that matches begins with one of these, none of which begins with another.
        prefixes: Vec<Bytes>,
    },
}

impl Wildcards {
    fn new(filters: Vec<Filter>) -> Wildcards {
        if filters.len() <= FEW {
            return Wildcards::Few(filters);
        }
        let mut any = Interest::new();
        filters.iter().for_each(|filter| any.insert(filter.bytes(), None, ()));
        let mut prefixes: Vec<Bytes> =
            filters.iter().map(|filter| filter.bytes().slice_ref(literal_prefix(filter.bytes()))).collect();
        prefixes.sort_unstable();
        // Those that begin with another one follow it.
        prefixes.dedup_by(|one, before| one.starts_with(before));
        Wildcards::Many { any, prefixes }
    }

    fn matches(&self, subject: &[u8]) -> bool {
        match self {
            Wildcards::Few(filters) => filters.iter().any(|filter| filter.matches(subject)),
            Wildcards::Many { any, .. } => any.has_interest(subject),
        }
    }
}

impl Filters {
    pub fn new(filters: &[&str]) -> Filters {
        let filters: Vec<Filter> = filters.iter().map(|text| Filter::new(text)).collect();
        if filters.is_empty() || filters.iter().any(Filter::is_all) {
            return Filters::All;
        }
        if let [only] = &filters[..]
            && only.is_literal()
        {
            return Filters::Literal(only.bytes().clone());
        }
        let (literals, wildcards): (Vec<_>, Vec<_>) = filters.into_iter().partition(Filter::is_literal);
        let wildcards = Wildcards::new(wildcards);
        let literals = literals.iter().map(|filter| filter.bytes().clone());
        let literals: Set<Bytes> = literals.filter(|name| !wildcards.matches(name)).collect();
        let mut names: Vec<Bytes> = literals.iter().cloned().collect();
        names.sort_unstable();
        Filters::Several(Box::new(Several { literals, names, wildcards }))
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        match self {
            Filters::All => true,
            Filters::Literal(name) => name == subject,
            Filters::Several(several) => {
                several.literals.contains(subject) || several.wildcards.matches(subject)
            }
        }
    }

    /// Every matching subject in memory once, until `f` returns false; false if it did.
    pub fn for_each(&self, subjects: &Subjects, mut f: impl FnMut(u32) -> bool) -> bool {
        let several = match self {
            Filters::All => return subjects.for_each(&Filter::of(b">"), |id, _, _| f(id)),
            Filters::Literal(name) => return subjects.find(name).is_none_or(f),
            Filters::Several(several) => several,
        };
        several.names.iter().all(|name| subjects.find(name).is_none_or(&mut f))
            && match &several.wildcards {
                Wildcards::Few(filters) => filters.iter().enumerate().all(|(at, filter)| {
                    let is_known = |name: &[u8]| filters[..at].iter().any(|before| before.matches(name));
                    subjects.for_each(filter, |id, name, _| is_known(name) || f(id))
                }),
                Wildcards::Many { any, prefixes } => prefixes.iter().all(|prefix| {
                    // A prefix ends with a dot, or is empty.
                    let all = Filter::of(&[prefix, &b">"[..]].concat());
                    subjects.for_each(&all, |id, name, _| !any.has_interest(name) || f(id))
                }),
            }
    }

    /// Every matching subject of a segment once, until `f` breaks.
    pub fn each_in(&self, messages: &Messages, segment: &Segment, f: &mut OnSubject<'_>) -> ControlFlow<()> {
        let cold = &messages.cold;
        let several = match self {
            Filters::All => return cold.each_match(segment, b">", f),
            Filters::Literal(name) => return cold.each_match(segment, name, f),
            Filters::Several(several) => several,
        };
        several.names.iter().try_for_each(|name| cold.each_match(segment, name, f))?;
        match &several.wildcards {
            Wildcards::Few(filters) => filters.iter().enumerate().try_for_each(|(at, filter)| {
                let mut new = |rank, name: &[u8], postings| match filters[..at]
                    .iter()
                    .any(|before| before.matches(name))
                {
                    true => ControlFlow::Continue(()),
                    false => f(rank, name, postings),
                };
                cold.each_match(segment, filter.bytes(), &mut new)
            }),
            Wildcards::Many { any, prefixes } => prefixes.iter().try_for_each(|prefix| {
                let is_wanted = |name: &[u8]| any.has_interest(name);
                cold.each_beginning(segment, (prefix, &is_wanted), f)
            }),
        }
    }
}
