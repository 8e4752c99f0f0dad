//! API requests on their way through the machines: parse, check, propose or answer.

use bytes::Bytes;
use hw_hub::{Hub, Message, Origin as Sender};
use hw_jsapi::{ApiError, Kind, Parsed, Refused, Request};
use hw_kit::{AccountId, GroupId, Seq, Time};
use hw_meta::MetaCommand;
use hw_stream::{Command, StreamConfig};

use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::shard::owned;

/// One API request and where its answer goes.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The account that asks.
    pub(crate) account: AccountId,
    /// Who asked, for the audit.
    pub(crate) sender: Sender,
    /// The subject as it was sent.
    pub(crate) subject: Bytes,
    /// Where the answer goes; empty: nowhere.
    pub(crate) reply: Bytes,
    /// The header block.
    pub(crate) header: Bytes,
    /// The body.
    pub(crate) body: Bytes,
    /// When it came to this server.
    pub(crate) came: Time,
    /// The kind of the answer, once it is known.
    pub(crate) kind: Kind,
    /// How often it was handed on.
    pub(crate) hops: u8,
}

impl Call {
    pub(crate) fn new(came: Time, sender: Sender, msg: &Message<'_>) -> Call {
        Call {
            account: sender.account,
            sender,
            subject: owned(msg.subject),
            reply: owned(msg.reply),
            header: owned(msg.header),
            body: owned(msg.payload),
            came,
            kind: Kind::AccountInfo,
            hops: 0,
        }
    }
}

/// The answer to a request that needs no command: JSON, or an error.
pub(crate) type Reply = Result<Vec<u8>, ApiError>;

/// What became of a request.
pub(crate) enum Handled {
    /// Answer now.
    Answer(Reply),
    /// The answer comes later: when a command is applied, or a block is loaded.
    Proposed,
}

impl JetStream {
    /// Carries out the requests that came in since the last time.
    pub(crate) fn run_calls(&mut self, now: Time, hub: &mut Hub) {
        while let Some(mut call) = self.calls.pop_front() {
            let subject = String::from_utf8_lossy(&call.subject).into_owned();
            let Some(verb) = self.api_verb(&subject) else { continue };
            let old = !hw_jsapi::has_level(&call.header);
            let (kind, handled) = match hw_jsapi::parse(verb, &call.body, self.config.strict) {
                Parsed::Silent => continue,
                parsed if !self.is_for_me(&call, &parsed) => continue,
                parsed if !self.is_mine(now, call.account, &parsed) => {
                    self.pass_on(now, hub, call, parsed);
                    continue;
                }
                Parsed::Refused(Refused { kind, .. }) | Parsed::Request(kind, _)
                    if kind.needs_cluster() && self.cluster.is_none() =>
                {
                    (kind, Handled::Answer(Err(ApiError::new(10010))))
                }
                Parsed::Refused(Refused { kind, .. }) | Parsed::Request(kind, _) if old => {
                    (kind, Handled::Answer(Err(ApiError::new(10185))))
                }
                Parsed::Refused(refused) => (refused.kind, Handled::Answer(Err(refused.error))),
                Parsed::Request(kind, request) => {
                    call.kind = kind;
                    (kind, self.handle_request(now, hub, &call, request))
                }
            };
            if let Handled::Answer(reply) = handled {
                call.kind = kind;
                self.answer(now, hub, &call, reply);
            }
            // A request does not count itself.
            self.api_total += 1;
        }
    }

    /// Sends the answer to a request, and the audit advisory when somebody watches.
    pub(crate) fn answer(&mut self, now: Time, hub: &Hub, call: &Call, reply: Reply) {
        let json = match reply {
            Ok(json) => json,
            Err(error) => {
                self.api_errors += 1;
                hw_jsapi::error(call.kind, &error)
            }
        };
        self.audit(now, hub, call, &json);
        self.outbox.answer(call.account, call.reply.clone(), Bytes::new(), json);
    }

