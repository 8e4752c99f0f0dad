//! A store as a server left it, to be damaged and opened again: what is served afterwards must be what was there.

use hw_kit::Span;
use hw_store::FileId;
use hw_testkit::disk::MemDisk;

use crate::audit::{Dump, audit};
use crate::history::Violation;
use crate::planted::Planted;
use crate::server::Setup;
use crate::trace::Trace;
use crate::workload::Workload;
use crate::world::{Ground, Start, World};

/// A disk with streams and consumers on it, and what its server showed last.
#[derive(Clone, Debug)]
pub struct Sample {
    seed: u64,
    disk: MemDisk,
    dump: Dump,
}

/// What became of a damaged store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opened {
    /// The server did not start, and said why.
    Refused,
    /// It started; what could be read is right.
    Served {
        /// Messages that were compared.
        messages: usize,
    },
}

impl Sample {
    /// Runs a seed's workload for a while and stops the server.
    pub fn new(seed: u64) -> Result<Sample, Violation> {
        let mut world = World::new(seed, setup(seed), Ground::alone(), Trace::new(false));
        let mut workload = Workload::new(seed, &mut world);
        world.boot(0, Start::default()).map_err(wrong)?;
        for _ in 0..3 {
            workload.run(&mut world, Span::from_millis(60)).map_err(wrong)?;
            world.kill(0);
            workload.run(&mut world, Span::from_millis(20)).map_err(wrong)?;
            world.boot(0, Start::default()).map_err(wrong)?;
            workload.restarted();
        }
        let dump = audit(&mut world, &mut workload).map_err(wrong)?;
        world.kill(0);
        let mut disk = world.disk(0).clone();
        disk.settle();
        Ok(Sample { seed, disk, dump })
    }

    /// The files that can be damaged.
    pub fn files(&self) -> Vec<FileId> {
        self.disk.files()
    }

    /// Damages a copy, opens it and compares everything that it serves.
    pub fn open(&self, damage: &mut dyn FnMut(&mut MemDisk)) -> Result<Opened, Violation> {
        let mut world = World::new(self.seed, setup(self.seed), Ground::alone(), Trace::new(false));
        *world.disk(0) = self.disk.clone();
        damage(world.disk(0));
        world.disk(0).settle();
        let mut workload = Workload::new(self.seed, &mut world);
        if world.boot(0, Start { tolerant: true, ..Start::default() }).is_err() {
            return Ok(Opened::Refused);
        }
        // Where a segment's index is lost, the log behind the checkpoint is replayed on less than there was: what it
        // decides may differ. Such a stream says that it is damaged.
        let damaged = world.damaged(0);
        let Ok(found) = audit(&mut world, &mut workload) else { return Ok(Opened::Served { messages: 0 }) };
        let mut messages = 0;
        for (name, stream) in &found.streams {
            let Some(before) = self.dump.streams.get(name).filter(|_| !damaged.contains(name)) else {
                continue;
            };
            // A log that was cut may show an earlier stream of this name.
            if before.info["created"] != stream.info["created"] {
                continue;
            }
            for (seq, stored) in &stream.messages {
                let Some(original) = before.messages.get(seq) else { continue };
                messages += 1;
                if original != stored {
                    let brief = |bytes: &[u8]| bytes[..bytes.len().min(12)].escape_ascii().to_string();
                    let (was, is) = (brief(&original.payload), brief(&stored.payload));
                    let text = format!(
                        "{name} {seq}: {} {was:?} is served as {} {is:?}",
                        original.subject, stored.subject
                    );
                    return Err(Violation { invariant: "damage", text });
                }
            }
        }
        Ok(Opened::Served { messages })
    }
}

fn setup(seed: u64) -> Setup {
    Setup {
        shards: 1,
        checkpoint_bytes: [4 << 10, 60 << 10][seed as usize % 2],
        wal_bytes: 144 << 10,
        planted: Planted::Nothing,
    }
}

fn wrong(text: String) -> Violation {
    Violation { invariant: "sample", text }
}
