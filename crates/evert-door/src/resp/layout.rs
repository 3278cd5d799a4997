//! Layouts: how the rows of a relation or view are keys and hashes.
//!
//! Owns: key text to key bytes and back, columns to fields.
//! Not here: which row is meant (`reader`).
//!
//! Invariant: the key that is written for a row is read as the same row.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Decimal128Type, Int16Type, Int32Type, Int64Type, SchemaRef};
use bytes::BytesMut;
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::{Name, RowRef, Snapshot, key_bytes};

use super::key::{escape, prefix, unescape, unescaped};
use super::reply::{Out, decimal, scaled};
use super::request::integer;
use crate::pg::text;

/// How the rows of a relation or view are shown.
pub(crate) struct Layout {
    pub(super) name: Name,
    /// That of the rows: as long as it is the same, so is the layout.
    pub(super) schema: SchemaRef,
    pub(super) fields: Vec<Field>,
    /// The places of the key's columns, in the key's order.
    key: Vec<usize>,
    /// What every key begins with.
    prefix: Vec<u8>,
}

/// A column as a field of a hash.
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    /// The name as a reply.
    label: Vec<u8>,
    /// Its type, if its values are in the type's one physical form.
    ty: Option<ColumnType>,
}

impl Layout {
    /// `None` if the rows have no key.
    pub(crate) fn new(name: Name, snapshot: &Snapshot) -> Option<Self> {
        let schema = snapshot.schema();
        let fields = schema.fields().iter().map(|field| {
            let name = field.name().as_bytes().to_vec();
            let label = [format!("${}\r\n", name.len()).as_bytes(), &name, b"\r\n"].concat();
            let ty = ColumnType::of_field(field);
            let ty = ty.filter(|ty| ty.arrow_type() == *field.data_type());
            Field { name, label, ty }
        });
        let (fields, key) = (fields.collect(), snapshot.key()?.to_vec());
        let prefix = prefix(&name);
        Some(Self { name, schema: schema.clone(), fields, key, prefix })
    }

    pub(super) fn is_of(&self, snapshot: &Snapshot) -> bool {
        std::sync::Arc::ptr_eq(&self.schema, snapshot.schema())
    }

