//! The answer to `$SYS.REQ.USER.INFO`: who the asking user is, and which server answers.

use hw_kit::Time;
use serde::Serialize;

use crate::to_json;

/// Who asks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UserInfo<'a> {
    /// The user's name; empty without one.
    pub user: &'a str,
    /// The account's name.
    pub account: &'a str,
    /// The account's name again: operator-mode servers have a key above.
    pub account_name: &'a str,
    /// What people call a user whose name is a key; empty without that.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_name: &'a str,
}

/// Which server answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it listens.
    pub host: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The nats-server version that it announces.
    pub ver: &'a str,
    /// The cluster's name; empty without one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cluster: &'a str,
    /// Whether JetStream is on.
    pub jetstream: bool,
}

#[derive(Serialize)]
struct Response<'a> {
    server: Stamped<'a>,
    data: &'a UserInfo<'a>,
}

#[derive(Serialize)]
struct Stamped<'a> {
    #[serde(flatten)]
    server: &'a ServerInfo<'a>,
    time: String,
}

/// The response's JSON.
pub fn user_info(now: Time, server: &ServerInfo<'_>, user: &UserInfo<'_>) -> Vec<u8> {
    to_json(&Response { server: Stamped { server, time: now.to_rfc3339() }, data: user })
}
