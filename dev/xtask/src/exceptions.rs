//! The list of places that break a rule and are known: it may only shrink.

use std::collections::BTreeMap;

/// `RULE PLACE` and the measured number, as one line each: `file-lines core/x/src/lib.rs 1200`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    entries: BTreeMap<String, usize>,
}

/// One broken rule.
#[derive(Debug)]
pub struct Problem {
    /// Such as `file-lines`.
    pub rule: &'static str,
    /// The file, with `::function` where it is about one.
    pub place: String,
    /// Where to look.
    pub line: usize,
    /// The measured number.
    pub found: usize,
    /// In words.
    pub what: String,
}

impl Exceptions {
    /// Parses the list; `#` starts a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let bad = || format!("exceptions.txt:{}: expected RULE PLACE NUMBER, got {line:?}", number + 1);
            let (key, found) = line.rsplit_once(' ').ok_or_else(bad)?;
            entries.insert(key.trim().to_owned(), found.parse().map_err(|_| bad())?);
        }
        Ok(Self { entries })
    }

    /// The problems that are not excepted, and what is wrong with the list itself: entries that could be
    /// smaller or go, and entries that grew since `before`.
    pub fn apply(&self, problems: &[Problem], before: Option<&Self>) -> Vec<String> {
        let mut worst: BTreeMap<String, &Problem> = BTreeMap::new();
        for problem in problems {
            let key = format!("{} {}", problem.rule, problem.place);
            let held = worst.entry(key).or_insert(problem);
            if problem.found > held.found {
                *held = problem;
            }
        }
        let mut out = Vec::new();
        for (key, problem) in &worst {
            match self.entries.get(key) {
                Some(allowed) if *allowed == problem.found => {}
                Some(allowed) if *allowed > problem.found => {
                    out.push(format!(
                        "exceptions.txt: {key} is {} now, not {allowed}: lower it",
                        problem.found
                    ));
                }
                _ => out
                    .push(format!("{}:{}: {} [{}]", problem.place, problem.line, problem.what, problem.rule)),
            }
        }
        out.extend(
            self.entries
                .keys()
                .filter(|key| !worst.contains_key(*key))
                .map(|key| format!("exceptions.txt: {key} is no longer needed: remove it")),
        );
        if let Some(before) = before {
            let grown =
                self.entries.iter().filter(|(key, now)| before.entries.get(*key).is_none_or(|was| was < now));
            out.extend(grown.map(|(key, now)| {
                format!("exceptions.txt: {key} {now} is new or grew: the list only shrinks")
            }));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, before: Option<&str>, want: &[&str]) {
        let problem = Problem {
            rule: "file-lines",
            place: "a.rs".to_owned(),
            line: 1,
            found: 1200,
            what: "1200 lines".to_owned(),
        };
        let before = before.map(|text| Exceptions::parse(text).unwrap());
        let got = Exceptions::parse(list).unwrap().apply(&[problem], before.as_ref());
        assert_eq!(got, want, "{list:?}");
    }

    #[test]
    fn the_list_only_shrinks() {
        check("", None, &["a.rs:1: 1200 lines [file-lines]"]);
        check("file-lines a.rs 1200 # why", None, &[]);
        check("file-lines a.rs 1100", None, &["a.rs:1: 1200 lines [file-lines]"]);
        check(
            "file-lines a.rs 1300",
            None,
            &["exceptions.txt: file-lines a.rs is 1200 now, not 1300: lower it"],
        );
        check(
            "file-lines a.rs 1200\nfn-lines b.rs::f 80",
            None,
            &["exceptions.txt: fn-lines b.rs::f is no longer needed: remove it"],
        );
        check(
            "file-lines a.rs 1200",
            Some(""),
            &["exceptions.txt: file-lines a.rs 1200 is new or grew: the list only shrinks"],
        );
        check("file-lines a.rs 1200", Some("file-lines a.rs 1300"), &[]);
    }
}
