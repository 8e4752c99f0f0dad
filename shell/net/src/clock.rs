//! The wall clock, made steady: what the shards are told as `now`.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hw_kit::{Span, Time};

/// The steady clock: how long this process has run, whatever happens to the wall clock. What links measure with.
pub fn steady_now() -> Time {
    static START: OnceLock<Instant> = OnceLock::new();
    let run = START.get_or_init(Instant::now).elapsed();
    // Not 0, which means "not set".
    Time(i64::try_from(run.as_nanos()).unwrap_or(i64::MAX).saturating_add(1))
}

/// While the wall clock is behind, this much of the time that passes is left out until it is not: less than leases and
/// patience differ by.
const SLOWER: i64 = 32;

/// A wall clock that was set forward by more than this is told of.
const STEP: Span = Span::from_millis(10);

/// The system's time as long as that runs steadily. A clock that was set back does not stop it: it goes on at almost the
/// usual rate until the wall clock has caught up.
#[derive(Debug, Default)]
pub struct Clock {
    /// What this clock is ahead of the steady one.
    offset: i64,
    /// The steady time of the last answer.
    seen: i64,
    last: i64,
    /// What the wall clock was set forward by.
    stepped: Span,
}

impl Clock {
    /// The current time, at least as late as the previous answer.
    pub fn now(&mut self) -> Time {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.read(steady_now().0, i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX))
    }

    fn read(&mut self, steady: i64, wall: i64) -> Time {
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

    /// How long to sleep until `deadline`; at most an hour, so that a clock that was set forward is noticed.
    pub fn until(&mut self, deadline: Time) -> Duration {
        let nanos = deadline.since(self.now()).0.clamp(0, 3_600_000_000_000);
        Duration::from_nanos(nanos.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn it_goes_with_the_wall_clock_and_tells_of_steps_forward() {
        let mut clock = Clock::default();
        assert_eq!(clock.read(1, 1000 * SECOND), Time(1000 * SECOND));
        assert_eq!(clock.read(1 + SECOND, 1001 * SECOND), Time(1001 * SECOND));
        assert_eq!(clock.take_step(), None, "the first look is no step, and a second is a second");
        assert_eq!(clock.read(1 + SECOND, 1005 * SECOND), Time(1005 * SECOND));
        assert_eq!(clock.take_step(), Some(Span::from_secs(4)));
        assert_eq!(clock.take_step(), None);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_stop_it() {
        let mut clock = Clock::default();
        clock.read(1, 1000 * SECOND);
        let (mut steady, mut wall, mut last) = (1, 990 * SECOND, 1000 * SECOND);
        for _ in 0..400 {
            (steady, wall) = (steady + SECOND, wall + SECOND);
            let now = clock.read(steady, wall).0;
            let passed = now - last;
            assert!(passed > SECOND * 9 / 10 && passed <= SECOND, "{passed}");
            last = now;
        }
        assert_eq!(last, wall, "it was caught up with");
        assert_eq!(clock.take_step(), None);
    }
}
