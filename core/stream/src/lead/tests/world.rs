//! One consumer on one leader, with a log that commits at once, driven by text.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::{GroupId, Seq, Span, Time};
use hw_store::index::{Pages, ReadSegment};
use hw_store::messages::{IndexSource, Keep, Message};
use hw_store::segment::{SegmentWriter, encode};
use hw_store::{DiskError, Messages, Record, SegmentId, Vault};

use crate::command::Command;
use crate::config::{ConsumerConfig, StreamConfig};
use crate::consumer::{Applied, Consumer, Request, ServerLimits, check};
use crate::lead::{Ack, AckKind, FlowAnswer, Lead, Moment, PullRequest, PumpOut};
use crate::outcome::{Advisory, Effect};

/// When every world begins.
pub const START: Time = Time(1_700_000_000_000_000_000);

/// Where messages are that are on disk.
pub const SEGMENT: SegmentId = SegmentId { group: GroupId(1), number: 1 };

/// A segment's file.
#[derive(Debug)]
struct File(Bytes);

impl ReadSegment for File {
    fn read(&self, _: SegmentId, offset: u64, len: u64) -> Result<Bytes, DiskError> {
        Ok(self.0.slice(offset as usize..(offset + len) as usize))
    }
}

pub struct World {
    pub now: Time,
    pub stream: StreamConfig,
    pub messages: Messages,
    pub consumer: Consumer,
    pub lead: Lead,
    pub muted: BTreeSet<Vec<u8>>,
    pub out: PumpOut,
    /// What came out since the last look.
    pub effects: Vec<Effect>,
    flow: Bytes,
}

impl World {
    pub fn new(config: &str, published: &[&str]) -> World {
        let stream =
            StreamConfig { name: "S".into(), subjects: vec!["a.>".into()], ..StreamConfig::default() };
        let mut messages = Messages::new(Seq(0), Keep::Memory);
        for subject in published {
            append(&mut messages, START, subject, "data");
        }
        let consumer = create(config, &stream, &messages);
        let lead = {
            let interest = |_: &[u8], _: &[u8]| true;
            let m = Moment { now: START, consumer: &consumer, messages: &messages, interest: &interest };
            Lead::new(b"S", 7, &m)
        };
        let (now, muted, out, effects, flow) =
            (START, BTreeSet::new(), PumpOut::default(), Vec::new(), Bytes::new());
        World { now, stream, messages, consumer, lead, muted, out, effects, flow }
    }

    /// Has messages with these subjects and payloads of so many bytes, all in a segment and none in memory.
    pub fn put_on_disk(&mut self, published: &[&str], payload: usize) -> Vec<Message> {
        self.messages = Messages::new(Seq(0), Keep::File);
        for subject in published {
            append(&mut self.messages, START, subject, &"d".repeat(payload));
        }
        let all: Vec<_> = self.messages.take_unwritten(SEGMENT.number).into_iter().flatten().collect();
        let (file, written) = encode(SegmentWriter::new(SEGMENT, false, Vault::default()), &all);
        let pages = Arc::new(Pages::new(Box::new(File(file)), 10_000, Vault::default()));
        self.messages.set_source(IndexSource { group: SEGMENT.group, pages });
        self.messages.handle_written(written);
        self.messages.set_cache_budget(0);
        all
    }

