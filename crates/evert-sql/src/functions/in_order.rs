//! Aggregates with an order of their own: they gather their rows and sort them at the end.
//!
//! DataFusion sorts the rows once for all aggregates of a SELECT, and refuses those that want
//! different orders.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::sorted::{Gathered, Order, list_fields};

/// Another aggregate over its arguments, which are followed by what they are sorted by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InOrder {
    inner: Arc<AggregateUDF>,
    args: usize,
    keys: Vec<SortOptions>,
    distinct: bool,
    signature: Signature,
}

/// `function` of `args` arguments, which are followed by keys to sort by: descending or not, NULLs
/// first or not.
pub(crate) fn in_order(
    inner: Arc<AggregateUDF>,
    args: usize,
    keys: Vec<(bool, bool)>,
    distinct: bool,
) -> Arc<AggregateUDF> {
    let options = |(descending, nulls_first)| SortOptions { descending, nulls_first };
    let signature = Signature::any(args + keys.len(), Volatility::Immutable);
    let keys = keys.into_iter().map(options).collect();
    Arc::new(AggregateUDF::from(InOrder { inner, args, keys, distinct, signature }))
}

impl AggregateUDFImpl for InOrder {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(&args[..self.args.min(args.len())])
    }

    fn return_field(&self, args: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(&args[..self.args.min(args.len())])
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(ty)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types = args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let own = AccumulatorArgs {
            exprs: &args.exprs[..self.args],
            expr_fields: &args.expr_fields[..self.args],
            order_bys: &[],
            is_reversed: false,
            is_distinct: false,
            ..args
        };
        let inner = self.inner.accumulator(own)?;
        let order = Order { args: self.args, keys: self.keys.clone(), distinct: self.distinct };
        Ok(Box::new(Gathered::new(inner, types, order)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(list_fields(args.input_fields))
    }
}

/// Of rows in an order, those whose columns come for the first time.
pub(super) fn firsts(columns: &[ArrayRef], order: &[u32]) -> Result<Vec<u32>> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let rows = RowConverter::new(fields.collect())?.convert_columns(columns)?;
    let mut seen = HashSet::new();
    let is_new = |row: &u32| seen.insert(rows.row(*row as usize).data());
    Ok(order.iter().copied().filter(is_new).collect())
}
