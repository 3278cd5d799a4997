//! Scans: relations, views and system relations as DataFusion's tables.
//!
//! Owns: what a table name stands for while a plan is made, how it is bound to rows when the plan
//! runs, and lookups by key.
//!
//! Invariants
//! - A plan holds names only: it may run many times, each time bound to one cut.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, Operator, TableProviderFilterPushDown, TableSource, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::scalar::ScalarValue;
use evert_fold::Snapshot;
use evert_model::Offset;
use evert_view::{Name, Relation, Views};
use futures::{StreamExt, stream};

use crate::archive::ArchiveRows;
use crate::functions::{convert_value, converted_argument};
use crate::overlay::Overlay;
use crate::{SqlError, archive, translate};

/// The rows that a table has in one statement.
#[derive(Clone)]
pub(crate) enum Rows {
    /// A table's, bag's or view's.
    Snapshot(Snapshot),
    /// A table's with the transaction's own writes.
    Overlaid(Snapshot, Arc<Overlay>),
    /// A stream's below these offsets.
    Stream { views: Views, relation: Arc<Relation>, ends: Vec<Offset> },
    /// Rows made for the statement.
    Batches(Vec<RecordBatch>),
    /// An archive's.
    Archive(ArchiveRows),
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot(_) => "Snapshot",
            Self::Overlaid(..) => "Overlaid",
            Self::Stream { .. } => "Stream",
            Self::Batches(_) => "Batches",
            Self::Archive(_) => "Archive",
        })
    }
}

/// A named table, with rows when its plan runs.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: Name,
    schema: SchemaRef,
    /// The columns by which a row can be looked up.
    key: Vec<usize>,
    /// Other columns by which rows can be found: each index's name and columns.
    indexes: Vec<(Name, Vec<usize>)>,
    /// Its rows are in files, parts of which need not be read.
    is_archive: bool,
    rows: Option<Rows>,
}

/// How the filters of a scan find their rows.
enum Lookup<'a> {
    /// By the key: one row or none.
    Key,
    /// By an index.
    Index(&'a Name, &'a [usize]),
}

impl Table {
    /// A table to plan with.
    pub(crate) fn source(name: Name, schema: SchemaRef, key: Vec<usize>) -> Arc<dyn TableSource> {
        Self::indexed(name, schema, key, Vec::new())
    }

    /// The same with indexes.
    pub(crate) fn indexed(
        name: Name,
        schema: SchemaRef,
        key: Vec<usize>,
        indexes: Vec<(Name, Vec<usize>)>,
    ) -> Arc<dyn TableSource> {
        let is_archive = false;
        provider_as_source(Arc::new(Self { name, schema, key, indexes, is_archive, rows: None }))
    }

    /// An archive's table.
    pub(crate) fn archive(name: Name, schema: SchemaRef) -> Arc<dyn TableSource> {
        let (key, indexes) = (Vec::new(), Vec::new());
        provider_as_source(Arc::new(Self {
            name,
            schema,
            key,
            indexes,
            is_archive: true,
            rows: None,
        }))
    }
}

