//! Values become a table's: assignment casts, and the checks that a column makes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, ListBuilder, RecordBatch, StringViewArray,
    StringViewBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, UInt32Type};
use evert_model::{Column, ColumnType, ItemType, array_elements};
use evert_view::{Relation, TextLength};

use crate::casts::{cast, is_text, json, uuid};
use crate::error::{INVALID_TEXT, NOT_NULL_VIOLATION, STRING_TOO_LONG};
use crate::{SqlError, translate};

/// Whole rows of a relation from arrays in its columns' order, `None` where NULL is meant.
pub(crate) fn rows(
    relation: &Relation,
    values: Vec<Option<ArrayRef>>,
    count: usize,
) -> Result<RecordBatch, SqlError> {
    let schema = &relation.schema;
    let arrow = schema.to_arrow();
    let mut arrays = Vec::with_capacity(schema.columns.len());
    for (column, value) in schema.columns.iter().zip(values) {
        let array = match value {
            Some(value) => given(relation, column, &value)?,
            None => arrow::array::new_null_array(&column.ty.arrow_type(), count),
        };
        if !column.nullable && array.null_count() > 0 {
            let message = format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null \
                 constraint",
                column.name, relation.name
            );
            return Err(SqlError::new(NOT_NULL_VIOLATION, message));
        }
        arrays.push(array);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(arrow, arrays, &options)
        .map_err(|error| translate::planning(&error.into(), ""))
}

/// Values as a relation's column takes them from a statement.
pub(crate) fn given(
    relation: &Relation,
    column: &Column,
    values: &ArrayRef,
) -> Result<ArrayRef, SqlError> {
    let values = assign(column, values)?;
    match (relation.lengths.get(&column.name), column.ty) {
        (Some(length), ColumnType::Text) => fitted(*length, &values)
            .map_err(|error| error.context(format!("column \"{}\"", column.name))),
        _ => Ok(values),
    }
}

/// Texts that are short enough. Of one that is too long blanks at its end are cut.
fn fitted(length: TextLength, texts: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let TextLength { chars, blank } = length;
    let fit = |text: &str| -> Result<String, SqlError> {
        let text = if blank { text.trim_end_matches(' ') } else { text };
        let Some((end, _)) = text.char_indices().nth(chars as usize) else {
            return Ok(text.to_owned());
        };
        let (kept, cut) = text.split_at(end);
        if cut.bytes().all(|byte| byte == b' ') {
            return Ok(kept.to_owned());
        }
        let ty = if blank { "character" } else { "character varying" };
        let message = format!("value too long for type {ty}({chars})");
        Err(SqlError::new(STRING_TOO_LONG, message))
    };
    let is_short = |text: &str| text.len() <= chars as usize && !(blank && text.ends_with(' '));
    if texts.as_string_view().iter().flatten().all(is_short) {
        return Ok(Arc::clone(texts));
    }
    checked_text(texts, fit)
}

/// Casts values as Postgres does on assignment: what does not fit is an error, fractions are
/// rounded.
pub(crate) fn assign(column: &Column, values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let to = column.ty.arrow_type();
    let text = is_text(values.data_type());
    match column.ty {
        ColumnType::Json if text => checked_text(values, json),
        ColumnType::Uuid if text => checked_text(values, uuid),
        ColumnType::Array(item) => return arrays(column, item, values),
        _ => cast(values, &to),
    }
    .map_err(|error| error.context(format!("column \"{}\"", column.name)))
}

/// Arrays, or texts of such, with their elements assigned one by one.
fn arrays(column: &Column, item: ItemType, values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let lists = match values.data_type() {
        ty if is_text(ty) => array_texts(column, values)?,
        DataType::List(_) => values.as_list::<i32>().clone(),
        DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
            cast(values, &DataType::List(Arc::clone(of)))?.as_list::<i32>().clone()
        }
        _ => return cast(values, &column.ty.arrow_type()),
    };
    let (start, end) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
    let items = lists.values().slice(start as usize, (end - start) as usize);
    let column = Column { name: column.name.clone(), ty: item.column_type(), nullable: true };
    let items = assign(&column, &items)?;
    let field = Arc::new(Field::new_list_field(column.ty.arrow_type(), true));
    let offsets = OffsetBuffer::from_lengths(lists.offsets().lengths());
    Ok(Arc::new(ListArray::new(field, offsets, items, lists.nulls().cloned())))
}

/// `{1,NULL,"a b"}` as arrays of texts.
fn array_texts(column: &Column, values: &ArrayRef) -> Result<ListArray, SqlError> {
    let values = cast(values, &DataType::Utf8View)?;
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for text in values.as_string_view() {
        let Some(text) = text else {
            lists.append_null();
            continue;
        };
        let elements = array_elements(text).ok_or_else(|| {
            SqlError::new(INVALID_TEXT, format!("malformed array literal: \"{text}\""))
                .context(format!("column \"{}\"", column.name))
        })?;
        lists.append_value(elements);
    }
    Ok(lists.finish())
}

fn checked_text(
    values: &ArrayRef,
    check: impl Fn(&str) -> Result<String, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let values = cast(values, &DataType::Utf8View)?;
    let checked = values
        .as_string_view()
        .iter()
        .map(|value| value.map(&check).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StringViewArray::from_iter(checked)))
}

/// The rows at these indexes.
pub(super) fn take(rows: &RecordBatch, indexes: Vec<u32>) -> Result<RecordBatch, SqlError> {
    let indexes = arrow::array::PrimitiveArray::<UInt32Type>::from(indexes);
    arrow::compute::take_record_batch(rows, &indexes)
        .map_err(|error| translate::planning(&error.into(), ""))
}
