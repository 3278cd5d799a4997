//! The driver: the JavaScript between Rust and a fold's code, made for its columns.
//!
//! Owns: what the code is given (a row as an object) and how what it returns is taken apart.

use std::fmt::Write as _;

use evert_model::{Column, ColumnType, ItemType};

/// The driver of a fold that reads rows of `input` and gives `output`.
///
/// It is a function of the function that makes the fold: `[missing, begin]`, where `missing()` names
/// the first of the fold's functions that is not there, and `begin()` starts a group: `[feed, end]`.
/// `feed(n, ...columns)` folds rows, `end()` gives the values of `output`, or null for no row.
pub(crate) fn source(input: &[Column], output: &[Column]) -> String {
    let names: Vec<String> = (0..input.len()).map(|place| format!("c{place}")).collect();
    let row: Vec<String> = input
        .iter()
        .zip(&names)
        .map(|(column, name)| format!("{}: {}", property(&column.name), value(column.ty, name)))
        .collect();
    let known: Vec<String> = output.iter().map(|column| quoted(&column.name)).collect();
    let result: Vec<String> = output.iter().map(returned).collect();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"(function (make) {{
  "use strict";
  const {{ parse, stringify }} = JSON;
  const {{ keys }} = Object;
  const known = new Set([{known}]);
  const time = (value) => (value instanceof Date ? value.getTime() : value);
  const day = (value) => (value instanceof Date ? value.toISOString().slice(0, 10) : value);
  const each = (value, of) => {{
    if (!Array.isArray(value)) return value;
    const items = [];
    for (let i = 0; i < value.length; i++) items[i] = of(value[i]);
    return items;
  }};
  const kind = (value) => (value === null ? "null" : Array.isArray(value) ? "an array" : "a " + typeof value);
  const missing = () => {{
    const fold = make();
    if (typeof fold !== "object" || fold === null) return "init";
    return ["init", "step", "row"].find((name) => typeof fold[name] !== "function") ?? null;
  }};
  const begin = () => {{
    const fold = make();
    let state = fold.init();
    const feed = (n{names}) => {{
      for (let i = 0; i < n; i++) {{
        state = fold.step(state, {{ {row} }});
        if (state === undefined) throw new TypeError("step returned nothing: it returns the state");
      }}
    }};
    const end = () => {{
      const row = fold.row(state);
      if (row === null || row === undefined) return null;
      if (typeof row !== "object" || Array.isArray(row)) {{
        throw new TypeError("row returned " + kind(row) + ": it returns an object or null");
      }}
      for (const name of keys(row)) {{
        if (!known.has(name)) throw new TypeError("row returned '" + name + "', which is none of its columns");
      }}
      return [{result}];
    }};
    return [feed, end];
  }};
  return [missing, begin];
}})"#,
        known = known.join(", "),
        names = names.iter().fold(String::new(), |all, name| all + ", " + name),
        row = row.join(", "),
        result = result.join(", "),
    );
    text
}

/// A value of a row. JSON comes as its text.
fn value(ty: ColumnType, name: &str) -> String {
    match ty {
        ColumnType::Json => format!("{name}[i] === null ? null : parse({name}[i])"),
        _ => format!("{name}[i]"),
    }
}

/// A value that the fold returned, as Rust takes it.
fn returned(column: &Column) -> String {
    let value = format!("row[{}]", quoted(&column.name));
    match column.ty {
        ColumnType::Array(ItemType::Timestamp | ItemType::TimestampTz) => {
            format!("each({value}, time)")
        }
        ColumnType::Array(ItemType::Date) => format!("each({value}, day)"),
        ColumnType::Json => format!("{value} === null ? null : stringify({value})"),
        ColumnType::Timestamp | ColumnType::TimestampTz => format!("time({value})"),
        ColumnType::Date => format!("day({value})"),
        _ => value,
    }
}

/// A property's name in an object's literal, where `__proto__` would mean something else.
fn property(name: &str) -> String {
    match name {
        "__proto__" => format!("[{}]", quoted(name)),
        name => quoted(name),
    }
}

fn quoted(name: &str) -> String {
    // JSON's texts are JavaScript's.
    serde_json::Value::from(name).to_string()
}
