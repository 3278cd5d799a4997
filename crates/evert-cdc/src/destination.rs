//! Where facts go: the log and the catalog of relations over it.
//!
//! A trait, so that tests can hold back or lose what is not durable yet.

use std::sync::Arc;
use std::time::Duration;

use evert_log::{AppendError, LargeCommit, Log, NewCommit, NewPart, ReadError, Receipt};
use evert_model::{LogTime, Offset, PartitionId, Position, TopicId};
use evert_view::{
    Cut, Format, Lengths, Name, NewRelation, PinError, RelationKind, SourceState, Views,
};
use futures::future::BoxFuture;

use crate::definition::Table;
use crate::error::SourceError;
use crate::row::Cell;
use crate::state_row;

/// Resolves to the commit's position when it is durable.
pub(crate) type Durable = BoxFuture<'static, Result<Position, AppendError>>;

/// The log and the relations, as a source needs them.
pub(crate) trait Destination: Send + Sync + 'static {
    /// The newest state that the log holds of a source of this name.
    fn state<'a>(&'a self, source: &'a str)
    -> BoxFuture<'a, Result<Option<SourceState>, PinError>>;
    /// The part that records how far the source has come.
    fn state_part(&self, state: &SourceState) -> NewPart;
    /// The topic of a table's relation, made if it is not there. May block.
    fn ensure_topic(&self, source: &str, table: &Table) -> Result<TopicId, SourceError>;
    /// The topic of a table's relation, if it is still there.
    fn topic(&self, source: &str, table: &Table) -> Option<TopicId>;
    /// Queues one commit, behind all that were queued before.
    fn append(&self, parts: Vec<NewPart>) -> Result<Durable, AppendError>;
    /// Begins a commit of any size.
    fn begin_large(&self) -> Box<dyn LargeAppend>;
    /// The log's time.
    fn now(&self) -> LogTime;
    /// The log's durable end.
    fn end(&self) -> Position;
    /// Whether a topic has never held a record.
    fn is_empty(&self, topic: TopicId) -> Result<bool, ReadError>;
    /// The rows of the table's relation as of the log's durable end.
    fn rows<'a>(
        &'a self,
        source: &'a str,
        table: &'a Table,
    ) -> BoxFuture<'a, Result<Box<dyn Rows>, PinError>>;
}

/// The rows of one relation at one position.
pub(crate) trait Rows: Send + Sync {
    /// The row with this key.
    fn get(&self, table: &Table, key: &[Cell]) -> Option<Vec<Cell>>;
}

/// A commit of any size. Dropped without `commit`, it vanishes.
pub(crate) trait LargeAppend: Send {
    /// May block while the log is behind.
    fn append(&mut self, part: NewPart) -> Result<(), AppendError>;
    fn commit(self: Box<Self>) -> Result<Durable, AppendError>;
}

/// How long a reader may lag behind the log before a lookup is given up and tried again.
const PIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The server's log and views.
pub(crate) struct Server {
    pub(crate) log: Log,
    pub(crate) views: Views,
}

impl Destination for Server {
    fn state<'a>(
        &'a self,
        source: &'a str,
    ) -> BoxFuture<'a, Result<Option<SourceState>, PinError>> {
        Box::pin(async move {
            // The follower folds the states; it has to have seen all that the log holds.
            self.views.pin(&[], self.log.end(), PIN_TIMEOUT).await?;
            Ok(self.views.source_state(source))
        })
    }

    fn state_part(&self, state: &SourceState) -> NewPart {
        self.views.source_state_part(state)
    }

    fn ensure_topic(&self, source: &str, table: &Table) -> Result<TopicId, SourceError> {
        if let Some(id) = self.topic(source, table) {
            return Ok(id);
        }
        self.views.create_relation(new_relation(source, table))?;
        self.topic(source, table).ok_or(SourceError::Stopping)
    }

    fn topic(&self, source: &str, table: &Table) -> Option<TopicId> {
        let catalog = self.views.catalog();
        let relation = catalog.relations.get(&table.relation(source))?;
        let ours = relation.source.as_deref() == Some(source);
        ours.then_some(relation.topic_id)
    }

    fn append(&self, parts: Vec<NewPart>) -> Result<Durable, AppendError> {
        Ok(durable(self.log.append(NewCommit { parts })?))
    }

    fn begin_large(&self) -> Box<dyn LargeAppend> {
        Box::new(self.log.begin_large())
    }

    fn now(&self) -> LogTime {
        self.log.now()
    }

    fn end(&self) -> Position {
        self.log.end()
    }

    fn is_empty(&self, topic: TopicId) -> Result<bool, ReadError> {
        let ends = self.log.partition_ends(topic, PartitionId::new(0))?;
        Ok(ends.high_watermark == Offset::new(0))
    }

    fn rows<'a>(
        &'a self,
        source: &'a str,
        table: &'a Table,
    ) -> BoxFuture<'a, Result<Box<dyn Rows>, PinError>> {
        Box::pin(async move {
            let name = table.relation(source);
            let names = std::slice::from_ref(&name);
            let cut = self.views.pin(names, self.log.end(), PIN_TIMEOUT).await?;
            if !cut.snapshots.contains_key(&name) {
                return Err(PinError::Unknown(name));
            }
            Ok(Box::new(Pinned { cut, name }) as Box<dyn Rows>)
        })
    }
}

/// A relation at a cut.
struct Pinned {
    cut: Arc<Cut>,
    name: Name,
}

impl Rows for Pinned {
    fn get(&self, table: &Table, key: &[Cell]) -> Option<Vec<Cell>> {
        let key = state_row::key_batch(table, key)?;
        let row = self.cut.snapshots.get(&self.name)?.get(&key, 0)?;
        Some(state_row::cells(table, &row))
    }
}

impl LargeAppend for LargeCommit {
    fn append(&mut self, part: NewPart) -> Result<(), AppendError> {
        Self::append(self, part)
    }

    fn commit(self: Box<Self>) -> Result<Durable, AppendError> {
        Ok(durable(Self::commit(*self)?))
    }
}

fn durable(receipt: Receipt) -> Durable {
    Box::pin(async move { Ok(receipt.await?.position) })
}

/// The relation that a table becomes.
///
/// One partition: inside a commit the order of facts is (topic, partition, offset), and a
/// TRUNCATE has to stay between the rows before and after it.
pub(crate) fn new_relation(source: &str, table: &Table) -> NewRelation {
    let kind = if table.key.is_empty() { RelationKind::Bag } else { RelationKind::Table };
    NewRelation {
        name: table.relation(source),
        kind,
        schema: table.row_schema(),
        topic: Some(table.topic(source)),
        partitions: 1,
        topic_config: [("max.message.bytes".to_owned(), MESSAGE_BYTES_MAX.to_string())].into(),
        format: Format::Debezium,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Default::default(),
        source: Some(source.to_owned()),
    }
}

/// The largest batch of a source's topic. A batch holds at least one whole row, and Postgres
/// prints rows of up to a gigabyte; what is larger than this stops the source.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
