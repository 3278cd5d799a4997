//! Names of result columns, as Postgres picks them: `count` for `count(*)`, `?column?` for a sum
//! of columns.
//!
//! Postgres allows several columns of one name, DataFusion does not: the later ones carry a mark,
//! which is taken off where results go out.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectNamePart, Query, Select, SelectItem, VisitMut, VisitorMut,
};

/// Names every unnamed column of a query, of its subqueries and its common table expressions.
pub(crate) fn name_outputs(query: &mut Query) {
    let _ = query.visit(&mut Namer);
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
    match expr {
        Expr::Identifier(ident) => Some(crate::names::fold(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(crate::names::fold),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name(inner),
        Expr::Function(function) => match function.name.0.last()? {
            ObjectNamePart::Identifier(ident) => Some(crate::names::fold(ident)),
            ObjectNamePart::Function(_) => None,
        },
        Expr::Cast { expr, data_type, .. } => name(expr).or_else(|| {
            let ty = data_type.to_string().to_lowercase();
            Some(ty.split('(').next().unwrap_or_default().trim().to_owned())
        }),
        Expr::Case { else_result, .. } => {
            else_result.as_ref().and_then(|result| name(result)).or_else(|| Some("case".into()))
        }
        Expr::Extract { .. } => Some("extract".into()),
        Expr::Substring { .. } => Some("substring".into()),
        Expr::Trim { .. } => Some("btrim".into()),
        Expr::Position { .. } => Some("position".into()),
        Expr::Ceil { .. } => Some("ceil".into()),
        Expr::Floor { .. } => Some("floor".into()),
        Expr::Overlay { .. } => Some("overlay".into()),
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Array(_) => Some("array".into()),
        Expr::AtTimeZone { .. } => Some("timezone".into()),
        Expr::Value(value) if matches!(value.value, sqlparser::ast::Value::Boolean(_)) => {
            Some("bool".into())
        }
        Expr::Subquery(query) => subquery_name(query),
        _ => None,
    }
}

fn subquery_name(query: &Query) -> Option<String> {
    let select = query.body.as_select()?;
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => name(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(crate::names::fold(alias)),
        _ => None,
    }
}
