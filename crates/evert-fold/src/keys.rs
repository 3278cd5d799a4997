//! Keys: order-preserving bytes of some columns, by arrow-row.
//!
//! Invariants
//! - Equal values have equal bytes; with `normalise`, so do -0.0 and 0.0, and all NaNs.
//! - Bytes compare as the values do (NULL first).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
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
        let has_floats = columns.iter().any(|(ty, _)| ty.is_floating());
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
        _ => Arc::clone(column),
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
