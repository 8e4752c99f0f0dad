//! Bugs in what replicas say to each other, if one is planted.

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_kit::{LogIndex, Rng};
use hw_raft::{Body, EntryKind};

use crate::planted::Planted;

/// A frame as the planted bug leaves it.
pub(super) fn forge(planted: Planted, rng: &mut Rng, frame: Bytes) -> Bytes {
    let Ok(mut decoded) = PeerFrame::decode(&frame) else { return frame };
    match &mut decoded {
        PeerFrame::Raft { message, .. } => forge_message(planted, rng, &mut message.body),
        PeerFrame::Piece { last: Some(end), .. } if planted == Planted::TransfersTooFar => {
            end.applied = LogIndex(end.applied.0 + 1);
        }
        PeerFrame::Piece { body, .. } if planted == Planted::TransfersCutShort => *body = Bytes::new(),
        _ => return frame,
    }
    decoded.encode().into()
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
