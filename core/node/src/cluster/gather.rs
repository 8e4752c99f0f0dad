//! Answers that several servers know together: lists of streams that are led elsewhere, and what an account stores in the
//! whole cluster. Who decides about streams asks the others, and answers with what it has after a while.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_jsapi::{AccountInfo, ApiError, STREAMS_PER_PAGE};
use hw_kit::{AccountId, GroupId, NodeId, Span, Time};
use hw_meta::Asset;
use hw_stream::config::Storage;
use serde::{Deserialize, Serialize};

use super::ask::{Question, ask};
use crate::api::{Call, Reply};
use crate::jetstream::JetStream;

/// How long others are waited for.
const PATIENCE: Span = Span::from_secs(4);
/// How long streams without a leader are asked for, and how often.
const ELECTION: Span = Span::from_millis(1500);
const AGAIN: Span = Span::from_millis(150);

/// Answers in the making.
#[derive(Default)]
pub(crate) struct Gatherings {
    running: Vec<Gathering>,
}

struct Gathering {
    call: Box<Call>,
    gathered: Gathered,
    /// Who has not answered which question.
    awaited: BTreeMap<u64, NodeId>,
    until: Time,
    /// Until when leaders are looked for, and when next.
    elections: Time,
    again: Option<Time>,
}

enum Gathered {
    Streams {
        /// How many there are in all, and where the page begins.
        page: (usize, usize),
        wanted: Vec<(GroupId, String)>,
        found: BTreeMap<GroupId, String>,
    },
    Account(Part),
}

/// A server's part of what an account has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Part {
    memory: u64,
    storage: u64,
    consumers: usize,
    total: u64,
    errors: u64,
}

impl Gatherings {
    /// When one has waited too long, or asks again.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.running.iter().flat_map(|one| [Some(one.until), one.again]).flatten().min()
    }
}

impl Gathered {
    /// Streams that nobody has shown yet.
    fn missing(&self) -> Vec<GroupId> {
        let Gathered::Streams { wanted, found, .. } = self else { return Vec::new() };
        wanted.iter().map(|(id, _)| *id).filter(|id| !found.contains_key(id)).collect()
    }

    /// Takes what a server answered; what cannot be read is nothing.
    fn take(&mut self, body: &Bytes) {
        match self {
            Gathered::Streams { found, .. } => {
                let infos: Vec<(u64, String)> = serde_json::from_slice(body).unwrap_or_default();
                found.extend(infos.into_iter().map(|(id, info)| (GroupId(id), info)));
            }
            Gathered::Account(sum) => sum.add(serde_json::from_slice(body).unwrap_or_default()),
        }
    }
}

impl Part {
    fn add(&mut self, other: Part) {
        self.memory = self.memory.saturating_add(other.memory);
        self.storage = self.storage.saturating_add(other.storage);
        self.consumers = self.consumers.saturating_add(other.consumers);
        self.total = self.total.saturating_add(other.total);
        self.errors = self.errors.saturating_add(other.errors);
    }
}

impl JetStream {
    /// An account's streams by name, or those of them that take a subject in common with a filter, wherever they are.
    pub(crate) fn assets(&self, account: AccountId, subject: &str) -> Vec<&Asset> {
        let filter = hw_subject::Filter::parse(subject).ok();
        let takes = |asset: &&Asset| {
            let own = asset.config.subjects.iter().filter_map(|own| hw_subject::Filter::parse(own).ok());
            subject.is_empty()
                || filter.as_ref().is_some_and(|filter| own.into_iter().any(|own| own.overlaps(filter)))
        };
        self.meta.streams(&self.account_name(account)).filter(takes).collect()
    }

    /// A page of an account's streams; None when others are asked first.
    pub(crate) fn gather_streams(
        &mut self,
        now: Time,
        call: &Call,
        (subject, offset): (&str, u64),
    ) -> Option<Reply> {
        let all = self.assets(call.account, subject);
        let total = all.len();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(total);
        let page = all.into_iter().skip(offset).take(STREAMS_PER_PAGE);
        let wanted = page.map(|asset| (asset.group(), asset.config.name.clone())).collect();
        let gathered = Gathered::Streams { page: (total, offset), wanted, found: BTreeMap::new() };
        self.gather(now, call, gathered)
    }

