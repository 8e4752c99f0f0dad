//! INFO: what a server says about itself to a client.

use serde::{Deserialize, Serialize};

/// The JSON of INFO. Fields that are empty, zero or false are left out, except `proto`, `headers`, `max_payload` and
/// those that name the server.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Info {
    /// A public server key: 56 characters, the first is `N`.
    pub server_id: String,
    /// The configured name, or the id.
    pub server_name: String,
    /// The nats-server version that clients compare to choose their features.
    pub version: String,
    /// The protocol version.
    pub proto: i32,
    /// The commit that the server was built from.
    #[serde(skip_serializing_if = "is_default")]
    pub git_commit: String,
    /// The version of Go; other servers have their toolchain here.
    pub go: String,
    /// Our own version: what distinguishes this server from the one whose version it announces.
    #[serde(skip_serializing_if = "is_default")]
    pub headwater: String,
    /// Where it listens.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// Whether messages may have headers.
    pub headers: bool,
    /// Whether CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_default")]
    pub auth_required: bool,
    /// Whether the client must upgrade to TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_required: bool,
    /// Whether the client must show a certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_verify: bool,
    /// Whether the client may upgrade to TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_available: bool,
    /// Bytes of headers and payload together.
    pub max_payload: usize,
    /// Whether JetStream is on.
    #[serde(skip_serializing_if = "is_default")]
    pub jetstream: bool,
    /// The server's address.
    #[serde(skip_serializing_if = "is_default")]
    pub ip: String,
    /// The connection's number.
    #[serde(skip_serializing_if = "is_default")]
    pub client_id: u64,
    /// The client's address.
    #[serde(skip_serializing_if = "is_default")]
    pub client_ip: String,
    /// What the client signs with its nkey.
    #[serde(skip_serializing_if = "is_default")]
    pub nonce: String,
    /// The cluster's name.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: String,
    /// Whether that name was made up.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_dynamic: bool,
    /// The JetStream domain.
    #[serde(skip_serializing_if = "is_default")]
    pub domain: String,
    /// Addresses of all servers of the cluster, `host:port`.
    #[serde(skip_serializing_if = "is_default")]
    pub connect_urls: Vec<String>,
    /// The same for websockets.
    #[serde(skip_serializing_if = "is_default")]
    pub ws_connect_urls: Vec<String>,
    /// Lame duck: the client should go elsewhere.
    #[serde(rename = "ldm", skip_serializing_if = "is_default")]
    pub lame_duck_mode: bool,
    /// Whether this INFO answers the client's CONNECT: the fields below are meant for it alone.
    #[serde(skip_serializing_if = "is_default")]
    pub connect_info: bool,
    /// The account that the client is in.
    #[serde(skip_serializing_if = "is_default")]
    pub remote_account: String,
    /// Whether that is the system account.
    #[serde(rename = "acc_is_sys", skip_serializing_if = "is_default")]
    pub is_system_account: bool,
    /// The JetStream API level.
    #[serde(rename = "api_lvl", skip_serializing_if = "is_default")]
    pub api_level: i32,
    /// A public curve key for encrypted auth callouts.
    #[serde(skip_serializing_if = "is_default")]
    pub xkey: String,
}

impl Info {
    /// Reads INFO's JSON.
    pub fn parse(json: &[u8]) -> Result<Info, serde_json::Error> {
        // Derived code would take an array for the fields in their order.
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json)
            .and_then(|fields| serde_json::from_value(fields.into()))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn what_is_empty_is_absent() {
        let mut out = Vec::new();
        let info = Info { server_id: "N1".into(), proto: 1, headers: true, port: 4222, ..Info::default() };
        encode::info(&mut out, &info);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "INFO {\"server_id\":\"N1\",\"server_name\":\"\",\"version\":\"\",\"proto\":1,\"go\":\"\",\"host\":\"\",\
             \"port\":4222,\"headers\":true,\"max_payload\":0} \r\n"
        );
    }

    #[test]
    fn names_on_the_wire() {
        let info = Info {
            lame_duck_mode: true,
            is_system_account: true,
            api_level: 5,
            connect_urls: vec!["a:1".into()],
            ..Info::default()
        };
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!(json["ldm"], true);
        assert_eq!(json["acc_is_sys"], true);
        assert_eq!(json["api_lvl"], 5);
        assert_eq!(json["connect_urls"][0], "a:1");
        assert_eq!(Info::parse(json.to_string().as_bytes()).unwrap(), info);
        for wrong in ["[]", "", "{", "{} x", r#"{"port":"x"}"#] {
            assert!(Info::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
