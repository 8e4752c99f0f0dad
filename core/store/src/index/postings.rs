//! The sequences of one subject in one segment.

use bytes::Bytes;

use super::view::View;
use super::{CHUNK, CHUNK_ROW, INLINE};
use crate::bytes_io::{Varints, u32_at, u64_at};
use crate::damage::Damage;

/// The sequences of one subject: a few at hand, many where they are.
#[derive(Clone, Debug)]
pub(crate) enum Postings {
    Few { seqs: [u64; INLINE], count: u8 },
    Long { count: u64, at: u32, body: u32 },
}

impl Postings {
    /// How many were written.
    pub fn count(&self) -> u64 {
        match self {
            Postings::Few { count, .. } => u64::from(*count),
            Postings::Long { count, .. } => *count,
        }
    }

    /// Reads what the dictionary says; None where it makes no sense.
    pub fn decode(reader: &mut Varints<'_>, view: &View<'_>) -> Option<Postings> {
        let (count, first) = (reader.next()?, view.place.first.0);
        if count <= INLINE as u64 {
            let mut seqs = [0; INLINE];
            let mut before = first;
            for seq in seqs.iter_mut().take(count as usize) {
                before = before.checked_add(reader.next()?)?;
                *seq = before;
            }
            return Some(Postings::Few { seqs, count: count as u8 });
        }
        let at = view.place.postings.checked_add(u32::try_from(reader.next()?).ok()?)?;
        let rows = u32::try_from(count.div_ceil(CHUNK as u64)).ok()?;
        let body = at.checked_add(4)?.checked_add(rows.checked_mul(CHUNK_ROW as u32)?)?;
        (body <= view.place.directory && count <= view.place.records).then_some(Postings::Long {
            count,
            at,
            body,
        })
    }

    /// Passes over what [`Postings::decode`] would read.
    pub fn skip(reader: &mut Varints<'_>) -> Option<()> {
        match reader.next()? {
            count if count <= INLINE as u64 => reader.skip_numbers(count as usize),
            _ => reader.skip_numbers(1),
        }
    }

    /// Whether a sequence is one of the few that are at hand.
    pub fn lists(&self, seq: u64) -> bool {
        match self {
            Postings::Few { seqs, count } => seqs[..usize::from(*count)].contains(&seq),
            Postings::Long { .. } => false,
        }
    }

    /// Calls `f` with the sequences from `from` on, ascending, until it returns false.
    pub fn each_from(
        &self,
        view: &View<'_>,
        from: u64,
        mut f: impl FnMut(u64) -> bool,
    ) -> Result<(), Damage> {
        match self {
            Postings::Few { seqs, count } => {
                let _ = seqs[..usize::from(*count)].iter().filter(|&&seq| seq >= from).all(|&seq| f(seq));
                Ok(())
            }
            Postings::Long { .. } => {
                let start = self.chunk_of(view, from)?;
                for number in start..self.chunks() {
                    for seq in self.chunk(view, number)?.into_iter().filter(|&seq| seq >= from) {
                        if !f(seq) {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// The last sequence at or before `up_to` that `f` accepts.
    pub fn last_where(
        &self,
        view: &View<'_>,
        up_to: u64,
        f: impl Fn(u64) -> bool,
    ) -> Result<Option<u64>, Damage> {
        let accept = |seq: &&u64| **seq <= up_to && f(**seq);
        match self {
            Postings::Few { seqs, count } => {
                Ok(seqs[..usize::from(*count)].iter().rev().find(accept).copied())
            }
            Postings::Long { .. } => {
                for number in (0..=self.chunk_of(view, up_to)?).rev() {
                    if let Some(&found) = self.chunk(view, number)?.iter().rev().find(accept) {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    fn chunks(&self) -> u32 {
        self.count().div_ceil(CHUNK as u64) as u32
    }

    /// The last chunk whose first sequence is not above, or the first chunk.
    fn chunk_of(&self, view: &View<'_>, seq: u64) -> Result<u32, Damage> {
        let (mut low, mut high) = (0, self.chunks());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.row(view, middle)?.0 <= seq {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// A chunk's first sequence, and where its bytes begin.
    fn row(&self, view: &View<'_>, number: u32) -> Result<(u64, u32), Damage> {
        let Postings::Long { at, .. } = self else { return Ok((0, 0)) };
        let row = view.read(at + 4 + number * CHUNK_ROW as u32, CHUNK_ROW)?;
        Ok((view.place.first.0.saturating_add(u64_at(&row, 0)), u32_at(&row, 8)))
    }

    fn chunk(&self, view: &View<'_>, number: u32) -> Result<Vec<u64>, Damage> {
        let Postings::Long { count, at, body } = self else { return Ok(Vec::new()) };
        let (first, start) = self.row(view, number)?;
        let end = match number + 1 < self.chunks() {
            true => self.row(view, number + 1)?.1,
            false => u32_at(&view.read(*at, 4)?, 0),
        };
        let len = end.checked_sub(start).ok_or_else(|| view.malformed())?;
        let bytes: Bytes =
            view.read(body.checked_add(start).ok_or_else(|| view.malformed())?, len as usize)?;
        let wanted = (*count - u64::from(number) * CHUNK as u64).min(CHUNK as u64) as usize;
        let mut reader = Varints::new(&bytes);
        let mut seqs = Vec::with_capacity(wanted);
        seqs.push(first);
        while seqs.len() < wanted {
            let next = reader.next().and_then(|delta| seqs[seqs.len() - 1].checked_add(delta));
            seqs.push(next.ok_or_else(|| view.malformed())?);
        }
        Ok(seqs)
    }
}
