//! Keys that are overwritten, purged and deleted, each by one client alone that knows what it must find.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::judge::{done, unbase64};
use crate::{Dice, Js, Lost};

pub(crate) const WORKERS: u64 = 2;
const KEYS: u64 = 24;
const STREAM: &str = "KEYS";

/// What a key holds: the sequence and the number that was written.
type Held = Option<(u64, u64)>;

/// A change that was asked for and not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Put(u64),
    Removal,
}

/// What one client knows of its keys.
#[derive(Default)]
pub(crate) struct Keys {
    worker: u64,
    next: u64,
    values: BTreeMap<u64, Held>,
    open: Option<(u64, Change)>,
    /// Changes that were answered.
    pub(crate) done: u64,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

impl Keys {
    pub(crate) fn new(worker: u64) -> Keys {
        Keys { worker, ..Keys::default() }
    }

    pub(crate) fn make_stream(js: &mut Js) -> Result<(), String> {
        let config = json!({ "name": STREAM, "subjects": ["keys.>"], "allow_direct": true, "storage": "file",
            "num_replicas": 1, "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "discard": "new" });
        done(&js.api(&format!("STREAM.CREATE.{STREAM}"), &config))
    }

    fn subject(&self, key: u64) -> String {
        format!("keys.{}.{key}", self.worker)
    }

    /// The payload says who wrote what; its length varies.
    fn payload(&self, number: u64) -> String {
        format!("{}:{number}:{}", self.worker, "v".repeat((number * 37 % 900) as usize))
    }

    fn read(&self, payload: &[u8]) -> Option<u64> {
        let text = String::from_utf8(payload.to_vec()).ok()?;
        let number = text.split(':').nth(1)?.parse().ok()?;
        (self.payload(number) == text).then_some(number)
    }

    /// Changes one key after the other until the connection ends.
    pub(crate) fn work(&mut self, port: u16, mut dice: Dice, stop: &AtomicBool) {
        let Ok(mut js) = Js::open(port) else { return };
        while !stop.load(Ordering::Relaxed) {
            match self.change(&mut js, &mut dice) {
                Ok(()) => self.done += 1,
                Err(Lost::Gone(_)) => return,
                Err(silent) => return self.wrong.push(silent.to_string()),
            }
        }
    }

    fn change(&mut self, js: &mut Js, dice: &mut Dice) -> Result<(), Lost> {
        let key = dice.below(KEYS);
        let held = self.values.get(&key).copied().flatten();
        match held {
            Some((seq, _)) if dice.one_in(6) => {
                self.open = Some((key, Change::Removal));
                let answer = if dice.one_in(2) {
                    let body = json!({ "filter": self.subject(key) });
                    js.api(&format!("STREAM.PURGE.{STREAM}"), &body)?
                } else {
                    let body = json!({ "seq": seq, "no_erase": dice.one_in(2) });
                    js.api(&format!("STREAM.MSG.DELETE.{STREAM}"), &body)?
                };
                if answer["success"] == true {
                    self.values.insert(key, None);
                } else {
                    self.wrong.push(format!("key {key} with {seq} could not be removed: {answer}"));
                }
            }
            _ => self.put(js, dice, key, held.map_or(0, |(seq, _)| seq))?,
        }
        self.open = None;
        Ok(())
    }

    fn put(&mut self, js: &mut Js, dice: &mut Dice, key: u64, last: u64) -> Result<(), Lost> {
        self.next += 1;
        let (number, reply) = (self.next, js.inbox());
        self.open = Some((key, Change::Put(number)));
        let (subject, payload) = (self.subject(key), self.payload(number));
        if dice.one_in(2) {
            let headers = format!("Nats-Expected-Last-Subject-Sequence: {last}");
            js.publish_headed(&subject, &reply, &headers, payload.as_bytes())?;
        } else {
            js.publish(&subject, &reply, payload.as_bytes())?;
        }
        loop {
            let frame = js.frame("a change of a key")?;
            if frame.subject.as_deref() != Some(&reply) {
                continue;
            }
            let ack: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            match ack["seq"].as_u64().filter(|_| ack["error"].is_null()) {
                Some(seq) => drop(self.values.insert(key, Some((seq, number)))),
                None => self.wrong.push(format!("key {key} with {last} could not be set: {ack}")),
            }
            return Ok(());
        }
    }

    /// Each key holds what was confirmed, or what the last change that was not answered would have made of it. Gives how many
    /// keys hold something.
    pub(crate) fn check(&mut self, js: &mut Js) -> Result<u64, String> {
        for key in 0..KEYS {
            let subject = self.subject(key);
            let body = json!({ "last_by_subj": subject });
            let got =
                js.api(&format!("STREAM.MSG.GET.{STREAM}"), &body).map_err(|error| error.to_string())?;
            let found = match got["error"]["err_code"].as_u64() {
                Some(10037) => None,
                Some(_) => return Err(format!("{subject}: {got}")),
                None => {
                    let bytes = got["message"]["data"].as_str().map(unbase64).unwrap_or_default();
                    let number = self
                        .read(&bytes)
                        .ok_or_else(|| format!("{subject} holds what nobody wrote: {got}"))?;
                    Some((got["message"]["seq"].as_u64().unwrap_or_default(), number))
                }
            };
            let held = self.values.get(&key).copied().flatten();
            let is_open = match self.open.filter(|(open, _)| *open == key).map(|(_, change)| change) {
                Some(Change::Put(number)) => found.is_some_and(|(_, found)| found == number),
                Some(Change::Removal) => found.is_none(),
                None => false,
            };
            if found != held && !is_open {
                let open = self.open;
                return Err(format!(
                    "{subject} holds {found:?}, confirmed was {held:?}; not answered: {open:?}"
                ));
            }
            self.values.insert(key, found);
        }
        self.open = None;
        Ok(self.values.values().flatten().count() as u64)
    }

    /// Nothing that was removed is still counted.
    pub(crate) fn check_count(js: &mut Js, live: u64) -> Result<(), String> {
        let info =
            js.api(&format!("STREAM.INFO.{STREAM}"), &Value::Null).map_err(|error| error.to_string())?;
        match info["state"]["messages"].as_u64() {
            Some(count) if count == live => Ok(()),
            _ => Err(format!("{live} keys hold something, but the stream's state is {}", info["state"])),
        }
    }
}
