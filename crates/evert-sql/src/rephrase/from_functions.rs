//! Functions in FROM, as subqueries: `FROM t, unnest(t.list) AS x`, `FROM upper('x') AS u(v)`.
//!
//! Owns: which functions return rows and how a list has them, the names of columns, WITH ORDINALITY.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::functions_aggregate::all_default_aggregate_functions;
use sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident,
    ObjectName, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, Value,
    visit_expressions,
};

use super::spelled::called;
use super::{derived, function_name, names_columns, parsed_expr, query_of, select_all, unnamed};
use crate::SqlError;
use crate::error::{GROUPING_ERROR, INVALID_COLUMN_REFERENCE};
use crate::functions::aggregate_functions;
use crate::names::fold;

/// How a function that returns rows is had from one that returns a list: the list's function and
/// the name of the column, `None` for that of the table.
pub(super) fn list_function(name: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match name {
        "unnest" => ("unnest", None),
        "generate_series" => ("generate_series", None),
        "generate_subscripts" => ("array_subscripts", None),
        "string_to_table" => ("string_to_array", None),
        "regexp_split_to_table" => ("regexp_split_to_array", None),
        "regexp_matches" => ("regexp_all_matches", None),
        "json_array_elements" | "jsonb_array_elements" => ("json_elements", Some("value")),
        "json_array_elements_text" | "jsonb_array_elements_text" => {
            ("json_elements_text", Some("value"))
        }
        "json_object_keys" | "jsonb_object_keys" => ("json_keys", None),
        _ => return None,
    })
}

/// The lists that stand side by side as the columns of a function's rows.
fn lists(name: &str, args: &[FunctionArg]) -> Option<Vec<Column>> {
    let list = |function: &'static str, name| Column {
        list: call(function, args.to_vec()),
        is_json: matches!(function, "json_elements" | "json_values"),
        name,
    };
    if let "json_each" | "jsonb_each" | "json_each_text" | "jsonb_each_text" = name {
        let values = if name.ends_with("_text") { "json_values_text" } else { "json_values" };
        return Some(vec![list("json_keys", Some("key")), list(values, Some("value"))]);
    }
    let (function, column) = list_function(name)?;
    if function != "unnest" {
        return Some(vec![list(function, column)]);
    }
    let plain = args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(list)) => {
            Some(Column { list: list.clone(), is_json: false, name: None })
        }
        _ => None,
    });
    plain.collect()
}

/// A column of a function's rows.
struct Column {
    list: Expr,
    is_json: bool,
    name: Option<&'static str>,
}

impl Column {
    fn unnested(self) -> Expr {
        let rows = called("unnest", [self.list]);
        if self.is_json { called("json_value", [rows]) } else { rows }
    }
}

/// Functions that the planner has as tables.
const TABLES: [&str; 2] = ["search", "range"];

/// A function in FROM, as it was written.
struct Source {
    name: String,
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    with_ordinality: bool,
}

impl Source {
    fn of(factor: &TableFactor) -> Option<Self> {
        if let TableFactor::Table { name, .. } | TableFactor::Function { name, .. } = factor
            && let [schema, _] = name.0.as_slice()
            && schema.as_ident().is_none_or(|schema| fold(schema) != "pg_catalog")
        {
            return None;
        }
        Some(match factor {
            TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => Self {
                name: function_name(name)?,
                args: args.args.clone(),
                alias: alias.clone(),
                with_ordinality: *with_ordinality,
            },
            TableFactor::Function { name, args, alias, with_ordinality, .. } => Self {
                name: function_name(name)?,
                args: args.clone(),
                alias: alias.clone(),
                with_ordinality: *with_ordinality,
            },
            TableFactor::UNNEST {
                array_exprs, alias, with_offset: false, with_ordinality, ..
            } => Self {
                name: "unnest".into(),
                args: array_exprs.iter().cloned().map(unnamed).collect(),
                alias: alias.clone(),
                with_ordinality: *with_ordinality,
            },
            _ => return None,
        })
    }

    /// The name of the rows.
    fn table(&self) -> Ident {
        self.alias.as_ref().map_or_else(|| Ident::new(&self.name), |alias| alias.name.clone())
    }

    /// The columns' expressions and the names that they have if the alias gives none.
    fn columns(&self) -> Vec<(Expr, Ident)> {
        let table = self.table();
        let args = match self.name.as_str() {
            "generate_series" => series_arguments(self.args.clone()),
            _ => self.args.clone(),
        };
        let Some(lists) = lists(&self.name, &args) else {
            let value = call(&self.name, args);
            let mut columns = vec![(value, table)];
            if self.with_ordinality {
                columns.push((parsed_expr("CAST(1 AS bigint)"), Ident::new("ordinality")));
            }
            return columns;
        };
        let lengths = lists.iter().map(|column| called("cardinality", [column.list.clone()]));
        let longest = called("greatest", lengths.collect::<Vec<_>>());
        let named = |(place, column): (usize, Column)| {
            let name = match (column.name, place) {
                (Some(name), _) => Ident::new(name),
                (None, 0) => table.clone(),
                (None, place) => Ident::new(format!("{}_{place}", table.value)),
            };
            (column.unnested(), name)
        };
        let mut columns: Vec<_> = lists.into_iter().enumerate().map(named).collect();
        if self.with_ordinality {
            let places = called("generate_series", [parsed_expr("1"), longest]);
            columns.push((called("unnest", [places]), Ident::new("ordinality")));
        }
        columns
    }
}

