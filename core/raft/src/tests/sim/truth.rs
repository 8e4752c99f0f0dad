//! What must never be, checked against everything that happened anywhere.

use hw_kit::{Map, NodeId};

use super::{Options, Stats};
use crate::{Entry, EntryKind, Members, Refused};

/// FNV-1a of a body, and of one hash with another.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn entry_hash(entry: &Entry) -> u64 {
    hash(entry.term ^ (u64::from(entry.kind == EntryKind::Change) << 63), &entry.body)
}

struct Fact {
    term: u64,
    /// The term of who applied it first: whoever led it there had this one or an earlier.
    known_in: u64,
    /// Of the state after it.
    state: u64,
}

/// Everything that anybody knows.
#[derive(Default)]
pub(super) struct Truth {
    /// Disks were lost: nothing is known to hold.
    is_blind: bool,
    /// Links double and reorder: an answer may be older than one that came before it.
    is_late: bool,
    /// Applied by anybody, from index 1 on.
    facts: Vec<Fact>,
    /// Every entry that was in any log.
    entries: Map<(u64, u64), u64>,
    leaders: Map<u64, (NodeId, u64)>,
    /// Members after a change.
    members: Map<u64, Members>,
    /// The newest of them, and the index of their change.
    pub(super) newest: (u64, Members),
}

impl Truth {
    pub(super) fn new(members: Members, options: &Options) -> Truth {
        let (is_blind, is_late) = (options.has_wipes, !options.is_ordered);
        Truth { is_blind, is_late, newest: (0, members), ..Truth::default() }
    }

    pub(super) fn committed(&self) -> u64 {
        self.facts.len() as u64
    }

    /// A node takes an entry into its log.
    pub(super) fn logged(&mut self, entry: &Entry) -> Result<(), String> {
        let body = entry_hash(entry);
        let known = *self.entries.entry((entry.index.0, entry.term)).or_insert(body);
        if known == body || self.is_blind {
            return Ok(());
        }
        Err(format!("log matching: two entries {} of term {}", entry.index, entry.term))
    }

    /// A node applies an entry; gives the state after it.
    pub(super) fn applied(
        &mut self,
        node: NodeId,
        own_term: u64,
        before: u64,
        entry: &Entry,
    ) -> Result<u64, String> {
        let state = hash(before, &entry_hash(entry).to_le_bytes());
        let at = entry.index.0 as usize - 1;
        if self.is_blind {
            return Ok(state);
        }
        if at > self.facts.len() {
            return Err(format!("{node} applies {} after a gap", entry.index));
        }
        if at == self.facts.len() {
            self.facts.push(Fact { term: entry.term, known_in: own_term, state });
        }
        let fact = &self.facts[at];
        if (fact.term, fact.state) == (entry.term, state) {
            return Ok(state);
        }
        Err(format!("state machine safety: {node} applies another {} of term {}", entry.index, entry.term))
    }

    /// A node applied a change.
    pub(super) fn changed(&mut self, node: NodeId, index: u64, members: &Members) -> Result<(), String> {
        let known = self.members.entry(index).or_insert_with(|| members.clone());
        if known != members && !self.is_blind {
            return Err(format!("members: {node} has {members:?} after {index}, others {known:?}"));
        }
        if index > self.newest.0 {
            self.newest = (index, members.clone());
        }
        Ok(())
    }

    /// A node leads; `term_at` reads its log.
    pub(super) fn leads(
        &mut self,
        node: NodeId,
        boot: u64,
        term: u64,
        term_at: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), String> {
        let known = *self.leaders.entry(term).or_insert((node, boot));
        if self.is_blind {
            return Ok(());
        }
        if known != (node, boot) {
            return Err(format!("election safety: {node} (boot {boot}) and {known:?} lead term {term}"));
        }
        for (at, fact) in self.facts.iter().enumerate() {
            let index = at as u64 + 1;
            // None: compacted, so applied, so checked.
            if fact.known_in < term && term_at(index).is_some_and(|found| found != fact.term) {
                return Err(format!("leader completeness: {node} leads term {term} without {index}"));
            }
        }
        Ok(())
    }

    /// Whether a refusal can happen between honest nodes.
    pub(super) fn refused(&self, why: Refused) -> Result<(), String> {
        match why {
            _ if self.is_blind => Ok(()),
            Refused::Stranger(_) | Refused::Unasked(_) => Ok(()),
            Refused::LostLog { .. } if self.is_late => Ok(()),
            why => Err(format!("an honest message was refused: {why}")),
        }
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.elections = self.leaders.len() as u64;
        stats.committed = self.committed();
        stats.changes = self.members.len() as u64;
    }
}
