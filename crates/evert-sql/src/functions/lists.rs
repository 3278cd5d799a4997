//! Arrays taken apart and compared, as Postgres does it: subscripts count from one and nothing is
//! beyond the ends, NULL elements are in no other array, and come last.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarUDF, cast as cast_to, lit,
};

use super::array_text::{array_in, items_of};
use super::floats::formed;
use super::rows::{Call, RowFunction, cast, is_integer, of, types};
use crate::SqlError;

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 7]> = LazyLock::new(|| {
    [
        RowFunction::new("array_item", item_type, item).shared(),
        RowFunction::new("array_part", part_type, part).shared(),
        RowFunction::new("array_contains_all", pair_type, |call| held(call, true)).shared(),
        RowFunction::new("array_overlaps", pair_type, |call| held(call, false)).shared(),
        RowFunction::new("array_order", order_type, order).shared(),
        RowFunction::new("array_remove", remove_type, remove).shared(),
        RowFunction::new("array_replace", replace_type, replace).shared(),
    ]
});

/// What subscripts and operators of arrays call.
pub(crate) fn list_functions() -> &'static [Arc<ScalarUDF>] {
    &*FUNCTIONS
}

/// The functions by their place in [`FUNCTIONS`].
const CONTAINS: usize = 2;
const OVERLAPS: usize = 3;
const ORDER: usize = 4;

fn call(function: usize, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTIONS[function]), args))
}

pub(super) fn is_list(ty: &DataType) -> bool {
    matches!(ty, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

pub(super) fn item_field(ty: &DataType) -> Option<&FieldRef> {
    match ty {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item)
        }
        _ => None,
    }
}

/// A column of lists in their one physical type.
pub(super) fn lists(values: &ArrayRef) -> Result<ListArray, SqlError> {
    let list = match item_field(values.data_type()) {
        Some(item) => DataType::List(Arc::clone(item)),
        None => DataType::List(Arc::new(Field::new_list_field(DataType::Null, true))),
    };
    Ok(cast(values, &list)?.as_list::<i32>().clone())
}

fn item_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [list, place] if is_integer(place) => match item_field(list) {
            Some(item) => of(item.data_type().clone()),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `array_item(list, n)`: the nth element; NULL where there is none.
fn item(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (lists, places) = (lists(&call.values[0])?, call.integers(1)?);
    let offsets = lists.value_offsets();
    let indices = (0..call.rows).map(|row| {
        let (start, end) = (offsets[row], offsets[row + 1]);
        let is_there =
            !call.is_null(row) && (1..=i64::from(end - start)).contains(&places.value(row));
        is_there.then(|| (i64::from(start) + places.value(row) - 1) as u32)
    });
    taken(lists.values(), &indices.collect())
}

fn taken(values: &ArrayRef, indices: &UInt32Array) -> Result<ArrayRef, SqlError> {
    take(values, indices, None).map_err(|error| crate::translate::planning(&error.into(), ""))
}

fn part_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [list, from, to] if is_integer(from) && is_integer(to) => match item_field(list) {
            Some(item) => of(DataType::List(Arc::clone(item))),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `array_part(list, from, to)`: the elements from one place to another.
fn part(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (lists, from, to) = (lists(&call.values[0])?, call.integers(1)?, call.integers(2)?);
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    let nulls: NullBuffer = (0..call.rows).map(|row| !call.is_null(row)).collect();
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        let length = i64::from(ends[1] - ends[0]);
        let (first, last) = match nulls.is_valid(row) {
            true => (from.value(row).max(1), to.value(row).min(length)),
            false => (1, 0),
        };
        let before = indices.len();
        indices.extend((first..=last).map(|place| (i64::from(ends[0]) + place - 1) as u32));
        lengths.push(indices.len() - before);
    }
    let DataType::List(field) = lists.data_type() else { unreachable!("lists are lists") };
    let values = taken(lists.values(), &UInt32Array::from(indices))?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(Arc::clone(field), offsets, values, Some(nulls))))
}

