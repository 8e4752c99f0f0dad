//! Plays a script against a server.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    conn::{Conn, ConnEnd},
    frame::Frame,
    json,
    script::{Action, Body, Pattern, Payload, Script, ServerStep},
    server::Server,
    template::{Captures, Template},
};

/// How long an expectation may take; reached only by scripts that fail.
const PATIENCE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(20);
/// The subscription for replies; scripts use small numbers.
const INBOX_SID: &str = "9999";

/// A step that did not go as written.
#[derive(Debug)]
pub struct Failure {
    /// File and line.
    pub at: String,
    /// What was expected and what came.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Plays all steps; with `trace`, everything that is sent and received is printed.
pub fn run(script: &Script, server: &mut Server, trace: bool) -> Result<(), Failure> {
    let mut player = Player { server, trace, clients: BTreeMap::new(), known: Captures::new() };
    for step in &script.steps {
        let at = format!("{}:{}", script.path.display(), step.line);
        if trace {
            println!("-- {at}");
        }
        player.play(&step.action).map_err(|what| Failure { at, what })?;
    }
    Ok(())
}

struct Client {
    conn: Conn,
    is_deaf: bool,
    requests: u32,
    inbox: String,
}

struct Player<'a> {
    server: &'a mut Server,
    trace: bool,
    clients: BTreeMap<String, Client>,
    known: Captures,
}

