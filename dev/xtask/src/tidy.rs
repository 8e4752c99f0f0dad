//! The ratchets: lengths, parameters, head comments, tests without sleeps, nothing bare, nothing leaked.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    exceptions::{Exceptions, Problem},
    source,
};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;
const LIST: &str = "dev/xtask/exceptions.txt";

/// Starts of paths that name one person's machine, and of what else belongs to none of our files. Written in
/// two parts so that this file does not name them.
const LEAKS: &[(&str, &str)] = &[
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/wo", "rk/"),
    ("/fa", "rm/"),
    ("/tm", "p/"),
    (".lib", "rary"),
    ("far", "m-b"),
    ("far", "m-s"),
    ("co-au", "thored"),
];

/// Checks all files that git knows or would add.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for path in files(root)? {
        let Ok(bytes) = std::fs::read(root.join(&path)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let place = path.display().to_string();
        if place == LIST || place.ends_with(".lock") {
            continue;
        }
        problems.extend(leaks(&place, &text));
        if path.extension().is_some_and(|extension| extension == "rs") {
            problems.extend(rust(&place, &text));
        }
    }
    let list = std::fs::read_to_string(root.join(LIST)).map_err(|error| format!("{LIST}: {error}"))?;
    let list = Exceptions::parse(&list)?;
    let before = committed(root, LIST).map(|text| Exceptions::parse(&text)).transpose()?;
    Ok(list.apply(&problems, before.as_ref()))
}

fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect())
}

/// The list as it was one commit ago, so that a commit cannot add to it; None where there is no such commit.
fn committed(root: &Path, path: &str) -> Option<String> {
    let output =
        Command::new("git").args(["show", &format!("HEAD~1:{path}")]).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn rust(place: &str, text: &str) -> Vec<Problem> {
    let problem = |rule, line, found, what| Problem { rule, place: place.to_owned(), line, found, what };
    let mut out = Vec::new();
    if !text.starts_with("//!") {
        out.push(problem("head", 1, 1, "a file starts with a //! comment that says what it is".to_owned()));
    }
    out.extend(bare(place, text));
    let is_test = place.contains("/tests/") || place.ends_with("/tests.rs") || place.contains("/benches/");
    let found = match source::scan(text, is_test) {
        Ok(found) => found,
        Err(what) => {
            out.push(problem("parse", 1, 1, what));
            return out;
        }
    };
    let lines = text.lines().count() - found.test_lines;
    if lines > FILE_LINES_MAX && !is_test {
        out.push(problem(
            "file-lines",
            1,
            lines,
            format!("{lines} lines without tests, {FILE_LINES_MAX} allowed"),
        ));
    }
    for (line, name) in &found.test_attributes {
        out.push(problem("test-attribute", *line, 1, format!("#[{name}]: assert what happens instead")));
    }
    for line in &found.sleeps {
        out.push(problem("sleep", *line, 1, "a test waits for a condition, not for a while".to_owned()));
    }
    for function in &found.functions {
        let place = format!("{place}::{}", function.name);
        let problem =
            |rule, found, what| Problem { rule, place: place.clone(), line: function.line, found, what };
        let (lines, parameters) = (function.lines, function.parameters);
        if lines > FUNCTION_LINES_MAX {
            out.push(problem("fn-lines", lines, format!("{lines} lines, {FUNCTION_LINES_MAX} allowed")));
        }
        if parameters > PARAMETERS_MAX {
            out.push(problem(
                "fn-params",
                parameters,
                format!("{parameters} parameters, {PARAMETERS_MAX} allowed"),
            ));
        }
    }
    out
}

/// A note without an issue number is a wish that nobody will find.
fn bare(place: &str, text: &str) -> Vec<Problem> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_bare =
            |word: &str| line.find(word).is_some_and(|at| !line[at + word.len()..].starts_with("(#"));
        if words.iter().any(|word| is_bare(word)) {
            let what = "a note needs an issue number: (#12)".to_owned();
            out.push(Problem {
                rule: "bare-note",
                place: place.to_owned(),
                line: number + 1,
                found: 1,
                what,
            });
        }
    }
    out
}

fn leaks(place: &str, text: &str) -> Vec<Problem> {
    let mut count = 0;
    let mut first = None;
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        if LEAKS.iter().any(|(head, tail)| lower.contains(&format!("{head}{tail}"))) {
            count += 1;
            first.get_or_insert((number + 1, line.trim().chars().take(100).collect::<String>()));
        }
    }
    let report = |(line, shown): (usize, String)| Problem {
        rule: "leak",
        place: place.to_owned(),
        line,
        found: count,
        what: format!("names a folder of one machine ({count} lines): {shown}"),
    };
    first.map(report).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[&str]) {
        let problems = rust("core/a/src/x.rs", text).into_iter().chain(leaks("core/a/src/x.rs", text));
        let got: Vec<String> =
            problems.map(|problem| format!("{}:{} {}", problem.rule, problem.line, problem.found)).collect();
        assert_eq!(got, want, "{text:.60}");
    }

    #[test]
    fn each_rule_bites() {
        check("//! x\nfn f() {}\n", &[]);
        check("fn f() {}\n", &["head:1 1"]);
        check("//! x\nfn f(\n", &["parse:1 1"]);
        check(&format!("//! x\n{}", "\n".repeat(1000)), &["file-lines:1 1001"]);
        check(&format!("//! x\nfn f() {{\n{}}}\n", "\n".repeat(69)), &["fn-lines:2 71"]);
        check(&format!("//! x\nfn f() {{\n{}}}\n", "\n".repeat(68)), &[]);
        check("//! x\nfn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {}\n", &["fn-params:2 6"]);
        check("//! x\nimpl S { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {} }\n", &[]);
        check(concat!("//! x\n// TO", "DO later\n// TO", "DO(#7) later\n"), &["bare-note:2 1"]);
        check("//! x\n#[cfg(test)]\nmod tests { fn f() { sleep(1) } }\n", &["sleep:3 1"]);
        check("//! x\n#[test]\n#[ignore]\nfn f() {}\n", &["test-attribute:3 1"]);
        check(concat!("//! x\n// see /ho", "me/me/x and /wo", "rk/y\n// /tm", "p/z\n"), &["leak:2 2"]);
    }
}
