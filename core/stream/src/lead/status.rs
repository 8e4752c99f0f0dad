//! Status headers and acknowledgement subjects, written by hand into reused buffers.

use bytes::{BufMut, Bytes, BytesMut};
use hw_kit::{Seq, Time};

use super::requests::{Ending, Waiting};
use crate::consumer::Position;
use crate::outcome::Effect;

pub(super) const NO_MESSAGES: &[u8] = b"NATS/1.0 404 No Messages\r\n\r\n";
pub(super) const PUSH_BASED: &[u8] = b"NATS/1.0 409 Consumer is push based\r\n\r\n";
pub(super) const MAX_WAITING: &[u8] = b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n";
pub(super) const DELETED: &[u8] = b"NATS/1.0 409 Consumer Deleted\r\n\r\n";
pub(super) const PIN_MISMATCH: &[u8] = b"NATS/1.0 423 Nats-Pin-Id mismatch\r\n\r\n";
pub(super) const FLOW_CONTROL: &[u8] = b"NATS/1.0 100 FlowControl Request\r\n\r\n";

/// A status message.
pub(super) fn send(to: &Bytes, header: impl Into<Bytes>) -> Effect {
    Effect::Send { to: to.clone(), reply: Bytes::new(), header: header.into(), payload: Bytes::new() }
}

/// A status line alone, such as `409 Exceeded MaxRequestBatch of 5`.
pub(super) fn line(text: &str) -> Bytes {
    Bytes::from(format!("NATS/1.0 {text}\r\n\r\n"))
}

/// The status line of an ended request, with what it did not get.
pub(super) fn with_pending(text: &str, waiting: &Waiting) -> Bytes {
    let (messages, bytes) = (waiting.shown_left(), waiting.bytes_left.unwrap_or(0));
    Bytes::from(format!(
        "NATS/1.0 {text}\r\nNats-Pending-Messages: {messages}\r\nNats-Pending-Bytes: {bytes}\r\n\r\n"
    ))
}

/// What an ended request is told, if anything.
pub(super) fn ending(waiting: &Waiting) -> Option<Bytes> {
    match waiting.ending? {
        Ending::Silent => None,
        Ending::Timeout => Some(with_pending("408 Request Timeout", waiting)),
        Ending::NoMessages => Some(Bytes::from_static(NO_MESSAGES)),
        Ending::TooBig => Some(with_pending("409 Message Size Exceeds MaxBytes", waiting)),
        Ending::Completed => Some(with_pending("409 Batch Completed", waiting)),
        Ending::WrongPin => Some(with_pending("423 Nats-Wrong-Pin-Id", waiting)),
    }
}

/// An idle heartbeat; `stalled` is the flow control subject that the client has not answered.
pub(super) fn heartbeat(delivered: Position, stalled: &Bytes) -> Bytes {
    let (consumer, stream) = (delivered.consumer_seq, delivered.stream_seq);
    let mut text = format!(
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {consumer}\r\nNats-Last-Stream: {stream}\r\n"
    )
    .into_bytes();
    if !stalled.is_empty() {
        text.extend_from_slice(b"Nats-Consumer-Stalled: ");
        text.extend_from_slice(stalled);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// The numbers of an acknowledgement subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckNumbers {
    pub count: u32,
    pub seq: Seq,
    pub consumer_seq: u64,
    pub ts: Time,
    pub pending: u64,
}

/// Writes `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ts>.<pending>`.
#[derive(Debug)]
pub(super) struct AckSubjects {
    prefix: Box<[u8]>,
    buffer: BytesMut,
    /// How many subjects the next allocation is for: the longer a batch gets, the more share one.
    room: usize,
}

/// The most subjects that share an allocation, which lives as long as one of them.
const ROOM: usize = 32;

impl AckSubjects {
    pub fn new(stream: &[u8], consumer: &[u8]) -> AckSubjects {
        let prefix = [b"$JS.ACK.".as_slice(), stream, b".", consumer, b"."].concat();
        AckSubjects { prefix: prefix.into(), buffer: BytesMut::new(), room: 1 }
    }

    pub fn write(&mut self, numbers: AckNumbers) -> Bytes {
        // Five numbers of at most 20 digits and four dots.
        let most = self.prefix.len() + 104;
        if self.buffer.capacity() - self.buffer.len() < most {
            self.buffer = BytesMut::with_capacity(most * self.room);
            self.room = (self.room * 2).min(ROOM);
        }
        self.buffer.put_slice(&self.prefix);
        put_number(&mut self.buffer, u64::from(numbers.count));
        for number in [numbers.seq.0, numbers.consumer_seq, numbers.ts.0.max(0) as u64, numbers.pending] {
            self.buffer.put_u8(b'.');
            put_number(&mut self.buffer, number);
        }
        self.buffer.split().freeze()
    }

    /// How long the subject would be.
    pub fn len(&self, n: AckNumbers) -> usize {
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        let numbers = [u64::from(n.count), n.seq.0, n.consumer_seq, n.ts.0.max(0) as u64, n.pending];
        self.prefix.len() + 4 + numbers.into_iter().map(digits).sum::<usize>()
    }

    /// A batch is complete: an idle consumer keeps no buffer.
    pub fn rest(&mut self) {
        (self.buffer, self.room) = (BytesMut::new(), 1);
    }
}

const PAIRS: &[u8; 200] =
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

fn put_number(buffer: &mut BytesMut, mut number: u64) {
    let (mut digits, mut at) = ([0u8; 20], 20);
    while number >= 100 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number >= 10 {
        let pair = number as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    buffer.put_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_written_as_announced() {
        let mut subjects = AckSubjects::new(b"S", b"C");
        for number in [0, 1, 9, 10, 99, 100, 101, 999, 12345, u64::MAX] {
            let numbers = AckNumbers {
                count: 3,
                seq: Seq(number),
                consumer_seq: number / 2,
                ts: Time(1_795_000_000_123_456_789),
                pending: number,
            };
            let expected = format!("$JS.ACK.S.C.3.{number}.{}.1795000000123456789.{number}", number / 2);
            assert_eq!(subjects.write(numbers), expected);
            assert_eq!(subjects.len(numbers), expected.len());
        }
    }
}
