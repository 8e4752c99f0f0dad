//! What can happen to servers and their disks.

use std::collections::VecDeque;

use hw_kit::Span;
use hw_store::FileId;

use super::{Event, World, new_disk};

impl World {
    /// The process dies; what it wrote is in the page cache.
    pub fn kill(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        let Some((server, _)) = one.server.take() else { return };
        self.checkpoints += server.volume.checkpoints();
        self.rewritten += server.volume.rewritten();
        one.epoch += 1;
        one.frozen = None;
        self.trace.line(self.agenda.now(), || format!("server {host} killed"));
        self.end_pipes(host);
        self.hang_up(host);
    }

    /// The power fails: what was not synced may be lost.
    pub fn power_cut(&mut self, host: usize) {
        self.kill(host);
        self.trace.line(self.agenda.now(), || format!("server {host}: power cut"));
        self.hosts[host].disk.crash(&mut self.rng);
    }

    /// A server gets no time for so long, and then everything at once.
    pub fn pause(&mut self, host: usize, span: Span) {
        if !self.is_up(host) || self.hosts[host].frozen.is_some() {
            return;
        }
        self.trace.line(self.agenda.now(), || format!("server {host} is stopped for {} ms", span.millis()));
        self.hosts[host].frozen = Some(VecDeque::new());
        let place = self.place(host);
        self.agenda.after(span, Event::Resume(place));
    }

    /// It goes on.
    pub fn resume(&mut self, host: usize) {
        let Some(frozen) = self.hosts[host].frozen.take() else { return };
        self.trace.line(self.agenda.now(), || format!("server {host} goes on"));
        let now = self.now();
        frozen.into_iter().for_each(|event| self.agenda.at(now, event));
    }

    /// A server's clock is set to another time.
    pub fn set_clock(&mut self, host: usize, skew: Span) {
        self.trace
            .line(self.agenda.now(), || format!("the clock of server {host} is off by {} ms", skew.millis()));
        self.hosts[host].skew = skew;
        // Its deadlines may have passed.
        for shard in 0..usize::from(self.setup.shards) {
            self.wake(host, shard);
        }
    }

    /// A disk becomes so many times slower; 1 is the usual speed.
    pub fn set_slow(&mut self, host: usize, times: i64) {
        self.hosts[host].slow = times;
    }

    /// A server that does not run loses its disk.
    pub fn wipe(&mut self, host: usize) {
        assert!(!self.is_up(host), "a disk is lost while its server is down");
        self.trace.line(self.agenda.now(), || format!("server {host} gets an empty disk"));
        let setup = self.setup;
        self.hosts[host].disk = new_disk(setup);
    }

    /// A server that does not run finds another bit on its disk than it wrote; says where. `None`: there is nothing yet.
    pub fn flip(&mut self, host: usize, of: fn(&FileId) -> bool) -> Option<String> {
        assert!(!self.is_up(host), "damage is done while the server is down");
        let disk = &mut self.hosts[host].disk;
        disk.settle();
        let is_full = |file: &FileId| of(file) && disk.content(*file).is_some_and(|bytes| !bytes.is_empty());
        let files: Vec<FileId> = disk.files().into_iter().filter(is_full).collect();
        let file = *files.get(self.rng.below(files.len() as u64) as usize)?;
        // Where there is something: most of a log file is zeros.
        let bytes = disk.content(file)?;
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = *written.get(self.rng.below(written.len() as u64) as usize)?;
        let bit = self.rng.below(8);
        disk.content_mut(file)?[at] ^= 1 << bit;
        disk.settle();
        let place = format!("{} at {at}", file.path());
        self.trace.line(self.agenda.now(), || format!("server {host}: a bit of {place} has changed"));
        Some(place)
    }
}
