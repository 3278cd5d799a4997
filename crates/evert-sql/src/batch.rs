//! A SELECT over rows in memory: what an ad-hoc read costs by itself, for benchmarks.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use evert_view::{Catalog, Name};
use futures::TryStreamExt;
use sqlparser::ast::Statement;

use crate::context::state;
use crate::error::SYNTAX_ERROR;
use crate::functions::SessionFacts;
use crate::names::unknown_relation;
use crate::query::{Scope, plan};
use crate::scan::Rows;
use crate::{SqlError, text, translate};

/// Evaluates a SELECT once over all rows, by DataFusion with Evert's functions and one partition;
/// gives how many rows come out.
///
/// # Errors
/// When it is not one SELECT, cannot be planned over `catalog`, reads what has no rows in
/// `tables`, or fails.
pub async fn evaluate_batch(
    sql: &str,
    catalog: &Arc<Catalog>,
    tables: &HashMap<Name, Vec<RecordBatch>>,
) -> Result<usize, SqlError> {
    let mut statements = text::parse_statements(sql)?;
    let (Some(Statement::Query(query)), true) = (statements.pop(), statements.is_empty()) else {
        return Err(SqlError::new(SYNTAX_ERROR, "one SELECT is evaluated at a time"));
    };
    let state = state(Arc::new(RuntimeEnv::default()), &SessionFacts::default());
    let planned = plan(&state, &query, sql, &Scope::new(Arc::clone(catalog)), &[])?;
    let rows = |name: &Name| match tables.get(name) {
        Some(batches) => Ok(Rows::Batches(batches.clone())),
        None => Err(unknown_relation(name, catalog)),
    };
    let mut found = planned.execute(&state, &[], &rows).await?;
    let mut count = 0;
    while let Some(batch) =
        found.try_next().await.map_err(|error| translate::planning(&error, sql))?
    {
        count += batch.num_rows();
    }
    Ok(count)
}
