//! Clients' catalog queries, put into a form that DataFusion plans.
//!
//! Owns: which statements are such queries, and what is rewritten in them.
//! Not here: the catalogs' rows.
//!
//! Most of the rules are `datafusion-pg-catalog`'s. Its rule that makes correlated subqueries NULL
//! is not among them: they are made to aggregate instead, which keeps their values.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral, FixVersionColumnName,
    PrependUnqualifiedPgTableName, ResolveUnqualifiedIdentifier, RewriteArrayAnyAllOperation,
    RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule,
    StripCallableQualifier, StripCollate,
};
use sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, SelectItem,
    SetExpr, Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
    visit_expressions, visit_relations,
};

use super::{named_oids, settings, vectors};
use crate::text;

static RULES: LazyLock<Vec<Arc<dyn SqlStatementRewriteRule>>> = LazyLock::new(|| {
    vec![
        Arc::new(ResolveUnqualifiedIdentifier),
        Arc::new(RewriteArrayAnyAllOperation),
        Arc::new(PrependUnqualifiedPgTableName),
        Arc::new(StripCallableQualifier),
        Arc::new(FixArrayLiteral),
        Arc::new(CurrentUserVariableToSessionUserFunctionCall),
        Arc::new(StripCollate),
        Arc::new(RewritePgCatalogOperator),
        Arc::new(RewriteRegCastToSubquery::new()),
        Arc::new(FixVersionColumnName),
    ]
});

/// Signs of a catalog query, to look at the others no further.
const SIGNS: [&str; 5] = ["pg_", "information_schema", "::reg", "regclass", "regnamespace"];

/// The statements of a text that reads catalogs only, rewritten. `None`: it is another text.
pub(crate) fn rewrite(text: &str) -> Option<Vec<Statement>> {
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        return None;
    }
    if asks_for_types(text) {
        return text::parse_statements(TYPES).ok();
    }
    let statements = text::parse_statements(text).ok()?;
    if statements.is_empty() || !statements.iter().all(reads_catalogs) {
        return None;
    }
    let rewritten = statements.into_iter().map(|mut statement| {
        // A breaking visit is one that never happens here.
        named_oids::replace_casts(&mut statement);
        let _: ControlFlow<()> = VisitMut::visit(&mut statement, &mut Subqueries);
        RULES.iter().fold(statement, |statement, rule| rule.rewrite(statement))
    });
    Some(rewritten.collect())
}

/// asyncpg's question for types that it does not know, and those that they are made of: a recursive
/// query over several catalogs.
fn asks_for_types(text: &str) -> bool {
    text.trim_start().starts_with("WITH RECURSIVE typeinfo_tree(")
        && text.contains("ti.oid = any($1::oid[])")
}

/// The answer to it: types here are Postgres's own and arrays of such.
const TYPES: &str = "
    SELECT t.oid AS oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind,
        NULL::int8 AS basetype, t.typelem AS elemtype, e.typdelim AS elemdelim,
        NULL::int8 AS range_subtype, NULL::text[] AS attrtypoids, NULL::text[] AS attrnames,
        0 AS depth, NULL::text AS basetype_name, e.typname AS elemtype_name,
        NULL::text AS range_subtype_name
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
    WHERE t.oid = ANY ($1::oid[])
    UNION ALL
    SELECT DISTINCT t.oid, 'pg_catalog', t.typname, t.typtype, NULL::int8, t.typelem, NULL::text,
        NULL::int8, NULL::text[], NULL::text[], 1, NULL::text, NULL::text, NULL::text
    FROM pg_catalog.pg_type a JOIN pg_catalog.pg_type t ON t.oid = a.typelem
    WHERE a.oid = ANY ($1::oid[])
    ORDER BY depth DESC";