    /// Calls the leader.
    pub fn call<T>(&mut self, f: impl FnOnce(&mut Lead, &Moment<'_>, &mut PumpOut) -> T) -> T {
        let muted = &self.muted;
        let interest = |subject: &[u8], _: &[u8]| !muted.contains(subject);
        let m =
            Moment { now: self.now, consumer: &self.consumer, messages: &self.messages, interest: &interest };
        f(&mut self.lead, &m, &mut self.out)
    }

    /// Pumps and applies until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            self.call(|lead, m, out| lead.pump(m, out));
            if !self.commit() {
                return;
            }
        }
    }

    /// Applies what was proposed; false if there was nothing.
    pub fn commit(&mut self) -> bool {
        let (proposals, apply_now) =
            (std::mem::take(&mut self.out.proposals), std::mem::take(&mut self.out.apply_now));
        let busy = !proposals.is_empty() || !apply_now.is_empty() || self.out.more;
        self.out.more = false;
        for proposal in proposals {
            self.apply(proposal);
        }
        if !apply_now.is_empty() {
            self.deliver(&apply_now);
        }
        self.effects.append(&mut self.out.effects);
        busy
    }

    fn deliver(&mut self, seqs: &[Seq]) {
        let mut applied = Applied::default();
        self.consumer.apply_delivered(self.now, seqs, &self.messages, &mut applied);
        self.out.effects.append(&mut applied.effects);
        self.call(|lead, m, out| lead.handle_delivered(m, seqs, out));
    }

    pub fn apply(&mut self, command: Command) {
        match command {
            Command::Delivered { seqs, .. } => self.deliver(&seqs),
            Command::Settled { ts, acks, .. } => {
                let mut applied = Applied::default();
                self.consumer.apply_settled(ts, &acks, &mut applied);
                self.out.effects.append(&mut applied.effects);
            }
            other => panic!("a lead does not propose {other:?}"),
        }
    }

    pub fn ack(&mut self, seq: u64, kind: AckKind) {
        let consumer_seq = self.consumer.pending().get(Seq(seq)).map_or(1, |d| d.consumer_seq);
        let ack = Ack { seq: Seq(seq), consumer_seq, deliveries: 1, kind };
        let settlement = self.call(|lead, m, out| lead.handle_ack(m, ack, out));
        if let Some(settlement) = settlement {
            let acks = vec![settlement];
            self.out.proposals.push(Command::Settled { ts: self.now, consumer: Bytes::new(), acks });
        }
        self.commit();
    }

    pub fn remove(&mut self, seq: u64) {
        if let Some(removed) = self.messages.remove(Seq(seq))
            && self.consumer.is_concerned(Seq(seq))
        {
            let mut applied = Applied::default();
            self.consumer.message_removed(Seq(seq), &removed.name, &mut applied);
            self.effects.append(&mut applied.effects);
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub fn wait(&mut self, span: Span) {
        let until = self.now + span;
        for step in 0.. {
            assert!(step < 100_000, "the deadline stands still at {:?}", self.lead.next_deadline());
            let next = self.lead.next_deadline();
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            self.call(|lead, m, out| lead.handle_timeout(m, out));
            self.commit();
            self.settle();
        }
        self.now = until;
    }

    pub fn restart(&mut self) {
        let mut bytes = Vec::new();
        self.consumer.encode(&mut bytes);
        let (consumer, rest) =
            Consumer::decode(&bytes, self.stream.retention, &self.messages).expect("own bytes");
        assert!(rest.is_empty());
        self.consumer = consumer;
        let muted = &self.muted;
        let interest = |subject: &[u8], _: &[u8]| !muted.contains(subject);
        let m =
            Moment { now: self.now, consumer: &self.consumer, messages: &self.messages, interest: &interest };
        self.lead = Lead::new(b"S", 8, &m);
        self.out.clear();
    }

    fn input(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "pub" => append(&mut self.messages, self.now, word, if tail.is_empty() { "data" } else { tail }),
            "pull" => {
                let reply = Bytes::copy_from_slice(word.as_bytes());
                let request = match tail.parse() {
                    Ok(batch) => PullRequest::of(batch),
                    Err(_) => serde_json::from_str(tail).expect(tail),
                };
                self.call(|lead, m, out| lead.handle_pull(m, reply, &request, out));
            }
            "ack" => self.ack(word.parse().expect("seq"), AckKind::Ack),
            "nak" => self.ack(word.parse().expect("seq"), AckKind::Nak(span(tail))),
            "wpi" => self.ack(word.parse().expect("seq"), AckKind::Progress),
            "term" => {
                self.ack(word.parse().expect("seq"), AckKind::Term(Bytes::copy_from_slice(tail.as_bytes())))
            }
            "del" => self.remove(word.parse().expect("seq")),
            "purge" => {
                let gone: Vec<Seq> =
                    self.messages.seqs().filter(|s| s.0 <= word.parse().expect("seq")).collect();
                gone.into_iter().for_each(|seq| drop(self.messages.remove(seq)));
                self.consumer.messages_purged(&self.messages);
            }
            "wait" => return self.wait(span(word)),
            _ => return self.input_rare(line),
        }
        self.settle();
        self.wait(Span::ZERO);
    }

    fn input_rare(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let word = rest.split(' ').next().unwrap_or("");
        match verb {
            "mute" => assert!(self.muted.insert(word.as_bytes().to_vec())),
            "unmute" => assert!(self.muted.remove(word.as_bytes())),
            "flow" => {
                let subject = self.flow.clone();
                let seq = Seq(word.parse().unwrap_or(0));
                let consumer_seq = rest.split(' ').nth(1).map_or(seq.0, |word| word.parse().expect("seq"));
                let answer = FlowAnswer { subject, consumer_seq, seq };
                if let Some(settlement) = self.call(|lead, m, out| lead.handle_flow(m, &answer, out)) {
                    let (consumer, acks) = (Bytes::new(), vec![settlement]);
                    self.out.proposals.push(Command::Settled { ts: self.now, consumer, acks });
                }
                self.commit();
            }
            "restart" => self.restart(),
            "unpin" => assert!(self.call(|lead, m, out| lead.handle_unpin(m, word, out))),
            "deleted" => return self.call(|lead, _, out| lead.handle_deleted(out)),
            "stepdown" => return self.call(|lead, _, out| lead.handle_stepdown(rest, true, out)),
            "pause" => {
                let (until, mut applied) = (self.now + span(word), Applied::default());
                self.consumer.apply_pause(self.now, until, &mut applied);
            }
            "reset" => {
                let seq = Seq(word.parse().expect("seq"));
                self.consumer.apply_reset(seq, &self.messages).expect(line);
            }
            "update" => {
                let old = serde_json::to_value(self.consumer.config()).expect("json");
                let mut new: serde_json::Map<_, _> = old.as_object().expect("object").clone();
                new.extend(serde_json::from_str::<serde_json::Map<_, _>>(rest).expect(rest));
                let config: ConsumerConfig = serde_json::from_value(new.into()).expect("config");
                let request = Request { config: &config, action: Default::default(), pedantic: false };
                let existing = Some(&self.consumer);
                let config = check(request, &self.stream, ServerLimits::default(), existing).expect(rest);
                self.consumer.update(config, &self.messages);
            }
            "info" => {
                let line = Bytes::from(self.info());
                self.effects.push(Effect::Send {
                    to: Bytes::from_static(b"info"),
                    reply: Bytes::new(),
                    header: Bytes::new(),
                    payload: line,
                });
            }
            _ => panic!("{line:?}"),
        }
        self.settle();
        self.wait(Span::ZERO);
    }

    /// delivered, floor (consumer/stream), pending acks, redelivered, waiting, pending.
    pub fn info(&self) -> String {
        let (c, mut matcher) = (&self.consumer, self.consumer.matcher(&self.messages));
        let (d, f) = (c.delivered(), c.ack_floor());
        format!(
            "{}/{} floor {}/{} acks {} redelivered {} waiting {} pending {}",
            d.consumer_seq,
            d.stream_seq,
            f.consumer_seq,
            f.stream_seq,
            c.pending().len(),
            c.pending().redelivered(),
            self.lead.num_waiting(),
            c.num_pending(&self.messages, &mut matcher),
        )
    }

    /// Plays a script and compares what came out after each input.
    pub fn play(&mut self, script: &str) {
        let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
        while let Some(line) = lines.next() {
            let input = line.strip_prefix("> ").unwrap_or_else(|| panic!("{line:?} came too much"));
            self.input(input);
            self.effects.append(&mut self.out.effects);
            for effect in std::mem::take(&mut self.effects) {
                if let Effect::Send { reply, .. } = &effect
                    && !reply.is_empty()
                {
                    self.flow = reply.clone();
                }
                let expected = lines.next_if(|line| !line.starts_with("> ")).unwrap_or("nothing");
                assert_eq!(text(&effect), expected, "after {input:?}");
            }
            let missing = lines.next_if(|line| !line.starts_with("> "));
            assert_eq!(missing, None, "did not come after {input:?}");
        }
    }
}

