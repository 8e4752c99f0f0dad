//! Messages for streams that are led elsewhere. Every JetStream server takes what its clients send to any stream, and hands it
//! to the leader; while there is none, it keeps it for a bounded time. So no message falls between two leaders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_hub::{Hub, Message};
use hw_jsapi::{ApiError, status_header};
use hw_kit::{AccountId, GroupId, NodeId, Span, Time};
use hw_meta::{Asset, Created, MetaAnswer};

use super::handed::Handed;
use super::parcel::{self, Label, Parcel, Serial, group_of};
use crate::api::Call;
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::{FORWARD_BYTES, WAITING_BYTES_MAX};
use crate::streams::interest_of;
use crate::unheard::Unheard;

/// How long a message waits for a leader where one can be elected: a little less than clients wait for an answer.
pub(crate) const HOLD: Span = Span::from_secs(4);
/// And where none can.
const HOLD_OFFLINE: Span = Span::from_secs(1);
/// A message that was handed on so often waits where it is until the next leader is known.
pub(crate) const HOPS_MAX: u8 = 6;

/// What this server takes for streams, and what of that is not with their leaders yet.
#[derive(Default)]
pub(crate) struct Forwards {
    /// What is listened to.
    captured: BTreeMap<GroupId, Captured>,
    /// For other servers, at the end of the round: what fills a frame, and the rest.
    full: Vec<(NodeId, Vec<u8>)>,
    outgoing: BTreeMap<NodeId, Vec<u8>>,
    /// What is with leaders.
    pub(crate) handed: Handed,
    /// Messages without a leader.
    waiting: BTreeMap<GroupId, VecDeque<Waiting>>,
    waiting_bytes: usize,
}

/// A stream of the cluster.
struct Captured {
    account: AccountId,
    name: String,
    peers: Vec<NodeId>,
    interest: BTreeSet<(String, Target)>,
}

struct Waiting {
    since: Time,
    /// When to look whether it has waited too long.
    due: Time,
    parcel: Parcel,
}

/// Where a message for a stream goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Here,
    There(NodeId),
    /// Nobody leads, as far as this server knows.
    Nowhere,
}

impl Forwards {
    pub(crate) fn new(seed: u64) -> Forwards {
        Forwards { handed: Handed::new(seed), ..Forwards::default() }
    }

    /// A message waits once more, before those that came after it.
    pub(crate) fn put_back(&mut self, id: GroupId, since: Time, parcel: Parcel) {
        self.waiting_bytes += parcel.size();
        let due = since + HOLD_OFFLINE;
        self.waiting.entry(id).or_default().push_front(Waiting { since, due, parcel });
    }

