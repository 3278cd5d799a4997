//! Statements that tell how rows differ: VERIFY VIEW, CREATE OR REPLACE ... DRY RUN.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, SchemaRef};
use evert_view::{Difference, Name, RowDifference, VerifyReport};

use super::Session;
use super::show::{one, schema};
use crate::command::CreateView;
use crate::ddl::{self, blocking, while_wanted};
use crate::names::unknown_relation;
use crate::{Response, SqlError, outlets};

/// The first row is the verdict; each row after it is one that differs.
pub(super) fn verify_schema() -> SchemaRef {
    schema(&[
        ("view", DataType::Utf8View),
        ("position", DataType::Int64),
        ("rows_live", DataType::Int64),
        ("rows_replayed", DataType::Int64),
        ("equal", DataType::Boolean),
        ("difference", DataType::Utf8View),
    ])
}

/// A row for each row that would differ, after one that sums them up for each view.
pub(super) fn dry_run_schema() -> SchemaRef {
    schema(&[
        ("view", DataType::Utf8View),
        ("change", DataType::Utf8View),
        ("weight", DataType::Int64),
        ("key", DataType::Utf8View),
        ("before", DataType::Utf8View),
        ("after", DataType::Utf8View),
        ("by", DataType::Utf8View),
    ])
}

type Cells = Option<Vec<(String, String)>>;

fn shown(cells: &[(String, String)]) -> String {
    let cells = cells.iter().map(|(name, value)| format!("{name}={value}"));
    cells.collect::<Vec<_>>().join(", ")
}

fn texts(values: Vec<Option<String>>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter(values))
}

fn numbers(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

impl Session {
    pub(super) async fn verify(&mut self, name: &Name) -> Result<Response, SqlError> {
        let catalog = self.engine.views.catalog();
        let guard = self.guard();
        if catalog.outlets.contains_key(name) {
            let asked = name.clone();
            let work = while_wanted(&self.engine, move |engine, given_up| {
                outlets::verify(engine, &asked, given_up)
            });
            let verdict = guard.run(work).await?;
            self.last = verdict.position;
            return outlets::verified(name, &verdict);
        }
        if !catalog.contains(name) {
            return Err(unknown_relation(name, &catalog));
        }
        let name = name.clone();
        let work = blocking(&self.engine, move |engine| engine.views.verify(&name));
        let report = guard.run(work).await?;
        self.last = report.position;
        verified(&report)
    }

    pub(super) async fn dry_run(
        &mut self,
        create: &CreateView,
        text: &str,
    ) -> Result<Response, SqlError> {
        let work = ddl::dry_run(&self.engine, create, text);
        let (position, differences) = self.guard().run(work).await?;
        self.last = position;
        self.notices.push(format!("compared at position {position}; nothing was changed"));
        compared(&differences)
    }
}

fn verified(report: &VerifyReport) -> Result<Response, SqlError> {
    let mut difference = vec![summary(&report.difference)];
    if report.equal {
        difference = vec![None];
    }
    for (index, row) in report.difference.rows.iter().enumerate() {
        let mut told = told(row);
        if let Some(facts) = report.facts.get(index).filter(|facts| !facts.is_empty()) {
            told.push_str(&format!("; facts {}", facts.join(", ")));
        }
        difference.push(Some(told));
    }
    let rows = difference.len();
    let first = |value: i64| numbers((0..rows).map(|row| (row == 0).then_some(value)).collect());
    let size = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
    let position = i64::try_from(report.position.get()).unwrap_or(i64::MAX);
    let columns = vec![
        texts(vec![Some(report.name.to_string()); rows]),
        numbers(vec![Some(position); rows]),
        first(size(report.rows_live)),
        first(size(report.rows_replayed)),
        Arc::new(BooleanArray::from(vec![report.equal; rows])) as ArrayRef,
        texts(difference),
    ];
    verify_response(columns)
}

/// What VERIFY answers, of columns of [`verify_schema`].
pub(crate) fn verify_response(columns: Vec<ArrayRef>) -> Result<Response, SqlError> {
    one(verify_schema(), columns, "VERIFY")
}

/// One row of a report in a line: the live row, then the replayed one.
fn told(row: &RowDifference) -> String {
    let mut parts = Vec::new();
    let mut add = |what: &str, cells: &Cells| {
        if let Some(cells) = cells {
            parts.push(format!("{what} ({})", shown(cells)));
        }
    };
    add("live", &row.before);
    add("replayed", &row.after);
    if !row.by.is_empty() {
        parts.push(format!("by {}", row.by));
    }
    if row.weight != 0 {
        parts.push(format!("weight {:+}", row.weight));
    }
    parts.join("; ")
}

fn summary(difference: &Difference) -> Option<String> {
    let mut parts = Vec::new();
    if difference.removed > 0 || difference.added > 0 {
        parts.push(format!("{} rows leave, {} come", difference.removed, difference.added));
    }
    let columns = [("without", &difference.columns_removed), ("with", &difference.columns_added)];
    for (word, columns) in columns {
        if !columns.is_empty() {
            parts.push(format!("{word} column {}", columns.join(", ")));
        }
    }
    Some(if parts.is_empty() { "no row differs".to_owned() } else { parts.join("; ") })
}

fn compared(differences: &[Difference]) -> Result<Response, SqlError> {
    let (mut views, mut changes, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut before, mut after, mut by) = (vec![], vec![], vec![], vec![]);
    for difference in differences {
        let name = Some(difference.name.to_string());
        views.push(name.clone());
        changes.push(Some("summary".to_owned()));
        let size = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
        weights.push(Some(size(difference.rows_after) - size(difference.rows_before)));
        keys.push(None);
        before.push(Some(format!("{} rows", difference.rows_before)));
        after.push(Some(format!("{} rows", difference.rows_after)));
        by.push(summary(difference));
        for row in &difference.rows {
            views.push(name.clone());
            changes.push(Some(change(row).to_owned()));
            weights.push(Some(row.weight));
            keys.push((!row.key.is_empty()).then(|| shown(&row.key)));
            before.push(row.before.as_deref().map(shown));
            after.push(row.after.as_deref().map(shown));
            by.push((!row.by.is_empty()).then(|| row.by.clone()));
        }
    }
    let columns = vec![
        texts(views),
        texts(changes),
        numbers(weights),
        texts(keys),
        texts(before),
        texts(after),
        texts(by),
    ];
    one(dry_run_schema(), columns, "DRY RUN")
}

fn change(row: &RowDifference) -> &'static str {
    match (&row.before, &row.after) {
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "removed",
        _ => "added",
    }
}
