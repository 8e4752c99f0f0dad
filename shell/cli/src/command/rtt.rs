//! `rtt`: the time to the server and back.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::connect::{Global, Session, visible};
use super::context::Context;
use super::error::Failure;
use super::output::{self, say};
use super::units;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many trips to measure
    #[arg(default_value_t = 5)]
    iterations: u32,
    /// Print JSON
    #[arg(short, long)]
    json: bool,
}

/// Measures every URL that was asked for.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let settings = global.settings()?;
    let mut results = Vec::new();
    for url in settings.url.split(',').map(str::trim) {
        let one = Context { url: url.to_owned(), ..settings.clone() };
        let session = Session::open_at(one, global, |options| options).await?;
        session.round_trip().await?; // the first one also sets the reply subscription up
        let mut total = Duration::ZERO;
        let iterations = args.iterations.max(1);
        for _ in 0..iterations {
            total += session.round_trip().await?;
        }
        results.push((visible(url), total / iterations));
    }
    if args.json {
        let time = Timestamp::now().to_string();
        let entries: Vec<_> = results
            .iter()
            .map(|(url, rtt)| {
                let result =
                    json!({ "time": time, "address": url, "rtt": rtt.as_nanos() as u64, "url": url });
                json!({ "url": url, "results": [result] })
            })
            .collect();
        return output::print_json(&entries);
    }
    for (url, rtt) in results {
        say!("{url}:\n\n   {url}: {}\n", units::duration(rtt));
    }
    Ok(())
}
