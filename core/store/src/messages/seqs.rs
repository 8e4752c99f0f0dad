//! The sequences of one subject: one is held in place, a few in a list, many in a compressed set.

use roaring::RoaringTreemap;

/// More than this many go into the compressed set.
const FEW: usize = 64;

/// Ascending sequences; never empty.
#[derive(Debug)]
pub(super) enum Seqs {
    One(u64),
    Few(Vec<u64>),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    set: RoaringTreemap,
    count: u64,
    last: u64,
}

impl Seqs {
    /// Adds a sequence that is larger than all others.
    pub fn push(&mut self, seq: u64) {
        match self {
            Seqs::One(only) => *self = Seqs::Few(vec![*only, seq]),
            Seqs::Few(list) if list.len() < FEW => list.push(seq),
            Seqs::Few(list) => {
                let mut set: RoaringTreemap = list.iter().copied().collect();
                set.insert(seq);
                *self = Seqs::Many(Box::new(Many { count: set.len(), set, last: seq }));
            }
            Seqs::Many(many) => {
                many.set.insert(seq);
                many.count += 1;
                many.last = seq;
            }
        }
    }

    /// Takes a sequence out; true when none is left and the list is to be dropped.
    pub fn remove(&mut self, seq: u64) -> bool {
        match self {
            Seqs::One(only) => *only == seq,
            Seqs::Few(list) => {
                if let Ok(at) = list.binary_search(&seq) {
                    list.remove(at);
                }
                if let [only] = list[..] {
                    *self = Seqs::One(only);
                }
                false
            }
            Seqs::Many(many) => {
                many.count -= u64::from(many.set.remove(seq));
                if many.count as usize <= FEW / 2 {
                    *self = Seqs::Few(many.set.iter().collect());
                } else if many.last == seq {
                    many.last = many.set.max().expect("more than FEW / 2 are left");
                }
                false
            }
        }
    }

    pub fn count(&self) -> u64 {
        match self {
            Seqs::One(_) => 1,
            Seqs::Few(list) => list.len() as u64,
            Seqs::Many(many) => many.count,
        }
    }

    pub fn first(&self) -> u64 {
        match self {
            Seqs::One(only) => *only,
            Seqs::Few(list) => list[0],
            Seqs::Many(many) => many.set.min().expect("a set is never empty"),
        }
    }

    pub fn last(&self) -> u64 {
        match self {
            Seqs::One(only) => *only,
            Seqs::Few(list) => list[list.len() - 1],
            Seqs::Many(many) => many.last,
        }
    }

    /// The first one at or after `from`.
    pub fn next(&self, from: u64) -> Option<u64> {
        match self {
            Seqs::One(only) => (*only >= from).then_some(*only),
            Seqs::Few(list) => list.get(list.partition_point(|&seq| seq < from)).copied(),
            Seqs::Many(many) if from > many.last => None,
            // Going there looks at one part of the set; counting up to there would look at all before it.
            Seqs::Many(many) => {
                let mut rest = many.set.iter();
                rest.advance_to(from);
                rest.next()
            }
        }
    }

    /// The last one at or before `up_to`.
    pub fn prev(&self, up_to: u64) -> Option<u64> {
        match self {
            Seqs::One(only) => (*only <= up_to).then_some(*only),
            Seqs::Few(list) => list[..list.partition_point(|&seq| seq <= up_to)].last().copied(),
            Seqs::Many(many) if up_to >= many.last => Some(many.last),
            Seqs::Many(many) => {
                let mut rest = many.set.iter();
                rest.advance_back_to(up_to);
                rest.next_back()
            }
        }
    }

    /// How many lie at or after `from`.
    pub fn count_from(&self, from: u64) -> u64 {
        match self {
            Seqs::One(only) => u64::from(*only >= from),
            Seqs::Few(list) => (list.len() - list.partition_point(|&seq| seq < from)) as u64,
            Seqs::Many(many) if from > many.last => 0,
            Seqs::Many(many) => many.count - from.checked_sub(1).map_or(0, |before| many.set.rank(before)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hw_kit::Rng;

    use super::*;

    #[test]
    fn agrees_with_a_set() {
        for spread in [1, 3, 5000, 10_000_000] {
            let mut rng = Rng::new(spread);
            let (mut seqs, mut model, mut next) = (Seqs::One(1), BTreeSet::from([1]), 2);
            for step in 0..2000 {
                let grow = if step < 1000 { 7 } else { 2 };
                if rng.below(10) < grow {
                    next += 1 + rng.below(spread);
                    seqs.push(next);
                    model.insert(next);
                } else if let part = 1 + rng.below(9)
                    && let Some(&victim) = model.iter().nth(rng.below(model.len() as u64 / part + 1) as usize)
                {
                    model.remove(&victim);
                    assert_eq!(seqs.remove(victim), model.is_empty());
                    if model.is_empty() {
                        next += 1;
                        (seqs, model) = (Seqs::One(next), BTreeSet::from([next]));
                    }
                }
                let at = rng.below(next + 2);
                assert_eq!(seqs.count(), model.len() as u64);
                assert_eq!(Some(seqs.first()), model.first().copied());
                assert_eq!(Some(seqs.last()), model.last().copied());
                assert_eq!(seqs.next(at), model.range(at..).next().copied());
                assert_eq!(seqs.prev(at), model.range(..=at).next_back().copied());
                assert_eq!(seqs.count_from(at), model.range(at..).count() as u64);
            }
        }
    }
}
