//! Messages on their way to a segment.

use std::collections::VecDeque;
use std::sync::Arc;

use hw_kit::{Seq, Time};

use super::Message;
use super::slots::{Block, SPAN, Slots, split};

/// Messages that a segment is to hold, in ascending order: those that a stream has in memory, shared with it, as taking hundreds
/// of thousands one by one would let all other streams wait; or a list of its own.
#[derive(Clone, Debug, Default)]
pub struct SegmentInput {
    /// With the numbers of the blocks.
    shared: VecDeque<(u64, Arc<Block>)>,
    /// The offset in the first of them that is next.
    at: usize,
    own: std::vec::IntoIter<Message>,
}

impl SegmentInput {
    /// What is there of a sequence and after it, as it is now. All of it must be in memory.
    pub(super) fn share(slots: &Slots, from: u64) -> SegmentInput {
        let shared: VecDeque<_> = slots.share_from(from).collect();
        let (first, offset) = split(from);
        let at = if shared.front().is_some_and(|(key, _)| *key == first) { offset } else { 0 };
        SegmentInput { shared, at, own: Vec::new().into_iter() }
    }
}

impl From<Vec<Message>> for SegmentInput {
    fn from(messages: Vec<Message>) -> SegmentInput {
        SegmentInput { own: messages.into_iter(), ..SegmentInput::default() }
    }
}

impl FromIterator<Message> for SegmentInput {
    fn from_iter<I: IntoIterator<Item = Message>>(messages: I) -> SegmentInput {
        messages.into_iter().collect::<Vec<_>>().into()
    }
}

impl Iterator for SegmentInput {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        while let Some((key, block)) = self.shared.front() {
            if let Some(offset) = block.next_live(self.at) {
                self.at = offset + 1;
                let (slot, record) = block.get(offset);
                let record = record.expect("invariant: what is in no segment yet is in memory").clone();
                return Some(Message { seq: Seq(key * SPAN + offset as u64), ts: Time(slot.ts), record });
            }
            self.shared.pop_front();
            self.at = 0;
        }
        self.own.next()
    }
}
