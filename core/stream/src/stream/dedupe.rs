//! The duplicate window: message ids that were seen lately, and the sequences that they got.
//!
//! An id is remembered as a fingerprint: 128 bits of its SHA-256. Two ids that share one would make a message pass for a
//! duplicate: nobody can make such a pair, and by chance there is one among 2²³ ids with a probability of 2⁻⁸³.
//!
//! Ids stand in a ring in order of time, 32 bytes each; a table of open addressing finds them there by 4 bytes a slot,
//! between 3/8 and 3/4 of which are in use: 37 to 43 bytes an id. All of it follows from the commands alone.

use std::collections::VecDeque;

use hw_kit::{Seq, Span, Time};
use sha2::{Digest, Sha256};

/// Ids that are remembered at most: what does not fit is refused, because forgetting one would store a message twice.
const MAX_IDS: usize = 1 << 23;
/// So many that have left the window are forgotten at once: a burst that ends must not stop the next publish.
const FORGET_AT_ONCE: usize = 64;
/// A piece of the ring.
const CHUNK: usize = 512;
const MIN_SLOTS: usize = 16;

/// What stands for an id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint([u64; 2]);

impl Fingerprint {
    pub fn of(id: &[u8]) -> Fingerprint {
        let hash = Sha256::digest(id);
        let part = |at| u64::from_le_bytes(std::array::from_fn(|byte| hash[at + byte]));
        Fingerprint([part(0), part(8)])
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Fingerprint {
        let number = u128::from_le_bytes(bytes);
        Fingerprint([number as u64, (number >> 64) as u64])
    }

    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0[0]) | u128::from(self.0[1]) << 64).to_le_bytes()
    }
}

/// A message's id.
#[derive(Clone, Copy, Debug)]
pub(super) struct MsgId<'a> {
    pub text: &'a [u8],
    pub print: Fingerprint,
}

impl<'a> MsgId<'a> {
    pub fn of(text: &'a [u8]) -> MsgId<'a> {
        MsgId { text, print: Fingerprint::of(text) }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub ts: Time,
    pub print: Fingerprint,
    pub seq: Seq,
}

/// The window; most streams never see an id.
#[derive(Debug, Default)]
pub(super) struct Dedupe(Option<Box<Ring>>);

impl Dedupe {
    /// The sequence of a message with this id within the window.
    pub fn find(&self, print: Fingerprint, now: Time, window: Span) -> Option<Seq> {
        let ring = self.0.as_ref()?;
        let seen = ring.entry(ring.number_in(ring.slot_of(print)?)?)?;
        (now.since(seen.ts) < window).then_some(seen.seq)
    }

    /// Forgets what has left the window at `now`, a part of it if it is much.
    pub fn expire(&mut self, now: Time, window: Span) {
        self.forget(FORGET_AT_ONCE, now, window);
    }

    /// Forgets all that has left the window at `now`: before the window changes, which would bring it back.
    pub fn expire_all(&mut self, now: Time, window: Span) {
        self.forget(usize::MAX, now, window);
    }

    fn forget(&mut self, most: usize, now: Time, window: Span) {
        let Some(ring) = &mut self.0 else { return };
        if now.since(ring.newest) >= window {
            return self.clear();
        }
        for _ in 0..most {
            match ring.entry(ring.first) {
                Some(seen) if now.since(seen.ts) >= window => ring.forget_first(),
                _ => break,
            }
        }
    }

    pub fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|ring| ring.len() >= MAX_IDS)
    }

    /// Remembers an id that [`Dedupe::find`] does not know. Time does not run backwards.
    pub fn insert(&mut self, ts: Time, print: Fingerprint, seq: Seq) {
        self.0.get_or_insert_default().insert(ts, print, seq);
    }

    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Every id in the window, oldest first.
    pub fn iter(&self, now: Time, window: Span) -> impl Iterator<Item = Seen> {
        let all = self.0.iter().flat_map(|ring| (0..ring.len() as u64).map(|at| ring.entry(ring.first + at)));
        all.flatten().skip_while(move |seen| now.since(seen.ts) >= window)
    }
}

