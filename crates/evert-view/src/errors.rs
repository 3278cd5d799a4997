//! The errors view: `evert.errors`, a row for each record or row that could not be used.
//!
//! A record that cannot be read stays here for good. A row that a view could not evaluate is here
//! for as long as the row exists.

use evert_fold::{Arrangement, RowError, Snapshot};
use evert_log::CommitPart;
use evert_model::{Column, ColumnType, Delta, LogTime, Position, RowSchema};

use std::collections::BTreeSet;

use arrow::array::{AsArray, BooleanArray, Int64Array};
use arrow::compute::filter_record_batch;

use crate::Name;
use crate::checkpoint::Mark;
use crate::decode::{Cell, Columns};
use crate::relation::BadRecord;

/// The name under which the view is read.
pub(crate) fn name() -> Name {
    Name::new("evert", "errors")
}

/// The view's columns.
pub fn errors_schema() -> RowSchema {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
    RowSchema {
        columns: vec![
            column("relation", ColumnType::Text),
            column("topic", ColumnType::Text),
            column("partition", ColumnType::Int32),
            column("offset", ColumnType::Int64),
            column("position", ColumnType::Int64),
            column("log_time", ColumnType::TimestampTz),
            column("reason", ColumnType::Text),
            column("value", ColumnType::Text),
        ],
        key: Vec::new(),
    }
}

/// The view's rows and what is about to change in them.
pub(crate) struct Errors {
    pub(crate) rows: Arrangement,
    pending: Columns,
    weights: Vec<i64>,
    /// For checkpoints, if there are any.
    pub(crate) mark: Option<Mark>,
    /// Changes that were met elsewhere.
    added: Vec<Delta>,
}

impl Errors {
    pub(crate) fn new() -> Self {
        let schema = errors_schema();
        Self {
            rows: Arrangement::bag(schema.to_arrow()),
            pending: Columns::new(&schema),
            weights: Vec::new(),
            mark: None,
            added: Vec::new(),
        }
    }

    /// From now on changes are noted for checkpoints; nothing has been folded yet.
    pub(crate) fn track(&mut self) {
        self.rows.track();
        self.mark = Some(Mark::default());
    }

    /// A record of `topic` that is no row of `relation`.
    pub(crate) fn record(
        &mut self,
        relation: &Name,
        topic: &str,
        part: &CommitPart,
        at: (Position, LogTime),
        bad: &BadRecord,
    ) {
        self.pending.push(&[
            Cell::Text(relation.to_string().into()),
            Cell::Text(topic.into()),
            Cell::Int(part.partition.get().into()),
            Cell::Int(bad.offset),
            Cell::Int(at.0.get() as i64),
            Cell::Int(at.1.get()),
            Cell::Text(bad.reason.as_str().into()),
            bad.value.as_deref().map_or(Cell::Null, |value| Cell::Text(value.into())),
        ]);
        self.weights.push(1);
    }

    /// A row that `view` could not evaluate, or can again.
    pub(crate) fn row(&mut self, view: &Name, error: &RowError) {
        self.pending.push(&[
            Cell::Text(view.to_string().into()),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Text(error.reason.as_str().into()),
            Cell::Text(error.row.as_str().into()),
        ]);
        self.weights.push(error.weight);
    }

    /// Takes over another cohort's errors of the same log.
    pub(crate) fn absorb(&mut self, other: &Snapshot) {
        let deltas: Vec<Delta> = other.as_deltas().collect();
        self.rows.apply(&deltas);
    }

    /// As [`Errors::add`], of the named relations and views only.
    pub(crate) fn add_of(&mut self, names: &BTreeSet<String>, changes: Vec<Delta>) {
        let wanted = changes.into_iter().map(|delta| {
            let relations = delta.rows.column(0).as_string_view();
            let is_wanted = |name: Option<&str>| name.is_some_and(|name| names.contains(name));
            let mask: BooleanArray = relations.iter().map(|name| Some(is_wanted(name))).collect();
            let rows = filter_record_batch(&delta.rows, &mask).expect("one bit a row");
            let weights = delta.weights.iter().zip(&mask).filter(|(_, keep)| *keep == Some(true));
            Delta::new(rows, weights.map(|(weight, _)| weight).collect())
        });
        self.added.extend(wanted);
    }

    /// Drops the rows of a relation or view that is gone.
    pub(crate) fn forget(&mut self, name: &Name) {
        let name = name.to_string();
        self.retain(|other| other != name);
    }

    /// Drops the rows of relations and views whose names `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.fold();
        let gone = self.rows.snapshot().as_deltas().map(|delta| {
            let names = delta.rows.column(0).as_string_view();
            let mask: BooleanArray =
                names.iter().map(|name| Some(!name.is_some_and(&keep))).collect();
            let rows = filter_record_batch(&delta.rows, &mask).expect("one bit a row");
            let weights = delta.weights.iter().zip(&mask).filter(|(_, gone)| *gone == Some(true));
            Delta::new(rows, weights.map(|(weight, _)| weight.map(|weight| -weight)).collect())
        });
        let gone: Vec<Delta> = gone.filter(|delta| !delta.is_empty()).collect();
        if !gone.is_empty() {
            self.rows.apply(&gone);
        }
    }

    /// Takes over changes that were met elsewhere, with those of the next fold.
    pub(crate) fn add(&mut self, changes: Vec<Delta>) {
        self.added.extend(changes);
    }

    /// Takes out everything, to be added elsewhere: what is folded and what is not.
    pub(crate) fn take_all(&mut self) -> Option<Vec<Delta>> {
        let mut changes: Vec<Delta> = self.rows.snapshot().as_deltas().collect();
        changes.append(&mut self.added);
        changes.extend(self.take_pending());
        if !self.rows.is_empty() {
            self.rows = Arrangement::bag(errors_schema().to_arrow());
        }
        (!changes.is_empty()).then_some(changes)
    }

    fn take_pending(&mut self) -> Option<Delta> {
        (self.pending.len() > 0).then(|| {
            let rows = self.pending.take();
            Delta::new(rows, Int64Array::from(std::mem::take(&mut self.weights)))
        })
    }

    pub(crate) fn fold(&mut self) {
        let mut changes = std::mem::take(&mut self.added);
        changes.extend(self.take_pending());
        if !changes.is_empty() {
            self.rows.apply(&changes);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.rows.snapshot()
    }
}
