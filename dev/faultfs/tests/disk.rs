//! The disk itself: what is synced stays, what is not may go, and it fails as it is told to.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // The clippy setting for tests does not reach a crate of tests.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use hw_faultfs::{Act, Fault, FaultDisk, Survival, Trouble};
use hw_kit::Rng;
use hw_testkit::TempDir;

/// A mounted disk and a place in it; None, with a printed reason, where that is not permitted.
fn disk(survival: Survival) -> Option<(FaultDisk, PathBuf, TempDir)> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    fs::create_dir(&path).unwrap();
    match FaultDisk::mount(&path, survival) {
        Ok(disk) => Some((disk, path, dir)),
        Err(error) => {
            println!("skipped: no FUSE here: {error}");
            None
        }
    }
}

fn synced(path: &std::path::Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_the_rest() {
    for survival in [Survival::Any, Survival::Ordered] {
        let Some((mut disk, path, _dir)) = disk(survival) else { return };
        let (mut rng, mut lost, mut kept, mut torn) = (Rng::new(3), 0, 0, 0);
        for round in 0..40 {
            let name = path.join(format!("kept-{round}"));
            synced(&name, &[b'a'; 3000]);
            let file = OpenOptions::new().read(true).write(true).open(&name).unwrap();
            file.write_all_at(&[b'b'; 2000], 1000).unwrap();
            let mut seen = Vec::new();
            (&file).read_to_end(&mut seen).unwrap();
            assert_eq!(&seen[..], [&[b'a'; 1000][..], &[b'b'; 2000]].concat(), "a process sees its writes");
            drop(file);
            disk.power_on(&mut rng).unwrap();
            let after = fs::read(&name).unwrap();
            assert_eq!((&after[..1000], after.len()), (&[b'a'; 1000][..], 3000), "what was synced stays");
            match after[1000..].iter().filter(|byte| **byte == b'b').count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 3 && kept > 0 && torn > 3, "{survival:?}: {lost} lost, {kept} kept, {torn} torn");
    }
}

#[test]
fn a_name_needs_a_sync_of_its_folder() {
    for (survival, wants_dir) in [(Survival::Any, true), (Survival::Ordered, false)] {
        let Some((mut disk, path, _dir)) = disk(survival) else { return };
        let (mut rng, mut lost) = (Rng::new(7), 0);
        for round in 0..20 {
            let (first, second) = (path.join(format!("a-{round}")), path.join(format!("b-{round}")));
            synced(&first, b"one");
            fs::rename(&first, &second).unwrap();
            // With a journal any sync takes the names along.
            let other = File::create(path.join("other")).unwrap();
            other.sync_all().unwrap();
            drop(other);
            disk.power_on(&mut rng).unwrap();
            assert!(first.exists() != second.exists(), "a rename happens or not");
            lost += u32::from(first.exists());
        }
        assert_eq!(lost > 0, wants_dir, "{survival:?}: {lost}");
    }
}

#[test]
fn it_fails_as_it_is_told_to() {
    let Some((mut disk, path, _dir)) = disk(Survival::Any) else { return };
    let name = path.join("sub");
    fs::create_dir(&name).unwrap();
    let name = name.join("file");
    synced(&name, &[b'x'; 9000]);
    let file = OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let mut bytes = [0; 100];

    disk.set(|faults| {
        faults.list = vec![Fault { bytes: 4096..8192, ..Fault::every(Act::Read, "sub/file", Trouble::Io) }]
    });
    assert!(file.read_at(&mut bytes, 0).is_ok());
    assert_eq!(file.read_at(&mut bytes, 5000).unwrap_err().raw_os_error(), Some(5), "EIO where it is");

    disk.set(|faults| {
        faults.list = vec![Fault { skip: 1, times: 1, ..Fault::every(Act::Write, "", Trouble::Io) }]
    });
    assert!(file.write_at(b"1", 0).is_ok());
    assert!(file.write_at(b"2", 0).is_err());
    assert!(file.write_at(b"3", 0).is_ok());

    disk.set(|faults| (faults.list, faults.write_most) = (Vec::new(), Some(10)));
    assert_eq!(file.write_at(&[0; 64], 0).unwrap(), 10, "a short write says so");

    let used = disk.used();
    disk.set(|faults| (faults.write_most, faults.capacity) = (None, Some(used + 10)));
    assert!(file.write_at(&[b'y'; 64], 0).is_ok(), "what is there can be overwritten");
    assert_eq!(file.write_at(&[0; 64], 9000).unwrap_err().kind(), ErrorKind::StorageFull);

    disk.set(|faults| (faults.capacity, faults.read_only) = (None, true));
    assert_eq!(file.write_at(b"1", 0).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::remove_file(&name).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(file.read_at(&mut bytes, 0).is_ok());
    assert!(disk.hits() >= 5);

    // After a failed sync a second one succeeds, and what the first was to write is lost all the same.
    disk.set(|faults| {
        faults.read_only = false;
        faults.list = vec![Fault { times: 1, ..Fault::every(Act::Sync, "", Trouble::Io) }];
    });
    file.write_all_at(&[b'z'; 64], 0).unwrap();
    assert!(file.sync_all().is_err());
    file.sync_all().unwrap();
    drop(file);
    disk.power_on(&mut Rng::new(1)).unwrap();
    assert_eq!(
        fs::read(&name).unwrap()[..64],
        [b'x'; 64],
        "the first content, for nothing else was ever durable"
    );
}
