//! What a client's operations do.

use hw_auth::{AuthError, Credentials};
use hw_kit::{AccountId, ConnId, Span, Time};
use hw_subject::{is_valid_filter, is_valid_subject, token_count};
use hw_wire::{ClientOp, ConnectOptions, Info, ParseError, Publish, Step, encode, headers, parse};

use crate::close::CloseReason;
use crate::event::HubEvent;
use crate::hub::{Hub, Sink};
use crate::message::{Inside, Message, Origin};
use crate::route::Reach;
use crate::sinks::{NOBODY, Routed, Sub};

impl Hub {
    /// Bytes of a connection came. Returns how many of them are done with: the caller keeps the rest and offers it
    /// again, with more behind it.
    pub fn handle_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8], inside: &mut impl Inside) -> usize {
        let Some(&slot) = self.conns.get(&conn) else {
            return bytes.len();
        };
        let (mut at, mut operated) = (0, false);
        loop {
            let Some(session) = self.sinks.sessions.get_mut(slot).filter(|session| session.closing.is_none())
            else {
                return bytes.len();
            };
            let rest = &bytes[at..];
            let unknown = session.identity.is_none() && self.config.directory.auth_required();
            if unknown && rest.first().is_some_and(|byte| !byte.eq_ignore_ascii_case(&b'c')) {
                self.refuse(slot, "", None);
                return bytes.len();
            }
            match parse(rest, &session.limits) {
                Ok(Step::Op(op, consumed)) => {
                    at += consumed;
                    operated |= op != ClientOp::Pong;
                    self.operation(now, slot, &op, inside);
                    if !(self.sinks.expired.is_empty() && self.sinks.slow.is_empty()) {
                        self.sweep();
                    }
                }
                Ok(Step::Incomplete { need }) => {
                    session.need = if rest.is_empty() { 0 } else { need };
                    session.clock.last_activity = now;
                    if operated {
                        session.clock.last_operation = now;
                    }
                    return at;
                }
                Err(error) => {
                    self.fail(slot, error);
                    return bytes.len();
                }
            }
        }
    }

    #[inline]
    fn operation(&mut self, now: Time, slot: u32, op: &ClientOp<'_>, inside: &mut impl Inside) {
        if self.sinks.trace.on {
            self.trace(slot, op);
        }
        if !matches!(op, ClientOp::Connect(_)) && !self.admit_anonymous(now, slot) {
            return;
        }
        match *op {
            ClientOp::Pub(ref publish) => self.publish_from(now, slot, publish, inside),
            ClientOp::Sub { subject, queue, sid } => self.sub(slot, subject, queue, sid),
            ClientOp::Unsub { sid, max } => self.unsub(slot, sid, max),
            ClientOp::Connect(json) => self.connect(now, slot, json),
            ClientOp::Ping => self.pong(slot),
            ClientOp::Pong => {
                if let Some(session) = self.sinks.sessions.get_mut(slot) {
                    let clock = &mut session.clock;
                    if clock.pings_out > 0 {
                        clock.rtt = now.since(clock.ping_sent);
                    }
                    clock.pings_out = 0;
                }
            }
            ClientOp::Info(json) => {
                if let Err(error) = Info::parse(json) {
                    self.violation(slot, error.to_string());
                }
            }
            ClientOp::Ok => {}
            ClientOp::Err(text) => {
                let text = format!("Client error: {}", String::from_utf8_lossy(text));
                self.log(slot, text);
                self.end(slot, CloseReason::ParseError, None);
            }
        }
    }

    /// A connection that needs no credentials and says no CONNECT is whoever the directory says. False: it ended.
    #[inline]
    fn admit_anonymous(&mut self, now: Time, slot: u32) -> bool {
        if self.sinks.sessions.get(slot).is_some_and(|session| session.identity.is_some()) {
            return true;
        }
        self.authenticate(now, slot, &ConnectOptions::default())
    }

    fn fail(&mut self, slot: u32, error: ParseError) {
        let reason = match error {
            ParseError::MaxPayload { .. } => CloseReason::MaxPayloadExceeded,
            ParseError::ControlLine => CloseReason::MaxControlLineExceeded,
            _ => CloseReason::ProtocolViolation,
        };
        self.log(slot, error.to_string());
        self.end(slot, reason, error.err_text());
    }

    /// Ends a connection without a word to the client.
    fn violation(&mut self, slot: u32, text: String) {
        self.log(slot, text);
        self.end(slot, CloseReason::ProtocolViolation, None);
    }

    fn log(&mut self, slot: u32, text: impl Into<String>) {
        if let Some(session) = self.sinks.sessions.get(slot) {
            self.events.error(session.conn, text);
        }
    }

    pub(crate) fn err(&mut self, slot: u32, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        self.sinks.write(slot, |out| encode::err(out, text));
        if self.sinks.trace.on
            && let Some(session) = self.sinks.sessions.get(slot)
        {
            self.sinks.trace.line(session.conn, "->>", &[b"-ERR", text]);
        }
    }

    #[inline]
    fn ok(&mut self, slot: u32) {
        if self.sinks.sessions.get(slot).is_some_and(|session| session.options.verbose) {
            self.sinks.write(slot, encode::ok);
            if self.sinks.trace.on
                && let Some(session) = self.sinks.sessions.get(slot)
            {
                self.sinks.trace.line(session.conn, "->>", &[b"OK"]);
            }
        }
    }

    fn connect(&mut self, now: Time, slot: u32, json: &[u8]) {
        let options = match ConnectOptions::parse(json) {
            Ok(options) => options,
            Err(error) => return self.violation(slot, error.to_string()),
        };
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            // Known even of those who are refused: events and monitoring name them.
            session.options.name.clone_from(&options.name);
            session.options.lang.clone_from(&options.lang);
            session.options.version.clone_from(&options.version);
        }
        if !self.authenticate(now, slot, &options) {
            return;
        }
        let refused = if !(0..=1).contains(&options.protocol) {
            Some(CloseReason::BadClientProtocolVersion)
        } else if options.no_responders && !options.headers {
            Some(CloseReason::NoRespondersRequiresHeaders)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.log(slot, reason.err_text().unwrap_or_default());
            return self.end(slot, reason, reason.err_text());
        }
        let headers = options.headers && self.config.info.headers;
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.limits.headers = headers;
            session.options = ConnectOptions { headers, ..options };
            // They have served their purpose: what is not kept cannot leak.
            session.options.pass.clear();
            session.options.token.clear();
            session.options.sig.clear();
            if session.clock.rtt.is_zero() {
                // Until a PING has measured it: a service in another account is told something.
                session.clock.rtt = now.since(session.clock.start).max(Span(1));
            }
        }
        self.start_pings(slot);
        self.ok(slot);
    }

    /// Finds out who this is. False: the connection ended.
    fn authenticate(&mut self, now: Time, slot: u32, options: &ConnectOptions) -> bool {
        let Some(session) = self.sinks.sessions.get(slot) else {
            return false;
        };
        let credentials = Credentials {
            user: Some(&options.user),
            pass: Some(&options.pass),
            token: Some(&options.token),
            nkey: Some(&options.nkey),
            sig: Some(&options.sig),
            jwt: Some(&options.jwt),
            now,
            host: &session.peer.ip,
            kind: session.peer.kind,
        };
        let identity = match self.config.directory.authenticate(&credentials, session.peer.nonce.as_bytes()) {
            Ok(identity) => identity,
            Err(error) => {
                self.refuse(slot, &options.user, Some(error));
                return false;
            }
        };
        let account = identity.account;
        let before = session.counted;
        if before != Some(account) && !self.has_room(account) {
            let reason = CloseReason::MaxAccountConnectionsExceeded;
            self.end(slot, reason, reason.err_text());
            return false;
        }
        if before != Some(account) {
            self.change_account(slot, account);
        }
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.identity = Some(identity);
            session.permitted.clear();
        }
        self.apply_limits(slot);
        true
    }

    fn has_room(&self, account: AccountId) -> bool {
        let max = self.config.directory.account(account).map_or(-1, |account| account.limits.max_connections);
        let Ok(max) = u64::try_from(max) else {
            return true;
        };
        let open = self.accounts.get(account.0 as usize).map_or(0, |state| {
            u64::from(state.connections) + state.elsewhere.iter().copied().map(u64::from).sum::<u64>()
        });
        open < max
    }

    /// Moves a connection; subscriptions that it had in another account end.
    fn change_account(&mut self, slot: u32, account: AccountId) {
        self.leave_account(slot);
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.counted = Some(account);
            let conn = session.conn;
            self.events.push(HubEvent::Connected { conn, account });
        }
        self.count_connection(account, true);
    }

    fn refuse(&mut self, slot: u32, user: &str, error: Option<AuthError>) {
        if let Some(session) = self.sinks.sessions.get(slot) {
            let conn = session.conn;
            self.events.push(HubEvent::AuthFailed { conn, user: user.into(), error });
        }
        let reason = CloseReason::AuthenticationFailure;
        self.end(slot, reason, reason.err_text());
    }

    fn sub(&mut self, slot: u32, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let max_tokens = self.config.limits.max_subscription_tokens;
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let Some(identity) = &session.identity else {
            return;
        };
        let account = identity.account;
        let permissions = identity.permissions.as_deref();
        if permissions.is_some_and(|permissions| !permissions.may_subscribe(subject, queue)) {
            let mut text = quoted(b"Permissions Violation for Subscription to ", subject);
            if let Some(queue) = queue {
                text.extend_from_slice(&quoted(b" using queue ", queue));
            }
            self.log(slot, violation("Subscription", subject, queue, Some(sid)));
            return self.err(slot, text);
        }
        if max_tokens > 0 && token_count(subject) > max_tokens {
            let mut text = quoted(b"Permissions Violation for Subscription to ", subject);
            text.extend_from_slice(b", too many tokens");
            self.log(slot, violation("Subscription", subject, queue, Some(sid)) + " too many tokens");
            return self.err(slot, text);
        }
        if session.subs.len() >= session.max_subscriptions {
            self.log(slot, "maximum subscriptions exceeded");
            return self.err(slot, "maximum subscriptions exceeded");
        }
        if session.subs.contains_key(sid) {
            return self.ok(slot);
        }
        if !is_valid_filter(subject) {
            return self.err(slot, "Invalid Subject");
        }
        let filtered = permissions.is_some_and(|permissions| permissions.filters_deliveries(subject, queue));
        let sub = Sub {
            slot,
            account,
            sid: sid.into(),
            subject: subject.into(),
            queue: queue.map(Box::from),
            delivered: 0,
            max: 0,
            filtered,
        };
        let id = self.sinks.subs.insert(sub);
        session.subs.insert(sid.into(), id);
        if let Some(mark) = self.join(account, subject, queue, Sink::Client(id)) {
            self.note_mark(slot, mark);
        }
        self.ok(slot);
    }

    fn unsub(&mut self, slot: u32, sid: &[u8], max: Option<u64>) {
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let id = session.subs.get(sid).copied();
        if let Some((id, sub)) = id.and_then(|id| Some((id, self.sinks.subs.get_mut(id)?))) {
            match max {
                Some(max) if sub.delivered < max => sub.max = max,
                _ => self.sinks.expired.push(id),
            }
        }
        self.sweep();
        self.ok(slot);
    }

    fn pong(&mut self, slot: u32) {
        let settled = self.interest_settled();
        let mark = self.mark;
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        if session.held_pongs > 0 || session.mark > settled {
            session.held_pongs += 1;
            match self.held.back_mut() {
                Some((last, conn, pongs)) if (*last, *conn) == (mark, session.conn) => *pongs += 1,
                _ => self.held.push_back((mark, session.conn, 1)),
            }
        } else {
            self.write_pong(slot);
        }
    }

    fn write_pong(&mut self, slot: u32) {
        self.sinks.write(slot, encode::pong);
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        if self.sinks.trace.on {
            self.sinks.trace.line(session.conn, "->>", &[b"PONG"]);
        }
        if session.told || session.options.protocol < 1 {
            return;
        }
        session.told = true;
        let info = self.info_for(slot, true);
        self.sinks.write(slot, |out| encode::info(out, &info));
    }

    /// Other shards have applied more: PONGs that waited for it go out.
    pub(crate) fn release_pongs(&mut self) {
        let settled = self.interest_settled();
        while let Some(&(mark, conn, pongs)) = self.held.front() {
            if mark > settled {
                break;
            }
            self.held.pop_front();
            let Some(&slot) = self.conns.get(&conn) else {
                continue;
            };
            for _ in 0..pongs {
                let Some(session) =
                    self.sinks.sessions.get_mut(slot).filter(|session| session.closing.is_none())
                else {
                    break;
                };
                session.held_pongs -= 1;
                self.write_pong(slot);
            }
        }
    }

    fn publish_from(&mut self, now: Time, slot: u32, publish: &Publish<'_>, inside: &mut impl Inside) {
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let Publish { subject, reply, header, payload } = *publish;
        let size = (header.len() + payload.len()) as u64;
        session.traffic.in_msgs += 1;
        session.traffic.in_bytes += size;
        self.sinks.traffic.in_msgs += 1;
        self.sinks.traffic.in_bytes += size;
        let (conn, verbose) = (session.conn, session.options.verbose);
        let Some(account) = session.account() else {
            return;
        };
        // The message goes on all the same: `nats-server` only remarks on it.
        let remark = session.options.pedantic && !is_valid_subject(subject);
        let wants_503 = session.options.no_responders && session.options.headers && !reply.is_empty();
        let permitted = !is_reserved(subject) && session.may_publish(now, subject);
        if remark {
            self.err(slot, "Invalid Publish Subject");
        }
        if !permitted {
            self.log(slot, violation("Publish", subject, None, None));
            return self.err(slot, quoted(b"Permissions Violation for Publish to ", subject));
        }
        if is_reserved_reply(reply) {
            self.log(slot, violation("Publish with Reply", reply, None, None));
            return self.err(slot, quoted(b"Permissions Violation for Publish with Reply of ", reply));
        }
        if verbose {
            self.ok(slot);
        }
        let mapped = self.mapped(account, subject);
        let subject = mapped.as_deref().unwrap_or(subject);
        let msg = Message { subject, reply, header, payload };
        let routed = Routed { now, account, to: subject, msg, from: slot };
        let origin = Origin { account, conn: Some(conn), shard: self.config.shard };
        let receivers = self.route(&routed, origin, Reach::Everywhere, inside);
        if receivers == 0 && wants_503 {
            self.no_responders(&routed);
        }
    }

    /// Tells a client that nobody hears its request: on the first of its own subscriptions for the reply.
    fn no_responders(&mut self, request: &Routed<'_>) {
        let Some(state) = self.accounts.get_mut(request.account.0 as usize) else {
            return;
        };
        let reply = request.msg.reply;
        let matches = state.interest.lookup(reply);
        let own = matches.plain.iter().find_map(|sink| match *sink {
            Sink::Client(id) if self.sinks.subs.get(id).is_some_and(|sub| sub.slot == request.from) => {
                Some(id)
            }
            _ => None,
        });
        if let Some(id) = own {
            let header =
                headers::Builder::with_status(503, "").add("Nats-Subject", request.msg.subject).finish();
            let msg = Message { subject: reply, reply: &[], header: &header, payload: &[] };
            // `NOBODY`: a client without echo hears this answer, too.
            self.sinks.deliver(id, &Routed { to: reply, msg, from: NOBODY, ..*request });
        }
    }

    #[cold]
    fn trace(&mut self, slot: u32, op: &ClientOp<'_>) {
        let Some(session) = self.sinks.sessions.get(slot) else {
            return;
        };
        let (conn, trace) = (session.conn, &mut self.sinks.trace);
        let mut line = |parts: &[&[u8]]| trace.line(conn, "<<-", parts);
        match *op {
            ClientOp::Pub(Publish { subject, reply, header, payload }) => {
                let total = (header.len() + payload.len()).to_string();
                let size = header.len().to_string();
                match header {
                    [] => line(&[b"PUB", subject, reply, total.as_bytes()]),
                    _ => line(&[b"HPUB", subject, reply, size.as_bytes(), total.as_bytes()]),
                }
                trace.payload(conn, "<<-", header, payload);
            }
            ClientOp::Sub { subject, queue, sid } => line(&[b"SUB", subject, queue.unwrap_or_default(), sid]),
            ClientOp::Unsub { sid, max } => {
                let max = max.map(|max| max.to_string()).unwrap_or_default();
                line(&[b"UNSUB", sid, max.as_bytes()]);
            }
            // Without its JSON: that has secrets.
            ClientOp::Connect(_) => line(&[b"CONNECT"]),
            ClientOp::Ping => line(&[b"PING"]),
            ClientOp::Pong => line(&[b"PONG"]),
            ClientOp::Info(json) => line(&[b"INFO", json]),
            ClientOp::Ok => line(&[b"OK"]),
            ClientOp::Err(text) => line(&[b"-ERR", text]),
        }
    }
}

