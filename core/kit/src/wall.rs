//! The wall clock made monotonic: what shards are told as the time, whatever is done to the system's clock.

use crate::{Span, Time};

/// Follows a wall clock that may be set at any moment. It never goes back and never stands still: after the wall clock
/// was set back it runs at half speed until that has caught up.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    last: Time,
    /// The steady clock then.
    steady: Time,
}

impl WallClock {
    /// The time, from what the wall clock and a steady clock say.
    pub fn read(&mut self, wall: Time, steady: Time) -> Time {
        let half = steady.since(self.steady).0.max(0) / 2;
        if !self.last.is_set() || wall >= self.last + Span(half) {
            (self.last, self.steady) = (wall, steady);
        } else {
            // What does not make a whole step counts the next time.
            (self.last, self.steady) = (self.last + Span(half), self.steady + Span(2 * half));
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_runs_slowly_until_it_is_right() {
        let mut clock = WallClock::default();
        assert_eq!(clock.read(Time(1000), Time(5)), Time(1000));
        assert_eq!(clock.read(Time(1010), Time(15)), Time(1010));
        assert_eq!(clock.read(Time(910), Time(15)), Time(1010), "it never goes back");
        assert_eq!(clock.read(Time(930), Time(35)), Time(1020));
        assert_eq!(clock.read(Time(1090), Time(195)), Time(1100));
        assert_eq!(clock.read(Time(1130), Time(235)), Time(1130), "the wall clock has caught up");
        assert_eq!(clock.read(Time(9000), Time(236)), Time(9000), "forwards it goes at once");
        for steady in 237..=240 {
            clock.read(Time(1), Time(steady));
        }
        assert_eq!(clock.read(Time(1), Time(240)), Time(9002), "small steps add up");
    }
}
