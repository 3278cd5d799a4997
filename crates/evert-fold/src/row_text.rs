//! A row as JSON-like text, for error reports.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Longer text is cut.
const TEXT_BYTES_MAX: usize = 300;

/// `{"id":1,"name":"x"}`, cut to a few hundred bytes.
pub(crate) fn row_text(batch: &RecordBatch, row: usize) -> String {
    let mut text = String::from("{");
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if text.len() > 1 {
            text.push(',');
        }
        push_string(&mut text, field.name());
        text.push(':');
        push_value(&mut text, column, row);
        if text.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    text.push('}');
    cut(text)
}

fn push_value(text: &mut String, column: &dyn Array, row: usize) {
    if column.is_null(row) {
        text.push_str("null");
        return;
    }
    if let Some(infinity) = infinity(column, row) {
        return push_string(text, infinity);
    }
    let options = FormatOptions::default().with_display_error(true);
    let value = match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => error.to_string(),
    };
    let bare = column.data_type().is_numeric() || column.data_type() == &DataType::Boolean;
    if bare { text.push_str(&value) } else { push_string(text, &value) }
}

/// The largest and the smallest date and timestamp stand for infinity and -infinity.
fn infinity(column: &dyn Array, row: usize) -> Option<&'static str> {
    let number = match column.data_type() {
        DataType::Date32 => match column.as_primitive::<Date32Type>().value(row) {
            i32::MAX => i64::MAX,
            i32::MIN => i64::MIN,
            days => i64::from(days),
        },
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().value(row)
        }
        _ => return None,
    };
    match number {
        i64::MAX => Some("infinity"),
        i64::MIN => Some("-infinity"),
        _ => None,
    }
}

fn push_string(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
        if text.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    text.push('"');
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Date32Array, Int64Array, StringViewArray};
    use std::sync::Arc;

    #[test]
    fn text_is_escaped_and_cut() {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let name: ArrayRef =
            Arc::new(StringViewArray::from_iter_values(["a\"\n".to_owned(), "ü".repeat(1000)]));
        let until: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, 0]));
        let columns = [("id", id), ("until", until), ("name", name)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let first = r#"{"id":1,"until":"infinity","name":"a\"\u{a}"}"#;
        assert_eq!(row_text(&batch, 0), first);
        let long = row_text(&batch, 1);
        assert!(long.starts_with(r#"{"id":null,"until":"1970-01-01","name":"üü"#), "{long}");
        assert!(long.len() <= TEXT_BYTES_MAX + 3 && long.ends_with('…'));
    }
}
