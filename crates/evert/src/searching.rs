//! Search indexes behind the HTTP door and SQL's function `search`.
//!
//! The crates on both sides do not know each other; here their twin types are turned into each
//! other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use evert_door::http::{self, SearchOperation};
use evert_model::Position;
use evert_search::{Call, EsError, Operation, SearchConfig, SearchFactory, SearchIndexes};
use evert_sql::{SearchSource, SqlError};
use evert_view::{Name, OutletFactory, Views};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

/// What makes search indexes under a data directory, and what they are searched through.
pub(crate) fn searching(dir: &Path, views: &Views) -> (Arc<dyn OutletFactory>, Searching) {
    let indexes = SearchIndexes::default();
    indexes.attach(views.clone());
    let config = SearchConfig::new(dir.join("outlets"));
    (Arc::new(SearchFactory::new(config, indexes.clone())), Searching(indexes))
}

/// All search indexes.
#[derive(Clone)]
pub(crate) struct Searching(SearchIndexes);

fn operation(operation: SearchOperation) -> Operation {
    match operation {
        SearchOperation::Root => Operation::Root,
        SearchOperation::Search => Operation::Search,
        SearchOperation::Count => Operation::Count,
        SearchOperation::Mapping => Operation::Mapping,
        SearchOperation::Index => Operation::Index,
        SearchOperation::Document => Operation::Document,
        SearchOperation::Source => Operation::Source,
        SearchOperation::CatIndices => Operation::CatIndices,
        SearchOperation::MultiSearch => Operation::MultiSearch,
        SearchOperation::Refresh => Operation::Refresh,
        SearchOperation::Health => Operation::Health,
        SearchOperation::FieldCaps => Operation::FieldCaps,
        SearchOperation::Write => Operation::Write,
        SearchOperation::Unknown => Operation::Unknown,
    }
}

#[async_trait]
impl http::Search for Searching {
    async fn answer(&self, call: http::SearchCall) -> http::SearchAnswer {
        let answer = self.0.answer(Call {
            operation: operation(call.operation),
            index: call.index,
            id: call.id,
            params: call.params,
            body: call.body,
            after: call.after,
            timeout: call.timeout,
        });
        let answer = answer.await;
        http::SearchAnswer {
            status: answer.status,
            body: answer.body,
            is_text: answer.is_text,
            position: answer.position,
        }
    }
}

fn sql_error(error: EsError) -> SqlError {
    // Codes of Postgres's appendix A.
    let sqlstate = match error.status {
        404 => "42P01",
        400 => "22023",
        503 => "55000",
        504 => "57014",
        _ => "58000",
    };
    SqlError::new(sqlstate, error.reason)
}

#[async_trait]
impl SearchSource for Searching {
    fn columns(&self, index: &Name) -> Result<SchemaRef, SqlError> {
        self.0.columns(index).map_err(sql_error)
    }

    async fn rows(
        &self,
        index: Name,
        query: String,
        at_least: Position,
        timeout: Duration,
    ) -> Result<BoxStream<'static, Result<RecordBatch, SqlError>>, SqlError> {
        let found = self.0.rows(&index, query, at_least, timeout, None).await;
        let found = found.map_err(sql_error)?;
        let batches = stream::unfold(Some(found), |found| async move {
            // Rows are read from files, on a thread that may wait.
            let mut found = found?;
            let next = tokio::task::spawn_blocking(move || {
                let batch = found.next_batch();
                (batch, found)
            });
            match next.await {
                Ok((Ok(Some(batch)), found)) => Some((Ok(batch), Some(found))),
                Ok((Ok(None), _)) => None,
                Ok((Err(error), _)) => Some((Err(sql_error(error)), None)),
                Err(_) => Some((Err(SqlError::new("58000", "the search broke off")), None)),
            }
        });
        Ok(batches.boxed())
    }
}
