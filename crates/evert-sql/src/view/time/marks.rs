//! Marks: conditions on `now()` within expressions, as columns.
//!
//! `count(*) FILTER (WHERE paid_at > now() - INTERVAL '1 hour')` or `until > now() AS open` depend
//! on time by conditions alone. Each becomes a boolean column of the rows below: the rows for
//! which it is true, false and NULL, by time, united.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result as PlanResult, internal_err};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Projection, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;
use evert_fold::Node;

use super::cells::{Marked, cells_of, marked};
use super::{mentions_now, refusal};
use crate::view::relation::{Relation, schema_of};
use crate::view::translate::{Result, Translation, fields};

/// Stands around a condition that is a column. It is never called.
static MARK: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(Mark { signature }))
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        "time_mark"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        internal_err!("a mark is a column before it is evaluated")
    }
}

/// Puts conditions on `now()` that stand within expressions of a SELECT below it, as columns.
pub(in crate::view) fn mark_now(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    plan.transform_up(|plan| match plan {
        LogicalPlan::Projection(select) if select.expr.iter().any(mentions_now) => {
            let mut marks = Marks::new(&select.input);
            let exprs = marks.replace_all(select.expr)?;
            let input = marks.below(select.input)?;
            let select = Projection::try_new_with_schema(exprs, input, select.schema)?;
            Ok(Transformed::yes(LogicalPlan::Projection(select)))
        }
        LogicalPlan::Aggregate(groups)
            if groups.group_expr.iter().chain(&groups.aggr_expr).any(mentions_now) =>
        {
            let mut marks = Marks::new(&groups.input);
            let keys = marks.replace_all(groups.group_expr)?;
            let calls = marks.replace_all(groups.aggr_expr)?;
            let input = marks.below(groups.input)?;
            let groups = Aggregate::try_new_with_schema(input, keys, calls, groups.schema)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(groups)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

struct Marks {
    schema: DFSchemaRef,
    conditions: Vec<Expr>,
}

impl Marks {
    fn new(input: &LogicalPlan) -> Self {
        Self { schema: Arc::clone(input.schema()), conditions: Vec::new() }
    }

    fn replace_all(&mut self, exprs: Vec<Expr>) -> PlanResult<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        exprs
            .into_iter()
            .map(|expr| {
                let name = names.save(&expr);
                Ok(name.restore(self.replace(expr)?))
            })
            .collect()
    }

    /// The largest conditions that can be marked become columns.
    fn replace(&mut self, expr: Expr) -> PlanResult<Expr> {
        expr.transform_down(|expr| {
            if !mentions_now(&expr) {
                return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
            }
            let expr = truths(expr);
            let is_condition = expr.get_type(&self.schema).is_ok_and(|ty| ty == DataType::Boolean);
            if !is_condition || cells_of(&expr).is_err() {
                return Ok(Transformed::yes(expr));
            }
            let known = self.conditions.iter().position(|condition| *condition == expr);
            let index = known.unwrap_or_else(|| {
                self.conditions.push(expr);
                self.conditions.len() - 1
            });
            let column = Expr::Column(Column::from_name(column_name(index)));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        })
        .data()
    }

    fn below(self, input: Arc<LogicalPlan>) -> PlanResult<Arc<LogicalPlan>> {
        if self.conditions.is_empty() {
            return Ok(input);
        }
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let marks = self.conditions.into_iter().enumerate().map(|(index, condition)| {
            let call = ScalarFunction::new_udf(Arc::clone(&MARK), vec![condition]);
            Expr::ScalarFunction(call).alias(column_name(index))
        });
        let exprs = columns.chain(marks).collect();
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
    }
}

fn column_name(index: usize) -> String {
    format!("__time_mark{index}")
}

/// Where only the truth of a condition matters, asks for that alone.
fn truths(expr: Expr) -> Expr {
    let truth = |condition: Box<Expr>| match mentions_now(&condition) {
        true => Box::new(Expr::IsTrue(condition)),
        false => condition,
    };
    match expr {
        Expr::Case(mut case) if case.expr.is_none() => {
            let branches = case.when_then_expr.into_iter();
            case.when_then_expr = branches.map(|(when, then)| (truth(when), then)).collect();
            Expr::Case(case)
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            params.filter = params.filter.map(truth);
            Expr::AggregateFunction(AggregateFunction { func, params })
        }
        other => other,
    }
}

/// The condition that a column of [`mark_now`]'s projections is.
fn condition(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Alias(alias) => condition(&alias.expr),
        Expr::ScalarFunction(call) if Arc::ptr_eq(&call.func, &MARK) => call.args.first(),
        _ => None,
    }
}

/// Whether a projection is one of [`mark_now`]'s.
pub(in crate::view) fn is_marking(projection: &Projection) -> bool {
    projection.expr.iter().any(|expr| condition(expr).is_some())
}

impl Translation<'_> {
    /// The input's rows with their marks.
    pub(in crate::view) fn marking(&mut self, projection: &Projection) -> Result<Relation> {
        let mut relation = self.relation(&projection.input)?;
        for condition in projection.expr.iter().filter_map(condition) {
            relation = self.mark(relation, condition, &projection.input)?;
        }
        relation.fields = fields(&projection.schema);
        Ok(relation)
    }

    fn mark(
        &mut self,
        mut relation: Relation,
        condition: &Expr,
        input: &LogicalPlan,
    ) -> Result<Relation> {
        let Marked { is_true, is_false, is_null } =
            marked(condition).map_err(|what| refusal(&what))?;
        let key = relation.key.clone();
        let before = relation.fields.clone();
        let node = self.builder.place(&mut relation);
        let mut all = before.clone();
        all.push(Field::new(column_name(all.len()), DataType::Boolean, true));
        let mut inputs = Vec::new();
        for (cells, value) in [(is_true, Some(true)), (is_false, Some(false)), (is_null, None)] {
            for cell in &cells {
                let rows = Relation::of_node(node, before.clone(), None);
                let rows = self.cell(rows, cell, input.schema())?;
                let rows = Relation::of_node(rows, before.clone(), None);
                let mut exprs = rows.columns();
                exprs.push(Arc::new(Literal::new(ScalarValue::Boolean(value))));
                let mut rows = self.builder.project(rows, exprs, all.clone())?;
                inputs.push(self.builder.place(&mut rows));
            }
        }
        let node = self.builder.push(Node::Union { inputs, schema: schema_of(&all) });
        Ok(Relation::of_node(node, all, key))
    }
}
