//! `pinion status`
//!
//! The server's own JSON, laid out for people: what the server tells more of, this shows without a
//! change. Plain facts come first, then a table for each part; a list of objects is a table with a
//! row for each.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};

use super::ServerOptions;
use super::failure::{Failure, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the server's JSON as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let info = server.client()?.server_info()?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", info.trim_end())?;
        return Ok(());
    }
    let info: Value = serde_json::from_str(&info)
        .map_err(|error| Failure::System(format!("the server's answer is not JSON: {error}")))?;
    write!(out, "{}", render(&info))?;
    Ok(())
}

fn render(info: &Value) -> String {
    let mut sections = Vec::new();
    match info {
        Value::Object(fields) => object(None, fields, &mut sections),
        other => sections.push(show(other)),
    }
    sections.join("\n\n") + "\n"
}

/// The scalars of an object as one table, then its parts as tables of their own.
fn object(title: Option<&str>, fields: &Map<String, Value>, sections: &mut Vec<String>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in fields.iter().filter(|(_, value)| is_scalar(value)) {
        table.add_row([label(name), show(value)]);
    }
    if table.row_count() > 0 {
        sections.push(titled(title, &table));
    }
    for (name, value) in fields {
        let title = title.map_or_else(|| label(name), |title| format!("{title} / {}", label(name)));
        match value {
            Value::Object(fields) => object(Some(&title), fields, sections),
            Value::Array(rows) if !is_scalar(value) => list(&title, rows, sections),
            _ => {}
        }
    }
}

/// A row for each object, a column for each scalar that any of them has, nested ones by path.
fn list(title: &str, rows: &[Value], sections: &mut Vec<String>) {
    let rows: Vec<Vec<(String, String)>> = rows
        .iter()
        .map(|row| {
            let mut cells = Vec::new();
            flatten("", row, &mut cells);
            cells
        })
        .collect();
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|name| label(name).to_uppercase()));
    for row in &rows {
        let cell = |name: &&str| {
            row.iter().find(|(found, _)| found == name).map_or_else(String::new, |(_, value)| value.clone())
        };
        table.add_row(columns.iter().map(cell));
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    sections.push(titled(Some(title), &table));
}

fn flatten(path: &str, value: &Value, cells: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, cells);
            }
        }
        other => cells.push((path.to_owned(), show(other))),
    }
}

/// What fits one cell: no object, and no list of objects.
fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.iter().any(|item| matches!(item, Value::Object(_) | Value::Array(_))),
        _ => true,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => super::output::escape(text.as_bytes()),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(" "),
        Value::Null => "-".to_owned(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        other => other.to_string(),
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn label(name: &str) -> String {
    super::output::escape(name.replace('_', " ").as_bytes())
}

fn titled(title: Option<&str>, table: &Table) -> String {
    let table = table.trim_fmt();
    title.map_or_else(|| table.clone(), |title| format!("{title}\n{table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_first_and_lists_become_tables() {
        let info: Value = serde_json::from_str(
            r#"{"shards":[{"core":0,"puts":1234567},{"core":1,"puts":2,"state":"ok"}],
                "version":"0.1.0","memory":{"used_bytes":5,"caches":{"row":1}},"cores":[0,1]}"#,
        )
        .unwrap();
        let text = render(&info);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0], ["cores", "0", "1"]);
        assert_eq!(lines[1], ["version", "0.1.0"]);
        assert!(lines.contains(&vec!["memory"]) && lines.contains(&vec!["used", "bytes", "5"]));
        assert!(lines.contains(&vec!["memory", "/", "caches"]));
        assert!(lines.contains(&vec!["CORE", "PUTS", "STATE"]));
        assert!(lines.contains(&vec!["0", "1,234,567"]));
        assert!(lines.contains(&vec!["1", "2", "ok"]));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
