//! Flipped bytes and missing files: found and named, or harmless; what is served is what was written.

use hw_kit::ShardId;
use hw_store::{Cipher, DiskOp, FileId, RecoverError, SyncPolicy, check_store};

use crate::disk::MemDisk;
use crate::model::{Groups, Node, open, seal, vault};

/// A store with segments, two checkpoints and a log tail, closed cleanly; and what it holds.
fn sample(seed: u64) -> (MemDisk, Groups) {
    let sync = SyncPolicy::Always;
    let mut disk = MemDisk::default();
    let reborn = open(sync, &mut disk).unwrap();
    let mut node = Node::new(reborn, disk, sync, seed);
    for _ in 0..2 {
        for _ in 0..4 {
            node.append().unwrap();
        }
        node.checkpoint().unwrap();
        node.finish_background().unwrap();
    }
    for _ in 0..3 {
        node.append().unwrap();
    }
    // Closing: the mark protects everything before it.
    let mut ops = Vec::new();
    let position = node.storage.mark(&mut ops).unwrap();
    node.run(ops).unwrap();
    node.storage.handle_synced(position);
    let Node { mut disk, model, .. } = node;
    disk.settle();
    (disk, model.groups)
}

/// Opens a damaged store: an error that names the file, or everything that is served is as it was.
fn check(mut disk: MemDisk, groups: &Groups, what: &str) -> &'static str {
    let mut as_found = disk.clone();
    let opened = open(SyncPolicy::Always, &mut disk);
    let mut is_sound =
        || check_store(ShardId(2), &vault(), &mut |op| as_found.run(op)).expect("the disk works").is_sound();
    match opened {
        Err(RecoverError::Damaged(damage)) => {
            assert!(!is_sound(), "{what}: the check sees {damage}, too");
            "refused"
        }
        Err(error) => panic!("{what}: {error}"),
        Ok(reborn) => {
            if reborn.damaged_segments > 0 {
                assert!(!is_sound(), "{what}: the check sees it, too");
                return "segment";
            }
            for (id, group) in groups.iter().filter(|(id, _)| !reborn.quarantined.contains(id)) {
                assert_eq!(reborn.groups.get(id), Some(group), "{what}: group {id}");
            }
            let strange: Vec<_> = reborn.groups.keys().filter(|id| !groups.contains_key(id)).collect();
            assert!(strange.is_empty(), "{what}: {strange:?}");
            assert!(reborn.quarantined.len() <= 1, "{what}: one byte costs one group at most");
            let reported = !reborn.quarantined.is_empty();
            assert!(!reported || !is_sound(), "{what}: the check sees it, too");
            if reborn.quarantined.is_empty() { "harmless" } else { "quarantined" }
        }
    }
}

#[test]
fn a_sound_store_is_sound() {
    let (mut disk, groups) = sample(5);
    let report = check_store(ShardId(2), &vault(), &mut |op| disk.run(op)).unwrap();
    assert!(report.is_sound() && report.messages > 5, "{report:?}");
    let reborn = open(SyncPolicy::Always, &mut disk).unwrap();
    assert_eq!(reborn.groups, groups);
    assert_eq!((reborn.report.torn_windows, reborn.report.orphans.len()), (0, 0));
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    flip_all(1);
}

#[test]
fn every_flipped_byte_of_a_sealed_store_is_found_or_harmless() {
    seal(Some(Cipher::Chacha), false);
    flip_all(5);
}

/// Flips one byte in so many of all that are in use.
fn flip_all(every: usize) {
    let (disk, groups) = sample(5);
    let mut seen = std::collections::BTreeMap::new();
    let newest = disk.files().into_iter().filter(|file| matches!(file, FileId::Checkpoint(_))).max();
    for file in disk.files() {
        let content = disk.content(file).unwrap().to_vec();
        // Long runs of zeros are never read or all alike: some of them stand for all.
        let is_used =
            |at: usize| content[at.saturating_sub(64)..(at + 64).min(content.len())].iter().any(|&b| b != 0);
        for at in (0..content.len()).step_by(every).filter(|&at| is_used(at) || at % 509 == 0) {
            let mut damaged = disk.clone();
            damaged.content_mut(file).unwrap()[at] ^= 1 << (at % 8);
            let outcome = check(damaged, &groups, &format!("{file} byte {at}"));
            // An older checkpoint's entry may have been replaced by a newer one.
            assert!(
                newest != Some(file) || outcome != "harmless",
                "byte {at} of the newest checkpoint counts"
            );
            *seen.entry((file.path()[..3].to_owned(), outcome)).or_insert(0) += 1;
        }
    }
    for expected in [
        ("wal", "refused"),
        ("wal", "quarantined"),
        ("wal", "harmless"),
        ("che", "refused"),
        ("che", "quarantined"),
        ("seg", "segment"),
    ] {
        assert!(seen.contains_key(&(expected.0.to_owned(), expected.1)), "{expected:?} in {seen:?}");
    }
}

