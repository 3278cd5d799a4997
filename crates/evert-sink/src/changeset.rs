//! Changesets: what some ticks changed, each key once.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::row::{RowConverter, SortField};
use evert_model::{Delta, RowSchema};
use evert_view::OutletError;

/// Rows that no longer count are let go of once they are this many, and most.
const HELD_MIN: usize = 40_000;

/// A row of a changeset.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) rows: &'a RecordBatch,
    pub(crate) row: usize,
    /// The row is gone; otherwise it is there now.
    pub(crate) gone: bool,
    /// The row that the key had before all of it, if it had one.
    pub(crate) before: Option<(&'a RecordBatch, usize)>,
}

#[derive(Clone, Copy)]
struct Place {
    delta: usize,
    row: usize,
    gone: bool,
    before: Option<(usize, usize)>,
}

/// Changes of rows with a key, of which the last counts; or rows that are appended.
pub(crate) struct Changeset {
    keys: Option<(RowConverter, Vec<usize>)>,
    deltas: Vec<Delta>,
    by_key: HashMap<Box<[u8]>, usize>,
    places: Vec<Place>,
    /// Rows of the deltas, those that no longer count too.
    held: usize,
    /// By how many rows there are more than before.
    pub(crate) weight: i64,
}

impl Changeset {
    /// # Errors
    /// When keys of these types cannot be told apart.
    pub(crate) fn new(schema: &RowSchema) -> Result<Self, OutletError> {
        let fields = schema.to_arrow();
        let keys = match schema.key.is_empty() {
            true => None,
            false => {
                let sorts = schema.key.iter().map(|&column| fields.field(column).data_type());
                let sorts = sorts.map(|ty| SortField::new(ty.clone())).collect();
                let converter = RowConverter::new(sorts)
                    .map_err(|error| OutletError::Failed(error.to_string()))?;
                Some((converter, schema.key.clone()))
            }
        };
        let (deltas, by_key, places) = (Vec::new(), HashMap::new(), Vec::new());
        Ok(Self { keys, deltas, by_key, places, held: 0, weight: 0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.deltas.clear();
        self.by_key.clear();
        self.places.clear();
        (self.held, self.weight) = (0, 0);
    }

    /// Adds what comes later.
    ///
    /// # Errors
    /// When rows leave that have no key, or keys cannot be read.
    pub(crate) fn add(&mut self, delta: Delta) -> Result<(), OutletError> {
        let index = self.deltas.len();
        let weights = delta.weights.values();
        self.weight += weights.iter().sum::<i64>();
        match &self.keys {
            None => {
                for (row, &weight) in weights.iter().enumerate() {
                    if weight < 0 {
                        let why = "a row without a key has left: only a view with a key, or a \
                                   stream, can be kept there";
                        return Err(OutletError::Failed(why.into()));
                    }
                    let place = Place { delta: index, row, gone: false, before: None };
                    self.places.extend(std::iter::repeat_n(place, weight as usize));
                }
            }
            Some((converter, key)) => {
                let columns: Vec<_> =
                    key.iter().map(|&column| delta.rows.column(column).clone()).collect();
                let keys = converter
                    .convert_columns(&columns)
                    .map_err(|error| OutletError::Failed(error.to_string()))?;
                for (row, key) in keys.iter().enumerate() {
                    let gone = weights[row] < 0;
                    let before = gone.then_some((index, row));
                    let place = Place { delta: index, row, gone, before };
                    match self.by_key.get(key.data()) {
                        Some(&known) => {
                            let before = self.places[known].before;
                            self.places[known] = Place { before, ..place };
                        }
                        None => {
                            self.by_key.insert(key.data().into(), self.places.len());
                            self.places.push(place);
                        }
                    }
                }
            }
        }
        self.held += delta.len();
        self.deltas.push(delta);
        match self.held > 4 * self.len() + HELD_MIN {
            true => self.compact(),
            false => Ok(()),
        }
    }

    /// Lets go of rows that no longer count.
    fn compact(&mut self) -> Result<(), OutletError> {
        let mut wanted = Vec::with_capacity(self.len());
        for place in &mut self.places {
            let mut keep = |delta: usize, row: usize| {
                wanted.push((delta, row));
                (0, wanted.len() - 1)
            };
            let before = place.before.map(|(delta, row)| keep(delta, row));
            // A row that is gone is mostly the one that was there before.
            let last = (place.delta, place.row);
            let (delta, row) = match place.before == Some(last) {
                true => before.unwrap_or_default(),
                false => keep(last.0, last.1),
            };
            *place = Place { delta, row, gone: place.gone, before };
        }
        let rows: Vec<_> = self.deltas.iter().map(|delta| &delta.rows).collect();
        let rows = interleave_record_batch(&rows, &wanted)
            .map_err(|error| OutletError::Failed(error.to_string()))?;
        self.held = rows.num_rows();
        // The places say what is gone; the weights were counted when they came.
        let weights = Int64Array::from_value(1, rows.num_rows());
        self.deltas = vec![Delta::new(rows, weights)];
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.range(0..self.len())
    }

    /// Some of the changes, by their numbers.
    pub(crate) fn range(&self, range: Range<usize>) -> impl Iterator<Item = Change<'_>> {
        self.places[range].iter().map(|place| Change {
            rows: &self.deltas[place.delta].rows,
            row: place.row,
            gone: place.gone,
            before: place.before.map(|(delta, row)| (&self.deltas[delta].rows, row)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use evert_model::{Column, ColumnType};

    use super::*;

    fn delta(schema: &RowSchema, rows: &[(i64, i64, i64)]) -> Delta {
        let column = |cell: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(cell)))
        };
        let columns = vec![column(|row| row.0), column(|row| row.1)];
        let batch = RecordBatch::try_new(schema.to_arrow(), columns).expect("rows");
        Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|row| row.2)))
    }

    fn schema(key: Vec<usize>) -> RowSchema {
        let column =
            |name: &str| Column { name: name.into(), ty: ColumnType::Int64, nullable: false };
        RowSchema { columns: vec![column("k"), column("n")], key }
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let schema = schema(vec![0]);
        let mut changes = Changeset::new(&schema).expect("a changeset");
        changes.add(delta(&schema, &[(1, 5, -1), (2, 6, 1)])).expect("added");
        changes.add(delta(&schema, &[(2, 6, -1), (1, 7, 1), (2, 8, 1), (3, 9, 1)])).expect("added");
        changes.add(delta(&schema, &[(3, 9, -1)])).expect("added");
        let told: Vec<_> = changes
            .iter()
            .map(|change| {
                let values = change.rows.column(1).as_primitive::<Int64Type>();
                let before = change
                    .before
                    .map(|(rows, row)| rows.column(1).as_primitive::<Int64Type>().value(row));
                (values.value(change.row), change.gone, before)
            })
            .collect();
        // The third was never there before.
        let expected = vec![(7, false, Some(5)), (8, false, None), (9, true, None)];
        assert_eq!((told, changes.weight), (expected, 1));
    }

    #[test]
    fn what_no_longer_counts_is_let_go_of() {
        let schema = schema(vec![0]);
        let mut changes = Changeset::new(&schema).expect("a changeset");
        changes
            .add(delta(&schema, &[(1, 0, -1), (1, 1, 1), (2, 0, -1), (3, 7, 1)]))
            .expect("added");
        let turn: Vec<_> = (0..1000).flat_map(|n| [(1, n + 1, -1), (1, n + 2, 1)]).collect();
        for _ in 0..50 {
            changes.add(delta(&schema, &turn)).expect("added");
        }
        assert!(changes.held <= HELD_MIN + turn.len(), "{}", changes.held);
        let number =
            |rows: &RecordBatch, row: usize| rows.column(1).as_primitive::<Int64Type>().value(row);
        let told: Vec<_> = changes
            .iter()
            .map(|change| {
                let before = change.before.map(|(rows, row)| number(rows, row));
                (number(change.rows, change.row), change.gone, before)
            })
            .collect();
        let expected = vec![(1001, false, Some(0)), (0, true, Some(0)), (7, false, None)];
        assert_eq!((told, changes.weight), (expected, 0));
    }

    #[test]
    fn rows_without_a_key_can_only_come() {
        let schema = schema(Vec::new());
        let mut changes = Changeset::new(&schema).expect("a changeset");
        changes.add(delta(&schema, &[(1, 1, 2)])).expect("added");
        assert_eq!(changes.len(), 2);
        assert!(changes.add(delta(&schema, &[(1, 1, -1)])).is_err());
    }
}
