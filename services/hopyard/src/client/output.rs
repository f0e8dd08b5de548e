//! What commands print: data on stdout in the chosen format, progress on stderr.

use std::io::{ErrorKind, Write as _};

use clap::ValueEnum;
use hopyard_contract::Usage;
use hopyard_contract::money::format_microusd;
use serde_json::Value;

use super::yaml::to_yaml;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One document.
    Json,
    /// One line per item.
    Jsonl,
    /// One document.
    Yaml,
}

/// A column of a table: its title, and the text of an item in it.
pub type Column = (&'static str, fn(&Value) -> String);

/// Writes one line of data.
pub fn data(line: &str) {
    bytes(format!("{line}\n").as_bytes());
}

/// Writes data as it is.
pub fn bytes(data: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(data).and_then(|()| out.flush()) {
        // Whoever read us has seen enough (`| head`); there is nobody left to tell anything else either.
        std::process::exit(if error.kind() == ErrorKind::BrokenPipe { 0 } else { 1 });
    }
}

/// Writes one line for people who watch.
pub fn progress(line: &str) {
    // Standard error may be closed; the command's work goes on.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints one answer; `None` when the format is a table, which the caller makes.
pub fn document(format: Format, value: &Value) -> Option<String> {
    match format {
        Format::Table => None,
        Format::Json => Some(format!("{value:#}\n")),
        Format::Jsonl => Some(format!("{value}\n")),
        Format::Yaml => Some(to_yaml(value)),
    }
}

/// The text of a page of a list, `{items, next_cursor}`.
pub fn page(format: Format, page: &Value, columns: &[Column]) -> String {
    let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    match format {
        Format::Table => table(&items, columns),
        Format::Jsonl => items.iter().map(|item| format!("{item}\n")).collect(),
        Format::Json | Format::Yaml => document(format, page).unwrap_or_default(),
    }
}

/// Columns as wide as their widest text, the last one without padding.
pub fn table(items: &[Value], columns: &[Column]) -> String {
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
    rows.extend(items.iter().map(|item| columns.iter().map(|(_, cell)| clean(&cell(item))).collect()));
    align(&rows)
}

/// Rows of texts as aligned lines.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ", width = *width)).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A text that cannot move the cursor or split a row: control characters become spaces.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text below a key; empty when it is absent or null, JSON when it is no text.
pub fn field(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A length of time for people: `0.4 s`, `3 m 20 s`, `2 h 5 m`.
pub fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Money and tokens for people.
pub fn cost(usage: &Usage) -> String {
    let tokens = &usage.tokens;
    let all = tokens.input.saturating_add(tokens.output).saturating_add(tokens.cache_read).saturating_add(tokens.cache_write);
    let money = usage.cost_microusd.map_or_else(|| "unknown".to_owned(), format_microusd);
    if all == 0 && usage.turns == 0 && usage.tool_calls == 0 {
        return format!("{money}, no model calls");
    }
    format!("{money}, {} tokens in, {} out, {} turns, {} tool calls", all - tokens.output, tokens.output, usage.turns, usage.tool_calls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned_and_clean() {
        let columns: [Column; 2] = [("ID", |v| field(v, "/id")), ("TEXT", |v| field(v, "/text"))];
        let list = json!({"items": [{"id": "äb", "text": "x\ny"}, {"id": 12345}], "next_cursor": null});
        assert_eq!(page(Format::Table, &list, &columns), "ID     TEXT\näb     x y\n12345\n");
        assert_eq!(page(Format::Jsonl, &list, &columns), "{\"id\":\"äb\",\"text\":\"x\\ny\"}\n{\"id\":12345}\n");
        assert!(page(Format::Yaml, &list, &columns).starts_with("\"items\":\n  -\n    \"id\": \"äb\""));
        assert_eq!(document(Format::Json, &json!({"a": 1})).unwrap(), "{\n  \"a\": 1\n}\n");
    }

    #[test]
    fn lengths_and_costs_are_for_people() {
        assert_eq!([0, 449, 59_999, 60_000, 3_600_000].map(duration), ["0.0 s", "0.4 s", "59.9 s", "1 m 0 s", "1 h 0 m"]);
        assert_eq!(cost(&Usage::default()), "$0.00, no model calls");
        let unknown = Usage { cost_microusd: None, turns: 2, ..Usage::default() };
        assert_eq!(cost(&unknown), "unknown, 0 tokens in, 0 out, 2 turns, 0 tool calls");
    }
}