/// The list's type, if its elements can be compared with `item`.
fn compared_type(list: &DataType, item: &DataType) -> Result<Option<FieldRef>> {
    match item_field(list) {
        Some(element) if common_type(element.data_type(), item).is_some() => {
            of(DataType::List(Arc::clone(element)))
        }
        _ => Ok(None),
    }
}

fn common_type(element: &DataType, item: &DataType) -> Option<DataType> {
    match item {
        DataType::Null => Some(element.clone()),
        item => comparison_coercion(element, item),
    }
}

fn remove_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [list, item] => compared_type(list, item),
        _ => Ok(None),
    }
}

fn replace_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [list, from, _] => compared_type(list, from),
        _ => Ok(None),
    }
}

/// Which elements of all lists are not distinct from their row's item: NULL is NULL.
fn same_as(lists: &ListArray, items: &ArrayRef) -> Result<Vec<bool>, SqlError> {
    let elements = lists.values();
    let common = common_type(elements.data_type(), items.data_type());
    let common = common.unwrap_or_else(|| elements.data_type().clone());
    let (elements, items) = (ordered(&cast(elements, &common)?)?, ordered(&cast(items, &common)?)?);
    let mut same = vec![false; elements.num_rows()];
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        let (from, to) = (ends[0] as usize, ends[1] as usize);
        for (place, same) in (from..to).zip(&mut same[from..to]) {
            *same = elements.row(place) == items.row(row);
        }
    }
    Ok(same)
}

/// `array_remove(list, item)`: the elements that are not the item.
fn remove(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let lists = lists(&call.values[0])?;
    let same = same_as(&lists, &call.values[1])?;
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    for ends in lists.value_offsets().windows(2) {
        let before = indices.len();
        indices.extend((ends[0] as u32..ends[1] as u32).filter(|&place| !same[place as usize]));
        lengths.push(indices.len() - before);
    }
    let DataType::List(field) = lists.data_type() else { unreachable!("lists are lists") };
    let values = taken(lists.values(), &UInt32Array::from(indices))?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(Arc::clone(field), offsets, values, lists.nulls().cloned())))
}

/// `array_replace(list, from, to)`: with `to` for each element that is `from`.
fn replace(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let lists = lists(&call.values[0])?;
    let same = same_as(&lists, &call.values[1])?;
    let (elements, to) = (lists.values(), cast(&call.values[2], lists.values().data_type())?);
    let mut places: Vec<(usize, usize)> = (0..elements.len()).map(|place| (0, place)).collect();
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        for place in ends[0] as usize..ends[1] as usize {
            if same[place] {
                places[place] = (1, row);
            }
        }
    }
    let values = interleave(&[elements.as_ref(), to.as_ref()], &places)
        .map_err(|error| crate::translate::planning(&error.into(), ""))?;
    let DataType::List(field) = lists.data_type() else { unreachable!("lists are lists") };
    let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
    Ok(Arc::new(ListArray::new(Arc::clone(field), offsets, values, nulls)))
}

fn pair_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [one, other] if is_list(one) && one == other => of(DataType::Boolean),
        _ => Ok(None),
    }
}

/// Elements as bytes that are equal and ordered as they are, NULL last.
fn ordered(values: &ArrayRef) -> Result<Rows, SqlError> {
    let options = SortOptions { descending: false, nulls_first: false };
    let field = SortField::new_with_options(values.data_type().clone(), options);
    let rows = RowConverter::new(vec![field])
        .and_then(|converter| converter.convert_columns(&[formed(values)]));
    rows.map_err(|error| crate::translate::planning(&error.into(), ""))
}

