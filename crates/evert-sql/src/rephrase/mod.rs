//! Postgres's phrases in words that the planner knows.
//!
//! Owns: what ORDER BY names (`output_order`), what shares a name (`alike`), columns that joins
//! merge (`merged`, `joined_row`), columns that a key takes along (`keyed_groups`), outer tables'
//! names (`outer_names`), numbers with exponents (`literals`), comparisons of rows (`rows`), what
//! Postgres spells in its own way (`spelled`), tables' whole rows as JSON (`whole_rows`), windows
//! that name others (`windows`), subscripts (`subscripts`), `ARRAY(SELECT ...)`
//! (`subquery_arrays`), FETCH FIRST as LIMIT, column names and written casts of recursive queries,
//! functions that return rows as subqueries that unnest a list.
//! Not here: what the words mean.

mod alike;
mod from_functions;
mod joined_row;
mod keyed_groups;
mod literals;
mod merged;
mod ordered_sets;
mod outer_names;
mod output_order;
mod rows;
mod spelled;
mod subquery_arrays;
mod subscripts;
mod whole_rows;
mod windows;

pub(crate) use outer_names::with_outer_names;

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, LimitClause, ObjectName,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, SetOperator, TableAlias, TableFactor,
    Value, VisitMut, VisitorMut, With, visit_expressions,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::SqlError;
use crate::context::Tables;
use crate::names::fold;

