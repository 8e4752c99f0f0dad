//! A stream's state as bytes, for checkpoints and for replicas that are far behind. The messages' own bytes are not in
//! it: they are in segments, or follow one by one. docs/format.md, "Stream state".

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Time};
use hw_store::messages::{self, IndexSource, Restore};
use hw_store::{Messages, Record};
use sha2::{Digest, Sha256};

use super::counter::{Sources, shown};
use super::dedupe::{Dedupe, Fingerprint, Seen};
use super::expiry::{Expiry, Special};
use super::feed::Position;
use super::number::Number;
use super::schedule::Schedules;
use super::{Mappings, Stream};
use crate::config::StreamConfig;
use crate::consumer::Consumer;

/// Version 2 had no positions of sources, version 3 no schedules and no parts of batches, version 4 message ids as text.
const VERSION: u8 = 5;

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes end too early or contradict themselves.
    #[error("the stream's state is damaged")]
    Damaged,
    /// Written by a version that is not known.
    #[error("the stream's state has the unknown version {0}")]
    Version(u8),
    /// The configuration is not readable.
    #[error("the stream's configuration is not readable: {0}")]
    Config(String),
    /// A consumer's state is not readable.
    #[error("the state of consumer {0:?} is not readable")]
    Consumer(String),
    /// The index of messages is not readable.
    #[error(transparent)]
    Messages(#[from] messages::RestoreError),
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn block(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Stream {
    /// Appends the whole state except for the messages' bytes.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.snapshot_rules(out);
        self.messages.snapshot(out);
    }

    /// A number for the whole state but the messages' bytes, which the log vouches for, and how many bytes it was made of:
    /// replicas that have applied the same entries have the same.
    pub fn digest(&self) -> (u64, usize) {
        let mut state = Vec::new();
        self.snapshot_rules(&mut state);
        self.messages.snapshot_content(&mut state);
        let hash = Sha256::digest(&state);
        (hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)), state.len())
    }

    /// Everything but the messages.
    fn snapshot_rules(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for value in [
            self.created.0 as u64,
            self.revision,
            self.applied.0,
            self.clock.0 as u64,
            self.age_checked.0,
            self.fingerprint,
        ] {
            number(out, value);
        }
        block(out, &serde_json::to_vec(&self.config).expect("a configuration has only string keys"));
        block(out, &self.last_msg_id);
        let known = || self.dedupe.iter(self.clock, self.config.duplicate_window);
        number(out, known().count() as u64);
        for Seen { ts, print, seq } in known() {
            number(out, ts.0 as u64);
            number(out, seq.0);
            out.extend_from_slice(&print.to_bytes());
        }
        number(out, self.expiry.iter().len() as u64);
        for (seq, special) in self.expiry.iter() {
            number(out, seq.0);
            number(out, special.expires.0 as u64);
            out.push(u8::from(special.is_marker));
        }
        number(out, self.totals.len() as u64);
        for (seq, total) in &self.totals {
            number(out, seq.0);
            block(out, total.to_string().as_bytes());
        }
        number(out, self.consumers.len() as u64);
        let mut bytes = Vec::new();
        for (name, consumer) in &self.consumers {
            bytes.clear();
            consumer.encode(&mut bytes);
            block(out, name);
            block(out, &bytes);
        }
        number(out, self.positions.len() as u64);
        for (source, position) in &self.positions {
            block(out, source);
            block(out, &position.identity);
            number(out, position.seq.0);
        }
        number(out, self.schedules.iter().len() as u64);
        for (seq, due) in self.schedules.iter() {
            number(out, seq.0);
            number(out, due.0 as u64);
        }
        number(out, self.parts.len() as u64);
        for record in &self.parts {
            let (subject_len, header_len) = record.lengths();
            number(out, u64::from(subject_len));
            number(out, u64::from(header_len));
            block(out, record.joined());
        }
        number(out, self.sources.len() as u64);
        for (seq, sources) in &self.sources {
            number(out, seq.0);
            block(out, &shown(sources));
        }
    }
}

