//! What the fields of requests in the system account may hold: what `nats-server` knows by name has a type.

use serde_json::{Map, Value};

/// What a field holds. None of them minds a `null`.
#[derive(Clone, Copy, Debug)]
enum Type {
    Text,
    Flag,
    /// An integer.
    Int,
    /// One that is not negative.
    Count,
    Texts,
}

use Type::{Count, Flag, Int, Text, Texts};

type Fields = &'static [(&'static str, Type)];

/// Which servers are meant: a part of every request.
const FILTER: Fields = &[
    ("server_name", Text),
    ("cluster", Text),
    ("host", Text),
    ("exact_match", Flag),
    ("tags", Texts),
    ("domain", Text),
];

fn of_verb(verb: &str) -> Fields {
    match verb {
        "SUBSZ" => {
            &[("subscriptions", Flag), ("offset", Int), ("limit", Int), ("account", Text), ("test", Text)]
        }
        "CONNZ" => &[
            ("sort", Text),
            ("auth", Flag),
            ("subscriptions", Flag),
            ("subscriptions_detail", Flag),
            ("offset", Int),
            ("limit", Int),
            ("cid", Count),
            ("mqtt_client", Text),
            ("state", Int),
            ("user", Text),
            ("acc", Text),
            ("filter_subject", Text),
        ],
        "ROUTEZ" => &[("subscriptions", Flag), ("subscriptions_detail", Flag)],
        "GATEWAYZ" => &[
            ("subscriptions", Flag),
            ("subscriptions_detail", Flag),
            ("name", Text),
            ("accounts", Flag),
            ("account_name", Text),
        ],
        "LEAFZ" => &[("subscriptions", Flag), ("account", Text)],
        "ACCOUNTZ" => &[("account", Text)],
        "STATZ" => &[("accounts", Texts), ("include_unused", Flag)],
        "JSZ" => &[
            ("offset", Int),
            ("limit", Int),
            ("account", Text),
            ("accounts", Flag),
            ("streams", Flag),
            ("consumer", Flag),
            ("config", Flag),
            ("leader_only", Flag),
            ("raft", Flag),
            ("stream_leader_only", Flag),
        ],
        "HEALTHZ" => &[
            ("account", Text),
            ("stream", Text),
            ("consumer", Text),
            ("js-enabled", Flag),
            ("js-enabled-only", Flag),
            ("js-server-only", Flag),
            ("js-meta-only", Flag),
            ("details", Flag),
        ],
        "RAFTZ" => &[("account", Text), ("group", Text)],
        "KICK" => &[("cid", Count)],
        _ => &[],
    }
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Text, value) => value.is_string(),
            (Flag, value) => value.is_boolean(),
            (Int, value) => value.is_i64(),
            (Count, value) => value.is_u64(),
            (Texts, Value::Array(values)) => values.iter().all(Value::is_string),
            (Texts, _) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Text => "a string",
            Flag => "true or false",
            Int => "an integer",
            Count => "an integer that is not negative",
            Texts => "a list of strings",
        }
    }
}

/// What is wrong with the first field that holds what it must not.
pub(super) fn check(verb: &str, request: &Map<String, Value>) -> Result<(), String> {
    for (name, kind) in FILTER.iter().chain(of_verb(verb)) {
        if request.get(*name).is_some_and(|value| !kind.holds(value)) {
            return Err(format!("{name:?} must be {}", kind.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_each_request() {
        for (verb, body, wanted) in [
            ("CONNZ", r#"{"limit":1,"cid":7,"auth":true,"sort":"cid","tags":["x"],"user":null}"#, Ok(())),
            ("CONNZ", r#"{"limit":"1"}"#, Err("\"limit\" must be an integer")),
            ("CONNZ", r#"{"limit":1.5}"#, Err("\"limit\" must be an integer")),
            ("CONNZ", r#"{"cid":-1}"#, Err("\"cid\" must be an integer that is not negative")),
            ("VARZ", r#"{"limit":"1","sort":5}"#, Ok(())),
            ("VARZ", r#"{"tags":[1]}"#, Err("\"tags\" must be a list of strings")),
            ("STATZ", r#"{"accounts":"A"}"#, Err("\"accounts\" must be a list of strings")),
            ("JSZ", r#"{"accounts":true}"#, Ok(())),
            ("JSZ", r#"{"accounts":1}"#, Err("\"accounts\" must be true or false")),
            ("ACCOUNTZ", r#"{"account":1}"#, Err("\"account\" must be a string")),
        ] {
            let request = serde_json::from_str(body).expect(body);
            assert_eq!(check(verb, &request), wanted.map_err(str::to_owned), "{verb} {body}");
        }
    }
}
