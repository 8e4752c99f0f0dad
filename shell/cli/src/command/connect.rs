//! The global flags, what a context adds to them, and the connection that comes of both.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::{ConnectErrorKind, ConnectOptions};

use super::context::{Context, Contexts};
use super::error::Failure;
use super::units::parse_duration;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// Flags that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection flags")]
pub struct Global {
    /// Server URLs, separated by commas
    #[arg(short = 's', long, global = true, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// User name, or a token when there is no password
    #[arg(long, global = true, env = "NATS_USER", hide_env_values = true)]
    pub user: Option<String>,
    /// Password
    #[arg(long, global = true, env = "NATS_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Token
    #[arg(long, global = true, env = "NATS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Credentials file (JWT and seed)
    #[arg(long, global = true, env = "NATS_CREDS", hide_env_values = true, value_name = "FILE")]
    pub creds: Option<String>,
    /// File with an nkey seed
    #[arg(long, global = true, env = "NATS_NKEY", hide_env_values = true, value_name = "FILE")]
    pub nkey: Option<String>,
    /// Client certificate
    #[arg(long, global = true, env = "NATS_CERT", hide_env_values = true, value_name = "FILE")]
    pub tlscert: Option<String>,
    /// Client certificate's private key
    #[arg(long, global = true, env = "NATS_KEY", hide_env_values = true, value_name = "FILE")]
    pub tlskey: Option<String>,
    /// Certificate authority that the server's certificate must come from
    #[arg(long, global = true, env = "NATS_CA", hide_env_values = true, value_name = "FILE")]
    pub tlsca: Option<String>,
    /// Perform the TLS handshake before the server greets
    #[arg(long, global = true)]
    pub tlsfirst: bool,
    /// How long to wait for the server [default: 5s]
    #[arg(long, global = true, env = "NATS_TIMEOUT", hide_env_values = true, value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Name of this connection
    #[arg(long, global = true, value_name = "NAME")]
    pub connection_name: Option<String>,
    /// Saved context to take the connection from
    #[arg(long, global = true, env = "NATS_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Take nothing from the selected context
    #[arg(long, global = true)]
    pub no_context: bool,
    /// JetStream domain
    #[arg(long, global = true, value_name = "DOMAIN")]
    pub js_domain: Option<String>,
    /// Subject prefix of the JetStream API, instead of $JS.API
    #[arg(long, global = true, value_name = "PREFIX")]
    pub js_api_prefix: Option<String>,
    /// Prefix of reply subjects, instead of _INBOX
    #[arg(long, global = true, value_name = "PREFIX")]
    pub inbox_prefix: Option<String>,
}

impl Global {
    /// A context with the flags that were given laid over it.
    pub fn over(&self, mut context: Context) -> Context {
        let pairs = [
            (&self.server, &mut context.url),
            (&self.password, &mut context.password),
            (&self.token, &mut context.token),
            (&self.creds, &mut context.creds),
            (&self.nkey, &mut context.nkey),
            (&self.tlscert, &mut context.cert),
            (&self.tlskey, &mut context.key),
            (&self.tlsca, &mut context.ca),
            (&self.js_domain, &mut context.jetstream_domain),
            (&self.js_api_prefix, &mut context.jetstream_api_prefix),
            (&self.inbox_prefix, &mut context.inbox_prefix),
        ];
        for (flag, field) in pairs {
            // An empty variable in the environment says nothing.
            if let Some(value) = flag.as_ref().filter(|value| !value.is_empty()) {
                field.clone_from(value);
            }
        }
        match self.user.as_ref().filter(|user| !user.is_empty()) {
            Some(token) if context.password.is_empty() => {
                context.token.clone_from(token);
                context.user.clear();
            }
            Some(user) => context.user.clone_from(user),
            None => {}
        }
        context.tls_first |= self.tlsfirst;
        context
    }

    /// The settings in force: the named or selected context under the flags.
    pub fn settings(&self) -> Result<Context, Failure> {
        let base = match (&self.context, self.no_context) {
            (Some(name), false) => Contexts::of_user()?.load(name)?,
            (None, false) => match Contexts::of_user() {
                Ok(contexts) => match contexts.selected() {
                    Some(name) => contexts.load(&name)?,
                    None => Context::default(),
                },
                Err(_) => Context::default(), // no home, hence no contexts: the flags are enough
            },
            (_, true) => Context::default(),
        };
        let mut settings = self.over(base);
        if settings.url.is_empty() {
            settings.url = DEFAULT_URL.into();
        }
        take_login(&mut settings);
        Ok(settings)
    }

