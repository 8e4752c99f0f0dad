//! What commands print: titled tables, right-aligned facts, indented JSON, questions.

use std::io::{BufRead, IsTerminal, Write};

use comfy_table::{CellAlignment, Table as Grid};
use serde::Serialize;

use super::error::Failure;

/// Prints a line; a reader that went away (`| head`) ends the process quietly, as is usual for filters.
macro_rules! say {
    () => { $crate::command::output::line("") };
    ($($arg:tt)*) => { $crate::command::output::line(&format!($($arg)*)) };
}
pub(crate) use say;

/// Prints a line to standard output.
pub fn line(text: &str) {
    raw(text.as_bytes());
    raw(b"\n");
}

/// Prints bytes to standard output just as they are.
pub fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).is_err() {
        std::process::exit(141); // what a shell reports for a process ended by SIGPIPE
    }
}

/// Writes out what standard output still holds back.
pub fn flush() {
    if std::io::stdout().lock().flush().is_err() {
        std::process::exit(141);
    }
}

/// A table with a title over its columns.
pub struct Table {
    title: String,
    grid: Grid,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<const N: usize>(title: impl Into<String>, columns: [&str; N]) -> Self {
        use comfy_table::{ContentLineStyle, LineStyle, TableStyle};
        let style = TableStyle::new()
            .top_border(LineStyle::new('├', '─', '┬', '┤'))
            .header_lines(ContentLineStyle::new('│', '│', '│'))
            .header_separator(LineStyle::new('├', '─', '┼', '┤'))
            .content_lines(ContentLineStyle::new('│', '│', '│'))
            .bottom_border(LineStyle::new('╰', '─', '┴', '╯'));
        let mut grid = Grid::new();
        grid.load_style(style).set_header(columns);
        Self { title: title.into(), grid, rows: Vec::new() }
    }

    /// Aligns a column to the right, as numbers are in some tables.
    pub fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.grid.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Whether there is any row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's lines.
    pub fn render(&self) -> String {
        let mut grid = self.grid.clone();
        grid.add_rows(self.rows.clone());
        let mut body: Vec<String> = grid.lines().collect();
        let mut inside = width(body.first().map_or("", String::as_str)).saturating_sub(2);
        if inside < width(&self.title) + 2 {
            body = stretch(&mut grid, width(&self.title) + 2 - inside);
            inside = width(body.first().map_or("", String::as_str)).saturating_sub(2);
        }
        let spare = inside.saturating_sub(width(&self.title));
        // Of an odd blank the left side gets the larger part, as in the tool whose tables these are.
        let left = spare.div_ceil(2);
        let mut out = vec![
            format!("╭{}╮", "─".repeat(inside)),
            format!("│{}{}{}│", " ".repeat(left), self.title, " ".repeat(spare - left)),
        ];
        out.append(&mut body);
        out.join("\n")
    }

    /// Prints the table.
    pub fn print(&self) {
        line(&self.render());
    }
}

/// Widens the last column so that a long title fits.
fn stretch(grid: &mut Grid, missing: usize) -> Vec<String> {
    use comfy_table::{ColumnConstraint, Width};
    let last = grid.column_max_content_widths().len().saturating_sub(1);
    let wide = grid.column_max_content_widths().last().copied().unwrap_or(0);
    let wanted = wide.saturating_add(u16::try_from(missing).unwrap_or(u16::MAX)).saturating_add(2);
    if let Some(column) = grid.column_mut(last) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(wanted)));
    }
    grid.lines().collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

enum Fact {
    Heading(String),
    Row(String, String),
    Text(String),
}

/// A page of facts under headings, with the labels aligned at their colons.
#[derive(Default)]
pub struct Facts(Vec<Fact>);

impl Facts {
    /// A page with a first line.
    pub fn titled(title: impl Into<String>) -> Self {
        Self(vec![Fact::Text(title.into()), Fact::Text(String::new())])
    }

    /// Starts a section.
    pub fn heading(&mut self, text: &str) {
        self.0.push(Fact::Heading(text.to_owned()));
    }

    /// Adds a fact.
    pub fn row(&mut self, label: &str, value: impl Into<String>) {
        self.0.push(Fact::Row(label.to_owned(), value.into()));
    }

