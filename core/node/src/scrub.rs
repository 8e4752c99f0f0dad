//! Sealed segments are read in the background, index and messages, so that damage is found before a reader meets it, and
//! while others still have what is damaged. A pass begins once a day at most; it reads so many bytes a second.

use hw_kit::{GroupId, Seq, Span, Time};
use hw_store::LoadedBlock;
use hw_store::messages::BlockId;

use crate::completion::LoadError;
use crate::jetstream::JetStream;
use crate::limits::{SCRUB_AFTER_START, SCRUB_EVERY, SCRUB_PAGES};

/// A page of an index on disk.
const PAGE_BYTES: u64 = 4096;
/// Between two steps, so that a slow pass is not many tiny ones; and after a disk that was busy.
const STEP: Span = Span::from_millis(10);

/// How far the pass is.
#[derive(Default)]
pub(crate) struct Scrub {
    /// Bytes a second; 0: nothing is read.
    rate: u64,
    at: Option<Spot>,
    begun: Time,
    next: Time,
    reading: Option<(GroupId, BlockId)>,
    /// How many segments were read since the start.
    pub(crate) segments: u64,
}

/// In a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    group: GroupId,
    /// The first sequence that the segment may hold, and its number.
    pub(crate) first: u64,
    segment: u64,
    /// The next page of its index; None when all were read.
    page: Option<u32>,
    /// The next message.
    from: Seq,
}

/// What is read at a spot.
pub(crate) enum Part {
    /// Pages of the index were: what is wrong there is noted, and found by whoever looks for faults. It goes on here.
    Pages(Spot),
    /// This block is to be.
    Block(BlockId),
    /// Nothing more of this segment.
    End,
}

impl Spot {
    /// A block was read.
    pub(crate) fn pass(&mut self, loaded: &LoadedBlock) {
        self.from = loaded.last().map_or(Seq(u64::MAX), Seq::next);
    }
}

impl Scrub {
    /// Reads so many bytes a second; the server starts now.
    pub(crate) fn new(now: Time, rate: u64) -> Scrub {
        Scrub { rate, next: now + SCRUB_AFTER_START, ..Scrub::default() }
    }

    /// When there is something to read next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        (self.rate > 0 && self.reading.is_none()).then_some(self.next)
    }

    /// So many bytes were read: the next ones have their time.
    fn spend(&mut self, now: Time, bytes: u64) {
        let pause = Span((bytes.saturating_mul(1_000_000_000) / self.rate.max(1)) as i64);
        self.next = now + pause.max(STEP);
    }
}

impl JetStream {
    /// Reads what is next, if it is time.
    pub(crate) fn run_scrub(&mut self, now: Time) {
        let is_due = self.scrub.next_deadline().is_some_and(|next| next <= now);
        if !is_due || self.disk.failed.is_some() {
            return;
        }
        if self.scrub.at.is_none() {
            self.scrub.begun = now;
            self.scrub.at = self.next_segment(None);
        }
        let Some(spot) = self.scrub.at else {
            self.scrub.next = now + SCRUB_EVERY;
            return;
        };
        match self.next_part(spot) {
            Part::Pages(behind) => {
                self.scrub.at = Some(behind);
                self.scrub.spend(now, u64::from(SCRUB_PAGES) * PAGE_BYTES);
            }
            Part::Block(block) => {
                self.scrub.reading = Some((spot.group, block));
                self.load_checked(spot.group, block);
            }
            Part::End => {
                self.scrub.segments += 1;
                self.scrub.at = self.next_segment(Some(spot));
                self.scrub.spend(now, 0);
                if self.scrub.at.is_none() {
                    self.scrub.next = (self.scrub.begun + SCRUB_EVERY).max(now + STEP);
                }
            }
        }
    }

    /// The segment after a place: of the same stream, or of the next one.
    fn next_segment(&self, after: Option<Spot>) -> Option<Spot> {
        let (from, first) = after.map_or((GroupId(0), None), |spot| (spot.group, Some(spot.first)));
        let mut rest = self.groups.values().skip_while(|group| group.id < from);
        rest.find_map(|group| self.segment_of(group.id, first.filter(|_| group.id == from)))
    }

    /// A stream's segment after the one that begins with a sequence; None: its first one.
    pub(crate) fn segment_of(&self, id: GroupId, after: Option<u64>) -> Option<Spot> {
        let (first, segment) = self.groups.get(&id)?.stream.messages().sealed_after(after)?;
        Some(Spot { group: id, first, segment, page: Some(0), from: Seq(first) })
    }

    /// Reads pages of a segment's index, or says what comes next.
    pub(crate) fn next_part(&self, spot: Spot) -> Part {
        let Some(messages) = self.groups.get(&spot.group).map(|group| group.stream.messages()) else {
            return Part::End;
        };
        match spot.page {
            Some(page) => {
                Part::Pages(Spot { page: messages.check_pages(spot.segment, page, SCRUB_PAGES), ..spot })
            }
            None => messages.block_within(spot.segment, spot.from).map_or(Part::End, Part::Block),
        }
    }

    /// A block was read, or not: says whether it was for this, and nobody else waits.
    pub(crate) fn take_for_scrub(
        &mut self,
        now: Time,
        id: GroupId,
        block: BlockId,
        loaded: &Result<LoadedBlock, LoadError>,
    ) -> bool {
        if self.scrub.reading.take_if(|reading| *reading == (id, block)).is_none() {
            return false;
        }
        match loaded {
            Ok(loaded) => {
                self.scrub.spend(now, loaded.bytes());
                if let Some(spot) = &mut self.scrub.at {
                    spot.pass(loaded);
                }
            }
            Err(LoadError::Busy) => self.scrub.next = now + STEP,
            // It is known by now; what else is wrong in this segment will be seen when it is mended, or by a reader.
            Err(LoadError::Failed(_) | LoadError::Damaged(_)) => {
                self.scrub.spend(now, PAGE_BYTES);
                if let Some(spot) = &mut self.scrub.at {
                    spot.from = Seq(u64::MAX);
                }
            }
        }
        self.groups.get(&id).is_some_and(|group| !group.waiting.contains_key(&block))
    }
}
