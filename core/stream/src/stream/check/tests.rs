//! Configurations and what nats-server 2.15.1 made of them.

use serde_json::{Value, json};

use super::*;

fn parse(fields: Value) -> StreamConfig {
    let mut config = json!({"name": "T"});
    for (key, value) in fields.as_object().expect("fields are an object") {
        config[key] = value.clone();
    }
    serde_json::from_value(config).expect("every field is known")
}

/// The error's text, or the fields that differ from a default stream's.
fn checked(fields: &Value, pedantic: bool) -> Value {
    let plain = json!({
        "name": "T", "subjects": ["T"], "retention": "limits", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
        "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "old", "storage": "file",
        "num_replicas": 1, "duplicate_window": 120000000000i64, "compression": "none", "allow_direct": false,
        "mirror_direct": false, "sealed": false, "deny_delete": false, "deny_purge": false,
        "allow_rollup_hdrs": false, "consumer_limits": {}, "allow_msg_ttl": false,
        "metadata": {"_nats.req.level": "0"},
    });
    match check(&parse(fields.clone()), StreamLimits::default(), pedantic) {
        Err(error) => Value::String(error.to_string()),
        Ok(config) => {
            let config = serde_json::to_value(config).expect("it was JSON before");
            let fields = config.as_object().expect("a configuration is an object");
            for key in plain.as_object().expect("an object").keys() {
                assert!(fields.contains_key(key), "{key} is always written");
            }
            let differs = |(key, value): &(&String, &Value)| plain.get(key.as_str()) != Some(*value);
            fields.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
        }
    }
}

const S: i64 = 1_000_000_000;

#[test]
fn names_and_subjects() {
    let long = |n: usize| "x".repeat(n);
    let forbidden = "stream name is required and can not contain '.', '*', '>', '\\', '/'";
    let api = "subjects that overlap with jetstream api require no-ack to be true";
    let sys = "subjects that overlap with system api require no-ack to be true";
    for (fields, expected) in [
        (json!({"name": "a*"}), json!(forbidden)),
        (json!({"name": "a>"}), json!(forbidden)),
        (json!({"name": "a b"}), json!(forbidden)),
        (json!({"name": ""}), json!(forbidden)),
        (json!({"name": "a/b"}), json!("stream name can not contain path separators")),
        (json!({"name": "a\\b"}), json!("stream name can not contain path separators")),
        (json!({"name": long(256)}), json!("stream name is too long, maximum allowed is 255")),
        (
            json!({"description": long(4097)}),
            json!("stream description is too long, maximum allowed is 4096"),
        ),
        (json!({"description": "d"}), json!({"description": "d"})),
        (json!({"subjects": []}), json!({})),
        (json!({"subjects": ["a", "a"]}), json!("subject \"a\" overlaps with \"a\"")),
        (json!({"subjects": ["a.*", "a.b"]}), json!("subject \"a.*\" overlaps with \"a.b\"")),
        (json!({"subjects": ["a.>", "a.b.c"]}), json!("subject \"a.>\" overlaps with \"a.b.c\"")),
        (json!({"subjects": ["a..b"]}), json!("invalid subject")),
        (json!({"subjects": ["a.>.b"]}), json!("invalid subject")),
        (json!({"subjects": [""]}), json!("invalid subject")),
        (json!({"subjects": ["a b"]}), json!("invalid subject")),
        (json!({"subjects": ["$JS.API.>"]}), json!(api)),
        (json!({"subjects": ["$JSC.x"]}), json!(api)),
        (json!({"subjects": ["$NRG.x"]}), json!(api)),
        (json!({"subjects": ["*.>"]}), json!(api)),
        (json!({"subjects": ["*.API.>"]}), json!(api)),
        (json!({"subjects": ["$JS.>"], "no_ack": true}), json!({"subjects": ["$JS.>"], "no_ack": true})),
        (json!({"subjects": ["$JS.EVENT.ADVISORY.>"]}), json!({"subjects": ["$JS.EVENT.ADVISORY.>"]})),
        (json!({"subjects": ["$SYS.x"]}), json!(sys)),
        (json!({"subjects": ["$SYS.ACCOUNT.A.CONNECT"]}), json!({"subjects": ["$SYS.ACCOUNT.A.CONNECT"]})),
        (json!({"subjects": [">"]}), json!("capturing all subjects requires no-ack to be true")),
        (json!({"subjects": [">"], "no_ack": true}), json!({"subjects": [">"], "no_ack": true})),
        (json!({"subjects": ["*"]}), json!({"subjects": ["*"]})),
        (json!({"subjects": ["$KV.>"]}), json!({"subjects": ["$KV.>"]})),
    ] {
        assert_eq!(checked(&fields, false), expected, "{fields}");
    }
}

