//! Windows that begin with another's name: `OVER (w ORDER BY id)`, `WINDOW v AS (w ROWS ...)`. They
//! are written out, since the planner knows whole names only (`OVER w`).
//!
//! Which parts may be added is Postgres's rule ("SELECT", WINDOW clause).

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, OrderByKind, Query, Select, SetExpr,
    VisitMut, VisitorMut, WindowSpec, WindowType,
};

use crate::SqlError;
use crate::error::{UNDEFINED_OBJECT, WINDOWING_ERROR};
use crate::names::fold;

/// Writes out the windows of a query's SELECTs, in ORDER BY too. Subqueries have windows of their
/// own.
pub(super) fn write_out(query: &mut Query) -> Result<(), SqlError> {
    let windows = in_body(&mut query.body)?;
    match query.order_by.as_mut().map(|order| &mut order.kind) {
        Some(OrderByKind::Expressions(exprs)) => in_calls(exprs, &windows),
        _ => Ok(()),
    }
}

type Windows = Vec<(String, WindowSpec)>;

/// Gives the windows that ORDER BY may name.
fn in_body(body: &mut SetExpr) -> Result<Windows, SqlError> {
    match body {
        SetExpr::Select(select) => {
            let windows = defined(select)?;
            in_calls(&mut select.projection, &windows)?;
            in_calls(&mut select.qualify, &windows)?;
            Ok(windows)
        }
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left)?;
            in_body(right)?;
            Ok(Windows::new())
        }
        _ => Ok(Windows::new()),
    }
}

fn in_calls(part: &mut impl VisitMut, windows: &Windows) -> Result<(), SqlError> {
    match part.visit(&mut Calls { windows, below: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The windows of a WINDOW clause, each written out.
fn defined(select: &mut Select) -> Result<Windows, SqlError> {
    let mut windows = Windows::with_capacity(select.named_window.len());
    for NamedWindowDefinition(name, definition) in &mut select.named_window {
        let spec = match definition {
            NamedWindowExpr::NamedWindow(of) => find(&windows, of)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => {
                complete(spec, &windows)?;
                spec.clone()
            }
        };
        *definition = NamedWindowExpr::WindowSpec(spec.clone());
        windows.push((fold(name), spec));
    }
    Ok(windows)
}

fn find<'a>(windows: &'a [(String, WindowSpec)], name: &Ident) -> Result<&'a WindowSpec, SqlError> {
    let name = fold(name);
    let found = windows.iter().find(|(other, _)| *other == name).map(|(_, spec)| spec);
    found
        .ok_or_else(|| SqlError::new(UNDEFINED_OBJECT, format!("window \"{name}\" does not exist")))
}

/// Takes into a window what the one says that it names.
fn complete(spec: &mut WindowSpec, windows: &[(String, WindowSpec)]) -> Result<(), SqlError> {
    let Some(name) = spec.window_name.take() else { return Ok(()) };
    let base = find(windows, &name)?;
    let name = fold(&name);
    let refused = |what: &str| Err(SqlError::new(WINDOWING_ERROR, what.to_owned()));
    if !spec.partition_by.is_empty() {
        return refused(&format!("cannot override PARTITION BY clause of window \"{name}\""));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return refused(&format!("cannot override ORDER BY clause of window \"{name}\""));
    }
    if base.window_frame.is_some() {
        let message = format!("cannot copy window \"{name}\" because it has a frame clause");
        return Err(SqlError::new(WINDOWING_ERROR, message)
            .hint("Omit the parentheses in this OVER clause."));
    }
    spec.partition_by = base.partition_by.clone();
    if spec.order_by.is_empty() {
        spec.order_by = base.order_by.clone();
    }
    Ok(())
}

struct Calls<'a> {
    windows: &'a [(String, WindowSpec)],
    below: usize,
}

impl VisitorMut for Calls<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.below += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.below -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if self.below == 0
            && let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
            && let Err(error) = complete(spec, self.windows)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}
