//! General aggregates: the rows of each group in order, from which a group that has changed is
//! computed anew.
//!
//! Invariants
//! - A group's rows are in the aggregate's order, ties by the bytes of its arguments: the result is
//!   a function of the rows, whatever order they came in.
//! - What a group showed last is kept, so that a group is computed once a tick.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};

use super::values::Selection;
use crate::FoldError;
use crate::keys::{KeyCodec, normalise};
use crate::plan::GeneralAggregate;
use crate::project::reason;
use crate::sets::{Sets, ValueSink};

/// Rows are handed to an aggregate in batches of so many.
const BATCH_ROWS: usize = 16 * 1024;

type Computed = Result<ScalarValue, String>;

#[derive(Debug)]
pub(super) struct General {
    aggregate: Arc<AggregateFunctionExpr>,
    is_distinct: bool,
    /// The input's columns that rows are made of: the order's, then the arguments'.
    columns: Vec<usize>,
    /// How many of them are the order's.
    order: usize,
    codec: KeyCodec,
    /// What the aggregate is given.
    arguments: Vec<Argument>,
    sets: Sets<Box<[u8]>>,
    /// What a group without rows shows.
    empty: Option<Computed>,
    /// By slot; `None` where it is not known.
    shown: Vec<Option<Box<Computed>>>,
    shown_bytes: usize,
}

#[derive(Debug)]
enum Argument {
    /// A column of the kept rows.
    Column(usize),
    Literal(Arc<dyn PhysicalExpr>),
}

impl General {
    pub(super) fn new(
        input: &SchemaRef,
        general: &GeneralAggregate,
        is_distinct: bool,
    ) -> Result<Self, FoldError> {
        let invalid = |error: String| FoldError::InvalidPlan(error);
        let is_distinct = is_distinct || general.0.is_distinct();
        let aggregate = over_sorted(&general.0, input).map_err(|error| invalid(reason(&error)))?;
        let given = GeneralAggregate(Arc::clone(&aggregate)).columns().map_err(invalid)?;
        let exprs = aggregate.expressions();
        let (arguments, order) = given.split_at(exprs.len());
        let order: Vec<usize> = order.iter().flatten().copied().collect();
        let mut columns = order.clone();
        let places: Vec<Option<usize>> = arguments
            .iter()
            .map(|column| Some(place(input, &mut columns, order.len(), (*column)?)))
            .collect();
        let mut arguments: Vec<Argument> = places
            .iter()
            .zip(&exprs)
            .map(|(place, expr)| match place {
                Some(place) => Argument::Column(*place),
                None => Argument::Literal(Arc::clone(expr)),
            })
            .collect();
        arguments.extend((0..order.len()).map(Argument::Column));
        let options = aggregate.order_bys().iter().map(|sort| sort.options);
        let options = options.chain(std::iter::repeat(SortOptions::default()));
        let typed = columns.iter().zip(options);
        let typed =
            typed.map(|(&column, options)| (input.field(column).data_type().clone(), options));
        let general = Self {
            codec: KeyCodec::with_options(typed)?,
            order: order.len(),
            aggregate,
            is_distinct,
            columns,
            arguments,
            sets: Sets::default(),
            empty: None,
            shown: Vec::new(),
            shown_bytes: 0,
        };
        general.aggregate.create_accumulator().map_err(|error| invalid(reason(&error)))?;
        Ok(general)
    }

    pub(super) fn resize(&mut self, end: usize) {
        self.sets.resize(end);
        self.shown.resize_with(end, || None);
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.sets.clear(slot);
        self.forget(slot);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sets.memory_bytes()
            + self.shown.capacity() * size_of::<Option<Box<Computed>>>()
            + self.shown_bytes
    }

    /// A group has changed: what it showed is not what it shows.
    fn forget(&mut self, slot: u32) {
        if let Some(shown) = self.shown[slot as usize].take() {
            self.shown_bytes -= computed_bytes(&shown);
        }
    }