#[test]
fn limits_and_times() {
    for (fields, expected) in [
        (json!({"max_consumers": -5, "max_msgs": -5, "max_bytes": 0}), json!({})),
        (json!({"max_msgs_per_subject": -2, "max_msg_size": -2}), json!({})),
        (json!({"max_msgs": 5, "max_msg_size": 5}), json!({"max_msgs": 5, "max_msg_size": 5})),
        (json!({"max_age": -1}), json!("max age can not be negative")),
        (json!({"max_age": S / 10 - 1}), json!("max age needs to be >= 100ms")),
        (json!({"max_age": S}), json!({"max_age": S, "duplicate_window": S})),
        (json!({"max_age": 600 * S}), json!({"max_age": 600 * S})),
        (json!({"duplicate_window": -1}), json!("duplicates window can not be negative")),
        (json!({"duplicate_window": 1}), json!("duplicates window needs to be >= 100ms")),
        (json!({"duplicate_window": 180 * S}), json!({"duplicate_window": 180 * S})),
        (
            json!({"max_age": S, "duplicate_window": 2 * S}),
            json!("duplicates window can not be larger then max age"),
        ),
        (json!({"num_replicas": 0}), json!({})),
        (json!({"num_replicas": 3}), json!("replicas > 1 not supported in non-clustered mode")),
        (json!({"num_replicas": 6}), json!("maximum replicas is 5")),
        (json!({"num_replicas": -1}), json!("replicas count cannot be negative")),
        (json!({"placement": {}}), json!({})),
        (json!({"placement": {"cluster": "x"}}), json!({"placement": {"cluster": "x"}})),
        (json!({"placement": {"preferred": "x"}}), json!("preferred server not permitted in placement")),
        (json!({"persist_mode": "default"}), json!({})),
        (
            json!({"persist_mode": "async"}),
            json!({"persist_mode": "async", "metadata": {"_nats.req.level": "2"}}),
        ),
        (
            json!({"persist_mode": "async", "storage": "memory"}),
            json!("async persist mode is only supported on file storage"),
        ),
        (
            json!({"persist_mode": "async", "num_replicas": 3}),
            json!("async persist mode is not supported on replicated streams"),
        ),
        (
            json!({"metadata": {"a": "b", "_nats.x": "1", "_nats.ver": "9", "_nats.req.level": "7"}}),
            json!({"metadata": {"a": "b", "_nats.x": "1", "_nats.req.level": "0"}}),
        ),
        (
            json!({"metadata": {"a": "x".repeat(128 * 1024 - 1)}}),
            json!("stream metadata exceeds maximum size of 131072 bytes"),
        ),
    ] {
        assert_eq!(checked(&fields, false), expected, "{fields}");
    }
}

