//! Data files: Parquet with zstd, and what a manifest says of each.

use arrow::array::RecordBatch;
use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, Literal, Struct};
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::days::Day;
use crate::error::{ArchiveError, Result};
use crate::schema::Shape;

/// Rows of a row group at most: what a reader skips or reads.
const GROUP_ROWS: usize = 256 << 10;
/// Level 1 costs a third of the default's time, for a few percent more bytes.
const ZSTD_LEVEL: i32 = 1;

/// Makes a file of rows that are in the table's columns: its bytes, and its manifest entry.
pub(crate) async fn make(
    shape: &Shape,
    rows: impl Iterator<Item = Result<RecordBatch>>,
    url: &str,
    day: Day,
    spec_id: i32,
) -> Result<(Bytes, DataFile)> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("zstd has such a level");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build();
    // The library writes through its own files; these are in memory, under the real name.
    let files = FileIO::new_with_memory();
    let output = files.new_output(url).map_err(ArchiveError::made)?;
    let builder = ParquetWriterBuilder::new(properties, shape.iceberg.clone());
    let mut writer = builder.build(output).await.map_err(ArchiveError::made)?;
    for batch in rows {
        writer.write(&batch?).await.map_err(ArchiveError::made)?;
    }
    let mut made = writer.close().await.map_err(ArchiveError::made)?;
    let mut entry = made.pop().ok_or_else(|| ArchiveError::Invalid("a file of no rows".into()))?;
    let entry = entry
        .partition(Struct::from_iter([day.map(Literal::date)]))
        .partition_spec_id(spec_id)
        .build()
        .map_err(ArchiveError::made)?;
    let input = files.new_input(url).map_err(ArchiveError::made)?;
    Ok((input.read().await.map_err(ArchiveError::made)?, entry))
}

/// The rows of a file, in the columns that it was written with.
pub(crate) fn read(url: &str, bytes: Bytes) -> Result<ParquetRecordBatchReader> {
    ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| ArchiveError::damaged(url, error))
}