/// Whether a statement is a query that names catalogs, or casts to their types, and nothing else.
fn reads_catalogs(statement: &Statement) -> bool {
    if !matches!(statement, Statement::Query(_)) {
        return false;
    }
    let mut named = 0;
    let others = visit_relations(statement, |name| {
        named += 1;
        if is_catalog(name) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let casts = || {
        visit_expressions(statement, |expr| match expr {
            Expr::Cast { data_type, .. }
                if data_type.to_string().to_lowercase().contains("reg") =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    };
    others.is_continue() && (named > 0 || casts())
}

fn is_catalog(name: &ObjectName) -> bool {
    let name = name.to_string().to_lowercase();
    ["pg_catalog.", "information_schema.", "pg_"].iter().any(|start| name.starts_with(start))
        // Functions in FROM, and names of common table expressions.
        || !name.contains('.') && !name.starts_with("evert")
}

/// Catalogs that have no rows here.
const ABSENT: [&str; 20] = [
    "pg_amop",
    "pg_amproc",
    "pg_attrdef",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_event_trigger",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_opclass",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_policy",
    "pg_publication",
    "pg_publication_rel",
    "pg_rewrite",
    "pg_sequence",
    "pg_statistic_ext",
    "pg_trigger",
];

/// Subqueries that DataFusion refuses: `ARRAY(SELECT ...)`, and correlated ones that do not
/// aggregate. What reads a catalog without rows has none at once, whatever it does with columns
/// that Postgres has as arrays.
struct Subqueries;

impl VisitorMut for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if empty_selects(&mut query.body) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(subscripts) = vectors::unnested_table(factor) {
            *factor = subscripts;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(shown) = settings::of_session(factor) {
            *factor = shown;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) if bare(&function.name).ends_with("_pg_expandarray") => {
                // A set-returning function: its list, unnested.
                function.name = ObjectName::from(vec![Ident::new("_pg_expandarray")]);
                *expr = call("unnest", expr.clone());
            }
            // Access rights are NULL here, where Postgres has arrays or NULL.
            Expr::Function(function) if joins_nothing(function) => *expr = null_of("text"),
            Expr::CompoundIdentifier(parts)
                if parts.last().is_some_and(|part| part.value == "tableoid") =>
            {
                *expr = null_of("bigint");
            }
            // How old a row is: new, so that clients that keep the catalogs ask for it again.
            Expr::Function(function) if is_age_of_row(function) => {
                *expr = Expr::value(Value::Number("1".into(), false));
            }
            Expr::Function(function) => {
                if let Some(unnested) = vectors::unnested(function) {
                    *expr = unnested;
                } else if let Some(query) = array_constructor(function) {
                    *expr = match is_absent(&query) {
                        true => null_of("text[]"),
                        false => Expr::Subquery(query),
                    };
                }
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                // `(row).field`
                if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                    let field = Expr::value(Value::SingleQuotedString(field.value.clone()));
                    let mut access = call("get_field", root.as_ref().clone());
                    if let Expr::Function(Function {
                        args: FunctionArguments::List(list), ..
                    }) = &mut access
                    {
                        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(field)));
                    }
                    *expr = access;
                } else {
                    vectors::count_subscript(root, access_chain);
                }
            }
            // The catalogs hold functions' names where Postgres holds their oids.
            Expr::Cast { expr: name, data_type, .. }
                if bare_type(data_type) == "regproc" && matches!(**name, Expr::Value(_)) =>
            {
                *expr = without_schema(name);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                compare_names(left, right);
                compare_names(right, left);
            }
            Expr::Cast { data_type, .. } if bare_type(data_type) == "xid" => {
                *data_type = DataType::BigInt(None);
            }
            Expr::Subquery(query) if is_absent(query) => *expr = only_value(query),
            Expr::Subquery(query) if reads(query) => aggregated(query, "first_value"),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `array_to_string(c.relacl, ...)`, or of a list that has been found to be NULL.
fn joins_nothing(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first() else {
        return false;
    };
    let is_null = match first {
        Expr::Cast { expr, .. } => {
            matches!(&**expr, Expr::Value(value) if value.value == Value::Null)
        }
        _ => false,
    };
    bare(&function.name) == "array_to_string" && (is_null || output_name(first).ends_with("acl"))
}

/// `age(c.xmin)`, or of a number that has been cast to `xid`.
fn is_age_of_row(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(row))] = list.args.as_slice() else {
        return false;
    };
    let is_number = matches!(row, Expr::Cast { data_type: DataType::BigInt(None), .. });
    bare(&function.name) == "age" && (is_number || output_name(row) == "xmin")
}

/// `'pg_catalog.array_in'` as `'array_in'`.
fn without_schema(name: &Expr) -> Expr {
    match name {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => {
                let bare = text.trim_start_matches("pg_catalog.").to_owned();
                Expr::value(Value::SingleQuotedString(bare))
            }
            _ => name.clone(),
        },
        _ => name.clone(),
    }
}

/// Columns of pg_type with functions, none of which shares its name with another.
const TYPE_FUNCTIONS: [&str; 4] = ["typinput", "typoutput", "typreceive", "typsend"];

/// `proc.oid = type.typinput` as `proc.proname = type.typinput`.
fn compare_names(oid: &mut Expr, function: &Expr) {
    let last = match oid {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last_mut(),
        _ => None,
    };
    if let Some(name) = last
        && name.value.eq_ignore_ascii_case("oid")
        && TYPE_FUNCTIONS.contains(&output_name(function).to_lowercase().as_str())
    {
        *name = Ident::new("proname");
    }
}