#[test]
fn features() {
    let marker = json!({"allow_rollup_hdrs": true, "allow_msg_ttl": true, "subject_delete_marker_ttl": S,
        "metadata": {"_nats.req.level": "1"}});
    for (fields, expected) in [
        (
            json!({"discard_new_per_subject": true}),
            json!("discard new per subject requires discard new policy to be set"),
        ),
        (
            json!({"discard_new_per_subject": true, "discard": "new"}),
            json!("discard new per subject requires max msgs per subject > 0"),
        ),
        (json!({"sealed": true}), json!("stream configuration for create can not be sealed")),
        (
            json!({"deny_purge": true, "allow_rollup_hdrs": true}),
            json!("roll-ups require the purge permission"),
        ),
        (json!({"mirror_direct": true}), json!("stream has no mirror but does have mirror direct")),
        (
            json!({"allow_msg_ttl": true}),
            json!({"allow_msg_ttl": true, "metadata": {"_nats.req.level": "1"}}),
        ),
        (
            json!({"subject_delete_marker_ttl": 1}),
            json!("subject delete marker TTL must be at least 1 second"),
        ),
        (json!({"subject_delete_marker_ttl": -1}), json!("subject delete marker TTL must not be negative")),
        (json!({"subject_delete_marker_ttl": S}), marker.clone()),
        (json!({"subject_delete_marker_ttl": S, "deny_purge": true}), marker),
        (
            json!({"allow_msg_counter": true}),
            json!({"allow_msg_counter": true, "metadata": {"_nats.req.level": "2"}}),
        ),
        (
            json!({"allow_msg_counter": true, "discard": "new"}),
            json!("counter stream cannot use discard new"),
        ),
        (
            json!({"allow_msg_counter": true, "allow_msg_ttl": true}),
            json!("counter stream cannot use message TTLs"),
        ),
        (
            json!({"allow_msg_counter": true, "retention": "interest"}),
            json!("counter stream can only use limits retention"),
        ),
    ] {
        assert_eq!(checked(&fields, false), expected, "{fields}");
    }
}

#[test]
fn pedantic() {
    for (fields, expected) in [
        (json!({}), json!({})),
        (json!({"max_msgs": 0, "max_bytes": -1}), json!({})),
        (json!({"max_msgs": -5}), json!("pedantic mode: max_msgs must be set to -1")),
        (json!({"max_msg_size": -5}), json!("pedantic mode: max_msg_size must be set to -1")),
        (json!({"max_consumers": -5}), json!("pedantic mode: max_consumers must be set to -1")),
        (json!({"max_age": S}), json!("pedantic mode: duplicate window cannot be bigger than max age")),
        (
            json!({"subject_delete_marker_ttl": S}),
            json!("subject delete marker cannot be set if message TTLs are disabled"),
        ),
        (
            json!({"subject_delete_marker_ttl": S, "allow_msg_ttl": true}),
            json!("subject delete marker cannot be set if roll-ups are disabled"),
        ),
    ] {
        assert_eq!(checked(&fields, true), expected, "{fields}");
    }
}

#[test]
fn mappings() {
    let republish = |fields: Value| json!({"republish": fields});
    let transform = |fields: Value| json!({"subject_transform": fields});
    let cycle = json!("stream configuration for republish destination forms a cycle");
    let not_valid = |src: &str, dest: &str| {
        json!(format!("stream configuration for republish with transform from '{src}' to '{dest}' not valid"))
    };
    let same = |fields: Value| (fields.clone(), fields);
    for (fields, expected) in [
        same(republish(json!({"src": "T", "dest": "U"}))),
        same(republish(json!({"src": "T", "dest": "T.x"}))),
        same(republish(json!({"src": ">", "dest": "T.>"}))),
        same(republish(json!({"src": "Z", "dest": "U"}))),
        (republish(json!({"src": "", "dest": "U"})), not_valid(">", "U")),
        (republish(json!({"src": "T", "dest": "T"})), cycle.clone()),
        (republish(json!({"src": ">", "dest": ">"})), cycle),
        (
            republish(json!({"src": "T.*", "dest": "U.{{wildcard(2)}}"})),
            not_valid("T.*", "U.{{wildcard(2)}}"),
        ),
        (republish(json!({"src": "T", "dest": "U.*"})), not_valid("T", "U.*")),
        same(transform(json!({"src": "T", "dest": "U"}))),
        same(transform(json!({"src": ">", "dest": "U.>"}))),
        same(transform(json!({"src": "T.*", "dest": "U.{{wildcard(1)}}"}))),
        same(transform(json!({"src": "T.*", "dest": "U"}))),
        same(transform(json!({"src": "T", "dest": ""}))),
        (transform(json!({"src": "", "dest": "U"})), json!("stream transform: invalid subject")),
        (
            transform(json!({"src": "T..", "dest": "U"})),
            json!("stream transform source: invalid subject T.."),
        ),
        (transform(json!({"src": "T.>", "dest": "U.*"})), json!("stream transform: invalid subject")),
        (
            transform(json!({"src": "T.*", "dest": "U.{{wildcard(2)}}"})),
            json!(
                "stream transform: invalid mapping destination: wildcard index out of range in {{wildcard(2)}}: [2]"
            ),
        ),
        (
            transform(json!({"src": "T.*", "dest": "U.{{foo(1)}}"})),
            json!("stream transform: invalid mapping destination: unknown function in {{foo(1)}}"),
        ),
        (
            json!({"republish": {"src": ">", "dest": ">"}, "subject_transform": {"src": "T", "dest": "U"}}),
            json!({"republish": {"src": "U", "dest": "U"}, "subject_transform": {"src": "T", "dest": "U"}}),
        ),
    ] {
        assert_eq!(checked(&fields, false), expected, "{fields}");
    }
}

