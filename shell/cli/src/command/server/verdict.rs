//! The outcome of a check, and how monitoring systems want to read it.

use serde::Serialize;

use crate::command::error::Failure;
use crate::command::output::{self, print_json};

/// How a verdict is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Nagios,
    Json,
    Prometheus,
}

/// The unit of a measured value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Bytes,
    Percent,
    Seconds,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => "B",
            Self::Percent => "%",
            Self::Seconds => "s",
        }
    }

    fn write(self, value: f64) -> String {
        if self == Self::Seconds { format!("{value:.4}") } else { format!("{value:.0}") }
    }
}

/// A measured value with its thresholds; a threshold of zero is none.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    pub name: &'static str,
    #[serde(serialize_with = "as_number")]
    pub value: f64,
    #[serde(serialize_with = "as_number")]
    pub warning: f64,
    #[serde(serialize_with = "as_number")]
    pub critical: f64,
    #[serde(skip_serializing_if = "str::is_empty", rename = "unit")]
    symbol: &'static str,
    #[serde(skip)]
    unit: Unit,
}

/// Whole numbers without a fraction, as other tools write them.
fn as_number<S: serde::Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        to.serialize_i64(*value as i64)
    } else {
        to.serialize_f64(*value)
    }
}

impl Measure {
    /// A value without thresholds.
    pub fn new(name: &'static str, value: f64, unit: Unit) -> Self {
        Self { name, value, warning: 0.0, critical: 0.0, symbol: unit.symbol(), unit }
    }

    /// Gives it thresholds.
    pub fn limits(self, warning: f64, critical: f64) -> Self {
        Self { warning, critical, ..self }
    }

    fn nagios(&self) -> String {
        let value = format!("{}={}{}", self.name, self.unit.write(self.value), self.symbol);
        let limit = |limit: f64| if limit > 0.0 { self.unit.write(limit) } else { String::new() };
        match (self.warning > 0.0, self.critical > 0.0) {
            (false, false) => value,
            (true, false) => format!("{value};{}", limit(self.warning)),
            _ => format!("{value};{};{}", limit(self.warning), limit(self.critical)),
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    status: &'static str,
    check_suite: &'static str,
    check_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warning: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    critical: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ok: Vec<String>,
    perf_data: Vec<Measure>,
}

impl Verdict {
    /// An empty verdict, which is ok.
    pub fn new(check_suite: &'static str, check_name: impl Into<String>) -> Self {
        Self {
            status: "OK",
            check_suite,
            check_name: check_name.into(),
            warning: Vec::new(),
            critical: Vec::new(),
            ok: Vec::new(),
            perf_data: Vec::new(),
        }
    }

    /// Notes something good.
    pub fn ok(&mut self, text: impl Into<String>) {
        self.ok.push(text.into());
    }

    /// Notes a critical fact.
    pub fn critical(&mut self, text: impl Into<String>) {
        self.critical.push(text.into());
    }

    /// Notes a measured value.
    pub fn measure(&mut self, measure: Measure) {
        self.perf_data.push(measure);
    }

    /// Judges a value against thresholds, where none is zero or less. A critical threshold below the warning
    /// one means that small values are the bad ones.
    pub fn judge(&mut self, text: impl Into<String>, value: f64, warning: f64, critical: f64) {
        let low_is_bad = warning > 0.0 && critical > 0.0 && critical < warning;
        let beyond = |limit: f64| limit > 0.0 && if low_is_bad { value <= limit } else { value >= limit };
        let list = if beyond(critical) {
            &mut self.critical
        } else if beyond(warning) {
            &mut self.warning
        } else {
            &mut self.ok
        };
        list.push(text.into());
    }

    fn code(&self) -> u8 {
        match (self.critical.is_empty(), self.warning.is_empty()) {
            (false, _) => 2,
            (true, false) => 1,
            (true, true) => 0,
        }
    }

    fn nagios(&self) -> String {
        let notes = [("Crit", &self.critical), ("Warn", &self.warning), ("OK", &self.ok)];
        let notes =
            notes.iter().flat_map(|(label, texts)| texts.iter().map(move |text| format!(" {label}:{text}")));
        let notes: String = notes.collect();
        let measures: Vec<String> = self.perf_data.iter().map(Measure::nagios).collect();
        let measures = if measures.is_empty() { String::new() } else { format!(" | {}", measures.join(" ")) };
        format!("{} {}{notes}{measures}", self.status, self.check_name)
    }

    fn prometheus(&self) -> String {
        let item = self.check_name.replace('\\', "\\\\").replace('"', "\\\"");
        let mut lines = Vec::new();
        for measure in &self.perf_data {
            let name = format!("nats_server_check_{}_{}", self.check_suite, measure.name);
            lines.push(format!("# TYPE {name} gauge"));
            lines.push(format!("{name}{{item=\"{item}\"}} {}", measure.value));
        }
        let name = format!("nats_server_check_{}_status_code", self.check_suite);
        lines.push(format!("# HELP {name} Nagios compatible status code for {}", self.check_suite));
        lines.push(format!("# TYPE {name} gauge"));
        lines.push(format!("{name}{{item=\"{item}\",status=\"{}\"}} {}", self.status, self.code()));
        lines.join("\n")
    }

    /// Prints the verdict; what is returned carries the exit code.
    pub fn deliver(mut self, format: Format) -> Result<(), Failure> {
        self.status = ["OK", "WARNING", "CRITICAL"][usize::from(self.code())];
        match format {
            Format::Nagios => output::line(&self.nagios()),
            Format::Json => print_json(&self)?,
            Format::Prometheus => output::line(&self.prometheus()),
        }
        if self.code() == 0 { Ok(()) } else { Err(Failure::Silent(self.code())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_against_both_thresholds() {
        let cases = [
            // value, warning, critical, exit code
            (10.0, 0.0, 0.0, 0),
            (74.0, 75.0, 90.0, 0),
            (75.0, 75.0, 90.0, 1),
            (90.0, 75.0, 90.0, 2),
            (95.0, 0.0, 90.0, 2),
            (80.0, 75.0, 0.0, 1),
            // the other way round: few are bad
            (20.0, 10.0, 5.0, 0),
            (10.0, 10.0, 5.0, 1),
            (5.0, 10.0, 5.0, 2),
        ];
        for (value, warning, critical, code) in cases {
            let mut verdict = Verdict::new("x", "X");
            verdict.judge("text", value, warning, critical);
            assert_eq!(verdict.code(), code, "{value} {warning} {critical}");
        }
    }

    #[test]
    fn nagios_reads_one_line() {
        let mut verdict = Verdict::new("stream", "orders");
        verdict.critical("0 messages");
        verdict.ok("0 sources");
        verdict.measure(Measure::new("messages", 0.0, Unit::Count).limits(10.0, 5.0));
        verdict.measure(Measure::new("rtt", 0.00012, Unit::Seconds).limits(0.0, 5.0));
        verdict.status = "CRITICAL";
        let want = "CRITICAL orders Crit:0 messages OK:0 sources | messages=0;10;5 rtt=0.0001s;;5.0000";
        assert_eq!(verdict.nagios(), want);
        assert!(verdict.prometheus().ends_with("status_code{item=\"orders\",status=\"CRITICAL\"} 2"));
    }
}
