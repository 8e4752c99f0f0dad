//! The `authorization` block, users, and permissions.

use hw_auth::{
    Allowance, ConnectionKind, Login, Permissions, PermissionsSpec, ResponsePermission, SpecError, UserKey,
    UserSpec, is_user_nkey,
};

use crate::error::Position;
use crate::options::AuthOptions;
use crate::reader::{Reader, put};
use crate::refused::Block;
use crate::units::parse_duration;
use crate::value::{Entry, Value, ValueKind};

pub(crate) fn authorization(options: &mut AuthOptions, reader: &mut Reader, entry: &Entry) {
    let Some(entries) = reader.map(entry) else {
        return;
    };
    let (mut user, mut pass, mut token) = (None, None, None);
    let mut has_users = false;
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "user" | "username" => put(&mut user, reader.name(inner)),
            "pass" | "password" => put(&mut pass, reader.name(inner)),
            "token" => put(&mut token, reader.name(inner)),
            "timeout" => put(&mut options.timeout, reader.timeout(inner)),
            "users" => {
                options.users = users(reader, inner);
                has_users = true;
            }
            "default_permissions" | "default_permission" | "permissions" => {
                put(&mut options.default_permissions, permissions(reader, inner));
            }
            _ => reader.other(inner, Block::Authorization),
        }
    }
    options.login = login(reader, &entry.at, (user, pass, token), has_users);
}

type Parts = (Option<String>, Option<String>, Option<String>);

fn login(reader: &mut Reader, at: &Position, (user, pass, token): Parts, has_users: bool) -> Option<Login> {
    if token.is_some() && user.is_some() {
        reader.invalid(at, "Cannot have a user/pass and token");
    }
    if token.is_some() && has_users {
        reader.invalid(at, "Can not have a token and a users array");
    }
    if user.is_some() && has_users {
        reader.invalid(at, "Can not have a single user/pass and a users array");
    }
    match (user, pass, token) {
        (Some(user), pass, _) => Some(Login::User { user, pass: pass.unwrap_or_default() }),
        // nats-server leaves the server open to everybody then.
        (None, Some(_), _) => {
            reader.invalid(at, "Can not have a password without a user");
            None
        }
        (None, None, Some(token)) => Some(Login::Token(token)),
        (None, None, None) => None,
    }
}

/// A `users` array.
pub(crate) fn users(reader: &mut Reader, entry: &Entry) -> Vec<UserSpec> {
    let ValueKind::Array(items) = &entry.value.kind else {
        reader.wrong::<()>(entry, "an array of users");
        return vec![];
    };
    items.iter().filter_map(|item| user(reader, item)).collect()
}

fn user(reader: &mut Reader, value: &Value) -> Option<UserSpec> {
    let ValueKind::Map(entries) = &value.kind else {
        reader.invalid(&value.at, format!("Expected user entry to be a map, got {}", value.kind.name()));
        return None;
    };
    let before = reader.errors.len();
    let (mut user, mut pass, mut nkey, mut own) = (None, None, None, None);
    let mut connection_kinds = vec![];
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "user" | "username" => put(&mut user, reader.name(inner)),
            "pass" | "password" => put(&mut pass, reader.string(inner)),
            "nkey" => {
                let key = reader.string(inner);
                if let Some(nkey) = key.clone().filter(|key| !is_user_nkey(key)) {
                    reader.error(&inner.at, SpecError::BadNkey { nkey });
                }
                put(&mut nkey, key);
            }
            "permissions" | "permission" | "authorization" => put(&mut own, permissions(reader, inner)),
            "allowed_connection_types" | "connection_types" | "clients" => {
                connection_kinds = kinds(reader, inner)
            }
            _ => reader.other(inner, Block::User),
        }
    }
    let key = match (nkey, user) {
        (Some(_), Some(_)) => {
            reader.invalid(&value.at, "Nkey users do not take usernames or passwords");
            return None;
        }
        (Some(_), None) if pass.is_some() => {
            reader.invalid(&value.at, "Nkey users do not take usernames or passwords");
            return None;
        }
        (Some(nkey), None) => UserKey::Nkey(nkey),
        (None, Some(user)) => UserKey::Password { user, pass: pass.unwrap_or_default() },
        (None, None) => {
            // A name that was not a string has been reported already.
            if reader.errors.len() == before {
                reader.invalid(&value.at, "User entry requires a user");
            }
            return None;
        }
    };
    Some(UserSpec { key, permissions: own, connection_kinds })
}

