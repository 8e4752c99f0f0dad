//! `reply`: answering requests, with a text, an echo or a command's output.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt;

use super::connect::{Global, Session};
use super::error::Failure;
use super::output::{self, say};
use super::publish::{expand, header_map};
use super::subscribe::header_lines;
use super::template::{self, Dice, Values};
use super::units::{self, parse_duration, parse_pair};

/// How to answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    subject: String,
    /// The reply; the placeholders of publish and {{Request}} are replaced
    #[arg(required_unless_present_any = ["echo", "command"])]
    body: Option<String>,
    /// Send back what was received
    #[arg(long, conflicts_with = "body")]
    echo: bool,
    /// Send back what a command prints, unless it fails. {{1}} is the first token of the subject and so on;
    /// the command finds NATS_REQUEST_SUBJECT and NATS_REQUEST_BODY in its environment
    #[arg(long, conflicts_with_all = ["body", "echo"])]
    command: Option<String>,
    /// Queue group to join
    #[arg(short, long, default_value = "NATS-RPLY-22")]
    queue: String,
    /// A header of the replies, KEY:VALUE
    #[arg(short = 'H', long = "header", value_parser = parse_pair, value_name = "KEY:VALUE")]
    headers: Vec<(String, String)>,
    /// Wait a random time of up to this before each reply
    #[arg(long, value_parser = parse_duration, value_name = "LONGEST")]
    sleep: Option<Duration>,
    /// Stop after this many requests
    #[arg(long)]
    count: Option<u64>,
}

/// Answers until stopped.
pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let doing = format!("listen on {}", args.subject);
    let subscribed = session.client.queue_subscribe(args.subject.clone(), args.queue.clone()).await;
    let mut requests = subscribed.map_err(|error| Failure::request(&doing, error))?;
    session.finish().await?;
    say!("{} Listening on {:?} in group {:?}", units::clock(), args.subject, args.queue);
    let mut dice = Dice::new();
    let mut number = 0;
    while args.count.is_none_or(|count| number < count) {
        let request = tokio::select! {
            request = requests.next() => request,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(request) = request else { break };
        show(&request, number);
        if let Some(longest) = args.sleep {
            let pause = dice.between(0, longest.as_millis() as u64);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        if let Some(body) = answer(&args, &request, number, &mut dice).await {
            send(&session, &args, &request, body).await?;
        }
        number += 1;
    }
    session.finish().await
}

fn show(request: &Message, number: u64) {
    say!("{} [#{number}] Received on subject {:?}:", units::clock(), request.subject.as_str());
    let lines = request.headers.as_ref().map(header_lines).unwrap_or_default();
    lines.iter().for_each(|line| output::line(line));
    say!();
    output::raw(&request.payload);
    say!();
}

/// The reply's data, or nothing when the command failed.
async fn answer(args: &Args, request: &Message, number: u64, dice: &mut Dice) -> Option<Bytes> {
    if args.echo {
        return Some(request.payload.clone());
    }
    let values = Values { count: number, request: &request.payload };
    let Some(command) = &args.command else {
        return Some(expand(args.body.as_deref().unwrap_or_default().as_bytes(), None, &values, dice));
    };
    let command = template::fill(&with_tokens(command, &args.subject, &request.subject), &values, dice);
    let ran = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .env("NATS_REQUEST_SUBJECT", request.subject.as_str())
        .env("NATS_REQUEST_BODY", String::from_utf8_lossy(&request.payload).into_owned())
        .output()
        .await;
    match ran {
        Ok(output) if output.status.success() => Some(output.stdout.into()),
        Ok(output) => {
            eprintln!("headwater: error: {command}: {}", output.status);
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("headwater: error: {command}: {error}");
            None
        }
    }
}

/// Replaces `{{1}}` by what the first wildcard of the filter stands for, and so on. Tokens come from the
/// network and go to a shell, so everything but plain characters is dropped from them.
fn with_tokens(command: &str, filter: &str, subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    let mut wild: Vec<&str> = Vec::new();
    for (index, part) in filter.split('.').enumerate() {
        match part {
            "*" => wild.extend(tokens.get(index)),
            ">" => wild.extend(tokens.iter().skip(index)),
            _ => {}
        }
    }
    let mut command = command.to_owned();
    for (index, token) in wild.iter().enumerate() {
        let plain: String = token.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
        command = command.replace(&format!("{{{{{}}}}}", index + 1), &plain);
    }
    command
}

async fn send(session: &Session, args: &Args, request: &Message, body: Bytes) -> Result<(), Failure> {
    let Some(reply) = request.reply.clone() else { return Ok(()) };
    let headers = header_map(&args.headers);
    let sent = if headers.is_empty() {
        session.client.publish(reply, body).await
    } else {
        session.client.publish_with_headers(reply, headers, body).await
    };
    sent.map_err(|error| Failure::request("reply", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_subject_reach_the_command() {
        let cases = [
            ("get {{1}}", "weather.>", "weather.london", "get london"),
            ("get {{1}} {{2}}", "w.*.x.*", "w.a.x.b", "get a b"),
            ("get {{2}}", "w.*", "w.a", "get {{2}}"),
            ("get {{1}}", "w.*", "w.$(reboot)", "get reboot"),
        ];
        for (command, filter, subject, want) in cases {
            assert_eq!(with_tokens(command, filter, subject), want);
        }
    }
}
