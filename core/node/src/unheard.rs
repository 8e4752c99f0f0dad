//! Answers that nobody hears at the moment: in a cluster, who asked may be on his way from one server to another, and listens
//! again soon. They are kept for a while, and not many of them.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_hub::Hub;
use hw_kit::{AccountId, Span, Time};

/// How long an answer is kept: no longer than clients wait.
const PATIENCE: Span = Span::from_secs(5);

/// How many of them, and how many bytes.
const COUNT_MAX: usize = 4096;
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// An answer that nobody hears, and where it goes.
pub struct Unheard {
    until: Time,
    pub(crate) account: AccountId,
    pub(crate) to: Bytes,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

/// All answers that nobody hears.
#[derive(Default)]
pub(crate) struct AllUnheard {
    all: VecDeque<Unheard>,
    bytes: usize,
    /// The hub's interest changes that were looked at.
    seen: u64,
    /// One came since.
    is_new: bool,
}

impl Unheard {
    pub(crate) fn new(
        now: Time,
        (account, to): (AccountId, Bytes),
        header: Bytes,
        payload: Bytes,
    ) -> Unheard {
        Unheard { until: now + PATIENCE, account, to, header, payload }
    }

    fn size(&self) -> usize {
        size_of::<Unheard>() + self.to.len() + self.header.len() + self.payload.len()
    }
}

impl AllUnheard {
    /// Keeps an answer; the oldest one makes room for it.
    pub(crate) fn keep(&mut self, answer: Unheard) {
        self.bytes += answer.size();
        self.is_new = true;
        self.all.push_back(answer);
        while self.bytes > BYTES_MAX || self.all.len() > COUNT_MAX {
            let Some(oldest) = self.all.pop_front() else { return };
            self.bytes -= oldest.size();
        }
    }

    /// Gives all of them away.
    pub(crate) fn take(&mut self) -> Vec<Unheard> {
        self.bytes = 0;
        std::mem::take(&mut self.all).into()
    }

    /// Those that somebody hears by now. Whose time is over is forgotten.
    pub(crate) fn heard(&mut self, now: Time, hub: &Hub) -> Vec<Unheard> {
        while let Some(late) = self.all.pop_front_if(|one| one.until <= now) {
            self.bytes -= late.size();
        }
        if self.all.is_empty() || (self.seen == hub.interest_changes() && !self.is_new) {
            return Vec::new();
        }
        (self.seen, self.is_new) = (hub.interest_changes(), false);
        let is_heard = |one: &Unheard| hub.has_interest(one.account, &one.to);
        let (heard, rest): (Vec<Unheard>, Vec<Unheard>) = self.all.drain(..).partition(is_heard);
        self.all = rest.into();
        self.bytes -= heard.iter().map(Unheard::size).sum::<usize>();
        heard
    }
}
