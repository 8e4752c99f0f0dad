//! The wall clock, made steady: what the shards are told as `now`.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hw_kit::{Span, Time, WallClock};

/// The steady clock: how long this process has run, whatever happens to the wall clock. What links measure with.
pub fn steady_now() -> Time {
    static START: OnceLock<Instant> = OnceLock::new();
    let run = START.get_or_init(Instant::now).elapsed();
    // Not 0, which means "not set".
    Time(i64::try_from(run.as_nanos()).unwrap_or(i64::MAX).saturating_add(1))
}

/// Reads the system's time; never goes back within one shard, nor stands still.
#[derive(Debug, Default)]
pub struct Clock(WallClock);

impl Clock {
    /// The current time, at least as late as the previous answer.
    pub fn now(&mut self) -> Time {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.read(steady_now(), Time(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// By how much the answers went forward without that time having passed; told once.
    pub fn take_step(&mut self) -> Option<Span> {
        self.0.take_step()
    }

    /// How long to sleep until `deadline`; at most an hour, so that a clock that was set forward is noticed.
    pub fn until(&mut self, deadline: Time) -> Duration {
        let nanos = deadline.since(self.now()).0.clamp(0, 3_600_000_000_000);
        Duration::from_nanos(nanos.unsigned_abs())
    }
}
