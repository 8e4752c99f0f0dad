//! The grammar: recursive descent from text to a tree, with variables and includes resolved on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{ConfError, Position, Problem};
use crate::scan::{Blank, Scanner};
use crate::value::{BadWord, Entry, Value, ValueKind, classify};

/// Maps and arrays inside each other.
const MAX_DEPTH: usize = 64;
/// Files that include each other, and environment variables that name each other.
const MAX_INCLUDES: usize = 16;
/// Values that variables may copy.
const MAX_COPIED: usize = 1_000_000;

/// Where a configuration gets what lies outside of its text.
pub struct Source<'a> {
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// A file's contents, or why it cannot be read.
    pub read: &'a mut dyn FnMut(&Path) -> Result<String, String>,
}

/// Parses `text`, which came from `file`.
pub fn parse_text(file: &Path, text: &str, source: &mut Source<'_>) -> Result<Vec<Entry>, ConfError> {
    let mut outside = Outside { source, files: vec![file.to_owned()], env: vec![], copied: 0 };
    document(file, text, &mut outside)
}

/// What all files of one configuration share.
struct Outside<'s, 'a> {
    source: &'s mut Source<'a>,
    /// The files being parsed, each included by the one before it.
    files: Vec<PathBuf>,
    /// The environment variables being parsed.
    env: Vec<String>,
    copied: usize,
}

fn document(file: &Path, text: &str, outside: &mut Outside<'_, '_>) -> Result<Vec<Entry>, ConfError> {
    let mut scan = Scanner::new(Arc::from(file.to_string_lossy()), text);
    if text.contains('\0') {
        scan.word(|c| c != '\0');
        return Err(scan.error("Unexpected NUL character"));
    }
    Parser { scan, file, outside, scopes: vec![vec![]], depth: 0 }.document()
}

struct Parser<'p, 's, 'a> {
    scan: Scanner<'p>,
    file: &'p Path,
    outside: &'p mut Outside<'s, 'a>,
    /// The maps around this place, the outermost first; variables are looked up in them.
    scopes: Vec<Vec<Entry>>,
    depth: usize,
}

