//! Rows of system relations.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int32Builder, Int64Array, ListBuilder,
    RecordBatch, RecordBatchOptions, StringViewArray, StringViewBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use evert_model::vector_field;

use crate::error::INTERNAL_ERROR;
use crate::{SqlError, translate};

/// A column's name and type.
pub(super) type ColumnSpec = (&'static str, Kind);

/// The types that system relations need.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Int,
    BigInt,
    Float,
    Bool,
    /// A list of numbers, such as an index's columns.
    Ints,
    /// Integers as an `int2vector`.
    Vector,
    /// A list of texts of which there are none: access rights, options.
    Texts,
}

/// A value, or NULL.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Bool(bool),
    Ints(Vec<i64>),
}

impl From<Vec<i64>> for Cell {
    fn from(numbers: Vec<i64>) -> Self {
        Self::Ints(numbers)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        Self::Int(i64::from(number))
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Gathers rows.
pub(super) struct Builder {
    columns: &'static [ColumnSpec],
    rows: Vec<Vec<Cell>>,
}

impl Builder {
    pub(super) fn new(columns: &'static [ColumnSpec]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|(name, kind)| {
            let ty = match kind {
                Kind::Vector => return vector_field(name),
                Kind::Text => DataType::Utf8View,
                Kind::Int => DataType::Int32,
                Kind::BigInt => DataType::Int64,
                Kind::Float => DataType::Float64,
                Kind::Bool => DataType::Boolean,
                Kind::Texts => {
                    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
                }
                Kind::Ints => {
                    DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)))
                }
            };
            Field::new(*name, ty, true)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(super) fn finish(self) -> Result<RecordBatch, SqlError> {
        let schema = self.schema();
        let count = self.rows.len();
        let mut cells: Vec<Vec<Cell>> =
            self.columns.iter().map(|_| Vec::with_capacity(count)).collect();
        for row in self.rows {
            cells.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
        }
        let columns = self.columns.iter().zip(cells);
        let arrays: Option<Vec<_>> =
            columns.map(|((_, kind), cells)| array(*kind, cells)).collect();
        let arrays = arrays.ok_or_else(|| {
            SqlError::new(INTERNAL_ERROR, "a system relation's cell is not of its column's type")
        })?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|error| translate::planning(&error.into(), ""))
    }
}

fn array(kind: Kind, cells: Vec<Cell>) -> Option<ArrayRef> {
    Some(match kind {
        Kind::Text => {
            let texts = cells.into_iter().map(|cell| match cell {
                Cell::Null => Some(None),
                Cell::Text(text) => Some(Some(text)),
                _ => None,
            });
            Arc::new(StringViewArray::from_iter(texts.collect::<Option<Vec<_>>>()?))
        }
        Kind::BigInt => Arc::new(Int64Array::from(numbers(cells)?)),
        Kind::Int => {
            let narrow = |number: Option<i64>| number.map(|number| number as i32);
            Arc::new(numbers(cells)?.into_iter().map(narrow).collect::<Int32Array>())
        }
        Kind::Float => {
            let wide = |number: Option<i64>| number.map(|number| number as f64);
            Arc::new(numbers(cells)?.into_iter().map(wide).collect::<Float64Array>())
        }
        Kind::Ints | Kind::Vector => {
            let mut lists = ListBuilder::new(Int32Builder::new());
            for cell in cells {
                match cell {
                    Cell::Null => lists.append_null(),
                    Cell::Ints(numbers) => {
                        numbers
                            .iter()
                            .for_each(|number| lists.values().append_value(*number as i32));
                        lists.append(true);
                    }
                    _ => return None,
                }
            }
            Arc::new(lists.finish())
        }
        Kind::Texts => {
            let mut lists = ListBuilder::new(StringViewBuilder::new());
            for cell in cells {
                let Cell::Null = cell else { return None };
                lists.append_null();
            }
            Arc::new(lists.finish())
        }
        Kind::Bool => {
            let truths = cells.into_iter().map(|cell| match cell {
                Cell::Null => Some(None),
                Cell::Bool(truth) => Some(Some(truth)),
                _ => None,
            });
            Arc::new(BooleanArray::from(truths.collect::<Option<Vec<_>>>()?))
        }
    })
}

fn numbers(cells: Vec<Cell>) -> Option<Vec<Option<i64>>> {
    cells
        .into_iter()
        .map(|cell| match cell {
            Cell::Null => Some(None),
            Cell::Int(number) => Some(Some(number)),
            _ => None,
        })
        .collect()
}
