//! A look into a backup's archive: every entry is read, so that what is damaged is found before it is needed.

use std::io::Read;
use std::path::Path;

use hw_archive::{Item, Reader};
use serde::Serialize;

use super::{data_file, read_meta};
use crate::command::error::Failure;
use crate::command::output::{Facts, print_json};
use crate::command::units::{bytes, comma};

const PIECE: usize = 1 << 20;

/// What an archive holds.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Contents {
    /// Names of its consumers.
    pub consumers: Vec<String>,
    /// How many messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest and the highest sequence among them; 0 without any.
    pub first: u64,
    pub last: u64,
}

impl Contents {
    fn take(&mut self, item: Item) {
        match item {
            Item::Consumer(name, _) => self.consumers.push(String::from_utf8_lossy(&name).into_owned()),
            Item::Message(message) => {
                self.messages += 1;
                self.bytes += message.joined.len() as u64;
                self.first = if self.first == 0 { message.seq.0 } else { self.first };
                self.last = message.seq.0;
            }
            Item::State(_) | Item::End => {}
        }
    }
}

/// Counts what passes by.
#[derive(Default)]
pub struct Inspector {
    reader: Reader,
    pub contents: Contents,
}

impl Inspector {
    /// Looks at more bytes; the error says what is wrong with them.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        self.reader.push(piece);
        while let Some(item) = self.reader.next_item().map_err(|error| error.to_string())? {
            self.contents.take(item);
        }
        Ok(())
    }

    /// Whether everything was there.
    pub fn finish(self) -> Result<Contents, String> {
        self.reader.finish().map_err(|error| error.to_string())?;
        Ok(self.contents)
    }
}

/// Reads a backup's archive to its end.
fn inspect(path: &Path) -> Result<Contents, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::file("read", path, error);
    let mut file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let (mut inspector, mut piece) = (Inspector::default(), vec![0; PIECE]);
    loop {
        let count = file.read(&mut piece).map_err(|error| failed(&error))?;
        if count == 0 {
            return inspector.finish().map_err(|why| failed(&why));
        }
        inspector.push(&piece[..count]).map_err(|why| failed(&why))?;
    }
}

/// Shows what a backup holds.
pub fn show(folder: &Path, json: bool) -> Result<(), Failure> {
    let meta = read_meta(folder)?;
    let path = data_file(folder);
    let contents = inspect(&path)?;
    if json {
        return print_json(&contents);
    }
    let name = meta["config"]["name"].as_str().unwrap_or_default();
    let mut facts = Facts::titled(format!("Backup of Stream {name} in {}", folder.display()));
    let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    facts.row("Archive", format!("{} in {}", bytes(size), path.display()));
    facts.row("Messages", comma(contents.messages));
    facts.row("Bytes", bytes(contents.bytes));
    facts.row("First Sequence", comma(contents.first));
    facts.row("Last Sequence", comma(contents.last));
    facts.row("Consumers", comma(contents.consumers.len() as u64));
    facts.row_some("Consumer Names", &contents.consumers.join(", "));
    facts.row("Complete", "true");
    facts.print();
    Ok(())
}
