//! One flipped byte in each kind of file is seen in every place where somebody may look: the log, `/healthz`, `/metrics`,
//! the advisories of the account and of the system account, and `store check`.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use hw_conform::{Case, Cases, Js, Lost, Outcome, run_all, targets};
use hw_testkit::{Launch, Server};
use serde_json::{Value, json};

const STREAMS: [&str; 2] = ["A", "B"];
/// A stream that fills the log until a checkpoint is made.
const FILLER: &str = "F";
/// Of each other stream: the first half is in segments and checkpoints, the second only in the log.
const MESSAGES: u64 = 80;

/// A kind of file, by how its path starts, and where in it a byte is flipped.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a stored message.
    Record,
    /// In what says where the messages of a segment are.
    Index,
    /// In a stream's state.
    Checkpoint,
    /// In a command of the log.
    Log,
}

fn main() -> ExitCode {
    let ours = targets().into_iter().find(|target| target.name == "headwater");
    let places = [Place::Record, Place::Index, Place::Checkpoint, Place::Log];
    let cases = ours.into_iter().flat_map(|target| {
        places.into_iter().map(move |place| {
            let (name, binary) = (
                format!("{}: a flipped byte is seen everywhere: {place:?}", target.name),
                target.binary.clone(),
            );
            let run = move || match &binary {
                Err(why) => Outcome::Skipped(why.clone()),
                Ok(binary) => see(binary, place).into(),
            };
            Case { name, run: Box::new(run) }
        })
    });
    run_all(Cases { cases: cases.collect(), threads: 2 })
}

fn text(error: Lost) -> String {
    error.to_string()
}

fn see(binary: &Path, place: Place) -> Result<(), String> {
    let config = "jetstream { checkpoint_bytes: 20KB }\nno_auth_user: u\naccounts { ACC { jetstream: enabled, \
                  users: [{user: u, password: u}] }, SYS { users: [{user: s, password: s}] } }\nsystem_account: SYS";
    let launch = Launch {
        binary: binary.to_owned(),
        flags: ["-js", "-m", "{http}"].map(str::to_owned).to_vec(),
        config: Some(config.to_owned()),
    };
    let mut server = Server::start(launch).map_err(|error| error.to_string())?;
    fill(&server)?;
    server.kill();
    let store = server.dir().join("store");
    let file = flip(&store, place)?;
    let before = server.log().len();
    server.start_again().map_err(|error| format!("{error}\n{}", &server.log()[before..]))?;

    let mut account = listen(&server, &Value::Null)?;
    let mut system = listen(&server, &json!({ "user": "s", "pass": "s" }))?;
    if matches!(place, Place::Record) {
        // Nobody has read it yet.
        is(&get(server.http_port(), "/healthz")?, "\"ok\"")?;
    }
    let lost = read_all(&server)?;
    for advisory in [heard(&mut account)?, heard(&mut system)?] {
        check_advisory(&advisory, &file)?;
    }
    is(&server.log()[before..], &file)?;
    check_health(&server, &file)?;
    check_metrics(&get(server.http_port(), "/metrics")?, place)?;
    if lost == 0 {
        return Err("every message could be read: the byte that was flipped did not count".to_owned());
    }
    server.stop().map_err(|error| error.to_string())?;
    let output = Command::new(binary).args(["store", "check"]).arg(&store).output();
    let output = output.map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    is(&printed, &file)?;
    match output.status.code() {
        Some(2) => Ok(()),
        code => Err(format!("`store check` ends with {code:?}: {printed}")),
    }
}

/// Half of the messages before a checkpoint, half after it.
fn fill(server: &Server) -> Result<(), String> {
    let mut js = Js::open(server.port()).map_err(text)?;
    for stream in [FILLER].iter().chain(&STREAMS) {
        let config = json!({ "name": stream, "subjects": [format!("{stream}.>")], "allow_direct": true });
        js.api(&format!("STREAM.CREATE.{stream}"), &config).map_err(text)?;
    }
    for seq in 1..=MESSAGES {
        for stream in STREAMS {
            js.request(&format!("{stream}.x"), &payload(stream, seq)).map_err(text)?;
        }
        // Two are enough for a state with segments.
        let target = "headwater_checkpoints_total ";
        while seq == MESSAGES / 2 && number(&get(server.http_port(), "/metrics")?, target) < Some(2.0) {
            js.request("F.y", &[b'y'; 2000]).map_err(text)?;
        }
    }
    Ok(())
}

/// Recognizable, and of a kind that fills a checkpoint's worth.
fn payload(stream: &str, seq: u64) -> Vec<u8> {
    format!("<{stream}:{seq}>").repeat(60).into_bytes()
}

/// Flips a byte of a file that counts; gives the file's path as the store names it.
fn flip(store: &Path, place: Place) -> Result<String, String> {
    let files = files(store)?;
    let newest = |start: &str| {
        let mut of_kind = files.keys().filter(|path| path.to_string_lossy().contains(start));
        of_kind.next_back().cloned().ok_or_else(|| format!("no file {start}* in {files:?}"))
    };
    let (path, at) = match place {
        Place::Record => holding(&files, "segments/", b"<B:7>"),
        Place::Index => {
            let (path, _) = holding(&files, "segments/", b"<B:7>")?;
            let end = files[&path].len() - 20;
            Ok((path, end))
        }
        Place::Checkpoint => {
            let path = newest("/checkpoint-")?;
            // The last entry is that of the stream that was created last.
            let end = files[&path].len() - 12;
            Ok((path, end))
        }
        Place::Log => holding(&files, "/wal-", format!("<B:{}>", MESSAGES - 5).as_bytes()),
    }?;
    let mut bytes = files[&path].clone();
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(name)
}

