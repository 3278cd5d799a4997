//! Mappings: which columns an index holds, as what.
//!
//! Owns: the types that columns have in an index, the index's own fields, and the mapping as
//! Elasticsearch's clients see it.
//!
//! Invariants
//! - The names inside an index are made of column numbers, so that no column's name can collide
//!   with another's subfield or with a field of the index's own.

use evert_model::{ColumnType, RowSchema};
use evert_view::PlanError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tantivy::schema::DateTimePrecision;
use tantivy::schema::{
    DateOptions, FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, SchemaBuilder,
    TextFieldIndexing, TextOptions,
};

use crate::analyzer::STANDARD;

/// Longer values are not searchable as a keyword. (Lucene's limit of a term)
pub(crate) const KEYWORD_BYTES_MAX: usize = 32_766;

/// What a column is in an index, by Elasticsearch's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldKind {
    /// Words, with a subfield `keyword`.
    Text,
    Keyword,
    Long,
    Double,
    Boolean,
    Date,
}

impl FieldKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Keyword => "keyword",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }

    /// What a column is unless it is said otherwise; nothing if it cannot be searched.
    fn of(ty: ColumnType) -> Option<Self> {
        Some(match ty {
            ColumnType::Text | ColumnType::Json => Self::Text,
            ColumnType::Uuid => Self::Keyword,
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => Self::Long,
            ColumnType::Float32 | ColumnType::Float64 | ColumnType::Decimal { .. } => Self::Double,
            ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => Self::Date,
            ColumnType::Bytes => return None,
            // Each element is a value of the field, as in Elasticsearch.
            ColumnType::Array(item) => return Self::of(item.column_type()),
        })
    }

    /// Whether a column of this type can be this.
    fn takes(self, ty: ColumnType) -> bool {
        if let ColumnType::Array(item) = ty {
            return self.takes(item.column_type());
        }
        let digits = matches!(ty, ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64);
        let text = matches!(ty, ColumnType::Text | ColumnType::Json | ColumnType::Uuid);
        match self {
            Self::Text | Self::Keyword => text || digits,
            kind => Self::of(ty) == Some(kind),
        }
    }

    fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "text" => Self::Text,
            "keyword" => Self::Keyword,
            "long" | "integer" | "short" => Self::Long,
            "double" | "float" | "scaled_float" => Self::Double,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            _ => return None,
        })
    }

    pub(crate) fn is_text_like(self) -> bool {
        matches!(self, Self::Text | Self::Keyword)
    }
}

/// One column of an index, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FieldDef {
    pub(crate) column: String,
    #[serde(rename = "type")]
    pub(crate) kind: FieldKind,
}

/// What the catalog keeps of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexOptions {
    pub(crate) fields: Vec<FieldDef>,
}

/// What the statement says: `(columns) WITH (column='type', ...)`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    columns: Vec<String>,
    with: Map<String, Value>,
}

impl IndexOptions {
    /// Reads what CREATE SEARCH INDEX says about a relation's columns.
    ///
    /// # Errors
    /// When a column does not exist or cannot be what is said.
    pub(crate) fn plan(options: &Value, rows: &RowSchema) -> Result<Self, PlanError> {
        let refuse = |message: String| Err(refused("22023", message));
        let wanted: Wanted = match serde_json::from_value(options.clone()) {
            Ok(wanted) => wanted,
            Err(error) => return refuse(format!("the options cannot be read: {error}")),
        };
        let mut fields: Vec<FieldDef> = Vec::new();
        if wanted.columns.is_empty() {
            let all = rows.columns.iter().filter_map(|column| {
                Some(FieldDef { column: column.name.clone(), kind: FieldKind::of(column.ty)? })
            });
            fields.extend(all);
        }
        for name in &wanted.columns {
            let Some(index) = rows.index_of(name) else {
                return Err(refused("42703", format!("column \"{name}\" does not exist")));
            };
            if fields.iter().any(|field| field.column == *name) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(refused("42701", message));
            }
            let ty = rows.columns[index].ty;
            let Some(kind) = FieldKind::of(ty) else {
                let message =
                    format!("column \"{name}\" of type {} cannot be searched", ty.sql_name());
                return Err(refused("42804", message));
            };
            fields.push(FieldDef { column: name.clone(), kind });
        }
        for (name, value) in &wanted.with {
            let Some(field) = fields.iter_mut().find(|field| field.column == *name) else {
                return refuse(format!(
                    "option \"{name}\" names no column of the index: options give columns a \
                     type, as in email='text'"
                ));
            };
            let ty = rows.columns[rows.index_of(name).expect("its field was found")].ty;
            let kind = value.as_str().and_then(FieldKind::named);
            match kind.filter(|kind| kind.takes(ty)) {
                Some(kind) => field.kind = kind,
                None => {
                    return refuse(format!(
                        "column \"{name}\" of type {} cannot be {value}: use one of {}",
                        ty.sql_name(),
                        kinds_for(ty)
                    ));
                }
            }
        }
        if fields.is_empty() {
            return refuse("a search index needs a column that can be searched".into());
        }
        Ok(Self { fields })
    }
}

