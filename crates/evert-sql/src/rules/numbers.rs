//! Numbers, and times, of different types in one expression, as Postgres brings them together: a
//! float beside a decimal or an integer makes a float of it, decimals are multiplied and divided
//! with the digits that they need, and a date beside a timestamp is its midnight.
//!
//! DataFusion makes decimals of floats where it compares and unifies, and nanoseconds of times,
//! which reach from 1677 to 2262 only. What is settled here has one
//! type on each side already, so that it leaves it alone. Casts that a statement writes become
//! what Postgres makes of them.
//!
//! Not here: casts that DataFusion adds (`functions::CheckedArithmetic`).

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{
    Between, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::expr_schema::cast_subquery;
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Union, Values,
};
use datafusion::scalar::ScalarValue;
use evert_model::ColumnType;

use super::set_operation::with_types;
use crate::casts::is_text;
use crate::functions::{as_uuid, checked_decimals, converted};

/// Settles the numbers of a plan whose types DataFusion has not settled yet.
pub(super) fn settle(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Union(union) => unioned(union)?,
            LogicalPlan::Values(values) => listed(values)?,
            LogicalPlan::Join(mut join) => {
                let (left, right) = (Arc::clone(&join.left), Arc::clone(&join.right));
                let mut changed = false;
                for (a, b) in &mut join.on {
                    let sides = (a.get_type(left.schema())?, b.get_type(right.schema())?);
                    if let Some(ty) = compared(&sides.0, &sides.1) {
                        *a = as_type(a.clone(), &ty, left.schema())?;
                        *b = as_type(b.clone(), &ty, right.schema())?;
                        changed = true;
                    }
                }
                Transformed::new_transformed(LogicalPlan::Join(join), changed)
            }
            other => Transformed::no(other),
        };
        let changed = plan.transformed;
        let mut schema = merge_schema(&plan.data.inputs());
        if let LogicalPlan::TableScan(scan) = &plan.data {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan.data);
        let mut plan = plan
            .data
            .map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| rewritten(expr, &schema))?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)?;
        plan.transformed |= changed;
        Ok(plan)
    })
}

