//! Queries: a SELECT becomes a plan with parameters, and a plan bound to one cut becomes rows.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, SortOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableSource, Volatility, cast,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalSortExpr};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::scalar::ScalarValue;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use evert_model::ColumnType;
use evert_view::{Catalog, Name};
use sqlparser::ast::{
    CastKind, DataType as SqlType, Expr as SqlExpr, FunctionArg, FunctionArgExpr, LimitClause,
    Query, Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::context::{Context, Tables, keyed, parser_options};
use crate::depth::with_stack;
use crate::direct::{self, is_direct};
use crate::functions::interval_of;
use crate::names::unknown_relation;
use crate::origins::with_origin;
use crate::output_names::{name_outputs, shown_name};
use crate::point::Point;
use crate::rephrase::{call, rephrase, rephrase_lists, unnamed, with_outer_names};
use crate::scan::{Rows, Table, bind};
use crate::search::{self, is_search};
use crate::time_windows::replace_windows;
use crate::types::{OID_OF_UUID, canonical, oid_of_items, parameter_type};
use crate::{SqlError, archive, rules, system, translate};

/// A planned SELECT. It names its relations and parameters, and can run many times.
pub(crate) struct Planned {
    plan: LogicalPlan,
    /// The result's columns.
    pub(crate) schema: SchemaRef,
    /// The types of `$1`, `$2`, ...
    pub(crate) params: Vec<DataType>,
    /// Their Postgres types, or those of their items, where the Arrow type does not tell.
    pub(crate) oids: Vec<(usize, u32)>,
    /// The relations that it reads.
    pub(crate) relations: Vec<Name>,
    /// Whether the plan is right at another time and for another user.
    pub(crate) reusable: bool,
    /// Those of them that are read at a position.
    pub(crate) pinned: Vec<Name>,
    /// Whether it is evaluated without a physical plan.
    direct: bool,
    /// Evaluated without any plan, if it can be.
    point: Option<Point>,
}

/// What a query's names may stand for.
pub(crate) struct Scope {
    pub(crate) catalog: Arc<Catalog>,
    /// Names that only this statement has, such as ON CONFLICT's `excluded`.
    pub(crate) extra: BTreeMap<Name, SchemaRef>,
}

impl Scope {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self { catalog, extra: BTreeMap::new() }
    }

    fn indexes_on(&self, name: &Name) -> Vec<(Name, Vec<usize>)> {
        let indexes = self.catalog.indexes_on(name).into_iter();
        indexes.map(|(index, columns)| (index.name.clone(), columns)).collect()
    }
}

impl Tables for Scope {
    fn takes_functions(&self) -> bool {
        true
    }

    fn keyed(&self, name: &Name) -> Option<(Vec<String>, Vec<usize>)> {
        keyed(&self.catalog, name)
    }

    fn table(&self, name: &Name) -> Result<Arc<dyn TableSource>, SqlError> {
        let own = name.clone();
        if let Some(schema) = self.extra.get(name) {
            return Ok(Table::source(own, Arc::clone(schema), Vec::new()));
        }
        if let Some(relation) = self.catalog.relation(name) {
            let schema = &relation.schema;
            let indexes = self.indexes_on(name);
            return Ok(Table::indexed(own, schema.to_arrow(), schema.key.clone(), indexes));
        }
        if let Some(view) = self.catalog.views.get(name) {
            let (schema, indexes) = (&view.schema, self.indexes_on(name));
            return Ok(Table::indexed(own, schema.to_arrow(), schema.key.clone(), indexes));
        }
        if let Some(schema) = archive::schema(&self.catalog, name) {
            return Ok(Table::archive(own, schema.to_arrow()));
        }
        match system::find(name) {
            Some((name, schema)) => Ok(Table::source(name, schema, Vec::new())),
            None => Err(unknown_relation(name, &self.catalog)),
        }
    }
}

