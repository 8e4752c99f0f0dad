//! Bugs in what replicas say to each other, if one is planted.

use bytes::Bytes;
use hw_cluster::{PeerFrame, ReplicaNote};
use hw_kit::{LogIndex, Rng};
use hw_raft::{Body, EntryKind};

use crate::planted::Planted;

/// A frame as the planted bug leaves it.
pub(super) fn forge(planted: Planted, rng: &mut Rng, frame: Bytes) -> Bytes {
    let Ok(mut decoded) = PeerFrame::decode(&frame) else { return frame };
    match &mut decoded {
        PeerFrame::Raft { message, .. } => forge_message(planted, rng, &mut message.body),
        PeerFrame::ReadIndexed { index, .. } if planted == Planted::OldReadIndexes => *index = LogIndex(1),
        PeerFrame::Piece { last: Some(end), .. } if planted == Planted::TransfersTooFar => {
            end.applied = LogIndex(end.applied.0 + 1);
        }
        PeerFrame::Piece { last: Some(end), group, .. } if takes_away(planted) && group.0 != 0 => {
            let Some(state) = without(planted, &end.state) else { return frame };
            end.state = state.into();
        }
        PeerFrame::Piece { body, .. } if planted == Planted::TransfersCutShort => *body = Bytes::new(),
        _ => return frame,
    }
    decoded.encode().into()
}

fn takes_away(planted: Planted) -> bool {
    matches!(planted, Planted::TransfersWithoutConsumers | Planted::TransfersWithoutIds)
}

/// A stream's state without its consumers, or without the message ids of its duplicate window. As in docs/format.md.
fn without(planted: Planted, state: &Bytes) -> Option<Vec<u8>> {
    let mut stream = state.clone();
    ReplicaNote::take(&mut stream).ok()?;
    let mut at = state.len() - stream.len() + 1 + 6 * 8;
    let number = |at: usize| {
        let bytes = state.get(at..at + 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let skip_block = |at: &mut usize| {
        *at += 8 + number(*at)?;
        Some(())
    };
    skip_block(&mut at)?;
    skip_block(&mut at)?;
    let ids = at;
    at += 8 + number(at)? * 32;
    let ids_end = at;
    at += 8 + number(at)? * 17;
    let totals = number(at)?;
    at += 8;
    for _ in 0..totals {
        at += 8;
        skip_block(&mut at)?;
    }
    let consumers = at;
    let count = number(at)?;
    at += 8;
    for _ in 0..2 * count {
        skip_block(&mut at)?;
    }
    let (from, to) = if planted == Planted::TransfersWithoutIds { (ids, ids_end) } else { (consumers, at) };
    Some([&state[..from], &[0; 8], state.get(to..)?].concat())
}

fn forge_message(planted: Planted, rng: &mut Rng, body: &mut Body) {
    match (planted, body) {
        (Planted::FalseVotes, Body::VoteAnswer { is_granted, .. }) => *is_granted = true,
        (Planted::EagerCommits, Body::Append { commit, entries, .. }) => {
            if let Some(last) = entries.last() {
                *commit = last.index;
            }
        }
        (Planted::LostEntries, Body::Append { entries, .. }) => {
            for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::Batch) {
                if rng.chance(1, 40) {
                    entry.body = Bytes::new();
                }
            }
        }
        (Planted::ChangedEntries, Body::Append { entries, .. }) => {
            for entry in entries.iter_mut().filter(|entry| entry.body.len() > 40) {
                if rng.chance(1, 40) {
                    let mut bytes = entry.body.to_vec();
                    *bytes.last_mut().expect("it has 40") ^= 1;
                    entry.body = bytes.into();
                }
            }
        }
        _ => {}
    }
}
