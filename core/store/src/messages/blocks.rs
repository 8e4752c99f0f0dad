//! The blocks that were loaded and stay for a while: the newest, within a budget.

use std::collections::VecDeque;

use hw_kit::{Map, Seq};

use super::{BlockId, Fetch, Messages};
use crate::block::LoadedBlock;
use crate::limits::BLOCK_BYTES_MAX;

/// Bytes of written messages that stay in memory, unless the node says otherwise.
pub(super) const BUDGET: u64 = 1 << 20;

/// Loaded blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    loaded: Map<BlockId, LoadedBlock>,
    /// Oldest first, with their sizes.
    order: VecDeque<(BlockId, u64)>,
    bytes: u64,
}

impl Blocks {
    /// A message that the index says is in this block.
    pub fn fetch(&self, id: BlockId, seq: u64) -> Fetch {
        let Some(block) = self.loaded.get(&id) else { return Fetch::OnDisk(id) };
        match block.get(Seq(seq)) {
            Some(Ok(message)) => Fetch::Message(message),
            // What is not what was written is read again and checked as a whole; after that, it is damaged.
            _ if !block.is_checked() => Fetch::OnDisk(id),
            _ => Fetch::Absent,
        }
    }

    /// Keeps a block, and within `budget` those that were loaded before.
    pub fn load(&mut self, id: BlockId, block: LoadedBlock, budget: u64) {
        let size = block.bytes();
        if self.loaded.insert(id, block).is_some() {
            return;
        }
        self.order.push_back((id, size));
        self.bytes += size;
        // The newest always stays: it is what somebody waits for.
        while self.bytes > budget && self.order.len() > 1 {
            let (oldest, size) = self.order.pop_front().expect("more than one");
            self.loaded.remove(&oldest);
            self.bytes -= size;
        }
    }

    /// Forgets a segment that is gone.
    pub fn unload(&mut self, segment: u64) {
        let (loaded, bytes) = (&mut self.loaded, &mut self.bytes);
        self.order.retain(|(id, size)| {
            if id.segment == segment {
                loaded.remove(id);
                *bytes -= size;
            }
            id.segment != segment
        });
    }
}

impl Messages {
    /// A block was read: its messages can be fetched for a while.
    pub fn handle_block(&mut self, id: BlockId, block: LoadedBlock) {
        self.segments.blocks.load(id, block, self.segments.budget);
    }

    /// How many blocks may be loaded before they are asked for: with those that are, they should stay until they are used.
    pub fn blocks_ahead(&self) -> usize {
        let Blocks { order, bytes, .. } = &self.segments.blocks;
        let usual = bytes.checked_div(order.len() as u64).unwrap_or(0).max(BLOCK_BYTES_MAX as u64);
        (self.segments.budget / 4 / usual) as usize
    }

    /// Whether a block is here. Who is sent to the disk for it all the same has met damage: it is to be checked.
    pub fn is_loaded(&self, id: BlockId) -> bool {
        self.segments.blocks.loaded.contains_key(&id)
    }
}
