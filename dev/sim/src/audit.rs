//! Everything that a server says it has, asked over the wire while all others are silent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hw_kit::Span;
use serde_json::{Value, json};

use crate::workload::{Workload, is_schedule};
use crate::world::World;

/// No pull of the workload waits longer, its way to the server included.
const PULLS_END: Span = Span::from_millis(150);

/// Messages of one direct get.
const DIRECT_BATCH: u64 = 200;

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
    /// The last sequence after all messages were read: some may have come and driven out others meanwhile.
    pub last: u64,
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
    let pace = if workload.cluster.is_some() { 5 } else { 1 };
    workload.run(world, Span(PULLS_END.0 * pace))?;
    let mut dump = Dump::default();
    for name in list(world, workload, "$JS.API.STREAM.NAMES", "streams")? {
        let Some(name) = name.as_str() else { return Err(format!("a stream is called {name}")) };
        if workload.history.unreachable.contains(name) {
            continue;
        }
        let found = stream(world, workload, name)?;
        dump.streams.insert(name.to_owned(), found);
    }
    workload.paused = false;
    Ok(dump)
}

/// Whether any consumer has anything that is not settled.
pub fn has_work(world: &mut World, workload: &mut Workload) -> Result<bool, String> {
    for name in list(world, workload, "$JS.API.STREAM.NAMES", "streams")? {
        if name.as_str().is_some_and(|name| workload.history.unreachable.contains(name)) {
            continue;
        }
        for info in consumers(world, workload, name.as_str().unwrap_or_default())?.values() {
            if info["num_pending"] != 0 || info["num_ack_pending"] != 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether anything is still to be published at its time: when that is there, consumers have work again.
pub fn has_schedules(world: &mut World, workload: &mut Workload) -> Result<bool, String> {
    for name in list(world, workload, "$JS.API.STREAM.NAMES", "streams")? {
        let Some(name) = name.as_str().filter(|name| !workload.history.unreachable.contains(*name)) else {
            continue;
        };
        let subjects = json!({ "subjects_filter": ">" });
        let info = ask(world, workload, &format!("$JS.API.STREAM.INFO.{name}"), &subjects)?;
        let allows = info["config"]["allow_msg_schedules"] == true;
        let subjects = info["state"]["subjects"].as_object().filter(|_| allows);
        if subjects.is_some_and(|subjects| subjects.keys().any(|subject| is_schedule(subject))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn stream(world: &mut World, workload: &mut Workload, name: &str) -> Result<StreamDump, String> {
    let details = json!({ "deleted_details": true });
    let info = ask(world, workload, &format!("$JS.API.STREAM.INFO.{name}"), &details)?;
    let consumers = consumers(world, workload, name)?;
    let last = info["state"]["last_seq"].as_u64().ok_or_else(|| format!("no last_seq in {info}"))?;
    let messages = match info["config"]["allow_direct"] == true {
        true => direct(world, workload, name, last)?,
        false => one_by_one(world, workload, name, last)?,
    };
    let again = ask(world, workload, &format!("$JS.API.STREAM.INFO.{name}"), &details)?;
    let consumers_again = self::consumers(world, workload, name)?;
    let steady = again["state"] == info["state"] && consumers_again == consumers;
    let last = again["state"]["last_seq"].as_u64().unwrap_or(last);
    Ok(StreamDump { info, messages, consumers, last, steady })
}

type Messages = BTreeMap<u64, Stored>;

/// By `STREAM.MSG.GET`.
fn one_by_one(world: &mut World, workload: &mut Workload, name: &str, last: u64) -> Result<Messages, String> {
    let mut messages = BTreeMap::new();
    let mut next = 1;
    while next <= last {
        let body = json!({ "seq": next, "next_by_subj": ">" });
        let answer = ask(world, workload, &format!("$JS.API.STREAM.MSG.GET.{name}"), &body)?;
        if answer["error"]["err_code"] == 10037 {
            break;
        }
        let message = &answer["message"];
        let Some(seq) = message["seq"].as_u64().filter(|seq| *seq >= next) else {
            return Err(format!("{name}: reading from {next} gave {answer}"));
        };
        messages.insert(seq, stored(message)?);
        next = seq + 1;
    }
    Ok(messages)
}

/// By batches of `DIRECT.GET`.
fn direct(world: &mut World, workload: &mut Workload, name: &str, last: u64) -> Result<Messages, String> {
    let mut messages = BTreeMap::new();
    let mut next = 1;
    while next <= last {
        let body = json!({ "seq": next, "batch": DIRECT_BATCH });
        let answers = workload.ask_many(world, &format!("$JS.API.DIRECT.GET.{name}"), &body)?;
        if answers.is_empty() {
            break;
        }
        for msg in answers {
            let field = |key: &str| msg.field(key).ok_or_else(|| format!("{name}: no {key} in a direct get"));
            let wrong =
                |_| format!("{name}: a direct get with the sequence {:?}", msg.field("Nats-Sequence"));
            let seq: u64 = field("Nats-Sequence")?.parse().map_err(wrong)?;
            if seq < next {
                return Err(format!("{name}: a direct get from {next} gave {seq}"));
            }
            let (subject, time) = (field("Nats-Subject")?, field("Nats-Time-Stamp")?);
            let header = msg.field("Nats-Msg-Id").unwrap_or_default().into_bytes();
            messages.insert(seq, Stored { subject, header, payload: msg.payload, time });
            next = seq + 1;
        }
    }
    Ok(messages)
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
