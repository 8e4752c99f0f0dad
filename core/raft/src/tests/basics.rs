//! What one replica, or a few on perfect links, must do.

use std::panic::UnwindSafe;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId};

use crate::{Body, EntryKind, Members, Message, Ready, Replica, Role, Settings, Start};

fn voters(nodes: &[u64]) -> Members {
    Members::voting(nodes.iter().copied().map(NodeId))
}

fn replica(node: u64, members: &[u64]) -> Replica {
    let start = Start { members: voters(members), ..Start::default() };
    Replica::new(Settings::new(NodeId(node), GroupId(1)), start).unwrap()
}

/// Does at once all that is to be done; gives the messages and what was committed.
fn settle(replica: &mut Replica) -> (Vec<(NodeId, Message)>, Vec<crate::Entry>) {
    let (mut ready, mut messages, mut committed) = (Ready::default(), Vec::new(), Vec::new());
    while replica.ready(&mut ready) {
        messages.append(&mut ready.messages);
        messages.append(&mut ready.after);
        replica.handle_persisted(ready.number).unwrap();
        for entry in ready.committed.drain(..) {
            if entry.kind == EntryKind::Change {
                replica.apply_change(&entry).unwrap();
            }
            replica.handle_applied(entry.index).unwrap();
            committed.push(entry);
        }
    }
    (messages, committed)
}

#[test]
fn a_replica_may_be_caught_when_it_panics_and_moved_to_another_thread() {
    fn is<T: Send + UnwindSafe>() {}
    is::<Replica>();
}

#[test]
fn one_replica_alone_leads_and_commits() {
    let mut one = replica(1, &[1]);
    assert!(one.campaign());
    settle(&mut one);
    assert_eq!(one.role(), Role::Leader { term: 1 });
    one.propose(Bytes::from_static(b"x")).unwrap();
    let (messages, committed) = settle(&mut one);
    assert!(messages.is_empty());
    assert_eq!(committed.len(), 1);
    assert_eq!((committed[0].index, committed[0].term, &committed[0].body[..]), (LogIndex(2), 1, &b"x"[..]));
}

#[test]
fn three_elect_and_replicate() {
    let mut all: Vec<Replica> = (1..=3).map(|node| replica(node, &[1, 2, 3])).collect();
    assert!(all[0].campaign());
    let mut applied = vec![Vec::new(); 3];
    for round in 0..20 {
        if round == 10 {
            all[0].propose(Bytes::from_static(b"x")).unwrap();
        }
        let mut mail = Vec::new();
        for (at, replica) in all.iter_mut().enumerate() {
            let (messages, committed) = settle(replica);
            applied[at].extend(committed);
            mail.extend(messages.into_iter().map(|(to, message)| (NodeId(at as u64 + 1), to, message)));
        }
        for (from, to, message) in mail {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let message = Message::decode(bytes.into()).unwrap();
            all[to.0 as usize - 1].handle_message(from, message).unwrap();
        }
    }
    assert_eq!(all[0].role(), Role::Leader { term: 1 });
    assert_eq!(all[1].role(), Role::Follower { leader: NodeId(1) });
    assert_eq!(applied[0].len(), 2);
    assert!(applied.iter().all(|entries| *entries == applied[0]));
}

#[test]
fn a_wiped_replica_is_refused_by_name() {
    let mut one = replica(2, &[1, 2, 3]);
    let heartbeat = Message { term: 3, body: Body::Heartbeat { commit: LogIndex(15) } };
    let refused = one.handle_message(NodeId(1), heartbeat).unwrap_err();
    assert_eq!(refused.to_string(), "the leader commits 15, the log ends at 0");
    assert_eq!(one.term(), 0);
}
