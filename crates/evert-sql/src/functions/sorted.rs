//! Aggregates of floats whose rounding depends on the order of rows: they take them sorted.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{SortOptions, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::scalar::ScalarValue;

use super::in_order::firsts;
use super::pairs::{Asked, Pairs};

/// One of DataFusion's names over pairs in the order of their bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sorted {
    asked: Asked,
    named: Arc<AggregateUDF>,
}

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let sorted = |named: Arc<AggregateUDF>| {
        let asked = Asked::by_name(named.name())?;
        Some(Arc::new(AggregateUDF::from(Sorted { asked, named })))
    };
    all_default_aggregate_functions().into_iter().filter_map(sorted).collect()
});

/// The functions, under the names of DataFusion's.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

impl AggregateUDFImpl for Sorted {
    fn name(&self) -> &str {
        self.named.name()
    }

    fn aliases(&self) -> &[String] {
        self.named.aliases()
    }

    fn signature(&self) -> &Signature {
        self.named.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.asked.return_type())
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        match self.asked {
            Asked::Count => Ok(ScalarValue::Int64(Some(0))),
            _ => ScalarValue::try_from(ty),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types: Vec<_> =
            args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let order = Order { args: types.len(), keys: Vec::new(), distinct: args.is_distinct };
        Ok(Box::new(Gathered::new(Box::new(Pairs::new(self.asked)), types, order)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(list_fields(args.input_fields))
    }
}

/// A list of each argument, as the state of what gathers them.
pub(super) fn list_fields(inputs: &[FieldRef]) -> Vec<FieldRef> {
    let list = |field: &FieldRef| {
        let item = Field::new_list_field(field.data_type().clone(), true);
        Arc::new(Field::new(field.name(), DataType::List(Arc::new(item)), true))
    };
    inputs.iter().map(list).collect()
}

/// The order that gathered rows get.
#[derive(Debug)]
pub(super) struct Order {
    /// How many columns are arguments; the others are keys.
    pub(super) args: usize,
    /// How each key sorts. Without keys the arguments' bytes do.
    pub(super) keys: Vec<SortOptions>,
    /// Whether equal arguments count once.
    pub(super) distinct: bool,
}

/// What came so far, column by column in each batch.
#[derive(Debug)]
pub(super) struct Gathered {
    inner: Box<dyn Accumulator>,
    types: Vec<DataType>,
    order: Order,
    batches: Vec<Vec<ArrayRef>>,
}

impl Gathered {
    /// Gathers columns of these types for `inner`.
    pub(super) fn new(inner: Box<dyn Accumulator>, types: Vec<DataType>, order: Order) -> Self {
        Self { inner, types, order, batches: Vec::new() }
    }

    /// The rows' numbers in their order.
    fn sorted(&self, columns: &[ArrayRef]) -> Result<Vec<u32>> {
        let by = if self.order.keys.is_empty() { columns } else { &columns[self.order.args..] };
        let field = |(place, column): (usize, &ArrayRef)| {
            let options = self.order.keys.get(place).copied().unwrap_or_default();
            SortField::new_with_options(column.data_type().clone(), options)
        };
        let fields = by.iter().enumerate().map(field).collect();
        let rows = RowConverter::new(fields)?.convert_columns(by)?;
        let mut order: Vec<u32> = (0..).take(rows.num_rows()).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        if self.order.distinct { firsts(&columns[..self.order.args], &order) } else { Ok(order) }
    }

    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let column = |(index, ty): (usize, &DataType)| {
            let parts: Vec<&dyn Array> =
                self.batches.iter().map(|batch| batch[index].as_ref()).collect();
            match parts.is_empty() {
                true => Ok(arrow::array::new_empty_array(ty)),
                false => Ok(concat(&parts)?),
            }
        };
        self.types.iter().enumerate().map(column).collect()
    }
}

impl Accumulator for Gathered {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.batches.push(values.to_vec());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.columns()?;
        let order = UInt32Array::from(self.sorted(&columns)?);
        let arguments = &columns[..self.order.args];
        let sorted = arguments.iter().map(|column| take(column, &order, None));
        self.inner.update_batch(&sorted.collect::<Result<Vec<_>, _>>()?)?;
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        let held = self.batches.iter().flatten().map(|column| column.get_array_memory_size());
        size_of_val(self) + held.sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: ArrayRef| {
            let values = (0..column.len()).map(|row| ScalarValue::try_from_array(&column, row));
            let values = values.collect::<Result<Vec<_>>>()?;
            Ok(ScalarValue::List(ScalarValue::new_list(&values, column.data_type(), true)))
        };
        self.columns()?.into_iter().map(list).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |state| state.len());
        for row in 0..rows {
            let parts = states.iter().map(|state| state.as_list::<i32>().value(row));
            self.batches.push(parts.collect());
        }
        Ok(())
    }
}
