//! Groups of records: when each message was stored, which subject it has, what it counts, and which block holds it. Each of
//! these is a column of numbers of one width, so that a record is found without reading those before it.

use super::{Layout, Place, Slot};
use crate::bytes_io::{Varints, put_signed_varint, put_varint, u64_at};

/// A record as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub seq: u64,
    pub ts: i64,
    pub rank: u32,
    pub size: u32,
    /// Whether it is the first of a block.
    pub begins: bool,
}

/// Which records begin a block: 64 bits.
const BEGINS_BYTES: usize = 8;
/// Sequence, time, subject, size.
const COLUMNS: usize = 4;

/// A group whose bytes are at hand.
pub(super) struct Group<'a> {
    pub place: &'a Place,
    pub bytes: &'a [u8],
    /// The first record's sequence.
    pub first: u64,
    /// How many records it has.
    pub count: usize,
}

/// What is in front of the columns.
struct Head<'a> {
    ts: i64,
    block: u32,
    rank: u32,
    size: u64,
    begins: u64,
    widths: [usize; COLUMNS],
    columns: [&'a [u8]; COLUMNS],
}

impl Group<'_> {
    /// What is said of one record, if it is here. The outer None: the bytes make no sense.
    pub fn find(&self, seq: u64) -> Option<Option<Slot>> {
        if self.place.layout == Layout::Rows {
            let mut found = None;
            self.each_row(&mut |slot| {
                found = (slot.seq == seq).then_some(slot);
                slot.seq < seq
            })?;
            return Some(found);
        }
        let head = self.head()?;
        let Some(distance) = seq.checked_sub(self.first) else { return Some(None) };
        let at = match head.widths[0] {
            0 => usize::try_from(distance).ok().filter(|&at| at < self.count),
            width => {
                let (mut low, mut high) = (0, self.count);
                while low < high {
                    let middle = low + (high - low) / 2;
                    match number_at(head.columns[0], width, middle)? < distance {
                        true => low = middle + 1,
                        false => high = middle,
                    }
                }
                (low < self.count && number_at(head.columns[0], width, low)? == distance).then_some(low)
            }
        };
        at.map_or(Some(None), |at| self.slot(&head, at).map(Some))
    }

    /// Calls `f` with the records in their order until it returns false; None where the bytes make no sense.
    pub fn each(&self, f: &mut impl FnMut(Slot) -> bool) -> Option<()> {
        if self.place.layout == Layout::Rows {
            return self.each_row(f);
        }
        let head = self.head()?;
        for at in 0..self.count {
            if !f(self.slot(&head, at)?) {
                break;
            }
        }
        Some(())
    }

    fn head(&self) -> Option<Head<'_>> {
        let mut reader = Varints::new(self.bytes);
        let (ts, block) = (reader.signed()?, u32::try_from(reader.next()?).ok()?);
        let (rank, size) = (u32::try_from(reader.next()?).ok()?, reader.next()?);
        let begins = u64_at(reader.take(BEGINS_BYTES)?, 0);
        let mut widths = [0; COLUMNS];
        for (width, byte) in widths.iter_mut().zip(reader.take(COLUMNS)?) {
            *width = usize::from(*byte);
        }
        if widths.iter().any(|&width| width > size_of::<u64>()) {
            return None;
        }
        let mut columns: [&[u8]; COLUMNS] = [&[]; COLUMNS];
        for (column, width) in columns.iter_mut().zip(widths) {
            *column = reader.take(self.count * width)?;
        }
        reader.is_empty().then_some(Head { ts, block, rank, size, begins, widths, columns })
    }

    fn slot(&self, head: &Head<'_>, at: usize) -> Option<Slot> {
        let number = |column: usize| number_at(head.columns[column], head.widths[column], at);
        let distance = if head.widths[0] == 0 { at as u64 } else { number(0)? };
        let up_to = u64::MAX >> 63_usize.checked_sub(at)?;
        let slot = Slot {
            seq: self.first.checked_add(distance)?,
            ts: head.ts.wrapping_add_unsigned(number(1)?),
            rank: head.rank.checked_add(u32::try_from(number(2)?).ok()?)?,
            size: u32::try_from(head.size.checked_add(number(3)?)?).ok()?,
            block: head.block.checked_add((head.begins & up_to).count_ones())?,
        };
        (slot.rank < self.place.subjects).then_some(slot)
    }

    /// As versions before 5 have them: record after record.
    fn each_row(&self, f: &mut impl FnMut(Slot) -> bool) -> Option<()> {
        let mut reader = Varints::new(self.bytes);
        let mut ts = reader.signed()?;
        let mut block = u32::try_from(reader.next()?).ok()?;
        let mut seq = self.first;
        for _ in 0..self.count {
            seq = seq.checked_add(reader.next()?)?;
            ts = ts.wrapping_add(reader.signed()?);
            let rank = u32::try_from(reader.next()?).ok()?;
            let size_and_start = reader.next()?;
            block = block.checked_add((size_and_start & 1) as u32)?;
            let size = u32::try_from(size_and_start >> 1).ok()?;
            if rank >= self.place.subjects {
                return None;
            }
            if !f(Slot { seq, ts, rank, size, block }) {
                return Some(());
            }
        }
        reader.is_empty().then_some(())
    }
}

/// Appends a group of at most 64 records, of which the first is in this block.
pub(super) fn put_group(rows: &[Row], block: u64, out: &mut Vec<u8>) {
    let Some(first) = rows.first() else { return };
    let ts = rows.iter().map(|row| row.ts).min().unwrap_or_default();
    let rank = rows.iter().map(|row| row.rank).min().unwrap_or_default();
    let size = rows.iter().map(|row| row.size).min().unwrap_or_default();
    let is_dense = rows.iter().zip(first.seq..).all(|(row, seq)| row.seq == seq);
    let columns: [&dyn Fn(&Row) -> u64; COLUMNS] = [
        &|row: &Row| if is_dense { 0 } else { row.seq - first.seq },
        &|row: &Row| row.ts.wrapping_sub(ts).cast_unsigned(),
        &|row: &Row| u64::from(row.rank - rank),
        &|row: &Row| u64::from(row.size - size),
    ];
    let widths = columns.map(|column| width_of(rows.iter().map(column).max().unwrap_or_default()));
    // That the first one begins its block is said by the block's number.
    let begins = rows.iter().enumerate().skip(1).filter(|(_, row)| row.begins);
    let begins = begins.fold(0u64, |bits, (at, _)| bits | 1 << at);
    put_signed_varint(out, ts);
    [block, rank.into(), size.into()].into_iter().for_each(|number| put_varint(out, number));
    out.extend_from_slice(&begins.to_le_bytes());
    out.extend(widths.iter().map(|&width| width as u8));
    for (column, width) in columns.iter().zip(widths) {
        rows.iter().for_each(|row| out.extend_from_slice(&column(row).to_le_bytes()[..width]));
    }
}

/// Bytes that hold a number.
fn width_of(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).div_ceil(8) as usize
}

#[inline]
fn number_at(column: &[u8], width: usize, at: usize) -> Option<u64> {
    let start = at * width;
    // Most often there are enough bytes for a whole number: what is above its width is cut off.
    if let Some(whole) = column.get(start..start + 8).filter(|_| width > 0) {
        return Some(u64_at(whole, 0) & (u64::MAX >> (64 - 8 * width)));
    }
    let part = column.get(start..start + width)?;
    Some(part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
