//! The columns of an archive's table, as Iceberg and Parquet have them.
//!
//! Owns: which Iceberg type each SQL type becomes, how columns that come later are added.
//!
//! Invariants
//! - A column keeps its field id for good; columns are found by name.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use evert_model::{Column, ColumnType, RowSchema};
use evert_view::{FACT_COLUMNS, facts_schema};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    ListType, NestedField, PrimitiveType, Schema, SchemaRef, Transform, Type, UnboundPartitionSpec,
};

use crate::error::{ArchiveError, Result};

/// The columns of the facts of a relation, checked to be such that Iceberg has.
pub(crate) fn columns(relation: &RowSchema) -> Result<RowSchema> {
    for column in &relation.columns {
        if FACT_COLUMNS.iter().any(|(name, _)| column.name.eq_ignore_ascii_case(name)) {
            let what = format!("column \"{}\": an archive has one of that name", column.name);
            return Err(ArchiveError::Invalid(what));
        }
        iceberg_type(column, 0)?;
    }
    Ok(facts_schema(relation))
}

/// The type of a column; the elements of an array are a field with an id of its own.
fn iceberg_type(column: &Column, element_id: i32) -> Result<Type> {
    match column.ty {
        ColumnType::Array(item) => {
            let element = Type::Primitive(primitive_type(column, item.column_type())?);
            let element = NestedField::list_element(element_id, element, false);
            Ok(Type::List(ListType::new(Arc::new(element))))
        }
        ty => primitive_type(column, ty).map(Type::Primitive),
    }
}

fn primitive_type(column: &Column, ty: ColumnType) -> Result<PrimitiveType> {
    let refuse = |what: &str| {
        Err(ArchiveError::Invalid(format!("column \"{}\": Iceberg has no {what}", column.name)))
    };
    Ok(match ty {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int16 | ColumnType::Int32 => PrimitiveType::Int,
        ColumnType::Int64 => PrimitiveType::Long,
        ColumnType::Float32 => PrimitiveType::Float,
        ColumnType::Float64 => PrimitiveType::Double,
        ColumnType::Decimal { precision, scale } => {
            let Ok(scale) = u32::try_from(scale) else { return refuse("negative scale") };
            PrimitiveType::Decimal { precision: precision.into(), scale }
        }
        ColumnType::Text | ColumnType::Json | ColumnType::Uuid => PrimitiveType::String,
        ColumnType::Bytes => PrimitiveType::Binary,
        ColumnType::Date => PrimitiveType::Date,
        ColumnType::Timestamp => PrimitiveType::Timestamp,
        ColumnType::TimestampTz => PrimitiveType::Timestamptz,
        ColumnType::Array(_) => return refuse("arrays of arrays here"),
    })
}

/// Whether a table's column is of a column's type, whatever the ids.
fn is_of_type(found: &Type, column: &Column) -> Result<bool> {
    let element_id = match found {
        Type::List(list) => list.element_field.id,
        _ => 0,
    };
    Ok(*found == iceberg_type(column, element_id)?)
}

/// A new field with the first id that is free, and the next one after it.
fn field(id: &mut i32, column: &Column) -> Result<Arc<NestedField>> {
    let ty = iceberg_type(column, *id + 1)?;
    let field = NestedField::new(*id, &column.name, ty, !column.nullable);
    *id += if matches!(column.ty, ColumnType::Array(_)) { 2 } else { 1 };
    Ok(Arc::new(match column.ty {
        ColumnType::Json => field.with_doc("json"),
        ColumnType::Uuid => field.with_doc("uuid"),
        _ => field,
    }))
}

/// A new table's schema.
pub(crate) fn new_schema(columns: &RowSchema) -> Result<Schema> {
    let mut id = 1;
    let fields = columns.columns.iter().map(|column| field(&mut id, column));
    let fields = fields.collect::<Result<Vec<_>>>()?;
    Schema::builder().with_fields(fields).build().map_err(ArchiveError::made)
}

/// The schema with the columns that it lacks, after those it has; `None` if it lacks none.
///
/// # Errors
/// When a column has another type now.
pub(crate) fn with_new_columns(
    schema: &Schema,
    columns: &RowSchema,
    last_id: i32,
) -> Result<Option<Schema>> {
    let mut fields = schema.as_struct().fields().to_vec();
    let (before, mut id) = (fields.len(), last_id + 1);
    for column in &columns.columns {
        match schema.field_by_name(&column.name) {
            Some(found) if is_of_type(&found.field_type, column)? => {}
            Some(_) => {
                let what = format!("column \"{}\" has another type in the archive", column.name);
                return Err(ArchiveError::Foreign(what));
            }
            None => fields.push(field(&mut id, column)?),
        }
    }
    if fields.len() == before {
        return Ok(None);
    }
    Schema::builder().with_fields(fields).build().map(Some).map_err(ArchiveError::made)
}

/// The names of a table's columns that a relation's facts do not have, or have as another type.
pub(crate) fn foreign_columns(schema: &Schema, columns: &RowSchema) -> Result<Vec<String>> {
    let mut foreign = Vec::new();
    for field in schema.as_struct().fields() {
        let column = columns.columns.iter().find(|column| column.name == field.name);
        let is_own = column.map(|column| is_of_type(&field.field_type, column)).transpose()?;
        if is_own != Some(true) {
            foreign.push(format!("\"{}\"", field.name));
        }
    }
    Ok(foreign)
}

/// How rows are parted: by the day of a column, or by a date itself.
pub(crate) fn partition_spec(schema: &Schema, column: &str) -> Result<UnboundPartitionSpec> {
    let source = schema.field_by_name(column);
    let source = source.ok_or_else(|| ArchiveError::Invalid(format!("no column \"{column}\"")))?;
    let spec = match *source.field_type {
        Type::Primitive(PrimitiveType::Date) => UnboundPartitionSpec::builder()
            .add_partition_field(source.id, column, Transform::Identity),
        _ => UnboundPartitionSpec::builder().add_partition_field(
            source.id,
            format!("{column}_day"),
            Transform::Day,
        ),
    };
    spec.map(|spec| spec.build()).map_err(ArchiveError::made)
}

/// A table's columns, in Iceberg's and Arrow's words.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) iceberg: SchemaRef,
    arrow: ArrowSchemaRef,
}

impl Shape {
    pub(crate) fn new(iceberg: &SchemaRef) -> Result<Self> {
        let arrow = schema_to_arrow_schema(iceberg).map_err(ArchiveError::made)?;
        Ok(Self { iceberg: Arc::clone(iceberg), arrow: Arc::new(arrow) })
    }

    /// Rows in the table's columns, found by name; those that the rows lack are NULL.
    pub(crate) fn convert(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns =
            self.arrow.fields().iter().map(|field| match rows.column_by_name(field.name()) {
                Some(column) => cast(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            });
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        columns
            .and_then(|columns| {
                RecordBatch::try_new_with_options(Arc::clone(&self.arrow), columns, &count)
            })
            .map_err(ArchiveError::made)
    }
}