/// Plans a query. `hints` are the types of parameters that are known; the others are inferred,
/// or text.
pub(crate) fn plan(
    state: &SessionState,
    query: &Query,
    text: &str,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Planned, SqlError> {
    with_stack(|| planned(state, query.clone(), text, scope, hints))
}

fn planned(
    state: &SessionState,
    mut query: Query,
    text: &str,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<Planned, SqlError> {
    replace_windows(&mut query)?;
    name_outputs(&mut query);
    rephrase(&mut query, scope, false)?;
    let translated = |error: DataFusionError| translate::planning(&error, text);
    let mut hints = hints.to_vec();
    let mut oids = syntax_hints(&query, &mut hints);
    oids.extend(list_hints(state, &query, scope, &mut hints));
    rephrase_lists(&mut query);
    let (plan, relations) = logical(state, &query, scope, &hints)
        // Where nothing else tells, `$1 || $2` is of texts.
        .or_else(|error| match texts(&query, &hints) {
            Some(texts) => logical(state, &query, scope, &texts).map_err(|_| error),
            None => Err(error),
        })
        .map_err(translated)?;
    oids.extend(uuid_parameters(&plan.get_parameter_fields().map_err(translated)?));
    let found = plan.get_parameter_types().map_err(translated)?;
    let params = parameter_types(&found, &hints)?;
    // Parameters that nothing gave a type are text, and those that took one from beside them have
    // the one that such values are sent in: with all types known it is planned again.
    let is_settled = |(name, ty): (&String, &Option<DataType>)| {
        parameter_index(name).is_some_and(|index| ty.as_ref() == params.get(index))
    };
    let (plan, relations) = if found.iter().all(is_settled) {
        (plan, relations)
    } else {
        let known: Vec<_> = params.iter().cloned().map(Some).collect();
        logical(state, &query, scope, &known).map_err(translated)?
    };
    let reusable = is_reusable(&plan).map_err(translated)?;
    // Types are final only now: `round(d, 1)` knows its digits once the 1 is a literal.
    let plan = rules::settle(plan, state)
        .and_then(|plan| rules::standard(plan, state))
        .and_then(|plan| optimize(state, plan))
        .and_then(rules::in_turn)
        .map_err(translated)?;
    let schema = output_schema(&plan);
    let plan = canonical_output(plan, &schema).map_err(translated)?;
    let direct = is_direct(&plan);
    let point = Point::of(&plan, &schema, &params);
    let is_pinned =
        |name: &&Name| system::is_pinned(name) && archive::schema(&scope.catalog, name).is_none();
    let pinned = relations.iter().filter(is_pinned).cloned().collect();
    Ok(Planned { plan, schema, params, oids, relations, reusable, pinned, direct, point })
}

fn logical(
    state: &SessionState,
    query: &Query,
    scope: &Scope,
    hints: &[Option<DataType>],
) -> Result<(LogicalPlan, Vec<Name>), DataFusionError> {
    let field = |ty: &DataType| -> FieldRef { Arc::new(Field::new("", ty.clone(), true)) };
    let fields = hints.iter().map(|hint| hint.as_ref().map(field)).collect();
    let fields: Vec<_> = fields;
    let context = Context::new(state, scope);
    let plan = with_names_apart(query, |query| {
        let mut planner = PlannerContext::new().with_prepare_param_data_types(fields.clone());
        SqlToRel::new_with_options(&context, parser_options()).sql_statement_to_plan_with_context(
            Statement::Query(Box::new(query.clone())),
            &mut planner,
        )
    })?;
    Ok((plan, context.into_named()))
}

/// Plans a query, or what it is with other names for outer tables if those of tables and columns
/// were taken for one another.
pub(crate) fn with_names_apart(
    query: &Query,
    plan: impl Fn(&Query) -> Result<LogicalPlan, DataFusionError>,
) -> Result<LogicalPlan, DataFusionError> {
    let planned = plan(query);
    let is_member = match &planned {
        Ok(plan) => has_member(plan)?,
        Err(error) => error.to_string().contains("Cannot access field"),
    };
    match is_member.then(|| with_outer_names(query)).flatten() {
        Some(other) => plan(&other),
        None => planned,
    }
}

/// Whether a plan looks for the members of a value.
fn has_member(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            found |= expr.exists(|expr| {
                Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.name() == "get_field"))
            })?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The parameters that stand where UUIDs do.
fn uuid_parameters(fields: &HashMap<String, Option<FieldRef>>) -> Vec<(usize, u32)> {
    let is_uuid = |field: &FieldRef| ColumnType::of_field(field) == Some(ColumnType::Uuid);
    let uuids = fields.iter().filter(|(_, field)| field.as_ref().is_some_and(is_uuid));
    uuids.filter_map(|(name, _)| Some((parameter_index(name)?, OID_OF_UUID))).collect()
}

/// What the text says of parameters and DataFusion does not take from it: `$1::date` is a date,
/// and LIMIT's and OFFSET's are numbers. Gives the types that only their names tell.
fn syntax_hints(query: &Query, hints: &mut Vec<Option<DataType>>) -> Vec<(usize, u32)> {
    struct Hints<'a>(&'a mut Vec<Option<DataType>>, Vec<(usize, u32)>);
    impl Visitor for Hints<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                for expr in limit.iter().chain(offset.iter().map(|offset| &offset.value)) {
                    // Also where the client sends a smaller one.
                    if let Some(known) = parameter(self.0, expr) {
                        *known = Some(DataType::Int64);
                    }
                }
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { args: Some(args), .. } = factor {
                for arg in &args.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                        hint(self.0, expr, &DataType::Utf8View);
                    }
                }
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
            if let SqlExpr::Cast { expr, data_type, .. } = expr
                && let Some(ty) = parameter_type(data_type)
            {
                hint(self.0, expr, &ty);
                self.1.extend(placeholder_index(expr).zip(oid_of_items(data_type)));
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Hints(hints, Vec::new());
    let _ = query.visit(&mut found);
    found.1
}

