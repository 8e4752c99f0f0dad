//! Reads: look-ups of the API, message gets and direct gets, some of which wait for a block from the disk.

use bytes::Bytes;
use hw_hub::{Hub, Message as Incoming};
use hw_jsapi::{
    ApiError, DirectGet, DirectRefusal, GetMessage, Kind, Request, direct_headers, status_header,
};
use hw_kit::{AccountId, GroupId, Seq, Span, Time};
use hw_store::LoadedBlock;
use hw_store::messages::{BlockId, Fetch, Message, Version};
use hw_stream::stream::{BatchRead, BatchRefused, BatchStep};

use crate::api::{Call, Reply};
use crate::cluster::{Parcel, Remedy};
use crate::completion::LoadError;
use crate::group::{Group, interest_in};
use crate::jetstream::{DiskRequest, JetStream};
use crate::outbox::Outgoing;
use crate::shard::owned;

/// A read that is not answered yet.
pub(crate) enum Waiting {
    /// `STREAM.MSG.GET`.
    Message { call: Box<Call>, get: Search, no_hdr: bool },
    /// A direct get of one message.
    Direct { reply: Bytes, get: Search, no_hdr: bool, resort: Resort },
    /// A direct get of several.
    Batch { reply: Bytes, read: Box<BatchRead>, no_hdr: bool, resort: Resort },
}

/// A direct get as it came to a server that does not lead its stream: the leader gets it if this server's replica turns out to
/// be damaged.
type Resort = Option<Box<Parcel>>;

/// What is asked for, and what was found: that may change while a block is loaded.
pub(crate) struct Search {
    get: GetMessage,
    /// Which message, and as of when: while the version is the same, it is still so.
    found: Option<(Seq, Version)>,
}

impl Search {
    fn new(get: GetMessage) -> Search {
        Search { get, found: None }
    }
}

/// A direct get that came in: what to read, or whom to tell why nothing is.
pub(crate) type DirectRead = Result<Waiting, (Bytes, DirectRefusal)>;

/// How far a read came.
enum Progress {
    Done,
    Load(BlockId, Waiting),
}

/// Damaged bytes are never served: whoever asks gets an error, not a guess.
const DAMAGED: &str = "message is damaged";

/// The disk failed to read it, which is no damage yet: who asks again has it read again.
pub(crate) const UNREADABLE: &str = "message could not be read";

/// When those that would ask again at once read what the disk failed to read.
const READ_RETRY: Span = Span::from_secs(1);

/// How many names or counts a page of a stream's subjects holds.
const SUBJECTS_PAGE: u64 = 100_000;

