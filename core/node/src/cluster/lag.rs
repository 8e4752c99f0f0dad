//! Followers learn what is committed with the next entries. When there are none for a moment, their leader tells them.

use std::collections::{BTreeMap, VecDeque};

use hw_kit::{GroupId, LogIndex, Span, Time};

use crate::jetstream::JetStream;

/// How long followers may lag behind a leader that has nothing else to say.
const LAG: Span = Span::from_millis(5);

/// Groups that are led here and whose followers may not know what is committed.
#[derive(Default)]
pub(crate) struct Lags {
    /// By when they are told; every group waits equally long.
    due: VecDeque<(Time, GroupId)>,
    /// The end of the log when the wait began: who sends entries later tells with them.
    since: BTreeMap<GroupId, LogIndex>,
}

impl Lags {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.due.front().map(|(at, _)| *at)
    }
}

impl JetStream {
    /// A replica acted: perhaps it owes its followers something from now on.
    pub(crate) fn note_lag(&mut self, now: Time, id: GroupId) {
        let Some(replicated) = self.replica(id).filter(|replicated| replicated.replica.owes_commit()) else {
            return;
        };
        let last = replicated.replica.last_index();
        let Some(cluster) = &mut self.cluster else { return };
        if let std::collections::btree_map::Entry::Vacant(vacant) = cluster.lags.since.entry(id) {
            vacant.insert(last);
            cluster.lags.due.push_back((now + LAG, id));
        }
    }

    /// Tells followers what they were not told with entries.
    pub(crate) fn run_lags(&mut self, now: Time) {
        loop {
            let Some(cluster) = &mut self.cluster else { return };
            let Some((_, id)) = cluster.lags.due.pop_front_if(|(at, _)| *at <= now) else { return };
            let since = cluster.lags.since.remove(&id);
            if let Some(replicated) = self.replica_mut(id)
                && since == Some(replicated.replica.last_index())
                && replicated.replica.owes_commit()
            {
                replicated.replica.tell_commit();
                self.wake_replica(id);
            }
            // What came in the meantime has its own wait.
            self.note_lag(now, id);
        }
    }
}
