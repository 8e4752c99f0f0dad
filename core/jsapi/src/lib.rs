//! The JetStream JSON API: requests to typed values, results and errors to replies. Nothing else knows this JSON, and error
//! codes live here alone.

mod ack;
mod advisory;
mod backup;
mod cluster;
mod codes;
mod direct;
mod error;
mod fast;
mod json;
mod pub_ack;
mod pull;
mod request;
mod response;
mod user;

pub use ack::{AckSubject, ack_kind, ack_scope, flow_consumer, last_seen};
pub use advisory::{Audit, DamageFound, Event, Leadership, advisory, damage_subject};
pub use backup::{
    ArchivedState, SnapshotRequest, Transfer, archived_consumer, config_document, parse_archived_consumer,
    restore_begun, restore_subject, snapshot_ack_prefix, snapshot_begun,
};
pub use cluster::{STREAMS_PER_PAGE, gathered_streams, no_rescue, purge_begun};
pub use direct::{DirectGet, DirectRefusal, REQUIRED_API_LEVEL, direct_headers, status_header};
pub use error::{ApiError, store_stopped};
pub use fast::{fast_report, fast_slot, is_fast};
pub use json::to_json;
pub use pub_ack::{pub_ack, publish_refused};
pub use pull::pull_request;
pub use request::{ConsumerCreate, GetMessage, Parsed, Refused, Request, parse};
pub use response::{
    API_LEVEL, AccountInfo, AccountLimits, ApiStats, Kind, bare, consumer_info, consumer_list,
    consumer_pause, consumer_reset, error, has_level, message, names, purged, stamp, stream_create,
    stream_info, stream_list, success,
};
pub use user::{ServerInfo, UserInfo, user_info};
