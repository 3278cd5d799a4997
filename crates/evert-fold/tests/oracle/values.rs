//! Rows as plain values, and as Arrow.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringViewArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef, UInt64Type,
};
use fastrand::Rng;

/// A value. Floats are kept by bits that order as they do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Unscaled value.
    Decimal(i128),
    Float(i64),
    Text(String),
    List(Vec<Value>),
}

pub(crate) type Row = Vec<Value>;

impl Value {
    pub(crate) fn float(value: f64) -> Self {
        let bits = value.to_bits() as i64;
        Self::Float(bits ^ ((bits >> 63) & i64::MAX))
    }

    pub(crate) fn as_f64(&self) -> f64 {
        let Self::Float(code) = self else { panic!("{self:?} is no float") };
        f64::from_bits((code ^ ((code >> 63) & i64::MAX)) as u64)
    }

    /// -0.0 as 0.0.
    pub(crate) fn normalised(&self) -> Self {
        match self {
            Self::Float(_) if self.as_f64() == 0.0 => Self::float(0.0),
            other => other.clone(),
        }
    }
}

/// (k, g, v, d, f, b): what every input looks like.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("g", DataType::Utf8View, true),
        Field::new("v", DataType::Int64, true),
        Field::new("d", DataType::Decimal128(38, 2), true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
    ]))
}

pub(crate) fn random_row(rng: &mut Rng) -> Row {
    let huge = 10_i128.pow(38) - 1;
    let mut or_null = |value: Value| if rng.u8(0..8) == 0 { Value::Null } else { value };
    let row = vec![Value::Int(0); 6];
    let mut row: Row = row.into_iter().map(&mut or_null).collect();
    let texts = ["", "a", "b", "a string too long to lie inside a view", "ü"];
    let floats = [0.0, -0.0, 1.5, -2.25, 1e12, 0.125, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let values = [
        Value::Int(rng.i64(-2..4)),
        Value::Text(texts[rng.usize(0..texts.len())].to_owned()),
        Value::Int(if rng.u8(0..12) == 0 { i64::MAX } else { rng.i64(-5..6) }),
        Value::Decimal(if rng.u8(0..10) == 0 { huge } else { rng.i128(-500..500) }),
        Value::float(if rng.u8(0..4) == 0 {
            floats[rng.usize(0..floats.len())]
        } else {
            rng.i32(-100_000..100_000) as f64 / 1024.0
        }),
        Value::Bool(rng.bool()),
    ];
    for (slot, value) in row.iter_mut().zip(values) {
        if *slot != Value::Null {
            *slot = value;
        }
    }
    row
}

/// Input rows as a batch.
pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let column = |i: usize| rows.iter().map(move |row| &row[i]);
    let int = |i| -> ArrayRef {
        Arc::new(
            column(i)
                .map(|v| if let Value::Int(v) = v { Some(*v) } else { None })
                .collect::<Int64Array>(),
        )
    };
    let text: StringViewArray =
        column(1).map(|v| if let Value::Text(v) = v { Some(v.as_str()) } else { None }).collect();
    let decimal: Decimal128Array =
        column(3).map(|v| if let Value::Decimal(v) = v { Some(*v) } else { None }).collect();
    let decimal = decimal.with_precision_and_scale(38, 2).expect("a legal scale");
    let float: Float64Array =
        column(4).map(|v| if *v == Value::Null { None } else { Some(v.as_f64()) }).collect();
    let boolean: BooleanArray =
        column(5).map(|v| if let Value::Bool(v) = v { Some(*v) } else { None }).collect();
    let columns: Vec<ArrayRef> =
        vec![int(0), Arc::new(text), int(2), Arc::new(decimal), Arc::new(float), Arc::new(boolean)];
    RecordBatch::try_new(schema(), columns).expect("columns fit")
}

/// Any batch as rows.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| value_at(column, row)).collect())
        .collect()
}

fn value_at(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Decimal128(..) => {
            Value::Decimal(column.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Float64 => Value::float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        DataType::LargeUtf8 => Value::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::UInt64 => Value::Int(column.as_primitive::<UInt64Type>().value(row) as i64),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Value::List((0..items.len()).map(|item| value_at(&items, item)).collect())
        }
        other => panic!("no test makes {other}"),
    }
}