/// Has the rows of a function in FROM numbered, if it unnests a list; says whether it does.
pub(super) fn number_rows(factor: &mut TableFactor) -> bool {
    let is_list = |source: Source| list_function(&source.name).is_some();
    if !Source::of(factor).is_some_and(is_list) {
        return false;
    }
    match factor {
        TableFactor::Table { with_ordinality, .. }
        | TableFactor::Function { with_ordinality, .. }
        | TableFactor::UNNEST { with_ordinality, .. } => {
            *with_ordinality = true;
            true
        }
        _ => false,
    }
}

/// A function in FROM as a subquery, lateral where it names columns. `None`: it is none, or one
/// that ad-hoc reads run row by row.
pub(super) fn as_subquery(
    factor: &TableFactor,
    in_view: bool,
) -> Result<Option<TableFactor>, SqlError> {
    let Some(source) = Source::of(factor) else { return Ok(None) };
    if TABLES.contains(&source.name.as_str()) {
        return Ok(None);
    }
    if source.args.is_empty() && crate::system::is_function(&source.name) {
        return Ok(Some(relation(source)));
    }
    let lateral = names_columns(&source.args);
    let is_series = source.name == "generate_series";
    if is_series && !lateral && !in_view && !source.with_ordinality && are_integers(&source.args) {
        return Ok(None);
    }
    if is_aggregate(&source.name) {
        let message = "aggregate functions are not allowed in functions in FROM";
        return Err(SqlError::new(GROUPING_ERROR, message));
    }
    let table = source.table();
    let names = source.alias.as_ref().map(|alias| alias.columns.clone()).unwrap_or_default();
    let columns = source.columns();
    if names.len() > columns.len() {
        let message = format!(
            "table \"{}\" has {} columns available but {} columns specified",
            table.value,
            columns.len(),
            names.len()
        );
        return Err(SqlError::new(INVALID_COLUMN_REFERENCE, message));
    }
    let mut select = select_all();
    select.from.clear();
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    let item = |(place, (expr, name)): (usize, (Expr, Ident))| {
        let given = names.get(place).map(|TableAliasColumnDef { name, .. }| name.clone());
        SelectItem::ExprWithAlias { expr, alias: given.unwrap_or(name) }
    };
    select.projection = columns.into_iter().enumerate().map(item).collect();
    let alias = TableAlias { explicit: true, name: table, columns: Vec::new(), at: None };
    Ok(Some(derived(query_of(SetExpr::Select(select)), Some(alias), lateral)))
}

/// The relation that a function without arguments is.
fn relation(source: Source) -> TableFactor {
    let mut select = select_all();
    let table = source.table();
    if let Some(from) = select.from.first_mut()
        && let TableFactor::Table { name, .. } = &mut from.relation
    {
        *name = ObjectName::from(vec![Ident::new("pg_catalog"), Ident::new(&source.name)]);
    }
    let columns = source.alias.map(|alias| alias.columns).unwrap_or_default();
    let alias = TableAlias { explicit: true, name: table, columns, at: None };
    derived(query_of(SetExpr::Select(select)), Some(alias), false)
}

fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    super::call(name, args)
}

/// Whether a function takes many rows.
pub(super) fn is_aggregate(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let own = aggregate_functions().map(|function| function.name().to_owned());
        let others = all_default_aggregate_functions();
        let others = others.into_iter().flat_map(|function| {
            let aliases = function.aliases().to_vec();
            aliases.into_iter().chain([function.name().to_owned()])
        });
        // Those that are another's name.
        let more = ["every", "variance", "json_agg", "jsonb_agg"].map(str::to_owned);
        own.chain(others).chain(more).collect()
    });
    NAMES.contains(name)
}

/// A text that is a bound of a series has the type of the other bound, and a step is an interval.
fn series_arguments(mut args: Vec<FunctionArg>) -> Vec<FunctionArg> {
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let is_text = |expr: &Expr| matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    let cast = |expr: Expr, data_type: SqlType| {
        let (kind, expr) = (CastKind::Cast, Box::new(expr));
        unnamed(Expr::Cast { kind, expr, data_type, array: false, format: None })
    };
    let bounds: Vec<_> = args.iter().take(2).map(plain).collect();
    for (place, other) in [(0, 1), (1, 0)] {
        let other = match bounds.get(other) {
            Some(Some(Expr::Cast { data_type, .. })) => Some(data_type.clone()),
            Some(Some(Expr::TypedString(typed))) => Some(typed.data_type.clone()),
            _ => None,
        };
        if let (Some(Some(text)), Some(ty)) = (bounds.get(place), other)
            && is_text(text)
        {
            args[place] = cast(text.clone(), ty);
        }
    }
    if let Some(step) = args.get(2).and_then(plain).filter(is_text) {
        args[2] = cast(step, SqlType::Interval { fields: None, precision: None });
    }
    args
}

/// The one column of a series is named after its table.
pub(super) fn name_series(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: Some(_), alias, .. } = factor else { return };
    if function_name(name).as_deref() != Some("generate_series") {
        return;
    }
    let table = Ident::new("generate_series");
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: table,
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
    }
}

/// Whether arguments are made of whole numbers alone.
fn are_integers(args: &Vec<FunctionArg>) -> bool {
    let other = visit_expressions(args, |expr| {
        let is_whole = match expr {
            Expr::Value(value) => matches!(&value.value, Value::Number(digits, _)
                if digits.bytes().all(|byte| byte.is_ascii_digit())),
            Expr::UnaryOp { .. } | Expr::BinaryOp { .. } | Expr::Nested(_) => true,
            _ => false,
        };
        if is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    other.is_continue()
}
