//! The naive answer: each operator over whole multisets, in the plainest way.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use evert_fold::{AggregateFunction, JoinKind, SetOp};

use crate::plans::{Expr, Naive, NaiveAggregate, NaiveJoin};
use crate::values::{Row, Value};
use crate::{general, ordered, spread};

/// A row or group that has no answer.
struct Failed;

/// The rows, and how many rows and groups are in error.
pub(crate) fn answer(plan: &Naive, inputs: &[Vec<Row>]) -> (Vec<Row>, i64) {
    match plan {
        Naive::Input(index) => (inputs[*index].clone(), 0),
        Naive::Project { input, predicate, exprs } => {
            let (rows, errors) = answer(input, inputs);
            project(&rows, predicate.as_ref(), Some(exprs), errors)
        }
        Naive::Join(join) => naive_join(join, inputs),
        Naive::Reduce { input, keys, aggregates } => {
            let (rows, errors) = answer(input, inputs);
            reduce(&rows, keys, aggregates, errors)
        }
        Naive::Distinct(input) => {
            let (rows, errors) = answer(input, inputs);
            let rows: BTreeSet<Row> =
                rows.iter().map(|row| row.iter().map(Value::normalised).collect()).collect();
            (rows.into_iter().collect(), errors)
        }
        Naive::SetOp { left, right, op, all } => {
            let (left, left_errors) = answer(left, inputs);
            let (right, right_errors) = answer(right, inputs);
            (set_op(&left, &right, *op, *all), left_errors + right_errors)
        }
        Naive::TopK { input, keys, order, skip, limit } => {
            let (rows, errors) = answer(input, inputs);
            (ordered::first_rows(&rows, keys, order, *skip, *limit), errors)
        }
        Naive::Window { input, partition, order, functions } => {
            let (rows, errors) = answer(input, inputs);
            (ordered::windowed(&rows, partition, order, functions), errors)
        }
        Naive::Union(parts) => {
            // The first part is one node that is read twice, alone and through the second.
            let answers: Vec<_> = parts.iter().map(|part| answer(part, inputs)).collect();
            let errors = answers[1].1;
            (answers.into_iter().flat_map(|(rows, _)| rows).collect(), errors)
        }
    }
}

fn set_op(left: &[Row], right: &[Row], op: SetOp, all: bool) -> Vec<Row> {
    let normalised = |rows: &[Row]| -> Vec<Row> {
        rows.iter().map(|row| row.iter().map(Value::normalised).collect()).collect()
    };
    let (mut left, mut right) = (normalised(left), normalised(right));
    if !all {
        left.sort();
        left.dedup();
        return left
            .into_iter()
            .filter(|row| right.contains(row) == (op == SetOp::Intersect))
            .collect();
    }
    // Each right row stands against one left row.
    left.retain(|row| match right.iter().position(|other| other == row) {
        Some(at) => {
            right.swap_remove(at);
            op == SetOp::Intersect
        }
        None => op == SetOp::Except,
    });
    left
}

/// Every pair of rows is tried.
fn naive_join(join: &NaiveJoin, inputs: &[Vec<Row>]) -> (Vec<Row>, i64) {
    use JoinKind::{Anti, Full, Inner, Left, Mark, NullAwareAnti, Right, Semi};
    let (left, left_errors) = answer(&join.left, inputs);
    let (right, right_errors) = answer(&join.right, inputs);
    let mut errors = left_errors + right_errors;
    let mut out = Vec::new();
    let mut right_matched = vec![false; right.len()];
    for left in &left {
        let mut matched = false;
        for (right, right_matched) in right.iter().zip(&mut right_matched) {
            let row = [left.as_slice(), right.as_slice()].concat();
            if !keys_match(join, left, right) {
                continue;
            }
            match project_row(&row, join.filter.as_ref(), None) {
                Err(Failed) => errors += 1,
                Ok(None) => {}
                Ok(Some(row)) => {
                    (matched, *right_matched) = (true, true);
                    if matches!(join.kind, Inner | Left | Right | Full) {
                        out.push(row);
                    }
                }
            }
        }
        match join.kind {
            Left | Full if !matched => {
                out.push([left.clone(), vec![Value::Null; join.columns.1]].concat());
            }
            Semi if matched => out.push(left.clone()),
            Anti | NullAwareAnti if !matched => out.push(left.clone()),
            Mark => out.push([left.clone(), vec![Value::Bool(matched)]].concat()),
            _ => {}
        }
    }
    if matches!(join.kind, Right | Full) {
        let unmatched = right.iter().zip(&right_matched).filter(|(_, matched)| !**matched);
        out.extend(
            unmatched.map(|(row, _)| [vec![Value::Null; join.columns.0], row.clone()].concat()),
        );
    }
    (out, errors)
}

