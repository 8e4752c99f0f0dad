//! What consumers' clients say: pulls, acknowledgements, flow control. It is kept until the round ends, because
//! consumers ask the hub who listens while the hub is busy handing these messages over.

use bytes::Bytes;
use hw_hub::{Hub, Message};
use hw_jsapi::{AckSubject, ack_kind, pull_request, status_header};
use hw_kit::{GroupId, Time};
use hw_stream::Command;
use hw_stream::command::{Settlement, Verdict};
use hw_stream::lead::{Ack, FlowAnswer, PullRequest, PumpOut};
use hw_stream::outcome::Effect;

use crate::group::{Group, interest_in};
use crate::jetstream::JetStream;
use crate::limits::ACKS_AT_ONCE;
use crate::log::Origin;
use crate::shard::owned;

/// Something that a consumer's client said.
pub(crate) enum Said {
    /// `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
    Pull { consumer: Bytes, reply: Bytes, request: PullRequest },
    /// A pull that cannot be read.
    BadPull { reply: Bytes, text: String },
    /// A pull that wants a newer server.
    OldServer { reply: Bytes },
    /// `$JS.ACK.…`; `next` is the pull that may come with it.
    Ack { consumer: Bytes, reply: Bytes, ack: Ack, next: Option<Bytes> },
    /// `$JS.FC.…`: a push client has caught up.
    Flow { consumer: Bytes, answer: FlowAnswer },
}

impl JetStream {
    pub(crate) fn handle_pull(&mut self, id: GroupId, msg: &Message<'_>) {
        let Some(consumer) = msg.subject.rsplit(|&byte| byte == b'.').next() else { return };
        let (consumer, reply) = (owned(consumer), owned(msg.reply));
        if !hw_jsapi::has_level(msg.header) {
            return self.said.push((id, Said::OldServer { reply }));
        }
        self.said.push((
            id,
            match pull_request(msg.payload) {
                Ok(request) => Said::Pull { consumer, reply, request },
                Err(text) => Said::BadPull { reply, text },
            },
        ));
    }

    pub(crate) fn handle_ack(&mut self, id: GroupId, msg: &Message<'_>) {
        let (Some(subject), Some((kind, rest))) = (AckSubject::parse(msg.subject), ack_kind(msg.payload))
        else {
            return;
        };
        let next = matches!(kind, hw_stream::lead::AckKind::Next).then(|| owned(rest));
        let ack = Ack {
            seq: subject.stream_seq,
            consumer_seq: subject.consumer_seq,
            deliveries: subject.deliveries,
            kind,
        };
        self.said
            .push((id, Said::Ack { consumer: owned(subject.consumer), reply: owned(msg.reply), ack, next }));
    }

    pub(crate) fn handle_flow_control(&mut self, id: GroupId, msg: &Message<'_>) {
        let Some(consumer) = hw_jsapi::flow_consumer(msg.subject) else { return };
        let (consumer_seq, seq) = hw_jsapi::last_seen(msg.header);
        let answer = FlowAnswer { subject: owned(msg.subject), consumer_seq, seq };
        self.said.push((id, Said::Flow { consumer: owned(consumer), answer }));
    }

    /// Carries out what clients said since the last time.
    pub(crate) fn hear(&mut self, now: Time, hub: &Hub) {
        let said = std::mem::take(&mut self.said);
        let mut heard: Vec<GroupId> = Vec::new();
        for (id, said) in said {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let mut effects = Vec::new();
            let confirmed = group.hear(now, hub, said, &mut effects);
            let account = group.account;
            if let Some(reply) = confirmed {
                self.outbox.answer(account, reply, Bytes::new(), Bytes::new());
            }
            self.perform(now, hub, id, effects);
            self.touch(id);
            if heard.last() != Some(&id) {
                heard.push(id);
            }
        }
        for id in heard {
            if let Some(group) = self.groups.get_mut(&id) {
                group.propose_acks(now);
            }
        }
    }
}