    /// What an account has; None when others are asked first.
    pub(crate) fn gather_account(&mut self, now: Time, call: &Call) -> Option<Reply> {
        if self.limits_of(call.account).is_none() {
            return Some(Err(ApiError::new(10039)));
        }
        let part = self.account_part(call.account);
        self.gather(now, call, Gathered::Account(part))
    }

    fn gather(&mut self, now: Time, call: &Call, gathered: Gathered) -> Option<Reply> {
        let mut gathering = Gathering {
            call: Box::new(call.clone()),
            gathered,
            awaited: BTreeMap::new(),
            until: now + PATIENCE,
            elections: now + ELECTION,
            again: None,
        };
        self.ask_others(now, &mut gathering);
        if gathering.awaited.is_empty() && gathering.again.is_none() {
            return Some(Ok(self.gathered(&gathering)));
        }
        let cluster = self.cluster.as_mut()?;
        cluster.gatherings.running.push(gathering);
        None
    }

    /// Asks those who may know what is still missing.
    fn ask_others(&mut self, now: Time, gathering: &mut Gathering) {
        gathering.again = None;
        let mut questions: BTreeMap<NodeId, Question> = BTreeMap::new();
        let own: Vec<u64> = gathering.gathered.missing().iter().map(|id| id.0).collect();
        if let Gathered::Streams { found, .. } = &mut gathering.gathered {
            found.extend(self.led_infos(now, &own).into_iter().map(|(id, info)| (GroupId(id), info)));
        }
        let missing = gathering.gathered.missing();
        match &gathering.gathered {
            Gathered::Account(_) => {
                let account = self.account_name(gathering.call.account);
                let others = self.reached();
                questions.extend(
                    others.into_iter().map(|node| (node, Question::Usage { account: account.clone() })),
                );
            }
            Gathered::Streams { .. } => {
                for id in &missing {
                    for node in self.possible_leaders(*id) {
                        let question =
                            questions.entry(node).or_insert_with(|| Question::Streams { groups: Vec::new() });
                        if let Question::Streams { groups } = question {
                            groups.push(id.0);
                        }
                    }
                }
            }
        }
        let Some(cluster) = &mut self.cluster else { return };
        for (node, question) in questions {
            let id = cluster.asks.next_id();
            cluster.send(node, ask(id, &question));
            gathering.awaited.insert(id, node);
        }
        // Somebody here may be about to lead.
        if gathering.awaited.is_empty() && !missing.is_empty() && now < gathering.elections {
            gathering.again = Some(now + AGAIN);
        }
    }

