//! The notation of the scripts; dev/conform/scripts/README.md describes it for readers.

use std::{path::Path, time::Duration};

use crate::{
    json::Mode,
    script::{Action, Body, Pattern, Payload, Script, ScriptFile, ServerStep, Step},
    template::Template,
};

/// Why a script file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: {what}")]
pub struct ParseError {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// A source line with its number, kept through the unrolling of loops.
type Line<'a> = (usize, std::borrow::Cow<'a, str>);

/// Parses the text of one file.
pub fn parse(path: &Path, text: &str) -> Result<ScriptFile, ParseError> {
    let fail = |line, what| ParseError { path: path.display().to_string(), line, what };
    let lines: Vec<Line<'_>> = text.lines().enumerate().map(|(n, line)| (n + 1, line.into())).collect();
    let first = lines.iter().position(|(_, line)| line.starts_with("# name:")).unwrap_or(lines.len());
    let (head, rest) = lines.split_at(first);
    let (flags, config) = parse_head(head).map_err(|(line, what)| fail(line, what))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut scripts: Vec<Script> = Vec::new();
    let starts: Vec<usize> = (0..rest.len()).filter(|&i| rest[i].1.starts_with("# name:")).collect();
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(rest.len());
        let title = rest[start].1.trim_start_matches("# name:").trim();
        let name = format!("{stem}/{title}");
        if title.is_empty() || scripts.iter().any(|script| script.name == name) {
            return Err(fail(rest[start].0, format!("a name of its own is needed, got {title:?}")));
        }
        let unrolled = unroll(&rest[start + 1..end]).map_err(|(line, what)| fail(line, what))?;
        let steps = parse_steps(&unrolled).map_err(|(line, what)| fail(line, what))?;
        scripts.push(Script { name, path: path.to_owned(), steps });
    }
    Ok(ScriptFile { path: path.to_owned(), flags, config, scripts })
}

type Problem = (usize, String);

fn parse_head(lines: &[Line<'_>]) -> Result<(Vec<String>, Option<String>), Problem> {
    let (mut flags, mut config, mut in_config) = (Vec::new(), None::<String>, false);
    for (number, line) in lines {
        let Some(line) = line.strip_prefix('#') else {
            match line.trim() {
                "" => continue,
                _ => return Err((*number, "a step before the first `# name:`".to_owned())),
            }
        };
        if let Some(text) = line.strip_prefix(" flags:") {
            flags.extend(text.split_whitespace().map(str::to_owned));
        } else if line.trim() == "config:" {
            in_config = true;
            config = Some(String::new());
        } else if let (true, Some(text)) = (in_config, line.trim_start().strip_prefix('|')) {
            let config = config.get_or_insert_default();
            config.push_str(text.strip_prefix(' ').unwrap_or(text));
            config.push('\n');
        } else {
            in_config = false;
        }
    }
    Ok((flags, config))
}

/// `for i in 1..3` ... `end`, both ends included; `{{i}}` is the number.
fn unroll<'a>(lines: &[Line<'a>]) -> Result<Vec<Line<'a>>, Problem> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = &lines[at];
        let Some(rest) = line.trim().strip_prefix("for ") else {
            out.push(lines[at].clone());
            at += 1;
            continue;
        };
        let bad = || (*number, format!("expected `for NAME in A..B`, got {line:?}"));
        let (name, range) = rest.split_once(" in ").ok_or_else(bad)?;
        let (from, to) = range.split_once("..").ok_or_else(bad)?;
        let bound = |text: &str| text.trim().parse::<u32>().map_err(|_| bad());
        let (from, to) = (bound(from)?, bound(to)?);
        let mut depth = 0;
        let end = lines[at..].iter().position(|(_, line)| {
            depth += i32::from(line.trim().starts_with("for ")) - i32::from(line.trim() == "end");
            depth == 0
        });
        let end = at + end.ok_or_else(|| (*number, "`for` without `end`".to_owned()))?;
        let body = unroll(&lines[at + 1..end])?;
        for i in from..=to {
            let hole = format!("{{{{{name}}}}}");
            out.extend(body.iter().map(|(n, line)| (*n, line.replace(&hole, &i.to_string()).into())));
        }
        at = end + 1;
    }
    Ok(out)
}

/// The lines that belong to a step beside its first, by their mark.
#[derive(Default)]
struct Block {
    headers: Vec<String>,
    text: Option<String>,
    json: Option<(String, Mode)>,
}

