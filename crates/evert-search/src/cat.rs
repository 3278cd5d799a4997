//! `_cat/indices`: the indexes as a table for people. (Elasticsearch reference, "cat indices API")

use std::cmp::Ordering;

use evert_view::ViewState;
use serde_json::{Map, Value, json};

use crate::api::{Answer, Answered, Call};
use crate::error::EsError;
use crate::glob;
use crate::registry::SearchIndexes;
use crate::request::flag;

/// The columns, each with its other names.
const COLUMNS: [(&str, &[&str]); 11] = [
    ("health", &["h"]),
    ("status", &["s"]),
    ("index", &["i", "idx"]),
    ("uuid", &["id"]),
    ("pri", &["p", "shards.primary", "shardsPrimary"]),
    ("rep", &["r", "shards.replica", "shardsReplica"]),
    ("docs.count", &["dc", "docsCount"]),
    ("docs.deleted", &["dd", "docsDeleted"]),
    ("store.size", &["ss", "storeSize"]),
    ("pri.store.size", &[]),
    ("dataset.size", &[]),
];

/// A row: what each column shows.
type Row = Map<String, Value>;

/// The column that a name means.
fn column(name: &str) -> Option<&'static str> {
    let found = COLUMNS.iter().find(|(column, others)| *column == name || others.contains(&name));
    found.map(|(column, _)| *column)
}

/// The columns that `h` asks for, each with the name over it. Names that are not known are left
/// out, as Elasticsearch does.
fn columns_of(h: Option<&str>) -> Vec<(String, &'static str)> {
    let Some(h) = h else {
        return COLUMNS.iter().map(|(column, _)| ((*column).to_owned(), *column)).collect();
    };
    let mut wanted = Vec::new();
    for name in h.split(',').map(str::trim) {
        if name.contains('*') {
            let matching = COLUMNS.iter().filter(|(column, _)| glob::matches(name, column));
            wanted.extend(matching.map(|(column, _)| ((*column).to_owned(), *column)));
        } else if let Some(column) = column(name) {
            wanted.push((name.to_owned(), column));
        }
    }
    wanted
}

/// How a row is told from another: what it shows, and what that counts.
fn compare(a: &Row, b: &Row, column: &str) -> Ordering {
    let text = |row: &Row| row[column].as_str().unwrap_or_default().to_owned();
    let (a, b) = (text(a), text(b));
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(&b),
    }
}

/// The columns to order by, and which of them descending.
fn orders(s: &str) -> Result<Vec<(&'static str, bool)>, EsError> {
    let parse = |order: &str| {
        let (name, descending) = match order.trim().rsplit_once(':') {
            Some((name, "desc")) => (name, true),
            Some((name, "asc")) => (name, false),
            _ => (order.trim(), false),
        };
        let unknown = || EsError::argument(format!("Unable to sort by unknown sort key `{name}`"));
        Ok((column(name).ok_or_else(unknown)?, descending))
    };
    s.split(',').map(parse).collect()
}

impl SearchIndexes {
    pub(crate) fn cat_indices(&self, call: &Call) -> Answered {
        let wanted = self.matching(&call.index)?;
        let mut rows: Vec<Map<String, Value>> = Vec::new();
        for (name, state, count) in self.states()? {
            if !wanted.contains(&name) {
                continue;
            }
            let health = match state {
                ViewState::Live | ViewState::Paused | ViewState::Behind => "green",
                ViewState::Rebuilding { .. } => "yellow",
                _ => "red",
            };
            if call.param("health").is_some_and(|wanted| wanted != health) {
                continue;
            }
            let generation = self.index(&name).ok().and_then(|index| index.current());
            let deleted: u64 = generation
                .iter()
                .flat_map(|it| it.searcher.segment_readers())
                .map(|segment| u64::from(segment.num_deleted_docs()))
                .sum();
            let bytes = generation
                .and_then(|it| it.searcher.space_usage().ok())
                .map_or(0, |usage| usage.total().get_bytes());
            let row = json!({
                "health": health, "status": "open", "index": name.to_string(),
                "uuid": name.to_string(), "pri": "1", "rep": "0",
                "docs.count": count.to_string(), "docs.deleted": deleted.to_string(),
                "store.size": bytes.to_string(), "pri.store.size": bytes.to_string(),
                "dataset.size": bytes.to_string() });
            rows.extend(row.as_object().cloned());
        }
        for (column, descending) in orders(call.param("s").unwrap_or("index"))?.into_iter().rev() {
            rows.sort_by(|a, b| match descending {
                true => compare(b, a, column),
                false => compare(a, b, column),
            });
        }
        if call.param("bytes").is_none() {
            for row in &mut rows {
                for column in ["store.size", "pri.store.size", "dataset.size"] {
                    let bytes = row[column].as_str().and_then(|bytes| bytes.parse().ok());
                    row.insert(column.into(), human(bytes.unwrap_or_default()).into());
                }
            }
        }
        let columns = columns_of(call.param("h"));
        if call.param("format") == Some("json") {
            let shown = rows.iter().map(|row| {
                let cells = columns.iter();
                let cells = cells.map(|(name, column)| (name.clone(), row[*column].clone()));
                Value::Object(cells.collect())
            });
            return Ok(Answer::json(Value::Array(shown.collect()).to_string(), None));
        }
        let text = table(&columns, &rows, flag(call.param("v")));
        Ok(Answer { is_text: true, ..Answer::json(text, None) })
    }
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}b"),
        1024..1_048_576 => format!("{:.1}kb", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1}mb", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1}gb", bytes as f64 / 1_073_741_824.0),
    }
}

/// Rows as text, a column under the other.
fn table(columns: &[(String, &str)], rows: &[Row], header: bool) -> String {
    let cell = |row: &Row, column: &str| {
        row.get(column).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    if header {
        lines.push(columns.iter().map(|(name, _)| name.clone()).collect());
    }
    lines.extend(
        rows.iter().map(|row| columns.iter().map(|(_, column)| cell(row, column)).collect()),
    );
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_short_names_and_patterns() {
        let names =
            |h: &str| -> Vec<_> { columns_of(Some(h)).into_iter().map(|it| it.1).collect() };
        assert_eq!(names("i,dc,nothing"), ["index", "docs.count"]);
        assert_eq!(names("docs.*"), ["docs.count", "docs.deleted"]);
        assert_eq!(columns_of(Some("idx")), [("idx".to_owned(), "index")]);
        assert_eq!(columns_of(None).len(), COLUMNS.len());
    }

    #[test]
    fn counts_are_ordered_as_numbers() {
        let row = |count: &str| -> Row {
            [("docs.count".to_owned(), count.into())].into_iter().collect()
        };
        assert_eq!(compare(&row("9"), &row("10"), "docs.count"), Ordering::Less);
        let both = orders("docs.count:desc,i").expect("two");
        assert_eq!(both, [("docs.count", true), ("index", false)]);
        assert_eq!(orders("x").expect_err("unknown").status, 400);
    }
}