#[test]
fn a_missing_or_cut_file_is_found_or_harmless() {
    let (disk, groups) = sample(6);
    for file in disk.files() {
        let mut missing = disk.clone();
        missing.remove(file);
        let outcome = check(missing, &groups, &format!("{file} is missing"));
        let len = disk.content(file).unwrap().len();
        for cut in [0, 1, len / 2, len.saturating_sub(1)] {
            let mut short = disk.clone();
            short.content_mut(file).unwrap().truncate(cut);
            check(short, &groups, &format!("{file} is cut to {cut}"));
        }
        if matches!(file, FileId::Segment(..)) {
            assert_eq!(outcome, "segment", "{file}");
        }
    }
}

/// A group whose log was damaged stays out, also when the damaged file has been put aside; its files stay.
#[test]
fn a_quarantined_group_stays_in_quarantine() {
    let (disk, groups) = sample(5);
    let sync = SyncPolicy::Always;
    let mut found = false;
    for file in disk.files().into_iter().filter(|file| matches!(file, FileId::Wal(_))) {
        for at in (4096..disk.content(file).unwrap().len()).step_by(48) {
            let mut damaged = disk.clone();
            damaged.content_mut(file).unwrap()[at] ^= 0x20;
            damaged.settle();
            let Ok(reborn) = open(sync, &mut damaged) else { continue };
            let Some(&bad) = reborn.quarantined.first() else { continue };
            found = true;
            let before: Vec<FileId> = damaged.files();
            let mut node = Node::new(reborn, damaged, sync, 9);
            for _ in 0..60 {
                node.append().unwrap();
                node.checkpoint().unwrap();
                node.finish_background().unwrap();
            }
            let Node { mut disk, model, storage, .. } = node;
            assert_eq!(storage.quarantined().map(|(group, _)| group.0).collect::<Vec<_>>(), [bad]);
            let reborn = open(sync, &mut disk).unwrap();
            assert_eq!(reborn.quarantined, [bad]);
            assert_eq!(reborn.groups, model.groups);
            let kept = |file: &FileId| match *file {
                FileId::Segment(group, _) if group.0 == bad => disk.content(*file).is_some(),
                _ => true,
            };
            assert!(before.iter().all(kept), "its segments stay");
            let aside =
                disk.files().into_iter().filter(|file| matches!(file, FileId::Quarantined(..))).count();
            assert!(aside > 0, "the damaged log file was put aside, not reused");
        }
    }
    assert!(found && !groups.is_empty());
}

#[test]
fn a_failed_sync_ends_everything() {
    let sync = SyncPolicy::Always;
    let mut disk = MemDisk::default();
    let reborn = open(sync, &mut disk).unwrap();
    let mut node = Node::new(reborn, disk, sync, 3);
    node.append().unwrap();
    node.disk.fail_sync_in = Some(0);
    let error = node.append().unwrap_err();
    node.storage.handle_failed(&error);
    let durable = node.storage.durable();
    let mut ops: Vec<DiskOp> = Vec::new();
    assert!(node.storage.append(&[], &mut ops).is_err() && node.storage.mark(&mut ops).is_err());
    assert!(node.storage.spare_job().is_none() && node.storage.begin_checkpoint(Default::default()).is_err());
    assert_eq!((ops.len(), node.storage.durable()), (0, durable));
    assert!(node.storage.failure().is_some_and(|reason| reason.contains("reports an error")));
    // What may be half there is made void; the failure of a file that the log has left behind says nothing of that.
    let failure = |number| hw_store::DiskError::Failed {
        place: FileId::Wal(number).to_string(),
        reason: String::new(),
    };
    assert!(!node.storage.void(&failure(durable.file)).is_empty());
    assert_eq!(node.storage.void(&failure(durable.file - 1)), []);
}
