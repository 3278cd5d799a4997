//! Custom folds as an aggregate: a group's rows through its code, and the columns of what it gives.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_script::{Definition, Script};

/// A script, equal to another if it is made of the same.
#[derive(Clone)]
struct Code(Arc<Script>);

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.0.definition() == other.0.definition()
    }
}

impl Eq for Code {}

impl Hash for Code {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.definition().source.hash(state);
    }
}

// What a view's state depends on is told by its plan: the definition is part of it, the script's
// identity in this process is not.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition { source, input, output } = self.0.definition();
        f.debug_struct("Code")
            .field("source", source)
            .field("input", input)
            .field("output", output)
            .finish()
    }
}

/// The aggregate of a script: its arguments are the script's input, it gives packed rows, NULL
/// where the script gives none.
pub(crate) fn fold_function(script: &Arc<Script>) -> Arc<AggregateUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(AggregateUDF::from(Fold { code: Code(Arc::clone(script)), signature }))
}

/// A column of the packed rows that a script gave, a function of the column's name.
pub(crate) fn fold_column(script: &Arc<Script>, column: usize) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Binary], Volatility::Immutable);
    Arc::new(ScalarUDF::from(Unpack { code: Code(Arc::clone(script)), column, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Fold {
    code: Code,
    signature: Signature,
}

impl AggregateUDFImpl for Fold {
    fn name(&self) -> &str {
        "javascript"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Group { code: self.code.clone(), batches: Vec::new() }))
    }

    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("row", DataType::Binary, true))])
    }
}

/// The rows of a group, which come in their order.
#[derive(Debug)]
struct Group {
    code: Code,
    batches: Vec<Vec<ArrayRef>>,
}

impl Accumulator for Group {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // What follows the script's input are the columns of the order.
        let columns = self.code.0.definition().input.len();
        self.batches.push(values[..columns].to_vec());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let packed = self.code.0.fold(&self.batches);
        packed
            .map(ScalarValue::Binary)
            .map_err(|failure| DataFusionError::Execution(failure.to_string()))
    }

    fn size(&self) -> usize {
        let held = self.batches.iter().flatten().map(|column| column.get_array_memory_size());
        size_of_val(self) + held.sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("a fold is evaluated whole")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        exec_err!("a fold is evaluated whole")
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unpack {
    code: Code,
    column: usize,
    signature: Signature,
}

impl ScalarUDFImpl for Unpack {
    fn name(&self) -> &str {
        &self.code.0.definition().output[self.column].name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.code.0.definition().output[self.column].ty.arrow_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(rows) = args.args.first() else {
            return exec_err!("a fold's column is one of its rows");
        };
        let rows = rows.to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(self.code.0.unpack(rows.as_binary(), self.column)?))
    }
}
