//! Responses: the envelope of each kind around the views that the machines give.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hw_kit::{Seq, Span, Time};
use serde::Serialize;

use crate::{ApiError, to_json};

macro_rules! kinds {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A kind of response; its name is in the `type` field.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(missing_docs)]
        pub enum Kind { $($name),* }

        impl Kind {
            /// The `type` field.
            pub fn type_name(self) -> &'static str {
                match self { $(Kind::$name => concat!("io.nats.jetstream.api.v1.", $text)),* }
            }
        }
    };
}

kinds! {
    AccountInfo = "account_info_response",
    StreamCreate = "stream_create_response",
    StreamUpdate = "stream_update_response",
    StreamNames = "stream_names_response",
    StreamList = "stream_list_response",
    StreamInfo = "stream_info_response",
    StreamDelete = "stream_delete_response",
    StreamPurge = "stream_purge_response",
    StreamSnapshot = "stream_snapshot_response",
    StreamRestore = "stream_restore_response",
    StreamStepdown = "stream_leader_stepdown_response",
    StreamPeerRemove = "stream_remove_peer_response",
    StreamPeerEvacuate = "stream_evacuate_peer_response",
    StreamMove = "stream_update_response",
    StreamCancelMove = "stream_cancel_move_response",
    AccountCancelMove = "stream_cancel_move_response",
    MessageGet = "stream_msg_get_response",
    MessageDelete = "stream_msg_delete_response",
    ConsumerCreate = "consumer_create_response",
    ConsumerDurableCreate = "consumer_create_response",
    ConsumerNames = "consumer_names_response",
    ConsumerList = "consumer_list_response",
    ConsumerInfo = "consumer_info_response",
    ConsumerDelete = "consumer_delete_response",
    ConsumerPause = "consumer_pause_response",
    ConsumerUnpin = "consumer_unpin_response",
    ConsumerReset = "consumer_reset_response",
    ConsumerStepdown = "consumer_leader_stepdown_response",
    MetaStepdown = "meta_leader_stepdown_response",
    MetaRescue = "meta_rescue_response",
    ServerRemove = "meta_server_remove_response",
    ServerEvacuate = "meta_server_evacuate_response",
    AccountPurge = "account_purge_response",
}

impl Kind {
    /// Whether only a cluster can do it.
    pub fn needs_cluster(self) -> bool {
        matches!(
            self,
            Kind::StreamStepdown
                | Kind::StreamPeerRemove
                | Kind::StreamPeerEvacuate
                | Kind::StreamCancelMove
                | Kind::ConsumerStepdown
        )
    }

    /// Whether it is for the system account alone, and for clusters: who else asks is not heard.
    pub fn is_for_operators(self) -> bool {
        matches!(
            self,
            Kind::MetaStepdown
                | Kind::ServerRemove
                | Kind::ServerEvacuate
                | Kind::AccountPurge
                | Kind::StreamMove
                | Kind::AccountCancelMove
                | Kind::MetaRescue
        )
    }
}

/// How many entries a page of a list holds.
pub(crate) const LIST_LIMIT: usize = 256;
/// How many entries a page of names holds.
pub(crate) const NAMES_LIMIT: usize = 1024;

#[derive(Serialize)]
struct ErrorResponse<'a> {
    r#type: &'static str,
    error: &'a ApiError,
}

#[derive(Serialize)]
struct FailedPage<'a> {
    r#type: &'static str,
    error: &'a ApiError,
    total: u64,
    offset: u64,
    limit: u64,
}

#[derive(Serialize)]
struct FailedPurge<'a> {
    r#type: &'static str,
    error: &'a ApiError,
    purged: u64,
}

#[derive(Serialize)]
struct FailedPause<'a> {
    r#type: &'static str,
    error: &'a ApiError,
    paused: bool,
    pause_until: String,
}

