//! Window functions.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, SortExpr, Window};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use evert_fold::Node;

use super::order::Ordered;
use super::relation::{Relation, schema_of};
use super::translate::{Result, Translation, cast, fields, unsupported};

/// Functions over one window.
struct Group<'a> {
    partition: &'a [Expr],
    order: &'a [SortExpr],
    /// Which of the window's functions.
    members: Vec<usize>,
}

impl Translation<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation> {
        let relation = self.relation(&window.input)?;
        self.window_over(relation, window)
    }

    /// A window over rows that have its input's columns.
    pub(super) fn window_over(
        &mut self,
        mut relation: Relation,
        window: &Window,
    ) -> Result<Relation> {
        let width = relation.fields.len();
        let planned = fields(&window.schema);
        // Where each function's column is among those after the input's.
        let mut places = vec![0; window.window_expr.len()];
        let mut done = 0;
        for group in groups(&window.window_expr)? {
            let key = relation.key.clone();
            let ordered = self.ordered(relation, group.partition, group.order, &window.input)?;
            let added = ordered.relation.fields.len() - width - done;
            let functions = group
                .members
                .iter()
                .map(|index| {
                    let call = &window.window_expr[*index];
                    Ok(create_window_expr(call, window.input.schema(), &self.builder.props)?)
                })
                .collect::<Result<Vec<_>>>()?;
            relation = self.windowed(ordered, functions)?;
            relation = self.without(relation, width + done..width + done + added)?;
            relation.key = key;
            for index in group.members {
                places[index] = done;
                done += 1;
            }
        }
        let columns = relation.columns();
        let mut exprs = columns[..width].to_vec();
        for (place, want) in places.iter().zip(&planned[width..]) {
            let have = relation.fields[width + place].data_type().clone();
            exprs.push(cast(Arc::clone(&columns[width + place]), &have, want.data_type()));
        }
        Ok(self.builder.project(relation, exprs, planned)?)
    }

    fn windowed(
        &mut self,
        ordered: Ordered,
        functions: Vec<Arc<dyn WindowExpr>>,
    ) -> Result<Relation> {
        let Ordered { mut relation, keys, order } = ordered;
        let input = self.builder.place(&mut relation);
        let mut fields: Vec<Field> = relation.fields;
        for function in &functions {
            fields.push(function.field()?.as_ref().clone());
        }
        let schema = schema_of(&fields);
        let node = Node::Window { input, partition: keys, order, functions, schema };
        Ok(Relation::of_node(self.builder.push(node), fields, None))
    }

    /// Drops some columns.
    fn without(&mut self, relation: Relation, dropped: std::ops::Range<usize>) -> Result<Relation> {
        let kept = |index: &usize| !dropped.contains(index);
        let columns = relation.columns();
        let kept: Vec<usize> = (0..columns.len()).filter(kept).collect();
        let exprs = kept.iter().map(|index| Arc::clone(&columns[*index])).collect();
        let fields = kept.iter().map(|index| relation.fields[*index].clone()).collect();
        Ok(self.builder.project(relation, exprs, fields)?)
    }
}

/// The functions by window, in the order of each window's first.
fn groups(exprs: &[Expr]) -> Result<Vec<Group<'_>>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (index, expr) in exprs.iter().enumerate() {
        let params = &call(expr)?.params;
        let found = groups
            .iter_mut()
            .find(|group| group.partition == params.partition_by && group.order == params.order_by);
        match found {
            Some(group) => group.members.push(index),
            None => groups.push(Group {
                partition: &params.partition_by,
                order: &params.order_by,
                members: vec![index],
            }),
        }
    }
    Ok(groups)
}

pub(super) fn call(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::WindowFunction(call) => Ok(call),
        other => Err(unsupported(format!("the window function {other}"))),
    }
}
