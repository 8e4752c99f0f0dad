//! A file of the store is damaged while the server is down: a bit flipped, cut, zeroed, removed, replaced by an old copy or
//! by another file. Afterwards no wrong byte is served, what is not damaged works, and the log and `/healthz` name what
//! is. `store check` sees it too; after `store repair` the server starts and takes writes, or it was said why not.
//!
//! `HEADWATER_DAMAGE_CASES` says how many of each kind of damage and file (default 2), `HEADWATER_DAMAGE_SEED` repeats a
//! run.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use hw_conform::{Case, Cases, Dice, Js, Lost, Outcome, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

const STREAMS: [&str; 3] = ["A", "B", "C"];
const MESSAGES: u64 = 250;
/// Of the encrypted store.
const KEY: &str = "opensesame";
/// What the store has files of, by the start of their paths.
const KINDS: [&str; 3] = ["wal-", "checkpoint-", "segments/"];

/// What happens to a file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Harm {
    Flip,
    Cut,
    Zero,
    Remove,
    /// As it was some time ago.
    Old,
    /// Another one of its kind in its place.
    Other,
}

const HARMS: [Harm; 6] = [Harm::Flip, Harm::Cut, Harm::Zero, Harm::Remove, Harm::Old, Harm::Other];

fn main() -> ExitCode {
    let count: u64 =
        std::env::var("HEADWATER_DAMAGE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    // The layout is ours: the real server has no such files.
    let ours = targets().into_iter().find(|target| target.name == "headwater");
    let encryption = format!(", cipher: aes, key: {KEY}");
    let kinds = [
        ("damaged files", String::new(), count),
        ("damaged files, encrypted", encryption, count.div_ceil(2)),
    ];
    let cases = ours.into_iter().flat_map(|target| {
        kinds.clone().map(|(what, settings, count)| {
            let (name, binary) = (format!("{}: {what}", target.name), target.binary.clone());
            let run = move || match &binary {
                Err(why) => Outcome::Skipped(why.clone()),
                Ok(binary) => harm_all(binary, &settings, count).into(),
            };
            Case { name, run: Box::new(run) }
        })
    });
    run_all(Cases { cases: cases.collect(), threads: 1 })
}

/// Every file of the store with its bytes, by its path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn harm_all(binary: &Path, settings: &str, count: u64) -> Result<(), String> {
    let text = |error: Lost| error.to_string();
    let launch = Launch {
        binary: binary.to_owned(),
        flags: ["-js", "-m", "{http}"].map(str::to_owned).to_vec(),
        config: Some(format!("jetstream {{ checkpoint_bytes: 100KB{settings} }}")),
    };
    let mut server = Server::start(launch).map_err(|error| error.to_string())?;
    make_streams(server.port()).map_err(text)?;
    fill(server.port(), 1..=MESSAGES / 2).map_err(text)?;
    server.stop().map_err(|error| error.to_string())?;
    let store = server.dir().join("store");
    let old = read_files(&store)?;
    server.restart().map_err(|error| error.to_string())?;
    fill(server.port(), MESSAGES / 2 + 1..=MESSAGES).map_err(text)?;
    server.stop().map_err(|error| error.to_string())?;
    let whole = read_files(&store)?;
    let mut dice = Dice::from_env("HEADWATER_DAMAGE_SEED");
    let mut told = BTreeMap::new();
    for (kind, harm) in KINDS.iter().flat_map(|kind| HARMS.map(|harm| (*kind, harm))) {
        let files: Vec<&PathBuf> = whole.keys().filter(|path| is_of_kind(path, kind)).collect();
        if files.is_empty() {
            return Err(format!("the store has no file {kind}*"));
        }
        for _ in 0..count {
            // The newest file is the one that counts most.
            let newest = files.len() - 1;
            let file = files[if dice.one_in(2) { newest } else { dice.below(files.len() as u64) as usize }];
            write_files(&store, &whole)?;
            let Some(what) = do_harm(harm, file, (&whole, &old), &mut dice)? else { continue };
            let before = server.log().len();
            let end = judge(&mut server, file, before).and_then(|end| {
                server.stop().map_err(|error| error.to_string())?;
                let mended = mend(binary, &mut server, &store, end)?;
                server.stop().map_err(|error| error.to_string())?;
                Ok(format!("{end}, {mended}"))
            });
            let end = end.map_err(|wrong| {
                let log = server.log();
                format!("{}: {what}: {wrong}\n{}", file.display(), &log[before.min(log.len())..])
            })?;
            *told.entry((kind, harm, end)).or_insert(0) += 1;
        }
    }
    for ((kind, harm, end), times) in told {
        println!("{kind}* {harm:?}: {times} times {end}");
    }
    Ok(())
}

