//! What a hub has to tell the log and the system account.

use std::collections::VecDeque;

use hw_auth::AuthError;
use hw_kit::{AccountId, ConnId};

use crate::view::ClosedView;

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum HubEvent {
    /// A client has shown who it is.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Its account.
        account: AccountId,
    },
    /// Credentials were refused.
    AuthFailed {
        /// The connection.
        conn: ConnId,
        /// The name that it gave; may be empty.
        user: String,
        /// Why; `None`: it said something else than CONNECT.
        error: Option<AuthError>,
    },
    /// A connection is gone.
    Closed(Box<ClosedView>),
    /// A client did what it may not do. The text is for the log.
    Error {
        /// The connection.
        conn: ConnId,
        /// What the client did.
        text: String,
    },
    /// An operation went by. Only with `Hub::set_trace`.
    Trace {
        /// The connection.
        conn: ConnId,
        /// As the log shows it, from the arrow on.
        text: String,
    },
}

/// Events until somebody takes them. The oldest give way when nobody does.
#[derive(Debug, Default)]
pub(crate) struct Events {
    events: VecDeque<HubEvent>,
    pub lost: u64,
}

impl Events {
    const MAX: usize = 16 * 1024;

    pub fn push(&mut self, event: HubEvent) {
        if self.events.len() == Events::MAX {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }

    pub fn error(&mut self, conn: ConnId, text: impl Into<String>) {
        self.push(HubEvent::Error { conn, text: text.into() });
    }

    pub fn take(&mut self) -> VecDeque<HubEvent> {
        std::mem::take(&mut self.events)
    }
}

/// Operations for the log, when somebody wants to see them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub on: bool,
    /// How many bytes of a message a line shows; 0 means all.
    pub message_bytes: usize,
    pub lines: Vec<(ConnId, String)>,
}

impl Trace {
    const MAX: usize = 16 * 1024;

    /// `arrow` is `<<-`, `->>` or `<->`.
    #[cold]
    pub fn line(&mut self, conn: ConnId, arrow: &str, parts: &[&[u8]]) {
        if self.lines.len() == Trace::MAX {
            return;
        }
        let words: Vec<_> =
            parts.iter().filter(|part| !part.is_empty()).map(|p| String::from_utf8_lossy(p)).collect();
        self.lines.push((conn, format!("{arrow} [{}]", words.join(" "))));
    }

    #[cold]
    pub fn payload(&mut self, conn: ConnId, arrow: &str, header: &[u8], payload: &[u8]) {
        if self.lines.len() == Trace::MAX {
            return;
        }
        let most = if self.message_bytes == 0 { usize::MAX } else { self.message_bytes };
        let cut = if header.len() + payload.len() > most { "..." } else { "" };
        let header = &header[..header.len().min(most)];
        let payload = &payload[..payload.len().min(most - header.len())];
        let (header, payload) = (header.escape_ascii(), payload.escape_ascii());
        self.lines.push((conn, format!("{arrow} MSG_PAYLOAD: [\"{header}{payload}{cut}\"]")));
    }
}
