//! What is asked of a cluster: other leaders, other places for streams, lists that several servers answer together.

use hw_stream::config::Placement;
use serde::{Deserialize, Serialize};

use crate::response::{Kind, LIST_LIMIT};
use crate::{ApiError, to_json};

/// Another leader, perhaps a certain one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StepdownBody {
    pub(crate) placement: PlacementBody,
}

/// What a new leader should be.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlacementBody {
    cluster: String,
    tags: Vec<String>,
    preferred: String,
}

impl From<PlacementBody> for Placement {
    fn from(PlacementBody { cluster, tags, preferred }: PlacementBody) -> Placement {
        Placement { cluster, tags, preferred }
    }
}

/// One of a group's servers.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PeerBody {
    pub(crate) peer: String,
    pub(crate) peer_id: String,
}

/// Where a stream is to move: away from a server, to servers with tags.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MoveBody {
    pub(crate) server: String,
    pub(crate) cluster: String,
    pub(crate) domain: String,
    pub(crate) tags: Vec<String>,
}

#[derive(Serialize)]
struct Initiated {
    r#type: &'static str,
    initiated: bool,
}

/// The answer to a purge of an account.
pub fn purge_begun() -> Vec<u8> {
    to_json(&Initiated { r#type: Kind::AccountPurge.type_name(), initiated: true })
}

#[derive(Serialize)]
struct NoRescue<'a> {
    r#type: &'static str,
    error: ApiError,
    server: &'a str,
    server_id: &'a str,
}

/// A server's answer to who wants fewer servers than a majority to decide about streams: never. Two halves of a cluster could
/// decide differently, and what was acknowledged would be gone.
pub fn no_rescue((server, server_id): (&str, &str), is_led: bool) -> Vec<u8> {
    let why = if is_led { LED } else { NEVER };
    let error = ApiError::with(10224, why);
    to_json(&NoRescue { r#type: Kind::MetaRescue.type_name(), error, server, server_id })
}

const LED: &str = "raft: leader is known";
const NEVER: &str = "a majority of the servers is needed: bring back enough of them, with their stores";

/// How many streams a list has on one page.
pub const STREAMS_PER_PAGE: usize = LIST_LIMIT;

#[derive(Serialize)]
struct Head {
    r#type: &'static str,
    total: usize,
    offset: usize,
    limit: usize,
}

/// A page of stream infos that came from several servers, each a JSON document already, and the names of those streams
/// that nobody answered for.
pub fn gathered_streams(
    (total, offset): (usize, usize),
    infos: impl Iterator<Item = String>,
    missing: &[String],
) -> Vec<u8> {
    let head = Head { r#type: Kind::StreamList.type_name(), total, offset, limit: LIST_LIMIT };
    let mut json = to_json(&head);
    json.pop();
    json.extend_from_slice(b",\"streams\":[");
    for (at, info) in infos.enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(info.as_bytes());
    }
    json.push(b']');
    if !missing.is_empty() {
        json.extend_from_slice(b",\"missing\":");
        json.append(&mut to_json(&missing));
    }
    json.push(b'}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_several_servers() {
        let infos = ["{\"a\":1}", "{\"b\":2}"].map(str::to_owned);
        let page = gathered_streams((3, 0), infos.into_iter(), &["C".to_owned()]);
        let page: serde_json::Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(
            page,
            serde_json::json!({
                "type": "io.nats.jetstream.api.v1.stream_list_response",
                "total": 3, "offset": 0, "limit": 256,
                "streams": [{"a": 1}, {"b": 2}],
                "missing": ["C"],
            })
        );
        let empty = gathered_streams((0, 0), std::iter::empty(), &[]);
        assert!(String::from_utf8(empty).unwrap().ends_with("\"streams\":[]}"));
    }
}
