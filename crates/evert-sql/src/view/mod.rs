//! Views: a SELECT becomes a plan that `evert-fold` keeps up to date.
//!
//! Owns: which SELECTs can be kept, and how DataFusion's logical plan of one becomes the fold's.
//! Not here: running the plan, storing the view.
//!
//! Invariants
//! - A plan's result at a position depends on the rows there, on log time there, and on nothing
//!   else: no clock, no randomness, no order of rows.
//! - The output's columns have canonical types (`ColumnType::arrow_type`).

mod aggregate;
mod check;
mod constant;
pub(crate) mod explain;
mod fold;
mod join;
mod order;
mod recursive;
mod relation;
mod sets;
mod time;
mod translate;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use datafusion::sql::planner::SqlToRel;
use evert_view::{Catalog, Name, PlanError, PlannedView, Planner};
use sqlparser::ast::{Query, Statement};

use crate::command::{FoldDefinition, ViewBody};
use crate::context::{Context, Tables, keyed, parser_options, state};
use crate::depth::with_stack;
use crate::error::SYNTAX_ERROR;
use crate::functions::SessionFacts;
use crate::names::unknown_relation;
use crate::output_names::name_outputs;
use crate::query::with_names_apart;
use crate::rephrase::rephrase;
use crate::scan::Table;
use crate::time_windows::replace_windows;
use crate::{SqlError, parse, rules, text, translate as errors};

/// Turns a view's SELECT into a plan for `evert-fold`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlPlanner;

impl SqlPlanner {
    /// A planner. It holds nothing: the catalog comes with each call.
    pub fn new() -> Self {
        Self
    }
}

impl Planner for SqlPlanner {
    fn plan_view(&self, sql: &str, catalog: &Catalog) -> Result<PlannedView, PlanError> {
        plan_text(sql, catalog).map_err(errors::to_plan_error)
    }
}

/// The same state for all views: their plans may not depend on a session.
static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let facts = SessionFacts::default();
    state(Arc::new(RuntimeEnv::default()), &facts)
});

static OPTIMIZER: LazyLock<Optimizer> = LazyLock::new(|| {
    // DataFusion's order, without what makes operators that the fold does not have and without
    // what only pays when a plan runs once.
    Optimizer::with_rules(vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(rules::join_keys()),
        Arc::new(rules::each_expression_once()),
        Arc::new(EliminateFilter::new()),
        Arc::new(rules::joins_in_order()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(rules::conditions_down()),
        Arc::new(rules::needed_columns()),
    ])
});

/// Plans a view from its SELECT's text.
pub(crate) fn plan_text(sql: &str, catalog: &Catalog) -> Result<PlannedView, SqlError> {
    with_stack(|| plan_parsed(sql, catalog))
}

fn plan_parsed(sql: &str, catalog: &Catalog) -> Result<PlannedView, SqlError> {
    if let Some(definition) = parse::definition_of(sql)? {
        return plan_fold(&definition, sql, catalog);
    }
    let mut statements = text::parse_statements(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => plan_query(*query, sql, catalog),
        _ => Err(SqlError::new(SYNTAX_ERROR, "a view is one SELECT")),
    }
}

/// Plans a view from what it was parsed to. `sql` is the text that its spans refer to.
pub(crate) fn plan_body(
    body: &ViewBody,
    sql: &str,
    catalog: &Catalog,
) -> Result<PlannedView, SqlError> {
    with_stack(|| match body {
        ViewBody::Select(query) => plan_query((**query).clone(), sql, catalog),
        ViewBody::Fold(definition) => plan_fold(definition, sql, catalog),
    })
}

/// Plans a view from its parsed SELECT. `sql` is the text that its spans refer to.
pub(crate) fn plan_query(
    query: Query,
    sql: &str,
    catalog: &Catalog,
) -> Result<PlannedView, SqlError> {
    planned(query, sql, catalog, translate::translate)
}

