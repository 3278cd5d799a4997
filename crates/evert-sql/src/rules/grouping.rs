//! Grouping sets, of which DataFusion's rules lose columns.
//!
//! Their keys are columns that are computed below: what settles an expression later may give it
//! another name, by which nothing above would find it. And what is called twice is called once: the
//! rule that finds so would forget the column that tells the sets apart.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, Projection};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// What a key is called below its aggregate, followed by its number: no name of a column, qualified
/// or not.
const KEY: &str = "__key_";

/// Computes the keys of grouping sets in a plan that comes straight from SQL.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => by_columns(aggregate),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn by_columns(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let computed: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?
        .into_iter()
        .filter(|key| !matches!(key, Expr::Column(_) | Expr::Alias(_)))
        .cloned()
        .collect();
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let name = |place: usize| format!("{KEY}{place}");
    let column = |expr: &Expr| match computed.iter().position(|key| key == expr) {
        Some(place) => Expr::Column(Column::new_unqualified(name(place))),
        None => expr.clone(),
    };
    let columns = |exprs: &[Expr]| exprs.iter().map(column).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(columns(keys)),
        GroupingSet::Cube(keys) => GroupingSet::Cube(columns(keys)),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|keys| columns(keys)).collect())
        }
    };
    let calls = aggregate.aggr_expr.into_iter().map(|expr| asked(expr, &columns)).collect();
    let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let named = computed.iter().enumerate().map(|(place, key)| key.clone().alias(name(place)));
    let exprs = own.chain(named).collect();
    let input = LogicalPlan::Projection(Projection::try_new(exprs, aggregate.input)?);
    let keys = vec![Expr::GroupingSet(sets)];
    let renamed = Aggregate::try_new(Arc::new(input), keys, calls)?;
    // Nothing above reads the column that tells the sets apart: `grouping` is not resolved yet.
    let names = aggregate.schema.columns().into_iter().enumerate();
    let names = names.filter(|(_, name)| name.name != Aggregate::INTERNAL_GROUPING_ID);
    Ok(Transformed::yes(under_names(renamed, names)?))
}

/// Columns of an aggregate, by their places, under the names that they are to have.
fn under_names(
    aggregate: Aggregate,
    names: impl Iterator<Item = (usize, Column)>,
) -> Result<LogicalPlan> {
    let columns = aggregate.schema.columns();
    let named = names.map(|(place, name)| match columns[place] == name {
        true => Expr::Column(name),
        false => Expr::Column(columns[place].clone()).alias_qualified(name.relation, name.name),
    });
    let exprs = named.collect();
    let input = Arc::new(LogicalPlan::Aggregate(aggregate));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
}

/// `grouping(key)` asks for the column that the key is now.
fn asked(expr: Expr, columns: &dyn Fn(&[Expr]) -> Vec<Expr>) -> Expr {
    match expr {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            call.params.args = columns(&call.params.args);
            Expr::AggregateFunction(call)
        }
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(asked(*alias.expr, columns));
            Expr::Alias(alias)
        }
        other => other,
    }
}

/// Computes what is common to expressions once.
pub(crate) fn common_expressions() -> impl OptimizerRule {
    CommonExpressions(CommonSubexprEliminate::new())
}

/// The rule, but for grouping sets that call an aggregate twice.
#[derive(Debug)]
struct CommonExpressions(CommonSubexprEliminate);

impl OptimizerRule for CommonExpressions {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let once = plan.transform_up(each_call_once)?;
        let rewritten = self.0.rewrite(once.data, config)?;
        Ok(Transformed::new_transformed(rewritten.data, once.transformed || rewritten.transformed))
    }
}

fn each_call_once(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
    let is_of_sets = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    let mut once: Vec<Expr> = Vec::new();
    let mut calls: Vec<Expr> = Vec::new();
    // Keys come first, with the column that tells the sets apart.
    let keys = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let mut places: Vec<usize> = (0..keys).collect();
    for call in aggregate.aggr_expr.iter().filter(|_| is_of_sets) {
        let bare = call.clone().unalias();
        let place = once.iter().position(|other| *other == bare).unwrap_or_else(|| {
            once.push(bare);
            calls.push(call.clone());
            once.len() - 1
        });
        places.push(keys + place);
    }
    if !is_of_sets || calls.len() == aggregate.aggr_expr.len() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let fewer = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
    let names = places.into_iter().zip(aggregate.schema.columns());
    Ok(Transformed::yes(under_names(fewer, names)?))
}