/// Rephrases a query over `tables`, its subqueries and its common table expressions. `in_view`: also
/// functions of constants in FROM, which ad-hoc reads run row by row.
pub(crate) fn rephrase(
    query: &mut Query,
    tables: &dyn Tables,
    in_view: bool,
) -> Result<(), SqlError> {
    merged::merge(query, tables)?;
    match query.visit(&mut Rephraser { in_view }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Rephrases what depends on the types of parameters, once they have them.
pub(crate) fn rephrase_lists(query: &mut Query) {
    struct Lists;
    impl VisitorMut for Lists {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Some(other) = rows::any_of_parameter(expr) {
                *expr = other;
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Lists);
}

struct Rephraser {
    in_view: bool,
}

impl VisitorMut for Rephraser {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if let Some(fetch) = query.fetch.take()
            && let Err(error) = limit(query, fetch)
        {
            return ControlFlow::Break(error);
        }
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            limit
                .iter_mut()
                .chain(offset.iter_mut().map(|offset| &mut offset.value))
                .for_each(count);
        }
        if let Some(with) = &mut query.with {
            name_recursive(with);
        }
        if let Err(error) = windows::write_out(query) {
            return ControlFlow::Break(error);
        }
        output_order::settle(query);
        tell_casts_apart(query);
        alike::tell_calls_apart(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        if let TableFactor::Table { sample: Some(_), .. }
        | TableFactor::Derived { sample: Some(_), .. } = factor
        {
            let unsupported = SqlError::unsupported("TABLESAMPLE");
            return ControlFlow::Break(unsupported.hint("Filter by a hash of the key instead."));
        }
        match from_functions::as_subquery(factor, self.in_view) {
            Ok(Some(derived)) => *factor = derived,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        from_functions::name_series(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if let Expr::Function(function) = expr {
            subquery_arrays::in_list_order(function);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match spelled::respelled(expr) {
            Ok(Some(other)) => *expr = other,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        let other = match expr {
            Expr::Function(function) if has_subquery(function) => {
                match subquery_arrays::collected(function) {
                    Ok(collected) => collected,
                    Err(error) => return ControlFlow::Break(error),
                }
            }
            Expr::CompoundFieldAccess { .. } => subscripts::taken(expr),
            Expr::Value(value) => literals::number(&value.value),
            Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => regrouped(expr),
            Expr::Function(function) if ordered_sets::concerns(function) => {
                match ordered_sets::called(function) {
                    Ok(call) => Some(call),
                    Err(error) => return ControlFlow::Break(error),
                }
            }
            Expr::Function(function) => {
                constants_in_order(function);
                gathered(function)
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    **pattern = escaped(pattern, &escape.value);
                }
                None
            }
            // The planner looks for its columns in the wrong place otherwise.
            Expr::Array(array) => {
                let items: Vec<_> = array.elem.iter().cloned().map(unnamed).collect();
                names_columns(&items).then(|| call("make_array", items))
            }
            _ => None,
        };
        if let Some(other) = other {
            *expr = other;
        }
        if let Some(other) = rows::compared(expr)? {
            *expr = other;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        if let Err(error) = check_grouping_sets(select) {
            return ControlFlow::Break(error);
        }
        alike::sets_without_repeats(select);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let _ = expr.visit(&mut Sets::default());
            }
        }
        ControlFlow::Continue(())
    }
}

/// Refuses more grouping sets than Postgres does: each is a GROUP BY of its own.
fn check_grouping_sets(select: &Select) -> Result<(), SqlError> {
    const SETS_MAX: usize = 4096;
    const CUBE_MAX: usize = 12;
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return Ok(()) };
    let mut sets = 1_usize;
    for group in groups {
        sets = sets.saturating_mul(match group {
            Expr::Cube(elements) if elements.len() > CUBE_MAX => {
                let message = format!("CUBE is limited to {CUBE_MAX} elements");
                return Err(SqlError::new("54011", message));
            }
            Expr::Cube(elements) => 1 << elements.len(),
            Expr::Rollup(elements) => elements.len() + 1,
            Expr::GroupingSets(sets) => sets.len().max(1),
            _ => 1,
        });
    }
    if sets > SETS_MAX {
        let message = format!("too many grouping sets present (maximum {SETS_MAX})");
        return Err(SqlError::new("54001", message));
    }
    Ok(())
}

/// `LIMIT $1::integer` is `LIMIT $1`: a count of rows is a BIGINT whatever it is cast to.
fn count(expr: &mut Expr) {
    while let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
        let Expr::Value(_) = bare(inner) else { return };
        *expr = std::mem::replace(inner, Expr::value(Value::Null));
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn limit(query: &mut Query, fetch: Fetch) -> Result<(), SqlError> {
    if fetch.with_ties || fetch.percent {
        return Err(SqlError::unsupported("FETCH FIRST ... WITH TIES or PERCENT")
            .hint("Number the rows with rank() OVER (ORDER BY ...) and filter by it."));
    }
    let one = || Expr::value(Value::Number("1".into(), false));
    let quantity = fetch.quantity.unwrap_or_else(one);
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(quantity),
        other => {
            let (offset, limit_by) = (None, Vec::new());
            *other = Some(LimitClause::LimitOffset { limit: Some(quantity), offset, limit_by });
        }
    }
    Ok(())
}

/// `a IS DISTINCT FROM b AND c`, which the parser reads as `a IS DISTINCT FROM (b AND c)`.
fn regrouped(expr: &Expr) -> Option<Expr> {
    let (left, right, negated) = match expr {
        Expr::IsDistinctFrom(left, right) => (left, right, false),
        Expr::IsNotDistinctFrom(left, right) => (left, right, true),
        _ => return None,
    };
    let is_junction = |expr: &Expr| {
        matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
    };
    is_junction(right).then(|| {
        with_first(right, &|first: &Expr| {
            let (left, first) = (left.clone(), Box::new(first.clone()));
            match negated {
                true => Expr::IsNotDistinctFrom(left, first),
                false => Expr::IsDistinctFrom(left, first),
            }
        })
    })
}

/// ANDs and ORs with another first condition.
fn with_first(expr: &Expr, make: &dyn Fn(&Expr) -> Expr) -> Expr {
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            let left = Box::new(with_first(left, make));
            Expr::BinaryOp { left, op: op.clone(), right: right.clone() }
        }
        first => make(first),
    }
}

/// `GROUP BY a, a::bigint`: the planner calls a cast by the name of what is cast, so that one of
/// the two needs another form.
fn tell_casts_apart(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return };
    let keys = groups.iter().flat_map(|group| match group {
        Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
            sets.iter().flatten().collect()
        }
        key => vec![key],
    });
    let groups: Vec<&Expr> = keys.map(|key| at_place(select, key)).collect();
    let alike = |cast: &Expr| {
        matches!(cast, Expr::Cast { .. })
            && groups.iter().any(|other| *other != cast && bare(other) == bare(cast))
    };
    let mut casts: Vec<Expr> =
        groups.iter().filter(|expr| alike(expr)).map(|expr| (*expr).clone()).collect();
    casts.dedup();
    if !casts.is_empty() {
        let _ = query.visit(&mut Wrapped(casts));
    }
}

