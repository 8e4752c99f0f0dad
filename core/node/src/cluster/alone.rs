//! Before a server is alone with a stream it reads all that it has of it on disk: what is damaged there comes from the others
//! while they still have it.

use std::collections::{BTreeSet, VecDeque};

use hw_kit::{GroupId, NodeId, Span, Time};
use hw_raft::{MemberChange, MemberStep};
use hw_store::LoadedBlock;
use hw_store::messages::BlockId;

use crate::completion::LoadError;
use crate::jetstream::JetStream;
use crate::log::Log;
use crate::scrub::{Part, Spot};

/// Between two parts of an index: what clients want goes first.
const STEP: Span = Span::from_millis(1);
/// After a read that failed.
const PAUSE: Span = Span::from_secs(1);

/// Streams that are read before their other servers go.
#[derive(Default)]
pub(crate) struct Proofs {
    asked: VecDeque<GroupId>,
    /// How far the first of them is.
    at: Option<Spot>,
    next: Time,
    reading: Option<(GroupId, BlockId)>,
    /// Those that were read, and are whole.
    whole: BTreeSet<GroupId>,
}

impl Proofs {
    /// When to go on.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        (!self.asked.is_empty() && self.reading.is_none()).then_some(self.next)
    }

    /// What was found of a stream does not count any more, or is not wanted.
    pub(crate) fn forget(&mut self, id: GroupId) {
        if self.asked.front() == Some(&id) {
            (self.at, self.reading, self.next) = (None, None, Time(0));
        }
        self.asked.retain(|asked| *asked != id);
        self.whole.remove(&id);
    }
}

impl JetStream {
    /// Whether members may change so. If this server is alone after it, all of the stream is read first, and the change comes
    /// when it was.
    pub(crate) fn may_change(&mut self, id: GroupId, wanted: &[NodeId], change: &MemberChange) -> bool {
        let Some(cluster) = &mut self.cluster else { return true };
        let removes = change.steps.iter().any(|step| matches!(step, MemberStep::Remove(_)));
        if !removes || wanted != [cluster.me] || cluster.proofs.whole.contains(&id) {
            return true;
        }
        if !cluster.proofs.asked.contains(&id) {
            cluster.proofs.asked.push_back(id);
        }
        false
    }

    /// Reads what is next, if it is time.
    pub(crate) fn run_proofs(&mut self, now: Time) {
        let Some(proofs) = self.cluster.as_ref().map(|cluster| &cluster.proofs) else { return };
        let Some(&id) = proofs.asked.front().filter(|_| proofs.reading.is_none() && proofs.next <= now)
        else {
            return;
        };
        if !self.log(id).is_some_and(Log::is_leading) {
            return self.forget_proof(id);
        }
        let Some(spot) = proofs.at.or_else(|| self.segment_of(id, None)) else { return self.end_proof(id) };
        let (mut at, mut reading, mut next) = (Some(spot), None, now);
        match self.next_part(spot) {
            Part::Pages(behind) => (at, next) = (Some(behind), now + STEP),
            Part::Block(block) => {
                reading = Some((id, block));
                self.load_checked(id, block);
            }
            Part::End => match self.segment_of(id, Some(spot.first)) {
                None => return self.end_proof(id),
                behind => (at, next) = (behind, now + STEP),
            },
        }
        if let Some(cluster) = &mut self.cluster {
            (cluster.proofs.at, cluster.proofs.reading, cluster.proofs.next) = (at, reading, next);
        }
    }

    /// All of a stream was read.
    fn end_proof(&mut self, id: GroupId) {
        self.forget_proof(id);
        let is_whole = self
            .groups
            .get(&id)
            .is_some_and(|group| group.damage.is_none() && group.stream.messages().fault().is_none());
        if let Some(cluster) = self.cluster.as_mut().filter(|_| is_whole) {
            cluster.proofs.whole.insert(id);
            cluster.growing.insert(id);
        }
    }

    pub(crate) fn forget_proof(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.proofs.forget(id);
        }
    }

    /// A block was read, or not: says whether it was for this, and nobody else waits.
    pub(crate) fn take_for_proof(
        &mut self,
        now: Time,
        id: GroupId,
        block: BlockId,
        loaded: &Result<LoadedBlock, LoadError>,
    ) -> bool {
        let Some(proofs) = self.cluster.as_mut().map(|cluster| &mut cluster.proofs) else { return false };
        if proofs.reading.take_if(|reading| *reading == (id, block)).is_none() {
            return false;
        }
        match loaded {
            Ok(loaded) => {
                proofs.next = now;
                if let Some(spot) = &mut proofs.at {
                    spot.pass(loaded);
                }
            }
            Err(LoadError::Busy) => proofs.next = now + STEP,
            Err(LoadError::Failed(_)) => proofs.next = now + PAUSE,
            // It is mended before this server leads the stream again, and asks again.
            Err(LoadError::Damaged(_)) => proofs.forget(id),
        }
        self.groups.get(&id).is_some_and(|group| !group.waiting.contains_key(&block))
    }
}
