//! Parquet files, in and out. Columns are matched by name.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use evert_model::Origin;
use evert_view::Relation;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::SqlError;
use crate::dml::defaults::Filling;
use crate::dml::values;
use crate::error::{BAD_COPY_FORMAT, FEATURE_NOT_SUPPORTED, IO_ERROR, UNDEFINED_COLUMN};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// What a file's writer gathers before it writes.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A relation's rows from a Parquet file.
pub(crate) struct ParquetIn {
    relation: Arc<Relation>,
    /// (the relation's column, the file's)
    columns: Vec<(usize, usize)>,
    filling: Filling,
    reader: ParquetRecordBatchReader,
}

impl ParquetIn {
    /// Reads these columns; others of the file are left out. Blocks.
    ///
    /// # Errors
    /// When it is no Parquet file, or lacks a column.
    pub(crate) fn open(
        file: File,
        relation: &Arc<Relation>,
        columns: &[usize],
        filling: Filling,
    ) -> Result<Self, SqlError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
        let schema = Arc::clone(builder.schema());
        let columns = columns.iter().map(|&column| {
            let name = &relation.schema.columns[column].name;
            match schema.fields().iter().position(|field| field.name() == name) {
                Some(found) => Ok((column, found)),
                None => {
                    let message = format!("the file has no column \"{name}\"");
                    Err(SqlError::new(UNDEFINED_COLUMN, message)
                        .hint("List the columns that it has after the table's name."))
                }
            }
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| unreadable(&e))?;
        Ok(Self { relation: Arc::clone(relation), columns, filling, reader })
    }

    /// The next rows; `None` at the end. Blocks.
    ///
    /// # Errors
    /// When the file is damaged or a value does not fit its column.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(|error| unreadable(&error.into()))?;
        let schema = &self.relation.schema;
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; schema.columns.len()];
        for &(column, found) in &self.columns {
            arrays[column] = Some(Arc::clone(batch.column(found)));
        }
        self.filling.fill(&mut arrays, batch.num_rows())?;
        values::rows(&self.relation, arrays, batch.num_rows()).map(Some)
    }
}

fn unreadable(error: &ParquetError) -> SqlError {
    SqlError::new(BAD_COPY_FORMAT, format!("the file cannot be read as Parquet: {error}"))
}

/// Rows on their way into a Parquet file.
pub(crate) struct ParquetOut {
    writer: ArrowWriter<Pieces>,
    /// Of the file: it does not tell whose columns they were.
    schema: SchemaRef,
}

/// What the writer has written and nobody has taken.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ParquetOut {
    /// A file of these columns.
    ///
    /// # Errors
    /// When Parquet has no form for a column's type.
    pub(crate) fn new(schema: &Schema) -> Result<Self, SqlError> {
        let fields = schema.fields().iter();
        let fields: Fields = fields.map(|field| Origin::untold(Field::clone(field))).collect();
        let schema = Arc::new(Schema::new(fields));
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let (pieces, of) = (Pieces::default(), Arc::clone(&schema));
        let writer = ArrowWriter::try_new(pieces, of, Some(properties));
        Ok(Self { writer: writer.map_err(|error| refused(&error))?, schema })
    }

    /// Adds rows and gives the bytes that are the file's next. Blocks.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, SqlError> {
        let (schema, columns) = (Arc::clone(&self.schema), rows.columns().to_vec());
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema, columns, &count)
            .map_err(|error| refused(&error.into()))?;
        self.writer.write(&rows).map_err(|error| refused(&error))?;
        Ok(std::mem::take(&mut self.writer.inner_mut().0))
    }

    /// The file's last bytes. Blocks.
    pub(crate) fn finish(self) -> Result<Vec<u8>, SqlError> {
        Ok(self.writer.into_inner().map_err(|error| refused(&error))?.0)
    }
}

fn refused(error: &ParquetError) -> SqlError {
    match error {
        ParquetError::NYI(what) => SqlError::new(FEATURE_NOT_SUPPORTED, what.clone())
            .hint("Cast the column to a type that Parquet has."),
        other => SqlError::new(IO_ERROR, format!("the Parquet file cannot be written: {other}")),
    }
}
