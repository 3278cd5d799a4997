//! Keys: order-preserving bytes of some columns, by arrow-row.
//!
//! Invariants
//! - Equal values have equal bytes; with `normalise`, so do -0.0 and 0.0, and all NaNs.
//! - Bytes compare as the values do (NULL first).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::compute::{SortOptions, unary};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, RowParser, Rows, SortField};

use crate::FoldError;
use crate::state::StateError;

/// Turns columns into key bytes and back.
#[derive(Debug)]
pub(crate) struct KeyCodec {
    converter: RowConverter,
    parser: RowParser,
    columns: usize,
    has_floats: bool,
}

/// Key bytes of a batch, one slice a row.
#[derive(Debug)]
pub(crate) struct KeyRows {
    rows: Rows,
    /// With no key columns arrow-row keeps no rows.
    len: usize,
    empty: bool,
}

impl KeyRows {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, row: usize) -> &[u8] {
        if self.empty { &[] } else { self.rows.row(row).data() }
    }
}

impl KeyCodec {
    pub(crate) fn new<'a>(
        types: impl IntoIterator<Item = &'a DataType>,
    ) -> Result<Self, FoldError> {
        Self::with_options(types.into_iter().map(|ty| (ty.clone(), SortOptions::default())))
    }

    /// Bytes compare as the options say, column by column.
    pub(crate) fn with_options(
        columns: impl IntoIterator<Item = (DataType, SortOptions)>,
    ) -> Result<Self, FoldError> {
        let columns: Vec<_> = columns.into_iter().collect();
        let has_floats = columns.iter().any(|(ty, _)| contains_float(ty));
        let fields = columns.into_iter();
        let fields: Vec<_> =
            fields.map(|(ty, options)| SortField::new_with_options(ty, options)).collect();
        let columns = fields.len();
        let converter = RowConverter::new(fields)
            .map_err(|error| FoldError::InvalidPlan(format!("not a key: {error}")))?;
        let parser = converter.parser();
        Ok(Self { converter, parser, columns, has_floats })
    }

    /// Whole rows of a schema, byte for byte: -0.0 and 0.0 are different.
    pub(crate) fn of_schema(schema: &SchemaRef) -> Result<Self, FoldError> {
        Self::new(schema.fields().iter().map(|field| field.data_type()))
    }

    /// The key bytes of `rows` rows.
    ///
    /// # Panics
    /// If the columns are not of the codec's types.
    pub(crate) fn encode(&self, columns: &[ArrayRef], rows: usize) -> KeyRows {
        if self.columns == 0 {
            return KeyRows { rows: self.converter.empty_rows(0, 0), len: rows, empty: true };
        }
        let rows =
            self.converter.convert_columns(columns).expect("the columns have the codec's types");
        KeyRows { len: rows.num_rows(), rows, empty: false }
    }

    /// As `encode`, with floats made canonical first.
    pub(crate) fn encode_normalised(&self, columns: &[ArrayRef], rows: usize) -> KeyRows {
        if !self.has_floats {
            return self.encode(columns, rows);
        }
        let columns: Vec<_> = columns.iter().map(normalise).collect();
        self.encode(&columns, rows)
    }

    /// Whether a key's bytes tell its values, also where keys are normalised.
    pub(crate) fn is_lossless(&self) -> bool {
        !self.has_floats
    }

    /// The columns of keys that were read back from somewhere.
    pub(crate) fn try_decode<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, StateError> {
        if self.columns == 0 {
            return Ok(Vec::new());
        }
        let rows = keys.map(|bytes| self.parser.parse(bytes));
        self.converter.convert_rows(rows).map_err(|error| StateError(error.to_string()))
    }

    /// The columns of keys that this codec encoded.
    pub(crate) fn decode<'a>(&'a self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        if self.columns == 0 {
            return Vec::new();
        }
        self.converter
            .convert_rows(keys.map(|bytes| self.parser.parse(bytes)))
            .expect("the bytes were encoded by this codec")
    }
}

/// -0.0 becomes 0.0 and every NaN the same NaN, as Postgres compares them.
pub(crate) fn normalise(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(unary::<_, _, Float64Type>(
            column.as_primitive::<Float64Type>(),
            canonical_f64,
        )),
        DataType::Float32 => {
            Arc::new(unary::<_, _, Float32Type>(column.as_primitive::<Float32Type>(), |value| {
                if value.is_nan() {
                    f32::NAN
                } else if value == 0.0 {
                    0.0
                } else {
                    value
                }
            }))
        }
        DataType::List(item) if contains_float(item.data_type()) => {
            let lists = column.as_list::<i32>();
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            let values = normalise(lists.values());
            Arc::new(ListArray::new(Arc::clone(item), offsets, values, nulls))
        }
        _ => Arc::clone(column),
    }
}

/// Whether values are floats, or arrays of floats.
fn contains_float(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) => contains_float(item.data_type()),
        ty => ty.is_floating(),
    }
}

/// -0.0 becomes 0.0 and every NaN the same NaN.
pub(crate) fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Builder, ListBuilder};

    use super::*;

    #[test]
    fn arrays_of_equal_floats_have_one_key() {
        let mut lists = ListBuilder::new(Float64Builder::new());
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        for floats in [[0.0, f64::NAN], [-0.0, other_nan], [1.0, f64::NAN]] {
            lists.append_value(floats.map(Some));
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let codec = KeyCodec::new([lists.data_type()]).expect("a key");
        let keys = codec.encode_normalised(&[Arc::clone(&lists)], 3);
        assert_eq!(keys.get(0), keys.get(1));
        assert_ne!(keys.get(0), keys.get(2));
        assert!(!codec.is_lossless());
        let sliced = codec.encode_normalised(&[lists.slice(1, 2)], 2);
        assert_eq!((sliced.get(0), sliced.get(1)), (keys.get(0), keys.get(2)));
    }
}
