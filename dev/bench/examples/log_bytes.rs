//! `cargo run -p hw-bench --example log_bytes -- STORE/shard-0` says what a log consists of: windows, frames, commands by
//! kind. Only what docs/format.md says is used. Of a store that is not encrypted, and without what checkpoints gave up:
//! `jetstream { checkpoint_bytes: 4GB }` keeps all.

use std::collections::BTreeMap;
use std::process::ExitCode;

const FILE_HEAD: usize = 4096;
const SECTOR: usize = 512;
const WINDOW_HEAD: usize = 64;
const FRAME_HEAD: usize = 40;

/// Counts and bytes of each kind of thing.
#[derive(Default)]
struct Sum(BTreeMap<String, (u64, u64)>);

impl Sum {
    fn add(&mut self, what: &str, count: u64, bytes: usize) {
        let entry = self.0.entry(what.to_owned()).or_default();
        (entry.0, entry.1) = (entry.0 + count, entry.1 + bytes as u64);
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    let part = bytes.get(at..at + len).unwrap_or_default();
    part.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

fn read_file(bytes: &[u8], sum: &mut Sum) {
    let generation = number(bytes, 16, 8);
    let mut at = FILE_HEAD;
    while at + WINDOW_HEAD <= bytes.len() {
        let window = &bytes[at..];
        let (frames, len) = (number(window, 44, 4), number(window, 48, 4));
        let is_one = window.starts_with(b"HWwi") && number(window, 8, 8) == generation && len <= window.len();
        if !is_one {
            at += SECTOR;
            continue;
        }
        let full = len.next_multiple_of(SECTOR);
        sum.add("window heads", 1, WINDOW_HEAD);
        sum.add("space to the next 512", 1, full - len);
        let mut body = WINDOW_HEAD + frames * FRAME_HEAD;
        for frame in 0..frames {
            let head = &window[WINDOW_HEAD + frame * FRAME_HEAD..];
            sum.add("frame heads", 1, FRAME_HEAD);
            let (entries, bytes) = (number(head, 24, 4), number(head, 28, 4));
            read_frame((number(head, 0, 8), entries), &window[body..(body + bytes).min(len)], sum);
            body += bytes;
        }
        at += full.max(SECTOR);
    }
}

fn read_frame((group, entries): (usize, usize), body: &[u8], sum: &mut Sum) {
    let mut at = 0;
    for _ in 0..entries {
        let len = number(body, at, 4);
        let kind = body.get(at + 4).copied().unwrap_or_default();
        let what = if group == 0 { "of the meta group".to_owned() } else { format!("kind {kind}") };
        sum.add(&what, 1, 4 + len);
        at += 4 + len;
    }
    sum.add("space to the next 8", 1, body.len().saturating_sub(at));
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("name the folder of a shard");
        return ExitCode::FAILURE;
    };
    let mut sum = Sum::default();
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("{folder} cannot be read");
        return ExitCode::FAILURE;
    };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("wal-")) {
        if let Ok(bytes) = std::fs::read(entry.path()) {
            read_file(&bytes, &mut sum);
        }
    }
    let all: u64 = sum.0.values().map(|(_, bytes)| bytes).sum();
    for (what, (count, bytes)) in &sum.0 {
        println!("{what}: {count}, {bytes} bytes");
    }
    println!("all: {all} bytes");
    ExitCode::SUCCESS
}
