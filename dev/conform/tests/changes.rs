//! Killed without warning while streams and consumers come and go, keys are overwritten and streams are purged: what was
//! answered holds, and the one request that was under way happened wholly or not at all.
//!
//! `HEADWATER_CRASH_ROUNDS` says how often (default 5), `HEADWATER_CRASH_SEED` repeats a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::mpsc,
    time::Duration,
};

use hw_conform::{Case, Cases, Dice, Js, Lost, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

const CLIENTS: u64 = 3;
const STREAMS: u64 = 3;
const KEPT: usize = 2;

fn main() -> ExitCode {
    let rounds = std::env::var("HEADWATER_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let cases = targets().into_iter().map(|target| case(target, rounds)).collect();
    run_all(Cases { cases, threads: 1 })
}

fn case(target: Target, rounds: u64) -> Case {
    let name = format!("{}: killed while everything changes", target.name);
    let run = move || match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let config =
                (target.name == "headwater").then(|| "jetstream { checkpoint_bytes: 20KB }".to_owned());
            let launch = Launch { binary: binary.clone(), flags: vec!["-js".to_owned()], config };
            target.promised(run(launch, rounds))
        }
    };
    Case { name, run: Box::new(run) }
}

/// A request that changes something.
#[derive(Clone, Debug)]
enum Change {
    Create { stream: u64, memory: bool },
    Delete { stream: u64 },
    Publish { stream: u64, key: u64, text: String },
    Purge { stream: u64, key: Option<u64> },
    PutConsumer { stream: u64, name: String },
    DeleteConsumer { stream: u64, name: String },
}

/// A stream as its client knows it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stream {
    memory: bool,
    last: u64,
    messages: BTreeMap<u64, (u64, String)>,
    consumers: BTreeSet<String>,
}

/// All streams of one client.
type State = BTreeMap<u64, Stream>;

/// One client: nobody else touches its streams.
struct Owner {
    id: u64,
    dice: Dice,
    state: State,
    open: Option<Change>,
    wrong: Option<String>,
    changes: u64,
}

fn run(launch: Launch, rounds: u64) -> Result<(), String> {
    let mut server = Server::start(launch).map_err(|error| error.to_string())?;
    let mut dice = Dice::from_env("HEADWATER_CRASH_SEED");
    let owner =
        |id| Owner { id, dice: Dice::new(id + 7), state: State::new(), open: None, wrong: None, changes: 0 };
    let mut owners: Vec<Owner> = (0..CLIENTS).map(owner).collect();
    for owner in &mut owners {
        owner.dice = Dice::new(dice.below(u64::MAX));
    }
    for round in 1..=rounds {
        let port = server.port();
        let span = Duration::from_millis(30 + dice.below(500));
        std::thread::scope(|scope| {
            for owner in &mut owners {
                scope.spawn(move || owner.work(port));
            }
            let (_never, pause) = mpsc::sync_channel::<()>(1);
            let _ = pause.recv_timeout(span);
            server.signal("KILL").map_err(|error| error.to_string())
        })?;
        server.kill9().map_err(|error| error.to_string())?;
        for owner in &mut owners {
            let judged = owner.judge(server.port());
            judged.map_err(|what| format!("round {round}, client {}: {what}\n{}", owner.id, server.log()))?;
        }
    }
    println!("{} changes", owners.iter().map(|owner| owner.changes).sum::<u64>());
    Ok(())
}

impl Owner {
    fn name(&self, stream: u64) -> String {
        format!("T{}S{stream}", self.id)
    }

    /// Changes this and that until the server is gone.
    fn work(&mut self, port: u16) {
        let Ok(mut js) = Js::open(port) else { return };
        loop {
            let change = self.choose();
            match self.ask(&mut js, &change) {
                Ok(answer) if answer["error"].is_null() => {
                    apply(&mut self.state, &change);
                    self.changes += 1;
                }
                Ok(answer) => return self.wrong = Some(format!("{change:?} was answered with {answer}")),
                Err(Lost::Gone(_)) => return self.open = Some(change),
                Err(silent) => return self.wrong = Some(format!("{change:?}: {silent}")),
            }
        }
    }

    /// Something that can succeed.
    fn choose(&mut self) -> Change {
        let dice = &mut self.dice;
        let stream = dice.below(STREAMS);
        let Some(known) = self.state.get(&stream) else {
            return Change::Create { stream, memory: dice.one_in(5) };
        };
        let name = format!("C{}", dice.below(2));
        match dice.below(40) {
            0 => Change::Delete { stream },
            1 => Change::Purge { stream, key: None },
            2 | 3 => Change::Purge { stream, key: Some(dice.below(4)) },
            4..=7 if known.consumers.contains(&name) => Change::DeleteConsumer { stream, name },
            4..=7 => Change::PutConsumer { stream, name },
            _ => {
                let text = format!("{}:{}", self.changes, "x".repeat(dice.below(2000) as usize));
                Change::Publish { stream, key: dice.below(4), text }
            }
        }
    }

