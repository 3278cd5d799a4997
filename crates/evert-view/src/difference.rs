//! Differences between the rows of two snapshots, for people.
//!
//! Owns: which rows differ and by how much, as text.
//! Not here: where the snapshots come from (`lifecycle`, `verify`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::kernels::numeric::sub;
use arrow::datatypes::Schema;
use arrow::util::display::array_value_to_string;
use evert_fold::{Arrangement, Snapshot};
use evert_model::Delta;

use crate::Name;

/// Rows that are told at most.
const ROWS_TOLD: usize = 100;
/// Differing rows that are paired by key at most.
const ROWS_PAIRED: usize = 100_000;

/// How the rows of a view differ from what they were, or ought to be.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The view.
    pub name: Name,
    /// Rows before.
    pub rows_before: usize,
    /// Rows after.
    pub rows_after: usize,
    /// Rows, multiplicities counted, that are there before only.
    pub removed: u64,
    /// Rows that are there after only.
    pub added: u64,
    /// Columns that are there before only; other columns are compared without them.
    pub columns_removed: Vec<String>,
    /// Columns that are there after only.
    pub columns_added: Vec<String>,
    /// The first of the rows that differ, by their text.
    pub rows: Vec<RowDifference>,
}

/// One row that differs, or one key whose row does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowDifference {
    /// The key's columns and values, if the view has a key.
    pub key: Vec<(String, String)>,
    /// All columns and values before.
    pub before: Option<Vec<(String, String)>>,
    /// And after.
    pub after: Option<Vec<(String, String)>>,
    /// How much more often the row is there after than before.
    pub weight: i64,
    /// What differs between the two, column by column: `amount +5, status open -> paid`.
    pub by: String,
}

impl Difference {
    /// Whether the rows are the same.
    pub fn is_empty(&self) -> bool {
        self.removed == 0
            && self.added == 0
            && self.columns_removed.is_empty()
            && self.columns_added.is_empty()
    }
}

/// What turns the rows of `before` into those of `after`. Columns that only one of them has are
/// named and left out of the comparison.
pub(crate) fn difference(name: &Name, before: &Snapshot, after: &Snapshot) -> Difference {
    let (old, new) = (before.schema(), after.schema());
    let missing = |of: &Schema, other: &Schema| -> Vec<String> {
        let fields = of.fields().iter().filter(|field| !has(other, field));
        fields.map(|field| field.name().clone()).collect()
    };
    let (columns_removed, columns_added) = (missing(old, new), missing(new, old));
    let (rows_before, rows_after) = (before.len(), after.len());
    let key = key_names(before).filter(|key| Some(key) == key_names(after).as_ref());
    let changes = match columns_removed.is_empty() && columns_added.is_empty() && old == new {
        true => after.changes_since(before),
        false => {
            let common: Vec<&str> = old
                .fields()
                .iter()
                .filter(|field| has(new, field))
                .map(|field| field.name().as_str())
                .collect();
            projected(after, &common)
                .snapshot()
                .changes_since(&projected(before, &common).snapshot())
        }
    };
    let weights = || changes.iter().flat_map(|delta| delta.weights.values().iter().copied());
    let removed = weights().filter(|weight| *weight < 0).map(|weight| weight.unsigned_abs()).sum();
    let added = weights().filter(|weight| *weight > 0).map(|weight| weight.unsigned_abs()).sum();
    let rows = told(&changes, key.as_ref());
    let name = name.clone();
    Difference {
        name,
        rows_before,
        rows_after,
        removed,
        added,
        columns_removed,
        columns_added,
        rows,
    }
}

fn has(schema: &Schema, field: &arrow::datatypes::Field) -> bool {
    let found = schema.field_with_name(field.name());
    found.is_ok_and(|found| found.data_type() == field.data_type())
}

fn key_names(snapshot: &Snapshot) -> Option<BTreeSet<String>> {
    let columns = snapshot.key().filter(|key| !key.is_empty())?;
    Some(columns.iter().map(|&column| snapshot.schema().field(column).name().clone()).collect())
}

/// The rows with these columns only.
fn projected(snapshot: &Snapshot, columns: &[&str]) -> Arrangement {
    let indices: Vec<usize> = columns
        .iter()
        .map(|name| snapshot.schema().index_of(name).expect("both have the column"))
        .collect();
    let schema = snapshot.schema().project(&indices).expect("the columns exist");
    let schema = Arc::new(Schema::new(schema.fields().clone()));
    let mut rows = Arrangement::bag(Arc::clone(&schema));
    for delta in snapshot.as_deltas() {
        let columns = indices.iter().map(|&index| Arc::clone(delta.rows.column(index))).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(delta.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            .expect("columns of the schema");
        rows.apply(&[Delta::new(batch, delta.weights)]);
    }
    rows
}

/// A row of a change.
#[derive(Clone, Copy)]
struct Place<'a> {
    delta: &'a Delta,
    row: usize,
}

impl Place<'_> {
    fn weight(self) -> i64 {
        self.delta.weights.value(self.row)
    }

    fn text(self) -> Vec<(String, String)> {
        row_text(&self.delta.rows, self.row)
    }

    fn key(self, names: &BTreeSet<String>) -> Vec<(String, String)> {
        let mut text = self.text();
        text.retain(|(name, _)| names.contains(name));
        text
    }
}

/// A row's columns and values.
pub(crate) fn row_text(rows: &RecordBatch, row: usize) -> Vec<(String, String)> {
    let schema = rows.schema();
    let cells = schema.fields().iter().zip(rows.columns());
    cells.map(|(field, column)| (field.name().clone(), cell_text(column, row))).collect()
}

