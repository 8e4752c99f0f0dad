//! CONNECT: what a client says about itself.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// The JSON of CONNECT. Keys are read without regard to case, unknown ones are ignored, `null` means the default.
#[derive(Clone, PartialEq, Serialize)]
pub struct ConnectOptions {
    /// Answer every operation with +OK.
    pub verbose: bool,
    /// Check the subjects of published messages.
    pub pedantic: bool,
    /// The client insists on TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_required: bool,
    /// A token.
    #[serde(rename = "auth_token", skip_serializing_if = "is_default")]
    pub token: String,
    /// A user's name.
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    /// A user's password.
    #[serde(skip_serializing_if = "is_default")]
    pub pass: String,
    /// The connection's name, for monitoring.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The client library's language.
    pub lang: String,
    /// The client library's version.
    pub version: String,
    /// 0, or 1 for a client that takes INFO at any time.
    pub protocol: i64,
    /// Whether the client gets what it publishes itself.
    pub echo: bool,
    /// A user JWT.
    #[serde(skip_serializing_if = "is_default")]
    pub jwt: String,
    /// A public user key.
    #[serde(skip_serializing_if = "is_default")]
    pub nkey: String,
    /// The signature of INFO's nonce.
    #[serde(skip_serializing_if = "is_default")]
    pub sig: String,
    /// Whether the client takes HMSG.
    pub headers: bool,
    /// Whether the client wants a 503 for a request that nobody hears.
    pub no_responders: bool,
    /// A trusted proxy's signature of the nonce.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_sig: String,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            verbose: true,
            pedantic: true,
            tls_required: false,
            token: String::new(),
            user: String::new(),
            pass: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            protocol: 0,
            echo: true,
            jwt: String::new(),
            nkey: String::new(),
            sig: String::new(),
            headers: false,
            no_responders: false,
            proxy_sig: String::new(),
        }
    }
}

impl ConnectOptions {
    /// Reads CONNECT's JSON.
    pub fn parse(json: &[u8]) -> Result<ConnectOptions, serde_json::Error> {
        Ok(serde_json::from_slice::<Option<ConnectOptions>>(json)?.unwrap_or_default())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Without the secrets: options end up in logs.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("user", &self.user)
            .field("name", &self.name)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("protocol", &self.protocol)
            .field("verbose", &self.verbose)
            .field("pedantic", &self.pedantic)
            .field("echo", &self.echo)
            .field("headers", &self.headers)
            .field("no_responders", &self.no_responders)
            .finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for ConnectOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OptionsVisitor)
    }
}

struct OptionsVisitor;

impl<'de> Visitor<'de> for OptionsVisitor {
    type Value = ConnectOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConnectOptions, A::Error> {
        let mut options = ConnectOptions::default();
        while let Some(mut key) = map.next_key::<Cow<'de, str>>()? {
            if key.bytes().any(|b| b.is_ascii_uppercase()) {
                key.to_mut().make_ascii_lowercase();
            }
            options.set(&key, &mut map)?;
        }
        Ok(options)
    }
}

impl ConnectOptions {
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "verbose" => value(&mut self.verbose, map),
            "pedantic" => value(&mut self.pedantic, map),
            "tls_required" => value(&mut self.tls_required, map),
            "auth_token" => value(&mut self.token, map),
            "user" => value(&mut self.user, map),
            "pass" => value(&mut self.pass, map),
            "name" => value(&mut self.name, map),
            "lang" => value(&mut self.lang, map),
            "version" => value(&mut self.version, map),
            "protocol" => value(&mut self.protocol, map),
            "echo" => value(&mut self.echo, map),
            "jwt" => value(&mut self.jwt, map),
            "nkey" => value(&mut self.nkey, map),
            "sig" => value(&mut self.sig, map),
            "headers" => value(&mut self.headers, map),
            "no_responders" => value(&mut self.no_responders, map),
            "proxy_sig" => value(&mut self.proxy_sig, map),
            _ => map.next_value::<IgnoredAny>().map(|_| ()),
        }
    }
}

fn value<'de, T, A>(field: &mut T, map: &mut A) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
    A: MapAccess<'de>,
{
    if let Some(value) = map.next_value::<Option<T>>()? {
        *field = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stand_in_for_what_is_missing() {
        let talkative = ConnectOptions::default();
        let quiet = ConnectOptions { verbose: false, ..ConnectOptions::default() };
        let cases: &[(&str, Option<ConnectOptions>)] = &[
            ("{}", Some(talkative.clone())),
            ("null", Some(talkative.clone())),
            (r#"{"verbose":false}"#, Some(quiet.clone())),
            (r#"{"VERBOSE":false,"Pedantic":true}"#, Some(quiet)),
            (r#"{"verbose":null,"nope":[1,{"a":2}]}"#, Some(talkative.clone())),
            (
                r#"{"user":"d\u00e9","pass":"x","auth_token":"t","echo":false,"headers":true}"#,
                Some(ConnectOptions {
                    user: "d\u{e9}".into(),
                    pass: "x".into(),
                    token: "t".into(),
                    echo: false,
                    headers: true,
                    ..talkative
                }),
            ),
            (r#"{"verbose":"x"}"#, None),
            (r#"{"verbose":false"#, None),
            ("[]", None),
            ("", None),
            (r#"{} junk"#, None),
        ];
        for (json, expected) in cases {
            assert_eq!(ConnectOptions::parse(json.as_bytes()).ok(), *expected, "{json}");
        }
    }

    #[test]
    fn secrets_stay_out_of_logs() {
        let options = ConnectOptions { pass: "hush".into(), token: "hush".into(), ..Default::default() };
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let options = ConnectOptions { name: "n".into(), verbose: false, protocol: 1, ..Default::default() };
        let mut out = Vec::new();
        crate::encode::connect(&mut out, &options);
        let json = out.strip_prefix(b"CONNECT ").unwrap();
        assert_eq!(ConnectOptions::parse(json).unwrap(), options);
    }
}