#[test]
fn updates() {
    let retention = "stream configuration update can not change retention policy to/from workqueue";
    let persist = "stream configuration update can not change persist mode";
    for (old, new, expected) in [
        (json!({}), json!({}), ""),
        (json!({}), json!({"storage": "memory"}), "stream configuration update can not change storage type"),
        (json!({}), json!({"retention": "interest"}), ""),
        (json!({"retention": "interest"}), json!({}), ""),
        (json!({}), json!({"retention": "workqueue"}), retention),
        (json!({"retention": "workqueue"}), json!({}), retention),
        (
            json!({"deny_delete": true}),
            json!({}),
            "stream configuration update can not cancel deny message deletes",
        ),
        (json!({"deny_purge": true}), json!({}), "stream configuration update can not cancel deny purge"),
        (json!({"allow_msg_ttl": true}), json!({}), "message TTL status can not be disabled"),
        (json!({"persist_mode": "async"}), json!({}), persist),
        (json!({}), json!({"persist_mode": "async"}), persist),
        (json!({}), json!({"mirror_direct": true}), ""),
        (json!({"first_seq": 10}), json!({"first_seq": 12}), ""),
        (
            json!({"deny_purge": true}),
            json!({"deny_purge": true, "allow_rollup_hdrs": true}),
            "roll-ups require the purge permission",
        ),
    ] {
        let limits = StreamLimits::default();
        let old = check(&parse(old), limits, false).expect("valid");
        let updated = check_update(&old, &parse(new.clone()), std::iter::empty(), limits, false);
        assert_eq!(updated.err().map_or(String::new(), |error| error.to_string()), expected, "{new}");
    }
}

#[test]
fn sealing_freezes() {
    let limits = StreamLimits::default();
    let old = check(&parse(json!({"max_age": S, "allow_rollup_hdrs": true})), limits, false).expect("valid");
    let update = json!({"max_age": S, "allow_rollup_hdrs": true, "sealed": true});
    let sealed = check_update(&old, &parse(update), std::iter::empty(), limits, false).expect("valid");
    assert!(sealed.sealed && sealed.deny_delete && sealed.deny_purge && !sealed.allow_rollup_hdrs);
    assert_eq!((sealed.max_age, sealed.discard), (Span::ZERO, Discard::New));
    for (update, expected) in [
        (json!({}), "stream configuration update can not unseal a sealed stream"),
        (json!({"sealed": true}), "stream configuration update can not cancel deny message deletes"),
        (json!({"sealed": true, "deny_delete": true, "deny_purge": true, "description": "x"}), ""),
    ] {
        let updated = check_update(&sealed, &parse(update), std::iter::empty(), limits, false);
        assert_eq!(updated.err().map_or(String::new(), |error| error.to_string()), expected);
    }
}

