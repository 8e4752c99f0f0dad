//! What monitoring shows of links.

use hw_kit::{LinkId, NodeId, Span, Time};

use crate::compress::Effort;
use crate::line::Line;
use crate::mesh::Mesh;

/// One link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkView {
    /// Its number.
    pub link: LinkId,
    /// The other server's id.
    pub server_id: String,
    /// The other server's name.
    pub name: String,
    /// The incarnation of its store.
    pub node: NodeId,
    /// Its address on this connection.
    pub remote: String,
    /// Whether it was dialled from here.
    pub dialled: bool,
    /// Whether the configuration names its address.
    pub configured: bool,
    /// When the connection began, by the mesh's clock.
    pub began: Time,
    /// When something last went over it, by the mesh's clock.
    pub active: Time,
    /// The way there and back.
    pub rtt: Span,
    /// Nothing was heard for a while.
    pub quiet: bool,
    /// How what is sent is compressed.
    pub compression: Effort,
    /// Bytes that wait to be sent.
    pub pending_bytes: usize,
    /// Bytes that came.
    pub in_bytes: u64,
    /// Bytes that were sent.
    pub out_bytes: u64,
}

impl Mesh {
    /// All links, by their numbers.
    pub fn links(&self) -> Vec<LinkView> {
        self.up().map(|(link, line)| self.view(link, line)).collect()
    }

    fn view(&self, link: LinkId, line: &Line) -> LinkView {
        LinkView {
            link,
            server_id: line.peer.server_id.clone(),
            name: line.peer.name.clone(),
            node: line.peer.node,
            remote: line.remote.clone(),
            dialled: line.dialled.is_some(),
            configured: self.is_configured(&line.peer.server_id),
            began: line.began,
            active: line.active,
            rtt: line.rtt,
            quiet: line.quiet,
            compression: self.effort(line),
            pending_bytes: line.queued,
            in_bytes: line.in_bytes,
            out_bytes: line.out_bytes,
        }
    }

    /// Where clients reach the other servers: over TCP, and with websockets. Servers that are about to go are left out.
    pub fn client_urls(&self) -> (Vec<String>, Vec<String>) {
        let staying = || self.up().map(|(_, line)| &line.peer.news).filter(|news| !news.lame_duck);
        let urls = staying().flat_map(|news| news.client_urls.iter().cloned()).collect();
        (urls, staying().flat_map(|news| news.ws_urls.iter().cloned()).collect())
    }
}
