//! Constant texts where values of other types give a result its type, as Postgres resolves UNION,
//! CASE and the like: `CASE WHEN paid THEN amount ELSE '0' END` is a number. And what CASE, coalesce
//! and subqueries make of JSON, which stays JSON.
//!
//! DataFusion would make texts of the others, or refuse. What an operator's sides are is settled
//! while a statement is planned (`functions::ConstantOperators`).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::expr::{Between, Case, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, Projection, Union};

use super::numbers::unified;
use super::set_operation::is_set_operation;
use crate::SqlError;
use crate::casts::is_text;
use crate::error::DATATYPE_MISMATCH;
use crate::functions::{apart_from_text, constant_as, constant_text, gives_json, marked_json};
use crate::wording::type_name;

/// Gives constants their types in a plan that comes straight from SQL.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let plan = columns(plan)?;
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| rewritten(expr, &schema))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

fn rewritten(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let found = match &mut expr {
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let thens = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            let results = thens.chain(else_expr.as_deref_mut()).collect();
            together(results, schema, |ty| Some(ty.clone()))
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if matches!(
                func.name(),
                "coalesce" | "greatest" | "least" | "nullif" | "make_array"
            ) =>
        {
            let found = together(args.iter_mut().collect(), schema, apart_from_text);
            check(func.name(), args, schema)?;
            found
        }
        Expr::InList(InList { expr, list, .. }) => {
            let sides = list.iter_mut().chain([expr.as_mut()]).collect();
            together(sides, schema, apart_from_text)
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            together(vec![expr.as_mut(), low.as_mut(), high.as_mut()], schema, apart_from_text)
        }
        _ => false,
    };
    let by_values = match &expr {
        Expr::Case(_) | Expr::ScalarSubquery(_) => true,
        Expr::ScalarFunction(call) => matches!(call.func.name(), "coalesce" | "nullif"),
        _ => false,
    };
    if by_values && gives_json(&expr, schema) {
        return Ok(Transformed::yes(marked_json(expr)));
    }
    Ok(Transformed::new_transformed(expr, found))
}

/// Refuses texts that are no constants beside types that no text is read as.
fn check(function: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    let types = args.iter().filter_map(|arg| arg.get_type(schema).ok());
    let types: Vec<DataType> = types.filter(|ty| !ty.is_null()).collect();
    let apart = types.iter().find(|ty| apart_from_text(ty).is_some());
    let (Some(apart), Some(text)) = (apart, types.iter().find(|ty| is_text(ty))) else {
        return Ok(());
    };
    let name = |ty: &DataType| type_name(&Field::new("", ty.clone(), true));
    let (function, text, apart) = (function.to_uppercase(), name(text), name(apart));
    let message = format!("{function} types {text} and {apart} cannot be matched");
    Err(DataFusionError::External(Box::new(SqlError::new(DATATYPE_MISMATCH, message))))
}

/// Constants among expressions take the type that is wanted beside the others'; says whether any
/// did.
fn together(
    exprs: Vec<&mut Expr>,
    schema: &DFSchema,
    wanted: fn(&DataType) -> Option<DataType>,
) -> bool {
    if !exprs.iter().any(|expr| constant_text(expr).is_some()) {
        return false;
    }
    let others = exprs.iter().filter(|expr| constant_text(expr).is_none());
    let ty = common(others.filter_map(|expr| expr.get_type(schema).ok()));
    let Some(ty) = ty.and_then(|ty| wanted(&ty)) else { return false };
    for expr in exprs {
        if constant_text(expr).is_some() {
            *expr = constant_as(std::mem::take(expr), &ty);
        }
    }
    true
}

/// What is neither text nor an array, which has rules of its own, and has one type.
fn common(types: impl Iterator<Item = DataType>) -> Option<DataType> {
    let mut known = types.filter(|ty| !ty.is_null());
    let first = known.next()?;
    let found = known.try_fold(first, |found, ty| match found == ty {
        true => Some(found),
        false => unified(&found, &ty),
    })?;
    (!is_text(&found) && !found.is_nested()).then_some(found)
}

/// Columns of a set operation, which are constants on one side.
fn columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Union(Union { inputs, schema }) => {
            let (inputs, types) = retyped(inputs)?;
            let fields = schema.iter().zip(types).map(|((qualifier, field), ty)| {
                let ty = ty.unwrap_or_else(|| field.data_type().clone());
                (qualifier.cloned(), Arc::new(field.as_ref().clone().with_data_type(ty)))
            });
            let metadata = schema.metadata().clone();
            let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?);
            Ok(LogicalPlan::Union(Union { inputs, schema }))
        }
        LogicalPlan::Join(mut join) if is_set_operation(&join) => {
            let (sides, _) = retyped(vec![join.left, join.right])?;
            let [left, right]: [_; 2] = sides.try_into().expect("as many come back");
            (join.left, join.right) = (left, right);
            LogicalPlan::Join(join).recompute_schema()
        }
        other => Ok(other),
    }
}

type Inputs = Vec<Arc<LogicalPlan>>;

/// Inputs whose constants have the types of the other inputs' columns, and which types those are.
fn retyped(inputs: Inputs) -> Result<(Inputs, Vec<Option<DataType>>)> {
    let width = inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let wanted = |place: usize| {
        let is_constant = |input: &&Arc<LogicalPlan>| constant_column(input, place);
        inputs.iter().find(is_constant)?;
        let others = inputs.iter().filter(|input| !constant_column(input, place));
        common(others.map(|input| input.schema().field(place).data_type().clone()))
    };
    let types: Vec<_> = (0..width).map(wanted).collect();
    if types.iter().all(Option::is_none) {
        return Ok((inputs, types));
    }
    let inputs = inputs.into_iter().map(|input| {
        let needs = |(place, ty): (usize, &Option<DataType>)| {
            ty.is_some() && constant_column(&input, place)
        };
        match types.iter().enumerate().any(needs) {
            true => with_constants(Arc::unwrap_or_clone(input), &types).map(Arc::new),
            false => Ok(input),
        }
    });
    Ok((inputs.collect::<Result<_>>()?, types))
}

/// Whether a plan's column at a place is a constant text.
fn constant_column(plan: &LogicalPlan, place: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.get(place).is_some_and(|expr| constant_text(unaliased(expr)).is_some())
        }
        LogicalPlan::Distinct(Distinct::All(input)) => constant_column(input, place),
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// A plan of constant columns, each as the type that is wanted at its place.
fn with_constants(plan: LogicalPlan, types: &[Option<DataType>]) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let named = |schema: &DFSchemaRef, place: usize, expr: Expr| {
                let (qualifier, field) = schema.qualified_field(place);
                expr.alias_qualified(qualifier.cloned(), field.name())
            };
            let exprs = expr.into_iter().enumerate().map(|(place, expr)| {
                let constant = unaliased(&expr);
                match types.get(place) {
                    Some(Some(ty)) if constant_text(constant).is_some() => {
                        named(&schema, place, constant_as(constant.clone(), ty))
                    }
                    _ => expr,
                }
            });
            Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), input)?))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let input = with_constants(Arc::unwrap_or_clone(input), types)?;
            Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
        }
        other => Ok(other),
    }
}