fn rewritten(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(cast) => match converted(&cast, schema)? {
            Some(other) => Ok(Transformed::yes(other)),
            None => Ok(Transformed::no(Expr::Cast(cast))),
        },
        Expr::BinaryExpr(binary) => operation(binary, schema),
        Expr::Between(Between { expr, negated, low, high }) => {
            let sides = vec![*expr, *low, *high];
            let (sides, changed) = together(sides, schema, compared)?;
            let [expr, low, high]: [Expr; 3] =
                sides.try_into().expect("as many come back as were given");
            let (expr, low, high) = (Box::new(expr), Box::new(low), Box::new(high));
            let between = Expr::Between(Between { expr, negated, low, high });
            Ok(Transformed::new_transformed(between, changed))
        }
        Expr::InList(InList { expr, mut list, negated }) => {
            let uuids = is_uuid(&expr, schema);
            if uuids {
                list = list.into_iter().map(uuid_of_literal).collect();
            }
            list.push(*expr);
            let (mut list, changed) = together(list, schema, compared)?;
            let expr = Box::new(list.pop().expect("as many come back as were given"));
            let list = Expr::InList(InList { expr, list, negated });
            Ok(Transformed::new_transformed(list, changed))
        }
        Expr::Case(case) => cases(case, schema),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let common: fn(&DataType, &DataType) -> Option<DataType> = match func.name() {
                "coalesce" | "greatest" | "least" | "make_array" | "nvl" | "ifnull" => unified,
                "nullif" => compared,
                _ => {
                    return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction {
                        func,
                        args,
                    })));
                }
            };
            let (args, changed) = together(args, schema, common)?;
            let call = Expr::ScalarFunction(ScalarFunction { func, args });
            Ok(Transformed::new_transformed(call, changed))
        }
        Expr::WindowFunction(mut call) if matches!(call.fun.name(), "lag" | "lead") => {
            let Some(ty) = with_default(&call.params.args, schema) else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            for place in [0, 2] {
                let arg = std::mem::take(&mut call.params.args[place]);
                call.params.args[place] = match arg {
                    Expr::Literal(value, metadata) => Expr::Literal(value.cast_to(&ty)?, metadata),
                    arg => as_type(arg, &ty, schema)?,
                };
            }
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (from, to) =
                (expr.get_type(schema), subquery.subquery.schema().field(0).data_type());
            let Some(ty) = from.ok().and_then(|from| compared(&from, to)) else {
                return Ok(Transformed::no(Expr::InSubquery(InSubquery {
                    expr,
                    subquery,
                    negated,
                })));
            };
            let (expr, subquery) =
                (Box::new(as_type(*expr, &ty, schema)?), cast_subquery(subquery, &ty)?);
            Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let (from, to) =
                (expr.get_type(schema), subquery.subquery.schema().field(0).data_type());
            let Some(ty) = from.ok().and_then(|from| compared(&from, to)) else {
                let same = SetComparison { expr, subquery, op, quantifier };
                return Ok(Transformed::no(Expr::SetComparison(same)));
            };
            let (expr, subquery) =
                (Box::new(as_type(*expr, &ty, schema)?), cast_subquery(subquery, &ty)?);
            let other = SetComparison { expr, subquery, op, quantifier };
            Ok(Transformed::yes(Expr::SetComparison(other)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The type of `lag` and `lead` with a default that is no value of the first argument's type.
fn with_default(args: &[Expr], schema: &DFSchema) -> Option<DataType> {
    let [value, _, Expr::Literal(default, _)] = args else { return None };
    let (from, to) = (default.data_type(), value.get_type(schema).ok()?);
    let there_and_back = default.cast_to(&to).and_then(|there| there.cast_to(&from));
    if !from.is_numeric() || !to.is_numeric() || there_and_back.is_ok_and(|back| back == *default) {
        return None;
    }
    unified(&to, &from)
}

/// An operator's two sides.
fn operation(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    use Operator::{
        Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply,
        NotEq, Plus,
    };
    let unchanged = |binary| Ok(Transformed::no(Expr::BinaryExpr(binary)));
    let is_comparison = matches!(
        binary.op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    );
    let is_arithmetic = matches!(binary.op, Plus | Minus | Multiply | Divide | Modulo);
    let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema))
    else {
        return unchanged(binary);
    };
    if is_comparison && (is_uuid(&binary.left, schema) || is_uuid(&binary.right, schema)) {
        return Ok(uuids(binary, schema));
    }
    let times = is_comparison && instants(&[left.clone(), right.clone()]).is_some();
    let numbers = left.is_numeric() && right.is_numeric() && (is_comparison || is_arithmetic);
    if !times && !numbers {
        return unchanged(binary);
    }
    let ty = match is_comparison {
        true => compared(&left, &right),
        false => float_of_two(&left, &right),
    };
    if let Some(ty) = ty {
        let left = Box::new(as_type(*binary.left, &ty, schema)?);
        let right = Box::new(as_type(*binary.right, &ty, schema)?);
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: binary.op, right })));
    }
    let decimals = left.is_decimal() || right.is_decimal();
    if decimals && !left.is_floating() && matches!(binary.op, Multiply | Divide) {
        let BinaryExpr { left: a, op, right: b } = binary;
        let (a, b) = (as_decimal(*a, &left, schema)?, as_decimal(*b, &right, schema)?);
        return Ok(Transformed::yes(checked_decimals(op, a, b)));
    }
    unchanged(binary)
}

