//! The templates of scoped signing keys: `{{name()}}` and the like in a user's permissions.

use crate::claims::{Account, Claims, Lists, User, UserLimits};

/// The template's limits for this user; `None` if a subject asks for something that there is not.
pub(crate) fn fill(
    template: &UserLimits,
    user: &Claims<User>,
    account: &Claims<Account>,
) -> Option<UserLimits> {
    let mut limits = template.clone();
    for lists in [&mut limits.permissions.r#pub, &mut limits.permissions.sub] {
        let (allowed, denied) = (lists.allow.len(), lists.deny.len());
        *lists = Lists {
            allow: lists.allow.iter().flat_map(|text| subjects(text, user, account)).collect(),
            deny: lists.deny.iter().flat_map(|text| subjects(text, user, account)).collect(),
        };
        // What should be denied and cannot be named would be allowed; so would everything by an empty list.
        if lists.deny.len() < denied || (allowed > 0 && lists.allow.is_empty()) {
            return None;
        }
    }
    Some(limits)
}

/// Every subject that a template makes: one for each of the tags that it asks for.
fn subjects(text: &str, user: &Claims<User>, account: &Claims<Account>) -> Vec<String> {
    let Some((before, rest)) = text.split_once("{{") else { return vec![text.to_owned()] };
    let Some((call, after)) = rest.split_once("}}") else { return vec![text.to_owned()] };
    let values = values(call.trim(), user, account);
    let filled = values.iter().map(|value| format!("{before}{value}{after}"));
    filled.flat_map(|text| subjects(&text, user, account)).collect()
}

fn values(call: &str, user: &Claims<User>, account: &Claims<Account>) -> Vec<String> {
    let tags = |tags: &[String], name: &str| -> Vec<String> {
        let prefix = format!("{}:", name.to_lowercase());
        tags.iter().filter_map(|tag| tag.strip_prefix(&prefix).map(str::to_owned)).collect()
    };
    let lower = call.to_lowercase();
    match lower.as_str() {
        "name()" => vec![user.name.clone()],
        "subject()" => vec![user.sub.clone()],
        "account-name()" => vec![account.name.clone()],
        "account-subject()" => vec![account.sub.clone()],
        _ => match lower.strip_suffix(')').and_then(|call| call.split_once('(')) {
            Some(("tag", name)) => tags(&user.nats.tags, name),
            Some(("account-tag", name)) => tags(&account.nats.tags, name),
            _ => vec![],
        },
    }
    .into_iter()
    .filter(|value| !value.is_empty() && !value.contains(['{', '}', '*', '>', ' ']))
    .collect()
}
