//! Which blocks are loaded before their messages are chosen.

use bytes::Bytes;
use hw_store::messages::BlockId;

use super::world::World;
use crate::lead::PullRequest;
use crate::outcome::Effect;

/// Blocks that a pull of `batch` messages asks for: the one that it waits for, and those that it has loaded ahead.
fn asked(filter: &str, batch: i64, budget: u64) -> (Vec<u32>, Vec<u32>) {
    let config = format!(r#"{{"durable_name":"C","ack_policy":"explicit","filter_subject":"{filter}"}}"#);
    let mut world = World::new(&config, &[]);
    // Each block has two messages: every sixth matches `a.0`, so that each match is in a block of its own.
    let published: Vec<String> = (0..240).map(|at| format!("a.{}", at % 6)).collect();
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    world.put_on_disk(&published, 3000);
    world.messages.set_cache_budget(budget);
    world.call(|lead, m, out| {
        lead.handle_pull(m, Bytes::from_static(b"r"), &PullRequest::of(batch), out);
        lead.pump(m, out);
    });
    let block = |id: &BlockId| id.block;
    let (mut waited, mut ahead) = (Vec::new(), Vec::new());
    for effect in &world.out.effects {
        match effect {
            Effect::Load(id) => waited.push(block(id)),
            Effect::LoadAhead(id) => ahead.push(block(id)),
            other => panic!("{other:?}"),
        }
    }
    (waited, ahead)
}

#[test]
fn blocks_of_the_next_matches_come_with_the_first() {
    assert_eq!(asked("a.0", 5, 1 << 20), (vec![0], vec![3, 6, 9, 12]));
    assert_eq!(asked("a.0", 1, 1 << 20), (vec![0], vec![]), "nobody waits for more");
    // A quarter of what is kept: 16 blocks of 8 KiB.
    assert_eq!(asked("a.0", 1000, 512 << 10).1.len(), 16);
    assert_eq!(asked("a.0", 1000, 0).1, [0; 0], "they would not stay");
    assert_eq!(asked("a.*", 5, 1 << 20), (vec![0], vec![]), "a block has several: one is enough for a while");
}
