//! Everything that a server says it has, asked over the wire while all others are silent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hw_kit::Span;
use serde_json::{Value, json};

use crate::workload::Workload;
use crate::world::World;

/// No pull of the workload waits longer, its way to the server included.
const PULLS_END: Span = Span::from_millis(150);

/// One stored message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The subject.
    pub subject: String,
    /// The header block.
    pub header: Vec<u8>,
    /// The body.
    pub payload: Vec<u8>,
    /// The server's time of it.
    pub time: String,
}

/// One stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDump {
    /// The answer to `STREAM.INFO`.
    pub info: Value,
    /// All messages.
    pub messages: BTreeMap<u64, Stored>,
    /// The consumers' infos.
    pub consumers: BTreeMap<String, Value>,
    /// Whether nothing moved while the messages were read.
    pub steady: bool,
}

/// A server's streams.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// By name.
    pub streams: BTreeMap<String, StreamDump>,
}

/// Silences everybody, waits for what is under way, and asks for everything.
pub fn audit(world: &mut World, workload: &mut Workload) -> Result<Dump, String> {
    workload.paused = true;
    let until = world.now() + Span::from_secs(15);
    while !workload.is_quiet() && world.now() < until {
        workload.run(world, Span::from_millis(2))?;
    }
    // Pulls that wait end: nothing is delivered while everything is read.
    workload.run(world, PULLS_END)?;
    let mut dump = Dump::default();
    for name in list(world, workload, "$JS.API.STREAM.NAMES", "streams")? {
        let Some(name) = name.as_str() else { return Err(format!("a stream is called {name}")) };
        let found = stream(world, workload, name)?;
        dump.streams.insert(name.to_owned(), found);
    }
    workload.paused = false;
    Ok(dump)
}

fn stream(world: &mut World, workload: &mut Workload, name: &str) -> Result<StreamDump, String> {
    let details = json!({ "deleted_details": true });
    let info = ask(world, workload, &format!("$JS.API.STREAM.INFO.{name}"), &details)?;
    let consumers = consumers(world, workload, name)?;
    let last = info["state"]["last_seq"].as_u64().ok_or_else(|| format!("no last_seq in {info}"))?;
    let mut messages = BTreeMap::new();
    let mut next = 1;
    while next <= last {
        let body = json!({ "seq": next, "next_by_subj": ">" });
        let answer = ask(world, workload, &format!("$JS.API.STREAM.MSG.GET.{name}"), &body)?;
        if answer["error"]["err_code"] == 10037 {
            break;
        }
        let message = &answer["message"];
        let Some(seq) = message["seq"].as_u64() else {
            return Err(format!("{name}: reading from {next} gave {answer}"));
        };
        if seq < next {
            return Err(format!("{name}: reading from {next} gave sequence {seq}"));
        }
        messages.insert(seq, stored(message)?);
        next = seq + 1;
    }
    let again = ask(world, workload, &format!("$JS.API.STREAM.INFO.{name}"), &details)?;
    let consumers_again = self::consumers(world, workload, name)?;
    let steady = again["state"] == info["state"] && consumers_again == consumers;
    Ok(StreamDump { info, messages, consumers, steady })
}

fn stored(message: &Value) -> Result<Stored, String> {
    let bytes = |field: &str| {
        let text = message[field].as_str().unwrap_or_default();
        STANDARD.decode(text).map_err(|error| format!("{field} of {message}: {error}"))
    };
    Ok(Stored {
        subject: message["subject"].as_str().unwrap_or_default().to_owned(),
        header: bytes("hdrs")?,
        payload: bytes("data")?,
        time: message["time"].as_str().unwrap_or_default().to_owned(),
    })
}

fn consumers(
    world: &mut World,
    workload: &mut Workload,
    stream: &str,
) -> Result<BTreeMap<String, Value>, String> {
    let listed = list(world, workload, &format!("$JS.API.CONSUMER.LIST.{stream}"), "consumers")?;
    let named = listed.into_iter().map(|mut info| {
        if let Some(info) = info.as_object_mut() {
            info.remove("ts");
        }
        (info["name"].as_str().unwrap_or_default().to_owned(), info)
    });
    Ok(named.collect())
}

/// All pages of a list.
fn list(
    world: &mut World,
    workload: &mut Workload,
    subject: &str,
    field: &str,
) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    loop {
        let answer = ask(world, workload, subject, &json!({ "offset": all.len() }))?;
        let page = answer[field].as_array().cloned().unwrap_or_default();
        let total = answer["total"].as_u64().ok_or_else(|| format!("{subject} gave {answer}"))?;
        let is_end = page.is_empty();
        all.extend(page);
        if is_end || all.len() as u64 >= total {
            return Ok(all);
        }
    }
}

fn ask(world: &mut World, workload: &mut Workload, subject: &str, body: &Value) -> Result<Value, String> {
    let msg = workload.ask(world, subject, body)?;
    msg.json().ok_or_else(|| format!("{subject} gave {:?}", String::from_utf8_lossy(&msg.payload)))
}