/// Reads a snapshot: open it, hand in the segments' indexes or the messages, finish.
#[derive(Debug)]
pub struct StreamRestore {
    /// Everything but messages and consumers.
    stream: Stream,
    consumers: Vec<(Bytes, Bytes)>,
    /// The messages' part, which says which segments it needs.
    pub messages: Restore,
}

impl StreamRestore {
    /// Reads what [`Stream::snapshot`] wrote.
    pub fn open(bytes: &Bytes) -> Result<StreamRestore, RestoreError> {
        let mut r = Reader(bytes.clone());
        let version = r.take(1)?[0];
        if !(2..=VERSION).contains(&version) {
            return Err(RestoreError::Version(version));
        }
        let (created, revision) = (Time(r.number()? as i64), r.number()?);
        let (applied, clock) = (LogIndex(r.number()?), Time(r.number()? as i64));
        let (age_checked, fingerprint) = (Seq(r.number()?), r.number()?);
        let config = r.block()?;
        let config: StreamConfig =
            serde_json::from_slice(&config).map_err(|error| RestoreError::Config(error.to_string()))?;
        let last_msg_id = r.block()?;
        let dedupe = r.dedupe(version)?;
        let mut expiry = Expiry::default();
        for _ in 0..r.number()? {
            let (seq, expires) = (Seq(r.number()?), Time(r.number()? as i64));
            let is_marker = r.take(1)?[0] != 0;
            expiry.insert(seq, Special { expires, is_marker });
        }
        let mut totals = BTreeMap::new();
        for _ in 0..r.number()? {
            let seq = Seq(r.number()?);
            totals.insert(seq, Number::parse(&r.block()?).ok_or(RestoreError::Damaged)?);
        }
        let mut consumers = Vec::new();
        for _ in 0..r.number()? {
            consumers.push((r.block()?, r.block()?));
        }
        let mut positions = BTreeMap::new();
        if version > 2 {
            for _ in 0..r.number()? {
                let (source, identity) = (r.block()?, r.block()?);
                let (source, identity) = (Bytes::copy_from_slice(&source), Bytes::copy_from_slice(&identity));
                positions.insert(source, Position { identity, seq: Seq(r.number()?) });
            }
        }
        let (schedules, parts, sources) = if version > 3 { r.late()? } else { Default::default() };
        let (messages, rest) = Restore::open(&r.0)?;
        if !rest.is_empty() {
            return Err(RestoreError::Damaged);
        }
        let stream = Stream {
            mappings: Mappings::of(&config),
            revision,
            applied,
            clock,
            dedupe,
            last_msg_id: Bytes::copy_from_slice(&last_msg_id),
            expiry,
            age_checked,
            totals,
            positions,
            sources,
            schedules,
            parts,
            fingerprint,
            ..Stream::new(config, created)
        };
        Ok(StreamRestore { stream, consumers, messages })
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.stream.config.name
    }

    /// The command that the state includes last.
    pub fn applied(&self) -> LogIndex {
        self.stream.applied
    }

    /// The stream as another server has it, made of this server's messages: see [`Restore::adopt`]. Gives them back when
    /// that cannot be.
    pub fn adopt(self, own: Messages) -> Result<Stream, Box<(Messages, String)>> {
        let StreamRestore { mut stream, consumers, messages } = self;
        match messages.adopt(own) {
            Ok(messages) => stream.messages = messages,
            Err(kept) => {
                let (own, missing) = *kept;
                return Err(Box::new((own, format!("message {missing} is missing"))));
            }
        }
        match stream.take_consumers(consumers) {
            Ok(()) => Ok(stream),
            Err(error) => Err(Box::new((stream.messages, error.to_string()))),
        }
    }

