//! A consumer whose deliveries are not in the log one by one, on its stream's leader: what it delivered counts there at once,
//! and everywhere, also after a restart, when the log says so. Until then the state is what the log says.

use hw_kit::{Seq, Time};

use super::{Consumer, Position};

impl Consumer {
    /// Deliveries that are not in the log count from here on.
    pub(crate) fn run_ahead(&mut self) {
        if self.logged.is_none() {
            self.logged = Some(Box::new(self.delivered));
        }
    }

    /// Whether something was delivered that the log does not say.
    pub(crate) fn is_ahead(&self) -> bool {
        self.logged.as_ref().is_some_and(|logged| logged.stream_seq < self.delivered.stream_seq)
    }

    /// The consumer is where the log says it is.
    pub(crate) fn fall_back(&mut self) {
        let Some(logged) = self.logged.take() else { return };
        self.delivered = *logged;
        self.ack_floor = self.floor_at(*logged);
        self.count_later();
    }

    /// The log says how far it has come: a leader knew, others learn it. It never goes back.
    pub(crate) fn apply_progress(&mut self, revision: u64, (ts, consumer_seq, seq): (Time, u64, Seq)) {
        let known = self.logged.as_ref().map_or(self.delivered, |logged| **logged);
        if self.is_logged() || revision != self.revision || seq <= known.stream_seq {
            return;
        }
        let reached = Position { consumer_seq, stream_seq: seq, last_active: ts };
        self.drop_lasts(seq);
        match &mut self.logged {
            Some(logged) if seq < self.delivered.stream_seq => **logged = reached,
            Some(_) => {
                self.logged = None;
                self.delivered = reached;
            }
            None => {
                self.delivered = reached;
                self.ack_floor = self.floor_at(reached);
                self.count_later();
            }
        }
    }

    /// What was delivered and what is settled, as the log says.
    pub(super) fn places(&self) -> [Position; 2] {
        match &self.logged {
            Some(logged) => [**logged, self.floor_at(**logged)],
            None => [self.delivered, self.ack_floor],
        }
    }

    /// Without acknowledgements, everything that is delivered is settled.
    fn floor_at(&self, delivered: Position) -> Position {
        Position { last_active: self.ack_floor.last_active, ..delivered }
    }
}
