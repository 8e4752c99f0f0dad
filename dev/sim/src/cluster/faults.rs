//! What happens to the servers of a cluster in the middle of work, and how it is healed.

use hw_kit::{NodeId, Span};
use hw_store::FileId;
use serde_json::json;

use super::Run;
use crate::history::Violation;
use crate::workload::BUCKET;

/// Messages that were held up arrive within this after everything is healed.
const LATE: Span = Span::from_millis(1200);
/// After a server dies what it had sent arrives within this.
const LAST_WORDS: Span = Span::from_millis(300);

impl Run {
    fn some_host(&mut self) -> usize {
        self.rng.below(self.world.servers() as u64) as usize
    }

    fn other_than(&mut self, host: usize) -> usize {
        let servers = self.world.servers();
        (host + 1 + self.rng.below(servers as u64 - 1) as usize) % servers
    }

    /// From now on messages may be held up, until everything is healed.
    fn hold_up(&mut self) {
        self.workload.history.stuck = true;
    }

    /// One fault, or two, and work meanwhile.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        self.workload.history.loose_until = self.world.now() + LAST_WORDS;
        self.one_fault()?;
        if self.rng.chance(1, 3) {
            self.work(0, 400)?;
            self.workload.history.loose_until = self.world.now() + LAST_WORDS;
            self.one_fault()?;
        }
        if self.rng.chance(3, 4) {
            self.work(50, 1200)?;
        }
        Ok(())
    }

    fn one_fault(&mut self) -> Result<(), Violation> {
        let host = self.some_host();
        match self.rng.below(22) {
            0 | 1 => {
                self.count("kills");
                self.world.kill(host);
            }
            2 => {
                self.count("power cuts");
                self.world.power_cut(host);
            }
            3..6 => self.blackouts()?,
            6 => {
                self.count("power cuts of some");
                for host in 0..self.world.servers() {
                    if self.rng.chance(1, 2) {
                        self.world.power_cut(host);
                    }
                }
            }
            7 | 8 => {
                self.count("partitions");
                self.hold_up();
                (0..self.world.servers())
                    .filter(|other| *other != host)
                    .for_each(|other| self.world.part(host, other));
                self.work(300, 1300)?;
            }
            9 => {
                self.count("half links");
                self.hold_up();
                let other = self.other_than(host);
                self.world.cut(host, other);
            }
            10 => {
                self.count("broken links");
                let other = self.other_than(host);
                self.world.break_links(host, other);
            }
            11 | 12 => {
                self.count("pauses");
                self.hold_up();
                let span = Span::from_millis(20 + self.rng.below(2500) as i64);
                self.world.pause(host, span);
            }
            13 => self.jump(host),
            14 => {
                self.count("slow disks");
                self.hold_up();
                let times = 5 + self.rng.below(200) as i64;
                self.world.set_slow(host, times);
            }
            15 => {
                self.count("full disks");
                let (used, more) = (self.world.disk(host).used(), self.rng.below(60_000));
                self.world.disk(host).capacity = Some(used + more);
            }
            16 => {
                self.count("failed syncs");
                let after = self.rng.below(20);
                self.world.disk(host).fail_sync_in = Some(after);
            }
            17 => self.strand()?,
            18 => self.aim()?,
            19 | 20 if self.damages => self.strike(host, false)?,
            _ => self.strike(host, true)?,
        }
        Ok(())
    }

    /// Everybody loses power while messages are under way, several times in a row.
    fn blackouts(&mut self) -> Result<(), Violation> {
        for round in 0..1 + self.rng.below(4) {
            if round > 0 {
                self.go(Span::from_millis(400))?;
                self.work(0, 500)?;
            }
            self.count("blackouts");
            (0..self.world.servers()).for_each(|host| self.world.power_cut(host));
            self.workload.history.loose_until = self.world.now() + LAST_WORDS;
            self.work(0, 30)?;
            self.start_all()?;
        }
        Ok(())
    }

    /// Who leads the bucket is cut off from all other servers, while clients reach everybody: soon another one leads, and what
    /// is written there must not be missed by who reads here.
    fn strand(&mut self) -> Result<(), Violation> {
        let Some(host) = self.world.leader_of(BUCKET) else { return Ok(()) };
        self.count("leaders that were cut off");
        self.hold_up();
        let others = (0..self.world.servers()).filter(|other| *other != host);
        others.for_each(|other| self.world.part(host, other));
        self.work(500, 900)?;
        self.workload.strand(&mut self.world, Some(host));
        self.work(300, 900)?;
        self.workload.strand(&mut self.world, None);
        Ok(())
    }

    /// A server comes back to others whose logs do not reach it any more, and it, or who brings it a state, dies while that is
    /// under way.
    fn aim(&mut self) -> Result<(), Violation> {
        let host = self.some_host();
        self.world.kill(host);
        self.work(150, 500)?;
        for other in (0..self.world.servers()).filter(|other| *other != host) {
            self.world.kill(other);
        }
        self.start_all()?;
        self.workload.history.loose_until = self.world.now() + LAST_WORDS;
        for _ in 0..400 {
            self.go(Span::from_millis(1))?;
            let Some((receiver, stream)) = self.world.fetching() else { continue };
            let leader = self.world.leader_of(&stream).filter(|_| self.rng.chance(1, 3));
            let victim = leader.unwrap_or(receiver);
            self.count("crashes while a state was fetched");
            match self.rng.chance(1, 2) {
                true => self.world.power_cut(victim),
                false => self.world.kill(victim),
            }
            break;
        }
        Ok(())
    }

    /// A clock is set to another time, forwards or back.
    fn jump(&mut self, host: usize) {
        self.count("clocks that were set");
        let range = [400, 5000, 20_000][self.rng.below(3) as usize];
        let skew = Span::from_millis(self.rng.below(2 * range) as i64 - range as i64);
        self.workload.history.slack = Span::from_secs(45);
        self.world.set_clock(host, skew);
    }

    /// A server loses its disk, or what is on it is damaged. Once in a run, and only while all others have theirs.
    fn strike(&mut self, host: usize, is_lost: bool) -> Result<(), Violation> {
        let is_whole = (0..self.world.servers()).all(|host| self.world.is_up(host));
        if self.stricken.is_some() || !is_whole {
            return Ok(());
        }
        self.stricken = Some(host);
        let Some(node) = self.world.server(host).map(|server| server.node()) else { return Ok(()) };
        self.give_up(self.fragile(host));
        self.world.kill(host);
        self.work(0, 300)?;
        if is_lost {
            self.count("lost disks");
            // Whoever placed a stream meanwhile may not have heard yet that this server is dead.
            self.give_up(self.entrusted(node));
            self.world.wipe(host);
            if self.rng.chance(1, 2) {
                self.count("removed servers");
                let body = json!({ "peer": format!("s{host}") });
                self.workload.order(&mut self.world, "$JS.API.SERVER.REMOVE", &body);
                self.work(20, 400)?;
            }
        } else {
            self.count("damaged disks");
            self.is_damaged = true;
            let of = if self.rng.chance(2, 3) { is_segment } else { is_log };
            if self.world.flip(host, of).is_none() {
                self.world.flip(host, is_log);
            }
        }
        if self.world.is_up(host) { Ok(()) } else { self.boot(host, false) }
    }

    /// Streams that are lost, or stand still, without a server's disk.
    fn fragile(&self, host: usize) -> Vec<String> {
        let Some(server) = self.world.server(host) else { return Vec::new() };
        let mut streams = self.entrusted(server.node());
        streams.append(&mut server.fragile());
        streams
    }

    /// The same, as far as others have heard, or may come to hear.
    fn entrusted(&self, node: NodeId) -> Vec<String> {
        let servers = (0..self.world.servers()).filter_map(|host| self.world.server(host));
        let told = servers.flat_map(|server| server.entrusted(node));
        // What was asked for and not answered may be decided yet, and placed there.
        told.chain(self.workload.streams_in_doubt()).collect()
    }

    /// Nothing is expected of these streams any more.
    fn give_up(&mut self, streams: Vec<String>) {
        for name in streams {
            self.workload.history.streams.remove(&name);
            self.workload.history.unreachable.insert(name);
        }
    }

    fn start_all(&mut self) -> Result<(), Violation> {
        for host in 0..self.world.servers() {
            let disk = self.world.disk(host);
            (disk.capacity, disk.fail_sync_in) = (None, None);
            if !self.world.is_up(host) {
                let cuts = self.rng.chance(1, 4);
                self.boot(host, cuts)?;
            }
        }
        Ok(())
    }

    /// The network is whole, everybody runs, disks work.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.world.heal_links();
        for host in 0..self.world.servers() {
            self.world.resume(host);
            self.world.set_slow(host, 1);
            if self.world.is_in_trouble(host).0 {
                // A store that has stopped stays so until the server is started again.
                self.world.kill(host);
            }
        }
        self.start_all()?;
        let history = &mut self.workload.history;
        history.stuck = false;
        history.loose_until = self.world.now() + LATE;
        Ok(())
    }
}

fn is_segment(file: &FileId) -> bool {
    matches!(file, FileId::Segment(..))
}

fn is_log(file: &FileId) -> bool {
    matches!(file, FileId::Wal(_))
}
