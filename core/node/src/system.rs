//! The server itself: what it answers to requests, what it announces in the system account, what operators should read.

use std::sync::Arc;

use bytes::Bytes;
use hw_auth::Directory;
use hw_hub::{CloseReason, ClosedView, ConnectionView, Hub, HubEvent, Message, Origin};
use hw_kit::{AccountId, ConnId, Map, Nuid, Rng, Time};
use serde_json::{Value, json};

use crate::inside::Target;
use crate::notice::{Notice, NoticeConfig, NoticeLevel};
use crate::outbox::Outgoing;
use crate::shard::owned;

/// The subject that tells a user who it is.
const USER_INFO: &[u8] = b"$SYS.REQ.USER.INFO";

/// A request that needs to know more than one shard, in the system account or in one about itself: the shell answers it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// What is asked for, such as `VARZ`.
    pub verb: String,
    /// Of which account, if the request names one or must not ask about others.
    pub account: Option<String>,
    /// The account that asks, to which the answer goes.
    pub asker: AccountId,
    /// Where the answer goes.
    pub reply: Bytes,
    /// The request's body.
    pub body: Bytes,
}

/// The server's own services.
pub(crate) struct System {
    directory: Arc<Directory>,
    requests: Vec<(Origin, Bytes)>,
    pub(crate) questions: Vec<Question>,
    pub(crate) notices: Vec<Notice>,
    wanted: NoticeConfig,
    ids: Nuid,
    /// Numbers what is announced.
    seq: u64,
    /// Names that were refused, until their connections are gone.
    refused: Map<ConnId, String>,
    /// It was said that this server goes.
    departs: bool,
}

/// What the system account can ask every server, or one by its id.
const OF_SERVER: [&str; 12] = [
    "STATSZ", "VARZ", "SUBSZ", "CONNZ", "ROUTEZ", "GATEWAYZ", "LEAFZ", "ACCOUNTZ", "JSZ", "HEALTHZ", "IDZ",
    "RAFTZ",
];

/// What the system account can ask about an account.
const OF_ACCOUNT: [&str; 4] = ["CONNZ", "SUBSZ", "JSZ", "STATZ"];

/// What every account can ask about itself.
const OF_ITSELF: [&str; 3] =
    ["$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.STATZ", "$SYS.REQ.SERVER.PING.CONNZ"];

impl System {
    pub(crate) fn new(directory: Arc<Directory>, seed: u64) -> System {
        System {
            directory,
            requests: Vec::new(),
            questions: Vec::new(),
            notices: Vec::new(),
            wanted: NoticeConfig::default(),
            ids: Nuid::new(&mut Rng::new(seed)),
            seq: 0,
            refused: Map::default(),
            departs: false,
        }
    }

    /// Listens in every account for what all may ask, and in the system account for the rest.
    pub(crate) fn subscribe(&self, hub: &mut Hub) {
        self.listen_from(hub, 0);
        let Some(system) = self.directory.system_account() else { return };
        let id = hub.info().server_id.clone();
        let mut subjects = vec!["$SYS.REQ.SERVER.PING".to_owned()];
        for verb in OF_SERVER {
            subjects.push(format!("$SYS.REQ.SERVER.PING.{verb}"));
            subjects.push(format!("$SYS.REQ.SERVER.{id}.{verb}"));
        }
        subjects.push(format!("$SYS.REQ.SERVER.{id}.KICK"));
        subjects.extend(OF_ACCOUNT.map(|verb| format!("$SYS.REQ.ACCOUNT.*.{verb}")));
        for subject in subjects {
            hub.subscribe_internal(system, subject.as_bytes(), None, Target::System.id());
        }
    }

    /// Listens in the accounts from this number on for what all may ask.
    fn listen_from(&self, hub: &mut Hub, first: usize) {
        let system = self.directory.system_account();
        for (account, _) in self.directory.accounts().skip(first) {
            // Only the server that has the connection knows its user.
            hub.subscribe_private(account, USER_INFO, Target::System.id());
            for subject in OF_ITSELF.iter().filter(|_| Some(account) != system) {
                hub.subscribe_internal(account, subject.as_bytes(), None, Target::System.id());
            }
        }
    }

    /// The directory was changed. The hub of the shard that listens hears of accounts that are new.
    pub(crate) fn set_directory(&mut self, directory: Arc<Directory>, hub: Option<&mut Hub>) {
        let known = self.directory.accounts().count();
        self.directory = directory;
        if let Some(hub) = hub {
            self.listen_from(hub, known);
        }
    }

    pub(crate) fn set_notices(&mut self, hub: &mut Hub, wanted: NoticeConfig) {
        self.wanted = wanted;
        hub.set_trace(wanted.level >= NoticeLevel::Trace, wanted.message_bytes);
    }

