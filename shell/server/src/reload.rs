//! A new configuration while the server runs: what can change does, and a change of anything else is refused by name.

use std::sync::Arc;

use hw_conf::{ClusterOptions, Options};
use hw_net::Mail;

use crate::inner::Inner;
use crate::{LogConfig, Sink, start};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new settings are wrong.
    #[error("{0}")]
    Config(String),
    /// A setting changed that cannot change while the server runs.
    #[error("config reload not supported for {what}")]
    NotSupported {
        /// The setting, as the file names it.
        what: &'static str,
    },
}

/// Applies what is different in `new`; says what that was.
pub(crate) fn reload(
    inner: &Inner,
    log: Option<&Sink>,
    old: &Options,
    new: &Options,
) -> Result<Vec<&'static str>, ReloadError> {
    let wrong = |error: String| ReloadError::Config(error);
    new.validate().map_err(|error| wrong(error.to_string()))?;
    if let Some(what) = fixed(old, new) {
        return Err(ReloadError::NotSupported { what });
    }
    let before = inner.live();
    let directory = new.directory_after(&before.directory).map_err(|error| wrong(error.to_string()))?;
    let directory = Arc::new(directory);
    crate::banner::remarks(&directory);
    let live = start::live(new, directory.clone());
    let (limits, notices) = (live.limits, start::notices(new));
    inner.set_live(live);
    for mailbox in &inner.mailboxes {
        let directory = directory.clone();
        mailbox.post(Mail::Run(Box::new(move |shard, now| {
            shard.set_notices(notices);
            shard.handle_reload(now, directory, limits);
        })));
    }
    if let Some(log) = log {
        let lines = LogConfig { debug: new.log.debug, trace: new.log.trace, ..LogConfig::default() };
        log.set_level(&lines);
    }
    let routes = |options: &Options| options.cluster.as_ref().map(crate::cluster::routes).unwrap_or_default();
    let (before, after) = (routes(old), routes(new));
    let routes_changed = before != after;
    if let Some(links) = inner.links.as_ref().filter(|_| routes_changed) {
        links.run(move |mesh, now| mesh.set_routes(now, after));
    }
    let permissions =
        |options: &Options| options.cluster.as_ref().and_then(|cluster| cluster.permissions.clone());
    let exchange_changed = permissions(old) != permissions(new);
    if let Some(mailbox) = inner.mailboxes.first().filter(|_| exchange_changed) {
        let exchange = start::exchange(new);
        mailbox.post(Mail::Run(Box::new(move |shard, _| shard.set_exchange(exchange))));
    }
    let changes = [
        ("cluster routes", routes_changed),
        ("cluster permissions", exchange_changed),
        ("authorization", old.auth != new.auth),
        ("limits", old.limits != new.limits),
        ("logging", old.log != new.log),
        ("lame duck", old.server != new.server),
    ];
    Ok(changes.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what).collect())
}

/// The first setting that is different and cannot change.
fn fixed(old: &Options, new: &Options) -> Option<&'static str> {
    let mut server = new.server.clone();
    server.lame_duck_duration = old.server.lame_duck_duration;
    server.lame_duck_grace_period = old.server.lame_duck_grace_period;
    let (a, b) = (&old.log, &new.log);
    let same_log = (&a.file, a.logtime, a.logtime_utc, a.file_size_limit, a.file_max_num)
        == (&b.file, b.logtime, b.logtime_utc, b.file_size_limit, b.file_max_num);
    // Only the routes and the permissions can change.
    let at_routes = |options: &Options| {
        let fixed = |cluster| ClusterOptions { at: None, routes: Vec::new(), permissions: None, ..cluster };
        options.cluster.clone().map(fixed)
    };
    let checks = [
        ("the client listener, names and files", old.server == server),
        ("write_deadline", old.limits.write_deadline == new.limits.write_deadline),
        ("the log's file and format", same_log),
        ("the monitoring port", old.monitor == new.monitor),
        ("jetstream", old.jetstream == new.jetstream),
        ("feature_flags", old.features == new.features),
        ("tls", old.tls == new.tls && old.allow_non_tls == new.allow_non_tls),
        ("websocket", old.websocket == new.websocket),
        ("leafnodes", old.leafnodes == new.leafnodes),
        ("cluster", at_routes(old) == at_routes(new)),
        ("operator", old.auth.operators == new.auth.operators),
        ("system_account", old.auth.system_account == new.auth.system_account),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_is_named() {
        let old = Options::default();
        let change = |change: &dyn Fn(&mut Options)| {
            let mut new = old.clone();
            change(&mut new);
            fixed(&old, &new)
        };
        assert_eq!(change(&|_| {}), None);
        assert_eq!(change(&|new| new.limits.max_payload = 5), None);
        assert_eq!(change(&|new| new.log.debug = true), None);
        assert_eq!(change(&|new| new.auth.no_auth_user = Some("a".into())), None);
        assert_eq!(change(&|new| new.jetstream.enabled = true), Some("jetstream"));
        let cluster = |routes: &[&str], name: &str| {
            let (routes, name) =
                (routes.iter().map(|route| route.to_string()).collect(), Some(name.to_owned()));
            Some(ClusterOptions { routes, name, ..ClusterOptions::default() })
        };
        let linked = Options { cluster: cluster(&["a:1"], "c"), ..Options::default() };
        assert_eq!(fixed(&linked, &Options { cluster: cluster(&["b:1"], "c"), ..linked.clone() }), None);
        let renamed = Options { cluster: cluster(&["a:1"], "d"), ..linked.clone() };
        assert_eq!(fixed(&linked, &renamed), Some("cluster"));
        assert_eq!(fixed(&linked, &old), Some("cluster"));
        assert_eq!(change(&|new| new.allow_non_tls = true), Some("tls"));
        assert_eq!(change(&|new| new.server.listen.port = 1), Some("the client listener, names and files"));
    }
}
