//! Requests: the subject below `$JS.API.` and the body, to one typed value.

use hw_kit::{Seq, Time};
use hw_stream::command::ConsumerAction;
use hw_stream::config::Placement;
use hw_stream::{ConsumerConfig, StreamConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::backup::SnapshotRequest;
use crate::cluster::{MoveBody, PeerBody, StepdownBody};
use crate::json::{drop_nulls, from_json};
use crate::{ApiError, response::Kind};

/// A request that makes sense.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Each variant is the API verb of its name; the fields are the body's.
pub enum Request {
    AccountInfo,
    StreamCreate { config: Box<StreamConfig>, pedantic: bool },
    StreamUpdate { config: Box<StreamConfig>, pedantic: bool },
    StreamNames { offset: u64, subject: String },
    StreamList { offset: u64, subject: String },
    StreamInfo { stream: String, deleted_details: bool, subjects_filter: String, offset: u64 },
    StreamDelete { stream: String },
    StreamSnapshot { stream: String, snapshot: SnapshotRequest },
    StreamRestore { config: Box<StreamConfig> },
    StreamPurge { stream: String, filter: String, seq: Seq, keep: u64 },
    MessageGet { stream: String, get: GetMessage, no_hdr: bool },
    MessageDelete { stream: String, seq: Seq, no_erase: bool },
    ConsumerCreate(Box<ConsumerCreate>),
    ConsumerNames { stream: String, offset: u64 },
    ConsumerList { stream: String, offset: u64 },
    ConsumerInfo { stream: String, consumer: String },
    ConsumerDelete { stream: String, consumer: String },
    ConsumerPause { stream: String, consumer: String, until: Option<Time> },
    ConsumerUnpin { stream: String, consumer: String, group: String },
    ConsumerReset { stream: String, consumer: String, seq: Option<Seq> },
    StreamStepdown { stream: String, placement: Placement },
    ConsumerStepdown { stream: String, consumer: String, placement: Placement },
    StreamPeerRemove { stream: String, peer: String },
    StreamMove { account: String, stream: String, from: String, to: Placement },
    StreamCancelMove { account: Option<String>, stream: String },
    MetaRescue,
    MetaStepdown { placement: Placement },
    ServerRemove { peer: String, peer_id: String },
    ServerEvacuate { peer: String, peer_id: String },
    AccountPurge { account: String },
}

impl Request {
    /// The stream whose leader answers; None: who decides which streams there are does.
    pub fn of_stream(&self) -> Option<&str> {
        match self {
            Request::StreamUpdate { config, .. } => Some(&config.name),
            Request::ConsumerCreate(create) => Some(&create.stream),
            Request::StreamPurge { stream, .. }
            | Request::StreamInfo { stream, .. }
            | Request::StreamSnapshot { stream, .. }
            | Request::StreamStepdown { stream, .. }
            | Request::MessageDelete { stream, .. }
            | Request::MessageGet { stream, .. }
            | Request::ConsumerDelete { stream, .. }
            | Request::ConsumerPause { stream, .. }
            | Request::ConsumerReset { stream, .. }
            | Request::ConsumerUnpin { stream, .. }
            | Request::ConsumerNames { stream, .. }
            | Request::ConsumerList { stream, .. }
            | Request::ConsumerStepdown { stream, .. }
            | Request::ConsumerInfo { stream, .. } => Some(stream),
            _ => None,
        }
    }
}

/// Which message.
#[derive(Clone, Debug, PartialEq)]
pub enum GetMessage {
    /// The one with this sequence.
    Seq(Seq),
    /// The last on a subject, wildcards allowed.
    Last(String),
    /// The first at or after a sequence on a subject, wildcards allowed.
    Next(Seq, String),
}

/// A consumer create or update.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerCreate {
    /// The stream.
    pub stream: String,
    /// The name that the subject or the configuration gives; empty: draw one.
    pub name: String,
    /// What was asked for.
    pub config: ConsumerConfig,
    /// Create, update or either.
    pub action: ConsumerAction,
    /// Refuse instead of adjusting.
    pub pedantic: bool,
}

