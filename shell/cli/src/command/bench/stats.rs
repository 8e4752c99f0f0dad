//! What a measurement measured, and how it is written.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::error::Failure;
use crate::command::output::say;
use crate::command::template::Dice;
use crate::command::units::{bytes, comma};

/// What one client did.
#[derive(Debug, Clone)]
pub struct Sample {
    pub messages: u64,
    pub bytes: u64,
    pub begin: Instant,
    pub end: Instant,
    /// Time of each operation; empty where operations have no time of their own.
    pub latencies: Vec<Duration>,
}

impl Sample {
    /// A client that is about to start.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { messages: 0, bytes: 0, begin: now, end: now, latencies: Vec::new() }
    }

    /// Notes that the work is done.
    pub fn stop(&mut self, messages: u64, message_bytes: u64) {
        self.end = Instant::now();
        self.messages = messages;
        self.bytes = messages * message_bytes;
    }

    fn seconds(&self) -> f64 {
        self.end.duration_since(self.begin).as_secs_f64().max(1e-9)
    }

    fn message_rate(&self) -> f64 {
        self.messages as f64 / self.seconds()
    }

    fn byte_rate(&self) -> f64 {
        self.bytes as f64 / self.seconds()
    }
}

/// Latencies in microseconds.
#[derive(Debug, PartialEq)]
struct Spread {
    min: f64,
    average: f64,
    max: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    deviation: f64,
}

impl Spread {
    fn of<'a>(latencies: impl Iterator<Item = &'a Duration>) -> Option<Self> {
        let mut sorted: Vec<f64> = latencies.map(|latency| latency.as_secs_f64() * 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len() as f64;
        let average = sorted.iter().sum::<f64>() / count;
        let variance = sorted.iter().map(|value| (value - average).powi(2)).sum::<f64>() / count;
        let rank = |share: f64| sorted[((count * share).ceil() as usize).clamp(1, sorted.len()) - 1];
        let (p50, p90, p99, p999) = (rank(0.5), rank(0.9), rank(0.99), rank(0.999));
        Some(Self { min, average, max, p50, p90, p99, p999, deviation: variance.sqrt() })
    }

    fn line(&self) -> String {
        let Self { min, average, max, p50, p90, p99, p999, .. } = self;
        let values = [("min", min), ("avg", average), ("max", max), ("P50", p50), ("P90", p90), ("P99", p99)];
        let mut text: String =
            values.iter().map(|(name, value)| format!(" ~ {name}: {}us", micros(**value))).collect();
        text.push_str(&format!(" ~ P99.9: {}us", micros(*p999)));
        text
    }
}

/// Two decimals and commas: `1,632.55`.
fn micros(value: f64) -> String {
    let hundredths = (value * 100.0).round() as i64;
    format!("{}.{:02}", comma(hundredths / 100), hundredths % 100)
}

fn rates(sample: &Sample) -> String {
    let rate = comma(sample.message_rate().round() as i64);
    format!("{rate} msgs/sec ~ {}/sec", bytes(sample.byte_rate() as u64))
}

fn whole(samples: &[Sample]) -> Sample {
    let begin = samples.iter().map(|sample| sample.begin).min().unwrap_or_else(Instant::now);
    let end = samples.iter().map(|sample| sample.end).max().unwrap_or(begin);
    let messages = samples.iter().map(|sample| sample.messages).sum();
    let bytes = samples.iter().map(|sample| sample.bytes).sum();
    Sample { messages, bytes, begin, end, latencies: Vec::new() }
}

fn report(title: &str, samples: &[Sample]) -> Vec<String> {
    if let [sample] = samples {
        let spread = Spread::of(sample.latencies.iter()).map(|spread| spread.line()).unwrap_or_default();
        return vec![format!("NATS {title} stats: {}{spread}", rates(sample))];
    }
    let mut lines = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let spread = Spread::of(sample.latencies.iter()).map(|spread| spread.line()).unwrap_or_default();
        lines.push(format!("  [{}] {}{spread} ({} msgs)", index + 1, rates(sample), comma(sample.messages)));
    }
    lines.extend([String::new(), format!(" NATS {title} aggregated stats: {}", rates(&whole(samples)))]);
    let all: Vec<f64> = samples.iter().map(Sample::message_rate).collect();
    let average = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|rate| (rate - average).powi(2)).sum::<f64>() / all.len() as f64;
    let (min, max) =
        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max));
    let [min, average, max, deviation] =
        [min, average, max, variance.sqrt()].map(|rate| comma(rate.round() as i64));
    lines.push(format!(" message rates min {min} | avg {average} | max {max} | stddev {deviation} msgs"));
    if let Some(spread) = Spread::of(samples.iter().flat_map(|sample| &sample.latencies)) {
        let Spread { min, average, max, p50, p90, p99, p999, deviation } = spread;
        let [min, average, max, deviation] = [min, average, max, deviation].map(micros);
        let [p50, p90, p99, p999] = [p50, p90, p99, p999].map(micros);
        lines.push(format!(
            " latencies per operation min {min}us | avg {average}us | max {max}us | stddev {deviation}us \
             | P50 {p50}us | P90 {p90}us | P99 {p99}us | P99.9: {p999}us"
        ));
    }
    lines
}

