//! Events for whoever watches: nothing is written when nobody does.

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{Audit, Event};
use hw_kit::{AccountId, GroupId, Time};
use serde_json::{Value, json};

use crate::api::Call;
use crate::jetstream::JetStream;

impl JetStream {
    /// Publishes an event about a stream or its consumers.
    pub(crate) fn advise_stream(&mut self, now: Time, hub: &Hub, id: GroupId, event: &Event<'_>) {
        let Some(group) = self.groups.get(&id) else { return };
        let (account, name) = (group.account, group.stream.config().name.clone());
        self.advise(now, hub, account, event, &name);
    }

    /// Publishes an event in an account.
    pub(crate) fn advise(
        &mut self,
        now: Time,
        hub: &Hub,
        account: AccountId,
        event: &Event<'_>,
        stream: &str,
    ) {
        let id = self.ids.next_id();
        let (subject, json) = hw_jsapi::advisory(event, stream, &self.config.domain, id, now);
        if hub.has_interest(account, subject.as_bytes()) {
            self.outbox.send(account, Bytes::from(subject), json);
        }
    }

    /// Tells operators that this server takes nothing more, as its disk is full.
    pub(crate) fn advise_out_of_space(&mut self, now: Time, hub: &Hub) {
        let Some(system) = self.directory.system_account() else { return };
        let (server, server_id) = (self.config.server_name.clone(), self.config.server_id.clone());
        let cluster = self.cluster_name();
        let event = Event::OutOfSpace { server: &server, server_id: &server_id, cluster: &cluster };
        self.advise(now, hub, system, &event, "");
    }

    /// Publishes what was asked and answered, except for reads of messages that succeeded.
    pub(crate) fn audit(&mut self, now: Time, hub: &Hub, call: &Call, response: &[u8]) {
        if !hub.has_interest(call.account, b"$JS.EVENT.ADVISORY.API") {
            return;
        }
        let audit = Audit {
            server: self.config.server_name.clone(),
            client: self.client_of(hub, call),
            subject: String::from_utf8_lossy(&call.subject).into_owned(),
            request: String::from_utf8_lossy(&call.body).into_owned(),
            response: String::from_utf8_lossy(response).into_owned(),
        };
        self.advise(now, hub, call.account, &Event::Audit(&audit), "");
    }

    /// Who sent a request, for advisories.
    pub(crate) fn client_of(&self, hub: &Hub, call: &Call) -> Value {
        let view = call.sender.conn.and_then(|conn| hub.connection(conn));
        view.map_or_else(
            || json!({ "acc": self.account_name(call.account) }),
            |view| {
                json!({
                    "start": view.start.to_rfc3339(),
                    "host": view.ip,
                    "id": view.conn.0,
                    "acc": self.account_name(call.account),
                    "user": view.user,
                    "name": view.name,
                    "lang": view.lang,
                    "ver": view.version,
                    "rtt": view.rtt.0,
                    "server": self.config.server_name,
                    "kind": "Client",
                    "client_type": "nats",
                })
            },
        )
    }
}
