//! JSON compared by structure: as a subset or exactly, with holes in the strings.

use serde_json::Value;

use crate::template::{Captures, Kind, Piece, Template};

/// How much of an object must be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No other keys may be there.
    Exact,
    /// Other keys may be there.
    Subset,
}

/// Compares; the error says where they differ. An expected string that is one hole also matches numbers
/// (`"{{int}}"`), `"{{absent}}"` demands that the key is not there, and a last array element `"..."` allows more.
pub fn compare(want: &Value, got: &Value, mode: Mode, known: &mut Captures) -> Result<(), String> {
    let mut found = known.clone();
    Comparison { mode, known: &mut found }.value("$", want, got)?;
    *known = found;
    Ok(())
}

struct Comparison<'a> {
    mode: Mode,
    known: &'a mut Captures,
}

impl Comparison<'_> {
    fn value(&mut self, at: &str, want: &Value, got: &Value) -> Result<(), String> {
        let equal = match (want, got) {
            (Value::Object(want), Value::Object(got)) => return self.object(at, want, got),
            (Value::Array(want), Value::Array(got)) => return self.array(at, want, got),
            (Value::String(want), got) => self.text(want, got),
            (want, got) => want == got,
        };
        if equal { Ok(()) } else { Err(format!("{at}: expected {want}, got {got}")) }
    }

    fn object(
        &mut self,
        at: &str,
        want: &serde_json::Map<String, Value>,
        got: &serde_json::Map<String, Value>,
    ) -> Result<(), String> {
        for (key, value) in want {
            let is_absent = value.as_str() == Some("{{absent}}");
            match got.get(key) {
                None if is_absent => {}
                None => return Err(format!("{at}.{key}: expected {value}, but the key is missing")),
                Some(got) if is_absent => return Err(format!("{at}.{key}: must be absent, got {got}")),
                Some(got) => self.value(&format!("{at}.{key}"), value, got)?,
            }
        }
        match got.iter().find(|(key, _)| self.mode == Mode::Exact && !want.contains_key(*key)) {
            Some((key, value)) => Err(format!("{at}.{key}: unexpected key with {value}")),
            None => Ok(()),
        }
    }

    fn array(&mut self, at: &str, want: &[Value], got: &[Value]) -> Result<(), String> {
        let (want, open) = match want.split_last() {
            Some((last, rest)) if last.as_str() == Some("...") => (rest, true),
            _ => (want, false),
        };
        if got.len() < want.len() || (!open && got.len() > want.len()) {
            return Err(format!("{at}: expected {} elements, got {}", want.len(), got.len()));
        }
        for (index, (want, got)) in want.iter().zip(got).enumerate() {
            self.value(&format!("{at}[{index}]"), want, got)?;
        }
        Ok(())
    }

    fn text(&mut self, want: &str, got: &Value) -> bool {
        let template = Template::new(want);
        match (template.sole(), got) {
            (Some(Piece::Hole { kind: Kind::Any, name: None }), _) => true,
            (
                Some(Piece::Hole { kind: Kind::Int | Kind::Num, .. } | Piece::Known(_)),
                Value::Number(number),
            ) => template.matches(&number.to_string(), self.known),
            (Some(Piece::Hole { kind: Kind::Int | Kind::Num, .. }), _) => false,
            (_, Value::String(got)) => template.matches(got, self.known),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: Mode, want: &str, got: &str, outcome: Result<(), &str>) {
        let mut known = Captures::new();
        let want: Value = serde_json::from_str(want).unwrap();
        let got: Value = serde_json::from_str(got).unwrap();
        let result = compare(&want, &got, mode, &mut known);
        assert_eq!(result, outcome.map_err(str::to_owned), "{want} against {got}");
    }

    #[test]
    fn a_subset_ignores_other_keys_and_exact_does_not() {
        let got = r#"{"a":1,"b":{"c":[1,"x"],"d":null}}"#;
        check(Mode::Subset, r#"{"a":1}"#, got, Ok(()));
        check(Mode::Subset, r#"{"b":{"c":[1,"x"]}}"#, got, Ok(()));
        check(Mode::Exact, r#"{"b":{"c":[1,"x"],"d":null},"a":1}"#, got, Ok(()));
        check(Mode::Exact, r#"{"a":1}"#, got, Err(r#"$.b: unexpected key with {"c":[1,"x"],"d":null}"#));
        check(Mode::Subset, r#"{"b":{"c":[1]}}"#, got, Err("$.b.c: expected 1 elements, got 2"));
        check(Mode::Subset, r#"{"b":{"c":[1,"..."]}}"#, got, Ok(()));
        check(Mode::Subset, r#"{"z":1}"#, got, Err("$.z: expected 1, but the key is missing"));
        check(Mode::Subset, r#"{"a":"{{absent}}"}"#, got, Err("$.a: must be absent, got 1"));
        check(Mode::Subset, r#"{"z":"{{absent}}"}"#, got, Ok(()));
    }

    #[test]
    fn holes_know_types() {
        check(Mode::Exact, r#"{"a":"{{int}}"}"#, r#"{"a":-5}"#, Ok(()));
        check(Mode::Exact, r#"{"a":"{{int}}"}"#, r#"{"a":"5"}"#, Err(r#"$.a: expected "{{int}}", got "5""#));
        check(Mode::Exact, r#"{"a":"{{word}}"}"#, r#"{"a":5}"#, Err(r#"$.a: expected "{{word}}", got 5"#));
        check(Mode::Exact, r#"["{{n=int}}","{{n}}"]"#, r#"[7,7]"#, Ok(()));
        check(Mode::Exact, r#"["{{n=int}}","{{n}}"]"#, r#"[7,8]"#, Err(r#"$[1]: expected "{{n}}", got 8"#));
        check(Mode::Exact, r#""{{any}}""#, r#"{"x":[1]}"#, Ok(()));
        check(Mode::Exact, r#""a {{int}} b""#, r#""a 12 b""#, Ok(()));
    }
}