    fn ask(&self, js: &mut Js, change: &Change) -> Result<Value, Lost> {
        match change {
            Change::Create { stream, memory } => {
                let name = self.name(*stream);
                let storage = if *memory { "memory" } else { "file" };
                let config = json!({ "name": name, "subjects": [format!("{name}.*")], "storage": storage,
                    "max_msgs_per_subject": KEPT, "retention": "limits", "discard": "old", "num_replicas": 1 });
                js.api(&format!("STREAM.CREATE.{name}"), &config)
            }
            Change::Delete { stream } => {
                js.api(&format!("STREAM.DELETE.{}", self.name(*stream)), &Value::Null)
            }
            Change::Publish { stream, key, text } => {
                let frame = js.request(&format!("{}.{key}", self.name(*stream)), text.as_bytes())?;
                Ok(serde_json::from_slice(&frame.payload)
                    .unwrap_or_else(|_| json!({ "error": frame.to_string() })))
            }
            Change::Purge { stream, key } => {
                let name = self.name(*stream);
                let body = key.map_or(Value::Null, |key| json!({ "filter": format!("{name}.{key}") }));
                js.api(&format!("STREAM.PURGE.{name}"), &body)
            }
            Change::PutConsumer { stream, name } => {
                let of = self.name(*stream);
                let config = json!({ "durable_name": name, "ack_policy": "explicit" });
                let body = json!({ "stream_name": of, "config": config });
                js.api(&format!("CONSUMER.DURABLE.CREATE.{of}.{name}"), &body)
            }
            Change::DeleteConsumer { stream, name } => {
                js.api(&format!("CONSUMER.DELETE.{}.{name}", self.name(*stream)), &Value::Null)
            }
        }
    }

    /// The server's state is what is known, with the open request or without.
    fn judge(&mut self, port: u16) -> Result<(), String> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let found = self.read(port).map_err(|error| error.to_string())?;
        let mut with = self.state.clone();
        if let Some(change) = &self.open {
            apply(&mut with, change);
        }
        for wanted in [&mut self.state, &mut with] {
            wanted.retain(|_, stream| !stream.memory);
        }
        let open = self.open.take();
        if found != self.state && found != with {
            return Err(format!("known: {}\nopen: {open:?}\nfound: {}", shown(&self.state), shown(&found)));
        }
        self.state = found;
        Ok(())
    }

    fn read(&self, port: u16) -> Result<State, Lost> {
        let mut js = Js::open(port)?;
        let mut state = State::new();
        let names = js.api("STREAM.NAMES", &Value::Null)?;
        for stream in 0..STREAMS {
            let name = self.name(stream);
            if !names["streams"].as_array().is_some_and(|names| names.contains(&json!(name))) {
                continue;
            }
            let info = js.api(&format!("STREAM.INFO.{name}"), &Value::Null)?;
            let consumers = js.api(&format!("CONSUMER.NAMES.{name}"), &Value::Null)?;
            let consumers = consumers["consumers"].as_array().into_iter().flatten();
            let mut found = Stream {
                memory: info["config"]["storage"] == "memory",
                last: info["state"]["last_seq"].as_u64().unwrap_or(u64::MAX),
                consumers: consumers.filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
                messages: BTreeMap::new(),
            };
            for message in js.read_from(&name, 1)? {
                let key =
                    message.subject.rsplit('.').next().and_then(|key| key.parse().ok()).unwrap_or(u64::MAX);
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                found.messages.insert(message.seq, (key, text));
            }
            // A stream that never had a message begins at 0, as with `nats-server`, and at 1 once it was purged.
            let after = if found.last == 0 { &[0, 1][..] } else { &[found.last + 1] };
            let first = info["state"]["first_seq"].as_u64().unwrap_or(u64::MAX);
            let is_first = found.messages.keys().next().map_or(after.contains(&first), |seq| *seq == first);
            let counts = json!([info["state"]["messages"], first]);
            if !is_first || counts[0] != found.messages.len() {
                return Err(Lost::Silent(format!("{name}: its state {counts} is not what it holds")));
            }
            state.insert(stream, found);
        }
        Ok(state)
    }
}

/// What a successful request does.
fn apply(state: &mut State, change: &Change) {
    match change {
        Change::Create { stream, memory } => {
            state.entry(*stream).or_insert_with(|| Stream { memory: *memory, ..Stream::default() });
        }
        Change::Delete { stream } => drop(state.remove(stream)),
        Change::Publish { stream, key, text } => {
            let Some(stream) = state.get_mut(stream) else { return };
            stream.last += 1;
            stream.messages.insert(stream.last, (*key, text.clone()));
            let mut same = stream.messages.iter().filter(|(_, (of, _))| of == key).map(|(seq, _)| *seq);
            let oldest = same.next();
            if same.count() == KEPT {
                oldest.map(|seq| stream.messages.remove(&seq));
            }
        }
        Change::Purge { stream, key } => {
            if let Some(stream) = state.get_mut(stream) {
                stream.messages.retain(|_, (of, _)| key.is_some_and(|key| key != *of));
            }
        }
        Change::PutConsumer { stream, name } => {
            if let Some(stream) = state.get_mut(stream) {
                stream.consumers.insert(name.clone());
            }
        }
        Change::DeleteConsumer { stream, name } => {
            if let Some(stream) = state.get_mut(stream) {
                stream.consumers.remove(name);
            }
        }
    }
}

/// A state without the bulk of its texts.
fn shown(state: &State) -> String {
    let mut state = state.clone();
    for (_, text) in state.values_mut().flat_map(|stream| stream.messages.values_mut()) {
        text.truncate(12);
    }
    format!("{state:?}")
}
