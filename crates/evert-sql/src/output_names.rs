//! Names of result columns, as Postgres picks them: `count` for `count(*)`, `?column?` for a sum
//! of columns.
//!
//! Postgres allows several columns of one name, DataFusion does not: the later ones carry a mark,
//! which is taken off where results go out.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, VisitMut,
    VisitorMut,
};

/// Names every unnamed column of a query, of its subqueries and its common table expressions.
pub(crate) fn name_outputs(query: &mut Query) {
    let _ = query.visit(&mut Namer);
    if let SetExpr::Select(select) = query.body.as_mut() {
        mark_beside_all(&mut select.projection);
    }
}

/// `SELECT id, *`: the star stands for a column of that name too. Only where results go out: what
/// reads a subquery finds the column by its name.
fn mark_beside_all(items: &mut [SelectItem]) {
    let is_all = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    if !items.iter().any(is_all) {
        return;
    }
    for (place, item) in items.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some(name) = name(expr)
        {
            let alias = Ident::with_quote('"', format!("{name}{MARK}{MARK}{place}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut seen: Vec<String> = Vec::with_capacity(select.projection.len());
        for item in &mut select.projection {
            let (expr, chosen, keep) = match item {
                SelectItem::UnnamedExpr(expr) => {
                    let is_column =
                        matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                    let chosen = name(expr).unwrap_or_else(|| "?column?".into());
                    (expr, chosen, is_column)
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let chosen = crate::names::fold(alias);
                    (expr, chosen, true)
                }
                _ => continue,
            };
            let repeated = seen.iter().filter(|other| **other == chosen).count();
            if repeated > 0 || !keep {
                let alias = match repeated {
                    0 => chosen.clone(),
                    _ => format!("{chosen}{MARK}{repeated}"),
                };
                let alias = Ident::with_quote('"', alias);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            seen.push(chosen);
        }
        ControlFlow::Continue(())
    }
}

/// Begins what tells columns of one name apart. It cannot be part of a name that was typed.
const MARK: char = '\u{1}';

/// A column's name as it is shown.
pub(crate) fn shown_name(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(shown, _)| shown)
}

/// After FigureColname in Postgres's parse_target.c.
fn name(expr: &Expr) -> Option<String> {
    figured(expr).map(|name| match name {
        Figured::Own(name) | Figured::Weak(name) => name,
    })
}

/// A name that an expression has.
enum Figured {
    Own(String),
    /// What stands around the expression may have a better one.
    Weak(String),
}

fn figured(expr: &Expr) -> Option<Figured> {
    let own = |name: &str| Some(Figured::Own(name.to_owned()));
    let folded = |ident| Some(Figured::Own(crate::names::fold(ident)));
    match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(idents) => idents.last().and_then(folded),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figured(inner),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let named = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(ident)) => folded(ident),
                _ => None,
            });
            named.or_else(|| figured(root))
        }
        Expr::Function(function) => match function.name.0.last()? {
            ObjectNamePart::Identifier(ident) => folded(ident),
            ObjectNamePart::Function(_) => None,
        },
        Expr::Cast { expr, data_type, .. } => match figured(expr) {
            Some(Figured::Own(name)) => Some(Figured::Own(name)),
            _ => Some(Figured::Weak(type_name(&data_type.to_string()))),
        },
        Expr::TypedString(typed) => Some(Figured::Weak(type_name(&typed.data_type.to_string()))),
        Expr::Interval(_) => Some(Figured::Weak("interval".into())),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figured) {
            Some(Figured::Own(name)) => Some(Figured::Own(name)),
            _ => Some(Figured::Weak("case".into())),
        },
        Expr::Extract { .. } => own("extract"),
        Expr::Substring { .. } => own("substring"),
        Expr::Trim { .. } => own("btrim"),
        Expr::Position { .. } => own("position"),
        Expr::Ceil { .. } => own("ceil"),
        Expr::Floor { .. } => own("floor"),
        Expr::Overlay { .. } => own("overlay"),
        Expr::Exists { .. } => own("exists"),
        Expr::Array(_) => own("array"),
        Expr::Tuple(_) => own("row"),
        Expr::AtTimeZone { .. } => own("timezone"),
        Expr::Subquery(query) => subquery_name(query),
        _ => None,
    }
}

/// A type by its name in Postgres's catalogs.
fn type_name(written: &str) -> String {
    let written = written.to_lowercase();
    let plain = written.split(['(', '[']).next().unwrap_or_default().trim();
    let name = match plain {
        "int" | "integer" => "int4",
        "smallint" => "int2",
        "bigint" => "int8",
        "real" => "float4",
        "float" | "double" | "double precision" => "float8",
        "decimal" | "dec" => "numeric",
        "boolean" => "bool",
        "char" | "character" => "bpchar",
        "character varying" | "char varying" => "varchar",
        "timestamp" if written.ends_with("with time zone") => "timestamptz",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time without time zone" => "time",
        other => other.rsplit('.').next().unwrap_or(other),
    };
    name.trim_matches('"').to_owned()
}

fn subquery_name(query: &Query) -> Option<Figured> {
    let select = query.body.as_select()?;
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => figured(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(Figured::Own(crate::names::fold(alias))),
        _ => None,
    }
}
