//! Settings that are wrong together, checked once the flags are applied.

use hw_kit::Span;

use crate::error::{ConfError, ConfErrors, Problem};
use crate::options::{Options, TlsOptions};

impl Options {
    /// Everything that cannot be seen in one setting alone, and what is not built yet.
    pub fn validate(&self) -> Result<(), ConfErrors> {
        let mut errors = vec![];
        self.validate_cluster(&mut errors);
        let mut wrong = |detail: String| errors.push(ConfError::nowhere(detail));
        let (payload, pending) = (self.limits.max_payload, self.limits.max_pending);
        if u64::from(payload) > pending {
            wrong(format!("max_payload ({payload}) cannot be higher than max_pending ({pending})"));
        }
        let (grace, duration) = (self.server.lame_duck_grace_period, self.server.lame_duck_duration);
        if grace >= duration {
            let [grace, duration] = [grace, duration].map(seconds);
            wrong(format!(
                "lame duck grace period ({grace}) should be strictly lower than lame duck duration ({duration})"
            ));
        }
        if self.monitor.http.is_some() && self.monitor.https.is_some() {
            wrong("can't specify both HTTP and HTTPs ports".to_owned());
        }
        if self.monitor.https.is_some() && self.tls.is_none() {
            wrong("TLS cert and key required for HTTPS".to_owned());
        }
        if self.tls.as_ref().is_some_and(|tls| !has_certificate(tls)) {
            wrong("TLS Server certificate must be present and valid".to_owned());
        }
        if let Some(websocket) = &self.websocket
            && websocket.listen.is_some()
        {
            if !websocket.no_tls && !websocket.tls.as_ref().is_some_and(has_certificate) {
                wrong("websocket requires TLS configuration".to_owned());
            }
            if websocket.no_tls && websocket.tls.is_some() {
                wrong("websocket: no_tls and tls exclude each other".to_owned());
            }
        }
        if self.auth.default_permissions.is_some() && self.auth.users.is_empty() {
            // nats-server lets everybody do everything then.
            wrong(
                "authorization: default_permissions restrict nobody without users in the same block"
                    .to_owned(),
            );
        }
        self.validate_operators(&mut errors);
        self.validate_accounts(&mut errors);
        match errors.is_empty() {
            true => Ok(()),
            false => Err(ConfErrors(errors)),
        }
    }

    fn validate_cluster(&self, errors: &mut Vec<ConfError>) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        if !cluster.routes.is_empty() && cluster.listen.is_none() {
            let detail = "solicited routes require cluster capabilities, e.g. --cluster".to_owned();
            errors.push(ConfError { at: cluster.at.clone(), problem: Problem::Invalid { detail } });
        }
        // A name alone opens nothing.
        if cluster.listen.is_some() && self.jetstream.enabled {
            let missing = match (&self.server.name, &cluster.name) {
                (None, _) => Some("jetstream cluster requires `server_name` to be set"),
                (_, None) => Some("jetstream cluster requires `cluster.name` to be set"),
                _ => None,
            };
            let problem = missing.map(|detail| Problem::Invalid { detail: detail.to_owned() });
            errors.extend(problem.map(|problem| ConfError { at: cluster.at.clone(), problem }));
        }
        if cluster.tls.as_ref().is_some_and(|tls| !has_certificate(tls)) {
            let detail = "cluster: tls needs a cert_file and a key_file".to_owned();
            errors.push(ConfError { at: cluster.at.clone(), problem: Problem::Invalid { detail } });
        }
    }

    fn validate_operators(&self, errors: &mut Vec<ConfError>) {
        let auth = &self.auth;
        if auth.operators.is_empty() {
            if auth.resolver || !auth.resolver_preload.is_empty() {
                errors.push(ConfError::nowhere("resolver_preload has no effect without an operator"));
            }
            return;
        }
        if !auth.resolver {
            errors.push(ConfError::nowhere("operators require an account resolver to be configured"));
        }
        if !auth.accounts.is_empty() || !auth.mappings.is_empty() {
            errors.push(ConfError::nowhere("operators do not allow Accounts to be configured directly"));
        }
        if !auth.users.is_empty() || auth.login.is_some() || auth.no_auth_user.is_some() {
            errors.push(ConfError::nowhere("operators do not allow users to be configured directly"));
        }
    }

    fn validate_accounts(&self, errors: &mut Vec<ConfError>) {
        if let Err(error) = self.directory() {
            errors.push(ConfError { at: None, problem: error.into() });
        }
        let system = self.auth.system_account.as_deref().unwrap_or("$SYS");
        let accounts = self.auth.accounts.iter().filter_map(|account| Some((account, account.jetstream?)));
        let (mut memory, mut storage) = (0i64, 0i64);
        for (account, limits) in accounts.filter(|_| self.jetstream.enabled) {
            if account.name == system {
                errors.push(ConfError::nowhere("Not allowed to enable JetStream on the system account"));
            }
            memory = memory.saturating_add(limits.max_memory.max(0));
            storage = storage.saturating_add(limits.max_storage.max(0));
        }
        let mut exceeds = |sum: i64, max: Option<i64>, what: &str| {
            if max.is_some_and(|max| sum > max) {
                let detail = format!("insufficient {what} resources available");
                errors.push(ConfError::nowhere(format!(
                    "Error enabling jetstream on configured accounts: {detail}"
                )));
            }
        };
        exceeds(memory, self.jetstream.max_memory, "memory");
        exceeds(storage, self.jetstream.max_storage, "storage");
    }
}

fn has_certificate(tls: &TlsOptions) -> bool {
    tls.cert_file.is_some() && tls.key_file.is_some()
}

fn seconds(span: Span) -> String {
    format!("{}s", span.millis() as f64 / 1000.0)
}