    /// The row that has the key's text; `room` is for its bytes.
    pub(crate) fn find<'a>(
        &self,
        snapshot: &'a Snapshot,
        key: &[u8],
        room: &mut Vec<u8>,
    ) -> Option<RowRef<'a>> {
        self.key_of(snapshot, key, room)?;
        snapshot.row(room)
    }

    /// Makes the bytes of a key's text; `None` if no row can have that key.
    pub(crate) fn key_of(&self, snapshot: &Snapshot, key: &[u8], out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        match self.key.as_slice() {
            [] => return key.is_empty().then_some(()),
            [column] => {
                if let Pushed::Arrays = self.push_key(*column, key, out)? {
                    *out = self.key_of_arrays(snapshot, &[key])?;
                }
            }
            columns => {
                let parts = parts(key, columns.len())?;
                for (&column, part) in columns.iter().zip(&parts) {
                    if let Pushed::Arrays = self.push_key(column, part, out)? {
                        *out = self.key_of_arrays(snapshot, &parts)?;
                        break;
                    }
                }
            }
        }
        Some(())
    }

    /// Appends the key bytes of a value; `None` if the column has no such value.
    fn push_key(&self, column: usize, part: &[u8], out: &mut Vec<u8>) -> Option<Pushed> {
        let null = part == b"\\N";
        match self.fields[column].ty {
            Some(ColumnType::Text | ColumnType::Json) if null => key_bytes::push_null(0, out),
            Some(ColumnType::Int64) if null => key_bytes::push_null(8, out),
            Some(ColumnType::Int32) if null => key_bytes::push_null(4, out),
            Some(ColumnType::Int16) if null => key_bytes::push_null(2, out),
            Some(ColumnType::Text | ColumnType::Json) if part.contains(&b'\\') => {
                let mut plain = Vec::new();
                unescape(part, &mut plain);
                key_bytes::push_bytes(&plain, out);
            }
            Some(ColumnType::Text | ColumnType::Json) => key_bytes::push_bytes(part, out),
            Some(ColumnType::Int64) => key_bytes::push_i64(integer(part)?, out),
            Some(ColumnType::Int32) => {
                key_bytes::push_i32(i32::try_from(integer(part)?).ok()?, out);
            }
            Some(ColumnType::Int16) => {
                key_bytes::push_i16(i16::try_from(integer(part)?).ok()?, out);
            }
            _ => return Some(Pushed::Arrays),
        }
        Some(Pushed::Done)
    }

    fn key_of_arrays(&self, snapshot: &Snapshot, parts: &[&[u8]]) -> Option<Vec<u8>> {
        snapshot.key_bytes(&self.values_of_parts(parts)?)
    }

    /// The values of a key's text, in the key's order, each as an array of one; `None` if no row
    /// can have that key.
    pub(crate) fn values_of(&self, key: &[u8]) -> Option<Vec<ArrayRef>> {
        match self.key.as_slice() {
            [] => key.is_empty().then(Vec::new),
            [_] => self.values_of_parts(&[key]),
            columns => self.values_of_parts(&parts(key, columns.len())?),
        }
    }

    fn values_of_parts(&self, parts: &[&[u8]]) -> Option<Vec<ArrayRef>> {
        let value = |(&column, part): (&usize, &&[u8])| -> Option<ArrayRef> {
            let ty = self.fields[column].ty?;
            if *part == b"\\N" {
                return Some(new_null_array(&ty.arrow_type(), 1));
            }
            let mut plain = Vec::new();
            unescape(part, &mut plain);
            text::read_value(ty, &plain).ok()
        };
        self.key.iter().zip(parts).map(value).collect()
    }

    /// Appends a row's key: name, colon and values.
    pub(crate) fn write_key(&self, rows: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let columns: Vec<_> =
            self.key.iter().map(|&column| (column, rows.column(column))).collect();
        self.write_key_of(&columns, row, out);
    }

    /// The same of a batch of the key's columns only.
    pub(super) fn write_projected_key(&self, keys: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let columns: Vec<_> = self.key.iter().copied().zip(keys.columns()).collect();
        self.write_key_of(&columns, row, out);
    }

    fn write_key_of(&self, columns: &[(usize, &ArrayRef)], row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        let special: &[u8] = if columns.len() > 1 { b":" } else { b"" };
        let mut value = BytesMut::new();
        for (index, (column, values)) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b':');
            }
            if values.is_null(row) {
                out.extend_from_slice(b"\\N");
                continue;
            }
            value.clear();
            self.write_text(*column, values, row, &mut value);
            escape(&value, special, out);
        }
    }

    /// The places of the key's columns.
    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }

    /// What every key begins with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The place of a field.
    pub(super) fn field(&self, name: &[u8]) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The fields that a row has: NULL is none.
    pub(super) fn present<'a>(&'a self, found: RowRef<'a>) -> impl Iterator<Item = usize> + 'a {
        let columns = found.rows.columns().iter().enumerate();
        columns.filter(move |(_, values)| !values.is_null(found.row)).map(|(column, _)| column)
    }

    pub(super) fn write_label(&self, column: usize, out: &mut Out) {
        out.raw(&self.fields[column].label);
    }

    /// A field's value as a reply.
    pub(super) fn write_value(&self, column: usize, found: RowRef<'_>, out: &mut Out) {
        let (values, row) = (found.rows.column(column), found.row);
        if values.is_null(row) {
            return out.null();
        }
        let mut digits = [0; 20];
        match self.fields[column].ty {
            Some(ColumnType::Text | ColumnType::Json | ColumnType::Uuid) => {
                out.bulk(values.as_string_view().value(row).as_bytes());
            }
            Some(ColumnType::Int64) => {
                out.bulk(decimal(values.as_primitive::<Int64Type>().value(row), &mut digits));
            }
            Some(ColumnType::Int32) => {
                let value = values.as_primitive::<Int32Type>().value(row);
                out.bulk(decimal(value.into(), &mut digits));
            }
            Some(ColumnType::Int16) => {
                let value = values.as_primitive::<Int16Type>().value(row);
                out.bulk(decimal(value.into(), &mut digits));
            }
            Some(ColumnType::Decimal { scale: scale @ 0..=38, .. }) => {
                let value = values.as_primitive::<Decimal128Type>().value(row);
                match i64::try_from(value) {
                    Ok(value) => out.bulk(scaled(value, scale as usize, &mut [0; 64])),
                    Err(_) => self.write_long(column, values, row, out),
                }
            }
            _ => self.write_long(column, values, row, out),
        }
    }

    /// A value whose text is made before its length is known.
    fn write_long(&self, column: usize, values: &ArrayRef, row: usize, out: &mut Out) {
        let mut value = BytesMut::new();
        self.write_shown(column, values, row, &mut value);
        out.bulk(&value);
    }

    /// A field's value: an array as JSON, which readers of hashes know best.
    fn write_shown(&self, column: usize, values: &ArrayRef, row: usize, out: &mut BytesMut) {
        let Some(ty @ ColumnType::Array(_)) = self.fields[column].ty else {
            return self.write_text(column, values, row, out);
        };
        let mut json = String::new();
        evert_view::write_text(values, ty, row, &mut json);
        out.extend_from_slice(json.as_bytes());
    }

    /// The length of a field's value; 0 if it has none.
    pub(super) fn text_bytes(&self, column: usize, found: RowRef<'_>) -> usize {
        let values = found.rows.column(column);
        let mut text = BytesMut::new();
        if !values.is_null(found.row) {
            self.write_shown(column, values, found.row, &mut text);
        }
        text.len()
    }

    fn write_text(&self, column: usize, values: &ArrayRef, row: usize, out: &mut BytesMut) {
        match self.fields[column].ty {
            Some(ty) => text::write_value(values, ty, row, out),
            None => {
                let field = self.schema.field(column);
                if let Err(error) = text::write_any(field, values, row, out) {
                    tracing::error!(view = %self.name, %error, "resp: a value cannot be shown");
                }
            }
        }
    }

    /// The rows' schema as the catalog would have it, if every column is of one of its types.
    pub(super) fn row_schema(&self) -> Option<RowSchema> {
        let fields = self.fields.iter().zip(self.schema.fields());
        let columns = fields.map(|(field, arrow)| {
            Some(Column { name: arrow.name().clone(), ty: field.ty?, nullable: true })
        });
        Some(RowSchema { columns: columns.collect::<Option<_>>()?, key: self.key.clone() })
    }
}