impl Block {
    /// Takes a line of the form `: x`, `| x`, `= x`, `== x`; false if it is none.
    fn take(&mut self, line: &str) -> bool {
        let after = |rest: &str| rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        if let Some(rest) = line.strip_prefix("==") {
            self.add_json(&after(rest), Mode::Exact);
        } else if let Some(rest) = line.strip_prefix('=') {
            self.add_json(&after(rest), Mode::Subset);
        } else if let Some(rest) = line.strip_prefix('|') {
            match &mut self.text {
                Some(text) => {
                    text.push('\n');
                    text.push_str(&after(rest));
                }
                None => self.text = Some(after(rest)),
            }
        } else if let Some(rest) = line.strip_prefix(':') {
            self.headers.push(after(rest));
        } else {
            return false;
        }
        true
    }

    fn add_json(&mut self, text: &str, mode: Mode) {
        let (json, _) = self.json.get_or_insert_with(|| (String::new(), mode));
        json.push_str(text);
        json.push('\n');
    }

    fn body(&self) -> Body {
        let mut headers: Vec<Template> = self.headers.iter().map(|line| Template::new(line)).collect();
        if !headers.is_empty() && !self.headers[0].starts_with("NATS/") {
            headers.insert(0, Template::new("NATS/1.0"));
        }
        let text = self.text.as_deref().or_else(|| (!headers.is_empty()).then_some(""));
        Body { headers, payload: text.map(Template::new) }
    }

    fn pattern(&self, line: Option<&str>) -> Result<Pattern, String> {
        let is_open = self.headers.last().is_some_and(|last| last == "...");
        let written = &self.headers[..self.headers.len() - usize::from(is_open)];
        let mut headers: Vec<Template> = written.iter().map(|line| Template::new(line)).collect();
        if (is_open || !headers.is_empty()) && !written.first().is_some_and(|line| line.starts_with("NATS/"))
        {
            headers.insert(0, Template::new("NATS/1.0"));
        }
        let payload = match (&self.text, &self.json) {
            (Some(_), Some(_)) => return Err("both text and JSON for one payload".to_owned()),
            (Some(text), None) => Payload::Text(Template::new(text)),
            (None, Some((json, mode))) => {
                let value = serde_json::from_str(json).map_err(|error| format!("JSON: {error}: {json}"))?;
                Payload::Json(value, *mode)
            }
            (None, None) => Payload::Empty,
        };
        Ok(Pattern { line: line.map(Template::new), headers, is_open, payload })
    }
}

fn parse_steps(lines: &[Line<'_>]) -> Result<Vec<Step>, Problem> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (number, line) = (lines[at].0, lines[at].1.trim());
        at += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = Block::default();
        let head = split_inline(line, &mut block);
        while at < lines.len() && block.take(lines[at].1.trim_start()) {
            at += 1;
        }
        let action = parse_action(head, &block).map_err(|what| (number, format!("{what}, in {line:?}")))?;
        steps.push(Step { line: number, action });
    }
    Ok(steps)
}

/// Takes ` | text`, ` = json` or ` == json` off the end of a step's first line.
fn split_inline<'a>(line: &'a str, block: &mut Block) -> &'a str {
    let marks = [" | ", " = ", " == "];
    let start = marks.iter().filter_map(|mark| line.find(mark)).min();
    let start = start.or_else(|| line.ends_with(" |").then(|| line.len() - 2));
    match start {
        Some(start) => {
            block.take(&line[start + 1..]);
            &line[..start]
        }
        None => line,
    }
}

fn parse_action(head: &str, block: &Block) -> Result<Action, String> {
    let name_len =
        head.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ',')).unwrap_or(head.len());
    let (conn, rest) = head.split_at(name_len);
    if conn.is_empty() {
        return Err("expected the name of a connection".to_owned());
    }
    match conn {
        "server" => return Ok(Action::Server(parse_server(rest.trim(), block)?)),
        "http" => return parse_http(rest.trim(), block),
        _ => {}
    }
    let conn = conn.to_owned();
    if let Some(text) = rest.strip_prefix(">raw ") {
        return Ok(Action::SendRaw { conn, text: Template::new(text) });
    }
    if let Some(line) = rest.strip_prefix("> ") {
        return Ok(Action::Send { conn, line: Template::new(line), body: block.body() });
    }
    if let Some(line) = rest.strip_prefix("<~ ") {
        return Ok(Action::Eventually { conn, want: block.pattern(Some(line))? });
    }
    if let Some(line) = rest.strip_prefix("< ") {
        let want = block.pattern(Some(line))?;
        let conns: Vec<String> = conn.split(',').map(str::to_owned).collect();
        return Ok(if conns.len() == 1 {
            Action::Expect { conn, want }
        } else {
            Action::OneOf { conns, want }
        });
    }
    parse_words(conn, rest, block)
}