    /// Adds a fact if there is a value.
    pub fn row_some(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.row(label, value);
        }
    }

    /// Adds a fact if it holds.
    pub fn row_if(&mut self, holds: bool, label: &str, value: impl Into<String>) {
        if holds {
            self.row(label, value);
        }
    }

    /// The page's lines.
    pub fn render(&self) -> String {
        let widest = self.0.iter().map(|fact| if let Fact::Row(label, _) = fact { width(label) } else { 0 });
        let widest = widest.max().unwrap_or(0) + 2;
        let mut out: Vec<String> = Vec::new();
        for fact in &self.0 {
            match fact {
                Fact::Heading(text) => {
                    if out.last().is_some_and(|line| !line.is_empty()) {
                        out.push(String::new());
                    }
                    out.extend([format!("{text}:"), String::new()]);
                }
                Fact::Row(label, value) => {
                    let indent = " ".repeat(widest - width(label));
                    out.push(format!("{indent}{label}: {value}").trim_end().to_owned());
                }
                Fact::Text(text) => out.push(text.clone()),
            }
        }
        out.join("\n")
    }

    /// Prints the page.
    pub fn print(&self) {
        line(&self.render());
    }
}

/// Indents JSON without touching its order or its numbers; what is not JSON comes out unharmed.
pub fn indent_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            '{' | '[' => {
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                out.push(c);
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        break_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::request("write JSON", error))?;
    line(&indent_json(&text));
    Ok(())
}

/// Asks before something that cannot be taken back; `force` answers. `action` reads like `deleting stream x`.
pub fn confirm(action: &str, force: bool) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Unconfirmed { action: action.into() });
    }
    raw(format!("Really go on with {action}? (y/N) ").as_bytes());
    flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::Declined { action: action.into() }),
    }
}

/// Asks for a value; an empty answer takes the default. Only to be used with a terminal.
pub fn ask(label: &str, default: &str) -> Result<String, Failure> {
    raw(format!("{label} [{default}]: ").as_bytes());
    flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::request("read the answer", error))?;
    Ok(if answer.trim().is_empty() { default.to_owned() } else { answer.trim().to_owned() })
}

/// Capitalises a word of the API for display: `work_queue` becomes `Work Queue`.
pub fn title_case(word: &str) -> String {
    let words = word.split(['_', '-', ' ']).filter(|word| !word.is_empty()).map(|word| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_looks_like_the_introductions() {
        let columns = ["Name", "Description", "Created", "Messages", "Size", "Last Message"];
        let mut table = Table::new("Streams", columns);
        table.row(["shop_orders", "", "2023-09-12 10:25:52", "10", "600 B", "10.41s"].map(String::from));
        let want = "\
╭───────────────────────────────────────────────────────────────────────────────────╮
│                                      Streams                                      │
├─────────────┬─────────────┬─────────────────────┬──────────┬───────┬──────────────┤
│ Name        │ Description │ Created             │ Messages │ Size  │ Last Message │
├─────────────┼─────────────┼─────────────────────┼──────────┼───────┼──────────────┤
│ shop_orders │             │ 2023-09-12 10:25:52 │ 10       │ 600 B │ 10.41s       │
╰─────────────┴─────────────┴─────────────────────┴──────────┴───────┴──────────────╯";
        assert_eq!(table.render(), want);
    }

    #[test]
    fn a_title_wider_than_its_columns_fits() {
        let mut table = Table::new("a title that is much longer", ["A", "B"]);
        table.row(["1".into(), "2".into()]);
        let lines: Vec<String> = table.render().lines().map(String::from).collect();
        let widths: std::collections::BTreeSet<usize> = lines.iter().map(|line| width(line)).collect();
        assert_eq!(widths.len(), 1, "{}", table.render());
        assert!(lines[1].contains(" a title that is much longer "));
    }

    #[test]
    fn facts_align_at_the_colon() {
        let mut facts = Facts::titled("Information");
        facts.row("Subjects", "a.>");
        facts.heading("Limits");
        facts.row("Maximum Messages", "1");
        let want = "Information\n\n          Subjects: a.>\n\nLimits:\n\n  Maximum Messages: 1";
        assert_eq!(facts.render(), want);
    }

    #[test]
    fn json_keeps_its_order_and_strings() {
        let cases = [
            ("{}", "{}"),
            ("{ }", "{}"),
            ("[]", "[]"),
            (r#"{"b":1,"a":[1,2]}"#, "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    2\n  ]\n}"),
            (r#"{"a":"{:,\"x\\"}"#, "{\n  \"a\": \"{:,\\\"x\\\\\"\n}"),
            ("{\"n\": 12345678901234567890}", "{\n  \"n\": 12345678901234567890\n}"),
        ];
        for (json, want) in cases {
            assert_eq!(indent_json(json), want, "{json}");
        }
    }

    #[test]
    fn words_of_the_api_are_capitalised() {
        assert_eq!(title_case("last_per_subject"), "Last Per Subject");
        assert_eq!(title_case("file"), "File");
        assert_eq!(title_case(""), "");
    }
}