    /// How long to wait for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(5))
    }
}

/// A connection with its JetStream API.
#[derive(Clone)]
pub struct Session {
    pub client: async_nats::Client,
    pub jetstream: jetstream::Context,
    /// The URLs that were asked for.
    pub url: String,
    /// Subject prefix of the API, without its last dot.
    pub prefix: String,
    pub timeout: Duration,
}

impl Session {
    /// Connects as the flags and the context say.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        Self::open_with(global, |options| options).await
    }

    /// Connects after a last change to the options.
    pub async fn open_with(
        global: &Global,
        adjust: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, Failure> {
        Self::open_at(global.settings()?, global, adjust).await
    }

    /// Connects to what the settings say; of the flags only those that no context has are used.
    pub async fn open_at(
        settings: Context,
        global: &Global,
        adjust: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, Failure> {
        let timeout = global.timeout();
        let name = global.connection_name.clone();
        let name = name.unwrap_or_else(|| format!("Headwater CLI {}", env!("CARGO_PKG_VERSION")));
        let options =
            ConnectOptions::new().name(name).connection_timeout(timeout).request_timeout(Some(timeout));
        let options = options.event_callback(complain);
        let options = adjust(secure(authenticate(options, &settings).await?, &settings));
        let failed = |reason: String| Failure::Connect { url: visible(&settings.url), reason };
        let addresses: Vec<async_nats::ServerAddr> = settings
            .url
            .split(',')
            .map(|url| url.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|error: std::io::Error| failed(error.to_string()))?;
        let client = options.connect(addresses).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation => failed("authorization violation".into()),
            _ => failed(error.to_string()),
        })?;
        let prefix = api_prefix(&settings);
        let mut jetstream = jetstream::with_prefix(client.clone(), &prefix);
        jetstream.set_timeout(timeout);
        Ok(Self { client, jetstream, url: settings.url, prefix, timeout })
    }

    /// Measures one trip to the server and back: a request to a subject that nobody can listen on yet is
    /// answered by the server itself.
    pub async fn round_trip(&self) -> Result<Duration, Failure> {
        let begin = std::time::Instant::now();
        match self.client.request(self.client.new_inbox(), bytes::Bytes::new()).await {
            Err(error) if error.kind() == async_nats::client::RequestErrorKind::NoResponders => {
                Ok(begin.elapsed())
            }
            Err(error) => Err(Failure::request("measure the round trip", error)),
            Ok(_) => Ok(begin.elapsed()),
        }
    }

    /// Sends what is still buffered and ends the connection's work.
    pub async fn finish(&self) -> Result<(), Failure> {
        self.client.flush().await.map_err(|error| Failure::request("flush the connection", error))
    }
}

/// Says what would otherwise go unnoticed: a refusal that comes later, a connection that is gone for now.
async fn complain(event: async_nats::Event) {
    match event {
        async_nats::Event::ServerError(error) => eprintln!("headwater: error: the server says: {error}"),
        async_nats::Event::Disconnected => {
            eprintln!("headwater: error: the connection is lost, trying again")
        }
        async_nats::Event::LameDuckMode => eprintln!("headwater: the server is about to stop"),
        _ => {}
    }
}

/// Moves the login of the first URL that has one to where other logins are, unless there is one already.
fn take_login(settings: &mut Context) {
    let login = settings.url.split(',').find_map(|url| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        Some(rest.rsplit_once('@')?.0.to_owned())
    });
    settings.url = visible(&settings.url);
    let Some(login) = login.filter(|_| settings.user.is_empty() && settings.token.is_empty()) else { return };
    match login.split_once(':') {
        Some((user, password)) => (settings.user, settings.password) = (decode(user), decode(password)),
        None => settings.token = decode(&login),
    }
}

/// Undoes percent-encoding; what is not well encoded stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// URLs without their logins, for messages.
pub fn visible(urls: &str) -> String {
    let hide = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://{}", &url[..scheme], &url[at + 1..]),
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    };
    urls.split(',').map(|url| hide(url.trim())).collect::<Vec<_>>().join(",")
}

fn api_prefix(settings: &Context) -> String {
    match (settings.jetstream_api_prefix.as_str(), settings.jetstream_domain.as_str()) {
        ("", "") => "$JS.API".into(),
        ("", domain) => format!("$JS.{domain}.API"),
        (prefix, _) => prefix.trim_end_matches('.').into(),
    }
}