/// The expression that a group is, which may be given by its place.
fn at_place<'a>(select: &'a Select, group: &'a Expr) -> &'a Expr {
    let place = output_order::numbered(group);
    match place.and_then(|place| select.projection.get(place)) {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
        _ => group,
    }
}

/// An expression below its casts and brackets.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => bare(expr),
        other => other,
    }
}

/// Puts `CASE WHEN true THEN x END` in the place of some expressions.
struct Wrapped(Vec<Expr>);

impl VisitorMut for Wrapped {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        // Each as often as its place says, so that they differ from one another too.
        let times = self.0.iter().position(|cast| cast == expr).map_or(0, |place| place + 1);
        for _ in 0..times {
            let mut wrapped = parsed_expr("CASE WHEN true THEN 1 END");
            if let Expr::Case { conditions, .. } = &mut wrapped
                && let Some(case) = conditions.first_mut()
            {
                case.result = expr.clone();
            }
            *expr = wrapped;
        }
        ControlFlow::Continue(())
    }
}

fn parsed_expr(text: &str) -> Expr {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text);
    parser.and_then(|mut parser| parser.parse_expr()).expect("a fixed text parses")
}

/// `WITH RECURSIVE r(x) AS (SELECT 1 UNION ...)`: the first SELECT's column is `x` too.
fn name_recursive(with: &mut With) {
    if !with.recursive {
        return;
    }
    for table in &mut with.cte_tables {
        if let SetExpr::SetOperation { op: SetOperator::Union, right, .. } =
            table.query.body.as_mut()
        {
            keep_casts(right);
        }
        if table.alias.columns.is_empty() {
            continue;
        }
        if let SetExpr::SetOperation { op: SetOperator::Union, left, .. } =
            table.query.body.as_mut()
        {
            let inner = std::mem::replace(left.as_mut(), SetExpr::Select(select_all()));
            let mut select = select_all();
            let name = Ident::with_quote('"', format!("__first_{}", table.alias.name.value));
            let alias = TableAlias { name, ..table.alias.clone() };
            if let Some(from) = select.from.first_mut() {
                from.relation = derived(query_of(inner), Some(alias), false);
            }
            **left = SetExpr::Select(select);
        }
    }
}

/// Marks the casts that a recursive term writes: the planner adds others (`rules::recursion`).
fn keep_casts(term: &mut SetExpr) {
    let SetExpr::Select(select) = term else { return };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
            && is_cast(expr)
        {
            *expr = call("as_written", vec![unnamed(expr.clone())]);
        }
    }
}

fn is_cast(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_cast(inner),
        expr => matches!(expr, Expr::Cast { .. }),
    }
}

/// A query of a body and nothing else.
fn query_of(body: SetExpr) -> Query {
    let mut query = parsed("SELECT 1");
    *query.body = body;
    query
}

/// `SELECT * FROM x`, for its parts.
fn select_all() -> Box<Select> {
    match *parsed("SELECT * FROM x").body {
        SetExpr::Select(select) => select,
        _ => unreachable!("a SELECT parses as one"),
    }
}

fn parsed(text: &str) -> Query {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text);
    let query = parser.and_then(|mut parser| parser.parse_query());
    *query.expect("a fixed text parses")
}

fn derived(query: Query, alias: Option<TableAlias>, lateral: bool) -> TableFactor {
    TableFactor::Derived { lateral, subquery: Box::new(query), alias, sample: None }
}

/// Unnests what functions return as rows, outside subqueries.
#[derive(Default)]
struct Sets {
    /// How many subqueries are open.
    below: usize,
    /// How many calls of `unnest` are: what they are given is a list already.
    lists: usize,
}

impl VisitorMut for Sets {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.below += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.below -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.lists += usize::from(is_unnest(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_unnest(expr) {
            self.lists -= 1;
        } else if self.below == 0
            && self.lists == 0
            && let Some(unnested) = unnested(expr)
        {
            *expr = unnested;
        }
        ControlFlow::Continue(())
    }
}

fn is_unnest(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => function_name(&function.name).as_deref() == Some("unnest"),
        _ => false,
    }
}