/// Empties the SELECTs of a query that read a catalog without rows first. Tells whether none else
/// is left.
fn empty_selects(body: &mut SetExpr) -> bool {
    let select = match body {
        SetExpr::SetOperation { left, right, .. } => {
            let left = empty_selects(left);
            return empty_selects(right) && left;
        }
        SetExpr::Select(select) => select,
        _ => return false,
    };
    let Some(TableFactor::Table { name, .. }) = select.from.first().map(|from| &from.relation)
    else {
        return false;
    };
    let is_named = |item: &SelectItem| {
        matches!(item, SelectItem::ExprWithAlias { .. } | SelectItem::UnnamedExpr(_))
    };
    if !ABSENT.contains(&bare(name).as_str()) || !select.projection.iter().all(is_named) {
        return false;
    }
    let ungrouped = matches!(
        &select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()
    );
    let mut has_row = false;
    for item in &mut select.projection {
        let (expr, alias) = match &*item {
            SelectItem::ExprWithAlias { expr, alias } => (expr, alias.clone()),
            SelectItem::UnnamedExpr(expr) => (expr, Ident::new(output_name(expr))),
            _ => return false,
        };
        has_row |= ungrouped && aggregates(expr);
        *item = SelectItem::ExprWithAlias { expr: of_no_rows(expr), alias };
    }
    select.from.clear();
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
    select.selection = (!has_row).then(|| Expr::value(Value::Boolean(false)));
    true
}

/// What an expression is over no rows: a count is zero, anything else NULL.
fn of_no_rows(expr: &Expr) -> Expr {
    match expr {
        Expr::Function(function) if bare(&function.name) == "count" => constant("0::bigint"),
        Expr::Nested(inner) => of_no_rows(inner),
        Expr::BinaryOp { left, op, right } if aggregates(left) || aggregates(right) => {
            let side = |side: &Expr| match side {
                Expr::Value(_) => Box::new(side.clone()),
                other => Box::new(of_no_rows(other)),
            };
            Expr::BinaryOp { left: side(left), op: op.clone(), right: side(right) }
        }
        _ => null_of("text"),
    }
}

/// The name that Postgres gives to a column.
pub(super) fn output_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(String::new, |ident| ident.value.clone())
        }
        Expr::Function(function) => bare(&function.name),
        Expr::Cast { expr, .. } => output_name(expr),
        _ => "?column?".to_owned(),
    }
}

fn bare_type(ty: &DataType) -> String {
    ty.to_string().to_lowercase().trim_start_matches("pg_catalog.").to_owned()
}

/// A catalog's or function's name without its schema.
pub(super) fn bare(name: &ObjectName) -> String {
    let name = name.to_string().to_lowercase();
    name.trim_start_matches("pg_catalog.").to_owned()
}

/// Whether a subquery can have no rows: it reads a catalog without any, asks for a collation that
/// is not its type's, or unnests access rights or options, which nothing has here.
fn is_absent(query: &Query) -> bool {
    visit_relations(query, |name| {
        let name = bare(name);
        match ABSENT.contains(&name.as_str()) || matches!(name.as_str(), "unnest" | "pg_collation")
        {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .is_break()
}

fn null_of(ty: &str) -> Expr {
    constant(&format!("NULL::{ty}"))
}

fn constant(text: &str) -> Expr {
    let parsed = text::parser(text).ok().and_then(|mut parser| parser.parse_expr().ok());
    parsed.expect("a cast of a constant is an expression")
}

/// What a subquery without rows is as a value.
fn only_value(query: &Query) -> Expr {
    match query.body.as_select().map(|select| select.projection.as_slice()) {
        Some([SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }]) => {
            of_no_rows(expr)
        }
        _ => null_of("text"),
    }
}

/// The subquery of `ARRAY(SELECT ...)`, gathering its rows.
fn array_constructor(function: &mut Function) -> Option<Box<Query>> {
    if !function.name.to_string().eq_ignore_ascii_case("array") {
        return None;
    }
    let FunctionArguments::Subquery(query) = &mut function.args else { return None };
    let mut query = query.clone();
    aggregated(&mut query, "array_agg");
    Some(query)
}

/// Puts an aggregate around the one column of a query that has neither aggregates nor a limit.
fn aggregated(query: &mut Query, aggregate: &str) {
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [item] = select.projection.as_mut_slice() else { return };
    let (column, alias) = match &*item {
        SelectItem::UnnamedExpr(column) if aggregate == "array_agg" => {
            (column, Ident::with_quote('"', "array"))
        }
        SelectItem::UnnamedExpr(column) => (column, Ident::with_quote('"', output_name(column))),
        SelectItem::ExprWithAlias { expr, alias } => (expr, alias.clone()),
        _ => return,
    };
    if aggregates(column) {
        return;
    }
    query.order_by = None;
    *item = SelectItem::ExprWithAlias { expr: call(aggregate, column.clone()), alias };
}

/// Whether a query has more rows than the one of a SELECT without FROM.
fn reads(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if !select.from.is_empty())
}

/// Whether an expression aggregates the rows of its own query.
fn aggregates(expr: &Expr) -> bool {
    const AGGREGATES: [&str; 12] = [
        "count",
        "min",
        "max",
        "sum",
        "avg",
        "array_agg",
        "string_agg",
        "bool_or",
        "bool_and",
        "first_value",
        "json_agg",
        "json_object_agg",
    ];
    struct Calls {
        depth: usize,
    }
    impl Visitor for Calls {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            match self.depth == 0 && AGGREGATES.contains(&bare(&function.name).as_str()) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Calls { depth: 0 }).is_break()
}

pub(super) fn call(name: &str, argument: Expr) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
