//! Checking a store without changing it: everything that recovery reads, and every message.

use hw_kit::ShardId;

use crate::block::LoadedBlock;
use crate::checkpoint::decode;
use crate::damage::{Damage, Flaw};
use crate::index::{Held, Pages, Preloaded, View};
use crate::layout::{Dir, FileId};
use crate::messages::Message;
use crate::op::{Disk, DiskError, list, read};
use crate::recover::{Reading, RecoverError, Recovered, RecoveryReport, load};
use crate::segment::{HEADER_BYTES, SegmentId, SegmentInfo, read_header};
use crate::segment_reader::{read_exact, read_segment_info, read_table};
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
    let mut segments = Vec::new();
    let mut each = |item: Recovered| {
        if let Recovered::Segment(info) = item {
            segments.push(info);
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
    for info in segments {
        let checked = check_segment(&info, vault, &mut report, disk);
        report.damage.extend(checked.err());
    }
    Ok(report)
}

/// Reads everything in a segment. An error ends it; what is damaged and does not end it is noted.
fn check_segment(
    info: &SegmentInfo,
    vault: &Vault,
    report: &mut CheckReport,
    disk: &mut Disk<'_>,
) -> Result<(), Damage> {
    let head = read_exact(info.id, 0, HEADER_BYTES as u64, disk).and_then(|head| read_header(info.id, &head));
    report.damage.extend(head.err());
    let (mut all, mut is_whole) = (Vec::new(), true);
    for block in read_table(info.id, disk)? {
        let bytes = read_exact(info.id, block.offset, u64::from(block.len), disk);
        let read = bytes.and_then(|bytes| LoadedBlock::open(info.id, &block, &bytes, vault)?.messages());
        is_whole &= read.is_ok();
        match read {
            Ok(messages) => all.extend(messages),
            Err(Damage { flaw: Flaw::NoKey, .. }) => {}
            Err(damage @ Damage { flaw: Flaw::Missing, .. }) => return Err(damage),
            Err(damage) => {
                report.damage.push(damage);
                continue;
            }
        }
        report.messages += u64::from(block.count);
        report.segment_bytes += u64::from(block.len);
    }
    check_index(info, vault, is_whole.then_some(all), disk)
}

/// Whether the index of a segment says of its messages what they are.
fn check_index(
    info: &SegmentInfo,
    vault: &Vault,
    messages: Option<Vec<Message>>,
    disk: &mut Disk<'_>,
) -> Result<(), Damage> {
    let SegmentInfo { id, place } = *info;
    let bytes = read_exact(id, place.offset, place.file_bytes(), disk)?;
    let files = Box::new(Preloaded { offset: place.offset, bytes });
    let pages = Pages::new(files, 1 << 20, vault.clone());
    pages.check(id, &place)?;
    if place.cipher.is_some() && vault.cipher().is_none() {
        return Ok(());
    }
    let held = Held::default();
    let view = View { pages: &pages, id, place: &place, held: &held };
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
        let checked =
            read_segment_info(id, len, disk).and_then(|info| check_segment(&info, &vault, &mut report, disk));
        report.note(checked.err());
    }
    report.damage.dedup();
    Ok(report)
}
