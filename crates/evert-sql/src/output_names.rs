//! Names of result columns, as Postgres picks them: `count` for `count(*)`, `?column?` for a sum
//! of columns.

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
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                continue;
            }
            let alias = Ident::with_quote('"', name(expr).unwrap_or_else(|| "?column?".into()));
            let expr = expr.clone();
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
        ControlFlow::Continue(())
    }
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
