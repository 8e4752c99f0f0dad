//! Deliveries and acknowledgements that follow one another, in few bytes: what a consumer does most of the time.

use hw_kit::Seq;

use super::codec::{DecodeError, Reader, number};
use super::{Settlement, Verdict};

/// One command brings at most so many: what few bytes stand for must not fill the memory.
const MOST: usize = 1 << 16;

/// Where rows of elements end that each follow the one before.
fn rows<T>(all: &[T], follows: impl Fn(&T, &T) -> bool) -> impl Iterator<Item = &[T]> {
    all.chunk_by(move |one, next| follows(one, next))
}

fn is_next(one: Seq, next: Seq) -> bool {
    one.0.checked_add(1) == Some(next.0)
}

/// Whether rows take fewer bytes than one sequence after the other.
pub(super) fn is_worth_it(seqs: &[Seq]) -> bool {
    let count = || rows(seqs, |one, next| is_next(*one, *next)).count();
    seqs.len() > 2 && seqs.len() <= MOST && count() * 12 < seqs.len() * 8
}

/// Sequences as rows: the first u64 and how many u32.
pub(super) fn encode_seqs(out: &mut Vec<u8>, seqs: &[Seq]) {
    for row in rows(seqs, |one, next| is_next(*one, *next)) {
        number(out, row[0].0);
        count(out, row.len());
    }
}

fn count(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

pub(super) fn decode_seqs(r: &mut Reader) -> Result<Vec<Seq>, DecodeError> {
    let mut seqs = Vec::new();
    while !r.is_empty() {
        let (first, count) = (r.number()?, row_length(r, seqs.len())?);
        let last = first.checked_add(count - 1).ok_or(DecodeError::Field)?;
        seqs.extend((first..=last).map(Seq));
    }
    Ok(seqs)
}

/// A row has something in it, and all rows together not too much.
fn row_length(r: &mut Reader, before: usize) -> Result<u64, DecodeError> {
    let count = r.small()?;
    let fits = count > 0 && before + count as usize <= MOST;
    if fits { Ok(u64::from(count)) } else { Err(DecodeError::Field) }
}

/// Settlements: rows of acknowledgements as one, everything else by itself.
pub(super) fn encode_settlements(
    out: &mut Vec<u8>,
    acks: &[Settlement],
    one: impl Fn(&mut Vec<u8>, &Settlement),
) {
    let follows = |ack: &Settlement, next: &Settlement| {
        acks.len() <= MOST
            && (&ack.verdict, &next.verdict) == (&Verdict::Ack, &Verdict::Ack)
            && is_next(ack.seq, next.seq)
            && ack.consumer_seq.checked_add(1) == Some(next.consumer_seq)
    };
    for row in rows(acks, follows) {
        match row {
            [ack] => one(out, ack),
            row => {
                out.push(IN_A_ROW);
                number(out, row[0].seq.0);
                number(out, row[0].consumer_seq);
                count(out, row.len());
            }
        }
    }
}

/// In the place of a verdict.
pub(super) const IN_A_ROW: u8 = 3;

/// What follows [`IN_A_ROW`].
pub(super) fn decode_acks(r: &mut Reader, acks: &mut Vec<Settlement>) -> Result<(), DecodeError> {
    let (seq, consumer_seq) = (r.number()?, r.number()?);
    let count = row_length(r, acks.len())?;
    let last = (seq.checked_add(count - 1), consumer_seq.checked_add(count - 1));
    let (Some(_), Some(_)) = last else { return Err(DecodeError::Field) };
    acks.extend((0..count).map(|at| Settlement {
        seq: Seq(seq + at),
        consumer_seq: consumer_seq + at,
        verdict: Verdict::Ack,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hw_kit::{Rng, Time};

    use super::super::Command;
    use super::*;

    fn encoded(command: &Command) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&Bytes::copy_from_slice(&bytes)).as_ref(), Ok(command));
        bytes
    }

    fn delivered(seqs: Vec<Seq>) -> Command {
        Command::Delivered { ts: Time(1), consumer: Bytes::from_static(b"C"), seqs }
    }

    fn settled(acks: Vec<Settlement>) -> Command {
        Command::Settled { ts: Time(1), consumer: Bytes::from_static(b"C"), acks }
    }

    fn ack(seq: u64, consumer_seq: u64) -> Settlement {
        Settlement { seq: Seq(seq), consumer_seq, verdict: Verdict::Ack }
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = encoded(&delivered([1, 2, 3, 9].map(Seq).to_vec()));
        let rows = b"\x01\0\0\0\0\0\0\0\x03\0\0\0\x09\0\0\0\0\0\0\0\x01\0\0\0";
        assert_eq!(bytes, [&b"\x10\x01\0\0\0\0\0\0\0\x01\0\0\0C"[..], rows].concat());
        let bytes = encoded(&settled(vec![ack(7, 3), ack(8, 4), ack(9, 5), ack(9, 6)]));
        let rows = b"\x03\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0\
                     \0\x09\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(bytes, [&b"\x09\x01\0\0\0\0\0\0\0\x01\0\0\0C"[..], rows].concat());
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut rng = Rng::new(3);
        for _ in 0..500 {
            let (mut seq, mut consumer_seq, mut acks) = (u64::MAX - rng.below(40), rng.below(9), vec![]);
            for _ in 0..rng.below(30) {
                let verdict = match rng.below(12) {
                    0 => Verdict::Exhausted,
                    1 => Verdict::Term(Bytes::from_static(b"no")),
                    _ => Verdict::Ack,
                };
                acks.push(Settlement { seq: Seq(seq), consumer_seq, verdict });
                seq = if rng.chance(1, 6) { rng.below(50) } else { seq.wrapping_add(1) };
                consumer_seq += if rng.chance(1, 9) { 2 } else { 1 };
            }
            encoded(&delivered(acks.iter().map(|ack| ack.seq).collect()));
            encoded(&settled(acks));
        }
        for len in [MOST as u64, MOST as u64 + 1] {
            encoded(&delivered((1..=len).map(Seq).collect()));
            encoded(&settled((1..=len).map(|at| ack(at, at)).collect()));
        }
        let few = encoded(&delivered((1..=500).map(Seq).collect())).len();
        assert!(few < 30, "{few} bytes for 500 sequences");
    }

    #[test]
    fn few_bytes_stand_for_no_more_than_a_command_may_bring() {
        let head = |kind: u8| [&[kind][..], &[0; 8], &[1, 0, 0, 0, b'C']].concat();
        let row = |first: u64, count: u32| [&first.to_le_bytes()[..], &count.to_le_bytes()].concat();
        let most = MOST as u32;
        for (rows, fits) in [
            (vec![row(1, most)], true),
            (vec![row(1, most + 1)], false),
            (vec![row(1, most), row(1, 1)], false),
            (vec![row(1, 0)], false),
            (vec![row(u64::MAX, 1)], true),
            (vec![row(u64::MAX, 2)], false),
        ] {
            let bytes = [head(16), rows.concat()].concat();
            assert_eq!(Command::decode(&bytes.into()).is_ok(), fits, "{rows:?}");
        }
    }
}