/// For NOT IN, a comparison that is not known to be false counts: `x NOT IN (...)` is true only if
/// none of them is true or unknown.
fn keys_match(join: &NaiveJoin, left: &Row, right: &Row) -> bool {
    join.on.iter().all(|&(l, r)| {
        let is_null = (left[l] == Value::Null, right[r] == Value::Null);
        let equal = left[l].normalised() == right[r].normalised();
        match (join.kind, is_null) {
            (_, (false, false)) => equal,
            (JoinKind::NullAwareAnti, _) => true,
            (_, both) => join.null_equal && both == (true, true),
        }
    })
}

fn project(
    rows: &[Row],
    predicate: Option<&Expr>,
    exprs: Option<&[Expr]>,
    mut errors: i64,
) -> (Vec<Row>, i64) {
    let mut out = Vec::new();
    for row in rows {
        match project_row(row, predicate, exprs) {
            Ok(projected) => out.extend(projected),
            Err(Failed) => errors += 1,
        }
    }
    (out, errors)
}

fn project_row(
    row: &Row,
    predicate: Option<&Expr>,
    exprs: Option<&[Expr]>,
) -> Result<Option<Row>, Failed> {
    if let Some(predicate) = predicate
        && evaluate(predicate, row)? != Value::Bool(true)
    {
        return Ok(None);
    }
    match exprs {
        None => Ok(Some(row.clone())),
        Some(exprs) => {
            exprs.iter().map(|expr| evaluate(expr, row)).collect::<Result<Row, _>>().map(Some)
        }
    }
}

fn evaluate(expr: &Expr, row: &Row) -> Result<Value, Failed> {
    let ints = |left: &Expr, right: &Expr| match (evaluate(left, row)?, evaluate(right, row)?) {
        (Value::Int(left), Value::Int(right)) => Ok(Some((left, right))),
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        other => panic!("{other:?} are no integers"),
    };
    let checked = |value: Option<i64>| value.map(Value::Int).ok_or(Failed);
    match expr {
        Expr::Column(i) => Ok(row[*i].clone()),
        Expr::Int(value) => Ok(Value::Int(*value)),
        Expr::Add(left, right) => {
            ints(left, right)?.map_or(Ok(Value::Null), |(l, r)| checked(l.checked_add(r)))
        }
        Expr::Div(left, right) => {
            ints(left, right)?.map_or(Ok(Value::Null), |(l, r)| checked(l.checked_div(r)))
        }
        Expr::Less(left, right) => {
            Ok(ints(left, right)?.map_or(Value::Null, |(l, r)| Value::Bool(l < r)))
        }
    }
}

fn reduce(
    rows: &[Row],
    keys: &[usize],
    aggregates: &[NaiveAggregate],
    mut errors: i64,
) -> (Vec<Row>, i64) {
    let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    for row in rows {
        let key = keys.iter().map(|&key| row[key].normalised()).collect();
        groups.entry(key).or_default().push(row);
    }
    let mut out = Vec::new();
    for (key, rows) in groups {
        let values: Result<Row, Failed> =
            aggregates.iter().map(|aggregate| aggregate_rows(aggregate, &rows)).collect();
        match values {
            Ok(values) => out.push([key, values].concat()),
            Err(Failed) => errors += 1,
        }
    }
    (out, errors)
}

