//! Requests to the server itself that every account may make: who am I?

use std::sync::Arc;

use bytes::Bytes;
use hw_auth::Directory;
use hw_hub::{Hub, Message, Origin};
use hw_kit::Time;

use crate::inside::Target;
use crate::outbox::Outgoing;
use crate::shard::owned;

/// The subject that tells a user who it is.
const USER_INFO: &[u8] = b"$SYS.REQ.USER.INFO";

/// The server's own services.
pub(crate) struct System {
    directory: Arc<Directory>,
    requests: Vec<(Origin, Bytes)>,
}

impl System {
    pub(crate) fn new(directory: Arc<Directory>) -> System {
        System { directory, requests: Vec::new() }
    }

    /// Listens in every account.
    pub(crate) fn subscribe(&self, hub: &mut Hub) {
        let accounts: Vec<_> = self.directory.accounts().map(|(id, _)| id).collect();
        for account in accounts {
            hub.subscribe_internal(account, USER_INFO, None, Target::System.id());
        }
    }

    pub(crate) fn handle_request(&mut self, from: Origin, msg: &Message<'_>) {
        if !msg.reply.is_empty() {
            self.requests.push((from, owned(msg.reply)));
        }
    }

    /// The answers to what was asked since the last call.
    pub(crate) fn answers(&mut self, now: Time, hub: &Hub) -> Vec<Outgoing> {
        let asked = std::mem::take(&mut self.requests);
        asked.into_iter().map(|(from, to)| self.user_info(now, hub, from, to)).collect()
    }

    fn user_info(&self, now: Time, hub: &Hub, from: Origin, to: Bytes) -> Outgoing {
        let account = self.directory.account(from.account).map_or("", |account| &account.name);
        let user = from.conn.and_then(|conn| hub.connection(conn)).map_or_else(String::new, |view| view.user);
        let who = hw_jsapi::UserInfo { user: &user, account, account_name: account };
        let info = hub.info();
        let server = hw_jsapi::ServerInfo {
            name: &info.server_name,
            host: &info.host,
            id: &info.server_id,
            ver: &info.version,
            jetstream: info.jetstream,
        };
        let payload = hw_jsapi::user_info(now, &server, &who);
        Outgoing::Send {
            account: from.account,
            to,
            reply: Bytes::new(),
            header: Bytes::new(),
            payload: payload.into(),
        }
    }
}
