//! What a power cut leaves.

use std::collections::BTreeMap;

use hw_kit::Rng;

use crate::tree::{Body, Change, ROOT, Tree, What};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Which file system lost its power.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survival {
    /// One that keeps its promises and nothing else: of what was not synced any subset survives, down to single sectors,
    /// and of names that no sync of their folder covers as well.
    Any,
    /// A kind one, as ext4 with its defaults: what was not synced survives in the order in which it was done up to some
    /// point, for each file and for all names; any sync makes all names durable.
    Ordered,
}

impl Tree {
    /// The power comes back: what was not durable is there or not.
    pub(crate) fn cut(&mut self, survival: Survival, rng: &mut Rng) {
        // Between "nothing survives" and "everything does" lies all that matters.
        let keep = rng.below(5);
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
            if let Body::File(file) = &mut inode.body {
                let open = std::mem::take(&mut file.open);
                match survival {
                    Survival::Any => {
                        open.iter().for_each(|change| tear(change, &mut file.durable, keep, rng))
                    }
                    Survival::Ordered => cut_short(&open, &mut file.durable, rng),
                }
                file.current.clone_from(&file.durable);
            }
        }
        let names = std::mem::take(&mut self.names);
        let prefix = rng.below(names.len() as u64 + 1);
        let keep = rng.below(5);
        for (change, at) in names.iter().zip(0..) {
            let survives = match survival {
                Survival::Any => rng.chance(keep, 4),
                Survival::Ordered => at < prefix,
            };
            if survives {
                self.apply_names(change, true);
            }
        }
        self.show_durable();
    }

    /// A process sees what is durable, from the topmost folder down.
    fn show_durable(&mut self) {
        let mut found = BTreeMap::from([(ROOT, (ROOT, std::ffi::OsString::new()))]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            let Some(Body::Dir(body)) = self.inodes.get_mut(&dir).map(|inode| &mut inode.body) else {
                continue;
            };
            body.current = body.durable.clone();
            for (name, ino) in body.durable.clone() {
                if found.insert(ino, (dir, name)).is_none() {
                    open.push(ino);
                }
            }
        }
        self.inodes.retain(|ino, _| found.contains_key(ino));
        for (ino, (parent, name)) in found {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                (inode.parent, inode.name) = (parent, name);
            }
        }
    }
}

/// A write wholly, or each of its sectors, or not.
fn tear(change: &Change, durable: &mut Vec<u8>, keep: u64, rng: &mut Rng) {
    let What::Write { offset, data } = &change.what else {
        if rng.chance(keep, 4) {
            change.what.apply(durable);
        }
        return;
    };
    let is_whole = rng.below(3) == 0;
    let whole = rng.chance(keep, 4);
    let mut at = 0;
    while at < data.len() {
        let len = (SECTOR - (offset + at) % SECTOR).min(data.len() - at);
        if if is_whole { whole } else { rng.chance(keep, 4) } {
            let part = What::Write { offset: offset + at, data: data[at..at + len].to_vec() };
            part.apply(durable);
        }
        at += len;
    }
}

/// Changes up to one of them, and of that one the first sectors.
fn cut_short(open: &[Change], durable: &mut Vec<u8>, rng: &mut Rng) {
    let whole = rng.below(open.len() as u64 + 1) as usize;
    open[..whole].iter().for_each(|change| change.what.apply(durable));
    if let Some(Change { what: What::Write { offset, data }, .. }) = open.get(whole) {
        let sectors = rng.below((data.len() / SECTOR) as u64 + 1) as usize;
        let end = ((offset + sectors * SECTOR) / SECTOR * SECTOR).saturating_sub(*offset).min(data.len());
        What::Write { offset: *offset, data: data[..end].to_vec() }.apply(durable);
    }
}
