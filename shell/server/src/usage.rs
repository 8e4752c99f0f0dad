//! This process's memory and CPU, read from /proc where there is one.

use std::time::Instant;

/// CPU is measured between two readings.
#[derive(Default)]
pub(crate) struct Usage {
    last: Option<(Instant, u64)>,
    percent: f64,
}

/// Clock ticks a second in /proc: fixed by Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

impl Usage {
    /// Resident memory in bytes, and CPU since the last reading in percent of one core.
    pub(crate) fn read(&mut self) -> (u64, f64) {
        let (now, ticks) = (Instant::now(), cpu_ticks().unwrap_or(0));
        match self.last {
            Some((then, before)) if now.duration_since(then).as_millis() >= 100 => {
                let seconds = now.duration_since(then).as_secs_f64();
                self.percent = ticks.saturating_sub(before) as f64 / TICKS_PER_SECOND / seconds * 100.0;
                self.last = Some((now, ticks));
            }
            Some(_) => {}
            None => self.last = Some((now, ticks)),
        }
        (resident_bytes().unwrap_or(0), (self.percent * 10.0).round() / 10.0)
    }
}

fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (user, system) = (fields.nth(11)?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
}
