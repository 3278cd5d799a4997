//! What is the same in every Postgres database, from `datafusion-pg-catalog`: the catalogs of
//! types, operators and functions, and functions over them.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::ScalarUDF;
use datafusion_pg_catalog::pg_catalog::{
    PgCatalogStaticTables, array_bounds_udf, create_current_schemas_udf,
    create_pg_encoding_to_char_udf, create_pg_get_partition_ancestors_udf,
    create_pg_get_partkeydef_udf, create_pg_get_statisticsobjdef_columns_udf,
    create_pg_relation_is_publishable_udf, create_pg_relation_size_udf,
    create_pg_total_relation_size_udf, format_type, has_privilege_udf, quote_ident_udf,
};
use evert_view::Name;

use super::catalog::XMIN;
use super::{server, settings, sizes, vectors};

static FIXED: LazyLock<PgCatalogStaticTables> =
    LazyLock::new(|| PgCatalogStaticTables::try_new().expect("the library's own files are sound"));

/// A catalog that is the same in every database.
pub(super) struct Fixed {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
}

/// The catalog of a name, and its name in full.
pub(super) fn table(name: &Name) -> Option<(Name, Fixed)> {
    if super::schema(name) != "pg_catalog" {
        return None;
    }
    macro_rules! by_name {
        ($($table:ident)*) => {
            match name.name.as_str() {
                $(stringify!($table) => &FIXED.$table,)*
                _ => return None,
            }
        };
    }
    let table = by_name! {
        pg_aggregate pg_am pg_amop pg_amproc pg_cast pg_collation pg_conversion pg_language
        pg_opclass pg_operator pg_opfamily pg_proc pg_range pg_ts_config pg_ts_dict pg_ts_parser
        pg_ts_template pg_type pg_attrdef pg_auth_members pg_db_role_setting pg_default_acl
        pg_depend pg_description pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper
        pg_foreign_server pg_foreign_table pg_inherits pg_init_privs pg_largeobject
        pg_partitioned_table pg_policy pg_publication pg_publication_namespace pg_publication_rel
        pg_replication_origin pg_rewrite pg_seclabel pg_sequence pg_shdepend pg_shdescription
        pg_shseclabel pg_statistic pg_statistic_ext pg_statistic_ext_data pg_subscription
        pg_subscription_rel pg_tablespace pg_trigger pg_user_mapping
    };
    let schema = schema(&table.schema());
    let batches = table.data().iter().map(|batch| with_xmin(batch, &schema)).collect();
    Some((Name::new("pg_catalog", &name.name), Fixed { schema, batches }))
}

/// The columns as Postgres 15 has them, from those of a later one, and `xmin`.
fn schema(later: &Schema) -> SchemaRef {
    let named = |field: &Arc<Field>| match field.name().as_str() {
        "colllocale" => Arc::new(field.as_ref().clone().with_name("colliculocale")),
        _ => Arc::clone(field),
    };
    let xmin = Arc::new(Field::new("xmin", DataType::Int64, true));
    Arc::new(Schema::new(later.fields().iter().map(named).chain([xmin]).collect::<Vec<_>>()))
}

fn with_xmin(batch: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let xmin: ArrayRef = Arc::new(Int64Array::from_value(XMIN, batch.num_rows()));
    let columns = batch.columns().iter().cloned().chain([xmin]).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).expect("a column for each field")
}

/// Functions that clients call in catalog queries and that need no more than their arguments.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let privileges = [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_column_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "pg_has_role",
    ];
    let mut functions = vec![
        format_type::create_format_type_udf(),
        create_current_schemas_udf(),
        create_pg_get_partkeydef_udf(),
        create_pg_relation_is_publishable_udf(),
        create_pg_get_statisticsobjdef_columns_udf(),
        create_pg_encoding_to_char_udf(),
        create_pg_relation_size_udf(),
        create_pg_total_relation_size_udf(),
        create_pg_get_partition_ancestors_udf(),
        quote_ident_udf::create_parse_ident_udf(),
        array_bounds_udf::create_array_upper_udf(),
        array_bounds_udf::create_array_lower_udf(),
    ];
    functions.extend(privileges.map(has_privilege_udf::create_has_privilege_udf));
    functions.extend(vectors::functions());
    functions.extend([settings::function(), sizes::function(), server::not_replaying()]);
    functions
}