/// Prints the results.
pub fn print(title: &str, samples: &[Sample]) {
    say!();
    report(title, samples).iter().for_each(|line| say!("{line}"));
    say!();
}

/// Writes the results to a file, a line for each client.
pub fn write_csv(path: &Path, samples: &[Sample]) -> Result<(), Failure> {
    let mut text = String::from("#RunID,ClientID,MsgCount,MsgBytes,MsgsPerSec,BytesPerSec,DurationSecs");
    text.push_str(",MinLatencyMicroSecs,AvgLatencyMicroSecs,MaxLatencyMicroSecs,P50LatencyMicroSecs");
    text.push_str(",P90LatencyMicroSecs,P99LatencyMicroSecs,P99.9LatencyMicroSecs,StdDevLatencyMicroSecs\n");
    let run = Dice::new().id(22);
    for (index, sample) in samples.iter().enumerate() {
        let (messages, size) = (sample.messages, sample.bytes);
        let (rate, byte_rate, seconds) = (sample.message_rate(), sample.byte_rate(), sample.seconds());
        text.push_str(&format!("{run},C{index},{messages},{size},{rate:.0},{byte_rate:.6},{seconds:.6}"));
        match Spread::of(sample.latencies.iter()) {
            Some(Spread { min, average, max, p50, p90, p99, p999, deviation }) => {
                for value in [min, average, max, p50, p90, p99, p999, deviation] {
                    text.push_str(&format!(",{value:.6}"));
                }
            }
            None => text.push_str(",,,,,,,,"),
        }
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))?;
    say!("Saved metric data in csv file {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(messages: u64, seconds: u64, latencies: &[u64]) -> Sample {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(seconds);
        let latencies = latencies.iter().copied().map(Duration::from_micros).collect();
        Sample { messages, bytes: messages * 128, begin, end, latencies }
    }

    #[test]
    fn one_client_is_one_line() {
        let lines = report("Core NATS publisher", &[sample(20_000, 1, &[])]);
        assert_eq!(lines, ["NATS Core NATS publisher stats: 20,000 msgs/sec ~ 2.4 MiB/sec"]);
        let lines = report("X", &[sample(4, 2, &[1, 2, 3, 4])]);
        let want = "NATS X stats: 2 msgs/sec ~ 256 B/sec ~ min: 1.00us ~ avg: 2.50us ~ max: 4.00us \
                    ~ P50: 2.00us ~ P90: 4.00us ~ P99: 4.00us ~ P99.9: 4.00us";
        assert_eq!(lines, [want]);
    }

    #[test]
    fn many_clients_are_summed_up() {
        let lines = report("X", &[sample(10, 1, &[]), sample(30, 1, &[])]);
        assert_eq!(lines[0], "  [1] 10 msgs/sec ~ 1.3 KiB/sec (10 msgs)");
        assert!(lines[3].starts_with(" NATS X aggregated stats: 40 msgs/sec ~ 5.0 KiB/sec"), "{}", lines[3]);
        assert_eq!(lines[4], " message rates min 10 | avg 20 | max 30 | stddev 10 msgs");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn percentiles_are_ranks() {
        let latencies: Vec<Duration> = (1..=1_000).map(Duration::from_micros).collect();
        let spread = Spread::of(latencies.iter()).unwrap();
        let rounded = [spread.p50, spread.p90, spread.p99, spread.p999].map(|value| value.round() as u64);
        assert_eq!(rounded, [500, 900, 990, 999]);
        assert_eq!(Spread::of([].iter()), None);
    }

    #[test]
    fn microseconds_have_commas_and_decimals() {
        for (value, want) in [(0.05, "0.05"), (1632.551, "1,632.55"), (99.999, "100.00")] {
            assert_eq!(micros(value), want);
        }
    }
}
