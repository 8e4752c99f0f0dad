//! Which subjects streams take, in an order in which those that may overlap a filter stand together.
//!
//! Two filters overlap only if the tokens before the first wildcard of one begin with those of the other. So what overlaps
//! `a.b.*` is `a.b.…` itself, or begins with a wildcard somewhere on the way there: `>`, `*.…`, `a.>`, `a.*.…`.

use std::collections::BTreeSet;
use std::ops::Bound;

use hw_subject::Filter;

/// The filters of one account's streams, each with its stream's group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Taken(BTreeSet<(Box<str>, u64)>);

impl Taken {
    pub fn insert(&mut self, group: u64, filters: &[String]) {
        self.0.extend(filters.iter().map(|filter| (filter.as_str().into(), group)));
    }

    pub fn remove(&mut self, group: u64, filters: &[String]) {
        for filter in filters {
            self.0.remove(&(filter.as_str().into(), group));
        }
    }

    /// Whether a stream other than that of `group` takes a subject that one of these filters wants.
    pub fn overlap(&self, group: Option<u64>, filters: &[String]) -> bool {
        filters.iter().any(|text| {
            let Ok(wanted) = Filter::parse(text) else { return false };
            let hits = |(taken, of): &(Box<str>, u64)| {
                Some(*of) != group && Filter::parse(&**taken).is_ok_and(|taken| taken.overlaps(&wanted))
            };
            let is_wild = |token: &str| token == "*" || token == ">";
            let mut at = 0;
            for token in text.split('.').take_while(|token| !is_wild(token)) {
                let way = &text[..at];
                // What begins with a wildcard here.
                if self.beginning(&format!("{way}*")).chain(self.beginning(&format!("{way}>"))).any(hits) {
                    return true;
                }
                at += token.len() + 1;
            }
            match at > text.len() {
                // It is literal: what is left is itself.
                true => self.beginning(text).take_while(|(taken, _)| **taken == **text).any(hits),
                false => self.beginning(&text[..at]).any(hits),
            }
        })
    }

    /// What begins with a text.
    fn beginning<'a>(&'a self, text: &str) -> impl Iterator<Item = &'a (Box<str>, u64)> + use<'a> {
        let from: (Box<str>, u64) = (text.into(), 0);
        let text: Box<str> = text.into();
        self.0
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(taken, _)| taken.starts_with(&*text))
    }
}

#[cfg(test)]
mod tests {
    use hw_kit::Rng;

    use super::*;

    /// Against all pairs: short filters of few tokens, so that most ways of overlapping come up.
    #[test]
    fn finds_what_all_pairs_find() {
        let tokens = ["a", "b", "a*", "*", "ab", ">"];
        let mut rng = Rng::new(1);
        let mut filter = || {
            let mut text = String::new();
            for at in 0..1 + rng.below(4) {
                let token = tokens[rng.below(6) as usize];
                let dot = if at == 0 { "" } else { "." };
                text = format!("{text}{dot}{token}");
                if token == ">" {
                    break;
                }
            }
            text
        };
        let (mut found, mut not_found) = (0, 0);
        for _ in 0..6000 {
            let (mut taken, mut all) = (Taken::default(), Vec::new());
            for group in 0..4 {
                let filters = vec![filter()];
                taken.insert(group, &filters);
                all.push((group, filters));
            }
            let (_, gone) = all.remove(0);
            taken.remove(0, &gone);
            let wanted = filter();
            let parse = |text: &str| Filter::parse(text).expect("it is valid");
            let expected =
                all.iter().any(|(group, one)| *group != 3 && parse(&one[0]).overlaps(&parse(&wanted)));
            assert_eq!(taken.overlap(Some(3), std::slice::from_ref(&wanted)), expected, "{all:?} {wanted}");
            if expected { found += 1 } else { not_found += 1 }
        }
        assert!(found > 1000 && not_found > 1000, "{found} {not_found}");
    }
}
