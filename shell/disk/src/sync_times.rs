//! How long syncs took, counted by duration.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of what is counted together, in seconds; longer ones are counted as well.
pub const SYNC_BOUNDS: [f64; 14] =
    [0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Counts that only rise.
#[derive(Debug, Default)]
pub struct SyncTimes {
    /// One for each bound, and one for what is beyond the last.
    counts: [AtomicU64; SYNC_BOUNDS.len() + 1],
    nanos: AtomicU64,
    /// How long one takes of late: an average in which each counts an eighth; 0: there was none.
    recent: AtomicU64,
}

/// The counts at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncCounts {
    /// How many syncs took up to the bound of the same place and more than the one before; last, those beyond.
    pub counts: [u64; SYNC_BOUNDS.len() + 1],
    /// How long all of them took.
    pub seconds: f64,
}

impl SyncTimes {
    /// A sync has ended.
    pub(crate) fn add(&self, took: Duration) {
        let at = SYNC_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        self.counts[at.unwrap_or(SYNC_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        let recent = match self.recent.load(Ordering::Relaxed) {
            0 => nanos,
            recent => recent - recent / 8 + nanos / 8,
        };
        self.recent.store(recent.max(1), Ordering::Relaxed);
    }

    /// How long a sync takes of late; None: there was none.
    pub(crate) fn recent(&self) -> Option<Duration> {
        let recent = self.recent.load(Ordering::Relaxed);
        (recent > 0).then(|| Duration::from_nanos(recent))
    }

    /// The counts now.
    pub fn read(&self) -> SyncCounts {
        SyncCounts {
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            seconds: self.nanos.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

impl SyncCounts {
    /// How many there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_has_its_place() {
        let times = SyncTimes::default();
        for micros in [0, 100, 101, 2_000, 4_999_999, 5_000_001] {
            times.add(Duration::from_micros(micros));
        }
        let read = times.read();
        let filled: Vec<(usize, u64)> =
            read.counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (4, 1), (13, 1), (14, 1)]);
        assert_eq!((read.total(), read.seconds), (6, 10.002_201));
    }

    #[test]
    fn a_slow_sync_is_remembered_for_a_while() {
        let times = SyncTimes::default();
        assert_eq!(times.recent(), None);
        let micros = Duration::from_micros;
        times.add(micros(40));
        assert_eq!(times.recent(), Some(micros(40)));
        times.add(micros(8_000));
        assert!(times.recent() > Some(micros(1_000)));
        (0..40).for_each(|_| times.add(micros(40)));
        assert!(times.recent() < Some(micros(60)));
    }
}
