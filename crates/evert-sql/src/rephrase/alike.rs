//! What the planner calls by one name though it is not one: calls that differ in a cast only, and
//! keys that come twice in a grouping set.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select,
    SetExpr, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::Wrapped;
use crate::SqlError;

/// `sum(a), sum(a::bigint)`: the planner names both `sum(a)`, so that a cast needs another form.
pub(super) fn tell_calls_apart(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let mut calls = Calls::default();
    let _ = select.projection.visit(&mut calls);
    let _ = select.having.visit(&mut calls);
    let mut casts: Vec<Expr> = Vec::new();
    for (_, alike) in calls.0 {
        if alike.len() < 2 {
            continue;
        }
        for call in alike.values() {
            let _ = call.visit(&mut Casts(&mut casts));
        }
    }
    if !casts.is_empty() {
        let _ = query.visit(&mut Wrapped(casts));
    }
}

/// Calls by their text without casts, and then with them.
#[derive(Default)]
struct Calls(BTreeMap<String, BTreeMap<String, Function>>);

impl Visitor for Calls {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        if let Expr::Function(function) = expr {
            let mut plain = expr.clone();
            let _ = VisitMut::visit(&mut plain, &mut Uncast);
            let calls = self.0.entry(plain.to_string()).or_default();
            calls.insert(expr.to_string(), function.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Takes casts away, and counts ones in the place of rows.
struct Uncast;

impl VisitorMut for Uncast {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match expr {
            Expr::Cast { expr: inner, .. } | Expr::Nested(inner) => {
                *expr = std::mem::replace(inner, Expr::value(Value::Null));
            }
            Expr::Function(function) => count_ones(function),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `count(*)`, which the planner reads as `count(1)`.
fn count_ones(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for arg in &mut list.args {
        if matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard)) {
            let one = Expr::value(Value::Number("1".into(), false));
            *arg = FunctionArg::Unnamed(FunctionArgExpr::Expr(one));
        }
    }
}

/// The casts in an expression, each once.
struct Casts<'a>(&'a mut Vec<Expr>);

impl Visitor for Casts<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        if matches!(expr, Expr::Cast { .. }) && !self.0.contains(expr) {
            self.0.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// `ROLLUP (a, a)` as its sets, in which a key that comes again groups no further.
pub(super) fn sets_without_repeats(select: &mut Select) {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    let [group] = groups.as_mut_slice() else { return };
    let sets: Vec<Vec<Expr>> = match &*group {
        Expr::Rollup(keys) => (0..=keys.len()).rev().map(|kept| keys[..kept].concat()).collect(),
        Expr::Cube(keys) if keys.len() <= CUBE_MAX => (0..1_usize << keys.len())
            .rev()
            .map(|set| {
                let is_in = |place: usize| (set >> (keys.len() - 1 - place)) & 1 == 1;
                (0..keys.len())
                    .filter(|place| is_in(*place))
                    .flat_map(|p| keys[p].clone())
                    .collect()
            })
            .collect(),
        Expr::GroupingSets(sets) => sets.clone(),
        _ => return,
    };
    let mut repeats = false;
    let sets = sets.into_iter().map(|set| {
        let mut kept: Vec<Expr> = Vec::with_capacity(set.len());
        for key in set {
            match kept.contains(&key) {
                true => repeats = true,
                false => kept.push(key),
            }
        }
        kept
    });
    let sets: Vec<Vec<Expr>> = sets.collect();
    if repeats {
        *group = Expr::GroupingSets(sets);
    }
}

/// As many keys as Postgres takes in a CUBE.
const CUBE_MAX: usize = 12;
