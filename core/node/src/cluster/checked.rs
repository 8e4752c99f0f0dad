//! The frames of a replica's entries that are on their way. A body is checked and counted once, when it is proposed or
//! comes in; until it is applied its frame is found here, and what is not found is made again.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::GroupId;
use hw_raft::{Entry, EntryKind};
use hw_store::{Frame, FrameKind, FrameMeta};

use super::replicated::frame_of;

/// Bodies that came in and were not taken by the replica are forgotten beyond so many.
const FRESH_MAX: usize = 256;

/// Frames of bodies that are known to be sound.
#[derive(Default)]
pub(crate) struct Checked {
    /// Not in the log yet, in the order in which they came.
    fresh: VecDeque<Frame>,
    /// In the log and not applied, by index.
    logged: VecDeque<Frame>,
}

impl Checked {
    /// Keeps the frame of a body that is about to be proposed or handled.
    pub(crate) fn keep(&mut self, frame: Frame) {
        if self.fresh.len() == FRESH_MAX {
            self.fresh.pop_front();
        }
        self.fresh.push_back(frame);
    }

    /// The frame of an entry that goes into the log; None when its bytes are not what a leader sends.
    pub(crate) fn log(&mut self, group: GroupId, entry: &Entry) -> Option<Frame> {
        let found = self.fresh.iter().position(|frame| holds(frame, entry));
        let frame = match found {
            Some(at) => {
                let frame = self.fresh.drain(..=at).next_back();
                frame.map(|frame| frame.placed(meta_of(group, entry)))
            }
            None => frame_of(group, entry),
        }?;
        while self.logged.pop_back_if(|later| later.first() >= frame.first()).is_some() {}
        self.logged.push_back(frame.clone());
        Some(frame)
    }

    /// The frame of an entry that is applied, which is the next one in the log.
    pub(crate) fn take(&mut self, group: GroupId, entry: &Entry) -> Option<Frame> {
        while self.logged.pop_front_if(|earlier| earlier.first() < entry.index).is_some() {}
        let is_it = |frame: &mut Frame| frame.meta() == meta_of(group, entry) && holds(frame, entry);
        self.logged.pop_front_if(is_it).or_else(|| frame_of(group, entry))
    }
}

/// Whether a frame was made of this very body.
fn holds(frame: &Frame, entry: &Entry) -> bool {
    let same = |a: &Bytes, b: &Bytes| a.as_ptr() == b.as_ptr() && a.len() == b.len();
    entry.kind == EntryKind::Batch && same(frame.body(), &entry.body)
}

/// Where an entry's frame stands.
pub(super) fn meta_of(group: GroupId, entry: &Entry) -> FrameMeta {
    let kind = match entry.kind {
        EntryKind::Batch => FrameKind::Batch,
        EntryKind::Change => FrameKind::Change,
    };
    FrameMeta { group, term: entry.term, first: entry.index, kind }
}

#[cfg(test)]
mod tests {
    use hw_kit::LogIndex;
    use hw_store::FrameBuilder;

    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn frame(text: &[u8]) -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(text);
        builder.finish(FrameMeta { group: GROUP, term: 1, first: LogIndex(1), kind: FrameKind::Batch })
    }

    fn entry(index: u64, term: u64, body: Bytes) -> Entry {
        Entry { index: LogIndex(index), term, kind: EntryKind::Batch, body }
    }

    #[test]
    fn a_frame_is_found_where_its_body_is_and_made_where_it_is_not() {
        let mut checked = Checked::default();
        let (a, b, c) = (frame(b"a"), frame(b"bb"), frame(b"ccc"));
        checked.keep(a);
        checked.keep(b.clone());
        // The first one never came to the log.
        let logged = checked.log(GROUP, &entry(7, 4, b.log_body())).unwrap();
        assert_eq!((logged.first(), logged.term(), logged.body()), (LogIndex(7), 4, b.body()));
        assert!(checked.fresh.is_empty());
        let unknown = checked.log(GROUP, &entry(8, 4, c.log_body())).unwrap();
        assert_eq!(unknown.body(), c.body());
        // Another leader replaced both; the bytes of the same commands elsewhere in memory are others.
        let copy = Bytes::copy_from_slice(b.body());
        let again = checked.log(GROUP, &entry(7, 5, copy.clone())).unwrap();
        assert_eq!(checked.logged.iter().collect::<Vec<_>>(), [&again]);
        assert_eq!(checked.take(GROUP, &entry(7, 5, copy)), Some(again));
        assert_eq!(checked.take(GROUP, &entry(8, 5, c.log_body())).unwrap().first(), LogIndex(8));
        assert_eq!(checked.log(GROUP, &entry(9, 5, Bytes::from_static(b"12345678"))), None);
    }
}
