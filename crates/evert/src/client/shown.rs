//! Rows for people, as a table, or for programs, as JSON: an object a line.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};

/// Rows of named columns.
pub(super) struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn new<N: Into<String>>(columns: impl IntoIterator<Item = N>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row, in the columns' order.
    pub(super) fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as text, with a line feed at the end of each line.
    pub(super) fn render(&self, json: bool) -> String {
        if json {
            let object = |row: &Vec<Value>| {
                let members = self.columns.iter().cloned().zip(row.iter().cloned());
                format!("{}\n", Value::Object(members.collect::<Map<_, _>>()))
            };
            return self.rows.iter().map(object).collect();
        }
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(plain));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            let numeric = |row: &Vec<Value>| row[index].is_number() || row[index].is_null();
            if !self.rows.is_empty() && self.rows.iter().all(numeric) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n")
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_table_or_objects() {
        let mut rows = Rows::new(["name", "n"]);
        rows.push(vec!["a".into(), 10.into()]);
        rows.push(vec![Value::Null, 9.into()]);
        let table = "| name |  n |\n|------|----|\n| a    | 10 |\n|      |  9 |\n";
        assert_eq!(rows.render(false), table);
        assert_eq!(rows.render(true), "{\"n\":10,\"name\":\"a\"}\n{\"n\":9,\"name\":null}\n");
    }
}
