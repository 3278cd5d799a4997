//! `ARRAY(SELECT x ...)`: the subquery's rows gathered in its order, or in that of the list that it
//! unnests; an empty array of none.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef,
    Value, visit_expressions,
};

use super::output_order::numbered;
use super::{call, derived, from_functions, function_name, parsed, unnamed};
use crate::SqlError;
use crate::error::SYNTAX_ERROR;
use crate::names::fold;

const ITEM: &str = "__item";

/// Has `ARRAY(SELECT x FROM unnest(a) AS x)` gather in the list's order, if it says no other.
pub(super) fn in_list_order(function: &mut Function) {
    if function_name(&function.name).as_deref() != Some("array") {
        return;
    }
    let FunctionArguments::Subquery(query) = &mut function.args else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let ungrouped = matches!(
        &select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty()
    );
    let one_value = matches!(
        select.projection.as_slice(),
        [SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }]
    );
    let in_order = query.order_by.is_some() || select.distinct.is_some();
    let ([from], false, true, true) = (select.from.as_mut_slice(), in_order, ungrouped, one_value)
    else {
        return;
    };
    if from.joins.is_empty()
        && select.having.is_none()
        && !aggregates(&select.projection)
        && from_functions::number_rows(&mut from.relation)
    {
        query.order_by = parsed("SELECT 1 ORDER BY ordinality").order_by;
    }
}

fn aggregates(items: &Vec<SelectItem>) -> bool {
    let found = visit_expressions(items, |expr| match expr {
        Expr::Function(function)
            if function_name(&function.name)
                .is_some_and(|name| from_functions::is_aggregate(&name)) =>
        {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The same with an aggregate; `None` for other calls.
///
/// # Errors
/// 42601 if the subquery has several columns, 0A000 if it is ordered by what it does not have.
pub(super) fn collected(function: &Function) -> Result<Option<Expr>, SqlError> {
    if function_name(&function.name).as_deref() != Some("array") {
        return Ok(None);
    }
    let FunctionArguments::Subquery(query) = &function.args else { return Ok(None) };
    let mut query = query.as_ref().clone();
    let keys = match &query.order_by {
        Some(order) => match &order.kind {
            OrderByKind::Expressions(keys) => keys.clone(),
            OrderByKind::All(_) => return Err(SqlError::unsupported("ORDER BY ALL")),
        },
        None => Vec::new(),
    };
    let mut names = vec![Ident::new(ITEM)];
    let keys = keys
        .into_iter()
        .map(|key| {
            let expr = Expr::Identifier(key_name(&mut query, &key.expr, &mut names)?);
            Ok(OrderByExpr { expr, ..key })
        })
        .collect::<Result<Vec<_>, SqlError>>()?;
    // What is aggregated has its own order.
    if query.limit_clause.is_none() && query.fetch.is_none() {
        query.order_by = None;
    }
    let mut aggregate = call("array_agg", vec![unnamed(Expr::Identifier(Ident::new(ITEM)))]);
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut aggregate
        && !keys.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(keys));
    }
    let mut outer = parsed("SELECT 1 FROM x");
    if let SetExpr::Select(select) = outer.body.as_mut() {
        let columns = names.into_iter().map(|name| TableAliasColumnDef { name, data_type: None });
        let alias = TableAlias {
            explicit: true,
            name: Ident::new("__rows"),
            columns: columns.collect(),
            at: None,
        };
        select.projection = vec![SelectItem::UnnamedExpr(aggregate)];
        if let Some(from) = select.from.first_mut() {
            from.relation = derived(query, Some(alias), false);
        }
    }
    let none = Expr::value(Value::SingleQuotedString("{}".into()));
    let items = Expr::Subquery(Box::new(outer));
    Ok(Some(call("coalesce", vec![unnamed(items), unnamed(none)])))
}

/// The name of the column that holds a key: that of the items, or one that the query gets for it.
fn key_name(query: &mut Query, key: &Expr, names: &mut Vec<Ident>) -> Result<Ident, SqlError> {
    let item = Ident::new(ITEM);
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(item) };
    let expr = match select.projection.as_slice() {
        [_, ..] if numbered(key) == Some(0) => return Ok(item),
        [SelectItem::ExprWithAlias { alias, .. }] if matches!(key, Expr::Identifier(name) if fold(name) == fold(alias)) =>
        {
            return Ok(item);
        }
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }, ..] => expr,
        _ => return Err(SqlError::unsupported("ARRAY(SELECT * ... ORDER BY ...)")),
    };
    if expr == key {
        return Ok(item);
    }
    if is_distinct(select) {
        let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
        return Err(SqlError::new("42P10", message));
    }
    if names.len() != select.projection.len() {
        return Err(SqlError::new(SYNTAX_ERROR, "subquery must return only one column"));
    }
    let name = Ident::new(format!("__key_{}", names.len()));
    names.push(name.clone());
    select.projection.push(SelectItem::ExprWithAlias { expr: key.clone(), alias: name.clone() });
    Ok(name)
}

fn is_distinct(select: &Select) -> bool {
    matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_)))
}
