//! Checking a store without changing it: everything that recovery reads, and every message.

use hw_kit::ShardId;

use crate::block::LoadedBlock;
use crate::damage::{Damage, Flaw};
use crate::op::Disk;
use crate::recover::{RecoverError, Recovered, RecoveryReport, load};
use crate::segment::{HEADER_BYTES, SegmentIndex, read_header};
use crate::segment_reader::read_exact;

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
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.recovery.quarantined.is_empty()
    }
}

/// Checks the store of one shard. The server must not run. An error means that the disk failed.
pub fn check_store(shard: ShardId, disk: &mut Disk<'_>) -> Result<CheckReport, crate::op::DiskError> {
    let mut report = CheckReport::default();
    let mut indexes = Vec::new();
    let mut each = |item: Recovered| {
        if let Recovered::Segment(index) = item {
            indexes.push((index.id, index.blocks));
        }
    };
    match load(shard, false, disk, &mut each) {
        Ok(found) => report.recovery = found.report,
        Err(RecoverError::Damaged(damage)) => report.damage.push(damage),
        Err(RecoverError::Disk(error)) => return Err(error),
    }
    report.damage.extend(report.recovery.damaged_segments.iter().cloned());
    for (id, blocks) in indexes {
        let index = SegmentIndex { id, blocks, entries: Vec::new() };
        let checked = read_exact(id, 0, HEADER_BYTES as u64, disk).and_then(|head| read_header(id, &head));
        report.damage.extend(checked.err());
        check_blocks(&index, &mut report, disk);
    }
    Ok(report)
}

fn check_blocks(index: &SegmentIndex, report: &mut CheckReport, disk: &mut Disk<'_>) {
    for block in &index.blocks {
        let bytes = read_exact(index.id, block.offset, u64::from(block.len), disk);
        match bytes.and_then(|bytes| LoadedBlock::open(index.id, block, &bytes)?.messages()) {
            Ok(messages) => {
                report.messages += messages.len() as u64;
                report.segment_bytes += u64::from(block.len);
            }
            Err(Damage { flaw: Flaw::Missing, .. }) => return,
            Err(damage) => report.damage.push(damage),
        }
    }
}
