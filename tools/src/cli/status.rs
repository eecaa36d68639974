//! `pinion status`
//!
//! The server's own JSON, laid out for people: what the server tells more of, this shows without a
//! change. Plain facts come first, then a table for each part. A list is a table with a row for each
//! item, or with a column for each when there is much to say of them. Units follow the names
//! (`_bytes`, `_ns`). Below the first facts, what is zero is left out, and so are the limits:
//! `--json` has everything.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, HumanCount};
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

/// Sections that say nothing about how the server is doing, or say it to programs.
const LEFT_OUT: &[&str] = &["limits", "latency_buckets"];
/// A list with more columns than this is turned on its side.
const COLUMNS_MAX: usize = 9;
/// The end of the names of times in nanoseconds.
const NANOSECONDS: &str = "_ns";

fn render(info: &Value) -> String {
    let mut sections = Vec::new();
    match info {
        Value::Object(fields) => object("", fields, &mut sections),
        other => sections.push(show("", other)),
    }
    sections.join("\n\n") + "\n"
}

/// The scalars of an object as one table, then its parts as tables of their own.
fn object(path: &str, fields: &Map<String, Value>, sections: &mut Vec<String>) {
    let mut table = table();
    for (name, value) in fields.iter().filter(|(_, value)| is_scalar(value)) {
        if path.is_empty() || !is_nothing(value) {
            table.add_row([label(name), show(&join(path, name), value)]);
        }
    }
    if !table.is_empty() {
        sections.push(titled(path, &mut table));
    }
    for (name, value) in fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str())) {
        let path = join(path, name);
        match value {
            Value::Object(parts) if is_table(parts) => {
                // Its parts are alike: a row for each.
                let rows = parts.iter().filter(|(_, part)| !is_nothing(part)).map(|(name, part)| {
                    let mut row = vec![(String::new(), label(name))];
                    flatten(&path, "", part, &mut row);
                    row
                });
                grid(&path, &rows.collect::<Vec<_>>(), sections);
            }
            Value::Object(fields) => object(&path, fields, sections),
            Value::Array(items) if !is_scalar(value) => {
                list(&path, &items.iter().collect::<Vec<_>>(), sections)
            }
            _ => {}
        }
    }
}

/// The items of a list as a table; then the lists within them, each as one table for all items.
fn list(path: &str, items: &[&Value], sections: &mut Vec<String>) {
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let mut cells = Vec::new();
            flatten(path, "", item, &mut cells);
            cells
        })
        .collect();
    grid(path, &rows, sections);
    let fields = items.iter().filter_map(|item| item.as_object());
    let mut names: Vec<&String> = Vec::new();
    for (name, value) in fields.clone().flatten() {
        if value.is_array() && !is_scalar(value) && !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let inner = fields.clone().filter_map(|fields| fields.get(name)?.as_array()).flatten();
        list(&join(path, name), &inner.collect::<Vec<_>>(), sections);
    }
}

/// Rows of named cells: as they are, or on their side.
fn grid(path: &str, rows: &[Vec<(String, String)>], sections: &mut Vec<String>) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let cell = |row: &Vec<(String, String)>, name: &str| {
        row.iter().find(|(found, _)| found == name).map_or_else(String::new, |(_, text)| text.clone())
    };
    let mut table = table();
    if names.len() <= COLUMNS_MAX {
        table.set_header(names.iter().map(|name| label(name).to_uppercase()));
        for row in rows {
            table.add_row(names.iter().map(|name| cell(row, name)));
        }
    } else {
        for (index, name) in names.iter().enumerate() {
            let cells: Vec<_> = rows.iter().map(|row| cell(row, name)).collect();
            if index == 0 || cells.iter().any(|text| text != "0" && !text.is_empty()) {
                table.add_row(std::iter::once(label(name)).chain(cells));
            }
        }
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    sections.push(titled(path, &mut table));
}

/// The scalars below a value with their paths. Lists of objects have tables of their own, and times
/// of parts would fill the page.
fn flatten(path: &str, name: &str, value: &Value, cells: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let times = field.ends_with(NANOSECONDS) && value.is_object();
                if !times && (value.is_object() || is_scalar(value)) {
                    flatten(path, &join(name, field), value, cells);
                }
            }
        }
        other => cells.push((name.to_owned(), show(&join(path, name), other))),
    }
}