/// A parameter that is given to a column has its type.
pub(crate) fn hint_assigned(
    hints: &mut Vec<Option<DataType>>,
    value: &mut SqlExpr,
    ty: ColumnType,
) {
    hint(hints, value, &ty.arrow_type());
    // The Arrow type does not tell a UUID from a text.
    if ty == ColumnType::Uuid && placeholder_index(value).is_some() {
        let expr = Box::new(value.clone());
        let (kind, data_type) = (CastKind::Cast, SqlType::Uuid);
        *value = SqlExpr::Cast { kind, expr, data_type, array: false, format: None };
    }
}

/// If an expression is a parameter without a known type, gives it one.
fn hint(hints: &mut Vec<Option<DataType>>, expr: &SqlExpr, ty: &DataType) {
    if let Some(known) = parameter(hints, expr) {
        known.get_or_insert_with(|| ty.clone());
    }
}

/// The index of the parameter that an expression is.
fn placeholder_index(expr: &SqlExpr) -> Option<usize> {
    let SqlExpr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    parameter_index(name)
}

/// What is known of the type of a parameter.
fn parameter<'a>(
    hints: &'a mut Vec<Option<DataType>>,
    expr: &SqlExpr,
) -> Option<&'a mut Option<DataType>> {
    let index = placeholder_index(expr)?;
    if hints.len() <= index {
        hints.resize(index + 1, None);
    }
    Some(&mut hints[index])
}

/// All parameters without a known type as text; nothing if there are none such.
fn texts(query: &Query, hints: &[Option<DataType>]) -> Option<Vec<Option<DataType>>> {
    let (mut texts, mut any) = (hints.to_vec(), false);
    let _ = sqlparser::ast::visit_expressions(query, |expr| {
        if let Some(unknown @ None) = parameter(&mut texts, expr) {
            *unknown = Some(DataType::Utf8View);
            any = true;
        }
        ControlFlow::<()>::Continue(())
    });
    any.then_some(texts)
}

/// What `x = ANY($1)` says of a parameter: it is a list of what `x = $1` would say it is. And
/// `$1 = ANY(list)`: it is what `$1 = list[1]` would say. Gives those that are of UUIDs.
fn list_hints(
    state: &SessionState,
    query: &Query,
    scope: &Scope,
    hints: &mut Vec<Option<DataType>>,
) -> Vec<(usize, u32)> {
    struct Lists<'a> {
        hints: &'a mut Vec<Option<DataType>>,
        lists: Vec<SqlExpr>,
        items: Vec<SqlExpr>,
    }
    impl VisitorMut for Lists<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
            let (SqlExpr::AnyOp { left, compare_op: op, right, .. }
            | SqlExpr::AllOp { left, compare_op: op, right }) = expr
            else {
                return ControlFlow::Continue(());
            };
            let (left, op, mut right) = (left.clone(), op.clone(), right.clone());
            let list = match right.as_ref() {
                SqlExpr::Nested(inner) => inner.as_ref(),
                other => other,
            };
            if matches!(parameter(self.hints, list), Some(None)) {
                self.lists.push(list.clone());
            } else if matches!(parameter(self.hints, &left), Some(None))
                && !matches!(list, SqlExpr::Subquery(_))
            {
                self.items.push(left.as_ref().clone());
                *right = first_item(list.clone());
            } else {
                return ControlFlow::Continue(());
            }
            *expr = SqlExpr::BinaryOp { left, op, right };
            ControlFlow::Continue(())
        }
    }
    let mut found = Lists { hints, lists: Vec::new(), items: Vec::new() };
    let mut single = query.clone();
    let _ = VisitMut::visit(&mut single, &mut found);
    let (lists, items) = (std::mem::take(&mut found.lists), std::mem::take(&mut found.items));
    if lists.is_empty() && items.is_empty() {
        return Vec::new();
    }
    // What is wrong with the statement is told when it is planned as it is.
    let Ok((plan, _)) = logical(state, &single, scope, hints) else { return Vec::new() };
    let Ok(types) = plan.get_parameter_fields() else { return Vec::new() };
    let item_of = |expr: &SqlExpr| {
        let found = types.get(&expr.to_string()).and_then(Option::as_ref);
        let found = found.map_or(&DataType::Utf8View, |field| field.data_type());
        canonical(&Field::new("", found.clone(), true))
    };
    for expr in lists {
        let item = item_of(&expr);
        hint(hints, &expr, &DataType::List(Arc::new(Field::new_list_field(item, true))));
    }
    for expr in items {
        let item = item_of(&expr);
        hint(hints, &expr, &item);
    }
    uuid_parameters(&types)
}

