//! The planner's surroundings: DataFusion's state with Evert's settings and functions, and where
//! table names lead.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, DataFusionError, Result, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use datafusion::sql::planner::{NullOrdering, ParserOptions};
use evert_view::{Catalog, Name, Views};

use crate::functions::{
    ArrayOperators, CheckedArithmetic, ConstantOperators, JsonOperators, SessionFacts,
    TimeOperators, aggregate_functions, catalog_functions, clock_functions, json_functions,
    postgres_functions, session_functions, shifted_functions, tumble_functions, window_functions,
};
use crate::names::of_reference;
use crate::rules::ForgetfulTables;
use crate::system;
use crate::types::Types;
use crate::unsorted::Unsorted;
use crate::{SqlError, rules};

/// How SQL's expressions are read: as Postgres reads them.
pub(crate) fn parser_options() -> ParserOptions {
    ParserOptions {
        parse_float_as_decimal: true,
        enable_ident_normalization: true,
        support_varchar_with_length: true,
        enable_options_value_normalization: false,
        map_string_types_to_utf8view: true,
        collect_spans: true,
        default_null_ordering: NullOrdering::NullsMax,
    }
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        // One partition keeps the order of equal rows, and memory, predictable.
        .with_target_partitions(1)
        .with_batch_size(8192);
    let options = config.options_mut();
    options.execution.time_zone = Some("UTC".into());
    // The two plans' ideas of which columns hold NULLs differ under unions and outer joins.
    // A sort below a union leaves out what is constant in one of its inputs only.
    options.optimizer.repartition_sorts = false;
    options.execution.skip_physical_aggregate_schema_check = true;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = true;
    options.sql_parser.default_null_ordering = "nulls_max".into();
    config
}

/// A state with Evert's functions and rules.
pub(crate) fn state(runtime: Arc<RuntimeEnv>, facts: &SessionFacts) -> SessionState {
    let mut state = SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(runtime)
        // Before DataFusion's, which takes a text beside an array for an element.
        .with_expr_planners(vec![Arc::new(ArrayOperators), Arc::new(ConstantOperators)])
        .with_default_features()
        .with_analyzer_rule(Arc::new(CheckedArithmetic))
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_rules())
        .build();
    for function in aggregate_functions() {
        register(state.register_udaf(Arc::clone(function)));
    }
    let scalars = clock_functions()
        .chain(tumble_functions())
        .chain(json_functions())
        .chain(postgres_functions());
    for function in scalars {
        register(state.register_udf(Arc::clone(function)));
    }
    register(state.register_expr_planner(Arc::new(JsonOperators)));
    register(state.register_expr_planner(Arc::new(TimeOperators)));
    for function in window_functions().chain(session_functions()).chain(shifted_functions()) {
        register(state.register_udwf(Arc::clone(function)));
    }
    register_facts(&mut state, facts);
    state
}

/// DataFusion's rules, guarded those that mistake joins in which NULL equals NULL, aggregates over
/// no rows, recursion, or which columns determine others.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let guarded = |rule: Arc<dyn OptimizerRule + Send + Sync>| match rule.name() {
        "extract_equijoin_predicate" => Arc::new(rules::join_keys()) as _,
        "eliminate_cross_join" => Arc::new(rules::joins_in_order()) as _,
        "eliminate_duplicated_expr" => Arc::new(rules::each_expression_once()) as _,
        "replace_distinct_aggregate" => Arc::new(rules::distinct_as_groups()) as _,
        "common_sub_expression_eliminate" => Arc::new(rules::common_expressions()) as _,
        "eliminate_group_by_constant" => Arc::new(rules::keys_without_constants()) as _,
        "push_down_filter" => Arc::new(rules::conditions_down()) as _,
        "optimize_projections" => Arc::new(rules::needed_columns()) as _,
        _ => rule,
    };
    Optimizer::new().rules.into_iter().map(guarded).collect()
}

/// DataFusion's physical rules, which may not take rows for sorted that are not.
///
/// Conditions have been moved by then, and no scan takes one that the physical rules move: they
/// tell columns by their names alone, and two sides of a join may have columns of one name.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let first: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(Unsorted);
    let rules = PhysicalOptimizer::new().rules.into_iter();
    let rules = rules.filter(|rule| !rule.name().starts_with("FilterPushdown"));
    std::iter::once(first).chain(rules).collect()
}