fn parse_words(conn: String, rest: &str, block: &Block) -> Result<Action, String> {
    let (word, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    Ok(match word {
        "<closed" => Action::Closed { conn },
        "<nothing" => Action::Nothing { conn, within: parse_within(rest)? },
        "opens" => Action::Open { conn },
        "connects" => Action::Connect { conn, options: Template::new(rest) },
        "closes" => Action::Close { conn },
        "ignores" if rest == "pings" => Action::Deaf { conn },
        "request" => Action::Request { conn, subject: Template::new(rest), body: with_payload(block.body()) },
        "api" => {
            let (subject, body) = api(rest);
            Action::Request { conn, subject, body: Body { headers: block.body().headers, ..body } }
        }
        "until" => {
            let (subject, body) = api(rest);
            Action::Until { conn, subject, body, want: block.pattern(None)? }
        }
        "reply" if rest.is_empty() => Action::Reply { conn, want: block.pattern(None)? },
        _ => return Err(format!("unknown step {word:?}")),
    })
}

/// `STREAM.INFO.x {json}`: a request below `$JS.API`.
fn api(rest: &str) -> (Template, Body) {
    let (subject, payload) = rest.split_once(' ').unwrap_or((rest, ""));
    let body = Body { headers: Vec::new(), payload: Some(Template::new(payload)) };
    (Template::new(&format!("$JS.API.{subject}")), body)
}

fn with_payload(body: Body) -> Body {
    Body { payload: body.payload.or_else(|| Some(Template::default())), ..body }
}

fn parse_within(rest: &str) -> Result<Option<Duration>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    let ms = rest.strip_prefix("within ").and_then(|rest| rest.strip_suffix("ms"));
    let ms =
        ms.and_then(|ms| ms.parse().ok()).ok_or_else(|| format!("expected `within Nms`, got {rest:?}"))?;
    Ok(Some(Duration::from_millis(ms)))
}

fn parse_server(rest: &str, block: &Block) -> Result<ServerStep, String> {
    Ok(match rest.split_once(' ') {
        None if rest == "restart" => ServerStep::Restart,
        None if rest == "kill9" => ServerStep::Kill9,
        None if rest == "config" => ServerStep::Config(block.text.clone().unwrap_or_default()),
        Some(("signal", name)) => ServerStep::Signal(name.to_owned()),
        _ => return Err(format!("unknown server step {rest:?}")),
    })
}

fn parse_http(rest: &str, block: &Block) -> Result<Action, String> {
    let (status, path) = rest.split_once(' ').ok_or("expected `http STATUS PATH`")?;
    let status = status.parse().map_err(|_| format!("bad status {status:?}"))?;
    Ok(Action::Http { status, path: Template::new(path), want: block.pattern(None)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let shown = match parse(Path::new("x/f.txt"), text) {
            Ok(file) => {
                let scripts =
                    file.scripts.iter().map(|script| format!("{} {}", script.name, script.steps.len()));
                format!("{:?} {:?} {:?}", file.flags, file.config, scripts.collect::<Vec<_>>())
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, want);
    }

    #[test]
    fn files_have_a_head_and_named_scripts() {
        check(
            "# flags: -js -m {http}\n# name: one\nA opens\n",
            r#"["-js", "-m", "{http}"] None ["f/one 1"]"#,
        );
        check(
            "# config:\n#   | a: 1\n#   | b {\n# text\n\n# name: x\n",
            r#"[] Some("a: 1\nb {\n") ["f/x 0"]"#,
        );
        check(
            "# name: a\nfor i in 1..3\n  A> SUB x.{{i}} {{i}}\n  for j in 1..2\n  A<nothing\n  end\nend\nA> PING\n",
            r#"[] None ["f/a 10"]"#,
        );
        check(
            "# name: a\nA< HMSG x 1\n  : NATS/1.0 503\n  | text\n  | more\nA reply = {\"a\":\n  = 1}\n",
            r#"[] None ["f/a 2"]"#,
        );
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        check("A opens\n", "x/f.txt:1: a step before the first `# name:`");
        check("# name: a\n# name: a\n", "x/f.txt:2: a name of its own is needed, got \"a\"");
        check("# name: a\nA dances\n", "x/f.txt:2: unknown step \"dances\", in \"A dances\"");
        check("# name: a\nfor i in 1..2\n", "x/f.txt:2: `for` without `end`");
        check(
            "# name: a\n\nserver explode\n",
            "x/f.txt:3: unknown server step \"explode\", in \"server explode\"",
        );
    }
}
