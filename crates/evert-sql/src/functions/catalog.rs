//! Functions that clients call to learn where they are: `version()`, `current_user`, ...

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
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
    pub(crate) wishes: Wishes,
}

/// A session's settings by name, as they are now.
pub(crate) type SharedSettings = Arc<RwLock<BTreeMap<String, String>>>;

/// What `set_config()` asked for, until the session does it: name, value, for this transaction only.
pub(crate) type Wishes = Arc<Mutex<Vec<(String, String, bool)>>>;

/// `set_config(name, value, is_local)`: the value, which the session sets after the statement.
#[derive(Debug)]
struct SetConfig {
    settings: SharedSettings,
    wishes: Wishes,
    signature: Signature,
}

impl PartialEq for SetConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wishes, &other.wishes)
    }
}

impl Eq for SetConfig {}

impl Hash for SetConfig {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.wishes).hash(state);
    }
}

impl ScalarUDFImpl for SetConfig {
    fn name(&self) -> &str {
        "set_config"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = |index: usize| -> Result<ArrayRef> {
            let array = args.args[index].to_array(args.number_rows)?;
            Ok(cast(&array, &DataType::Utf8View)?)
        };
        let (names, values) = (text(0)?, text(1)?);
        let local = cast(&args.args[2].to_array(args.number_rows)?, &DataType::Boolean)?;
        let (names, local) = (names.as_string_view(), local.as_boolean());
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, value), local) in names.iter().zip(values.as_string_view()).zip(local) {
            let (Some(name), Some(value)) = (name, value) else { continue };
            let name = name.to_lowercase();
            if !settings.contains_key(&name) && !name.contains('.') {
                return exec_err!("unrecognized configuration parameter \"{name}\"");
            }
            wishes.push((name, value.to_owned(), local == Some(true)));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// `to_regtype(name)`: the type's OID, or NULL if there is none of the name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToRegType {
    signature: Signature,
}

/// Types by the names that clients ask for.
const TYPES: [(&str, i64); 24] = [
    ("bool", 16),
    ("boolean", 16),
    ("bytea", 17),
    ("int8", 20),
    ("bigint", 20),
    ("int2", 21),
    ("smallint", 21),
    ("int4", 23),
    ("integer", 23),
    ("text", 25),
    ("oid", 26),
    ("json", 114),
    ("float4", 700),
    ("real", 700),
    ("float8", 701),
    ("double precision", 701),
    ("varchar", 1043),
    ("date", 1082),
    ("timestamp", 1114),
    ("timestamptz", 1184),
    ("interval", 1186),
    ("numeric", 1700),
    ("uuid", 2950),
    ("jsonb", 3802),
];

impl ScalarUDFImpl for ToRegType {
    fn name(&self) -> &str {
        "to_regtype"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let names = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8View)?;
        let oid = |name: &str| {
            let name = name.to_lowercase();
            let name = name.trim_start_matches("pg_catalog.");
            TYPES.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
        };
        let oids: Int64Array = names.as_string_view().iter().map(|name| oid(name?)).collect();
        Ok(ColumnarValue::Array(Arc::new(oids)))
    }
}

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
    let set_config = SetConfig {
        settings: Arc::clone(&facts.settings),
        wishes: Arc::clone(&facts.wishes),
        signature: Signature::any(3, Volatility::Volatile),
    };
    let to_regtype = ToRegType { signature: Signature::any(1, Volatility::Stable) };
    vec![
        Arc::new(ScalarUDF::from(current_setting)),
        Arc::new(ScalarUDF::from(set_config)),
        Arc::new(ScalarUDF::from(to_regtype)),
        fixed("pg_advisory_unlock_all", text("")),
        fixed("pg_database_size", ScalarValue::Int64(None)),
        fixed("pg_relation_size", ScalarValue::Int64(None)),
        fixed("pg_total_relation_size", ScalarValue::Int64(None)),
        fixed("getdatabaseencoding", text("UTF8")),
        fixed("pg_encoding_to_char", text("UTF8")),
        fixed("inet_server_addr", ScalarValue::Utf8View(None)),
        fixed("inet_server_port", ScalarValue::Int32(None)),
        fixed("inet_client_addr", ScalarValue::Utf8View(None)),
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
        fixed("pg_opfamily_is_visible", ScalarValue::Boolean(Some(true))),
        fixed("pg_table_size", ScalarValue::Int64(None)),
        fixed("pg_indexes_size", ScalarValue::Int64(None)),
        fixed("pg_get_triggerdef", ScalarValue::Utf8View(None)),
        fixed("pg_get_ruledef", ScalarValue::Utf8View(None)),
        fixed("pg_get_serial_sequence", ScalarValue::Utf8View(None)),
        fixed("shobj_description", ScalarValue::Utf8View(None)),
        fixed("obj_description", ScalarValue::Utf8View(None)),
        fixed("col_description", ScalarValue::Utf8View(None)),
        fixed("pg_get_expr", ScalarValue::Utf8View(None)),
        fixed("pg_stat_get_numscans", ScalarValue::Int64(Some(0))),
    ]
}