/// Puts in the functions that answer for one session.
pub(crate) fn register_facts(state: &mut SessionState, facts: &SessionFacts) {
    for function in catalog_functions(facts) {
        register(state.register_udf(function));
    }
}

/// Puts in the functions that clients' catalog queries call.
pub(crate) fn register_catalog(state: &mut SessionState, views: &Views) {
    let functions = system::library_functions().into_iter();
    let functions = functions.chain(system::definition_functions(views));
    for function in functions.chain(system::named_oid_functions(views)) {
        register(state.register_udf(Arc::new(function)));
    }
}

fn register<T>(outcome: Result<T>) {
    outcome.map(drop).expect("functions can always be registered");
}

/// Table functions take bigint bounds only.
fn wide(arg: Expr) -> Expr {
    match arg {
        Expr::Literal(ScalarValue::Int32(value), _) => {
            Expr::Literal(ScalarValue::Int64(value.map(i64::from)), None)
        }
        arg => arg,
    }
}

/// Finds the relations that a statement names.
pub(crate) trait Tables {
    /// What a name stands for.
    fn table(&self, name: &Name) -> Result<Arc<dyn TableSource>, SqlError>;

    /// The columns of a relation that has a key, and which of them are the key.
    fn keyed(&self, name: &Name) -> Option<(Vec<String>, Vec<usize>)>;

    /// Whether `generate_series` and its like may stand in FROM.
    fn takes_functions(&self) -> bool {
        false
    }
}

/// What [`Tables::keyed`] answers over a catalog.
pub(crate) fn keyed(catalog: &Catalog, name: &Name) -> Option<(Vec<String>, Vec<usize>)> {
    let schema = match catalog.relation(name) {
        Some(relation) => &relation.schema,
        None => &catalog.views.get(name)?.schema,
    };
    let columns = schema.columns.iter().map(|column| column.name.clone()).collect();
    (!schema.key.is_empty()).then(|| (columns, schema.key.clone()))
}

/// A state and a set of tables, as DataFusion's planner wants them.
pub(crate) struct Context<'a> {
    state: &'a SessionState,
    tables: &'a dyn Tables,
    /// What has been named so far, in the order of first use.
    named: RefCell<Vec<Name>>,
    found: RefCell<HashMap<Name, Arc<dyn TableSource>>>,
    relations: [Arc<dyn RelationPlanner>; 1],
}

impl<'a> Context<'a> {
    pub(crate) fn new(state: &'a SessionState, tables: &'a dyn Tables) -> Self {
        let relations: [Arc<dyn RelationPlanner>; 1] = [Arc::new(ForgetfulTables::default())];
        Self { state, tables, named: RefCell::default(), found: RefCell::default(), relations }
    }

    /// The relations that were named, each once.
    pub(crate) fn into_named(self) -> Vec<Name> {
        self.named.into_inner()
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let name = of_reference(&name);
        if let Some(found) = self.found.borrow().get(&name) {
            return Ok(Arc::clone(found));
        }
        let table =
            self.tables.table(&name).map_err(|error| DataFusionError::External(Box::new(error)))?;
        self.named.borrow_mut().push(name.clone());
        self.found.borrow_mut().insert(name, Arc::clone(&table));
        Ok(table)
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        let function = self.state.table_functions().get(name);
        let Some(function) = function.filter(|_| self.tables.takes_functions()) else {
            let error = SqlError::unsupported(format!("function {name} in FROM"));
            return Err(DataFusionError::External(Box::new(error)));
        };
        let schema = DFSchema::empty();
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let args = args
            .into_iter()
            .map(|arg| simplifier.simplify(simplifier.coerce(arg, &schema)?).map(wide))
            .collect::<Result<Vec<_>>>()?;
        let args = TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: arrow::datatypes::SchemaRef,
    ) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = match name.strip_prefix("pg_catalog.").unwrap_or(name) {
            "ceiling" => "ceil",
            "pow" => "power",
            name => name,
        };
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let name = match name.strip_prefix("pg_catalog.").unwrap_or(name) {
            "variance" => "var_samp",
            "every" => "bool_and",
            name => name,
        };
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