/// `list[1]`, as it is rephrased.
fn first_item(list: SqlExpr) -> SqlExpr {
    let one = SqlExpr::value(Value::Number("1".into(), false));
    call("array_item", vec![unnamed(list), unnamed(one)])
}

/// How many parameters a statement may have: the protocol counts them in 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// `$3` is index 2.
pub(crate) fn parameter_index(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix('$')?.parse().ok()?;
    (1..=PARAMETERS_MAX).contains(&number).then(|| number - 1)
}

fn parameter_types(
    found: &HashMap<String, Option<DataType>>,
    hints: &[Option<DataType>],
) -> Result<Vec<DataType>, SqlError> {
    let mut types: Vec<Option<DataType>> = hints.to_vec();
    for (name, ty) in found {
        let Some(index) = parameter_index(name) else {
            return Err(SqlError::new("42P02", format!("there is no parameter {name}")));
        };
        if types.len() <= index {
            types.resize(index + 1, None);
        }
        if types[index].is_none() {
            types[index] = ty.as_ref().map(|ty| canonical(&Field::new("", ty.clone(), true)));
        }
    }
    Ok(types.into_iter().map(|ty| ty.unwrap_or(DataType::Utf8View)).collect())
}

/// Plans that call `now()` or `current_user` have their values folded in.
fn is_reusable(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut reusable = true;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan {
            reusable &= !is_search(scan);
        }
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    reusable = false;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(reusable)
}

fn optimize(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    state.optimizer().optimize(plan, state, |_, _| {})
}

