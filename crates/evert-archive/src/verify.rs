//! VERIFY: the rows that are stored, compared with the log's facts.
//!
//! Both are read twice at most: first as sums of their hashes by position, so that memory is
//! bounded; where sums differ, row by row.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use evert_model::Position;
use evert_view::{OutletContext, OutletError, OutletVerdict};

use crate::archives::{Archive, outlet_error};
use crate::datafile;
use crate::error::{ArchiveError, Result};
use crate::follow::{past_error, relation, upto};

/// Sums that are kept.
const BUCKETS: i64 = 1 << 14;
/// Rows that are compared one by one at most.
const ROWS_MAX: usize = 200_000;
const SHOWN_MAX: usize = 10;

impl Archive {
    pub(crate) async fn verify_rows(
        &mut self,
        context: &OutletContext,
    ) -> std::result::Result<OutletVerdict, OutletError> {
        let end = self.writer.table().mark().position;
        let (mut stored, mut expected) = (Sums::new(), Sums::new());
        self.stored(|rows| stored.add(rows)).await.map_err(outlet_error)?;
        self.expected(context, end, |rows| expected.add(rows)).await?;
        let mut verdict = OutletVerdict {
            position: end,
            rows_expected: expected.rows,
            rows_stored: stored.rows,
            ..OutletVerdict::default()
        };
        let other = |bucket: &usize| stored.sums[*bucket] != expected.sums[*bucket];
        let differing: Vec<usize> = (0..BUCKETS as usize).filter(other).collect();
        if differing.is_empty() {
            return Ok(verdict);
        }
        let mut rows = Rows::new(&differing);
        self.stored(|batch| rows.add(batch, -1)).await.map_err(outlet_error)?;
        self.expected(context, end, |batch| rows.add(batch, 1)).await?;
        verdict.rows_differing =
            rows.weights.values().map(|(weight, _)| weight.unsigned_abs()).sum();
        verdict.differences = rows.shown();
        Ok(verdict)
    }

    async fn stored(&self, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let table = self.writer.table();
        for live in table.files() {
            let url = live.file.file_path();
            for batch in datafile::read(url, table.read_file(url).await?)? {
                let batch = batch.map_err(|error| ArchiveError::damaged(url, error))?;
                each(&table.shape().convert(&batch)?)?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn expected(
        &self,
        context: &OutletContext,
        end: Position,
        mut each: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> std::result::Result<(), OutletError> {
        let (relation, none) = (relation(context)?, BTreeMap::new());
        let facts = context.views().facts_after(&relation, Position::ZERO, &none);
        let mut facts = facts.map_err(past_error)?;
        let shape = self.writer.table().shape().clone();
        tokio::task::block_in_place(|| {
            upto(&mut facts, end, |batch| {
                let rows = shape.convert(&batch.rows)?;
                let positions = positions(&rows)?;
                let within = positions.iter().filter(|at| **at <= end.get() as i64).count();
                each(&rows.slice(0, within))
            })
        })
    }
}

/// The positions of facts, which rise.
pub(crate) fn positions(rows: &RecordBatch) -> Result<Vec<i64>> {
    let missing = || ArchiveError::Invalid("rows without positions".into());
    let column = rows.column_by_name("evert_position").ok_or_else(missing)?;
    Ok(column.as_primitive::<Int64Type>().values().to_vec())
}

fn hashes(rows: &RecordBatch) -> Result<Vec<u128>> {
    let fields =
        rows.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(ArchiveError::made)?;
    let encoded = converter.convert_columns(rows.columns()).map_err(ArchiveError::made)?;
    let hash = |row: arrow::row::Row<'_>| {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            row.as_ref().hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    };
    Ok(encoded.iter().map(hash).collect())
}

/// Sums of rows' hashes, by position.
struct Sums {
    sums: Vec<u128>,
    rows: u64,
}

impl Sums {
    fn new() -> Self {
        Self { sums: vec![0; BUCKETS as usize], rows: 0 }
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        for (position, hash) in positions(rows)?.into_iter().zip(hashes(rows)?) {
            let sum = &mut self.sums[position.rem_euclid(BUCKETS) as usize];
            *sum = sum.wrapping_add(hash);
            self.rows += 1;
        }
        Ok(())
    }
}

/// The rows of some buckets: how many more are expected than stored.
struct Rows {
    buckets: Vec<bool>,
    weights: HashMap<u128, (i64, String)>,
}

impl Rows {
    fn new(buckets: &[usize]) -> Self {
        let mut wanted = vec![false; BUCKETS as usize];
        buckets.iter().for_each(|bucket| wanted[*bucket] = true);
        Self { buckets: wanted, weights: HashMap::new() }
    }

    fn add(&mut self, rows: &RecordBatch, weight: i64) -> Result<()> {
        let places = positions(rows)?.into_iter().zip(hashes(rows)?).enumerate();
        for (row, (position, hash)) in places {
            let full = self.weights.len() >= ROWS_MAX && !self.weights.contains_key(&hash);
            if !self.buckets[position.rem_euclid(BUCKETS) as usize] || full {
                continue;
            }
            let entry = self.weights.entry(hash).or_insert_with(|| (0, text(rows, row)));
            entry.0 += weight;
            if entry.0 == 0 {
                self.weights.remove(&hash);
            }
        }
        Ok(())
    }

    fn shown(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .weights
            .values()
            .map(|(weight, row)| {
                let what = if *weight > 0 { "missing" } else { "too many" };
                format!("{what}: {row}")
            })
            .collect();
        lines.sort();
        lines.truncate(SHOWN_MAX);
        lines
    }
}

fn text(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let cells = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let value = array_value_to_string(column, row).unwrap_or_default();
        format!("{}={value}", field.name())
    });
    cells.collect::<Vec<_>>().join(" ")
}