impl JetStream {
    /// Answers a request that changes nothing; None when the answer comes once a block is loaded.
    pub(crate) fn look_up(&mut self, now: Time, hub: &Hub, call: &Call, request: Request) -> Option<Reply> {
        let account = call.account;
        Some(match request {
            Request::AccountInfo if self.cluster.is_some() => return self.gather_account(now, call),
            Request::AccountInfo => {
                self.account_info(account).map(|info| info.response()).ok_or_else(|| ApiError::new(10039))
            }
            Request::StreamNames { offset, subject } if self.cluster.is_some() => {
                let assets = self.assets(account, &subject);
                let names: Vec<&str> = assets.iter().map(|asset| asset.config.name.as_str()).collect();
                Ok(hw_jsapi::names(Kind::StreamNames, &names, offset))
            }
            Request::StreamNames { offset, subject } => {
                let names: Vec<&str> = self.filtered(account, &subject).map(name_of).collect();
                Ok(hw_jsapi::names(Kind::StreamNames, &names, offset))
            }
            Request::StreamList { offset, subject } if self.cluster.is_some() => {
                return self.gather_streams(now, call, (&subject, offset));
            }
            Request::StreamList { offset, subject } => {
                let infos: Vec<_> =
                    self.filtered(account, &subject).map(|group| self.listed(now, group)).collect();
                Ok(hw_jsapi::stream_list(&infos, offset))
            }
            Request::StreamInfo { stream, deleted_details, subjects_filter, offset } => {
                self.stream_info(now, account, &stream, deleted_details, (&subjects_filter, offset))
            }
            Request::ConsumerNames { stream, offset } => self.with_stream(account, &stream, |group| {
                let names: Vec<_> =
                    group.stream.consumers().map(|c| String::from_utf8_lossy(c.name())).collect();
                let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
                hw_jsapi::names(Kind::ConsumerNames, &names, offset)
            }),
            Request::ConsumerList { stream, offset } => {
                let group = self.group_named(account, &stream).and_then(|id| self.groups.get(&id));
                if let Some(group) = group {
                    let (id, names): (_, Vec<Bytes>) = (group.id, group.leads.keys().cloned().collect());
                    self.look(now, hub, id, &names);
                }
                self.consumer_list(now, account, &stream, offset)
            }
            Request::ConsumerInfo { stream, consumer } => {
                let Some(id) = self.group_named(account, &stream) else {
                    return Some(Err(ApiError::new(10059)));
                };
                self.look(now, hub, id, &[Bytes::from(consumer.clone())]);
                let info = self.consumer_view(now, id, consumer.as_bytes());
                let info = info.ok_or_else(|| ApiError::new(10014));
                info.map(|info| hw_jsapi::consumer_info(Kind::ConsumerInfo, &info))
            }
            Request::MessageGet { stream, get, no_hdr } => {
                return self.message_get(now, hub, call, &stream, (get, no_hdr));
            }
            _ => Err(ApiError::new(10003)),
        })
    }

