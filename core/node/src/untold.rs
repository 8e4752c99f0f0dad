//! Consumers whose deliveries are not in the log one by one: the log is told now and then how far they have come, so that
//! another leader, or this server after a restart, goes on from about there. One command for each, however much it
//! delivered.

use std::collections::BTreeSet;

use bytes::Bytes;
use hw_kit::Time;

use crate::group::Group;
use crate::limits::PROGRESS_EVERY;
use crate::log::{Log, Origin};

/// Who has delivered something that the log does not say.
#[derive(Default)]
pub(crate) struct Untold {
    names: BTreeSet<Bytes>,
    due: Option<Time>,
}

impl Untold {
    /// A consumer has.
    pub(crate) fn note(&mut self, now: Time, name: &Bytes) {
        if !self.names.contains(name) {
            self.names.insert(name.clone());
        }
        self.due.get_or_insert(now + PROGRESS_EVERY);
    }

    /// When the log is told.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.due
    }
}

impl Group {
    /// The time may have come to say how far consumers have come, or to compare what replicas are.
    pub(crate) fn tell_others(&mut self, now: Time) {
        let compares = |log: &mut Log| Some(log.replicated.as_mut()?.comparing.begin_if_due(now));
        if compares(&mut self.log) == Some(true) {
            let command = hw_stream::Command::Compare { ts: now };
            self.log.propose(Origin::None, |out| command.encode(out));
        }
        if self.untold.next_deadline().is_some_and(|due| due <= now) {
            self.tell_progress(now);
        }
    }

    /// Tells the log how far consumers have come; says whether there was something to tell.
    pub(crate) fn tell_progress(&mut self, now: Time) -> bool {
        let names = std::mem::take(&mut self.untold).names;
        let commands: Vec<_> = names.iter().filter_map(|name| self.stream.progress_of(now, name)).collect();
        for command in &commands {
            self.log.propose(Origin::None, |out| command.encode(out));
        }
        !commands.is_empty()
    }
}