fn refused(sqlstate: &'static str, message: String) -> PlanError {
    PlanError { sqlstate, message, hint: None }
}

fn kinds_for(ty: ColumnType) -> String {
    let all = [
        FieldKind::Text,
        FieldKind::Keyword,
        FieldKind::Long,
        FieldKind::Double,
        FieldKind::Boolean,
        FieldKind::Date,
    ];
    let kinds = all.into_iter().filter(|kind| kind.takes(ty));
    kinds.map(|kind| format!("'{}'", kind.word())).collect::<Vec<_>>().join(", ")
}

/// A column in an index.
#[derive(Clone, Debug)]
pub(crate) struct IndexField {
    /// The column's name.
    pub(crate) name: String,
    /// Its index in the relation.
    pub(crate) column: usize,
    pub(crate) ty: ColumnType,
    pub(crate) kind: FieldKind,
    pub(crate) field: Field,
    /// The subfield `keyword` of a text.
    pub(crate) keyword: Option<Field>,
}

/// A field that a query may name: a column, or a text's subfield.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldRef<'a> {
    /// What answers call it.
    pub(crate) column: &'a IndexField,
    pub(crate) kind: FieldKind,
    pub(crate) field: Field,
}

impl FieldRef<'_> {
    /// As clients call it.
    pub(crate) fn name(&self) -> String {
        match self.kind == FieldKind::Keyword && self.column.kind == FieldKind::Text {
            true => format!("{}.keyword", self.column.name),
            false => self.column.name.clone(),
        }
    }

    /// What the column of values is called inside the index.
    pub(crate) fn inner(&self) -> String {
        match Some(self.field) == self.column.keyword {
            true => keyword_name(self.column.column),
            false => field_name(self.column.column),
        }
    }
}

fn field_name(column: usize) -> String {
    format!("c{column}")
}

fn keyword_name(column: usize) -> String {
    format!("k{column}")
}

/// What an index holds.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) schema: Schema,
    pub(crate) rows: RowSchema,
    pub(crate) fields: Vec<IndexField>,
    /// The key's text.
    pub(crate) id: Field,
    /// The row as JSON.
    pub(crate) source: Field,
    /// Names of fields whose value is there and not searchable.
    pub(crate) ignored: Field,
    /// The row's hash, where rows have no key.
    pub(crate) row: Option<Field>,
}

/// The field `_id` inside an index.
pub(crate) const ID: &str = "_id";

impl Mapping {
    /// The mapping of a relation with these columns; `None` if a column is not there any more.
    pub(crate) fn new(options: &IndexOptions, rows: &RowSchema) -> Option<Self> {
        let mut schema = Schema::builder();
        let id = schema.add_text_field(ID, STRING | STORED | FAST);
        let source = schema.add_text_field("_source", STORED);
        let ignored = schema.add_text_field("_ignored", STRING);
        let row = rows.key.is_empty().then(|| schema.add_text_field("_row", STRING));
        let mut fields = Vec::with_capacity(options.fields.len());
        for def in &options.fields {
            let column = rows.index_of(&def.column)?;
            let ty = rows.columns[column].ty;
            if !def.kind.takes(ty) {
                return None;
            }
            let (field, keyword) = add_field(&mut schema, column, def.kind);
            let (name, kind) = (def.column.clone(), def.kind);
            fields.push(IndexField { name, column, ty, kind, field, keyword });
        }
        let rows = rows.clone();
        Some(Self { schema: schema.build(), rows, fields, id, source, ignored, row })
    }

