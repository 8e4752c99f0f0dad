//! The judgement after everything is healed: what clients saw, what is stored, what replicas have, and that it goes on.

use hw_kit::Span;

use super::{Run, sorted, violation};
use crate::audit::{Dump, audit, has_schedules, has_work};
use crate::history::{Existence, Outcome, Violation};
use crate::invariants::{self, agree::Agreement};
use crate::server::Server;

/// Everything is healed within this.
const PEACE: Span = Span::from_secs(15);
/// What is pulled and settled within this after the last fault, or never.
const DRAIN: Span = Span::from_secs(10);

impl Run {
    pub(super) fn judge(&mut self) -> Result<(), Violation> {
        // What is on its way arrives, and who is not answered by then is not answered any more.
        self.workload.paused = true;
        self.go(Span::from_secs(2))?;
        self.audit("after all faults")?;
        self.progress()?;
        self.drain()?;
        invariants::linear::check(&self.workload.history)?;
        let first = self.audit("after the drain")?;
        invariants::delivery::check_drained(&self.workload.history, &first)?;
        self.settled()?;
        self.workload.paused = true;
        self.workload.change_leaders(&mut self.world);
        self.go(Span::from_secs(1))?;
        let second = self.audit("with other leaders")?;
        invariants::replay::compare(&first, &second, "other leaders")?;
        if self.rng.chance(1, 2) {
            (0..self.world.servers()).for_each(|host| self.world.power_cut(host));
            self.heal()?;
            self.workload.paused = true;
            self.go(Span::from_millis(500))?;
            let third = self.audit("after a restart of all")?;
            invariants::replay::compare(&second, &third, "a restart of all")?;
        }
        self.settled()
    }

    /// Asks for everything and checks it.
    fn audit(&mut self, when: &str) -> Result<Dump, Violation> {
        let Run { world, workload, .. } = self;
        let dump = audit(world, workload).map_err(sorted)?;
        world.trace.line(world.now(), || format!("audit {when}: {} streams", dump.streams.len()));
        workload.take_violation().map_or(Ok(()), Err)?;
        let is_there = |stream: &str, consumer: Option<&str>| {
            dump.streams
                .get(stream)
                .is_some_and(|found| consumer.is_none_or(|consumer| found.consumers.contains_key(consumer)))
        };
        workload.settle_unknown(&is_there);
        invariants::check(&workload.history, &dump, world.now())?;
        Ok(dump)
    }

    /// Every stream takes a message.
    fn progress(&mut self) -> Result<(), Violation> {
        let until = self.world.now() + PEACE;
        let mut open: Vec<String> = self.served();
        loop {
            self.workload.paused = true;
            let probes: Vec<(String, usize)> = open
                .iter()
                .filter_map(|name| Some((name.clone(), self.workload.probe(&mut self.world, name)?)))
                .collect();
            self.go(Span::from_millis(500))?;
            let is_open = |index: usize| {
                matches!(self.workload.history.attempts[index].outcome, Outcome::Pending | Outcome::Lost)
            };
            let without_place = open.iter().filter(|name| !probes.iter().any(|(other, _)| other == *name));
            let waiting = probes.iter().filter(|(_, index)| is_open(*index)).map(|(name, _)| name);
            open = without_place.chain(waiting).cloned().collect();
            self.workload.paused = false;
            if open.is_empty() {
                return Ok(());
            }
            if self.world.now() > until {
                return Err(violation("progress", format!("{open:?} take no messages")));
            }
        }
    }

    /// Streams that are there for certain.
    fn served(&self) -> Vec<String> {
        let history = &self.workload.history;
        let there = history.streams.iter().filter(|(name, stream)| {
            stream.existence == Existence::Yes && !history.unreachable.contains(*name)
        });
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Peace: everything that is there is delivered and settled.
    fn drain(&mut self) -> Result<(), Violation> {
        self.workload.paused = false;
        self.workload.draining = true;
        // What a server delivered whose clock was ahead waits until the next one's clock is there.
        let until = self.world.now() + DRAIN + self.workload.history.slack;
        loop {
            self.go(Span::from_millis(300))?;
            let Run { world, workload, .. } = self;
            // What is scheduled comes later where a leader's clock was set back.
            let waits = has_work(world, workload).map_err(sorted)?
                || has_schedules(world, workload).map_err(sorted)?;
            if !waits || world.now() >= until {
                return Ok(());
            }
        }
    }

    /// All replicas are whole and have come equally far, soon.
    fn settled(&mut self) -> Result<(), Violation> {
        let until = self.world.now() + PEACE;
        loop {
            let Run { world, workload, .. } = self;
            let is_excused = |stream: &str| workload.history.unreachable.contains(stream);
            // One that came back before it was taken out of the cluster has nothing that counts.
            let is_inside = |(_, server): &(usize, &Server)| !server.is_outside();
            let servers = (0..world.servers()).filter_map(|host| Some((host, world.server(host)?)));
            let servers = servers.filter(is_inside);
            match Agreement::settled(servers, &is_excused) {
                Err(text) if world.now() > until => return Err(violation("agree", text)),
                Err(_) => self.go(Span::from_millis(300))?,
                Ok(()) => return Ok(()),
            }
        }
    }
}