/// A branch's results have one type; so have what `CASE x WHEN y` compares.
fn cases(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Case { expr, when_then_expr, else_expr } = case;
    let (mut whens, mut thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let has_else = else_expr.is_some();
    thens.extend(else_expr.map(|other| *other));
    // A CASE is taken for one of its first result's type.
    let (mut thens, mut changed) = together_always(thens, schema, unified)?;
    let else_expr = if has_else { thens.pop().map(Box::new) } else { None };
    let expr = match expr {
        Some(expr) => {
            whens.push(*expr);
            let (compared, whens_changed) = together(whens, schema, compared)?;
            whens = compared;
            changed |= whens_changed;
            whens.pop().map(Box::new)
        }
        None => None,
    };
    let pairs = whens.into_iter().zip(thens);
    let when_then_expr = pairs.map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    let case = Expr::Case(Case { expr, when_then_expr, else_expr });
    Ok(Transformed::new_transformed(case, changed))
}

/// Expressions with one type, where their types are numbers that DataFusion would bring together
/// otherwise; says whether any changed.
fn together(
    exprs: Vec<Expr>,
    schema: &DFSchema,
    common: fn(&DataType, &DataType) -> Option<DataType>,
) -> Result<(Vec<Expr>, bool)> {
    let concerned =
        |ty: DataType| ty.is_floating() || ty.is_decimal() || matches!(ty, DataType::Timestamp(..));
    match exprs.iter().any(|expr| expr.get_type(schema).is_ok_and(concerned)) {
        true => together_always(exprs, schema, common),
        false => Ok((exprs, false)),
    }
}

fn together_always(
    exprs: Vec<Expr>,
    schema: &DFSchema,
    common: fn(&DataType, &DataType) -> Option<DataType>,
) -> Result<(Vec<Expr>, bool)> {
    let types: Result<Vec<_>> = exprs.iter().map(|expr| expr.get_type(schema)).collect();
    let Some(ty) = types.ok().and_then(|types| common_type(&types, common)) else {
        return Ok((exprs, false));
    };
    let exprs = exprs.into_iter().map(|expr| as_type(expr, &ty, schema));
    Ok((exprs.collect::<Result<Vec<_>>>()?, true))
}

/// The type of several, if one of them has to change for it.
fn common_type(
    types: &[DataType],
    common: fn(&DataType, &DataType) -> Option<DataType>,
) -> Option<DataType> {
    let mut known = types.iter().filter(|ty| !ty.is_null());
    let mut found = known.next()?.clone();
    if !types.iter().all(|ty| ty.is_numeric() || ty.is_null()) {
        return instants(types);
    }
    for ty in known {
        if *ty != found {
            found = common(&found, ty).or_else(|| type_union_coercion(&found, ty))?;
        }
    }
    types.iter().any(|ty| !ty.is_null() && *ty != found).then_some(found)
}

/// The type that two numbers or times are compared in, if DataFusion would not compare them in it.
fn compared(left: &DataType, right: &DataType) -> Option<DataType> {
    float_of_two(left, right)
        .or_else(|| wide_decimal(left, right))
        .or_else(|| instants(&[left.clone(), right.clone()]))
}

/// The type of timestamps, dates and texts together, if there is a timestamp among them and they
/// differ.
fn instants(types: &[DataType]) -> Option<DataType> {
    let zones = types.iter().filter_map(|ty| match ty {
        DataType::Timestamp(_, zone) => Some(zone.clone()),
        _ => None,
    });
    let zone = zones.reduce(|zone, other| zone.or(other))?;
    let instant = DataType::Timestamp(TimeUnit::Microsecond, zone);
    let fits = |ty: &DataType| {
        let time = matches!(ty, DataType::Timestamp(..) | DataType::Date32);
        time || ty.is_null() || is_text(ty)
    };
    let differ = types.iter().any(|ty| *ty != instant && !ty.is_null());
    (differ && types.iter().all(fits)).then_some(instant)
}

/// The type of an operator over two numbers, one of which is a float: where both are reals, DataFusion
/// says so too.
fn float_of_two(left: &DataType, right: &DataType) -> Option<DataType> {
    let numbers = left.is_numeric() && right.is_numeric() && left != right;
    (numbers && (left.is_floating() || right.is_floating())).then_some(DataType::Float64)
}

/// Decimals whose digits, all together, are more than 38.
fn wide_decimal(left: &DataType, right: &DataType) -> Option<DataType> {
    let ((p1, s1), (p2, s2)) = (digits(left)?, digits(right)?);
    if left == right || !(left.is_decimal() || right.is_decimal()) {
        return None;
    }
    let scale = s1.max(s2);
    let whole = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    let precision = whole + i16::from(scale);
    let wide = u8::try_from(precision).ok().filter(|precision| (39..=76).contains(precision));
    wide.map(|precision| DataType::Decimal256(precision, scale))
}

/// The precision and scale of an exact number.
fn digits(ty: &DataType) -> Option<(u8, i8)> {
    Some(match ty {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => (*p, *s),
        _ => return None,
    })
}

/// The type that values of two types have in one column.
pub(super) fn unified(left: &DataType, right: &DataType) -> Option<DataType> {
    if left.is_numeric() && right.is_numeric() && (left.is_floating() || right.is_floating()) {
        let double = *left == DataType::Float64 || *right == DataType::Float64;
        return Some(if double { DataType::Float64 } else { DataType::Float32 });
    }
    let text = is_text(left) || is_text(right);
    let instant = if text { None } else { instants(&[left.clone(), right.clone()]) };
    instant.or_else(|| type_union_coercion(left, right))
}

/// An expression as another type, converted as Postgres does.
fn as_type(expr: Expr, ty: &DataType, schema: &DFSchema) -> Result<Expr> {
    match expr.cast_to(ty, schema)? {
        Expr::Cast(cast) => Ok(converted(&cast, schema)?.unwrap_or(Expr::Cast(cast))),
        other => Ok(other),
    }
}

/// A number as a decimal: a constant of as many digits as it has.
fn as_decimal(expr: Expr, ty: &DataType, schema: &DFSchema) -> Result<Expr> {
    if let DataType::Decimal128(..) = ty {
        return Ok(expr);
    }
    if let Expr::Literal(ScalarValue::Int64(Some(value)), metadata) = &expr {
        let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) as u8 + 1;
        let value = ScalarValue::Decimal128(Some(i128::from(*value)), digits, 0);
        return Ok(Expr::Literal(value, metadata.clone()));
    }
    let ty = match digits(ty) {
        Some((precision, scale)) => DataType::Decimal128(precision.min(38), scale.min(38)),
        None => return Ok(expr),
    };
    as_type(expr, &ty, schema)
}