impl Group {
    /// Hears one thing; gives the reply subject of an acknowledgement that needs no command.
    fn hear(&mut self, now: Time, hub: &Hub, said: Said, effects: &mut Vec<Effect>) -> Option<Bytes> {
        let interest = interest_in(hub, self.account);
        let mut out = PumpOut::default();
        match said {
            Said::BadPull { reply, text } => {
                let header = status_header(&format!("400 Bad Request - {text}"), &[]);
                let (to, reply, payload) = (reply, Bytes::new(), Bytes::new());
                effects.push(Effect::Send { to, reply, header, payload });
                None
            }
            Said::OldServer { reply } => {
                let header = status_header(hw_jsapi::REQUIRED_API_LEVEL, &[]);
                effects.push(Effect::Send { to: reply, reply: Bytes::new(), header, payload: Bytes::new() });
                None
            }
            // Its stream listens for all its consumers, on every server.
            Said::Pull { consumer, reply, .. } if self.stream.consumer(&consumer).is_none() => {
                let (to, header) = (reply, status_header("503", &[]));
                effects.push(Effect::Send { to, reply: Bytes::new(), header, payload: Bytes::new() });
                None
            }
            Said::Pull { consumer, reply, request } => {
                self.with_lead(now, &consumer, &interest, |lead, m| {
                    lead.handle_pull(m, reply, &request, &mut out)
                });
                self.take(now, &consumer, &interest, &mut out, effects);
                None
            }
            Said::Flow { consumer, answer } => {
                let settlement = self
                    .with_lead(now, &consumer, &interest, |lead, m| lead.handle_flow(m, &answer, &mut out));
                self.settle(now, &consumer, &Bytes::new(), settlement.flatten());
                self.take(now, &consumer, &interest, &mut out, effects);
                None
            }
            Said::Ack { consumer, reply, .. } if self.stream.consumer(&consumer).is_none() => {
                // A confirmation would say that it counts.
                if !reply.is_empty() {
                    let (to, header) = (reply, status_header("503", &[]));
                    effects.push(Effect::Send { to, reply: Bytes::new(), header, payload: Bytes::new() });
                }
                None
            }
            Said::Ack { consumer, reply, ack, next } => {
                let settlement =
                    self.with_lead(now, &consumer, &interest, |lead, m| lead.handle_ack(m, ack, &mut out));
                // The answer to `+NXT` is the next message, not a confirmation.
                let asked = if next.is_some() { Bytes::new() } else { reply.clone() };
                let confirmed = self.settle(now, &consumer, &asked, settlement.flatten());
                self.take(now, &consumer, &interest, &mut out, effects);
                if let Some(body) = next
                    && let Ok(request) = pull_request(&body)
                {
                    self.with_lead(now, &consumer, &interest, |lead, m| {
                        lead.handle_pull(m, reply.clone(), &request, &mut out);
                    });
                    self.take(now, &consumer, &interest, &mut out, effects);
                    return None;
                }
                confirmed
            }
        }
    }

    /// Proposes a settlement; without one a client that asks for confirmation gets it at once.
    fn settle(
        &mut self,
        now: Time,
        consumer: &Bytes,
        reply: &Bytes,
        settlement: Option<Settlement>,
    ) -> Option<Bytes> {
        let asked = (!reply.is_empty()).then(|| reply.clone());
        let Some(settlement) = settlement else { return asked };
        let is_plain = asked.is_none() && settlement.verdict == Verdict::Ack;
        let is_more = |acks: &(Bytes, Vec<_>)| acks.0 == *consumer && acks.1.len() < ACKS_AT_ONCE;
        if !is_plain || !self.acks.as_deref().is_none_or(is_more) {
            self.propose_acks(now);
        }
        if is_plain {
            self.acks.get_or_insert_with(|| Box::new((consumer.clone(), Vec::new()))).1.push(settlement);
            return None;
        }
        let command = Command::Settled { ts: now, consumer: consumer.clone(), acks: vec![settlement] };
        let origin = asked.map_or(Origin::None, Origin::Ack);
        self.log.propose(origin, |out| command.encode(out));
        None
    }

    /// Proposes the acknowledgements that came together: in a row they take a few bytes.
    fn propose_acks(&mut self, now: Time) {
        let Some((consumer, acks)) = self.acks.take().map(|acks| *acks) else { return };
        let command = Command::Settled { ts: now, consumer, acks };
        self.log.propose(Origin::None, |out| command.encode(out));
    }
}
