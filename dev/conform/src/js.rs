//! A small blocking JetStream client: requests, pulls and acknowledgements in the open, one connection.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hw_testkit::{Conn, ConnEnd, Frame};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The server is gone, or closed the connection.
    #[error("the connection is gone: {0}")]
    Gone(String),
    /// It is there and says nothing.
    #[error("no answer: {0}")]
    Silent(String),
}

/// A connection with an inbox.
pub struct Js {
    conn: Conn,
    inbox: String,
    next: u64,
    patience: Duration,
}

/// A message that a pull brought.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The stream's sequence.
    pub seq: u64,
    /// How often it was delivered, with this time.
    pub count: u64,
    /// Its subject.
    pub subject: String,
    /// Where to acknowledge.
    pub reply: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Js {
    /// Connects and subscribes to an inbox of its own.
    pub fn open(port: u16) -> Result<Self, Lost> {
        Self::open_as(port, &Value::Null)
    }

    /// The same with more in its CONNECT, such as a user.
    pub fn open_as(port: u16, more: &Value) -> Result<Self, Lost> {
        let conn = Conn::open(port, None).map_err(|error| Lost::Gone(error.to_string()))?;
        let inbox = format!("_I.{}.{}", std::process::id(), NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let mut js = Self { conn, inbox, next: 0, patience: PATIENCE };
        let mut connect = json!({ "verbose": false, "headers": true, "no_responders": true, "lang": "test",
            "version": "1", "protocol": 1 });
        for (name, value) in more.as_object().into_iter().flatten() {
            connect[name] = value.clone();
        }
        let hello = format!("CONNECT {connect}\r\nSUB {}.* 1\r\nPING\r\n", js.inbox);
        js.write(hello.as_bytes())?;
        while js.frame("the first PONG")?.line != "PONG" {}
        Ok(js)
    }

    /// A subject that only this connection hears, each time another one.
    pub fn inbox(&mut self) -> String {
        self.next += 1;
        format!("{}.{}", self.inbox, self.next)
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.conn.send(bytes).map_err(|error| Lost::Gone(error.to_string()))
    }

    /// How long an answer may take; without this, far longer than any should.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Publishes with a reply subject.
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) -> Result<(), Lost> {
        let mut bytes = format!("PUB {subject} {reply} {}\r\n", payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes)
    }

    /// Publishes with header lines.
    pub fn publish_headed(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &str,
        payload: &[u8],
    ) -> Result<(), Lost> {
        let head = format!("NATS/1.0\r\n{headers}\r\n\r\n");
        let total = head.len() + payload.len();
        let mut bytes = format!("HPUB {subject} {reply} {} {total}\r\n{head}", head.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes)
    }

    /// The next frame other than INFO and the server's pings, which are answered.
    pub fn frame(&mut self, what: &str) -> Result<Frame, Lost> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(frame) = self.conn.queue.pop_front() {
                match frame.line.as_str() {
                    "PING" => self.write(b"PONG\r\n")?,
                    line if line.starts_with("INFO") => {}
                    _ => return Ok(frame),
                }
                continue;
            }
            match self.conn.fill(deadline) {
                Ok(()) => {}
                Err(ConnEnd::Deadline) => return Err(Lost::Silent(what.to_owned())),
                Err(error) => return Err(Lost::Gone(format!("{error} ({what})"))),
            }
        }
    }

    /// Publishes and waits for the reply; what else comes meanwhile is dropped.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Frame, Lost> {
        let reply = self.inbox();
        self.publish(subject, &reply, payload)?;
        loop {
            let frame = self.frame(subject)?;
            if frame.subject.as_deref() == Some(&reply) {
                return Ok(frame);
            }
        }
    }

    /// A request to `$JS.API.<verb>`; the error of a JSON answer is part of it.
    pub fn api(&mut self, verb: &str, body: &Value) -> Result<Value, Lost> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let frame = self.request(&format!("$JS.API.{verb}"), body.as_bytes())?;
        let read = serde_json::from_slice(&frame.payload);
        Ok(read.unwrap_or_else(|_| json!({ "headers": frame.headers })))
    }

    /// Pulls until `batch` messages came or the server says that it is over.
    pub fn pull(&mut self, stream: &str, consumer: &str, request: &Value) -> Result<Vec<Delivered>, Lost> {
        let reply = self.inbox();
        let batch = request["batch"].as_u64().unwrap_or(1);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        self.publish(&subject, &reply, request.to_string().as_bytes())?;
        let mut messages = Vec::new();
        while (messages.len() as u64) < batch {
            let frame = self.frame(&subject)?;
            match delivered(&frame) {
                Some(message) => messages.push(message),
                None if frame.subject.as_deref() == Some(&reply) => break,
                None => {}
            }
        }
        Ok(messages)
    }

    /// Every message of a stream from a sequence on, read by a consumer made for it.
    pub fn read_from(&mut self, stream: &str, seq: u64) -> Result<Vec<Delivered>, Lost> {
        let name = self.inbox().replace('.', "_");
        let config = json!({ "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": seq.max(1),
            "ack_policy": "none", "mem_storage": true, "inactive_threshold": 60_000_000_000_u64 });
        let body = json!({ "stream_name": stream, "config": config, "action": "" });
        let info = self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body)?;
        let mut left =
            info["num_pending"].as_u64().ok_or_else(|| Lost::Silent(format!("{stream}: {info}")))?;
        let mut messages = Vec::new();
        while left > 0 {
            let request = json!({ "batch": left.min(2000), "expires": 5_000_000_000_u64 });
            let part = self.pull(stream, &name, &request)?;
            if part.is_empty() {
                return Err(Lost::Silent(format!("{left} messages of {stream} after {}", messages.len())));
            }
            left -= (part.len() as u64).min(left);
            messages.extend(part);
        }
        self.api(&format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null)?;
        Ok(messages)
    }
}

/// What a delivered message's acknowledgement subject says, in its short form.
fn delivered(frame: &Frame) -> Option<Delivered> {
    let reply = frame.line.split(' ').nth(3)?;
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let parts: Vec<&str> = rest.split('.').collect();
    Some(Delivered {
        count: parts.get(2)?.parse().ok()?,
        seq: parts.get(3)?.parse().ok()?,
        subject: frame.subject.clone()?,
        reply: reply.to_owned(),
        payload: frame.payload.clone(),
    })
}