/// `unnest(list)` in the place of a call that returns rows. `None` for other expressions.
fn unnested(expr: &Expr) -> Option<Expr> {
    let Expr::Function(function) = expr else { return None };
    let name = function_name(&function.name)?;
    if name == "unnest" {
        return None;
    }
    let (list, _) = from_functions::list_function(&name)?;
    let FunctionArguments::List(arguments) = &function.args else { return None };
    Some(unnest_of(list, arguments.args.clone()))
}

/// A pattern of LIKE whose escape character is the backslash, from one with another, or with none
/// (`ESCAPE ''`). An escape before anything but `%`, `_` and itself stays.
fn escaped(pattern: &Expr, escape: &Value) -> Expr {
    let text = |text: &str| Expr::value(Value::SingleQuotedString(text.to_owned()));
    let replace = |expr: Expr, from: &str, to: &str| {
        call("replace", [expr, text(from), text(to)].map(unnamed).to_vec())
    };
    let escape = match escape {
        Value::SingleQuotedString(escape) if escape != "\\" => escape,
        _ => return pattern.clone(),
    };
    let plain = replace(pattern.clone(), "\\", "\\\\");
    if escape.is_empty() {
        return plain;
    }
    // Stands for the escape character itself meanwhile.
    const ITSELF: &str = "\u{1}";
    let mut pattern = replace(plain, &escape.repeat(2), ITSELF);
    for wildcard in ["%", "_"] {
        pattern = replace(pattern, &format!("{escape}{wildcard}"), &format!("\\{wildcard}"));
    }
    replace(pattern, ITSELF, escape)
}

/// In the order of an aggregate's arguments a number is a constant, no column's place.
fn constants_in_order(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for clause in &mut list.clauses {
        let FunctionArgumentClause::OrderBy(keys) = clause else { continue };
        for key in keys {
            if matches!(key.expr, Expr::Value(_)) {
                key.expr = Expr::Nested(Box::new(key.expr.clone()));
            }
        }
    }
}

/// `json_agg(x ORDER BY y)` as a list of JSON values, written as one.
fn gathered(function: &Function) -> Option<Expr> {
    let name = function_name(&function.name)?;
    if let Some(members) = gathered_members(&name, function) {
        return Some(members);
    }
    if !matches!(name.as_str(), "json_agg" | "jsonb_agg") || function.over.is_some() {
        return None;
    }
    let mut aggregate = function.clone();
    aggregate.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("array_agg"))]);
    let FunctionArguments::List(arguments) = &mut aggregate.args else { return None };
    for argument in &mut arguments.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { return None };
        *expr = call("to_json", vec![unnamed(expr.clone())]);
    }
    Some(call("json_list", vec![unnamed(Expr::Function(aggregate))]))
}

/// `json_object_agg(name, value)` as a list of an object's members, written as one.
fn gathered_members(name: &str, function: &Function) -> Option<Expr> {
    let members = match name {
        "json_object_agg" => "json_members",
        "jsonb_object_agg" => "jsonb_members",
        _ => return None,
    };
    let mut aggregate = function.clone();
    aggregate.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("array_agg"))]);
    let FunctionArguments::List(arguments) = &mut aggregate.args else { return None };
    if arguments.args.len() != 2 || function.over.is_some() {
        return None;
    }
    let pair = std::mem::take(&mut arguments.args);
    arguments.args = vec![unnamed(call("json_member", pair))];
    Some(call(members, vec![unnamed(Expr::Function(aggregate))]))
}

/// An argument without a name.
pub(crate) fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn unnest_of(list: &str, args: Vec<FunctionArg>) -> Expr {
    if list == "unnest" {
        return call("unnest", args);
    }
    let rows = call("unnest", vec![unnamed(call(list, args))]);
    match list {
        "json_elements" => call("json_value", vec![unnamed(rows)]),
        _ => rows,
    }
}

/// A call of a function.
pub(crate) fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn has_subquery(function: &Function) -> bool {
    matches!(function.args, FunctionArguments::Subquery(_))
}

fn function_name(name: &ObjectName) -> Option<String> {
    match name.0.last()? {
        ObjectNamePart::Identifier(ident) => Some(fold(ident)),
        ObjectNamePart::Function(_) => None,
    }
}

fn names_columns(args: &Vec<FunctionArg>) -> bool {
    let named = visit_expressions(args, |expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    named.is_break()
}
