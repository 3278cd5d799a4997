//! Session windows in a view: `session_start` and `session_end` over a partition, as the fold's
//! operator.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, Window};
use evert_fold::Node;

use super::path::DAY_MICROS;
use super::solve::interval;
use crate::functions::{SESSION_END, SESSION_START};
use crate::view::relation::{Relation, column_index, schema_of};
use crate::view::translate::{Result, Translation, cast, fields, unsupported};

/// Whether a window computes sessions.
pub(in crate::view) fn is_session(window: &Window) -> bool {
    window.window_expr.iter().any(|expr| session_call(expr).is_some())
}

/// The function's name, and what it is called with.
fn session_call(expr: &Expr) -> Option<(&str, &WindowFunctionParams)> {
    match expr {
        Expr::Alias(alias) => session_call(&alias.expr),
        Expr::WindowFunction(call) => {
            let WindowFunction { fun, params } = call.as_ref();
            let name = fun.name();
            [SESSION_START, SESSION_END].contains(&name).then_some((name, params))
        }
        _ => None,
    }
}

impl Translation<'_> {
    pub(in crate::view) fn session(&mut self, window: &Window) -> Result<Relation> {
        let calls: Option<Vec<_>> = window.window_expr.iter().map(session_call).collect();
        let calls = calls.ok_or_else(|| unsupported("a session beside another window function"))?;
        let params = calls[0].1;
        let is_same = |other: &WindowFunctionParams| {
            other.args == params.args && other.partition_by == params.partition_by
        };
        if !calls.iter().all(|(_, params)| is_same(params)) {
            return Err(unsupported("several kinds of sessions in one SELECT"));
        }
        let gap = gap(params)?;
        let input = self.relation(&window.input)?;
        let (columns, key) = (input.fields.len(), input.key.clone());
        let mut prepared = Prepared { exprs: input.columns(), fields: input.fields.clone() };
        let schema = window.input.schema();
        let time = self.session_column(&mut prepared, &params.args[0], schema)?;
        let keys = params.partition_by.iter();
        let keys = keys.map(|key| self.session_column(&mut prepared, key, schema));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let ty = prepared.fields[time].data_type().clone();
        if !matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(unsupported(format!("a session by {ty}")));
        }
        let mut rows = self.builder.project(input, prepared.exprs, prepared.fields)?;
        let input = self.builder.place(&mut rows);
        let (mut all, width) = (rows.fields, columns_of(&calls));
        let ends = all.len();
        all.extend([SESSION_START, SESSION_END].map(|name| Field::new(name, ty.clone(), true)));
        let node = Node::Session { input, keys, time, gap, schema: schema_of(&all) };
        let sessions = Relation::of_node(self.builder.push(node), all, key);
        let planned = fields(&window.schema);
        let all = sessions.columns();
        let exprs = (0..columns).chain(width.into_iter().map(|end| ends + end));
        let exprs = exprs.zip(&planned).map(|(column, field)| {
            cast(Arc::clone(&all[column]), sessions.fields[column].data_type(), field.data_type())
        });
        let exprs = exprs.collect();
        Ok(self.builder.project(sessions, exprs, planned)?)
    }

    /// The column that an expression is, which is added unless it is there.
    fn session_column(
        &self,
        prepared: &mut Prepared,
        expr: &Expr,
        schema: &DFSchema,
    ) -> Result<usize> {
        let expr = self.physical(expr, schema)?;
        if let Some(column) = column_index(&expr) {
            return Ok(column);
        }
        let ty = expr.data_type(schema.as_arrow())?;
        prepared.fields.push(Field::new(format!("__session{}", prepared.exprs.len()), ty, true));
        prepared.exprs.push(expr);
        Ok(prepared.exprs.len() - 1)
    }
}

struct Prepared {
    exprs: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    fields: Vec<Field>,
}

/// Which end each call gives: 0 the start, 1 the end.
fn columns_of(calls: &[(&str, &WindowFunctionParams)]) -> Vec<usize> {
    calls.iter().map(|(name, _)| usize::from(*name == SESSION_END)).collect()
}

fn gap(params: &WindowFunctionParams) -> Result<i64> {
    let Some(gap) = params.args.get(1).and_then(interval) else {
        return Err(unsupported("a session whose gap is not a constant"));
    };
    let micros = i64::from(gap.days) * DAY_MICROS + gap.nanoseconds / 1_000;
    if gap.months != 0 || micros <= 0 {
        return Err(unsupported("a session whose gap is not a length of days or less"));
    }
    Ok(micros)
}