/// Whether all elements of the second list are in the first, or one is.
fn held(call: &Call<'_>, all: bool) -> Result<ArrayRef, SqlError> {
    let (holders, helds) = (lists(&call.values[0])?, lists(&call.values[1])?);
    let (in_holders, in_helds) = (ordered(holders.values())?, ordered(helds.values())?);
    let elements = |list: &ListArray, row: usize| {
        let offsets = list.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    };
    call.each::<BooleanArray, bool>(|row| {
        let mut known: Vec<_> = elements(&holders, row)
            .filter(|place| holders.values().is_valid(*place))
            .map(|place| in_holders.row(place))
            .collect();
        known.sort_unstable();
        let is_known = |place: usize| {
            helds.values().is_valid(place) && known.binary_search(&in_helds.row(place)).is_ok()
        };
        let mut held = elements(&helds, row);
        Ok(Some(if all { held.all(is_known) } else { held.any(is_known) }))
    })
}

fn order_type(args: &ReturnFieldArgs<'_>) -> Result<Option<FieldRef>> {
    match types(args).as_slice() {
        [one, other] if is_list(one) && one == other => of(DataType::Int32),
        _ => Ok(None),
    }
}

/// `array_order(a, b)`: -1, 0 or 1.
fn order(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (left, right) = (ordered(&call.values[0])?, ordered(&call.values[1])?);
    call.each::<Int32Array, i32>(|row| {
        Ok(Some(match left.row(row).cmp(&right.row(row)) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }))
    })
}

/// `a < b` of two arrays of one type.
pub(crate) fn in_list_order(left: Expr, op: Operator, right: Expr) -> Expr {
    let order = Box::new(call(ORDER, vec![left, right]));
    Expr::BinaryExpr(BinaryExpr { left: order, op, right: Box::new(lit(0_i32)) })
}

/// Operators with an array on a side.
#[derive(Debug)]
pub(crate) struct ArrayOperators;

impl ExprPlanner for ArrayOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use sqlparser::ast::BinaryOperator::{
            ArrowAt, AtArrow, Eq, Gt, GtEq, Lt, LtEq, NotEq, PGOverlap, StringConcat,
        };
        let RawBinaryExpr { op, left, right } = expr;
        let is_text =
            |side: &Expr| matches!(side, Expr::Literal(value, _) if value.try_as_str().is_some());
        let concerned = match op {
            ArrowAt | AtArrow | PGOverlap | StringConcat => true,
            // DataFusion gives parameters their types.
            Eq | NotEq | Lt | LtEq | Gt | GtEq => is_text(&left) || is_text(&right),
            _ => false,
        };
        if !concerned {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        let left_list = left.get_type(schema).ok().filter(is_list);
        let right_list = right.get_type(schema).ok().filter(is_list);
        let (left, right) = match (&left_list, &right_list) {
            (Some(list), None) => (left, as_list(right, list)?),
            (None, Some(list)) => (as_list(left, list)?, right),
            _ => (left, right),
        };
        let list = |expr: &Expr| expr.get_type(schema).ok().filter(is_list);
        let (Some(left_list), Some(right_list)) = (list(&left), list(&right)) else {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        };
        let (function, holder, held) = match op {
            AtArrow => (CONTAINS, left, right),
            ArrowAt => (CONTAINS, right, left),
            PGOverlap => (OVERLAPS, left, right),
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        let Some(common) = comparison_coercion(&left_list, &right_list) else {
            return plan_err!("{op} takes arrays of one type");
        };
        let args = [holder, held].map(|arg| match arg.get_type(schema) {
            Ok(ty) if ty == common => arg,
            _ => cast_to(arg, common.clone()),
        });
        Ok(PlannerResult::Planned(call(function, args.to_vec())))
    }
}

/// A constant text beside an array is an array of its type, and so is a parameter of none.
fn as_list(expr: Expr, list: &DataType) -> Result<Expr> {
    match expr {
        Expr::Literal(value, metadata) => match (value.try_as_str(), items_of(list)) {
            (Some(Some(_)), Some(items)) => array_in(Expr::Literal(value, metadata), items),
            _ => Ok(Expr::Literal(value, metadata)),
        },
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Some(Arc::new(Field::new("", list.clone(), true)));
            Ok(Expr::Placeholder(Placeholder { id, field }))
        }
        other => Ok(other),
    }
}