    /// The column or subfield of this name.
    pub(crate) fn field(&self, name: &str) -> Option<FieldRef<'_>> {
        if let Some(column) = self.fields.iter().find(|field| field.name == name) {
            return Some(FieldRef { column, kind: column.kind, field: column.field });
        }
        let column = name.strip_suffix(".keyword")?;
        let column = self.fields.iter().find(|field| field.name == column)?;
        let field = column.keyword?;
        Some(FieldRef { column, kind: FieldKind::Keyword, field })
    }

    /// A reference to a column.
    pub(crate) fn main<'a>(&self, column: &'a IndexField) -> FieldRef<'a> {
        FieldRef { column, kind: column.kind, field: column.field }
    }

    /// What two indexes must have in common to hold the same.
    pub(crate) fn fingerprint(&self) -> Value {
        let fields = self.fields.iter().map(|field| json!([field.name, field.kind]));
        json!({ "format": 1, "rows": self.rows, "fields": fields.collect::<Vec<_>>() })
    }

    /// As `_mapping` shows it.
    pub(crate) fn show(&self) -> Value {
        let properties = self.fields.iter().map(|field| {
            let mut shown = json!({ "type": field.kind.word() });
            if field.keyword.is_some() {
                shown["fields"] =
                    json!({ "keyword": { "type": "keyword", "ignore_above": KEYWORD_BYTES_MAX } });
            }
            (field.name.clone(), shown)
        });
        json!({ "dynamic": "strict", "properties": properties.collect::<Map<_, _>>() })
    }
}

fn add_field(schema: &mut SchemaBuilder, column: usize, kind: FieldKind) -> (Field, Option<Field>) {
    let name = field_name(column);
    let keyword = STRING | FAST;
    match kind {
        FieldKind::Text => {
            let words = TextFieldIndexing::default()
                .set_tokenizer(STANDARD)
                .set_index_option(IndexRecordOption::WithFreqsAndPositions);
            let options = TextOptions::default().set_indexing_options(words);
            let field = schema.add_text_field(&name, options);
            (field, Some(schema.add_text_field(&keyword_name(column), keyword)))
        }
        FieldKind::Keyword => (schema.add_text_field(&name, keyword), None),
        FieldKind::Long => (schema.add_i64_field(&name, INDEXED | FAST), None),
        FieldKind::Double => (schema.add_f64_field(&name, FAST), None),
        FieldKind::Boolean => (schema.add_bool_field(&name, INDEXED | FAST), None),
        FieldKind::Date => {
            let options =
                DateOptions::default().set_fast().set_precision(DateTimePrecision::Microseconds);
            (schema.add_date_field(&name, options), None)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use evert_model::{Column, ItemType};

    use super::*;

    pub(crate) fn payments() -> RowSchema {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        RowSchema {
            columns: vec![
                column("payment_id", ColumnType::Text),
                column("email", ColumnType::Text),
                column("status", ColumnType::Text),
                column("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
                column("attempts", ColumnType::Int32),
                column("live", ColumnType::Boolean),
                column("paid_at", ColumnType::TimestampTz),
                column("card", ColumnType::Bytes),
                column("tags", ColumnType::Array(ItemType::Text)),
                column("parts", ColumnType::Array(ItemType::Int64)),
            ],
            key: vec![0],
        }
    }

    pub(crate) fn mapping() -> Mapping {
        let with = json!({ "with": { "status": "keyword", "payment_id": "keyword" } });
        let options = IndexOptions::plan(&with, &payments()).unwrap();
        Mapping::new(&options, &payments()).unwrap()
    }

    #[test]
    fn columns_have_types_by_default_and_on_request() {
        let shown = mapping().show();
        let properties = &shown["properties"];
        assert_eq!(properties["email"]["type"], "text");
        assert_eq!(properties["email"]["fields"]["keyword"]["type"], "keyword");
        assert_eq!(properties["status"], json!({ "type": "keyword" }));
        assert_eq!(properties["amount"]["type"], "double");
        assert_eq!(properties["attempts"]["type"], "long");
        assert_eq!(properties["live"]["type"], "boolean");
        assert_eq!(properties["paid_at"]["type"], "date");
        assert_eq!(properties.get("card"), None);
        assert_eq!(properties["tags"]["type"], "text");
        assert_eq!(properties["parts"]["type"], "long");
    }

    #[test]
    fn subfields_are_found_and_have_names_of_their_own() {
        let mapping = mapping();
        let email = mapping.field("email.keyword").unwrap();
        assert_eq!((email.name().as_str(), email.inner().as_str()), ("email.keyword", "k1"));
        assert!(mapping.field("status.keyword").is_none());
        assert!(mapping.field("card").is_none());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let cases = [
            (json!({ "columns": ["nope"] }), "column \"nope\" does not exist"),
            (json!({ "columns": ["card"] }), "cannot be searched"),
            (json!({ "columns": ["email", "email"] }), "more than once"),
            (json!({ "columns": ["email"], "with": { "status": "text" } }), "names no column"),
            (json!({ "with": { "amount": "text" } }), "use one of 'double'"),
            (json!({ "with": { "email": "nested" } }), "use one of 'text', 'keyword'"),
        ];
        for (options, expected) in cases {
            let error = IndexOptions::plan(&options, &payments()).unwrap_err();
            assert!(error.to_string().contains(expected), "{options}: {error}");
        }
    }
}