impl Player<'_> {
    fn play(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Open { conn } => self.client(conn).map(drop),
            Action::Connect { conn, options } => self.connect(conn, options),
            Action::Close { conn } => {
                self.clients.remove(conn);
                Ok(())
            }
            Action::Deaf { conn } => {
                self.client(conn)?.is_deaf = true;
                Ok(())
            }
            Action::Send { conn, line, body } => self.send(conn, line, body),
            Action::SendRaw { conn, text } => {
                let bytes = unescape(&self.fill(text)?)?;
                send(self.client(conn)?, &bytes)
            }
            Action::Expect { conn, want } => self.expect(conn, want),
            Action::Eventually { conn, want } => self.eventually(conn, want),
            Action::OneOf { conns, want } => self.one_of(conns, want),
            Action::Closed { conn } => self.closed(conn),
            Action::Nothing { conn, within } => self.nothing(conn, *within),
            Action::Request { conn, subject, body } => self.request(conn, subject, body),
            Action::Reply { conn, want } => self.reply(conn, want),
            Action::Until { conn, subject, body, want } => {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    self.request(conn, subject, body)?;
                    let outcome = self.reply(conn, want);
                    if outcome.is_ok() || Instant::now() > deadline {
                        return outcome;
                    }
                    // Other traffic of this connection is read meanwhile.
                    let _ = fill(self.client(conn)?, Instant::now() + POLL);
                }
            }
            Action::Http { status, path, want } => self.http(*status, path, want),
            Action::Server(step) => self.server_step(step),
        }
    }

    fn fill(&self, template: &Template) -> Result<String, String> {
        template.fill(&self.known).map_err(|name| format!("nothing is known as {name}"))
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, String> {
        if !self.clients.contains_key(name) {
            let trace = self.trace.then(|| name.to_owned());
            let conn = Conn::open(self.server.port(), trace)
                .map_err(|error| format!("{name} cannot connect: {error}"))?;
            let client = Client { conn, is_deaf: false, requests: 0, inbox: String::new() };
            self.clients.insert(name.to_owned(), client);
        }
        Ok(self.clients.get_mut(name).expect("it was put there above"))
    }

    fn connect(&mut self, conn: &str, options: &Template) -> Result<(), String> {
        let mut connect = serde_json::json!({
            "verbose": false, "pedantic": false, "protocol": 1, "headers": true, "no_responders": true,
            "lang": "script", "version": "1.0.0", "name": conn,
        });
        let text = self.fill(options)?;
        if !text.trim().is_empty() {
            let extra: serde_json::Map<String, Value> =
                serde_json::from_str(&text).map_err(|error| format!("connect options: {error}"))?;
            let all = connect.as_object_mut().expect("an object was written above");
            all.extend(extra);
        }
        let client = self.client(conn)?;
        send(client, format!("CONNECT {connect}\r\nPING\r\n").as_bytes())?;
        match next(client, None, Instant::now() + PATIENCE) {
            Ok(frame) if frame.line == "PONG" => Ok(()),
            Ok(frame) => Err(format!("{conn} connects and expects\n  PONG\ngot\n  {frame}")),
            Err(end) => Err(format!("{conn} connects and expects\n  PONG\ngot nothing: {end}")),
        }
    }

    fn send(&mut self, conn: &str, line: &Template, body: &Body) -> Result<(), String> {
        let line = self.fill(line)?;
        let bytes = self.message(&line, body)?;
        send(self.client(conn)?, &bytes)
    }

    /// The bytes of a line, with byte counts and payload if there is a body.
    fn message(&self, line: &str, body: &Body) -> Result<Vec<u8>, String> {
        let Some(payload) = &body.payload else { return Ok(format!("{line}\r\n").into_bytes()) };
        let payload = self.fill(payload)?;
        if body.headers.is_empty() {
            return Ok(format!("{line} {}\r\n{payload}\r\n", payload.len()).into_bytes());
        }
        let mut block = String::new();
        for header in &body.headers {
            block.push_str(&self.fill(header)?);
            block.push_str("\r\n");
        }
        block.push_str("\r\n");
        let total = block.len() + payload.len();
        Ok(format!("{line} {} {total}\r\n{block}{payload}\r\n", block.len()).into_bytes())
    }

    fn request(&mut self, conn: &str, subject: &Template, body: &Body) -> Result<(), String> {
        let subject = self.fill(subject)?;
        let verb = if body.headers.is_empty() { "PUB" } else { "HPUB" };
        let client = self.client(conn)?;
        client.requests += 1;
        client.inbox = format!("_INBOX.{conn}.{}", client.requests);
        let line = format!("{verb} {subject} {}", client.inbox);
        let subscribe = (client.requests == 1).then(|| format!("SUB _INBOX.{conn}.* {INBOX_SID}\r\n"));
        let mut bytes = subscribe.unwrap_or_default().into_bytes();
        bytes.extend(self.message(&line, body)?);
        send(self.client(conn)?, &bytes)
    }

    fn reply(&mut self, conn: &str, want: &Pattern) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let client = self.client(conn)?;
        let inbox = client.inbox.clone();
        let is_reply = |frame: &Frame| frame.subject.as_deref() == Some(&inbox);
        loop {
            if let Some(at) = client.conn.queue.iter().position(is_reply) {
                let frame = client.conn.queue.remove(at).expect("the position was just found");
                return check(want, &frame, &mut self.known)
                    .map_err(|why| mismatch(conn, "expects the reply", want, &frame, &why));
            }
            fill(client, deadline).map_err(|end| missing(conn, "expects the reply", want, client, &end))?;
        }
    }

    fn expect(&mut self, conn: &str, want: &Pattern) -> Result<(), String> {
        let client = self.client(conn)?;
        match next(client, wanted_line(want), Instant::now() + PATIENCE) {
            Ok(frame) => check(want, &frame, &mut self.known)
                .map_err(|why| mismatch(conn, "expects", want, &frame, &why)),
            Err(end) => Err(format!("{conn} expects\n{}\ngot nothing: {end}", shown(want))),
        }
    }

    fn eventually(&mut self, conn: &str, want: &Pattern) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut known = self.known.clone();
        let client = self.client(conn)?;
        let mut at = 0;
        loop {
            while at < client.conn.queue.len() {
                if check(want, &client.conn.queue[at], &mut known).is_ok() {
                    client.conn.queue.remove(at);
                    self.known = known;
                    return Ok(());
                }
                at += 1;
            }
            fill(client, deadline)
                .map_err(|end| missing(conn, "expects, sooner or later,", want, client, &end))?;
        }
    }

    fn one_of(&mut self, conns: &[String], want: &Pattern) -> Result<(), String> {
        let mut got = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while got.is_empty() && Instant::now() < deadline {
            for conn in conns {
                let client = self.client(conn)?;
                if let Ok(frame) = next(client, wanted_line(want), Instant::now() + POLL) {
                    got.push((conn.clone(), frame));
                }
            }
        }
        let [(who, frame)] = got.as_slice() else {
            let all: Vec<String> = got.iter().map(|(who, frame)| format!("{who}: {frame}")).collect();
            return Err(format!(
                "one of {conns:?} expects\n{}\ngot {} frames\n{}",
                shown(want),
                got.len(),
                all.join("\n")
            ));
        };
        check(want, frame, &mut self.known).map_err(|why| mismatch(who, "expects", want, frame, &why))?;
        self.known.insert("who".to_owned(), who.clone());
        conns.iter().try_for_each(|conn| self.nothing(conn, None))
    }

    fn closed(&mut self, conn: &str) -> Result<(), String> {
        let client = self.client(conn)?;
        match next(client, None, Instant::now() + PATIENCE) {
            Err(ConnEnd::Closed) => {
                self.clients.remove(conn);
                Ok(())
            }
            Err(end) => Err(format!("{conn} expects to be closed: {end}")),
            Ok(frame) => Err(format!("{conn} expects to be closed, got\n  {frame}")),
        }
    }

    fn nothing(&mut self, conn: &str, within: Option<Duration>) -> Result<(), String> {
        let client = self.client(conn)?;
        let deadline = Instant::now() + within.unwrap_or(PATIENCE);
        if within.is_none() {
            send(client, b"PING\r\n")?;
        }
        match (next(client, None, deadline), within) {
            (Ok(frame), None) if frame.line == "PONG" => Ok(()),
            (Err(ConnEnd::Deadline), Some(_)) => Ok(()),
            (Ok(frame), _) => Err(format!("{conn} expects nothing, got\n  {frame}")),
            (Err(end), _) => Err(format!("{conn} expects nothing and an open connection: {end}")),
        }
    }

    /// Pages show what has happened a moment later: asks until the answer is as wanted or patience ends.
    fn http(&mut self, status: u16, path: &Template, want: &Pattern) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.http_once(status, path, want);
            if outcome.is_ok() || Instant::now() > deadline {
                return outcome;
            }
            std::thread::park_timeout(POLL);
        }
    }

    fn http_once(&mut self, status: u16, path: &Template, want: &Pattern) -> Result<(), String> {
        let path = self.fill(path)?;
        let (got, body) =
            http_get(self.server.http_port(), &path).map_err(|error| format!("GET {path}: {error}"))?;
        if got != status {
            return Err(format!(
                "GET {path} expects {status}, got {got} with\n{}",
                String::from_utf8_lossy(&body)
            ));
        }
        let frame = Frame { line: format!("GET {path}"), subject: None, headers: Vec::new(), payload: body };
        let mut known = self.known.clone();
        check(want, &frame, &mut known).map_err(|why| mismatch("http", "expects", want, &frame, &why))?;
        self.known = known;
        Ok(())
    }

    fn server_step(&mut self, step: &ServerStep) -> Result<(), String> {
        match step {
            ServerStep::Config(text) => self.server.write_config(text).map_err(|error| error.to_string()),
            ServerStep::Kill9 => {
                self.clients.clear();
                self.server.kill9().map_err(|error| error.to_string())
            }
            ServerStep::Restart => {
                self.clients.clear();
                self.server.restart().map_err(|error| error.to_string())
            }
            ServerStep::Signal(name) => self.server.signal(name).map_err(|error| error.to_string()),
        }
    }
}