enum Pushed {
    Done,
    /// The type's key bytes are made by way of arrays.
    Arrays,
}

/// The values of a key of several columns; `None` if there are more or fewer.
fn parts(mut key: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::with_capacity(count);
    while let Some(at) = unescaped(key, b':') {
        parts.push(&key[..at]);
        key = &key[at + 1..];
        if parts.len() == count {
            return None;
        }
    }
    parts.push(key);
    (parts.len() == count).then_some(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Date32Array, Float64Array, Int32Array, StringViewArray};
    use evert_fold::Arrangement;
    use evert_model::Delta;

    use super::*;
    use crate::resp::key::split;

    fn snapshot(columns: &[(&str, ArrayRef)], key: Vec<usize>) -> Snapshot {
        let rows = RecordBatch::try_from_iter(columns.iter().cloned()).expect("columns");
        let mut rows_by_key = Arrangement::keyed(rows.schema(), key);
        rows_by_key.apply(&[Delta::inserts(rows)]);
        rows_by_key.snapshot()
    }

    /// Every row's key, each of which is read as that row again.
    fn keys(snapshot: &Snapshot) -> Vec<String> {
        let layout = Layout::new(Name::public("v"), snapshot).expect("a key");
        let mut keys = Vec::new();
        for found in snapshot.rows_after(None, 100) {
            let mut key = Vec::new();
            layout.write_key(found.rows, found.row, &mut key);
            let (name, rest) = split(&key);
            assert_eq!(name, b"v");
            let again = layout.find(snapshot, rest, &mut Vec::new()).expect("it is there");
            assert_eq!(again.key, found.key, "{}", key.escape_ascii());
            let values = layout.values_of(rest).expect("a key's values");
            assert_eq!(snapshot.key_bytes(&values).as_deref(), Some(found.key));
            keys.push(String::from_utf8(key).expect("text"));
        }
        keys
    }

    #[test]
    fn keys_of_one_column_keep_their_colons() {
        let texts =
            StringViewArray::from(vec![Some("a:b"), Some("\\N"), None, Some(""), Some("é")]);
        let snapshot = snapshot(&[("k", Arc::new(texts))], vec![0]);
        assert_eq!(keys(&snapshot), ["v:\\N", "v:", "v:\\\\N", "v:a:b", "v:é"]);
    }

    #[test]
    fn keys_of_several_columns_of_any_type() {
        let columns: [(&str, ArrayRef); 5] = [
            ("x", Arc::new(Float64Array::from(vec![1.5, -0.0]))),
            ("t", Arc::new(StringViewArray::from(vec!["a:b\\", "c"]))),
            ("i", Arc::new(Int32Array::from(vec![Some(-7), None]))),
            ("d", Arc::new(Date32Array::from(vec![0, 1]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        let snapshot = snapshot(&columns, vec![1, 2, 3, 4, 0]);
        assert_eq!(keys(&snapshot), ["v:a\\:b\\\\:-7:1970-01-01:t:1.5", "v:c:\\N:1970-01-02:f:-0"]);
        let layout = Layout::new(Name::public("v"), &snapshot).expect("a key");
        let mut room = Vec::new();
        for absent in ["", "c", "c:\\N:1970-01-02:f:-0:", "c:x:1970-01-02:f:-0", "c:\\N:y:f:-0"] {
            assert!(layout.find(&snapshot, absent.as_bytes(), &mut room).is_none(), "{absent}");
        }
    }
}
