//! The shape of arrays: `array_dims`, `array_ndims`, `cardinality`, `array_fill`, `trim_array`, and
//! the places that `generate_subscripts` gives.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, Int32Array, Int32Builder, ListArray, ListBuilder, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};

use super::lists::{is_list, item_field, lists};
use super::rows::{Call, RowFunction, is_integer, is_null, of, types};
use crate::SqlError;
use crate::error::PROGRAM_LIMIT;

type Returned = Result<Option<FieldRef>>;

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let functions = [
        RowFunction::new("array_dims", |args| of_list(args, DataType::Utf8View), dims),
        RowFunction::new("array_ndims", |args| of_list(args, DataType::Int32), ndims),
        RowFunction::new("cardinality", cardinality_type, cardinality),
        RowFunction::new("array_subscripts", subscripts_type, subscripts),
        RowFunction::new("trim_array", trim_type, trim),
        RowFunction::new("array_fill", fill_type, fill),
    ];
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, some in the place of DataFusion's of the same name.
pub(crate) fn shape_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn of_list(args: &ReturnFieldArgs<'_>, returns: DataType) -> Returned {
    match types(args).as_slice() {
        [list] if is_list(list) => of(returns),
        _ => Ok(None),
    }
}

/// How many elements a row's array has in each of its dimensions; none if it is empty.
fn lengths(values: &ArrayRef, row: usize) -> Result<Vec<usize>, SqlError> {
    let mut lengths = Vec::new();
    let mut list = values.slice(row, 1);
    while is_list(list.data_type()) && !list.is_empty() && list.is_valid(0) {
        list = lists(&list)?.value(0);
        if list.is_empty() {
            break;
        }
        lengths.push(list.len());
    }
    Ok(lengths)
}

fn dims(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    call.each_text(|row| {
        let lengths = lengths(&call.values[0], row)?;
        let dims: String = lengths.iter().map(|length| format!("[1:{length}]")).collect();
        Ok((!dims.is_empty()).then_some(dims))
    })
}

fn ndims(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    call.each::<Int32Array, i32>(|row| {
        let count = lengths(&call.values[0], row)?.len();
        Ok((count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX)))
    })
}

fn cardinality_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [list] if is_list(list) || list.is_null() => of(DataType::Int32),
        _ => Ok(None),
    }
}

/// The elements of all dimensions.
fn cardinality(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let item = item_field(call.values[0].data_type());
    let is_nested = item.is_some_and(|item| is_list(item.data_type()));
    let lists = lists(&call.values[0])?;
    call.each::<Int32Array, i32>(|row| {
        if !is_nested {
            return Ok(Some(lists.value_length(row)));
        }
        let lengths = lengths(&call.values[0], row)?;
        let count = if lengths.is_empty() { 0 } else { lengths.iter().product::<usize>() };
        Ok(Some(i32::try_from(count).unwrap_or(i32::MAX)))
    })
}

fn subscripts_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let list = || DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    match types(args).as_slice() {
        [values, dimension] if is_list(values) && is_integer(dimension) => of(list()),
        _ => Ok(None),
    }
}

fn subscripts(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let dimensions = call.integers(1)?;
    let mut places = ListBuilder::new(Int32Builder::new());
    for row in 0..call.rows {
        if call.is_null(row) {
            places.append_null();
            continue;
        }
        let lengths = lengths(&call.values[0], row)?;
        let dimension = usize::try_from(dimensions.value(row) - 1).ok();
        let length = dimension.and_then(|dimension| lengths.get(dimension)).copied().unwrap_or(0);
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        (1..=length).for_each(|place| places.values().append_value(place));
        places.append(true);
    }
    Ok(Arc::new(places.finish()))
}

fn trim_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [list, count] if is_integer(count) => match item_field(list) {
            Some(item) => of(DataType::List(Arc::clone(item))),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `trim_array(list, n)`: the list without its last n elements.
fn trim(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (lists, counts) = (lists(&call.values[0])?, call.integers(1)?);
    let nulls: NullBuffer = (0..call.rows).map(|row| !call.is_null(row)).collect();
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        let length = i64::from(ends[1] - ends[0]);
        let mut kept = 0;
        if nulls.is_valid(row) {
            let count = counts.value(row);
            if !(0..=length).contains(&count) {
                let message = format!("number of elements to trim must be between 0 and {length}");
                return Err(SqlError::new("2202E", message));
            }
            kept = length - count;
        }
        indices.extend((0..kept).map(|place| (i64::from(ends[0]) + place) as u32));
        lengths.push(usize::try_from(kept).unwrap_or(0));
    }
    list_of(&lists, lists.values(), indices, lengths, Some(nulls))
}

fn list_of(
    like: &ListArray,
    values: &ArrayRef,
    indices: Vec<u32>,
    lengths: Vec<usize>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, SqlError> {
    let DataType::List(item) = like.data_type() else { unreachable!("lists are lists") };
    let values = taken(values, indices)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(Arc::clone(item), offsets, values, nulls)))
}

fn taken(values: &ArrayRef, indices: Vec<u32>) -> Result<ArrayRef, SqlError> {
    take(values, &UInt32Array::from(indices), None)
        .map_err(|error| crate::translate::planning(&error.into(), ""))
}

/// `array_fill(value, ARRAY[n])`: one dimension, counted from one.
fn fill_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [value, dimensions] if !is_list(value) && is_list(dimensions) => {
            of(DataType::List(Arc::new(Field::new_list_field((*value).clone(), true))))
        }
        _ => Ok(None),
    }
}

/// As many elements as an array that is filled may have.
const FILLED_MAX: i64 = 1 << 24;

fn fill(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let dimensions = lists(&call.values[1])?;
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    let missing = || SqlError::new("22004", "dimension array or low bound array cannot be null");
    for row in 0..call.rows {
        if is_null(&call.values[1], row) {
            return Err(missing());
        }
        let sizes = super::rows::cast(&dimensions.value(row), &DataType::Int64)?;
        let sizes: &arrow::array::Int64Array = arrow::array::AsArray::as_primitive(sizes.as_ref());
        let length = match sizes.len() {
            0 => 0,
            1 if sizes.is_null(0) => {
                return Err(SqlError::new("22004", "dimension values cannot be null"));
            }
            1 => sizes.value(0),
            _ => return Err(SqlError::unsupported("array_fill() of several dimensions")),
        };
        if length > FILLED_MAX {
            let message = format!("array size exceeds the maximum allowed ({FILLED_MAX})");
            return Err(SqlError::new(PROGRAM_LIMIT, message));
        }
        let length = usize::try_from(length).unwrap_or(0);
        indices.extend(std::iter::repeat_n(row as u32, length));
        lengths.push(length);
    }
    let DataType::List(item) = call.ty else { unreachable!("it gives a list") };
    let values = taken(&call.values[0], indices)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(Arc::clone(item), offsets, values, None)))
}
