//! Messages that are damaged at another server's: what this one has of them.

use hw_cluster::{Given, PeerFrame};
use hw_kit::{GroupId, NodeId, Seq};
use hw_store::messages::{BlockId, Fetch};

use super::transfer::encode;
use crate::jetstream::JetStream;
use crate::limits::PIECE_BYTES;

/// An answer that is being put together.
pub(crate) struct Giving {
    transfer: u64,
    rows: Vec<(Seq, Seq)>,
    /// The block that is being read.
    block: Option<BlockId>,
}

impl JetStream {
    /// Another replica wants messages. Who is not whole itself gives what is: messages never change.
    pub(crate) fn handle_want(&mut self, to: NodeId, (id, transfer): (GroupId, u64), rows: Vec<(Seq, Seq)>) {
        let is_fit = self.replica(id).is_some_and(|one| !one.hollow && one.replica.members().contains(to));
        let is_sound = rows.iter().all(|row| row.0 <= row.1) && rows.is_sorted();
        let Some(cluster) = self.cluster.as_mut().filter(|_| is_sound) else { return };
        if !is_fit {
            let given = Given { transfer, is_stuck: true, ..Given::default() };
            return cluster.send(to, PeerFrame::Give { group: id, given });
        }
        cluster.repairs.giving.insert((to, id), Giving { transfer, rows, block: None });
        self.give(to, id);
    }

    /// A block was read, or cannot be: whoever waited for it goes on.
    pub(crate) fn touch_giving(&mut self, id: GroupId, block: BlockId) {
        let Some(cluster) = &mut self.cluster else { return };
        let waiting = cluster.repairs.giving.iter();
        let waiting = waiting.filter(|((_, group), giving)| *group == id && giving.block == Some(block));
        let waiting: Vec<NodeId> = waiting.map(|((to, _), _)| *to).collect();
        waiting.into_iter().for_each(|to| self.give(to, id));
    }

    fn give(&mut self, to: NodeId, id: GroupId) {
        let (Some(cluster), Some(group)) = (&mut self.cluster, self.groups.get(&id)) else { return };
        let Some(giving) = cluster.repairs.giving.get_mut(&(to, id)) else { return };
        let messages = group.stream.messages();
        let mut given = Given { transfer: giving.transfer, ..Given::default() };
        let (mut body, mut block) = (Vec::new(), None);
        for &(first, last) in &giving.rows {
            given.up_to = given.up_to.max(first.prev());
            while given.up_to < last && body.len() < PIECE_BYTES && !given.is_stuck && block.is_none() {
                let at = given.up_to.next();
                let next = messages.next(at).filter(|next| *next <= last);
                let lost = messages.lost_from(at).filter(|lost| *lost <= next.unwrap_or(last));
                if let Some(lost) = lost {
                    (given.up_to, given.is_stuck) = (lost.prev(), true);
                    continue;
                }
                let Some(next) = next else {
                    // Nothing there; unless it has not come so far yet.
                    given.is_stuck = last > messages.last_seq();
                    given.up_to = last.min(messages.last_seq()).max(given.up_to);
                    continue;
                };
                given.up_to = next.prev();
                match messages.fetch(next) {
                    Fetch::Message(message) => {
                        encode(&message, &mut body);
                        given.up_to = next;
                    }
                    // What is here so far goes first.
                    Fetch::OnDisk(wanted) => block = Some(wanted),
                    Fetch::Absent => given.is_stuck = true,
                }
            }
            if given.up_to < last {
                break;
            }
        }
        let block = block.filter(|_| body.is_empty());
        if let Some(block) = block {
            giving.block = Some(block);
            return self.load(id, block);
        }
        cluster.repairs.giving.remove(&(to, id));
        given.body = body.into();
        cluster.send(to, PeerFrame::Give { group: id, given });
    }
}
