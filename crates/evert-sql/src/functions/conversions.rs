//! Casts as functions: those that Arrow's kernels make otherwise than Postgres (`casts`).
//!
//! An analyzer rule puts these functions in the place of casts, so that views and ad-hoc reads
//! convert alike. What a type's modifier says (`varchar(3)`, `timestamp(0)`) comes with the cast's
//! field, and so do JSON and UUID, which are texts otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType};
use datafusion::common::{DFSchema, DataFusionError, Result, exec_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_model::ColumnType;

use crate::SqlError;
use crate::casts::{self, NumericText, is_own, is_text};
use crate::error::{NUMERIC_OUT_OF_RANGE, SYNTAX_OR_ACCESS};
use crate::types::{MODIFIER_KEY, Modifier};

/// How many digits after the point NUMERIC has where nothing says how many it needs.
pub(crate) const NUMERIC_SCALE: i8 = 20;
/// The most digits that NUMERIC has.
const NUMERIC_DIGITS: u8 = 38;

/// What a text or number is converted to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Type(DataType),
    /// NUMERIC from a text, which may have no more digits than there is room for.
    Numeric,
    Json,
    Uuid,
    /// A text of so many characters at most.
    Cut(u32),
    /// The same without blanks at its end.
    Blank(u32),
    /// A timestamp with so many digits of its second.
    Digits(u32),
}

/// One conversion. Its name tells it from the others in plans.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Conversion {
    name: String,
    target: Target,
    signature: Signature,
}

impl Target {
    fn of(self, expr: Expr) -> Expr {
        let name = match &self {
            Self::Type(ty) => format!("as_{}", ty.to_string().to_lowercase()),
            Self::Numeric => "as_numeric".into(),
            Self::Json => "as_json".into(),
            Self::Uuid => "as_uuid".into(),
            Self::Cut(length) => format!("as_varchar({length})"),
            Self::Blank(length) => format!("as_char({length})"),
            Self::Digits(digits) => format!("as_timestamp({digits})"),
        };
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::from(Conversion { name, target: self, signature });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
    }

    fn output(&self, from: &DataType) -> DataType {
        match self {
            Self::Type(ty) => ty.clone(),
            Self::Numeric => DataType::Decimal128(NUMERIC_DIGITS, NUMERIC_SCALE),
            Self::Digits(_) => from.clone(),
            _ => DataType::Utf8View,
        }
    }

    fn convert(&self, values: &ArrayRef) -> Result<ArrayRef, SqlError> {
        match self {
            Self::Type(ty) => casts::cast(values, ty),
            Self::Numeric => {
                let ty = self.output(values.data_type());
                refuse_more_digits(values)?;
                casts::cast(values, &ty)
            }
            Self::Json => texts(values, casts::json),
            Self::Uuid => texts(values, casts::uuid),
            Self::Cut(length) => texts(values, |text| Ok(cut(text, *length).to_owned())),
            Self::Blank(length) => {
                texts(values, |text| Ok(cut(text, *length).trim_end_matches(' ').to_owned()))
            }
            Self::Digits(digits) => {
                let values = casts::cast(values, values.data_type())?;
                let unit = 10_i64.pow(6 - (*digits).min(6));
                let rounded = values
                    .as_primitive::<TimestampMicrosecondType>()
                    .try_unary::<_, TimestampMicrosecondType, _>(|micros| {
                    round(micros, unit)
                })?;
                Ok(Arc::new(rounded.with_data_type(values.data_type().clone())))
            }
        }
    }
}

fn texts(
    values: &ArrayRef,
    convert: impl Fn(&str) -> Result<String, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values = casts::cast(values, &DataType::Utf8View)?;
    let values = values.as_string_view().iter();
    let values = values.map(|value| value.map(&convert).transpose());
    Ok(Arc::new(StringViewArray::from_iter(values.collect::<Result<Vec<_>, _>>()?)))
}

