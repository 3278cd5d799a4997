//! Columns under construction: rows of cells become Arrow batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, NullBufferBuilder,
    RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, SchemaRef};
use evert_model::{ColumnType, RowSchema};

use super::cell::Cell;

enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringViewBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    List {
        items: Box<ColumnBuilder>,
        ty: ColumnType,
        lengths: Vec<usize>,
        nulls: NullBufferBuilder,
    },
}

/// Rows of one schema, column by column.
pub(crate) struct Columns {
    schema: SchemaRef,
    builders: Vec<ColumnBuilder>,
    rows: usize,
}

impl Columns {
    pub(crate) fn new(schema: &RowSchema) -> Self {
        let builders = schema.columns.iter().map(|column| ColumnBuilder::new(column.ty)).collect();
        Self { schema: schema.to_arrow(), builders, rows: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Adds a row. The cells were made for these columns' types.
    pub(crate) fn push(&mut self, row: &[Cell<'_>]) {
        assert_eq!(row.len(), self.builders.len(), "one cell a column");
        for (builder, cell) in self.builders.iter_mut().zip(row) {
            builder.push(cell);
        }
        self.rows += 1;
    }

    /// The rows so far, which leave.
    pub(crate) fn take(&mut self) -> RecordBatch {
        let rows = std::mem::take(&mut self.rows);
        let arrays = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .expect("builders are of their schema's types")
    }
}

impl ColumnBuilder {
    fn new(ty: ColumnType) -> Self {
        match ty {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Int16 => Self::Int16(Int16Builder::new()),
            ColumnType::Int32 => Self::Int32(Int32Builder::new()),
            ColumnType::Int64 => Self::Int64(Int64Builder::new()),
            ColumnType::Float32 => Self::Float32(Float32Builder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
            ColumnType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(ty.arrow_type()))
            }
            ColumnType::Text | ColumnType::Json | ColumnType::Uuid => {
                Self::Text(StringViewBuilder::new())
            }
            ColumnType::Bytes => Self::Bytes(BinaryBuilder::new()),
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Timestamp | ColumnType::TimestampTz => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.arrow_type()))
            }
            ColumnType::Array(item) => Self::List {
                items: Box::new(Self::new(item.column_type())),
                ty: item.column_type(),
                lengths: Vec::new(),
                nulls: NullBufferBuilder::new(0),
            },
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Boolean(b), Cell::Bool(v)) => b.append_value(*v),
            (Self::Boolean(b), _) => b.append_null(),
            (Self::Int16(b), Cell::Int(v)) => b.append_value(*v as i16),
            (Self::Int16(b), _) => b.append_null(),
            (Self::Int32(b), Cell::Int(v)) => b.append_value(*v as i32),
            (Self::Int32(b), _) => b.append_null(),
            (Self::Int64(b), Cell::Int(v)) => b.append_value(*v),
            (Self::Int64(b), _) => b.append_null(),
            (Self::Float32(b), Cell::Float(v)) => b.append_value(*v as f32),
            (Self::Float32(b), _) => b.append_null(),
            (Self::Float64(b), Cell::Float(v)) => b.append_value(*v),
            (Self::Float64(b), _) => b.append_null(),
            (Self::Decimal(b), Cell::Decimal(v)) => b.append_value(*v),
            (Self::Decimal(b), _) => b.append_null(),
            (Self::Text(b), Cell::Text(v)) => b.append_value(v),
            (Self::Text(b), _) => b.append_null(),
            (Self::Bytes(b), Cell::Bytes(v)) => b.append_value(v),
            (Self::Bytes(b), _) => b.append_null(),
            (Self::Date(b), Cell::Int(v)) => b.append_value(*v as i32),
            (Self::Date(b), _) => b.append_null(),
            (Self::Timestamp(b), Cell::Int(v)) => b.append_value(*v),
            (Self::Timestamp(b), _) => b.append_null(),
            (Self::List { items, lengths, nulls, .. }, Cell::List(cells)) => {
                cells.iter().for_each(|cell| items.push(cell));
                lengths.push(cells.len());
                nulls.append_non_null();
            }
            (Self::List { lengths, nulls, .. }, _) => {
                lengths.push(0);
                nulls.append_null();
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Bytes(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::List { items, ty, lengths, nulls } => {
                let item = Field::new_list_field(ty.arrow_type(), true);
                let offsets = OffsetBuffer::from_lengths(lengths.drain(..));
                Arc::new(ListArray::new(item.into(), offsets, items.finish(), nulls.finish()))
            }
        }
    }
}
