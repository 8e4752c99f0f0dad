//! Replicas compare what they are. Now and then, after a stream has changed, its leader puts a command into the log at which
//! every replica makes a number of its whole state; the others tell the leader theirs, and a majority is right. Nothing is
//! compared while nothing changes, and a large state less often than a small one.

use std::collections::BTreeMap;

use hw_cluster::{PeerFrame, Verdict, judge};
use hw_kit::{GroupId, LogIndex, NodeId, Span, Time};

use super::repair::Remedy;
use crate::jetstream::JetStream;
use crate::limits::{COMPARE_BYTES_A_SECOND, COMPARE_EVERY};
use crate::notice::NoticeLevel;

/// When a group's leader compares next, and what was found last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Comparing {
    due: Option<Time>,
    /// Before that, it does not.
    not_before: Time,
    /// The entry at which this replica said last what it is, and what it said.
    said: Option<(LogIndex, u64)>,
}

impl Comparing {
    /// Something was applied: the leader compares in a while.
    pub(crate) fn handle_changed(&mut self, now: Time) {
        self.due.get_or_insert((now + COMPARE_EVERY).max(self.not_before));
    }

    /// Whether it is time; then the command is on its way, which sets the next one.
    pub(crate) fn begin_if_due(&mut self, now: Time) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = Some(Time::NEVER);
        }
        is_due
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.due.filter(|due| *due < Time::NEVER)
    }

    /// Another server leads.
    pub(crate) fn handle_stepdown(&mut self) {
        self.due = None;
    }

    /// The entry at which this replica was compared last; 0 for none.
    pub(crate) fn compared(&self) -> LogIndex {
        self.said.map_or(LogIndex(0), |(index, _)| index)
    }
}

/// What replicas have said of groups that are led here.
#[derive(Default)]
pub(crate) struct Compares {
    running: BTreeMap<GroupId, (LogIndex, BTreeMap<NodeId, u64>)>,
    /// Groups whose replicas differ so that none can be said to be right, and at which entry.
    disputed: BTreeMap<GroupId, LogIndex>,
}

impl Compares {
    pub(crate) fn forget(&mut self, id: GroupId) {
        self.running.remove(&id);
        self.disputed.remove(&id);
    }

    /// At which entry the replicas of a group were found to differ without a majority.
    pub(crate) fn disputed(&self, id: GroupId) -> Option<LogIndex> {
        self.disputed.get(&id).copied()
    }
}

impl JetStream {
    /// The command to compare was applied: this replica says what it is.
    pub(crate) fn compare(&mut self, now: Time, id: GroupId, index: LogIndex) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(replicated) = &mut group.log.replicated else { return };
        let leader = replicated.replica.leader();
        let (digest, bytes) = group.stream.digest();
        let pause = Span((bytes as i64 / COMPARE_BYTES_A_SECOND).saturating_mul(1_000_000_000));
        let not_before = now + pause.max(COMPARE_EVERY);
        replicated.comparing = Comparing { due: None, not_before, said: Some((index, digest)) };
        let is_leading = replicated.is_leading();
        let Some(cluster) = &mut self.cluster else { return };
        let me = cluster.me;
        if is_leading {
            let running = cluster.compares.running.entry(id).or_default();
            if running.0 != index {
                *running = (index, BTreeMap::new());
            }
            running.1.insert(me, digest);
            self.judge(now, id);
        } else if leader.0 != 0 && leader != me {
            cluster.send(leader, PeerFrame::Digest { group: id, index, digest });
        }
    }

    /// Another replica says what it is.
    pub(crate) fn handle_digest(
        &mut self,
        now: Time,
        from: NodeId,
        (id, index): (GroupId, LogIndex),
        digest: u64,
    ) {
        let is_leading = self.log(id).is_some_and(|log| log.is_leading() && log.replicated.is_some());
        let Some(cluster) = self.cluster.as_mut().filter(|_| is_leading) else { return };
        let running = cluster.compares.running.entry(id).or_default();
        // It may have applied the command before this server has.
        if running.0 < index {
            *running = (index, BTreeMap::new());
        }
        if running.0 == index {
            running.1.insert(from, digest);
            self.judge(now, id);
        }
    }

    fn judge(&mut self, now: Time, id: GroupId) {
        let Some(voters) = self.replica(id).map(|replicated| replicated.replica.members().voters.clone())
        else {
            return;
        };
        let Some(cluster) = &mut self.cluster else { return };
        let Some((index, said)) = cluster.compares.running.get_mut(&id) else { return };
        let index = *index;
        match judge(&voters, said) {
            Verdict::Open => {}
            Verdict::Disputed => {
                if cluster.compares.disputed.insert(id, index) != Some(index) {
                    let text = format!(
                        "{}: its replicas differ at entry {}, and no majority is the same",
                        self.raft_group(id),
                        index.0
                    );
                    self.say(NoticeLevel::Error, text);
                }
            }
            Verdict::Wrong(nodes) => {
                cluster.compares.disputed.remove(&id);
                // Each is told once.
                said.retain(|node, _| !nodes.contains(node));
                let me = cluster.me;
                for node in nodes {
                    if node == me {
                        self.diverged(now, id, index);
                    } else if let Some(cluster) = &mut self.cluster {
                        cluster.send(node, PeerFrame::Diverged { group: id, index });
                    }
                }
            }
        }
    }

    /// The leader says that this replica differs from the majority.
    pub(crate) fn handle_diverged(&mut self, now: Time, from: NodeId, (id, index): (GroupId, LogIndex)) {
        let is_meant = self.replica(id).is_some_and(|replicated| {
            replicated.replica.leader() == from && replicated.comparing.compared() == index
        });
        if is_meant && index.0 > 0 {
            self.diverged(now, id, index);
        }
    }

    fn diverged(&mut self, now: Time, id: GroupId, index: LogIndex) {
        let reason = format!("this replica differs from the others at entry {}", index.0);
        self.remedy(now, id, Remedy::Anew, reason);
    }
}
