//! `pg_sleep`, which waits without a thread.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Waits so many seconds a row, and gives Postgres's `void`: an empty text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 1]> = LazyLock::new(|| {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Volatile);
    [Arc::new(AsyncScalarUDF::new(Arc::new(Sleep { signature })).into_scalar_udf())]
});

/// The function.
pub(super) fn functions() -> &'static [Arc<ScalarUDF>] {
    FUNCTIONS.as_slice()
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("pg_sleep waits")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let values = args.args.into_iter().map(|arg| arg.into_array(rows));
        let [seconds] = values.collect::<Result<Vec<_>>>()?.try_into().expect("one argument");
        let seconds = cast(&seconds, &DataType::Float64)?;
        for seconds in seconds.as_primitive::<Float64Type>().iter().flatten() {
            // What is negative or NaN is no time at all; what is past all bounds is for ever.
            let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
            tokio::time::sleep(time).await;
        }
        let slept = |row| (!seconds.is_null(row)).then_some("");
        let slept: StringViewArray = (0..rows).map(slept).collect();
        Ok(ColumnarValue::Array(Arc::new(slept)))
    }
}