/// Gives every table in a plan its rows.
pub(crate) fn bind(
    plan: LogicalPlan,
    rows: &dyn Fn(&Name) -> Result<Rows, SqlError>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::TableScan(mut scan) = plan else { return Ok(Transformed::no(plan)) };
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = provider.downcast_ref::<Table>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let rows = rows(&table.name).map_err(|error| DataFusionError::External(error.into()))?;
        let bound = Table { rows: Some(rows), ..table.clone() };
        scan.source = provider_as_source(Arc::new(bound));
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })
    .data()
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact, so that the filter stays above the scan: a lookup only finds candidates.
        Ok(filters
            .iter()
            .map(|filter| match self.pinned(filter) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None if self.is_archive => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(rows) = &self.rows else {
            return Err(DataFusionError::Internal(format!("{} has no rows", self.name)));
        };
        if let Rows::Archive(rows) = rows {
            return archive::scan(session, rows, &self.schema, projection, filters, limit);
        }
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => Arc::clone(&self.schema),
        };
        let rows = match self.lookup(rows, filters)? {
            Some(found) => Rows::Batches(found),
            None => rows.clone(),
        };
        let partition =
            Partition { schema: Arc::clone(&schema), projection: projection.cloned(), rows };
        let exec =
            StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

impl Table {
    /// All its columns.
    pub(crate) fn columns(&self) -> &Schema {
        &self.schema
    }

    /// The columns of its key.
    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }

    /// The key column and the value that a filter `column = value` pins.
    fn pinned<'a>(&self, filter: &'a Expr) -> Option<(usize, &'a Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
            return None;
        };
        let (column, value) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), value) | (value, Expr::Column(column)) => (column, value),
            _ => return None,
        };
        let index = self.schema.index_of(&column.name).ok()?;
        let mut indexed = self.indexes.iter().flat_map(|(_, columns)| columns);
        let wanted = self.key.contains(&index) || indexed.any(|column| *column == index);
        (wanted && is_constant(value)).then_some((index, value))
    }

    /// What the filters say a key column must be.
    fn pin<'a>(&self, key: usize, filters: &'a [Expr]) -> Option<&'a Expr> {
        let mut pinned = filters.iter().filter_map(|filter| self.pinned(filter));
        pinned.find(|(index, _)| *index == key).map(|(_, value)| value)
    }

    /// How the filters find rows: by the key if they pin all of it, else by the index of whose
    /// columns they pin most, if they pin all of them.
    fn choose(&self, filters: &[Expr]) -> Option<Lookup<'_>> {
        let pinned =
            |columns: &[usize]| columns.iter().all(|column| self.pin(*column, filters).is_some());
        if !self.key.is_empty() && pinned(&self.key) {
            return Some(Lookup::Key);
        }
        let usable = self.indexes.iter().filter(|(_, columns)| pinned(columns));
        let (name, columns) = usable.max_by_key(|(_, columns)| columns.len())?;
        Some(Lookup::Index(name, columns))
    }

    /// Whether the filters find rows without reading all.
    pub(crate) fn is_lookup(&self, filters: &[Expr]) -> bool {
        self.choose(filters).is_some()
    }

    /// How the filters find rows, for EXPLAIN.
    pub(crate) fn lookup_shown(&self, filters: &[Expr]) -> Option<String> {
        let names = |columns: &[usize]| -> String {
            let names = columns.iter().map(|column| self.schema.field(*column).name().as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        Some(match self.choose(filters)? {
            Lookup::Key => format!("Lookup in {} by key ({})", self.name, names(&self.key)),
            Lookup::Index(index, columns) => {
                format!("Lookup in {} by index {index} ({})", self.name, names(columns))
            }
        })
    }

    /// Rows among which are all that the filters pin.
    pub(crate) fn find(&self, filters: &[Expr]) -> Result<RecordBatch> {
        let found = match &self.rows {
            Some(rows) => self.lookup(rows, filters)?,
            None => None,
        };
        let Some(mut found) = found else {
            return Err(DataFusionError::Internal(format!("{} is not looked up", self.name)));
        };
        match found.len() {
            0 => Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
            1 => Ok(found.remove(0)),
            _ => Ok(arrow::compute::concat_batches(&found[0].schema(), &found)?),
        }
    }

    /// The rows that the filters find by key or index; `None` if all are to be read.
    fn lookup(&self, rows: &Rows, filters: &[Expr]) -> Result<Option<Vec<RecordBatch>>> {
        let Some(lookup) = self.choose(filters) else { return Ok(None) };
        if let Rows::Batches(batches) = rows {
            // Few rows made for the statement: the filter above finds the right ones.
            return Ok(match batches.as_slice() {
                [one] => Some(vec![one.clone()]),
                _ => None,
            });
        }
        let columns = match lookup {
            Lookup::Key => &self.key[..],
            Lookup::Index(_, columns) => columns,
        };
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            let Some(value) = self.pin(*column, filters).and_then(constant) else {
                return Ok(None);
            };
            match self.key_value(*column, &value?)? {
                Some(value) => values.push(value),
                None => return Ok(Some(Vec::new())),
            }
        }
        let fields: Vec<_> =
            columns.iter().map(|column| self.schema.field(*column).clone()).collect();
        let values = RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?;
        match lookup {
            Lookup::Key => Ok(Some(rows.get(&values, 0).into_iter().collect())),
            Lookup::Index(_, columns) => rows.find(columns, &values),
        }
    }

    /// A key's value in its column's type; nothing equals NULL.
    fn key_value(&self, key: usize, value: &ScalarValue) -> Result<Option<ArrayRef>> {
        if value.is_null() {
            return Ok(None);
        }
        let ty = self.schema.field(key).data_type();
        Ok(Some(value.cast_to(ty)?.to_array()?))
    }
}