fn send(client: &mut Client, bytes: &[u8]) -> Result<(), String> {
    client.conn.send(bytes).map_err(|error| error.to_string())
}

/// Reads one frame into the queue and answers it if it is a PING.
fn fill(client: &mut Client, deadline: Instant) -> Result<(), ConnEnd> {
    client.conn.fill(deadline)?;
    if !client.is_deaf && client.conn.queue.back().is_some_and(|frame| frame.line == "PING") {
        client.conn.send(b"PONG\r\n")?;
    }
    Ok(())
}

/// The next frame; PING and INFO, which a server sends when it likes, only if they are wanted.
fn next(client: &mut Client, wanted: Option<&str>, deadline: Instant) -> Result<Frame, ConnEnd> {
    loop {
        while let Some(frame) = client.conn.queue.pop_front() {
            let verb = frame.line.split(' ').next().unwrap_or_default();
            if !["INFO", "PING"].contains(&verb) || wanted.is_some_and(|line| line.starts_with(verb)) {
                return Ok(frame);
            }
        }
        fill(client, deadline)?;
    }
}

fn wanted_line(want: &Pattern) -> Option<&str> {
    use crate::template::Piece;
    match want.line.as_ref()?.pieces.first()? {
        Piece::Text(text) => Some(text),
        _ => None,
    }
}

