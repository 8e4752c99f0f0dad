//! A store that was not sealed becomes sealed, or with another cipher, with power cuts on the way: nothing is lost, and in
//! the end nothing can be read without the key.

use hw_kit::Rng;
use hw_store::{Cipher, FileId, RecoverError, SyncPolicy, Vault, convert};

use crate::disk::{MemDisk, power_cut};
use crate::model::{Node, Reborn, open, seal, vault};

const SYNC: SyncPolicy = SyncPolicy::Always;
/// Entries have up to a hundred of these.
const PLAIN: &[u8] = b"xxxxxxxx";

fn shows_plain(disk: &MemDisk) -> bool {
    let shows = |bytes: &[u8]| bytes.windows(PLAIN.len()).any(|part| part == PLAIN);
    disk.files().into_iter().any(|file| disk.content(file).is_some_and(shows))
}

/// Whether a file that says what it is sealed with names another cipher.
fn names_other(disk: &MemDisk, cipher: Cipher) -> bool {
    disk.files().into_iter().any(|file| match file {
        FileId::Wal(_) | FileId::Checkpoint(_) | FileId::Segment(..) => {
            // What a crash left of a new file may be empty, or lack its header's first copy.
            let is_other = |bytes: &[u8]| bytes.starts_with(b"HW") && bytes[9] != cipher as u8;
            disk.content(file).is_some_and(is_other)
        }
        _ => false,
    })
}

fn steps(node: &mut Node, steps: u64) {
    for _ in 0..steps {
        if node.step().is_err() {
            break;
        }
    }
}

/// As a start does it: segments first; if nothing else is left either, nothing but sealed files is accepted from then on.
fn start(
    disk: &mut MemDisk,
    cipher: Cipher,
    judge: &dyn Fn(&MemDisk, Cipher),
) -> Result<(bool, Reborn), RecoverError> {
    // What a checkpoint that was not completed left over may be damaged: recovery removes it.
    let is_whole = convert(&vault(), &mut |op| disk.run(op))?.is_whole();
    if is_whole {
        judge(disk, cipher);
    }
    seal(Some(cipher), !is_whole);
    Ok((is_whole, open(SYNC, disk)?))
}

/// Seals the store of a node that ends here, with power cuts; gives it as it is when all of it is sealed.
fn become_sealed(node: Node, cipher: Cipher, seed: u64, judge: &dyn Fn(&MemDisk, Cipher)) -> Node {
    let mut rng = Rng::new(seed);
    let Node { mut disk, mut model, .. } = node;
    disk.crash(&mut rng);
    for round in 0..200 {
        seal(Some(cipher), true);
        // The first of these starts fail; between the others, a little is done.
        disk.ops_left = (round < 6).then(|| rng.below(if round % 2 == 0 { 40 } else { 150 }));
        match start(&mut disk, cipher, judge) {
            Ok((is_whole, found)) => {
                model.check(&found.groups);
                assert_eq!((found.damaged_segments, found.quarantined.len()), (0, 0), "{seed} {round}");
                assert!(is_whole || found.unerased, "a server is told that there is something to overwrite");
                let mut node = Node::new(found, disk, SYNC, seed + round);
                if is_whole {
                    return node;
                }
                steps(&mut node, 15);
                if round >= 6 && rng.chance(1, 2) {
                    node.checkpoint().expect("the power holds");
                    node.finish_background().expect("the power holds");
                }
                (disk, model) = (node.disk, node.model);
            }
            Err(RecoverError::Disk(error)) => assert_eq!(error, power_cut()),
            Err(error) => panic!("{seed} round {round}: {error}"),
        }
        if rng.chance(1, 2) { disk.crash(&mut rng) } else { disk.restart() }
    }
    panic!("{seed}: it is never whole");
}

#[test]
fn a_store_becomes_sealed() {
    for seed in 8..16 {
        seal(None, false);
        let mut disk = MemDisk::default();
        let reborn = open(SYNC, &mut disk).expect("a new store opens");
        let mut node = Node::new(reborn, disk, SYNC, seed);
        steps(&mut node, 250);
        assert!(shows_plain(&node.disk), "the search finds what is not sealed");
        let judge = |disk: &MemDisk, cipher: Cipher| {
            assert!(!shows_plain(disk), "{seed}: it is sealed and can be read");
            assert!(!names_other(disk, cipher), "{seed}: it is sealed and a file says otherwise");
        };
        let mut node = become_sealed(node, Cipher::Aes, seed, &judge);
        steps(&mut node, 30);
        assert!(!shows_plain(&node.disk), "{seed}: it stays so");
        // The other cipher.
        let Node { mut disk, .. } = become_sealed(node, Cipher::Chacha, seed + 1000, &judge);
        // Without the key, nothing is opened and nothing is changed.
        seal(None, false);
        let before = disk.ops_done;
        let error =
            hw_store::inspect(hw_kit::ShardId(2), &Vault::default(), &mut |op| disk.run(op), &mut |_| ());
        assert!(error.is_err_and(|error| error.to_string().contains("no key was given")));
        assert!(disk.ops_done > before);
    }
}
