//! Functions that clients call to learn where they are: `version()`, `current_user`, ...

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::scalar::ScalarValue;

/// The Postgres version whose behaviour clients may expect.
pub(crate) const SERVER_VERSION: &str = "15.0 (Evert)";

/// What these functions answer in a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionFacts {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) settings: SharedSettings,
}

/// A session's settings by name, as they are now.
pub(crate) type SharedSettings = Arc<RwLock<BTreeMap<String, String>>>;

/// `current_setting(name [, missing_ok])`.
#[derive(Debug)]
struct CurrentSetting {
    settings: SharedSettings,
    signature: Signature,
}

impl PartialEq for CurrentSetting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings)
    }
}

impl Eq for CurrentSetting {}

impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.settings).hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let names = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8View)?;
        let missing_ok = args.args.len() > 1;
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let values = names.as_string_view().iter().map(|name| {
            let Some(name) = name else { return Ok(None) };
            match settings.get(&name.to_lowercase()) {
                Some(value) => Ok(Some(value.clone())),
                None if missing_ok => Ok(None),
                None => exec_err!("unrecognized configuration parameter \"{name}\""),
            }
        });
        let values: ArrayRef = Arc::new(values.collect::<Result<StringViewArray>>()?);
        Ok(ColumnarValue::Array(values))
    }
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
    let current_setting = CurrentSetting {
        settings: Arc::clone(&facts.settings),
        signature: Signature::one_of(
            vec![TypeSignature::Any(1), TypeSignature::Any(2)],
            Volatility::Stable,
        ),
    };
    vec![
        Arc::new(ScalarUDF::from(current_setting)),
        fixed("version", text(&version)),
        fixed("current_database", text(&facts.database)),
        fixed("current_catalog", text(&facts.database)),
        fixed("current_schema", text("public")),
        fixed("current_user", text(&facts.user)),
        fixed("session_user", text(&facts.user)),
        fixed("user", text(&facts.user)),
        fixed("pg_backend_pid", ScalarValue::Int32(Some(std::process::id() as i32))),
        fixed("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        fixed("pg_type_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_function_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_operator_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_collation_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_encoding_max_length", ScalarValue::Int32(Some(4))),
        fixed("pg_my_temp_schema", ScalarValue::Int64(Some(0))),
        fixed("pg_is_other_temp_schema", ScalarValue::Boolean(Some(false))),
        fixed("pg_postmaster_start_time", ScalarValue::Utf8View(None)),
        fixed("pg_tablespace_location", ScalarValue::Utf8View(None)),
        fixed("pg_get_partition_constraintdef", ScalarValue::Utf8View(None)),
        fixed("pg_get_function_result", ScalarValue::Utf8View(None)),
        fixed("pg_get_function_arguments", ScalarValue::Utf8View(None)),
        fixed("pg_get_function_identity_arguments", ScalarValue::Utf8View(None)),
        fixed("pg_get_function_sqlbody", ScalarValue::Utf8View(None)),
        fixed("pg_get_functiondef", ScalarValue::Utf8View(None)),
        fixed("pg_ts_config_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_ts_dict_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_conversion_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_statistics_obj_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_char_to_encoding", ScalarValue::Int32(Some(6))),
        fixed("pg_opclass_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_table_size", ScalarValue::Int64(Some(0))),
        fixed("pg_indexes_size", ScalarValue::Int64(Some(0))),
        fixed("pg_size_pretty", ScalarValue::Utf8View(None)),
        fixed("pg_get_triggerdef", ScalarValue::Utf8View(None)),
        fixed("pg_get_ruledef", ScalarValue::Utf8View(None)),
        fixed("pg_get_serial_sequence", ScalarValue::Utf8View(None)),
        fixed("shobj_description", ScalarValue::Utf8View(None)),
        fixed("obj_description", ScalarValue::Utf8View(None)),
        fixed("col_description", ScalarValue::Utf8View(None)),
        fixed("pg_get_expr", ScalarValue::Utf8View(None)),
    ]
}