async fn authenticate(options: ConnectOptions, settings: &Context) -> Result<ConnectOptions, Failure> {
    if !settings.creds.is_empty() {
        let path = settings.creds.strip_prefix("file://").unwrap_or(&settings.creds);
        let path = expand_home(path);
        return options.credentials_file(&path).await.map_err(|error| Failure::file("read", path, error));
    }
    if !settings.user_jwt.is_empty() {
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            settings.user_jwt, settings.user_seed
        );
        return options.credentials(&creds).map_err(|error| Failure::request("use the context's JWT", error));
    }
    if !settings.nkey.is_empty() {
        let path = expand_home(settings.nkey.strip_prefix("file://").unwrap_or(&settings.nkey));
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, error))?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with('S'));
        let seed = seed.ok_or_else(|| Failure::file("use", &path, "there is no nkey seed in it"))?;
        return Ok(options.nkey(seed.to_owned()));
    }
    if !settings.user.is_empty() {
        return Ok(options.user_and_password(settings.user.clone(), settings.password.clone()));
    }
    if !settings.token.is_empty() {
        return Ok(options.token(settings.token.clone()));
    }
    Ok(options)
}

fn secure(mut options: ConnectOptions, settings: &Context) -> ConnectOptions {
    if !settings.ca.is_empty() {
        options = options.add_root_certificates(expand_home(&settings.ca));
    }
    if !settings.cert.is_empty() {
        options = options.add_client_certificate(expand_home(&settings.cert), expand_home(&settings.key));
    }
    if settings.tls_first {
        options = options.tls_first();
    }
    if !settings.inbox_prefix.is_empty() {
        options = options.custom_inbox_prefix(&settings.inbox_prefix);
    }
    options
}

fn expand_home(path: &str) -> std::path::PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => std::path::PathBuf::from(home).join(rest),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_lie_over_the_context() {
        let base = Context {
            url: "nats://ctx".into(),
            user: "ctx".into(),
            password: "p".into(),
            ..Context::default()
        };
        let global = Global { server: Some("nats://flag".into()), ..Global::default() };
        let over = global.over(base.clone());
        assert_eq!((over.url.as_str(), over.user.as_str()), ("nats://flag", "ctx"));
        let global = Global { user: Some("bob".into()), ..Global::default() };
        assert_eq!(global.over(base).user, "bob");
    }

    #[test]
    fn a_user_without_a_password_is_a_token() {
        let global = Global { user: Some("t0ken".into()), ..Global::default() };
        let over = global.over(Context::default());
        assert_eq!((over.user.as_str(), over.token.as_str()), ("", "t0ken"));
    }

    #[test]
    fn the_api_prefix_follows_domain_and_prefix() {
        let cases = [("", "", "$JS.API"), ("", "hub", "$JS.hub.API"), ("my.api.", "hub", "my.api")];
        for (prefix, domain, want) in cases {
            let settings = Context {
                jetstream_api_prefix: prefix.into(),
                jetstream_domain: domain.into(),
                ..Context::default()
            };
            assert_eq!(api_prefix(&settings), want);
        }
    }

    #[test]
    fn a_login_in_the_url_is_used_unless_there_is_another() {
        let cases = [
            // URL, user before; then URL, user, password, token
            ("nats://u:p%40x@h:1", "", ["nats://h:1", "u", "p@x", ""]),
            ("nats://t0k@h:1,nats://h2", "", ["nats://h:1,nats://h2", "", "", "t0k"]),
            ("u:p@h:1", "", ["h:1", "u", "p", ""]),
            ("nats://u:p@h:1", "other", ["nats://h:1", "other", "", ""]),
            ("nats://u:%zz@h", "", ["nats://h", "u", "%zz", ""]),
            ("nats://h:1", "", ["nats://h:1", "", "", ""]),
        ];
        for (url, user, want) in cases {
            let mut settings = Context { url: url.into(), user: user.into(), ..Context::default() };
            take_login(&mut settings);
            let Context { url: address, user, password, token, .. } = &settings;
            assert_eq!([address, user, password, token], want, "{url}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(visible("nats://u:p@h:1, tls://h2:2"), "nats://h:1,tls://h2:2");
        assert_eq!(visible("h:1"), "h:1");
    }
}
