//! All replicas of a stream have the same state at the same entry, at any time: what one has applied, every other one
//! applies too, and nothing else.

use std::collections::BTreeMap;

use hw_kit::{GroupId, LogIndex, Map};

use crate::server::Server;

/// What replicas were seen to have.
#[derive(Default)]
pub struct Agreement {
    /// The fingerprint behind each entry, and who had it first.
    known: Map<(GroupId, LogIndex), (u64, usize)>,
    /// What was seen last.
    last: Map<(usize, GroupId), LogIndex>,
    looks: u64,
}

impl Agreement {
    /// A server starts from its disk.
    pub fn restarted(&mut self, host: usize) {
        self.last.retain(|(other, _), _| *other != host);
    }

    /// How often a replica was compared with what another one had.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Compares what a server has with what was seen before.
    pub fn look(&mut self, host: usize, server: &Server) -> Result<(), String> {
        for replica in server
            .replicas()
            .filter(|replica| replica.is_whole && replica.damage.is_none() && replica.applied.0 > 0)
        {
            let seen = self.last.insert((host, replica.group), replica.applied);
            if seen == Some(replica.applied) {
                continue;
            }
            if let Some(before) = seen.filter(|before| *before > replica.applied) {
                let text = format!("{}: server {host} went back from entry {}", replica.stream, before.0);
                return Err(format!("{text} to {}", replica.applied.0));
            }
            let key = (replica.group, replica.applied);
            let (first, other) = *self.known.entry(key).or_insert((replica.fingerprint, host));
            self.looks += u64::from(other != host);
            if first != replica.fingerprint {
                let (stream, applied) = (replica.stream, replica.applied.0);
                return Err(format!("{stream} at entry {applied}: servers {other} and {host} differ"));
            }
        }
        Ok(())
    }

    /// At rest: all replicas are whole and have come equally far. `but` are streams of which that is not expected.
    pub fn settled<'a>(
        servers: impl Iterator<Item = (usize, &'a Server)>,
        but: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let mut ends: BTreeMap<GroupId, (LogIndex, usize)> = BTreeMap::new();
        for (host, server) in servers {
            for replica in server.replicas().filter(|replica| !but(replica.stream)) {
                if let Some(damage) = replica.damage {
                    return Err(format!("{}: server {host} has damage: {damage}", replica.stream));
                }
                if !replica.is_whole {
                    return Err(format!("{}: server {host} is still fetching its state", replica.stream));
                }
                let (end, other) = *ends.entry(replica.group).or_insert((replica.applied, host));
                if end != replica.applied {
                    return Err(format!(
                        "{}: server {other} is at entry {}, server {host} at {}",
                        replica.stream, end.0, replica.applied.0
                    ));
                }
            }
        }
        Ok(())
    }
}
