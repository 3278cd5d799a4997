//! SELECT ... FOR UPDATE and its like in a transaction block.
//!
//! Nothing is locked here: transactions are optimistic. The rows that the SELECT finds count as
//! touched, so that COMMIT gives 40001 if one of them has changed by then.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use evert_view::{Relation, RelationKind};
use sqlparser::ast::{
    Distinct, GroupByExpr, Ident, LockClause, ObjectName, Query, Select, SetExpr, TableFactor,
};

use super::{Evaluation, column_of, named};
use crate::error::{UNDEFINED_TABLE, WRONG_OBJECT_TYPE};
use crate::names::{fold, relation_name};
use crate::query::plan;
use crate::{SqlError, translate};

/// Notes the rows that `query` finds, in the tables that its locking clauses name.
pub(crate) async fn hold(evaluation: &mut Evaluation<'_>, query: &Query) -> Result<(), SqlError> {
    for lock in &query.locks {
        let select = lockable(query, lock)?;
        for (alias, relation) in locked(evaluation, query, select, lock)? {
            let keys = keys_found(evaluation, query, &alias, &relation).await?;
            evaluation.transaction.hold(&relation, &keys)?;
        }
    }
    Ok(())
}

/// The SELECT whose rows are those of tables.
fn lockable<'a>(query: &'a Query, lock: &LockClause) -> Result<&'a Select, SqlError> {
    let refused = |what: &str| {
        SqlError::unsupported(format!("FOR {} is not allowed with {what}", lock.lock_type))
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Err(refused("UNION/INTERSECT/EXCEPT"));
    };
    if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
        return Err(refused("DISTINCT clause"));
    }
    let GroupByExpr::Expressions(groups, more) = &select.group_by else {
        return Err(refused("GROUP BY clause"));
    };
    match (groups.is_empty() && more.is_empty(), &select.having) {
        (false, _) => Err(refused("GROUP BY clause")),
        (true, Some(_)) => Err(refused("HAVING clause")),
        (true, None) => Ok(select),
    }
}

/// The tables whose rows a clause holds, each with the name that the SELECT calls it by.
fn locked(
    evaluation: &Evaluation<'_>,
    query: &Query,
    select: &Select,
    lock: &LockClause,
) -> Result<Vec<(Ident, Arc<Relation>)>, SqlError> {
    let of = lock.of.as_ref().map(relation_name).transpose()?;
    let mut found = Vec::new();
    let joins = |from: &'_ sqlparser::ast::TableWithJoins| {
        let joined = from.joins.iter().map(|join| join.relation.clone());
        std::iter::once(from.relation.clone()).chain(joined).collect::<Vec<_>>()
    };
    for factor in select.from.iter().flat_map(joins) {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { continue };
        if is_common(query, &name) {
            continue;
        }
        let full = relation_name(&name)?;
        let called = alias.map_or_else(|| Ident::with_quote('"', &full.name), |alias| alias.name);
        if of.as_ref().is_some_and(|of| of.name != fold(&called)) {
            continue;
        }
        let catalog = &evaluation.scope.catalog;
        match catalog.relation(&full) {
            Some(table) if table.kind == RelationKind::Table => {
                found.push((called, Arc::clone(table)));
            }
            // A stream's rows never change.
            Some(_) => {}
            None if catalog.views.contains_key(&full) => {
                let message = format!("cannot lock rows in materialized view \"{full}\"");
                return Err(SqlError::new(WRONG_OBJECT_TYPE, message)
                    .hint("Lock those of the tables that it is computed from."));
            }
            None => {}
        }
    }
    match of {
        Some(of) if found.is_empty() => Err(SqlError::new(
            UNDEFINED_TABLE,
            format!(
                "relation \"{}\" in FOR {} clause not found in FROM clause",
                of.name, lock.lock_type
            ),
        )),
        _ => Ok(found),
    }
}

/// Whether a name is that of a common table expression.
fn is_common(query: &Query, name: &ObjectName) -> bool {
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.into_iter().any(|table| table.alias.name.value == name.to_string())
}

/// The keys of one table's rows that the query finds.
async fn keys_found(
    evaluation: &Evaluation<'_>,
    query: &Query,
    alias: &Ident,
    relation: &Relation,
) -> Result<RecordBatch, SqlError> {
    let mut query = query.clone();
    query.locks.clear();
    let select = super::select_mut(&mut query)?;
    let key: Vec<_> =
        relation.schema.key.iter().map(|&column| &relation.schema.columns[column]).collect();
    // Its own columns stay: ORDER BY may name them.
    for (index, column) in key.iter().enumerate() {
        select.projection.push(named(column_of(alias, &column.name), format!("key_{index}")));
    }
    let hints = evaluation.hints();
    let text = &evaluation.parsed.text;
    let planned = plan(evaluation.state, &query, text, &evaluation.scope, &hints)?;
    let rows = evaluation.collect(&planned).await?;
    let internal = |error| translate::planning(&error, "");
    let last: Vec<usize> = (rows.num_columns() - key.len()..rows.num_columns()).collect();
    let keys = rows.project(&last).map_err(|error| internal(error.into()))?;
    // An outer join finds rows without one of the table.
    let Some(first) = keys.columns().first() else { return Ok(keys) };
    let is_there = arrow::compute::is_not_null(first).map_err(|error| internal(error.into()))?;
    filter_record_batch(&keys, &is_there).map_err(|error| internal(error.into()))
}
