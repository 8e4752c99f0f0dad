//! Settings: what files become, and what is refused, by name and with its place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hw_auth::{ConnectionKind, JsLimits, Login, ResponsePermission, UserKey};

use super::*;
use crate::options::*;

fn load_text(text: &str) -> Result<Options, ConfErrors> {
    let mut read = |path: &Path| match path == Path::new("c.conf") {
        true => Ok(text.to_owned()),
        false => Err("no such file".to_owned()),
    };
    load(Path::new("c.conf"), &mut Source { env: &|_| None, read: &mut read })
}

fn good(text: &str) -> Options {
    load_text(text).unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn listen(host: &str, port: u16) -> Listen {
    Listen { host: host.into(), port }
}

#[test]
fn defaults() {
    let options = good("");
    assert_eq!(options.warnings, ["c.conf: config has no values or is empty"]);
    assert_eq!(Options { warnings: vec![], ..options }, Options::default());
    let options = Options::default();
    assert_eq!(options.server.listen, listen("0.0.0.0", 4222));
    assert_eq!(options.limits.max_payload, 1_048_576);
    assert_eq!(options.limits.max_pending, 67_108_864);
    assert_eq!(options.limits.ping_interval, Span::from_secs(120));
    assert_eq!(options.auth_timeout(), Span::from_secs(2));
    assert!(options.jetstream.strict && !options.jetstream.enabled);
}

#[test]
fn listeners() {
    let cases = [
        ("port: 4333", listen("0.0.0.0", 4333)),
        ("port: -1", listen("0.0.0.0", 0)),
        ("port: 0", listen("0.0.0.0", 4222)),
        ("listen: 4333", listen("0.0.0.0", 4333)),
        ("listen: -1", listen("0.0.0.0", 0)),
        ("listen: \":4333\"", listen("0.0.0.0", 4333)),
        ("listen: 127.0.0.1:-1", listen("127.0.0.1", 0)),
        ("listen: \"[::1]:4333\"", listen("::1", 4333)),
        ("host: localhost\nport: 1", listen("localhost", 1)),
        ("NET: \"0.0.0.0\"", listen("0.0.0.0", 4222)),
    ];
    for (text, wanted) in cases {
        assert_eq!(good(text).server.listen, wanted, "{text}");
    }
    let cases = [
        ("http: 8222", Some(listen("", 8222))),
        ("http: \"127.0.0.1:-1\"", Some(listen("127.0.0.1", 0))),
        ("http_port: -1", Some(listen("", 0))),
        ("monitor_port: 1", Some(listen("", 1))),
        ("http: 0", None),
    ];
    for (text, wanted) in cases {
        assert_eq!(good(text).monitor.http, wanted, "{text}");
    }
    assert_eq!(
        good("https: 1\nhttp_base_path: \"/x\"").monitor,
        MonitorOptions { http: None, https: Some(listen("", 1)), base_path: "/x".into() }
    );
}

#[test]
fn numbers_and_times() {
    let options = good(
        "max_payload: 128KB; max_control_line: \"4k\"; max_pending: 32MiB; max_connections: 5; max_subs: 6
         max_subscription_tokens: 7; max_closed_clients: 8; ping_interval: \"100ms\"; ping_max: 3
         write_deadline: 2s; no_fast_producer_stall: true; lame_duck_duration: \"1m\"; lame_duck_grace_period: \"5s\"",
    );
    assert_eq!(
        options.limits,
        Limits {
            max_payload: 131_072,
            max_control_line: 4000,
            max_pending: 33_554_432,
            max_connections: 5,
            max_subscriptions: 6,
            max_subscription_tokens: Some(7),
            max_closed_clients: 8,
            ping_interval: Span::from_millis(100),
            ping_max: 3,
            write_deadline: Span::from_secs(2),
            no_fast_producer_stall: true,
        }
    );
    assert_eq!(options.server.lame_duck_duration, Span::from_secs(60));
    assert_eq!(options.server.lame_duck_grace_period, Span::from_secs(5));
    assert!(options.warnings.is_empty());
    assert_eq!(
        good("max_payload: 0\nmax_conn: -1").limits,
        Limits { max_connections: -1, ..Limits::default() }
    );
    let options = good("port: 1\nping_interval: 5");
    assert_eq!(options.limits.ping_interval, Span::from_secs(5));
    assert_eq!(
        options.warnings,
        [
            "c.conf:2:1: invalid use of field \"ping_interval\": ping_interval should be converted to a duration"
        ]
    );
}

#[test]
fn server_and_log() {
    let options = good(
        "server_name: s1\nclient_advertise: \"h:1\"\nserver_tags: [a, \"b\"]\nserver_metadata {Region: eu}
         pid_file: p.pid\nports_file_dir: \"/d\"\nno_header_support: true
         debug: yes\ntrace_verbose: on\nlogtime: off\nlogtime_utc: true\nlogfile: \"x.log\"
         logfile_size_limit: 10MB\nlogfile_max_num: 3\nmax_traced_msg_len: 64",
    );
    assert_eq!(
        options.server,
        ServerOptions {
            name: Some("s1".into()),
            client_advertise: Some("h:1".into()),
            tags: vec!["a".into(), "b".into()],
            metadata: BTreeMap::from([("Region".into(), "eu".into())]),
            pid_file: Some("p.pid".into()),
            ports_file_dir: Some("/d".into()),
            no_header_support: true,
            ..ServerOptions::default()
        }
    );
    assert_eq!(
        options.log,
        LogOptions {
            debug: true,
            trace: true,
            trace_verbose: true,
            logtime: false,
            logtime_utc: true,
            file: Some(PathBuf::from("x.log")),
            file_size_limit: Some(10_485_760),
            file_max_num: Some(3),
            max_traced_msg_len: Some(64),
        }
    );
    assert_eq!(good("server_tags: \"a, b\"").server.tags, ["a", "b"]);
}

#[test]
fn jetstream_blocks() {
    for text in ["{}", "true", "enabled", "ENABLE", "on", "{enabled: true}", "{strict: true}"] {
        assert!(good(&format!("jetstream: {text}")).jetstream.enabled, "{text}");
    }
    for text in ["false", "disabled", "{enabled: false, store_dir: x}", "off"] {
        assert!(!good(&format!("jetstream: {text}")).jetstream.enabled, "{text}");
    }
    let options = good(
        "jetstream {store_dir: \"d\", max_mem_store: 64MiB, max_file: \"10GiB\", domain: hub, strict: false
         sync_interval: \"1s\", max_buffered_size: 1M, max_buffered_msgs: 10, unique_tag: az, checkpoint_bytes: 1MiB, scrub_bytes: 0, index_cache_bytes: 2MiB
         encryption_key: a, prev_ek: \"b c\", cipher: ChachaPoly
         limits {max_ack_pending: 1, max_request_batch: 2, duplicate_window: \"1m\", max_ha_assets: 7,
         batch {max_inflight_per_stream: 3, max_inflight_total: 4, max_msgs: 5, timeout: \"6s\"}}}",
    );
    assert_eq!(
        options.jetstream,
        JetStreamOptions {
            enabled: true,
            store_dir: Some("d".into()),
            max_memory: Some(64 << 20),
            max_storage: Some(10 << 30),
            domain: Some("hub".into()),
            strict: false,
            sync_interval: Some(Span::from_secs(1)),
            sync_always: false,
            checkpoint_bytes: 1 << 20,
            scrub_bytes: 0,
            index_cache_bytes: 2 << 20,
            max_buffered_size: Some(1_000_000),
            max_buffered_msgs: Some(10),
            unique_tag: "az".into(),
            encryption: EncryptionOptions {
                key: Some(Secret::new("a")),
                previous: Some(Secret::new("b c")),
                cipher: Some(StoreCipher::Chacha),
            },
            limits: JetStreamLimits {
                max_ack_pending: Some(1),
                max_request_batch: Some(2),
                duplicate_window: Some(Span::from_secs(60)),
                max_ha_assets: Some(7),
                batch: BatchOptions {
                    max_inflight_per_stream: Some(3),
                    max_inflight_total: Some(4),
                    max_msgs: Some(5),
                    timeout: Some(Span::from_secs(6)),
                },
            },
        }
    );
    let unlimited = "jetstream {limits {batch {max_inflight_total: -1, max_msgs: 0, timeout: \"0s\"}}}";
    assert_eq!(good(unlimited).jetstream.limits.batch, BatchOptions::default());
    assert_eq!(good("jetstream {max_mem: -1, max_file: 0}").jetstream.max_memory, None);
    assert_eq!(good("jetstream {max_mem: -1, max_file: 0}").jetstream.max_storage, Some(0));
    assert!(good("jetstream {sync_interval: always}").jetstream.sync_always);
    assert_eq!(good("store_dir: \"x\"").jetstream.store_dir, Some("x".into()));
}

#[test]
fn authorization_blocks() {
    let login = |text: &str| good(&format!("authorization {{ {text} }}")).auth.login;
    let user = |user: &str, pass: &str| Some(Login::User { user: user.into(), pass: pass.into() });
    assert_eq!(login("user: a, password: b"), user("a", "b"));
    assert_eq!(login("username: a, pass: $2a$11$xyz"), user("a", "$2a$11$xyz"));
    assert_eq!(login("user: a"), user("a", ""));
    assert_eq!(login("token: t"), Some(Login::Token("t".into())));
    assert_eq!(login("users: []"), None);
    for text in ["timeout: 1.5", "timeout: \"1500ms\""] {
        let auth = good(&format!("authorization {{ {text} }}"));
        assert_eq!(auth.auth_timeout(), Span::from_millis(1500), "{text}");
    }
    let options = good(
        "authorization { users = [
           { user: a, password: pässwörd, permissions: { publish: \"x.>\", subscribe: [ \"y\", \"q A\" ] } }
           { user: b, pass: c, permission { pub { allow: [\"a\"], deny: \"b\" }, allow_responses: true } }
           { user: d, pass: e, permissions { allow_responses { max: 5, expires: \"1m\" }, sub { deny: s } }
             allowed_connection_types: [\"websocket\", STANDARD] }
           { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }
         ] }",
    );
    let users = &options.auth.users;
    let permissions = |at: usize| users[at].permissions.clone().unwrap();
    assert_eq!(users[0].key, UserKey::Password { user: "a".into(), pass: "pässwörd".into() });
    assert_eq!(permissions(0).publish.allow, ["x.>"]);
    assert_eq!(permissions(0).subscribe.allow, ["y", "q A"]);
    assert_eq!(permissions(1).publish.deny, ["b"]);
    assert_eq!(permissions(1).allow_responses, Some(ResponsePermission::default()));
    let wanted = ResponsePermission { max: 5, expires: Span::from_secs(60) };
    assert_eq!(permissions(2).allow_responses, Some(wanted));
    assert_eq!(permissions(2).subscribe.deny, ["s"]);
    assert_eq!(users[2].connection_kinds, [ConnectionKind::Websocket, ConnectionKind::Standard]);
    assert_eq!(users[3].key.name(), "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
    assert!(options.directory().unwrap().needs_nonce());
}

#[test]
fn accounts_and_their_jetstream() {
    let options = good(
        "accounts {
           A { users [ {user: a, pass: p} ], jetstream: enabled
               limits { max_conn: 5, max_subs: 4, max_payload: 1k, max_leafs: 3 } }
           B { jetstream { max_mem: 1, max_file: 2, max_streams: 3, max_consumers: 4, max_ack_pending: 5
               memory_max_stream_bytes: 6, store_max_stream_bytes: 7, max_stream_bytes: true } }
           $SYS { users [ {user: s, pass: s} ] }
         }
         jetstream: enabled\nno_auth_user: a",
    );
    let directory = options.directory().unwrap();
    assert!(!directory.auth_required());
    let names: Vec<&str> = directory.accounts().map(|(_, account)| account.name.as_str()).collect();
    assert_eq!(names, ["$G", "$SYS", "A", "B"]);
    let account = |name: &str| directory.account(directory.account_id(name).unwrap()).unwrap();
    assert_eq!(account("$G").jetstream, None, "accounts are configured");
    assert_eq!(account("A").jetstream, Some(JsLimits::NONE));
    assert_eq!(account("A").limits.max_payload, 1000);
    assert_eq!(account("A").limits.max_connections, 5);
    let wanted = JsLimits {
        max_memory: 1,
        max_storage: 2,
        max_streams: 3,
        max_consumers: 4,
        max_ack_pending: 5,
        memory_max_stream_bytes: 6,
        storage_max_stream_bytes: 7,
        max_bytes_required: true,
    };
    assert_eq!(account("B").jetstream, Some(wanted));

    let off = good("accounts { A { jetstream: enabled } }").directory().unwrap();
    assert!(off.accounts().all(|(_, account)| account.jetstream.is_none()), "the server has none");
    let system =
        good("accounts { $SYS { users [ {user: s, pass: s} ] } }\njetstream: true").directory().unwrap();
    assert_eq!(system.accounts().filter(|(_, account)| account.jetstream.is_some()).count(), 1);
    assert_eq!(good("accounts: [A, B]").auth.accounts.len(), 2);
}

#[test]
fn tls_websocket_leafnodes_cluster() {
    let options = good(
        "tls { cert_file: a.pem, key_file: k.pem, ca_file: ca.pem, verify: true, timeout: 3, min_version: \"1.3\"
               handshake_first: 300ms }
         allow_non_tls: true
         websocket { port: -1, no_tls: true, compression: true, same_origin: true
                     allowed_origins [\"http://a:1\"], handshake_timeout: \"2s\" }
         leafnodes { listen: \"127.0.0.1:-1\" }
         cluster { name: c, listen: 127.0.0.1:6222, routes = [ nats://h:1 ] }",
    );
    assert_eq!(
        options.tls,
        Some(TlsOptions {
            cert_file: Some("a.pem".into()),
            key_file: Some("k.pem".into()),
            ca_file: Some("ca.pem".into()),
            verify: true,
            timeout: Span::from_secs(3),
            min_version: TlsVersion::Tls13,
            handshake_first: HandshakeFirst::Within(Span::from_millis(300)),
        })
    );
    assert_eq!(options.auth_timeout(), Span::from_secs(4));
    assert_eq!(
        options.websocket,
        Some(WebsocketOptions {
            listen: Some(listen("", 0)),
            no_tls: true,
            tls: None,
            compression: true,
            same_origin: true,
            allowed_origins: vec!["http://a:1".into()],
            handshake_timeout: Some(Span::from_secs(2)),
        })
    );
    assert_eq!(options.leafnodes, Some(LeafnodeOptions { listen: Some(listen("127.0.0.1", 0)) }));
    assert_eq!(options.cluster.as_ref().unwrap().routes, ["nats://h:1"]);
    assert_eq!(good("websocket {}").websocket, Some(WebsocketOptions::default()));
    let first = |value: &str| good(&format!("tls {{handshake_first: {value}}}")).tls.unwrap().handshake_first;
    assert_eq!(first("true"), HandshakeFirst::Yes);
    assert_eq!(first("auto"), HandshakeFirst::Within(Span::from_millis(50)));
}

#[test]
fn what_the_javascript_tools_write_is_taken() {
    let options = good(
        "http: \"127.0.0.1:-1\"\nport: -1\nports_file_dir: \"/d\"\nleafnodes: {\n  port: -1\n}
         websocket: {\n  port: -1\n  no_tls: true\n}\njetstream: {\n  max_file_store: 1073741824\n  store_dir: \"/d\"\n}\n",
    );
    assert_eq!(options.validate(), Ok(()));
    let json = good("{ \"jetstream\": true, \"port\": -1 }");
    assert!(json.jetstream.enabled);
}

#[test]
fn refused_with_place() {
    let nkeys = "Nkey users do not take usernames or passwords";
    let cases = [
        ("zz: 1", "1:1: unknown field \"zz\""),
        ("port: 1\n jetstream {\n  bogus: 1 }", "3:3: unknown field \"bogus\""),
        ("port: \"4222\"", "1:1: port: expected an integer, got a string"),
        ("port: 70000", "1:1: port: 70000 is not a valid port"),
        ("listen: \"4222\"", "1:1: could not parse address string \"4222\""),
        ("listen: \"::1:4222\"", "1:1: could not parse address string \"::1:4222\""),
        ("listen: a:b", "1:1: could not parse port \"b\""),
        ("max_payload: 9GB", "1:1: max_payload value is too big"),
        ("max_payload: 1.5", "1:1: max_payload: expected a size, got a float"),
        ("max_sub_tokens: 300", "1:1: max_sub_tokens value is too big"),
        ("ping_interval: \"5\"", "1:1: error parsing ping_interval: missing unit in duration \"5\""),
        ("debug: 1", "1:1: debug: expected a boolean, got an integer"),
        ("server_name: \"a b\"", "1:1: server name cannot contain spaces"),
        ("server_tags: [1]", "1:15: server_tags: expected strings, got an integer"),
        ("lame_duck_duration: \"1s\"", "1:1: invalid lame_duck_duration, minimum is 30 seconds"),
        ("gateway {}", "1:1: \"gateway\" is not supported yet"),
        ("Mqtt {}", "1:1: \"Mqtt\" is not supported yet"),
        ("syslog: true", "1:1: \"syslog\" is not supported yet: use log_file"),
        ("jetstream: x", "1:1: Expected 'enabled' or 'disabled' for string value, got 'x'"),
        ("jetstream: 1", "1:1: jetstream: expected map, bool or string to define JetStream, got an integer"),
        ("jetstream {max_mem: \"1X\"}", "1:12: max_mem: \"1X\" is not a size such as 64MB"),
        ("jetstream {tpm {keys_file: k}}", "1:12: \"tpm\" is not supported yet: use key"),
        ("jetstream {cipher: rot13, key: k}", "1:12: Unknown cipher type: \"rot13\""),
        ("jetstream {key: 5}", "1:12: key: expected a string, got an integer"),
        ("jetstream {ek: \"\"}", "1:12: ek is empty: nothing would be encrypted"),
        ("jetstream {cipher: aes}", "1:1: cipher has no effect without a key: nothing would be encrypted"),
        ("jetstream {prev_ek: k}", "1:1: prev_key has no effect without a key: nothing would be encrypted"),
        ("jetstream {limits {max_ha_assets: x}}", "1:20: max_ha_assets: \"x\" is not a size such as 64MB"),
        ("tls {cert_file: x}", "1:1: missing 'key_file' in TLS configuration"),
        ("tls {verify_and_map: true}", "1:6: \"verify_and_map\" is not supported yet"),
        ("leafnodes {remotes: []}", "1:12: \"remotes\" is not supported yet"),
        ("websocket {jwt_cookie: c}", "1:12: \"jwt_cookie\" is not supported yet"),
        ("websocket {allowed_origins: \"::\"}", "1:12: unable to parse allowed origin: \"::\""),
        ("authorization {user: a, token: b}", "1:1: Cannot have a user/pass and token"),
        ("authorization {password: a}", "1:1: Can not have a password without a user"),
        ("authorization {token: t, users: []}", "1:1: Can not have a token and a users array"),
        ("authorization {user: t, users: []}", "1:1: Can not have a single user/pass and a users array"),
        ("authorization {users: {a: b}}", "1:16: users: expected an array of users, got a map"),
        ("authorization {users: [a]}", "1:24: Expected user entry to be a map, got a string"),
        ("authorization {users: [{pass: a}]}", "1:24: User entry requires a user"),
        ("authorization {users: [{user: a, pass: 1}]}", "1:34: pass: expected a string, got an integer"),
        ("authorization {users: [{nkey: UBAD}]}", "1:25: Not a valid public nkey for a user"),
        ("authorization {auth_callout {}}", "1:16: \"auth_callout\" is not supported yet"),
        ("accounts {$G {}}", "1:11: \"$G\" is a Reserved Account"),
        ("accounts {A 1}", "1:11: Expected map entries for accounts"),
        ("accounts {A {limits {bogus: 1}}}", "1:22: unknown field \"bogus\""),
    ];
    for (text, message) in cases {
        let errors = load_text(text).unwrap_err();
        assert_eq!(errors.to_string(), format!("c.conf:{message}"), "{text}");
    }
    let nkey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    for extra in ["user: a", "pass: a"] {
        let errors = load_text(&format!("authorization {{users: [{{nkey: {nkey}, {extra}}}]}}")).unwrap_err();
        assert_eq!(errors.to_string(), format!("c.conf:1:24: {nkeys}"));
    }
}

#[test]
fn permissions_are_refused_with_place() {
    let cases = [
        ("bogus: 1", "unknown field \"bogus\""),
        ("publish: \"a b\"", "subject \"a b\" is not a valid subject"),
        ("publish: \"\"", "subject \"\" is not a valid subject"),
        ("subscribe: \"a b c\"", "subject \"a b c\" is not a valid subject"),
        ("subscribe: \"a b..c\"", "queue \"b..c\" is not a valid queue"),
        ("allow_responses: 12", "error parsing response permissions, expected a boolean or a map"),
    ];
    for (text, message) in cases {
        let text = format!("authorization {{users: [{{user: a, permissions {{ {text} }}}}]}}");
        let errors = load_text(&text).unwrap_err();
        assert_eq!(errors.to_string(), format!("c.conf:1:48: {message}"), "{text}");
    }
    let text = "authorization {users: [{user: a, permissions {publish {allow: a, bogus: 1}}}]}";
    let only = "only 'allow' or 'deny' are permitted";
    assert_eq!(
        load_text(text).unwrap_err().to_string(),
        format!("c.conf:1:66: Unknown field name \"bogus\" parsing subject permissions, {only}")
    );
}

#[test]
fn every_error_is_told_at_once() {
    let errors = load_text("zz: 1\nport: x\nyy: 1\nxx: 1\nserver_name: $xx").unwrap_err();
    let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "c.conf:1:1: unknown field \"zz\"",
            "c.conf:2:1: port: expected an integer, got a string",
            "c.conf:3:1: unknown field \"yy\"",
            "c.conf:5:1: server_name: expected a string, got an integer",
        ]
    );
}

#[test]
fn settings_that_are_wrong_together() {
    let cases = [
        ("max_payload: 100MB", "max_payload (104857600) cannot be higher than max_pending (67108864)"),
        ("http: 1\nhttps: 2\ntls {cert_file: a, key_file: b}", "can't specify both HTTP and HTTPs ports"),
        ("https: 2", "TLS cert and key required for HTTPS"),
        ("tls {timeout: 1}", "TLS Server certificate must be present and valid"),
        ("websocket {port: 80}", "websocket requires TLS configuration"),
        (
            "cluster {routes: [\"nats://h:1\"]}",
            "c.conf:1:1: solicited routes require cluster capabilities, e.g. --cluster",
        ),
        (
            "jetstream: true\ncluster {listen: 1}",
            "c.conf:2:1: jetstream cluster requires `server_name` to be set",
        ),
        (
            "jetstream: true\nserver_name: a\ncluster {listen: 1}",
            "c.conf:3:1: jetstream cluster requires `cluster.name` to be set",
        ),
        (
            "cluster {listen: 1, tls {ca_file: a}}",
            "c.conf:1:1: cluster: tls needs a cert_file and a key_file",
        ),
        ("no_auth_user: z", "no_auth_user: \"z\" present, but users/nkeys are not defined"),
        ("system_account: X", "error resolving system account: account missing"),
        ("accounts {A {users [{user: a}]}, B {users [{user: a}]}}", "Duplicate user \"a\" detected"),
        (
            "accounts {A {users [{user: a}]}}\nauthorization {token: t}",
            "Can not have a single user/pass or a token and a users array",
        ),
        (
            "accounts {S {jetstream: true}}\nsystem_account: S\njetstream: true",
            "Not allowed to enable JetStream on the system account",
        ),
        (
            "accounts {A {jetstream {max_mem: 1G}}}\njetstream {max_mem: 1M}",
            "Error enabling jetstream on configured accounts: insufficient memory resources available",
        ),
        (
            "authorization {default_permissions {publish: a}}",
            "authorization: default_permissions restrict nobody without users in the same block",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(good(text).validate().unwrap_err().to_string(), message, "{text}");
    }
    let grace = "lame duck grace period (180s) should be strictly lower than lame duck duration (120s)";
    assert_eq!(good("lame_duck_grace_period: \"3m\"").validate().unwrap_err().to_string(), grace);
    for text in [
        "allow_non_tls: true",
        "websocket {no_tls: true}",
        "cluster {name: c, listen: 1}",
        "no_system_account: true",
    ] {
        assert_eq!(good(text).validate(), Ok(()), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_settings_panic_and_every_error_has_a_place(
        lines in proptest::collection::vec(
            "(port|listen|http|max_payload|max_sub_tokens|ping_interval|jetstream|accounts|authorization|tls|websocket|cluster|server_tags|x): \
             (-?[0-9]{1,20}[kmgtpe]?|[a-z:.*>-]{0,6}|\"[0-9a-z:.-]{0,8}\"|true|\\[[a-z, ]{0,6}\\]|\
             \\{ ?(users|A|max_mem|timeout|port|limits): (\\[\\{(user|nkey|permissions): ([a-z]{1,3}|\\{(pub|sub|allow_responses): [a-z.>*]{0,4}\\})\\}\\]|[0-9a-z]{0,4}|\\{[a-z]{1,3}: [0-9]{1,2}\\}) ?\\})",
            0..6,
        ),
    ) {
        let text = lines.join("\n");
        match load_text(&text) {
            Ok(options) => drop(options.validate()),
            Err(errors) => {
                proptest::prop_assert!(!errors.0.is_empty());
                for error in errors.0 {
                    proptest::prop_assert!(error.at.is_some(), "{error} in {text}");
                }
            }
        }
    }
}
