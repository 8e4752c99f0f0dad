//! The server as a member of its cluster: the links' thread, and what clients are told of the other members.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use hw_conf::{ClusterOptions, Compression, Options, RouteUrl};
use hw_kit::{NodeId, Span};
use hw_net::{LinksConfig, Mail, Secure};
use hw_route::{Mesh, MeshConfig};
use hw_wire::{Info, encode};

use crate::inner::Inner;
use crate::link_tls::LinkTls;
use crate::{NATS_VERSION, StartError, VERSION};

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterFacts {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name was made up.
    pub(crate) dynamic: bool,
    pub(crate) no_advertise: bool,
    /// Where other servers reach this one.
    pub(crate) address: String,
    /// Where clients reach this server.
    pub(crate) own_urls: Vec<String>,
    pub(crate) auth_timeout: Span,
    pub(crate) tls: Option<Span>,
    pub(crate) write_deadline: Span,
}

/// The cluster as it is now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Members {
    /// Its name.
    pub(crate) name: String,
    /// Where clients reach its servers, this one first.
    pub(crate) client_urls: Vec<String>,
    /// Where clients with websockets reach them.
    pub(crate) ws_urls: Vec<String>,
    /// This server sends its clients away.
    pub(crate) lame_duck: bool,
}

/// A cluster to be joined: everything that can be wrong was looked at.
pub(crate) struct Joining {
    listener: TcpListener,
    secure: Option<LinkTls>,
}

impl Joining {
    /// Listens, and reads the certificates.
    pub(crate) fn new(
        options: &Options,
        bind: impl FnOnce(&hw_conf::Listen) -> Result<TcpListener, StartError>,
    ) -> Result<Option<Joining>, StartError> {
        let Some(cluster) = &options.cluster else { return Ok(None) };
        let Some(listen) = &cluster.listen else { return Ok(None) };
        let secure = cluster.tls.as_ref().map(LinkTls::new).transpose().map_err(StartError::Config)?;
        let mut listen = listen.clone();
        if listen.host.is_empty() {
            "0.0.0.0".clone_into(&mut listen.host);
        }
        Ok(Some(Joining { listener: bind(&listen)?, secure }))
    }

    /// How many servers the configuration knows of: those of the routes, and this one.
    pub(crate) fn expected(&self, cluster: &ClusterOptions) -> u32 {
        let port = self.listener.local_addr().map_or(0, |address| address.port());
        let own = crate::addresses::of_this_machine();
        let is_own = |address: &str| {
            let Some((host, at)) = address.rsplit_once(':') else { return false };
            let host = host.trim_matches(['[', ']']);
            let is_here = host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || own.contains(&ip));
            is_here && at.parse() == Ok(port)
        };
        let others: std::collections::BTreeSet<String> = routes(cluster)
            .into_iter()
            .map(|route| route.address)
            .filter(|address| !is_own(address))
            .collect();
        u32::try_from(others.len()).unwrap_or(u32::MAX - 1) + 1
    }

    /// What monitoring and clients see of it.
    pub(crate) fn facts(&self, options: &Options, own_urls: Vec<String>) -> ClusterFacts {
        let Some(cluster) = &options.cluster else { return ClusterFacts::default() };
        let host = cluster.listen.as_ref().map(|listen| listen.host.clone()).unwrap_or_default();
        let port = self.listener.local_addr().map_or(0, |address| address.port());
        let wildcard = matches!(host.as_str(), "" | "0.0.0.0" | "::");
        let address = match &cluster.advertise {
            Some(advertised)
                if advertised.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
            {
                advertised.clone()
            }
            Some(advertised) => format!("{advertised}:{port}"),
            None if wildcard => format!(":{port}"),
            None if host.contains(':') => format!("[{host}]:{port}"),
            None => format!("{host}:{port}"),
        };
        ClusterFacts {
            host: if host.is_empty() { "0.0.0.0".to_owned() } else { host },
            port,
            dynamic: cluster.name.is_none(),
            no_advertise: cluster.no_advertise,
            address,
            own_urls,
            auth_timeout: cluster.auth_timeout,
            tls: cluster.tls.as_ref().map(|tls| tls.timeout),
            write_deadline: cluster.write_deadline.unwrap_or(options.limits.write_deadline),
        }
    }
}

/// The name of the cluster: the configured one, or one that gives way to another server's.
pub(crate) fn name(cluster: &ClusterOptions, seed: u64) -> String {
    let made_up = || hw_kit::Nuid::new(&mut hw_kit::Rng::new(seed)).next_id();
    cluster.name.clone().unwrap_or_else(made_up)
}

/// The addresses to dial.
pub(crate) fn routes(cluster: &ClusterOptions) -> Vec<hw_route::RouteUrl> {
    let route = |RouteUrl { address, login }: RouteUrl| {
        let login = login.unwrap_or_default();
        hw_route::RouteUrl { address, user: login.user, pass: login.pass }
    };
    cluster.route_urls().into_iter().map(route).collect()
}