fn kinds(reader: &mut Reader, entry: &Entry) -> Vec<ConnectionKind> {
    let names = reader.strings(entry).unwrap_or_default();
    let mut kinds = vec![];
    for name in names {
        match ConnectionKind::from_name(&name) {
            Some(kind) => kinds.push(kind),
            None => {
                reader.invalid(&entry.at, format!("invalid connection types [{:?}]", name.to_uppercase()))
            }
        }
    }
    kinds
}

/// A `permissions` map.
pub(crate) fn permissions(reader: &mut Reader, entry: &Entry) -> Option<PermissionsSpec> {
    let mut spec = PermissionsSpec::default();
    for inner in reader.map(entry)? {
        match inner.key.to_ascii_lowercase().as_str() {
            "pub" | "publish" | "import" => spec.publish = allowance(reader, inner, false),
            "sub" | "subscribe" | "export" => spec.subscribe = allowance(reader, inner, true),
            "allow_responses" => spec.allow_responses = responses(reader, inner),
            _ => reader.other(inner, Block::Whole),
        }
    }
    Some(spec)
}

/// A subject, a list of subjects, or `{allow, deny}` of those.
fn allowance(reader: &mut Reader, entry: &Entry, queues: bool) -> Allowance {
    let ValueKind::Map(entries) = &entry.value.kind else {
        return Allowance { allow: subjects(reader, entry, queues), deny: vec![] };
    };
    let mut lists = Allowance::default();
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "allow" => lists.allow = subjects(reader, inner, queues),
            "deny" => lists.deny = subjects(reader, inner, queues),
            _ if inner.used => {}
            _ => reader.invalid(
                &inner.at,
                format!(
                    "Unknown field name {:?} parsing subject permissions, only 'allow' or 'deny' are permitted",
                    inner.key
                ),
            ),
        }
    }
    lists
}

fn subjects(reader: &mut Reader, entry: &Entry, queues: bool) -> Vec<String> {
    let subjects = reader.strings(entry).unwrap_or_default();
    for subject in &subjects {
        let list = Allowance { allow: vec![subject.clone()], deny: vec![] };
        let spec = match queues {
            true => PermissionsSpec { subscribe: list, ..PermissionsSpec::default() },
            false => PermissionsSpec { publish: list, ..PermissionsSpec::default() },
        };
        if let Err(error) = Permissions::new(&spec) {
            reader.error(&entry.at, error);
        }
    }
    subjects
}

/// `true`, or `{max, expires}`; 0 is the default, below 0 no limit.
fn responses(reader: &mut Reader, entry: &Entry) -> Option<ResponsePermission> {
    let entries = match &entry.value.kind {
        ValueKind::Bool(on) => return on.then(ResponsePermission::default),
        ValueKind::Map(entries) => entries,
        _ => {
            reader.invalid(&entry.at, "error parsing response permissions, expected a boolean or a map");
            return None;
        }
    };
    let mut responses = ResponsePermission::default();
    for inner in entries {
        match inner.key.to_ascii_lowercase().as_str() {
            "max" | "max_msgs" | "max_messages" | "max_responses" => {
                if let Some(max) = reader.integer(inner).filter(|max| *max != 0) {
                    responses.max = max.max(-1);
                }
            }
            "expires" | "expiration" | "ttl" => {
                let ValueKind::String(text) = &inner.value.kind else {
                    reader.invalid(&inner.at, "error parsing expires, not a duration string");
                    continue;
                };
                match parse_duration(text) {
                    Ok(span) if span.is_zero() => {}
                    Ok(span) => responses.expires = span,
                    Err(why) => reader.invalid(&inner.at, format!("error parsing expires: {why}")),
                }
            }
            _ => reader.other(inner, Block::Whole),
        }
    }
    Some(responses)
}
