//! ORDER BY and DISTINCT ON by the names and places of outputs.
//!
//! In Postgres a bare name in them is an output's first, whatever the input's columns are called;
//! the planner looks among both, and finds two.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, Expr, Ident, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    TableAlias, Value, visit_expressions,
};

use super::{derived, query_of, select_all};
use crate::names::fold;

/// One item of a SELECT list.
struct Output {
    name: String,
    expr: Expr,
    /// Whether it has its name from AS.
    is_alias: bool,
}

/// Replaces what names an output, or its place, by what means nothing else.
pub(super) fn settle(query: &mut Query) {
    let Query { body, order_by, .. } = query;
    let SetExpr::Select(select) = body.as_mut() else { return };
    let outputs: Vec<Option<Output>> = select.projection.iter().map(output).collect();
    // Places behind a wildcard are not known yet.
    let known = outputs.iter().position(Option::is_none).unwrap_or(outputs.len());
    let of_name = |name: &str| {
        outputs.iter().position(|output| output.as_ref().is_some_and(|output| output.name == name))
    };
    let place_of = |key: &Expr| match key {
        Expr::Identifier(ident) => of_name(&fold(ident)),
        _ => None,
    };
    let expr_at = |place: usize| {
        outputs.get(place).and_then(Option::as_ref).map(|output| unlike_a_place(&output.expr))
    };
    let mut keeps_first = false;
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        keeps_first = true;
        for key in keys {
            let place = place_of(key).or_else(|| numbered(key).filter(|place| *place < known));
            if let Some(expr) = place.and_then(expr_at) {
                *key = expr;
            }
        }
    }
    let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by else { return };
    for key in keys.iter_mut() {
        let numbered = || numbered(&key.expr).filter(|place| keeps_first && *place < known);
        let Some(place) = place_of(&key.expr).or_else(numbered) else { continue };
        let is_alias = outputs[place].as_ref().is_some_and(|output| output.is_alias);
        match expr_at(place) {
            Some(_) if is_alias && !keeps_first && place < known => {
                key.expr = Expr::value(Value::Number((place + 1).to_string(), false));
            }
            Some(expr) => key.expr = expr,
            None => {}
        }
    }
    if select.distinct.is_none() && known == outputs.len() && is_mixed_up(&outputs, keys) {
        sort_outside(select, keys);
    }
}

fn output(item: &SelectItem) -> Option<Output> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            Some(Output { name: fold(alias), expr: expr.clone(), is_alias: true })
        }
        SelectItem::UnnamedExpr(expr) => {
            let name = match expr {
                Expr::Identifier(ident) => fold(ident),
                Expr::CompoundIdentifier(idents) => fold(idents.last()?),
                _ => return None,
            };
            Some(Output { name, expr: expr.clone(), is_alias: false })
        }
        _ => None,
    }
}

/// A number as the place that it names, from zero.
pub(super) fn numbered(key: &Expr) -> Option<usize> {
    let Expr::Value(value) = key else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// A number that is an output's value names no place.
fn unlike_a_place(expr: &Expr) -> Expr {
    match expr {
        Expr::Value(_) => Expr::Nested(Box::new(expr.clone())),
        other => other.clone(),
    }
}

/// Whether an order names an input's column by the name of an output: the planner would take one
/// for the other, or see two of one name.
fn is_mixed_up(outputs: &[Option<Output>], keys: &[OrderByExpr]) -> bool {
    let is_alias = |ident: &Ident| {
        let name = fold(ident);
        outputs.iter().flatten().any(|output| output.is_alias && output.name == name)
    };
    let by_place = keys.iter().any(|key| numbered(&key.expr).is_some());
    let names_input = |key: &OrderByExpr| {
        let is_bare = matches!(key.expr, Expr::Identifier(_));
        visit_expressions(&key.expr, |expr| {
            let found = match expr {
                Expr::CompoundIdentifier(idents) => by_place && idents.last().is_some_and(is_alias),
                // Within an expression a bare name is an input's.
                Expr::Identifier(ident) => !is_bare && is_alias(ident),
                _ => false,
            };
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .is_break()
    };
    keys.iter().any(names_input)
}

/// `SELECT a AS b ... ORDER BY 1, x.b` as `SELECT o0 AS b FROM (SELECT a AS o0, x.b AS k1 ...)
/// ORDER BY o0, k1`.
fn sort_outside(select: &mut Box<Select>, keys: &mut [OrderByExpr]) {
    let table = Ident::with_quote('"', "__sorted");
    let column = |ident: &Ident| Expr::CompoundIdentifier(vec![table.clone(), ident.clone()]);
    let mut shown = Vec::with_capacity(select.projection.len());
    for (place, item) in select.projection.iter_mut().enumerate() {
        let inner = Ident::with_quote('"', format!("__output{place}"));
        let (expr, alias) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.clone()),
            SelectItem::UnnamedExpr(expr) => {
                let name = output(&SelectItem::UnnamedExpr(expr.clone()));
                let name = name.map(|output| output.name).unwrap_or_default();
                (expr.clone(), Ident::with_quote('"', name))
            }
            _ => unreachable!("a wildcard's outputs have no places"),
        };
        shown.push(SelectItem::ExprWithAlias { expr: column(&inner), alias });
        *item = SelectItem::ExprWithAlias { expr, alias: inner };
    }
    for (place, key) in keys.iter_mut().enumerate() {
        let alias = match numbered(&key.expr) {
            Some(output) => Ident::with_quote('"', format!("__output{output}")),
            None => {
                let alias = Ident::with_quote('"', format!("__key{place}"));
                let (expr, alias) = (key.expr.clone(), alias);
                select.projection.push(SelectItem::ExprWithAlias { expr, alias: alias.clone() });
                alias
            }
        };
        key.expr = column(&alias);
    }
    let mut outer = select_all();
    outer.projection = shown;
    let alias = TableAlias { explicit: true, name: table, columns: Vec::new(), at: None };
    let inner = std::mem::replace(select, outer);
    if let Some(from) = select.from.first_mut() {
        from.relation = derived(query_of(SetExpr::Select(inner)), Some(alias), false);
    }
}