/// Whether an expression is a literal or parameter, perhaps cast.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) | Expr::Placeholder(_) => true,
        Expr::Cast(cast) => is_constant(&cast.expr),
        Expr::ScalarFunction(call) => converted_argument(call).is_some_and(is_constant),
        _ => false,
    }
}

/// The value of a literal, perhaps cast.
fn constant(expr: &Expr) -> Option<Result<ScalarValue>> {
    match expr {
        Expr::Literal(value, _) => Some(Ok(value.clone())),
        Expr::Cast(cast) => {
            let value = constant(&cast.expr)?;
            Some(value.and_then(|value| value.cast_to(cast.field.data_type())))
        }
        Expr::ScalarFunction(call) => {
            let value = constant(converted_argument(call)?)?;
            Some(value.and_then(|value| convert_value(call, &value)))
        }
        _ => None,
    }
}

impl Rows {
    /// The row of a key, if there is one. Only keyed rows have such.
    pub(crate) fn get(&self, key: &RecordBatch, row: usize) -> Option<RecordBatch> {
        match self {
            Self::Snapshot(snapshot) => snapshot.get(key, row),
            Self::Overlaid(snapshot, overlay) => match overlay.get(key, row) {
                Some(own) => own,
                None => snapshot.get(key, row),
            },
            Self::Stream { .. } | Self::Batches(_) | Self::Archive(_) => None,
        }
    }

    /// Rows among which are all with these values; `None` if there is nothing to find them by.
    fn find(&self, columns: &[usize], values: &RecordBatch) -> Result<Option<Vec<RecordBatch>>> {
        Ok(match self {
            Self::Snapshot(snapshot) => snapshot.find(columns, values, 0),
            Self::Overlaid(snapshot, overlay) => {
                let Some(found) = snapshot.find(columns, values, 0) else { return Ok(None) };
                let mut rows =
                    found.iter().map(|batch| overlay.hide(batch)).collect::<Result<Vec<_>>>()?;
                rows.extend(overlay.rows());
                Some(rows)
            }
            Self::Stream { .. } | Self::Batches(_) | Self::Archive(_) => None,
        })
    }

    fn scan(
        self,
        projection: Option<Vec<usize>>,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        let project = move |batch: RecordBatch| match &projection {
            Some(projection) => Ok(batch.project(projection)?),
            None => Ok(batch),
        };
        match self {
            Self::Snapshot(snapshot) => Box::new(snapshot.scan(None).map(project)),
            Self::Overlaid(snapshot, overlay) => {
                let added = overlay.rows();
                let base = snapshot.scan(None).map(move |batch| overlay.hide(&batch));
                Box::new(base.chain(added.map(Ok)).map(move |batch| project(batch?)))
            }
            Self::Stream { views, relation, ends } => {
                let rows = views.scan_stream(&relation, &ends, None);
                Box::new(rows.map(move |batch| match batch {
                    Ok(batch) => project(batch),
                    Err(error) => Err(DataFusionError::External(translate::read(&error).into())),
                }))
            }
            Self::Batches(batches) => Box::new(batches.into_iter().map(project)),
            Self::Archive(_) => unreachable!("files are read by a plan of their own"),
        }
    }
}

/// The one partition of a scan.
#[derive(Debug)]
struct Partition {
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
    rows: Rows,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let named = {
            let schema = Arc::clone(&schema);
            // Snapshots carry the schema they were folded with; names are the table's.
            move |batch: Result<RecordBatch>| {
                let batch = batch?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let (_, columns, _) = batch.into_parts();
                Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
            }
        };
        let rows = match (&self.rows, &self.projection) {
            (Rows::Snapshot(snapshot), Some(projection)) if !projection.is_empty() => {
                Box::new(snapshot.scan(Some(projection)).map(Ok))
            }
            (rows, projection) => rows.clone().scan(projection.clone()),
        };
        let blocks = matches!(self.rows, Rows::Stream { .. });
        if !blocks {
            let batches = stream::iter(rows.map(named));
            return Box::pin(RecordBatchStreamAdapter::new(schema, batches));
        }
        // A stream's rows come from files: they are read on a thread that may wait for them.
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            for batch in rows.map(named) {
                let failed = batch.is_err();
                if sender.blocking_send(batch).is_err() || failed {
                    break;
                }
            }
        });
        let batches = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|batch| (batch, receiver))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
    }
}