/// Starts the links' thread.
pub(crate) fn join(
    inner: &Arc<Inner>,
    options: &Options,
    joining: Joining,
    node: NodeId,
) -> Result<JoinHandle<()>, StartError> {
    let mesh = mesh_config(inner, options, node);
    let links = inner.links.clone().unwrap_or_default();
    let (inner, write_deadline) =
        (inner.clone(), inner.facts.cluster.clone().unwrap_or_default().write_deadline);
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!("the links' thread cannot run: {error}"),
        };
        let config = LinksConfig {
            mesh,
            listener: joining.listener,
            secure: joining.secure.map(|secure| Box::new(secure) as Box<dyn Secure>),
            write_deadline,
            mailbox: inner.mailboxes[0].clone(),
        };
        let news = Box::new(move |mesh: &Mesh| follow(&inner, mesh));
        let local = tokio::task::LocalSet::new();
        if let Err(error) = local.block_on(&runtime, links.serve(config, news)) {
            tracing::error!("cannot listen for routes: {error}");
        }
    };
    let thread = std::thread::Builder::new().name("links".to_owned()).spawn(run);
    thread.map_err(StartError::system("starting the links' thread"))
}

fn mesh_config(inner: &Inner, options: &Options, node: NodeId) -> MeshConfig {
    let facts = &inner.facts;
    let cluster = options.cluster.clone().unwrap_or_default();
    let own = facts.cluster.clone().unwrap_or_default();
    let login = cluster.login.clone().unwrap_or_default();
    let name = inner.members().name;
    let greeting = Info {
        server_id: facts.id.clone(),
        server_name: facts.name.clone(),
        version: NATS_VERSION.to_owned(),
        proto: 1,
        headwater: VERSION.to_owned(),
        host: own.host.clone(),
        port: own.port,
        headers: true,
        max_payload: options.limits.max_payload as usize,
        cluster: name.clone(),
        ..Info::default()
    };
    let mut greeting_line = Vec::new();
    encode::info(&mut greeting_line, &greeting);
    MeshConfig {
        server_id: facts.id.clone(),
        name: facts.name.clone(),
        release: VERSION.to_owned(),
        node,
        cluster: name,
        dynamic: own.dynamic,
        address: own.address,
        client_urls: if own.no_advertise { Vec::new() } else { own.own_urls },
        ws_urls: Vec::new(),
        user: login.user,
        pass: login.pass,
        auth_timeout: cluster.auth_timeout,
        routes: routes(&cluster),
        connect_retries: cluster.connect_retries,
        connect_backoff: cluster.connect_backoff,
        silent_after: cluster.silent_after(),
        compression: compression(cluster.compression.as_ref()),
        greeting: greeting_line,
        seed: crate::start::seed(),
    }
}

fn compression(wanted: Option<&Compression>) -> hw_route::Compression {
    match wanted {
        None | Some(Compression::Accept) => hw_route::Compression::Accept,
        Some(Compression::Off) => hw_route::Compression::Off,
        Some(Compression::Fast) => hw_route::Compression::Fast,
        Some(Compression::Better) => hw_route::Compression::Better,
        Some(Compression::Best) => hw_route::Compression::Best,
        Some(Compression::Auto(thresholds)) => hw_route::Compression::Auto(thresholds.clone()),
    }
}

/// Other members, or another name: clients are told.
fn follow(inner: &Inner, mesh: &Mesh) {
    let facts = inner.facts.cluster.clone().unwrap_or_default();
    let before = inner.members();
    let mut members =
        Members { name: mesh.cluster().to_owned(), lame_duck: before.lame_duck, ..Members::default() };
    if !before.lame_duck && !facts.no_advertise {
        members.client_urls.extend(facts.own_urls.iter().cloned());
    }
    if !facts.no_advertise {
        let (client_urls, ws_urls) = mesh.client_urls();
        members.client_urls.extend(client_urls);
        members.ws_urls.extend(ws_urls);
    }
    unique(&mut members.client_urls);
    unique(&mut members.ws_urls);
    if members.name != before.name {
        tracing::info!("Cluster name updated to {}", members.name);
    }
    if members != before {
        tell(inner, members);
    }
}

/// This server is about to go: it is no longer named, here and by the others.
pub(crate) fn lame_duck(inner: &Inner) {
    let Some(links) = &inner.links else { return };
    let own = inner.facts.cluster.clone().unwrap_or_default().own_urls;
    let mut members = inner.members();
    members.lame_duck = true;
    members.client_urls.retain(|url| !own.contains(url));
    tell(inner, members);
    links.run(|mesh, _| mesh.set_lame_duck());
}

fn tell(inner: &Inner, members: Members) {
    inner.set_members(members.clone());
    for mailbox in &inner.mailboxes {
        let members = members.clone();
        mailbox.post(Mail::Run(Box::new(move |shard, _| {
            let mut info = shard.hub().info().clone();
            info.cluster = members.name;
            info.connect_urls = members.client_urls;
            info.ws_connect_urls = members.ws_urls;
            if *shard.hub().info() != info {
                shard.hub_mut().set_info(info);
            }
        })));
    }
}

/// Leaves out what stands further in front already.
fn unique(urls: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    urls.retain(|url| seen.insert(url.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_named_once() {
        let mut urls = vec!["b".to_owned(), "a".to_owned(), "b".to_owned()];
        unique(&mut urls);
        assert_eq!(urls, ["b", "a"]);
    }
}