fn cell_text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".into();
    }
    array_value_to_string(column, row).unwrap_or_else(|_| "?".into())
}

fn told(changes: &[Delta], key: Option<&BTreeSet<String>>) -> Vec<RowDifference> {
    let places = changes
        .iter()
        .flat_map(|delta| (0..delta.len()).map(move |row| Place { delta, row }))
        .take(ROWS_PAIRED);
    let mut rows: Vec<RowDifference> = match key {
        None => places.map(|place| alone(place, Vec::new())).collect(),
        Some(key) => {
            let mut pairs: BTreeMap<_, (Option<Place<'_>>, Option<Place<'_>>)> = BTreeMap::new();
            for place in places {
                let pair = pairs.entry(place.key(key)).or_default();
                match place.weight() < 0 {
                    true => pair.0 = Some(place),
                    false => pair.1 = Some(place),
                }
            }
            pairs.into_iter().map(|(key, pair)| of_pair(key, pair)).take(ROWS_TOLD).collect()
        }
    };
    rows.sort_by(|a, b| (&a.key, &a.before, &a.after).cmp(&(&b.key, &b.before, &b.after)));
    rows.truncate(ROWS_TOLD);
    rows
}

fn of_pair(
    key: Vec<(String, String)>,
    pair: (Option<Place<'_>>, Option<Place<'_>>),
) -> RowDifference {
    match pair {
        (Some(before), Some(after)) => RowDifference {
            by: by(before, after),
            before: Some(before.text()),
            after: Some(after.text()),
            weight: 0,
            key,
        },
        (Some(place), None) | (None, Some(place)) => alone(place, key),
        (None, None) => RowDifference { key, ..RowDifference::default() },
    }
}

fn alone(place: Place<'_>, key: Vec<(String, String)>) -> RowDifference {
    let (weight, text) = (place.weight(), Some(place.text()));
    match weight < 0 {
        true => RowDifference { key, before: text, weight, ..RowDifference::default() },
        false => RowDifference { key, after: text, weight, ..RowDifference::default() },
    }
}

/// Column by column: numbers by how much, others from what to what.
fn by(before: Place<'_>, after: Place<'_>) -> String {
    let mut parts = Vec::new();
    let schema = before.delta.rows.schema();
    for (index, field) in schema.fields().iter().enumerate() {
        let old = before.delta.rows.column(index).slice(before.row, 1);
        let new = after.delta.rows.column(index).slice(after.row, 1);
        let (old_text, new_text) = (cell_text(&old, 0), cell_text(&new, 0));
        if old_text == new_text {
            continue;
        }
        let moved = field.data_type().is_numeric() && !old.is_null(0) && !new.is_null(0);
        let moved = moved.then(|| sub(&new, &old).ok()).flatten().map(|by| cell_text(&by, 0));
        parts.push(match moved {
            Some(by) if by.starts_with('-') => format!("{} {by}", field.name()),
            Some(by) => format!("{} +{by}", field.name()),
            None => format!("{} {old_text} -> {new_text}", field.name()),
        });
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field};

    fn rows(key: Option<Vec<usize>>, rows: &[(&str, i64)]) -> Snapshot {
        let schema = Arc::new(Schema::new(vec![
            Field::new("city", DataType::Utf8View, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let mut arrangement = match key {
            Some(key) => Arrangement::keyed(Arc::clone(&schema), key),
            None => Arrangement::bag(Arc::clone(&schema)),
        };
        let cities = StringViewArray::from_iter_values(rows.iter().map(|row| row.0));
        let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        let columns: Vec<ArrayRef> = vec![Arc::new(cities), Arc::new(numbers)];
        let batch = RecordBatch::try_new(schema, columns).expect("rows");
        arrangement.apply(&[Delta::inserts(batch)]);
        arrangement.snapshot()
    }

    #[test]
    fn rows_of_a_key_are_told_by_how_much_they_differ() {
        let before = rows(Some(vec![0]), &[("Delhi", 1), ("Pune", 5), ("Agra", 2)]);
        let after = rows(Some(vec![0]), &[("Delhi", 1), ("Pune", 3), ("Kochi", 4)]);
        let found = difference(&Name::public("v"), &before, &after);
        assert_eq!((found.removed, found.added), (2, 2));
        let told: Vec<_> = found
            .rows
            .iter()
            .map(|row| (row.key[0].1.as_str(), row.weight, row.by.as_str()))
            .collect();
        assert_eq!(told, [("Agra", -1, ""), ("Kochi", 1, ""), ("Pune", 0, "n -2")]);
        assert!(difference(&Name::public("v"), &after, &after).is_empty());
    }

    #[test]
    fn rows_without_a_key_are_told_by_their_weight() {
        let before = rows(None, &[("Delhi", 1), ("Delhi", 1), ("Pune", 5)]);
        let after = rows(None, &[("Delhi", 1), ("Pune", 5), ("Pune", 6)]);
        let found = difference(&Name::public("v"), &before, &after);
        let weights: Vec<i64> = found.rows.iter().map(|row| row.weight).collect();
        assert_eq!((found.removed, found.added, weights), (1, 1, vec![1, -1]));
    }

    #[test]
    fn columns_that_come_or_go_are_named_and_left_out() {
        let before = rows(None, &[("Delhi", 1), ("Pune", 5)]);
        let arrangement = projected(&before, &["city"]);
        let found = difference(&Name::public("v"), &before, &arrangement.snapshot());
        assert_eq!(found.columns_removed, ["n"]);
        assert_eq!((found.removed, found.added), (0, 0));
        assert!(!found.is_empty());
    }
}
