//! Checking a store without changing it: everything that recovery reads, and every message.

use hw_kit::ShardId;

use crate::damage::{Damage, Flaw};
use crate::index::{Pages, Preloaded, View};
use crate::messages::Message;
use crate::op::Disk;
use crate::recover::{RecoverError, Recovered, RecoveryReport, load};
use crate::segment::{HEADER_BYTES, SegmentInfo, read_block, read_header};
use crate::segment_reader::{read_exact, read_table};

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
    let mut segments = Vec::new();
    let mut each = |item: Recovered| {
        if let Recovered::Segment(info) = item {
            segments.push(info);
        }
    };
    match load(shard, false, disk, &mut each) {
        Ok(found) => report.recovery = found.report,
        Err(RecoverError::Damaged(damage)) => report.damage.push(damage),
        Err(RecoverError::Disk(error)) => return Err(error),
    }
    report.damage.extend(report.recovery.damaged_segments.iter().cloned());
    for info in segments {
        let id = info.id;
        let checked = read_exact(id, 0, HEADER_BYTES as u64, disk).and_then(|head| read_header(id, &head));
        report.damage.extend(checked.err());
        let read = check_blocks(&info, &mut report, disk);
        report.damage.extend(read.and_then(|messages| check_index(&info, messages, disk)).err());
    }
    Ok(report)
}

/// The messages of a segment; None where some cannot be read.
fn check_blocks(
    info: &SegmentInfo,
    report: &mut CheckReport,
    disk: &mut Disk<'_>,
) -> Result<Option<Vec<Message>>, Damage> {
    let (mut all, mut is_whole) = (Vec::new(), true);
    for block in read_table(info.id, disk)? {
        let bytes = read_exact(info.id, block.offset, u64::from(block.len), disk);
        match bytes.and_then(|bytes| read_block(info.id, &block, &bytes)) {
            Ok(messages) => {
                report.messages += messages.len() as u64;
                report.segment_bytes += u64::from(block.len);
                all.extend(messages);
            }
            Err(damage @ Damage { flaw: Flaw::Missing, .. }) => return Err(damage),
            Err(damage) => {
                report.damage.push(damage);
                is_whole = false;
            }
        }
    }
    Ok(is_whole.then_some(all))
}

/// Whether the index of a segment says of its messages what they are.
fn check_index(
    info: &SegmentInfo,
    messages: Option<Vec<Message>>,
    disk: &mut Disk<'_>,
) -> Result<(), Damage> {
    let SegmentInfo { id, place } = *info;
    let bytes = read_exact(id, place.offset, place.file_bytes(), disk)?;
    let pages = Pages::new(Box::new(Preloaded { offset: place.offset, bytes }), 1 << 20);
    let view = View { pages: &pages, id, place: &place };
    let (mut at, mut agrees) = (0, true);
    view.check(|slot, subject| {
        if let Some(messages) = &messages {
            let message = messages.get(at);
            agrees &= message.is_some_and(|message| {
                (message.seq.0, message.ts.0, message.record.subject()) == (slot.seq, slot.ts, subject)
            });
        }
        at += 1;
    })?;
    agrees &= messages.is_none_or(|messages| messages.len() == at);
    if agrees { Ok(()) } else { Err(view.malformed()) }
}
