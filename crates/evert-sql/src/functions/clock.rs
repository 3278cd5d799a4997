//! The time of a statement: `now()`, `current_timestamp`, `localtimestamp`.
//!
//! An ad-hoc statement sees one moment, that of its transaction (the session's
//! `query_execution_start_time`), as Postgres gives it: in microseconds. `current_date` is
//! DataFusion's. In a view all of these are log time (`view::time`).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_model::ColumnType;

/// `now()`.
pub(crate) const NOW: &str = "now";
/// `localtimestamp`: the session's time zone is UTC.
pub(crate) const LOCALTIMESTAMP: &str = "localtimestamp";
/// `current_date`.
pub(crate) const CURRENT_DATE: &str = "current_date";

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 2]> = LazyLock::new(|| {
    let aliases = ["current_timestamp", "transaction_timestamp", "statement_timestamp"];
    [
        Arc::new(Now::new(NOW, ColumnType::TimestampTz, &aliases).into()),
        Arc::new(Now::new(LOCALTIMESTAMP, ColumnType::Timestamp, &[]).into()),
    ]
});

/// Functions of the clock.
pub(crate) fn clock_functions() -> impl Iterator<Item = &'static Arc<ScalarUDF>> {
    FUNCTIONS.iter()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    name: &'static str,
    ty: DataType,
    aliases: Vec<String>,
    signature: Signature,
}

impl Now {
    fn new(name: &'static str, ty: ColumnType, aliases: &[&str]) -> Self {
        let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
        let signature = Signature::nullary(Volatility::Stable);
        Self { name, ty: ty.arrow_type(), aliases, signature }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(start) = info.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let zone = match &self.ty {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let now = ScalarValue::TimestampMicrosecond(Some(start.timestamp_micros()), zone);
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} has its value before it is called", self.name)
    }
}