/// `text"subject"`.
fn quoted(text: &[u8], subject: &[u8]) -> Vec<u8> {
    [text, b"\"", subject, b"\""].concat()
}

/// How the log puts a violation.
fn violation(what: &str, subject: &[u8], queue: Option<&[u8]>, sid: Option<&[u8]>) -> String {
    let mut text = format!("{what} Violation - Subject \"{}\"", String::from_utf8_lossy(subject));
    if let Some(queue) = queue {
        text += &format!(", Queue: \"{}\"", String::from_utf8_lossy(queue));
    }
    if let Some(sid) = sid {
        text += &format!(", SID {}", String::from_utf8_lossy(sid));
    }
    text
}

/// Subjects that only servers publish on.
#[inline]
fn is_reserved(subject: &[u8]) -> bool {
    match subject.first() {
        Some(b'$') => subject.starts_with(b"$GR.") || subject.starts_with(b"$NRG."),
        Some(b'_') => subject.starts_with(b"_GR_."),
        _ => false,
    }
}

/// Reply subjects that only servers give.
#[inline]
fn is_reserved_reply(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'$') => reply.starts_with(b"$JS.ACK.") || reply.starts_with(b"$GR."),
        Some(b'_') => reply.starts_with(b"_R_.") || reply.starts_with(b"_GR_."),
        _ => false,
    }
}
