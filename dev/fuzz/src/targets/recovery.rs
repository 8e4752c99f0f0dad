//! Damaged stores: bytes say what to change in which file; whatever opens serves nothing but what was stored.

use std::sync::OnceLock;

use hw_sim::Sample;
use hw_store::FileId;
use hw_testkit::disk::MemDisk;

fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        (0..4).map(|seed| Sample::new(seed).expect("the simulation's own tests hold")).collect()
    })
}

/// Changes of six bytes each: the file, the kind, where, and how.
pub(super) fn corpus() -> Vec<Vec<u8>> {
    let mut all = vec![vec![0], vec![1], vec![2], vec![3]];
    for sample in 0..4u8 {
        for file in 0..12 {
            for kind in 0..6 {
                all.push(vec![sample, file, kind, 40 + 17 * file, 90, 3, 1]);
            }
        }
    }
    all
}

/// The first byte chooses the store.
pub fn fuzz_recovery(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let samples = samples();
    let sample = &samples[usize::from(*first) % samples.len()];
    let files = sample.files();
    let mut damage = |disk: &mut MemDisk| {
        for change in rest.chunks_exact(6).take(16) {
            apply(disk, &files, change);
        }
    };
    if let Err(violation) = sample.open(&mut damage) {
        let of =
            |change: &[u8]| format!("{} kind {}", files[usize::from(change[0]) % files.len()], change[1] % 8);
        let changes: Vec<String> = rest.chunks_exact(6).take(16).map(of).collect();
        panic!("store {first}, changed {changes:?}: {violation:?}");
    }
}

fn apply(disk: &mut MemDisk, files: &[FileId], change: &[u8]) {
    let &[file, kind, high, low, count, value] = change else { return };
    let Some(&file) = files.get(usize::from(file) % files.len().max(1)) else { return };
    if kind % 8 == 5 {
        return disk.remove(file);
    }
    let (number, len) = (usize::from(high) * 256 + usize::from(low), usize::from(count) + 1);
    let Some(content) = disk.content_mut(file) else { return };
    if content.is_empty() {
        return;
    }
    // Small files are damaged near their place, long ones all over.
    let at = number * content.len() / 65_536;
    let end = (at + len).min(content.len());
    match kind % 8 {
        0 => content[at] ^= 1 << (value % 8),
        1 => content[at..end].fill(value),
        2 => content.truncate(at),
        3 => content.extend(std::iter::repeat_n(value, len)),
        4 => {
            // A stale copy of what lies elsewhere.
            let from = (at / 2) & !7;
            let copy = content[from..(from + len).min(content.len())].to_vec();
            let end = (at + copy.len()).min(content.len());
            content[at..end].copy_from_slice(&copy[..end - at]);
        }
        6 => {
            let sector = at & !511;
            let end = (sector + 512).min(content.len());
            content[sector..end].fill(0);
        }
        _ => content[at..end].reverse(),
    }
}