/// Ids have numbers in the order in which they came.
#[derive(Debug, Default)]
struct Ring {
    /// The number of the oldest that is remembered.
    first: u64,
    /// The oldest stands here in the first chunk.
    skip: usize,
    chunks: VecDeque<Vec<Seen>>,
    /// 0, or eight bits of the fingerprint that are not 0 and 24 of the number, which tell those that are remembered apart.
    slots: Box<[u32]>,
    used: usize,
    newest: Time,
}

const NUMBER_MASK: u32 = (1 << 24) - 1;
const _: () = assert!(MAX_IDS < NUMBER_MASK as usize);

impl Ring {
    fn len(&self) -> usize {
        let all = |last: &Vec<Seen>| (self.chunks.len() - 1) * CHUNK + last.len();
        self.chunks.back().map_or(0, all) - self.skip
    }

    fn entry(&self, number: u64) -> Option<Seen> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()? + self.skip;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK).copied()
    }

    fn slot_value(print: Fingerprint, number: u64) -> u32 {
        let tag = ((print.0[1] >> 56) as u32).max(1);
        tag << 24 | (number as u32 & NUMBER_MASK)
    }

    /// The number that a slot holds.
    fn number_in(&self, slot: usize) -> Option<u64> {
        let value = self.slots[slot];
        let distance = value.wrapping_sub(self.first as u32) & NUMBER_MASK;
        (value != 0).then(|| self.first + u64::from(distance))
    }

    fn home(&self, print: Fingerprint) -> usize {
        print.0[0] as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// The slot of a fingerprint that is remembered.
    fn slot_of(&self, print: Fingerprint) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let (mut slot, tag) = (self.home(print), Ring::slot_value(print, 0) >> 24);
        while self.slots[slot] != 0 {
            if self.slots[slot] >> 24 == tag {
                let seen = self.number_in(slot).and_then(|number| self.entry(number));
                if seen.is_some_and(|seen| seen.print == print) {
                    return Some(slot);
                }
            }
            slot = self.after(slot);
        }
        None
    }

    fn insert(&mut self, ts: Time, print: Fingerprint, seq: Seq) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.rebuild((self.slots.len() * 2).max(MIN_SLOTS));
        }
        let number = self.first + self.len() as u64;
        match self.slot_of(print) {
            // Its earlier entry has left the window and goes in its time.
            Some(slot) => self.slots[slot] = Ring::slot_value(print, number),
            None => self.fill(print, number),
        }
        self.newest = self.newest.max(ts);
        let seen = Seen { ts: self.newest, print, seq };
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                if chunk.len() == chunk.capacity() {
                    // Never more than a chunk: what is allocated once stays that long.
                    chunk.reserve_exact(chunk.len().clamp(4, CHUNK - chunk.len()));
                }
                chunk.push(seen);
            }
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(seen);
                self.chunks.push_back(chunk);
            }
            None => self.chunks.push_back(vec![seen]),
        }
    }

    /// Takes the first free slot.
    fn fill(&mut self, print: Fingerprint, number: u64) {
        let mut slot = self.home(print);
        while self.slots[slot] != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = Ring::slot_value(print, number);
        self.used += 1;
    }

    fn forget_first(&mut self) {
        let Some(seen) = self.entry(self.first) else { return };
        let slot = self.slot_of(seen.print).filter(|&slot| self.number_in(slot) == Some(self.first));
        if let Some(slot) = slot {
            self.empty(slot);
        }
        self.first += 1;
        self.skip += 1;
        if self.skip == CHUNK {
            self.chunks.pop_front();
            self.skip = 0;
        }
        if self.slots.len() > MIN_SLOTS && self.used * 8 < self.slots.len() {
            self.rebuild(self.slots.len() / 2);
        }
    }

    /// Empties a slot; those behind it that would not be found any more move up.
    fn empty(&mut self, mut hole: usize) {
        self.used -= 1;
        let mut slot = hole;
        loop {
            slot = self.after(slot);
            let Some(seen) = self.number_in(slot).and_then(|number| self.entry(number)) else { break };
            let mask = self.slots.len() - 1;
            // How far it is from its home, and from the hole.
            let (far, gap) =
                (slot.wrapping_sub(self.home(seen.print)) & mask, slot.wrapping_sub(hole) & mask);
            if far >= gap {
                self.slots[hole] = self.slots[slot];
                hole = slot;
            }
        }
        self.slots[hole] = 0;
    }

    fn rebuild(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; len].into());
        self.used = 0;
        for value in old.into_iter().filter(|value| *value != 0) {
            let number = self.first + u64::from(value.wrapping_sub(self.first as u32) & NUMBER_MASK);
            if let Some(seen) = self.entry(number) {
                self.fill(seen.print, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hw_kit::Rng;

    use super::*;

    fn print(text: &str) -> Fingerprint {
        Fingerprint::of(text.as_bytes())
    }

    #[test]
    fn forgets_after_the_window() {
        let (mut dedupe, window) = (Dedupe::default(), Span(10));
        dedupe.insert(Time(10), print("a"), Seq(1));
        dedupe.insert(Time(20), print("b"), Seq(2));
        dedupe.expire(Time(19), window);
        assert_eq!(dedupe.find(print("a"), Time(19), window), Some(Seq(1)));
        assert_eq!(dedupe.find(print("a"), Time(20), window), None, "before it is forgotten");
        dedupe.expire(Time(20), window);
        assert_eq!(dedupe.iter(Time(20), window).map(|seen| seen.seq).collect::<Vec<_>>(), [Seq(2)]);
        dedupe.insert(Time(25), print("a"), Seq(3));
        dedupe.expire(Time(30), window);
        let find = |text| dedupe.find(print(text), Time(30), window);
        assert_eq!((find("a"), find("b")), (Some(Seq(3)), None));
    }

    #[test]
    fn numbers_on_disk_stay() {
        let text = b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23";
        assert_eq!(print("abc").to_bytes(), *text);
        assert_eq!(Fingerprint::from_bytes(*text), print("abc"));
    }

    /// Against a map of texts: bursts and silences, windows that change, ids that come again.
    #[test]
    fn knows_what_a_map_knows() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut dedupe, mut known) = (Dedupe::default(), BTreeMap::<u64, (i64, u64)>::new());
            let (mut now, mut window, ids) = (0, 2000, 1 + rng.below(6000));
            for seq in 0..12_000_u64 {
                now += match rng.below(2000) {
                    0 => 5000,
                    1..100 => 7,
                    _ => 0,
                };
                if rng.chance(1, 3000) {
                    dedupe.expire_all(Time(now), Span(window));
                    known.retain(|_, (ts, _)| now - *ts < window);
                    window = 1 + rng.below(3000) as i64;
                }
                let id = rng.below(ids);
                dedupe.expire(Time(now), Span(window));
                let wanted = known.get(&id).filter(|(ts, _)| now - ts < window).map(|(_, seq)| Seq(*seq));
                let print = print(&id.to_string());
                assert_eq!(dedupe.find(print, Time(now), Span(window)), wanted, "seed {seed} seq {seq}");
                if wanted.is_none() {
                    dedupe.insert(Time(now), print, Seq(seq));
                    known.insert(id, (now, seq));
                }
            }
            let alive = known.values().filter(|(ts, _)| now - ts < window).count();
            let found: BTreeMap<_, _> =
                dedupe.iter(Time(now), Span(window)).map(|seen| (seen.print.to_bytes(), seen.seq)).collect();
            assert_eq!(found.len(), alive, "seed {seed}");
        }
    }

    #[test]
    fn takes_few_bytes() {
        let mut dedupe = Dedupe::default();
        for at in 0..100_000_u64 {
            dedupe.insert(Time(at as i64), Fingerprint::of(&at.to_le_bytes()), Seq(at));
        }
        let ring = dedupe.0.as_ref().expect("it has ids");
        let bytes =
            ring.chunks.iter().map(Vec::capacity).sum::<usize>() * size_of::<Seen>() + ring.slots.len() * 4;
        assert!(bytes < 100_000 * 43, "{} bytes an id", bytes / 100_000);
        dedupe.expire(Time(100_000), Span(100));
        let left = |dedupe: &Dedupe| dedupe.0.as_ref().map_or(0, |ring| ring.len());
        assert_eq!(left(&dedupe), 100_000 - FORGET_AT_ONCE);
        for _ in 0..2000 {
            dedupe.expire(Time(100_000), Span(100));
        }
        assert_eq!(left(&dedupe), 99);
        dedupe.expire(Time(200_000), Span(100));
        assert!(dedupe.0.is_none(), "nothing is left of what has left the window");
    }
}