/// The file of a kind with these bytes, and where.
fn holding(
    files: &BTreeMap<PathBuf, Vec<u8>>,
    start: &str,
    wanted: &[u8],
) -> Result<(PathBuf, usize), String> {
    let find = |bytes: &[u8]| bytes.windows(wanted.len()).position(|found| found == wanted);
    let of_kind = files.iter().filter(|(path, _)| path.to_string_lossy().contains(start));
    let found = of_kind.filter_map(|(path, bytes)| Some((path.clone(), find(bytes)?))).next();
    found.ok_or_else(|| format!("no {start}* has {}", String::from_utf8_lossy(wanted)))
}

fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        match path.is_dir() {
            true => files.extend(self::files(&path)?),
            false => drop(files.insert(path.clone(), fs::read(&path).map_err(|error| error.to_string())?)),
        }
    }
    Ok(files)
}

fn listen(server: &Server, who: &Value) -> Result<Js, String> {
    let mut js = Js::open_as(server.port(), who).map_err(text)?;
    js.write(b"SUB $JS.EVENT.ADVISORY.STREAM.DAMAGED.* 9\r\n").map_err(text)?;
    Ok(js)
}

/// Asks for every message; what comes must be right. Gives how many do not come.
fn read_all(server: &Server) -> Result<usize, String> {
    let mut js = Js::open(server.port()).map_err(text)?;
    let mut lost = 0;
    for stream in STREAMS {
        for seq in 1..=MESSAGES {
            let subject = format!("$JS.API.DIRECT.GET.{stream}");
            let got = js.request(&subject, json!({ "seq": seq }).to_string().as_bytes()).map_err(text)?;
            if got.headers.first().is_some_and(|line| line.starts_with("NATS/1.0 ")) {
                lost += 1;
            } else if got.payload != payload(stream, seq) {
                return Err(format!("message {seq} of {stream} came with wrong bytes: {got}"));
            }
        }
    }
    Ok(lost)
}

fn heard(js: &mut Js) -> Result<Value, String> {
    loop {
        let frame = js.frame("an advisory").map_err(text)?;
        if frame.subject.as_deref().is_some_and(|subject| subject.ends_with(".DAMAGED.B")) {
            return serde_json::from_slice(&frame.payload).map_err(|error| error.to_string());
        }
    }
}

fn check_advisory(advisory: &Value, file: &str) -> Result<(), String> {
    let is_right = advisory["type"] == "io.headwater.jetstream.advisory.v1.stream_damaged"
        && advisory["stream"] == "B"
        && advisory["account"] == "ACC"
        && advisory["file"].as_str().is_some_and(|path| path.ends_with(file))
        && advisory["offset"].is_u64()
        && advisory["reason"].as_str().is_some_and(|reason| reason.contains(file));
    if is_right { Ok(()) } else { Err(format!("the advisory is {advisory}")) }
}

fn check_health(server: &Server, file: &str) -> Result<(), String> {
    let port = server.http_port();
    for (query, named, code) in [
        ("", file, "503"),
        ("?details=true", "\"stream\": \"B\"", "503"),
        ("?details=true", file, "503"),
        ("?account=ACC&stream=B", file, "503"),
        ("?account=ACC&stream=A", "\"ok\"", "200"),
        ("?js-server-only=true", "\"ok\"", "200"),
        ("?js-enabled-only=true", "\"ok\"", "200"),
    ] {
        let page = get(port, &format!("/healthz{query}"))?;
        is(&page, named)
            .and_then(|()| is(&page, code))
            .map_err(|wrong| format!("/healthz{query}: {wrong}"))?;
    }
    Ok(())
}

fn check_metrics(page: &str, place: Place) -> Result<(), String> {
    let set_aside = matches!(place, Place::Checkpoint | Place::Log);
    for (name, wanted) in [
        ("headwater_store_damaged_files ", 1.0),
        ("headwater_store_damaged_blocks ", 1.0),
        ("headwater_store_damaged_streams ", 1.0),
        ("headwater_store_quarantined_streams ", f64::from(u8::from(set_aside))),
        ("headwater_store_stopped ", 0.0),
    ] {
        if number(page, name) != Some(wanted) {
            return Err(format!("{name}is {:?}, not {wanted}", number(page, name)));
        }
    }
    is(page, "headwater_stream_messages{account=\"ACC\",stream=\"A\"}")?;
    is(page, "headwater_wal_sync_duration_seconds_bucket{le=\"+Inf\"}")
}

fn number(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
}

fn get(port: u16, page: &str) -> Result<String, String> {
    let ask = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        write!(socket, "GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok::<String, std::io::Error>(answer)
    };
    ask().map_err(|error| format!("{page}: {error}"))
}

fn is(page: &str, wanted: &str) -> Result<(), String> {
    if page.contains(wanted) { Ok(()) } else { Err(format!("{wanted} is not in {page}")) }
}
