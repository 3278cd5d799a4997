//! Replay: a benchmark's tables come in steps, some rows go again, and after each step a view of
//! its query is compared with the batch answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, filter_record_batch, take_record_batch};
use evert_fold::{Arrangement, Dataflow};
use evert_model::{Column, ColumnType, Delta, LogTime, RowSchema};
use evert_sql::SqlPlanner;
use evert_view::{Catalog, Name, Planner, Relation, RelationKind};

use crate::batch::Batch;
use crate::rows::{Row, equal, of_batches, shown};

/// Rows folded in one tick.
const TICK_ROWS: usize = 4096;

/// A table and all rows that it ever has.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) kind: RelationKind,
    pub(crate) schema: RowSchema,
    pub(crate) rows: RecordBatch,
}

impl Source {
    /// A source from cells as text.
    pub(crate) fn new(
        name: &'static str,
        columns: &[(&str, ColumnType)],
        key: Vec<usize>,
        cells: &[Vec<String>],
    ) -> Self {
        let columns = columns.iter().map(|(name, ty)| Column {
            name: (*name).to_owned(),
            ty: *ty,
            nullable: true,
        });
        let kind = if key.is_empty() { RelationKind::Stream } else { RelationKind::Table };
        let schema = RowSchema { columns: columns.collect(), key };
        let arrow = schema.to_arrow();
        let columns = arrow.fields().iter().enumerate().map(|(column, field)| {
            let cells: StringArray = cells.iter().map(|row| Some(&row[column])).collect();
            cast(&cells, field.data_type()).expect("texts of the type")
        });
        let rows = RecordBatch::try_new(Arc::clone(&arrow), columns.collect());
        Self { name, kind, schema, rows: rows.expect("columns of the schema") }
    }

    /// As the catalog holds it.
    pub(crate) fn relation(&self) -> Relation {
        relation(self.name, self.kind, &self.schema)
    }
}

/// A relation as the catalog holds it.
pub(crate) fn relation(name: &str, kind: RelationKind, schema: &RowSchema) -> Relation {
    let record = serde_json::json!({
        "name": Name::public(name),
        "kind": kind,
        "schema": schema,
        "topic": name,
        "topic_id": "00000000-0000-0000-0000-000000000001",
        "format": if kind == RelationKind::Bag { "debezium" } else { "json" },
    });
    serde_json::from_value(record).expect("a relation as its record has it")
}

/// Rows of a source that come (+1) or go (-1) in a step.
pub(crate) struct Change {
    pub(crate) source: usize,
    pub(crate) rows: Vec<u32>,
    pub(crate) weight: i64,
}

/// Sources and their history.
pub(crate) struct History {
    pub(crate) sources: Vec<Source>,
    pub(crate) steps: Vec<Vec<Change>>,
}

impl History {
    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for source in &self.sources {
            let relation = Arc::new(source.relation());
            catalog.relations.insert(Name::public(source.name), relation);
        }
        catalog
    }

    /// The tables after each step.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        let mut live: Vec<Vec<bool>> =
            self.sources.iter().map(|source| vec![false; source.rows.num_rows()]).collect();
        let after = |step: &Vec<Change>| {
            for change in step {
                for row in &change.rows {
                    live[change.source][*row as usize] = change.weight > 0;
                }
            }
            Batch::new(self.sources.iter().zip(&live).map(|(source, live)| {
                let kept = BooleanArray::from(live.clone());
                let rows = filter_record_batch(&source.rows, &kept).expect("one flag a row");
                (source.name.to_owned(), rows)
            }))
        };
        self.steps.iter().map(after).collect()
    }

    /// What a view of the query holds after each step, and how many rows of it are in error.
    fn fold(&self, sql: &str) -> Result<(arrow::datatypes::SchemaRef, Vec<Vec<Row>>), String> {
        let planned = SqlPlanner::new()
            .plan_view(sql, &self.catalog())
            .map_err(|error| format!("{} {}", error.sqlstate, error.message))?;
        let schema = planned.plan.output_schema().map_err(|error| error.to_string())?;
        let mut published = match &planned.plan.key {
            Some(key) => Arrangement::keyed(Arc::clone(&schema), key.clone()),
            None => Arrangement::bag(Arc::clone(&schema)),
        };
        let mut flow = Dataflow::new(planned.plan).map_err(|error| error.to_string())?;
        let places: BTreeMap<&str, usize> =
            planned.inputs.iter().enumerate().map(|(at, name)| (name.name.as_str(), at)).collect();
        let mut held = Vec::new();
        for step in &self.steps {
            for change in step {
                let source = &self.sources[change.source];
                let Some(place) = places.get(source.name) else { continue };
                for rows in change.rows.chunks(TICK_ROWS) {
                    let rows = UInt32Array::from(rows.to_vec());
                    let rows = take_record_batch(&source.rows, &rows).expect("rows of the source");
                    let weights = Int64Array::from(vec![change.weight; rows.num_rows()]);
                    let mut deltas = vec![Vec::new(); places.len()];
                    deltas[*place].push(Delta::new(rows, weights));
                    let output = flow.tick(LogTime::default(), &deltas);
                    if let Some(error) = output.errors.first() {
                        return Err(format!("{error:?}"));
                    }
                    published.apply(&output.changes);
                }
            }
            held.push(of_batches(published.snapshot().scan(None)));
        }
        Ok((schema, held))
    }

    /// Compares a view of `view` with the answers to `batch` after each step; gives the last
    /// number of rows.
    pub(crate) fn check(
        &self,
        view: &str,
        batch: &str,
        batches: &[Batch],
    ) -> Result<usize, String> {
        let (schema, held) = self.fold(view)?;
        // Stock DataFusion cuts averages of decimals off where the view rounds them.
        let rounded = |field: &Arc<arrow::datatypes::Field>| {
            field.data_type().is_floating() || field.name().starts_with("avg")
        };
        let rounded: Vec<bool> = schema.fields().iter().map(rounded).collect();
        for (step, (held, tables)) in held.iter().zip(batches).enumerate() {
            let answer = tables.answer(batch)?;
            let quotients = answer.schema.fields().iter().zip(schema.fields());
            // Quotients of decimals have more digits in the view.
            let rounded: Vec<bool> = quotients
                .zip(&rounded)
                .map(|((theirs, ours), rounded)| *rounded || scale(theirs) != scale(ours))
                .collect();
            let theirs = of_batches(answer.batches);
            if !equal(held, &theirs, &rounded) {
                let (ours, theirs) = differing(held, &theirs);
                return Err(format!(
                    "after step {step} the view holds\n{}the batch answer is\n{}",
                    shown(&ours),
                    shown(&theirs)
                ));
            }
        }
        Ok(held.last().map_or(0, Vec::len))
    }
}

fn scale(field: &arrow::datatypes::Field) -> Option<i8> {
    match field.data_type() {
        arrow::datatypes::DataType::Decimal128(_, scale) => Some(*scale),
        _ => None,
    }
}

/// The first rows that only one side has.
fn differing(ours: &[Row], theirs: &[Row]) -> (Vec<Row>, Vec<Row>) {
    let only = |rows: &[Row], others: &[Row]| {
        let others: std::collections::BTreeSet<&Row> = others.iter().collect();
        rows.iter().filter(|row| !others.contains(row)).take(8).cloned().collect()
    };
    (only(ours, theirs), only(theirs, ours))
}