    /// Somebody looks at consumers of a stream, or has changed them: their volatile halves follow.
    pub(crate) fn look(&mut self, now: Time, hub: &Hub, id: GroupId, names: &[Bytes]) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (mut effects, interest) = (Vec::new(), interest_in(hub, group.account));
        for name in names {
            group.look(now, name, &interest, &mut effects);
        }
        self.perform(now, hub, id, effects);
        self.touch(id);
    }

    fn consumer_list(&self, now: Time, account: AccountId, stream: &str, offset: u64) -> Reply {
        let group = self.group_named(account, stream).and_then(|id| self.groups.get(&id));
        let Some(group) = group else {
            // As `nats-server` does in a cluster, and only there.
            let none: [(); 0] = [];
            let is_known =
                self.cluster.is_none() || self.meta.stream(&self.account_name(account), stream).is_some();
            return if is_known {
                Err(self.no_stream(account, stream))
            } else {
                Ok(hw_jsapi::consumer_list(&none, 0))
            };
        };
        let cluster = self.cluster.is_some().then(|| self.consumer_cluster(now, group.id)).flatten();
        let names = group.stream.consumers().map(|consumer| consumer.name());
        let mut infos: Vec<_> = names.filter_map(|name| group.consumer_info(now, name)).collect();
        infos.iter_mut().for_each(|info| info.cluster.clone_from(&cluster));
        Ok(hw_jsapi::consumer_list(&infos, offset))
    }

    fn with_stream(&self, account: AccountId, name: &str, answer: impl FnOnce(&Group) -> Vec<u8>) -> Reply {
        let group = self.group_named(account, name).and_then(|id| self.groups.get(&id));
        group.map(answer).ok_or_else(|| self.no_stream(account, name))
    }

    /// An account's streams, or those of them that take a subject in common with a filter.
    fn filtered<'a>(&'a self, account: AccountId, subject: &'a str) -> impl Iterator<Item = &'a Group> {
        let filter = hw_subject::Filter::parse(subject).ok();
        let takes = move |group: &&Group| {
            subject.is_empty()
                || filter.as_ref().is_some_and(|filter| {
                    let subjects = group.stream.config().subjects.iter();
                    subjects
                        .filter_map(|own| hw_subject::Filter::parse(own).ok())
                        .any(|own| own.overlaps(filter))
                })
        };
        self.groups_of(account).filter(takes)
    }

    fn stream_info(
        &self,
        now: Time,
        account: AccountId,
        stream: &str,
        deleted: bool,
        (filter, offset): (&str, u64),
    ) -> Reply {
        let Some(id) = self.group_named(account, stream) else { return Err(self.no_stream(account, stream)) };
        let (Some(mut info), Some(group)) = (self.stream_view(now, id), self.groups.get(&id)) else {
            return Err(ApiError::new(10059));
        };
        let messages = group.stream.messages();
        if deleted {
            info.state = info.state.with_deleted(messages);
        }
        let mut page = (0, 0, 0);
        if !filter.is_empty() {
            let (state, total) = info.state.with_subjects(messages, filter, (offset, SUBJECTS_PAGE));
            info.state = state;
            page = (total, offset, SUBJECTS_PAGE);
        }
        info.cluster = self.cluster_info(now, id);
        Ok(hw_jsapi::stream_info(&info, page))
    }

    fn message_get(
        &mut self,
        now: Time,
        hub: &Hub,
        call: &Call,
        stream: &str,
        (get, no_hdr): (GetMessage, bool),
    ) -> Option<Reply> {
        let Some(id) = self.group_named(call.account, stream) else {
            return Some(Err(self.no_stream(call.account, stream)));
        };
        let get = Search::new(get);
        self.start_read(now, hub, id, Waiting::Message { call: Box::new(call.clone()), get, no_hdr });
        None
    }

    /// `$JS.API.DIRECT.GET.<stream>[.<subject>]`, on a server whose replica is as new as the answer has to be. `resort`: it does
    /// not lead.
    pub(crate) fn handle_direct_get(&mut self, id: GroupId, msg: &Incoming<'_>, resort: Option<&Parcel>) {
        if !msg.reply.is_empty() {
            let Some(group) = self.groups.get(&id) else { return };
            let reply = owned(msg.reply);
            let resort = resort.map(|parcel| Box::new(parcel.clone()));
            let read = match hw_jsapi::has_level(msg.header) {
                true => group.direct_read(msg.subject, (&reply, msg.payload), resort),
                false => Err(DirectRefusal::RequiredApiLevel),
            };
            self.direct.push((id, read.map_err(|refusal| (reply, refusal))));
        }
    }

    /// Answers the direct gets that came in since the last time.
    pub(crate) fn answer_direct(&mut self, now: Time, hub: &Hub) {
        let mut direct = std::mem::take(&mut self.direct);
        for (id, read) in direct.drain(..) {
            match read {
                Ok(waiting) => self.start_read(now, hub, id, waiting),
                Err((reply, refusal)) => {
                    let Some(group) = self.groups.get(&id) else { continue };
                    let account = group.account;
                    self.refuse_direct(account, reply, refusal);
                }
            }
        }
        self.direct = direct;
    }

    fn refuse_direct(&mut self, account: AccountId, to: Bytes, refusal: DirectRefusal) {
        let header = status_header(refusal.status(), &[]);
        self.outbox.push(Outgoing::Send { account, to, reply: Bytes::new(), header, payload: Bytes::new() });
    }

    /// Goes on with a read; what needs the disk waits for its block.
    fn start_read(&mut self, now: Time, hub: &Hub, id: GroupId, waiting: Waiting) {
        if let Progress::Load(block, waiting) = self.advance(now, hub, id, waiting) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.waiting.entry(block).or_default().push(waiting);
            }
            self.load(id, block);
        }
    }

    /// Asks the disk for a block, once.
    pub(crate) fn load(&mut self, id: GroupId, block: BlockId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.share_rewrite(block);
        if !group.loading.contains(&block) {
            group.loading.push(block);
            let check = group.stream.messages().is_loaded(block) || group.is_rewriting(block);
            self.disk.requests.push(DiskRequest::Load { group: id, block, check });
        }
    }

    /// The same for who wants to know whether all of it is what was written.
    pub(crate) fn load_checked(&mut self, id: GroupId, block: BlockId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.share_rewrite(block);
        if !group.loading.contains(&block) {
            group.loading.push(block);
        }
        self.disk.requests.push(DiskRequest::Load { group: id, block, check: true });
    }

    /// The same for what asks by itself, again and again: not right after the disk failed to read it.
    pub(crate) fn load_patiently(&mut self, now: Time, id: GroupId, block: BlockId) {
        if self.groups.get(&id).is_some_and(|group| !group.is_failing(now, block)) {
            self.load(id, block);
        }
    }

    /// The same for what is likely to be asked for next, as long as it drives out nothing that somebody waits for.
    pub(crate) fn load_ahead(&mut self, now: Time, id: GroupId, block: BlockId) {
        let has_room = |group: &Group| {
            group.loading.len() < group.stream.messages().blocks_ahead() && !group.is_rewriting(block)
        };
        if self.groups.get(&id).is_some_and(has_room) {
            self.load_patiently(now, id, block);
        }
    }

    /// A block was read, or is damaged: whatever waits goes on.
    pub(crate) fn handle_block(
        &mut self,
        now: Time,
        hub: &Hub,
        (id, block): (GroupId, BlockId),
        loaded: Result<LoadedBlock, LoadError>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.loading.retain(|loading| *loading != block);
        group.wake_schedules();
        let is_scrubbed = self.take_for_scrub(now, id, block, &loaded);
        let is_proof = self.take_for_proof(now, id, block, &loaded);
        let (loaded, is_mine) = self.take_for_rewrite(now, (id, block), loaded);
        let is_mine = is_mine || is_scrubbed || is_proof;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let waiting = group.waiting.remove(&block).unwrap_or_default();
        match loaded {
            // What only the background reads does not drive out what clients read.
            Ok(_) if is_mine => {}
            Ok(loaded) => {
                group.failing.remove(&block);
                group.stream.messages_mut().handle_block(block, loaded);
            }
            Err(LoadError::Busy) => {}
            Err(LoadError::Failed(_)) => {
                group.waiting.insert(block, waiting);
                return self.handle_unreadable(now, hub, id, block);
            }
            Err(LoadError::Damaged(reason)) => {
                if group.handle_damaged(block, &reason) {
                    let account = group.account;
                    self.note_damage(now, id, self.account_name(account), reason.clone());
                    self.remedy(now, id, Remedy::Segment(block.segment), reason);
                }
            }
        }
        for waiting in waiting {
            self.start_read(now, hub, id, waiting);
        }
        self.touch(id);
        self.touch_followers(id);
        self.snapshots.touch(id);
        self.touch_transfers(id, block);
    }

    /// The disk failed to read a block: who waits for it is told, and nothing else stops.
    fn handle_unreadable(&mut self, now: Time, hub: &Hub, id: GroupId, block: BlockId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.failing.insert(block, now + READ_RETRY);
        let account = group.account;
        for waiting in group.waiting.remove(&block).unwrap_or_default() {
            match waiting {
                Waiting::Message { call, .. } => {
                    self.answer(now, hub, &call, Err(ApiError::with(10051, UNREADABLE)));
                }
                Waiting::Direct { reply, resort, .. } | Waiting::Batch { reply, resort, .. } => {
                    self.fail_read(now, (account, id), (reply, resort), UNREADABLE);
                }
            }
        }
        self.touch(id);
        self.touch_followers(id);
        self.snapshots.touch(id);
    }

    /// This server cannot read what is asked for: perhaps the leader can.
    fn fail_read(
        &mut self,
        now: Time,
        (account, id): (AccountId, GroupId),
        (to, resort): (Bytes, Resort),
        why: &str,
    ) {
        let leads = self.groups.get(&id).is_some_and(|group| group.log.is_leading());
        if let Some(parcel) = resort.filter(|_| !leads) {
            return self.pass_on_to_leader(now, id, *parcel);
        }
        let header = status_header(&format!("500 {why}"), &[]);
        self.outbox.push(Outgoing::Send { account, to, reply: Bytes::new(), header, payload: Bytes::new() });
    }

    fn advance(&mut self, now: Time, hub: &Hub, id: GroupId, waiting: Waiting) -> Progress {
        let Some(group) = self.groups.get(&id) else { return Progress::Done };
        let account = group.account;
        match waiting {
            Waiting::Message { call, mut get, no_hdr } => {
                let reply = match group.find(&mut get) {
                    Some(Fetch::OnDisk(block)) => {
                        return Progress::Load(block, Waiting::Message { call, get, no_hdr });
                    }
                    Some(Fetch::Message(message)) => Ok(hw_jsapi::message(&message, no_hdr)),
                    Some(Fetch::Absent) => Err(ApiError::new(10037)),
                    None => Err(ApiError::with(10051, DAMAGED)),
                };
                self.answer(now, hub, &call, reply);
            }
            Waiting::Direct { reply, mut get, no_hdr, resort } => match group.find(&mut get) {
                Some(Fetch::OnDisk(block)) => {
                    return Progress::Load(block, Waiting::Direct { reply, get, no_hdr, resort });
                }
                None => self.fail_read(now, (account, id), (reply, resort), DAMAGED),
                Some(Fetch::Absent) => self.refuse_direct(account, reply, DirectRefusal::NotFound),
                Some(Fetch::Message(message)) => {
                    let outgoing = direct(account, name_of(group), &message, (reply, no_hdr), None);
                    self.outbox.push(outgoing);
                }
            },
            Waiting::Batch { reply, mut read, no_hdr, mut resort } => loop {
                let Some(group) = self.groups.get(&id) else { return Progress::Done };
                match group.stream.batch_step(&mut read) {
                    BatchStep::Load(block) => {
                        return Progress::Load(block, Waiting::Batch { reply, read, no_hdr, resort });
                    }
                    BatchStep::Damaged => {
                        self.fail_read(now, (account, id), (reply, resort), DAMAGED);
                        break;
                    }
                    BatchStep::Message { message, pending, last } => {
                        resort = None; // Somebody else would begin anew.
                        let more = Some((pending, last));
                        let outgoing =
                            direct(account, name_of(group), &message, (reply.clone(), no_hdr), more);
                        self.outbox.push(outgoing);
                    }
                    BatchStep::End(end) => {
                        let mut lines = vec![
                            ("Nats-Num-Pending", end.pending.to_string()),
                            ("Nats-Last-Sequence", end.last.0.to_string()),
                        ];
                        if let Some(up_to) = end.up_to {
                            lines.push(("Nats-UpTo-Sequence", up_to.0.to_string()));
                        }
                        let header = status_header("204 EOB", &lines);
                        let (to, reply, payload) = (reply, Bytes::new(), Bytes::new());
                        self.outbox.push(Outgoing::Send { account, to, reply, header, payload });
                        break;
                    }
                }
            },
        }
        Progress::Done
    }
}

