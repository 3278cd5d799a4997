//! A relation's place in a cohort: its records decoded, its rows kept.

use std::sync::Arc;

use arrow::array::RecordBatch;
use evert_fold::{BagInput, OperatorState, RowError, Snapshot, StateError, Upsert, net_change};
use evert_log::CommitPart;
use evert_model::Delta;

use crate::STATE_FORMAT;
use crate::catalog::{Relation, RelationKind};
use crate::checkpoint::{Entries, Kept, Mark};
use crate::decode::{Decoder, Event};

/// A batch that would grow beyond this when uncompressed is bad as a whole.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What is known of a record that could not be read.
pub(crate) struct BadRecord {
    /// The record's offset in its partition.
    pub(crate) offset: i64,
    pub(crate) reason: String,
    /// The value's beginning, as text.
    pub(crate) value: Option<String>,
}

enum Rows {
    Stream,
    Table(Upsert),
    Bag(BagInput),
}

/// A relation being folded.
pub(crate) struct RelationInput {
    pub(crate) relation: Arc<Relation>,
    decoder: Decoder,
    rows: Rows,
    /// `None`: it is not kept in checkpoints.
    mark: Option<Mark>,
}

impl RelationInput {
    pub(crate) fn new(relation: Arc<Relation>) -> Self {
        let schema = relation.schema.to_arrow();
        let rows = match relation.kind {
            RelationKind::Stream => Rows::Stream,
            RelationKind::Table => Rows::Table(Upsert::new(schema, relation.schema.key.clone())),
            RelationKind::Bag => Rows::Bag(BagInput::new(schema)),
        };
        Self { decoder: Decoder::new(&relation), relation, rows, mark: None }
    }

    /// Reads the records of one batch. Nothing changes before [`RelationInput::fold`].
    pub(crate) fn push(&mut self, part: &CommitPart, mut bad: impl FnMut(BadRecord)) {
        let header = part.batch.header();
        if header.is_control() {
            return;
        }
        let payload = match part.batch.payload(PAYLOAD_BYTES_MAX) {
            Ok(payload) => payload,
            Err(error) => {
                let offset = header.base_offset.get();
                let reason = format!("the whole batch cannot be read: {error}");
                bad(BadRecord { offset, reason, value: None });
                return;
            }
        };
        let mut next = header.base_offset;
        for record in part.batch.records(&payload) {
            match record {
                Ok(record) => {
                    next = record.offset.plus(1);
                    if let Err(reason) = self.decoder.push(&record) {
                        let value = record.value.map(excerpt);
                        bad(BadRecord { offset: record.offset.get(), reason, value });
                    }
                }
                Err(error) => {
                    let reason = format!("the rest of the batch cannot be read: {error}");
                    bad(BadRecord { offset: next.get(), reason, value: None });
                }
            }
        }
    }

    /// The rows that each record of a batch speaks of, with the record's offset. Of a deleted row
    /// only the key counts.
    pub(crate) fn rows_by_record(
        relation: &Relation,
        part: &CommitPart,
    ) -> Vec<(i64, RecordBatch)> {
        let mut decoder = Decoder::new(relation);
        let mut found = Vec::new();
        let Ok(payload) = part.batch.payload(PAYLOAD_BYTES_MAX) else { return found };
        for record in part.batch.records(&payload).flatten() {
            // A record that cannot be read may still say that a key is gone.
            let _ = decoder.push(&record);
            let rows = decoder.take().into_iter().filter_map(|event| match event {
                Event::Rows(rows) => Some(rows),
                Event::Upsert(batch) => Some(batch.rows),
                Event::Change(delta) => Some(delta.rows),
                Event::Truncate => None,
            });
            found.extend(rows.map(|rows| (record.offset.get(), rows)));
        }
        found
    }

    /// Applies what was read and gives the rows' changes. No row is both inserted and retracted:
    /// who follows them need not know their order.
    pub(crate) fn fold(&mut self, mut bad: impl FnMut(RowError)) -> Vec<Delta> {
        let mut changes = Vec::new();
        let mut upserts = Vec::new();
        let mut truncated = false;
        for event in self.decoder.take() {
            match (event, &mut self.rows) {
                (Event::Rows(rows), _) => changes.push(Delta::inserts(rows)),
                (Event::Upsert(batch), _) => upserts.push(batch),
                (Event::Change(delta), Rows::Bag(bag)) => {
                    let (change, errors) = bag.apply(&delta);
                    changes.push(change);
                    errors.into_iter().for_each(&mut bad);
                }
                (Event::Truncate, Rows::Bag(bag)) => {
                    truncated = true;
                    changes.push(bag.truncate());
                }
                (Event::Truncate, Rows::Table(table)) => {
                    truncated = true;
                    changes.push(table.apply(&std::mem::take(&mut upserts)));
                    changes.push(table.truncate());
                }
                (Event::Truncate | Event::Change(_), _) => {
                    unreachable!("the decoder makes events of its relation's kind")
                }
            }
        }
        if let Rows::Table(table) = &mut self.rows
            && !upserts.is_empty()
        {
            changes.push(table.apply(&upserts));
        }
        changes.retain(|delta| !delta.is_empty());
        if truncated { net_change(changes) } else { changes }
    }

    /// The rows now; a stream keeps none.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        match &self.rows {
            Rows::Stream => None,
            Rows::Table(table) => Some(table.snapshot()),
            Rows::Bag(bag) => Some(bag.snapshot()),
        }
    }

    /// From now on changes are noted for checkpoints; nothing has been folded yet.
    pub(crate) fn track(&mut self) {
        match &mut self.rows {
            Rows::Stream => {}
            Rows::Table(table) => table.track(),
            Rows::Bag(bag) => bag.track(),
        }
        self.mark = Some(Mark::default());
    }

    /// What its rows hold in memory.
    pub(crate) fn state(&self) -> Vec<OperatorState> {
        let (operator, bytes) = match &self.rows {
            Rows::Stream => return Vec::new(),
            Rows::Table(table) => ("table", table.memory_bytes()),
            Rows::Bag(bag) => ("bag", bag.memory_bytes()),
        };
        let rows = self.snapshot().map_or(0, |snapshot| snapshot.len());
        vec![OperatorState { node: 0, operator, rows, bytes }]
    }
}

impl Kept for RelationInput {
    fn label(&self) -> String {
        format!("relation {}", self.relation.name)
    }

    fn definition(&self) -> String {
        let relation = serde_json::to_string(&*self.relation).expect("a relation is plain data");
        format!("{STATE_FORMAT}\n{relation}")
    }

    fn mark(&mut self) -> Option<&mut Mark> {
        self.mark.as_mut()
    }

    fn save(&mut self, entries: &mut Entries) {
        match &mut self.rows {
            Rows::Stream => {}
            Rows::Table(table) => table.save(entries),
            Rows::Bag(bag) => bag.save(entries),
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match &mut self.rows {
            Rows::Stream => Err(StateError("a stream keeps no rows".into())),
            Rows::Table(table) => table.load(key, value),
            Rows::Bag(bag) => bag.load(key, value),
        }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        match &mut self.rows {
            Rows::Stream => Ok(()),
            Rows::Table(table) => table.loaded(),
            Rows::Bag(bag) => bag.loaded(),
        }
    }
}

/// The beginning of a record's value, for the errors view.
fn excerpt(value: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    String::from_utf8_lossy(&value[..value.len().min(SHOWN_BYTES)]).into_owned()
}
