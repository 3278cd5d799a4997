//! `now()` in a view: log time, by which rows come and go.
//!
//! Owns: which conditions on `now()` a view may have, and what becomes of them: rows with a
//! beginning and an end in log time.
//! Not here: how such rows are folded (`evert-fold`), what `now()` is in an ad-hoc read
//! (`functions`).
//!
//! While a view is planned, `now()` is a variable: a constant for the optimizer, but one whose
//! value it does not know. Conditions on it are solved for it afterwards.

mod bound;
mod cells;
mod marks;
mod path;
mod sessions;
mod solve;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, JoinType, Result as PlanResult};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, cast};
use evert_fold::Node;
use evert_model::ColumnType;

use super::check::stop_if;
use super::relation::{Relation, schema_of};
use super::translate::{Result, Translation};
use crate::SqlError;
use crate::functions::{CURRENT_DATE, LOCALTIMESTAMP, NOW};
use bound::{Pick, bound};
use cells::{Cell, cells_of};
pub(super) use marks::{is_marking, mark_now};
pub(super) use sessions::is_session;

/// What `now()` is called as a variable. No variable that is typed has this name.
const VARIABLE: &str = "now()";

static NOW_FIELD: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new(VARIABLE, ColumnType::TimestampTz.arrow_type(), false)));

/// Puts the variable in the place of `now()` and all that is made of it.
pub(super) fn name_now(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(variable(expr)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

fn variable(expr: Expr) -> Transformed<Expr> {
    let now = || Expr::ScalarVariable(Arc::clone(&NOW_FIELD), vec![VARIABLE.to_owned()]);
    match &expr {
        Expr::ScalarFunction(call) => match call.func.name() {
            NOW => Transformed::yes(now()),
            LOCALTIMESTAMP => Transformed::yes(cast(now(), ColumnType::Timestamp.arrow_type())),
            CURRENT_DATE => Transformed::yes(cast(now(), DataType::Date32)),
            _ => Transformed::no(expr),
        },
        _ => Transformed::no(expr),
    }
}

/// Whether an expression depends on `now()`.
pub(super) fn mentions_now(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::ScalarVariable(..))))
        .expect("looking at an expression does not fail")
}

/// Takes conditions on `now()` out of inner joins, to where rows are joined already.
pub(super) fn lift_now(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    plan.transform_up(|plan| {
        let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
        let is_ours =
            join.join_type == JoinType::Inner && join.filter.as_ref().is_some_and(mentions_now);
        if !is_ours {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let filter = join.filter.expect("it was just looked at");
        let (timed, plain): (Vec<_>, Vec<_>) =
            split_conjunction_owned(filter).into_iter().partition(mentions_now);
        let joined = LogicalPlan::Join(Join { filter: conjunction(plain), ..join });
        let predicate = conjunction(timed).expect("one mentions now()");
        let filter = Filter::try_new(predicate, Arc::new(joined))?;
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    })
    .data()
}

/// `0A000` for a use of `now()` that a view cannot follow.
pub(super) fn refusal(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} in a view")).hint(
        "A view follows time by conditions that compare now() with its rows: \
         paid_at > now() - INTERVAL '60 seconds', paid_at::date = current_date, \
         expires_at > now(). Anything else belongs into the query that reads the view.",
    )
}

impl Translation<'_> {
    /// Rows for which a condition on `now()` is true.
    pub(super) fn filter_by_time(
        &mut self,
        mut relation: Relation,
        predicate: &Expr,
        schema: &DFSchema,
    ) -> Result<Relation> {
        let (timed, plain): (Vec<_>, Vec<_>) =
            split_conjunction(predicate).into_iter().cloned().partition(mentions_now);
        for condition in plain {
            let condition = self.physical(&condition, schema)?;
            relation = self.builder.filter(relation, condition)?;
        }
        let timed = conjunction(timed).expect("it was called for a condition on now()");
        if timed.column_refs().is_empty() {
            return Err(refusal("a condition on now() alone").into());
        }
        let cells = cells_of(&timed).map_err(|what| refusal(&what))?;
        let key = relation.key.clone();
        let fields = relation.fields.clone();
        let node = self.builder.place(&mut relation);
        let mut nodes = Vec::with_capacity(cells.len());
        for cell in &cells {
            let rows = Relation::of_node(node, fields.clone(), None);
            nodes.push(self.cell(rows, cell, schema)?);
        }
        let node = match nodes.as_slice() {
            [node] => *node,
            _ => self.builder.push(Node::Union { inputs: nodes, schema: schema_of(&fields) }),
        };
        // A row is in one cell at a time: what identified it still does.
        Ok(Relation::of_node(node, fields, key))
    }

    fn cell(&mut self, mut rows: Relation, cell: &Cell, schema: &DFSchema) -> Result<usize> {
        for condition in &cell.when {
            let condition = self.physical(condition, schema)?;
            rows = self.builder.filter(rows, condition)?;
        }
        let input = self.builder.place(&mut rows);
        let edge =
            |edges, pick| bound(edges, pick).map(|bound| self.physical(&bound, schema)).transpose();
        let (from, until) = (edge(&cell.from, Pick::Latest)?, edge(&cell.until, Pick::Earliest)?);
        if from.is_none() && until.is_none() {
            return Ok(input);
        }
        Ok(self.builder.push(Node::TemporalFilter { input, from, until }))
    }
}

/// Refuses what is left of `now()` once conditions on it are where rows are filtered or marked.
pub(super) fn refuse_rest(plan: &LogicalPlan) -> std::result::Result<(), SqlError> {
    let mut refused = None;
    let walked = plan.apply(|plan| {
        let is_here = plan.expressions().iter().any(mentions_now);
        refused = match plan {
            LogicalPlan::Filter(_) => None,
            LogicalPlan::Projection(projection) if is_marking(projection) => None,
            LogicalPlan::RecursiveQuery(query) if is_anywhere(&query.recursive_term) => {
                Some("now() in the recursion of WITH RECURSIVE")
            }
            _ => is_here.then_some("this use of now()"),
        };
        Ok(stop_if(refused.is_some()))
    });
    walked.map_err(|error| crate::translate::planning(&error, ""))?;
    refused.map_or(Ok(()), |what| Err(refusal(what)))
}

fn is_anywhere(plan: &LogicalPlan) -> bool {
    plan.exists(|plan| Ok(plan.expressions().iter().any(mentions_now)))
        .expect("looking at a plan does not fail")
}

#[cfg(test)]
mod tests;