impl Parser<'_, '_, '_> {
    fn document(mut self) -> Result<Vec<Entry>, ConfError> {
        self.scan.blanks();
        if self.scan.take('{') {
            self.entries(true)?;
            self.scan.blanks();
            if self.scan.peek().is_some() {
                return Err(self
                    .scan
                    .error(format!("Expected nothing after the last '}}', but got {}", self.scan.got())));
            }
        } else {
            self.entries(false)?;
        }
        Ok(self.scopes.pop().expect("invariant: every map pops what it pushed"))
    }

    /// Entries into the innermost scope, up to `}` (taken) or the end of the file.
    fn entries(&mut self, braced: bool) -> Result<(), ConfError> {
        loop {
            self.scan.blanks();
            match self.scan.peek() {
                None if braced => return Err(self.scan.error("Unexpected EOF processing map.")),
                None => return Ok(()),
                Some('}') if braced => {
                    self.scan.next();
                    return Ok(());
                }
                Some('}') => return Err(self.scan.error("Unexpected '}' without a map that it could end")),
                Some(_) => self.entry()?,
            }
            self.terminator(braced)?;
        }
    }

    /// What must follow a value: a line's end, a comment, `,` or `;`, or what ends the map.
    fn terminator(&mut self, braced: bool) -> Result<(), ConfError> {
        self.scan.spaces();
        match self.scan.peek() {
            None | Some('\n' | '\r' | '}') => Ok(()),
            Some(',' | ';') => {
                self.scan.next();
                Ok(())
            }
            Some(_) if self.scan.at_comment() => Ok(()),
            Some(_) => {
                let got = self.scan.got();
                Err(self.scan.error(match braced {
                    true => format!("Expected a map value terminator \",\" or a map terminator \"}}\", but got {got} instead."),
                    false => format!("Expected a top-level value to end with a new line, comment or EOF, but got {got} instead."),
                }))
            }
        }
    }

    fn entry(&mut self) -> Result<(), ConfError> {
        let mut at = self.scan.at();
        let (key, quoted) = match self.scan.peek() {
            Some(c @ (':' | '=')) => return Err(self.scan.error(format!("Unexpected key separator '{c}'"))),
            Some('"' | '\'') => {
                at.column += 1;
                (self.scan.quoted()?, true)
            }
            _ => (self.scan.word(|c| !matches!(c, ' ' | '\t' | '\r' | '\n' | ':' | '=')).to_owned(), false),
        };
        self.scan.spaces();
        if !quoted && key.eq_ignore_ascii_case("include") && !matches!(self.scan.peek(), Some(':' | '=')) {
            return self.include();
        }
        let newline = self.scan.blanks() == Blank::Newline;
        if matches!(self.scan.peek(), Some(':' | '=')) && !newline {
            self.scan.next();
            self.scan.spaces();
            if matches!(self.scan.peek(), Some('\n' | '\r')) {
                return Err(self.scan.error("Expected value but found new line"));
            }
        }
        let value = self.value()?;
        self.put(Entry { key, at, value, used: false });
        Ok(())
    }

    /// The last value of a key holds.
    fn put(&mut self, entry: Entry) {
        let scope = self
            .scopes
            .last_mut()
            .expect("invariant: the document's own scope is never popped before its end");
        match scope.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => *known = Entry { used: known.used || entry.used, ..entry },
            None => scope.push(entry),
        }
    }

    fn value(&mut self) -> Result<Value, ConfError> {
        let at = self.scan.at();
        let kind = match self.scan.peek() {
            Some('{') => self.map()?,
            Some('[') => self.array()?,
            Some('(') => ValueKind::String(self.scan.block()?),
            Some('"' | '\'') => ValueKind::String(self.scan.quoted()?),
            Some('$') => return self.variable(at),
            None | Some(',' | ';' | '}' | ']') => {
                return Err(self.scan.error(format!("Expected value but found {}", self.scan.got())));
            }
            Some(_) => {
                let word = self.scan.bare()?;
                classify(&word).map_err(|bad| match bad {
                    BadWord::OutOfRange => ConfError::new(&at, Problem::OutOfRange { text: word.clone() }),
                    BadWord::Syntax(detail) => self.scan.error_at(&at, detail),
                })?
            }
        };
        Ok(Value { at, kind })
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ConfError>) -> Result<T, ConfError> {
        if self.depth == MAX_DEPTH {
            return Err(ConfError::new(&self.scan.at(), Problem::TooDeep { what: "maps and arrays" }));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn map(&mut self) -> Result<ValueKind, ConfError> {
        self.nested(|parser| {
            parser.scan.next();
            parser.scopes.push(vec![]);
            parser.entries(true)?;
            Ok(ValueKind::Map(parser.scopes.pop().expect("invariant: pushed above")))
        })
    }

    fn array(&mut self) -> Result<ValueKind, ConfError> {
        self.nested(|parser| {
            parser.scan.next();
            let mut items = vec![];
            loop {
                parser.scan.blanks();
                match parser.scan.peek() {
                    Some(']') => {
                        parser.scan.next();
                        return Ok(ValueKind::Array(items));
                    }
                    Some(',') => return Err(parser.scan.error("Unexpected array value terminator ','.")),
                    None => return Err(parser.scan.error("Unexpected EOF processing array.")),
                    Some(_) => items.push(parser.value()?),
                }
                let newline = parser.scan.blanks() == Blank::Newline;
                let comma = parser.scan.take(',');
                if !newline && !comma && parser.scan.peek() != Some(']') {
                    let got = parser.scan.got();
                    let ends = "an array value terminator \",\" or an array terminator \"]\"";
                    return Err(parser.scan.error(format!("Expected {ends}, but got {got} instead.")));
                }
            }
        })
    }

    /// A variable, or a bcrypt hash, which starts like one.
    fn variable(&mut self, at: Position) -> Result<Value, ConfError> {
        let word = self.scan.bare()?;
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|start| word.starts_with(start)) {
            return Ok(Value { at, kind: ValueKind::String(word) });
        }
        let name = &word[1..];
        let entries = self.scopes.iter_mut().rev();
        let found = entries.flat_map(|scope| scope.iter_mut()).find(|entry| entry.key == name);
        let kind = match found {
            Some(entry) => {
                entry.used = true;
                self.outside.copied += entry.value.count();
                if self.outside.copied > MAX_COPIED {
                    return Err(ConfError::new(&at, Problem::TooLarge));
                }
                entry.value.kind.clone()
            }
            None => self.environment(name, &at)?,
        };
        Ok(Value { at, kind })
    }

    /// The value of an environment variable is itself written in this language.
    fn environment(&mut self, name: &str, at: &Position) -> Result<ValueKind, ConfError> {
        let fail = |problem| Err(ConfError::new(at, problem));
        if self.outside.env.iter().any(|outer| outer == name) {
            return fail(Problem::VariableCycle { name: name.into() });
        }
        if self.outside.env.len() == MAX_INCLUDES {
            return fail(Problem::TooDeep { what: "variables" });
        }
        let Some(text) = (self.outside.source.env)(name) else {
            return fail(Problem::UnknownVariable { name: name.into(), line: at.line });
        };
        if text.trim().is_empty() {
            return Ok(ValueKind::String(String::new()));
        }
        self.outside.env.push(name.to_owned());
        let parsed = document(self.file, &format!("value = {text}\n"), self.outside);
        self.outside.env.pop();
        let value_error =
            |detail: String| Problem::VariableValue { name: name.into(), line: at.line, detail };
        match parsed {
            Err(inner) if inner.problem == Problem::TooLarge => fail(inner.problem),
            Err(inner) => fail(value_error(inner.problem.to_string())),
            Ok(entries) => match <[Entry; 1]>::try_from(entries) {
                Ok([entry]) => Ok(entry.value.kind),
                Err(_) => fail(value_error("it is not one value".to_owned())),
            },
        }
    }

    /// The file's entries become entries of the innermost scope. Its variables are its own and the environment's.
    fn include(&mut self) -> Result<(), ConfError> {
        let at = self.scan.at();
        let name = match self.scan.peek() {
            Some('"' | '\'') => self.scan.quoted()?,
            None | Some('\n' | '\r') => {
                return Err(self.scan.error("Expected include value but found new line"));
            }
            Some('{') => return Err(self.scan.error("Expected include value but found start of a map")),
            Some('[') => return Err(self.scan.error("Expected include value but found start of an array")),
            Some(_) => self.scan.bare()?,
        };
        // Relative to the including file, as `join` replaces the whole path by an absolute one.
        let path = self.file.parent().unwrap_or(Path::new("")).join(&name);
        let fail = |detail: String| Err(ConfError::new(&at, Problem::Include { file: name.clone(), detail }));
        if self.outside.files.contains(&path) {
            return fail("it includes itself".to_owned());
        }
        if self.outside.files.len() > MAX_INCLUDES {
            return Err(ConfError::new(&at, Problem::TooDeep { what: "include files" }));
        }
        let text = match (self.outside.source.read)(&path) {
            Ok(text) => text,
            Err(why) => return fail(why),
        };
        self.outside.files.push(path.clone());
        let entries = document(&path, &text, self.outside)?;
        self.outside.files.pop();
        for entry in entries {
            self.put(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