fn aggregate_rows(aggregate: &NaiveAggregate, rows: &[&Row]) -> Result<Value, Failed> {
    let NaiveAggregate { aggregate, argument, general } = aggregate;
    let passes = |row: &&&Row| aggregate.filter.is_none_or(|f| row[f] == Value::Bool(true));
    if let Some(general) = general {
        let rows: Vec<&Row> = rows.iter().filter(passes).copied().collect();
        return Ok(general::answer(general, &rows));
    }
    let Some(column) = aggregate.argument else {
        return Ok(Value::Int(rows.iter().filter(passes).count() as i64));
    };
    let mut values: Vec<Value> =
        rows.iter().filter(passes).map(|row| row[column].normalised()).collect();
    values.retain(|value| *value != Value::Null);
    values.sort();
    if aggregate.distinct {
        values.dedup();
    }
    let argument = argument.as_ref().expect("it has a type");
    let first = values.first().cloned();
    match aggregate.function {
        AggregateFunction::Count => Ok(Value::Int(values.len() as i64)),
        AggregateFunction::Min => Ok(first.unwrap_or(Value::Null)),
        AggregateFunction::Max => Ok(values.pop().unwrap_or(Value::Null)),
        _ if values.is_empty() => Ok(Value::Null),
        AggregateFunction::Sum if argument.is_floating() => Ok(Value::float(float_sum(&values))),
        AggregateFunction::Sum => digits_38(Some(integer_sum(&values)?)),
        AggregateFunction::Avg => average(&values, argument),
        AggregateFunction::Spread(of) => {
            let scale = if let DataType::Decimal128(_, scale) = argument { *scale } else { 0 };
            Ok(spread::spread(of, &values, scale))
        }
        AggregateFunction::BoolAnd => Ok(first.expect("there is a value")),
        AggregateFunction::BoolOr => Ok(values.pop().expect("there is a value")),
        AggregateFunction::General(_) => unreachable!("it has its own answer"),
    }
}

/// Shewchuk's expansion, as Python's fsum: exact until it is rounded.
fn float_sum(values: &[Value]) -> f64 {
    let special: f64 = values.iter().map(Value::as_f64).filter(|v| !v.is_finite()).sum();
    if special != 0.0 {
        return if special.is_nan() { f64::NAN } else { special };
    }
    let mut partials: Vec<f64> = Vec::new();
    for value in values {
        let mut x = value.as_f64();
        let mut kept = Vec::new();
        for &partial in &partials {
            let (big, small) = if x.abs() < partial.abs() { (partial, x) } else { (x, partial) };
            let high = big + small;
            let low = small - (high - big);
            if low != 0.0 {
                kept.push(low);
            }
            x = high;
        }
        kept.push(x);
        partials = kept;
    }
    rounded(partials)
}

/// Partials do not overlap, the greatest last.
fn rounded(mut partials: Vec<f64>) -> f64 {
    let mut sum = partials.pop().unwrap_or(0.0);
    let mut low = 0.0;
    while let Some(next) = partials.pop() {
        let x = sum;
        sum = x + next;
        low = next - (sum - x);
        if low != 0.0 {
            break;
        }
    }
    // What is left decides a tie.
    if partials.last().is_some_and(|next| low * next > 0.0) {
        let x = sum + low * 2.0;
        if low * 2.0 == x - sum {
            sum = x;
        }
    }
    sum + 0.0
}

/// Sums of more than 128 bits have failed long before.
fn integer_sum(values: &[Value]) -> Result<i128, Failed> {
    // By parts, so that sums that come back into range on the way are not lost.
    let (mut high, mut low) = (0_i128, 0_i128);
    const PART: i128 = 1 << 64;
    for value in values {
        let value = match value {
            Value::Int(value) => i128::from(*value),
            Value::Decimal(value) => *value,
            other => panic!("{other:?} is no number"),
        };
        high += value.div_euclid(PART);
        low += value.rem_euclid(PART);
    }
    high += low.div_euclid(PART);
    high.checked_mul(PART).and_then(|h| h.checked_add(low.rem_euclid(PART))).ok_or(Failed)
}

fn average(values: &[Value], argument: &DataType) -> Result<Value, Failed> {
    let count = values.len() as i128;
    match argument {
        t if t.is_floating() => Ok(Value::float(float_sum(values) / count as f64)),
        DataType::Decimal128(_, scale) => {
            let more = 10_i128.pow((16 - i32::from(*scale)).max(0) as u32);
            let Some(sum) = integer_sum(values)?.checked_mul(more) else { return Err(Failed) };
            let (quotient, rest) = (sum / count, (sum % count).abs());
            digits_38(Some(if rest * 2 >= count { quotient + sum.signum() } else { quotient }))
        }
        _ => Ok(Value::float(integer_sum(values)? as f64 / count as f64)),
    }
}

fn digits_38(value: Option<i128>) -> Result<Value, Failed> {
    match value {
        Some(value) if value.unsigned_abs() < 10_u128.pow(38) => Ok(Value::Decimal(value)),
        _ => Err(Failed),
    }
}