/// Damages a file; gives what was done to it, or None where there is nothing to do.
fn do_harm(
    harm: Harm,
    file: &Path,
    (whole, old): (&Files, &Files),
    dice: &mut Dice,
) -> Result<Option<String>, String> {
    let mut bytes = whole[file].clone();
    let Some((at, bit)) = place(&bytes, dice) else { return Ok(None) };
    let what = match harm {
        Harm::Flip => {
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} was flipped")
        }
        Harm::Cut => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        Harm::Zero => {
            let end = bytes.len().min(at + 1 + dice.below(4096) as usize);
            bytes[at..end].fill(0);
            format!("bytes {at}..{end} were zeroed")
        }
        Harm::Remove => {
            fs::remove_file(file).map_err(|error| error.to_string())?;
            return Ok(Some("removed".to_owned()));
        }
        Harm::Old => match old.get(file).filter(|before| **before != bytes) {
            Some(before) => {
                bytes.clone_from(before);
                "replaced by an old copy".to_owned()
            }
            None => return Ok(None),
        },
        Harm::Other => {
            let same_folder = |path: &&PathBuf| path.parent() == file.parent() && path.as_path() != file;
            let kind = KINDS.into_iter().find(|kind| is_of_kind(file, kind)).unwrap_or_default();
            let others: Vec<&PathBuf> = whole
                .keys()
                .chain(old.keys())
                .filter(same_folder)
                .filter(|path| is_of_kind(path, kind))
                .collect();
            let Some(other) = others.get(dice.below(others.len().max(1) as u64) as usize) else {
                return Ok(None);
            };
            bytes = whole.get(*other).or_else(|| old.get(*other)).cloned().unwrap_or(bytes);
            format!("replaced by {}", other.display())
        }
    };
    fs::write(file, bytes).map_err(|error| error.to_string())?;
    Ok(Some(what))
}

/// What `store check` and `store repair` make of it.
fn mend(binary: &Path, server: &mut Server, store: &Path, end: &str) -> Result<&'static str, String> {
    let run = |words: &[&str]| {
        // A store that is not encrypted needs no key, and does not mind one.
        let mut command = Command::new(binary);
        let output = command.arg("store").args(words).arg(store).env("HEADWATER_STORE_KEY", KEY).output();
        let output = output.map_err(|error| error.to_string())?;
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok::<_, String>((output.status.code(), text))
    };
    let (code, text) = run(&["check"])?;
    match (code, end) {
        (Some(0), "without effect" | "told, nothing lost") => return Ok("sound"),
        (Some(2), _) => {}
        _ => return Err(format!("{end}, but `store check` ends with {code:?}: {text}")),
    }
    let (code, text) = run(&["repair", "--force"])?;
    if code == Some(2) && text.contains("cannot be repaired") {
        return Ok("beyond repair");
    }
    if code == Some(2) && text.contains("stays in quarantine") {
        return Ok("one stream stays in quarantine");
    }
    if code != Some(0) {
        return Err(format!("`store repair` ends with {code:?}: {text}"));
    }
    server.restart().map_err(|error| format!("it does not start after `store repair`: {error}\n{text}"))?;
    let mut js = Js::open(server.port()).map_err(|error| error.to_string())?;
    for stream in STREAMS {
        // Nothing wrong is served, and it takes writes.
        let got = read_each(&mut js, stream)?;
        let ack = js.request(&format!("{stream}.more"), b"more").map_err(|error| error.to_string())?;
        let ack: Value = serde_json::from_slice(&ack.payload).unwrap_or_default();
        if ack["seq"].as_u64().is_none_or(|seq| seq <= got) {
            return Err(format!(
                "after `store repair`, {got} messages of {stream}, a publish gives {ack}:\n{text}"
            ));
        }
    }
    let health = health(server.http_port())?;
    if !health.contains("\"ok\"") {
        return Err(format!("after `store repair`, /healthz says {health}"));
    }
    Ok("repaired")
}

/// Reads every message; gives how many there are. Those that are there must be right, and no batch passes over one that is
/// damaged.
fn read_each(js: &mut Js, stream: &str) -> Result<u64, String> {
    let (mut count, mut damaged) = (0, None);
    for seq in 1..=MESSAGES {
        let body = json!({ "seq": seq }).to_string();
        let got = js.request(&format!("$JS.API.DIRECT.GET.{stream}"), body.as_bytes());
        let got = got.map_err(|error| error.to_string())?;
        if let Some(status) = got.headers.first().filter(|line| line.starts_with("NATS/1.0 ")) {
            damaged = damaged.or(status.contains("damaged").then_some(seq));
            continue;
        }
        if got.payload != payload(stream, seq) {
            return Err(format!("message {seq} of {stream} came with wrong bytes: {got}"));
        }
        count += 1;
    }
    if let Some(seq) = damaged {
        let body = json!({ "seq": seq, "batch": 2 }).to_string();
        let got = js.request(&format!("$JS.API.DIRECT.GET.{stream}"), body.as_bytes());
        let got = got.map_err(|error| error.to_string())?;
        if !got.headers.first().is_some_and(|line| line.starts_with("NATS/1.0 500 message is damaged")) {
            return Err(format!("message {seq} of {stream} is damaged, and a batch from there gave {got}"));
        }
    }
    Ok(count)
}