/// An error response.
pub fn error(kind: Kind, error: &ApiError) -> Vec<u8> {
    let r#type = kind.type_name();
    match kind {
        Kind::StreamInfo
        | Kind::StreamNames
        | Kind::StreamList
        | Kind::ConsumerNames
        | Kind::ConsumerList => to_json(&FailedPage { r#type, error, total: 0, offset: 0, limit: 0 }),
        Kind::StreamPurge => to_json(&FailedPurge { r#type, error, purged: 0 }),
        Kind::ConsumerPause => {
            to_json(&FailedPause { r#type, error, paused: false, pause_until: Time(0).to_rfc3339() })
        }
        Kind::StreamRestore => crate::backup::restore_refused(error),
        _ => to_json(&ErrorResponse { r#type, error }),
    }
}

#[derive(Serialize)]
struct Success {
    r#type: &'static str,
    success: bool,
}

#[derive(Serialize)]
struct Bare {
    r#type: &'static str,
}

/// An answer that says nothing but what it answers.
pub fn bare(kind: Kind) -> Vec<u8> {
    to_json(&Bare { r#type: kind.type_name() })
}

/// `{"success": true}`.
pub fn success(kind: Kind) -> Vec<u8> {
    to_json(&Success { r#type: kind.type_name(), success: true })
}

#[derive(Serialize)]
struct Purged {
    r#type: &'static str,
    success: bool,
    purged: u64,
}

/// The answer to a purge.
pub fn purged(count: u64) -> Vec<u8> {
    to_json(&Purged { r#type: Kind::StreamPurge.type_name(), success: true, purged: count })
}

#[derive(Serialize)]
struct Page<'a, T: Serialize> {
    r#type: &'static str,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<&'a [T]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<&'a [T]>,
}

fn page<T: Serialize>(kind: Kind, all: &[T], offset: u64, limit: usize) -> Vec<u8> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
    let part = &all[offset..all.len().min(offset.saturating_add(limit))];
    let of_streams = matches!(kind, Kind::StreamNames | Kind::StreamList);
    to_json(&Page {
        r#type: kind.type_name(),
        total: all.len(),
        offset,
        limit,
        streams: of_streams.then_some(part),
        consumers: (!of_streams).then_some(part),
    })
}

#[derive(Serialize)]
struct NullNames {
    r#type: &'static str,
    total: usize,
    offset: usize,
    limit: usize,
    streams: Option<()>,
}

/// A page of names, sorted by the caller; a page without any stream is null.
pub fn names(kind: Kind, all: &[&str], offset: u64) -> Vec<u8> {
    if kind == Kind::StreamNames && offset >= all.len() as u64 {
        let (r#type, total) = (kind.type_name(), all.len());
        return to_json(&NullNames { r#type, total, offset: total, limit: NAMES_LIMIT, streams: None });
    }
    page(kind, all, offset, NAMES_LIMIT)
}

/// A page of stream infos.
pub fn stream_list<T: Serialize>(all: &[T], offset: u64) -> Vec<u8> {
    page(Kind::StreamList, all, offset, LIST_LIMIT)
}

/// A page of consumer infos.
pub fn consumer_list<T: Serialize>(all: &[T], offset: u64) -> Vec<u8> {
    page(Kind::ConsumerList, all, offset, LIST_LIMIT)
}

#[derive(Serialize)]
struct Enveloped<'a, T: Serialize> {
    r#type: &'static str,
    #[serde(flatten)]
    view: &'a T,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    did_create: bool,
}

/// The answer to a stream create (`did_create` when the stream is new) or update.
pub fn stream_create<T: Serialize>(kind: Kind, info: &T, did_create: bool) -> Vec<u8> {
    to_json(&Enveloped { r#type: kind.type_name(), view: info, did_create })
}

#[derive(Serialize)]
struct StreamInfoResponse<'a, T: Serialize> {
    r#type: &'static str,
    total: u64,
    offset: u64,
    limit: u64,
    #[serde(flatten)]
    view: &'a T,
}

/// The answer to a stream info; `subjects` is (total, offset, limit) of the subjects page, zeros without one.
pub fn stream_info<T: Serialize>(info: &T, subjects: (u64, u64, u64)) -> Vec<u8> {
    let (total, offset, limit) = subjects;
    to_json(&StreamInfoResponse { r#type: Kind::StreamInfo.type_name(), total, offset, limit, view: info })
}

/// A consumer's info as the answer to `kind`.
pub fn consumer_info<T: Serialize>(kind: Kind, info: &T) -> Vec<u8> {
    to_json(&Enveloped { r#type: kind.type_name(), view: info, did_create: false })
}

#[derive(Serialize)]
struct Reset<'a, T: Serialize> {
    r#type: &'static str,
    #[serde(flatten)]
    view: &'a T,
    reset_seq: u64,
}

/// The answer to a consumer reset.
pub fn consumer_reset<T: Serialize>(info: &T, seq: Seq) -> Vec<u8> {
    to_json(&Reset { r#type: Kind::ConsumerReset.type_name(), view: info, reset_seq: seq.0 })
}

#[derive(Serialize)]
struct Paused {
    r#type: &'static str,
    paused: bool,
    pause_until: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
}

/// The answer to a consumer pause: until when, `Time(0)` when it runs.
pub fn consumer_pause(now: Time, until: Time) -> Vec<u8> {
    let remaining = until.since(now);
    let paused = until.is_set() && remaining > Span::ZERO;
    to_json(&Paused {
        r#type: Kind::ConsumerPause.type_name(),
        paused,
        pause_until: until.to_rfc3339(),
        pause_remaining: paused.then_some(remaining.0),
    })
}

#[derive(Serialize)]
struct MessageResponse<'a> {
    r#type: &'static str,
    message: StoredMessage<'a>,
}

#[derive(Serialize)]
struct StoredMessage<'a> {
    subject: &'a str,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hdrs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    time: String,
}

/// The answer to a message get; `no_hdr` leaves the headers out.
pub fn message(found: &hw_store::messages::Message, no_hdr: bool) -> Vec<u8> {
    let encode = |bytes: &[u8]| (!bytes.is_empty()).then(|| STANDARD.encode(bytes));
    let subject = String::from_utf8_lossy(found.record.subject());
    let message = StoredMessage {
        subject: &subject,
        seq: found.seq.0,
        hdrs: encode(if no_hdr { b"" } else { found.record.header() }),
        data: encode(found.record.payload()),
        time: found.ts.to_rfc3339(),
    };
    to_json(&MessageResponse { r#type: Kind::MessageGet.type_name(), message })
}

/// What an account may have; -1 means no limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct AccountLimits {
    pub max_memory: i64,
    pub max_storage: i64,
    pub max_streams: i64,
    pub max_consumers: i64,
    pub max_ack_pending: i64,
    pub memory_max_stream_bytes: i64,
    pub storage_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

/// How many API requests were made.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ApiStats {
    pub level: u32,
    pub total: u64,
    pub errors: u64,
}

/// What an account has and may have.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct AccountInfo {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub streams: usize,
    pub consumers: usize,
    pub limits: AccountLimits,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    pub api: ApiStats,
}

impl AccountInfo {
    /// The answer to an account info request.
    pub fn response(&self) -> Vec<u8> {
        to_json(&Enveloped { r#type: Kind::AccountInfo.type_name(), view: self, did_create: false })
    }
}

/// The API level of this server: that of nats-server 2.15.
pub const API_LEVEL: u32 = 5;

/// Whether this server has the level that a request with this header block asks for, if it asks for one.
pub fn has_level(header: &[u8]) -> bool {
    let required = hw_wire::headers::get(header, "Nats-Required-Api-Level").unwrap_or_default();
    let text = std::str::from_utf8(required).unwrap_or("unreadable");
    required.is_empty() || text.parse::<i64>().is_ok_and(|level| level <= i64::from(API_LEVEL))
}

/// Adds what responses about one asset say beside the user's metadata: the server's version and level.
pub fn stamp(metadata: &mut BTreeMap<String, String>, version: &str) {
    metadata.insert("_nats.level".to_owned(), API_LEVEL.to_string());
    metadata.insert("_nats.ver".to_owned(), version.to_owned());
}
