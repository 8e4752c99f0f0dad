//! Which servers a stream gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hw_kit::NodeId;

use crate::Meta;

/// What is wanted of a stream's servers.
#[derive(Clone, Debug, Default)]
pub struct Wish<'a> {
    /// How many there are to be.
    pub replicas: usize,
    /// Those that it has and may keep: they come first.
    pub kept: &'a [u64],
    /// Those that can be reached, in any order.
    pub reached: &'a [NodeId],
    /// Tags that each of them must have, or must not have where one begins with `!`.
    pub tags: &'a [String],
    /// No two of them have the same tag of those that begin so, and each has one. Empty: no matter.
    pub unique: &'a str,
    /// A server that has so many streams with others gets no more of them; 0: no matter.
    pub max_shared: usize,
}

/// There are not enough servers, and why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NoPlace {
    /// Tags that servers did not have.
    pub unmatched: Vec<String>,
    /// Servers were left out because others stand where they do.
    pub is_not_unique: bool,
    /// Servers were left out because they have as many streams as they may.
    pub is_full: bool,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no suitable peers for placement")?;
        if self.is_not_unique {
            write!(f, ", server tag not unique")?;
        }
        if self.is_full {
            // The real server has no other word for it.
            write!(f, ", miscellaneous issue")?;
        }
        if !self.unmatched.is_empty() {
            write!(f, ", tags not matched ['{}']", self.unmatched.join("', '"))?;
        }
        Ok(())
    }
}

impl Meta {
    /// Servers for a stream: those that it has, then those with the fewest streams. The one that is first of the fewest
    /// streams comes first, unless one is kept.
    pub fn place(&self, wish: &Wish<'_>) -> Result<Vec<u64>, NoPlace> {
        let load = self.load();
        let of = |node: &u64| load.get(node).copied().unwrap_or_default();
        let is_full = |node: &u64| {
            wish.max_shared > 0
                && wish.replicas > 1
                && !wish.kept.contains(node)
                && self.shared_on(*node) >= wish.max_shared
        };
        let mut new: Vec<u64> = wish.reached.iter().map(|node| node.0).collect();
        new.retain(|node| !wish.kept.contains(node));
        new.sort_by_key(|node| (of(node).0, *node));
        let mut why = NoPlace::default();
        let (mut chosen, mut taken): (Vec<u64>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
        for node in wish.kept.iter().chain(&new) {
            if chosen.len() == wish.replicas {
                break;
            }
            let tags = self.tags(NodeId(*node));
            let missing: Vec<&String> = wish.tags.iter().filter(|tag| !matches(tag, tags)).collect();
            if !missing.is_empty() {
                why.unmatched.extend(missing.into_iter().cloned());
                continue;
            }
            if is_full(node) {
                why.is_full = true;
                continue;
            }
            if !wish.unique.is_empty() {
                let own = tags.iter().find(|tag| begins_with(tag, wish.unique));
                if !own.is_some_and(|tag| taken.insert(tag)) {
                    why.is_not_unique = true;
                    continue;
                }
            }
            chosen.push(*node);
        }
        if chosen.len() < wish.replicas {
            why.unmatched.sort();
            why.unmatched.dedup();
            return Err(why);
        }
        let kept = chosen.iter().take_while(|node| wish.kept.contains(node)).count();
        chosen[kept..].sort_by_key(|node| (of(node).1, *node));
        Ok(chosen)
    }

    /// A server's tags.
    pub fn tags(&self, node: NodeId) -> &[String] {
        self.nodes().find(|(other, _)| *other == node).map_or(&[], |(_, about)| &about.tags)
    }

    /// How many streams a server has with others.
    pub fn shared_on(&self, node: u64) -> usize {
        self.all().filter(|(_, asset)| asset.peers.len() > 1 && asset.peers.contains(&node)).count()
    }

    /// How many streams each server has, and how many of them it is the first of.
    fn load(&self) -> BTreeMap<u64, (usize, usize)> {
        let mut load: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (_, asset) in self.all() {
            for (at, node) in asset.peers.iter().enumerate() {
                let (all, first) = load.entry(*node).or_default();
                *all += 1;
                *first += usize::from(at == 0);
            }
        }
        load
    }
}

/// Whether a server with these tags is meant.
pub fn matches(wanted: &str, tags: &[String]) -> bool {
    let has = |wanted: &str| tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted));
    match wanted.strip_prefix('!') {
        Some(unwanted) => !has(unwanted),
        None => has(wanted),
    }
}