fn cut(text: &str, length: u32) -> &str {
    match text.char_indices().nth(length as usize) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Halves go up, as in Postgres.
fn round(micros: i64, unit: i64) -> Result<i64, SqlError> {
    let half = micros.checked_add(unit / 2);
    half.map(|half| half - half.rem_euclid(unit))
        .ok_or_else(|| SqlError::new("22008", "timestamp out of range"))
}

/// Nothing is rounded where no one said to which digit.
fn refuse_more_digits(values: &ArrayRef) -> Result<(), SqlError> {
    let texts = casts::cast(values, &DataType::Utf8View)?;
    for text in texts.as_string_view().iter().flatten() {
        if casts::numeric_of_text(text)?.decimals() > i64::from(NUMERIC_SCALE) {
            let message = format!(
                "\"{text}\" has more than {NUMERIC_SCALE} digits after the point, which is what \
                 numeric without a precision holds"
            );
            return Err(SqlError::new(NUMERIC_OUT_OF_RANGE, message)
                .hint("Cast it to numeric(p,s) to have it rounded."));
        }
    }
    Ok(())
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [from] => Ok(self.target.output(from)),
            _ => exec_err!("{} takes one argument", self.name),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [from] = args.arg_fields else {
            return exec_err!("{} takes one argument", self.name);
        };
        let column = match self.target {
            Target::Json => Some(ColumnType::Json),
            Target::Uuid => Some(ColumnType::Uuid),
            _ => None,
        };
        let metadata = column.map_or_else(HashMap::new, crate::types::metadata);
        let field = Field::new(self.name(), self.target.output(from.data_type()), true);
        Ok(Arc::new(field.with_metadata(metadata)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(values)] => {
                Ok(ColumnarValue::Array(self.target.convert(values).map_err(external)?))
            }
            [ColumnarValue::Scalar(value)] => {
                let value = self.target.convert(&value.to_array()?).map_err(external)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?))
            }
            _ => exec_err!("{} takes one argument", self.name),
        }
    }
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a call of a conversion converts, and to which type.
pub(crate) fn conversion(call: &ScalarFunction) -> Option<(&Expr, &DataType)> {
    let conversion = call.func.inner().downcast_ref::<Conversion>()?;
    match (&conversion.target, call.args.as_slice()) {
        (Target::Type(ty), [expr]) => Some((expr, ty)),
        _ => None,
    }
}

/// What a call of a conversion converts.
pub(crate) fn converted_argument(call: &ScalarFunction) -> Option<&Expr> {
    call.func.inner().downcast_ref::<Conversion>()?;
    call.args.first()
}

/// What a call of a conversion makes of a value.
pub(crate) fn convert_value(call: &ScalarFunction, value: &ScalarValue) -> Result<ScalarValue> {
    let Some(conversion) = call.func.inner().downcast_ref::<Conversion>() else {
        return exec_err!("{} is no conversion", call.func.name());
    };
    let values = conversion.target.convert(&value.to_array()?).map_err(external)?;
    ScalarValue::try_from_array(&values, 0)
}

/// A text as the UUID that it is.
pub(crate) fn as_uuid(expr: Expr) -> Expr {
    Target::Uuid.of(expr)
}

/// What Postgres makes of a cast; `None` if Arrow makes the same of it.
pub(crate) fn converted(cast: &Cast, schema: &DFSchema) -> Result<Option<Expr>> {
    let Cast { expr, field } = cast;
    // A parameter's type may come later.
    let Ok(from) = expr.get_type(schema) else { return Ok(None) };
    let modifier = field.metadata().get(MODIFIER_KEY).and_then(|text| Modifier::read(text));
    if modifier == Some(Modifier::Numeric) {
        return numeric(expr, &from);
    }
    let column = ColumnType::of_field(field);
    let target = match (column, modifier) {
        (Some(ColumnType::Json), _) => Target::Json,
        (Some(ColumnType::Uuid), _) => Target::Uuid,
        (_, Some(Modifier::Length(length))) => Target::Cut(length),
        (_, Some(Modifier::Blank(length))) => Target::Blank(length),
        (_, Some(Modifier::Digits(digits))) => {
            let plain = Cast::new(expr.clone(), field.data_type().clone());
            return Ok(Some(Target::Digits(digits).of(Expr::Cast(plain))));
        }
        // A JSON or UUID value is a text from there on, to drivers too.
        (None | Some(ColumnType::Text), None)
            if is_text(field.data_type()) && is_named(expr, schema)? =>
        {
            Target::Type(DataType::Utf8View)
        }
        _ if is_own(&from, field.data_type()) => Target::Type(field.data_type().clone()),
        // A constant stays one, so that its type may still follow its value.
        _ if matches!(expr.as_ref(), Expr::Literal(..))
            && from.is_numeric()
            && field.data_type().is_numeric() =>
        {
            let target = Target::Type(field.data_type().clone());
            let folded = folded(target, expr);
            return Ok(matches!(folded, Expr::Literal(..)).then_some(folded));
        }
        _ => return Ok(None),
    };
    if matches!(target, Target::Json | Target::Uuid) && !is_text(&from) && !from.is_null() {
        let ty = if target == Target::Json { "json" } else { "uuid" };
        let from = ColumnType::of_field(&Field::new("", from.clone(), true))
            .map_or_else(|| from.to_string(), ColumnType::sql_name);
        let message = format!("cannot cast type {from} to {ty}");
        return Err(external(SqlError::new("42846", message)));
    }
    Ok(Some(folded(target, expr)))
}

