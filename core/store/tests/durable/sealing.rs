//! A store that was not sealed becomes sealed, or with another cipher, with power cuts on the way: nothing is lost, and in
//! the end nothing can be read without the key.

use hw_kit::Rng;
use hw_store::{Cipher, Converted, RecoverError, SyncPolicy, Vault, convert};

use crate::disk::{MemDisk, power_cut};
use crate::model::{Node, Reborn, open, seal, vault};

const SYNC: SyncPolicy = SyncPolicy::Always;
/// Entries have up to a hundred of these.
const PLAIN: &[u8] = b"xxxxxxxx";

fn shows_plain(disk: &MemDisk) -> bool {
    let shows = |bytes: &[u8]| bytes.windows(PLAIN.len()).any(|part| part == PLAIN);
    disk.files().into_iter().any(|file| disk.content(file).is_some_and(shows))
}

fn steps(node: &mut Node, steps: u64) {
    for _ in 0..steps {
        if node.step().is_err() {
            break;
        }
    }
}

/// As a start does it: segments first, then the rest.
fn convert_and_open(disk: &mut MemDisk) -> Result<(Converted, Reborn), RecoverError> {
    // What a checkpoint that was not completed left over may be damaged: recovery removes it.
    let converted = convert(&vault(), &mut |op| disk.run(op))?;
    Ok((converted, open(SYNC, disk)?))
}

/// Seals the store of a node that ends here, with power cuts; gives it as it is when all of it is sealed.
fn become_sealed(node: Node, cipher: Cipher, seed: u64) -> Node {
    let mut rng = Rng::new(seed);
    let Node { mut disk, mut model, .. } = node;
    disk.crash(&mut rng);
    seal(Some(cipher), true);
    for round in 0..6 {
        disk.ops_left = Some(rng.below(if round % 2 == 0 { 40 } else { 150 }));
        match convert_and_open(&mut disk) {
            Ok((_, found)) => {
                model.check(&found.groups);
                assert_eq!((found.damaged_segments, found.quarantined.len()), (0, 0));
                let mut node = Node::new(found, disk, SYNC, seed + round);
                steps(&mut node, 15);
                (disk, model) = (node.disk, node.model);
            }
            Err(RecoverError::Disk(error)) => assert_eq!(error, power_cut()),
            Err(error) => panic!("{seed} round {round}: {error}"),
        }
        disk.crash(&mut rng);
    }
    let (_, found) = convert_and_open(&mut disk).expect("the power holds");
    model.check(&found.groups);
    assert!(found.unerased, "a server is told that there is something to overwrite");
    let mut node = Node::new(found, disk, SYNC, seed + 10);
    for _ in 0..200 {
        node.append().expect("the power holds");
        node.checkpoint().expect("the power holds");
        node.finish_background().expect("the power holds");
        let converted = convert(&vault(), &mut |op| node.disk.run(op)).expect("the disk works");
        if converted.is_whole() {
            assert_eq!(converted.segments, 0, "what is new is sealed");
            return node;
        }
    }
    panic!("{seed}: it is never whole");
}

#[test]
fn a_store_becomes_sealed() {
    for seed in 0..12 {
        seal(None, false);
        let mut disk = MemDisk::default();
        let reborn = open(SYNC, &mut disk).expect("a new store opens");
        let mut node = Node::new(reborn, disk, SYNC, seed);
        steps(&mut node, 60);
        assert!(shows_plain(&node.disk), "the search finds what is not sealed");
        let mut node = become_sealed(node, Cipher::Aes, seed);
        node.disk.settle();
        assert!(!shows_plain(&node.disk), "{seed}: it is sealed and can be read");
        seal(Some(Cipher::Aes), false);
        let found = open(SYNC, &mut node.disk.clone()).expect("what is whole opens as whole");
        node.model.check(&found.groups);
        // The other cipher, and back to strictness.
        let mut node = become_sealed(node, Cipher::Chacha, seed + 100);
        node.disk.settle();
        seal(Some(Cipher::Chacha), false);
        let Node { mut disk, model, .. } = node;
        let found = open(SYNC, &mut disk).expect("what is whole opens as whole");
        model.check(&found.groups);
        // Without the key, nothing is opened and nothing is changed.
        seal(None, false);
        let before = disk.ops_done;
        let error =
            hw_store::inspect(hw_kit::ShardId(2), &Vault::default(), &mut |op| disk.run(op), &mut |_| ());
        assert!(error.is_err_and(|error| error.to_string().contains("no key was given")));
        assert!(disk.ops_done > before);
    }
}