    pub(crate) fn handle_request(&mut self, from: Origin, msg: &Message<'_>) {
        if msg.reply.is_empty() {
            return;
        }
        if msg.subject == USER_INFO {
            self.requests.push((from, owned(msg.reply)));
            return;
        }
        let subject = String::from_utf8_lossy(msg.subject);
        let tokens: Vec<&str> = subject.split('.').collect();
        let (verb, account) = match tokens[..] {
            [_, _, "SERVER", _] => ("STATSZ", None),
            [_, _, "SERVER", _, verb] => (verb, None),
            [_, _, "ACCOUNT", "PING", verb] => (verb, None),
            [_, _, "ACCOUNT", account, verb] => (verb, Some(account.to_owned())),
            _ => return,
        };
        let (asker, system) = (from.account, self.directory.system_account());
        let account = match self.directory.account(asker) {
            Some(own) if Some(asker) != system => Some(own.name.clone()),
            _ => account,
        };
        let (verb, reply, body) = (verb.to_owned(), owned(msg.reply), owned(msg.payload));
        self.questions.push(Question { verb, account, asker, reply, body });
    }

    /// A connection was accepted.
    pub(crate) fn opened(&mut self, hub: &Hub, conn: ConnId) {
        if self.wanted.level >= NoticeLevel::Debug
            && let Some(view) = hub.connection(conn)
        {
            self.note(NoticeLevel::Debug, &view, "Client connection created");
        }
    }

    /// What the requests and events since the last call make the server say.
    pub(crate) fn answers(&mut self, now: Time, hub: &mut Hub) -> Vec<Outgoing> {
        let asked = std::mem::take(&mut self.requests);
        let mut said: Vec<Outgoing> =
            asked.into_iter().map(|(from, to)| self.user_info(now, hub, from, to)).collect();
        let mut gone: Option<ConnectionView> = None;
        for event in hub.take_events() {
            match event {
                HubEvent::Connected { conn, account } => {
                    let view = hub.connection(conn);
                    said.extend(view.and_then(|view| self.connected(now, hub, &view, account)));
                }
                HubEvent::AuthFailed { conn, user, error: _ } => {
                    let name = if user.is_empty() { String::new() } else { format!(" - User {user:?}") };
                    if let Some(view) = hub.connection(conn) {
                        self.note(NoticeLevel::Error, &view, &format!("authentication error{name}"));
                    }
                    self.refused.insert(conn, user);
                }
                HubEvent::Closed(closed) => {
                    let text = format!("Client connection closed: {}", closed.reason);
                    self.note(NoticeLevel::Debug, &closed.connection, &text);
                    said.extend(self.disconnected(now, hub, &closed));
                    gone = Some(closed.connection.clone());
                }
                HubEvent::Error { conn, text } => {
                    let view = hub.connection(conn).or_else(|| gone.clone().filter(|view| view.conn == conn));
                    if let Some(view) = view {
                        self.note(NoticeLevel::Error, &view, &text);
                    }
                }
                HubEvent::Trace { conn, text } => self.trace(hub, conn, gone.as_ref(), &text),
            }
        }
        said
    }

    fn trace(&mut self, hub: &Hub, conn: ConnId, gone: Option<&ConnectionView>, text: &str) {
        let view = hub.connection(conn).or_else(|| gone.filter(|view| view.conn == conn).cloned());
        let Some(view) = view else { return };
        let system = self.directory.system_account();
        if self.wanted.system || system.is_none() || view.account != system {
            self.note(NoticeLevel::Trace, &view, text);
        }
    }

    fn note(&mut self, level: NoticeLevel, view: &ConnectionView, text: &str) {
        if level <= self.wanted.level {
            let account = view.account.map_or("", |account| self.name_of(account));
            let notice = Notice::about(level, view, account, text);
            self.notices.push(notice);
        }
    }

    fn name_of(&self, account: AccountId) -> &str {
        self.directory.account(account).map_or("", |account| &account.name)
    }

    /// What people call the account.
    fn label_of(&self, account: AccountId) -> &str {
        self.directory.account(account).map_or("", |account| &account.label)
    }

    fn connected(
        &mut self,
        now: Time,
        hub: &Hub,
        view: &ConnectionView,
        account: AccountId,
    ) -> Option<Outgoing> {
        let system = self.directory.system_account().filter(|system| *system != account)?;
        let name = self.name_of(account).to_owned();
        let subject = format!("$SYS.ACCOUNT.{name}.CONNECT");
        let client = client(view, &name, &view.user);
        self.announce(
            now,
            hub,
            (system, subject),
            json!({
                "type": "io.nats.server.advisory.v1.client_connect",
                "client": client,
            }),
        )
    }

