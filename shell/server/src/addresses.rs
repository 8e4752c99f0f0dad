//! This machine's addresses, for clients that should reach a server which listens on all of them.

use std::net::IpAddr;

/// Addresses of interfaces that are up, without loopback and link-local ones.
pub(crate) fn of_this_machine() -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = found.into_iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    usable.map(|interface| interface.ip()).collect()
}
