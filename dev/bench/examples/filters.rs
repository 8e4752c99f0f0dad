//! What filters cost: `cargo run --release -p hw-bench --example filters -- PORT [PID]` with a server on PORT whose store is empty.
//!
//! A stream of 1,000,000 messages over 367,000 subjects; consumers with no filter, and with 1, 10, 100 and 1,000 filters that name
//! one subject each (about three messages) or have a wildcard (1,000 messages each). Prints how long creating each consumer took,
//! how fast it delivered what matches, and with PID the server's CPU time for each delivered message.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

const MESSAGES: u64 = 1_000_000;
const KINDS: u64 = 1000;
const EACH: u64 = 367;
/// Messages asked for at once; two such requests are under way.
const BATCH: u64 = 1000;

type Res<T> = Result<T, Box<dyn Error>>;

struct Client {
    input: BufReader<TcpStream>,
    output: TcpStream,
    line: String,
    body: Vec<u8>,
}

impl Client {
    fn open(port: u16) -> Res<Client> {
        let output = TcpStream::connect(("127.0.0.1", port))?;
        output.set_nodelay(true)?;
        let input = BufReader::with_capacity(1 << 20, output.try_clone()?);
        let mut client = Client { input, output, line: String::new(), body: Vec::new() };
        client.read_line()?;
        client.send(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB in.* 1\r\nSUB api.* 2\r\n")?;
        Ok(client)
    }

    fn send(&mut self, bytes: &[u8]) -> Res<()> {
        Ok(self.output.write_all(bytes)?)
    }

    fn read_line(&mut self) -> Res<()> {
        self.line.clear();
        if self.input.read_line(&mut self.line)? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }

    /// The next message: its subscription, and whether it is one and not a status; its bytes are in `body`.
    fn next(&mut self) -> Res<(u64, bool)> {
        loop {
            self.read_line()?;
            let words: Vec<&str> = self.line.split_whitespace().collect();
            match words[..] {
                ["PING"] => self.send(b"PONG\r\n")?,
                ["MSG" | "HMSG", _, sid, .., len] => {
                    let (sid, len) = (sid.parse()?, len.parse::<usize>()?);
                    self.body.resize(len + 2, 0);
                    self.input.read_exact(&mut self.body)?;
                    return Ok((sid, !self.body.starts_with(b"NATS/1.0 ")));
                }
                ["-ERR", ..] => return Err(self.line.clone().into()),
                _ => {}
            }
        }
    }

    fn api(&mut self, call: &str, request: &Value) -> Res<Value> {
        let request = request.to_string();
        self.send(format!("PUB $JS.API.{call} api.x {}\r\n{request}\r\n", request.len()).as_bytes())?;
        while self.next()?.0 != 2 {}
        let answer: Value = serde_json::from_slice(&self.body)?;
        if answer["error"].is_null() { Ok(answer) } else { Err(answer.to_string().into()) }
    }
}

fn subject(message: u64) -> (u64, u64) {
    (message % KINDS, message / KINDS % EACH)
}

fn load(client: &mut Client) -> Res<()> {
    client.api("STREAM.CREATE.F", &json!({"name": "F", "subjects": ["f.>"], "storage": "file"}))?;
    let payload = "x".repeat(128);
    let (mut acks, mut sent) = (0, 0);
    while acks < MESSAGES {
        let mut out = String::new();
        while sent < MESSAGES && sent < acks + 1000 {
            let (kind, one) = subject(sent);
            out += &format!("PUB f.{kind:04}.{one:04} in.a 128\r\n{payload}\r\n");
            sent += 1;
        }
        client.send(out.as_bytes())?;
        for _ in 0..(sent - acks).min(500) {
            client.next()?;
            acks += 1;
        }
    }
    let info = client.api("STREAM.INFO.F", &json!({}))?;
    match (&info["state"]["messages"], &info["state"]["num_subjects"]) {
        (messages, subjects) if *messages == MESSAGES && *subjects == KINDS * EACH => Ok(()),
        other => Err(format!("the stream holds {other:?}").into()),
    }
}

/// Clock ticks of 10 ms that a process has used.
fn cpu(pid: Option<u32>) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn consume(client: &mut Client, name: &str, filters: &[String], pid: Option<u32>) -> Res<()> {
    let matches = |message: &u64| {
        let (kind, one) = subject(*message);
        match filters.first() {
            None => true,
            Some(first) if first.ends_with('*') => kind % (KINDS / filters.len() as u64) == 0,
            Some(_) => one == 7 && kind % (KINDS / filters.len() as u64) == 0,
        }
    };
    let expected = (0..MESSAGES).filter(matches).count() as u64;
    let config =
        json!({"name": name, "durable_name": name, "ack_policy": "none", "filter_subjects": filters});
    let (begun, used) = (Instant::now(), cpu(pid));
    let made =
        client.api(&format!("CONSUMER.CREATE.F.{name}"), &json!({"stream_name": "F", "config": config}))?;
    let created = begun.elapsed();
    if made["num_pending"] != expected {
        return Err(format!("{name}: {} are pending, not {expected}", made["num_pending"]).into());
    }
    let ask = json!({"batch": BATCH, "expires": 60_000_000_000u64}).to_string();
    let ask = format!("PUB $JS.API.CONSUMER.MSG.NEXT.F.{name} in.m {}\r\n{ask}\r\n", ask.len());
    client.send(ask.repeat(2).as_bytes())?;
    let (begun, mut got) = (Instant::now(), 0);
    while got < expected {
        got += u64::from(client.next()?.1);
        if got % BATCH == 0 && got + BATCH < expected {
            client.send(ask.as_bytes())?;
        }
    }
    let took = begun.elapsed();
    client.api(&format!("CONSUMER.DELETE.F.{name}"), &json!({}))?;
    let rate = got as f64 / took.as_secs_f64();
    let cpu = match (used, cpu(pid)) {
        (Some(before), Some(after)) => {
            format!("{:8.2} us CPU each", (after - before) as f64 * 1e4 / got as f64)
        }
        _ => String::new(),
    };
    println!(
        "{name:>14}: {got:>9} messages, created in {:8.2} ms, {:9.2} ms, {rate:>11.0} msg/s {cpu}",
        created.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e3
    );
    Ok(())
}

fn main() -> Res<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("which port?")?.parse()?;
    let pid = arguments.next().map(|pid| pid.parse()).transpose()?;
    let mut client = Client::open(port)?;
    load(&mut client)?;
    consume(&mut client, "none", &[], pid)?;
    for count in [1, 10, 100, 1000] {
        let kinds = (0..count).map(|at| at * (KINDS / count));
        let wild: Vec<String> = kinds.clone().map(|kind| format!("f.{kind:04}.*")).collect();
        consume(&mut client, &format!("wildcards-{count}"), &wild, pid)?;
        let literal: Vec<String> = kinds.map(|kind| format!("f.{kind:04}.0007")).collect();
        consume(&mut client, &format!("subjects-{count}"), &literal, pid)?;
    }
    consume(&mut client, "none-again", &[], pid)
}
