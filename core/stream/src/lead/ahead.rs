//! Reading ahead: who has to wait for a block has those of the next messages loaded with it, where each lies in a block of its own,
//! as with a filter that matches few. They are then chosen together and take one command.

use hw_kit::Seq;
use hw_store::messages::BlockId;

use super::{Lead, Moment, PumpOut};
use crate::outcome::Effect;

/// The most messages that are looked at.
const LOOK: u64 = 64;
/// Where a block has more than one, it is looked again after so many blocks.
const DENSE: u8 = 8;

impl Lead {
    /// A message is to be delivered for the first time, and must be loaded.
    pub(super) fn load_new(&mut self, m: &Moment<'_>, (seq, block): (Seq, BlockId), out: &mut PumpOut) {
        let mut next = seq.next();
        let find = |lead: &mut Lead| {
            let from = next;
            let found =
                lead.with_matcher(m, |matcher| m.consumer.next_undelivered_near(from, m.messages, matcher))?;
            next = found.next();
            Some(found)
        };
        self.load_ahead(m, block, find, out);
    }

    /// The first message of those that come again must be loaded.
    pub(super) fn load_again(&mut self, m: &Moment<'_>, block: BlockId, out: &mut PumpOut) {
        let mut at = 0;
        let find = |lead: &mut Lead| {
            at += 1;
            lead.redeliver.get(at).copied()
        };
        self.load_ahead(m, block, find, out);
    }

    fn load_ahead(
        &mut self,
        m: &Moment<'_>,
        block: BlockId,
        mut find: impl FnMut(&mut Lead) -> Option<Seq>,
        out: &mut PumpOut,
    ) {
        out.effects.push(Effect::Load(block));
        if self.dense > 0 {
            self.dense -= 1;
            return;
        }
        let (mut room, mut last) = (m.messages.blocks_ahead(), block);
        for _ in 1..self.wanted().min(LOOK) {
            // What follows is in memory, or in a segment that costs much to ask.
            let next = find(self).and_then(|seq| m.messages.block(seq));
            let Some(next) = next.filter(|_| room > 0) else { return };
            if next == last {
                self.dense = DENSE;
                return;
            }
            if !m.messages.is_loaded(next) {
                out.effects.push(Effect::LoadAhead(next));
                room -= 1;
            }
            last = next;
        }
    }

    /// How many messages somebody waits for, if they are few.
    fn wanted(&self) -> u64 {
        if self.push.is_some() {
            return LOOK;
        }
        let waiting = (0..LOOK as usize).map_while(|at| self.requests.at(at));
        waiting.fold(0, |sum, (_, waiting)| sum.saturating_add(waiting.left))
    }
}