/// Plans a custom fold. `sql` is the text that its spans refer to.
fn plan_fold(
    definition: &FoldDefinition,
    sql: &str,
    catalog: &Catalog,
) -> Result<PlannedView, SqlError> {
    planned((*definition.input).clone(), sql, catalog, |plan, keys, named| {
        fold::translate(definition, plan, keys, named)
    })
}

/// Plans a query, and translates its plan.
fn planned(
    mut query: Query,
    sql: &str,
    catalog: &Catalog,
    translate: impl FnOnce(
        &LogicalPlan,
        &BTreeMap<Name, Vec<usize>>,
        &[(Name, SchemaRef)],
    ) -> translate::Result<PlannedView>,
) -> Result<PlannedView, SqlError> {
    replace_windows(&mut query)?;
    name_outputs(&mut query);
    let tables = CatalogTables(catalog);
    rephrase(&mut query, &tables, true)?;
    let context = Context::new(&STATE, &tables);
    let plan = with_names_apart(&query, |query| {
        SqlToRel::new_with_options(&context, parser_options())
            .sql_statement_to_plan(Statement::Query(Box::new(query.clone())))
    });
    let plan = plan.map_err(|error| errors::planning(&error, sql))?;
    let plan = time::name_now(plan).map_err(|error| errors::planning(&error, sql))?;
    check::refuse_volatile(&plan)?;
    let plan = rules::settle(plan, &STATE)
        .and_then(|plan| check::refuse_unreadable(&plan).map(|()| plan))
        .and_then(optimize)
        .map_err(|error| errors::planning(&error, sql))?;
    time::refuse_rest(&plan)?;
    let named: Vec<_> = context
        .into_named()
        .into_iter()
        .filter_map(|name| tables.schema(&name).map(|schema| (name, schema)))
        .collect();
    translate(&plan, &keys(catalog), &named).map_err(|error| match error {
        translate::Refusal::Sql(error) => error,
        translate::Refusal::Planning(error) => errors::planning(&error, sql),
    })
}

fn optimize(plan: LogicalPlan) -> datafusion::common::Result<LogicalPlan> {
    let context = OptimizerContext::new_with_config_options(Arc::clone(STATE.config_options()));
    OPTIMIZER
        .optimize(plan, &context, |_, _| {})
        .and_then(rules::limits_at_sorts)
        .and_then(time::lift_now)
        .and_then(time::mark_now)
}

/// The columns that identify a row, for the inputs that have such.
fn keys(catalog: &Catalog) -> BTreeMap<Name, Vec<usize>> {
    let tables = catalog.relations.iter().map(|(name, relation)| (name, &relation.schema.key));
    let views = catalog.views.iter().map(|(name, view)| (name, &view.schema.key));
    tables
        .chain(views)
        .filter(|(_, key)| !key.is_empty())
        .map(|(name, key)| (name.clone(), key.clone()))
        .collect()
}

/// Relations and views as a view may read them.
struct CatalogTables<'a>(&'a Catalog);

impl Tables for CatalogTables<'_> {
    fn keyed(&self, name: &Name) -> Option<(Vec<String>, Vec<usize>)> {
        keyed(self.0, name)
    }

    fn table(&self, name: &Name) -> Result<Arc<dyn TableSource>, SqlError> {
        match self.schema(name) {
            Some(schema) => Ok(Table::source(name.clone(), schema, Vec::new())),
            None if crate::system::exists(name) => {
                Err(SqlError::unsupported(format!("a view over the system relation {name}")))
            }
            None => Err(unknown_relation(name, self.0)),
        }
    }
}

impl CatalogTables<'_> {
    fn schema(&self, name: &Name) -> Option<SchemaRef> {
        let catalog = self.0;
        match catalog.relations.get(name) {
            Some(relation) => Some(relation.schema.to_arrow()),
            None => catalog.views.get(name).map(|view| view.schema.to_arrow()),
        }
    }
}

#[cfg(test)]
mod tests;