pub fn create(config: &str, stream: &StreamConfig, messages: &Messages) -> Consumer {
    let mut config: ConsumerConfig = serde_json::from_str(config).expect(config);
    config.name = "C".into();
    let request = Request { config: &config, action: Default::default(), pedantic: false };
    let config = check(request, stream, ServerLimits::default(), None).expect("a valid configuration");
    Consumer::new(Bytes::from_static(b"C"), config, stream.retention, (START, messages))
}

pub fn append(messages: &mut Messages, ts: Time, subject: &str, payload: &str) {
    let record = Record::join(subject.as_bytes(), b"", payload.as_bytes()).expect("short");
    messages.append(messages.last_seq().next(), ts, record);
}

fn span(text: &str) -> Span {
    let number = |digits: &str| digits.parse::<i64>().expect("a number");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => Span::from_millis(number(ms)),
        (_, Some(s)) => Span::from_secs(number(s)),
        _ => Span(if text.is_empty() { 0 } else { number(text) }),
    }
}

/// An effect as a script writes it.
pub fn text(effect: &Effect) -> String {
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let header = |bytes: &[u8]| {
        let text = string(bytes);
        let lines: Vec<&str> = text.trim_end().split("\r\n").collect();
        lines.join("; ").replace("NATS/1.0; ", "").replace("NATS/1.0 ", "")
    };
    match effect {
        Effect::Deliver { to, group, reply, record } => {
            let reply = string(reply);
            let numbers: Vec<&str> = reply.strip_prefix("$JS.ACK.S.C.").expect("an ack").split('.').collect();
            let [count, seq, cseq, _, pending] = numbers[..] else { panic!("{reply}") };
            let mut line = format!("{} {seq} c{cseq} d{count} p{pending}", string(to));
            if !group.is_empty() {
                line += &format!(" group {}", string(group));
            }
            if !record.header().is_empty() {
                line += &format!(" [{}]", header(record.header()));
            }
            line
        }
        Effect::Send { to, payload, .. } if !payload.is_empty() => {
            format!("{} {}", string(to), string(payload))
        }
        Effect::Send { to, header: status, .. } => format!("{} {}", string(to), header(status)),
        Effect::Advise(Advisory::MessageNaked { stream_seq, deliveries, .. }) => {
            format!("naked {stream_seq} d{deliveries}")
        }
        Effect::Advise(Advisory::MessageTerminated { stream_seq, reason, .. }) => {
            format!("terminated {stream_seq} {}", string(reason))
        }
        Effect::Advise(Advisory::MaxDeliveries { stream_seq, deliveries, .. }) => {
            format!("exhausted {stream_seq} d{deliveries}")
        }
        Effect::Advise(Advisory::AckSample { stream_seq, ack_time, .. }) => {
            format!("sample {stream_seq} {}ms", ack_time.millis())
        }
        Effect::Advise(Advisory::GroupPinned { group, .. }) => format!("pinned {group}"),
        Effect::Advise(Advisory::GroupUnpinned { group, reason, .. }) => format!("unpinned {group} {reason}"),
        Effect::Propose(Command::DeleteConsumer { .. }) => "delete".into(),
        other => format!("{other:?}"),
    }
}
