//! Stores that this version of the format wrote: every later version opens them as they were.
//!
//! `tests/golden/NAME/` holds a store's files as they are on disk, but for the zeros at their ends, with their lengths in
//! `files.txt` and what is to be found in `found.txt`. `HEADWATER_GOLDEN=NAME` writes a new one from today's program; those
//! that are there stay as they are.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Golden files are files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use hw_kit::Rng;
use hw_store::{Cipher, Dir, FileId};

use crate::disk::MemDisk;
use crate::model::seal;
use crate::stream::{Load, Machine, Plain, open, read_all};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// How the store of this name is sealed: `v1-aes` with AES, `v1-chacha` with ChaCha20, others not at all.
fn seal_for(name: &str) {
    let cipher = match name.rsplit('-').next() {
        Some("aes") => Some(Cipher::Aes),
        Some("chacha") => Some(Cipher::Chacha),
        _ => None,
    };
    seal(cipher, false);
}

fn described(applied: u64, plain: &Plain) -> String {
    let mut text = format!("applied {applied} last {}\n", plain.last);
    for (seq, (subject, payload)) in &plain.messages {
        writeln!(text, "{seq} {subject} {payload}").expect("a string takes everything");
    }
    text
}

/// A store with segments, packed ones among them, a checkpoint and a log behind it.
fn record(name: &str) {
    seal_for(name);
    let mut disk = MemDisk::default();
    let opened = open(&mut disk).expect("a new store opens");
    let mut machine = Machine::new(opened, Load::KeyValue, 41);
    for _ in 0..220 {
        machine.step(&mut disk, &mut |_, _, _| {});
    }
    drop(machine);
    disk.settle();
    let (to, mut lengths) = (folder().join(name), String::new());
    for file in disk.files() {
        let content = disk.content(file).expect("it is listed");
        let end = content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        writeln!(lengths, "{} {}", file.path(), content.len()).expect("a string takes everything");
        let path = to.join(file.path());
        fs::create_dir_all(path.parent().expect("it is in a folder")).unwrap();
        fs::write(path, &content[..end]).unwrap();
    }
    fs::write(to.join("files.txt"), lengths).unwrap();
    let mut opened = open(&mut disk).expect("what was written opens");
    let found = read_all(&mut opened.messages, &mut disk);
    fs::write(to.join("found.txt"), described(opened.applied, &found)).unwrap();
}

fn load(from: &Path) -> MemDisk {
    let mut disk = MemDisk::default();
    for line in fs::read_to_string(from.join("files.txt")).unwrap().lines() {
        let (path, len) = line.split_once(' ').expect("a path and a length");
        let file = match path.strip_prefix("segments/") {
            Some(name) => FileId::parse(Dir::Segments, name),
            None => FileId::parse(Dir::Root, path),
        };
        let mut content = fs::read(from.join(path)).unwrap();
        content.resize(len.parse().expect("a length"), 0);
        disk.put(file.expect("a file of the store"), content);
    }
    disk
}

#[test]
fn stores_of_earlier_versions_open_as_they_were() {
    if let Ok(name) = std::env::var("HEADWATER_GOLDEN") {
        record(&name);
    }
    let mut names: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 3, "plain, and with each cipher");
    for from in names {
        seal_for(&from.file_name().expect("a name").to_string_lossy());
        let mut disk = load(&from);
        let expected = fs::read_to_string(from.join("found.txt")).unwrap();
        // As it was, and after this version has gone on with it.
        let mut opened = open(&mut disk).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let found = read_all(&mut opened.messages, &mut disk);
        assert_eq!(described(opened.applied, &found), expected, "{}", from.display());
        disk.crash(&mut Rng::new(1));
        let mut again = open(&mut disk).unwrap_or_else(|error| panic!("{}, again: {error}", from.display()));
        let found = read_all(&mut again.messages, &mut disk);
        assert_eq!(described(again.applied, &found), expected, "{}, again", from.display());
    }
    seal(None, false);
}