/// Whether an expression's type is told by its field's name for it, not by Arrow's type.
fn is_named(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    let (_, field) = expr.to_field(schema)?;
    Ok(matches!(ColumnType::of_field(&field), Some(ColumnType::Json | ColumnType::Uuid)))
}

/// The conversion of a constant is a constant, if it succeeds.
fn folded(target: Target, expr: &Expr) -> Expr {
    if let Expr::Literal(value, metadata) = expr
        && !matches!(target, Target::Json | Target::Uuid)
        && let Ok(values) = value.to_array()
        && let Ok(values) = target.convert(&values)
        && let Ok(value) = ScalarValue::try_from_array(&values, 0)
    {
        return Expr::Literal(value, metadata.clone());
    }
    target.of(expr.clone())
}

/// NUMERIC without a precision: as many digits as the value's type has.
fn numeric(expr: &Expr, from: &DataType) -> Result<Option<Expr>> {
    let to = |ty: DataType| Some(Expr::Cast(Cast::new(Box::new(expr.clone()), ty)));
    if let Expr::Literal(value, _) = expr
        && let Some(value) = exactly(value)?
    {
        return Ok(Some(Expr::Literal(value, None)));
    }
    let whole = |digits| DataType::Decimal128(digits, 0);
    let wide = DataType::Decimal128(NUMERIC_DIGITS, NUMERIC_SCALE);
    Ok(match from {
        DataType::Decimal128(..) => Some(expr.clone()),
        DataType::Decimal256(_, scale) => to(DataType::Decimal128(NUMERIC_DIGITS, *scale)),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => to(whole(5)),
        DataType::UInt16 | DataType::Int32 => to(whole(10)),
        DataType::UInt32 | DataType::Int64 => to(whole(19)),
        DataType::UInt64 => to(whole(20)),
        DataType::Null => to(wide),
        DataType::Float32 | DataType::Float64 => Some(Target::Type(wide).of(expr.clone())),
        ty if is_text(ty) => Some(Target::Numeric.of(expr.clone())),
        ty => {
            let message = format!("cannot cast type {ty} to numeric");
            return Err(external(SqlError::new(SYNTAX_OR_ACCESS, message)));
        }
    })
}

/// A constant as the decimal that it is written as; `None` if it is no number, or none that a
/// decimal holds.
fn exactly(value: &ScalarValue) -> Result<Option<ScalarValue>> {
    let number = match value {
        ScalarValue::Float64(Some(x)) => casts::numeric_of_float(*x, false).ok(),
        ScalarValue::Float32(Some(x)) => casts::numeric_of_float(f64::from(*x), true).ok(),
        ScalarValue::Int8(Some(_))
        | ScalarValue::Int16(Some(_))
        | ScalarValue::Int32(Some(_))
        | ScalarValue::Int64(Some(_))
        | ScalarValue::UInt64(Some(_)) => NumericText::read(&value.to_string()),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => casts::numeric_of_text(text).ok(),
        _ => None,
    };
    let Some((number, (precision, scale))) =
        number.and_then(|number| number.size().map(|size| (number, size)))
    else {
        return Ok(None);
    };
    let units = number.units(precision, scale).map_err(external)?;
    Ok(Some(ScalarValue::Decimal128(Some(units), precision, scale)))
}
