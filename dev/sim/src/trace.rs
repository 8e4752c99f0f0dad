//! What happened, as one number: every byte that leaves a server and every disk operation goes in, in order.

use hw_kit::Time;
use hw_store::DiskOp;

/// A running hash of everything observable, and the lines that tell it if somebody wants to read them.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: bool,
    /// Whose disk works.
    pub host: usize,
}

impl Trace {
    /// An empty one; `lines` prints what happens to standard error.
    pub fn new(lines: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines, host: 0 }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events went in.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes that a server sent on a connection.
    pub fn bytes(&mut self, now: Time, conn: u64, bytes: &[u8]) {
        self.mix(&[1, now.0 as u64, conn, u64::from(crc32fast::hash(bytes)), bytes.len() as u64]);
    }

    /// A disk operation.
    pub fn disk(&mut self, now: Time, op: &DiskOp) {
        let crc = match op {
            DiskOp::Write { data, offset, .. } => {
                let mut hasher = crc32fast::Hasher::new();
                data.iter().for_each(|piece| hasher.update(piece));
                u64::from(hasher.finalize()) ^ offset << 32
            }
            DiskOp::Fill { offset, len, .. } | DiskOp::Read { offset, len, .. } => offset << 32 | len,
            DiskOp::Allocate { len, .. } => *len,
            _ => std::mem::discriminant(op).mark(),
        };
        let place = u64::from(crc32fast::hash(op.place().as_bytes()));
        self.mix(&[2, now.0 as u64, place, crc]);
        let host = self.host;
        self.line(now, || format!("disk {host} {}", brief(op)));
    }

    /// Something worth telling.
    pub fn line(&mut self, now: Time, text: impl FnOnce() -> String) {
        if self.lines {
            let micros = (now.0 - crate::clock::START.0) / 1000;
            eprintln!("{:>10}.{:03} ms  {}", micros / 1000, micros % 1000, text());
        }
    }

    fn mix(&mut self, words: &[u64]) {
        self.events += 1;
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }
}

/// A number for operations that differ in nothing but their kind.
trait Mark {
    fn mark(&self) -> u64;
}

impl Mark for std::mem::Discriminant<DiskOp> {
    fn mark(&self) -> u64 {
        u64::from(crc32fast::hash(format!("{self:?}").as_bytes()))
    }
}

fn brief(op: &DiskOp) -> String {
    match op {
        DiskOp::Write { file, offset, data } => {
            format!(
                "Write {} +{} @{offset}",
                file.path(),
                data.iter().map(|piece| piece.len()).sum::<usize>()
            )
        }
        other => format!("{other:?}"),
    }
}