fn begins_with(tag: &str, prefix: &str) -> bool {
    tag.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetaCommand;

    fn meta() -> Meta {
        let mut meta = Meta::default();
        let tags = [&["az:a", "ssd"][..], &["az:b", "ssd"], &["az:b"], &["az:c"], &[]];
        for (node, tags) in (1..).zip(tags) {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            meta.apply(MetaCommand::Join { node, name: format!("n{node}"), tags });
        }
        meta
    }

    #[test]
    fn tags_and_places_of_their_own() {
        let (meta, reached) = (meta(), [1, 2, 3, 4, 5].map(NodeId));
        let place = |replicas, kept: &[u64], tags: &[&str], unique: &str| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let wish = Wish { replicas, kept, reached: &reached, tags: &tags, unique, ..Wish::default() };
            meta.place(&wish).map_err(|why| why.to_string())
        };
        let refused = |reasons: &str| Err(format!("no suitable peers for placement{reasons}"));
        assert_eq!(place(2, &[], &[], ""), Ok(vec![1, 2]));
        assert_eq!(place(2, &[4], &[], ""), Ok(vec![4, 1]), "who is kept comes first");
        assert_eq!(place(2, &[], &["SSD"], ""), Ok(vec![1, 2]));
        assert_eq!(place(1, &[1], &["!ssd"], ""), Ok(vec![3]), "who does not fit is not kept");
        assert_eq!(place(3, &[], &["ssd"], ""), refused(", tags not matched ['ssd']"));
        assert_eq!(place(6, &[], &[], ""), refused(""));
        assert_eq!(place(3, &[], &[], "az:"), Ok(vec![1, 2, 4]), "two stand in one place, one in none");
        assert_eq!(place(4, &[], &[], "az:"), refused(", server tag not unique"));
        let both = ", server tag not unique, tags not matched ['ssd']";
        assert_eq!(place(1, &[], &["ssd"], "rack:"), refused(both));
    }

    #[test]
    fn streams_are_spread() {
        let (mut meta, reached) = (meta(), [1, 2, 3].map(NodeId));
        let mut firsts = BTreeSet::new();
        for number in 0..3 {
            let wish = Wish { replicas: 3, reached: &reached, ..Wish::default() };
            let peers = meta.place(&wish).expect("there are three");
            firsts.insert(peers[0]);
            let config =
                Box::new(hw_stream::StreamConfig { name: format!("S{number}"), ..Default::default() });
            meta.apply(MetaCommand::Create { ts: 1, account: "A".into(), config, max_streams: -1, peers });
        }
        assert_eq!(firsts.len(), 3, "each is the first of one");
        let place = |replicas, kept: &[u64], max_shared| {
            let wish = Wish { replicas, kept, reached: &reached, max_shared, ..Wish::default() };
            meta.place(&wish).map_err(|why| why.to_string())
        };
        let refused = Err("no suitable peers for placement, miscellaneous issue".to_owned());
        assert_eq!(place(3, &[], 3), refused, "each has three");
        assert_eq!(place(3, &[], 4).map(|peers| peers.len()), Ok(3));
        assert_eq!(place(1, &[], 1).map(|peers| peers.len()), Ok(1), "one that has no others does not count");
        assert_eq!(place(2, &[1, 2], 1), Ok(vec![1, 2]), "who has it may keep it");
    }
}
