//! Direct gets on followers. A follower asks its leader how far the log is, waits until it has applied that much, and answers
//! from its own replica: that is as new as what the leader would say (Raft's read index). One question serves all gets of a round.

use std::collections::{BTreeMap, VecDeque};

use hw_cluster::PeerFrame;
use hw_kit::{GroupId, LogIndex, NodeId, Span, Time};

use super::parcel::Parcel;
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::WAITING_BYTES_MAX;

/// When the leader is silent for so long, or this replica does not come so far, the gets go to the leader after all,
const PATIENCE: Span = Span::from_millis(50);

/// and those that come in the time after without a question.
const REST: Span = Span::from_secs(1);

/// So many questions about one group are under way at once; what comes in meanwhile shares the next one.
const QUESTIONS_MAX: usize = 4;

/// Direct gets that this server is about to answer without leading their streams.
#[derive(Default)]
pub(crate) struct ReadIndexes {
    groups: BTreeMap<GroupId, Reads>,
    /// Replicas that are too far behind, and until when they are left alone.
    resting: BTreeMap<GroupId, Time>,
    /// The last question's number.
    last: u64,
    /// What the gets take in memory.
    bytes: usize,
}

/// Those of one stream.
#[derive(Default)]
struct Reads {
    /// Nobody was asked for these so far.
    fresh: Vec<Parcel>,
    questions: VecDeque<Question>,
}

struct Question {
    number: u64,
    leader: NodeId,
    due: Time,
    /// What the leader says: how far it had applied the log.
    index: Option<LogIndex>,
    gets: Vec<Parcel>,
}

/// What becomes of the oldest question's gets.
enum Next {
    Read,
    /// The leader answers them; `rests`: and the next ones.
    Leader {
        rests: bool,
    },
    /// Their stream is gone.
    Drop,
}

impl ReadIndexes {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.groups.values().filter_map(|reads| reads.questions.front()).map(|question| question.due).min()
    }

    fn take_first(&mut self, id: GroupId) -> Vec<Parcel> {
        let Some(reads) = self.groups.get_mut(&id) else { return Vec::new() };
        let gets = reads.questions.pop_front().map(|question| question.gets).unwrap_or_default();
        if reads.questions.is_empty() && reads.fresh.is_empty() {
            self.groups.remove(&id);
        }
        self.bytes -= gets.iter().map(Parcel::size).sum::<usize>();
        gets
    }
}

impl JetStream {
    /// Whether a message for a stream that is led elsewhere is a get that this server's replica can answer.
    pub(crate) fn reads_here(&self, now: Time, id: GroupId, target: Target) -> bool {
        let (Target::DirectGet(_), Some(cluster)) = (target, &self.cluster) else { return false };
        let reads = &cluster.read_indexes;
        let is_resting = reads.resting.get(&id).is_some_and(|until| *until > now);
        !is_resting && reads.bytes <= WAITING_BYTES_MAX && self.has_whole_replica(id)
    }

    fn has_whole_replica(&self, id: GroupId) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.disk.failed.is_none()) else {
            return false;
        };
        let is_member =
            self.replica(id).is_some_and(|replicated| replicated.replica.members().contains(cluster.me));
        is_member && self.is_clean(id)
    }

    /// A get for this server's replica: it is answered when the leader has said how far the log is.
    pub(crate) fn read_later(&mut self, id: GroupId, get: Parcel) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.read_indexes.bytes += get.size();
        cluster.read_indexes.groups.entry(id).or_default().fresh.push(get);
    }

    /// The gets of this round become questions.
    pub(crate) fn ask_read_indexes(&mut self, now: Time) {
        let Some(cluster) = &self.cluster else { return };
        let may_ask = |reads: &Reads| !reads.fresh.is_empty() && reads.questions.len() < QUESTIONS_MAX;
        let waiting = cluster.read_indexes.groups.iter().filter(|(_, reads)| may_ask(reads));
        let waiting: Vec<GroupId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            let leader = self.replica(id).map_or(NodeId(0), |replicated| replicated.replica.leader());
            let Some(cluster) = &mut self.cluster else { return };
            let Some(reads) = cluster.read_indexes.groups.get_mut(&id) else { continue };
            cluster.read_indexes.last += 1;
            let number = cluster.read_indexes.last;
            let gets = std::mem::take(&mut reads.fresh);
            reads.questions.push_back(Question { number, leader, due: now + PATIENCE, index: None, gets });
            cluster.send(leader, PeerFrame::ReadIndex { group: id, number });
        }
    }

    /// A follower asks how far the log of a group is that is led here.
    pub(crate) fn handle_read_index(&mut self, now: Time, from: NodeId, id: GroupId, number: u64) {
        let index =
            self.may_read(now, id).then(|| self.replica(id).map(|own| own.replica.applied())).flatten();
        if let Some(replicated) = self.replica_mut(id).filter(|_| index.is_some()) {
            // It may not know that what it has is committed, and waits for that.
            if replicated.replica.owes_commit() {
                replicated.replica.tell_commit();
                self.wake_replica(id);
            }
        }
        if let Some(cluster) = &mut self.cluster {
            cluster
                .send(from, PeerFrame::ReadIndexed { group: id, number, index: index.unwrap_or_default() });
        }
    }

    /// The leader's answer; index 0: it cannot say, as somebody else may lead by now.
    pub(crate) fn handle_read_indexed(&mut self, now: Time, id: GroupId, number: u64, index: LogIndex) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(reads) = cluster.read_indexes.groups.get_mut(&id) else { return };
        let Some(question) = reads.questions.iter_mut().find(|question| question.number == number) else {
            return;
        };
        if index == LogIndex(0) {
            question.due = now;
        } else {
            question.index = Some(index);
        }
    }

    /// Answers the gets whose time has come; says whether there were any.
    pub(crate) fn run_read_indexes(&mut self, now: Time) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let ids: Vec<GroupId> = cluster.read_indexes.groups.keys().copied().collect();
        let mut any = false;
        for id in ids {
            while let Some(next) = self.next_read(now, id) {
                any = true;
                let Some(cluster) = &mut self.cluster else { return any };
                let gets = cluster.read_indexes.take_first(id);
                match next {
                    Next::Read => gets.into_iter().for_each(|get| self.read_own(id, get)),
                    Next::Leader { rests } => {
                        if rests {
                            cluster.read_indexes.resting.insert(id, now + REST);
                        }
                        gets.into_iter().for_each(|get| self.pass_on_to_leader(now, id, get));
                    }
                    Next::Drop => {}
                }
            }
        }
        any
    }

    /// What is to be done about the oldest question; None: it waits.
    fn next_read(&mut self, now: Time, id: GroupId) -> Option<Next> {
        let cluster = self.cluster.as_ref()?;
        let question = cluster.read_indexes.groups.get(&id)?.questions.front()?;
        let Some(replicated) = self.replica(id) else {
            return Some(if self.groups.contains_key(&id) {
                Next::Leader { rests: false }
            } else {
                Next::Drop
            });
        };
        match question.index {
            _ if !self.has_whole_replica(id) => Some(Next::Leader { rests: true }),
            Some(index) if index <= replicated.replica.applied() => Some(Next::Read),
            index if question.due <= now => Some(Next::Leader { rests: index.is_some() }),
            None if cluster.peers.link(question.leader).is_none() => Some(Next::Leader { rests: false }),
            _ => None,
        }
    }

    fn read_own(&mut self, id: GroupId, get: Parcel) {
        self.handle_direct_get(id, &get.message(), Some(&get));
    }
}
