//! Checking a store without changing it: everything that recovery reads, and every message.

use hw_kit::ShardId;

use crate::checkpoint::decode;

use crate::damage::{Damage, Flaw};
use crate::layout::{Dir, FileId};
use crate::op::{Disk, DiskError};
use crate::op::{list, read};
use crate::recover::{Reading, RecoverError, Recovered, RecoveryReport, load};
use crate::segment::{HEADER_BYTES, SegmentId, SegmentIndex, read_block, read_header};
use crate::segment_reader::{read_exact, read_segment_index, read_trailer_and_table};
use crate::vault::Vault;
use crate::wal_scan::{ScanError, WalScan};

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// What recovery would report; segments of unknown groups are not looked for.
    pub recovery: RecoveryReport,
    /// Messages in segments that were read and are as they were written.
    pub messages: u64,
    /// Bytes of all segments that were read.
    pub segment_bytes: u64,
    /// All damage: in segments, and what keeps the store from being opened.
    pub damage: Vec<Damage>,
    /// The store is sealed and there was no key: all checksums were compared and nothing was opened. What belongs together
    /// is not known then.
    pub is_blind: bool,
}

impl CheckReport {
    /// Takes down damage, and what could not be looked into.
    fn note(&mut self, damage: impl IntoIterator<Item = Damage>) {
        self.damage.extend(damage.into_iter().filter(|damage| damage.flaw != Flaw::NoKey));
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.recovery.quarantined.is_empty()
    }
}

/// Checks the store of one shard. The server must not run. An error means that the disk failed. Without the key of a
/// store that is sealed, checksums alone are compared.
pub fn check_store(shard: ShardId, vault: &Vault, disk: &mut Disk<'_>) -> Result<CheckReport, DiskError> {
    let mut report = CheckReport::default();
    let mut indexes = Vec::new();
    let mut each = |item: Recovered| {
        if let Recovered::Segment(index) = item {
            indexes.push((index.id, index.blocks));
        }
    };
    let reading = Reading { shard, accept_loss: false, vault: vault.clone() };
    match load(&reading, disk, &mut each) {
        Ok(found) => report.recovery = found.report,
        Err(RecoverError::Damaged(Damage { flaw: Flaw::NoKey, .. })) => return check_blindly(shard, disk),
        Err(RecoverError::Damaged(damage)) => report.damage.push(damage),
        Err(RecoverError::Disk(error)) => return Err(error),
    }
    report.damage.extend(report.recovery.damaged_segments.iter().cloned());
    for (id, blocks) in indexes {
        let index = SegmentIndex { id, blocks, entries: Vec::new() };
        let checked = read_exact(id, 0, HEADER_BYTES as u64, disk).and_then(|head| read_header(id, &head));
        report.damage.extend(checked.err());
        check_blocks(&index, vault, &mut report, disk);
    }
    Ok(report)
}

fn check_blocks(index: &SegmentIndex, vault: &Vault, report: &mut CheckReport, disk: &mut Disk<'_>) {
    for block in &index.blocks {
        let bytes = read_exact(index.id, block.offset, u64::from(block.len), disk);
        match bytes.and_then(|bytes| read_block(index.id, block, &bytes, vault)) {
            Ok(messages) => {
                report.messages += messages.len() as u64;
                report.segment_bytes += u64::from(block.len);
            }
            Err(Damage { flaw: Flaw::Missing, .. }) => return,
            Err(Damage { flaw: Flaw::NoKey, .. }) => {
                report.messages += u64::from(block.count);
                report.segment_bytes += u64::from(block.len);
            }
            Err(damage) => report.damage.push(damage),
        }
    }
}

/// Compares all checksums of a sealed store. Which segments are needed is not known: all are looked at.
fn check_blindly(shard: ShardId, disk: &mut Disk<'_>) -> Result<CheckReport, DiskError> {
    let mut report = CheckReport { is_blind: true, ..CheckReport::default() };
    let vault = Vault::default();
    let root = list(Dir::Root, disk)?.files;
    let mut newest = None;
    for &(file, len) in &root {
        let FileId::Checkpoint(number) = file else { continue };
        match decode(number, &read(file, 0, len, disk)?, &vault) {
            Ok(checkpoint) => {
                report.recovery.checkpoint = Some(number);
                report.recovery.groups = checkpoint.entries.len() as u64;
                newest = Some(checkpoint.head);
                report.note(checkpoint.entries.into_iter().filter_map(|(_, entry)| entry.err()));
            }
            Err(damage) => report.note([damage]),
        }
    }
    let wal = root.iter().filter_map(|&(file, len)| match file {
        FileId::Wal(number) => Some((number, len)),
        _ => None,
    });
    let wal: Vec<(u64, u64)> = wal.collect();
    let scanned = WalScan::new((shard, &vault, true), &wal, disk).and_then(|mut scan| {
        if let Some(head) = newest {
            scan.set_claim(head.durable, head.captured.session);
        }
        scan.run(newest.map(|head| head.start), &mut |frame| report.note(frame.frame.err()))
    });
    match scanned {
        Ok(scanned) => report.recovery.torn_windows = scanned.torn_windows,
        Err(ScanError::Damage(damage)) => report.note([damage]),
        Err(ScanError::Disk(error)) => return Err(error),
    }
    for (file, len) in list(Dir::Segments, disk)?.files {
        let FileId::Segment(group, number) = file else { continue };
        let id = SegmentId { group, number };
        let head = read_exact(id, 0, HEADER_BYTES as u64, disk).and_then(|head| read_header(id, &head));
        report.note(head.err());
        report.note(read_segment_index(id, len, &vault, disk).err());
        match read_trailer_and_table(id, disk) {
            Ok((_, blocks)) => {
                let index = SegmentIndex { id, blocks, entries: Vec::new() };
                check_blocks(&index, &vault, &mut report, disk);
            }
            Err(damage) => report.note([damage]),
        }
    }
    report.damage.dedup();
    Ok(report)
}
