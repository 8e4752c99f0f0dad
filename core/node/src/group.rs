//! One stream on this server: its machine, its log, and the volatile halves of its consumers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hw_hub::Hub;
use hw_kit::{AccountId, GroupId, LogIndex, Rng, Seq, Time};
use hw_store::messages::BlockId;
use hw_stream::command::Settlement;
use hw_stream::config::Storage;
use hw_stream::lead::{Moment, PumpOut};
use hw_stream::outcome::Effect;
use hw_stream::{Lead, Stream};

use crate::batch::Batches;
use crate::feed::Feeds;
use crate::held::Held;
use crate::log::{Log, Origin};
use crate::read::Waiting;
use crate::schedule::Schedules;
use crate::tidy::Rewrite;
use crate::untold::Untold;
use crate::usage::Counted;

/// A stream and everything that this server keeps around it.
pub(crate) struct Group {
    /// Its number.
    pub(crate) id: GroupId,
    /// Its account.
    pub(crate) account: AccountId,
    /// The machine.
    pub(crate) stream: Stream,
    /// The meta revision of the configuration that was last proposed.
    pub(crate) revision: u64,
    /// Its log.
    pub(crate) log: Log,
    /// The volatile halves of its consumers.
    pub(crate) leads: BTreeMap<Bytes, Lead>,
    /// Reads that wait for blocks from the disk.
    pub(crate) waiting: BTreeMap<BlockId, Vec<Waiting>>,
    /// Blocks that were asked for.
    pub(crate) loading: Vec<BlockId>,
    /// Blocks that the disk failed to read, and until when those that ask by themselves wait.
    pub(crate) failing: BTreeMap<BlockId, Time>,
    /// Whether it is on the list of groups to act.
    pub(crate) dirty: bool,
    /// Whether it has commands that are not in a frame yet.
    pub(crate) open: bool,
    /// Whether an expiry was proposed and not applied yet.
    pub(crate) expiring: bool,
    /// When it is next due, as the shard knows it.
    pub(crate) armed: Option<Time>,
    /// Whether it changed since the last checkpoint.
    pub(crate) changed: bool,
    /// The highest segment number that was used.
    pub(crate) last_segment: u64,
    /// The segment that the running checkpoint writes.
    pub(crate) writing: Option<u64>,
    /// Whether the running checkpoint holds it.
    pub(crate) in_checkpoint: bool,
    /// Segments that are being read to be rewritten.
    pub(crate) rewrite: Option<Box<Rewrite>>,
    /// Segments that are damaged: they are left as they are.
    pub(crate) spared: BTreeSet<u64>,
    /// New consumers that were proposed and are not applied yet, and how often.
    pub(crate) creating: BTreeMap<Bytes, u32>,
    /// A configuration that is decided but not applied yet.
    pub(crate) wanted: Option<Arc<hw_stream::StreamConfig>>,
    /// What is wrong with its data, if anything: such a stream serves what it can and takes no writes.
    pub(crate) damage: Option<String>,
    /// Answers that wait for commands to be applied.
    pub(crate) held: VecDeque<Held>,
    /// What one consumer's clients have acknowledged in this round: one command brings it all.
    pub(crate) acks: Option<Box<(Bytes, Vec<Settlement>)>>,
    /// What it counts as in its account's usage.
    pub(crate) counted: Counted,
    /// Frames that are applied and not durable: the last command of each, and the stream's last sequence before it.
    pub(crate) ahead: VecDeque<(LogIndex, Seq)>,
    /// The batches that are open.
    pub(crate) batches: Batches,
    /// Its schedules.
    pub(crate) schedules: Schedules,
    /// The streams that it follows, and those that follow it.
    pub(crate) feeds: Feeds,
    /// Consumers that are ahead of what the log says of them.
    pub(crate) untold: Untold,
}

/// A server has as many of them as streams: what few streams need is in a box.
const _: () = assert!(size_of::<Group>() <= 2048);

