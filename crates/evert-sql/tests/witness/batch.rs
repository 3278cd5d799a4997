//! The batch answer: stock DataFusion over the rows that are there.
//!
//! It shares DataFusion's expressions with the views that it judges, but neither Evert's planner
//! nor its functions, aggregates and operators.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

/// An answer's rows and what they look like.
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

/// Tables that stock DataFusion reads.
pub(crate) struct Batch(SessionContext);

impl Batch {
    pub(crate) fn new(tables: impl IntoIterator<Item = (String, RecordBatch)>) -> Self {
        let mut config = SessionConfig::new().with_target_partitions(1);
        let options = config.options_mut();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.default_null_ordering = "nulls_max".into();
        let context = SessionContext::new_with_config(config);
        for (name, rows) in tables {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("one schema");
            context.register_table(name, Arc::new(table)).expect("a new name");
        }
        Self(context)
    }

    pub(crate) fn answer(&self, sql: &str) -> Result<Answer, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.collect(sql))
    }

    pub(crate) async fn collect(&self, sql: &str) -> Result<Answer, String> {
        let answer = async {
            let frame = self.0.sql(sql).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            Ok(Answer { schema, batches: frame.collect().await? })
        };
        answer.await.map_err(|error: datafusion::error::DataFusionError| error.to_string())
    }
}
