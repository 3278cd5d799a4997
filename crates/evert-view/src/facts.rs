//! Facts: the records of one relation in the log's order, each as rows that say where they are
//! from.
//!
//! Owns: what a record's rows look like when nothing is folded ([`facts_schema`]).
//! Not here: what the rows do to a table (`relation`), bad records (`errors` has them).
//!
//! Invariants
//! - Every record after the position that was asked for is given once, in the order (position,
//!   partition, offset); a batch ends at the end of a commit.
//! - Folding the rows in that order gives the relation: `c` adds a row, `u` puts the row of its
//!   key, `d` takes a row out, `t` takes all out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use evert_log::{Commit, CommitBody, CommitPart, ReadError, Replay};
use evert_model::{Column, ColumnType, LogTime, Offset, PartitionId, Position, RowSchema};

use crate::Views;
use crate::catalog::Relation;
use crate::decode::{Decoder, Event};
use crate::past::PastError;
use crate::relation::PAYLOAD_BYTES_MAX;

/// A batch is given once its commits' records have so many rows or bytes.
const BATCH_ROWS: usize = 32 << 10;
const BATCH_BYTES: usize = 4 << 20;

/// The columns that say where a row is from, after the relation's own.
pub const FACT_COLUMNS: [(&str, ColumnType); 5] = [
    ("evert_position", ColumnType::Int64),
    ("evert_time", ColumnType::TimestampTz),
    ("kafka_partition", ColumnType::Int32),
    ("kafka_offset", ColumnType::Int64),
    ("evert_op", ColumnType::Text),
];

/// The columns of a relation's facts: the relation's own, all of which may be NULL, and
/// [`FACT_COLUMNS`].
pub fn facts_schema(relation: &RowSchema) -> RowSchema {
    let own = relation.columns.iter().map(|column| Column { nullable: true, ..column.clone() });
    let more = FACT_COLUMNS.iter();
    let more = more.map(|(name, ty)| Column { name: (*name).into(), ty: *ty, nullable: false });
    RowSchema { columns: own.chain(more).collect(), key: Vec::new() }
}

/// Facts of some commits.
#[derive(Clone, Debug)]
pub struct FactsBatch {
    /// The rows, in [`facts_schema`]; none if the commits hold nothing of the relation. A batch
    /// after ALTER TABLE may have more columns than the one before.
    pub rows: RecordBatch,
    /// Every fact up to here has been given.
    pub position: Position,
    /// The log's time there.
    pub log_time: LogTime,
    /// The first offset after what has been given, of the partitions that are in this batch.
    pub next_offsets: BTreeMap<PartitionId, Offset>,
}

/// The facts of one relation, from a position on. Blocking: use it from a thread of its own.
pub struct Facts {
    views: Views,
    replay: Replay,
    relation: Arc<Relation>,
    decoder: Decoder,
    schema: SchemaRef,
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("of", &self.relation.name).finish_non_exhaustive()
    }
}

impl Views {
    /// The facts of a relation after a position. `seen` says which offset comes next in each
    /// partition, as [`FactsBatch::next_offsets`] gave it; where it is not given, 0.
    ///
    /// # Errors
    /// When the log has forgotten some of them, or cannot be read.
    pub fn facts_after(
        &self,
        relation: &Arc<Relation>,
        after: Position,
        seen: &BTreeMap<PartitionId, Offset>,
    ) -> Result<Facts, PastError> {
        let log = self.log();
        let topic = log.topic_by_id(relation.topic_id);
        let partitions = topic.as_ref().map_or(0, |topic| topic.partitions);
        for partition in (0..partitions).map(PartitionId::new) {
            let log_start = log.partition_ends(relation.topic_id, partition)?.log_start;
            if log_start > seen.get(&partition).copied().unwrap_or_default() {
                let topic = relation.topic.clone();
                return Err(PastError::Forgotten { topic, partition, log_start });
            }
        }
        Ok(Facts {
            views: self.clone(),
            replay: log.replay(after)?,
            decoder: Decoder::new(relation),
            schema: facts_schema(&relation.schema).to_arrow(),
            relation: Arc::clone(relation),
        })
    }
}

impl Facts {
    /// A relation that has got more columns is read with them from now on.
    fn look_at_columns(&mut self) {
        let catalog = self.views.catalog();
        let Some(relation) = catalog.relations.get(&self.relation.name) else { return };
        let same = relation.schema == self.relation.schema;
        if !same && relation.topic_id == self.relation.topic_id {
            self.decoder = Decoder::new(relation);
            self.schema = facts_schema(&relation.schema).to_arrow();
            self.relation = Arc::clone(relation);
        }
    }