impl Group {
    /// An index that cannot be read answers as if messages were not there: nothing is written on such answers.
    /// Says whether there is such a one.
    pub(crate) fn look_for_fault(&mut self) -> bool {
        if !self.stream.messages().has_fault() {
            return false;
        }
        let fault = self.stream.messages().fault();
        self.damage = self.damage.take().or_else(|| fault.map(|fault| fault.to_string()));
        true
    }

    /// Whether the disk has just failed to read a block.
    pub(crate) fn is_failing(&self, now: Time, block: BlockId) -> bool {
        self.failing.get(&block).is_some_and(|again| *again > now)
    }

    /// A block is not what was written: its messages count as there, but nobody gets them. Says whether it matters.
    fn handle_damaged(&mut self, block: BlockId, reason: &str) -> bool {
        let messages = self.stream.messages_mut();
        // A checkpoint may have removed the segment after all that it held was deleted: then it is not missed.
        let is_live = messages.live_segments().iter().any(|segment| segment.segment == block.segment);
        if is_live {
            messages.handle_block(block, LoadedBlock::damaged());
            self.damage = Some(reason.to_owned());
        }
        is_live
    }

    /// The message that is asked for, as things are now; None: it is there and damaged.
    fn find(&self, search: &mut Search) -> Option<Fetch> {
        let (messages, version) = (self.stream.messages(), self.stream.messages().version());
        let seq = match (search.found, &search.get) {
            (Some((seq, as_of)), _) if as_of == version => Some(seq),
            (_, GetMessage::Seq(seq)) => Some(*seq),
            (_, GetMessage::Last(filter)) => self.stream.last_by_subject(filter),
            (_, GetMessage::Next(from, filter)) => self.stream.next_by_subject(*from, filter),
        };
        // An index that cannot be read says that there is none, which is not known: what another one says may be too old, or
        // too far.
        if !matches!(search.get, GetMessage::Seq(_)) && messages.has_fault() {
            return None;
        }
        let Some(seq) = seq else { return Some(Fetch::Absent) };
        search.found = Some((seq, version));
        match self.stream.get(seq) {
            Fetch::Absent if messages.contains(seq) => None,
            found => Some(found),
        }
    }