    /// A client that was in an account left it; a client that was refused is told of to those who watch for that.
    fn disconnected(&mut self, now: Time, hub: &Hub, closed: &ClosedView) -> Option<Outgoing> {
        let view = &closed.connection;
        let refused = self.refused.remove(&view.conn);
        let system = self.directory.system_account()?;
        let (subject, name, user) = match (view.account, refused) {
            (Some(account), _) if account != system => {
                let name = self.name_of(account).to_owned();
                (format!("$SYS.ACCOUNT.{name}.DISCONNECT"), name, view.user.clone())
            }
            (None, Some(user)) if closed.reason == CloseReason::AuthenticationFailure => {
                let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", hub.info().server_id);
                (subject, "$G".to_owned(), user)
            }
            _ => return None,
        };
        let mut client = client(view, &name, &user);
        client["rtt"] = json!(view.rtt.0);
        client["stop"] = json!(closed.stop.to_rfc3339());
        self.announce(
            now,
            hub,
            (system, subject),
            json!({
                "type": "io.nats.server.advisory.v1.client_disconnect",
                "client": client,
                "sent": { "msgs": view.traffic.out_msgs, "bytes": view.traffic.out_bytes },
                "received": { "msgs": view.traffic.in_msgs, "bytes": view.traffic.in_bytes },
                "reason": closed.reason.name(),
            }),
        )
    }

    /// An event in the system account, if anybody there wants it.
    fn announce(
        &mut self,
        now: Time,
        hub: &Hub,
        (account, subject): (AccountId, String),
        mut event: Value,
    ) -> Option<Outgoing> {
        if !hub.has_interest(account, subject.as_bytes()) {
            return None;
        }
        event["server"] = self.stamp(now, hub);
        event["id"] = json!(self.ids.next_id());
        event["timestamp"] = json!(now.to_rfc3339());
        Some(send(account, subject.into(), event.to_string().into()))
    }

    /// This server stops (`SHUTDOWN`), or sends its clients away (`LAMEDUCK`): then it says no more when it stops.
    pub(crate) fn depart(&mut self, now: Time, hub: &Hub, how: &str) -> Option<Outgoing> {
        let system = self.directory.system_account()?;
        if std::mem::replace(&mut self.departs, true) {
            return None;
        }
        let subject = format!("$SYS.SERVER.{}.{how}", hub.info().server_id);
        if !hub.has_interest(system, subject.as_bytes()) {
            return None;
        }
        let server = self.stamp(now, hub);
        Some(send(system, subject.into(), server.to_string().into()))
    }

    /// This server, as its next event shows it.
    fn stamp(&mut self, now: Time, hub: &Hub) -> Value {
        self.seq += 1;
        let info = hub.info();
        let mut server = json!({
            "name": info.server_name,
            "host": info.host,
            "id": info.server_id,
            "ver": info.version,
            "seq": self.seq,
            "time": now.to_rfc3339(),
        });
        if !info.cluster.is_empty() {
            server["cluster"] = json!(info.cluster);
        }
        if info.jetstream {
            server["jetstream"] = json!(true);
        }
        server
    }

    fn user_info(&self, now: Time, hub: &Hub, from: Origin, to: Bytes) -> Outgoing {
        let account = self.name_of(from.account);
        let user = from.conn.and_then(|conn| hub.connection(conn)).map_or_else(String::new, |view| view.user);
        let label = self.label_of(from.account);
        let token = from.conn.and_then(|conn| hub.identity(conn)).and_then(|who| who.token.as_deref());
        let name = token.map_or("", hw_auth::UserToken::name);
        let who = hw_jsapi::UserInfo { user: &user, account, account_name: label, user_name: name };
        let info = hub.info();
        let server = hw_jsapi::ServerInfo {
            name: &info.server_name,
            host: &info.host,
            id: &info.server_id,
            ver: &info.version,
            cluster: &info.cluster,
            jetstream: info.jetstream,
        };
        send(from.account, to, hw_jsapi::user_info(now, &server, &who).into())
    }

    /// An answer of the shell's to a [`Question`].
    pub(crate) fn reply(&self, (asker, to): (AccountId, Bytes), payload: Bytes) -> Outgoing {
        send(asker, to, payload)
    }
}

fn send(account: AccountId, to: Bytes, payload: Bytes) -> Outgoing {
    Outgoing::Send { account, to, reply: Bytes::new(), header: Bytes::new(), payload }
}

/// A client as events show it.
fn client(view: &ConnectionView, account: &str, user: &str) -> Value {
    let mut client = json!({
        "start": view.start.to_rfc3339(),
        "host": view.ip,
        "id": view.conn.0,
        "acc": account,
        "name_tag": account,
        "kind": "Client",
        "client_type": if view.kind == hw_auth::ConnectionKind::Websocket { "websocket" } else { "nats" },
    });
    for (key, text) in [("user", user), ("name", &view.name), ("lang", &view.lang), ("ver", &view.version)] {
        if !text.is_empty() {
            client[key] = json!(text);
        }
    }
    client
}
