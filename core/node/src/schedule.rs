//! Schedules: when one is due, the leader reads what it produces and proposes it.

use std::collections::BTreeSet;

use hw_kit::{GroupId, Seq, Span, Time};
use hw_stream::stream::Firing;

use crate::group::Group;
use crate::jetstream::JetStream;
use crate::log::Origin;

/// How long a schedule waits when the stream cannot take its message.
const RETRY: Span = Span::from_secs(1);

/// Schedules of one stream that fire in one round; others of the shard go first then.
const ROUND: usize = 1000;

/// What the leader knows of a stream's schedules.
#[derive(Default)]
pub(crate) struct Schedules {
    /// Those that are proposed and not applied yet, and those that cannot be read.
    skip: BTreeSet<Seq>,
    /// A block is being loaded for the next one.
    loading: bool,
    /// When to try again after a refusal.
    retry: Option<Time>,
}

impl Group {
    /// When a schedule is next due. None is while the stream has damage.
    pub(crate) fn schedule_deadline(&self) -> Option<Time> {
        if self.damage.is_some() {
            return None;
        }
        let due = self.stream.next_schedule(&self.schedules.skip).filter(|_| !self.schedules.loading)?;
        Some(self.schedules.retry.map_or(due, |retry| retry.max(due)))
    }

    /// A schedule has fired.
    pub(crate) fn handle_fired(&mut self, schedule: Seq) {
        self.schedules.skip.remove(&schedule);
    }

    /// A block was loaded, or cannot be.
    pub(crate) fn wake_schedules(&mut self) {
        self.schedules.loading = false;
    }
}

impl JetStream {
    /// Proposes what a stream's schedules produce by now.
    pub(crate) fn run_schedules(&mut self, now: Time, id: GroupId) {
        for _ in 0..ROUND {
            let Some(group) = self.groups.get(&id) else { return };
            if group.schedule_deadline().is_none_or(|due| due > now) {
                return;
            }
            match group.stream.firing(now, &group.schedules.skip) {
                Firing::Nothing => return,
                Firing::Load(block) => {
                    let failing = group.is_failing(now, block);
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.schedules.loading = !failing;
                        group.schedules.retry = failing.then(|| now + RETRY);
                    }
                    return self.load_patiently(now, id, block);
                }
                Firing::Unreadable(seq) => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.schedules.skip.insert(seq);
                    }
                }
                Firing::Fire { schedule, bytes, command } => {
                    let waits = !group.is_volatile() && (self.disk.full || self.disk.failed.is_some());
                    let refused = waits || self.no_room(id, bytes).is_some();
                    let Some(group) = self.groups.get_mut(&id) else { return };
                    if refused {
                        group.schedules.retry = Some(now + RETRY);
                        return;
                    }
                    group.schedules.retry = None;
                    group.schedules.skip.insert(schedule);
                    group.log.propose(Origin::None, |out| command.encode(out));
                    self.recount(id);
                }
            }
        }
    }
}
