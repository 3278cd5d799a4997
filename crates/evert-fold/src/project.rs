//! Filter and projection: vectorised expressions, with the errors of single rows.
//!
//! Invariant: a row's result is that of a batch of that row alone. A batch that fails is cut in
//! halves until the rows that fail stand alone; expressions evaluate at least as much over many
//! rows as over one, so what succeeds in a batch succeeds alone.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch,
    UInt32Array,
};
use arrow::compute::{
    CastOptions, cast_with_options, concat_batches, filter, prep_null_mask_filter, take,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use evert_model::Delta;

use crate::dataflow::RowError;
use crate::row_text::row_text;
use crate::rows::batch_of;

/// A reason is cut to this many bytes.
const REASON_BYTES_MAX: usize = 300;
const PANICKED: &str = "an expression panicked";

/// A predicate and what to make of the rows that pass it.
#[derive(Debug)]
pub(crate) struct Projection {
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// `None`: rows stay as they are.
    exprs: Option<Vec<Arc<dyn PhysicalExpr>>>,
    schema: SchemaRef,
}

impl Projection {
    pub(crate) fn new(
        predicate: Option<Arc<dyn PhysicalExpr>>,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Self {
        Self { predicate, exprs: Some(exprs), schema }
    }

    /// Rows for which `predicate` is true, as they are.
    pub(crate) fn filter(predicate: Arc<dyn PhysicalExpr>, schema: SchemaRef) -> Self {
        Self { predicate: Some(predicate), exprs: None, schema }
    }

    /// Gives the delta's image, and reports the rows that have none.
    pub(crate) fn apply(&self, delta: &Delta, errors: &mut Vec<RowError>) -> Option<Delta> {
        let mut parts = Vec::new();
        self.evaluate_in_halves(delta, false, &mut parts, errors);
        match parts.len() {
            0 | 1 => parts.pop(),
            _ => {
                let rows =
                    concat_batches(parts[0].rows.schema_ref(), parts.iter().map(|p| &p.rows))
                        .expect("parts of one batch have one schema");
                let weights = parts.iter().flat_map(|p| p.weights.values().iter().copied());
                Some(Delta::new(rows, Int64Array::from_iter_values(weights)))
            }
        }
    }

    /// Where the predicate is true. A row for which it fails is reported, and false.
    pub(crate) fn mask(&self, delta: &Delta, errors: &mut Vec<RowError>) -> BooleanArray {
        let mut mask = BooleanBufferBuilder::new(delta.len());
        self.mask_in_halves(delta, false, &mut mask, errors);
        BooleanArray::new(mask.finish(), None)
    }

    /// `alone`: the arrays hold these rows and no others.
    fn mask_in_halves(
        &self,
        delta: &Delta,
        alone: bool,
        mask: &mut BooleanBufferBuilder,
        errors: &mut Vec<RowError>,
    ) {
        let Some(predicate) = self.predicate.as_ref().filter(|_| !delta.is_empty()) else {
            return mask.append_n(delta.len(), true);
        };
        let evaluated = catch_unwind(AssertUnwindSafe(|| mask_of(predicate, &delta.rows)))
            .unwrap_or_else(|_| Err(PANICKED.to_owned()));
        match evaluated {
            Ok(part) => mask.append_buffer(part.values()),
            Err(_) if !alone => {
                self.mask_in_halves(&copy(delta, 0..delta.len()), true, mask, errors)
            }
            Err(reason) if delta.len() == 1 => {
                errors.push(row_error(delta, reason));
                mask.append(false);
            }
            Err(_) => {
                for half in halves(delta) {
                    self.mask_in_halves(&half, true, mask, errors);
                }
            }
        }
    }

    /// `alone`: the arrays hold these rows and no others.
    fn evaluate_in_halves(
        &self,
        delta: &Delta,
        alone: bool,
        parts: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) {
        if delta.is_empty() {
            return;
        }
        // A panic inside an expression is that row's error too: it must not stop the others.
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(delta)))
            .unwrap_or_else(|_| Err(PANICKED.to_owned()));
        match evaluated {
            Ok(part) if part.is_empty() => {}
            Ok(part) => parts.push(part),
            Err(_) if !alone => {
                self.evaluate_in_halves(&copy(delta, 0..delta.len()), true, parts, errors);
            }
            Err(reason) if delta.len() == 1 => errors.push(row_error(delta, reason)),
            Err(_) => {
                for half in halves(delta) {
                    self.evaluate_in_halves(&half, true, parts, errors);
                }
            }
        }
    }

    fn evaluate(&self, delta: &Delta) -> Result<Delta, String> {
        let kept;
        let delta = match &self.predicate {
            None => delta,
            Some(predicate) => {
                kept = keep_where(predicate, delta)?;
                &kept
            }
        };
        let (Some(exprs), false) = (&self.exprs, delta.is_empty()) else {
            return Ok(delta.clone());
        };
        let mut columns = Vec::with_capacity(exprs.len());
        for (expr, field) in exprs.iter().zip(self.schema.fields()) {
            let column = evaluate(expr, &delta.rows)?;
            let column = if column.data_type() == field.data_type() {
                column
            } else {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(&column, field.data_type(), &options)
                    .map_err(|error| arrow_reason(&error))?
            };
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(format!("NULL in column \"{}\", which allows none", field.name()));
            }
            columns.push(column);
        }
        let rows = batch_of(&self.schema, columns, delta.len());
        Ok(Delta::new(rows, delta.weights.clone()))
    }
}

