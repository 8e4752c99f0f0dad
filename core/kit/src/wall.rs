//! The wall clock made steady: what shards are told as the time, whatever is done to the system's clock.

use crate::{Span, Time};

/// While the wall clock is behind, this much of the time that passes is left out until it is not: less than leases and
/// patience differ by.
const SLOWER: i64 = 32;

/// A wall clock that was set forward by more than this is told of.
const STEP: Span = Span::from_millis(10);

/// The wall clock as long as that runs steadily. One that was set back does not stop it: it goes on at almost the usual rate
/// until the wall clock has caught up.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    /// What this clock is ahead of the steady one.
    offset: i64,
    /// The steady time of the last answer.
    seen: i64,
    last: i64,
    /// What the wall clock was set forward by.
    stepped: Span,
}

impl WallClock {
    /// The time, from what a steady clock and the wall clock say; at least as late as the previous answer.
    pub fn read(&mut self, Time(steady): Time, Time(wall): Time) -> Time {
        let behind = steady.saturating_add(self.offset).saturating_sub(wall);
        if behind > 0 {
            self.offset -= behind.min((steady - self.seen).max(0) / SLOWER);
        } else {
            if self.seen > 0 && -behind > STEP.0 {
                self.stepped = Span(self.stepped.0.saturating_sub(behind));
            }
            self.offset = wall - steady;
        }
        self.seen = steady;
        self.last = self.last.max(steady.saturating_add(self.offset));
        Time(self.last)
    }

    /// By how much the answers went forward without that time having passed; told once.
    pub fn take_step(&mut self) -> Option<Span> {
        let stepped = std::mem::take(&mut self.stepped);
        (stepped > Span::ZERO).then_some(stepped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn it_goes_with_the_wall_clock_and_tells_of_steps_forward() {
        let mut clock = WallClock::default();
        assert_eq!(clock.read(Time(1), Time(1000 * SECOND)), Time(1000 * SECOND));
        assert_eq!(clock.read(Time(1 + SECOND), Time(1001 * SECOND)), Time(1001 * SECOND));
        assert_eq!(clock.take_step(), None, "the first look is no step, and a second is a second");
        assert_eq!(clock.read(Time(1 + SECOND), Time(1005 * SECOND)), Time(1005 * SECOND));
        assert_eq!(clock.take_step(), Some(Span::from_secs(4)));
        assert_eq!(clock.take_step(), None);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_stop_it() {
        let mut clock = WallClock::default();
        clock.read(Time(1), Time(1000 * SECOND));
        let (mut steady, mut wall, mut last) = (1, 990 * SECOND, 1000 * SECOND);
        for _ in 0..400 {
            (steady, wall) = (steady + SECOND, wall + SECOND);
            let now = clock.read(Time(steady), Time(wall)).0;
            let passed = now - last;
            assert!(passed > SECOND * 9 / 10 && passed <= SECOND, "{passed}");
            last = now;
        }
        assert_eq!(last, wall, "it was caught up with");
        assert_eq!(clock.take_step(), None);
    }
}
