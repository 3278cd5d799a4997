//! Reading a stream's rows: it keeps none, so they are decoded from its topic.

use std::sync::Arc;

use arrow::array::RecordBatch;
use evert_log::{CommitPart, Log, ReadError};
use evert_model::{Offset, PartitionId, split_batches};

use crate::Views;
use crate::catalog::Relation;
use crate::relation::RelationInput;

/// Bytes fetched, and so rows decoded, at a time.
const FETCH_BYTES: usize = 1 << 20;

/// The rows of a stream below given offsets, partition by partition. Blocks.
pub struct StreamScan {
    log: Log,
    relation: Arc<Relation>,
    projection: Option<Vec<usize>>,
    /// What is left: partition, next offset, end.
    left: Vec<(PartitionId, Offset, Offset)>,
}

impl Views {
    /// The rows of a stream below `ends`, which a [`crate::Cut`] gave.
    pub fn scan_stream(
        &self,
        relation: &Arc<Relation>,
        ends: &[Offset],
        projection: Option<&[usize]>,
    ) -> StreamScan {
        let left =
            ends.iter().enumerate().rev().map(|(partition, end)| {
                (PartitionId::new(partition as i32), Offset::default(), *end)
            });
        StreamScan {
            log: self.log().clone(),
            relation: Arc::clone(relation),
            projection: projection.map(<[usize]>::to_vec),
            left: left.collect(),
        }
    }
}

impl StreamScan {
    fn next_rows(&mut self) -> Result<Option<Vec<RecordBatch>>, ReadError> {
        let Some((partition, next, end)) = self.left.last_mut() else { return Ok(None) };
        let topic = self.relation.topic_id;
        let start = self.log.partition_ends(topic, *partition)?.log_start;
        *next = (*next).max(start);
        if *next >= *end {
            self.left.pop();
            return Ok(Some(Vec::new()));
        }
        let fetched = self.log.fetch(topic, *partition, *next, FETCH_BYTES, false)?;
        let mut input = RelationInput::new(Arc::clone(&self.relation));
        let before = *next;
        for batch in fetched.into_iter().flat_map(|f| f.batches).flat_map(split_batches) {
            let Ok(batch) = batch else { continue };
            if batch.header().base_offset >= *end {
                break;
            }
            *next = batch.header().next_offset();
            // Records that cannot be read are rows of the errors view already.
            input.push(&CommitPart { topic, partition: *partition, batch }, |_| {});
        }
        if *next == before {
            self.left.pop();
        }
        let rows = input.fold(|_| {}).into_iter().map(|delta| delta.rows);
        Ok(Some(rows.map(|rows| self.project(rows)).collect()))
    }

    fn project(&self, rows: RecordBatch) -> RecordBatch {
        match &self.projection {
            None => rows,
            Some(columns) => rows.project(columns).expect("a projection names columns there are"),
        }
    }
}

impl Iterator for StreamScan {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_rows() {
                Err(error) => {
                    self.left.clear();
                    return Some(Err(error));
                }
                Ok(None) => return None,
                Ok(Some(batches)) if batches.is_empty() => {}
                Ok(Some(batches)) => {
                    let schema = batches[0].schema();
                    return Some(Ok(arrow::compute::concat_batches(&schema, &batches)
                        .expect("batches of one schema")));
                }
            }
        }
    }
}
