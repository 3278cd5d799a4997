//! DataFusion's functions whose arguments may be texts beside arrays, booleans or intervals:
//! `coalesce(tags, '{}')`, `array_cat(tags, '{a}')`, `coalesce(paid, 'false')`. They take the others'
//! type; what casts texts to it is a rule.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use super::constants::apart_from_text;
use super::lists::is_list;
use super::rows::is_text;

/// The functions' names.
pub(crate) const OF_ARRAYS: [&str; 10] = [
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "make_array",
    "array_concat",
    "array_has_all",
    "array_has_any",
    "array_except",
    "array_intersect",
];

#[derive(Debug, PartialEq, Eq, Hash)]
struct Beside {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|function| OF_ARRAYS.contains(&function.name()))
        .map(|inner| {
            let signature = Signature::user_defined(inner.signature().volatility);
            Arc::new(ScalarUDF::from(Beside { inner, signature }))
        })
        .collect()
});

/// The functions, under the names of DataFusion's.
pub(crate) fn functions_beside() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

impl ScalarUDFImpl for Beside {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let other = args.iter().find(|ty| is_list(ty) || apart_from_text(ty).is_some());
        let as_other = |ty: &DataType| match other {
            Some(other) if is_text(ty) => other.clone(),
            _ => ty.clone(),
        };
        let fields: Vec<FieldRef> =
            args.iter().map(|ty| Arc::new(Field::new("", as_other(ty), true)) as _).collect();
        let fields = fields_with_udf(&fields, self.inner.as_ref())?;
        Ok(fields.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
