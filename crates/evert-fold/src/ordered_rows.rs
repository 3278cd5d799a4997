//! Rows of groups in an order: bytes that compare as ORDER BY says, ties by whole-row bytes.
//!
//! A row's bytes are its order's columns, then the others. What the order or the group's key
//! tells is not repeated: all but floats, of which they do not tell -0.0 from 0.0.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};

use crate::FoldError;
use crate::keys::{KeyCodec, KeyRows, normalise};
use crate::plan::SortKey;
use crate::rows::columns_of;

/// Turns rows into bytes, a group's key and the row apart, and back.
#[derive(Debug)]
pub(crate) struct OrderedRows {
    keys: Vec<usize>,
    key_codec: KeyCodec,
    /// The input's columns in the order of a row's bytes.
    columns: Vec<usize>,
    /// How many of them are the order's.
    order: usize,
    codec: KeyCodec,
    /// By input column.
    places: Vec<Place>,
}

/// Where a column is found again.
#[derive(Clone, Copy, Debug)]
enum Place {
    Key(usize),
    Row(usize),
}

impl OrderedRows {
    pub(crate) fn new(
        input: &SchemaRef,
        keys: &[usize],
        order: &[SortKey],
    ) -> Result<Self, FoldError> {
        let ty = |column: usize| input.field(column).data_type();
        let mut columns: Vec<usize> = Vec::new();
        let mut options = Vec::new();
        for key in order {
            // What the group or the order before it tells decides nothing.
            if !keys.contains(&key.column) && !columns.contains(&key.column) {
                columns.push(key.column);
                let (descending, nulls_first) = (key.descending, key.nulls_first);
                options.push(SortOptions { descending, nulls_first });
            }
        }
        let order = columns.len();
        let mut places = Vec::with_capacity(input.fields().len());
        for column in 0..input.fields().len() {
            let told = if tells_all(ty(column)) {
                let by_key = keys.iter().position(|&key| key == column).map(Place::Key);
                let by_order = || columns[..order].iter().position(|&other| other == column);
                by_key.or_else(|| by_order().map(Place::Row))
            } else {
                None
            };
            places.push(told.unwrap_or(Place::Row(columns.len())));
            if told.is_none() {
                columns.push(column);
            }
        }
        options.resize(columns.len(), SortOptions::default());
        let typed = columns.iter().zip(options).map(|(&column, o)| (ty(column).clone(), o));
        Ok(Self {
            key_codec: KeyCodec::new(keys.iter().map(|&key| ty(key)))?,
            codec: KeyCodec::with_options(typed)?,
            keys: keys.to_vec(),
            columns,
            order,
            places,
        })
    }

    /// The keys of the groups that the rows are in.
    pub(crate) fn keys(&self, rows: &RecordBatch) -> KeyRows {
        self.key_codec.encode_normalised(&columns_of(rows, &self.keys), rows.num_rows())
    }

    /// The key columns of groups.
    pub(crate) fn decode_keys<'a>(&'a self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        self.key_codec.decode(keys)
    }

    /// The rows' bytes in their groups.
    pub(crate) fn encode(&self, rows: &RecordBatch) -> KeyRows {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, &column)| {
                let column = rows.column(column);
                if place < self.order { normalise(column) } else { Arc::clone(column) }
            })
            .collect();
        self.codec.encode(&columns, rows.num_rows())
    }

    /// The input's columns of some rows: the key of each one's group, and its bytes.
    pub(crate) fn decode<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a [u8]>,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<ArrayRef> {
        let needs_keys = self.places.iter().any(|place| matches!(place, Place::Key(_)));
        let keys = if needs_keys { self.key_codec.decode(keys) } else { Vec::new() };
        let rows = self.codec.decode(rows);
        let column = |place: &Place| match *place {
            Place::Key(at) => Arc::clone(&keys[at]),
            Place::Row(at) => Arc::clone(&rows[at]),
        };
        self.places.iter().map(column).collect()
    }
}

/// Whether a value's normal form is the value.
fn tells_all(data_type: &DataType) -> bool {
    !data_type.is_floating() && !data_type.is_nested()
}

const LENGTH_BYTES: usize = 4;

/// The name of a saved row: its group's key and its bytes.
pub(crate) fn entry_of(key: &[u8], row: &[u8]) -> Box<[u8]> {
    let length = u32::try_from(key.len()).expect("keys are far smaller than 4 GB");
    [&length.to_be_bytes(), key, row].concat().into_boxed_slice()
}

/// A saved row's group key and bytes.
pub(crate) fn parts_of(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = entry.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
