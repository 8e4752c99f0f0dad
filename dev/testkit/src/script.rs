//! A script: what named connections send and what they must receive.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{json::Mode, template::Template};

/// All scripts of one file, with the server that they want.
#[derive(Clone, Debug)]
pub struct ScriptFile {
    /// Where it was read.
    pub path: PathBuf,
    /// Flags for the server.
    pub flags: Vec<String>,
    /// A configuration file for the server.
    pub config: Option<String>,
    /// In the order of the file.
    pub scripts: Vec<Script>,
}

/// One named script; it gets a server of its own.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's stem, a slash and the name.
    pub name: String,
    /// Where it was read.
    pub path: PathBuf,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub line: usize,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// `A opens`: TCP only; the first INFO can then be expected.
    Open { conn: String },
    /// `A connects {json}`: CONNECT with defaults overridden, PING, PONG.
    Connect { conn: String, options: Template },
    /// `A closes`
    Close { conn: String },
    /// `A ignores pings`
    Deaf { conn: String },
    /// `A> LINE`
    Send { conn: String, line: Template, body: Body },
    /// `A>raw BYTES` with `\r`, `\n`, `\t`, `\\`, `\xHH`
    SendRaw { conn: String, text: Template },
    /// `A< LINE`: the next frame
    Expect { conn: String, want: Pattern },
    /// `A<~ LINE`: some frame, now or later; what else came stays
    Eventually { conn: String, want: Pattern },
    /// `A,B< LINE`: exactly one of them gets it, the others get nothing; `{{who}}` is the one
    OneOf { conns: Vec<String>, want: Pattern },
    /// `A<closed`
    Closed { conn: String },
    /// `A<nothing` up to a PONG, or `A<nothing within 300ms`
    Nothing { conn: String, within: Option<Duration> },
    /// `A request SUBJECT | payload`, `A api STREAM.INFO.x {json}`
    Request { conn: String, subject: Template, body: Body },
    /// `A reply ...`: the answer to the last request
    Reply { conn: String, want: Pattern },
    /// `A until SUBJECT | payload` + pattern: asks again until the answer is as wanted
    Until { conn: String, subject: Template, body: Body, want: Pattern },
    /// `http 200 /path = {json}`
    Http { status: u16, path: Template, want: Pattern },
    /// `server restart`, `server kill9`, `server signal HUP`, `server config` + text
    Server(ServerStep),
}

#[derive(Clone, Debug)]
pub(crate) enum ServerStep {
    Config(String),
    Kill9,
    Restart,
    Signal(String),
}

/// What is sent with a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub headers: Vec<Template>,
    /// None: the line is sent alone, as it is written.
    pub payload: Option<Template>,
}

/// What a frame must look like.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// None: any line.
    pub line: Option<Template>,
    pub headers: Vec<Template>,
    /// Further headers may follow (written as `: ...`).
    pub is_open: bool,
    pub payload: Payload,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Empty,
    Text(Template),
    Json(Value, Mode),
}
