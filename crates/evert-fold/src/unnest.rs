//! Unnest: a row for each element of lists.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, Int64Array, OffsetSizeTrait, UInt32Array,
    UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use evert_model::Delta;

use crate::rows::batch_of;

/// Output batches have about this many rows, but for a row that alone makes more.
const OUTPUT_ROWS: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Unnest {
    columns: Vec<usize>,
    keep_empty: bool,
    schema: SchemaRef,
}

/// A list column: its elements, and which of them each row has.
struct Lists {
    elements: ArrayRef,
    /// First element and number of elements.
    spans: Vec<(u64, usize)>,
}

impl Unnest {
    pub(crate) fn new(columns: Vec<usize>, keep_empty: bool, schema: SchemaRef) -> Self {
        Self { columns, keep_empty, schema }
    }

    pub(crate) fn apply(&self, delta: &Delta) -> Vec<Delta> {
        let lists: Vec<Lists> =
            self.columns.iter().map(|&column| Lists::of(delta.rows.column(column))).collect();
        let lengths: Vec<usize> = (0..delta.len())
            .map(|row| {
                let longest = lists.iter().map(|list| list.spans[row].1).max().unwrap_or(0);
                longest.max(usize::from(self.keep_empty))
            })
            .collect();
        let mut out = Vec::new();
        let mut start = 0;
        while start < lengths.len() {
            let (mut end, mut rows) = (start, 0);
            while end < lengths.len() && (rows == 0 || rows + lengths[end] <= OUTPUT_ROWS) {
                rows += lengths[end];
                end += 1;
            }
            if rows > 0 {
                out.push(self.rows(delta, &lists, start, &lengths[start..end]));
            }
            start = end;
        }
        out
    }

    /// What the rows from `start` on become, of as many elements as `lengths` says.
    fn rows(&self, delta: &Delta, lists: &[Lists], start: usize, lengths: &[usize]) -> Delta {
        let rows = || lengths.iter().enumerate().map(|(i, &length)| (start + i, length));
        let from = UInt32Array::from_iter_values(
            rows().flat_map(|(row, length)| std::iter::repeat_n(row as u32, length)),
        );
        let weights = from.values().iter().map(|&row| delta.weights.value(row as usize));
        let weights = Int64Array::from_iter_values(weights);
        let columns = self.schema.fields().iter().enumerate().map(|(column, field)| {
            let list = self.columns.iter().position(|&list| list == column);
            let values = match list.map(|list| &lists[list]) {
                None => take(delta.rows.column(column), &from, None),
                Some(list) => {
                    let elements: UInt64Array = rows()
                        .flat_map(|(row, length)| {
                            let (first, own) = list.spans[row];
                            (0..length).map(move |i| (i < own).then_some(first + i as u64))
                        })
                        .collect();
                    take(&list.elements, &elements, None)
                }
            };
            let values = values.expect("the indices lie in the batch");
            if values.data_type() == field.data_type() {
                return values;
            }
            cast(&values, field.data_type()).expect("the plan was checked for types that cast")
        });
        Delta::new(batch_of(&self.schema, columns.collect(), from.len()), weights)
    }
}

impl Lists {
    fn of(column: &ArrayRef) -> Self {
        match column.data_type() {
            DataType::List(_) => Self::of_list(column.as_list::<i32>()),
            DataType::LargeList(_) => Self::of_list(column.as_list::<i64>()),
            DataType::FixedSizeList(_, length) => {
                let list = column.as_fixed_size_list();
                let length = usize::try_from(*length).expect("a list's length is not negative");
                let spans = (0..list.len())
                    .map(|row| {
                        let first = list.value_offset(row) as u64;
                        (first, if list.is_null(row) { 0 } else { length })
                    })
                    .collect();
                Self { elements: Arc::clone(list.values()), spans }
            }
            other => panic!("the plan was checked for lists, and {other} is none"),
        }
    }

    fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Self {
        let spans = list.value_offsets().windows(2).enumerate().map(|(row, ends)| {
            let (first, end) = (ends[0].as_usize(), ends[1].as_usize());
            (first as u64, if list.is_null(row) { 0 } else { end - first })
        });
        Self { elements: Arc::clone(list.values()), spans: spans.collect() }
    }
}

/// The type of a list's elements.
pub(crate) fn element_type(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}
