//! `top`: one server and its connections, looked at again and again. On a terminal it fills the screen and hears keys;
//! anywhere else it prints a table for each look.

mod screen;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output;
use super::server::report::{self, Connection};
use super::units::parse_duration;

/// What to look at, and how often.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id of the server, the one of this connection if none is given (needs a system account)
    #[arg(value_name = "SERVER")]
    which: Option<String>,
    /// At most so many connections
    #[arg(short = 'n', long, default_value_t = 1024)]
    conns: usize,
    /// How long between two looks: seconds, or a duration
    #[arg(short = 'd', long, default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// What to sort by
    #[arg(long, default_value = "cid", value_parser = ORDERS)]
    sort: String,
    /// Write the first look to a file and end
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print numbers of bytes as they are
    #[arg(short = 'b', long)]
    raw: bool,
    /// End after so many looks
    #[arg(short = 'r', long, value_name = "COUNT")]
    max_refresh: Option<u64>,
}

/// What connections can be sorted by.
const ORDERS: [&str; 7] = ["cid", "subs", "in-msgs", "out-msgs", "in-bytes", "out-bytes", "uptime"];

fn seconds(text: &str) -> Result<Duration, String> {
    let span = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_duration(text).map_err(|error| error.to_string())?,
    };
    if span.is_zero() { Err("it must be more than nothing".to_owned()) } else { Ok(span) }
}

/// A server's own numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Varz {
    server_id: String,
    server_name: String,
    version: String,
    uptime: String,
    cpu: f64,
    mem: u64,
    connections: u64,
    slow_consumers: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    data: Varz,
}

/// One look.
#[derive(Debug, Default)]
struct Look {
    varz: Varz,
    connections: Vec<Connection>,
    at: Option<Instant>,
    /// Messages in and out, bytes in and out, each a second.
    rates: [f64; 4],
}

impl Look {
    fn counters(&self) -> [u64; 4] {
        let varz = &self.varz;
        [varz.in_msgs, varz.out_msgs, varz.in_bytes, varz.out_bytes]
    }

    /// Compares with the look before.
    fn since(mut self, before: &Look) -> Look {
        if let (Some(now), Some(then)) = (self.at, before.at) {
            let span = now.duration_since(then).as_secs_f64();
            let (new, old) = (self.counters(), before.counters());
            for (rate, (new, old)) in self.rates.iter_mut().zip(new.into_iter().zip(old)) {
                *rate = if span > 0.0 { new.saturating_sub(old) as f64 / span } else { 0.0 };
            }
        }
        self
    }
}

/// How a look is shown.
#[derive(Clone, Debug)]
struct View {
    sort: usize,
    reverse: bool,
    raw: bool,
    most: usize,
}

/// Shows a server until told to end.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let which = args.which.clone().unwrap_or_else(|| session.client.server_info().server_id);
    let sort = ORDERS.iter().position(|order| *order == args.sort).unwrap_or(0);
    let view = View { sort, reverse: false, raw: args.raw, most: args.conns };
    let first = look(&session, &which, &Look::default()).await?;
    if let Some(path) = &args.output {
        let text = table::render(&first, &view);
        return std::fs::write(path, text).map_err(|error| Failure::file("write", path, error));
    }
    let looks = args.max_refresh.unwrap_or(u64::MAX);
    if std::io::stdout().is_terminal() {
        return screen::run(&session, (&which, first), view, (args.interval, looks)).await;
    }
    let mut shown = first;
    for number in 1..=looks {
        output::line(&table::render(&shown, &view));
        if number < looks {
            tokio::time::sleep(args.interval).await;
            shown = look(&session, &which, &shown).await?;
        }
    }
    Ok(())
}

/// Looks at the server once.
async fn look(session: &Session, which: &str, before: &Look) -> Result<Look, Failure> {
    let id = match before.varz.server_id.is_empty() {
        true => find(session, which).await?,
        false => before.varz.server_id.clone(),
    };
    let doing = format!("look at server {which}");
    let answer = session.api_at(&format!("$SYS.REQ.SERVER.{id}.VARZ"), bytes::Bytes::new(), &doing).await?;
    let Page { data: varz } = answer.read()?;
    let subject = format!("$SYS.REQ.SERVER.{id}.CONNZ");
    let body = json!({ "auth": true, "limit": 65_536 });
    let found = report::find(session, &subject, &body, Some(1)).await?;
    let connections = found.connections.into_iter().map(|(_, connection)| connection).collect();
    Ok(Look { varz, connections, at: Some(Instant::now()), rates: [0.0; 4] }.since(before))
}

/// The id of a server by its name or id.
async fn find(session: &Session, which: &str) -> Result<String, Failure> {
    let answers = super::server::identities(session).await?;
    let found = answers.into_iter().find(|server| server.name == which || server.id == which);
    let found =
        found.ok_or_else(|| Failure::Usage(format!("no server with the name or id {which:?} answered")))?;
    Ok(found.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences() {
        let at = Instant::now();
        let look = |in_msgs, at| {
            let varz = Varz { in_msgs, in_bytes: 10 * in_msgs, ..Varz::default() };
            Look { varz, at: Some(at), ..Look::default() }
        };
        let later = look(300, at + Duration::from_secs(2)).since(&look(100, at));
        assert_eq!(later.rates, [100.0, 0.0, 1000.0, 0.0]);
        // A server that was started again counts from nothing.
        let again = look(5, at + Duration::from_secs(2)).since(&look(100, at));
        assert_eq!(again.rates, [0.0; 4]);
    }

    #[test]
    fn intervals_are_seconds_or_durations() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        assert!(seconds("0").is_err() && seconds("x").is_err());
    }
}
