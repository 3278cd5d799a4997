//! What a join gives: pairs, and rows of one side by whether they have a match.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use evert_model::Delta;

use crate::plan::JoinKind;
use crate::rows::batch_of;

/// Which rows of a side are given alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    Nothing,
    /// Those with a match.
    Matched,
    /// Those without one.
    Unmatched,
    /// All, with a column that says which.
    Mark,
}

/// Which keys match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matching {
    /// Equal ones; NULL equals nothing.
    Equal,
    /// Equal ones; NULL equals NULL.
    NullEqual,
    /// Those that are not certain to differ: a NULL matches everything.
    NotDifferent,
}

#[derive(Debug)]
pub(super) struct Shape {
    /// Whether matching pairs are given.
    pub(super) pairs: bool,
    pub(super) left: Shows,
    pub(super) right: Shows,
    pub(super) matching: Matching,
    /// Left columns, then right columns.
    pub(super) pair_schema: SchemaRef,
    schema: SchemaRef,
    left_columns: usize,
}

impl Shape {
    pub(super) fn new(
        kind: JoinKind,
        null_equal: bool,
        left: &SchemaRef,
        right: &SchemaRef,
        schema: SchemaRef,
    ) -> Self {
        use Shows::{Mark, Matched, Nothing, Unmatched};
        let (pairs, left_shows, right_shows) = match kind {
            JoinKind::Inner => (true, Nothing, Nothing),
            JoinKind::Left => (true, Unmatched, Nothing),
            JoinKind::Right => (true, Nothing, Unmatched),
            JoinKind::Full => (true, Unmatched, Unmatched),
            JoinKind::Semi => (false, Matched, Nothing),
            JoinKind::Anti | JoinKind::NullAwareAnti => (false, Unmatched, Nothing),
            JoinKind::Mark => (false, Mark, Nothing),
        };
        let matching = match kind {
            // x NOT IN (...) is true if no x = y is true or unknown.
            JoinKind::NullAwareAnti => Matching::NotDifferent,
            _ if null_equal => Matching::NullEqual,
            _ => Matching::Equal,
        };
        let pair_schema = if pairs { Arc::clone(&schema) } else { side_by_side(left, right) };
        Self {
            pairs,
            left: left_shows,
            right: right_shows,
            matching,
            pair_schema,
            schema,
            left_columns: left.fields().len(),
        }
    }

    /// Rows of one side alone, in the join's columns.
    pub(super) fn alone(
        &self,
        is_left: bool,
        mut columns: Vec<ArrayRef>,
        mark: Option<BooleanArray>,
        weights: Int64Array,
    ) -> Delta {
        let rows = weights.len();
        if self.pairs {
            let null = |field: &Arc<arrow::datatypes::Field>| {
                let data_type: &DataType = field.data_type();
                new_null_array(data_type, rows)
            };
            let (left, right) = self.schema.fields().split_at(self.left_columns);
            if is_left {
                columns.extend(right.iter().map(null));
            } else {
                columns = left.iter().map(null).chain(columns).collect();
            }
        }
        columns.extend(mark.map(|mark| Arc::new(mark) as ArrayRef));
        Delta::new(batch_of(&self.schema, columns, rows), weights)
    }
}

fn side_by_side(left: &Schema, right: &Schema) -> SchemaRef {
    let fields = left.fields().iter().chain(right.fields());
    Arc::new(Schema::new(fields.map(|field| field.as_ref().clone()).collect::<Vec<_>>()))
}
