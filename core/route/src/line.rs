//! One connection: what comes in, what waits to leave, and when something was heard last.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{LinkId, Span, Time};

use crate::compress::{Compression, Effort};
use crate::frame::{self, Decoder, Kind, MAGIC};
use crate::hello::Hello;
use crate::limits::{PIECE_BYTES, WRITE_BYTES};

/// How far a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Nothing is known of the other side.
    Strange,
    /// The other side is none of ours, and is told so.
    Foreign,
    /// Both said hello; the other side decides whether this is the link.
    Greeted,
    /// The link.
    Up(LinkId),
    /// It is closed once what waits has left.
    Ended,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub stage: Stage,
    /// The other side's address as it was dialled or seen.
    pub remote: String,
    /// The address of the target, if it was dialled from here.
    pub dialled: Option<String>,
    pub began: Time,
    /// Until when the stage must have changed.
    pub until: Time,
    pub decoder: Decoder,
    pub magic_seen: bool,
    /// Who is there.
    pub peer: Hello,
    /// Signs of life, which overtake everything else.
    urgent: Vec<u8>,
    /// Bytes that are no frames: the first ones.
    raw: Vec<u8>,
    queue: VecDeque<(Kind, Bytes)>,
    /// How much of the first body has left.
    sent: usize,
    pub queued: usize,
    /// The shell was told that something waits.
    pub told: bool,
    pub heard: Time,
    pub quiet: bool,
    pub next_beat: Time,
    pub acked_at: Time,
    pub rtt: Span,
    pub active: Time,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

/// Unsent signs of life beyond this are left out: they would all say the same.
const URGENT_BYTES_MAX: usize = 1024;

impl Line {
    pub fn new(now: Time, until: Time, remote: String, dialled: Option<String>) -> Line {
        Line {
            stage: Stage::Strange,
            remote,
            dialled,
            began: now,
            until,
            decoder: Decoder::default(),
            magic_seen: false,
            peer: Hello::default(),
            urgent: Vec::new(),
            raw: Vec::new(),
            queue: VecDeque::new(),
            sent: 0,
            queued: 0,
            told: false,
            heard: now,
            quiet: false,
            next_beat: Time::NEVER,
            acked_at: Time(0),
            rtt: Span::ZERO,
            active: now,
            in_bytes: 0,
            out_bytes: 0,
        }
    }

    pub fn link(&self) -> Option<LinkId> {
        if let Stage::Up(link) = self.stage { Some(link) } else { None }
    }

    /// Our first words.
    pub fn greet(&mut self, hello: Vec<u8>) {
        self.raw.extend_from_slice(MAGIC);
        self.put(Kind::Hello, hello.into());
    }

    /// Bytes for somebody who does not speak in frames.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    pub fn put(&mut self, kind: Kind, body: Bytes) {
        self.queued += body.len() + frame::HEADER_BYTES;
        self.queue.push_back((kind, body));
    }

    pub fn put_urgent(&mut self, kind: Kind, body: &[u8]) {
        if self.urgent.len() < URGENT_BYTES_MAX {
            frame::put(&mut self.urgent, kind, body, false);
        }
    }

    pub fn has_output(&self) -> bool {
        !(self.raw.is_empty() && self.urgent.is_empty() && self.queue.is_empty())
    }

    /// How what leaves is compressed: not before the link is up.
    pub fn effort(&self, own: &Compression) -> Effort {
        match self.stage {
            Stage::Up(_) => own.effort(self.peer.compression, self.rtt),
            _ => Effort::Off,
        }
    }

    /// Takes as much as is written at once, appended to `out`.
    pub fn take(&mut self, now: Time, effort: Effort, out: &mut Vec<u8>) {
        self.told = false;
        let before = out.len();
        out.append(&mut self.raw);
        out.append(&mut self.urgent);
        while out.len() - before < WRITE_BYTES {
            let Some((kind, body)) = self.queue.front() else { break };
            let end = body.len().min(self.sent + PIECE_BYTES);
            let more = end < body.len();
            frame::put_packed(out, *kind, (&body[self.sent..end], more), effort);
            self.queued = self.queued.saturating_sub(end - self.sent);
            self.sent = end;
            if !more {
                self.sent = 0;
                self.queued = self.queued.saturating_sub(frame::HEADER_BYTES);
                self.queue.pop_front();
            }
        }
        self.out_bytes += (out.len() - before) as u64;
        if out.len() > before {
            self.active = now;
        }
    }

    /// The other side's address as others reach it: on the host that it is seen on, if it names none.
    pub fn address(&self) -> String {
        let address = &self.peer.news.address;
        match address.strip_prefix(':') {
            None => address.clone(),
            Some(port) => {
                let host = self.remote.rsplit_once(':').map_or("", |(host, _)| host);
                format!("{host}:{port}")
            }
        }
    }
}