    /// The facts of the next commits; `None` at the log's durable end, after which it can be
    /// called again.
    ///
    /// # Errors
    /// When the log cannot be read; the same can be asked again.
    #[allow(clippy::should_implement_trait, reason = "an end that can move is no iterator's")]
    pub fn next(&mut self) -> Result<Option<FactsBatch>, ReadError> {
        self.look_at_columns();
        let mut batch = Assembly::new(Arc::clone(&self.relation));
        let mut reached = None;
        while batch.rows < BATCH_ROWS && batch.bytes < BATCH_BYTES {
            let Some(commit) = self.replay.next()? else { break };
            self.push(&commit, &mut batch);
            reached = Some((commit.position, commit.log_time));
        }
        let Some((position, log_time)) = reached else { return Ok(None) };
        batch.take(&mut self.decoder);
        let next_offsets = std::mem::take(&mut batch.next_offsets);
        let rows = batch.finish(&self.schema);
        Ok(Some(FactsBatch { rows, position, log_time, next_offsets }))
    }

    fn push(&mut self, commit: &Commit, batch: &mut Assembly) {
        let CommitBody::Data(parts) = &commit.body else { return };
        let topic = self.relation.topic_id;
        for part in parts.iter().filter(|part| part.topic == topic) {
            let header = part.batch.header();
            batch.next_offsets.insert(part.partition, header.next_offset());
            batch.bytes += part.batch.bytes().len();
            if header.is_control() {
                continue;
            }
            self.push_part(commit, part, batch);
        }
    }

    /// Records that cannot be read are rows of the errors view, and none here; of a table they
    /// may still take their key's row out.
    fn push_part(&mut self, commit: &Commit, part: &CommitPart, batch: &mut Assembly) {
        let Ok(payload) = part.batch.payload(PAYLOAD_BYTES_MAX) else { return };
        for record in part.batch.records(&payload).flatten() {
            let before = self.decoder.pending();
            let _ = self.decoder.push(&record);
            let at = At {
                position: commit.position.get() as i64,
                time: commit.log_time.get(),
                partition: part.partition.get(),
                offset: record.offset.get(),
            };
            if self.decoder.has_events() {
                // A truncation: what came before it has been sealed.
                batch.take(&mut self.decoder);
                batch.truncated(at);
            } else {
                batch.extend(at, self.decoder.pending() - before);
            }
        }
    }
}

/// Where a row is from.
#[derive(Clone, Copy)]
struct At {
    position: i64,
    time: i64,
    partition: i32,
    offset: i64,
}

/// A batch being put together.
struct Assembly {
    relation: Arc<Relation>,
    own: Vec<RecordBatch>,
    ops: Vec<&'static str>,
    at: Vec<At>,
    rows: usize,
    bytes: usize,
    next_offsets: BTreeMap<PartitionId, Offset>,
}

impl Assembly {
    fn new(relation: Arc<Relation>) -> Self {
        Self {
            relation,
            own: Vec::new(),
            ops: Vec::new(),
            at: Vec::new(),
            rows: 0,
            bytes: 0,
            next_offsets: BTreeMap::new(),
        }
    }

    /// So many rows of one record wait in the decoder.
    fn extend(&mut self, at: At, rows: usize) {
        self.at.extend(std::iter::repeat_n(at, rows));
        self.rows += rows;
    }

    fn truncated(&mut self, at: At) {
        let schema = self.relation.schema.to_arrow();
        let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1));
        let row = RecordBatch::try_new(Arc::clone(&schema), nulls.collect());
        self.own.push(row.expect("all columns may be NULL"));
        self.ops.push("t");
        self.extend(at, 1);
    }

    /// Takes over what the decoder holds. A truncation itself has been noted by its record.
    fn take(&mut self, decoder: &mut Decoder) {
        for event in decoder.take() {
            match event {
                Event::Rows(rows) => {
                    self.ops.extend(std::iter::repeat_n("c", rows.num_rows()));
                    self.own.push(rows);
                }
                Event::Upsert(batch) => {
                    let live = batch.live.iter().map(|live| live == Some(true));
                    self.ops.extend(live.map(|live| if live { "u" } else { "d" }));
                    self.own.push(batch.rows);
                }
                Event::Change(delta) => {
                    let signs = delta.weights.values().iter();
                    self.ops.extend(signs.map(|weight| if *weight > 0 { "c" } else { "d" }));
                    self.own.push(delta.rows);
                }
                Event::Truncate => {}
            }
        }
    }

    fn finish(self, schema: &SchemaRef) -> RecordBatch {
        let own_schema = self.relation.schema.to_arrow();
        let own = concat_batches(&own_schema, &self.own).expect("batches of one schema");
        assert_eq!((own.num_rows(), self.ops.len()), (self.at.len(), self.at.len()), "one a row");
        let times = TimestampMicrosecondArray::from_iter_values(self.at.iter().map(|at| at.time));
        let more: [ArrayRef; FACT_COLUMNS.len()] = [
            Arc::new(Int64Array::from_iter_values(self.at.iter().map(|at| at.position))),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(Int32Array::from_iter_values(self.at.iter().map(|at| at.partition))),
            Arc::new(Int64Array::from_iter_values(self.at.iter().map(|at| at.offset))),
            Arc::new(StringViewArray::from_iter_values(&self.ops)),
        ];
        let columns = own.columns().iter().cloned().chain(more).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(self.at.len()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &count)
            .expect("columns are of the facts' types")
    }
}
