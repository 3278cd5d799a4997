//! The first rows of groups, and window functions: random ones, and their naive answers.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_window::lead_lag::lag_udwf;
use datafusion::functions_window::rank::rank_udwf;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::{
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_plan::windows::create_window_expr;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::window::WindowExpr;
use evert_fold::SortKey;
use fastrand::Rng;

use crate::values::{Row, Value};

pub(crate) fn random_order(rng: &mut Rng, schema: &SchemaRef) -> Vec<SortKey> {
    let columns = schema.fields().len();
    let keys = if columns == 0 { 0 } else { rng.usize(0..3) };
    (0..keys)
        .map(|_| SortKey {
            column: rng.usize(0..columns),
            descending: rng.bool(),
            nulls_first: rng.bool(),
        })
        .collect()
}

/// As ORDER BY compares: -0.0 equals 0.0.
pub(crate) fn by_keys(order: &[SortKey], left: &Row, right: &Row) -> Ordering {
    let by = |key: &SortKey| {
        let (left, right) = (left[key.column].normalised(), right[key.column].normalised());
        match (left == Value::Null, right == Value::Null) {
            (true, true) => Ordering::Equal,
            (true, false) if key.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if key.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if key.descending => right.cmp(&left),
            (false, false) => left.cmp(&right),
        }
    };
    order.iter().map(by).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

/// The rows by group, each group in order.
fn groups(rows: &[Row], keys: &[usize], order: &[SortKey]) -> Vec<Vec<Row>> {
    let mut groups: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let key = keys.iter().map(|&key| row[key].normalised()).collect();
        groups.entry(key).or_default().push(row.clone());
    }
    let mut groups: Vec<Vec<Row>> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by(|left, right| by_keys(order, left, right).then_with(|| left.cmp(right)));
    }
    groups
}

pub(crate) fn first_rows(
    rows: &[Row],
    keys: &[usize],
    order: &[SortKey],
    skip: usize,
    limit: Option<usize>,
) -> Vec<Row> {
    let shown = |group: Vec<Row>| group.into_iter().skip(skip).take(limit.unwrap_or(usize::MAX));
    groups(rows, keys, order).into_iter().flat_map(shown).collect()
}

/// A window function that the naive answer knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    RowNumber,
    Rank,
    /// The value of the row before.
    Lag(usize),
    /// How many values up to the row and its peers.
    Count(usize),
    /// The greatest value from the row before to the row after.
    MaxNear(usize),
}

pub(crate) fn random_function(rng: &mut Rng, schema: &SchemaRef) -> Function {
    let columns = schema.fields().len();
    match rng.u8(0..5) {
        0 => Function::Rank,
        1 if columns > 0 => Function::Lag(rng.usize(0..columns)),
        2 if columns > 0 => Function::Count(rng.usize(0..columns)),
        3 => {
            // The greatest float as DataFusion sees it is another matter.
            let integers: Vec<usize> = (0..columns)
                .filter(|&column| schema.field(column).data_type() == &DataType::Int64)
                .collect();
            if integers.is_empty() {
                return Function::RowNumber;
            }
            Function::MaxNear(integers[rng.usize(0..integers.len())])
        }
        _ => Function::RowNumber,
    }
}

impl Function {
    pub(crate) fn physical(
        self,
        schema: &SchemaRef,
        partition: &[usize],
        order: &[SortKey],
    ) -> Arc<dyn WindowExpr> {
        let column = |column: usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(schema.field(column).name(), column))
        };
        let (definition, args) = match self {
            Self::RowNumber => (WindowFunctionDefinition::WindowUDF(row_number_udwf()), None),
            Self::Rank => (WindowFunctionDefinition::WindowUDF(rank_udwf()), None),
            Self::Lag(of) => (WindowFunctionDefinition::WindowUDF(lag_udwf()), Some(of)),
            Self::Count(of) => (WindowFunctionDefinition::AggregateUDF(count_udaf()), Some(of)),
            Self::MaxNear(of) => (WindowFunctionDefinition::AggregateUDF(max_udaf()), Some(of)),
        };
        let frame = match self {
            Self::MaxNear(_) => WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
                WindowFrameBound::Following(ScalarValue::UInt64(Some(1))),
            ),
            _ => WindowFrame::new((!order.is_empty()).then_some(false)),
        };
        let sorts: Vec<PhysicalSortExpr> = order
            .iter()
            .map(|key| {
                let (descending, nulls_first) = (key.descending, key.nulls_first);
                PhysicalSortExpr::new(column(key.column), SortOptions { descending, nulls_first })
            })
            .collect();
        let args: Vec<_> = args.into_iter().map(column).collect();
        let partition: Vec<_> = partition.iter().map(|&key| column(key)).collect();
        let schema = Arc::new(Schema::clone(schema));
        let name = "w".to_owned();
        create_window_expr(
            &definition,
            name,
            &args,
            &partition,
            &sorts,
            Arc::new(frame),
            schema,
            false,
            false,
            None,
        )
        .expect("the function is sound")
    }

    /// The result for a row of a partition.
    fn of(self, rows: &[Row], at: usize, order: &[SortKey]) -> Value {
        let is_peer = |other: &Row| by_keys(order, other, &rows[at]).is_eq();
        match self {
            Self::RowNumber => Value::Int(at as i64 + 1),
            Self::Rank => Value::Int(rows.iter().position(is_peer).expect("itself") as i64 + 1),
            Self::Lag(column) => match at.checked_sub(1) {
                Some(before) => rows[before][column].clone(),
                None => Value::Null,
            },
            Self::Count(column) => {
                let end = rows.iter().rposition(is_peer).expect("itself") + 1;
                let values = rows[..end].iter().filter(|row| row[column] != Value::Null);
                Value::Int(values.count() as i64)
            }
            Self::MaxNear(column) => {
                let near = &rows[at.saturating_sub(1)..rows.len().min(at + 2)];
                near.iter().map(|row| row[column].clone()).max().expect("itself")
            }
        }
    }
}

pub(crate) fn windowed(
    rows: &[Row],
    partition: &[usize],
    order: &[SortKey],
    functions: &[Function],
) -> Vec<Row> {
    let mut out = Vec::new();
    for mut group in groups(rows, partition, order) {
        // Functions see the order's floats as the order does.
        let raw = group.clone();
        for key in order {
            group.iter_mut().for_each(|row| row[key.column] = row[key.column].normalised());
        }
        for (at, row) in raw.into_iter().enumerate() {
            let results = functions.iter().map(|function| function.of(&group, at, order));
            out.push(row.into_iter().chain(results).collect());
        }
    }
    out
}