fn output_schema(plan: &LogicalPlan) -> SchemaRef {
    let fields = plan.schema().fields().iter().enumerate().map(|(index, field)| {
        let ty = canonical(field);
        let name = shown_name(field.name());
        let field = field.as_ref().clone().with_name(name).with_data_type(ty).with_nullable(true);
        with_origin(field, plan, index)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Casts columns whose types are not what clients get.
fn canonical_output(plan: LogicalPlan, schema: &Schema) -> Result<LogicalPlan, DataFusionError> {
    let same = plan.schema().fields().iter().zip(schema.fields());
    if same.clone().all(|(have, want)| have.data_type() == want.data_type()) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let exprs: Vec<Expr> = columns
        .into_iter()
        .zip(same)
        .map(|(column, (have, want))| {
            if have.data_type() == want.data_type() {
                return Expr::Column(column);
            }
            let (relation, name) = (column.relation.clone(), column.name.clone());
            let value = match have.data_type() {
                DataType::Duration(_) => interval_of(Expr::Column(column)),
                _ => cast(Expr::Column(column), want.data_type().clone()),
            };
            value.alias_qualified(relation, name)
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

impl Planned {
    /// So many rows of a SELECT without FROM, volatile functions called for each; `None` for other
    /// queries.
    pub(crate) fn repeated(
        &self,
        props: &ExecutionProps,
        count: usize,
    ) -> Result<Option<RecordBatch>, SqlError> {
        if !self.direct {
            return Ok(None);
        }
        direct::repeated(&self.plan, props, count)
            .map_err(|error| SqlError { position: None, ..translate::planning(&error, "") })
    }

    /// The plan as EXPLAIN shows it.
    pub(crate) fn display(&self) -> String {
        self.plan.display_indent().to_string()
    }

    /// How rows are found without reading all, for EXPLAIN.
    pub(crate) fn lookups(&self) -> Vec<String> {
        let mut lookups = Vec::new();
        let walked = self.plan.apply_with_subqueries(|plan| {
            if let LogicalPlan::TableScan(scan) = plan {
                lookups.extend(lookup_shown(scan));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(walked.is_ok(), "nothing on the way fails");
        lookups
    }

    /// The rows, if the plan is of a kind that needs no execution: lookups by key and values.
    pub(crate) fn evaluate(
        &self,
        state: &SessionState,
        params: &[ArrayRef],
        rows: &dyn Fn(&Name) -> Result<Rows, SqlError>,
        text: &str,
    ) -> Result<Option<RecordBatch>, SqlError> {
        if let Some(point) = &self.point {
            let found = point.find(&self.schema, params, rows);
            if let Some(found) = found.map_err(|error| translate::planning(&error, text))? {
                return Ok(Some(found));
            }
        }
        if !self.direct {
            return Ok(None);
        }
        let evaluate = || {
            let plan = bind(self.with_params(params)?, rows)?;
            direct::evaluate(&plan, state.execution_props())
        };
        let rows = evaluate().map_err(|error| translate::planning(&error, text))?;
        conform(&rows, &self.schema).map(Some)
    }

    /// Starts the plan over the rows that its relations have in this statement.
    pub(crate) async fn execute(
        &self,
        state: &SessionState,
        params: &[ArrayRef],
        rows: &(dyn Fn(&Name) -> Result<Rows, SqlError> + Sync),
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let translated = |error: DataFusionError| translate::planning(&error, "");
        let plan = self.with_params(params).map_err(translated)?;
        let plan = bind(plan, rows).map_err(translated)?;
        let physical =
            state.query_planner().create_physical_plan(&plan, state).await.map_err(translated)?;
        let physical = strict_windows(physical).and_then(cooperative).map_err(translated)?;
        execute_stream(physical, state.task_ctx()).map_err(translated)
    }

    fn with_params(&self, params: &[ArrayRef]) -> Result<LogicalPlan, DataFusionError> {
        if self.params.is_empty() {
            return Ok(self.plan.clone());
        }
        let mut values = Vec::with_capacity(self.params.len());
        for (index, ty) in self.params.iter().enumerate() {
            let Some(param) = params.get(index).filter(|param| !param.is_empty()) else {
                return Err(DataFusionError::External(
                    SqlError::new("08P01", format!("parameter ${} has no value", index + 1)).into(),
                ));
            };
            values.push(ScalarValue::try_from_array(param, 0)?.cast_to(ty)?);
        }
        let plan = search::with_params(self.plan.clone(), &values)?;
        plan.replace_params_with_values(&ParamValues::from(values))
    }
}

/// Gives window functions their rows in one order always: ties break by whole rows, as in views.
fn strict_windows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    plan.transform_up(|plan| {
        if !plan.is::<WindowAggExec>() && !plan.is::<BoundedWindowAggExec>() {
            return Ok(Transformed::no(plan));
        }
        let input = Arc::clone(plan.children()[0]);
        let required = plan.required_input_ordering().swap_remove(0);
        let (input, mut keys) = match input.downcast_ref::<SortExec>() {
            Some(sort) if sort.fetch().is_none() => {
                (Arc::clone(sort.input()), sort.expr().iter().cloned().collect::<Vec<_>>())
            }
            _ => {
                let keys = required.map(OrderingRequirements::into_single);
                (
                    input,
                    keys.map(|keys| keys.into_iter().map(Into::into).collect()).unwrap_or_default(),
                )
            }
        };
        let schema = input.schema();
        for (index, field) in schema.fields().iter().enumerate() {
            if crate::rules::is_sortable(field.data_type()) {
                let column = Arc::new(Column::new(field.name(), index));
                keys.push(PhysicalSortExpr::new(column, SortOptions::default()));
            }
        }
        let Some(keys) = LexOrdering::new(keys) else { return Ok(Transformed::no(plan)) };
        let sorted = Arc::new(SortExec::new(keys, input));
        Ok(Transformed::yes(plan.with_new_children(vec![sorted])?))
    })
    .data()
}

/// How a scan finds its rows, if it does not read all.
fn lookup_shown(scan: &TableScan) -> Option<String> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<Table>()?.lookup_shown(&scan.filters)
}

/// Lets joins pause: one that makes many rows of few would otherwise keep its thread until the
/// end, also after its statement was cancelled.
fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    plan.transform_up(|plan| {
        Ok(match plan.children().len() {
            0 | 1 => Transformed::no(plan),
            _ => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
        })
    })
    .data()
}

/// A result's batches with exactly its schema. Names and nullability are the plan's own affair, and
/// so are the digits of decimals that a function settles while the plan is optimised.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast_with_options(column, field.data_type(), &options),
    });
    let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &count))
        .map_err(|error| translate::planning(&error.into(), ""))
}
