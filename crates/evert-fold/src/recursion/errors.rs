//! Rows in error, and how often.

use std::collections::BTreeMap;

use crate::dataflow::RowError;

/// Errors by reason and row.
#[derive(Debug, Default)]
pub(super) struct Errors(BTreeMap<(String, String), i64>);

impl Errors {
    pub(super) fn count(&mut self, errors: Vec<RowError>) {
        for RowError { reason, row, weight } in errors {
            *self.0.entry((reason, row)).or_default() += weight;
        }
        self.0.retain(|_, count| *count != 0);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (error, count) in &other.0 {
            *self.0.entry(error.clone()).or_default() += count;
        }
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = RowError> {
        self.0.into_iter().map(|((reason, row), weight)| RowError { reason, row, weight })
    }

    /// Makes `new` the errors there are, and reports the difference.
    pub(super) fn replace(&mut self, new: Vec<RowError>, report: &mut Vec<RowError>) {
        report.extend(new.iter().cloned());
        let mut all = Self::default();
        all.count(new);
        let gone = std::mem::replace(self, all);
        report.extend(gone.into_rows().map(|error| RowError { weight: -error.weight, ..error }));
    }
}