fn is_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    let field = expr.to_field(schema);
    field.is_ok_and(|(_, field)| ColumnType::of_field(&field) == Some(ColumnType::Uuid))
}

/// A UUID's other forms are the same UUID.
fn uuids(binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    let BinaryExpr { left, op, right } = binary;
    let before = (left.clone(), right.clone());
    let (left, right) = match (is_uuid(&left, schema), is_uuid(&right, schema)) {
        (true, false) => (left, Box::new(uuid_of_literal(*right))),
        (false, true) => (Box::new(uuid_of_literal(*left)), right),
        _ => (left, right),
    };
    let changed = before != (left.clone(), right.clone());
    Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed)
}

fn uuid_of_literal(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
            metadata,
        ) => match crate::casts::uuid(text) {
            Ok(uuid) => Expr::Literal(ScalarValue::Utf8View(Some(uuid)), metadata.clone()),
            // Refused when it is evaluated, in words.
            Err(_) => as_uuid(expr),
        },
        _ => expr,
    }
}

/// A union's columns, in types that all of its inputs have.
fn unioned(union: Union) -> Result<Transformed<LogicalPlan>> {
    let Union { inputs, schema } = union;
    let column = |index: usize| -> Vec<DataType> {
        let types = inputs.iter().map(|input| input.schema().field(index).data_type().clone());
        types.collect()
    };
    let mut types = Vec::with_capacity(schema.fields().len());
    let mut changed = false;
    for (index, field) in schema.fields().iter().enumerate() {
        let found = column(index);
        let is_float = found.iter().any(DataType::is_floating);
        let numbers = found.iter().all(|ty| ty.is_numeric() || ty.is_null());
        let is_time = found.iter().any(|ty| matches!(ty, DataType::Timestamp(..)))
            && !found.iter().any(is_text);
        let ty = match (is_float && numbers) || is_time {
            true => {
                common_type(&found, unified).or_else(|| found.into_iter().find(|ty| !ty.is_null()))
            }
            false => None,
        };
        changed |= ty.as_ref().is_some_and(|ty| ty != field.data_type());
        types.push(ty);
    }
    let is_cast = |input: &LogicalPlan| {
        let fields = input.schema().fields().iter().zip(&types);
        let mut fields = fields.filter_map(|(field, ty)| Some((field.data_type(), ty.as_ref()?)));
        fields.any(|(have, want)| have != want)
    };
    changed |= inputs.iter().any(|input| is_cast(input));
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
    }
    let inputs = inputs.into_iter().map(|input| {
        let fields = input.schema().fields().iter().zip(&types);
        let own = |(field, ty): (&Arc<_>, &Option<DataType>)| {
            let field: &arrow::datatypes::Field = field;
            ty.clone().unwrap_or_else(|| field.data_type().clone())
        };
        let wanted: Vec<DataType> = fields.map(own).collect();
        with_types(Arc::unwrap_or_clone(input), &wanted).map(Arc::new)
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let fields = schema.iter().zip(types).map(|((qualifier, field), ty)| {
        let ty = ty.unwrap_or_else(|| field.data_type().clone());
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_data_type(ty)))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) })))
}

/// VALUES whose planner has made decimals of floats: each row as it was written, as floats.
fn listed(values: Values) -> Result<Transformed<LogicalPlan>> {
    let Values { schema, mut values } = values;
    let empty = DFSchema::empty();
    let mut types = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let ty = field.data_type();
        let made_of_float = |row: &Vec<Expr>| match &row[index] {
            Expr::Cast(Cast { expr, field }) if ty.is_decimal() && field.data_type() == ty => {
                expr.get_type(&empty).is_ok_and(|from| from.is_floating())
            }
            _ => false,
        };
        types.push(values.iter().any(made_of_float).then_some(DataType::Float64));
    }
    if types.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Values(Values { schema, values })));
    }
    for row in &mut values {
        for (cell, ty) in row.iter_mut().zip(&types) {
            let Some(ty) = ty else { continue };
            let written = match std::mem::take(cell) {
                Expr::Cast(Cast { expr, .. }) => *expr,
                other => other,
            };
            *cell = as_type(written, ty, &empty)?;
        }
    }
    let fields = schema.iter().zip(types).map(|((qualifier, field), ty)| {
        let ty = ty.unwrap_or_else(|| field.data_type().clone());
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_data_type(ty)))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    Ok(Transformed::yes(LogicalPlan::Values(Values { schema: Arc::new(schema), values })))
}