/// Whether an object is made of objects of scalars only.
fn is_table(parts: &Map<String, Value>) -> bool {
    let is_row = |part: &Value| part.as_object().is_some_and(|fields| fields.values().all(is_scalar));
    !parts.is_empty() && parts.values().all(is_row)
}

/// What fits one cell: no object, and no list of objects.
fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.iter().any(|item| matches!(item, Value::Object(_) | Value::Array(_))),
        _ => true,
    }
}

/// Zeros all the way down.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(fields) => fields.values().all(is_nothing),
        _ => false,
    }
}

fn show(path: &str, value: &Value) -> String {
    match value {
        Value::String(text) => super::output::escape(text.as_bytes()),
        Value::Array(items) => items.iter().map(|item| show(path, item)).collect::<Vec<_>>().join(" "),
        Value::Null => "-".to_owned(),
        Value::Number(number) => {
            number.as_u64().map_or_else(|| number.to_string(), |number| unit(path, number))
        }
        other => other.to_string(),
    }
}

/// A number in the unit that its path tells.
fn unit(path: &str, number: u64) -> String {
    let mut names = path.rsplit(SEPARATOR);
    let name = names.next().unwrap_or_default();
    let is_time =
        name.ends_with(NANOSECONDS) || (name != "count" && names.any(|name| name.ends_with(NANOSECONDS)));
    match number {
        0 => "0".to_owned(),
        _ if is_time && number < 1_000_000 => format!("{:.1} us", number as f64 / 1e3),
        _ if is_time => format!("{:.2} ms", number as f64 / 1e6),
        _ if name.ends_with("_bytes") || name.ends_with("_bytes_max") => HumanBytes(number).to_string(),
        _ => HumanCount(number).to_string(),
    }
}

/// Between the names of a path.
const SEPARATOR: &str = " / ";

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}{SEPARATOR}{name}") }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn label(name: &str) -> String {
    super::output::escape(name.strip_suffix(NANOSECONDS).unwrap_or(name).replace('_', " ").as_bytes())
}

fn titled(path: &str, table: &mut Table) -> String {
    let table = table.trim_fmt();
    if path.is_empty() { table } else { format!("{}\n{table}", label(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Vec<String> {
        let text = render(&serde_json::from_str(json).unwrap());
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn facts_come_first_and_lists_become_tables() {
        let lines = lines(
            r#"{"shards":[{"core":0,"puts":1234567},{"core":1,"puts":2,"state":"ok"}],"refused":0,
                "version":"0.1.0","memory":{"used_bytes":2048,"misses":0,"caches":{"row":{"x":{}},"hits":1}},
                "cores":[0,1],"limits":{"frame_bytes_max":1}}"#,
        );
        assert_eq!(&lines[..4], ["cores 0 1", "refused 0", "version 0.1.0", ""]);
        for line in
            ["memory", "used bytes 2.00 KiB", "memory / caches", "CORE PUTS STATE", "0 1,234,567", "1 2 ok"]
        {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.contains("misses") || line.contains("limits")));
    }

    #[test]
    fn times_are_a_table_of_their_own_in_their_unit() {
        let lines = lines(
            r#"{"latency_ns":{"get":{"count":12345,"p50":1500,"p99":2500000},"put":{"count":0,"p50":0,"p99":0}}}"#,
        );
        assert_eq!(lines, ["latency", "COUNT P50 P99", "get 12,345 1.5 us 2.50 ms"]);
    }

    #[test]
    fn what_is_wide_is_turned_on_its_side_and_inner_lists_are_joined() {
        let item = |core: u32| {
            let counters: Vec<_> = (0..12).map(|index| format!("\"c{index}\":{}", index % 2)).collect();
            let counters = counters.join(",");
            format!(r#"{{"core":{core},"counters":{{{counters}}},"shards":[{{"shard":{core},"gets":5}}]}}"#)
        };
        let lines = lines(&format!(r#"{{"per_core":[{},{}]}}"#, item(0), item(1)));
        assert_eq!(lines[0], "per core");
        assert!(lines.contains(&"core 0 1".to_owned()) && lines.contains(&"counters / c1 1 1".to_owned()));
        assert!(!lines.iter().any(|line| line.contains("c2")), "zeros are left out");
        assert!(lines.contains(&"per core / shards".to_owned()));
        assert!(lines.contains(&"5 0".to_owned()) && lines.contains(&"5 1".to_owned()));
    }
}
