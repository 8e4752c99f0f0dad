//! Judges what a server has after it was killed or lost its power.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::load::{Known, PUBLISHERS, STREAM, read_payload};
use crate::{Delivered, Js, Lost};

pub(crate) fn done(answer: &Result<Value, Lost>) -> Result<(), String> {
    match answer {
        Ok(answer) if answer["error"].is_null() => Ok(()),
        Ok(answer) => Err(answer.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Nothing is missing, invented, changed or out of order.
pub(crate) fn compare(messages: &[Delivered], known: &Known, from: u64) -> Result<(), String> {
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = from;
    for message in messages {
        if message.seq != next {
            return Err(format!("sequence {} comes where {next} should", message.seq));
        }
        next += 1;
        let Some((publisher, number)) = read_payload(&message.payload) else {
            return Err(format!("sequence {} holds what nobody sent", message.seq));
        };
        if message.subject != format!("load.{publisher}") || known.sent.get(&publisher) < Some(&number) {
            return Err(format!(
                "sequence {} holds {publisher}:{number} on {}",
                message.seq, message.subject
            ));
        }
        if newest.insert(publisher, number).is_some_and(|before| before >= number) {
            return Err(format!("sequence {}: {publisher}:{number} is out of order", message.seq));
        }
        if known.acked.get(&message.seq).is_some_and(|acked| *acked != (publisher, number)) {
            return Err(format!(
                "sequence {} holds {publisher}:{number}, acknowledged was another",
                message.seq
            ));
        }
    }
    match known.acked.range(next..).next() {
        Some((seq, named)) => {
            let (lost, all) = (known.acked.range(next..).count(), known.acked.len());
            let what = format!("{named:?} was acknowledged as {seq}, but the stream ends before {next}");
            Err(format!("{lost} of {all} acknowledged messages are lost: {what}"))
        }
        None => Ok(()),
    }
}

/// The consumer's numbers add up to what is known.
pub(crate) fn consumer(info: &Value, last: u64, known: &Known) -> Result<(), String> {
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let (pending, unacked) = (number(&info["num_pending"]), number(&info["num_ack_pending"]));
    let acked = last.checked_sub(pending).and_then(|rest| rest.checked_sub(unacked));
    let bounds = known.held.len() as u64..=known.settled.len() as u64;
    if !acked.is_some_and(|acked| bounds.contains(&acked)) {
        return Err(format!(
            "of {last} messages {pending} are pending and {unacked} unacknowledged, but {bounds:?}"
        ));
    }
    let floor = number(&info["ack_floor"]["stream_seq"]);
    match (1..=floor).find(|seq| !known.settled.contains(seq)) {
        Some(seq) => Err(format!("the ack floor is {floor}, but nobody acknowledged {seq}")),
        None => Ok(()),
    }
}

/// One message by every way that asks for one.
pub(crate) fn lookups(js: &mut Js, message: &Delivered) -> Result<(), String> {
    let text = |error: Lost| error.to_string();
    let body = json!({ "seq": message.seq });
    let got = js.api(&format!("STREAM.MSG.GET.{STREAM}"), &body).map_err(text)?;
    let data = got["message"]["data"].as_str().map(unbase64);
    if data.as_ref() != Some(&message.payload) {
        return Err(format!("STREAM.MSG.GET of {} gave {got}", message.seq));
    }
    let subject = format!("$JS.API.DIRECT.GET.{STREAM}");
    let got = js.request(&subject, body.to_string().as_bytes()).map_err(text)?;
    if got.payload != message.payload {
        return Err(format!("a direct get of {} gave {got}", message.seq));
    }
    Ok(())
}

/// The last message of each subject.
pub(crate) fn last_ones(js: &mut Js, messages: &[Delivered]) -> Result<(), String> {
    let text = |error: Lost| error.to_string();
    for publisher in 0..PUBLISHERS {
        let subject = format!("load.{publisher}");
        let Some(last) = messages.iter().rev().find(|message| message.subject == subject) else { continue };
        let got = js.request(&format!("$JS.API.DIRECT.GET.{STREAM}.{subject}"), b"").map_err(text)?;
        if got.payload != last.payload {
            return Err(format!("the last message of {subject} is {}, a direct get gave {got}", last.seq));
        }
    }
    let config = json!({ "name": "lasts", "deliver_policy": "last_per_subject", "ack_policy": "none",
        "filter_subject": "load.*" });
    let body = json!({ "stream_name": STREAM, "config": config });
    done(&js.api(&format!("CONSUMER.CREATE.{STREAM}.lasts.load.*"), &body))?;
    let request = json!({ "batch": PUBLISHERS + 1, "no_wait": true });
    let got: Vec<u64> =
        js.pull(STREAM, "lasts", &request).map_err(text)?.iter().map(|message| message.seq).collect();
    done(&js.api(&format!("CONSUMER.DELETE.{STREAM}.lasts"), &Value::Null))?;
    let mut lasts: BTreeMap<&str, u64> = BTreeMap::new();
    lasts.extend(messages.iter().map(|message| (message.subject.as_str(), message.seq)));
    let wanted: BTreeSet<u64> = lasts.into_values().collect();
    // Subjects whose last message is older than what was read are in the answer, too.
    match wanted.iter().find(|seq| !got.contains(seq)) {
        Some(seq) => Err(format!("last_per_subject gave {got:?}, without {seq}")),
        None => Ok(()),
    }
}

pub(crate) fn unbase64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits =
            chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}