#[test]
fn mirrors_and_sources() {
    let code = |code: u16, text: &str| json!(format!("{text} (err_code {code})"));
    let overlapping = json!([{"src": "a.*", "dest": "x.$1"}, {"src": "a.b", "dest": ""}]);
    let out_of_range = "invalid mapping destination: wildcard index out of range in $2: [2]";
    for (fields, expected) in [
        (json!({"mirror": {}}), code(10142, "")),
        (json!({"mirror": {"name": "a.b"}}), code(10142, "")),
        (json!({"mirror": {"name": "T"}}), json!("detected cycle")),
        (json!({"mirror": {"name": "O"}, "subjects": ["m"]}), code(10034, "")),
        (json!({"mirror": {"name": "O"}, "sources": [{"name": "P"}]}), code(10031, "")),
        (json!({"mirror": {"name": "O"}, "first_seq": 5}), code(10143, "")),
        (json!({"mirror": {"name": "O"}, "allow_msg_counter": true}), code(10173, "")),
        (json!({"mirror": {"name": "O"}, "allow_atomic": true}), code(10198, "")),
        (json!({"mirror": {"name": "O"}, "allow_batched": true}), code(10209, "")),
        (json!({"mirror": {"name": "O"}, "allow_msg_schedules": true}), code(10186, "")),
        (
            json!({"mirror": {"name": "O"}, "subject_delete_marker_ttl": 2 * S}),
            json!("subject delete markers forbidden on mirrors"),
        ),
        (
            json!({"mirror": {"name": "O", "filter_subject": "a", "subject_transforms": [{"src": "a", "dest": "x"}]}}),
            code(10150, ""),
        ),
        (
            json!({"mirror": {"name": "O", "subject_transforms": [{"src": "a..b", "dest": "x"}]}}),
            code(10151, "invalid subject a..b"),
        ),
        (
            json!({"mirror": {"name": "O", "subject_transforms": [{"src": "a.*", "dest": "x.$2"}]}}),
            code(10154, out_of_range),
        ),
        (json!({"mirror": {"name": "O", "subject_transforms": overlapping}}), code(10152, "")),
        (json!({"sources": [{}]}), code(10141, "")),
        (json!({"sources": [{"name": "T"}]}), json!("detected cycle")),
        (json!({"sources": [{"name": "O"}], "allow_msg_schedules": true}), code(10187, "")),
        (json!({"sources": [{"name": "O"}, {"name": "O"}]}), code(10140, "")),
        (
            json!({"sources": [{"name": "O", "filter_subject": "a", "subject_transforms": [{"src": "a", "dest": "x"}]}]}),
            code(10144, ""),
        ),
        (
            json!({"sources": [{"name": "O", "subject_transforms": [{"src": "a..b", "dest": "x"}]}]}),
            code(10145, "invalid subject a..b"),
        ),
        (
            json!({"sources": [{"name": "O", "subject_transforms": [{"src": "a.*", "dest": "x.$2"}]}]}),
            code(10146, out_of_range),
        ),
        (json!({"sources": [{"name": "O", "subject_transforms": overlapping}]}), code(10147, "")),
    ] {
        assert_eq!(checked(&fields, false), expected, "{fields}");
    }
    let taken = parse(
        json!({"sources": [{"name": "O", "filter_subject": "a.*"}, {"name": "O", "filter_subject": "a.b"}]}),
    );
    let taken = check(&taken, StreamLimits::default(), false).expect("filters of two sources may overlap");
    assert!(taken.subjects.is_empty() && taken.duplicate_window.is_zero() && taken.sources.len() == 2);
}

#[test]
fn a_mirror_stays_or_is_promoted() {
    let limits = StreamLimits::default();
    let old = check(&parse(json!({"mirror": {"name": "O"}})), limits, false).expect("it is valid");
    let update = |fields| check_update(&old, &parse(fields), std::iter::empty(), limits, false);
    let refused = ConfigError::Rule { err_code: 10055, text: String::new() };
    assert_eq!(update(json!({"mirror": {"name": "P"}})), Err(refused.clone()));
    assert!(update(json!({"mirror": {"name": "O"}, "max_msgs": 5})).is_ok());
    let own = update(json!({"subjects": ["m.*"]})).expect("it is promoted");
    assert_eq!((own.mirror.is_none(), own.duplicate_window), (true, DUPLICATE_WINDOW));
    let back = check_update(&own, &old, std::iter::empty(), limits, false);
    assert_eq!(back, Err(refused));
}