/// A request that is refused before anything is looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The response's type.
    pub kind: Kind,
    /// Why.
    pub error: ApiError,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// To be carried out; the kind names the response's type.
    Request(Kind, Request),
    /// To be answered with an error.
    Refused(Refused),
    /// Not a request of this server: no answer, as the real server does.
    Silent,
}

/// How bodies are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    kind: Kind,
    body: &'a [u8],
    strict: bool,
}

type Outcome = Result<Request, Refused>;

/// Reads a request: `subject` without `$JS.API.`; `strict` refuses unknown fields in bodies.
pub fn parse(subject: &str, body: &[u8], strict: bool) -> Parsed {
    let tokens: Vec<&str> = subject.split('.').collect();
    let Some((kind, arguments)) = kind_of(&tokens) else { return Parsed::Silent };
    let reader = Reader { kind, body: body.trim_ascii(), strict };
    match reader.request(arguments) {
        Ok(request) => Parsed::Request(kind, request),
        Err(refused) => Parsed::Refused(refused),
    }
}

fn kind_of<'a, 'b>(tokens: &'a [&'b str]) -> Option<(Kind, &'a [&'b str])> {
    let (kind, used, wanted) = match tokens {
        ["INFO"] => (Kind::AccountInfo, 1, 0..=0),
        ["STREAM", "NAMES"] => (Kind::StreamNames, 2, 0..=0),
        ["STREAM", "LIST"] => (Kind::StreamList, 2, 0..=0),
        ["STREAM", "CREATE", ..] => (Kind::StreamCreate, 2, 1..=1),
        ["STREAM", "UPDATE", ..] => (Kind::StreamUpdate, 2, 1..=1),
        ["STREAM", "INFO", ..] => (Kind::StreamInfo, 2, 1..=1),
        ["STREAM", "DELETE", ..] => (Kind::StreamDelete, 2, 1..=1),
        ["STREAM", "PURGE", ..] => (Kind::StreamPurge, 2, 1..=1),
        ["STREAM", "MSG", "GET", ..] => (Kind::MessageGet, 3, 1..=1),
        ["STREAM", "MSG", "DELETE", ..] => (Kind::MessageDelete, 3, 1..=1),
        ["STREAM", "SNAPSHOT", ..] => (Kind::StreamSnapshot, 2, 1..=1),
        ["STREAM", "RESTORE", ..] => (Kind::StreamRestore, 2, 1..=1),
        ["STREAM", "LEADER", "STEPDOWN", ..] => (Kind::StreamStepdown, 3, 1..=1),
        ["STREAM", "PEER", "REMOVE", ..] => (Kind::StreamPeerRemove, 3, 1..=1),
        ["STREAM", "PEER", "EVACUATE", ..] => (Kind::StreamPeerEvacuate, 3, 1..=1),
        ["STREAM", "CANCEL_MOVE", ..] => (Kind::StreamCancelMove, 2, 1..=1),
        ["CONSUMER", "CREATE", ..] => (Kind::ConsumerCreate, 2, 1..=usize::MAX),
        ["CONSUMER", "DURABLE", "CREATE", ..] => (Kind::ConsumerDurableCreate, 3, 2..=2),
        ["CONSUMER", "NAMES", ..] => (Kind::ConsumerNames, 2, 1..=1),
        ["CONSUMER", "LIST", ..] => (Kind::ConsumerList, 2, 1..=1),
        ["CONSUMER", "INFO", ..] => (Kind::ConsumerInfo, 2, 2..=2),
        ["CONSUMER", "DELETE", ..] => (Kind::ConsumerDelete, 2, 2..=2),
        ["CONSUMER", "PAUSE", ..] => (Kind::ConsumerPause, 2, 2..=2),
        ["CONSUMER", "UNPIN", ..] => (Kind::ConsumerUnpin, 2, 2..=2),
        ["CONSUMER", "RESET", ..] => (Kind::ConsumerReset, 2, 2..=2),
        ["CONSUMER", "LEADER", "STEPDOWN", ..] => (Kind::ConsumerStepdown, 3, 2..=2),
        ["META", "LEADER", "STEPDOWN"] => (Kind::MetaStepdown, 3, 0..=0),
        ["SERVER", "REMOVE"] => (Kind::ServerRemove, 2, 0..=0),
        ["SERVER", "EVACUATE"] => (Kind::ServerEvacuate, 2, 0..=0),
        ["META", "RESCUE"] => (Kind::MetaRescue, 2, 0..=0),
        ["ACCOUNT", "STREAM", "MOVE", ..] => (Kind::StreamMove, 3, 2..=2),
        ["ACCOUNT", "STREAM", "CANCEL_MOVE", ..] => (Kind::AccountCancelMove, 3, 2..=2),
        ["ACCOUNT", "PURGE", ..] => (Kind::AccountPurge, 2, 1..=1),
        _ => return None,
    };
    let arguments = &tokens[used..];
    wanted.contains(&arguments.len()).then_some((kind, arguments))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageBody {
    offset: u64,
    subject: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InfoBody {
    deleted_details: bool,
    subjects_filter: Option<String>,
    offset: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PurgeBody {
    filter: Option<String>,
    seq: u64,
    keep: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GetBody {
    seq: u64,
    last_by_subj: Option<String>,
    next_by_subj: Option<String>,
    no_hdr: bool,
    batch: u64,
    start_time: Option<String>,
    multi_last: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DeleteBody {
    seq: u64,
    no_erase: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CreateBody {
    stream_name: String,
    config: serde_json::Value,
    action: Option<String>,
    pedantic: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PauseBody {
    pause_until: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UnpinBody {
    group: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResetBody {
    seq: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RescueBody {
    quorum_needed: i64,
}

impl Reader<'_> {
    fn request(self, arguments: &[&str]) -> Outcome {
        let first = || arguments.first().map_or_else(String::new, |name| (*name).to_owned());
        let second = || arguments.get(1).map_or_else(String::new, |name| (*name).to_owned());
        match self.kind {
            Kind::AccountInfo => Ok(Request::AccountInfo),
            Kind::StreamCreate | Kind::StreamUpdate => self.stream_config(&first()),
            Kind::StreamNames | Kind::StreamList => self.stream_page(),
            Kind::StreamInfo => self.stream_info(first()),
            Kind::StreamDelete => self.empty().map(|()| Request::StreamDelete { stream: first() }),
            Kind::StreamPurge => self.purge(first()),
            Kind::MessageGet => self.message_get(first()),
            Kind::MessageDelete => self.message_delete(first()),
            Kind::ConsumerCreate => self.consumer_create(arguments),
            Kind::ConsumerDurableCreate => self.durable_create(first(), second()),
            Kind::ConsumerNames => Ok(Request::ConsumerNames { stream: first(), offset: self.page().offset }),
            Kind::ConsumerList => Ok(Request::ConsumerList { stream: first(), offset: self.page().offset }),
            Kind::ConsumerInfo => {
                self.empty().map(|()| Request::ConsumerInfo { stream: first(), consumer: second() })
            }
            Kind::ConsumerDelete => {
                self.empty().map(|()| Request::ConsumerDelete { stream: first(), consumer: second() })
            }
            Kind::ConsumerPause => self.consumer_pause(first(), second()),
            Kind::ConsumerUnpin => self.consumer_unpin(first(), second()),
            Kind::ConsumerReset => {
                let body: Option<ResetBody> = self.optional()?;
                let seq = body.map(|body| Seq(body.seq));
                Ok(Request::ConsumerReset { stream: first(), consumer: second(), seq })
            }
            Kind::StreamStepdown => {
                Ok(Request::StreamStepdown { stream: first(), placement: self.placement()? })
            }
            Kind::ConsumerStepdown => Ok(Request::ConsumerStepdown {
                stream: first(),
                consumer: second(),
                placement: self.placement()?,
            }),
            Kind::MetaStepdown => Ok(Request::MetaStepdown { placement: self.placement()? }),
            Kind::StreamPeerRemove | Kind::StreamPeerEvacuate => {
                let PeerBody { peer, .. } = self.peer()?;
                if peer.is_empty() {
                    self.refuse(10003)
                } else {
                    Ok(Request::StreamPeerRemove { stream: first(), peer })
                }
            }
            Kind::ServerRemove => {
                let PeerBody { peer, peer_id } = self.server()?;
                Ok(Request::ServerRemove { peer, peer_id })
            }
            Kind::ServerEvacuate => {
                let PeerBody { peer, peer_id } = self.server()?;
                Ok(Request::ServerEvacuate { peer, peer_id })
            }
            Kind::StreamMove => self.stream_move((first(), second())),
            Kind::StreamCancelMove => Ok(Request::StreamCancelMove { account: None, stream: first() }),
            Kind::AccountCancelMove => {
                Ok(Request::StreamCancelMove { account: Some(first()), stream: second() })
            }
            Kind::MetaRescue => self.rescue(),
            Kind::AccountPurge => Ok(Request::AccountPurge { account: first() }),
            Kind::StreamSnapshot => {
                self.not_empty()?;
                Ok(Request::StreamSnapshot { stream: first(), snapshot: self.required()? })
            }
            Kind::StreamRestore => self.restore(first()),
        }
    }

    fn rescue(&self) -> Outcome {
        self.not_empty()?;
        let RescueBody { quorum_needed: _ } = self.known()?;
        Ok(Request::MetaRescue)
    }

    fn placement(&self) -> Result<Placement, Refused> {
        Ok(self.known::<StepdownBody>()?.placement.into())
    }

    fn peer(&self) -> Result<PeerBody, Refused> {
        self.not_empty()?;
        self.known()
    }

    /// A server by name or number, of which there must be one.
    fn server(&self) -> Result<PeerBody, Refused> {
        let body = self.peer()?;
        if body.peer.is_empty() && body.peer_id.is_empty() { self.refuse(10003) } else { Ok(body) }
    }

    fn stream_move(&self, (account, stream): (String, String)) -> Outcome {
        let MoveBody { server, cluster, domain: _, tags } = self.known()?;
        let to = Placement { cluster, tags, ..Placement::default() };
        Ok(Request::StreamMove { account, stream, from: server, to })
    }

    /// A body that may be missing; in strict mode without unknown fields.
    fn known<T: DeserializeOwned + Default>(&self) -> Result<T, Refused> {
        match self.body.trim_ascii_start().first() {
            Some(b'{' | b'[') => Ok(self.config_body::<T>(read_value(self.body), false)?.0),
            _ => Ok(T::default()),
        }
    }

    fn refused(&self, error: ApiError) -> Refused {
        Refused { kind: self.kind, error }
    }

    fn refuse<T>(&self, err_code: u16) -> Result<T, Refused> {
        Err(self.refused(ApiError::new(err_code)))
    }

    /// The body must be there and be JSON; in strict mode without unknown fields.
    fn required<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        read_json(self.body).map_err(|text| self.refused(ApiError::with(10025, text)))
    }

    fn optional<T: DeserializeOwned>(&self) -> Result<Option<T>, Refused> {
        // What is neither an object nor an array is no body at all, as for the real server.
        match self.body.trim_ascii_start().first() {
            Some(b'{' | b'[') => self.required().map(Some),
            _ => Ok(None),
        }
    }

    /// Lists take a body that is JSON or ignore it.
    fn page(&self) -> PageBody {
        read_json(self.body).unwrap_or_default()
    }

    /// No body, or an object without members.
    fn empty(&self) -> Result<(), Refused> {
        let is_empty_object = || {
            serde_json::from_slice(self.body)
                .is_ok_and(|value: serde_json::Value| value == serde_json::json!({}))
        };
        if self.body.is_empty() || is_empty_object() { Ok(()) } else { self.refuse(10038) }
    }

    /// A body that says something.
    fn not_empty(&self) -> Result<(), Refused> {
        if self.empty().is_ok() { self.refuse(10003) } else { Ok(()) }
    }

    fn restore(self, stream: String) -> Outcome {
        self.not_empty()?;
        let mut body = read_value(self.body).map_err(|text| self.refused(ApiError::with(10025, text)))?;
        let config = body.get_mut("config").map_or_else(|| serde_json::json!({}), serde_json::Value::take);
        let (mut config, _) = self.config_body::<StreamConfig>(Ok(config), false)?;
        if config.name.is_empty() {
            config.name = stream.clone();
        }
        if config.name != stream {
            return self.refuse(10056);
        }
        Ok(Request::StreamRestore { config: Box::new(config) })
    }

    fn stream_config(self, name: &str) -> Outcome {
        let (config, pedantic) = self.config_body::<StreamConfig>(read_value(self.body), true)?;
        if config.name != name {
            return self.refuse(10056);
        }
        let config = Box::new(config);
        Ok(match self.kind {
            Kind::StreamCreate => Request::StreamCreate { config, pedantic },
            _ => Request::StreamUpdate { config, pedantic },
        })
    }

    /// A configuration, with `pedantic` beside its fields where `with_pedantic`. Not strict: unknown fields are dropped.
    fn config_body<T: DeserializeOwned>(
        &self,
        value: Result<serde_json::Value, String>,
        with_pedantic: bool,
    ) -> Result<(T, bool), Refused> {
        let invalid = |text: String| self.refused(ApiError::with(10025, text));
        let mut value = value.map_err(invalid)?;
        drop_nulls(&mut value);
        let mut pedantic = false;
        if let Some(fields) = value.as_object_mut()
            && with_pedantic
            && let Some(flag) = fields.remove("pedantic")
        {
            pedantic = flag.as_bool().unwrap_or(false);
        }
        loop {
            match serde_json::from_value::<T>(value.clone()) {
                Ok(config) => return Ok((config, pedantic)),
                Err(error) => {
                    let text = error.to_string();
                    let unknown =
                        text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
                    let Some(field) = unknown else { return Err(invalid(text)) };
                    let dropped =
                        !self.strict && value.as_object_mut().is_some_and(|all| all.remove(field).is_some());
                    if !dropped {
                        return Err(invalid(format!("json: unknown field \"{field}\"")));
                    }
                }
            }
        }
    }

    fn stream_page(self) -> Outcome {
        let PageBody { offset, subject } = self.page();
        let subject = subject.unwrap_or_default();
        Ok(match self.kind {
            Kind::StreamNames => Request::StreamNames { offset, subject },
            _ => Request::StreamList { offset, subject },
        })
    }

    fn stream_info(self, stream: String) -> Outcome {
        let body: InfoBody = read_json(self.body).unwrap_or_default();
        Ok(Request::StreamInfo {
            stream,
            deleted_details: body.deleted_details,
            subjects_filter: body.subjects_filter.unwrap_or_default(),
            offset: body.offset,
        })
    }

    fn purge(self, stream: String) -> Outcome {
        let body: PurgeBody = self.optional()?.unwrap_or_default();
        if body.seq > 0 && body.keep > 0 {
            return self.refuse(10003);
        }
        let filter = body.filter.unwrap_or_default();
        Ok(Request::StreamPurge { stream, filter, seq: Seq(body.seq), keep: body.keep })
    }

    fn message_get(self, stream: String) -> Outcome {
        let Some(body) = self.optional::<GetBody>()? else { return self.refuse(10003) };
        let last = body.last_by_subj.unwrap_or_default();
        let next = body.next_by_subj.unwrap_or_default();
        if body.batch > 0 || body.start_time.is_some() || !body.multi_last.is_empty() {
            return self.refuse(10003);
        }
        let get = match (body.seq, last.is_empty(), next.is_empty()) {
            (0, true, true) => return self.refuse(10003),
            (_, false, false) => return self.refuse(10003),
            (0, false, true) => GetMessage::Last(last),
            (_, false, true) => return self.refuse(10003),
            (seq, true, false) => GetMessage::Next(Seq(seq), next),
            (seq, true, true) => GetMessage::Seq(Seq(seq)),
        };
        Ok(Request::MessageGet { stream, get, no_hdr: body.no_hdr })
    }

    fn message_delete(self, stream: String) -> Outcome {
        let Some(body) = self.optional::<DeleteBody>()? else { return self.refuse(10003) };
        Ok(Request::MessageDelete { stream, seq: Seq(body.seq), no_erase: body.no_erase })
    }

    fn create_body(&self) -> Result<(CreateBody, ConsumerConfig), Refused> {
        let mut body: CreateBody = self.required()?;
        let value = std::mem::take(&mut body.config);
        let value = if value.is_null() { serde_json::json!({}) } else { value };
        let (config, _) = self.config_body(Ok(value), false)?;
        Ok((body, config))
    }

    fn consumer_create(self, arguments: &[&str]) -> Outcome {
        let (body, mut config) = self.create_body()?;
        let stream = arguments[0].to_owned();
        if body.stream_name != stream {
            return self.refuse(10056);
        }
        let name = match arguments.get(1) {
            Some(name) => {
                let named = if config.durable.is_empty() { &config.name } else { &config.durable };
                if !named.is_empty() && named != name {
                    return self.refuse(10017);
                }
                (*name).to_owned()
            }
            None if !config.durable.is_empty() => return self.refuse(10020),
            None => config.name.clone(),
        };
        if arguments.len() > 2 {
            let filter = arguments[2..].join(".");
            if !config.filter_subjects.is_empty() {
                return self.refuse(10137);
            }
            if config.filter_subject != filter {
                return self.refuse(10131);
            }
        }
        config.name.clone_from(&name);
        self.finish_create(stream, name, body, config)
    }

    fn durable_create(self, stream: String, name: String) -> Outcome {
        let (body, mut config) = self.create_body()?;
        if body.stream_name != stream {
            return self.refuse(10056);
        }
        if config.durable.is_empty() {
            return self.refuse(10018);
        }
        if config.durable != name {
            return self.refuse(10017);
        }
        config.name.clone_from(&name);
        self.finish_create(stream, name, body, config)
    }

    fn finish_create(
        self,
        stream: String,
        name: String,
        body: CreateBody,
        config: ConsumerConfig,
    ) -> Outcome {
        let action = match body.action.as_deref() {
            None | Some("") => ConsumerAction::Any,
            Some("create") => ConsumerAction::Create,
            Some("update") => ConsumerAction::Update,
            Some(_) => return Err(self.refused(ApiError::with(10025, "unknown consumer action"))),
        };
        let pedantic = body.pedantic;
        Ok(Request::ConsumerCreate(Box::new(ConsumerCreate { stream, name, config, action, pedantic })))
    }

    fn consumer_unpin(self, stream: String, consumer: String) -> Outcome {
        let body: Option<UnpinBody> = self.optional()?;
        let invalid = |text: &str| Err(self.refused(ApiError::with(10025, text)));
        let Some(UnpinBody { group }) = body else { return invalid("unexpected end of JSON input") };
        if group.is_empty() {
            return invalid("consumer group not specified");
        }
        if let Err(error) = hw_stream::consumer::check_group(&group) {
            return Err(self.refused((&error).into()));
        }
        Ok(Request::ConsumerUnpin { stream, consumer, group })
    }

    fn consumer_pause(self, stream: String, consumer: String) -> Outcome {
        let body: PauseBody = self.optional()?.unwrap_or_default();
        let until = match body.pause_until.as_deref() {
            None | Some("") => None,
            Some(text) if text.starts_with("0001-01-01") => None,
            Some(text) => match Time::parse_rfc3339(text) {
                Some(time) => Some(time),
                None => {
                    return Err(
                        self.refused(ApiError::with(10025, format!("cannot parse {text:?} as a time")))
                    );
                }
            },
        };
        Ok(Request::ConsumerPause { stream, consumer, until })
    }
}

fn read_value(body: &[u8]) -> Result<serde_json::Value, String> {
    read_json(body)
}

/// Reads JSON; an empty body is an empty object, and a body that ends early is worded as clients know it.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    from_json(body)
        .map_err(|error| if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() })
}
