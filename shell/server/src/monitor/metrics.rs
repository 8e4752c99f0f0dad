//! `/metrics`: numbers for Prometheus and whatever else reads OpenMetrics text. docs/monitoring.md lists the names.

use std::fmt;
use std::sync::atomic::Ordering;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hw_disk::{Gauges, SYNC_BOUNDS};
use hw_hub::HubCounters;
use hw_node::{JetStreamHealth, JetStreamTotals, Meters};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::inner::Inner;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// So many streams and consumers have numbers of their own: every one costs whoever collects them.
const STREAMS_MAX: usize = 1000;
const CONSUMERS_MAX: usize = 1000;

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// Numbers of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counter(u64),
    Gauge(f64),
    Gauges(Vec<(Labels, f64)>),
    Info(Labels),
    /// Sum, and how many up to each bound.
    Histogram(f64, Vec<(f64, u64)>),
}

/// What one request sees.
#[derive(Debug, Default)]
struct Page {
    families: Vec<Family>,
}

pub(crate) async fn page(inner: &Inner) -> Response {
    let mut page = Page::default();
    page.server(inner, &inner.counters().await);
    if let (Some(totals), Some(health)) = (inner.jetstream_totals().await, inner.jetstream_health().await) {
        page.jetstream(&totals);
        let meters = inner.jetstream_meters(STREAMS_MAX, CONSUMERS_MAX).await.unwrap_or_default();
        page.store(&health, &meters);
        page.streams(&meters);
        page.consumers(&meters);
    }
    if let Some(gauges) = inner.disk.get() {
        page.disk(gauges);
    }
    match page.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Page {
    fn text(self) -> Result<String, fmt::Error> {
        let (mut registry, mut out) = (Registry::default(), String::new());
        registry.register_collector(Box::new(self));
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    fn add(&mut self, name: &'static str, help: &'static str, values: Values) {
        self.families.push(Family { name, help, values });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.add(name, help, Values::Gauge(value));
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Values::Counter(value));
    }

    fn server(&mut self, inner: &Inner, counters: &HubCounters) {
        let (memory, cpu) = inner.usage();
        let labels = vec![
            ("version", crate::VERSION.to_owned()),
            ("nats_version", crate::NATS_VERSION.to_owned()),
            ("server_name", inner.facts.name.clone()),
            ("server_id", inner.facts.id.clone()),
        ];
        self.add("headwater_server", "This server", Values::Info(labels));
        let start = inner.start.0 as f64 / 1e9;
        self.gauge("headwater_start_time_seconds", "When the server started, since 1970", start);
        self.gauge("headwater_memory_bytes", "Resident memory", memory as f64);
        self.gauge("headwater_cpu_ratio", "CPU used, 1 is one core", cpu / 100.0);
        self.gauge("headwater_connections", "Client connections", counters.connections as f64);
        let total = counters.total_connections;
        self.counter("headwater_connections_accepted", "Connections since the start", total);
        self.gauge("headwater_subscriptions", "Subscriptions of clients", counters.subscriptions as f64);
        let slow = counters.slow_consumers;
        self.counter("headwater_slow_consumers", "Connections closed for reading too slowly", slow);
        let traffic = counters.traffic;
        self.counter("headwater_received_messages", "Messages from clients", traffic.in_msgs);
        self.counter("headwater_received_bytes", "Bytes of messages from clients", traffic.in_bytes);
        self.counter("headwater_sent_messages", "Messages to clients", traffic.out_msgs);
        self.counter("headwater_sent_bytes", "Bytes of messages to clients", traffic.out_bytes);
    }

    fn jetstream(&mut self, totals: &JetStreamTotals) {
        self.gauge("headwater_jetstream_streams", "Streams that are open", totals.streams as f64);
        self.gauge("headwater_jetstream_consumers", "Consumers", totals.consumers as f64);
        self.gauge("headwater_jetstream_messages", "Messages in all streams", totals.messages as f64);
        self.gauge("headwater_jetstream_memory_bytes", "Bytes in memory streams", totals.memory as f64);
        self.gauge("headwater_jetstream_storage_bytes", "Bytes in file streams", totals.storage as f64);
        self.counter("headwater_jetstream_api_requests", "Requests to the JetStream API", totals.api.total);
        self.counter("headwater_jetstream_api_errors", "Requests that were refused", totals.api.errors);
    }

    fn store(&mut self, health: &JetStreamHealth, meters: &Meters) {
        let stopped = f64::from(u8::from(health.failed.is_some()));
        self.gauge("headwater_store_stopped", "1: nothing is written any more", stopped);
        let damage = &health.damage;
        let mut files: Vec<&str> =
            damage.iter().filter_map(|one| one.place()).map(|(file, _)| file).collect();
        files.sort_unstable();
        files.dedup();
        self.gauge("headwater_store_damaged_files", "Files with damage", files.len() as f64);
        let places = damage.len() as u64 + health.left_out;
        self.gauge("headwater_store_damaged_blocks", "Places that are damaged", places as f64);
        let mut streams: Vec<(&str, &str)> =
            damage.iter().map(|one| (one.account.as_str(), one.stream.as_str())).collect();
        streams.sort_unstable();
        streams.dedup();
        self.gauge("headwater_store_damaged_streams", "Streams with damage", streams.len() as f64);
        let help = "Streams of which nothing can be used";
        self.gauge("headwater_store_quarantined_streams", help, meters.quarantined as f64);
        self.gauge("headwater_store_segments", "Segments of all streams", meters.segments as f64);
    }

    fn disk(&mut self, gauges: &Gauges) {
        let number = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        let syncs = gauges.syncs.read();
        self.counter("headwater_wal_syncs", "Syncs of the write-ahead log", syncs.total());
        let bounds = SYNC_BOUNDS.into_iter().chain([f64::INFINITY]);
        let histogram = Values::Histogram(syncs.seconds, bounds.zip(syncs.counts).collect());
        self.add("headwater_wal_sync_duration_seconds", "How long a sync of the log takes", histogram);
        self.counter("headwater_wal_windows", "Writes to the log", number(&gauges.windows));
        let bytes = number(&gauges.wal_bytes) as f64;
        self.gauge("headwater_wal_bytes", "Bytes of log since the last checkpoint", bytes);
        let left = number(&gauges.space_left) as f64;
        self.gauge("headwater_wal_free_bytes", "Bytes that the log takes without a further file", left);
        self.counter("headwater_checkpoints", "Checkpoints written", number(&gauges.checkpoints));
        let failed = number(&gauges.checkpoints_failed);
        self.counter("headwater_checkpoints_failed", "Checkpoints that could not be written", failed);
        let full = f64::from(u8::from(gauges.is_full.load(Ordering::Relaxed)));
        self.gauge("headwater_store_full", "1: publishes are refused for lack of space", full);
    }

    fn streams(&mut self, meters: &Meters) {
        type Column = (&'static str, &'static str, fn(&hw_node::StreamMeter) -> u64);
        let columns: [Column; 6] = [
            ("headwater_stream_messages", "Messages in the stream", |stream| stream.messages),
            ("headwater_stream_bytes", "Bytes in the stream", |stream| stream.bytes),
            ("headwater_stream_first_seq", "Sequence of the first message", |stream| stream.first_seq),
            ("headwater_stream_last_seq", "Sequence of the last message", |stream| stream.last_seq),
            ("headwater_stream_consumers", "Consumers of the stream", |stream| stream.consumers),
            ("headwater_stream_segments", "Segments of the stream", |stream| stream.segments),
        ];
        for (name, help, value) in columns {
            let values = meters.streams.iter().map(|stream| {
                let labels = vec![("account", stream.account.clone()), ("stream", stream.stream.clone())];
                (labels, value(stream) as f64)
            });
            self.add(name, help, Values::Gauges(values.collect()));
        }
        let help = "Streams beyond the first 1000: they have no numbers here";
        self.gauge("headwater_streams_left_out", help, meters.streams_left_out as f64);
    }

    fn consumers(&mut self, meters: &Meters) {
        type Column = (&'static str, &'static str, fn(&hw_node::ConsumerMeter) -> u64);
        let columns: [Column; 4] = [
            ("headwater_consumer_pending_messages", "Messages not delivered yet", |one| one.pending),
            ("headwater_consumer_ack_pending_messages", "Deliveries not acknowledged yet", |one| {
                one.ack_pending
            }),
            ("headwater_consumer_redelivered_messages", "Unacknowledged messages delivered again", |one| {
                one.redelivered
            }),
            ("headwater_consumer_waiting_pulls", "Pull requests that wait", |one| one.waiting),
        ];
        for (name, help, value) in columns {
            let values = meters.consumers.iter().map(|one| {
                let labels = vec![
                    ("account", one.account.clone()),
                    ("stream", one.stream.clone()),
                    ("consumer", one.consumer.clone()),
                ];
                (labels, value(one) as f64)
            });
            self.add(name, help, Values::Gauges(values.collect()));
        }
        let help = "Consumers beyond the first 1000: they have no numbers here";
        self.gauge("headwater_consumers_left_out", help, meters.consumers_left_out as f64);
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { name, help, values } in &self.families {
            let metric = encoder.encode_descriptor(name, help, None, values.kind())?;
            values.encode(metric)?;
        }
        Ok(())
    }
}

impl Values {
    fn kind(&self) -> MetricType {
        match self {
            Values::Counter(_) => MetricType::Counter,
            Values::Gauge(_) | Values::Gauges(_) => MetricType::Gauge,
            Values::Info(_) => MetricType::Info,
            Values::Histogram(..) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Values::Counter(value) => metric.encode_counter::<NoLabelSet, _, f64>(value, None),
            Values::Gauge(value) => metric.encode_gauge(value),
            Values::Gauges(values) => values
                .iter()
                .try_for_each(|(labels, value)| metric.encode_family(labels)?.encode_gauge(value)),
            Values::Info(labels) => metric.encode_info(labels),
            Values::Histogram(sum, counts) => {
                let total = counts.iter().map(|(_, count)| count).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, total, counts, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.counter("a_b", "Things", 3);
        let labels = vec![("stream", "x\"y".to_owned())];
        page.add("c_bytes", "Bytes", Values::Gauges(vec![(labels, 1.0)]));
        page.add("d_seconds", "Times", Values::Histogram(0.5, vec![(0.1, 1), (f64::INFINITY, 2)]));
        let wanted = "\
# HELP a_b Things\n# TYPE a_b counter\na_b_total 3\n\
# HELP c_bytes Bytes\n# TYPE c_bytes gauge\nc_bytes{stream=\"x\\\"y\"} 1.0\n\
# HELP d_seconds Times\n# TYPE d_seconds histogram\nd_seconds_sum 0.5\nd_seconds_count 3\n\
d_seconds_bucket{le=\"0.1\"} 1\nd_seconds_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(page.text().as_deref(), Ok(wanted));
    }
}