    /// The stream, and the stretches (first and last sequence) that it should have but nobody handed in.
    /// The segments' indexes are read through `source`.
    pub fn finish(self, source: Option<IndexSource>) -> Result<(Stream, Vec<(Seq, Seq)>), RestoreError> {
        let StreamRestore { mut stream, consumers, messages } = self;
        let (messages, lost) = messages.finish(source);
        stream.messages = messages;
        stream.take_consumers(consumers)?;
        Ok((stream, lost))
    }
}

impl Stream {
    /// What was read of consumers, now that the messages are here.
    fn take_consumers(&mut self, consumers: Vec<(Bytes, Bytes)>) -> Result<(), RestoreError> {
        let stream = self;
        stream.expiry.retain(|seq| stream.messages.contains(seq));
        stream.schedules.retain(|seq| stream.messages.contains(seq));
        stream.sources.retain(|seq, _| stream.messages.contains(*seq));
        stream.totals.retain(|seq, _| stream.messages.contains(*seq));
        let mut restored = BTreeMap::new();
        for (name, bytes) in consumers {
            let consumer = Consumer::decode(&bytes, stream.config.retention, &stream.messages);
            let damaged = || RestoreError::Consumer(String::from_utf8_lossy(&name).into_owned());
            let (consumer, _) = consumer.filter(|(_, rest)| rest.is_empty()).ok_or_else(damaged)?;
            restored.insert(Bytes::copy_from_slice(&name), consumer);
        }
        stream.consumers = restored;
        Ok(())
    }
}

struct Reader(Bytes);

type Late = (Schedules, Vec<Record>, BTreeMap<Seq, Arc<Sources>>);

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, RestoreError> {
        if self.0.len() < count {
            return Err(RestoreError::Damaged);
        }
        Ok(self.0.split_to(count))
    }

    fn number(&mut self) -> Result<u64, RestoreError> {
        Ok(u64::from_le_bytes(self.take(8)?[..].try_into().expect("eight bytes were taken")))
    }

    /// Message ids, which were in it with their text before version 5.
    fn dedupe(&mut self, version: u8) -> Result<Dedupe, RestoreError> {
        let mut dedupe = Dedupe::default();
        for _ in 0..self.number()? {
            let (ts, seq) = (Time(self.number()? as i64), Seq(self.number()?));
            let print = match version {
                0..5 => Fingerprint::of(&self.block()?),
                _ => {
                    Fingerprint::from_bytes(self.take(16)?[..].try_into().expect("sixteen bytes were taken"))
                }
            };
            dedupe.insert(ts, print, seq);
        }
        Ok(dedupe)
    }

    /// What came with version 4: schedules, the beginning of a batch, what sources have contributed to counters.
    fn late(&mut self) -> Result<Late, RestoreError> {
        let (mut schedules, mut parts, mut sources) = Late::default();
        for _ in 0..self.number()? {
            schedules.insert(Seq(self.number()?), Time(self.number()? as i64));
        }
        for _ in 0..self.number()? {
            parts.push(self.record()?);
        }
        for _ in 0..self.number()? {
            let (seq, json) = (Seq(self.number()?), self.block()?);
            let shown: Sources = serde_json::from_slice(&json).map_err(|_| RestoreError::Damaged)?;
            sources.insert(seq, Arc::new(shown));
        }
        Ok((schedules, parts, sources))
    }

    fn record(&mut self) -> Result<Record, RestoreError> {
        let (subject, header) = (u16::try_from(self.number()?), u32::try_from(self.number()?));
        let joined = self.block()?;
        let (Ok(subject), Ok(header)) = (subject, header) else { return Err(RestoreError::Damaged) };
        Record::from_joined(joined, subject, header).ok_or(RestoreError::Damaged)
    }

    fn block(&mut self) -> Result<Bytes, RestoreError> {
        let length = usize::try_from(self.number()?).map_err(|_| RestoreError::Damaged)?;
        self.take(length)
    }
}