    /// When the next message has waited too long.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.waiting.values().filter_map(VecDeque::front).map(|one| one.due).min()
    }

    /// The account of a stream of the cluster.
    pub(crate) fn account_of(&self, id: GroupId) -> Option<AccountId> {
        self.captured.get(&id).map(|captured| captured.account)
    }

    /// The same with the stream's name.
    pub(crate) fn home_of(&self, id: GroupId) -> Option<(AccountId, &str)> {
        self.captured.get(&id).map(|captured| (captured.account, captured.name.as_str()))
    }

    /// Whether messages wait for a group's leader.
    pub(crate) fn is_waited_for(&self, id: GroupId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Messages that wait for a leader.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

impl JetStream {
    /// Whether messages for streams are taken for whoever leads them, and not by the leader alone.
    pub(crate) fn captures(&self) -> bool {
        self.cluster.is_some()
    }

    /// A stream came, changed or went: its messages are taken here from now on, or not any more.
    pub(crate) fn capture(&mut self, hub: &mut Hub, id: GroupId, asset: Option<(&str, Asset)>) {
        let domain = self.config.domain.clone();
        let home = asset.and_then(|(account, asset)| Some((self.directory.account_id(account)?, asset)));
        let Some(cluster) = &mut self.cluster else { return };
        let captured = &mut cluster.forwards.captured;
        let group = group_name(id);
        let (now, account) = match &home {
            None => (BTreeSet::new(), None),
            Some((account, asset)) => {
                let pulls = crate::streams::prefixes(&domain);
                let name = &asset.config.name;
                let pulls =
                    pulls.map(|prefix| (format!("{prefix}.CONSUMER.MSG.NEXT.{name}.*"), Target::Pull(id)));
                let all = interest_of(&asset.config, id, &domain).into_iter().chain(pulls).collect();
                (all, Some(*account))
            }
        };
        let before = captured.remove(&id);
        let old = before.as_ref().map(|before| (before.account, &before.interest));
        if let Some((old_account, old)) = old {
            for (filter, target) in
                old.iter().filter(|one| account != Some(old_account) || !now.contains(*one))
            {
                hub.unsubscribe_internal(old_account, filter.as_bytes(), Some(&group), target.id());
            }
        }
        let Some((account, asset)) = home else { return self.forget_handed(id) };
        let old = old.filter(|(of, _)| *of == account).map(|(_, old)| old);
        for (filter, target) in now.iter().filter(|one| old.is_none_or(|old| !old.contains(*one))) {
            hub.subscribe_internal(account, filter.as_bytes(), Some(&group), target.id());
        }
        let (name, peers) = (asset.config.name.clone(), asset.peers().collect());
        captured.insert(id, Captured { account, name, peers, interest: now });
    }

    /// What the meta group decided may change what is taken. `new` is the account and the name of a stream that was asked
    /// for.
    pub(crate) fn capture_after(
        &mut self,
        hub: &mut Hub,
        answer: &MetaAnswer,
        new: Option<&(String, String)>,
    ) {
        if !self.captures() {
            return;
        }
        match answer {
            MetaAnswer::Created(Ok((id, Created::New))) => {
                let asset =
                    new.and_then(|(account, name)| Some((account, self.meta.stream(account, name)?.clone())));
                self.capture(
                    hub,
                    *id,
                    asset.as_ref().map(|(account, asset)| (account.as_str(), asset.clone())),
                );
            }
            MetaAnswer::Updated(Ok(id)) | MetaAnswer::Restored(Ok(id)) => {
                let asset = self.meta.all().find(|(_, asset)| asset.group() == *id);
                let asset = asset.map(|(account, asset)| (account.to_owned(), asset.clone()));
                self.capture(
                    hub,
                    *id,
                    asset.as_ref().map(|(account, asset)| (account.as_str(), asset.clone())),
                );
            }
            MetaAnswer::Deleted(Ok(id)) => self.capture(hub, *id, None),
            MetaAnswer::Moved => self.capture_all(hub),
            _ => {}
        }
    }

    /// No stream's messages are taken here any more.
    pub(crate) fn stop_capturing(&mut self, hub: &mut Hub) {
        let Some(cluster) = &self.cluster else { return };
        let all: Vec<GroupId> = cluster.forwards.captured.keys().copied().collect();
        all.into_iter().for_each(|id| self.capture(hub, id, None));
    }

    /// The same for all streams: those that are gone are not listened for any more.
    pub(crate) fn capture_all(&mut self, hub: &mut Hub) {
        let Some(cluster) = &self.cluster else { return };
        let there: BTreeSet<GroupId> = self.meta.all().map(|(_, asset)| asset.group()).collect();
        let gone: Vec<GroupId> =
            cluster.forwards.captured.keys().copied().filter(|id| !there.contains(id)).collect();
        gone.into_iter().for_each(|id| self.capture(hub, id, None));
        let all: Vec<(String, Asset)> =
            self.meta.all().map(|(account, asset)| (account.to_owned(), asset.clone())).collect();
        for (account, asset) in all {
            self.capture(hub, asset.group(), Some((&account, asset)));
        }
    }

    /// A message for a stream: says whether it is this server's to handle. Otherwise it is on its way, or waits.
    pub(crate) fn keeps(&mut self, now: Time, target: Target, msg: &Message<'_>) -> bool {
        let (Some(id), Some(cluster)) = (group_of(target), &self.cluster) else { return true };
        let is_behind = cluster.forwards.is_waited_for(id);
        match self.way(now, id, target) {
            Way::Here if !is_behind => return true,
            Way::There(_) if !is_behind && self.reads_here(now, id, target) => {
                self.read_later(id, Parcel::new(target, msg));
            }
            Way::There(node) if !is_behind => self.hand(node, target, msg),
            _ => self.keep(now, id, Parcel::new(target, msg)),
        }
        false
    }

    /// The same for a get that this server would have answered without leading its stream.
    pub(crate) fn pass_on_to_leader(&mut self, now: Time, id: GroupId, parcel: Parcel) {
        let is_behind = self.cluster.as_ref().is_some_and(|cluster| cluster.forwards.is_waited_for(id));
        match self.way(now, id, parcel.target) {
            Way::Here if !is_behind => self.receive_parcel(now, &parcel),
            Way::There(node) if !is_behind => self.hand(node, parcel.target, &parcel.message()),
            _ => self.keep(now, id, parcel),
        }
    }

    /// Another server hands messages on; `again`: those that it handed on before, over a link that broke.
    pub(crate) fn handle_forward(&mut self, now: Time, from: NodeId, mut body: Bytes, again: bool) {
        while let Some(mut parcel) = Parcel::take(&mut body) {
            let Some(id) = group_of(parcel.target) else {
                if parcel.target != Target::Api || !self.is_stale(now, from, parcel.hops) {
                    self.take_call(now, &parcel);
                }
                continue;
            };
            parcel.hops = parcel.hops.saturating_add(1);
            parcel.serial = parcel.serial.map(|serial| Serial { by: from, ..serial });
            if !self.counts(id, parcel.serial) {
                continue;
            }
            let Some(cluster) = &mut self.cluster else { return };
            if !cluster.forwards.handed.hear(id, parcel.serial, again) {
                cluster.forwards.handed.refuse_again(id, parcel.serial);
                cluster.forwards.handed.catch_up(id, parcel.serial);
                continue;
            }
            let is_behind = cluster.forwards.is_waited_for(id);
            match self.way(now, id, parcel.target) {
                Way::Here if !is_behind => self.receive_parcel(now, &parcel),
                Way::There(_) if !is_behind && self.reads_here(now, id, parcel.target) => {
                    self.read_later(id, parcel);
                }
                // Who handed it on finds that out himself.
                Way::There(_) if parcel.serial.is_some() => {}
                Way::There(node) if !is_behind && parcel.hops < HOPS_MAX => {
                    let label = Label { hops: parcel.hops, ..Label::new(parcel.target) };
                    self.put_parcel(node, label, b"", &parcel.message());
                }
                _ => self.keep(now, id, parcel),
            }
        }
    }

    /// Messages that wait go to whoever leads by now; says whether any was handled here.
    pub(crate) fn release_waiting(&mut self, now: Time) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let ids: Vec<GroupId> = cluster.forwards.waiting.keys().copied().collect();
        let mut handled = false;
        for id in ids {
            let patience = if self.may_have_leader(id) { HOLD } else { HOLD_OFFLINE };
            while let Some((way, one)) = self.next_waiting(now, id, patience) {
                let parcel = &one.parcel;
                if !self.counts(id, parcel.serial) {
                    continue;
                }
                match way {
                    Way::Here => {
                        self.receive_parcel(now, parcel);
                        handled = true;
                    }
                    _ if parcel.serial.is_some() => {}
                    Way::There(node) => self.hand(node, parcel.target, &parcel.message()),
                    Way::Nowhere => self.give_up(id, parcel),
                }
            }
        }
        handled
    }

    /// What this server has for others becomes frames. Whom it cannot reach any more is not asked.
    pub(crate) fn cut_forwards(&mut self, now: Time) {
        let Some(cluster) = &mut self.cluster else { return };
        let full = std::mem::take(&mut cluster.forwards.full);
        let mut kept = Vec::new();
        for (node, body) in full.into_iter().chain(std::mem::take(&mut cluster.forwards.outgoing)) {
            let Some(cluster) = &mut self.cluster else { return };
            let mut body = Bytes::from(body);
            if cluster.peers.link(node).is_some() {
                cluster.send(node, PeerFrame::Forward { body: body.clone() });
                self.note_handed(now, node, body);
                continue;
            }
            while let Some(parcel) = Parcel::take(&mut body) {
                match group_of(parcel.target) {
                    Some(id) => kept.push((id, Parcel { serial: None, ..parcel })),
                    None => self.take_call(now, &parcel),
                }
            }
        }
        let Some(cluster) = &mut self.cluster else { return };
        cluster.forwards.handed.all_left();
        // They come before what waits already.
        for (id, parcel) in kept.into_iter().rev() {
            cluster.forwards.put_back(id, now, parcel);
        }
    }

    /// Hands an API request to another server, as if its client had asked there.
    pub(crate) fn forward_call(&mut self, to: NodeId, call: &Call) {
        let account = self.account_name(call.account);
        let msg =
            Message { subject: &call.subject, reply: &call.reply, header: &call.header, payload: &call.body };
        let label = Label { hops: call.hops, ..Label::new(Target::Api) };
        self.put_parcel(to, label, account.as_bytes(), &msg);
    }

    /// This server is about to end: another one keeps the answers that nobody hears so far.
    pub(crate) fn hand_on_unheard(&mut self, unheard: Vec<Unheard>) {
        let Some(cluster) = &self.cluster else { return };
        let to = cluster.peers.linked().map(|(node, _)| node).find(|node| cluster.peers.is_alive(*node));
        let Some(to) = to else { return };
        for Unheard { account, to: subject, header, payload, .. } in unheard {
            let account = self.account_name(account);
            let msg = Message { subject: &subject, reply: b"", header: &header, payload: &payload };
            self.put_parcel(to, Label::new(Target::System), account.as_bytes(), &msg);
        }
    }

    /// An API request that came from another server, or an answer that nobody heard there.
    fn take_call(&mut self, now: Time, parcel: &Parcel) {
        let account = std::str::from_utf8(&parcel.account).ok();
        let Some(account) = account.and_then(|name| self.directory.account_id(name)) else { return };
        if parcel.target == Target::System {
            let Parcel { subject, header, payload, .. } = parcel.clone();
            return self.outbox.answer(account, subject, header, payload);
        }
        if parcel.target != Target::Api {
            return;
        }
        let sender = hw_hub::Origin { account, conn: None, shard: hw_kit::ShardId(0) };
        let call = Call::new(now, sender, &parcel.message());
        self.calls.push_back(Call { hops: parcel.hops.saturating_add(1), ..call });
    }

    fn way(&self, now: Time, id: GroupId, target: Target) -> Way {
        let Some(cluster) = &self.cluster else { return Way::Here };
        let is_led = self.groups.get(&id).is_some_and(|group| group.log.is_leading());
        if is_led && !cluster.handovers.holds(id) {
            // Who leads and cannot prove it does not say what there is.
            let is_read = matches!(target, Target::DirectGet(_) | Target::MirrorGet(_));
            let is_proven = !is_read || self.may_read(now, id);
            return if is_proven { Way::Here } else { Way::Nowhere };
        }
        let is_there = |node: &NodeId| *node != cluster.me && cluster.peers.is_alive(*node);
        if self.is_unresolved(id) {
            return Way::Nowhere; // Soon: what was handed to the last leader comes first.
        }
        let next = match self.replica(id) {
            Some(replicated) => self.proven_leader(id, replicated).filter(is_there),
            // Who has a replica knows who leads.
            None => {
                let captured = cluster.forwards.captured.get(&id);
                captured.and_then(|captured| captured.peers.iter().copied().find(is_there))
            }
        };
        next.map_or(Way::Nowhere, Way::There)
    }

    /// Whether so many servers of a stream are there that one of them leads, or is about to.
    fn may_have_leader(&self, id: GroupId) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let captured = cluster.forwards.captured.get(&id);
        captured.is_some_and(|captured| cluster.has_quorum(&captured.peers))
    }

    /// Hands a message to the leader of its stream.
    fn hand(&mut self, to: NodeId, target: Target, msg: &Message<'_>) {
        let label = Label { serial: self.number(target, msg), ..Label::new(target) };
        self.put_parcel(to, label, b"", msg);
    }

    fn put_parcel(&mut self, to: NodeId, label: Label, account: &[u8], msg: &Message<'_>) {
        let Some(cluster) = &mut self.cluster else { return };
        let outgoing = cluster.forwards.outgoing.entry(to).or_default();
        parcel::put(outgoing, label, account, msg);
        if outgoing.len() >= FORWARD_BYTES {
            let body = std::mem::take(outgoing);
            cluster.forwards.full.push((to, body));
        }
    }

    /// A message waits for a leader, if there is room.
    fn keep(&mut self, now: Time, id: GroupId, parcel: Parcel) {
        let Some(cluster) = &mut self.cluster else { return };
        let forwards = &mut cluster.forwards;
        if forwards.waiting_bytes + parcel.size() > WAITING_BYTES_MAX {
            return self.give_up(id, &parcel);
        }
        forwards.waiting_bytes += parcel.size();
        forwards.waiting.entry(id).or_default().push_back(Waiting {
            since: now,
            due: now + HOLD_OFFLINE,
            parcel,
        });
    }

    /// The next message that waits for a group's leader, and may go there or has waited too long.
    fn next_waiting(&mut self, now: Time, id: GroupId, patience: Span) -> Option<(Way, Waiting)> {
        let target = self.cluster.as_ref()?.forwards.waiting.get(&id)?.front()?.parcel.target;
        let way = self.way(now, id, target);
        let forwards = &mut self.cluster.as_mut()?.forwards;
        let waiting = forwards.waiting.get_mut(&id)?;
        let first = waiting.front_mut()?;
        if way == Way::Nowhere && first.since + patience > now {
            if first.due <= now {
                first.due = first.since + patience;
            }
            return None;
        }
        let next = waiting.pop_front()?;
        if waiting.is_empty() {
            forwards.waiting.remove(&id);
        }
        forwards.waiting_bytes -= next.parcel.size();
        Some((way, next))
    }

    /// No leader came: whoever waits for an answer is told that nothing was stored.
    fn give_up(&mut self, id: GroupId, parcel: &Parcel) {
        let code = if self.may_have_leader(id) { 10009 } else { 10118 };
        let captured = self.cluster.as_ref().and_then(|cluster| cluster.forwards.captured.get(&id));
        let Some((account, name)) = captured.map(|captured| (captured.account, captured.name.clone())) else {
            return;
        };
        let to = parcel.reply.clone();
        if to.is_empty() {
            return;
        }
        if matches!(parcel.target, Target::Publish(_)) {
            let mut json = Vec::new();
            hw_jsapi::publish_refused(&mut json, &name, ApiError::new(code));
            return self.outbox.answer(account, to, Bytes::new(), json);
        }
        self.outbox.answer(account, to, status_header("503", &[]), Bytes::new());
    }
}

/// The queue group of those who take a stream's messages: one of them gets each. No client can be in it.
fn group_name(id: GroupId) -> Vec<u8> {
    [b" stream ", id.0.to_string().as_bytes()].concat()
}