    /// What a direct get wants to read.
    fn direct_read(
        &self,
        subject: &[u8],
        (reply, body): (&Bytes, &[u8]),
        resort: Resort,
    ) -> Result<Waiting, DirectRefusal> {
        let reply = reply.clone();
        let one =
            |get, (reply, resort), no_hdr| Waiting::Direct { reply, get: Search::new(get), no_hdr, resort };
        let stream = &self.stream;
        let origin = stream.config().mirror.as_ref().map(|origin| origin.name.as_str());
        let mut names = std::iter::once(name_of(self)).chain(origin);
        if let Some(last) = names.find_map(|name| last_wanted(subject, name)) {
            let no_hdr = DirectGet::parse_no_hdr(body)?;
            let get = GetMessage::Last(String::from_utf8_lossy(last).into_owned());
            return Ok(one(get, (reply, resort), no_hdr));
        }
        let (get, no_hdr) = DirectGet::parse(body)?;
        let read = match get {
            DirectGet::Seq(seq) => return Ok(one(GetMessage::Seq(seq), (reply, resort), no_hdr)),
            DirectGet::Last(filter) => return Ok(one(GetMessage::Last(filter), (reply, resort), no_hdr)),
            DirectGet::Next(from, filter) => {
                return Ok(one(GetMessage::Next(from, filter), (reply, resort), no_hdr));
            }
            DirectGet::Batch { batch, max_bytes, seq, start, filter } => {
                let from = start.map_or(seq, |start| stream.messages().seq_at(start));
                let refused = |_| DirectRefusal::NotFound;
                stream.batch_read(from, &filter, batch, max_bytes).map_err(refused)?
            }
            DirectGet::MultiLast { filters, batch, max_bytes, up_to, up_to_time } => {
                let up_to = up_to_time.map_or(up_to, |time| stream.up_to_time(time));
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                stream.multi_last(&filters, (Seq(0), up_to), batch, max_bytes).map_err(|refused| {
                    match refused {
                        BatchRefused::Nothing => DirectRefusal::NoResults,
                        BatchRefused::TooMany => DirectRefusal::TooManyResults,
                    }
                })?
            }
        };
        Ok(Waiting::Batch { reply, read: Box::new(read), no_hdr, resort })
    }
}

pub(crate) fn name_of(group: &Group) -> &str {
    &group.stream.config().name
}

/// The subject whose last message a direct get wants: what follows the stream's name in the request's own subject.
fn last_wanted<'a>(subject: &'a [u8], stream: &str) -> Option<&'a [u8]> {
    const GET: &[u8] = b".DIRECT.GET.";
    let behind =
        |at: usize| subject[at..].strip_prefix(GET)?.strip_prefix(stream.as_bytes())?.strip_prefix(b".");
    (0..subject.len()).filter(|&at| subject[at] == b'.').find_map(behind)
}

/// A message as the answer to a direct get.
fn direct(
    account: AccountId,
    stream: &str,
    message: &Message,
    (to, no_hdr): (Bytes, bool),
    more: Option<(u64, Seq)>,
) -> Outgoing {
    let header = if no_hdr { Bytes::new() } else { direct_headers(stream, message, more) };
    let payload = message.record.shared_payload();
    Outgoing::Send { account, to, reply: Bytes::new(), header, payload }
}
