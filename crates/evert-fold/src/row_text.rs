//! A row as JSON-like text, for error reports.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
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
    let options = FormatOptions::default().with_display_error(true);
    let value = match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => error.to_string(),
    };
    let bare = column.data_type().is_numeric() || column.data_type() == &DataType::Boolean;
    if bare { text.push_str(&value) } else { push_string(text, &value) }
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
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use std::sync::Arc;

    #[test]
    fn text_is_escaped_and_cut() {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let name: ArrayRef =
            Arc::new(StringViewArray::from_iter_values(["a\"\n".to_owned(), "ü".repeat(1000)]));
        let batch = RecordBatch::try_from_iter([("id", id), ("name", name)]).unwrap();
        assert_eq!(row_text(&batch, 0), r#"{"id":1,"name":"a\"\u{a}"}"#);
        let long = row_text(&batch, 1);
        assert!(long.starts_with(r#"{"id":null,"name":"üü"#), "{long}");
        assert!(long.len() <= TEXT_BYTES_MAX + 3 && long.ends_with('…'));
    }
}
