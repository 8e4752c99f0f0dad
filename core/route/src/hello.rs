//! What servers say of themselves: at first, and when it changes.

use hw_kit::{NodeId, Time};

use crate::compress::Wish;
use crate::fields::{FieldError, Fields, put_list, put_text};
use crate::limits::LIST_MAX;

/// The version of the bodies that this server speaks; [`crate::MAGIC`] names that of the frames.
pub(crate) const VERSION: u16 = 5;

/// Who a server is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hello {
    /// The oldest version that it speaks, and the newest.
    pub versions: (u16, u16),
    /// Its public key.
    pub server_id: String,
    /// Its name.
    pub name: String,
    /// The incarnation of its JetStream store.
    pub node: NodeId,
    /// The release that it runs.
    pub release: String,
    /// Who it shows to be; empty if it is not asked for that.
    pub user: String,
    /// The password for that.
    pub pass: String,
    /// What changes while it runs.
    pub news: News,
    /// How it wants its links.
    pub compression: Wish,
}

/// What may change while a server runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// The cluster's name.
    pub cluster: String,
    /// That name was made up.
    pub dynamic: bool,
    /// Where other servers reach it: `host:port`, or `:port` on the host that it is seen on.
    pub address: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Where clients with websockets reach it.
    pub ws_urls: Vec<String>,
    /// It is about to go.
    pub lame_duck: bool,
    /// The servers that it is linked with: their ids and addresses.
    pub members: Vec<(String, String)>,
}

impl News {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.cluster);
        out.push(u8::from(self.dynamic));
        put_text(out, &self.address);
        put_list(out, &self.client_urls, |out, url| put_text(out, url));
        put_list(out, &self.ws_urls, |out, url| put_text(out, url));
        out.push(u8::from(self.lame_duck));
        put_list(out, &self.members, |out, (id, address)| {
            put_text(out, id);
            put_text(out, address);
        });
    }

    fn read(fields: &mut Fields<'_>) -> Result<News, FieldError> {
        Ok(News {
            cluster: fields.text()?,
            dynamic: fields.flag()?,
            address: fields.text()?,
            client_urls: fields.list(LIST_MAX, Fields::text)?,
            ws_urls: fields.list(LIST_MAX, Fields::text)?,
            lame_duck: fields.flag()?,
            members: fields.list(LIST_MAX, |fields| Ok((fields.text()?, fields.text()?)))?,
        })
    }

    /// Reads them. What follows behind the known fields is of a newer version, and is left out.
    pub(crate) fn decode(body: &[u8]) -> Result<News, FieldError> {
        News::read(&mut Fields(body))
    }
}

impl Hello {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.versions.0.to_le_bytes());
        out.extend_from_slice(&self.versions.1.to_le_bytes());
        for text in [&self.server_id, &self.name, &self.release, &self.user, &self.pass] {
            put_text(&mut out, text);
        }
        out.extend_from_slice(&self.node.0.to_le_bytes());
        self.news.encode(&mut out);
        out.push(self.compression.number());
        out
    }

    /// The versions that the sender of a hello speaks: they come first in every version of it.
    pub(crate) fn versions(body: &[u8]) -> Result<(u16, u16), FieldError> {
        let mut fields = Fields(body);
        Ok((fields.u16()?, fields.u16()?))
    }

    /// Reads one. What follows behind the known fields is of a newer version, and is left out.
    pub fn decode(body: &[u8]) -> Result<Hello, FieldError> {
        let mut fields = Fields(body);
        let versions = (fields.u16()?, fields.u16()?);
        let mut hello = Hello { versions, ..Hello::default() };
        for text in
            [&mut hello.server_id, &mut hello.name, &mut hello.release, &mut hello.user, &mut hello.pass]
        {
            *text = fields.text()?;
        }
        hello.node = NodeId(fields.u64()?);
        hello.news = News::read(&mut fields)?;
        // Earlier builds end here.
        hello.compression = fields.byte().map_or(Wish::Off, Wish::of);
        Ok(hello)
    }
}

/// Why a server is not taken into the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It shows the wrong credentials.
    Authorization,
    /// Its cluster has another name.
    Cluster,
    /// It is this server.
    Itself,
    /// There is a link with it already.
    Duplicate,
    /// Another server has the same name.
    Name,
    /// It speaks no version that this server speaks.
    Version,
    /// There are too many connections.
    Full,
}

impl Refusal {
    fn number(self) -> u8 {
        match self {
            Refusal::Authorization => 1,
            Refusal::Cluster => 2,
            Refusal::Itself => 3,
            Refusal::Duplicate => 4,
            Refusal::Name => 5,
            Refusal::Version => 6,
            Refusal::Full => 7,
        }
    }

    fn of(number: u8) -> Option<Refusal> {
        Some(match number {
            1 => Refusal::Authorization,
            2 => Refusal::Cluster,
            3 => Refusal::Itself,
            4 => Refusal::Duplicate,
            5 => Refusal::Name,
            6 => Refusal::Version,
            7 => Refusal::Full,
            _ => return None,
        })
    }
}

/// A refusal as it travels: why, by whom, and a text for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refused {
    pub why: Refusal,
    pub server_id: String,
    pub text: String,
}

impl Refused {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.why.number()];
        put_text(&mut out, &self.server_id);
        put_text(&mut out, &self.text);
        out
    }

    pub fn decode(body: &[u8]) -> Result<Refused, FieldError> {
        let mut fields = Fields(body);
        let why = Refusal::of(fields.byte()?).ok_or(FieldError::Value)?;
        Ok(Refused { why, server_id: fields.text()?, text: fields.text()? })
    }
}

/// A sign of life, or the answer to one: when the sender of the beat sent it, by its own clock.
pub(crate) fn beat(sent: Time) -> [u8; 8] {
    sent.0.to_le_bytes()
}

pub(crate) fn read_beat(body: &[u8]) -> Result<Time, FieldError> {
    let mut fields = Fields(body);
    let sent = Time(fields.i64()?);
    fields.end().map(|()| sent)
}
