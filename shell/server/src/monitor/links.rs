//! `/routez`, `/gatewayz`, `/leafz`: connections to other servers, of which this server has none.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::inner::Inner;

/// No connection of its kind: there is no value of it.
#[derive(Serialize)]
pub(crate) enum Link {}

#[derive(Serialize)]
pub(crate) struct Routez {
    server_id: String,
    server_name: String,
    now: String,
    num_routes: usize,
    routes: Vec<Link>,
}

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

pub(crate) fn routez(inner: &Inner) -> Routez {
    let (server_id, server_name) = (inner.facts.id.clone(), inner.facts.name.clone());
    Routez { server_id, server_name, now: inner.now().to_rfc3339(), num_routes: 0, routes: Vec::new() }
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
