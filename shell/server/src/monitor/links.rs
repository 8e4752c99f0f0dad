//! `/gatewayz`, `/leafz`: connections to other clusters, of which this server has none.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::inner::Inner;

/// No connection of its kind: there is no value of it.
#[derive(Serialize)]
pub(crate) enum Link {}

#[derive(Serialize)]
pub(crate) struct Gatewayz {
    server_id: String,
    now: String,
    outbound_gateways: BTreeMap<String, Link>,
    inbound_gateways: BTreeMap<String, Link>,
}

#[derive(Serialize)]
pub(crate) struct Leafz {
    server_id: String,
    now: String,
    leafnodes: usize,
    leafs: Vec<Link>,
}

pub(crate) fn gatewayz(inner: &Inner) -> Gatewayz {
    Gatewayz {
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        outbound_gateways: BTreeMap::new(),
        inbound_gateways: BTreeMap::new(),
    }
}

pub(crate) fn leafz(inner: &Inner) -> Leafz {
    Leafz {
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        leafnodes: 0,
        leafs: Vec::new(),
    }
}