    pub(super) fn change(&mut self, rows: &RecordBatch, input: &Selection<'_>) {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, &column)| {
                let column = rows.column(column);
                let normal = place < self.order || self.is_distinct;
                if normal { normalise(column) } else { Arc::clone(column) }
            })
            .collect();
        let keys = self.codec.encode(&columns, rows.num_rows());
        input.for_each(|row, slot, weight| {
            self.sets.add(slot, input.ids, keys.get(row), weight);
            self.forget(slot);
        });
    }

    /// Computes the groups that are not known.
    pub(super) fn refresh(&mut self, groups: &[u32]) {
        for &group in groups {
            if self.shown[group as usize].is_some() {
                continue;
            }
            let computed = match (self.sets.get(group).max(), &self.empty) {
                (None, Some(empty)) => empty.clone(),
                (None, None) => self.empty.insert(self.try_compute(group)).clone(),
                _ => self.try_compute(group),
            };
            self.shown_bytes += computed_bytes(&computed);
            self.shown[group as usize] = Some(Box::new(computed));
        }
    }

    /// What a group shows, since it was refreshed.
    pub(super) fn shown(&self, group: u32) -> Result<&ScalarValue, &str> {
        let shown = self.shown[group as usize].as_ref().expect("shown groups are computed");
        shown.as_ref().as_ref().map_err(String::as_str)
    }

    /// A panic inside an aggregate is that group's error: it must not stop the others.
    fn try_compute(&self, group: u32) -> Computed {
        catch_unwind(AssertUnwindSafe(|| self.compute(group)))
            .unwrap_or_else(|_| Err("an aggregate panicked".to_owned()))
    }

    fn compute(&self, group: u32) -> Computed {
        let run = || {
            let mut accumulator = self.aggregate.create_accumulator()?;
            let mut batch: Vec<&[u8]> = Vec::new();
            for (row, count) in self.sets.get(group).iter() {
                let times = if self.is_distinct { count.min(1) } else { count };
                for _ in 0..times {
                    batch.push(row);
                    if batch.len() == BATCH_ROWS {
                        accumulator.update_batch(&self.arguments(&batch)?)?;
                        batch.clear();
                    }
                }
            }
            if !batch.is_empty() {
                accumulator.update_batch(&self.arguments(&batch)?)?;
            }
            accumulator.evaluate()
        };
        run().map_err(|error| reason(&error))
    }

    fn arguments(&self, rows: &[&[u8]]) -> datafusion_common::Result<Vec<ArrayRef>> {
        let columns = self.codec.decode(rows.iter().copied());
        let values = self.arguments.iter().map(|argument| match argument {
            Argument::Column(place) => Ok(Arc::clone(&columns[*place])),
            Argument::Literal(literal) => {
                let none = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
                literal.evaluate(&none)?.into_array(rows.len())
            }
        });
        values.collect()
    }

    pub(super) fn track(&mut self) {
        self.sets.track();
    }

    pub(super) fn save(&mut self, ids: &[u64], next: u64, sink: &mut ValueSink<'_>) {
        self.sets.save(ids, next, sink);
    }

    pub(super) fn loaded(&mut self, next: u64) {
        self.sets.loaded(next);
    }

    pub(super) fn load(&mut self, slot: u32, value: &[u8], count: i64) {
        self.sets.step(slot, value, count);
    }
}

fn computed_bytes(computed: &Computed) -> usize {
    let of = computed.as_ref().map_or_else(|reason| reason.len(), ScalarValue::size);
    size_of::<Computed>() + of
}

/// The place of an argument among the kept columns. An order's column serves as one, but for
/// floats: their order does not tell -0.0 from 0.0.
fn place(input: &SchemaRef, columns: &mut Vec<usize>, order: usize, column: usize) -> usize {
    let is_float = contains_float(input.field(column).data_type());
    let from = if is_float { order } else { 0 };
    if let Some(place) = columns[from..].iter().position(|&other| other == column) {
        return from + place;
    }
    columns.push(column);
    columns.len() - 1
}

/// Whether a column's normal form may differ from the column.
fn contains_float(data_type: &DataType) -> bool {
    data_type.is_floating() || data_type.is_nested()
}

/// The same aggregate over rows that come each once, if it was distinct, and in its order.
fn over_sorted(
    aggregate: &Arc<AggregateFunctionExpr>,
    input: &SchemaRef,
) -> datafusion_common::Result<Arc<AggregateFunctionExpr>> {
    let mut aggregate = Arc::clone(aggregate);
    if aggregate.is_distinct() {
        let udf = Arc::new(aggregate.fun().clone());
        let builder = AggregateExprBuilder::new(udf, aggregate.expressions())
            .order_by(aggregate.order_bys().to_vec())
            .schema(Arc::clone(input))
            .alias(aggregate.name())
            .with_ignore_nulls(aggregate.ignore_nulls())
            .with_reversed(aggregate.is_reversed());
        aggregate = Arc::new(builder.build()?);
    }
    if aggregate.order_bys().is_empty() {
        return Ok(aggregate);
    }
    let sorted = Arc::clone(&aggregate).with_beneficial_ordering(true)?;
    Ok(sorted.map_or(aggregate, Arc::new))
}
