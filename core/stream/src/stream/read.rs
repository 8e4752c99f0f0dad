//! Reading messages: one by sequence or subject, several in a row, the last of each subject.

use std::collections::VecDeque;

use hw_kit::{Seq, Time};
use hw_store::messages::{BlockId, Fetch, Matcher, Message};

use super::Stream;

/// The most subjects that one request for last messages may match.
const MULTI_LAST: usize = 1024;

/// Why a batch cannot start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BatchRefused {
    /// Nothing matches.
    Nothing,
    /// More than 1,024 subjects match.
    TooMany,
}

/// A batch that is being read.
#[derive(Debug)]
pub struct BatchRead {
    source: Source,
    /// Messages that may still be sent.
    batch: u64,
    /// Bytes that may still be sent; the message that reaches the bound is sent.
    max_bytes: u64,
    /// Matching messages that follow.
    pending: u64,
    last: Seq,
    up_to: Option<Seq>,
}

#[derive(Debug)]
enum Source {
    Matching { at: Seq, matcher: Matcher },
    Listed(VecDeque<Seq>),
}

/// How a batch goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchStep {
    /// The next message, how many follow and the sequence of the one before.
    Message {
        /// The message.
        message: Message,
        /// How many match after this one.
        pending: u64,
        /// The one before; 0 for the first.
        last: Seq,
    },
    /// This block must be loaded first; then ask again.
    Load(BlockId),
    /// The next message is there and damaged.
    Damaged,
    /// Nothing follows.
    End(BatchEnd),
}

/// The end of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchEnd {
    /// How many matching messages follow.
    pub pending: u64,
    /// The last message that was sent.
    pub last: Seq,
    /// For last messages: as of which sequence.
    pub up_to: Option<Seq>,
}

impl Stream {
    /// A message by sequence.
    pub fn get(&self, seq: Seq) -> Fetch {
        self.messages.fetch(seq)
    }

    /// The last message whose subject matches.
    pub fn last_by_subject(&self, filter: &str) -> Option<Seq> {
        // What is no valid subject and has no wildcard either matches nothing but itself.
        match !filter.is_empty() && hw_subject::is_literal(filter.as_bytes()) {
            true => self.messages.last_of(filter.as_bytes()),
            false => self.messages.last_matching(filter, self.messages.last_seq()),
        }
    }

    /// The first message at or after a sequence whose subject matches; an empty filter matches all.
    pub fn next_by_subject(&self, from: Seq, filter: &str) -> Option<Seq> {
        let filters: &[&str] = if filter.is_empty() { &[] } else { &[filter] };
        self.messages.next_match(from, &mut self.messages.matcher(filters))
    }

    /// At most `batch` messages from a sequence on that match; `max_bytes` 0 means no bound.
    pub fn batch_read(
        &self,
        from: Seq,
        filter: &str,
        batch: u64,
        max_bytes: u64,
    ) -> Result<BatchRead, BatchRefused> {
        let filters: &[&str] = if filter.is_empty() { &[] } else { &[filter] };
        let mut matcher = self.messages.matcher(filters);
        let at = self.messages.next_match(from, &mut matcher).ok_or(BatchRefused::Nothing)?;
        let pending = self.messages.count_from(at, &mut matcher);
        let source = Source::Matching { at, matcher };
        Ok(BatchRead { source, batch, max_bytes, pending, last: Seq(0), up_to: None })
    }

    /// The last message of every matching subject as of `up_to` (0: now), those before `from` left out. `batch` and
    /// `max_bytes` 0 mean no bound.
    pub fn multi_last(
        &self,
        filters: &[&str],
        (from, up_to): (Seq, Seq),
        batch: u64,
        max_bytes: u64,
    ) -> Result<BatchRead, BatchRefused> {
        let last = self.messages.last_seq();
        let up_to = if up_to.0 == 0 { last } else { up_to };
        let mut matcher = self.messages.matcher(filters);
        if up_to > last {
            return Err(BatchRefused::Nothing);
        }
        if self.messages.count_subjects(&matcher, MULTI_LAST + 1) > MULTI_LAST {
            return Err(BatchRefused::TooMany);
        }
        let seqs = VecDeque::from(self.messages.last_per_subject(&mut matcher, from, up_to));
        if seqs.is_empty() {
            return Err(BatchRefused::Nothing);
        }
        let batch = if batch == 0 { u64::MAX } else { batch };
        let pending = seqs.len() as u64;
        let source = Source::Listed(seqs);
        Ok(BatchRead { source, batch, max_bytes, pending, last: Seq(0), up_to: Some(up_to) })
    }

    /// The sequence as of which "up to this time" is answered.
    pub fn up_to_time(&self, ts: Time) -> Seq {
        self.messages.seq_at(ts).prev()
    }

    /// Goes on with a batch. Messages that have left meanwhile are skipped.
    pub fn batch_step(&self, read: &mut BatchRead) -> BatchStep {
        while read.batch > 0
            && let Some(seq) = self.peek(read)
        {
            let message = match self.messages.fetch(seq) {
                Fetch::OnDisk(block) => return BatchStep::Load(block),
                Fetch::Message(message) => message,
                // As it is in the index, it is not that it has left.
                Fetch::Absent if self.messages.contains(seq) => return BatchStep::Damaged,
                Fetch::Absent => {
                    read.skip(seq);
                    continue;
                }
            };
            read.skip(seq);
            read.batch -= 1;
            let last = std::mem::replace(&mut read.last, seq);
            if read.max_bytes > 0 {
                read.max_bytes = read.max_bytes.saturating_sub(message.record.joined().len() as u64);
                if read.max_bytes == 0 {
                    read.batch = 0;
                }
            }
            return BatchStep::Message { message, pending: read.pending, last };
        }
        BatchStep::End(BatchEnd { pending: read.pending, last: read.last, up_to: read.up_to })
    }

    fn peek(&self, read: &mut BatchRead) -> Option<Seq> {
        match &mut read.source {
            Source::Listed(seqs) => seqs.front().copied(),
            Source::Matching { at, matcher } => self.messages.next_match(*at, matcher),
        }
    }
}

impl BatchRead {
    fn skip(&mut self, seq: Seq) {
        self.pending = self.pending.saturating_sub(1);
        match &mut self.source {
            Source::Listed(seqs) => drop(seqs.pop_front()),
            Source::Matching { at, .. } => *at = seq.next(),
        }
    }
}
