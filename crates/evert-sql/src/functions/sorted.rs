//! Aggregates of floats whose rounding depends on the order of rows: they take them sorted.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::scalar::ScalarValue;

/// One of DataFusion's over its arguments in the order of their bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sorted(Arc<AggregateUDF>);

static FUNCTIONS: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let rounds = |name: &str| {
        matches!(name, "corr" | "covar_samp" | "covar_pop") || name.starts_with("regr_")
    };
    all_default_aggregate_functions()
        .into_iter()
        .filter(|function| rounds(function.name()))
        .map(|function| Arc::new(AggregateUDF::from(Sorted(function))))
        .collect()
});

/// The functions, under the names of DataFusion's.
pub(super) fn functions() -> &'static [Arc<AggregateUDF>] {
    &FUNCTIONS
}

impl AggregateUDFImpl for Sorted {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.0.return_type(args)
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.0.default_value(ty)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types = args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let inner = self.0.accumulator(args)?;
        Ok(Box::new(Gathered { inner, types, batches: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |field: &FieldRef| {
            let item = Field::new_list_field(field.data_type().clone(), true);
            Arc::new(Field::new(field.name(), DataType::List(Arc::new(item)), true))
        };
        Ok(args.input_fields.iter().map(list).collect())
    }
}

/// What came so far, column by column in each batch.
#[derive(Debug)]
struct Gathered {
    inner: Box<dyn Accumulator>,
    types: Vec<DataType>,
    batches: Vec<Vec<ArrayRef>>,
}

impl Gathered {
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
        let fields = self.types.iter().cloned().map(SortField::new).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let mut order: Vec<u32> = (0..).take(rows.num_rows()).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        let order = UInt32Array::from(order);
        let sorted = columns.iter().map(|column| take(column, &order, None));
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