fn check(want: &Pattern, frame: &Frame, known: &mut Captures) -> Result<(), String> {
    let mut found = known.clone();
    // `INFO` carries its JSON in the line.
    let (line, payload) = match (frame.line.strip_prefix("INFO "), &want.payload) {
        (Some(json), Payload::Json(..)) => ("INFO", json.as_bytes()),
        _ => (frame.line.as_str(), frame.payload.as_slice()),
    };
    if want.line.as_ref().is_some_and(|template| !template.matches(line, &mut found)) {
        return Err("the line differs".to_owned());
    }
    let (got, want_headers) = (&frame.headers, &want.headers);
    if got.len() < want_headers.len() || (got.len() > want_headers.len() && !want.is_open) {
        return Err(format!("expected {} header lines, got {}", want_headers.len(), got.len()));
    }
    for (want, got) in want_headers.iter().zip(got) {
        if !want.matches(got, &mut found) {
            return Err(format!("the header line {got:?} differs"));
        }
    }
    let text = String::from_utf8_lossy(payload);
    match &want.payload {
        Payload::Empty if payload.is_empty() => {}
        Payload::Empty => return Err("expected no payload".to_owned()),
        Payload::Text(template) if template.matches(&text, &mut found) => {}
        Payload::Text(_) => return Err("the payload differs".to_owned()),
        Payload::Json(value, mode) => {
            let got: Value = serde_json::from_slice(payload).map_err(|error| format!("not JSON: {error}"))?;
            json::compare(value, &got, *mode, &mut found)?;
        }
    }
    *known = found;
    Ok(())
}

fn mismatch(who: &str, verb: &str, want: &Pattern, frame: &Frame, why: &str) -> String {
    format!("{why}\n{who} {verb}\n{}\ngot\n  {frame}", shown(want))
}

fn missing(who: &str, verb: &str, want: &Pattern, client: &Client, end: &ConnEnd) -> String {
    let others: Vec<String> = client.conn.queue.iter().map(|frame| format!("  {frame}")).collect();
    let others =
        if others.is_empty() { String::new() } else { format!("\nwhat else came:\n{}", others.join("\n")) };
    format!("{who} {verb}\n{}\ngot nothing: {end}{others}", shown(want))
}

fn shown(want: &Pattern) -> String {
    let mut out = vec![format!("  {}", want.line.as_ref().map(plain).unwrap_or_default())];
    out.extend(want.headers.iter().map(|header| format!("  : {}", plain(header))));
    if want.is_open {
        out.push("  : ...".to_owned());
    }
    match &want.payload {
        Payload::Empty => {}
        Payload::Text(text) => out.push(format!("  | {}", plain(text))),
        Payload::Json(value, mode) => {
            out.push(format!("  {} {value}", if *mode == json::Mode::Exact { "==" } else { "=" }));
        }
    }
    out.join("\n")
}

fn plain(template: &Template) -> String {
    use crate::template::Piece;
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.chars().take(400).collect(),
        Piece::Known(name) => format!("{{{{{name}}}}}"),
        Piece::Hole { kind, name: None } => format!("{{{{{}}}}}", format!("{kind:?}").to_lowercase()),
        Piece::Hole { kind, name: Some(name) } => {
            format!("{{{{{name}={}}}}}", format!("{kind:?}").to_lowercase())
        }
    };
    template.pieces.iter().map(piece).collect()
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("bad escape \\x{digits}"))?);
            }
            other => return Err(format!("bad escape {:?}", other.map(char::from))),
        }
    }
    Ok(out)
}

fn http_get(port: u16, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(all.len());
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, all.split_off((end + 4).min(all.len()))))
}
