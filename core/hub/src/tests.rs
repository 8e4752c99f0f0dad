//! A hub driven with protocol text. The tables in `tests/*.txt` hold what the real server answered.

mod flow;
mod operator;
mod servers;
mod shards;
mod sharing;

use std::sync::Arc;

use hw_auth::{
    Allowance, ConnectionKind, Directory, DirectorySpec, PermissionsSpec, ResponsePermission, UserKey,
    UserSpec,
};
use hw_kit::{AccountId, ConnId, Map, ShardId, Span, Time};
use hw_wire::Info;

use crate::*;

/// Internal subscribers that write down what they get.
#[derive(Default)]
pub(crate) struct Recorder(pub Vec<String>);

impl Inside for Recorder {
    fn deliver(&mut self, _: Time, to: InternalId, from: Origin, msg: &Message<'_>) {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let conn = from.conn.map(|conn| conn.0.to_string()).unwrap_or_default();
        let (subject, reply) = (text(msg.subject), text(msg.reply));
        self.0.push(format!(
            "{}<{}/{conn}/{} {subject} {reply}|{}|{}",
            to.0,
            from.account,
            from.shard,
            text(msg.header),
            text(msg.payload)
        ));
    }
}

pub(crate) struct Rig {
    pub hub: Hub,
    pub now: Time,
    pub inside: Recorder,
    kept: Map<ConnId, Vec<u8>>,
}

pub(crate) fn config(directory: Directory) -> HubConfig {
    HubConfig {
        shard: ShardId(0),
        shards: 1,
        seed: 1,
        info: Info {
            server_id: "NS".into(),
            server_name: "s".into(),
            version: "2.15.1".into(),
            proto: 1,
            headers: true,
            ..Info::default()
        },
        limits: HubLimits::default(),
        directory: Arc::new(directory),
        exchange: None,
    }
}

impl Rig {
    pub fn new(config: HubConfig) -> Rig {
        let hub = Hub::new(config);
        Rig { hub, now: Time(1_000_000_000), inside: Recorder::default(), kept: Map::default() }
    }

    pub fn with_limits(limits: HubLimits) -> Rig {
        Rig::new(HubConfig { limits, ..config(Directory::default()) })
    }

    pub fn open(&mut self, conn: u64) -> ConnId {
        let conn = ConnId(conn);
        let peer =
            Peer { ip: "127.0.0.1".into(), port: 7, kind: ConnectionKind::Standard, ..Peer::default() };
        self.hub.handle_open(self.now, conn, peer);
        assert!(self.read(conn).starts_with("INFO {"));
        conn
    }

    /// A connection after CONNECT with these options.
    pub fn connect(&mut self, conn: u64, options: &str) -> ConnId {
        let conn = self.open(conn);
        self.send(conn, format!("CONNECT {{\"verbose\":false{options}}}\r\n"));
        conn
    }

    pub fn send(&mut self, conn: ConnId, bytes: impl AsRef<[u8]>) {
        let kept = self.kept.entry(conn).or_default();
        kept.extend_from_slice(bytes.as_ref());
        let consumed = self.hub.handle_bytes(self.now, conn, kept, &mut self.inside);
        kept.drain(..consumed);
    }

    /// What the connection got since the last call.
    pub fn read(&mut self, conn: ConnId) -> String {
        let out = self.hub.swap_output(conn, Vec::new());
        out.iter().map(|&byte| char::from(byte)).collect()
    }

    pub fn ask(&mut self, conn: ConnId, bytes: impl AsRef<[u8]>) -> String {
        self.send(conn, bytes);
        self.read(conn)
    }

    pub fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        self.hub.handle_timeout(self.now);
    }
}

/// What `users.txt` was observed with.
pub(crate) fn users() -> HubConfig {
    let user = |name: &str, permissions| UserSpec {
        key: UserKey::Password { user: name.into(), pass: name.into() },
        permissions,
        connection_kinds: vec![],
    };
    let allowance = |allow: &[&str], deny: &[&str]| Allowance {
        allow: allow.iter().map(|s| s.to_string()).collect(),
        deny: deny.iter().map(|s| s.to_string()).collect(),
    };
    let restricted = PermissionsSpec {
        publish: allowance(&["ok.>", "b.*", "_INBOX.>"], &["ok.no"]),
        subscribe: allowance(&["ok.>", "_INBOX.>", "q qq", "lit"], &["ok.no.>"]),
        allow_responses: None,
    };
    let responder = PermissionsSpec {
        subscribe: allowance(&["svc.>"], &[]),
        allow_responses: Some(ResponsePermission { max: 2, expires: Span::from_secs(1) }),
        ..PermissionsSpec::default()
    };
    let denied = PermissionsSpec {
        publish: allowance(&[], &["z.>"]),
        subscribe: allowance(&[], &["x.secret", "y.*"]),
        allow_responses: None,
    };
    let spec = DirectorySpec {
        users: vec![
            user("a", Some(restricted)),
            user("r", Some(responder)),
            user("w", None),
            user("d", Some(denied)),
        ],
        ..DirectorySpec::default()
    };
    let limits = HubLimits {
        max_subscriptions: 3,
        max_subscription_tokens: 4,
        max_control_line: 512,
        max_payload: 1024,
        ping_interval: Span::from_secs(2),
        ping_max: 1,
        auth_timeout: Span::from_secs(1),
        ..HubLimits::default()
    };
    HubConfig { limits, ..config(Directory::new(&spec).unwrap()) }
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().unwrap() {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'x' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            other => out.push(other),
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\r' => out += "\\r",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\\' => out += "\\\\",
            ' '..='~' => out.push(c),
            c => out += &format!("\\x{:02x}", u32::from(c)),
        }
    }
    out
}

fn talk(config: &HubConfig, input: &str) -> String {
    let mut rig = Rig::new(config.clone());
    let conn = rig.open(5);
    let mut out = String::new();
    for chunk in input.split(" || ") {
        rig.send(conn, unescape(chunk));
        out += &rig.read(conn);
    }
    while let Some(at) = out.find("INFO {") {
        let end = at + out[at..].find("} \r\n").unwrap() + 4;
        out.replace_range(at..end, "<INFO>");
    }
    if rig.hub.closing(conn).is_some() {
        out += "<CLOSED>";
    }
    escape(&out)
}

fn check(config: &HubConfig, table: &str) {
    let (mut wrong, mut cases) = (String::new(), 0);
    let mut input = "";
    for line in table.lines() {
        if let Some(line) = line.strip_prefix("> ") {
            input = line;
        } else if let Some(expected) = line.strip_prefix("< ") {
            cases += 1;
            let got = talk(config, input);
            if got != expected {
                wrong += &format!("> {input}\n  is {got}\n  not {expected}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases > 60);
}

#[test]
fn an_open_server_answers_like_nats_server() {
    check(&config(Directory::default()), include_str!("tests/open.txt"));
}

#[test]
fn a_server_with_users_answers_like_nats_server() {
    check(&users(), include_str!("tests/users.txt"));
}