/// The error of a delta's only row.
fn row_error(delta: &Delta, reason: String) -> RowError {
    RowError { reason, row: row_text(&delta.rows, 0), weight: delta.weights.value(0) }
}

fn keep_where(predicate: &Arc<dyn PhysicalExpr>, delta: &Delta) -> Result<Delta, String> {
    Ok(filter_delta(delta, &mask_of(predicate, &delta.rows)?))
}

/// Where the predicate is true, without nulls.
fn mask_of(predicate: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray, String> {
    let mask = evaluate(predicate, rows)?;
    let Some(mask) = mask.as_boolean_opt() else {
        return Err(format!("the predicate gives {}, not a boolean", mask.data_type()));
    };
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

/// The rows where `mask` is true.
pub(crate) fn filter_delta(delta: &Delta, mask: &BooleanArray) -> Delta {
    let kept = mask.true_count();
    if kept == delta.len() {
        return delta.clone();
    }
    let predicate = arrow::compute::FilterBuilder::new(mask).optimize().build();
    let columns = delta.rows.columns().iter();
    let columns = columns
        .map(|column| predicate.filter(column).expect("the mask is as long as the batch"))
        .collect();
    let weights = filter(&delta.weights, mask).expect("the mask is as long as the batch");
    let weights = weights.as_primitive().clone();
    Delta::new(batch_of(delta.rows.schema_ref(), columns, kept), weights)
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef, String> {
    expr.evaluate(rows)
        .and_then(|value| value.into_array(rows.num_rows()))
        .map_err(|error| reason(&error))
}

/// Some rows in arrays of their own. Kernels may look at all that an array's buffers hold: in a
/// slice, a row would share the errors of the rows beside it.
fn copy(delta: &Delta, rows: Range<usize>) -> Delta {
    let indices = UInt32Array::from_iter_values(rows.start as u32..rows.end as u32);
    let columns = delta.rows.columns().iter();
    let columns = columns.map(|column| take(column, &indices, None).expect("the rows are there"));
    let copied = batch_of(&delta.rows.schema(), columns.collect(), rows.len());
    Delta::new(copied, delta.weights.slice(rows.start, rows.len()))
}

fn halves(delta: &Delta) -> [Delta; 2] {
    let half = delta.len() / 2;
    [copy(delta, 0..half), copy(delta, half..delta.len())]
}

/// What went wrong, in the user's words: one line, without where in the engine it happened.
pub(crate) fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => arrow_reason(error),
        DataFusionError::Execution(message) => cut(message),
        DataFusionError::External(inner) => cut(&inner.to_string()),
        other => cut(&other.strip_backtrace()),
    }
}

fn arrow_reason(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        ArrowError::ArithmeticOverflow(message)
        | ArrowError::ComputeError(message)
        | ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::InvalidArgumentError(message) => cut(message),
        ArrowError::ExternalError(inner) => cut(&inner.to_string()),
        other => cut(&other.to_string()),
    }
}

fn cut(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let end = line.len().min(REASON_BYTES_MAX);
    let end = (0..=end).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    line[..end].to_owned()
}