    /// The subject below `$JS.API.`, or below `$JS.<domain>.API.`.
    pub(crate) fn api_verb<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let domain = self.config.domain.as_str();
        subject.strip_prefix(crate::limits::API_PREFIX).or_else(|| {
            let rest = subject.strip_prefix("$JS.")?.strip_prefix(domain)?;
            if domain.is_empty() { None } else { rest.strip_prefix(".API.") }
        })
    }

    fn handle_request(&mut self, now: Time, hub: &mut Hub, call: &Call, request: Request) -> Handled {
        if call.kind.is_for_operators() {
            return self.operate(now, hub, call, request);
        }
        if self.limits_of(call.account).is_none() {
            return Handled::Answer(Err(ApiError::new(10039)));
        }
        if let Some(error) = self.stopped(call, &request) {
            return Handled::Answer(Err(error));
        }
        match request {
            Request::StreamCreate { config, pedantic } => self.stream_create(now, call, *config, pedantic),
            Request::StreamUpdate { config, pedantic } => self.stream_update(now, call, *config, pedantic),
            Request::StreamDelete { stream } => self.stream_delete(now, call, stream),
            Request::StreamRestore { config } => self.restore(now, call, &config),
            Request::StreamPurge { stream, filter, seq, keep } => {
                let filter = Bytes::from(filter);
                self.propose_to(call, &stream, |ts| Command::Purge { ts, filter, seq, keep }, now)
            }
            Request::MessageDelete { stream, seq, no_erase } => {
                self.propose_to(call, &stream, |ts| Command::DeleteMessage { ts, seq, erase: !no_erase }, now)
            }
            Request::ConsumerCreate(create) => self.consumer_create(now, hub, call, *create),
            Request::ConsumerDelete { stream, consumer } => {
                let name = Bytes::from(consumer);
                self.propose_to(call, &stream, |ts| Command::DeleteConsumer { ts, name }, now)
            }
            Request::ConsumerPause { stream, consumer, until } => {
                let (name, until) =
                    (Bytes::from(consumer), until.filter(|until| *until > now).unwrap_or_default());
                self.propose_to(call, &stream, |ts| Command::PauseConsumer { ts, name, until }, now)
            }
            Request::ConsumerReset { stream, consumer, seq } => {
                self.consumer_reset(now, call, stream, consumer, seq)
            }
            Request::ConsumerUnpin { stream, consumer, group } => {
                Handled::Answer(self.consumer_unpin(now, hub, call, (&stream, &consumer), &group))
            }
            Request::StreamStepdown { stream, placement } => {
                self.change_leader(now, call, (&stream, None), &placement)
            }
            Request::ConsumerStepdown { stream, consumer, placement } => {
                self.change_leader(now, call, (&stream, Some(&consumer)), &placement)
            }
            Request::StreamPeerRemove { stream, peer } => {
                Handled::Answer(self.remove_stream_peer(now, call, &stream, &peer))
            }
            Request::StreamCancelMove { stream, .. } => {
                let account = self.account_name(call.account);
                self.cancel_move(now, call, (account, &stream))
            }
            other => match self.hold(call, other) {
                None => Handled::Proposed,
                Some(Request::StreamSnapshot { stream, snapshot }) => {
                    self.snapshot(now, hub, call, (&stream, &snapshot))
                }
                Some(request) => {
                    self.look_up(now, hub, call, request).map_or(Handled::Proposed, Handled::Answer)
                }
            },
        }
    }

    /// The store has stopped: what would wait for it forever is refused. Streams in memory go on.
    fn stopped(&self, call: &Call, request: &Request) -> Option<ApiError> {
        let reason = self.disk.failed.as_deref()?;
        let error = hw_jsapi::store_stopped(call.kind, reason)?;
        let stream = match request {
            Request::StreamPurge { stream, .. }
            | Request::MessageDelete { stream, .. }
            | Request::ConsumerDelete { stream, .. }
            | Request::ConsumerPause { stream, .. }
            | Request::ConsumerReset { stream, .. } => stream,
            Request::ConsumerCreate(create) => &create.stream,
            _ => return Some(error),
        };
        // One that is not there is another error, and theirs to tell.
        let group = self.groups.get(&self.group_named(call.account, stream)?)?;
        (!group.is_volatile()).then_some(error)
    }

    fn stream_create(&mut self, now: Time, call: &Call, config: StreamConfig, pedantic: bool) -> Handled {
        let checked = self.check_new(call.account, &config, pedantic);
        let config = match checked {
            Ok(config) => Box::new(config),
            Err(error) => return Handled::Answer(Err(error)),
        };
        let account = self.account_name(call.account);
        let max_streams = self.limits_of(call.account).map_or(-1, |limits| limits.max_streams);
        let peers = match self.meta.stream(&account, &config.name) {
            Some(asset) => Ok(asset.peers.clone()),
            None => self.peers_for(&config),
        };
        let peers = match peers {
            Ok(peers) => peers,
            Err(error) => return Handled::Answer(Err(error)),
        };
        let ts = now.0;
        self.propose_meta(now, call, &MetaCommand::Create { ts, account, config, max_streams, peers });
        Handled::Proposed
    }

    fn stream_update(&mut self, now: Time, call: &Call, config: StreamConfig, pedantic: bool) -> Handled {
        let config = match self.check_change(call.account, &config, pedantic) {
            Ok(config) => Box::new(config),
            Err(error) => return Handled::Answer(Err(error)),
        };
        let account = self.account_name(call.account);
        let peers = match self.peers_after(&account, &config) {
            Ok(peers) => peers,
            Err(error) => return Handled::Answer(Err(error)),
        };
        self.propose_meta(now, call, &MetaCommand::Update { ts: now.0, account, config, peers });
        Handled::Proposed
    }

    fn stream_delete(&mut self, now: Time, call: &Call, name: String) -> Handled {
        let account = self.account_name(call.account);
        if self.meta.stream(&account, &name).is_none() {
            return Handled::Answer(Err(ApiError::new(10059)));
        }
        self.propose_meta(now, call, &MetaCommand::Delete { ts: now.0, account, name });
        Handled::Proposed
    }

    fn consumer_reset(
        &mut self,
        now: Time,
        call: &Call,
        stream: String,
        consumer: String,
        seq: Option<Seq>,
    ) -> Handled {
        let command = Command::ResetConsumer { ts: now, name: consumer.into(), seq: seq.unwrap_or_default() };
        self.propose_to(call, &stream, |_| command, now)
    }

    /// Proposes a command to a stream that must exist.
    fn propose_to(
        &mut self,
        call: &Call,
        stream: &str,
        command: impl FnOnce(Time) -> Command,
        now: Time,
    ) -> Handled {
        match self.group_named(call.account, stream) {
            None => Handled::Answer(Err(self.no_stream(call.account, stream))),
            Some(group) => {
                self.propose(group, Origin::Api(Box::new(call.clone())), &command(now));
                Handled::Proposed
            }
        }
    }

    /// The group of an account's stream that is open here.
    pub(crate) fn group_named(&self, account: AccountId, stream: &str) -> Option<GroupId> {
        let id = self.meta.stream(&self.account_name(account), stream).map(hw_meta::Asset::group)?;
        self.groups.contains_key(&id).then_some(id)
    }

    /// Why [`JetStream::group_named`] gave nothing.
    pub(crate) fn no_stream(&self, account: AccountId, stream: &str) -> ApiError {
        let id = self.meta.stream(&self.account_name(account), stream).map(hw_meta::Asset::group);
        match id.and_then(|id| self.aside.quarantined.get(&id)) {
            Some(damaged) => ApiError::with(10194, &damaged.reason),
            None => ApiError::new(10059),
        }
    }
}
