//! Functions that clients call to learn where they are: `version()`, `current_user`, ...

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

/// The Postgres version whose behaviour clients may expect.
pub(crate) const SERVER_VERSION: &str = "15.0 (Evert)";

/// What these functions answer in a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionFacts {
    pub(crate) user: String,
    pub(crate) database: String,
}

/// A function that ignores its arguments and gives one text (or, without one, NULL).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fixed {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Fixed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// The functions of one session.
pub(crate) fn catalog_functions(facts: &SessionFacts) -> Vec<Arc<ScalarUDF>> {
    let text = |value: &str| ScalarValue::Utf8View(Some(value.to_owned()));
    let version = format!("PostgreSQL {SERVER_VERSION} {}", env!("CARGO_PKG_VERSION"));
    let fixed = |name, value| {
        let signature = Signature::variadic_any(Volatility::Stable);
        // Most are called without arguments, which `variadic_any` alone would refuse.
        let nullary = Signature::nullary(Volatility::Stable);
        let signature = Signature::one_of(
            vec![nullary.type_signature, signature.type_signature],
            Volatility::Stable,
        );
        Arc::new(ScalarUDF::from(Fixed { name, value, signature }))
    };
    vec![
        fixed("version", text(&version)),
        fixed("current_database", text(&facts.database)),
        fixed("current_catalog", text(&facts.database)),
        fixed("current_schema", text("public")),
        fixed("current_user", text(&facts.user)),
        fixed("session_user", text(&facts.user)),
        fixed("user", text(&facts.user)),
        fixed("pg_backend_pid", ScalarValue::Int32(Some(std::process::id() as i32))),
        fixed("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        fixed("pg_table_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("has_schema_privilege", ScalarValue::Boolean(Some(true))),
        fixed("has_table_privilege", ScalarValue::Boolean(Some(true))),
        fixed("obj_description", ScalarValue::Utf8View(None)),
        fixed("col_description", ScalarValue::Utf8View(None)),
        fixed("pg_get_expr", ScalarValue::Utf8View(None)),
    ]
}
