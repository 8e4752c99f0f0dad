//! Numbers of single streams and consumers for those who collect them at intervals; so many and not more.

use hw_kit::Time;

use crate::group::Group;
use crate::view::JetStreamView;

/// Numbers of streams, of consumers, and of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meters {
    /// The first streams in the order in which they were created.
    pub streams: Vec<StreamMeter>,
    /// How many streams are not among them.
    pub streams_left_out: u64,
    /// Consumers of these streams.
    pub consumers: Vec<ConsumerMeter>,
    /// How many consumers are not among them.
    pub consumers_left_out: u64,
    /// Segments of all streams.
    pub segments: u64,
    /// Streams of which nothing can be used.
    pub quarantined: u64,
}

/// A stream's numbers.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct StreamMeter {
    pub account: String,
    pub stream: String,
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    pub consumers: u64,
    pub segments: u64,
}

/// A consumer's numbers.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ConsumerMeter {
    pub account: String,
    pub stream: String,
    pub consumer: String,
    pub pending: u64,
    pub ack_pending: u64,
    pub redelivered: u64,
    pub waiting: u64,
}

impl JetStreamView<'_> {
    /// Numbers of at most so many streams and so many consumers.
    pub fn meters(&self, now: Time, streams_max: usize, consumers_max: usize) -> Meters {
        let mut meters = Meters { quarantined: self.js.aside.quarantined.len() as u64, ..Meters::default() };
        for group in self.js.groups.values() {
            let segments = group.stream.messages().live_segments().len() as u64;
            meters.segments += segments;
            let consumers = group.stream.consumers().len();
            if meters.streams.len() >= streams_max {
                meters.streams_left_out += 1;
                meters.consumers_left_out += consumers as u64;
                continue;
            }
            let account = self.js.account_name(group.account);
            let taken = consumers.min(consumers_max - meters.consumers.len());
            meters.consumers_left_out += (consumers - taken) as u64;
            meters.consumers.extend(group.meters(now, &account).take(taken));
            meters.streams.push(group.meter(account, segments));
        }
        meters
    }
}

impl Group {
    fn meter(&self, account: String, segments: u64) -> StreamMeter {
        let messages = self.stream.messages();
        StreamMeter {
            account,
            stream: self.stream.config().name.clone(),
            messages: messages.len(),
            bytes: messages.bytes(),
            first_seq: messages.first_seq().0,
            last_seq: messages.last_seq().0,
            consumers: self.stream.consumers().len() as u64,
            segments,
        }
    }

    fn meters<'a>(&'a self, now: Time, account: &'a str) -> impl Iterator<Item = ConsumerMeter> + 'a {
        self.stream.consumers().filter_map(move |consumer| {
            let info = self.consumer_info(now, consumer.name())?;
            Some(ConsumerMeter {
                account: account.to_owned(),
                stream: info.stream_name,
                consumer: info.name,
                pending: info.num_pending,
                ack_pending: info.num_ack_pending,
                redelivered: info.num_redelivered,
                waiting: info.num_waiting,
            })
        })
    }
}