/// Who listens to a subject; the second argument is a queue group, empty for none.
type Interest<'a> = &'a dyn Fn(&[u8], &[u8]) -> bool;

impl Group {
    /// A stream whose state is `stream`.
    pub(crate) fn new(id: GroupId, account: AccountId, revision: u64, stream: Stream, log: Log) -> Group {
        let mut stream = stream;
        if log.replicated.is_some() {
            // Whatever its users asked for: its log is on disk.
            stream.messages_mut().keep_on_disk();
        }
        Group {
            id,
            account,
            stream,
            revision,
            log,
            leads: BTreeMap::new(),
            waiting: BTreeMap::new(),
            loading: Vec::new(),
            failing: BTreeMap::new(),
            dirty: false,
            open: false,
            expiring: false,
            armed: None,
            changed: true,
            last_segment: 0,
            writing: None,
            in_checkpoint: false,
            rewrite: None,
            spared: BTreeSet::new(),
            creating: BTreeMap::new(),
            wanted: None,
            damage: None,
            held: VecDeque::new(),
            acks: None,
            counted: Counted::default(),
            ahead: VecDeque::new(),
            batches: Batches::default(),
            schedules: Schedules::default(),
            feeds: Feeds::default(),
            untold: Untold::default(),
        }
    }

    /// The log decides about a new consumer.
    pub(crate) fn handle_decided(&mut self, name: &Bytes) {
        if let Some(count) = self.creating.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.creating.remove(name);
            }
        }
    }

    /// Whether its log is in memory only: its commands commit at once. A replicated log is on disk, whatever its stream.
    pub(crate) fn is_volatile(&self) -> bool {
        self.stream.config().storage == Storage::Memory
            && self.log.replicated.is_none()
            && !self.log.is_held()
    }

    /// Whether its commands count before they are durable: its user wants it so.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.stream.config().persist_mode == "async"
    }

    /// The last sequence that a crash cannot take back.
    pub(crate) fn lasting_seq(&self) -> Seq {
        self.ahead.front().map_or_else(|| self.stream.messages().last_seq(), |(_, before)| *before)
    }

    /// When anything of it is next due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        if !self.log.is_leading() {
            return None;
        }
        let expiry = if self.expiring { None } else { self.stream.next_deadline() };
        let leads =
            self.leads.values().map(Lead::next_deadline).filter(|deadline| *deadline < Time::NEVER).min();
        let schedule = self.schedule_deadline();
        let schedule = schedule.into_iter().chain(self.failing.values().copied().min());
        let replicated = self.log.replicated.as_ref().and_then(|replicated| replicated.next_deadline());
        let others =
            self.feeds.next_deadline().into_iter().chain(replicated).chain(self.untold.next_deadline());
        expiry.into_iter().chain(leads).chain(others).chain(schedule).min()
    }

    /// Starts leading a consumer that is new or has changed. `scope` stands before the stream's name in its subjects.
    pub(crate) fn lead(
        &mut self,
        now: Time,
        name: &Bytes,
        (rng, scope): (&mut Rng, &str),
        interest: Interest<'_>,
    ) {
        let Some(consumer) = self.stream.consumer(name) else { return };
        if self.leads.contains_key(name) {
            return;
        }
        let moment = Moment { now, consumer, messages: self.stream.messages(), interest };
        let stream = [scope, &self.stream.config().name].concat();
        let lead = Lead::new(stream.as_bytes(), rng.next_u64(), &moment);
        self.leads.insert(name.clone(), lead);
    }

    /// Has one consumer's volatile half do something.
    pub(crate) fn with_lead<T>(
        &mut self,
        now: Time,
        name: &[u8],
        interest: Interest<'_>,
        act: impl FnOnce(&mut Lead, &Moment<'_>) -> T,
    ) -> Option<T> {
        let (consumer, lead) = (self.stream.consumer(name)?, self.leads.get_mut(name)?);
        let moment = Moment { now, consumer, messages: self.stream.messages(), interest };
        Some(act(lead, &moment))
    }

    /// Whether it has push consumers.
    pub(crate) fn is_pushing(&self) -> bool {
        self.stream.consumers().any(|consumer| !consumer.config().is_pull())
    }

    /// Interest changed somewhere; says whether it came or went for a push consumer.
    pub(crate) fn follow_interest(&mut self, now: Time, interest: Interest<'_>) -> bool {
        let mut changed = false;
        for consumer in self.stream.consumers().filter(|consumer| !consumer.config().is_pull()) {
            if let Some(lead) = self.leads.get_mut(consumer.name()) {
                changed |= lead.handle_interest(&Moment {
                    now,
                    consumer,
                    messages: self.stream.messages(),
                    interest,
                });
            }
        }
        changed
    }

    /// Somebody looks at a consumer: what it counts is brought up to date.
    pub(crate) fn look(
        &mut self,
        now: Time,
        name: &Bytes,
        interest: Interest<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let mut out = PumpOut::default();
        self.with_lead(now, name, interest, |lead, moment| lead.handle_look(moment, &mut out));
        self.take(now, name, interest, &mut out, effects);
    }

    /// Lets every consumer that can deliver choose and propose.
    pub(crate) fn pump(&mut self, now: Time, interest: Interest<'_>, effects: &mut Vec<Effect>) {
        let waiting: Vec<Bytes> =
            self.leads.iter().filter(|(_, lead)| lead.is_waiting()).map(|(name, _)| name.clone()).collect();
        for name in waiting {
            let mut out = PumpOut::default();
            loop {
                self.with_lead(now, &name, interest, |lead, moment| lead.pump(moment, &mut out));
                let more = out.more;
                self.take(now, &name, interest, &mut out, effects);
                if !more {
                    break;
                }
            }
        }
    }

    /// Carries out what a lead wants: proposals, unlogged progress, effects.
    pub(crate) fn take(
        &mut self,
        now: Time,
        name: &Bytes,
        interest: Interest<'_>,
        out: &mut PumpOut,
        effects: &mut Vec<Effect>,
    ) {
        effects.append(&mut out.effects);
        for command in out.proposals.drain(..) {
            self.log.propose(Origin::None, |bytes| command.encode(bytes));
        }
        let seqs = std::mem::take(&mut out.apply_now);
        if !seqs.is_empty() {
            self.stream.apply_unlogged(now, name, &seqs, effects);
            self.untold.note(now, name);
            self.with_lead(now, name, interest, |lead, moment| lead.handle_delivered(moment, &seqs, out));
            effects.append(&mut out.effects);
        }
        out.clear();
    }

    /// A `Delivered` was applied: its messages go out.
    pub(crate) fn hand_out(
        &mut self,
        now: Time,
        (name, seqs): (&Bytes, &[Seq]),
        interest: Interest<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let mut out = PumpOut::default();
        self.with_lead(now, name, interest, |lead, moment| lead.handle_delivered(moment, seqs, &mut out));
        self.take(now, name, interest, &mut out, effects);
    }

    /// Time has passed: the stream's own deadline, and its consumers'.
    pub(crate) fn handle_timeout(&mut self, now: Time, interest: Interest<'_>, effects: &mut Vec<Effect>) {
        self.failing.retain(|_, again| *again > now);
        if !self.expiring && self.stream.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.expiring = true;
            let command = hw_stream::Command::Expire { ts: now };
            self.log.propose(Origin::None, |bytes| command.encode(bytes));
        }
        self.tell_others(now);
        let due: Vec<Bytes> = self
            .leads
            .iter()
            .filter(|(_, lead)| lead.next_deadline() <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let mut out = PumpOut::default();
            self.with_lead(now, &name, interest, |lead, moment| lead.handle_timeout(moment, &mut out));
            self.take(now, &name, interest, &mut out, effects);
        }
    }
}

/// The interest that a group's consumers ask about.
pub(crate) fn interest_in(hub: &Hub, account: AccountId) -> impl Fn(&[u8], &[u8]) -> bool + '_ {
    move |subject, _queue| hub.has_interest(account, subject)
}