fn make_streams(port: u16) -> Result<(), Lost> {
    let mut js = Js::open(port)?;
    for stream in STREAMS {
        let config = json!({ "name": stream, "subjects": [format!("{stream}.>")], "storage": "file",
            "allow_direct": true });
        js.api(&format!("STREAM.CREATE.{stream}"), &config)?;
    }
    Ok(())
}

fn fill(port: u16, seqs: std::ops::RangeInclusive<u64>) -> Result<(), Lost> {
    let mut js = Js::open(port)?;
    for seq in seqs {
        for stream in STREAMS {
            js.request(&format!("{stream}.x"), &payload(stream, seq))?;
        }
    }
    Ok(())
}

fn payload(stream: &str, seq: u64) -> Vec<u8> {
    let mut bytes = format!("{stream}:{seq}:").into_bytes();
    bytes.extend((0..(seq * 37) % 900).map(|at| (at * (seq + 3)) as u8));
    bytes
}

/// How the server took it, in a word; an error if it took it wrongly.
fn judge(server: &mut Server, file: &Path, before: usize) -> Result<&'static str, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Err(error) = server.restart() {
        let log = server.log()[before..].to_owned();
        // A store that is not what was written may be refused as a whole, with the file's name and without a panic.
        return match log.contains(&name) && !log.contains("panicked") {
            true => Ok("refused at start"),
            false => Err(format!("it did not start, and does not name {name}: {error}")),
        };
    }
    let mut js = Js::open(server.port()).map_err(|error| error.to_string())?;
    let mut lacking = Vec::new();
    for stream in STREAMS {
        if !is_whole(&mut js, stream)? {
            lacking.push(stream);
        }
    }
    let health = health(server.http_port())?;
    let log = server.log()[before..].to_owned();
    if log.contains("panicked") {
        return Err("it panicked".to_owned());
    }
    if lacking.is_empty() {
        return if health.contains("\"ok\"") { Ok("without effect") } else { Ok("told, nothing lost") };
    }
    if !log.contains(&name) && !log.contains("damaged") {
        return Err(format!("{lacking:?} lack messages, but the log says nothing of it"));
    }
    if health.contains("\"ok\"") || !lacking.iter().any(|stream| health.contains(&format!("\"{stream}\""))) {
        return Err(format!("{lacking:?} lack messages, but /healthz says {health}"));
    }
    Ok(if lacking.len() > 1 { "told, streams lack messages" } else { "told, one stream lacks messages" })
}

/// Whether all messages are there. What is there must be right, and a stream that is whole must work.
fn is_whole(js: &mut Js, stream: &str) -> Result<bool, String> {
    let text = |error: Lost| error.to_string();
    if read_each(js, stream)? < MESSAGES {
        return Ok(false);
    }
    let info = js.api(&format!("STREAM.INFO.{stream}"), &Value::Null).map_err(text)?;
    let ack = js.request(&format!("{stream}.more"), b"more").map_err(text)?;
    let ack: Value = serde_json::from_slice(&ack.payload).unwrap_or_default();
    let read = js.read_from(stream, 1).map_err(text)?;
    let right =
        read.iter().take(MESSAGES as usize).all(|message| message.payload == payload(stream, message.seq));
    let works = info["state"]["messages"] == MESSAGES && ack["seq"] == MESSAGES + 1;
    match works && right && read.len() as u64 == MESSAGES + 1 {
        true => Ok(true),
        false => Err(format!("{stream} is whole and does not work: {info}, {ack}, {} read", read.len())),
    }
}

fn health(port: u16) -> Result<String, String> {
    let ask = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.write_all(b"GET /healthz?details=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok::<String, std::io::Error>(answer)
    };
    ask().map_err(|error| format!("/healthz: {error}"))
}

fn is_of_kind(path: &Path, kind: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match kind.strip_suffix('/') {
        Some(folder) => path.parent().is_some_and(|parent| parent.ends_with(folder)),
        None => name.starts_with(kind),
    }
}

/// A byte that is not just unused space, and a bit of it.
fn place(bytes: &[u8], dice: &mut Dice) -> Option<(usize, u64)> {
    let mut used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    if dice.one_in(2) {
        // A log's end is what a restart reads.
        used.drain(..used.len() - used.len() / 10);
    }
    let at = *used.get(dice.below(used.len().max(1) as u64) as usize)?;
    Some((at, dice.below(8)))
}

fn read_files(folder: &Path) -> Result<Files, String> {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).map_err(|error| error.to_string())?;
                files.insert(path, bytes);
            }
        }
    }
    Ok(files)
}

/// Makes a folder's files the given ones.
fn write_files(folder: &Path, files: &Files) -> Result<(), String> {
    for path in read_files(folder)?.keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(path).map_err(|error| error.to_string())?;
    }
    files.iter().try_for_each(|(path, bytes)| fs::write(path, bytes)).map_err(|error| error.to_string())
}
