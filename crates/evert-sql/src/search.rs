//! `search('index', 'query')` in FROM: what a search index finds, as rows.
//!
//! Owns: the function, and how far the index must have come for a statement.
//! Not here: indexes and queries (behind [`SearchSource`]).
//!
//! Rows are those that the index holds: of one position, at or after what the session has written
//! or asked for, and up to a second behind the other relations of the statement.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::scalar::ScalarValue;
use evert_model::Position;
use evert_view::Name;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use arrow::array::RecordBatch;

use crate::SqlError;
use crate::query::parameter_index;

/// How long a statement waits for an index, if it says nothing of timeouts.
const WAIT: Duration = Duration::from_secs(30);

/// The search indexes of the server.
#[async_trait]
pub trait SearchSource: Send + Sync {
    /// The columns of what an index finds: its relation's, and the score.
    fn columns(&self, index: &Name) -> Result<SchemaRef, SqlError>;

    /// The rows that a query finds in an index that has reached a position, best first.
    async fn rows(
        &self,
        index: Name,
        query: String,
        at_least: Position,
        timeout: Duration,
    ) -> Result<BoxStream<'static, Result<RecordBatch, SqlError>>, SqlError>;
}

/// Where the indexes are, once they are there.
pub(crate) type SearchSlot = Arc<OnceLock<Arc<dyn SearchSource>>>;

/// The position that a statement wants to have reached, told to the function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtLeast(pub(crate) Position);

/// Told to the function where a statement reads the past: an index has the present only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadsPast;

/// The function `search`.
pub(crate) struct SearchFunction(pub(crate) SearchSlot);

impl fmt::Debug for SearchFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("search")
    }
}

fn outside(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl TableFunctionImpl for SearchFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let text = |expr: &Expr| match expr {
            Expr::Literal(
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)),
                _,
            ) => Some(text.clone()),
            _ => None,
        };
        let parameter = |expr: &Expr| {
            let mut expr = expr;
            while let Expr::Cast(Cast { expr: inner, .. })
            | Expr::Alias(Alias { expr: inner, .. }) = expr
            {
                expr = inner;
            }
            match expr {
                Expr::Placeholder(placeholder) => parameter_index(&placeholder.id),
                _ => None,
            }
        };
        let [index, query] = args.exprs() else {
            let error = SqlError::new("42883", "function search takes an index and a query")
                .hint("Write search('index', 'query').");
            return Err(outside(error));
        };
        let asked = text(query).map(Asked::Text);
        let asked = asked.or_else(|| parameter(query).map(Asked::Parameter));
        let (Some(index), Some(query)) = (text(index), asked) else {
            let message = "the index must be a constant text, the query one or a parameter";
            return Err(outside(
                SqlError::unsupported("search over other than constants").detail(message),
            ));
        };
        let Some(source) = self.0.get() else {
            return Err(outside(SqlError::unsupported("search in this server")));
        };
        let index = match index.split_once('.') {
            Some((schema, name)) => Name::new(schema, name),
            None => Name::public(index),
        };
        let schema = source.columns(&index).map_err(outside)?;
        Ok(Arc::new(SearchTable { source: Arc::clone(source), index, query, schema }))
    }
}

/// What an index is asked.
#[derive(Clone, Debug)]
enum Asked {
    Text(String),
    /// The value of a parameter, by its index.
    Parameter(usize),
}

/// What the function stands for.
struct SearchTable {
    source: Arc<dyn SearchSource>,
    index: Name,
    query: Asked,
    schema: SchemaRef,
}

impl fmt::Debug for SearchTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "search('{}', {:?})", self.index, self.query)
    }
}

#[async_trait]
impl TableProvider for SearchTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Asked::Text(query) = &self.query else {
            return internal_err!("a search whose query has no value yet");
        };
        let stream = SearchStream {
            source: Arc::clone(&self.source),
            index: self.index.clone(),
            query: query.clone(),
            schema: Arc::clone(&self.schema),
        };
        let table = StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(stream)])?;
        table.scan(state, projection, filters, limit).await
    }
}

/// Gives searches the values of their parameters.
pub(crate) fn with_params(plan: LogicalPlan, params: &[ScalarValue]) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::TableScan(mut scan) = plan else { return Ok(Transformed::no(plan)) };
        let provider = source_as_provider(&scan.source)?;
        let table = (provider.as_ref() as &dyn Any).downcast_ref::<SearchTable>();
        if let Some(table) = table
            && let Asked::Parameter(place) = table.query
        {
            let value = params.get(place).and_then(|value| value.try_as_str().flatten());
            let Some(text) = value else {
                let error = SqlError::new("22004", "the query of search must not be NULL");
                return Err(outside(error));
            };
            let asked = SearchTable {
                source: Arc::clone(&table.source),
                index: table.index.clone(),
                query: Asked::Text(text.to_owned()),
                schema: Arc::clone(&table.schema),
            };
            scan.source = provider_as_source(Arc::new(asked));
            return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
        }
        Ok(Transformed::no(LogicalPlan::TableScan(scan)))
    })
    .data()
}

/// Whether a scan is of what a function gives: it is of another moment each time.
pub(crate) fn is_search(scan: &TableScan) -> bool {
    let provider = source_as_provider(&scan.source);
    provider.is_ok_and(|provider| (provider.as_ref() as &dyn Any).is::<SearchTable>())
}

struct SearchStream {
    source: Arc<dyn SearchSource>,
    index: Name,
    query: String,
    schema: SchemaRef,
}

impl fmt::Debug for SearchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "search('{}', '{}')", self.index, self.query)
    }
}

impl PartitionStream for SearchStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let at_least = context.session_config().get_extension::<AtLeast>();
        let at_least = at_least.map_or(Position::ZERO, |at_least| at_least.0);
        let (index, query) = (self.index.clone(), self.query.clone());
        let source = Arc::clone(&self.source);
        let schema = Arc::clone(&self.schema);
        let past = context.session_config().get_extension::<ReadsPast>();
        let rows = async move {
            if past.is_some() {
                return Err(outside(as_of(&index)));
            }
            let rows = source.rows(index, query, at_least, WAIT).await.map_err(outside)?;
            Ok::<_, DataFusionError>(rows.map_err(outside))
        };
        let rows = futures::stream::once(rows).try_flatten().boxed();
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

fn as_of(index: &Name) -> SqlError {
    SqlError::unsupported(format!("AS OF for search index \"{index}\""))
        .hint("It has the rows of now: read its relation AS OF the position.")
}