    /// Other JetStream servers that can be heard.
    fn reached(&self) -> Vec<NodeId> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        cluster.peers.linked().map(|(node, _)| node).filter(|node| cluster.peers.is_alive(*node)).collect()
    }

    /// Who may lead a stream, other than this server.
    fn possible_leaders(&self, id: GroupId) -> Vec<NodeId> {
        let reached = self.reached();
        let leader = self.replica(id).map_or(NodeId(0), |replicated| replicated.replica.leader());
        if reached.contains(&leader) {
            return vec![leader];
        }
        let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
        let peers = asset.into_iter().flat_map(|(_, asset)| asset.servers());
        peers.filter(|node| reached.contains(node)).collect()
    }

    /// Those of these streams that are led here, as lists show them.
    fn led_infos(&self, now: Time, groups: &[u64]) -> Vec<(u64, String)> {
        let led = groups.iter().filter_map(|id| self.groups.get(&GroupId(*id)));
        let info = |group: &crate::group::Group| {
            let json = hw_jsapi::to_json(&self.listed(now, group));
            (group.id.0, String::from_utf8_lossy(&json).into_owned())
        };
        led.filter(|group| group.log.is_leading()).map(info).collect()
    }

    /// This server's part of what an account has.
    fn account_part(&self, account: AccountId) -> Part {
        let (memory, storage) = self.used(account);
        let led = self.groups_of(account).filter(|group| group.log.is_leading());
        let consumers = led.map(|group| group.stream.consumers().len()).sum();
        Part { memory, storage, consumers, total: self.api_total, errors: self.api_errors }
    }

    /// What this server says to a question of one that gathers.
    pub(super) fn tell_asker(&mut self, now: Time, (to, id): (NodeId, u64), question: &Question) {
        let body = match question {
            Question::Streams { groups } => serde_json::to_vec(&self.led_infos(now, groups)),
            Question::Usage { account } => {
                let account = self.directory.accounts().find(|(_, found)| found.name == *account);
                let part = account.map(|(account, _)| account);
                serde_json::to_vec(&part.map(|account| self.account_part(account)).unwrap_or_default())
            }
            _ => return,
        };
        let body = body.expect("plain data always encodes").into();
        if let Some(cluster) = &mut self.cluster {
            cluster.send(to, PeerFrame::Answer { id, body });
        }
    }

    /// An answer that came: says whether something was gathered with it.
    pub(crate) fn handle_told(&mut self, id: u64, body: &Bytes) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let found = cluster.gatherings.running.iter_mut().find(|one| one.awaited.contains_key(&id));
        let Some(gathering) = found else { return false };
        gathering.awaited.remove(&id);
        gathering.gathered.take(body);
        true
    }

    /// Answers what is complete, or has waited long enough.
    pub(crate) fn run_gatherings(&mut self, now: Time, hub: &hw_hub::Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut running = std::mem::take(&mut cluster.gatherings.running);
        let peers = &cluster.peers;
        for gathering in &mut running {
            gathering.awaited.retain(|_, node| peers.is_alive(*node));
        }
        for mut gathering in running {
            let is_late = gathering.until <= now;
            let is_idle = gathering.awaited.is_empty();
            if gathering.again.is_some_and(|again| again <= now) {
                self.ask_others(now, &mut gathering);
            } else if is_idle && gathering.again.is_none() {
                let lacks = !gathering.gathered.missing().is_empty() && now < gathering.elections;
                gathering.again = lacks.then_some(now + AGAIN);
            }
            if !is_late && (!gathering.awaited.is_empty() || gathering.again.is_some()) {
                if let Some(cluster) = &mut self.cluster {
                    cluster.gatherings.running.push(gathering);
                }
                continue;
            }
            let json = self.gathered(&gathering);
            self.answer(now, hub, &gathering.call, Ok(json));
        }
    }

    fn gathered(&self, gathering: &Gathering) -> Vec<u8> {
        match &gathering.gathered {
            Gathered::Streams { page, wanted, found } => {
                let is_missing = |(id, _): &&(GroupId, String)| !found.contains_key(id);
                let missing: Vec<String> =
                    wanted.iter().filter(is_missing).map(|(_, name)| name.clone()).collect();
                let infos = wanted.iter().filter_map(|(id, _)| found.get(id).cloned());
                hw_jsapi::gathered_streams(*page, infos, &missing)
            }
            Gathered::Account(part) => {
                let info = self.account_info(gathering.call.account);
                info.map(|info| self.with_parts(info, gathering.call.account, *part).response())
                    .unwrap_or_default()
            }
        }
    }

    /// What an account has in the whole cluster: every replica counts.
    fn with_parts(&self, mut info: AccountInfo, account: AccountId, part: Part) -> AccountInfo {
        let assets = self.assets(account, "");
        let reserved = |memory: bool| {
            let of_kind = assets.iter().filter(|asset| (asset.config.storage == Storage::Memory) == memory);
            let bytes = of_kind
                .map(|asset| asset.config.max_bytes.max(0).saturating_mul(asset.config.num_replicas.max(1)));
            bytes.fold(0, i64::saturating_add).unsigned_abs()
        };
        info.reserved_memory = reserved(true);
        info.reserved_storage = reserved(false);
        (info.memory, info.storage) = (part.memory, part.storage);
        (info.streams, info.consumers) = (assets.len(), part.consumers);
        (info.api.total, info.api.errors) = (part.total, part.errors);
        info
    }
}
